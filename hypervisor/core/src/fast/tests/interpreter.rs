//! Runs what [`super::super`] has written: the instructions of `assembler`, and no others.
extern crate std;
use std::boxed::Box;
use std::vec;
use std::vec::Vec;

use super::super::{PAGE_LEN, Places, STUBS_LEN};
use crate::vcpu::{Vcpu, spr};

/// Where the interpreter stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// `rfi`, into the guest.
    Guest,
    /// A vector of the image.
    Image(u32),
    /// This instruction could not read memory.
    Fault(u32),
}

/// A real CPU, as far as fast paths know it.
pub(super) struct Real<'a> {
    pub(super) places: Places,
    pub(super) code: &'a Written,
    pub(super) vcpu: Box<Vcpu>,
    pub(super) gpr: [u32; 32],
    pub(super) cr: u32,
    pub(super) ctr: u32,
    /// By number; others than these are not for fast paths.
    pub(super) spr: [(u32, u32); 10],
    /// The guest's instruction, when it can be read.
    pub(super) word: Option<u32>,
    /// Instructions so far.
    pub(super) count: u32,
}

/// The pages and the table.
pub(super) struct Written {
    pub(super) pages: Vec<u32>,
    pub(super) stubs: Vec<u32>,
}

impl Written {
    pub(super) fn new(places: &Places, vcpu: &mut Vcpu) -> Self {
        let (mut pages, mut stubs) = (vec![0; 2 * PAGE_LEN / 4], vec![0; STUBS_LEN / 4]);
        let (Ok(all), Ok(table)) = (pages.as_mut_slice().try_into(), stubs.as_mut_slice().try_into()) else {
            unreachable!("as long as these")
        };
        places.write(vcpu, all, table);
        Self { pages, stubs }
    }
}

/// The words of a virtual CPU that fast paths reach.
pub(super) const WORDS: &[fn(&mut Vcpu) -> &mut u32] = &[
    |v| &mut v.shared.sprg0[0].low,
    |v| &mut v.shared.sprg0[1].low,
    |v| &mut v.shared.sprg0[2].low,
    |v| &mut v.shared.sprg0[3].low,
    |v| &mut v.shared.sprg4[0].low,
    |v| &mut v.shared.sprg4[1].low,
    |v| &mut v.shared.sprg4[2].low,
    |v| &mut v.shared.sprg4[3].low,
    |v| &mut v.shared.srr0.low,
    |v| &mut v.shared.srr1.low,
    |v| &mut v.shared.dear.low,
    |v| &mut v.shared.esr,
    |v| &mut v.shared.mas0,
    |v| &mut v.shared.mas1,
    |v| &mut v.shared.mas2.low,
    |v| &mut v.shared.mas7_mas3.low,
    |v| &mut v.shared.mas7_mas3.high,
    |v| &mut v.shared.mas4,
    |v| &mut v.shared.mas6,
    |v| &mut v.shared.pir,
    |v| &mut v.shared.msr.low,
    |v| &mut v.fast.pages[0],
    |v| &mut v.fast.pages[1],
    |v| &mut v.fast.real_msr[0],
    |v| &mut v.fast.real_msr[1],
    |v| &mut v.fast.interrupt_msr,
    |v| &mut v.fast.returns_to,
    |v| &mut v.fast.guest_vectors[0],
    |v| &mut v.fast.guest_vectors[1],
    |v| &mut v.fast.guest_vectors[2],
    |v| &mut v.fast.missed[0],
    |v| &mut v.fast.missed[1],
    |v| &mut v.fast.missed[2],
    |v| &mut v.fast.missed[3],
    |v| &mut v.fast.missed[4],
    |v| &mut v.fast.missed[5],
    |v| &mut v.registers.pid,
    |v| &mut v.fast.word,
    |v| &mut v.fast.saved[0],
    |v| &mut v.fast.saved[1],
    |v| &mut v.fast.saved[2],
    |v| &mut v.fast.saved[3],
];

/// Sign-extends an immediate.
fn signed(word: u32) -> u32 {
    word as i16 as u32
}

/// A mask from a bit to a bit, around the end if need be (Power ISA 2.06 I §3.3.13).
fn mask(begin: u32, end: u32) -> u32 {
    let (from, to) = (u32::MAX >> begin, u32::MAX << (31 - end));
    if begin <= end { from & to } else { from | to }
}

impl<'a> Real<'a> {
    /// A CPU whose guest has stopped at `pc`, with these registers.
    pub(super) fn new(places: Places, code: &'a Written, vcpu: Box<Vcpu>, pc: u32) -> Self {
        let numbers = [spr::SRR0, spr::SRR1, spr::IVPR, spr::ESR, spr::DEAR, 275, 276, 277, 278, 279];
        let mut real = Self {
            places,
            code,
            gpr: vcpu.frame.gpr,
            cr: vcpu.frame.cr,
            ctr: vcpu.frame.ctr,
            vcpu,
            spr: numbers.map(|number| (number, 0x5a00_0000 | number)),
            word: None,
            count: 0,
        };
        *real.spr(spr::SRR0) = pc;
        real
    }

    pub(super) fn spr(&mut self, number: u32) -> &mut u32 {
        let found = self.spr.iter_mut().find(|(known, _)| *known == number);
        &mut found.unwrap_or_else(|| panic!("SPR {number} is not for fast paths")).1
    }

    /// Where in the virtual MMU an address is.
    fn mmu_offset(&self, ea: u32) -> usize {
        (ea - self.places.vcpu) as usize - core::mem::offset_of!(Vcpu, mmu)
    }

    fn load(&mut self, ea: u32) -> u32 {
        let mmu = self.places.vcpu + core::mem::offset_of!(Vcpu, mmu) as u32;
        if ea >= mmu { self.vcpu.mmu.word_at(self.mmu_offset(ea)) } else { *self.memory(ea) }
    }

    fn compare(&mut self, value: u32) {
        let field = if value == 0 {
            2
        } else if value >> 31 != 0 {
            8
        } else {
            4
        };
        self.cr = self.cr & 0x0fff_ffff | field << 28;
    }

    /// A word of this CPU's page.
    fn memory(&mut self, ea: u32) -> &mut u32 {
        let base = core::ptr::from_ref(&*self.vcpu).addr();
        for place in WORDS {
            let at = core::ptr::from_mut(place(&mut self.vcpu)).addr().wrapping_sub(base);
            if self.places.vcpu.wrapping_add(at as u32) == ea {
                return place(&mut self.vcpu);
            }
        }
        panic!("{ea:#x} is not for fast paths")
    }

    fn fetch(&self, at: u32) -> Option<u32> {
        let word = |words: &[u32], base: u32| words.get((at.checked_sub(base)? / 4) as usize).copied();
        word(&self.code.pages, self.places.pages).or_else(|| word(&self.code.stubs, self.places.stubs))
    }

    /// Runs from an effective address.
    pub(super) fn run(&mut self, mut at: u32) -> End {
        loop {
            let Some(word) = self.fetch(at) else { return End::Image(at) };
            self.count += 1;
            assert!(self.count < 200, "this does not end");
            let (t, a, b) = ((word >> 21 & 31) as usize, (word >> 16 & 31) as usize, (word >> 11 & 31) as usize);
            let base = if a == 0 { 0 } else { self.gpr[a] };
            let ea = base.wrapping_add(signed(word));
            let (begin, end) = (word >> 6 & 31, word >> 1 & 31);
            let rotated = self.gpr[t].rotate_left(b as u32);
            let mut next = at.wrapping_add(4);
            match word >> 26 {
                14 => self.gpr[t] = ea,
                15 => self.gpr[t] = base.wrapping_add(word << 16),
                16 => {
                    let taken = match t {
                        16 => {
                            self.ctr = self.ctr.wrapping_sub(1);
                            self.ctr != 0
                        }
                        4 => self.cr >> 29 & 1 == 0,
                        12 => self.cr >> 29 & 1 == 1,
                        _ => panic!("{word:#x}"),
                    };
                    if taken {
                        next = at.wrapping_add(signed(word & !3));
                    }
                }
                18 => next = at.wrapping_add(((word << 6) as i32 >> 6) as u32 & !3),
                20 => self.gpr[a] = rotated & mask(begin, end) | self.gpr[a] & !mask(begin, end),
                21 => {
                    self.gpr[a] = rotated & mask(begin, end);
                    if word & 1 != 0 {
                        self.compare(self.gpr[a]);
                    }
                }
                23 => {
                    self.gpr[a] = self.gpr[t].rotate_left(self.gpr[b] & 31) & mask(begin, end);
                    self.compare(self.gpr[a]);
                }
                25 => self.gpr[a] = self.gpr[t] | word << 16,
                24 => self.gpr[a] = self.gpr[t] | word & 0xffff,
                27 => self.gpr[a] = self.gpr[t] ^ word << 16,
                28 => {
                    self.gpr[a] = self.gpr[t] & word & 0xffff;
                    self.compare(self.gpr[a]);
                }
                32 if ea < 0xffff_8000 => match self.word {
                    Some(word) => self.gpr[t] = word,
                    None => return End::Fault(at),
                },
                32 => self.gpr[t] = self.load(ea),
                34 => self.gpr[t] = u32::from(self.vcpu.mmu.byte_at(self.mmu_offset(ea))),
                36 => *self.memory(ea) = self.gpr[t],
                46 => (t..32).for_each(|n| self.gpr[n] = *self.memory(ea + 4 * (n - t) as u32)),
                47 => (t..32).for_each(|n| *self.memory(ea + 4 * (n - t) as u32) = self.gpr[n]),
                19 => match word >> 1 & 0x3ff {
                    50 => return End::Guest,
                    528 => next = self.ctr & !3,
                    _ => panic!("{word:#x}"),
                },
                31 => {
                    let number = (word >> 16 & 31 | word >> 6 & 0x3e0) as usize;
                    match word >> 1 & 0x3ff {
                        19 => self.gpr[t] = self.cr,
                        28 => self.gpr[a] = self.gpr[t] & self.gpr[b],
                        31 => match self.word {
                            Some(word) => self.gpr[t] = word,
                            None => return End::Fault(at),
                        },
                        144 => {
                            assert_eq!(word >> 12 & 0xff, 0x80);
                            self.cr = self.cr & 0x0fff_ffff | self.gpr[t] & 0xf000_0000;
                        }
                        316 => self.gpr[a] = self.gpr[t] ^ self.gpr[b],
                        339 if number == 9 => self.gpr[t] = self.ctr,
                        339 => self.gpr[t] = *self.spr(number as u32),
                        467 if number == 9 => self.ctr = self.gpr[t],
                        467 => *self.spr(number as u32) = self.gpr[t],
                        _ => panic!("{word:#x}"),
                    }
                }
                _ => panic!("{word:#x} at {at:#x}"),
            }
            at = next;
        }
    }
}
