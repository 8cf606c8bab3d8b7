//! The states in which virtual CPUs begin.
extern crate std;
use std::boxed::Box;

use citrine_formats::addr::GuestPhys;

use super::{start_primary, start_secondary};
use crate::cpu::fake::{Fake, Told};
use crate::mmu::{Access, Change, Entry};
use crate::vcpu::{Cache, Vcpu};

/// A virtual CPU that has been used.
fn used() -> Box<Vcpu> {
    let mut vcpu = Box::new(Vcpu::new(3));
    vcpu.frame.gpr = [0x55; 32];
    vcpu.set_msr(!0);
    vcpu.registers.pid = 7;
    vcpu.registers.tcr = !0;
    vcpu.registers.tsr = !0;
    vcpu.registers.dbcr = [1; 3];
    vcpu.shared.mas4 = 9;
    vcpu.pending.doorbell = true;
    vcpu.mmu.preset(9, Entry { mas1: 0xc000_0100, mas2: 0x7000_0000, mas3: 0x3f, mas7: 0 });
    vcpu
}

fn check_common(vcpu: &Vcpu, cpu: &Fake) {
    let fresh = Vcpu::new(3);
    let mut registers = fresh.registers;
    registers.cache = Cache { l1csr0: 0x1_0001, l1csr1: 0x1_0001, ..Cache::default() };
    assert_eq!((vcpu.shared, vcpu.registers, vcpu.pending), (fresh.shared, registers, fresh.pending));
    assert!(vcpu.mmu.lookup(false, 0, 0x7000_0000).is_none());
    for told in [
        Told::Tcr(0),
        Told::ClearTsr(0xfc00_0000),
        Told::Context(0, 0),
        Told::Sprg(3, 0),
        Told::Sprg(7, 0),
        Told::Shadow(Change::All),
    ] {
        assert!(cpu.told.contains(&told), "{told:?}");
    }
}

#[test]
fn the_first_enters_its_image_in_the_initial_mapped_area() {
    let (mut vcpu, mut cpu) = (used(), Fake::default());
    start_primary(&mut vcpu, &mut cpu, GuestPhys(0x40), GuestPhys(0x0100_0000), 0x2000_0000);
    check_common(&vcpu, &cpu);
    assert_eq!(vcpu.frame.pc, 0x40);
    let mut gpr = [0; 32];
    (gpr[1], gpr[3], gpr[6], gpr[7]) = (0xdead_beef, 0x0100_0000, 0x4550_4150, 0x2000_0000);
    assert_eq!(vcpu.frame.gpr, gpr);
}

#[test]
fn the_initial_mapped_area_is_covered_by_as_few_pages_as_there_are_sizes() {
    let cases: [(u64, &[u32]); 5] = [
        (1 << 30, &[10]),
        (512 << 20, &[9, 9]),
        (64 << 20, &[8]),
        (u64::MAX, &[11]),
        ((64 << 20) + (1 << 20) + 0x1fff, &[8, 5, 1]),
    ];
    for (ima, sizes) in cases {
        let (mut vcpu, mut cpu) = (used(), Fake::default());
        start_primary(&mut vcpu, &mut cpu, GuestPhys(0), GuestPhys(0), ima);
        let valid = vcpu.mmu.entries().filter(|entry| entry.is_valid());
        let seen: std::vec::Vec<u32> = valid.map(|entry| entry.mas1 >> 8 & 0xf).collect();
        assert_eq!(seen, sizes, "{ima:#x}");
        let end = sizes.iter().map(|size| 1_u64 << (10 + 2 * size)).sum::<u64>();
        for ea in [0, end / 2, end - 1].map(|ea| ea as u32) {
            let entry = vcpu.mmu.lookup(false, 0, ea).expect("it is mapped");
            assert_eq!(entry.physical(ea), GuestPhys(u64::from(ea)));
            for access in [Access::Read, Access::Write, Access::Execute] {
                assert!(entry.permits(false, access) && !entry.permits(true, access));
            }
        }
        assert!(end >= 1 << 32 || vcpu.mmu.lookup(false, 0, end as u32).is_none());
        assert!(vcpu.mmu.lookup(true, 0, 0).is_none());
    }
}

#[test]
fn the_others_begin_in_64_mebibytes_at_zero() {
    let (mut vcpu, mut cpu) = (used(), Fake::default());
    start_secondary(&mut vcpu, &mut cpu, GuestPhys(0x1_2345_6780), 0x99);
    check_common(&vcpu, &cpu);
    assert_eq!(vcpu.frame.pc, 0x345_6780);
    let mut gpr = [0; 32];
    (gpr[1], gpr[3], gpr[7]) = (0xdead_beef, 0x99, 0x400_0000);
    assert_eq!(vcpu.frame.gpr, gpr);
    let entry = vcpu.mmu.lookup(false, 0, 0x3ff_ffff).expect("it is mapped");
    assert_eq!(entry.physical(0x345_6780), GuestPhys(0x1_2345_6780));
    assert_eq!(*entry, Entry { mas1: 0xc000_0800, mas2: 4, mas3: 0x2000_0015, mas7: 1 });
    assert!(vcpu.mmu.lookup(false, 0, 0x400_0000).is_none());
}
