#!/usr/bin/env bash
# The best shell script for the work that `cargo xtask perf` measures: the tools that people use today, as many
# at once as pays. Works in the current directory, where the inputs are.
#   shell.sh pack     inputs -> shell/ (parts, SHA256SUMS, manifest.json, signature) and shell.tar
#   shell.sh verify   shell.tar -> checked
set -euo pipefail
export SOURCE_DATE_EPOCH=1700000000 LC_ALL=C
parts=(uImage rootfs.uboot hv.uImage hv.dtb boot.scr)

pack() {
    rm -rf shell.new && mkdir shell.new
    image() { mkimage -A ppc -O linux -a 0 -e 0 "$@" > /dev/null; }
    image -T ramdisk -C gzip -n rootfs -d rootfs.gz shell.new/rootfs.uboot &
    local large=$!
    image -T kernel -C gzip -n linux -d kernel.gz shell.new/uImage
    image -T kernel -C none -n hv -d hv.bin shell.new/hv.uImage
    image -T script -C none -n boot -d boot.cmd shell.new/boot.scr
    dtc -q -O dtb -o shell.new/hv.dtb hv.dts
    cd shell.new
    # The small parts are hashed while the large one is still written.
    sha256sum uImage hv.uImage hv.dtb boot.scr > small
    wait "$large"
    { sha256sum rootfs.uboot; cat small; } > SHA256SUMS
    rm small
    {
        printf '{\n  "board": "perf",\n  "parts": [\n'
        while read -r hash name; do
            printf '    { "name": "%s", "sha256": "%s", "size": %s },\n' "$name" "$hash" "$(stat -c %s "$name")"
        done < SHA256SUMS
        printf '    {}\n  ],\n  "profile": "two-linux"\n}\n'
    } > manifest.json
    ssh-keygen -q -Y sign -n citrine-bundle -f ../key manifest.json 2> /dev/null
    tar --format=ustar --owner=0 --group=0 --numeric-owner --mode=0644 --mtime=@1700000000 -cf ../shell.tar.new \
        manifest.json manifest.json.sig "${parts[@]}" SHA256SUMS
    cd ..
    mv shell.tar.new shell.tar
    rm -rf shell && mv shell.new shell
}

verify() {
    rm -rf checked && mkdir checked
    tar -xf shell.tar -C checked
    cd checked
    ssh-keygen -q -Y verify -n citrine-bundle -f ../allowed_signers -I perf -s manifest.json.sig < manifest.json > /dev/null
    # The hashes come from the signed text; the large part is hashed beside the small ones.
    local sums
    sums=$(sed -n 's/.*"name": "\([^"]*\)", "sha256": "\([0-9a-f]*\)".*/\2  \1/p' manifest.json)
    grep rootfs <<< "$sums" | sha256sum --quiet -c - &
    local large=$!
    grep -v rootfs <<< "$sums" | sha256sum --quiet -c -
    wait "$large"
}

"$1"
