//! The smoke boot: a verified bundle, the emulator in place of its board, and what the hypervisor must say.
//!
//! * [`bundle`] — the bundle's bytes, after its signature holds
//! * [`stand_in`] — the two parts that QEMU needs others of, rendered from the bundle's own profile
//! * [`expected`] — the report that the firmware must print, computed by the firmware's own code on the host

pub mod bundle;
pub mod expected;
pub mod stand_in;

#[cfg(test)]
mod tests;
