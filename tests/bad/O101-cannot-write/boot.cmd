bootm
