//! The virtual MMU of one virtual CPU: TLB0 with 512 entries in 4 ways, TLB1 with 64 entries, as an e500mc has
//! them (EREF §6, e500mc reference manual §6; MMU architecture version 1), and the instructions on them.
//!
//! Entries are kept as the guest wrote them. What a field means is decided where it is used: address bits below
//! the page size are ignored there, and so are sizes that do not exist.
//!
//! Two valid entries that translate the same address are a guest's error. Which of them counts is undefined on
//! the real thing; here TLB0 comes before TLB1, and a lower number before a higher one.

mod entry;

pub use entry::{Access, Entry, mas};

use crate::shared::Shared;

/// TLB0CFG: 512 entries in 4 ways, 4 KiB only, no protection.
pub const TLB0CFG: u32 = 0x0411_0200;
/// TLB1CFG: 64 entries, fully associative, sizes from 4 KiB, with protection.
pub const TLB1CFG: u32 = 0x401c_c040;
/// MMUCFG: architecture version 1, two TLBs, one PID register, as QEMU's e500mc reads. No logical partition ids:
/// there is no hypervisor category.
pub const MMUCFG: u32 = 0;

/// What a change of the guest's TLBs means for translations that have been made from them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Change {
    /// None is wrong now.
    None,
    /// What came from `old` is wrong. `new` has taken its place; either may be invalid.
    Written {
        /// What was there.
        old: Entry,
        /// What is there now.
        new: Entry,
    },
    /// What came from unprotected entries with this TID is wrong; with zero only that of entries for every process.
    Pid(u32),
    /// What came from unprotected entries is wrong.
    Unprotected,
    /// All are wrong.
    All,
}

/// `tlbivax`: all entries, not those of one address (EREF, tlbivax).
const INVALIDATE_ALL: u32 = 0x4;
/// `tlbivax`: TLB1, not TLB0.
const INVALIDATE_TLB1: u32 = 0x8;
/// Processes are of the same group when these bits of their PIDs are the same.
const GROUPS: usize = 16;
/// Sets of TLB0.
const SETS: usize = 128;
/// Ways of TLB0.
const WAYS: usize = 4;
/// Entries of TLB1.
pub const ENTRIES: usize = 64;

/// The TLBs.
#[repr(C)]
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mmu {
    tlb0: [[Entry; WAYS]; SETS],
    tlb1: [Entry; ENTRIES],
    /// Which entries of TLB1 are valid, so that a search does not look at 64.
    valid1: u64,
    /// The sixteenths of the address space in which they translate something: the first is the highest bit.
    covered: u32,
    /// In which sets of TLB0 there may be entries of processes of a group, a bit for each set: a process is forgotten
    /// often, and has entries in few of them.
    groups: [[u32; SETS / 32]; GROUPS],
    /// The way of each set that is replaced next: what `tlbwe` was last told there.
    next_victim: [u8; SETS],
}

/// Where an entry is.
#[derive(Clone, Copy)]
enum Place {
    Tlb0 { set: usize, way: usize },
    Tlb1(usize),
}

/// The set of TLB0 for an address.
const fn set_of(ea: u32) -> usize {
    (ea >> 12) as usize % SETS
}

impl Place {
    /// What MAS0, and for TLB0 also MAS2, select.
    const fn selected(mas: &Shared) -> Self {
        let esel = (mas.mas0 >> mas::ESEL_SHIFT) as usize;
        if mas.mas0 & mas::TLBSEL == 0 {
            Self::Tlb0 { set: set_of(mas.mas2.low), way: esel % WAYS }
        } else {
            Self::Tlb1(esel % ENTRIES)
        }
    }
}

/// What an invalidation has met.
#[derive(Default)]
struct Removed {
    first: Option<Entry>,
    more: bool,
}

impl Removed {
    /// Invalidates an entry, and remembers it.
    fn remove(&mut self, entry: &mut Entry) {
        self.more = self.first.is_some();
        self.first = self.first.or(Some(*entry));
        entry.mas1 &= !mas::V;
    }

    /// What it means when each of them is to be named.
    fn each(&self) -> Change {
        match self.first {
            None => Change::None,
            Some(_) if self.more => Change::Unprotected,
            Some(old) => Change::Written { old, new: Entry { mas1: old.mas1 & !mas::V, ..old } },
        }
    }

    /// What it means when there is a word for all of them.
    fn all(&self, change: Change) -> Change {
        if self.first.is_some() { change } else { Change::None }
    }
}

/// Where in an [`Mmu`] what is that fast paths ([`crate::fast`]) look at.
pub mod places {
    use core::mem::offset_of;

    use super::{Entry, Mmu, WAYS};

    /// TLB0: sets of [`SET_LEN`] bytes, which begin with the first way.
    pub const TLB0: usize = offset_of!(Mmu, tlb0);
    /// Bytes of a set.
    pub const SET_LEN: usize = WAYS * WAY_LEN;
    /// Bytes of a way.
    pub const WAY_LEN: usize = size_of::<Entry>();
    /// In a way: valid and TID, where MAS1 has them.
    pub const MAS1: usize = offset_of!(Entry, mas1);
    /// In a way: the effective page, where MAS2 has it.
    pub const MAS2: usize = offset_of!(Entry, mas2);
    /// A word, whose n-th highest bit says whether TLB1 has something in the n-th sixteenth of the address space.
    pub const COVERED: usize = offset_of!(Mmu, covered);
    /// A byte for each set: the way that is replaced next.
    pub const NEXT_VICTIM: usize = offset_of!(Mmu, next_victim);
}

impl Mmu {
    /// No entry is valid.
    pub const fn new() -> Self {
        Self {
            tlb0: [[Entry::NONE; WAYS]; SETS],
            tlb1: [Entry::NONE; ENTRIES],
            valid1: 0,
            covered: 0,
            groups: [[0; SETS / 32]; GROUPS],
            next_victim: [0; SETS],
        }
    }

    /// Puts an entry into TLB1 before the CPU starts, for what starts it; [`Change::All`] is to follow. A number of
    /// 64 or more is taken modulo 64.
    pub fn preset(&mut self, number: usize, entry: Entry) {
        let _ = self.put(Place::Tlb1(number), entry);
    }

    /// All entries, TLB0 first.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.tlb0.as_flattened().iter().chain(&self.tlb1)
    }

    /// The entry that translates an address in a space for a process.
    pub fn lookup(&self, space: bool, pid: u32, ea: u32) -> Option<&Entry> {
        self.find(space, pid, ea).map(|(_, entry)| entry)
    }

    /// `tlbwe`: writes the entry that MAS0 and MAS2 select (EREF §6.5.3.2).
    pub fn write(&mut self, mas: &Shared) -> Change {
        let place = Place::selected(mas);
        let mut entry = Entry {
            mas1: mas.mas1 & (mas::V | mas::IPROT | mas::TID | mas::TS | mas::TSIZE),
            mas2: mas.mas2.low & (mas::PAGE | mas::ATTRIBUTES),
            mas3: mas.mas7_mas3.low,
            mas7: mas.mas7_mas3.high & mas::RPN_HIGH,
        };
        if let Place::Tlb0 { set, .. } = place {
            entry.mas1 = entry.mas1 & !(mas::IPROT | mas::TSIZE) | 1 << mas::TSIZE_SHIFT;
            self.next_victim[set % SETS] = (mas.mas0 & mas::NV) as u8;
        }
        // As QEMU's: what is read back has no address bits below the size.
        entry.mas2 &= !entry.offset_bits() | mas::ATTRIBUTES;
        self.put(place, entry)
    }

    /// `tlbre`: shows the entry that MAS0 and MAS2 select.
    pub fn read(&self, mas: &mut Shared) {
        let place = Place::selected(mas);
        let set = set_of(mas.mas2.low);
        self.show(place, self.get(place), set, mas);
    }

    /// `tlbsx`: shows the entry for an address in the space and process that MAS6 names, or defaults with V=0.
    pub fn search(&self, mas: &mut Shared, ea: u32) {
        let (pid, space) = ((mas.mas6 & mas::TID) >> mas::TID_SHIFT, mas.mas6 & mas::SAS != 0);
        match self.find(space, pid, ea) {
            Some((place, entry)) => self.show(place, *entry, set_of(ea), mas),
            None => self.load_defaults(mas, pid, ea, space),
        }
    }

    /// `tlbilx` with T=0 (all), T=1 (by MAS6\[SPID\]) or T=3 (by address and MAS6\[SPID\]); none for another T.
    ///
    /// As on an e500mc, T=3 asks for no address space. It takes entries of every process too, as QEMU's does.
    pub fn invalidate_local(&mut self, mas: &Shared, t: u32, ea: u32) -> Option<Change> {
        let pid = (mas.mas6 & mas::TID) >> mas::TID_SHIFT;
        Some(match t {
            0 => self.remove_from_both(|_| true).all(Change::Unprotected),
            1 => {
                let mut removed = Removed::default();
                self.remove_process(pid, &mut removed);
                self.remove_from_tlb1(&mut removed, |entry| entry.tid() == pid);
                removed.all(Change::Pid(pid))
            }
            3 => {
                let mut removed = Removed::default();
                let matches = |entry: &Entry| entry.is_of(pid) && entry.contains(ea);
                self.remove_from_set(ea, &mut removed, matches);
                self.remove_from_tlb1(&mut removed, matches);
                removed.each()
            }
            _ => return None,
        })
    }

    /// `tlbivax` on this CPU: bit 0x8 selects TLB1, bit 0x4 all entries of it. Process and space do not matter:
    /// it may invalidate more than it was asked for (Power ISA 2.06 III-E §6.11.4.4), and QEMU's does.
    pub fn invalidate(&mut self, ea: u32) -> Change {
        let tlb1 = ea & INVALIDATE_TLB1 != 0;
        if ea & INVALIDATE_ALL != 0 {
            return self.flash(!tlb1, tlb1);
        }
        let mut removed = Removed::default();
        if tlb1 {
            self.remove_from_tlb1(&mut removed, |entry| entry.contains(ea));
        } else {
            self.remove_from_set(ea, &mut removed, |entry| entry.contains(ea));
        }
        removed.each()
    }

    /// A write to MMUCSR0: all of TLB0, of TLB1, or of both.
    pub fn flash(&mut self, tlb0: bool, tlb1: bool) -> Change {
        let mut removed = Removed::default();
        if tlb0 {
            self.remove_from_tlb0(&mut removed, |_| true);
        }
        if tlb1 {
            self.remove_from_tlb1(&mut removed, |_| true);
        }
        removed.all(Change::Unprotected)
    }

    /// Sets MAS0 to MAS3, MAS6 and MAS7 as a TLB miss does (EREF §6.5.3.1), so that a handler has little to add
    /// before `tlbwe`.
    pub fn load_miss(&self, mas: &mut Shared, pid: u32, ea: u32, space: bool) {
        self.load_defaults(mas, pid, ea, space);
        mas.mas1 |= mas::V;
        mas.mas2.low |= ea & mas::PAGE;
        mas.mas6 = pid << mas::TID_SHIFT & mas::TID | if space { mas::SAS } else { 0 };
    }

    /// What a TLB miss and a `tlbsx` without a result have in common.
    fn load_defaults(&self, mas: &mut Shared, pid: u32, ea: u32, space: bool) {
        let victim = u32::from(self.next_victim[set_of(ea)]);
        mas.mas0 = mas.mas4 & mas::TLBSEL | victim << mas::ESEL_SHIFT | (victim + 1) & mas::NV;
        mas.mas1 = pid << mas::TID_SHIFT & mas::TID | if space { mas::TS } else { 0 } | mas.mas4 & mas::TSIZE;
        mas.mas2.low = mas.mas4 & mas::ATTRIBUTES;
        (mas.mas7_mas3.low, mas.mas7_mas3.high) = (0, 0);
    }

    /// Shows an entry in the MAS registers; `set` is where MAS0\[NV\] is taken from.
    fn show(&self, place: Place, entry: Entry, set: usize, mas: &mut Shared) {
        let (tlb, number) = match place {
            Place::Tlb0 { way, .. } => (0, way),
            Place::Tlb1(number) => (mas::TLBSEL, number),
        };
        let victim = self.next_victim[set % SETS];
        mas.mas0 = tlb | (number as u32) << mas::ESEL_SHIFT | u32::from(victim);
        (mas.mas1, mas.mas2.low) = (entry.mas1, entry.mas2);
        (mas.mas7_mas3.low, mas.mas7_mas3.high) = (entry.mas3, entry.mas7);
    }

    /// The entry that translates an address, and where it is.
    fn find(&self, space: bool, pid: u32, ea: u32) -> Option<(Place, &Entry)> {
        let set = set_of(ea);
        for (way, entry) in self.tlb0[set].iter().enumerate() {
            // All of this TLB are of one size.
            if (ea ^ entry.mas2) & mas::PAGE == 0 && entry.matches(space, pid, ea) {
                return Some((Place::Tlb0 { set, way }, entry));
            }
        }
        for (half, valid) in [(0, self.valid1 as u32), (32, (self.valid1 >> 32) as u32)] {
            let mut rest = valid;
            while rest != 0 {
                let number = (half + rest.trailing_zeros()) as usize % ENTRIES;
                let entry = &self.tlb1[number];
                if entry.matches(space, pid, ea) {
                    return Some((Place::Tlb1(number), entry));
                }
                rest &= rest - 1;
            }
        }
        None
    }

    fn get(&self, place: Place) -> Entry {
        match place {
            Place::Tlb0 { set, way } => self.tlb0[set % SETS][way % WAYS],
            Place::Tlb1(number) => self.tlb1[number % ENTRIES],
        }
    }

    fn put(&mut self, place: Place, new: Entry) -> Change {
        let slot = match place {
            Place::Tlb0 { set, way } => &mut self.tlb0[set % SETS][way % WAYS],
            Place::Tlb1(number) => {
                let bit = 1 << (number % ENTRIES);
                self.valid1 = if new.is_valid() { self.valid1 | bit } else { self.valid1 & !bit };
                &mut self.tlb1[number % ENTRIES]
            }
        };
        let old = core::mem::replace(slot, new);
        if let (Place::Tlb0 { set, .. }, true) = (place, new.is_valid()) {
            self.groups[new.tid() as usize % GROUPS][set / 32 % (SETS / 32)] |= 1 << (set % 32);
        }
        if matches!(place, Place::Tlb1(_)) {
            self.cover();
        }
        if old.is_valid() || new.is_valid() { Change::Written { old, new } } else { Change::None }
    }

    fn remove_from_both(&mut self, matches: impl Fn(&Entry) -> bool) -> Removed {
        let mut removed = Removed::default();
        self.remove_from_tlb0(&mut removed, &matches);
        self.remove_from_tlb1(&mut removed, &matches);
        removed
    }

    fn remove_from_tlb0(&mut self, removed: &mut Removed, matches: impl Fn(&Entry) -> bool) {
        let entries = self.tlb0.as_flattened_mut().iter_mut();
        entries.filter(|entry| entry.is_valid() && matches(entry)).for_each(|entry| removed.remove(entry));
    }

    /// From TLB0, what is of one process.
    fn remove_process(&mut self, pid: u32, removed: &mut Removed) {
        let group = pid as usize % GROUPS;
        for (word, bits) in self.groups[group].iter_mut().enumerate() {
            let mut rest = *bits;
            while rest != 0 {
                let bit = rest.trailing_zeros();
                rest &= rest - 1;
                let mut others = false;
                for entry in self.tlb0[(word * 32 + bit as usize) % SETS].iter_mut().filter(|entry| entry.is_valid()) {
                    if entry.tid() == pid {
                        removed.remove(entry);
                    } else {
                        others |= entry.tid() as usize % GROUPS == group;
                    }
                }
                if !others {
                    *bits &= !(1 << bit);
                }
            }
        }
    }

    /// Only from the set where an address would be.
    fn remove_from_set(&mut self, ea: u32, removed: &mut Removed, matches: impl Fn(&Entry) -> bool) {
        let entries = self.tlb0[set_of(ea)].iter_mut();
        entries.filter(|entry| entry.is_valid() && matches(entry)).for_each(|entry| removed.remove(entry));
    }

    fn remove_from_tlb1(&mut self, removed: &mut Removed, matches: impl Fn(&Entry) -> bool) {
        let mut rest = self.valid1;
        while rest != 0 {
            let number = rest.trailing_zeros() as usize % ENTRIES;
            let entry = &mut self.tlb1[number];
            if !entry.is_protected() && matches(entry) {
                removed.remove(entry);
                self.valid1 &= !(1 << number);
            }
            rest &= rest - 1;
        }
        self.cover();
    }

    /// The word at a place of [`places`].
    #[cfg(test)]
    pub(crate) fn word_at(&self, offset: usize) -> u32 {
        match offset.checked_sub(places::TLB0) {
            _ if offset == places::COVERED => self.covered,
            Some(at) if at < SETS * places::SET_LEN => {
                let entry = &self.tlb0.as_flattened()[at / places::WAY_LEN];
                match at % places::WAY_LEN {
                    places::MAS1 => entry.mas1,
                    places::MAS2 => entry.mas2,
                    _ => panic!("{offset:#x} is not for fast paths"),
                }
            }
            _ => panic!("{offset:#x} is not for fast paths"),
        }
    }

    /// The byte at a place of [`places`].
    #[cfg(test)]
    pub(crate) fn byte_at(&self, offset: usize) -> u8 {
        self.next_victim[offset - places::NEXT_VICTIM]
    }

    /// Brings [`Self::covered`] up to date.
    fn cover(&mut self) {
        self.covered = 0;
        for entry in self.tlb1.iter().filter(|entry| entry.is_valid()) {
            let (first, last) = (entry.base() >> 28, (entry.base() | entry.offset_bits()) >> 28);
            self.covered |= u32::MAX >> first & u32::MAX << (31 - last);
        }
    }
}

impl Default for Mmu {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
