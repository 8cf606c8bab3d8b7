//! What goes into a bundle and is not written in the checkout: built here, from source, in cached stages.

mod audit;
mod cargo;
mod context;
pub mod debian;
mod facts;
mod firmware;
mod guests;
mod hypervisor;
pub mod image;
pub mod kconfig;
mod kernel;
pub mod lock;
mod recipes;
mod rootfs;
mod sources;
mod stage;
mod trees;

pub use context::{Artifact, Context, deflate_input, other_version};
pub use facts::facts;
pub use guests::{GUESTS, guests};
pub use hypervisor::{HV_IMAGE, HV_NAME, hypervisor};
pub use kernel::linux;
pub use recipes::recipes;
pub use rootfs::rootfs;
pub use trees::trees;

#[cfg(test)]
pub use {context::other_versions, hypervisor::hypervisor_without_isolation, rootfs::skeleton};
