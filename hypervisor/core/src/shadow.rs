//! Which real translations stand for the guest's.
//!
//! The guest's kernel runs in address space 1 and its programs in address space 0, both in problem state, so a real
//! entry is for one of the two, and has no permission for the supervisor, who is the hypervisor, but to read what a
//! program can execute. Each of the two has
//! translations of one pair (MSR\[IS\], MSR\[DS\]) of the guest at a time; another pair drops them. A guest whose
//! instructions and data are in different spaces is served with entries for the one or the other, which replace each
//! other.
//!
//! A guest's PID is stood for by a real one (1 to 255), which is handed out when it is first used. Forgetting a
//! process is giving it another. The kernel's entries for every process are real entries for every process; those of
//! programs are not, since address space 0 is the hypervisor's too.
//!
//! Whatever the guest writes, these hold (`tests.rs` checks them after each step):
//! * a real entry gives a part of what a valid entry of the guest gives, in memory that is the guest's
//! * no two real entries translate the same address in the same space for the same PID: a real CPU may answer that
//!   with a machine check, which would be the hypervisor's
//!
//! The real TLB0 replaces entries by itself, so what it holds is not known, only where it may hold something.

mod pages;
mod processes;

use citrine_formats::addr::{Address as _, GuestPhys, TruePhys};

use crate::memory::{GuestMap, NotMapped};
pub use crate::mmu::Access;
use crate::mmu::{Change, Entry, mas};
use crate::vcpu::msr;
use pages::{Pages, Users};
use processes::Processes;

#[cfg(test)]
mod tests;

/// The real TLBs. Whoever implements this writes what it is told, and decides nothing.
pub trait RealTlb {
    /// Writes a page of 4 KiB to TLB0, to whatever way.
    fn write_page(&mut self, mas1: u32, mas2: u32, mas3: u32, mas7: u32);
    /// Writes a slot of TLB1; one that is not valid clears it.
    fn write_slot(&mut self, slot: u8, mas1: u32, mas2: u32, mas3: u32, mas7: u32);
    /// Takes away what TLB0 has for an address in an address space, for this PID or for every one. With 0 only what
    /// it has for every one.
    fn invalidate_page(&mut self, ea: u32, space: bool, pid: u8);
    /// Takes away all of TLB0.
    fn invalidate_pages(&mut self);
    /// Sets the PID under which the guest runs.
    fn set_pid(&mut self, pid: u8);
}

/// The slots of TLB1 that are the guest's.
pub const SLOTS: core::ops::Range<u8> = 16..63;
const SLOT_COUNT: usize = (SLOTS.end - SLOTS.start) as usize;
/// Guests' programs have the addresses below this; above are the hypervisor's.
pub const PROGRAMS_END: u32 = 0xc000_0000;
/// The largest real entry, as n of 4^n KiB: 1 GiB never crosses [`PROGRAMS_END`].
const LARGEST: u32 = 10;
/// True-physical addresses have 36 bits.
const PHYSICAL_BITS: u32 = 36;
/// Bits of an address in a page of 4 KiB.
const PAGE_BITS: u32 = 12;
const PAGE_OFFSET: u32 = (1 << PAGE_BITS) - 1;
/// From this many pages of 4 KiB on, all are dropped instead of each.
const MANY: u32 = 16;

/// What a slot of TLB1 holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Slot {
    /// The guest's entry for which it stands.
    guest: Entry,
    /// First effective address, and its size less one.
    base: u32,
    within: u32,
    /// Its real PID; 0 for every one.
    real: u8,
}

/// The guest's translations in the real TLBs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shadow {
    slots: [Slot; SLOT_COUNT],
    /// Which slots hold something for the guest's programs, and for its kernel.
    used: [u64; 2],
    next_slot: u32,
    pages: Pages,
    processes: Processes,
    /// The guest's PID, and the one that stands for it: 0 before the first [`context`](Self::context).
    pid: u32,
    real: u8,
    /// MSR\[IS, DS\] of the guest's kernel, and of its programs.
    kernel_spaces: u32,
    program_spaces: u32,
}

// It is part of a page that each CPU has.
const _: () = assert!(size_of::<Shadow>() <= 6 * 1024);

impl Default for Shadow {
    fn default() -> Self {
        Self::new()
    }
}

impl Shadow {
    /// Nothing is translated.
    pub const fn new() -> Self {
        const EMPTY: Slot = Slot { guest: Entry::NONE, base: 0, within: 0, real: 0 };
        Self {
            slots: [EMPTY; SLOT_COUNT],
            used: [0; 2],
            next_slot: 0,
            pages: Pages::NONE,
            processes: Processes::NONE,
            pid: 0,
            real: 0,
            kernel_spaces: 0,
            program_spaces: 0,
        }
    }

    /// The guest's translations have changed.
    pub fn change(&mut self, tlb: &mut impl RealTlb, change: &Change) {
        match *change {
            Change::None => {}
            Change::Written { old, new } => {
                if old.is_valid() && old != new {
                    self.forget(tlb, &old);
                }
            }
            Change::Pid(0) => {
                self.drop_pages(tlb);
                self.clear_slots(tlb, |slot| slot.guest.tid() == 0 && !slot.guest.is_protected());
            }
            Change::Pid(pid) => {
                self.clear_slots(tlb, |slot| slot.guest.tid() == pid && !slot.guest.is_protected());
                self.processes.forget(pid);
                if pid == self.pid {
                    self.take_real(tlb);
                }
            }
            Change::Unprotected => {
                self.drop_pages(tlb);
                self.clear_slots(tlb, |slot| !slot.guest.is_protected());
            }
            Change::All => self.forget_all(tlb),
        }
    }

    /// The guest goes on with this PID and machine state. To be told before its first instruction, and whenever its
    /// PID or MSR\[PR, IS, DS\] has changed.
    pub fn context(&mut self, tlb: &mut impl RealTlb, pid: u32, state: u32) {
        let user = state & msr::PR != 0;
        let spaces = if user { &mut self.program_spaces } else { &mut self.kernel_spaces };
        if core::mem::replace(spaces, state & (msr::IS | msr::DS)) != state & (msr::IS | msr::DS) {
            self.clear_slots_of(tlb, !user, |_| true);
            if self.pages.has_any(!user) {
                self.drop_pages(tlb);
            }
        }
        if pid != self.pid || self.real == 0 {
            self.pid = pid;
            self.take_real(tlb);
        }
    }

    /// Whether the guest's kernel and its programs both run in address space 0, as they do after an interrupt.
    pub const fn is_plain(&self) -> bool {
        self.kernel_spaces | self.program_spaces == 0
    }

    /// Makes a real entry for an access to `ea` (`user`: by a program) from one of the guest's entries, which the
    /// caller has found to permit the access.
    ///
    /// None is made of an entry that is not of the current PID and space, and none for a program in the hypervisor's
    /// addresses, from [`PROGRAMS_END`] on.
    ///
    /// # Errors
    /// [`NotMapped`] when the entry leads to memory that is not the guest's. Then nothing is changed.
    pub fn install(
        &mut self,
        tlb: &mut impl RealTlb,
        entry: &Entry,
        ea: u32,
        user: bool,
        access: Access,
        map: &GuestMap,
    ) -> Result<(), NotMapped> {
        // Most entries are of one page, and 64-bit numbers are slow.
        let page = if entry.offset_bits() == PAGE_OFFSET { map.translate_page(entry.page()) } else { None };
        let at = entry.physical(ea);
        let here = match page {
            Some(page) => Some(TruePhys(u64::from(page) << PAGE_BITS)),
            None => map.translate(at).map(|(here, _)| here),
        };
        let here = here.filter(|here| here.get() >> PHYSICAL_BITS == 0).ok_or(NotMapped(at))?;
        let spaces = if user { self.program_spaces } else { self.kernel_spaces };
        let of_access = if access == Access::Execute { msr::IS } else { msr::DS };
        let permissions = permissions(entry, spaces, user, access);
        let usable = entry.matches(spaces & of_access != 0, self.pid, ea) && permissions != 0 && self.real != 0;
        if !usable || user && ea >= PROGRAMS_END {
            return Ok(());
        }

        // Where instructions and data are of two spaces, what stands for one of them is in the other's way: with
        // large pages an instruction and what it loads could drive each other out for ever.
        let largest_page = if matches!(spaces, msr::IS | msr::DS) { 1 } else { LARGEST };
        let (n, start) = match page {
            Some(_) => (1, here),
            None => largest(entry, ea, at, here, map, largest_page),
        };
        let within = (1u32 << (10 + 2 * n)) - 1;
        let base = ea & !within;
        let real = if entry.tid() == 0 && !user { 0 } else { self.real };
        self.make_room(tlb, base, within, !user, real);

        let space = if user { 0 } else { mas::TS };
        let mas1 = mas::V | u32::from(real) << mas::TID_SHIFT | space | n << mas::TSIZE_SHIFT;
        // Areas may be shared with other CPUs, whatever the guest thinks.
        let mas2 = base | entry.attributes() | mas::M;
        // The hypervisor reads which system call a program has made (`fast`).
        let read = if user && permissions & mas::UX != 0 { mas::SR } else { 0 };
        let (mas3, mas7) = (start.get() as u32 | permissions | read, (start.get() >> 32) as u32);
        if n == 1 {
            let users = if user && entry.tid() == 0 { Users::One(self.real) } else { Users::None };
            self.pages.add(base, !user, real, entry.size() > 0x1000, users);
            tlb.write_page(mas1, mas2, mas3, mas7);
        } else {
            let index = self.free_slot();
            self.slots[index as usize % SLOT_COUNT] = Slot { guest: *entry, base, within, real };
            // The one that is replaced may have been of the other side.
            self.used = self.used.map(|used| used & !(1 << index));
            self.used[usize::from(!user)] |= 1 << index;
            tlb.write_slot(SLOTS.start + index as u8, mas1, mas2, mas3, mas7);
        }
        Ok(())
    }

    /// Drops every translation of the guest.
    pub fn forget_all(&mut self, tlb: &mut impl RealTlb) {
        self.clear_slots(tlb, |_| true);
        self.drop_pages(tlb);
    }

    /// Drops what stands for an entry that the guest has no more.
    fn forget(&mut self, tlb: &mut impl RealTlb, old: &Entry) {
        if old.size() > 0x1000 {
            self.clear_slots(tlb, |slot| slot.guest == *old);
            if self.pages.has_parts() {
                self.drop_pages(tlb);
            }
            return;
        }
        let (ea, pid) = (old.base(), old.tid());
        let real = if pid == 0 { Some(0) } else { self.processes.find(pid) };
        if let Some(real) = real.filter(|_| self.pages.may_have(ea, 0, true)) {
            tlb.invalidate_page(ea, true, real);
        }
        if !self.pages.may_have(ea, 0, false) {
            return;
        }
        match (real, self.pages.users()) {
            (None, _) | (Some(0), Users::None) => {}
            (Some(0), Users::One(real)) | (Some(real @ 1..), _) => tlb.invalidate_page(ea, false, real),
            (Some(0), Users::Many) => self.drop_pages(tlb),
        }
    }

    /// Drops what a new entry would translate too.
    fn make_room(&mut self, tlb: &mut impl RealTlb, base: u32, within: u32, kernel: bool, real: u8) {
        self.clear_slots_of(tlb, kernel, |slot| {
            let meets = slot.base <= base | within && base <= slot.base | slot.within;
            meets && (slot.real == 0 || real == 0 || slot.real == real)
        });
        if !self.pages.may_have(base, within, kernel) {
            return;
        }
        let count = (within >> 12) + 1;
        if count > MANY || real == 0 && self.pages.may_have_private(base, within) {
            self.drop_pages(tlb);
            return;
        }
        // What there is for every PID is found under this one.
        (0..count).for_each(|page| tlb.invalidate_page(base | page << 12, kernel, real));
    }

    /// A slot that is empty, or the next in turn.
    fn free_slot(&mut self) -> u32 {
        let empty = (self.used[0] | self.used[1]).trailing_ones();
        if empty < SLOT_COUNT as u32 {
            return empty;
        }
        self.next_slot = (self.next_slot + 1) % SLOT_COUNT as u32;
        self.next_slot
    }

    /// Empties slots.
    fn clear_slots(&mut self, tlb: &mut impl RealTlb, which: impl Fn(&Slot) -> bool) {
        self.clear_slots_of(tlb, false, &which);
        self.clear_slots_of(tlb, true, which);
    }

    /// Empties slots of the guest's programs or of its kernel.
    fn clear_slots_of(&mut self, tlb: &mut impl RealTlb, kernel: bool, which: impl Fn(&Slot) -> bool) {
        let mut rest = self.used[usize::from(kernel)];
        while rest != 0 {
            let index = rest.trailing_zeros();
            rest &= rest - 1;
            if which(&self.slots[index as usize % SLOT_COUNT]) {
                self.used[usize::from(kernel)] &= !(1 << index);
                tlb.write_slot(SLOTS.start + index as u8, 0, 0, 0, 0);
            }
        }
    }

    /// Drops all pages of 4 KiB.
    fn drop_pages(&mut self, tlb: &mut impl RealTlb) {
        tlb.invalidate_pages();
        self.pages = Pages::NONE;
    }

    /// Finds what stands for the current process, or something new.
    fn take_real(&mut self, tlb: &mut impl RealTlb) {
        let real = self.processes.find(self.pid).or_else(|| self.processes.add(self.pid)).unwrap_or_else(|| {
            // All are used up: begin again with nothing but what is for every PID.
            self.clear_slots(tlb, |slot| slot.real != 0);
            self.drop_pages(tlb);
            self.processes.restart(self.pid)
        });
        if real != self.real {
            self.real = real;
            tlb.set_pid(real);
        }
    }
}

/// The permissions of problem state for the guest's kernel or its programs (`user`).
fn permissions(entry: &Entry, spaces: u32, user: bool, access: Access) -> u32 {
    // The kernel's are one bit below those of programs.
    let all = entry.permissions() << u32::from(!user) & mas::USER;
    match (spaces, access) {
        (msr::IS | msr::DS, Access::Execute) => all & mas::UX,
        (msr::IS | msr::DS, _) => all & !mas::UX,
        _ => all,
    }
}

/// The largest real page for an address, at most `limit`, as n of 4^n KiB, and where it begins.
fn largest(entry: &Entry, ea: u32, at: GuestPhys, here: TruePhys, map: &GuestMap, limit: u32) -> (u32, TruePhys) {
    // Most entries are small, and it is asked for each of them.
    let limit = limit.min((entry.offset_bits().count_ones().saturating_sub(10)) / 2);
    for n in (2..=limit).rev() {
        let size = 1u64 << (10 + 2 * n);
        let offset = u64::from(ea) & (size - 1);
        // Aligned in the guest-physical space too, since an entry is, by its own size.
        if here.get() & (size - 1) != offset {
            continue;
        }
        let start = TruePhys(here.get() - offset);
        let found = at.get().checked_sub(offset).and_then(|at| map.translate(GuestPhys(at)));
        if found.is_some_and(|(found, room)| found == start && room >= size) {
            return (n, start);
        }
    }
    (1, TruePhys(here.get() & !0xfff))
}
