//! From the text of `boards/*.toml` and `profiles/*.toml` to checked types, all problems in one run.
//!
//! [`reader`] walks a TOML table key by key and reports every unknown key, wrong type and impossible
//! value with its place; [`board`], [`profile`], [`devices`] and [`inventory`] say which keys
//! there are. [`trust`] reads the file of a key.

pub mod board;
pub mod devices;
pub mod inventory;
pub mod profile;
pub mod reader;
pub mod trust;

use crate::diag::Code;

/// Not TOML, or a key given twice.
pub const SYNTAX: Code = Code::new('C', 101);
/// A key that nothing reads.
pub const UNKNOWN_KEY: Code = Code::new('C', 102);
/// A value of another type.
pub const WRONG_TYPE: Code = Code::new('C', 103);
/// A key that must be there.
pub const MISSING_KEY: Code = Code::new('C', 104);
/// A name given twice.
pub const DUPLICATE_NAME: Code = Code::new('C', 105);
/// A value that cannot be.
pub const IMPOSSIBLE_VALUE: Code = Code::new('C', 106);
/// A name that nothing bears.
pub const UNKNOWN_NAME: Code = Code::new('C', 107);
