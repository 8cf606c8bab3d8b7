//! Which special purpose registers programs use, and what looks like one of the most frequent instructions.

use citrine_guests::random::Random;

use crate::encode::{self, mfspr, mtspr, wrteei, x};
use crate::program::Writer;

/// What every exception of a kernel reads or writes: SRR0, SRR1, DEAR, ESR, SPRG0 to SPRG7, MAS0 to MAS4, MAS6, MAS7,
/// BUCSR, PIR, and SPRG3 to SPRG7 as user programs read them.
const FAST: [u32; 26] = [
    26, 27, 61, 62, 272, 273, 274, 275, 276, 277, 278, 279, 624, 625, 626, 627, 628, 630, 944, 1013, 286, 259, 260,
    261, 262, 263,
];

/// Registers that a program sets before all else: whatever was there before does not matter then.
pub const SET: &[u32] = &[
    256, 58, 59, 574, 575, 570, 571, 604, 605, 308, 309, 310, 312, 313, 316, 317, 1008, 1010, 1011, 1017, 272, 273,
    274, 275, 276, 277, 278, 279, 61, 62, 624, 625, 626, 627, 628, 630, 944, 26, 27,
];

/// Registers that change by themselves: decrementer, timer status, the timebases.
#[cfg(test)]
const MOVING: &[u32] = &[22, 268, 269, 284, 285, 336, 526, 527];

/// What a program has left, by name, as it is read at its end.
pub const LEFT: &[(&str, u32)] = &[
    ("SRR0", 26),
    ("SRR1", 27),
    ("SPRG0", 272),
    ("SPRG1", 273),
    ("SPRG2", 274),
    ("SPRG3", 275),
    ("SPRG4", 276),
    ("SPRG5", 277),
    ("SPRG6", 278),
    ("SPRG7", 279),
    ("SPRG3 of users", 259),
    ("SPRG4 of users", 260),
    ("SPRG5 of users", 261),
    ("SPRG6 of users", 262),
    ("SPRG7 of users", 263),
    ("DEAR", 61),
    ("ESR", 62),
    ("MAS0", 624),
    ("MAS1", 625),
    ("MAS2", 626),
    ("MAS3", 627),
    ("MAS4", 628),
    ("MAS6", 630),
    ("MAS7", 944),
    ("PID", 48),
    ("PIR", 286),
    ("IVPR", 63),
    ("BUCSR", 1013),
    ("CSRR0", 58),
    ("CSRR1", 59),
    ("DSRR0", 574),
    ("DSRR1", 575),
    ("MCSRR0", 570),
    ("MCSRR1", 571),
    ("MCSR", 572),
    ("MCAR", 573),
    ("DBSR", 304),
    ("DBCR0", 308),
    ("SPRG8", 604),
    ("SPRG9", 605),
    ("HID0", 1008),
    ("L1CSR0", 1010),
    ("USPRG0", 256),
];

/// Other registers that can be read and written, or that can be neither.
const OTHERS: [u32; 40] = [
    58, 59, 574, 575, 570, 571, 604, 605, 304, 308, 309, 310, 312, 313, 316, 317, 256, 54, 572, 573, 569, 702, 1008,
    1010, 1011, 1017, 1018, 606, 696, 725, 1012, 576, 633, 341, 339, 338, 947, 948, 629, 378,
];
/// What can only be read, and what is nowhere.
const READ_ONLY: [u32; 22] =
    [287, 1023, 515, 516, 517, 519, 688, 689, 1015, 402, 410, 415, 531, 533, 63, 340, 280, 303, 500, 700, 900, 1022];

/// One of the most frequent.
pub fn fast(random: &mut Random) -> u32 {
    random.one_of(&FAST)
}

/// A register that no short way is for.
pub(crate) fn other(writer: &mut Writer<'_>) {
    let register = writer.any();
    let word = match writer.random.below(4) {
        0 => mtspr(writer.random.one_of(&OTHERS), register),
        // Timer status: ones clear bits, and none matters.
        1 if writer.random.once_in(8) => mtspr(336, register),
        1 => mfspr(register, writer.random.one_of(&READ_ONLY)),
        _ => mfspr(register, writer.random.one_of(&OTHERS)),
    };
    writer.word(word);
}

/// What differs from a frequent instruction in a reserved bit or in its extended opcode.
pub(crate) fn alike(writer: &mut Writer<'_>) {
    /// Of primary opcode 31, none of them accesses memory: mtsrd and its like, mfsr, mtsr, lwepx, ehpriv, mfdcr,
    /// mtdcr, mfpmr, mtpmr, dccci, iccci, slbia, and what is nowhere.
    const EXTENDED: [u32; 22] =
        [82, 114, 115, 178, 210, 211, 242, 31, 270, 323, 451, 334, 462, 454, 966, 498, 595, 643, 675, 851, 979, 658];
    let (a, b, c) = (writer.any(), writer.any(), writer.any());
    let fast = fast(&mut writer.random);
    let word = match writer.random.below(16) {
        0 => encode::mfmsr(a) | writer.random.one_of(&[1, 0x800, 0x8000, 0x1_0000, 0x10_0000]),
        1 => encode::wrtee(a) | writer.random.one_of(&[1, 0x800, 0x8000, 0x1_0000, 0x10_0000]),
        2 => wrteei(writer.random.once_in(2)) | writer.random.one_of(&[1, 0x800, 0x4000, 0x1_0000, 0x20_0000]),
        3 => mfspr(a, fast) | 1,
        4 => mtspr(fast, a) | 1,
        5 => encode::SC | writer.random.one_of(&[0x40, 0x800, 0x1_0000, 1]),
        // Of primary opcode 19: rfgi, rfid and its like.
        6 => 19 << 26 | writer.random.one_of(&[102, 18, 274, 306, 562, 563]) << 1,
        7 => writer.random.one_of(&[0, 0x0400_0000, 0x1400_0000, 0x0000_0100, 0xffff_ffff]),
        8 => encode::TLBSYNC,
        9 => encode::DCBI | b << 16 | c << 11,
        10 => encode::DCBTLS | b << 16 | c << 11,
        // tw that compares.
        11 => x(4, a, b, c),
        _ => x(writer.random.one_of(&EXTENDED), a, b, c),
    };
    writer.word(word);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_moves_by_itself_is_read() {
        let left = LEFT.iter().map(|(_, number)| number);
        for number in FAST.iter().chain(SET).chain(&OTHERS).chain(&READ_ONLY).chain(left) {
            assert!(!MOVING.contains(number), "{number}");
        }
    }
}
