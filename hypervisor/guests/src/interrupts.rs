//! What an interrupt finds, and may change before it returns.

use core::fmt;

/// Numbers of the interrupts (their IVOR; EREF §4.9).
pub mod vector {
    /// Machine check.
    pub const MACHINE_CHECK: u32 = 1;
    /// Data storage: no permission.
    pub const DATA_STORAGE: u32 = 2;
    /// Instruction storage: no permission.
    pub const INSTRUCTION_STORAGE: u32 = 3;
    /// External, through the interrupt controller.
    pub const EXTERNAL: u32 = 4;
    /// Program: illegal, privileged, trap.
    pub const PROGRAM: u32 = 6;
    /// System call.
    pub const SYSTEM_CALL: u32 = 8;
    /// Decrementer.
    pub const DECREMENTER: u32 = 10;
    /// Fixed-interval timer.
    pub const FIXED_INTERVAL: u32 = 11;
    /// No translation of a data access.
    pub const DATA_TLB: u32 = 13;
    /// No translation of an instruction.
    pub const INSTRUCTION_TLB: u32 = 14;
    /// Doorbell.
    pub const DOORBELL: u32 = 36;
    /// Critical doorbell.
    pub const CRITICAL_DOORBELL: u32 = 37;
}

/// The interrupted state; `entry.s` saves and loads it by offset.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// General purpose registers.
    pub gpr: [u32; 32],
    /// Condition register.
    pub cr: u32,
    /// Link register.
    pub lr: u32,
    /// Count register.
    pub ctr: u32,
    /// Fixed-point exception register.
    pub xer: u32,
    /// Where it was interrupted, and goes on.
    pub pc: u32,
    /// The machine state in which it was.
    pub msr: u32,
    /// ESR: why.
    pub esr: u32,
    /// DEAR: which address.
    pub dear: u32,
    /// Which interrupt: see [`vector`].
    pub vector: u32,
    /// MCSR: why, for a machine check.
    pub mcsr: u32,
}

const _: () = assert!(core::mem::offset_of!(Frame, pc) == 144 && core::mem::offset_of!(Frame, mcsr) == 164);

/// The name of an interrupt.
pub fn name(vector: u32) -> &'static str {
    const NAMES: [&str; 16] = [
        "critical",
        "machine check",
        "data storage",
        "instruction storage",
        "external",
        "alignment",
        "program",
        "floating-point unavailable",
        "system call",
        "auxiliary unavailable",
        "decrementer",
        "fixed interval",
        "watchdog",
        "data TLB miss",
        "instruction TLB miss",
        "debug",
    ];
    match vector {
        35 => "performance monitor",
        36 => "doorbell",
        37 => "critical doorbell",
        _ => NAMES.get(vector as usize).copied().unwrap_or("unknown"),
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = name(self.vector);
        write!(f, "{name} interrupt at {:#010x}, MSR {:#x}, ", self.pc, self.msr)?;
        write!(f, "ESR {:#x}, DEAR {:#x}, MCSR {:#x}", self.esr, self.dear, self.mcsr)
    }
}
