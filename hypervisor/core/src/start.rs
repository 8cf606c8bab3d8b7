//! From the boot loader's jump to partitions that are ready to run.
//!
//! The order is the safety argument. Until every CPU that is going to start has left the boot loader's
//! spin loops, memory outside the hypervisor's own image is only read; and the configuration is read and
//! judged before the first byte of it is acted upon.
//!
//! Images are loaded when a partition starts ([`load_images`]), each time anew, and checked while they are loaded.

use core::fmt;

use arrayvec::ArrayVec;
use citrine_formats::addr::{Address, GuestPhys, Span, TruePhys};
use citrine_formats::diag::Severity;
use citrine_formats::fdt::{self, Fdt};
use citrine_formats::hvconfig::{self, Tree};
use citrine_formats::signature::{self, Key};

use crate::config::{Config, MAX_CPUS, Partition, Role};
use crate::hardware::{self, Board};
use crate::loader::{self, Loaded, Outcome, Scratch, Why};
use crate::machine::CpuSet;
use crate::memory::{GuestMemory, Physical};
use crate::report::{self, Core};
use crate::rules;
use crate::trust;

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
pub trait Platform<'t>: fmt::Write {
    /// The key that must have signed the configuration tree, if this firmware believes one. It is asked for, and not in
    /// [`Entry`], so that a constant `None` leaves nothing of the check in the firmware.
    fn trust(&self) -> Option<Key>;
    /// Sends text to the 16550 at this address from now on.
    fn use_serial(&mut self, registers: TruePhys);
    /// Maps [`fdt::MAX_LEN`] bytes, or as many as there are; `None` when the address cannot be mapped.
    /// Called once for each tree.
    fn map_tree(&mut self, which: WhichTree, at: TruePhys) -> Option<&'t [u8]>;
    /// Copies memory; `false` when it cannot be reached.
    fn read(&mut self, at: TruePhys, into: &mut [u8]) -> bool;
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
    /// The configuration tree, with every byte that its header counts: these are signed.
    SignedConfig,
}

/// A system that can run at least one partition.
#[derive(Debug)]
pub struct Ready<'t> {
    /// What is to be done.
    pub config: Config<'t>,
    /// The hardware tree.
    pub hw: Fdt<'t>,
    /// The configuration tree.
    pub tree: Tree<'t>,
    /// What the hardware tree says of the board.
    pub board: Board,
    /// The CPUs that run.
    pub started: CpuSet,
    /// Errors that were reported.
    pub errors: usize,
}

impl Ready<'_> {
    /// Whether a partition can run: all its CPUs have started.
    pub fn can_run(&self, partition: &Partition<'_>) -> bool {
        partition.cpu_set().without(self.started).is_empty()
    }
}

/// Runs the start path to its end, and reports all of it; `None` when no partition can run.
pub fn run<'t>(platform: &mut impl Platform<'t>, entry: Entry) -> Option<Ready<'t>> {
    let (mut errors, mut ready) = (0, None);
    let done = try_run(platform, entry, &mut errors, &mut ready).is_ok();
    let count = ready.as_ref().filter(|_| done).map_or(0, |ready: &Ready<'_>| {
        ready.config.partitions.iter().filter(|partition| ready.can_run(partition)).count()
    });
    ignore(report::summary(platform, count, errors));
    match &mut ready {
        Some(ready) if count > 0 => ready.errors = errors,
        _ => ready = None,
    }
    ready
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

/// Fills `ready`, which is large, in its place; not to the end unless the result is good.
fn try_run<'t>(
    platform: &mut impl Platform<'t>,
    entry: Entry,
    errors: &mut usize,
    ready: &mut Option<Ready<'t>>,
) -> Result<(), Stop> {
    let (hw, hw_span) = open_hardware(platform, entry, errors)?;
    if !entry.core.is_supported() {
        return Err(fail(platform, errors, "this firmware is for e500mc and e5500 cores"));
    }
    let board = Board::read(hw).map_err(|why| fail(platform, errors, why))?;
    let machine = board.machine();
    if !machine.cpus.contains(entry.cpu) {
        let why = format_args!("the hardware tree does not have CPU {}, on which this runs", entry.cpu);
        return Err(fail(platform, errors, why));
    }

    ignore(writeln!(platform, "config at {}", board.config));
    let unreachable = "the configuration tree is at an address that cannot be mapped";
    let trust = platform.trust();
    let which = if trust.is_some() { WhichTree::SignedConfig } else { WhichTree::Config };
    let bytes = platform.map_tree(which, board.config).ok_or_else(|| fail(platform, errors, unreachable))?;
    let bytes = match &trust {
        Some(key) => believed(platform, key, board.config, bytes, errors)?,
        None => bytes,
    };
    let fdt = fdt::open(bytes).map_err(|why| fail(platform, errors, format_args!("configuration tree: {why}")))?;
    let config_span = span(board.config, fdt.data().len());
    let mut refuse = |why: hvconfig::Error<'_>| {
        *errors += 1;
        ignore(writeln!(platform, "error {}: {why}", rules::TREE));
        Stop
    };
    let tree = Tree::new(fdt).map_err(&mut refuse)?;
    let started = CpuSet::EMPTY;
    let ready = ready.insert(Ready { config: Config::default(), hw, tree, board, started, errors: 0 });
    ready.config.add(tree).map_err(refuse)?;
    let Ready { config, board, .. } = ready;
    if let Some(console) = config.hypervisor.console {
        let registers = hardware::serial(hw, console.device).map_err(|why| fail(platform, errors, why))?;
        platform.use_serial(registers);
    }
    rules::check(config, &machine, &mut |finding| {
        *errors += usize::from(finding.severity() == Severity::Error);
        ignore(writeln!(platform, "{} {}: {finding}", finding.severity(), finding.code()));
    });
    if *errors > 0 {
        return Err(Stop);
    }

    let started = start_cpus(platform, board, entry.cpu);
    ignore(report::cpus(platform, machine.cpus, started));
    // What the boot loader still needs: its spin loops, as long as a CPU is in one of them.
    let missing = machine.cpus.without(started);
    let mut taken = ArrayVec::<Span<TruePhys>, 128>::new();
    taken.extend([platform.image(), hw_span, config_span]);
    if !missing.is_empty() {
        let reserved = hw.memory_reservations().filter_map(|r| Span::new(TruePhys(r.address()), r.size()).ok());
        taken.extend(reserved.chain(board.spin_pages(missing)).take(taken.remaining_capacity()));
    }
    let home = home(config, &taken);
    let home = home.ok_or_else(|| fail(platform, errors, "the hypervisor's memory has no 4 MiB that are free"))?;
    platform.move_to(home);
    ignore(report::moved(platform, home));

    ignore(report::areas(platform, config));
    ready.started = started;
    for partition in &ready.config.partitions {
        ignore(report::partition(platform, &ready.config, partition));
        let can_run = ready.can_run(partition);
        if !can_run {
            *errors += 1;
            let missing = partition.cpu_set().without(started);
            ignore(writeln!(platform, "  error: CPUs {missing} did not start"));
        }
        ignore(writeln!(platform, "  {}", if can_run { "ready" } else { "NOT READY" }));
    }
    Ok(())
}

/// The configuration tree's bytes, if `key` has signed them. They are not read before, but for their number.
fn believed<'t>(
    platform: &mut impl Platform<'t>,
    key: &Key,
    config: TruePhys,
    bytes: &'t [u8],
    errors: &mut usize,
) -> Result<&'t [u8], Stop> {
    let mut blob = [0; signature::LEN];
    let at = TruePhys(config.0.saturating_add(signature::DISTANCE));
    if !platform.read(at, &mut blob) {
        let why = format_args!("the configuration's signature at {at} cannot be read");
        return Err(fail(platform, errors, why));
    }
    let tree = trust::tree(key, &blob, bytes).map_err(|why| {
        let cure = match why {
            trust::Why::Unsigned => "sign the bundle with its key (cargo xtask sign) and load it again",
            _ => "load hv.dtb and its signature of one bundle again",
        };
        fail(platform, errors, format_args!("the configuration tree is not believed: {why}; {cure}"))
    })?;
    ignore(writeln!(platform, "config is signed by {key}"));
    Ok(tree)
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

/// What a partition's images are for those who come after: who enters it, and who writes its device tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Images {
    /// Where its first CPU is to begin; `None` when it has no kernel.
    pub entry: Option<GuestPhys>,
    /// The RAM disk as it lies there.
    pub rootfs: Option<Span<GuestPhys>>,
}

/// Loads the images of a partition, in Topaz's order, and reports each on `out`; `None` when one is not good, which
/// is reported too. None of them may overwrite another, or the place of the guest's device tree.
pub fn load_images<P: Physical + ?Sized>(
    out: &mut dyn fmt::Write,
    partition: &Partition<'_>,
    memory: &mut GuestMemory<'_, P>,
    scratch: &mut Scratch,
) -> Option<Images> {
    let mut images = Images::default();
    let mut taken = ArrayVec::<Span<GuestPhys>, 16>::new();
    taken.push(partition.dtb_window);
    for (role, row) in partition.rows() {
        let Outcome { image, result } = loader::load(memory, &row, loader::room(row.dest, &taken), scratch);
        if let Some(image) = image {
            ignore(report::image(out, partition.name, role, &row, &image));
        }
        let why = match result {
            Ok(Loaded { dest, entry }) if role == Role::Kernel && !dest.contains(entry) => Why::Entry(entry),
            Ok(Loaded { dest, entry }) => {
                // A partition has at most ten images.
                taken.push(dest);
                match role {
                    Role::Kernel => images.entry = Some(entry),
                    Role::Rootfs => images.rootfs = Some(dest),
                    Role::Extra(_) => {}
                }
                continue;
            }
            Err(why) => why,
        };
        ignore(report::not_started(out, partition.name, role, &why));
        return None;
    }
    ignore(report::loaded(out, partition.name, images.entry));
    Some(images)
}

#[cfg(test)]
mod tests;
