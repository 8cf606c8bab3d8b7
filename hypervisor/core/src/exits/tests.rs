//! Every vector, case by case.
extern crate std;
use std::boxed::Box;
use std::vec::Vec;

use proptest::prelude::*;

use super::{Next, Reason, handle};
use crate::cpu::fake::{Fake, Told};
use crate::interrupts::{esr, mcsr, tcr, tsr};
use crate::mmu::{Access, Entry};
use crate::shadow::PROGRAMS_END;
use crate::vcpu::{Vcpu, msr};

const PC: u32 = 0x1000;
const VECTORS: u32 = 0x8000_0000;
const USER: u32 = msr::PR | msr::EE | msr::ME;
const KERNEL: u32 = msr::EE | msr::ME;

const UX: u32 = 0x20;
const SX: u32 = 0x10;
const UW: u32 = 0x8;
const SW: u32 = 0x4;
const UR: u32 = 0x2;
const SR: u32 = 0x1;
const ALL: u32 = 0x3f;

/// A page of 4 KiB for every PID.
const fn page(ea: u32, space: u32, at: u32, permissions: u32) -> Entry {
    Entry { mas1: 0x8000_0100 | space << 12, mas2: ea, mas3: at | permissions, mas7: 0 }
}

/// A guest at an instruction, both of whose address spaces have it in a page that everyone may use.
fn guest(state: u32, word: u32, vector: u32, syndrome: u32) -> (Box<Vcpu>, Fake) {
    let (mut vcpu, mut cpu) = (Box::new(Vcpu::new(0)), Fake { memory_end: 0x10_0000, ..Fake::default() });
    vcpu.registers.ivpr = VECTORS;
    for (number, offset) in vcpu.registers.ivor.iter_mut().enumerate() {
        *offset = (number as u32) << 4;
    }
    vcpu.mmu.preset(0, page(0x1000, 0, 0x5000, ALL));
    vcpu.mmu.preset(1, page(0x1000, 1, 0x6000, ALL));
    cpu.words.insert(0x5000, word);
    vcpu.set_msr(state);
    vcpu.frame.pc = PC;
    // Server-style junk, as QEMU leaves it.
    vcpu.frame.real_msr = 0x000e_d000;
    vcpu.frame.vector = vector;
    vcpu.frame.esr = syndrome;
    vcpu.frame.dear = 0x3456;
    (vcpu, cpu)
}

/// The number of the vector where the guest is now; none when it is not at one.
fn at_vector(vcpu: &Vcpu) -> Option<u32> {
    (vcpu.frame.pc & 0xffff_f000 == VECTORS).then_some(vcpu.frame.pc >> 4 & 0xff)
}

fn installs(cpu: &Fake) -> Vec<Told> {
    cpu.told.iter().copied().filter(|told| matches!(told, Told::Install { .. })).collect()
}

/// A guest's interrupt: vector, program counter, machine state, syndrome.
fn reflected(vcpu: &Vcpu) -> (Option<u32>, u32, u32, u32) {
    (at_vector(vcpu), vcpu.shared.srr0.low, vcpu.shared.srr1.low, vcpu.shared.esr)
}

#[test]
fn privileged_instructions_of_the_kernel_are_emulated() {
    for cause in [esr::PPR, esr::PIL] {
        let (mut vcpu, mut cpu) = guest(KERNEL, 0x7ca0_00a6, 6, cause); // mfmsr r5
        assert_eq!(handle(&mut vcpu, &mut cpu), Next::Resume);
        assert_eq!((vcpu.gpr(5), vcpu.frame.pc, vcpu.msr()), (KERNEL, PC + 4, KERNEL));
    }
    let (mut vcpu, mut cpu) = guest(KERNEL | msr::IS, 0, 6, esr::PPR);
    cpu.words.insert(0x6000, 0x7ca0_00a6);
    assert_eq!(handle(&mut vcpu, &mut cpu), Next::Resume);
    assert_eq!(vcpu.gpr(5), KERNEL | msr::IS, "the word of the other address space");
}

#[test]
fn what_is_not_emulated_is_the_guests_program_interrupt() {
    let cases = [
        (USER, 0x7ca0_00a6, esr::PPR, esr::PPR), // mfmsr
        (USER, 0x7c7f_42a6, esr::PPR, esr::PPR), // mfpvr: Linux emulates it
        (USER, 0x7ca0_00a6, esr::PIL, esr::PPR), // the guest's view counts
        (KERNEL, 0x0000_0000, esr::PIL, esr::PIL),
        (USER, 0x0000_0000, esr::PIL, esr::PIL),
        (KERNEL, 0x7c00_021c, esr::PIL, esr::PIL), // ehpriv
        (KERNEL, 0x7fe0_0008, esr::PTR | 0x2_0000, esr::PTR),
        (USER, 0x7fe0_0008, esr::PTR, esr::PTR),
        (USER, 0xfc00_0000, esr::FP | 1, esr::FP),
    ];
    for (state, word, cause, expected) in cases {
        let (mut vcpu, mut cpu) = guest(state, word, 6, cause);
        assert_eq!(handle(&mut vcpu, &mut cpu), Next::Resume);
        assert_eq!(reflected(&vcpu), (Some(6), PC, state, expected), "{word:#x}");
    }
}

#[test]
fn an_instruction_that_cannot_be_fetched_is_missed_by_the_guest() {
    let (mut vcpu, mut cpu) = guest(KERNEL, 0x7ca0_00a6, 6, esr::PPR);
    vcpu.mmu.preset(0, Entry::default());
    assert_eq!(handle(&mut vcpu, &mut cpu), Next::Resume);
    assert_eq!((at_vector(&vcpu), vcpu.shared.srr0.low), (Some(14), PC));
    assert_eq!(vcpu.shared.mas2.low & 0xffff_f000, PC & 0xffff_f000, "MAS registers are preset");

    let (mut vcpu, mut cpu) = guest(KERNEL, 0x7ca0_00a6, 6, esr::PPR);
    vcpu.mmu.preset(0, page(0x1000, 0, 0x20_0000, ALL));
    assert_eq!(handle(&mut vcpu, &mut cpu), Next::Resume);
    assert_eq!((at_vector(&vcpu), vcpu.registers.mcsrr), (Some(1), [PC, KERNEL]));
    assert_eq!((vcpu.registers.mcsr, vcpu.registers.mcar), (mcsr::IF | mcsr::MAV, 0x20_0000));
}

#[test]
fn cache_locks_of_the_kernel_do_nothing_and_of_user_programs_are_storage_interrupts() {
    // dcbtls 0, r4, r5: a real e500mc takes it for a user's.
    let (mut vcpu, mut cpu) = guest(KERNEL, 0x7c04_294c, 2, esr::DLK);
    assert_eq!(handle(&mut vcpu, &mut cpu), Next::Resume);
    assert_eq!(vcpu.frame.pc, PC + 4);
    let (mut vcpu, mut cpu) = guest(USER, 0x7c04_294c, 2, esr::DLK);
    vcpu.set_gpr(5, 0x77);
    assert_eq!(handle(&mut vcpu, &mut cpu), Next::Resume);
    assert_eq!((reflected(&vcpu), vcpu.shared.dear.low), ((Some(2), PC, USER, esr::DLK), 0x77));
}

#[test]
fn system_calls_by_level_and_privilege() {
    let system_call = |state, word| {
        let (mut vcpu, mut cpu) = guest(state, word, 8, 0);
        vcpu.frame.pc = PC + 4;
        vcpu.frame.gpr[11] = 0x1_0001;
        let next = handle(&mut vcpu, &mut cpu);
        (next, vcpu)
    };
    for state in [KERNEL, USER] {
        let (next, vcpu) = system_call(state, 0x4400_0002);
        assert_eq!((next, reflected(&vcpu)), (Next::Resume, (Some(8), PC + 4, state, 0)));
    }
    let (next, vcpu) = system_call(KERNEL, 0x4400_0022);
    assert_eq!((next, vcpu.frame.pc, vcpu.msr()), (Next::Hypercall, PC + 4, KERNEL));
    let (next, vcpu) = system_call(USER, 0x4400_0022);
    assert_eq!((next, reflected(&vcpu)), (Next::Resume, (Some(6), PC, USER, esr::PPR)));
    assert_eq!(vcpu.frame.gpr[11], 0x1_0001);
    // Only one bit of the level is not reserved.
    assert_eq!(system_call(KERNEL, 0x4400_0042).0, Next::Resume);
    assert_eq!(system_call(KERNEL, 0x4400_0fe2).0, Next::Hypercall);
}

#[test]
fn a_system_call_at_the_end_of_a_page_is_read_there() {
    let (mut vcpu, mut cpu) = guest(KERNEL, 0, 8, 0);
    vcpu.frame.pc = 0x2000;
    cpu.words.insert(0x5ffc, 0x4400_0022);
    assert_eq!(handle(&mut vcpu, &mut cpu), Next::Hypercall);
}

#[test]
fn accesses_that_the_guest_maps_become_real() {
    let cases = [
        (KERNEL, 13, 0, 0x3456, Access::Read, SR),
        (KERNEL, 13, esr::ST, 0x3456, Access::Write, SW),
        (KERNEL, 2, esr::ST, 0x3456, Access::Write, SW),
        (USER, 13, 0, 0x3456, Access::Read, UR),
        (USER, 2, esr::ST, 0x3456, Access::Write, UW),
        (KERNEL, 14, esr::ST, PC, Access::Execute, SX),
        (USER, 3, esr::ST, PC, Access::Execute, UX),
    ];
    for (state, vector, syndrome, ea, access, permission) in cases {
        let (mut vcpu, mut cpu) = guest(state, 0, vector, syndrome);
        vcpu.mmu.preset(0, page(0x1000, 0, 0x5000, permission));
        vcpu.mmu.preset(2, page(0x3000, 0, 0x7000, permission));
        assert_eq!(handle(&mut vcpu, &mut cpu), Next::Resume);
        let user = state & msr::PR != 0;
        assert_eq!(cpu.told, [Told::Install { ea, user, access }]);
        assert_eq!((vcpu.frame.pc, vcpu.msr()), (PC, state));
        // Any other permission is not enough.
        let (mut vcpu, mut cpu) = guest(state, 0, vector, syndrome);
        vcpu.mmu.preset(0, page(0x1000, 0, 0x5000, ALL & !permission));
        vcpu.mmu.preset(2, page(0x3000, 0, 0x7000, ALL & !permission));
        assert_eq!(handle(&mut vcpu, &mut cpu), Next::Resume);
        assert_eq!(installs(&cpu), []);
        let (number, told) = if access == Access::Execute { (3, 0) } else { (2, syndrome) };
        assert_eq!(reflected(&vcpu), (Some(number), PC, state, told));
        assert_eq!(vcpu.shared.dear.low, if number == 2 { ea } else { 0 });
    }
}

#[test]
fn accesses_that_the_guest_does_not_map_are_its_tlb_misses() {
    for (vector, syndrome, expected, told) in
        [(13, esr::ST | esr::PIL, 13, esr::ST), (2, 0, 13, 0), (14, esr::ST, 14, 0), (3, 0, 14, 0)]
    {
        for state in [KERNEL, USER] {
            let (mut vcpu, mut cpu) = guest(state, 0, vector, syndrome);
            vcpu.mmu.preset(0, Entry::default());
            let ea = if expected == 13 { 0x3456 } else { PC };
            assert_eq!(handle(&mut vcpu, &mut cpu), Next::Resume);
            assert_eq!(reflected(&vcpu), (Some(expected), PC, state, told));
            assert_eq!(vcpu.shared.mas2.low & 0xffff_f000, ea & 0xffff_f000);
            assert_eq!(vcpu.shared.dear.low, if expected == 13 { ea } else { 0 });
            assert_eq!(installs(&cpu), []);
        }
    }
}

#[test]
fn data_and_instructions_have_an_address_space_each() {
    let (mut vcpu, mut cpu) = guest(KERNEL | msr::DS, 0, 13, 0);
    vcpu.frame.dear = PC;
    vcpu.mmu.preset(0, Entry::default());
    assert_eq!(handle(&mut vcpu, &mut cpu), Next::Resume);
    assert_eq!(cpu.told, [Told::Install { ea: PC, user: false, access: Access::Read }]);
    let (mut vcpu, mut cpu) = guest(KERNEL | msr::DS, 0, 14, 0);
    vcpu.mmu.preset(0, Entry::default());
    assert_eq!(handle(&mut vcpu, &mut cpu), Next::Resume);
    assert_eq!(at_vector(&vcpu), Some(14));
}

/// A guest user program reads where the hypervisor itself lives, and where its kernel has an entry for every PID.
#[test]
fn user_programs_never_reach_the_hypervisors_addresses() {
    for ea in [PROGRAMS_END, 0xd000_0000, 0xf000_0123, 0xffff_fffc] {
        for (vector, syndrome) in [(13, 0), (13, esr::ST), (2, 0), (2, esr::ST), (14, 0), (3, 0)] {
            let data = matches!(vector, 2 | 13);
            let prepare = || {
                let (mut vcpu, cpu) = guest(USER, 0, vector, syndrome);
                if data {
                    vcpu.frame.dear = ea
                } else {
                    vcpu.frame.pc = ea & !3
                }
                (vcpu, cpu)
            };
            let (mut vcpu, mut cpu) = prepare();
            vcpu.mmu.preset(2, page(ea & 0xffff_f000, 0, 0x7000, ALL));
            assert_eq!(handle(&mut vcpu, &mut cpu), Next::Resume);
            assert_eq!((at_vector(&vcpu), installs(&cpu)), (Some(if data { 2 } else { 3 }), Vec::new()));
            let (mut vcpu, mut cpu) = prepare();
            assert_eq!(handle(&mut vcpu, &mut cpu), Next::Resume);
            assert_eq!((at_vector(&vcpu), installs(&cpu)), (Some(if data { 13 } else { 14 }), Vec::new()));
        }
    }
    // The kernel does, in its own address space; and the last address below is the user's.
    let (mut vcpu, mut cpu) = guest(KERNEL, 0, 13, 0);
    vcpu.frame.dear = 0xf000_0123;
    vcpu.mmu.preset(2, page(0xf000_0000, 0, 0x7000, SR));
    assert_eq!(handle(&mut vcpu, &mut cpu), Next::Resume);
    assert_eq!(installs(&cpu).len(), 1);
    let (mut vcpu, mut cpu) = guest(USER, 0, 13, 0);
    vcpu.frame.dear = PROGRAMS_END - 1;
    vcpu.mmu.preset(2, page(0xbfff_f000, 0, 0x7000, UR));
    assert_eq!(handle(&mut vcpu, &mut cpu), Next::Resume);
    assert_eq!(installs(&cpu).len(), 1);
}

#[test]
fn memory_that_is_not_the_guests_is_its_machine_check() {
    for (vector, syndrome, kind) in [(13, 0, mcsr::LD), (13, esr::ST, mcsr::ST), (14, 0, mcsr::IF)] {
        let outside = |state| {
            let (mut vcpu, mut cpu) = guest(state, 0, vector, syndrome);
            vcpu.frame.pc = 0x3454;
            vcpu.mmu.preset(2, Entry { mas7: 0xf, ..page(0x3000, 0, 0xe000_0000, ALL) });
            let next = handle(&mut vcpu, &mut cpu);
            (next, vcpu)
        };
        for state in [KERNEL, USER] {
            let (next, vcpu) = outside(state);
            let registers = &vcpu.registers;
            assert_eq!((next, at_vector(&vcpu), registers.mcsrr), (Next::Resume, Some(1), [0x3454, state]));
            let low = if kind == mcsr::IF { 0xe000_0454 } else { 0xe000_0456 };
            assert_eq!((registers.mcsr, registers.mcar, registers.mcaru), (kind | mcsr::MAV, low, 0xf));
            assert_eq!(outside(state & !msr::ME).0, Next::Stop(Reason::Checkstop));
        }
    }
}

#[test]
fn the_other_byte_order_is_a_storage_interrupt() {
    let (mut vcpu, mut cpu) = guest(KERNEL, 0, 2, esr::BO | esr::ST);
    vcpu.mmu.preset(2, page(0x3000, 0, 0x7000, ALL));
    assert_eq!(handle(&mut vcpu, &mut cpu), Next::Resume);
    assert_eq!(reflected(&vcpu), (Some(2), PC, KERNEL, esr::BO | esr::ST));
    let (mut vcpu, mut cpu) = guest(KERNEL, 0, 3, esr::BO);
    assert_eq!(handle(&mut vcpu, &mut cpu), Next::Resume);
    assert_eq!(reflected(&vcpu), (Some(3), PC, KERNEL, esr::BO));
}

#[test]
fn an_alignment_interrupt_says_whether_it_was_a_store() {
    let (load, store) = (0, esr::ST);
    let cases = [
        (0x7c60_2028, load),  // lwarx r3, 0, r4
        (0x7c60_212d, store), // stwcx. r3, 0, r4
        (0x7c00_27ec, store), // dcbz 0, r4
        (0x8064_0001, load),  // lwz r3, 1(r4)
        (0x9064_0001, store), // stw r3, 1(r4)
        (0x9464_0001, store), // stwu r3, 1(r4)
        (0x9c64_0001, store), // stbu r3, 1(r4)
        (0xb064_0001, store), // sth r3, 1(r4)
        (0xb464_0001, store), // sthu r3, 1(r4)
        (0xdc64_0001, store), // stfdu f3, 1(r4)
        (0xa064_0001, load),  // lhz r3, 1(r4)
        (0xbc64_0001, store), // stmw r3, 1(r4)
        (0xb864_0001, load),  // lmw r3, 1(r4)
        (0xd064_0001, store), // stfs f3, 1(r4)
        (0xc864_0001, load),  // lfd f3, 1(r4)
    ];
    for (word, expected) in cases {
        // The real syndrome is that of something before.
        let (mut vcpu, mut cpu) = guest(USER, word, 5, expected ^ esr::ST);
        assert_eq!(handle(&mut vcpu, &mut cpu), Next::Resume);
        assert_eq!((reflected(&vcpu), vcpu.shared.dear.low), ((Some(5), PC, USER, expected), 0x3456), "{word:#x}");
    }
}

#[test]
fn units_that_are_off_or_missing() {
    for (vector, expected, told) in
        [(7, 7, 0), (9, 6, esr::PIL), (32, 6, esr::PIL), (33, 6, esr::PIL), (34, 6, esr::PIL)]
    {
        let (mut vcpu, mut cpu) = guest(USER, 0, vector, 0);
        assert_eq!(handle(&mut vcpu, &mut cpu), Next::Resume);
        assert_eq!(reflected(&vcpu), (Some(expected), PC, USER, told));
    }
}

#[test]
fn timers_move_their_status_to_the_guest() {
    for (vector, status) in [(10, tsr::DIS), (11, tsr::FIS)] {
        let (mut vcpu, mut cpu) = guest(KERNEL, 0, vector, 0);
        cpu.tsr = tsr::DIS | tsr::FIS;
        assert_eq!(handle(&mut vcpu, &mut cpu), Next::Resume);
        // The decrementer is not written: had it been, before this, a tick could be lost.
        assert_eq!((vcpu.registers.tsr, &*cpu.told), (status, &[Told::ClearTsr(status)][..]));
        assert_eq!(vcpu.frame.pc, PC);
    }
}

#[test]
fn the_watchdog_has_its_effect_at_the_third_expiry() {
    let (mut vcpu, mut cpu) = guest(KERNEL, 0, 12, 0);
    vcpu.registers.tcr = 2 << 28 | tcr::WIE;
    cpu.tsr = tsr::ENW | tsr::WIS;
    assert_eq!(handle(&mut vcpu, &mut cpu), Next::Resume);
    assert_eq!((vcpu.registers.tsr, cpu.tsr), (tsr::ENW | tsr::WIS, tsr::ENW));
    assert_eq!(handle(&mut vcpu, &mut cpu), Next::Watchdog);
    assert_eq!(vcpu.registers.tsr, tsr::ENW | tsr::WIS | 2 << 28);
    // A guest that clears the status in time starts again.
    vcpu.registers.tsr = 0;
    assert_eq!(handle(&mut vcpu, &mut cpu), Next::Resume);
    // So does one that leaves ENW alone.
    vcpu.registers.tsr &= !tsr::WIS;
    assert_eq!(handle(&mut vcpu, &mut cpu), Next::Resume);
    // Without an effect, nothing ever happens.
    vcpu.registers.tcr = tcr::WIE;
    assert_eq!(handle(&mut vcpu, &mut cpu), Next::Resume);
}

#[test]
fn what_is_the_run_loops_stays_as_it_is() {
    let cases = [
        (4, Next::External),
        (36, Next::Doorbell),
        (37, Next::Doorbell),
        (1, Next::Stop(Reason::RealMachineCheck)),
        (0, Next::Stop(Reason::Unexpected { vector: 0 })),
        (15, Next::Stop(Reason::Unexpected { vector: 15 })),
        (35, Next::Stop(Reason::Unexpected { vector: 35 })),
        (40, Next::Stop(Reason::Unexpected { vector: 40 })),
        (u32::MAX, Next::Stop(Reason::Unexpected { vector: u32::MAX })),
    ];
    for (vector, expected) in cases {
        let (mut vcpu, mut cpu) = guest(USER, 0, vector, !0);
        let before = (vcpu.frame, vcpu.shared, vcpu.registers);
        assert_eq!(handle(&mut vcpu, &mut cpu), expected);
        assert_eq!((vcpu.frame, vcpu.shared, vcpu.registers), before);
        assert_eq!(cpu.told, []);
    }
}

proptest! {
    #[test]
    fn no_exit_makes_more_of_a_guest_than_it_may_be(
        vector in prop_oneof![4 => 0..43_u32, 1 => any::<u32>()],
        syndrome in any::<u32>(),
        state in any::<u32>(),
        word in any::<u32>(),
        dear in prop_oneof![any::<u32>(), 0x1000..0x2000_u32],
        entry in (any::<u32>(), any::<u32>(), any::<u32>()),
        pc in prop_oneof![2 => Just(PC), 1 => any::<u32>()],
    ) {
        let (mut vcpu, mut cpu) = guest(state, word, vector, syndrome);
        vcpu.frame.dear = dear;
        vcpu.frame.pc = pc & !3;
        vcpu.mmu.preset(2, Entry { mas1: entry.0, mas2: entry.1, mas3: entry.2, mas7: 0 });
        let user = vcpu.is_user();
        let next = handle(&mut vcpu, &mut cpu);
        prop_assert_eq!(vcpu.msr() & !msr::GUEST, 0);
        for told in cpu.told() {
            match told {
                Told::Install { ea, user: for_user, .. } => prop_assert!(for_user == user && (!user || ea < PROGRAMS_END)),
                Told::Tcr(value) => prop_assert_eq!(value & tcr::WRC, 0),
                Told::ClearTsr(bits) => prop_assert_eq!(bits & tsr::WRS, 0),
                _ => {}
            }
        }
        prop_assert!(!user || next != Next::Hypercall);
    }
}
