//! The CPU's own registers and instructions: every instruction that Rust has no word for is here.
//!
//! On another architecture the functions do nothing and read zero, so that everything above them compiles
//! and is tested on the host.

#[cfg(target_arch = "powerpc")]
use core::arch::{asm, global_asm};

use crate::tlb::Mas;

#[cfg(target_arch = "powerpc")]
global_asm!(include_str!("entry.s"));
#[cfg(target_arch = "powerpc")]
global_asm!(include_str!("mem.s"));

/// Numbers of special purpose registers (EREF, table 3-3).
pub mod spr {
    /// Software use; here: this CPU's area.
    pub const SPRG0: u16 = 272;
    /// Timebase, lower half.
    pub const TBL: u16 = 268;
    /// Timebase, upper half.
    pub const TBU: u16 = 269;
    /// Number of this CPU.
    pub const PIR: u16 = 286;
    /// Version of the core.
    pub const PVR: u16 = 287;
    /// Version of the SoC.
    pub const SVR: u16 = 1023;
    /// Interrupt vectors: upper half of their addresses.
    pub const IVPR: u16 = 63;
}

/// MSR: machine checks are taken instead of stopping the CPU.
pub const MSR_ME: u32 = 0x1000;

/// Reads a special purpose register.
#[inline(always)]
pub fn mfspr<const NUMBER: u16>() -> u32 {
    #[cfg(target_arch = "powerpc")]
    {
        let value;
        // SAFETY: reading a register of this crate's list changes nothing.
        unsafe { asm!("mfspr {}, {}", out(reg) value, const NUMBER, options(nomem, nostack)) };
        value
    }
    #[cfg(not(target_arch = "powerpc"))]
    0
}

/// Writes a special purpose register.
///
/// # Safety
/// The value must keep what Rust relies on: where exceptions go, and what memory means.
#[inline(always)]
pub unsafe fn mtspr<const NUMBER: u16>(value: u32) {
    #[cfg(target_arch = "powerpc")]
    // SAFETY: the caller's promise.
    unsafe {
        asm!("mtspr {}, {}", const NUMBER, in(reg) value, options(nostack));
    }
    #[cfg(not(target_arch = "powerpc"))]
    let _ = value;
}

/// Writes one TLB1 entry.
///
/// # Safety
/// No reference may exist into what the entry mapped before, and the entry must overlap no other.
pub unsafe fn tlbwe(mas: &Mas) {
    #[cfg(target_arch = "powerpc")]
    // SAFETY: the caller's promise. The barriers are those of EREF §6.5.3.
    unsafe {
        asm!(
            "mtspr 624, {0}", "mtspr 625, {1}", "mtspr 626, {2}", "mtspr 627, {3}", "mtspr 944, {4}",
            "msync", "isync", "tlbwe", "msync", "isync",
            in(reg) mas.mas0, in(reg) mas.mas1, in(reg) mas.mas2, in(reg) mas.mas3, in(reg) mas.mas7,
            options(nostack)
        );
    }
    #[cfg(not(target_arch = "powerpc"))]
    let _ = mas;
}

/// All accesses before are done, for everyone, before any access after.
pub fn sync() {
    #[cfg(target_arch = "powerpc")]
    // SAFETY: a barrier.
    unsafe {
        asm!("msync", options(nostack));
    }
}

/// Writes a cache line back to memory and drops it: who reads without looking into caches sees it.
pub fn flush(address: *const u32) {
    #[cfg(target_arch = "powerpc")]
    // SAFETY: changes no value. The address is one that the caller has read or written.
    unsafe {
        asm!("msync", "dcbf 0, {}", "msync", in(reg) address, options(nostack));
    }
    #[cfg(not(target_arch = "powerpc"))]
    let _ = address;
}

/// The timebase.
pub fn timebase() -> u64 {
    loop {
        let upper = mfspr::<{ spr::TBU }>();
        let lower = mfspr::<{ spr::TBL }>();
        if mfspr::<{ spr::TBU }>() == upper {
            return u64::from(upper) << 32 | u64::from(lower);
        }
    }
}

/// Stops this CPU for good. It draws little power, and costs an emulator nothing.
pub fn stop() -> ! {
    loop {
        #[cfg(target_arch = "powerpc")]
        // SAFETY: `wait` (Power ISA 2.06 category WT; the assembler of e500mc does not know it) ends with an
        // interrupt, and external interrupts are disabled.
        unsafe {
            asm!(".long 0x7c00007c", options(nomem, nostack));
        }
        #[cfg(not(target_arch = "powerpc"))]
        core::hint::spin_loop();
    }
}
