//! Translations that a guest may write as it likes: to memory that is not its own, at addresses that are not its
//! own, in every size and slot, one over the other. None may show what is not the guest's.

use core::sync::atomic::{AtomicU32, Ordering};

use citrine_guests::cpu::{self, msr};
use citrine_guests::probe::{Outcome, Probe, Seen};
use citrine_guests::random::Random;
use citrine_guests::tlb::{self, Entry, Slot, permit};
use citrine_guests::tree::Tree;

use super::addresses::{LOAD, STORE};
use super::log::{Log, Said};
use super::{HYPERVISOR, KERNEL, USER, attempt};

/// Guest-physical addresses that no guest has: true addresses of memory, of the hypervisor, of devices of the
/// boards that there are, and what lies beyond 32 bits.
const FOREIGN: [u64; 20] = [
    0x1000_0000,
    0x2000_0000,
    0x4000_0000,
    0x6000_0000,
    0x7802_0000,
    0x7870_0000,
    0x7890_0000,
    0x7f00_0000,
    0x7fff_f000,
    0xc000_0000,
    0xe000_4500,
    0xf000_0000,
    0xfe00_4500,
    0x1_0000_0000,
    0xf_0000_0000,
    0xf_e000_4500,
    0xf_e004_0000,
    0xf_fe11_c500,
    0xf_ffff_f000,
    0xff_0000_0000,
];

/// MiB that are swept from the last to the first.
const BLOCK: u64 = 64;

/// Where translations are tried, in address space 0: nothing of the guest's is there.
const EA: u32 = 0x8000_0000;
/// The entry of TLB1, and one that overlaps it.
const SLOT: Slot = Slot::Large(5);
const OTHER_SLOT: Slot = Slot::Large(6);
/// The process that runs, and one that does not.
const PROCESS: u32 = 5;
const OTHER_PROCESS: u32 = 0x3ff9;
/// Random translations.
const RANDOM: u32 = 2000;

/// A page of the guest's own, known by its first word.
#[repr(C, align(4096))]
struct Own([AtomicU32; 1024]);
static OWN: Own = Own([const { AtomicU32::new(0) }; 1024]);
const MARK: u32 = 0x0b5e_55ed;

/// What the guest may see.
struct Memory<'t> {
    tree: &'t Tree<'static>,
    own: u64,
}

impl Memory<'_> {
    /// Whether a guest-physical address is the guest's: its memory, or the page of its spin table.
    fn has(&self, gpa: u64) -> bool {
        let table = |release: u64| gpa >> 12 == release >> 12;
        self.tree.memory().any(|(base, len)| gpa.checked_sub(base).is_some_and(|offset| offset < len))
            || self.tree.cpus().filter_map(|cpu| cpu.release).any(table)
            // The page of the spin table is there even when the tree has nobody to start.
            || gpa >> 12 == 0xf_ffff
    }
}

/// Tries all.
pub fn run(tree: &Tree<'static>, log: &mut Log) {
    let memory = Memory { tree, own: OWN.0.as_ptr() as usize as u64 };
    OWN.0.iter().for_each(|word| word.store(MARK, Ordering::SeqCst));
    cpu::set_process(PROCESS);
    sweep(log, &memory);
    log.end();
    for gpa in FOREIGN.into_iter().chain([memory.own]) {
        for tsize in [0, 2, 3, 4, 6, 8, 10, 12, 14, 16, 18, tlb::SIZE_1G, 21, 22] {
            sizes(log, &memory, gpa, tsize);
        }
    }
    log.end();
    at_hypervisor(log, &memory);
    overlapping(log, &memory);
    random(log, &memory);
    cpu::set_process(0);
}

/// Reads and writes a word of every MiB below 4 GiB that is not the guest's. If nothing stopped it, this would meet
/// the neighbours: they come before the hypervisor, which has the end of the memory. Each block is swept against the
/// direction in which the sentinel goes through its memory, so that the two meet, whatever it does just then.
fn sweep(log: &mut Log, memory: &Memory<'_>) {
    let all = (0..4096 / BLOCK).flat_map(|block| (0..BLOCK).rev().map(move |offset| (block * BLOCK + offset) << 20));
    for gpa in all.filter(|gpa| !memory.has(*gpa)) {
        let entry = Entry { permissions: permit::ALL, ..Entry::kernel(EA, gpa, tlb::SIZE_4K, tlb::COHERENT) };
        // SAFETY: nothing of Rust's is at this address.
        unsafe { tlb::write(SLOT, &entry) };
        for (kind, word) in [("swept read", LOAD), ("swept write", STORE)] {
            judge(log, memory, kind, gpa, &Probe::new(word, EA, KERNEL));
        }
        // SAFETY: as above.
        unsafe { tlb::clear(SLOT, &entry) };
    }
}

/// One address and size: both TLBs, both spaces, all processes, protected or not, every access.
fn sizes(log: &mut Log, memory: &Memory<'_>, gpa: u64, tsize: u32) {
    for (slot, space, tid, protected) in combinations() {
        // What is larger than 1 GiB would lie over the guest itself, unless in the other space.
        if !space && tsize > tlb::SIZE_1G {
            continue;
        }
        // TLB0 has one size, whatever is asked for.
        if matches!(slot, Slot::Page(_)) && ![tlb::SIZE_4K, tlb::SIZE_1G].contains(&tsize) {
            continue;
        }
        let entry = Entry { space, tid, protected, permissions: permit::ALL, ..Entry::kernel(EA, gpa, tsize, 4) };
        // SAFETY: nothing of Rust's is at these addresses, in the space that it runs in.
        unsafe { tlb::write(slot, &entry) };
        let bytes = 1u64 << (10 + tsize.max(tlb::SIZE_4K));
        let bytes = if matches!(slot, Slot::Page(_)) { 4096 } else { bytes };
        // The hardware drops the address bits below the size; what is behind them is reached by the offset.
        let at = (u64::from(EA) & !(bytes - 1)) as u32 | (gpa & (bytes - 1)) as u32 & !3;
        let data = if space { msr::DS } else { 0 };
        for (kind, word, state) in [
            ("mapped read, kernel", LOAD, KERNEL | data),
            ("mapped read, user", LOAD, USER | data),
            ("mapped write, kernel", STORE, KERNEL | data),
            ("mapped write, user", STORE, USER | data),
        ] {
            judge(log, memory, kind, gpa, &Probe::new(word, at, state));
        }
        // SAFETY: as above.
        unsafe { tlb::clear(slot, &entry) };
    }
}

fn combinations() -> impl Iterator<Item = (Slot, bool, u32, bool)> {
    let slots = [(Slot::Page(0), false), (Slot::Page(3), false), (SLOT, false), (SLOT, true)];
    let of = |(slot, protected)| {
        let tids = [0, PROCESS, OTHER_PROCESS];
        tids.into_iter().flat_map(move |tid| [false, true].map(|space| (slot, space, tid, protected)))
    };
    slots.into_iter().flat_map(of)
}

/// An access by way of a translation to `gpa`. It may complete only where that is the guest's, and then it must
/// have seen the guest's own page.
fn judge(log: &mut Log, memory: &Memory<'_>, kind: &'static str, gpa: u64, probe: &Probe) {
    // Written is what is there already.
    let probe = Probe { gpr: probe.gpr.map(|_| MARK), ..*probe }.with_address(probe);
    log.announce(kind, gpa as u32);
    let seen = attempt(&probe);
    let completed = seen.outcome == Outcome::Completed;
    let foreign = completed && !memory.has(gpa);
    let wrong = completed && gpa >> 12 == memory.own >> 12 && value(&seen) != MARK;
    // The upper half of the address distinguishes what the lower would confuse.
    log.tally(kind, (gpa >> 4) as u32, Said::Ended(seen.outcome), foreign || wrong);
}

fn value(seen: &Seen) -> u32 {
    let [_, _, _, _, _, value, ..] = seen.gpr;
    value
}

trait WithAddress {
    fn with_address(self, of: &Probe) -> Self;
}

impl WithAddress for Probe {
    /// The same with the address register of another.
    fn with_address(mut self, of: &Probe) -> Self {
        let ([_, _, _, _, to, ..], [_, _, _, _, from, ..]) = (&mut self.gpr, &of.gpr);
        *to = *from;
        self
    }
}

/// The guest's own page, mapped where the hypervisor lives: the guest sees its page or an interrupt.
fn at_hypervisor(log: &mut Log, memory: &Memory<'_>) {
    for ea in HYPERVISOR {
        for (slot, tid) in [(Slot::Page(1), 0), (Slot::Page(1), PROCESS), (SLOT, 0), (SLOT, PROCESS)] {
            for permissions in [permit::KERNEL, permit::ALL] {
                let base = Entry::kernel(ea & !0xfff, memory.own, tlb::SIZE_4K, tlb::COHERENT);
                let entry = Entry { tid, protected: false, permissions, ..base };
                // SAFETY: nothing of Rust's is at these addresses.
                unsafe { tlb::write(slot, &entry) };
                for (kind, word, state) in [
                    ("read of own page, kernel", LOAD, KERNEL),
                    ("read of own page, user", LOAD, USER),
                    ("write of own page, kernel", STORE, KERNEL),
                    ("write of own page, user", STORE, USER),
                ] {
                    judge(log, memory, kind, memory.own, &Probe::new(word, ea & !3, state));
                }
                // SAFETY: as above.
                unsafe { tlb::clear(slot, &entry) };
            }
        }
    }
}

/// Two translations of one address, of which one leads out of the guest: either is refused or the guest's own
/// page is seen.
fn overlapping(log: &mut Log, memory: &Memory<'_>) {
    let own = memory.own as u32;
    for gpa in FOREIGN.into_iter().filter(|gpa| !memory.has(*gpa)) {
        for (slot, other) in [(SLOT, OTHER_SLOT), (Slot::Page(0), Slot::Page(1)), (SLOT, Slot::Page(2))] {
            for (ea, tsize) in [(EA, tlb::SIZE_4K), (EA, 10), (own, tlb::SIZE_4K)] {
                let good = Entry::kernel(ea, memory.own & !((1024 << tsize) - 1), tsize, tlb::COHERENT);
                let good = Entry { permissions: permit::ALL, ..good };
                let bad = Entry { permissions: permit::ALL, ..Entry::kernel(ea, gpa, tlb::SIZE_4K, tlb::COHERENT) };
                let at = if ea == own { own } else { EA | own & ((1024 << tsize) - 1) };
                let bad = Entry { ea: at, ..bad };
                // SAFETY: at `EA` is nothing of Rust's; of its own page, atomics, only `MARK` is expected.
                unsafe {
                    if ea != own {
                        tlb::write(slot, &good);
                    }
                    tlb::write(other, &bad);
                }
                for (kind, state) in [("overlapping read, kernel", KERNEL), ("overlapping read, user", USER)] {
                    judge(log, memory, kind, memory.own, &Probe::new(LOAD, at, state));
                }
                // SAFETY: as above.
                unsafe {
                    tlb::clear(other, &bad);
                    tlb::clear(slot, &good);
                }
            }
        }
    }
}

/// Translations of random numbers, away from the guest's own, with accesses to where they lead.
fn random(log: &mut Log, memory: &Memory<'_>) {
    let mut random = Random::new(0x2545_f491);
    for case in 0..RANDOM {
        let word = random.next();
        let tsize = random.next() % 21;
        let ea = (random.next() | EA) & 0xffff_f000;
        let entry = Entry {
            ea,
            gpa: u64::from(random.next()) << 32 | u64::from(random.next()),
            tsize,
            tid: if word & 1 == 0 { 0 } else { PROCESS },
            space: word & 2 != 0,
            protected: word & 4 != 0,
            attributes: word >> 8 & 0x7f,
            permissions: word >> 16 & 0x3ff,
        };
        // An entry that reaches below `EA` would lie over the guest.
        let slot = if word & 8 == 0 { Slot::Page(word >> 28) } else { Slot::Large(5 + (word >> 28) % 8) };
        // SAFETY: the address is above `EA` and the size at most 1 GiB, so that it stays there.
        unsafe { tlb::write(slot, &entry) };
        let data = if entry.space { msr::DS } else { 0 };
        let state = if word & 16 == 0 { KERNEL } else { USER };
        let bytes = if matches!(slot, Slot::Page(_)) { 4096 } else { 1u64 << (10 + tsize.max(tlb::SIZE_4K)) };
        let gpa = entry.gpa & 0xf_ffff_f000 & !(bytes - 1) | u64::from(ea) & (bytes - 1);
        let op = if word & 32 == 0 { LOAD } else { STORE };
        log.announce("random mapping", case);
        let seen = attempt(&Probe::new(op, ea, state | data));
        let foreign = seen.outcome == Outcome::Completed && !memory.has(gpa);
        log.tally("random mapping", case, Said::Ended(seen.outcome), foreign);
        // SAFETY: as above.
        unsafe { tlb::clear(slot, &entry) };
    }
}
