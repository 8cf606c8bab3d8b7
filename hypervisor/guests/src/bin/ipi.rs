//! All CPUs of a partition: a doorbell that goes around them, and a page that all of them must lose together.
//!
//! The page is the table of a kernel in small: its translation is filled in by each CPU's own TLB misses, and
//! before it may mean another memory, every CPU must have dropped what it knows.
#![cfg_attr(target_arch = "powerpc", no_std, no_main)]

use core::sync::atomic::{AtomicU32, Ordering};

use citrine_guests::interrupts::{Frame, vector};
use citrine_guests::patience::{self, Patience};
use citrine_guests::smp::{self, MAX_CPUS};
use citrine_guests::tlb::{self, permit};
use citrine_guests::{Guest, cpu, guest, say};

guest!(run, interrupt);

/// How often the doorbell goes around.
const ROUNDS: u32 = 1000;
/// How often the page changes.
const CHANGES: u32 = 100;
/// Seconds after which somebody is taken to be dead.
const PATIENCE: u32 = 60;

/// CPUs that take part.
static CPUS: AtomicU32 = AtomicU32::new(0);
/// Doorbells that each has taken.
static TAKEN: [AtomicU32; MAX_CPUS] = [const { AtomicU32::new(0) }; MAX_CPUS];
/// TLB misses that each has handled.
static MISSES: [AtomicU32; MAX_CPUS] = [const { AtomicU32::new(0) }; MAX_CPUS];
/// The change of the page that a doorbell has told each of.
static TOLD: [AtomicU32; MAX_CPUS] = [const { AtomicU32::new(0) }; MAX_CPUS];
/// 0: the doorbell goes around. Else: the number of the page's change that all are to see.
static CHANGE: AtomicU32 = AtomicU32::new(0);
/// Guest-physical address that the page means.
static PAGE_TABLE: AtomicU32 = AtomicU32::new(0);
/// How many CPUs have seen the current change, and what one of them saw instead of it. Who sees a change rings
/// CPU 0, which rests.
static SEEN: AtomicU32 = AtomicU32::new(0);
static WRONG: AtomicU32 = AtomicU32::new(0);

/// Where the page is.
const PAGE_EA: u32 = 0x5000_0000;

/// The two memories that the page means in turn.
#[repr(C, align(4096))]
struct Frames([[AtomicU32; 1024]; 2]);
static FRAMES: Frames = Frames([const { [const { AtomicU32::new(0) }; 1024] }; 2]);

fn run(guest: &Guest) {
    let others = || guest.tree.cpus().filter(|other| other.release.is_some()).take(MAX_CPUS - 1);
    let count = 1 + others().count() as u32;
    let patience = Patience::seconds(&guest.tree, PATIENCE);
    if count < 2 {
        say!("ipi: FAILED: one CPU cannot send to another");
        return;
    }
    CPUS.store(count, Ordering::SeqCst);
    tlb::set_defaults();
    others().for_each(|other| smp::start(other, work));
    if !patience.until(|| smp::arrived().count_ones() == count - 1) {
        say!("ipi: FAILED: only {} of {} CPUs started", 1 + smp::arrived().count_ones(), count);
        return;
    }
    say!("ipi: {count} CPUs run");

    // This CPU's own doorbells are what ends a round, so it has taken as many as there were rounds.
    ring(1);
    let done = patience.until(|| taken(0) >= ROUNDS);
    let counts = || (0..count).map(taken);
    if !done || counts().any(|count| count != ROUNDS) {
        counts().zip(0..).for_each(|(taken, cpu): (u32, u32)| say!("ipi: CPU {cpu} took {taken} doorbells"));
        say!("ipi: FAILED: {ROUNDS} rounds make {ROUNDS} doorbells for each");
        return;
    }
    say!("ipi: {ROUNDS} rounds, {} doorbells, none lost or doubled", ROUNDS * count);

    for change in 1..=CHANGES {
        if !shoot_down(change, count, &patience) {
            say!("ipi: FAILED: change {change}: {} of {count} CPUs saw it", SEEN.load(Ordering::SeqCst));
            return;
        }
    }
    let misses: u32 = MISSES.iter().map(|count| count.load(Ordering::SeqCst)).sum();
    match WRONG.load(Ordering::SeqCst) {
        0 if misses >= CHANGES * count => {
            say!("ipi: {CHANGES} shoot-downs, {misses} TLB misses");
            say!("ipi: ok");
        }
        0 => say!("ipi: FAILED: {misses} TLB misses for {CHANGES} changes on {count} CPUs"),
        wrong => say!("ipi: FAILED: a CPU saw change {wrong} when it was over"),
    }
}

/// What the others do: the handler only notes that the page has changed, since a TLB miss may not interrupt it.
extern "C" fn work(number: u32) {
    tlb::set_defaults();
    let Some(told) = TOLD.get(number as usize) else { return };
    let mut looked = 0;
    while looked < CHANGES {
        let change = told.load(Ordering::SeqCst);
        if change == looked {
            cpu::rest();
        } else {
            looked = change;
            look(change);
            ring(0);
        }
    }
}

/// Makes the page mean the other memory, and returns whether all CPUs have seen it.
fn shoot_down(change: u32, count: u32, patience: &Patience) -> bool {
    let Some(frame) = FRAMES.0.get(change as usize & 1) else { return false };
    if let Some(word) = frame.first() {
        word.store(change, Ordering::SeqCst);
    }
    SEEN.store(0, Ordering::SeqCst);
    PAGE_TABLE.store(frame.as_ptr() as usize as u32, Ordering::SeqCst);
    CHANGE.store(change, Ordering::SeqCst);
    (1..count).for_each(ring);
    look(change);
    patience.until(|| SEEN.load(Ordering::SeqCst) == count)
}

/// Drops the page's translation and looks at what it means now.
fn look(change: u32) {
    tlb::invalidate_page(PAGE_EA);
    // SAFETY: a page of `FRAMES`, filled in by this CPU's TLB miss; all access to it is volatile or atomic.
    let seen = unsafe { (PAGE_EA as usize as *const u32).read_volatile() };
    if seen != change {
        WRONG.store(seen.max(1), Ordering::SeqCst);
    }
    SEEN.fetch_add(1, Ordering::SeqCst);
}

fn taken(cpu: u32) -> u32 {
    TAKEN.get(cpu as usize).map_or(0, |count| count.load(Ordering::SeqCst))
}

fn ring(cpu: u32) {
    cpu::send_message(cpu);
}

fn interrupt(frame: &mut Frame) -> bool {
    if patience::beat(frame) {
        return true;
    }
    let number = cpu::number();
    match (frame.vector, CHANGE.load(Ordering::SeqCst)) {
        (vector::DOORBELL, 0) => {
            if let Some(count) = TAKEN.get(number as usize) {
                let before = count.fetch_add(1, Ordering::SeqCst);
                let next = (number + 1) % CPUS.load(Ordering::SeqCst).max(1);
                // The last one of CPU 0 has come all the way around and goes no further.
                if number != 0 || before + 1 < ROUNDS {
                    ring(next);
                }
            }
        }
        (vector::DOORBELL, change) => {
            if let Some(told) = TOLD.get(number as usize) {
                told.store(change, Ordering::SeqCst);
            }
        }
        (vector::DATA_TLB, _) if frame.dear & !0xfff == PAGE_EA => {
            if let Some(count) = MISSES.get(number as usize) {
                count.fetch_add(1, Ordering::SeqCst);
            }
            let page = PAGE_TABLE.load(Ordering::SeqCst);
            // SAFETY: nothing that Rust knows of is at that address.
            unsafe { tlb::fill(page.into(), permit::SR) };
        }
        _ => return false,
    }
    true
}
