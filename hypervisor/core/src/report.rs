//! Every line that the firmware prints. The format is stable: `citrine qemu` and people's scripts read it.
//!
//! ```text
//! citrine 0.1.0 on e500mc 2.0
//! config at 0x78900000
//! cpus: 8 of 8 started
//! hypervisor at 0x7f000000
//! memory ram1: 0x0..0x40000000, 1 GiB
//! memory hv: 0x7f000000..0x80000000, 16 MiB, hypervisor
//! partition linux1: 7 CPUs (0-6)
//!   memory ram1: 0x0..0x40000000 at guest 0x0..0x40000000
//!   ready
//! citrine: ready, 1 partitions, 0 errors
//! linux1: rootfs at 0x79300000: uImage ramdisk gzip, 749109 bytes, CRC ok, sha256 76e8...932a, digest ok
//! linux1: kernel at 0x78020000: uImage kernel gzip, 2118102 bytes, CRC ok, sha256 9f86...0a08, digest ok
//! linux1: loaded, entry 0x0
//! ```
//!
//! * A finding of a rule is a line `error H106: ...` or `warning H103: ...`; an error without a code is a line
//!   `error: ...`.
//! * CPUs that did not start: `cpus: 7 of 8 started, missing 3`, and `  error: CPUs 3 did not start` with their
//!   partition, which then ends in `  NOT READY` instead of `  ready`.
//! * `citrine: ready, P partitions, E errors` ends the start when at least one partition is ready, and
//!   `citrine: FAILED, E errors` when none is.
//! * Behind that, a line that is about one partition begins with its name. Each of its images has a line when it was
//!   read: `CRC ok`, `no CRC` or `CRC ERROR (payload) stored 0x..., computed 0x...`; the SHA-256 of its bytes, all 64
//!   digits; and `digest ok` or `digest WRONG` when the configuration says which it must be. The last line of a load
//!   is `linux1: loaded, entry 0x0` or `linux1: NOT STARTED: kernel: SHA-256 does not match: expected ..., found ...`.
//! * A CPU that meets an unexpected exception prints `CPU 1 stopped: data storage (vector 2)` and its
//!   registers, a panic `CPU 0 panicked: ...`; nothing follows from that CPU.

use core::fmt::{self, Write};

use citrine_formats::addr::{GuestPhys, Size, TruePhys};

use crate::config::{Config, ImageRow, Partition, Role};
use crate::loader::{Image, Why};
use crate::machine::CpuSet;
use crate::memory::ISOLATED;

/// Version of the firmware.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A core of the e500 family, by its processor version register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Core {
    pvr: u32,
}

impl Core {
    /// The core with this PVR.
    pub const fn new(pvr: u32) -> Self {
        Self { pvr }
    }

    /// Whether the firmware runs on it: on an e5500 in the 32-bit mode in which that comes out of reset.
    pub const fn is_supported(self) -> bool {
        matches!(self.pvr >> 16, 0x8023 | 0x8024)
    }
}

impl fmt::Display for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.pvr >> 16 {
            0x8020 => "e500v1",
            0x8021 => "e500v2",
            0x8023 => "e500mc",
            0x8024 => "e5500",
            0x8040 => "e6500",
            _ => return write!(f, "an unknown core (PVR {:#010x})", self.pvr),
        };
        // Freescale's PVR: manufacturer and version, then major and minor revision in the last byte.
        write!(f, "{name} {}.{}", self.pvr >> 4 & 0xf, self.pvr & 0xf)
    }
}

/// What every report of a build begins with that does not keep partitions apart.
const NOT_ISOLATED: &str = "WARNING: built without isolation, for tests only";

/// The first line.
///
/// # Errors
/// Only those of `out`; so for all of this module.
pub fn banner(out: &mut dyn Write, core: Core) -> fmt::Result {
    writeln!(out, "citrine {VERSION} on {core}")?;
    if ISOLATED { Ok(()) } else { writeln!(out, "{NOT_ISOLATED}") }
}

/// The CPUs of the board, and those that run.
///
/// # Errors
/// See [`banner`].
pub fn cpus(out: &mut dyn Write, all: CpuSet, started: CpuSet) -> fmt::Result {
    write!(out, "cpus: {} of {} started", started.len(), all.len())?;
    match all.without(started) {
        CpuSet::EMPTY => writeln!(out),
        missing => writeln!(out, ", missing {missing}"),
    }
}

/// The memory areas.
///
/// # Errors
/// See [`banner`].
pub fn areas(out: &mut dyn Write, config: &Config<'_>) -> fmt::Result {
    for (index, area) in config.areas.iter().enumerate() {
        write!(out, "memory {}: {}, {}", area.name, area.span, Size(area.span.len()))?;
        let owners = config.partitions.iter().filter(|p| p.memory.iter().any(|m| m.area == index)).count();
        writeln!(
            out,
            "{}",
            match owners {
                _ if config.hypervisor.memory.contains(&index) => ", hypervisor",
                0 => ", unused",
                1 => "",
                _ => ", shared",
            }
        )?;
    }
    Ok(())
}

/// The head of a partition: its CPUs and memory.
///
/// # Errors
/// See [`banner`].
pub fn partition(out: &mut dyn Write, config: &Config<'_>, partition: &Partition<'_>) -> fmt::Result {
    let cpus = partition.cpu_set();
    let plural = if cpus.len() == 1 { "" } else { "s" };
    writeln!(out, "partition {}: {} CPU{plural} ({cpus})", partition.name, cpus.len())?;
    for mapping in &partition.memory {
        if let Some(area) = config.areas.get(mapping.area) {
            let guest = mapping.guest_span(&config.areas);
            let dma = if mapping.dma_only { ", DMA only" } else { "" };
            writeln!(out, "  memory {}: {} at guest {guest}{dma}", area.name, area.span)?;
        }
    }
    Ok(())
}

/// An image of a partition that was read.
///
/// # Errors
/// See [`banner`].
pub fn image(out: &mut dyn Write, partition: &str, role: Role, row: &ImageRow, image: &Image) -> fmt::Result {
    writeln!(out, "{partition}: {role} at {}: {image}", row.source)
}

/// A partition's images are in their places; without a kernel nothing is entered yet.
///
/// # Errors
/// See [`banner`].
pub fn loaded(out: &mut dyn Write, partition: &str, entry: Option<GuestPhys>) -> fmt::Result {
    match entry {
        Some(entry) => writeln!(out, "{partition}: loaded, entry {entry}"),
        None => writeln!(out, "{partition}: loaded, no kernel"),
    }
}

/// A partition is not started, because of this image.
///
/// # Errors
/// See [`banner`].
pub fn not_started(out: &mut dyn Write, partition: &str, role: Role, why: &Why) -> fmt::Result {
    writeln!(out, "{partition}: NOT STARTED: {role}: {why}")
}

/// Where the hypervisor has moved to.
///
/// # Errors
/// See [`banner`].
pub fn moved(out: &mut dyn Write, to: TruePhys) -> fmt::Result {
    writeln!(out, "hypervisor at {to}")
}

/// The end of the start: whether there is anything to run.
///
/// # Errors
/// See [`banner`].
pub fn summary(out: &mut dyn Write, ready: usize, errors: usize) -> fmt::Result {
    match ready {
        0 => writeln!(out, "citrine: FAILED, {errors} errors"),
        _ => writeln!(out, "citrine: ready, {ready} partitions, {errors} errors"),
    }
}

/// A CPU's registers at an exception that nobody expected.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Registers {
    /// General purpose registers.
    pub gpr: [u32; 32],
    /// Condition register.
    pub cr: u32,
    /// Link register.
    pub lr: u32,
    /// Count register.
    pub ctr: u32,
    /// Fixed-point exception register.
    pub xer: u32,
    /// Save/restore registers 0 and 1: of base, critical, debug and machine check interrupts.
    pub srr: [[u32; 2]; 4],
    /// Exception syndrome.
    pub esr: u32,
    /// Data exception address.
    pub dear: u32,
    /// Machine check syndrome.
    pub mcsr: u32,
    /// Machine check address.
    pub mcar: u32,
    /// Number of the interrupt vector offset register.
    pub vector: u32,
}

/// What the interrupt vector offset register with this number is for (EREF, table 7-2).
pub const fn vector_name(vector: u32) -> &'static str {
    match vector {
        0 => "critical input",
        1 => "machine check",
        2 => "data storage",
        3 => "instruction storage",
        4 => "external input",
        5 => "alignment",
        6 => "program",
        7 => "floating-point unavailable",
        8 => "system call",
        9 => "auxiliary processor unavailable",
        10 => "decrementer",
        11 => "fixed-interval timer",
        12 => "watchdog",
        13 => "data TLB error",
        14 => "instruction TLB error",
        15 => "debug",
        35 => "performance monitor",
        36 => "doorbell",
        37 => "critical doorbell",
        38 => "guest doorbell",
        39 => "guest critical doorbell",
        40 => "hypervisor system call",
        41 => "hypervisor privilege",
        _ => "unknown",
    }
}

/// What a CPU prints before it stops for good.
///
/// # Errors
/// See [`banner`].
pub fn exception(out: &mut dyn Write, cpu: u32, regs: &Registers) -> fmt::Result {
    let class = match regs.vector {
        0 | 12 | 37 => 1,
        15 => 2,
        1 => 3,
        _ => 0,
    };
    let name = vector_name(regs.vector);
    writeln!(out, "\nCPU {cpu} stopped: {name} (vector {})", regs.vector)?;
    let [pc, msr] = regs.srr[class];
    writeln!(out, "  pc   {pc:08x}  msr  {msr:08x}  esr  {:08x}  dear {:08x}", regs.esr, regs.dear)?;
    writeln!(out, "  lr   {:08x}  ctr  {:08x}  cr   {:08x}  xer  {:08x}", regs.lr, regs.ctr, regs.cr, regs.xer)?;
    if regs.vector == 1 {
        writeln!(out, "  mcsr {:08x}  mcar {:08x}", regs.mcsr, regs.mcar)?;
    }
    for (index, row) in regs.gpr.chunks(4).enumerate() {
        row.iter().enumerate().try_for_each(|(n, value)| write!(out, "  r{:<3} {value:08x}", index * 4 + n))?;
        writeln!(out)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::String;

    #[test]
    fn a_core_is_named() {
        assert_eq!(std::format!("{}", Core::new(0x8023_0020)), "e500mc 2.0");
        assert_eq!(std::format!("{}", Core::new(0x8024_1021)), "e5500 2.1");
        assert_eq!(std::format!("{}", Core::new(0x1234_5678)), "an unknown core (PVR 0x12345678)");
        for (pvr, is_supported) in
            [(0x8023_0030, true), (0x8024_0010, true), (0x8040_0120, false), (0x8021_0022, false)]
        {
            assert_eq!(Core::new(pvr).is_supported(), is_supported, "{pvr:#x}");
        }
    }

    #[test]
    fn an_exception_shows_the_registers_of_its_class() {
        let mut regs =
            Registers { vector: 13, srr: [[0x10, 0x20], [0; 2], [0; 2], [0x30, 0x40]], ..Default::default() };
        regs.gpr[31] = 0xdead_beef;
        let mut text = String::new();
        exception(&mut text, 3, &regs).unwrap();
        assert!(text.starts_with("\nCPU 3 stopped: data TLB error (vector 13)\n  pc   00000010  msr  00000020"));
        assert!(text.ends_with("r31  deadbeef\n"));
        regs.vector = 1;
        text.clear();
        exception(&mut text, 3, &regs).unwrap();
        assert!(text.contains("pc   00000030  msr  00000040") && text.contains("mcsr"));
    }
}
