# Boots hello on p4080ds from NOR flash. Generated from templates/boot.cmd.j2.
setenv bootm_size 0x30000000
setenv citrine_state loaded
if test "$citrine_state" = loaded; then
	echo citrine: checking the parts
	if iminfo 0xe8020000 && iminfo 0xe8700000; then
		if fdt addr 0xe8800000 && fdt addr 0xe8900000; then
			setenv citrine_state checked
		fi
	fi
fi
if test "$citrine_state" = checked; then
	setenv bootargs 'config-addr=0xfe8900000 console=ttyS0,115200'
	echo citrine: boot script $citrine_state, starting hv.uImage
	bootm 0xe8700000 - 0xe8800000
	setenv citrine_state refused
fi
echo citrine: boot script $citrine_state, nothing was started
