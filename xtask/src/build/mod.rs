//! What goes into a bundle and is not written in the checkout: built here, from source, in cached stages.

mod audit;
mod context;
pub mod debian;
mod facts;
mod firmware;
mod hypervisor;
pub mod image;
pub mod kconfig;
mod kernel;
pub mod lock;
mod rootfs;
mod sources;
mod stage;

pub use context::{Artifact, Context, deflate_input, other_version};
pub use facts::facts;
pub use hypervisor::{HV_IMAGE, hypervisor};
pub use kernel::linux;
pub use rootfs::rootfs;

#[cfg(test)]
pub use {context::other_versions, rootfs::skeleton};
