//! What fuzzing runs: for each target one function that makes of any bytes a guest, a guest's calls, an image, a tree,
//! a serial line, a bundle or the texts of a user, and panics when the hypervisor or the tool breaks one of its promises.
//!
//! The ordinary tests run these over the inputs that are kept in `corpus/`; `cargo xtask fuzz` lets libFuzzer look
//! for more.
#![forbid(unsafe_code)]

mod bundle;
mod dts;
mod emulator;
mod fdt;
mod guest_tree;
mod hv_dtb;
mod hypercalls;
mod inflate;
mod input;
mod loader;
mod manifest;
mod mux;
mod real_tlb;
mod texts;
mod uimage;

/// Does what the bytes say; how much of it had an effect: 0 for bytes that mean nothing.
pub type Body = fn(&[u8]) -> usize;

/// All targets by name, which is also that of their directory in `corpus/`.
pub const TARGETS: [(&str, Body); 13] = [
    ("dts", dts::run),
    ("emulator", emulator::run),
    ("hypercalls", hypercalls::run),
    ("loader", loader::run),
    ("guest-tree", guest_tree::run),
    ("mux", mux::run),
    ("texts", texts::run),
    ("hv-dtb", hv_dtb::run),
    ("bundle", bundle::run),
    ("manifest", manifest::run),
    ("uimage", uimage::run),
    ("inflate", inflate::run),
    ("fdt", fdt::run),
];

/// The target with this name.
pub fn find(name: &str) -> Option<Body> {
    TARGETS.iter().find(|(target, _)| *target == name).map(|(_, body)| *body)
}
