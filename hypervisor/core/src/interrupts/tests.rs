//! What each interrupt does, and in which order they are taken.
extern crate std;
use std::boxed::Box;
use std::vec::Vec;

use super::{Checkstop, Interrupt, deliver, deliver_pending, esr, mcsr, next, tcr, tsr};
use crate::cpu::fake::{Fake, Told};
use crate::vcpu::{Vcpu, msr};

const PC: u32 = 0x1004;

/// Everything enabled, in user mode; each vector is at 0xc0010000 plus 16 times its number.
fn running() -> Box<Vcpu> {
    let mut vcpu = Box::new(Vcpu::new(0));
    vcpu.registers.ivpr = 0xc001_0fff;
    for (number, offset) in vcpu.registers.ivor.iter_mut().enumerate() {
        *offset = 0xabc0_0000 | (number as u32) << 4 | 0xf;
    }
    vcpu.frame.pc = PC;
    vcpu.set_msr(msr::GUEST);
    (vcpu.shared.esr, vcpu.shared.dear.low, vcpu.registers.mcsr) = (0xe5, 0xdea, 1 << 31);
    vcpu
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Saved {
    Srr,
    Csrr,
    Dsrr,
    Mcsrr,
}

const BASE: u32 = msr::CE | msr::ME | msr::DE;

#[rustfmt::skip]
const CASES: &[(Interrupt, usize, Saved, u32)] = &[
    (Interrupt::MachineCheck { mcsr: mcsr::LD | mcsr::MAV, mcar: 0x1_2345_6789 }, 1, Saved::Mcsrr, 0),
    (Interrupt::DataStorage { dear: 0x77, esr: esr::ST }, 2, Saved::Srr, BASE),
    (Interrupt::InstructionStorage { esr: esr::BO }, 3, Saved::Srr, BASE),
    (Interrupt::External, 4, Saved::Srr, BASE),
    (Interrupt::Alignment { dear: 0x77, esr: esr::ST }, 5, Saved::Srr, BASE),
    (Interrupt::Program { esr: esr::PTR }, 6, Saved::Srr, BASE),
    (Interrupt::FpUnavailable, 7, Saved::Srr, BASE),
    (Interrupt::SystemCall, 8, Saved::Srr, BASE),
    (Interrupt::Decrementer, 10, Saved::Srr, BASE),
    (Interrupt::Fit, 11, Saved::Srr, BASE),
    (Interrupt::Watchdog, 12, Saved::Csrr, msr::ME | msr::DE),
    (Interrupt::DataTlb { dear: 0x77, esr: 0 }, 13, Saved::Srr, BASE),
    (Interrupt::InstructionTlb, 14, Saved::Srr, BASE),
    (Interrupt::Debug, 15, Saved::Dsrr, msr::ME),
    (Interrupt::Doorbell, 36, Saved::Srr, BASE),
    (Interrupt::CriticalDoorbell, 37, Saved::Csrr, msr::ME | msr::DE),
];

#[test]
fn each_saves_the_state_in_its_registers_and_goes_to_its_vector() {
    for (interrupt, number, saved, keeps) in CASES {
        let (mut vcpu, mut cpu) = (running(), Fake::default());
        assert_eq!(deliver(&mut vcpu, &mut cpu, *interrupt), Ok(()));
        let registers = &vcpu.registers;
        let srr = [vcpu.shared.srr0.low, vcpu.shared.srr1.low];
        let all = [
            (Saved::Srr, srr),
            (Saved::Csrr, registers.csrr),
            (Saved::Dsrr, registers.dsrr),
            (Saved::Mcsrr, registers.mcsrr),
        ];
        for (place, values) in all {
            let expected = if place == *saved { [PC, msr::GUEST] } else { [0, 0] };
            assert_eq!(values, expected, "{interrupt:?} {place:?}");
        }
        assert_eq!(vcpu.frame.pc, 0xc001_0000 + ((*number as u32) << 4), "{interrupt:?}");
        assert_eq!(vcpu.msr(), *keeps, "{interrupt:?}");
        assert_eq!(cpu.told, [Told::Context(0, *keeps)], "{interrupt:?}");
    }
}

#[test]
fn each_tells_what_it_has_to_tell_and_leaves_the_rest() {
    for (interrupt, ..) in CASES {
        let (mut vcpu, mut cpu) = (running(), Fake::default());
        assert_eq!(deliver(&mut vcpu, &mut cpu, *interrupt), Ok(()));
        let (dear, esr) = match interrupt {
            Interrupt::DataStorage { .. } | Interrupt::Alignment { .. } => (0x77, esr::ST),
            Interrupt::DataTlb { .. } => (0x77, 0),
            Interrupt::InstructionTlb => (0xdea, 0),
            Interrupt::InstructionStorage { .. } => (0xdea, esr::BO),
            Interrupt::Program { .. } => (0xdea, esr::PTR),
            _ => (0xdea, 0xe5),
        };
        assert_eq!((vcpu.shared.dear.low, vcpu.shared.esr), (dear, esr), "{interrupt:?}");
        let registers = &vcpu.registers;
        let checked = match interrupt {
            Interrupt::MachineCheck { .. } => (1 << 31 | mcsr::LD | mcsr::MAV, 0x2345_6789, 1),
            _ => (1 << 31, 0, 0),
        };
        assert_eq!((registers.mcsr, registers.mcar, registers.mcaru), checked, "{interrupt:?}");
    }
}

#[test]
fn a_machine_check_without_an_address_keeps_the_last_one() {
    let (mut vcpu, mut cpu) = (running(), Fake::default());
    vcpu.registers.mcar = 5;
    assert_eq!(deliver(&mut vcpu, &mut cpu, Interrupt::MachineCheck { mcsr: mcsr::NMI, mcar: 9 }), Ok(()));
    assert_eq!((vcpu.registers.mcar, vcpu.registers.mcsr), (5, 1 << 31 | mcsr::NMI));
}

#[test]
fn a_disabled_machine_check_stops_the_virtual_cpu_as_it_is() {
    let (mut vcpu, mut cpu) = (running(), Fake::default());
    vcpu.set_msr(msr::GUEST & !msr::ME);
    let before = (vcpu.frame, vcpu.shared, vcpu.registers);
    let check = Interrupt::MachineCheck { mcsr: mcsr::LD | mcsr::MAV, mcar: 9 };
    assert_eq!(deliver(&mut vcpu, &mut cpu, check), Err(Checkstop));
    assert_eq!((vcpu.frame, vcpu.shared, vcpu.registers), before);
}

#[test]
fn the_shadow_hears_only_of_another_context() {
    let (mut vcpu, mut cpu) = (running(), Fake::default());
    vcpu.set_msr(msr::EE | msr::ME | msr::FP);
    assert_eq!(deliver(&mut vcpu, &mut cpu, Interrupt::Decrementer), Ok(()));
    assert_eq!(cpu.told, []);
}

fn all_pending() -> Box<Vcpu> {
    let mut vcpu = running();
    vcpu.registers.tcr = tcr::WIE | tcr::DIE | tcr::FIE;
    vcpu.registers.tsr = tsr::ENW | tsr::WIS | tsr::DIS | tsr::FIS;
    vcpu.pending.external = true;
    vcpu.pending.doorbell = true;
    vcpu.pending.critical_doorbell = true;
    vcpu
}

#[test]
fn the_order_is_the_architectures() {
    let mut vcpu = all_pending();
    let mut taken = Vec::new();
    while let Some(interrupt) = next(&vcpu) {
        taken.push(interrupt);
        match interrupt {
            Interrupt::Watchdog => vcpu.registers.tsr &= !tsr::WIS,
            Interrupt::Fit => vcpu.registers.tsr &= !tsr::FIS,
            Interrupt::Decrementer => vcpu.registers.tsr &= !tsr::DIS,
            Interrupt::External => vcpu.pending.external = false,
            Interrupt::Doorbell => vcpu.pending.doorbell = false,
            Interrupt::CriticalDoorbell => vcpu.pending.critical_doorbell = false,
            other => panic!("{other:?}"),
        }
    }
    use Interrupt::{CriticalDoorbell, Decrementer, Doorbell, External, Fit, Watchdog};
    assert_eq!(taken, [Watchdog, CriticalDoorbell, External, Fit, Decrementer, Doorbell]);
}

#[test]
fn each_waits_for_its_own_enable_bits() {
    let mut vcpu = all_pending();
    vcpu.set_msr(!(msr::CE | msr::EE));
    assert_eq!(next(&vcpu), None);
    vcpu.set_msr(msr::EE);
    assert_eq!(next(&vcpu), Some(Interrupt::External));
    vcpu.set_msr(msr::CE);
    assert_eq!(next(&vcpu), Some(Interrupt::Watchdog));
    vcpu.registers.tcr = 0;
    assert_eq!(next(&vcpu), Some(Interrupt::CriticalDoorbell));
    vcpu.set_msr(msr::EE);
    vcpu.pending.external = false;
    assert_eq!(next(&vcpu), Some(Interrupt::Doorbell));
    vcpu.registers.tcr = tcr::DIE;
    assert_eq!(next(&vcpu), Some(Interrupt::Decrementer));
    vcpu.registers.tsr = tsr::FIS;
    assert_eq!(next(&vcpu), Some(Interrupt::Doorbell));
}

#[test]
fn one_of_each_class_is_delivered_at_most() {
    // A critical interrupt disables the others.
    let (mut vcpu, mut cpu) = (all_pending(), Fake::default());
    deliver_pending(&mut vcpu, &mut cpu, || panic!("external interrupts are disabled by then"));
    assert_eq!((vcpu.frame.pc, vcpu.registers.csrr), (0xc001_00c0, [PC, msr::GUEST]));
    assert!(vcpu.pending.external && vcpu.pending.critical_doorbell);

    // An external interrupt has its vector in EPR; the others wait.
    let mut vcpu = all_pending();
    vcpu.set_msr(msr::EE);
    deliver_pending(&mut vcpu, &mut cpu, || Some(66));
    assert_eq!((vcpu.frame.pc, vcpu.registers.epr, vcpu.msr()), (0xc001_0040, 66, 0));
    assert!(vcpu.pending.external && vcpu.pending.doorbell);

    // When the controller has nothing after all, the next one is taken.
    let mut vcpu = all_pending();
    vcpu.set_msr(msr::EE);
    vcpu.registers.tcr = 0;
    deliver_pending(&mut vcpu, &mut cpu, || None);
    assert_eq!((vcpu.frame.pc, vcpu.registers.epr), (0xc001_0240, 0));
    assert!(!vcpu.pending.external && !vcpu.pending.doorbell);
}
