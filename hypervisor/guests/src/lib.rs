//! What the guests of this crate share: entry, interrupts, console, device tree, other CPUs.
//!
//! Each program in `src/bin/` is a guest of its own: a flat image for guest-physical 0 that the tool wraps as a
//! kernel. It finds everything through its device tree, so the same bytes run in any partition; without a
//! hypervisor in the tree the console is the serial line, so that they also run on the bare emulator, where
//! one sees what the hypervisor must not change.
//!
//! On another architecture it all compiles and does nothing.
#![no_std]

pub mod checksum;
pub mod console;
pub mod cpu;
pub mod hypercall;
pub mod interrupts;
pub mod patience;
pub mod probe;
pub mod random;
pub mod smp;
pub mod tlb;
pub mod tree;

use crate::tree::Tree;

/// Makes a program of a crate's functions: `run(&Guest)` is the guest, `interrupt(&mut Frame) -> bool` takes its
/// interrupts and says whether it knew them.
#[macro_export]
macro_rules! guest {
    ($run:path, $interrupt:path) => {
        #[cfg(target_arch = "powerpc")]
        // SAFETY: one program has one such function; the library declares it with this signature.
        #[unsafe(no_mangle)]
        fn citrine_guest_run(guest: &$crate::Guest) {
            $run(guest);
        }

        #[cfg(target_arch = "powerpc")]
        // SAFETY: as above.
        #[unsafe(no_mangle)]
        fn citrine_guest_handle(frame: &mut $crate::interrupts::Frame) -> bool {
            $interrupt(frame)
        }

        #[cfg(not(target_arch = "powerpc"))]
        fn main() {
            let _: (fn(&$crate::Guest), fn(&mut $crate::interrupts::Frame) -> bool) = ($run, $interrupt);
        }
    };
}

/// What a guest is given.
#[derive(Debug)]
pub struct Guest {
    /// Its device tree.
    pub tree: Tree<'static>,
}

#[cfg(target_arch = "powerpc")]
mod start {
    //! From the assembler's entry to the program.

    use crate::interrupts::Frame;
    use crate::{Guest, console, cpu, say, smp, tree};

    unsafe extern "Rust" {
        fn citrine_guest_run(guest: &Guest);
        fn citrine_guest_handle(frame: &mut Frame) -> bool;
    }

    #[unsafe(no_mangle)]
    extern "C" fn citrine_guest_start(tree: u32, magic: u32) -> ! {
        cpu::enable_machine_checks();
        // SAFETY: the hypervisor has put the tree there and mapped it (ePAPR 1.1 §5.4.1); nobody writes to it.
        let opened = unsafe { tree::open(tree) };
        if let Some(opened) = opened {
            console::init(&opened);
            if magic != 0x4550_4150 {
                say!("entered with {magic:#010x} instead of ePAPR's magic number");
            }
            let guest = Guest { tree: opened };
            // SAFETY: `guest!` defines it with this signature.
            unsafe { citrine_guest_run(&guest) };
        }
        loop {
            cpu::rest();
        }
    }

    #[unsafe(no_mangle)]
    extern "C" fn citrine_guest_secondary_start(number: u32) -> ! {
        cpu::enable_machine_checks();
        smp::enter(number)
    }

    #[unsafe(no_mangle)]
    extern "C" fn citrine_guest_interrupt(frame: &mut Frame) {
        // SAFETY: `guest!` defines it with this signature.
        if unsafe { citrine_guest_handle(frame) } {
            cpu::end_rest(frame);
            return;
        }
        say!("FAILED: unexpected {frame}");
        stop();
    }

    #[panic_handler]
    fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
        say!("FAILED: {info}");
        stop();
    }

    fn stop() -> ! {
        cpu::set_interrupts(false);
        loop {
            cpu::wait();
        }
    }
}
