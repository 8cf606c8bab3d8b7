//! Counting a guest's instructions, bare and under the hypervisor.
//!
//! QEMU counts time in instructions here: each takes a nanosecond. So the timebase, which any program may read, tells
//! how many there were between two points, the hypervisor's included. The programs that read it are
//! `hypervisor/guests/src/bin/bench.rs` for single instructions and `tests/perf/bench.c` for a guest's system calls;
//! both say `bench: WORK COUNT TICKS`, Linux also the nanoseconds for which its CPU was idle: QEMU's clock then runs to
//! the next interrupt without an instruction.

pub mod images;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use citrine_formats::addr::TruePhys;
use citrine_planner::diag::Result;

use crate::emulator::{Boot, Expect, Machine, Marker, Preload, Session, Source, UBOOT_FAILURES};
use crate::output::cannot_write;
use crate::progress::check_interrupted;

/// How the programs' lines begin.
const LINE: &str = "bench: ";
/// What they say at last.
const DONE: &str = "bench: done";
/// Nanoseconds, that is instructions, in ten ticks of the machine's timebase, which has 400 MHz.
const TEN_TICKS: f64 = 25.0;
/// Memory of the guest and of the bare machine, in MiB.
pub const RAM_MIB: u32 = 256;
/// A guest under the hypervisor runs for half a minute of a fast machine.
const TIMEOUT: Duration = Duration::from_secs(600);
/// What ends a run as failed: panics of Linux, of the small guest and of the hypervisor.
const FAILURES: [&str; 4] = ["Kernel panic", "FAILED", "stopped:", "panicked"];

/// Where the bare machine's images are before U-Boot starts them, clear of U-Boot and of what it unpacks.
const KERNEL: TruePhys = TruePhys(0x400_0000);
const ROOTFS: TruePhys = TruePhys(0x600_0000);
const TREE: TruePhys = TruePhys(0x3f0_0000);

/// What one run said: by work, how often it was done and how many instructions that took.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Counts(BTreeMap<String, (f64, f64)>);

impl Counts {
    /// Reads the programs' lines among all others of a console.
    pub fn read(console: &[u8]) -> Self {
        let line = |line: &str| -> Option<(String, (f64, f64))> {
            let mut words = line.trim_end().strip_prefix(LINE)?.split(' ');
            let (work, count, ticks) = (words.next()?, words.next()?.parse().ok()?, words.next()?.parse::<f64>().ok()?);
            let idle = words.next().map_or(Some(0.0), |idle| idle.parse::<f64>().ok())?;
            Some((work.to_owned(), (count, ticks * TEN_TICKS / 10.0 - idle)))
        };
        Self(String::from_utf8_lossy(console).lines().filter_map(line).collect())
    }

    /// Instructions of one work; with those of the loop around it.
    pub fn each(&self, work: &str) -> Option<f64> {
        self.0.get(work).filter(|(count, _)| *count > 0.0).map(|(count, taken)| taken / count)
    }

    /// Instructions of one work in a loop whose other instruction is a branch.
    pub fn in_loop(&self, work: &str) -> Option<f64> {
        Some(self.each(work)? - self.each("turn")?)
    }
}

/// Waits until a program has measured everything.
///
/// # Errors
/// `Q103` to `Q105`.
pub fn counts(session: &mut Session, source: Source) -> Result<Counts> {
    let failures: Vec<&str> = UBOOT_FAILURES.iter().copied().chain(FAILURES).collect();
    let expect = Expect {
        name: "the guest has measured everything",
        source,
        marker: Marker::LineStart(DONE.to_owned()),
        timeout: TIMEOUT,
        failures: &failures,
    };
    Ok(Counts::read(&session.wait_for(&expect, &mut |_| {})?.bytes))
}

/// Boots a kernel, and a root file system if there is one, on a bare machine with one CPU; its files go to `dir`.
///
/// # Errors
/// What the emulator says.
pub fn bare(dir: &Path, kernel: &[u8], rootfs: Option<&[u8]>, transcript: &Path) -> Result<Counts> {
    let machine = Machine { counts: true, ..Machine::new("e500mc", 1, RAM_MIB) };
    let tree = images::small_tree(&machine)?;
    let mut preloads = Vec::new();
    let images = [("kernel", KERNEL, Some(kernel)), ("tree", TREE, Some(&tree)), ("rootfs", ROOTFS, rootfs)];
    for (name, addr, bytes) in images {
        let Some(bytes) = bytes else { continue };
        let path = dir.join(name);
        fs_err::write(&path, bytes).map_err(|error| cannot_write(&path, &error))?;
        preloads.push(Preload { name: name.to_owned(), path, addr });
    }
    let disk = rootfs.map_or("-".to_owned(), |_| format!("{:#x}", ROOTFS.0));
    let bootargs = "console=ttyS0,115200 root=/dev/ram0 rw";
    let boot = Boot {
        machine,
        preloads,
        bootcmd: Some(format!("setenv bootargs {bootargs}; bootm {:#x} {disk} {:#x}", KERNEL.0, TREE.0)),
        channels: None,
        transcript,
        notes: Vec::new(),
        interrupted: check_interrupted,
    };
    let mut session = Session::start(&boot)?;
    let counts = counts(&mut session, Source::Uart(0))?;
    session.passed();
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_among_others_are_read() {
        let console = b"Linux\r\nbench: turn 1000 400\r\n x bench: turn 1 1\nbench: mfmsr 100 820 50\nbench: odd 1\nbench: done 0 0\n";
        let counts = Counts::read(console);
        assert_eq!(counts.each("turn"), Some(1.0));
        assert_eq!(counts.in_loop("mfmsr"), Some(19.0));
        assert_eq!((counts.each("odd"), counts.each("done"), counts.each("syscall")), (None, None, None));
    }
}
