//! The TLBs against a list of entries that is searched from one end to the other, and against the manual's tables.

extern crate std;
use std::vec::Vec;

use citrine_formats::addr::GuestPhys;
use proptest::prelude::*;

use super::*;

/// One operation of a guest; numbers are as the registers have them.
#[derive(Clone, Copy, Debug)]
enum Operation {
    Tlbwe { mas0: u32, entry: Entry },
    Tlbre { mas0: u32, mas2: u32 },
    Tlbsx { ea: u32, mas6: u32 },
    Tlbilx { t: u32, ea: u32, mas6: u32 },
    Tlbivax { ea: u32 },
    Flash { tlb0: bool, tlb1: bool },
    Mas4(u32),
    Miss { pid: u32, ea: u32, space: bool },
}

/// Few pages, some of one set and some in each other's large pages, so that they meet.
fn address() -> impl Strategy<Value = u32> {
    let page =
        prop::sample::select(&[0u32, 0x1000, 0x8_0000, 0x8_1000, 0x10_0000, 0xc000_0000, 0xc008_0000, 0xffff_f000]);
    prop_oneof![9 => (page, 0u32..0x1000).prop_map(|(page, offset)| page | offset), 1 => any::<u32>()]
}

fn pid() -> impl Strategy<Value = u32> {
    prop::sample::select(&[0u32, 1, 2, 17, 0x3fff])
}

fn mas0() -> impl Strategy<Value = u32> {
    let esel = prop_oneof![3 => 0u32..4, 1 => 0u32..64, 1 => any::<u32>()];
    (0u32..4, esel, 0u32..4).prop_map(|(tlb, esel, nv)| tlb << 28 | (esel & 0xfff) << 16 | nv)
}

fn mas6() -> impl Strategy<Value = u32> {
    (pid(), any::<bool>()).prop_map(|(pid, space)| pid << 16 | u32::from(space))
}

fn entry() -> impl Strategy<Value = Entry> {
    let flags = (prop::bool::weighted(0.9), prop::bool::weighted(0.3), prop::bool::weighted(0.3));
    let size = prop_oneof![4 => Just(1u32), 3 => 2u32..10, 1 => 0u32..16];
    (flags, pid(), size, address(), any::<u32>(), 0u32..64).prop_map(
        |((valid, protected, space), tid, size, mas2, mas3, mas7)| Entry {
            mas1: u32::from(valid) << 31 | u32::from(protected) << 30 | tid << 16 | u32::from(space) << 12 | size << 8,
            mas2,
            mas3,
            mas7,
        },
    )
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        8 => (mas0(), entry()).prop_map(|(mas0, entry)| Operation::Tlbwe { mas0, entry }),
        2 => (mas0(), address()).prop_map(|(mas0, mas2)| Operation::Tlbre { mas0, mas2 }),
        4 => (address(), mas6()).prop_map(|(ea, mas6)| Operation::Tlbsx { ea, mas6 }),
        3 => (0u32..4, address(), mas6()).prop_map(|(t, ea, mas6)| Operation::Tlbilx { t, ea, mas6 }),
        2 => address().prop_map(|ea| Operation::Tlbivax { ea }),
        1 => any::<(bool, bool)>().prop_map(|(tlb0, tlb1)| Operation::Flash { tlb0, tlb1 }),
        1 => any::<u32>().prop_map(Operation::Mas4),
        2 => (pid(), address(), any::<bool>()).prop_map(|(pid, ea, space)| Operation::Miss { pid, ea, space }),
    ]
}

/// What an entry translates, from its bits anew.
#[derive(Clone, Copy)]
struct Meaning {
    tid: u32,
    space: u32,
    first: u64,
    size: u64,
    real: u64,
}

fn meaning(entry: &Entry) -> Option<Meaning> {
    let size = 1024 * 4u64.pow((entry.mas1 / 0x100 % 16).clamp(1, 11));
    (entry.mas1 >= 0x8000_0000).then_some(Meaning {
        tid: entry.mas1 / 0x1_0000 % 0x4000,
        space: entry.mas1 / 0x1000 % 2,
        first: u64::from(entry.mas2) / size * size,
        size,
        real: (u64::from(entry.mas7 % 16) * 0x1_0000_0000 + u64::from(entry.mas3)) / size * size,
    })
}

/// A place in a TLB: set and way, or 0 and number.
type At = (u32, u32, u32);

/// The naive TLBs.
struct Model {
    rows: Vec<(At, Entry)>,
    next: Vec<u32>,
}

impl Model {
    fn new() -> Self {
        let small = (0..128).flat_map(|set| (0..4).map(move |way| (0, set, way)));
        let rows = small.chain((0..64).map(|number| (1, 0, number))).map(|at| (at, Entry::NONE)).collect();
        Self { rows, next: std::vec![0; 128] }
    }

    fn place(mas0: u32, mas2: u32) -> At {
        let esel = mas0 / 0x1_0000 % 0x1000;
        if mas0 & 0x1000_0000 == 0 { (0, mas2 / 0x1000 % 128, esel % 4) } else { (1, 0, esel % 64) }
    }

    fn find(&self, space: u32, pid: u32, ea: u32) -> Option<(At, Entry)> {
        let hit = |entry: &Entry| {
            meaning(entry).is_some_and(|m| {
                m.space == space && (m.tid == 0 || m.tid == pid) && (m.first..m.first + m.size).contains(&u64::from(ea))
            })
        };
        self.rows.iter().find(|(_, entry)| hit(entry)).copied()
    }

    /// Invalidates what is not protected and for which `which` holds; what was.
    fn invalidate(&mut self, which: impl Fn(At, Meaning) -> bool) -> Vec<Entry> {
        let mut gone = Vec::new();
        for (at, entry) in &mut self.rows {
            if meaning(entry).is_some_and(|m| which(*at, m)) && entry.mas1 & 0x4000_0000 == 0 {
                gone.push(*entry);
                entry.mas1 -= 0x8000_0000;
            }
        }
        gone
    }
}

fn covers(m: Meaning, ea: u32) -> bool {
    (m.first..m.first + m.size).contains(&u64::from(ea))
}

/// The registers with what a guest has written to MAS0 to MAS3, MAS6 and MAS7.
fn registers(mas4: u32, mas0: u32, entry: Entry, mas6: u32) -> Shared {
    let mut mas = Shared::default();
    (mas.mas0, mas.mas1, mas.mas2.low, mas.mas4, mas.mas6) = (mas0, entry.mas1, entry.mas2, mas4, mas6);
    (mas.mas7_mas3.low, mas.mas7_mas3.high) = (entry.mas3, entry.mas7);
    mas
}

fn shown(mas: &Shared) -> (u32, Entry) {
    let entry = Entry { mas1: mas.mas1, mas2: mas.mas2.low, mas3: mas.mas7_mas3.low, mas7: mas.mas7_mas3.high };
    (mas.mas0, entry)
}

/// MAS0 for a place, with the next way of a set.
fn mas0_of(at: At, next: u32) -> u32 {
    at.0 << 28 | at.2 << 16 | next
}

fn check_removed(gone: &[Entry], change: Change, all: Option<Change>) {
    let expected = match (gone, all) {
        ([], _) => Change::None,
        (_, Some(all)) => all,
        ([old], None) => Change::Written { old: *old, new: Entry { mas1: old.mas1 - 0x8000_0000, ..*old } },
        (_, None) => Change::Unprotected,
    };
    assert_eq!(change, expected);
}

fn run(program: &[Operation]) {
    let (mut mmu, mut model, mut mas4) = (Mmu::new(), Model::new(), 0x100);
    for operation in program {
        match *operation {
            Operation::Mas4(value) => mas4 = value,
            Operation::Tlbwe { mas0, entry } => {
                let change = mmu.write(&registers(mas4, mas0, entry, 0));
                let at = Model::place(mas0, entry.mas2);
                let mut new = Entry { mas1: entry.mas1 & 0xffff_1f00, mas7: entry.mas7 % 16, ..entry };
                if at.0 == 0 {
                    new.mas1 = new.mas1 & 0xbfff_1000 | 0x100;
                    model.next[at.1 as usize] = mas0 % 4;
                }
                let size = 1024 * 4u64.pow((new.mas1 / 0x100 % 16).clamp(1, 11));
                new.mas2 = (u64::from(entry.mas2) / size * size) as u32 + entry.mas2 % 0x80;
                let row = model.rows.iter_mut().find(|(place, _)| *place == at).unwrap();
                let old = core::mem::replace(&mut row.1, new);
                let nothing = meaning(&old).is_none() && meaning(&new).is_none();
                assert_eq!(change, if nothing { Change::None } else { Change::Written { old, new } });
            }
            Operation::Tlbre { mas0, mas2 } => {
                let mut mas = registers(mas4, mas0, Entry { mas2, ..Entry::NONE }, 0);
                mmu.read(&mut mas);
                let at = Model::place(mas0, mas2);
                let (_, entry) = model.rows.iter().find(|(place, _)| *place == at).unwrap();
                assert_eq!(shown(&mas), (mas0_of(at, model.next[(mas2 / 0x1000 % 128) as usize]), *entry));
            }
            Operation::Tlbsx { ea, mas6 } => {
                let mut mas = registers(mas4, !0, Entry { mas1: !0, mas2: !0, mas3: !0, mas7: !0 }, mas6);
                mmu.search(&mut mas, ea);
                let (next, pid) = (model.next[(ea / 0x1000 % 128) as usize], mas6 >> 16);
                let expected = match model.find(mas6 % 2, pid, ea) {
                    Some((at, entry)) => (mas0_of(at, next), entry),
                    None => (
                        mas0_of((mas4 >> 28 & 1, 0, next), (next + 1) % 4),
                        Entry {
                            mas1: pid << 16 | (mas6 % 2) << 12 | mas4 & 0xf00,
                            mas2: mas4 & 0x7f,
                            mas3: 0,
                            mas7: 0,
                        },
                    ),
                };
                assert_eq!(shown(&mas), expected);
            }
            Operation::Tlbilx { t, ea, mas6 } => {
                let pid = mas6 >> 16;
                let change = mmu.invalidate_local(&registers(mas4, 0, Entry::NONE, mas6), t, ea);
                let gone = match t {
                    0 => model.invalidate(|_, _| true),
                    1 => model.invalidate(|_, m| m.tid == pid),
                    3 => model.invalidate(|_, m| (m.tid == 0 || m.tid == pid) && covers(m, ea)),
                    _ => {
                        assert_eq!(change, None);
                        continue;
                    }
                };
                let all = [Some(Change::Unprotected), Some(Change::Pid(pid)), None, None][t as usize];
                check_removed(&gone, change.unwrap(), all);
            }
            Operation::Tlbivax { ea } => {
                let (tlb, all) = (ea / 8 % 2, ea / 4 % 2 == 1);
                let change = mmu.invalidate(ea);
                let gone = model.invalidate(|at, m| at.0 == tlb && (all || covers(m, ea)));
                check_removed(&gone, change, all.then_some(Change::Unprotected));
            }
            Operation::Flash { tlb0, tlb1 } => {
                let change = mmu.flash(tlb0, tlb1);
                let gone = model.invalidate(|at, _| if at.0 == 0 { tlb0 } else { tlb1 });
                check_removed(&gone, change, Some(Change::Unprotected));
            }
            Operation::Miss { pid, ea, space } => {
                let mut mas = registers(mas4, !0, Entry { mas1: !0, mas2: !0, mas3: !0, mas7: !0 }, !0);
                mmu.load_miss(&mut mas, pid, ea, space);
                let next = model.next[(ea / 0x1000 % 128) as usize];
                let mas1 = 0x8000_0000 | pid << 16 | u32::from(space) << 12 | mas4 & 0xf00;
                let mas2 = ea & 0xffff_f000 | mas4 & 0x7f;
                let mas0 = mas0_of((mas4 >> 28 & 1, 0, next), (next + 1) % 4);
                assert_eq!(shown(&mas), (mas0, Entry { mas1, mas2, mas3: 0, mas7: 0 }));
                assert_eq!((mas.mas6, mas.mas4), (pid << 16 | u32::from(space), mas4));
                // And the lookup, which is what a miss comes from.
                let found = mmu.lookup(space, pid, ea).map(|entry| (*entry, entry.physical(ea)));
                let expected = model.find(u32::from(space), pid, ea).map(|(_, entry)| {
                    let m = meaning(&entry).unwrap();
                    (entry, GuestPhys(m.real + u64::from(ea) - m.first))
                });
                assert_eq!(found, expected);
            }
        }
        assert!(mmu.entries().eq(model.rows.iter().map(|(_, entry)| entry)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5000))]
    #[test]
    fn programs_of_tlb_operations_do_as_the_naive_tlbs(program in prop::collection::vec(operation(), 1..60)) {
        run(&program);
    }

    #[test]
    fn permissions_are_as_the_manual_names_them(mas3: u32) {
        let entry = Entry { mas3, ..Entry::NONE };
        let bits = [(true, Access::Execute, 0x20), (false, Access::Execute, 0x10), (true, Access::Write, 0x8),
            (false, Access::Write, 0x4), (true, Access::Read, 0x2), (false, Access::Read, 0x1)];
        for (user, access, bit) in bits {
            prop_assert_eq!(entry.permits(user, access), mas3 & bit != 0);
        }
    }
}

#[test]
fn a_miss_is_finished_by_mas3_and_tlbwe() {
    let mut mmu = Mmu::new();
    let mut mas = registers(0x104, 0, Entry::NONE, 0);
    for round in 0..6u32 {
        // Four ways of one set, and round again.
        let ea = 0x1234_5000 + round * 0x8_0000;
        mmu.load_miss(&mut mas, 7, ea, false);
        assert_eq!(mas.mas0 >> 16, round % 4);
        mas.mas7_mas3.low = 0x0432_1000 | 0x3f;
        assert!(matches!(mmu.write(&mas), Change::Written { old, .. } if old.is_valid() == (round >= 4)));
        let entry = mmu.lookup(false, 7, ea | 0xabc).copied().unwrap();
        assert_eq!((entry.physical(ea | 0xabc), entry.attributes()), (GuestPhys(0x0432_1abc), 0x4));
    }
    assert_eq!(mmu.lookup(false, 7, 0x1234_5000), None, "replaced in round 4");
}

#[test]
fn linux_maps_itself_with_bits_below_the_size() {
    let mut mmu = Mmu::new();
    // 64 MiB at 0xc000_0000 in TLB1, its real page number with bits below the size.
    let entry = Entry { mas1: 0xc000_0800, mas2: 0xc000_0004, mas3: 0x5015, mas7: 0 };
    assert!(matches!(mmu.write(&registers(0, 0x1000_0000, entry, 0)), Change::Written { .. }));
    let found = mmu.lookup(false, 0x55, 0xc3ff_ffff).unwrap();
    assert_eq!(
        (found.physical(0xc3ff_ffff), found.base(), found.size()),
        (GuestPhys(0x3ff_ffff), 0xc000_0000, 64 << 20)
    );
    // A protected entry outlives what Linux does first.
    assert_eq!((mmu.invalidate(0x4), mmu.invalidate(0xc)), (Change::None, Change::None));
    assert!(mmu.lookup(false, 0, 0xc000_0000).is_some());
    assert!(mmu.lookup(true, 0, 0xc000_0000).is_none());
    let mut mas = registers(0, 0, Entry::NONE, 0);
    mmu.search(&mut mas, 0xc012_3456);
    assert_eq!(shown(&mas).1, Entry { mas2: 0xc000_0004, ..entry });
}

#[test]
fn the_largest_page_is_the_whole_space() {
    let mut mmu = Mmu::new();
    mmu.preset(63, Entry { mas1: 0x8000_0b00, mas2: 0xffff_f000, mas3: 0xffff_f03f, mas7: 0xff });
    for ea in [0, 0x8000_0000, 0xffff_ffff] {
        assert_eq!(mmu.lookup(false, 1, ea).unwrap().physical(ea), GuestPhys(0xf_0000_0000 | u64::from(ea)));
    }
}
