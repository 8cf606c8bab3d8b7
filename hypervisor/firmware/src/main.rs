//! The hypervisor's binary: `citrine-e500` is entered, `citrine-core` decides; here is what a binary must add.
//!
//! Only for PowerPC, and only as the tool builds it; elsewhere it is an empty program, so that
//! `cargo clippy --workspace` has something to look at.
#![cfg_attr(target_arch = "powerpc", no_std, no_main)]

use citrine_e500 as _;

#[cfg(target_arch = "powerpc")]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    citrine_e500::panic(info)
}

#[cfg(not(target_arch = "powerpc"))]
fn main() {}
