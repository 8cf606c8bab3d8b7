//! The table of stubs: one for each instruction word that is emulated, at a place that a few bits of the word name.
//!
//! A stub is for one word and compares all 32 bits with it. So it does not matter which other words lead to the same
//! place, nor which instructions a core calls privileged; what is not that word goes the slow way.

use core::mem::offset_of;

use super::assembler::{
    CTR, RFI, addi, bdnz, li, lwz, mfmsr, mfspr, mtmsr, mtspr, ori, rlwimi, rlwinm, stw, wrtee, wrteei, xor, xoris,
};
use super::vectors::leave;
use super::{Code, Places, STUBS_LEN, Tails};
use crate::emulate::{Simple, simple};
use crate::vcpu::{Shared, Vcpu, spr};

/// Words of a stub.
const WORDS: usize = 16;

/// Registers that are read or written often, and whose places are all different.
const REGISTERS: [u32; 21] = [
    spr::SRR0,
    spr::SRR1,
    spr::DEAR,
    spr::ESR,
    spr::SPRG0,
    spr::SPRG0 + 1,
    spr::SPRG0 + 2,
    spr::SPRG0 + 3,
    spr::SPRG0 + 4,
    spr::SPRG0 + 5,
    spr::SPRG0 + 6,
    spr::SPRG7,
    spr::PIR,
    spr::MAS0,
    spr::MAS1,
    spr::MAS2,
    spr::MAS3,
    spr::MAS4,
    spr::MAS6,
    spr::MAS7,
    spr::BUCSR,
];

/// Which stub a word has: its fields RT, RA and the upper two bits of RB, then two bits of the extended opcode.
///
/// These are the bits that tell apart the words below: `mfmsr`, `wrtee`, `wrteei`, `rfi`, and `mfspr` and `mtspr` of
/// [`REGISTERS`]. `mtmsr` has the place of `wrtee`, and is looked for behind it ([`second`]). Only `wrtee r0` and
/// `mtmsr r0` have that of `wrteei 0`, and go the slow way.
pub(super) const fn index(word: u32) -> usize {
    ((word >> 14 & 0xfff) << 2 | word >> 7 & 3) as usize
}

/// Where the stub of `mtmsr` is: with another RA, which no instruction of the table has.
const fn second(register: u32) -> usize {
    index(mtmsr(register) | 1 << 16)
}

/// Writes the table.
pub(super) fn write(places: &Places, vcpu: &mut Vcpu, tails: &Tails, stubs: &mut [u32; STUBS_LEN / 4]) {
    stubs.fill(0);
    for (index, stub) in stubs.as_chunks_mut::<WORDS>().0.iter_mut().enumerate() {
        let at = places.stubs.wrapping_add((index * WORDS * 4) as u32);
        Code::new(stub, at, at).branch(tails.read);
    }
    let mut table = Table { places, tails, stubs };
    let msr = places.shared(offset_of!(Shared, msr.low));
    table.stub(RFI, |_, code| code.branch(tails.rfi));
    for register in 0..32 {
        table.stub(mfmsr(register), |table, code| table.load(code, register, msr));
        if register != 0 {
            table.stub_before(wrtee(register), table.at(second(register)), |table, code| {
                let source = table.source(code, register, 31);
                // EE.
                code.extend([lwz(30, 0, msr), rlwimi(30, source, 0, 16, 16), stw(30, 0, msr)]);
                leave(table.places, code);
            });
            table.mtmsr(register, msr);
        }
        for number in REGISTERS {
            let Some(simple) = simple(number) else { continue };
            table.register(vcpu, number, register, simple);
        }
    }
    table.stub(wrteei(false), |table, code| {
        code.extend([lwz(30, 0, msr), rlwinm(30, 30, 0, 17, 15), stw(30, 0, msr)]);
        leave(table.places, code);
    });
    table.stub(wrteei(true), |table, code| {
        code.extend([lwz(30, 0, msr), ori(30, 30, 0x8000), stw(30, 0, msr)]);
        leave(table.places, code);
    });
}

/// Goes to the last word of the stub unless a register is 1. Needs CTR.
fn unless_one(code: &mut Code<'_>, register: u32) {
    code.push(mtspr(CTR, register));
    code.push(bdnz(4 * (WORDS as i32 - 1 - code.next as i32)));
}

struct Table<'a> {
    places: &'a Places,
    tails: &'a Tails,
    stubs: &'a mut [u32; STUBS_LEN / 4],
}

impl Table<'_> {
    /// The effective address of a stub.
    const fn at(&self, index: usize) -> u32 {
        self.places.stubs.wrapping_add((index * WORDS * 4) as u32)
    }

    /// Writes the stub for a word: `body` comes after the comparison.
    fn stub(&mut self, word: u32, body: impl FnOnce(&Self, &mut Code<'_>)) {
        self.stub_before(word, self.tails.slow, body);
    }

    /// The same; where other words go from there.
    fn stub_before(&mut self, word: u32, others: u32, body: impl FnOnce(&Self, &mut Code<'_>)) {
        // r31 becomes 1 for this word only; CR is the guest's. `addi` extends its operand's sign.
        let low = word & 0xffff;
        let high = word >> 16 ^ if low > 0x8001 { 0xffff } else { 0 };
        self.put(index(word), others, |table, code| {
            code.extend([xoris(31, 31, high), addi(31, 31, 1 - low as i32)]);
            unless_one(code, 31);
            body(table, code);
        });
    }

    /// `mtmsr` that changes nothing but EE and RI. r31 is what is left of the comparison with `wrtee`.
    fn mtmsr(&mut self, register: u32, msr: i32) {
        self.put(second(register), self.tails.slow, |table, code| {
            code.push(addi(31, 31, wrtee(0) as i32 - mtmsr(0) as i32));
            unless_one(code, 31);
            let source = table.source(code, register, 31);
            code.extend([lwz(30, 0, msr), xor(30, 30, source), rlwinm(30, 30, 0, 17, 15), rlwinm(30, 30, 0, 31, 29)]);
            code.push(addi(30, 30, 1));
            unless_one(code, 30);
            code.push(stw(source, 0, msr));
            leave(table.places, code);
        });
    }

    /// Writes a stub, with its last word a branch to `others`.
    fn put(&mut self, index: usize, others: u32, body: impl FnOnce(&Self, &mut Code<'_>)) {
        let mut words = [0; WORDS];
        let at = self.at(index);
        body(self, &mut Code::new(&mut words, at, at));
        Code::new(&mut words, at, at.wrapping_add((WORDS as u32 - 1) * 4)).branch(others);
        if let Some(place) = self.stubs.as_chunks_mut::<WORDS>().0.get_mut(index) {
            *place = words;
        }
    }

    /// The stubs that read and write a special purpose register.
    fn register(&mut self, vcpu: &mut Vcpu, number: u32, register: u32, simple: Simple) {
        let (read, write, copy) = match simple {
            Simple::Stored(place) => (Ok(place), Some(place), false),
            Simple::Copied(place) => (Ok(place), Some(place), true),
            Simple::Fixed(place) => (Ok(place), None, false),
            Simple::Inert(value) => (Err(value), None, false),
        };
        let mut displacement = |place: fn(&mut Vcpu) -> &mut u32| {
            let at = core::ptr::from_mut(place(vcpu)).addr();
            self.places.at(at.wrapping_sub(core::ptr::from_mut(vcpu).addr()))
        };
        let (read, write) = (read.map(&mut displacement), write.map(&mut displacement));
        self.stub(mfspr(register, number), |table, code| match read {
            Ok(at) => table.load(code, register, at),
            Err(value) => {
                code.push(li(30, value as i32));
                table.set(code, register, 30);
                leave(table.places, code);
            }
        });
        self.stub(mtspr(number, register), |table, code| {
            if let Some(at) = write {
                let source = table.source(code, register, 30);
                code.push(stw(source, 0, at));
                if copy {
                    code.push(mtspr(number, source));
                }
            }
            leave(table.places, code);
        });
    }

    /// A guest's register becomes what is in memory, and the guest goes on.
    fn load(&self, code: &mut Code<'_>, register: u32, from: i32) {
        if register < 28 {
            code.push(lwz(register, 0, from));
        } else {
            code.push(lwz(30, 0, from));
            self.set(code, register, 30);
        }
        leave(self.places, code);
    }

    /// A guest's register becomes what is in another one.
    fn set(&self, code: &mut Code<'_>, register: u32, from: u32) {
        code.push(if register < 28 { ori(register, from, 0) } else { stw(from, 0, self.places.saved(register)) });
    }

    /// The register in which the value of a guest's register is; `free` may be used for it.
    fn source(&self, code: &mut Code<'_>, register: u32, free: u32) -> u32 {
        if register < 28 {
            return register;
        }
        code.push(lwz(free, 0, self.places.saved(register)));
        free
    }
}
