//! The part of programs that has to do with memory: translations, accesses, jumps to where nothing is.

use crate::encode::{self, d, load, mtspr, x};
use crate::places::{
    DATA, FRAMES, LARGE, LARGE_SLOT, LARGE_SLOTS, LARGE_STEP, NO_CODE, OUTSIDE, PAGES, PROCESSES, VOID, address_of,
    frame, is_private, way_of,
};
use crate::program::Writer;

/// An address that is translated sometimes.
fn address(writer: &mut Writer<'_>) -> u32 {
    let offset = writer.random.below(1024) * 4;
    match writer.random.below(8) {
        0 => VOID + offset,
        1 | 2 => LARGE + LARGE_STEP * writer.random.below(LARGE_SLOTS) + offset * writer.random.below(16),
        _ => address_of(DATA + writer.random.below(PAGES - DATA)) + offset,
    }
}

/// Writes an entry of a TLB.
pub(crate) fn entry(writer: &mut Writer<'_>) {
    let random = &mut writer.random;
    let process = random.one_of(&PROCESSES);
    let valid = if random.once_in(8) { 0 } else { 1 << 31 };
    let space = u32::from(random.once_in(4)) << 12;
    let outside = if random.once_in(3) { OUTSIDE } else { 0 };
    // G, I, M, W of memory; U0 to U3 and the permissions.
    let (attributes, low) = (random.one_of(&[0, 4, 6, 10, 20]), random.next() & 0x3ff);
    let victim = random.next() & 3;
    let [mas0, mas1, mas2, mas3] = if random.once_in(2) {
        // What is executable is not changed: a program would run what it has stored.
        let page = DATA + random.below(NO_CODE - DATA);
        let tid = if is_private(page) { process } else { 0 };
        let here = if outside != 0 { outside } else { frame(random.below(FRAMES)) };
        let [mas0, mas1] = [way_of(page, process) << 16 | victim, valid | tid << 16 | 0x100];
        [mas0, mas1, address_of(page) | attributes, here | low]
    } else {
        let number = random.below(LARGE_SLOTS);
        let protected = if random.once_in(4) { 1 << 30 } else { 0 };
        let tid = random.one_of(&[0, 0, process]);
        let size = 1 + random.below(3);
        let here = if outside != 0 { outside } else { frame(0) };
        let mas1 = valid | protected | tid << 16 | space | size << 8;
        [1 << 28 | (LARGE_SLOT + number) << 16, mas1, (LARGE + LARGE_STEP * number) | attributes, here | low]
    };
    // In any order.
    let turn = writer.random.below(5) as usize;
    let register = writer.base();
    let values = [(624, mas0), (625, mas1), (626, mas2), (627, mas3), (944, 0)];
    writer.together(&[]);
    for (number, value) in values.iter().cycle().skip(turn).take(5) {
        let [high, low] = load(register, *value);
        [high, low, mtspr(*number, register)].into_iter().for_each(|word| writer.word(word));
    }
    writer.word(encode::TLBWE);
}

/// Reads and searches: harmless everywhere.
pub(crate) fn look(writer: &mut Writer<'_>) {
    let (register, address) = (writer.base(), address(writer));
    let [high, low] = load(register, address);
    match writer.random.below(4) {
        0 => writer.word(encode::TLBRE),
        1 => {
            let slot = writer.random.one_of(&[0, 0x1_0000, 0x2_0000, 0x3_0000, 0x1001_0000, 0x1028_0000, 0x1029_0000]);
            let [a, b] = load(register, slot);
            writer.together(&[a, b, mtspr(624, register), high, low, mtspr(626, register), encode::TLBRE]);
        }
        _ => {
            let process = writer.random.one_of(&PROCESSES) << 16;
            let space = u32::from(writer.random.once_in(4));
            let [a, b] = load(register, process | space);
            writer.together(&[a, b, mtspr(630, register), high, low, encode::TLBSX | register << 11]);
        }
    }
}

/// Invalidates what is not protected.
pub(crate) fn invalidate(writer: &mut Writer<'_>) {
    let (register, address) = (writer.base(), address(writer));
    let [high, low] = load(register, address);
    let process = writer.random.one_of(&PROCESSES) << 16;
    let [a, b] = load(register, process);
    let kind = writer.random.below(4);
    match writer.random.below(8) {
        0 => {
            // All of a TLB, or what is at an address.
            let [high, low] = load(register, address & !0xfff | writer.random.one_of(&[0, 4, 8, 12]));
            writer.together(&[high, low, encode::TLBIVAX | register << 11]);
        }
        // Of whatever process MAS6 names.
        1 => writer.together(&[high, low, encode::TLBILX | kind << 21 | register << 11]),
        _ => writer.together(&[a, b, mtspr(630, register), high, low, encode::TLBILX | kind << 21 | register << 11]),
    }
}

/// Loads or stores.
pub(crate) fn access(writer: &mut Writer<'_>) {
    let address = address(writer);
    let base = writer.base();
    let (value, index) = (writer.any(), writer.other(base));
    // Words of data are at multiples of 4, so that no access reaches the next page.
    let offset = writer.random.below(256) * 4;
    let [high, low] = load(base, (address & !0xfff).wrapping_add(address & 0xfff & !offset));
    let word = match writer.random.below(8) {
        0..=2 => d(32, value, base, offset), // lwz
        3 | 4 => d(36, value, base, offset), // stw
        5 => d(34, value, base, offset),     // lbz
        6 => d(45, value, base, offset),     // sthu
        _ => {
            let [a, b] = load(index, offset);
            writer.together(&[high, low, a, b, x(23, value, base, index)]); // lwzx
            return;
        }
    };
    writer.together(&[high, low, word]);
}

/// Calls what is not there, or is not executable.
pub(crate) fn jump(writer: &mut Writer<'_>) {
    let place = if writer.random.once_in(2) { VOID } else { address_of(NO_CODE) };
    let (register, offset) = (writer.base(), writer.random.below(1024) * 4);
    let [high, low] = load(register, place + offset);
    writer.together(&[high, low, mtspr(9, register), encode::BCTRL]);
}
