//! Two partitions run the same random programs, one of them with `fast-traps = false`, and compare all that they did.
//!
//! `role=compare` or `role=report` in the boot arguments says which one it is; `first=` and `programs=` choose other
//! programs than the usual ones, by number, and `verbose=1` announces each. A program is the same wherever and whenever it is run, so that one that
//! fails can be run alone.
//!
//! Of each interrupt of a program its registers and of its end all registers, translations and memory are compared, and
//! where they differ both partitions print what they have. Whether what both of them do is right is not the question
//! here, but for this: a doorbell comes as often as it is sent, and no program goes where it should not.
#![cfg_attr(target_arch = "powerpc", no_std, no_main)]

mod encode;
mod harness;
mod memory;
mod places;
mod program;
mod record;
mod registers;
mod wire;

use core::ops::Range;
use core::sync::atomic::Ordering;

use citrine_guests::interrupts::{Frame, name, vector};
use citrine_guests::tree::Tree;
use citrine_guests::{Guest, guest, say};

use places::CODE;
use program::Program;
use record::{KEPT, record};
use wire::{Silence, Wire};

guest!(run, interrupt);

/// Node of the channel, as the profile calls it.
const CHANNEL: &str = "link-channel";
/// Programs, unless the boot arguments say otherwise.
const PROGRAMS: u32 = 600;
/// Seconds after which the other partition is taken to be dead.
const PATIENCE: u64 = 60;
/// Interrupts that the programs must have caused.
const CAUSED: [u32; 10] = [
    vector::PROGRAM,
    vector::SYSTEM_CALL,
    vector::DATA_TLB,
    vector::INSTRUCTION_TLB,
    vector::DATA_STORAGE,
    vector::INSTRUCTION_STORAGE,
    FP_UNAVAILABLE,
    vector::DOORBELL,
    vector::CRITICAL_DOORBELL,
    vector::MACHINE_CHECK,
];
const FP_UNAVAILABLE: u32 = 7;
/// What is answered to the sums of records: they are the same, or the place of the first that differs, plus this.
const SAME: u32 = 0;
const DIFFERS: u32 = 1;

fn run(guest: &Guest) {
    let Some(channel) = guest.tree.channel(CHANNEL) else {
        say!("twin: FAILED: the tree has no {CHANNEL}");
        return;
    };
    let ticks = u64::from(guest.tree.timebase_frequency().unwrap_or(1 << 28));
    let wire = Wire::new(channel.handle, ticks * PATIENCE);
    let compares = match guest.tree.argument("role") {
        Some("compare") => true,
        Some("report") => false,
        role => {
            say!("twin: FAILED: role={} is neither compare nor report", role.unwrap_or_default());
            return;
        }
    };
    let (first, programs) = (number(&guest.tree, "first", 1), number(&guest.tree, "programs", PROGRAMS));
    let verbose = guest.tree.argument("verbose").is_some();
    let mut twin = Twin { wire, compares, verbose, leave: harness::prepare() };
    let last = first.saturating_add(programs);
    for batch in (first..last).step_by(KEPT) {
        if !twin.run(batch..last.min(batch + KEPT as u32)) {
            return;
        }
    }
    for vector in CAUSED {
        let count = harness::TAKEN.get(vector as usize).map_or(0, |count| count.load(Ordering::Relaxed));
        let verdict = if count == 0 && programs >= PROGRAMS { "FAILED: " } else { "" };
        say!("twin: {verdict}{count} times {}", name(vector));
    }
    say!("twin: {programs} programs agree");
}

/// One of the two.
struct Twin {
    wire: Wire,
    compares: bool,
    /// Each program is announced, so that one that has no end is known.
    verbose: bool,
    /// Where programs end.
    leave: u32,
}

impl Twin {
    /// Writes a program.
    fn write(&self, number: u32) -> Program {
        program::write(number.wrapping_mul(0x9e37_79b9), &CODE.0, self.leave)
    }

    /// Runs a few programs and compares them with the other's; false, with all that is known said, when one differs.
    fn run(&mut self, numbers: Range<u32>) -> bool {
        for (number, place) in numbers.clone().zip(0..) {
            if self.verbose {
                say!("twin: program {number}");
            }
            let program = self.write(number);
            let outcome = harness::run(&program);
            record(place).keep(&outcome);
            if let Some(pc) = outcome.astray {
                say!("twin: FAILED: program {number} went to {pc:#010x}");
                record(place).explain((outcome.interrupts as usize).saturating_sub(1) * harness::SEEN);
                print(&program);
            } else if outcome.doorbells != program.doorbells {
                say!("twin: FAILED: program {number}: {} doorbells of {} came", outcome.doorbells, program.doorbells);
                print(&program);
            }
        }
        let differs = if self.compares { self.compare(numbers.clone()) } else { self.report(numbers.clone()) };
        match differs {
            Ok(None) => true,
            Ok(Some((place, index))) => {
                let number = numbers.start + place as u32;
                say!("twin: FAILED: program {number} differs");
                record(place).explain(index);
                let program = self.write(number);
                print(&program);
                print_registers(&harness::watch(&program, record(place).interrupt_of(index)));
                false
            }
            Err(Silence) => {
                say!("twin: FAILED: programs {} to {}: the other partition is silent", numbers.start, numbers.end - 1);
                false
            }
        }
    }

    /// Compares what is here with what comes: which record differs first, and where.
    fn compare(&mut self, numbers: Range<u32>) -> Result<Option<(usize, usize)>, Silence> {
        let mut differs = None;
        for place in 0..numbers.len() {
            if self.wire.receive()? != record(place).sum() {
                differs = differs.or(Some(place));
            }
        }
        self.wire.send([differs.map_or(SAME, |place| place as u32 + DIFFERS)].into_iter())?;
        let Some(place) = differs else { return Ok(None) };
        let len = self.wire.receive()? as usize;
        let mut others = 0..len;
        let mut index = None;
        for (at, here) in record(place).words().enumerate() {
            if others.next().is_some() && self.wire.receive()? != here {
                index = index.or(Some(at));
            }
        }
        for _ in others {
            self.wire.receive()?;
        }
        // One that is the beginning of the other differs behind it.
        let index = index.unwrap_or(len.min(record(place).len()));
        self.wire.send([index as u32].into_iter())?;
        Ok(Some((place, index)))
    }

    /// Tells what is here: which record differs from the other's, and where.
    fn report(&mut self, numbers: Range<u32>) -> Result<Option<(usize, usize)>, Silence> {
        self.wire.send((0..numbers.len()).map(|place| record(place).sum()))?;
        let Some(place) = self.wire.receive()?.checked_sub(DIFFERS) else { return Ok(None) };
        let place = place as usize;
        self.wire.send([record(place).len() as u32].into_iter().chain(record(place).words()))?;
        Ok(Some((place, self.wire.receive()? as usize)))
    }
}

/// Prints a program's code and what it begins with.
fn print(program: &Program) {
    say!("twin: {:?} code from {:#010x} to {:#010x}", program.kind, program.begin, program.end);
    let first = harness::offset_in_code(program.kind, program.begin);
    let count = (program.end - program.begin) as usize / 4;
    let words = CODE.0.get(first..).unwrap_or_default();
    for (row, address) in words.get(..count).unwrap_or(words).chunks(8).zip((program.begin..).step_by(32)) {
        let word = |index: usize| row.get(index).map_or(0, |word| word.load(Ordering::Relaxed));
        let [a, b, c, d, e, f, g, h] = [0, 1, 2, 3, 4, 5, 6, 7].map(word);
        say!("twin: {address:08x}: {a:08x} {b:08x} {c:08x} {d:08x} {e:08x} {f:08x} {g:08x} {h:08x}");
    }
}

/// Prints the registers of an interrupt.
fn print_registers(registers: &[u32]) {
    const ROWS: [&str; 6] =
        ["r0 to r7", "r8 to r15", "r16 to r23", "r24 to r31", "CR, LR, CTR, XER, MAS0 to MAS3", "MAS4, MAS6, MAS7"];
    say!("twin: once more, the registers at that interrupt:");
    for (row, what) in registers.chunks(8).zip(ROWS) {
        say!("twin:   {what} {row:08x?}");
    }
}

/// A number of the boot arguments.
fn number(tree: &Tree<'_>, key: &str, otherwise: u32) -> u32 {
    tree.argument(key).and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Of the library's vectors none is used: all interrupts are those of programs.
fn interrupt(_frame: &mut Frame) -> bool {
    false
}
