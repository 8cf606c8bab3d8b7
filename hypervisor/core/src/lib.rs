//! The hypervisor's decisions, without hardware: tested on the host, linked into the firmware, and asked by
//! the tool before anything is built.
//!
//! * [`start`] — from the entry to partitions that are ready to run, over a [`start::Platform`]
//! * [`hardware`] — what the boot loader left: the hardware tree
//! * [`config`], [`machine`], [`rules`] — what is to be done, what there is, whether the one fits the other;
//!   [`capabilities`], what this hypervisor and others can do at all
//! * [`vcpu`], [`shared`], [`mmu`], [`memory`] — a virtual CPU, its registers, its TLBs, its memory
//! * [`shadow`] — which real translations stand for a virtual CPU's
//! * [`entry`], [`exits`], [`emulate`], [`interrupts`] — what its start, its stops, its instructions and interrupts do
//!   to a virtual CPU; [`cpu`], what they need of the real one
//! * [`fast`] — the shorter way for the most frequent of these
//! * [`guest_tree`] — the device tree that a guest is given
//! * [`loader`] — images, from where the boot loader left them into a guest's memory
//! * [`handles`] — the numbers by which guests name things
//! * [`hypervisor`] — what the CPUs share: partitions, interrupts, byte channels, hypercalls
//! * [`shell`] — the hypervisor's shell
//! * [`trust`] — whether the configuration tree is signed by the key that the firmware believes
//! * [`report`] — every line that the firmware prints
#![no_std]
#![forbid(unsafe_code)]

pub mod capabilities;
pub mod config;
pub mod cpu;
pub mod emulate;
pub mod entry;
pub mod exits;
pub mod fast;
pub mod guest_tree;
pub mod handles;
pub mod hardware;
pub mod hypervisor;
pub mod interrupts;
pub mod loader;
pub mod machine;
pub mod memory;
pub mod mmu;
pub mod report;
pub mod rules;
pub mod shadow;
pub mod shared;
pub mod shell;
pub mod start;
pub mod trust;
pub mod vcpu;
