//! The smoke boot: a verified bundle, the emulator in place of its board, and what hypervisor and guests must say.
//!
//! * [`bundle`] — the bundle's bytes, after its signature holds
//! * [`stand_in`] — the parts that QEMU needs others of, rendered from the bundle's own profile
//! * [`expected`] — the report that the firmware must print, computed by the firmware's own code on the host
//! * [`load`] — how the parts come into memory
//! * [`nor`] — the bundle's flash in the emulator's
//! * [`boot`] — U-Boot loads and checks, the hypervisor reports
//! * [`steps`] — what guests without a shell must say
//! * [`system`], [`answers`], [`script`] — whom one can talk to, what must be true, and the conversation

pub mod answers;
pub mod boot;
pub mod bundle;
pub mod expected;
pub mod load;
pub mod nor;
pub mod script;
pub mod stand_in;
pub mod steps;
pub mod system;

#[cfg(test)]
mod tests;
