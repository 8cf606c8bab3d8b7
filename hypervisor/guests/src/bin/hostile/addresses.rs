//! Reads, writes and jumps to addresses that the guest has not mapped: all of them must end in an interrupt that
//! the guest's kernel gets, whatever the hypervisor has there.

use citrine_guests::cpu::msr;
use citrine_guests::interrupts::vector;
use citrine_guests::probe::{Outcome, Probe};

use super::log::{Log, Said};
use super::{HYPERVISOR, KERNEL, USER, attempt};

/// `lwz 5,0(4)`, `stw 5,0(4)`, `lwarx 5,0,4`, `dcbz 0,4`, `dcbf 0,4`, `icbi 0,4`; `mtctr 4` before `bctr`.
pub const LOAD: u32 = 0x80a4_0000;
/// See [`LOAD`].
pub const STORE: u32 = 0x90a4_0000;
const LOAD_RESERVED: u32 = 0x7ca0_2028;
const CACHE_ZERO: u32 = 0x7c00_27ec;
const MOVE_TO_CTR: u32 = 0x7c89_03a6;
const BRANCH_TO_CTR: u32 = 0x4e80_0420;

/// The first address behind the guest's own mapping.
const BEHIND: u32 = 0x4000_0000;
/// Steps of the sweep.
const STEP: usize = 8 << 20;

/// Tries all.
pub fn run(log: &mut Log) {
    let sweep = || (BEHIND..=0xffff_ffff).step_by(STEP);
    for (kind, state) in [
        ("read, kernel", KERNEL),
        ("read, user", USER),
        ("read, kernel, space 1", KERNEL | msr::DS),
        ("read, user, space 1", USER | msr::DS),
    ] {
        sweep().chain(HYPERVISOR).for_each(|at| access(log, kind, LOAD, at, state));
    }
    for (kind, state) in [("write, kernel", KERNEL), ("write, user", USER), ("write, user, space 1", USER | msr::DS)] {
        sweep().chain(HYPERVISOR).for_each(|at| access(log, kind, STORE, at, state));
    }
    for (kind, word) in [("lwarx, user", LOAD_RESERVED), ("dcbz, user", CACHE_ZERO)] {
        HYPERVISOR.iter().for_each(|at| access(log, kind, word, *at, USER));
    }
    for (kind, state) in [("jump, kernel", KERNEL), ("jump, user", USER)] {
        sweep().chain(HYPERVISOR).for_each(|at| jump(log, kind, at & !3, state));
    }
}

/// One access by an instruction that takes its address from r4.
fn access(log: &mut Log, kind: &'static str, word: u32, at: u32, state: u32) {
    log.announce(kind, at);
    let outcome = attempt(&Probe::new(word, at, state)).outcome;
    let refused = matches!(outcome, Outcome::Interrupted(vector::DATA_TLB | vector::DATA_STORAGE, _));
    log.note(kind, at, Said::Ended(outcome), !refused);
}

/// A jump; whatever ends behind its first instruction was executed.
pub fn jump(log: &mut Log, kind: &'static str, at: u32, state: u32) {
    log.announce(kind, at);
    let mut probe = Probe::new(MOVE_TO_CTR, at, state);
    probe.code = [MOVE_TO_CTR, BRANCH_TO_CTR, 0, 0];
    let seen = attempt(&probe);
    let refused = matches!(
        seen.outcome,
        Outcome::Interrupted(vector::INSTRUCTION_TLB | vector::INSTRUCTION_STORAGE | vector::MACHINE_CHECK, _)
    );
    log.note(kind, at, Said::Ended(seen.outcome), !refused || seen.pc != at);
}
