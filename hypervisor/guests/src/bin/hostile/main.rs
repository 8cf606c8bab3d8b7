//! Tries everything that a guest must not be able to do, says what came of it, and counts.
//!
//! Only what would end the guest by its own doing is left out: stopping its own partition, its own watchdog, and
//! dropping the memory that it runs in. What reaches something that is not the guest's is a breach. Whether a
//! neighbour was harmed, the neighbour says.
#![cfg_attr(target_arch = "powerpc", no_std, no_main)]

mod addresses;
mod calls;
mod log;
mod mappings;
mod opcodes;
mod registers;

use core::sync::atomic::{AtomicU32, Ordering};

use citrine_guests::cpu::{self, msr, timer};
use citrine_guests::interrupts::{Frame, vector};
use citrine_guests::probe::{self, Outcome, Probe, Seen};
use citrine_guests::{Guest, guest, hypercall, say, tlb};

use log::Log;

guest!(run, interrupt);

/// Machine state of the guest's kernel in an experiment: all interrupts are on, so that nothing lasts for ever.
const KERNEL: u32 = msr::ME | msr::CE | msr::EE;
/// Machine state of the guest's user programs.
const USER: u32 = KERNEL | msr::PR;
/// Effective addresses at which a hypervisor may live: its image, its windows, its devices, its last page.
const HYPERVISOR: [u32; 12] = [
    0xc000_0000,
    0xc000_1000,
    0xcfff_fffc,
    0xd000_0000,
    0xe000_0000,
    0xf000_0000,
    0xf000_2000,
    0xf03f_fffc,
    0xfe00_4500,
    0xffff_8000,
    0xffff_f000,
    0xffff_fffc,
];

/// Ticks of the timebase in a millisecond.
static MILLISECOND: AtomicU32 = AtomicU32::new(1 << 18);

fn run(guest: &Guest) {
    tlb::map_low();
    MILLISECOND.store(guest.tree.timebase_frequency().unwrap_or(1 << 28) / 1000, Ordering::Relaxed);
    try_all(guest);
    while guest.tree.argument("again").is_some() {
        try_all(guest);
    }
}

fn try_all(guest: &Guest) {
    let mut log = Log::new(guest.tree.argument("verbose").is_some());
    let mut family = |name: &str, run: &dyn Fn(&mut Log)| {
        say!("hostile: {name}");
        run(&mut log);
        log.end();
    };
    family("addresses", &addresses::run);
    family("mappings", &|log| mappings::run(&guest.tree, log));
    family("opcodes", &opcodes::run);
    family("registers", &registers::run);
    if guest.tree.has_hypervisor() {
        family("hypercalls", &|log| calls::run(&guest.tree, log));
    }
    match log.breaches() {
        0 => say!("hostile: survived {} attempts", log.attempts()),
        breaches => say!("hostile: FAILED: {breaches} breaches in {} attempts", log.attempts()),
    }
}

/// Runs an experiment whose end is judged: one that something else has interrupted, brought about earlier, is
/// repeated.
fn attempt(probe: &Probe) -> Seen {
    const TIMES: u32 = 8;
    let mut seen = once(probe, 1000);
    for _ in 1..TIMES {
        match seen.outcome {
            Outcome::Interrupted(vector::EXTERNAL | vector::DOORBELL | vector::CRITICAL_DOORBELL, _) => {
                seen = once(probe, 1000);
            }
            _ => break,
        }
    }
    seen
}

/// Runs an experiment for at most so many milliseconds.
fn once(probe: &Probe, milliseconds: u32) -> Seen {
    cpu::set_decrementer(MILLISECOND.load(Ordering::Relaxed) * milliseconds);
    cpu::clear_timer_status(timer::TSR_DIS);
    cpu::set_timer_control(timer::TCR_DIE);
    probe.run()
}

fn interrupt(frame: &mut Frame) -> bool {
    let known = probe::ended(frame);
    match frame.vector {
        vector::EXTERNAL => hypercall::end_of_interrupt(cpu::external_vector()),
        vector::DECREMENTER => cpu::clear_timer_status(timer::TSR_DIS),
        vector::MACHINE_CHECK => drop(cpu::take_machine_check()),
        // What was brought about earlier and comes when nothing is tried.
        vector::DOORBELL | vector::CRITICAL_DOORBELL | vector::FIXED_INTERVAL => {}
        // `tlbwe` refuses what the MMU does not have; the entry that was there is then no danger either.
        vector::PROGRAM if !known => frame.pc += 4,
        _ => return known,
    }
    true
}
