//! The CPU's registers and instructions, each as a function that keeps what Rust relies on.
//!
//! On another architecture they do nothing and read zero, so that the guests compile on the host.

#[cfg(target_arch = "powerpc")]
use core::arch::{asm, global_asm};

#[cfg(target_arch = "powerpc")]
global_asm!(include_str!("entry.s"));
#[cfg(target_arch = "powerpc")]
global_asm!(include_str!("../../e500/src/mem.s"));

/// Bits of the machine state register (Power ISA 2.06 III-E §4.2.1).
pub mod msr {
    /// Critical interrupts.
    pub const CE: u32 = 1 << 17;
    /// External, decrementer, fixed-interval timer and doorbell interrupts.
    pub const EE: u32 = 1 << 15;
    /// Problem state.
    pub const PR: u32 = 1 << 14;
    /// Floating point.
    pub const FP: u32 = 1 << 13;
    /// Machine checks.
    pub const ME: u32 = 1 << 12;
    /// Address space of instructions.
    pub const IS: u32 = 1 << 5;
    /// Address space of data.
    pub const DS: u32 = 1 << 4;
}

/// Bits of the timer registers (EREF §4.7.1).
pub mod timer {
    /// TCR: decrementer interrupts.
    pub const TCR_DIE: u32 = 1 << 26;
    /// TCR: fixed-interval timer interrupts.
    pub const TCR_FIE: u32 = 1 << 23;
    /// TSR: the decrementer has reached zero.
    pub const TSR_DIS: u32 = 1 << 27;
    /// TSR: the fixed-interval timer has fired.
    pub const TSR_FIS: u32 = 1 << 26;

    /// TCR: the fixed-interval timer fires when this bit of the timebase, counted from its least significant
    /// one, becomes 1. The field counts from the other end, in two pieces (TCR[FP], TCR[FPEXT]).
    pub const fn fixed_interval(bit: u32) -> u32 {
        let field = 63 - bit;
        (field & 3) << 24 | (field >> 2 & 0xf) << 13
    }
}

/// Reads a special purpose register.
#[inline(always)]
fn mfspr<const NUMBER: u16>() -> u32 {
    #[cfg(target_arch = "powerpc")]
    {
        let value;
        // SAFETY: reading a register of this file changes nothing that Rust relies on.
        unsafe { asm!("mfspr {}, {}", out(reg) value, const NUMBER, options(nomem, nostack)) };
        value
    }
    #[cfg(not(target_arch = "powerpc"))]
    0
}

/// Writes a special purpose register.
///
/// # Safety
/// The value must keep what Rust relies on: where interrupts go, and what memory means.
#[inline(always)]
unsafe fn mtspr<const NUMBER: u16>(value: u32) {
    #[cfg(target_arch = "powerpc")]
    // SAFETY: the caller's promise.
    unsafe {
        asm!("mtspr {}, {}", "isync", const NUMBER, in(reg) value, options(nostack));
    }
    #[cfg(not(target_arch = "powerpc"))]
    let _ = value;
}

/// The machine state register.
pub fn msr() -> u32 {
    #[cfg(target_arch = "powerpc")]
    {
        let value;
        // SAFETY: reads only.
        unsafe { asm!("mfmsr {}", out(reg) value, options(nomem, nostack)) };
        value
    }
    #[cfg(not(target_arch = "powerpc"))]
    0
}

/// Takes external, timer and doorbell interrupts, or holds them back.
pub fn set_interrupts(enabled: bool) {
    #[cfg(target_arch = "powerpc")]
    // SAFETY: handlers share only atomics with what they interrupt.
    unsafe {
        if enabled {
            asm!("wrteei 1", options(nostack));
        } else {
            asm!("wrteei 0", options(nostack));
        }
    }
    #[cfg(not(target_arch = "powerpc"))]
    let _ = enabled;
}

/// Rests until an interrupt.
pub fn wait() {
    #[cfg(target_arch = "powerpc")]
    // SAFETY: `wait` (Power ISA 2.06 category WT; the assembler of e500mc does not know it) changes no state.
    unsafe {
        asm!(".long 0x7c00007c", options(nostack));
    }
    #[cfg(not(target_arch = "powerpc"))]
    core::hint::spin_loop();
}

/// Enables interrupts, rests until one has been handled, and disables them. One that comes before the rest
/// begins ends it, too: see [`end_rest`].
pub fn rest() {
    #[cfg(target_arch = "powerpc")]
    {
        unsafe extern "C" {
            fn citrine_guest_rest();
        }
        // SAFETY: handlers share only atomics with what they interrupt.
        unsafe { citrine_guest_rest() };
    }
    #[cfg(not(target_arch = "powerpc"))]
    core::hint::spin_loop();
}

/// After an interrupt: who was about to rest does not.
#[cfg(target_arch = "powerpc")]
pub(crate) fn end_rest(frame: &mut crate::interrupts::Frame) {
    unsafe extern "C" {
        fn citrine_guest_rest_wait();
    }
    if frame.pc == citrine_guest_rest_wait as *const () as usize as u32 {
        frame.pc += 4;
    }
}

/// All accesses before are done, for everyone, before any access after.
pub fn sync() {
    #[cfg(target_arch = "powerpc")]
    // SAFETY: a barrier.
    unsafe {
        asm!("msync", options(nostack));
    }
}

/// Makes an instruction that was written as data the one that is executed.
pub fn code_changed(at: u32) {
    #[cfg(target_arch = "powerpc")]
    // SAFETY: changes no value (EREF §5.6.5.2.2).
    unsafe {
        asm!("dcbst 0, {0}", "msync", "icbi 0, {0}", "msync", "isync", in(reg) at, options(nostack));
    }
    #[cfg(not(target_arch = "powerpc"))]
    let _ = at;
}

/// Sends a doorbell (Power ISA 2.06 III-E §12.2): type in bits 31 to 27, broadcast in bit 26, PIR below.
pub fn send_message(message: u32) {
    #[cfg(target_arch = "powerpc")]
    // SAFETY: it interrupts CPUs of this guest; their handlers share only atomics with what they interrupt.
    unsafe {
        asm!("msync", ".long 0x7c00199c", in("r3") message, options(nostack));
    }
    #[cfg(not(target_arch = "powerpc"))]
    let _ = message;
}

/// Forgets a doorbell that has been sent to this CPU and not been taken (Power ISA 2.06 III-E §12.2).
pub fn clear_message(message: u32) {
    #[cfg(target_arch = "powerpc")]
    // SAFETY: an interrupt that does not come harms nobody.
    unsafe {
        asm!(".long 0x7c0019dc", in("r3") message, options(nostack));
    }
    #[cfg(not(target_arch = "powerpc"))]
    let _ = message;
}

/// The timebase.
pub fn timebase() -> u64 {
    loop {
        let upper = mfspr::<269>();
        let lower = mfspr::<268>();
        if mfspr::<269>() == upper {
            return u64::from(upper) << 32 | u64::from(lower);
        }
    }
}

/// The number of this CPU.
pub fn number() -> u32 {
    mfspr::<286>()
}

/// The vector of the external interrupt that was taken last (external proxy).
pub fn external_vector() -> u32 {
    mfspr::<702>()
}

/// Timer status.
pub fn timer_status() -> u32 {
    mfspr::<336>()
}

/// Clears bits of the timer status.
pub fn clear_timer_status(bits: u32) {
    // SAFETY: memory and vectors stay as they are.
    unsafe { mtspr::<336>(bits) }
}

/// Sets the timer control. Never the watchdog's bits: a guest that forgets it would be reset.
pub fn set_timer_control(bits: u32) {
    // SAFETY: memory and vectors stay as they are.
    unsafe { mtspr::<340>(bits & (timer::TCR_DIE | timer::TCR_FIE | timer::fixed_interval(0))) }
}

/// Sets the decrementer, in ticks of the timebase.
pub fn set_decrementer(ticks: u32) {
    // SAFETY: memory and vectors stay as they are.
    unsafe { mtspr::<22>(ticks) }
}

/// Sets the process of which translations are used besides those of all.
pub fn set_process(pid: u32) {
    // SAFETY: the guest itself is mapped for all processes.
    unsafe { mtspr::<48>(pid) }
}

/// The process of which translations are used besides those of all.
pub fn process() -> u32 {
    mfspr::<48>()
}

/// Takes machine checks, by `rfi` since QEMU's `mtmsr` does not change MSR[ME].
pub fn enable_machine_checks() {
    #[cfg(target_arch = "powerpc")]
    // SAFETY: continues behind the `rfi` with one bit more; the registers that it uses are declared.
    unsafe {
        asm!(
            "bl 1f", "1: mflr {0}", "addi {0}, {0}, 32", "mtspr 26, {0}", "mfmsr {0}", "ori {0}, {0}, 0x1000",
            "mtspr 27, {0}", "isync", "rfi",
            out(reg) _, out("lr") _, options(nostack)
        );
    }
}

/// Syndrome and address of the last machine check; clears the syndrome.
pub fn take_machine_check() -> (u32, u32) {
    let (syndrome, address) = (mfspr::<572>(), mfspr::<573>());
    // SAFETY: memory and vectors stay as they are.
    unsafe { mtspr::<572>(syndrome) };
    (syndrome, address)
}
