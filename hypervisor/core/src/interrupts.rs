//! Interrupts of the guest: which of those that wait is taken, and what taking one does to the virtual CPU
//! (Power ISA 2.06 III-E §7.6, §7.10; e500mc reference manual §4).

use crate::cpu::Cpu;
use crate::vcpu::{Pending, Registers, Vcpu, msr};

/// Bits of the exception syndrome register (Power ISA 2.06 III-E §7.2.13).
pub mod esr {
    /// Illegal instruction.
    pub const PIL: u32 = 1 << 27;
    /// Privileged instruction.
    pub const PPR: u32 = 1 << 26;
    /// Trap.
    pub const PTR: u32 = 1 << 25;
    /// Floating point.
    pub const FP: u32 = 1 << 24;
    /// Store.
    pub const ST: u32 = 1 << 23;
    /// Locking a line of the data cache.
    pub const DLK: u32 = 1 << 21;
    /// Locking a line of the instruction cache.
    pub const ILK: u32 = 1 << 20;
    /// Unimplemented operation.
    pub const PUO: u32 = 1 << 18;
    /// Byte order.
    pub const BO: u32 = 1 << 17;
}

/// Bits of the machine check syndrome register (e500mc reference manual §2.9.9).
pub mod mcsr {
    /// Somebody wants attention: not an error.
    pub const NMI: u32 = 1 << 20;
    /// MCAR holds an address.
    pub const MAV: u32 = 1 << 19;
    /// By an instruction fetch.
    pub const IF: u32 = 1 << 16;
    /// By a load.
    pub const LD: u32 = 1 << 15;
    /// By a store.
    pub const ST: u32 = 1 << 14;
}

/// Bits of the timer control register (Power ISA 2.06 III-E §9.7.1).
pub mod tcr {
    /// What the third expiry of the watchdog does.
    pub const WRC: u32 = 3 << 28;
    /// Watchdog interrupts.
    pub const WIE: u32 = 1 << 27;
    /// Decrementer interrupts.
    pub const DIE: u32 = 1 << 26;
    /// Fixed-interval timer interrupts.
    pub const FIE: u32 = 1 << 23;
}

/// Bits of the timer status register (Power ISA 2.06 III-E §9.7.2).
pub mod tsr {
    /// The next expiry of the watchdog sets WIS.
    pub const ENW: u32 = 1 << 31;
    /// The watchdog has expired twice.
    pub const WIS: u32 = 1 << 30;
    /// What the watchdog has done: TCR\[WRC\] of that time.
    pub const WRS: u32 = 3 << 28;
    /// The decrementer has passed zero.
    pub const DIS: u32 = 1 << 27;
    /// The fixed interval is over.
    pub const FIS: u32 = 1 << 26;
}

/// An interrupt as the guest takes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interrupt {
    /// Machine check.
    MachineCheck {
        /// Bits that are added to MCSR.
        mcsr: u32,
        /// The guest-physical address, when [`mcsr::MAV`] is set.
        mcar: u64,
    },
    /// Data storage.
    DataStorage {
        /// The address.
        dear: u32,
        /// The syndrome.
        esr: u32,
    },
    /// Instruction storage.
    InstructionStorage {
        /// The syndrome.
        esr: u32,
    },
    /// External input. Its vector is in EPR already.
    External,
    /// Alignment.
    Alignment {
        /// The address.
        dear: u32,
        /// The syndrome.
        esr: u32,
    },
    /// Program, with one of [`esr::PIL`], [`esr::PPR`], [`esr::PTR`], [`esr::FP`], [`esr::PUO`].
    Program {
        /// The syndrome.
        esr: u32,
    },
    /// Floating point unavailable.
    FpUnavailable,
    /// System call.
    SystemCall,
    /// Decrementer.
    Decrementer,
    /// Fixed-interval timer.
    Fit,
    /// Watchdog.
    Watchdog,
    /// Data TLB error. MAS registers are set already.
    DataTlb {
        /// The address.
        dear: u32,
        /// The syndrome.
        esr: u32,
    },
    /// Instruction TLB error. MAS registers are set already.
    InstructionTlb,
    /// Debug.
    Debug,
    /// Processor doorbell.
    Doorbell,
    /// Critical processor doorbell.
    CriticalDoorbell,
}

/// A machine check with MSR\[ME\] clear: the virtual CPU stops for good, as a real one does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Checkstop;

/// Where an interrupt saves what it interrupts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Class {
    Base,
    Critical,
    Debug,
    MachineCheck,
}

impl Class {
    /// Bits of the machine state that such an interrupt leaves as they are; it clears all others. Debug
    /// interrupts have registers of their own on an e500mc, so critical ones leave them enabled.
    const fn keeps(self) -> u32 {
        match self {
            Self::Base => msr::CE | msr::ME | msr::DE,
            Self::Critical => msr::ME | msr::DE,
            Self::Debug => msr::ME,
            Self::MachineCheck => 0,
        }
    }
}

impl Interrupt {
    /// The class, and the number of the vector offset register.
    const fn class(self) -> (Class, usize) {
        match self {
            Self::MachineCheck { .. } => (Class::MachineCheck, 1),
            Self::DataStorage { .. } => (Class::Base, 2),
            Self::InstructionStorage { .. } => (Class::Base, 3),
            Self::External => (Class::Base, 4),
            Self::Alignment { .. } => (Class::Base, 5),
            Self::Program { .. } => (Class::Base, 6),
            Self::FpUnavailable => (Class::Base, 7),
            Self::SystemCall => (Class::Base, 8),
            Self::Decrementer => (Class::Base, 10),
            Self::Fit => (Class::Base, 11),
            Self::Watchdog => (Class::Critical, 12),
            Self::DataTlb { .. } => (Class::Base, 13),
            Self::InstructionTlb => (Class::Base, 14),
            Self::Debug => (Class::Debug, 15),
            Self::Doorbell => (Class::Base, 36),
            Self::CriticalDoorbell => (Class::Critical, 37),
        }
    }
}

/// The guest takes an interrupt: it goes on at the vector, and finds where it was, and why, in its registers.
///
/// # Errors
/// A machine check that the guest has disabled; the virtual CPU must not run again.
pub fn deliver(vcpu: &mut Vcpu, cpu: &mut impl Cpu, interrupt: Interrupt) -> Result<(), Checkstop> {
    let (class, number) = interrupt.class();
    if class == Class::MachineCheck && vcpu.msr() & msr::ME == 0 {
        return Err(Checkstop);
    }
    let (pc, old) = (vcpu.frame.pc, vcpu.msr());
    match class {
        Class::Base => (vcpu.shared.srr0.low, vcpu.shared.srr1.low) = (pc, old),
        Class::Critical => vcpu.registers.csrr = [pc, old],
        Class::Debug => vcpu.registers.dsrr = [pc, old],
        Class::MachineCheck => vcpu.registers.mcsrr = [pc, old],
    }
    match interrupt {
        Interrupt::DataStorage { dear, esr }
        | Interrupt::Alignment { dear, esr }
        | Interrupt::DataTlb { dear, esr } => {
            vcpu.shared.dear.low = dear;
            vcpu.shared.esr = esr;
        }
        Interrupt::InstructionStorage { esr } | Interrupt::Program { esr } => vcpu.shared.esr = esr,
        Interrupt::InstructionTlb => vcpu.shared.esr = 0,
        Interrupt::MachineCheck { mcsr, mcar } => {
            vcpu.registers.mcsr |= mcsr;
            if mcsr & mcsr::MAV != 0 {
                (vcpu.registers.mcar, vcpu.registers.mcaru) = (mcar as u32, (mcar >> 32) as u32);
            }
        }
        // A doorbell is gone when it is taken; a timer's status stays until the guest clears it.
        Interrupt::Doorbell => vcpu.pending.doorbell = false,
        Interrupt::CriticalDoorbell => vcpu.pending.critical_doorbell = false,
        _ => {}
    }
    vcpu.frame.pc = vcpu.vector(number);
    set_msr(vcpu, cpu, old & class.keeps());
    Ok(())
}

/// Changes the guest's machine state, and tells the shadow translations when that is another context for them.
pub(crate) fn set_msr(vcpu: &mut Vcpu, cpu: &mut impl Cpu, value: u32) {
    const CONTEXT: u32 = msr::PR | msr::IS | msr::DS;
    let old = vcpu.msr();
    vcpu.set_msr(value);
    if (old ^ vcpu.msr()) & CONTEXT != 0 {
        cpu.context(vcpu.registers.pid, vcpu.msr());
    }
}

/// The interrupt that the guest takes before its next instruction, of those that wait and are enabled: the first
/// in the order of Power ISA 2.06 III-E §7.10.2.
pub fn next(vcpu: &Vcpu) -> Option<Interrupt> {
    let registers = &vcpu.registers;
    // So it is before nearly every entry.
    if vcpu.pending == Pending::default() && registers.tsr == 0 {
        return None;
    }
    let timer = |status: u32, enable: u32| registers.tsr & status != 0 && registers.tcr & enable != 0;
    let waiting = [
        (msr::CE, timer(tsr::WIS, tcr::WIE), Interrupt::Watchdog),
        (msr::CE, vcpu.pending.critical_doorbell, Interrupt::CriticalDoorbell),
        (msr::EE, vcpu.pending.external, Interrupt::External),
        (msr::EE, timer(tsr::FIS, tcr::FIE), Interrupt::Fit),
        (msr::EE, timer(tsr::DIS, tcr::DIE), Interrupt::Decrementer),
        (msr::EE, vcpu.pending.doorbell, Interrupt::Doorbell),
    ];
    waiting.into_iter().find(|(enable, waits, _)| *waits && vcpu.msr() & enable != 0).map(|(_, _, interrupt)| interrupt)
}

/// Whether an interrupt waits, be it for the guest to enable it.
pub fn waits(vcpu: &Vcpu) -> bool {
    let Registers { tcr, tsr, .. } = vcpu.registers;
    let timers = [(tsr::WIS, tcr::WIE), (tsr::FIS, tcr::FIE), (tsr::DIS, tcr::DIE)];
    vcpu.pending != Pending::default()
        || tsr != 0 && timers.iter().any(|(status, enable)| tsr & status != 0 && tcr & enable != 0)
}

/// Delivers what waits and is enabled; to be called before every entry of the guest. `acknowledge` asks the
/// virtual interrupt controller for the vector (EPR) of the external interrupt that is taken now; none when there
/// is none after all.
pub fn deliver_pending(vcpu: &mut Vcpu, cpu: &mut impl Cpu, mut acknowledge: impl FnMut() -> Option<u32>) {
    while let Some(interrupt) = next(vcpu) {
        if interrupt == Interrupt::External {
            match acknowledge() {
                Some(vector) => vcpu.registers.epr = vector,
                None => {
                    vcpu.pending.external = false;
                    continue;
                }
            }
        }
        // Each clears the bit that enables it, so this ends. None of them is a machine check.
        let Ok(()) = deliver(vcpu, cpu, interrupt) else { return };
    }
}

#[cfg(test)]
mod tests;
