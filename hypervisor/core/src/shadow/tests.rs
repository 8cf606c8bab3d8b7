//! The shadow translations against a model of the real TLBs, under programs that a guest could run.

extern crate std;
use std::vec::Vec;

use citrine_formats::addr::Span;
use proptest::prelude::*;

use super::*;
use crate::mmu::Mmu;
use crate::shared::Shared;

/// Real TLBs that refuse what a real CPU would not survive.
struct Fake {
    pages: Vec<[Entry; 4]>,
    slots: Vec<Entry>,
    pid: u8,
    /// Which way is replaced next, by no rule that the shadow could know.
    chance: u32,
    writes: usize,
    searches: usize,
    drops: usize,
    pids: usize,
}

fn same_translation(one: &Entry, other: &Entry) -> bool {
    let apart =
        one.base() > other.base() | (other.size() - 1) as u32 || other.base() > one.base() | (one.size() - 1) as u32;
    let tids = one.tid() == 0 || other.tid() == 0 || one.tid() == other.tid();
    one.is_valid() && other.is_valid() && one.space() == other.space() && tids && !apart
}

impl Fake {
    fn new() -> Self {
        Self {
            pages: std::vec![[Entry::NONE; 4]; 128],
            slots: std::vec![Entry::NONE; 64],
            pid: 0,
            chance: 1,
            writes: 0,
            searches: 0,
            drops: 0,
            pids: 0,
        }
    }

    fn valid(&self) -> impl Iterator<Item = &Entry> {
        self.pages.as_flattened().iter().chain(&self.slots).filter(|entry| entry.is_valid())
    }

    fn check(&self, new: &Entry) {
        let executed = !new.space() && new.permits(true, Access::Execute);
        let supervisor = if executed { mas::SR } else { 0 };
        assert_eq!(new.permissions() & !mas::USER, supervisor, "the supervisor reads programs, and nothing else");
        assert_eq!(new.mas1 & mas::IPROT, 0);
        assert_ne!(new.mas2 & mas::M, 0);
        let end = u64::from(new.base()) + new.size();
        assert!(new.space() || new.tid() != 0 && end <= u64::from(PROGRAMS_END), "{new:x?} is the hypervisor's too");
        assert_eq!((new.mas2 | new.mas3) & (new.size() - 1) as u32 & mas::PAGE, 0);
        let twice = self.valid().find(|old| same_translation(old, new));
        assert_eq!(twice, None, "{new:x?} is there already");
    }

    fn lookup(&self, space: bool, ea: u32) -> Option<&Entry> {
        self.valid().find(|entry| entry.matches(space, self.pid.into(), ea))
    }
}

impl RealTlb for Fake {
    fn write_page(&mut self, mas1: u32, mas2: u32, mas3: u32, mas7: u32) {
        let new = Entry { mas1, mas2, mas3, mas7 };
        assert!(new.is_valid() && new.size() == 0x1000);
        self.check(&new);
        self.chance = self.chance.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.pages[(mas2 >> 12) as usize % 128][(self.chance >> 30) as usize] = new;
        self.writes += 1;
    }

    fn write_slot(&mut self, slot: u8, mas1: u32, mas2: u32, mas3: u32, mas7: u32) {
        assert!(SLOTS.contains(&slot));
        let new = Entry { mas1, mas2, mas3, mas7 };
        self.slots[usize::from(slot)] = Entry::NONE;
        if new.is_valid() {
            assert!(new.size() > 0x1000);
            self.check(&new);
            self.slots[usize::from(slot)] = new;
        }
        self.writes += 1;
    }

    fn invalidate_page(&mut self, ea: u32, space: bool, pid: u8) {
        let hit = |entry: &&mut Entry| entry.matches(space, pid.into(), ea);
        self.pages[(ea >> 12) as usize % 128].iter_mut().filter(hit).for_each(|entry| *entry = Entry::NONE);
        self.searches += 1;
    }

    fn invalidate_pages(&mut self) {
        self.pages.fill([Entry::NONE; 4]);
        self.drops += 1;
    }

    fn set_pid(&mut self, pid: u8) {
        assert_ne!(pid, 0);
        self.pid = pid;
        self.pids += 1;
    }
}

/// A guest on its virtual CPU.
struct World {
    mmu: Mmu,
    shadow: Shadow,
    tlb: Fake,
    map: GuestMap,
    pid: u32,
    state: u32,
    /// MSR\[IS, DS\] that the kernel and programs had last.
    spaces: [u32; 2],
}

/// Guest-physical memory: 1 GiB at 0 that is aligned to 256 MiB only; 8 MiB that is aligned to nothing; and some that
/// needs more than 32 bits on both sides.
const PIECES: [(u64, u64, u64); 3] =
    [(0, 1 << 30, 0x1000_0000), (0x8000_0000, 8 << 20, 0x6000_3000), (0x1_0000_0000, 256 << 20, 0x2_4000_0000)];

impl World {
    fn new() -> Self {
        let mut map = GuestMap::default();
        for (guest, len, base) in PIECES {
            assert!(map.add(Span::new(GuestPhys(guest), len).unwrap(), TruePhys(base)));
        }
        let (mmu, shadow, tlb) = (Mmu::new(), Shadow::new(), Fake::new());
        let mut world = Self { mmu, shadow, tlb, map, pid: 0, state: 0, spaces: [0; 2] };
        world.change(Change::All);
        world.context(0, 0);
        world
    }

    fn change(&mut self, change: Change) {
        self.shadow.change(&mut self.tlb, &change);
    }

    fn context(&mut self, pid: u32, state: u32) {
        (self.pid, self.state) = (pid, state);
        self.spaces[usize::from(state & msr::PR != 0)] = state & (msr::IS | msr::DS);
        self.shadow.context(&mut self.tlb, pid, state);
    }

    fn write(&mut self, mas0: u32, entry: Entry) {
        let mut mas = Shared::default();
        (mas.mas0, mas.mas1, mas.mas2.low) = (mas0, entry.mas1, entry.mas2);
        (mas.mas7_mas3.low, mas.mas7_mas3.high) = (entry.mas3, entry.mas7);
        let change = self.mmu.write(&mas);
        self.change(change);
    }

    fn invalidate_local(&mut self, t: u32, pid: u32, ea: u32) {
        let mut mas = Shared::default();
        mas.mas6 = pid << 16;
        if let Some(change) = self.mmu.invalidate_local(&mas, t, ea) {
            self.change(change);
        }
    }

    /// What becomes of an access, as `exits` decides it. Whether it succeeds.
    fn touch(&mut self, ea: u32, access: Access) -> bool {
        let user = self.state & msr::PR != 0;
        if self.tlb.lookup(!user, ea).is_some_and(|entry| entry.permits(true, access)) {
            return true;
        }
        let space = self.state & if access == Access::Execute { msr::IS } else { msr::DS } != 0;
        let Some(entry) = self.mmu.lookup(space, self.pid, ea).copied() else { return false };
        if user && ea >= PROGRAMS_END || !entry.permits(user, access) {
            return false;
        }
        let done = self.shadow.install(&mut self.tlb, &entry, ea, user, access, &self.map);
        assert_eq!(done.is_ok(), self.map.translate(entry.physical(ea)).is_some());
        let real = self.tlb.lookup(!user, ea);
        if done.is_ok() {
            let real = real.unwrap_or_else(|| panic!("{entry:x?} at {ea:#x} was not installed"));
            assert!(real.permits(true, access), "the guest would try again for ever");
            let (here, _) = self.map.translate(entry.physical(ea)).unwrap();
            assert_eq!(real.physical(ea).get(), here.get());
        }
        done.is_ok()
    }

    /// Every real entry gives a part of what a valid entry of the guest gives.
    fn check(&self) {
        let guests: Vec<&Entry> = self.mmu.entries().filter(|entry| entry.is_valid()).collect();
        for real in self.tlb.valid() {
            let (kernel, tid) = (real.space(), real.tid());
            let spaces = self.spaces[usize::from(!kernel)];
            let pid = (0..0x4000).find(|pid| self.shadow.processes.find(*pid).map(u32::from) == Some(tid));
            if tid != 0 && pid.is_none() {
                // Under a PID that does not come again before all is dropped.
                assert_ne!(tid, u32::from(self.tlb.pid));
                continue;
            }
            let gives = |guest: &&&Entry| {
                let of_process = guest.tid() == 0 || pid == Some(guest.tid());
                let within = guest.contains(real.base()) && guest.size() >= real.size();
                let space = |access| u32::from(guest.space()) * access == spaces & access;
                let spaces = (!real.permits(true, Access::Execute) || space(msr::IS))
                    && (!(real.permits(true, Access::Read) || real.permits(true, Access::Write)) || space(msr::DS));
                let permits = [Access::Read, Access::Write, Access::Execute].iter();
                let permitted = permits.clone().all(|a| !real.permits(true, *a) || guest.permits(!kernel, *a));
                let at = self.map.translate(guest.physical(real.base()));
                let same =
                    at.is_some_and(|(at, room)| at.get() == real.physical(real.base()).get() && room >= real.size());
                of_process && within && spaces && permitted && same && guest.attributes() | mas::M == real.attributes()
            };
            assert!(guests.iter().any(|guest| gives(&guest)), "{real:x?} stands for nothing in {guests:x?}");
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Tlbwe { mas0: u32, entry: Entry },
    Tlbilx { t: u32, pid: u32, ea: u32 },
    Tlbivax(u32),
    Flash(bool, bool),
    Pid(u32),
    State(u32),
    Touch(u32, Access),
}

/// Bases that meet each other in sets, regions and large pages, below and above what programs have.
const BASES: [u32; 9] =
    [0, 0x1000, 0x8_0000, 0x4000_0000, 0x4000_1000, 0x4001_0000, 0x3f40_0000, 0xc000_0000, 0xc008_0000];
/// Real pages: in each piece, at the ends of pieces, and nowhere.
const FRAMES: [u64; 9] =
    [0, 0x5000, 0x1000_0000, 0x3fff_f000, 0x4000_0000, 0x8000_0000, 0x807f_f000, 0x1_0000_0000, 0xf_0000_0000];

fn pid() -> impl Strategy<Value = u32> {
    // 257 is found where 1 is.
    prop::sample::select(&[0u32, 1, 2, 257])
}

fn access() -> impl Strategy<Value = Access> {
    prop::sample::select(&[Access::Read, Access::Write, Access::Execute])
}

fn address() -> impl Strategy<Value = u32> {
    (prop::sample::select(&BASES), prop_oneof![Just(0u32), 0u32..0x1_0000]).prop_map(|(base, offset)| base + offset)
}

fn entry() -> impl Strategy<Value = Entry> {
    let flags = (prop::bool::weighted(0.9), prop::bool::weighted(0.2), prop::bool::weighted(0.2));
    let size = prop_oneof![4 => Just(1u32), 4 => 1u32..12];
    let permissions = prop_oneof![2 => Just(0x3fu32), 1 => 0u32..64];
    (flags, pid(), size, address(), prop::sample::select(&FRAMES), permissions, 0u32..32).prop_map(
        |((valid, protected, space), tid, size, ea, frame, permissions, attributes)| Entry {
            mas1: u32::from(valid) << 31 | u32::from(protected) << 30 | tid << 16 | u32::from(space) << 12 | size << 8,
            mas2: ea & mas::PAGE | attributes,
            mas3: frame as u32 | permissions,
            mas7: (frame >> 32) as u32,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let mas0 = (any::<bool>(), 0u32..6).prop_map(|(tlb1, esel)| u32::from(tlb1) << 28 | esel << 16);
    let spaces = prop_oneof![6 => Just(0u32), 1 => Just(msr::IS), 1 => Just(msr::DS), 1 => Just(msr::IS | msr::DS)];
    prop_oneof![
        6 => (mas0, entry()).prop_map(|(mas0, entry)| Step::Tlbwe { mas0, entry }),
        2 => (prop::sample::select(&[0u32, 1, 1, 3, 3, 3]), pid(), address()).prop_map(|(t, pid, ea)| Step::Tlbilx { t, pid, ea }),
        1 => (address(), 0u32..4).prop_map(|(ea, which)| Step::Tlbivax(ea & mas::PAGE | which << 2)),
        1 => any::<(bool, bool)>().prop_map(|(tlb0, tlb1)| Step::Flash(tlb0, tlb1)),
        2 => pid().prop_map(Step::Pid),
        2 => (any::<bool>(), spaces).prop_map(|(user, spaces)| Step::State(if user { msr::PR } else { 0 } | spaces)),
        12 => (address(), access()).prop_map(|(ea, access)| Step::Touch(ea, access)),
    ]
}

impl World {
    fn step(&mut self, step: Step) {
        match step {
            Step::Tlbwe { mas0, entry } => self.write(mas0, entry),
            Step::Tlbilx { t, pid, ea } => self.invalidate_local(t, pid, ea),
            Step::Tlbivax(ea) => {
                let change = self.mmu.invalidate(ea);
                self.change(change);
            }
            Step::Flash(tlb0, tlb1) => {
                let change = self.mmu.flash(tlb0, tlb1);
                self.change(change);
            }
            Step::Pid(pid) => self.context(pid, self.state),
            Step::State(state) => self.context(self.pid, state),
            Step::Touch(ea, access) => {
                self.touch(ea, access);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]
    #[test]
    fn what_is_real_is_the_guests_and_only_once(program in prop::collection::vec(step(), 1..80)) {
        let mut world = World::new();
        for step in program {
            world.step(step);
            world.check();
        }
    }
}

/// A page of 4 KiB or more for everyone: everything permitted, coherent.
fn page(size: u32, tid: u32, ea: u32, frame: u64) -> Entry {
    Entry {
        mas1: mas::V | tid << 16 | size << 8,
        mas2: ea | mas::M,
        mas3: frame as u32 | mas::PERMISSIONS,
        mas7: (frame >> 32) as u32,
    }
}

const TLB1: u32 = 1 << 28;

#[test]
fn a_large_page_is_one_entry_as_far_as_the_memory_is_aligned() {
    let mut world = World::new();
    // 1 GiB, of which the true address is aligned to 256 MiB.
    world.write(TLB1, page(10, 0, 0xc000_0000, 0));
    for ea in [0xc000_0000, 0xcfff_ffff, 0xd000_0000, 0xffff_ffff] {
        assert!(world.touch(ea, Access::Read) && world.touch(ea, Access::Execute));
    }
    let sizes: Vec<u64> = world.tlb.valid().map(Entry::size).collect();
    assert_eq!(sizes, [256 << 20; 3]);
    // 16 MiB of which no two pages are aligned in the same way, and only the first half is there.
    world.write(TLB1 | 1 << 16, page(7, 0, 0, 0x8000_0000));
    assert!(world.touch(0x7f_ffff, Access::Write));
    assert!(!world.touch(0x80_0000, Access::Write));
    assert_eq!(world.tlb.lookup(true, 0x7f_ffff).unwrap().size(), 0x1000);
    // One of 4 GiB, for programs: never what the hypervisor has.
    let mut world = World::new();
    world.write(TLB1, page(11, 0, 0, 0));
    world.context(0, msr::PR);
    assert!(world.touch(0x2fff_ffff, Access::Read) && !world.touch(0x8000_1000 - 0x1000_0000, Access::Read));
    assert!(!world.touch(PROGRAMS_END, Access::Read));
    world.check();
}

#[test]
fn the_hypervisors_addresses_and_foreign_memory_are_refused_without_a_trace() {
    let mut world = World::new();
    world.context(5, msr::PR);
    let before = (world.shadow.clone(), world.tlb.writes);
    let mut install =
        |entry: &Entry, ea| world.shadow.install(&mut world.tlb, entry, ea, true, Access::Read, &world.map);
    assert_eq!(install(&page(1, 5, PROGRAMS_END, 0), PROGRAMS_END), Ok(()));
    assert_eq!(install(&page(1, 6, 0, 0), 0), Ok(()), "of another process");
    assert_eq!(install(&page(1, 5, 0, 0x4000_0000), 0x123), Err(NotMapped(GuestPhys(0x4000_0123))));
    assert_eq!((&world.shadow, world.tlb.writes), (&before.0, before.1));
}

#[test]
fn a_process_is_forgotten_at_the_price_of_a_pid() {
    let mut world = World::new();
    world.write(TLB1, page(9, 0, 0xc000_0000, 0));
    world.write(0, page(1, 7, 0x1000, 0x5000));
    world.context(7, msr::PR);
    assert!(world.touch(0x1000, Access::Read));
    world.context(7, 0);
    assert!(world.touch(0xc000_0000, Access::Execute) && world.touch(0x1000, Access::Read));
    let (searches, drops, pids) = (world.tlb.searches, world.tlb.drops, world.tlb.pids);
    world.invalidate_local(1, 7, 0);
    assert_eq!((world.tlb.searches, world.tlb.drops, world.tlb.pids), (searches, drops, pids + 1));
    assert!(!world.touch(0x1000, Access::Read));
    let writes = world.tlb.writes;
    assert!(world.touch(0xc000_0000, Access::Execute) && world.tlb.writes == writes, "the kernel's is still there");
}

#[test]
fn a_page_of_a_program_is_exchanged_at_the_price_of_one_search_for_each_user() {
    let mut world = World::new();
    world.context(7, msr::PR);
    world.write(0, page(1, 7, 0x1000, 0x5000));
    assert!(world.touch(0x1000, Access::Read));
    let (searches, drops) = (world.tlb.searches, world.tlb.drops);
    world.write(0, page(1, 7, 0x8_1000, 0x6000));
    assert_eq!((world.tlb.searches, world.tlb.drops), (searches + 1, drops), "the kernel has not used it");
    // What is not there costs nothing.
    world.invalidate_local(3, 7, 0x1000);
    assert_eq!((world.tlb.searches, world.tlb.drops), (searches + 1, drops));
    assert!(!world.touch(0x1000, Access::Read) && world.touch(0x8_1000, Access::Read));
}

#[test]
fn a_thousand_processes_share_255_real_pids() {
    let mut world = World::new();
    world.write(TLB1, page(9, 0, 0xc000_0000, 0));
    for round in 0..2 {
        for pid in 1..1000 {
            // Each has its own page at the same address.
            world.context(pid, 0);
            assert!(world.touch(0xc000_0000, Access::Write));
            assert_eq!(world.tlb.lookup(true, 0x1000).map(Entry::tid), None, "round {round}, process {pid}");
            world.write((pid % 4) << 16, page(1, pid, 0x1000, u64::from(pid) << 12));
            world.context(pid, msr::PR);
            assert!(world.touch(0x1000, Access::Read));
            assert_eq!(
                world.tlb.lookup(false, 0x1000).unwrap().physical(0),
                GuestPhys(0x1000_0000 + (u64::from(pid) << 12))
            );
        }
        world.check();
    }
}

#[test]
fn instructions_and_data_in_different_spaces_take_turns() {
    let mut world = World::new();
    let there = Entry { mas1: page(1, 0, 0, 0).mas1 | mas::TS, ..page(1, 0, 0x1000, 0x6000) };
    world.write(0, page(1, 0, 0x1000, 0x5000));
    world.write(1 << 16, there);
    world.context(0, msr::DS);
    for _ in 0..2 {
        assert!(world.touch(0x1000, Access::Execute));
        assert_eq!(world.tlb.lookup(true, 0x1000).unwrap().physical(0), GuestPhys(0x1000_5000));
        assert!(world.touch(0x1000, Access::Write));
        assert_eq!(world.tlb.lookup(true, 0x1000).unwrap().physical(0), GuestPhys(0x1000_6000));
        world.check();
    }
}

#[test]
fn an_instruction_and_what_it_loads_from_the_other_space_are_there_together() {
    let mut world = World::new();
    let there = page(7, 0, 0, 0x0100_0000);
    world.write(TLB1, page(7, 0, 0, 0));
    world.write(TLB1 | 1 << 16, Entry { mas1: there.mas1 | mas::TS, ..there });
    world.context(0, msr::DS);
    assert!(world.touch(0x1000, Access::Execute) && world.touch(0x2000, Access::Read));
    let executes = |entry: &Entry| entry.permits(true, Access::Execute);
    assert!(world.tlb.lookup(true, 0x1000).is_some_and(executes), "the load would drive out its instruction for ever");
    world.check();
}

#[test]
fn a_page_for_everyone_replaces_those_of_processes() {
    let mut world = World::new();
    world.write(0, page(1, 1, 0x1000, 0x5000));
    world.write(1 << 16, page(1, 0, 0x1000, 0x6000));
    world.context(1, 0);
    assert!(world.touch(0x1000, Access::Read));
    assert_ne!(world.tlb.lookup(true, 0x1000).unwrap().tid(), 0);
    // Under another PID the real page of process 1 is not found, but under its own there would be two.
    world.context(2, 0);
    assert!(world.touch(0x1000, Access::Read));
    assert_eq!(world.tlb.lookup(true, 0x1000).unwrap().tid(), 0);
    world.check();
}

#[test]
fn a_large_page_does_not_look_for_each_small_one() {
    let mut world = World::new();
    world.write(0, page(1, 0, 0x1000, 0x5000));
    assert!(world.touch(0x1000, Access::Read));
    world.write(TLB1, page(9, 0, 0, 0));
    let searches = world.tlb.searches;
    assert!(world.touch(0x2000, Access::Read));
    assert_eq!(world.tlb.lookup(true, 0x1000).unwrap().size(), 256 << 20);
    assert_eq!(world.tlb.searches, searches);
}

#[test]
fn large_pages_of_processes_go_when_their_pids_come_again() {
    let mut world = World::new();
    world.write(TLB1, page(5, 1, 0, 0x10_0000));
    world.context(1, msr::PR);
    assert!(world.touch(0, Access::Read));
    for pid in 2..600 {
        world.context(pid, msr::PR);
        assert_eq!(world.tlb.lookup(false, 0), None, "process {pid} finds what is another's");
    }
    world.context(1, msr::PR);
    assert!(world.touch(0, Access::Read));
    world.check();
}
