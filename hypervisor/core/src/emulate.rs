//! The instructions that a guest kernel may execute and its real CPU refuses, since the guest runs in problem
//! state: [`emulate`] does to the virtual CPU what they would have done (Power ISA 2.06 III-E; e500mc reference
//! manual §3).
//!
//! What is neither in [`INSTRUCTIONS`] nor among the registers of `spr` is illegal for the guest: external PID
//! loads and stores, `ehpriv`, `rfgi`, device control registers. `wait` and cache hints do not trap.

use crate::cpu::{Cpu, is_reachable};
use crate::interrupts::{Interrupt, esr, set_msr};
use crate::mmu::{self, Access, Change};
use crate::vcpu::{Vcpu, msr};

mod spr;
pub use spr::{Simple, simple};
#[cfg(test)]
mod tests;

/// An illegal instruction.
pub const ILLEGAL: Interrupt = Interrupt::Program { esr: esr::PIL };
/// An instruction that user programs may not execute.
pub const PRIVILEGED: Interrupt = Interrupt::Program { esr: esr::PPR };

/// One instruction of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Instruction {
    /// Primary and extended opcode, all ten bits of the latter.
    key: u32,
    operation: Operation,
}

/// What an instruction does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Operation {
    Mfmsr,
    Mtmsr,
    Wrtee,
    Wrteei,
    Rfi,
    Rfci,
    Rfdi,
    Rfmci,
    Mfspr,
    Mtspr,
    Mfpmr,
    Mtpmr,
    Tlbre,
    Tlbwe,
    Tlbsx,
    Tlbilx,
    Tlbivax,
    Msgsnd,
    Msgclr,
    /// `tlbsync`: tlbivax is done when it ends. `dcbi`: caches are coherent, so there is nothing to lose.
    Nothing,
    /// Locks or unlocks a cache line: no effect for the kernel; this syndrome for user programs, as MSR\[UCLE\]
    /// is never set.
    CacheLock(u32),
}

const fn row(primary: u32, extended: u32, operation: Operation) -> Instruction {
    Instruction { key: primary << 10 | extended, operation }
}

/// All of them, by opcode.
static INSTRUCTIONS: &[Instruction] = &[
    row(19, 38, Operation::Rfmci),
    row(19, 39, Operation::Rfdi),
    row(19, 50, Operation::Rfi),
    row(19, 51, Operation::Rfci),
    row(31, 18, Operation::Tlbilx),
    row(31, 83, Operation::Mfmsr),
    row(31, 131, Operation::Wrtee),
    row(31, 134, Operation::CacheLock(esr::DLK)), // dcbtstls
    row(31, 146, Operation::Mtmsr),
    row(31, 163, Operation::Wrteei),
    row(31, 166, Operation::CacheLock(esr::DLK)), // dcbtls
    row(31, 206, Operation::Msgsnd),
    row(31, 230, Operation::CacheLock(esr::ILK)), // icblc
    row(31, 238, Operation::Msgclr),
    row(31, 334, Operation::Mfpmr),
    row(31, 339, Operation::Mfspr),
    row(31, 390, Operation::CacheLock(esr::DLK)), // dcblc
    row(31, 462, Operation::Mtpmr),
    row(31, 467, Operation::Mtspr),
    row(31, 470, Operation::Nothing),             // dcbi
    row(31, 486, Operation::CacheLock(esr::ILK)), // icbtls
    row(31, 566, Operation::Nothing),             // tlbsync
    row(31, 786, Operation::Tlbivax),
    row(31, 914, Operation::Tlbsx),
    row(31, 946, Operation::Tlbre),
    row(31, 978, Operation::Tlbwe),
];

/// Where each opcode is in [`INSTRUCTIONS`], by extended opcode: an exit must not search.
static BRANCHES: [u8; 1024] = places(19);
/// The same for the other primary opcode.
static OTHERS: [u8; 1024] = places(31);
/// In no row.
const NOWHERE: u8 = u8::MAX;

const fn places(primary: u32) -> [u8; 1024] {
    let mut places = [NOWHERE; 1024];
    let mut row = 0;
    while row < INSTRUCTIONS.len() {
        let key = INSTRUCTIONS[row].key;
        if key >> 10 == primary {
            places[(key & 0x3ff) as usize] = row as u8;
        }
        row += 1;
    }
    places
}

/// The operation of an instruction.
fn operation(word: Word) -> Option<Operation> {
    let key = word.key();
    let places = match key >> 10 {
        31 => &OTHERS,
        19 => &BRANCHES,
        _ => return None,
    };
    let place = places.get((key & 0x3ff) as usize).copied().unwrap_or(NOWHERE);
    INSTRUCTIONS.get(usize::from(place)).map(|row| row.operation)
}

/// Bit of a register's number that makes it one of the kernel's (Power ISA 2.06 III-E §5.4.1).
const SUPERVISOR: u32 = 0x10;
/// Messages of `msgsnd` and `msgclr` (Power ISA 2.06 III-E §11.2): their type.
const MESSAGE_TYPE_SHIFT: u32 = 27;

/// The fields of an instruction; reserved bits are ignored.
#[derive(Clone, Copy)]
struct Word(u32);

impl Word {
    const fn key(self) -> u32 {
        (self.0 >> 26) << 10 | self.0 >> 1 & 0x3ff
    }

    /// RT, RS.
    const fn target(self) -> u32 {
        self.0 >> 21 & 0x1f
    }

    const fn ra(self) -> u32 {
        self.0 >> 16 & 0x1f
    }

    const fn rb(self) -> u32 {
        self.0 >> 11 & 0x1f
    }

    /// The number of a special purpose or performance monitor register: its halves are swapped.
    const fn register(self) -> u32 {
        self.0 >> 16 & 0x1f | self.0 >> 6 & 0x3e0
    }

    /// The effective address `(RA|0) + RB`.
    fn address(self, vcpu: &Vcpu) -> u32 {
        let base = if self.ra() == 0 { 0 } else { vcpu.gpr(self.ra()) };
        base.wrapping_add(vcpu.gpr(self.rb()))
    }
}

/// Executes `word`, the instruction at the virtual CPU's program counter, and goes on behind it.
///
/// # Errors
/// The interrupt that the instruction causes instead; nothing has been changed, and it is not delivered yet.
pub fn emulate(vcpu: &mut Vcpu, word: u32, cpu: &mut impl Cpu) -> Result<(), Interrupt> {
    let word = Word(word);
    let operation = operation(word).ok_or(ILLEGAL)?;
    if vcpu.is_user() {
        user(vcpu, word, operation)?;
    }
    match operation {
        Operation::Rfi | Operation::Rfci | Operation::Rfdi | Operation::Rfmci => {
            let [pc, state] = match operation {
                Operation::Rfi => [vcpu.shared.srr0.low, vcpu.shared.srr1.low],
                Operation::Rfci => vcpu.registers.csrr,
                Operation::Rfdi => vcpu.registers.dsrr,
                _ => vcpu.registers.mcsrr,
            };
            vcpu.frame.pc = pc & !3;
            vcpu.fast.learn(state);
            set_msr(vcpu, cpu, state);
            return Ok(());
        }
        Operation::Mfmsr => vcpu.set_gpr(word.target(), vcpu.msr()),
        Operation::Mtmsr => set_msr(vcpu, cpu, vcpu.gpr(word.target())),
        Operation::Wrtee => vcpu.set_msr(vcpu.msr() & !msr::EE | vcpu.gpr(word.target()) & msr::EE),
        // The instruction has its E where the machine state has EE.
        Operation::Wrteei => vcpu.set_msr(vcpu.msr() & !msr::EE | word.0 & msr::EE),
        Operation::Mfspr => {
            let value = spr::read(vcpu, cpu, word.register()).ok_or(ILLEGAL)?;
            vcpu.set_gpr(word.target(), value);
        }
        Operation::Mtspr => spr::write(vcpu, cpu, word.register(), vcpu.gpr(word.target())).ok_or(ILLEGAL)?,
        // No performance monitor: counters stand still.
        Operation::Mfpmr => vcpu.set_gpr(word.target(), 0),
        Operation::Mtpmr | Operation::Nothing | Operation::CacheLock(_) => {}
        Operation::Tlbre => vcpu.mmu.read(&mut vcpu.shared),
        Operation::Tlbwe => {
            let change = vcpu.mmu.write(&vcpu.shared);
            cpu.shadow(&change);
            install_early(vcpu, cpu, &change);
        }
        Operation::Tlbsx => {
            let address = word.address(vcpu);
            vcpu.mmu.search(&mut vcpu.shared, address);
        }
        Operation::Tlbilx => {
            let (kind, address) = (word.target() & 3, word.address(vcpu));
            let change = vcpu.mmu.invalidate_local(&vcpu.shared, kind, address).ok_or(ILLEGAL)?;
            cpu.shadow(&change);
        }
        Operation::Tlbivax => {
            let address = word.address(vcpu);
            let change = vcpu.mmu.invalidate(address);
            cpu.shadow(&change);
        }
        Operation::Msgsnd => cpu.doorbell(vcpu.gpr(word.rb())),
        Operation::Msgclr => match vcpu.gpr(word.rb()) >> MESSAGE_TYPE_SHIFT {
            0 => vcpu.pending.doorbell = false,
            1 => vcpu.pending.critical_doorbell = false,
            _ => {}
        },
    }
    vcpu.frame.pc = vcpu.frame.pc.wrapping_add(4);
    Ok(())
}

/// A guest writes a TLB0 entry because of a miss, and goes back to the program that missed: SRR1 says whether that
/// is the kernel. Making the entry real at once saves the second miss. It is only a guess; whether the memory is
/// the guest's matters when it is used.
fn install_early(vcpu: &Vcpu, cpu: &mut impl Cpu, change: &Change) {
    let Change::Written { new, .. } = change else { return };
    let (ea, user) = (new.base(), vcpu.shared.srr1.low & msr::PR != 0);
    let access = [Access::Read, Access::Execute].into_iter().find(|access| new.permits(user, *access));
    let is_page = vcpu.shared.mas0 & mmu::mas::TLBSEL == 0;
    if let (true, true, Some(access)) = (is_page && new.is_valid(), is_reachable(user, ea), access) {
        let _ = cpu.install(new, ea, user, access);
    }
}

/// Whether user programs may execute it at all.
fn user(vcpu: &Vcpu, word: Word, operation: Operation) -> Result<(), Interrupt> {
    let numbered = matches!(operation, Operation::Mfspr | Operation::Mtspr | Operation::Mfpmr | Operation::Mtpmr);
    match operation {
        Operation::CacheLock(esr) => Err(Interrupt::DataStorage { dear: word.address(vcpu), esr }),
        _ if !numbered || word.register() & SUPERVISOR != 0 => Err(PRIVILEGED),
        // User programs read the counters by these numbers, and never write them.
        Operation::Mtpmr => Err(ILLEGAL),
        _ => Ok(()),
    }
}
