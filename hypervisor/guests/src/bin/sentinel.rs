//! The neighbour of a hostile guest: fills its memory with a pattern and looks at it again and again.
//!
//! A word that is not what was written, and a checksum that is not what it should be, are told at once.
#![cfg_attr(target_arch = "powerpc", no_std, no_main)]

use citrine_guests::checksum::{Checksum, pattern};
use citrine_guests::interrupts::Frame;
use citrine_guests::{Guest, guest, say, tlb};

guest!(run, interrupt);

/// The device tree ends below this; what is above is the guest's to fill.
const FROM: u64 = 32 << 20;
/// Passes between two patterns.
const PASSES: u32 = 4;

fn run(guest: &Guest) {
    tlb::map_low();
    let end = guest.tree.memory().filter(|(base, _)| *base == 0).map(|(_, len)| len).next();
    let end = end.unwrap_or(0).min(1 << 30);
    if end <= FROM {
        say!("sentinel: FAILED: needs more than {} MiB of memory", FROM >> 20);
        return;
    }
    say!("sentinel: watching {} MiB", (end - FROM) >> 20);
    let (from, words) = (FROM as u32, ((end - FROM) / 4) as usize);
    let mut pass = 0u32;
    for round in 1u32.. {
        let written = fill(from, words, round);
        for _ in 0..PASSES {
            pass = pass.wrapping_add(1);
            let (found, wrong) = read(from, words, round);
            if let Some((address, word)) = wrong {
                say!("sentinel: CORRUPTED: {address:#010x} holds {word:#010x}");
            } else if found != written {
                say!("sentinel: CORRUPTED: checksum {:#010x}, not {:#010x}", found.value(), written.value());
            } else {
                say!("sentinel: pass {pass}, checksum ok");
            }
        }
    }
}

fn fill(from: u32, words: usize, round: u32) -> Checksum {
    let mut sum = Checksum::new();
    let mut address = from;
    for _ in 0..words {
        let word = pattern(address, round);
        // SAFETY: memory of the guest that nothing else uses: image and tree lie below `FROM`.
        unsafe { (address as usize as *mut u32).write_volatile(word) };
        sum = sum.add(word);
        address = address.wrapping_add(4);
    }
    sum
}

/// The checksum, and the first word that is wrong.
fn read(from: u32, words: usize, round: u32) -> (Checksum, Option<(u32, u32)>) {
    let mut sum = Checksum::new();
    let mut wrong = None;
    let mut address = from;
    for _ in 0..words {
        // SAFETY: as in `fill`.
        let word = unsafe { (address as usize as *const u32).read_volatile() };
        if word != pattern(address, round) && wrong.is_none() {
            wrong = Some((address, word));
        }
        sum = sum.add(word);
        address = address.wrapping_add(4);
    }
    (sum, wrong)
}

fn interrupt(_: &mut Frame) -> bool {
    false
}
