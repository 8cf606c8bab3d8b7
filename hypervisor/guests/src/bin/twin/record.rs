//! What became of a program as a row of words, which two partitions can compare and explain.

use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};

use citrine_guests::checksum::Checksum;
use citrine_guests::interrupts::name;
use citrine_guests::say;

use crate::harness::{INTERRUPTS, LOG, Outcome, SEEN, STATE};
use crate::places::{LARGE_SLOT, LARGE_SLOTS, PAGES, address_of};
use crate::registers::LEFT;

/// Most words of a record.
const MOST: usize = INTERRUPTS * SEEN + STATE;
/// Records that are kept.
pub const KEPT: usize = 25;
/// What is told of an interrupt.
const SEEN_NAMES: [&str; SEEN] =
    ["vector", "address", "SRR1", "ESR", "DEAR", "sum of MAS", "sum of r0-r31", "sum of CR, LR, CTR, XER, MCSR, PID"];

/// The records that are kept.
static RECORDS: [Record; KEPT] =
    [const { Record { interrupts: AtomicU32::new(0), words: [const { AtomicU32::new(0) }; MOST] } }; KEPT];

/// A program's record: what was seen at each interrupt, then what was left.
#[derive(Debug)]
pub struct Record {
    interrupts: AtomicU32,
    words: [AtomicU32; MOST],
}

/// The place of a record; there are [`KEPT`].
pub fn record(index: usize) -> &'static Record {
    let [first, ..] = &RECORDS;
    RECORDS.get(index).unwrap_or(first)
}

impl Record {
    /// Keeps what became of the program that has just run.
    pub fn keep(&self, outcome: &Outcome) {
        self.interrupts.store(outcome.interrupts, Ordering::Relaxed);
        let log = LOG.iter().take(self.told()).map(|word| word.load(Ordering::Relaxed));
        for (slot, word) in self.words.iter().zip(log.chain(outcome.state)) {
            slot.store(word, Ordering::Relaxed);
        }
    }

    /// Words that tell of interrupts one by one.
    fn told(&self) -> usize {
        (self.interrupts.load(Ordering::Relaxed) as usize).min(INTERRUPTS) * SEEN
    }

    /// Its words.
    pub fn words(&self) -> impl Iterator<Item = u32> {
        self.words.iter().take(self.len()).map(|word| word.load(Ordering::Relaxed))
    }

    /// How many words.
    pub fn len(&self) -> usize {
        self.told() + STATE
    }

    /// One word for all.
    pub fn sum(&self) -> u32 {
        let sum = Checksum::new().add(self.interrupts.load(Ordering::Relaxed));
        self.words().fold(sum, Checksum::add).value()
    }

    /// Prints what stands at `index`, and for an interrupt all that is told of it.
    pub fn explain(&self, index: usize) {
        let interrupts = self.interrupts.load(Ordering::Relaxed);
        let value = self.words().nth(index).unwrap_or(0);
        let Some(before) = index.checked_sub(self.told()) else {
            let what = SEEN_NAMES.get(index % SEEN).copied().unwrap_or_default();
            say!("twin: interrupt {} of {interrupts}: {what} is {value:#010x}", index / SEEN + 1);
            return self.tell(index / SEEN);
        };
        say!("twin: at the end, after {interrupts} interrupts: {} is {value:#010x}", Left(before));
        self.tell((interrupts as usize).saturating_sub(1));
    }

    /// The interrupt, counted from 1, of which a word tells, or the last before what is left.
    pub fn interrupt_of(&self, index: usize) -> u32 {
        let last = self.interrupts.load(Ordering::Relaxed);
        if index < self.told() { (index / SEEN) as u32 + 1 } else { last }
    }

    /// Prints all that is told of an interrupt.
    fn tell(&self, number: usize) {
        for (word, what) in self.words().skip(number * SEEN).zip(SEEN_NAMES) {
            match what {
                "vector" => say!("twin:   interrupt {}: {what} {word} ({})", number + 1, name(word)),
                _ => say!("twin:   {what} {word:#010x}"),
            }
        }
    }
}

/// The name of a word of what a program has left.
struct Left(usize);

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SPECIAL: [&str; 5] = ["CR", "LR", "CTR", "XER", "MSR"];
        let (pages, slots) = (PAGES as usize, LARGE_SLOTS as usize);
        let index = self.0;
        if index < 32 {
            return write!(f, "r{index}");
        }
        if let Some(name) = SPECIAL.get(index - 32) {
            return f.write_str(name);
        }
        let index = index - 32 - SPECIAL.len();
        if let Some((name, _)) = LEFT.get(index) {
            return f.write_str(name);
        }
        let index = index - LEFT.len();
        if index < pages {
            return write!(f, "the sum of the set of TLB0 for {:#010x}", address_of(index as u32));
        }
        match index - pages {
            slot if slot < slots => write!(f, "the sum of entry {} of TLB1", slot as u32 + LARGE_SLOT),
            slot if slot < slots + 2 => write!(f, "the sum of entry {} of TLB1", slot - slots),
            frame => write!(f, "the sum of frame {} of memory", frame - slots - 2),
        }
    }
}
