//! The repository itself: what its layout, its crates and its texts promise to readers, checked.

mod codes;
mod crates;
mod files;
mod texts;
