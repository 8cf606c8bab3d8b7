//! Random programs: every instruction that a hypervisor may have a short way for, with what looks like it and is
//! another, and what a short way could destroy.
//!
//! What belongs together stands in one page and has no branch into it, so that no interrupt and no jump comes
//! between the registers of an instruction and the instruction. No program writes a translation of itself, of the
//! harness, or a second one of anything.

use core::sync::atomic::{AtomicU32, Ordering};

use citrine_guests::cpu::msr;
use citrine_guests::random::Random;

use crate::encode::{self, d, load, mfmsr, mfspr, mtmsr, mtspr, wrtee, wrteei, x};
use crate::places::{Kind, PAGE_WORDS, PROCESSES};
use crate::{memory, registers};

/// Most words that belong together.
const TOGETHER: usize = 40;
/// Most returns from user programs to the kernel.
pub const RETURNS: usize = 8;

/// A program that has been written.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// How its code is found.
    pub kind: Kind,
    /// Where it begins, and where it ends.
    pub begin: u32,
    pub end: u32,
    /// The process it begins in.
    pub process: u32,
    /// The registers it begins with.
    pub gpr: [u32; 32],
    /// Where a system call of a user program comes back to the kernel.
    pub returns: [u32; RETURNS],
    /// Doorbells that must be taken, critical ones with them.
    pub doorbells: u32,
}

/// Writes programs.
pub(crate) struct Writer<'a> {
    code: &'a [AtomicU32],
    at: usize,
    pub(crate) random: Random,
    pub(crate) kind: Kind,
    returns: [u32; RETURNS],
    returned: usize,
    doorbells: u32,
}

/// Writes the program of a seed; at its end it branches to `leave`.
pub fn write(seed: u32, code: &[AtomicU32], leave: u32) -> Program {
    let mut random = Random::new(seed);
    let kind = match random.below(4) {
        0 => Kind::Global,
        1 => Kind::Private,
        _ => Kind::Low,
    };
    // Anywhere in the first page, so that many reach the second.
    let at = random.below(PAGE_WORDS as u32) as usize;
    let mut writer = Writer { code, at, random, kind, returns: [0; RETURNS], returned: 0, doorbells: 0 };
    let begin = writer.here();
    let mut gpr = [0; 32];
    gpr.iter_mut().for_each(|register| *register = writer.random.next());
    for (index, number) in (0..).zip(registers::SET) {
        writer.word(mtspr(*number, index % 32));
    }
    let items = 30 + writer.random.below(60);
    let bell = writer.random.once_in(4);
    for item in 0..items {
        if bell && item % 16 == 8 {
            writer.doorbell();
        }
        writer.item();
    }
    // Nobody leaves with another machine state than the harness returns from.
    writer.together(&[]);
    writer.word(encode::branch_to(leave));
    let process = writer.random.one_of(&PROCESSES);
    let Writer { returns, doorbells, .. } = writer;
    Program { kind, begin, end: writer.here(), process, gpr, returns, doorbells }
}

impl Writer<'_> {
    /// Where the next word goes.
    pub(crate) fn here(&self) -> u32 {
        self.kind.code() + 4 * self.at as u32
    }

    pub(crate) fn word(&mut self, word: u32) {
        if let Some(slot) = self.code.get(self.at) {
            slot.store(word, Ordering::Relaxed);
            self.at += 1;
        }
    }

    /// Makes room, so that the next words are in one page, and writes these.
    pub(crate) fn together(&mut self, words: &[u32]) {
        while self.at % PAGE_WORDS + TOGETHER > PAGE_WORDS {
            self.word(encode::NOP);
        }
        words.iter().for_each(|word| self.word(*word));
    }

    /// Whether much more has room: the last page is for the end.
    fn is_full(&self) -> bool {
        self.at + 2 * PAGE_WORDS > self.code.len()
    }

    /// Any register.
    pub(crate) fn any(&mut self) -> u32 {
        self.random.below(32)
    }

    /// A register that can be a base.
    pub(crate) fn base(&mut self) -> u32 {
        1 + self.random.below(31)
    }

    /// Another one.
    pub(crate) fn other(&mut self, than: u32) -> u32 {
        1 + (than + self.random.below(30)) % 31
    }

    /// Something for a kernel.
    fn item(&mut self) {
        if self.is_full() {
            return;
        }
        match self.random.below(100) {
            0..=5 => self.return_to_kernel(),
            6..=9 => self.user(),
            10..=12 => {
                let (register, state) = (self.base(), self.kernel_state());
                let [high, low] = load(register, state);
                self.together(&[high, low, mtmsr(register)]);
            }
            13 => self.without_machine_checks(),
            14..=18 => memory::entry(self),
            19..=20 => memory::invalidate(self),
            21 => {
                let (register, process) = (self.base(), self.random.one_of(&PROCESSES));
                self.together(&[d(14, register, 0, process), mtspr(48, register)]);
            }
            22 => {
                // Unknown tokens of a hypercall.
                let token = self.random.next() | 0x7000_0000;
                let [high, low] = load(11, token);
                self.together(&[high, low, encode::SC_1]);
            }
            23 => self.vector(),
            24 => {
                // A doorbell that nobody hears.
                let register = self.base();
                let [high, low] = load(register, self.random.below(2) << 27);
                let words = [high, low, encode::MSGSND | register << 11, encode::MSGCLR | register << 11];
                self.quiet();
                self.together(&words);
            }
            _ => self.anything(),
        }
    }

    /// Something for a kernel or a user program.
    fn anything(&mut self) {
        match self.random.below(100) {
            0..=19 => {
                let (register, number) = (self.any(), registers::fast(&mut self.random));
                self.word(mfspr(register, number));
            }
            20..=39 => {
                let (register, number) = (self.any(), registers::fast(&mut self.random));
                self.word(mtspr(number, register));
            }
            40..=44 => {
                let register = self.any();
                self.word(mfmsr(register));
            }
            45..=49 => {
                let register = self.any();
                self.word(wrtee(register));
            }
            50..=54 => {
                let enable = self.random.once_in(2);
                self.word(wrteei(enable));
            }
            55..=63 => registers::other(self),
            64..=67 => registers::alike(self),
            68..=83 => self.arithmetic(),
            84..=87 => self.word(encode::SC),
            88 => self.word(encode::FMR),
            89 => self.word(encode::TRAP),
            90..=92 => memory::look(self),
            93 => memory::jump(self),
            _ => memory::access(self),
        }
    }

    /// Nothing that waits may come.
    fn quiet(&mut self) {
        let register = self.base();
        self.together(&[wrteei(false), d(14, register, 0, msr::ME), mtmsr(register)]);
    }

    /// A machine state of the kernel: with what it can change, and sometimes with what it cannot.
    fn kernel_state(&mut self) -> u32 {
        const FREE: u32 = msr::EE | msr::CE | msr::FP | 0x0b06;
        let spaces = if self.kind == Kind::Low && self.random.once_in(4) { msr::IS | msr::DS } else { 0 };
        // UCLE, SPE, GS, CM, WE and reserved bits.
        let foreign = if self.random.once_in(4) { self.random.next() & 0xfe05_04c9 & !1 } else { 0 };
        msr::ME | spaces | foreign | self.random.next() & FREE
    }

    /// Goes to another place by one of the returns from interrupts.
    fn go(&mut self, state: u32, words: &[u32]) {
        let (address, value) = (self.base(), self.base());
        let (registers, mut word) = match self.random.below(8) {
            0 => ([58, 59], encode::RFCI),
            1 => ([574, 575], encode::RFDI),
            2 => ([570, 571], encode::RFMCI),
            _ => ([26, 27], encode::RFI),
        };
        if self.random.once_in(8) {
            word |= self.random.one_of(&[1, 0x8000, 0x0020_0000, 0x0001_0000]);
        }
        self.together(words);
        let junk = self.random.below(3);
        let target = (self.here() + 4 * (7 + junk)) | self.random.below(4);
        let [a, b] = load(address, target);
        let [c, d] = load(value, state);
        let [to, with] = registers;
        for word in [a, b, mtspr(to, address), c, d, mtspr(with, value), word] {
            self.word(word);
        }
        for _ in 0..junk {
            self.word(encode::TRAP);
        }
        // Still in this page.
        self.word(encode::NOP);
    }

    fn return_to_kernel(&mut self) {
        let state = self.kernel_state();
        self.go(state, &[]);
    }

    /// A user program.
    fn user(&mut self) {
        if self.returned == RETURNS {
            return;
        }
        let state = self.kernel_state() | msr::PR;
        self.go(state, &[]);
        self.user_program();
    }

    /// The user program itself, which the caller goes to.
    fn user_program(&mut self) {
        for _ in 0..3 + self.random.below(12) {
            if self.random.once_in(6) {
                self.privileged();
            } else {
                self.anything();
            }
        }
        self.together(&[]);
        if let Some(slot) = self.returns.get_mut(self.returned) {
            *slot = self.kind.code() + 4 * self.at as u32 + 4;
            self.returned += 1;
        }
        self.word(encode::SC);
    }

    /// What only a kernel may do, alone.
    fn privileged(&mut self) {
        let register = self.any();
        let word = self.random.one_of(&[
            encode::RFI,
            encode::RFCI,
            encode::RFDI,
            encode::RFMCI,
            encode::SC_1,
            encode::TLBWE,
            encode::TLBRE,
            encode::TLBSYNC,
            encode::TLBSX | register << 11,
            encode::TLBILX,
            encode::MSGSND | register << 11,
            encode::MSGCLR | register << 11,
            mtmsr(register),
            mfmsr(register),
        ]);
        self.word(word);
    }

    /// The kernel without machine checks for a moment.
    fn without_machine_checks(&mut self) {
        let (register, target) = (self.base(), self.any());
        let state = self.kernel_state() & !(msr::ME | msr::EE | msr::CE);
        let [a, b] = load(register, state);
        let [c, d] = load(register, state | msr::ME);
        self.together(&[a, b, mtmsr(register), mfmsr(target), c, d, mtmsr(register)]);
    }

    /// Writes a vector register as it is.
    fn vector(&mut self) {
        let register = self.any();
        let number = match self.random.below(20) {
            number @ 0..=15 => 400 + number,
            16 => 63,
            number => 531 + number - 17,
        };
        self.together(&[mfspr(register, number), mtspr(number, register)]);
    }

    /// A doorbell that comes while it is masked, and is taken right behind the instruction that lets it through.
    fn doorbell(&mut self) {
        if self.is_full() || self.returned == RETURNS {
            return;
        }
        self.doorbells += 1;
        let critical = self.random.once_in(4);
        self.quiet();
        let register = self.base();
        let [a, b] = load(register, u32::from(critical) << 27);
        self.together(&[a, b, encode::MSGSND | register << 11]);
        for _ in 0..self.random.below(6) {
            match self.random.below(4) {
                0 => self.arithmetic(),
                1 => self.word(wrteei(false)),
                2 => {
                    let (register, number) = (self.any(), registers::fast(&mut self.random));
                    self.word(mfspr(register, number));
                }
                _ => {
                    let (register, number) = (self.any(), registers::fast(&mut self.random));
                    self.word(mtspr(number, register));
                }
            }
        }
        let enable = if critical { msr::CE } else { msr::EE };
        let state = self.kernel_state() & !(msr::CE | msr::EE) | enable;
        let register = self.base();
        let [a, b] = load(register, state);
        match self.random.below(if critical { 3 } else { 5 }) {
            0 => self.together(&[a, b, mtmsr(register)]),
            1 => self.go(state, &[]),
            2 => {
                self.go(state | msr::PR, &[]);
                self.user_program();
            }
            3 => self.together(&[a, b, wrtee(register)]),
            _ => self.together(&[wrteei(true)]),
        }
    }

    /// What a short way may not disturb.
    fn arithmetic(&mut self) {
        let (a, b, c) = (self.any(), self.any(), self.any());
        let (value, field) = (self.random.next(), self.random.below(8));
        let condition = self.random.below(32);
        match self.random.below(20) {
            0 => self.word(x(266, a, b, c)),                                           // add
            1 => self.word(x(10 | 512, a, b, c) | 1),                                  // addco.
            2 => self.word(x(138, a, b, c)),                                           // adde
            3 => self.word(x(8, a, b, c)),                                             // subfc
            4 => self.word(d(13, a, b, value)),                                        // addic.
            5 => self.word(x(32, field << 2, a, b)),                                   // cmplw
            6 => self.word(d(11, field << 2, a, value)),                               // cmpwi
            7 => self.word(x(19, a, 0, 0)),                                            // mfcr
            8 => self.word(x(144, a, 0, 0) | (value & 0xff) << 12),                    // mtcrf
            9 => self.word(19 << 26 | condition << 21 | b << 16 | c << 11 | 193 << 1), // crxor
            10 => self.word(mtspr(1, a)),                                              // mtxer
            11 => self.word(mfspr(a, 1)),                                              // mfxer
            12 => self.word(mtspr(9, a)),                                              // mtctr
            13 => self.word(mfspr(a, 9)),                                              // mfctr
            14 => self.word(mtspr(8, a)),                                              // mtlr
            15 => self.word(mfspr(a, 8)),                                              // mflr
            16 => self.together(&[18 << 26 | 8 | 1, encode::TRAP]),                    // bl over one
            // bdnz, and a branch on any condition, over one.
            17 => self.together(&[16 << 26 | 16 << 21 | 8, x(266, a, b, c)]),
            18 => self.together(&[16 << 26 | 12 << 21 | condition << 16 | 8, x(266, a, b, c)]),
            _ => self.word(d(14, a, b, value)), // addi
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::vec::Vec;

    use super::*;

    const LEAVE: u32 = 0x1_2000;

    fn written(seed: u32) -> (Program, Vec<u32>) {
        let code: Vec<AtomicU32> = (0..4 * PAGE_WORDS).map(|_| AtomicU32::new(0)).collect();
        let program = write(seed, &code, LEAVE);
        let first = (program.begin.wrapping_sub(program.kind.code()) / 4) as usize;
        let words = code.iter().skip(first).take((program.end - program.begin) as usize / 4);
        (program, words.map(|word| word.load(Ordering::Relaxed)).collect())
    }

    #[test]
    fn a_program_is_the_same_every_time_and_ends() {
        for seed in 1..500u32 {
            let seed = seed.wrapping_mul(0x9e37_79b9);
            let (program, words) = written(seed);
            assert_eq!(written(seed).1, words);
            assert_eq!(words.last(), Some(&encode::branch_to(LEAVE)), "{seed}");
            assert!(words.len() < 3 * PAGE_WORDS, "{seed}");
            assert!(!words.contains(&0x7c00_007c), "it would wait");
            let returns: Vec<u32> = program.returns.into_iter().filter(|back| *back != 0).collect();
            assert!(returns.iter().all(|back| words[(back - program.begin) as usize / 4 - 1] == encode::SC), "{seed}");
        }
    }

    /// Behind the words of a TLB entry there is nothing else until `tlbwe`, and none of it in another page.
    #[test]
    fn an_entry_is_written_as_it_was_meant() {
        let mut entries = 0;
        for seed in 1..500u32 {
            let (program, words) = written(seed.wrapping_mul(0x9e37_79b9));
            for (at, _) in words.iter().enumerate().filter(|(_, word)| **word == encode::TLBWE) {
                let is_load = |at: usize| words[at] >> 26 == 15 && words[at + 1] >> 26 == 24;
                if at < 15 || !(0..5).all(|index| is_load(at - 15 + 3 * index)) {
                    // Alone, in a user program.
                    continue;
                }
                let mut moved: Vec<u32> = (0..5).map(|index| words[at - 13 + 3 * index] & !(31 << 21)).collect();
                moved.sort_unstable();
                let mut all = [624, 625, 626, 627, 944].map(|number| mtspr(number, 0));
                all.sort_unstable();
                assert_eq!(moved, all, "{seed}");
                let page = |at: usize| (program.begin + 4 * at as u32) >> 12;
                assert_eq!(page(at - 15), page(at), "{seed}");
                entries += 1;
            }
        }
        assert!(entries > 500, "{entries}");
    }

    #[test]
    fn whatever_has_a_short_way_occurs_with_every_register() {
        let mut seen = BTreeMap::<(u32, u32), u32>::new();
        for seed in 1..3000u32 {
            for word in written(seed.wrapping_mul(0x9e37_79b9)).1 {
                let shape = if word >> 26 == 31 && matches!(word >> 1 & 0x3ff, 339 | 467) {
                    word & !(31 << 21)
                } else {
                    word & 0xfc00_07fe
                };
                *seen.entry((shape, word >> 21 & 31)).or_default() += 1;
            }
        }
        let fast = [26, 27, 61, 62, 272, 275, 276, 279, 624, 628, 630, 944, 1013, 286];
        let shapes = fast.iter().flat_map(|number| [mfspr(0, *number), mtspr(*number, 0)]);
        for shape in shapes.chain([mfmsr(0), wrtee(0), mtmsr(0)]) {
            for register in if shape == mtmsr(0) { 1..32 } else { 0..32 } {
                assert!(seen.contains_key(&(shape, register)), "{shape:#010x} with r{register}");
            }
        }
        for shape in
            [encode::RFI, encode::RFCI, encode::TLBWE, encode::TLBRE, encode::MSGSND, wrteei(false), 0x4400_0002]
        {
            assert!(seen.keys().any(|(seen, _)| *seen == shape & 0xfc00_07fe), "{shape:#010x}");
        }
    }
}
