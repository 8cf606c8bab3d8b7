//! What can be wrong with a configuration tree, and how it is said.

use core::fmt;

use super::MAX_NAME;
use crate::addr::Hex;
use crate::fdt::{FdtProperty, Path, Property as _};

/// What is wrong with a configuration tree, and where.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Error<'a> {
    /// The node.
    pub path: Path<'a>,
    /// The property; empty when the node itself is wrong.
    pub property: &'static str,
    /// What is wrong with it.
    pub problem: Problem<'a>,
}

/// What is wrong with a node or property.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Problem<'a> {
    /// The property or node is needed and not there.
    Missing,
    /// The value has another length than the property's form asks for.
    Length {
        /// Bytes there are.
        have: usize,
        /// The form, in words.
        want: &'static str,
    },
    /// The value is not one zero-terminated string of 1 to [`MAX_NAME`] printable ASCII characters.
    NotAName,
    /// The value is a number that has no meaning.
    Number {
        /// The number.
        have: u64,
        /// What it may be, in words.
        want: &'static str,
    },
    /// Base and length together reach beyond 64 bits.
    Wraps {
        /// First address.
        base: u64,
        /// Length in bytes.
        len: u64,
    },
    /// No node has this phandle.
    Dangling {
        /// The phandle.
        phandle: u32,
    },
    /// The phandle leads to a node of another kind.
    WrongTarget {
        /// The node it leads to.
        target: Path<'a>,
        /// The kind that is wanted, in words.
        want: &'static str,
    },
    /// A property that nodes of this kind do not have.
    Unknown {
        /// The property as it stands.
        property: FdtProperty<'a>,
        /// What may have been meant.
        suggestion: Option<&'static str>,
    },
    /// A node with properties whose `compatible` is missing or names no known kind.
    UnknownKind {
        /// A property that it has.
        property: FdtProperty<'a>,
    },
    /// A node in a place where its kind has no effect.
    Misplaced {
        /// Where it belongs, in words.
        belongs: &'static str,
    },
    /// More nodes or entries than the hypervisor can hold.
    TooMany {
        /// How many it can hold.
        limit: usize,
    },
}

impl fmt::Display for Error<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path)?;
        if !self.property.is_empty() {
            write!(f, "{}: ", self.property)?;
        }
        match self.problem {
            Problem::Missing => f.write_str("missing"),
            Problem::Length { have, want } => write!(f, "has {have} bytes instead of {want}"),
            Problem::NotAName => {
                write!(f, "not one string of 1 to {MAX_NAME} printable characters")
            }
            Problem::Number { have, want } => write!(f, "is {} instead of {want}", Hex(have)),
            Problem::Wraps { base, len } => {
                write!(f, "{} bytes from {} reach beyond the address space", Hex(len), Hex(base))
            }
            Problem::Dangling { phandle } => write!(f, "no node has the phandle {phandle:#x}"),
            Problem::WrongTarget { target, want } => {
                write!(f, "refers to {target}, which is not {want}")
            }
            Problem::Unknown { property, suggestion } => {
                write!(f, "unknown property \"{}\"", property.name())?;
                suggestion.map_or(Ok(()), |name| write!(f, "; did you mean \"{name}\"?"))
            }
            Problem::UnknownKind { property } => write!(
                f,
                "has the property \"{}\", but no \"compatible\" that says what kind of node it is",
                property.name()
            ),
            Problem::Misplaced { belongs } => write!(f, "has no effect here; it belongs {belongs}"),
            Problem::TooMany { limit } => write!(f, "more than {limit}"),
        }
    }
}

impl core::error::Error for Error<'_> {}
