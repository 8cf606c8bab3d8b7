//! Every format that both the tool and the firmware read or write, defined once.
//!
//! * [`addr`] — address newtypes that do not mix, and spans that cannot wrap around
//! * [`diag`] — diagnostic codes and severities
//! * [`fdt`] — flattened device trees, opened as hostile input
//! * [`uimage`] — U-Boot's legacy image header
//! * [`sha256`] — a digest, as bytes and as text
//! * [`signature`] — the signature over a configuration tree
//! * [`hvconfig`] — the hypervisor configuration tree (`hv.dtb`)
//! * [`mux`] — framing of the console multiplexer
//! * [`manifest`] — the bundle's manifest (feature `manifest`, host only)
//!
//! `no_std`, no allocator (but for the manifest), no `unsafe`: a hostile input is an error value.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(feature = "manifest")]
extern crate alloc;

pub mod addr;
pub mod diag;
pub mod fdt;
pub mod hvconfig;
#[cfg(feature = "manifest")]
pub mod manifest;
pub mod mux;
pub mod sha256;
pub mod signature;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod uimage;
