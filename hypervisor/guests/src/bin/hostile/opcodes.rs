//! Every opcode that a CPU might know, privileged ones above all, with operands that lead to the hypervisor.

use citrine_guests::cpu::msr;
use citrine_guests::interrupts::vector;
use citrine_guests::probe::{Outcome, Probe};
use citrine_guests::random::Random;
use citrine_guests::tlb::{self, Entry, Slot};

use super::log::{Log, Said};
use super::registers::move_to;
use super::{HYPERVISOR, KERNEL, USER, attempt, once};

/// Extended opcodes of primary 31 that have a family of their own.
const MOVE_TO_SPR: u32 = 467;
/// Extended opcodes of primary 19 that return from an interrupt: rfmci, rfdi, rfi, rfci, rfgi.
const RETURNS: [u32; 5] = [38, 39, 50, 51, 102];
/// Values in all registers.
const OPERANDS: [u32; 4] = [0xf000_0000, 0xc000_0000, 0xfe00_4500, 0xffff_fff0];
/// Milliseconds that an instruction may take: one of them is `wait`.
const BRIEF: u32 = 20;
/// Random words.
const RANDOM: u32 = 4000;

/// Tries all.
pub fn run(log: &mut Log) {
    for (kind, state) in [("opcode 31, kernel", KERNEL | msr::FP), ("opcode 31, user", USER | msr::FP)] {
        for word in (0..2048).map(|extended| 0x7ca4_3000 | extended) {
            OPERANDS.iter().for_each(|operand| one(log, kind, word, *operand, state));
        }
    }
    for (kind, state) in [("opcode 19, kernel", KERNEL), ("opcode 19, user", USER)] {
        for word in (0..2048).map(|extended| 0x4ca4_3000 | extended) {
            one(log, kind, word, OPERANDS[0], state);
        }
    }
    primaries(log);
    random(log);
    returns(log);
    levels(log);
    messages(log);
}

/// Whether an instruction would only end the guest itself, or is tried elsewhere: branches into the guest's own
/// code, returns to where an earlier attempt came from, system calls.
fn is_left_out(word: u32, state: u32) -> bool {
    let extended = word >> 1 & 0x3ff;
    match word >> 26 {
        16..=18 => true,
        19 => state & msr::PR == 0 && RETURNS.contains(&extended),
        31 => extended == MOVE_TO_SPR,
        _ => false,
    }
}

fn one(log: &mut Log, kind: &'static str, word: u32, operand: u32, state: u32) {
    if is_left_out(word, state) {
        return;
    }
    if word >> 26 == 31 && word >> 1 & 0x3ff == 978 && state & msr::PR == 0 {
        // What `tlbwe` would write is an entry that means nothing.
        // SAFETY: nothing of Rust's is at that address.
        unsafe { tlb::clear(Slot::Large(5), &Entry::kernel(0x8000_0000, 0, tlb::SIZE_4K, 0)) };
    }
    log.announce(kind, word);
    // Each register another, so that the sum of two is no address of the guest's either.
    let mut probe = Probe::new(word, operand, state);
    for (register, number) in probe.gpr.iter_mut().zip(0..) {
        *register = operand.wrapping_sub(0x10 * number);
    }
    let outcome = once(&probe, BRIEF).outcome;
    log.note(kind, word, Said::Ended(outcome), false);
}

/// All other primary opcodes; the base register is never r0, whose place a zero takes.
fn primaries(log: &mut Log) {
    let mut random = Random::new(0x9e37_79b9);
    for primary in 0..64u32 {
        for (kind, state) in [("primary, kernel", KERNEL | msr::FP), ("primary, user", USER | msr::FP)] {
            for index in 0..16 {
                let low = if index == 0 { 0 } else { random.next() & 0xffff };
                one(log, kind, primary << 26 | 0x00a4_0000 | low, OPERANDS[0], state);
            }
        }
    }
}

fn random(log: &mut Log) {
    let mut random = Random::new(0x1234_5679);
    for _ in 0..RANDOM {
        let (word, operand) = (random.next(), OPERANDS[random.next() as usize % OPERANDS.len()]);
        let word = 31 << 26 | word & 0x03ff_ffff;
        one(log, "random, kernel", word, operand, KERNEL);
        one(log, "random, user", word, operand, USER);
    }
}

/// Every return from an interrupt to the hypervisor's addresses, into every machine state.
fn returns(log: &mut Log) {
    const STATES: [u32; 8] = [
        0,
        u32::MAX,
        msr::PR,
        msr::IS | msr::DS,
        KERNEL | msr::PR | msr::IS | msr::DS,
        // MSR[GS], MSR[CM]: a hypervisor's guest state, and 64 bits.
        1 << 28,
        1 << 31,
        0x5a5a_a5a5,
    ];
    for (kind, word, registers) in [
        ("rfi", 0x4c00_0064, [26, 27]),
        ("rfci", 0x4c00_0066, [58, 59]),
        ("rfdi", 0x4c00_004e, [574, 575]),
        ("rfmci", 0x4c00_004c, [570, 571]),
        ("rfgi", 0x4c00_00cc, [378, 379]),
    ] {
        for (at, state) in HYPERVISOR.iter().flat_map(|at| STATES.map(|state| (at & !3, state))) {
            let mut probe = Probe::new(0, at, msr::ME);
            let [to, new] = registers;
            probe.code = [move_to(to, 4), move_to(new, 5), word, 0];
            let [_, _, _, _, _, second, ..] = &mut probe.gpr;
            *second = state;
            log.announce(kind, at);
            let seen = attempt(&probe);
            // Refused is where it should go, or the return itself; an interrupt of another's making may be first.
            let executed = match seen.outcome {
                Outcome::Completed => true,
                Outcome::Interrupted(vector::INSTRUCTION_TLB | vector::INSTRUCTION_STORAGE, _) => seen.pc != at,
                Outcome::Interrupted(vector::DECREMENTER, _) => true,
                Outcome::Interrupted(..) => false,
            };
            log.note(kind, at, Said::Ended(seen.outcome), executed);
        }
    }
}

/// System calls of every level: from user programs only the guest's kernel is called, never the hypervisor.
fn levels(log: &mut Log) {
    for level in 0..128u32 {
        for (kind, state) in [("sc of a level, user", USER), ("sc of a level, kernel", KERNEL)] {
            // Of the kernel's, level 1 is the hypercall: a family of its own.
            if state == KERNEL && level & 1 == 1 {
                continue;
            }
            log.announce(kind, level);
            let seen = attempt(&Probe::new(0x4400_0002 | level << 5, 0x8000_0001, state));
            log.tally(kind, level, Said::Ended(seen.outcome), seen.outcome == Outcome::Completed);
        }
    }
}

/// Doorbells of every type, to everyone; the neighbour must hear nothing.
fn messages(log: &mut Log) {
    const SEND: u32 = 0x7c00_219c;
    const CLEAR: u32 = 0x7c00_21dc;
    for (kind, word) in [("msgsnd", SEND), ("msgclr", CLEAR)] {
        for message in (0..32u32).flat_map(|number| {
            let tags = [0, 1, 2, 7, 0x3fff, 0x0400_0000, 0x0400_0001, 0x07ff_ffff];
            tags.map(|tag| number << 27 | tag)
        }) {
            log.announce(kind, message);
            let outcome = once(&Probe::new(word, message, KERNEL), BRIEF).outcome;
            log.note(kind, message, Said::Ended(outcome), false);
            let outcome = attempt(&Probe::new(word, message, USER)).outcome;
            log.note("doorbell, user", message, Said::Ended(outcome), outcome == Outcome::Completed);
        }
    }
}
