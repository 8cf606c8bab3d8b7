//! From the boot loader's jump to partitions that are ready to run.
//!
//! The order is the safety argument. Until every CPU that is going to start has left the boot loader's
//! spin loops, memory outside the hypervisor's own image is only read; and the configuration is read and
//! judged before the first byte of it is acted upon.

use core::fmt;

use arrayvec::ArrayVec;
use citrine_formats::addr::{Address, Span, TruePhys};
use citrine_formats::diag::Severity;
use citrine_formats::fdt::{self, Fdt};
use citrine_formats::hvconfig::Tree;

use crate::config::{Config, MAX_CPUS, Partition};
use crate::hardware::{self, Board};
use crate::image::{self, Memory};
use crate::machine::CpuSet;
use crate::report::{self, Core};
use crate::rules;

/// r6 at the entry of a client program (ePAPR 1.1 §5.4.1).
pub const EPAPR_MAGIC: u32 = 0x4550_4150;
/// Size and alignment in bytes of the hypervisor's image: one TLB entry.
pub const IMAGE_LEN: u64 = 4 << 20;

/// What the boot loader hands over in registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// r3: where the hardware tree is.
    pub tree: TruePhys,
    /// r6: [`EPAPR_MAGIC`].
    pub magic: u32,
    /// The core.
    pub core: Core,
    /// The SoC's version register.
    pub svr: u32,
    /// Number of the CPU that was entered.
    pub cpu: u32,
}

/// What the hardware does for the start path; text written to it goes to the serial line.
/// `'t` is how long device trees stay mapped.
pub trait Platform<'t>: fmt::Write + Memory {
    /// Sends text to the 16550 at this address from now on.
    fn use_serial(&mut self, registers: TruePhys);
    /// Maps [`fdt::MAX_LEN`] bytes, or as many as there are; `None` when the address cannot be mapped.
    /// Called once for each tree.
    fn map_tree(&mut self, which: WhichTree, at: TruePhys) -> Option<&'t [u8]>;
    /// Releases CPUs from their spin tables; returns those that arrived. It gives up on the others when
    /// none arrives for a second, and takes their release back.
    fn start_cpus(&mut self, cpus: &[(u32, TruePhys)], timebase_hz: u32) -> CpuSet;
    /// Where the hypervisor's image is now.
    fn image(&self) -> Span<TruePhys>;
    /// Moves the hypervisor's image, on all CPUs that were started. A multiple of [`IMAGE_LEN`].
    fn move_to(&mut self, to: TruePhys);
}

/// A device tree that stays mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WhichTree {
    /// The hardware tree.
    Hardware,
    /// The configuration tree.
    Config,
}

/// Runs the start path to its end, and reports all of it.
pub fn run<'t>(platform: &mut impl Platform<'t>, entry: Entry) {
    let mut errors = 0;
    let ready = try_run(platform, entry, &mut errors).unwrap_or(0);
    ignore(report::summary(platform, ready, errors));
}

/// Nothing can be done about a serial line that does not take text.
fn ignore(_: fmt::Result) {}

/// An error has been reported, and nothing more can be done.
struct Stop;

/// Reports an error without a code.
fn fail(out: &mut dyn fmt::Write, errors: &mut usize, why: impl fmt::Display) -> Stop {
    *errors += 1;
    ignore(writeln!(out, "error: {why}"));
    Stop
}

/// Returns how many partitions are ready.
fn try_run<'t>(platform: &mut impl Platform<'t>, entry: Entry, errors: &mut usize) -> Result<usize, Stop> {
    let (hw, hw_span) = open_hardware(platform, entry, errors)?;
    if !entry.core.is_supported() {
        return Err(fail(platform, errors, "this firmware is for e500mc cores"));
    }
    let board = Board::read(hw).map_err(|why| fail(platform, errors, why))?;
    let machine = board.machine();
    if !machine.cpus.contains(entry.cpu) {
        let why = format_args!("the hardware tree does not have CPU {}, on which this runs", entry.cpu);
        return Err(fail(platform, errors, why));
    }

    ignore(writeln!(platform, "config at {}", board.config));
    let unreachable = "the configuration tree is at an address that cannot be mapped";
    let bytes =
        platform.map_tree(WhichTree::Config, board.config).ok_or_else(|| fail(platform, errors, unreachable))?;
    let fdt = fdt::open(bytes).map_err(|why| fail(platform, errors, format_args!("configuration tree: {why}")))?;
    let config_span = span(board.config, fdt.data().len());
    let config = Tree::new(fdt).and_then(Config::from_tree).map_err(|why| {
        *errors += 1;
        ignore(writeln!(platform, "error {}: {why}", rules::TREE));
        Stop
    })?;
    if let Some(console) = config.hypervisor.console {
        let registers = hardware::serial(hw, console.device).map_err(|why| fail(platform, errors, why))?;
        platform.use_serial(registers);
    }
    rules::check(&config, &machine, &mut |finding| {
        *errors += usize::from(finding.severity() == Severity::Error);
        ignore(writeln!(platform, "{} {}: {finding}", finding.severity(), finding.code()));
    });
    if *errors > 0 {
        return Err(Stop);
    }

    let started = start_cpus(platform, &board, entry.cpu);
    ignore(report::cpus(platform, machine.cpus, started));
    // What the boot loader still needs: its spin loops, as long as a CPU is in one of them.
    let missing = machine.cpus.without(started);
    let mut taken = ArrayVec::<Span<TruePhys>, 128>::new();
    taken.extend([platform.image(), hw_span, config_span]);
    if !missing.is_empty() {
        let reserved = hw.memory_reservations().filter_map(|r| Span::new(TruePhys(r.address()), r.size()).ok());
        taken.extend(reserved.chain(board.spin_pages(missing)).take(taken.remaining_capacity()));
    }
    let home = home(&config, &taken);
    let home = home.ok_or_else(|| fail(platform, errors, "the hypervisor's memory has no 4 MiB that are free"))?;
    platform.move_to(home);
    ignore(report::moved(platform, home));

    ignore(report::areas(platform, &config));
    Ok(config.partitions.iter().filter(|partition| prepare(platform, &config, partition, started, errors)).count())
}

/// Opens the hardware tree and finds a serial line, if need be by guessing.
fn open_hardware<'t>(
    platform: &mut impl Platform<'t>,
    entry: Entry,
    errors: &mut usize,
) -> Result<(Fdt<'t>, Span<TruePhys>), Stop> {
    let opened = match platform.map_tree(WhichTree::Hardware, entry.tree) {
        Some(bytes) => fdt::open(bytes),
        None => Err(fdt::Error::Truncated { need: fdt::HEADER_LEN as u64, have: 0 }),
    };
    let found = opened.ok().and_then(|hw| hardware::serial(hw, "serial0").ok());
    if let Some(registers) = found.or_else(|| hardware::serial_without_tree(entry.svr)) {
        platform.use_serial(registers);
    }
    ignore(report::banner(platform, entry.core));
    let hw = opened.map_err(|why| {
        let why = format_args!("no hardware tree at {} (r3): {why}; is it missing in bootm?", entry.tree);
        fail(platform, errors, why)
    })?;
    if entry.magic != EPAPR_MAGIC {
        let why = format_args!("r6 is {:#010x} instead of {EPAPR_MAGIC:#010x}: this is no ePAPR boot", entry.magic);
        return Err(fail(platform, errors, why));
    }
    Ok((hw, span(entry.tree, hw.data().len())))
}

/// The range of `len` bytes from `base`, cut at the end of the address space.
fn span(base: TruePhys, len: usize) -> Span<TruePhys> {
    Span::between(base, TruePhys(base.0.saturating_add(len as u64)))
}

/// Starts all CPUs but this one.
fn start_cpus<'t>(platform: &mut impl Platform<'t>, board: &Board, this: u32) -> CpuSet {
    let others = board.cpus.iter().filter(|cpu| cpu.number != this);
    let list: ArrayVec<_, { MAX_CPUS as usize }> = others.filter_map(|cpu| Some((cpu.number, cpu.release?))).collect();
    let mut started = platform.start_cpus(&list, board.timebase_hz);
    started.insert(this);
    started
}

/// The lowest place for the hypervisor's image in its memory that `taken` leaves free.
fn home(config: &Config<'_>, taken: &[Span<TruePhys>]) -> Option<TruePhys> {
    let areas = config.hypervisor.memory.iter().filter_map(|&index| config.areas.get(index));
    areas.map(|area| area.span).find_map(|area| {
        let mut base = area.base().get().checked_next_multiple_of(IMAGE_LEN)?;
        loop {
            let place = Span::new(TruePhys(base), IMAGE_LEN).ok().filter(|place| area.covers(place))?;
            match taken.iter().find(|taken| taken.overlaps(&place)) {
                None => return Some(place.base()),
                // The end lies behind the base, so this ends.
                Some(taken) => base = taken.end().get().checked_next_multiple_of(IMAGE_LEN)?,
            }
        }
    })
}

/// Reports a partition; true when it can run.
fn prepare<'t>(
    platform: &mut impl Platform<'t>,
    config: &Config<'_>,
    partition: &Partition<'_>,
    started: CpuSet,
    errors: &mut usize,
) -> bool {
    let before = *errors;
    ignore(report::partition(platform, config, partition));
    let missing = partition.cpu_set().without(started);
    if !missing.is_empty() {
        *errors += 1;
        ignore(writeln!(platform, "  error: CPUs {missing} did not start"));
    }
    for (role, row) in partition.rows() {
        let checked = image::check(platform, row.source_span());
        *errors += usize::from(!checked.verdict.is_good());
        ignore(report::image(platform, role, &row, &checked));
    }
    let ready = *errors == before;
    ignore(writeln!(platform, "  {}", if ready { "ready" } else { "NOT READY" }));
    ready
}

#[cfg(test)]
mod tests;
