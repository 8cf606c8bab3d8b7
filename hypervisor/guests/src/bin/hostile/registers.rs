//! Every special purpose register, read and written by the guest's kernel and by its user programs.

use citrine_guests::cpu::msr;
use citrine_guests::probe::{Outcome, Probe};

use super::log::{Log, Said};
use super::{KERNEL, USER, attempt};

/// Register numbers have ten bits.
const NUMBERS: u32 = 1024;
/// What is written.
const VALUES: [u32; 5] = [0, u32::MAX, 0x5a5a_a5a5, 0xf000_0000, 1];
/// TCR, and its bits that would reset this guest for good (TCR[WRC]).
const TCR: u32 = 340;
const WATCHDOG_RESET: u32 = 3 << 28;

/// Tries all.
pub fn run(log: &mut Log) {
    for number in 0..NUMBERS {
        for (kind, state) in [("mfspr, kernel", KERNEL), ("mfspr, user", USER)] {
            log.announce(kind, number);
            let outcome = attempt(&Probe::new(move_from(number), 0, state)).outcome;
            log.note(kind, number, Said::Ended(outcome), is_breach(number, state, outcome));
        }
    }
    for value in VALUES {
        for number in 0..NUMBERS {
            write(log, number, value);
        }
    }
}

/// A register with this bit is the kernel's (Power ISA 2.06 III-E §3.4.1); that of the guest's own kernel must be
/// kept from its user programs, too. Only the timebase's numbers for writing may be read: QEMU does not mind, and
/// under its numbers for reading everyone has it.
fn is_breach(number: u32, state: u32, outcome: Outcome) -> bool {
    const PRIVILEGED: u32 = 0x10;
    const TIMEBASE: [u32; 2] = [284, 285];
    let user = state & msr::PR != 0 && number & PRIVILEGED != 0 && !TIMEBASE.contains(&number);
    user && outcome == Outcome::Completed
}

/// Writes a value, and at once the one that was there before: without its vectors a guest only ends itself.
fn write(log: &mut Log, number: u32, value: u32) {
    let value = if number == TCR { value & !WATCHDOG_RESET } else { value };
    log.announce("mtspr, kernel", number);
    let before = attempt(&Probe::new(move_from(number), 0, KERNEL));
    let [_, _, _, _, _, before, ..] = before.gpr;
    // No interrupt may come in between.
    let mut probe = Probe::new(0, value, msr::ME);
    probe.code = [move_to(number, 5), move_to(number, 6), 0x6000_0000, 0x6000_0000];
    let [_, _, _, _, _, _, restored, ..] = &mut probe.gpr;
    *restored = before;
    let outcome = attempt(&probe).outcome;
    log.note("mtspr, kernel", number, Said::Ended(outcome), false);

    log.announce("mtspr, user", number);
    let outcome = attempt(&Probe::new(move_to(number, 5), value, USER)).outcome;
    log.note("mtspr, user", number, Said::Ended(outcome), is_breach(number, USER, outcome));
}

/// `mfspr 5,number`
const fn move_from(number: u32) -> u32 {
    0x7ca0_02a6 | field(number)
}

/// `mtspr number,register`
pub const fn move_to(number: u32, register: u32) -> u32 {
    0x7c00_03a6 | register << 21 | field(number)
}

/// The number, its halves exchanged.
const fn field(number: u32) -> u32 {
    (number & 0x1f) << 16 | (number >> 5 & 0x1f) << 11
}
