setenv bootm_size 0x30000000
bootm 0x78700000
