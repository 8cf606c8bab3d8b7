//! What surrounds a program: the way in, the interrupts, the way out.

use core::sync::atomic::{AtomicU32, Ordering};

use citrine_guests::checksum::Checksum;
use citrine_guests::cpu::{self, msr};
use citrine_guests::interrupts::{Frame, vector};
use citrine_guests::tlb::{self, Entry, Slot};

use crate::encode::{branch_to, mfmsr, mfspr, store_at};
use crate::places::{
    CODE_PAGES, DATA, FRAMES, Kind, LARGE_SLOT, LARGE_SLOTS, MEMORY, PAGES, VOID, address_of, is_private, page_of,
    translation,
};
use crate::program::{Program, RETURNS};
use crate::registers::LEFT;

/// Most interrupts of a program that are told one by one.
pub const INTERRUPTS: usize = 256;
/// Words that tell of an interrupt: see [`names`](crate::record).
pub const SEEN: usize = 8;
/// Words of what a program has left: registers, those of the kernel, TLBs, memory.
pub const STATE: usize = 37 + LEFT.len() + PAGES as usize + LARGE_SLOTS as usize + 2 + FRAMES as usize;
/// Interrupts of a program after which it is given up.
const TOO_MANY: u32 = 2000;
/// Vectors have numbers below this.
pub const VECTORS: usize = 64;

/// What the handler tells of each interrupt.
pub static LOG: [AtomicU32; INTERRUPTS * SEEN] = [const { AtomicU32::new(0) }; INTERRUPTS * SEEN];
/// Interrupts of this program.
static COUNT: AtomicU32 = AtomicU32::new(0);
/// Doorbells of this program.
static DOORBELLS: AtomicU32 = AtomicU32::new(0);
/// Where it went that is none of its places; its vector then is the last of the log.
static ASTRAY: AtomicU32 = AtomicU32::new(0);
/// Interrupts of all programs, by vector.
pub static TAKEN: [AtomicU32; VECTORS] = [const { AtomicU32::new(0) }; VECTORS];
/// Where the program is, and where its users come back to its kernel.
static LIMITS: [AtomicU32; 2] = [const { AtomicU32::new(0) }; 2];
static BACK: [AtomicU32; RETURNS] = [const { AtomicU32::new(0) }; RETURNS];

/// The interrupt whose registers are kept, counted from 1, and the registers: r0 to r31, CR, LR, CTR, XER, MAS0 to MAS4,
/// MAS6, MAS7.
static WATCHED: AtomicU32 = AtomicU32::new(0);
static REGISTERS: [AtomicU32; WATCHED_REGISTERS] = [const { AtomicU32::new(0) }; WATCHED_REGISTERS];
const WATCHED_REGISTERS: usize = 43;

/// Stores what a program has left, wherever it comes from.
#[repr(C, align(4096))]
struct Leave([AtomicU32; LEAVE_WORDS]);
static LEAVE: Leave = Leave([const { AtomicU32::new(0) }; LEAVE_WORDS]);
/// A store for each general register; a move and a store for each other; the branch.
const LEAVE_WORDS: usize = 32 + 2 * (5 + LEFT.len()) + 1;

/// What became of a program.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Interrupts that it has taken; the log has no more than [`INTERRUPTS`] of them.
    pub interrupts: u32,
    /// Doorbells among them.
    pub doorbells: u32,
    /// Where it went that is none of its places.
    pub astray: Option<u32>,
    /// What it has left.
    pub state: [u32; STATE],
}

#[cfg(target_arch = "powerpc")]
mod machine {
    //! The assembler's side.
    use super::{AtomicU32, Frame};

    core::arch::global_asm!(include_str!("twin.s"));

    unsafe extern "C" {
        fn citrine_twin_enter(start: *const Frame);
        fn citrine_twin_back();
        fn citrine_twin_set_vectors();
        static citrine_twin_registers: [AtomicU32; 128];
    }

    /// All interrupts come here from now on.
    pub fn set_vectors() {
        // SAFETY: the handler knows each of them.
        unsafe { citrine_twin_set_vectors() };
    }

    /// Runs from the frame's address with its registers.
    pub fn enter(start: &Frame) {
        // SAFETY: all that a call preserves is restored; programs keep to their places.
        unsafe { citrine_twin_enter(start) };
    }

    /// Where programs end.
    pub fn back() -> u32 {
        citrine_twin_back as *const () as usize as u32
    }

    /// What a program has left.
    pub fn registers() -> &'static [AtomicU32] {
        // SAFETY: words of the image; whoever writes them is done before anybody looks.
        unsafe { &*&raw const citrine_twin_registers }
    }

    #[unsafe(no_mangle)]
    extern "C" fn citrine_twin_interrupt(frame: &mut Frame) {
        super::interrupt(frame);
    }
}

#[cfg(not(target_arch = "powerpc"))]
mod machine {
    //! Nothing runs here.
    use super::{AtomicU32, Frame};
    pub fn set_vectors() {}
    pub fn enter(_start: &Frame) {
        let _: fn(&mut Frame) = super::interrupt;
    }
    pub fn back() -> u32 {
        0
    }
    pub fn registers() -> &'static [AtomicU32] {
        &[]
    }
}

/// Takes the interrupts, and prepares the way out. To be called once; returns where programs end.
pub fn prepare() -> u32 {
    machine::set_vectors();
    tlb::map_low();
    // The same in the other address space.
    let low = Entry { space: true, permissions: tlb::permit::ALL, ..Entry::kernel(0, 0, tlb::SIZE_1G, tlb::COHERENT) };
    // SAFETY: it maps as `map_low` does, where nothing else is mapped.
    unsafe { tlb::write(Slot::Large(1), &low) };

    let registers = machine::registers().as_ptr() as usize as u32;
    let at = |index: usize| registers + 4 * index as u32;
    let general = (0..32).map(|number| store_at(number, at(number as usize)));
    // r3 has been stored. mfcr, mflr, mfctr, mfxer, mfmsr.
    let special = [0x7c60_0026, mfspr(3, 8), mfspr(3, 9), mfspr(3, 1), mfmsr(3)];
    let kernel = LEFT.iter().map(|(_, number)| mfspr(3, *number));
    let others = special.into_iter().chain(kernel).zip(32..).flat_map(|(word, index)| [word, store_at(3, at(index))]);
    let words = general.chain(others).chain([branch_to(machine::back())]);
    for (slot, word) in LEAVE.0.iter().zip(words) {
        slot.store(word, Ordering::SeqCst);
    }
    let leave = LEAVE.0.as_ptr() as usize as u32;
    changed(leave, 4 * LEAVE.0.len() as u32);
    leave
}

/// These bytes are instructions now.
fn changed(at: u32, len: u32) {
    (at & !31..at + len).step_by(32).for_each(cpu::code_changed);
}

/// Makes everything as it was before the first program.
fn reset() {
    tlb::invalidate_all();
    for page in 0..PAGES {
        let entry = Entry::kernel(address_of(page), 0, tlb::SIZE_4K, 0);
        // SAFETY: only the harness' own places and the programs' are mapped, and these are the latter.
        unsafe { tlb::clear(Slot::Page(0), &entry) };
    }
    for slot in LARGE_SLOT..LARGE_SLOT + LARGE_SLOTS {
        // SAFETY: as above.
        unsafe { tlb::clear(Slot::Large(slot), &Entry::kernel(0, 0, tlb::SIZE_4K, 0)) };
    }
    cpu::clear_message(0);
    cpu::clear_message(1 << 27);
    cpu::take_machine_check();
    for (frame, number) in MEMORY.0.iter().zip(1u32..) {
        for (word, index) in frame.iter().zip(0u32..) {
            word.store(number.wrapping_mul(0x0101_0101) ^ index, Ordering::Relaxed);
        }
    }
    for counter in [&COUNT, &DOORBELLS, &ASTRAY] {
        counter.store(0, Ordering::Relaxed);
    }
}

/// Runs a program that has been written to [`CODE`](crate::places::CODE).
pub fn run(program: &Program) -> Outcome {
    reset();
    let offset = 4 * offset_in_code(program.kind, program.begin) as u32;
    changed(Kind::Low.code() + offset, program.end - program.begin);
    for (limit, value) in LIMITS.iter().zip([program.begin, program.end]) {
        limit.store(value, Ordering::Relaxed);
    }
    for (slot, value) in BACK.iter().zip(program.returns) {
        slot.store(value, Ordering::Relaxed);
    }
    cpu::set_process(program.process);
    let [first, second, third, fourth, ..] = program.gpr;
    let start = Frame {
        gpr: program.gpr,
        cr: first,
        lr: second,
        ctr: third,
        xer: fourth,
        pc: program.begin,
        msr: msr::ME,
        esr: 0,
        dear: 0,
        vector: 0,
        mcsr: 0,
    };
    machine::enter(&start);
    let (interrupts, astray) = (COUNT.load(Ordering::SeqCst), ASTRAY.load(Ordering::SeqCst));
    let doorbells = DOORBELLS.load(Ordering::SeqCst);
    Outcome { interrupts, doorbells, astray: (astray != 0).then_some(astray), state: state() }
}

/// Runs a program once more; returns r0 to r31, CR, LR, CTR, XER, MAS0 to MAS4, MAS6 and MAS7 at an interrupt, which are
/// counted from 1.
pub fn watch(program: &Program, interrupt: u32) -> [u32; WATCHED_REGISTERS] {
    WATCHED.store(interrupt, Ordering::Relaxed);
    run(program);
    let mut registers = [0; WATCHED_REGISTERS];
    for (to, from) in registers.iter_mut().zip(&REGISTERS) {
        *to = from.load(Ordering::Relaxed);
    }
    registers
}

/// What the program has left.
fn state() -> [u32; STATE] {
    let mut state = [0; STATE];
    let registers = machine::registers().iter().take(37 + LEFT.len()).map(|word| word.load(Ordering::SeqCst));
    let pages = (0..PAGES).map(|page| {
        let ways = if is_private(page) { 1..4 } else { 0..1 };
        ways.fold(Checksum::new(), |sum, way| shown(sum, Slot::Page(way), address_of(page))).value()
    });
    let slots = (LARGE_SLOT..LARGE_SLOT + LARGE_SLOTS).chain([0, 1]);
    let slots = slots.map(|slot| shown(Checksum::new(), Slot::Large(slot), 0).value());
    let memory = MEMORY
        .0
        .iter()
        .map(|frame| frame.iter().fold(Checksum::new(), |sum, word| sum.add(word.load(Ordering::SeqCst))));
    let values = registers.chain(pages).chain(slots).chain(memory.map(Checksum::value));
    for (slot, value) in state.iter_mut().zip(values) {
        *slot = value;
    }
    state
}

/// A sum and an entry: of one that is not valid nothing counts.
fn shown(sum: Checksum, slot: Slot, ea: u32) -> Checksum {
    let [mas0, mas1, mas2, mas3, _, _, mas7] = tlb::read(slot, ea);
    if mas1 >> 31 == 0 { sum.add(mas0) } else { [mas0, mas1, mas2, mas3, mas7].into_iter().fold(sum, Checksum::add) }
}

/// Takes an interrupt: tells of it, and says where the program goes on.
fn interrupt(frame: &mut Frame) {
    let number = COUNT.fetch_add(1, Ordering::SeqCst);
    if let Some(count) = TAKEN.get(frame.vector as usize) {
        count.fetch_add(1, Ordering::Relaxed);
    }
    let special = [frame.cr, frame.lr, frame.ctr, frame.xer];
    let assist = tlb::assist();
    if number + 1 == WATCHED.load(Ordering::Relaxed) {
        let registers = frame.gpr.iter().chain(&special).chain(&assist);
        REGISTERS.iter().zip(registers).for_each(|(slot, word)| slot.store(*word, Ordering::Relaxed));
    }
    let sum = |words: &[u32]| words.iter().fold(Checksum::new(), |sum, word| sum.add(*word)).value();
    let seen = [
        frame.vector,
        frame.pc,
        frame.msr,
        frame.esr,
        frame.dear,
        sum(&assist),
        sum(&frame.gpr),
        sum(&[frame.cr, frame.lr, frame.ctr, frame.xer, frame.mcsr, cpu::process()]),
    ];
    let log = LOG.get(number as usize % INTERRUPTS * SEEN..).unwrap_or_default();
    log.iter().zip(seen).for_each(|(slot, word)| slot.store(word, Ordering::Relaxed));

    let [begin, end] = [&LIMITS[0], &LIMITS[1]].map(|limit| limit.load(Ordering::Relaxed));
    let inside = (begin..end).contains(&frame.pc);
    let known = number < TOO_MANY && (inside || is_elsewhere(frame.pc)) && go_on(frame, inside);
    if !known {
        let again = ASTRAY.swap(frame.pc.max(1), Ordering::SeqCst) != 0;
        // Once more the way out has failed: only the program's state is lost.
        frame.pc = if again { machine::back() } else { LEAVE.0.as_ptr() as usize as u32 };
        frame.msr = msr::ME;
    }
}

/// Where a program jumps that comes back with its link register.
fn is_elsewhere(pc: u32) -> bool {
    pc & !0xfff == VOID || page_of(pc).is_some_and(|page| page >= DATA)
}

/// Whether the interrupt is one of those that programs cause; where to go on then.
fn go_on(frame: &mut Frame, inside: bool) -> bool {
    match frame.vector {
        vector::SYSTEM_CALL if inside => {
            if frame.msr & msr::PR != 0 && BACK.iter().any(|back| back.load(Ordering::Relaxed) == frame.pc) {
                frame.msr = msr::ME;
            }
        }
        vector::DOORBELL | vector::CRITICAL_DOORBELL if inside => {
            DOORBELLS.fetch_add(1, Ordering::Relaxed);
        }
        vector::DATA_TLB if inside => {
            if !fill(frame.dear, frame.msr & msr::DS) {
                frame.pc += 4;
            }
        }
        vector::INSTRUCTION_TLB => {
            if !fill(frame.pc, frame.msr & msr::IS) {
                return !inside && returned(frame);
            }
        }
        vector::INSTRUCTION_STORAGE => return !inside && returned(frame),
        vector::MACHINE_CHECK if inside => {
            cpu::take_machine_check();
            frame.pc += 4;
        }
        // FP unavailable.
        7 | vector::PROGRAM | vector::DATA_STORAGE if inside => frame.pc += 4,
        _ => return false,
    }
    true
}

/// Goes back to where the program was called from.
fn returned(frame: &mut Frame) -> bool {
    frame.pc = frame.lr & !3;
    true
}

/// Translates the page at an address, if there is a translation.
fn fill(ea: u32, space: u32) -> bool {
    let found = page_of(ea).filter(|_| space == 0).and_then(|page| translation(page, cpu::process()));
    let Some((slot, entry)) = found else { return false };
    // SAFETY: the programs' own pages.
    unsafe { tlb::write(slot, &entry) };
    true
}

/// The index in [`CODE`](crate::places::CODE) of what is at an address in a program.
pub fn offset_in_code(kind: Kind, pc: u32) -> usize {
    (pc.wrapping_sub(kind.code()) / 4) as usize % (1024 * CODE_PAGES as usize)
}
