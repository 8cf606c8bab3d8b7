//! Counts what single instructions of a guest's kernel cost: one line each, `bench: WORK COUNT TICKS`, in ticks of the
//! timebase. Each loop has the instruction and a branch; `turn` is the branch alone.
#![cfg_attr(target_arch = "powerpc", no_std, no_main)]

use citrine_guests::interrupts::Frame;
use citrine_guests::{Guest, cpu, guest, hypercall, say};

guest!(run, interrupt);

/// How often each instruction is executed.
const TURNS: u32 = 20_000;
/// How often the hypervisor is called.
const CALLS: u32 = 2_000;

/// Repeats an instruction [`TURNS`] times and says how long it took.
macro_rules! count {
    ($work:literal, $instruction:literal) => {{
        let start = cpu::timebase();
        #[cfg(target_arch = "powerpc")]
        // SAFETY: each instruction reads a register of the kernel, or writes back what is there, or disables
        // interrupts, which are disabled.
        unsafe {
            core::arch::asm!(
                "mtctr {count}", "2:", $instruction, "bdnz 2b",
                count = in(reg) TURNS, out("r12") _, out("ctr") _, options(nostack)
            );
        }
        say!("bench: {} {TURNS} {}", $work, cpu::timebase() - start);
    }};
}

fn run(guest: &Guest) {
    cpu::set_interrupts(false);
    count!("turn", "");
    count!("mfmsr", "mfmsr 12");
    count!("wrteei", "wrteei 0");
    count!("mfspr", "mfspr 12, 26");
    count!("mtspr", "mtspr 26, 12");
    if let Some(console) = guest.tree.console() {
        let start = cpu::timebase();
        for _ in 0..CALLS {
            // Its answer does not matter.
            let _ = hypercall::poll(console.handle);
        }
        say!("bench: hypercall {CALLS} {}", cpu::timebase() - start);
    }
    say!("bench: done 0 0");
}

fn interrupt(_: &mut Frame) -> bool {
    false
}
