//! Text and bytes in, plan, text and bytes out: everything about a bundle that needs no I/O.
//!
//! [`input`] parses boards, profiles and [`inventory`] into [`board`] and [`profile`]; [`place`] turns them into a
//! [`plan::LoadPlan`], the one place where an address lives; [`rules`] judges it; [`render`], [`pack`]
//! and [`map`] are its views as text, as bytes and for people; [`verify`] is the way back in, [`diff`] compares what
//! came out, [`reproduce`] what was built again, and [`flash`] changes what lies in the NOR flash. Every problem is a [`diag::Diagnostic`].
#![forbid(unsafe_code)]

pub mod board;
pub mod diag;
pub mod diff;
pub mod dts;
pub mod flash;
pub mod image;
pub mod import;
pub mod input;
pub mod inventory;
pub mod map;
pub mod pack;
pub mod place;
pub mod plan;
pub mod profile;
pub mod release;
pub mod remote;
pub mod render;
pub mod reproduce;
pub mod rules;
pub mod source;
pub mod stages;
pub mod units;
pub mod verify;
