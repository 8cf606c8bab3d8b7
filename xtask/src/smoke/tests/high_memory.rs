//! Memory of a partition that its kernel does not map itself: all of it is what it says, also for programs that
//! run there and for the instructions that the hypervisor must read there.
//!
//! A 32-bit Linux maps the first 768 MiB of its memory. What lies above (`HighTotal`) is the first that its programs
//! and files get.

use std::time::Instant;

use super::shell::{self, shell};
use super::*;
use crate::smoke::boot::Reported;
use crate::smoke::system::{Guest, System};

/// A program that ends with what the processor version register has in bits 8 to 15 of its upper half. Reading it
/// is privileged: the hypervisor looks at the instruction, then the guest's kernel does, which emulates it.
fn program() -> Vec<u8> {
    const BASE: u32 = 0x1000_0000;
    const CODE: [u32; 4] = [
        0x7c7f_42a6, // mfpvr r3
        0x5463_843e, // srwi r3,r3,16
        0x3800_0001, // li r0,1: exit
        0x4400_0002, // sc
    ];
    let head: [u8; 16] = *b"\x7fELF\x01\x02\x01\0\0\0\0\0\0\0\0\0";
    let len = 52 + 32 + 4 * CODE.len() as u32;
    // ET_EXEC, EM_PPC; version, entry, program headers at 52; sizes and numbers of headers.
    let elf = [2 << 16 | 20, 1, BASE + 84, 52, 0, 0, 52 << 16 | 32, 1 << 16, 0];
    // PT_LOAD, the file from its begin, to be read and executed.
    let load = [1, 0, BASE, BASE, len, len, 5, 0x1_0000];
    let words = elf.into_iter().chain(load).chain(CODE);
    head.into_iter().chain(words.flat_map(u32::to_be_bytes)).collect()
}

/// MiB in a line of `/proc/meminfo`.
fn mebibytes(session: &mut Session, guest: &Guest, name: &str) -> u64 {
    let text = shell(session, guest, &format!("grep {name}: /proc/meminfo"));
    let line = text.lines().find(|line| line.starts_with(&format!("{name}:"))).unwrap_or_else(|| panic!("{text}"));
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
}

#[test]
fn programs_run_in_and_fill_memory_above_768_mib() {
    let ui = Ui::new(true);
    let project = Project::find().unwrap();
    let bundle = build(&project, &arguments("two-linux"), &[Need::Bundle, Need::Qemu], &ui).unwrap();
    let parts = Parts::read(&bundle.published.tar, None, &ui).unwrap();
    let stand_in = prepare(&project, &parts, &Hardware::default(), &ui).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let transcript = dir.path().join("transcript");
    let boot = prepared(&parts, &stand_in, &transcript, dir.path()).unwrap();
    let report = expected(&parts, &stand_in).unwrap().report;
    let Reported { mut session, .. } = start(&boot, &report, &mut |_| {}).unwrap();
    let system = System::of(&parts.verified.manifest, &stand_in.plan);
    let p1 = &system.guests[0];
    shell::comes_up(&mut session, p1);
    shell(&mut session, p1, "dmesg -n 1; mkdir /tmp/m; mount -t tmpfs -o size=700m tmpfs /tmp/m; cd /");

    let before = mebibytes(&mut session, p1, "HighFree");
    assert!(before >= 200, "there is memory above, and it is free: {before} MiB");
    // In pieces that a line of the shell's editor has room for.
    for piece in program().chunks(32) {
        let text: String = piece.iter().map(|byte| format!("\\{byte:03o}")).collect();
        shell(&mut session, p1, &format!("printf '{text}' >> /tmp/m/pvr"));
    }
    shell(&mut session, p1, "cp /bin/busybox /tmp/m/md5sum; chmod 755 /tmp/m/*");
    let read = |session: &mut Session| shell(session, p1, "/tmp/m/pvr; echo version-$?");
    let text = read(&mut session);
    assert!(text.contains("\nversion-35\n"), "an e500mc is 0x8023:\n{text}");

    // A period that divides no power of two: what is in two places by mistake is not the same there.
    let begun = Instant::now();
    let fill =
        "dd if=/dev/urandom of=/tmp/m/r bs=1M count=7 2>/dev/null; for n in $(seq 85); do cp /tmp/m/r /tmp/m/f$n; done";
    shell(&mut session, p1, fill);
    let text = shell(&mut session, p1, "/tmp/m/md5sum /tmp/m/r /tmp/m/f* | cut -c1-32 | sort | uniq -c");
    let sums: Vec<&str> = text.lines().map(str::trim).filter(|line| line.starts_with("86 ")).collect();
    assert_eq!(sums.len(), 1, "{text}");
    let after = mebibytes(&mut session, p1, "HighFree");
    println!(
        "602 MiB written and read in {:.0} s; free above: {before}, then {after} MiB",
        begun.elapsed().as_secs_f64()
    );
    assert!(after < 32, "the memory above is full: {after} MiB are free");
    let text = read(&mut session);
    assert!(text.contains("\nversion-35\n"), "{text}");
    session.passed();
}
