//! The hypervisor's decisions, without hardware: tested on the host, linked into the firmware, and asked by
//! the tool before anything is built.
//!
//! * [`start`] — from the entry to partitions that are ready to run, over a [`start::Platform`]
//! * [`hardware`], [`image`] — what the boot loader left: the hardware tree, the images
//! * [`config`], [`machine`], [`rules`] — what is to be done, what there is, whether the one fits the other
//! * [`report`] — every line that the firmware prints
#![no_std]
#![forbid(unsafe_code)]

pub mod config;
pub mod hardware;
pub mod image;
pub mod machine;
pub mod report;
pub mod rules;
pub mod start;
