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
global_asm!(include_str!("guest.s"));
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
    /// Decrementer.
    pub const DEC: u16 = 22;
    /// Decrementer auto-reload.
    pub const DECAR: u16 = 54;
    /// Timer control.
    pub const TCR: u16 = 340;
    /// Timer status; a one that is written clears a bit.
    pub const TSR: u16 = 336;
    /// SPRG3 to SPRG7, which problem state can read.
    pub const SPRG3: u16 = 275;
    /// See [`SPRG3`].
    pub const SPRG4: u16 = 276;
    /// See [`SPRG3`].
    pub const SPRG5: u16 = 277;
    /// See [`SPRG3`].
    pub const SPRG6: u16 = 278;
    /// See [`SPRG3`].
    pub const SPRG7: u16 = 279;
    /// What loads by external process id use.
    pub const EPLC: u16 = 947;
    /// L1 cache configuration.
    pub const L1CFG0: u16 = 515;
    /// L1 cache configuration.
    pub const L1CFG1: u16 = 516;
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

/// Writes an entry of a guest, which takes effect when the guest goes on: the `rfi` synchronises.
///
/// # Safety
/// The entry must be one that matches in problem state only, and not be one of the hypervisor's.
pub unsafe fn tlbwe_guest(mas: &Mas) {
    #[cfg(target_arch = "powerpc")]
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "mtspr 624, {0}", "mtspr 625, {1}", "mtspr 626, {2}", "mtspr 627, {3}", "mtspr 944, {4}",
            "isync", "tlbwe", "isync",
            in(reg) mas.mas0, in(reg) mas.mas1, in(reg) mas.mas2, in(reg) mas.mas3, in(reg) mas.mas7,
            options(nostack)
        );
    }
    #[cfg(not(target_arch = "powerpc"))]
    let _ = mas;
}

/// Looks an effective address up in the real TLBs, with PID and address space as in MAS6.
pub fn tlbsx(ea: u32, mas6: u32) -> Mas {
    #[cfg(target_arch = "powerpc")]
    {
        let (mas0, mas1, mas2, mas3, mas7);
        // SAFETY: changes nothing but the MAS registers, which nobody expects to stay.
        unsafe {
            asm!(
                "mtspr 630, {6}", "isync", "tlbsx 0, {5}",
                "mfspr {0}, 624", "mfspr {1}, 625", "mfspr {2}, 626", "mfspr {3}, 627", "mfspr {4}, 944",
                out(reg) mas0, out(reg) mas1, out(reg) mas2, out(reg) mas3, out(reg) mas7,
                in(reg) ea, in(reg) mas6, options(nostack)
            );
        }
        Mas { mas0, mas1, mas2, mas3, mas7 }
    }
    #[cfg(not(target_arch = "powerpc"))]
    {
        let _ = (ea, mas6);
        Mas { mas0: 0, mas1: 0, mas2: 0, mas3: 0, mas7: 0 }
    }
}

/// Drops all of TLB0, where the hypervisor has nothing.
pub fn invalidate_tlb0() {
    #[cfg(target_arch = "powerpc")]
    // SAFETY: TLB0 holds the guest's entries only. MMUCSR0[TLB0FI] reads one until it is done.
    unsafe {
        asm!(
            "isync", "mtspr 1012, {0}", "isync", "2:", "mfspr {1}, 1012", "andi. {1}, {1}, 4", "bne 2b", "isync",
            in(reg) 4, out(reg) _, out("cr0") _, options(nostack)
        );
    }
}

/// Sets the PID under which the guest runs. The hypervisor's entries match any.
pub fn set_pid(pid: u32) {
    #[cfg(target_arch = "powerpc")]
    // SAFETY: see above.
    unsafe {
        asm!("isync", "mtspr 48, {}", "isync", in(reg) pid, options(nostack));
    }
    #[cfg(not(target_arch = "powerpc"))]
    let _ = pid;
}

/// Rings a CPU's doorbell: `msgsnd` (Power ISA 2.06, category Embedded.Processor Control), type 0, by PIR.
pub fn ring(cpu: u32) {
    #[cfg(target_arch = "powerpc")]
    // SAFETY: an interrupt on another CPU, which expects it: in its guest, or in `citrine_wait`.
    unsafe {
        asm!("msync", "mr 3, {}", ".long 0x7c00199c", in(reg) cpu & 0x3fff, out("r3") _, options(nostack));
    }
    #[cfg(not(target_arch = "powerpc"))]
    let _ = cpu;
}

/// Makes what was written visible to instruction fetch, on all CPUs (Power ISA 2.06 II §1.8).
pub fn make_executable(ea: u32, len: u32, line: u32) {
    #[cfg(target_arch = "powerpc")]
    {
        let (first, last) = (ea & !(line - 1), ea + len);
        for at in (first..last).step_by(line as usize) {
            // SAFETY: changes no value; the lines are mapped, as the caller has just written to them.
            unsafe { asm!("dcbst 0, {}", in(reg) at, options(nostack)) };
        }
        sync();
        for at in (first..last).step_by(line as usize) {
            // SAFETY: as above.
            unsafe { asm!("icbi 0, {}", in(reg) at, options(nostack)) };
        }
        sync();
    }
    #[cfg(not(target_arch = "powerpc"))]
    let _ = (ea, len, line);
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

#[cfg(target_arch = "powerpc")]
unsafe extern "C" {
    fn citrine_enter_guest();
    fn citrine_wait();
}

/// Runs the guest of this CPU's page until its next exit.
pub fn enter_guest() {
    #[cfg(target_arch = "powerpc")]
    // SAFETY: the page is attached and the vectors are the guest's ([`crate::run`]). The guest runs in problem
    // state, with translations that `citrine_core::shadow` has chosen, and what the ABI wants kept is kept.
    unsafe {
        citrine_enter_guest();
    }
}

/// Sleeps until an interrupt: a doorbell, the serial line, the decrementer.
pub fn wait() {
    #[cfg(target_arch = "powerpc")]
    // SAFETY: interrupts are enabled within, and each leads to its end (`guest.s`).
    unsafe {
        citrine_wait();
    }
}

/// Sleeps until an interrupt, but not longer than some ticks of the decrementer, which must be nobody's.
pub fn wait_at_most(ticks: u32) {
    const DIE: u32 = 1 << 26;
    const DIS: u32 = 1 << 27;
    // The decrementer last: QEMU 7.2 loses an interrupt that comes while TCR or TSR is being written, and it
    // comes there when the host takes its CPU away for longer than `ticks`.
    // SAFETY: timers interrupt in `citrine_wait` only.
    unsafe {
        mtspr::<{ spr::TSR }>(DIS);
        mtspr::<{ spr::TCR }>(DIE);
        mtspr::<{ spr::DEC }>(ticks);
        wait();
        mtspr::<{ spr::TCR }>(0);
        mtspr::<{ spr::TSR }>(DIS);
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
