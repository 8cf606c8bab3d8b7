//! Fast paths: what a guest's kernel does most often is done by a few instructions on the way, instead of leaving the
//! guest for [`crate::exits`]. This module writes those instructions; `e500` only gives them a place.
//!
//! The real IVPR says which paths there are, so nothing has to be asked on the way:
//!
//! * while the hypervisor runs, and whenever something is unusual ([`Places::vectors`]): the image's own vectors, no fast
//!   path
//! * while the guest's kernel runs: a page on which program interrupts are emulated (`stubs`)
//! * while its programs run: a page on which system calls go to the guest's kernel
//!
//! On both, TLB misses that are the guest's own go to its kernel, too (`vectors`).
//!
//! On both pages every other word leads to the same place of the image (`b`), so an interrupt without a fast path, a
//! machine check included, ends where it always does. An interrupt that waits makes the next entry use the image's
//! vectors; therefore `wrtee` and `rfi` need not look for one. Whatever makes one wait arrives by an interrupt itself,
//! from another CPU by a doorbell.
//!
//! **Each fast path does exactly what its slow twin in [`crate::emulate`] or [`crate::interrupts`] does**, or nothing,
//! and leaves the guest as if the path did not exist; `tests` runs both on random programs.
//!
//! A fast path has r28 to r31: one `stmw` and one `lmw` save and load them all, so r28 can keep CTR, and r29 the
//! address at which the guest goes on. (TLB misses have r26 to r31, saved elsewhere, since another fast path may have caused
//! the miss.) It may cause two exceptions of its own, both when memory cannot be read:
//! [`Faults`]. The instruction then runs again without fast paths ([`AGAIN`](crate::vcpu::AGAIN)).

mod assembler;
mod stubs;
mod vectors;

use core::mem::offset_of;

use crate::interrupts;
use crate::vcpu::{Fast, Vcpu, msr};

#[cfg(test)]
mod tests;

/// Bytes of a page of vectors: IVPR has no lower bits.
pub const PAGE_LEN: usize = 0x1_0000;
/// Bytes of the table of stubs; it lies at a multiple of that.
pub const STUBS_LEN: usize = 0x10_0000;
/// What EPLC is for ever: loads of the guest's kernel, from entries for every process (EREF §6.5.3.9: EPR, EAS).
pub const EPLC: u32 = 0xc000_0000;

/// Where things are, as effective addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Places {
    /// The [`Vcpu`]: in the last 32 KiB, so that it is reached from register 0.
    pub vcpu: u32,
    /// The image's own vectors, which IVPR names.
    pub image: u32,
    /// Where in the image, and so on each page, the vectors for program interrupts and system calls are.
    pub program: u32,
    /// See above.
    pub system_call: u32,
    /// The same for TLB misses.
    pub data_tlb: u32,
    /// See above.
    pub instruction_tlb: u32,
    /// Where in the image a program interrupt goes whose instruction is known ([`crate::vcpu::PROGRAM_READ`]).
    pub program_read: u32,
    /// The page for the guest's kernel, and behind it the one for its programs.
    pub pages: u32,
    /// The table of stubs.
    pub stubs: u32,
}

/// Effective addresses of the instructions that may fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Faults {
    /// r29 is the address of the guest's instruction.
    pub kernel: u32,
    /// r29 is the address behind it.
    pub program: u32,
}

impl Places {
    /// Displacement of a byte of the [`Vcpu`] from register 0.
    const fn at(&self, offset: usize) -> i32 {
        self.vcpu.wrapping_add(offset as u32) as i32
    }

    const fn saved(&self, register: u32) -> i32 {
        self.at(offset_of!(Vcpu, fast) + offset_of!(Fast, saved)).wrapping_add((register as i32 - 28) * 4)
    }

    const fn fast(&self, offset: usize) -> i32 {
        self.at(offset_of!(Vcpu, fast) + offset)
    }

    const fn shared(&self, offset: usize) -> i32 {
        self.at(offset_of!(Vcpu, shared) + offset)
    }

    /// The virtual CPU learns where the pages are.
    pub fn tell(&self, vcpu: &mut Vcpu) {
        vcpu.fast.pages = [self.pages, self.pages.wrapping_add(PAGE_LEN as u32)];
        vcpu.fast.vectors = self.image;
    }

    /// Which instructions may fault.
    pub const fn faults(&self) -> Faults {
        vectors::faults(self)
    }

    /// The real IVPR for the guest as it is now. `plain`: its kernel and its programs use address space 0 only
    /// ([`crate::shadow::Shadow::is_plain`]). To be asked before every entry, when nothing can be delivered any more.
    pub fn vectors(&self, vcpu: &mut Vcpu, plain: bool) -> u32 {
        let slow = core::mem::take(&mut vcpu.fast.again) || !plain || interrupts::waits(vcpu);
        match vcpu.fast.pages {
            _ if slow => self.image,
            [kernel, _] if vcpu.msr() & msr::PR == 0 => kernel,
            [_, program] => program,
        }
    }

    /// Writes the pages and the table. Any virtual CPU will do: only where its registers are is asked.
    pub fn write(&self, vcpu: &mut Vcpu, pages: &mut [u32; 2 * PAGE_LEN / 4], stubs: &mut [u32; STUBS_LEN / 4]) {
        let (kernel, program) = pages.split_at_mut(PAGE_LEN / 4);
        let tails = vectors::write(self, kernel, program);
        stubs::write(self, vcpu, &tails, stubs);
    }
}

/// Code that is being written.
struct Code<'a> {
    words: &'a mut [u32],
    /// Effective address of the first word.
    base: u32,
    next: usize,
}

impl<'a> Code<'a> {
    /// Begins at an effective address.
    const fn new(words: &'a mut [u32], base: u32, at: u32) -> Self {
        Self { words, base, next: (at.wrapping_sub(base) / 4) as usize }
    }

    /// The effective address of the next word.
    const fn here(&self) -> u32 {
        self.base.wrapping_add(self.next as u32 * 4)
    }

    fn push(&mut self, word: u32) {
        // Too little room would be a mistake of this module, which the tests find.
        if let Some(place) = self.words.get_mut(self.next) {
            *place = word;
        }
        self.next += 1;
    }

    fn extend(&mut self, words: impl IntoIterator<Item = u32>) {
        words.into_iter().for_each(|word| self.push(word));
    }

    /// `b` to an effective address.
    fn branch(&mut self, to: u32) {
        self.push(assembler::b(to.wrapping_sub(self.here()) as i32));
    }
}

/// Where the code is in which stubs end that do not fit their place.
struct Tails {
    /// As if the path did not exist.
    slow: u32,
    /// The same, and r31 is the instruction.
    read: u32,
    /// `rfi`.
    rfi: u32,
}

// What all of this reaches from register 0.
const _: () = assert!(offset_of!(Vcpu, fast) + size_of::<Fast>() <= 0x400);
