//! The e500 family: the only hardware access, and the only `unsafe` besides the firmware's.
//!
//! * `entry.s`, `mem.s` — entry of every CPU, exception vectors, the move of the image
//! * [`cpu`] — registers and instructions; the seam: on another architecture it does nothing
//! * [`tlb`] — which effective address leads where
//! * [`serial`], [`exceptions`], [`smp`], [`board`] — what `citrine_core::start` asks for
//! * [`run`] — what each CPU does then: [`hardware`] is the CPU as its guest needs it, `guest.s` the way into the guest and
//!   back, [`guest_tlb`], [`physical`] and [`percpu`] its translations, memory and state
//! * [`fast_paths`] — the shorter way for what guests do most often, as `citrine_core::fast` writes it
//! * [`system`], [`lock`], [`once`] — what CPUs share; [`console`], [`mpic`] — the serial line and its interrupts
//!
//! For e500mc, and for e5500 in 32-bit mode. It has run on QEMU's `ppce500` with both, and on no board.
#![no_std]

pub mod board;
pub mod console;
pub mod cpu;
pub mod exceptions;
pub mod fast_paths;
pub mod guest_tlb;
pub mod hardware;
pub mod lock;
pub mod mpic;
pub mod once;
pub mod percpu;
pub mod physical;
pub mod run;
pub mod serial;
pub mod smp;
pub mod system;
pub mod tlb;

use citrine_core::report::Core;
use citrine_core::start::{self, Entry};
use citrine_formats::addr::TruePhys;
use citrine_formats::signature::Key;
use core::fmt::Write as _;

use cpu::spr;

/// The key that must have signed the configuration tree; the tool's build says which (`xtask/src/build/firmware.rs`).
/// Without one, any tree is taken.
const TRUST: Option<Key> = match option_env!("CITRINE_TRUST") {
    Some(hex) => Some(key(hex)),
    None => None,
};

/// A key by its text. A text that is none is a mistake of the build, and ends it.
const fn key(hex: &str) -> Key {
    match Key::from_hex(hex) {
        Some(key) => key,
        None => panic!("CITRINE_TRUST is not 64 lower-case hexadecimal digits"),
    }
}

/// Entered by `entry.s` on the first CPU: device tree (r3), magic number (r6), and where the image is.
#[unsafe(no_mangle)]
extern "C" fn citrine_boot(tree: u32, magic: u32, image_high: u32, image_low: u32) -> ! {
    let number = cpu::mfspr::<{ spr::PIR }>();
    exceptions::install(number);
    let image = TruePhys(u64::from(image_high) << 32 | u64::from(image_low));
    // SAFETY: this function is entered once.
    let mut board = unsafe { board::Board::new(image) };
    let entry = Entry {
        tree: TruePhys(u64::from(tree)),
        magic,
        core: Core::new(cpu::mfspr::<{ spr::PVR }>()),
        svr: cpu::mfspr::<{ spr::SVR }>(),
        cpu: number,
    };
    let Some(ready) = start::run(&mut board, entry) else { cpu::stop() };
    system::start(ready, board, number);
    run::run(number)
}

/// What the firmware does when it finds a mistake of its own: says so, and stops this CPU.
pub fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let number = cpu::mfspr::<{ spr::PIR }>();
    let _ = write!(serial::Serial, "\nCPU {number} panicked: {}", info.message());
    if let Some(place) = info.location() {
        let _ = write!(serial::Serial, " ({}:{})", place.file(), place.line());
    }
    let _ = writeln!(serial::Serial);
    cpu::stop()
}
