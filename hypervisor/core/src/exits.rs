//! What happens when the guest stops: [`handle`] does everything that needs only this virtual CPU and its real
//! one, and says what is left to do.

use core::fmt;

use crate::cpu::{Cpu, is_reachable};
use crate::emulate::{self, emulate};
use crate::interrupts::{Checkstop, Interrupt, deliver, esr, mcsr, tcr, tsr};
use crate::report::vector_name;
use crate::shadow::Access;
use crate::vcpu::{AGAIN, PROGRAM_READ, Vcpu, msr};

#[cfg(test)]
mod tests;

/// What the run loop does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// Goes on with the guest.
    Resume,
    /// Does the hypercall in the guest's registers: token in r11, arguments and results from r3 on.
    Hypercall,
    /// Asks the real interrupt controller.
    External,
    /// Looks for mail: the real doorbell has rung.
    Doorbell,
    /// The guest's watchdog has expired for the third time, and is to have an effect (TCR\[WRC\]).
    Watchdog,
    /// Never runs this virtual CPU again until its partition starts anew.
    Stop(Reason),
}

/// Why a virtual CPU can't go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// A machine check of the real CPU: its syndrome is in the real MCSR.
    RealMachineCheck,
    /// A machine check of the guest while it had them disabled.
    Checkstop,
    /// An exit by a vector that no guest can cause.
    Unexpected {
        /// Its number.
        vector: u32,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RealMachineCheck => f.write_str("machine check of the CPU"),
            Self::Checkstop => f.write_str("machine check while MSR[ME] is 0"),
            Self::Unexpected { vector } => write!(f, "unexpected exit: {} (vector {vector})", vector_name(*vector)),
        }
    }
}

/// Handles the exit that is described in the virtual CPU's frame.
pub fn handle(vcpu: &mut Vcpu, cpu: &mut impl Cpu) -> Next {
    let frame = &vcpu.frame;
    let done = match frame.vector {
        1 => return Next::Stop(Reason::RealMachineCheck),
        4 => return Next::External,
        36 | 37 => return Next::Doorbell,
        10 => return timer(vcpu, cpu, tsr::DIS),
        11 => return timer(vcpu, cpu, tsr::FIS),
        12 => return watchdog(vcpu, cpu),
        // The real CPU took locking a cache line for a user's.
        2 if frame.esr & (esr::DLK | esr::ILK) != 0 => privileged(vcpu, cpu, None),
        2 | 13 => {
            let access = if frame.esr & esr::ST != 0 { Access::Write } else { Access::Read };
            storage(vcpu, cpu, frame.dear, access)
        }
        3 | 14 => storage(vcpu, cpu, frame.pc, Access::Execute),
        5 => alignment(vcpu, cpu),
        6 => program(vcpu, cpu, None),
        PROGRAM_READ => program(vcpu, cpu, Some(vcpu.fast.word)),
        AGAIN => {
            vcpu.fast.again = true;
            Ok(())
        }
        7 => deliver(vcpu, cpu, Interrupt::FpUnavailable),
        8 => return system_call(vcpu, cpu).unwrap_or(Next::Stop(Reason::Checkstop)),
        // Units that the virtual CPU has not got; any user program can try.
        9 | 32..=34 => deliver(vcpu, cpu, emulate::ILLEGAL),
        vector => return Next::Stop(Reason::Unexpected { vector }),
    };
    match done {
        Ok(()) => Next::Resume,
        Err(Checkstop) => Next::Stop(Reason::Checkstop),
    }
}

/// The status of a timer moves from the real register to the guest's, where it waits for being enabled.
fn timer(vcpu: &mut Vcpu, cpu: &mut impl Cpu, status: u32) -> Next {
    cpu.clear_tsr(status);
    vcpu.registers.tsr |= status;
    Next::Resume
}

/// The real TSR\[ENW\] stays set until the guest clears it, so that each expiry from the second on ends here.
fn watchdog(vcpu: &mut Vcpu, cpu: &mut impl Cpu) -> Next {
    cpu.clear_tsr(tsr::WIS);
    let registers = &mut vcpu.registers;
    let again = registers.tsr & tsr::WIS != 0;
    registers.tsr |= tsr::ENW | tsr::WIS;
    let effect = registers.tcr & tcr::WRC;
    if !again || effect == 0 {
        return Next::Resume;
    }
    // WRS has the place in TSR that WRC has in TCR.
    registers.tsr = registers.tsr & !tsr::WRS | effect;
    Next::Watchdog
}

/// An access that the real TLBs do not allow: perhaps the guest's do.
fn storage(vcpu: &mut Vcpu, cpu: &mut impl Cpu, ea: u32, access: Access) -> Result<(), Checkstop> {
    let user = vcpu.is_user();
    let space = space(vcpu, access);
    let Some(entry) = vcpu.mmu.lookup(space, vcpu.registers.pid, ea).copied() else {
        return miss(vcpu, cpu, ea, access);
    };
    let syndrome = syndrome(vcpu, access);
    // What cannot be made real is not permitted either: not even by a global entry of the guest's kernel.
    if !is_reachable(user, ea) || syndrome & esr::BO != 0 || !entry.permits(user, access) {
        return deliver(
            vcpu,
            cpu,
            match access {
                Access::Execute => Interrupt::InstructionStorage { esr: syndrome },
                _ => Interrupt::DataStorage { dear: ea, esr: syndrome },
            },
        );
    }
    if cpu.install(&entry, ea, user, access) {
        return Ok(());
    }
    deliver(vcpu, cpu, unmapped(entry.physical(ea).0, access))
}

/// The guest's TLBs have nothing there.
#[inline(never)]
fn miss(vcpu: &mut Vcpu, cpu: &mut impl Cpu, ea: u32, access: Access) -> Result<(), Checkstop> {
    let space = space(vcpu, access);
    vcpu.mmu.load_miss(&mut vcpu.shared, vcpu.registers.pid, ea, space);
    let esr = syndrome(vcpu, access);
    deliver(
        vcpu,
        cpu,
        match access {
            Access::Execute => Interrupt::InstructionTlb,
            _ => Interrupt::DataTlb { dear: ea, esr },
        },
    )
}

/// The address space of an access.
fn space(vcpu: &Vcpu, access: Access) -> bool {
    vcpu.msr() & if access == Access::Execute { msr::IS } else { msr::DS } != 0
}

/// What of the real syndrome the guest is told: real CPUs leave it as it was on instruction TLB misses.
fn syndrome(vcpu: &Vcpu, access: Access) -> u32 {
    match (access, vcpu.frame.vector) {
        (Access::Execute, 3) => vcpu.frame.esr & esr::BO,
        (Access::Execute, _) => 0,
        _ => vcpu.frame.esr & (esr::ST | esr::FP | esr::BO),
    }
}

/// What a real CPU reports of an access that no memory and no device answers.
fn unmapped(at: u64, access: Access) -> Interrupt {
    let kind = match access {
        Access::Execute => mcsr::IF,
        Access::Read => mcsr::LD,
        Access::Write => mcsr::ST,
    };
    Interrupt::MachineCheck { mcsr: kind | mcsr::MAV, mcar: at }
}

/// The instruction at `ea`, which the guest has just executed.
fn instruction(vcpu: &Vcpu, cpu: &mut impl Cpu, ea: u32) -> Result<u32, Interrupt> {
    let space = space(vcpu, Access::Execute);
    let entry = vcpu.mmu.lookup(space, vcpu.registers.pid, ea).ok_or(Interrupt::InstructionTlb)?;
    let at = entry.physical(ea);
    cpu.fetch(at).ok_or_else(|| unmapped(at.0, Access::Execute))
}

/// `word`: the instruction, if it has been read.
fn program(vcpu: &mut Vcpu, cpu: &mut impl Cpu, word: Option<u32>) -> Result<(), Checkstop> {
    let cause = vcpu.frame.esr & (esr::PIL | esr::PPR | esr::PTR | esr::FP | esr::PUO);
    if cause & (esr::PIL | esr::PPR) != 0 {
        privileged(vcpu, cpu, word)
    } else {
        deliver(vcpu, cpu, Interrupt::Program { esr: cause })
    }
}

/// An instruction that the real CPU refuses, in a guest that may or may not execute it.
fn privileged(vcpu: &mut Vcpu, cpu: &mut impl Cpu, word: Option<u32>) -> Result<(), Checkstop> {
    let pc = vcpu.frame.pc;
    let word = match word {
        Some(word) => Ok(word),
        None => instruction(vcpu, cpu, pc),
    };
    match word.and_then(|word| emulate(vcpu, word, cpu)) {
        Ok(()) => Ok(()),
        Err(Interrupt::InstructionTlb) => miss(vcpu, cpu, pc, Access::Execute),
        Err(interrupt) => deliver(vcpu, cpu, interrupt),
    }
}

/// QEMU leaves ESR\[ST\] as it was, so the instruction tells.
fn alignment(vcpu: &mut Vcpu, cpu: &mut impl Cpu) -> Result<(), Checkstop> {
    let stores = instruction(vcpu, cpu, vcpu.frame.pc).is_ok_and(is_store);
    deliver(vcpu, cpu, Interrupt::Alignment { dear: vcpu.frame.dear, esr: if stores { esr::ST } else { 0 } })
}

/// Whether a storage access instruction writes (Power ISA 2.06 I §3.3, §4.6, appendix G).
const fn is_store(word: u32) -> bool {
    match word >> 26 {
        31 => word >> 1 & 0x80 != 0,
        36..=39 | 44 | 45 | 47 | 52..=55 => true,
        _ => false,
    }
}

/// Real CPUs of this category take all levels to the same vector.
fn system_call(vcpu: &mut Vcpu, cpu: &mut impl Cpu) -> Result<Next, Checkstop> {
    /// The only bit of the level that is not reserved.
    const LEVEL: u32 = 1 << 5;
    let at = vcpu.frame.pc.wrapping_sub(4);
    let is_hypercall = instruction(vcpu, cpu, at).is_ok_and(|word| word & LEVEL != 0);
    if !is_hypercall {
        deliver(vcpu, cpu, Interrupt::SystemCall)?;
        return Ok(Next::Resume);
    }
    if !vcpu.is_user() {
        return Ok(Next::Hypercall);
    }
    vcpu.frame.pc = at;
    deliver(vcpu, cpu, emulate::PRIVILEGED)?;
    Ok(Next::Resume)
}
