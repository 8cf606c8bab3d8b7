//! The special purpose registers, by number and from outside: what is not in the list is illegal.
use super::{Box, Fake, PC, Told, Vcpu, kernel, spr, state, tcr, tsr, user, vec};
use crate::emulate::{ILLEGAL, PRIVILEGED, emulate, spr::REGISTERS};
use crate::interrupts::Interrupt;
use crate::mmu::{Change, Entry};
use crate::vcpu::msr;

/// The number in an instruction: its halves are swapped.
pub(super) const fn field(number: u32) -> u32 {
    (number & 0x1f) << 16 | (number >> 5) << 11
}

pub(super) fn read(vcpu: &mut Vcpu, cpu: &mut Fake, number: u32) -> Result<u32, Interrupt> {
    vcpu.set_gpr(3, 0x5a5a_5a5a);
    emulate(vcpu, 0x7c60_02a6 | field(number), cpu).map(|()| vcpu.gpr(3))
}

pub(super) fn write(vcpu: &mut Vcpu, cpu: &mut Fake, number: u32, value: u32) -> Result<(), Interrupt> {
    vcpu.set_gpr(4, value);
    emulate(vcpu, 0x7c80_03a6 | field(number), cpu)
}

/// What a kernel sees of a register after it has written all ones, and whether it may write and read at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Seen {
    /// These bits stay.
    Kept(u32),
    /// Reads so whatever is written.
    Inert(u32),
    /// Reads so, is not written.
    Only(u32),
    /// Is written without effect, not read.
    Sink,
    /// The ones clear bits.
    Status,
    /// The next tests look at it.
    Elsewhere,
}

/// From the e500mc reference manual's table of registers, and from what Linux uses.
#[rustfmt::skip]
fn seen(number: u32) -> Option<Seen> {
    Some(match number {
        26 | 27 | 58 | 59 | 61 | 62 => Seen::Kept(!0), // SRR0, SRR1, CSRR0, CSRR1, DEAR, ESR
        63 => Seen::Kept(0xffff_0000),                 // IVPR
        48 => Seen::Kept(0x3fff),                      // PID
        54 => Seen::Kept(!0),                          // DECAR
        22 | 268 | 269 | 336 | 340 => Seen::Elsewhere, // DEC, TBL, TBU, TSR, TCR
        259..=263 => Seen::Only(0),                    // SPRG3 to SPRG7 for user programs
        272..=279 | 604 | 605 => Seen::Kept(!0),       // SPRG0 to SPRG9
        284 | 285 => Seen::Sink,                       // TBL, TBU
        286 => Seen::Inert(5),                         // PIR
        287 => Seen::Only(0x8023_0020),                // PVR
        304 | 572 => Seen::Status,                     // DBSR, MCSR
        308..=310 | 312 | 313 | 316 | 317 => Seen::Kept(!0), // DBCR0-2, IAC1-2, DAC1-2
        400..=415 | 531..=533 | 432..=435 => Seen::Kept(0xfff0), // IVOR0-15, 35-37, 38-41
        515 => Seen::Only(0x10),                       // L1CFG0
        516 => Seen::Only(0x11),                       // L1CFG1
        517 => Seen::Inert(0),                         // NPIDR
        519 => Seen::Only(0),                          // L2CFG0
        569 | 573 | 702 => Seen::Only(0),              // MCARU, MCAR, EPR
        570 | 571 | 574 | 575 => Seen::Kept(!0),       // MCSRR0, MCSRR1, DSRR0, DSRR1
        576 => Seen::Sink,                             // DDAM
        606 | 633 | 634 | 696 | 725 | 1018 => Seen::Inert(0), // L1CSR2, PID1, PID2, CDCSR0, L2ERRDIS, L2CSR1
        624..=628 | 630 | 944 => Seen::Kept(!0),       // MAS0-4, 6, 7
        688 => Seen::Only(0x0411_0200),                // TLB0CFG
        689 => Seen::Only(0x401c_c040),                // TLB1CFG
        1008 => Seen::Kept(!0),                        // HID0
        1010 | 1011 => Seen::Kept(!0x102),             // L1CSR0, L1CSR1 without CFI, CLFC
        1012 => Seen::Inert(0),                        // MMUCSR0
        1013 => Seen::Inert(1),                        // BUCSR
        1015 => Seen::Only(0),                         // MMUCFG
        1017 => Seen::Kept(!0x0020_0c00),              // L2CSR0 without L2FI, L2FL, L2LFC
        1023 => Seen::Only(0x8208_0020),               // SVR
        _ => return None,
    })
}

#[test]
fn each_number_is_what_the_manual_says_or_illegal() {
    for number in 0..1024 {
        let (mut vcpu, mut cpu) = (kernel(), Fake::default());
        let (readable, writable) = match seen(number) {
            None => (false, false),
            Some(Seen::Elsewhere) => continue,
            Some(Seen::Only(_)) => (true, false),
            Some(Seen::Sink) => (false, true),
            Some(_) => (true, true),
        };
        let before = state(&vcpu);
        let wrote = write(&mut vcpu, &mut cpu, number, !0);
        assert_eq!(wrote, if writable { Ok(()) } else { Err(ILLEGAL) }, "write {number}");
        if !writable {
            vcpu.set_gpr(4, 0);
            assert_eq!((state(&vcpu), &*cpu.told), (before, &[][..]), "{number}");
        }
        let value = read(&mut vcpu, &mut cpu, number);
        let expected = match seen(number) {
            Some(Seen::Kept(value) | Seen::Inert(value) | Seen::Only(value)) => Ok(value),
            Some(Seen::Status) => Ok(0),
            _ => Err(ILLEGAL),
        };
        assert_eq!(value, expected, "read {number}");
        assert_eq!(value.is_ok(), readable);
        if let Some(Seen::Kept(_)) = seen(number) {
            assert_eq!(write(&mut vcpu, &mut cpu, number, 0), Ok(()));
            assert_eq!(read(&mut vcpu, &mut cpu, number), Ok(0), "{number}");
        }
    }
}

#[test]
fn the_table_is_in_order_and_no_two_registers_share_their_place() {
    assert!(REGISTERS.is_sorted_by(|one, next| one.first <= one.last && one.last < next.first));
    let (mut vcpu, mut cpu) = (kernel(), Fake::default());
    let kept = || {
        (0..1024).filter_map(|number| match seen(number)? {
            // IVORs, IVPR and PID have few bits: the number fits those of all of them.
            Seen::Kept(mask) => Some((number, (number << 20 | number << 4 | number) & mask)),
            _ => None,
        })
    };
    for (number, value) in kept() {
        assert_eq!(write(&mut vcpu, &mut cpu, number, value), Ok(()));
    }
    for (number, value) in kept() {
        assert_eq!(read(&mut vcpu, &mut cpu, number), Ok(value), "{number}");
    }
}

#[test]
fn user_programs_see_only_what_is_theirs() {
    for number in 0..1024 {
        let (mut vcpu, mut cpu) = (user(), Fake { timebase: 0x1_0000_0002, ..Fake::default() });
        vcpu.shared.sprg0[3].low = 33;
        vcpu.shared.sprg4[3].low = 77;
        let expected = match number {
            _ if number & 0x10 != 0 => Err(PRIVILEGED),
            259 => Ok(33),
            260..=262 | 517 | 519 => Ok(0),
            263 => Ok(77),
            268 => Ok(2),
            269 => Ok(1),
            515 => Ok(0x10),
            516 => Ok(0x11),
            _ => Err(ILLEGAL),
        };
        assert_eq!(read(&mut vcpu, &mut cpu, number), expected, "{number}");
        let expected = match number {
            _ if number & 0x10 != 0 => Err(PRIVILEGED),
            517 | 576 => Ok(()),
            _ => Err(ILLEGAL),
        };
        assert_eq!(write(&mut vcpu, &mut cpu, number, !0), expected, "{number}");
        assert_eq!(cpu.told, [], "{number}");
    }
}

#[test]
fn sprgs_that_user_programs_read_are_real_too() {
    for index in 0..8 {
        let (mut vcpu, mut cpu) = (kernel(), Fake::default());
        assert_eq!(write(&mut vcpu, &mut cpu, spr::SPRG0 + index, 7 + index), Ok(()));
        let mirror: &[Told] = if index < 3 { &[] } else { &[Told::Sprg(index, 7 + index)] };
        assert_eq!(cpu.told, mirror);
    }
}

#[test]
fn status_bits_clear_where_ones_are_written() {
    let (mut vcpu, mut cpu) = (kernel(), Fake::default());
    (vcpu.registers.dbsr, vcpu.registers.mcsr) = (0x8000_0101, 0x0008_8000);
    assert_eq!(write(&mut vcpu, &mut cpu, spr::DBSR, 0x101), Ok(()));
    assert_eq!(write(&mut vcpu, &mut cpu, spr::MCSR, 0x8000), Ok(()));
    assert_eq!((vcpu.registers.dbsr, vcpu.registers.mcsr), (0x8000_0000, 0x8_0000));
    vcpu.registers.mcar = 3;
    assert_eq!((read(&mut vcpu, &mut cpu, spr::MCAR), write(&mut vcpu, &mut cpu, spr::MCAR, 0)), (Ok(3), Err(ILLEGAL)));
}

#[test]
fn the_pid_is_a_context() {
    let (mut vcpu, mut cpu) = (kernel(), Fake::default());
    vcpu.set_msr(msr::ME);
    for (value, told) in [(0xc123, Some(0x123)), (0x123, None), (0, Some(0))] {
        assert_eq!(write(&mut vcpu, &mut cpu, spr::PID, value), Ok(()));
        assert_eq!(cpu.told().first().copied(), told.map(|pid| Told::Context(pid, msr::ME)));
    }
}

#[test]
fn the_guest_owns_the_timers() {
    let (mut vcpu, mut cpu) = (kernel(), Fake { timebase: 0x5_0000_0006, dec: 9, ..Fake::default() });
    assert_eq!(read(&mut vcpu, &mut cpu, spr::DEC), Ok(9));
    assert_eq!((read(&mut vcpu, &mut cpu, 268), read(&mut vcpu, &mut cpu, 269)), (Ok(6), Ok(5)));
    assert_eq!((write(&mut vcpu, &mut cpu, 268, 0), write(&mut vcpu, &mut cpu, 269, 0)), (Err(ILLEGAL), Err(ILLEGAL)));
    assert_eq!(cpu.told(), []);
    assert_eq!(write(&mut vcpu, &mut cpu, spr::DEC, 1000), Ok(()));
    assert_eq!(write(&mut vcpu, &mut cpu, spr::DECAR, 2000), Ok(()));
    assert_eq!(cpu.told(), [Told::Dec(1000), Told::Decar(2000)]);

    // A status bit counts whether it came by an exit or not, and goes in both places.
    vcpu.registers.tsr = tsr::DIS | 2 << 28;
    cpu.tsr = tsr::FIS | tsr::ENW | 1 << 28;
    assert_eq!(read(&mut vcpu, &mut cpu, spr::TSR), Ok(tsr::DIS | tsr::FIS | tsr::ENW | 2 << 28));
    assert_eq!(write(&mut vcpu, &mut cpu, spr::TSR, tsr::DIS | tsr::FIS), Ok(()));
    assert_eq!(cpu.told(), [Told::ClearTsr(tsr::DIS | tsr::FIS)]);
    assert_eq!((vcpu.registers.tsr, cpu.tsr), (2 << 28, tsr::ENW | 1 << 28));
}

#[test]
fn the_real_watchdog_never_resets_the_machine() {
    let (mut vcpu, mut cpu) = (kernel(), Fake::default());
    let rest = tcr::DIE | tcr::FIE | 0x0040_0000;
    assert_eq!(write(&mut vcpu, &mut cpu, spr::TCR, rest | 0x1fff), Ok(()));
    assert_eq!((read(&mut vcpu, &mut cpu, spr::TCR), cpu.told()), (Ok(rest), vec![Told::Tcr(rest)]));
    // With an effect, expiries are counted by the real interrupt, whether the guest wants that or not.
    assert_eq!(write(&mut vcpu, &mut cpu, spr::TCR, tcr::DIE | 2 << 28), Ok(()));
    assert_eq!(read(&mut vcpu, &mut cpu, spr::TCR), Ok(tcr::DIE | 2 << 28));
    assert_eq!(cpu.told(), [Told::Tcr(tcr::DIE | tcr::WIE)]);
    // The effect stays.
    assert_eq!(write(&mut vcpu, &mut cpu, spr::TCR, 1 << 28), Ok(()));
    assert_eq!((read(&mut vcpu, &mut cpu, spr::TCR), cpu.told()), (Ok(2 << 28), vec![Told::Tcr(tcr::WIE)]));
}

#[test]
fn mmucsr0_flushes_what_is_not_protected() {
    const OPEN: Entry = Entry { mas1: 0x8000_0100, mas2: 0x1000, mas3: 0x1015, mas7: 0 };
    let fresh = || -> (Box<Vcpu>, Fake) {
        let mut vcpu = kernel();
        vcpu.mmu.preset(0, OPEN);
        vcpu.mmu.preset(1, Entry { mas1: 0xc000_0100, mas2: 0x2000, ..OPEN });
        (vcpu, Fake::default())
    };
    let (mut vcpu, mut cpu) = fresh();
    assert_eq!(write(&mut vcpu, &mut cpu, spr::MMUCSR0, 2), Ok(()));
    assert!(matches!(cpu.told[..], [Told::Shadow(change)] if change != Change::None));
    assert_eq!((vcpu.mmu.lookup(false, 0, 0x1000), vcpu.mmu.lookup(false, 0, 0x2000).is_some()), (None, true));
    let (mut vcpu, mut cpu) = fresh();
    assert_eq!(write(&mut vcpu, &mut cpu, spr::MMUCSR0, 4), Ok(()));
    assert!(vcpu.mmu.lookup(false, 0, 0x1000).is_some());
    assert_eq!(vcpu.frame.pc, PC + 4);
}
