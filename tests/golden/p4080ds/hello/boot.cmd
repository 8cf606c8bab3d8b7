# Boots hello on p4080ds from RAM. Generated from templates/boot.cmd.j2.
#
# Fetches the parts by TFTP from the directory $citrine_dir (default p4080ds-hello),
# unless citrine_loaded is set: then they lie at their addresses already.
setenv bootm_size 0x30000000
setenv citrine_state failed
if test -n "$citrine_loaded"; then
	echo citrine: parts are loaded already
	setenv citrine_state loaded
else
	test -n "$citrine_dir" || setenv citrine_dir p4080ds-hello
	echo citrine: loading from $citrine_dir
	if tftp 0x78020000 $citrine_dir/kernel.uImage && tftp 0x78700000 $citrine_dir/hv.uImage && tftp 0x78800000 $citrine_dir/p4080ds.dtb && tftp 0x78900000 $citrine_dir/hv.dtb; then
		setenv citrine_state loaded
	fi
fi
if test "$citrine_state" = loaded; then
	echo citrine: checking the parts
	if iminfo 0x78020000 && iminfo 0x78700000; then
		if fdt addr 0x78800000 && fdt addr 0x78900000; then
			setenv citrine_state checked
		fi
	fi
fi
if test "$citrine_state" = checked; then
	setenv bootargs 'config-addr=0x78900000 console=ttyS0,115200'
	echo citrine: boot script $citrine_state, starting hv.uImage
	bootm 0x78700000 - 0x78800000
	setenv citrine_state refused
fi
echo citrine: boot script $citrine_state, nothing was started
