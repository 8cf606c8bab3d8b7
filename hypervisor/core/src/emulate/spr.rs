//! Special purpose registers as a guest sees them (e500mc reference manual §2, table 2-2).

use crate::cpu::{Cpu, Identification};
use crate::interrupts::{tcr, tsr};
use crate::mmu;
use crate::vcpu::{Vcpu, spr};

/// Where a register's value is.
pub type Place = fn(&mut Vcpu) -> &mut u32;

/// One register, or several with the same behaviour and consecutive numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Register {
    pub(super) first: u32,
    pub(super) last: u32,
    pub(super) kind: Kind,
}

/// How a register behaves. What can only be read is illegal to write, and the other way round.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// These bits of what was written read back.
    Kept(Place, u32),
    /// Ones that are written clear bits.
    Status(Place),
    /// Is read only.
    ReadOnly(Place),
    /// Is read; writes have no effect.
    Fixed(Place),
    /// Reads as this; writes have no effect.
    Inert(u32),
    /// Reads as this, and is not written.
    Constant(u32),
    /// What the real CPU is; not written.
    Identified(fn(&Identification) -> u32),
    /// Writes have no effect, and it is not read.
    Sink,
    Ivpr,
    /// IVORs: the vector's number is the register's less this.
    Ivor(u32),
    /// SPRG0 to SPRG7: the index is the register's number less this.
    Sprg(u32),
    /// The same, as user programs may read them.
    SprgUser(u32),
    TimebaseLower,
    TimebaseUpper,
    Dec,
    Decar,
    Tcr,
    Tsr,
    Pid,
    Mmucsr0,
}

const fn one(number: u32, kind: Kind) -> Register {
    Register { first: number, last: number, kind }
}

const fn range(first: u32, last: u32, kind: Kind) -> Register {
    Register { first, last, kind }
}

const fn kept(number: u32, place: Place) -> Register {
    one(number, Kind::Kept(place, !0))
}

/// Bits of L1CSR0 and L1CSR1 that start something and read 0 when it is done: invalidate, clear locks.
const L1_ACTIONS: u32 = 0x102;
/// Such bits of L2CSR0: invalidate, flush, clear locks.
const L2_ACTIONS: u32 = 0x0020_0c00;
/// BUCSR\[BPEN\]: branches are predicted.
const BRANCH_PREDICTION: u32 = 1;
/// MMUCSR0: what of TLB1, and of TLB0, is not protected is invalidated.
const TLB1_FLASH: u32 = 2;
const TLB0_FLASH: u32 = 4;
/// Bits of TCR that exist.
const TCR: u32 = 0xffdf_e000;
/// PIDs have as many bits as TIDs.
const PID: u32 = 0x3fff;

/// All of them, by number. IVOR38 to IVOR41 belong to a category that the guest has not got, but are harmless.
pub(super) static REGISTERS: &[Register] = &[
    one(spr::DEC, Kind::Dec),
    kept(spr::SRR0, |v| &mut v.shared.srr0.low),
    kept(spr::SRR1, |v| &mut v.shared.srr1.low),
    one(spr::PID, Kind::Pid),
    one(spr::DECAR, Kind::Decar),
    kept(spr::CSRR0, |v| &mut v.registers.csrr[0]),
    kept(spr::CSRR1, |v| &mut v.registers.csrr[1]),
    kept(spr::DEAR, |v| &mut v.shared.dear.low),
    kept(spr::ESR, |v| &mut v.shared.esr),
    one(spr::IVPR, Kind::Ivpr),
    range(spr::SPRG3_USER, spr::SPRG7_USER, Kind::SprgUser(spr::SPRG3_USER - 3)),
    one(spr::TBL_USER, Kind::TimebaseLower),
    one(spr::TBU_USER, Kind::TimebaseUpper),
    range(spr::SPRG0, spr::SPRG7, Kind::Sprg(spr::SPRG0)),
    range(spr::TBL, spr::TBU, Kind::Sink),
    one(spr::PIR, Kind::Fixed(|v| &mut v.shared.pir)),
    one(spr::PVR, Kind::Identified(|cpu| cpu.pvr)),
    one(spr::DBSR, Kind::Status(|v| &mut v.registers.dbsr)),
    kept(spr::DBCR0, |v| &mut v.registers.dbcr[0]),
    kept(spr::DBCR1, |v| &mut v.registers.dbcr[1]),
    kept(spr::DBCR2, |v| &mut v.registers.dbcr[2]),
    kept(spr::IAC1, |v| &mut v.registers.compare[0]),
    kept(spr::IAC2, |v| &mut v.registers.compare[1]),
    kept(spr::DAC1, |v| &mut v.registers.compare[2]),
    kept(spr::DAC2, |v| &mut v.registers.compare[3]),
    one(spr::TSR, Kind::Tsr),
    one(spr::TCR, Kind::Tcr),
    range(spr::IVOR0, spr::IVOR15, Kind::Ivor(spr::IVOR0)),
    range(spr::IVOR38, spr::IVOR38 + 3, Kind::Ivor(spr::IVOR38 - 38)),
    one(spr::L1CFG0, Kind::Identified(|cpu| cpu.l1cfg0)),
    one(spr::L1CFG1, Kind::Identified(|cpu| cpu.l1cfg1)),
    one(spr::NPIDR, Kind::Inert(0)),
    one(spr::L2CFG0, Kind::Constant(0)),
    range(spr::IVOR35, spr::IVOR37, Kind::Ivor(spr::IVOR35 - 35)),
    one(spr::MCARU, Kind::ReadOnly(|v| &mut v.registers.mcaru)),
    kept(spr::MCSRR0, |v| &mut v.registers.mcsrr[0]),
    kept(spr::MCSRR1, |v| &mut v.registers.mcsrr[1]),
    one(spr::MCSR, Kind::Status(|v| &mut v.registers.mcsr)),
    one(spr::MCAR, Kind::ReadOnly(|v| &mut v.registers.mcar)),
    kept(spr::DSRR0, |v| &mut v.registers.dsrr[0]),
    kept(spr::DSRR1, |v| &mut v.registers.dsrr[1]),
    one(spr::DDAM, Kind::Sink),
    kept(spr::SPRG8, |v| &mut v.registers.sprg8[0]),
    kept(spr::SPRG9, |v| &mut v.registers.sprg8[1]),
    one(spr::L1CSR2, Kind::Inert(0)),
    kept(spr::MAS0, |v| &mut v.shared.mas0),
    kept(spr::MAS1, |v| &mut v.shared.mas1),
    kept(spr::MAS2, |v| &mut v.shared.mas2.low),
    kept(spr::MAS3, |v| &mut v.shared.mas7_mas3.low),
    kept(spr::MAS4, |v| &mut v.shared.mas4),
    kept(spr::MAS6, |v| &mut v.shared.mas6),
    range(spr::PID1, spr::PID2, Kind::Inert(0)),
    one(spr::TLB0CFG, Kind::Constant(mmu::TLB0CFG)),
    one(spr::TLB1CFG, Kind::Constant(mmu::TLB1CFG)),
    one(spr::CDCSR0, Kind::Inert(0)),
    one(spr::EPR, Kind::ReadOnly(|v| &mut v.registers.epr)),
    one(spr::L2ERRDIS, Kind::Inert(0)),
    kept(spr::MAS7, |v| &mut v.shared.mas7_mas3.high),
    kept(spr::HID0, |v| &mut v.registers.cache.hid0),
    one(spr::L1CSR0, Kind::Kept(|v| &mut v.registers.cache.l1csr0, !L1_ACTIONS)),
    one(spr::L1CSR1, Kind::Kept(|v| &mut v.registers.cache.l1csr1, !L1_ACTIONS)),
    one(spr::MMUCSR0, Kind::Mmucsr0),
    one(spr::BUCSR, Kind::Inert(BRANCH_PREDICTION)),
    one(spr::MMUCFG, Kind::Constant(mmu::MMUCFG)),
    one(spr::L2CSR0, Kind::Kept(|v| &mut v.registers.cache.l2csr0, !L2_ACTIONS)),
    one(spr::L2CSR1, Kind::Inert(0)),
    one(spr::SVR, Kind::Identified(|cpu| cpu.svr)),
];

/// Where each number is in [`REGISTERS`]: an exit must not search.
static ROWS: [u8; 1024] = rows();

const fn rows() -> [u8; 1024] {
    let mut rows = [u8::MAX; 1024];
    let mut row = 0;
    while row < REGISTERS.len() {
        let mut number = REGISTERS[row].first;
        while number <= REGISTERS[row].last {
            rows[number as usize] = row as u8;
            number += 1;
        }
        row += 1;
    }
    rows
}

fn find(number: u32) -> Option<&'static Register> {
    REGISTERS.get(usize::from(*ROWS.get(number as usize)?))
}

/// A register that reading and writing do nothing else to.
#[derive(Clone, Copy, Debug)]
pub enum Simple {
    /// What was written is read.
    Stored(Place),
    /// The same, and problem state reads it in the real register of this number.
    Copied(Place),
    /// Is read; writes have no effect.
    Fixed(Place),
    /// Reads as this; writes have no effect.
    Inert(u32),
}

/// How a register behaves that is one of these.
pub fn simple(number: u32) -> Option<Simple> {
    Some(match find(number)?.kind {
        Kind::Kept(place, u32::MAX) => Simple::Stored(place),
        Kind::Fixed(place) => Simple::Fixed(place),
        Kind::Inert(value) => Simple::Inert(value),
        Kind::Sprg(base) => match SPRG.get((number - base) as usize)? {
            place if number - base < FIRST_USER_SPRG => Simple::Stored(*place),
            place => Simple::Copied(*place),
        },
        _ => return None,
    })
}

/// Reads a register; none when there is no such register, or it is only written.
pub(super) fn read(vcpu: &mut Vcpu, cpu: &mut impl Cpu, number: u32) -> Option<u32> {
    Some(match find(number)?.kind {
        Kind::Kept(place, _) | Kind::Status(place) | Kind::ReadOnly(place) | Kind::Fixed(place) => *place(vcpu),
        Kind::Inert(value) | Kind::Constant(value) => value,
        Kind::Identified(which) => which(&cpu.identification()),
        Kind::Sink => return None,
        Kind::Ivpr => vcpu.registers.ivpr,
        Kind::Ivor(base) => *vcpu.registers.ivor.get((number - base) as usize)?,
        Kind::Sprg(base) | Kind::SprgUser(base) => *sprg(vcpu, number - base)?,
        Kind::TimebaseLower => cpu.timebase() as u32,
        Kind::TimebaseUpper => (cpu.timebase() >> 32) as u32,
        Kind::Dec => cpu.dec(),
        Kind::Decar => vcpu.registers.decar,
        Kind::Tcr => vcpu.registers.tcr,
        // An expiry that caused no exit yet, as its interrupt is disabled, is in the real register only.
        Kind::Tsr => vcpu.registers.tsr | cpu.tsr() & (tsr::ENW | tsr::WIS | tsr::DIS | tsr::FIS),
        Kind::Pid => vcpu.registers.pid,
        Kind::Mmucsr0 => 0,
    })
}

/// Writes a register; none when there is no such register, or it is only read. Nothing has happened then.
pub(super) fn write(vcpu: &mut Vcpu, cpu: &mut impl Cpu, number: u32, value: u32) -> Option<()> {
    match find(number)?.kind {
        Kind::Kept(place, mask) => *place(vcpu) = value & mask,
        Kind::Status(place) => *place(vcpu) &= !value,
        Kind::Fixed(_) | Kind::Inert(_) | Kind::Sink => {}
        Kind::ReadOnly(_) | Kind::Constant(_) | Kind::Identified(_) => return None,
        Kind::SprgUser(_) | Kind::TimebaseLower | Kind::TimebaseUpper => return None,
        Kind::Ivpr => {
            vcpu.registers.ivpr = value & 0xffff_0000;
            vcpu.vectors_changed();
        }
        Kind::Ivor(base) => {
            *vcpu.registers.ivor.get_mut((number - base) as usize)? = value & 0xfff0;
            vcpu.vectors_changed();
        }
        Kind::Sprg(base) => {
            *sprg(vcpu, number - base)? = value;
            if number - base >= FIRST_USER_SPRG {
                cpu.set_sprg(number - base, value);
            }
        }
        Kind::Dec => cpu.set_dec(value),
        Kind::Decar => {
            vcpu.registers.decar = value;
            cpu.set_decar(value);
        }
        Kind::Tcr => set_tcr(vcpu, cpu, value),
        Kind::Tsr => {
            vcpu.registers.tsr &= !value;
            cpu.clear_tsr(value & (tsr::ENW | tsr::WIS | tsr::DIS | tsr::FIS));
        }
        Kind::Pid => {
            let pid = value & PID;
            if pid != vcpu.registers.pid {
                vcpu.registers.pid = pid;
                cpu.context(pid, vcpu.msr());
            }
        }
        Kind::Mmucsr0 => {
            let change = vcpu.mmu.flash(value & TLB0_FLASH != 0, value & TLB1_FLASH != 0);
            cpu.shadow(&change);
        }
    }
    Some(())
}

/// The real watchdog must not reset the machine, so TCR\[WRC\] stays here; instead its interrupt counts expiries.
fn set_tcr(vcpu: &mut Vcpu, cpu: &mut impl Cpu, value: u32) {
    // WRC keeps its first value until the virtual CPU is reset.
    let old = vcpu.registers.tcr & tcr::WRC;
    let wrc = if old == 0 { value & tcr::WRC } else { old };
    let rest = value & TCR & !tcr::WRC;
    vcpu.registers.tcr = rest | wrc;
    cpu.set_tcr(if wrc == 0 { rest } else { rest | tcr::WIE });
}

/// SPRG0 to SPRG7.
static SPRG: [Place; 8] = [
    |v| &mut v.shared.sprg0[0].low,
    |v| &mut v.shared.sprg0[1].low,
    |v| &mut v.shared.sprg0[2].low,
    |v| &mut v.shared.sprg0[3].low,
    |v| &mut v.shared.sprg4[0].low,
    |v| &mut v.shared.sprg4[1].low,
    |v| &mut v.shared.sprg4[2].low,
    |v| &mut v.shared.sprg4[3].low,
];
/// From this one on, problem state may read them.
const FIRST_USER_SPRG: u32 = 3;

fn sprg(vcpu: &mut Vcpu, index: u32) -> Option<&mut u32> {
    Some(SPRG.get(index as usize)?(vcpu))
}
