//! Real TLBs that refuse what would let a guest out, or what a real CPU would not survive.

use citrine_core::mmu::{Entry, mas};
use citrine_core::shadow::{PROGRAMS_END, RealTlb, SLOTS};

/// Sets of TLB0.
const SETS: usize = 128;

/// The two TLBs and PID.
pub struct RealTlbs {
    pages: Vec<[Entry; 4]>,
    slots: Vec<Entry>,
    pub pid: u8,
    /// Which way is replaced next, by no rule that the hypervisor could know.
    chance: u32,
}

/// Whether both translate the same address in the same space for the same PID.
fn meet(one: &Entry, other: &Entry) -> bool {
    let last = |entry: &Entry| u64::from(entry.base()) + entry.size() - 1;
    let apart = u64::from(one.base()) > last(other) || u64::from(other.base()) > last(one);
    let tids = one.tid() == 0 || other.tid() == 0 || one.tid() == other.tid();
    one.space() == other.space() && tids && !apart
}

impl RealTlbs {
    pub fn new() -> Self {
        Self { pages: vec![[Entry::NONE; 4]; SETS], slots: vec![Entry::NONE; 64], pid: 0, chance: 1 }
    }

    /// What translates anything.
    pub fn valid(&self) -> impl Iterator<Item = &Entry> {
        self.pages.as_flattened().iter().chain(&self.slots).filter(|entry| entry.is_valid())
    }

    /// What translates this address now.
    pub fn lookup(&self, space: bool, ea: u32) -> Option<&Entry> {
        self.valid().find(|entry| entry.matches(space, self.pid.into(), ea))
    }

    fn check(&self, new: &Entry) {
        let executed = !new.space() && new.permissions() & mas::UX != 0;
        let supervisor = if executed { mas::SR } else { 0 };
        assert_eq!(new.permissions() & !mas::USER, supervisor, "{new:x?} is for the supervisor");
        assert_eq!(new.mas1 & mas::IPROT, 0, "{new:x?} is protected");
        let end = u64::from(new.base()) + new.size();
        assert!(new.space() || new.tid() != 0 && end <= PROGRAMS_END.into(), "{new:x?} is the hypervisor's too");
        let twice = self.valid().find(|old| meet(old, new));
        assert_eq!(twice, None, "{new:x?} is there already");
    }
}

impl RealTlb for RealTlbs {
    fn write_page(&mut self, mas1: u32, mas2: u32, mas3: u32, mas7: u32) {
        let new = Entry { mas1, mas2, mas3, mas7 };
        assert!(new.is_valid() && new.size() == 0x1000, "{new:x?} is no page");
        self.check(&new);
        self.chance = self.chance.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.pages[(mas2 >> 12) as usize % SETS][(self.chance >> 30) as usize] = new;
    }

    fn write_slot(&mut self, slot: u8, mas1: u32, mas2: u32, mas3: u32, mas7: u32) {
        assert!(SLOTS.contains(&slot), "slot {slot} is the hypervisor's");
        let new = Entry { mas1, mas2, mas3, mas7 };
        self.slots[usize::from(slot)] = Entry::NONE;
        if new.is_valid() {
            self.check(&new);
            self.slots[usize::from(slot)] = new;
        }
    }

    fn invalidate_page(&mut self, ea: u32, space: bool, pid: u8) {
        let hit = |entry: &&mut Entry| entry.matches(space, pid.into(), ea);
        self.pages[(ea >> 12) as usize % SETS].iter_mut().filter(hit).for_each(|entry| *entry = Entry::NONE);
    }

    fn invalidate_pages(&mut self) {
        self.pages.fill([Entry::NONE; 4]);
    }

    fn set_pid(&mut self, pid: u8) {
        assert_ne!(pid, 0, "every entry matches");
        self.pid = pid;
    }
}
