//! An experiment: a few instructions in any machine state with any registers, and what became of them.
//!
//! Only one CPU at a time may probe.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::cpu::{self, msr};
use crate::interrupts::{Frame, vector};

/// Most instructions of an experiment; a system call follows them.
pub const MOST: usize = 4;
/// `sc`: how an experiment comes back.
const SYSTEM_CALL: u32 = 0x4400_0002;

/// How an experiment ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// All instructions were executed.
    Completed,
    /// It was interrupted: vector, and the syndrome that goes with it (ESR, or MCSR of a machine check).
    Interrupted(u32, u32),
}

/// An experiment and its result.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// The instructions.
    pub code: [u32; MOST],
    /// All general purpose registers, before.
    pub gpr: [u32; 32],
    /// The machine state, before.
    pub msr: u32,
}

/// Where the instructions are put; a page of its own, since it may be mapped for experiments, too.
#[repr(C, align(4096))]
struct Page([AtomicU32; 1024]);

static CODE: Page = Page([const { AtomicU32::new(0) }; 1024]);
static ACTIVE: AtomicBool = AtomicBool::new(false);
static RESULT: Result = Result { gpr: [const { AtomicU32::new(0) }; 32], words: [const { AtomicU32::new(0) }; 5] };

/// What the handler has seen: the registers, then pc, vector, ESR, DEAR, MCSR.
struct Result {
    gpr: [AtomicU32; 32],
    words: [AtomicU32; 5],
}

/// What the interrupt that ended an experiment has found.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// How it ended.
    pub outcome: Outcome,
    /// All general purpose registers, after.
    pub gpr: [u32; 32],
    /// The address that could not be reached, for data accesses.
    pub dear: u32,
    /// Where it ended.
    pub pc: u32,
}

impl Probe {
    /// One instruction, with all registers the same.
    pub const fn new(word: u32, value: u32, msr: u32) -> Self {
        const NOP: u32 = 0x6000_0000;
        Self { code: [word, NOP, NOP, NOP], gpr: [value; 32], msr }
    }

    /// Runs it.
    pub fn run(&self) -> Seen {
        let at = code_address();
        for (slot, word) in CODE.0.iter().zip(self.code.iter().chain(&[SYSTEM_CALL])) {
            slot.store(*word, Ordering::Relaxed);
        }
        cpu::code_changed(at);
        ACTIVE.store(true, Ordering::SeqCst);
        enter(self, at);
        let words = &RESULT.words;
        let word = |index: usize| words.get(index).map_or(0, |word| word.load(Ordering::SeqCst));
        let (pc, number) = (word(0), word(1));
        let outcome = match number {
            vector::SYSTEM_CALL if pc == at + 4 * (MOST as u32 + 1) => Outcome::Completed,
            vector::MACHINE_CHECK => Outcome::Interrupted(number, word(4)),
            // The others leave the syndrome as it was.
            vector::DATA_STORAGE | vector::INSTRUCTION_STORAGE | vector::PROGRAM | vector::DATA_TLB => {
                Outcome::Interrupted(number, word(2))
            }
            _ => Outcome::Interrupted(number, 0),
        };
        let mut gpr = [0; 32];
        for (to, from) in gpr.iter_mut().zip(&RESULT.gpr) {
            *to = from.load(Ordering::SeqCst);
        }
        Seen { outcome, gpr, dear: word(3), pc }
    }
}

/// Where the instructions of an experiment are.
pub fn code_address() -> u32 {
    CODE.0.as_ptr() as usize as u32
}

#[cfg(target_arch = "powerpc")]
fn enter(probe: &Probe, at: u32) {
    unsafe extern "C" {
        fn citrine_guest_probe(gpr: *const [u32; 32], pc: u32, msr: u32);
    }
    // SAFETY: it returns with everything that a call preserves, by way of `ended`.
    unsafe { citrine_guest_probe(&probe.gpr, at, probe.msr) };
}

#[cfg(not(target_arch = "powerpc"))]
fn enter(probe: &Probe, at: u32) {
    let _ = (probe, at);
    ACTIVE.store(false, Ordering::SeqCst);
}

/// For a guest's handler: ends the experiment that was interrupted. False when there is none.
pub fn ended(frame: &mut Frame) -> bool {
    if !ACTIVE.swap(false, Ordering::SeqCst) {
        return false;
    }
    for (to, from) in RESULT.gpr.iter().zip(&frame.gpr) {
        to.store(*from, Ordering::SeqCst);
    }
    for (to, from) in RESULT.words.iter().zip([frame.pc, frame.vector, frame.esr, frame.dear, frame.mcsr]) {
        to.store(from, Ordering::SeqCst);
    }
    resume(frame);
    true
}

#[cfg(target_arch = "powerpc")]
fn resume(frame: &mut Frame) {
    use core::arch::asm;
    unsafe extern "C" {
        fn citrine_guest_probe_resume();
    }
    let stack: u32;
    // SAFETY: SPRG0 is this CPU's area, and `citrine_guest_probe` has left the stack pointer in it.
    unsafe { asm!("mfspr {0}, 272", "lwz {0}, 1040({0})", out(reg_nonzero) stack, options(nostack, readonly)) };
    frame.pc = citrine_guest_probe_resume as *const () as usize as u32;
    frame.msr = msr::ME;
    if let Some(register) = frame.gpr.get_mut(1) {
        *register = stack;
    }
}

#[cfg(not(target_arch = "powerpc"))]
fn resume(frame: &mut Frame) {
    frame.msr = msr::ME;
}
