//! Flattened device trees as hostile input: the one door through which tool and firmware open a dtb.
//!
//! `dtoolkit` reads the tree, but its offsets are `usize`: on a 32-bit CPU a property length of
//! 0xffff_ffff would wrap around. [`open`] therefore first walks the structure block itself with checked
//! arithmetic, and refuses what is larger or deeper than any real tree.
//! Layout: Devicetree Specification 0.4 §5.

pub mod print;

use core::fmt;

pub mod writer;

pub use dtoolkit::fdt::{Fdt, FdtNode, FdtProperty};
pub use dtoolkit::{Node, Property};

/// Length of the header in bytes.
pub const HEADER_LEN: usize = 40;
/// The first word of every flattened tree.
pub const MAGIC: u32 = 0xd00d_feed;
/// Largest tree that is read, in bytes; Topaz has the same limit.
pub const MAX_LEN: u32 = 4 << 20;
/// Deepest nesting of nodes that is read, the root included.
pub const MAX_DEPTH: usize = 16;

/// Why bytes are not a usable device tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// Fewer bytes than a header has, or than the header announces.
    Truncated {
        /// Bytes that are needed.
        need: u64,
        /// Bytes there are.
        have: u64,
    },
    /// Another magic number.
    NotATree {
        /// The first word.
        magic: u32,
    },
    /// The tree is larger than [`MAX_LEN`].
    TooLarge {
        /// Length that the header announces.
        len: u32,
    },
    /// The nodes are nested deeper than [`MAX_DEPTH`].
    TooDeep,
    /// The tree contradicts itself.
    Damaged {
        /// Byte offset of the contradiction.
        offset: usize,
        /// What is wrong there.
        what: &'static str,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Truncated { need, have } => {
                write!(f, "truncated: {need} bytes are needed, there are {have}")
            }
            Self::NotATree { magic } => {
                write!(f, "not a flattened device tree: magic number {magic:#010x} instead of {MAGIC:#010x}")
            }
            Self::TooLarge { len } => write!(f, "{len} bytes are more than the {MAX_LEN} that a tree may have"),
            Self::TooDeep => write!(f, "nodes are nested deeper than {MAX_DEPTH} levels"),
            Self::Damaged { offset, what } => write!(f, "damaged at byte {offset:#x}: {what}"),
        }
    }
}

impl core::error::Error for Error {}

/// Big-endian word at `offset`.
fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    let chunk = bytes.get(offset..)?.first_chunk::<4>()?;
    Some(u32::from_be_bytes(*chunk))
}

/// The length in bytes that the header of a tree announces: how much to map before [`open`].
///
/// # Errors
/// [`Error::Truncated`], [`Error::NotATree`] or [`Error::TooLarge`].
pub fn announced_len(header: &[u8]) -> Result<u32, Error> {
    let (Some(magic), Some(len)) = (word(header, 0), word(header, 4)) else {
        return Err(Error::Truncated { need: HEADER_LEN as u64, have: header.len() as u64 });
    };
    if magic != MAGIC {
        return Err(Error::NotATree { magic });
    }
    if len > MAX_LEN {
        return Err(Error::TooLarge { len });
    }
    if (len as usize) < HEADER_LEN {
        return Err(Error::Damaged { offset: 4, what: "the tree is shorter than its header" });
    }
    Ok(len)
}

/// The bytes of a tree that hold something, by its header: what follows is room to grow, of which QEMU leaves a
/// megabyte. `None` when this is no header of a tree, or of one whose blocks are in an unusual order.
pub fn used_len(header: &[u8]) -> Option<usize> {
    let announced = announced_len(header).ok()? as usize;
    let field = |index: usize| word(header, index * 4).map(|value| value as usize);
    let (structure, strings, reserved) = (field(2)?, field(3)?, field(4)?);
    let end = structure.checked_add(field(9)?)?.max(strings.checked_add(field(8)?)?);
    // The list of reservations has no length: it must lie in front of something that has.
    (reserved < structure.max(strings) && end <= announced).then_some(end)
}

/// Makes a tree of which [`used_len`] bytes are here announce that length. What is no tree stays as it is.
pub fn cut(tree: &mut [u8]) {
    if used_len(tree) == Some(tree.len()) {
        let len = u32::try_from(tree.len()).unwrap_or(0);
        if let Some(field) = tree.get_mut(4..8) {
            field.copy_from_slice(&len.to_be_bytes());
        }
    }
}

/// Opens the tree at the start of `bytes`; what follows it is not looked at.
///
/// # Errors
/// Any [`Error`].
pub fn open(bytes: &[u8]) -> Result<Fdt<'_>, Error> {
    let len = announced_len(bytes)? as usize;
    let tree = bytes.get(..len).ok_or(Error::Truncated { need: len as u64, have: bytes.len() as u64 })?;
    check(tree)?;
    Fdt::new(tree)
        .map_err(|_| Error::Damaged { offset: 0, what: "a node or property has a name outside the specification" })
}

/// Walks the structure block with arithmetic that cannot wrap.
fn check(tree: &[u8]) -> Result<(), Error> {
    const HEADER_DAMAGED: &str = "the header is cut short";
    let field = |index: usize| -> Result<usize, Error> {
        let offset = index * 4;
        word(tree, offset).map(|value| value as usize).ok_or(Error::Damaged { offset, what: HEADER_DAMAGED })
    };
    let (structure, strings, reserved) = (field(2)?, field(3)?, field(4)?);
    let (strings_len, structure_len) = (field(8)?, field(9)?);
    let block = |offset: usize, len: usize, at: usize| {
        let end = offset.checked_add(len).filter(|&end| end <= tree.len());
        end.ok_or(Error::Damaged { offset: at, what: "a block reaches beyond the end of the tree" })
    };
    let end = block(structure, structure_len, 8)?;
    block(strings, strings_len, 12)?;
    block(reserved, 16, 16)?;

    let mut offset = structure;
    let mut depth = 0usize;
    loop {
        let damaged = |what| Error::Damaged { offset, what };
        let token = word(&tree[..end], offset).ok_or(damaged("the structure has no end"))?;
        // Cannot wrap: the read of four bytes at `offset` has just succeeded.
        let next = offset + 4;
        offset = match token {
            1 => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(Error::TooDeep);
                }
                let name = &tree[next..end];
                let len = name.iter().position(|&byte| byte == 0).ok_or(damaged("a node's name has no end"))?;
                (next + len + 1).next_multiple_of(4)
            }
            2 => {
                depth = depth.checked_sub(1).ok_or(damaged("a node ends that did not begin"))?;
                next
            }
            3 => {
                let len = word(tree, next).ok_or(damaged("a property is cut short"))? as usize;
                let name = word(tree, next + 4).ok_or(damaged("a property is cut short"))? as usize;
                let name = strings.checked_add(name).filter(|&at| at < strings + strings_len);
                let name = name.ok_or(damaged("a property's name lies outside the strings"))?;
                if !tree[name..strings + strings_len].contains(&0) {
                    return Err(damaged("a property's name has no end"));
                }
                if depth == 0 {
                    return Err(damaged("a property belongs to no node"));
                }
                let value = next + 8;
                let stop = value.checked_add(len).filter(|&stop| stop <= end);
                stop.ok_or(damaged("a property's value reaches beyond the structure"))?.next_multiple_of(4)
            }
            4 => next,
            9 if depth == 0 => return Ok(()),
            _ => return Err(damaged("an unknown token, or an end inside a node")),
        };
    }
}

/// Which node of a tree; shown as its path from the root, `/soc/serial@4500`.
///
/// It holds no more than where in the blob the node's name is, and finds the path when it is shown.
#[derive(Clone, Copy, Debug)]
pub struct Path<'a> {
    fdt: Fdt<'a>,
    name: &'a str,
}

impl<'a> Path<'a> {
    /// The node's own name; empty for the root.
    pub fn name(&self) -> &'a str {
        self.name
    }

    fn is(&self, node: FdtNode<'a>) -> bool {
        core::ptr::eq(self.name.as_ptr(), node.name().as_ptr())
    }
}

impl PartialEq for Path<'_> {
    /// The same node of the same blob.
    fn eq(&self, other: &Self) -> bool {
        core::ptr::eq(self.name.as_ptr(), other.name.as_ptr())
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = [""; MAX_DEPTH];
        let mut walk = Place::root(self.fdt).walk();
        while let Some(place) = walk.next() {
            // The root has depth 1 and no name of its own.
            if let Some(slot) = names.get_mut(walk.depth - 1) {
                *slot = place.node.name();
            }
            if self.is(place.node) {
                return match names.get(1..walk.depth) {
                    Some(below) if !below.is_empty() => below.iter().try_for_each(|name| write!(f, "/{name}")),
                    _ => f.write_str("/"),
                };
            }
        }
        Ok(())
    }
}

/// A node and the tree it belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    fdt: Fdt<'a>,
    /// The node.
    pub node: FdtNode<'a>,
}

impl<'a> Place<'a> {
    /// The root of `fdt`.
    pub fn root(fdt: Fdt<'a>) -> Self {
        Self { fdt, node: fdt.root() }
    }

    /// Which node it is.
    pub fn path(&self) -> Path<'a> {
        Path { fdt: self.fdt, name: self.node.name() }
    }

    /// The node's name, with unit address.
    pub fn name(&self) -> &'a str {
        self.node.name()
    }

    /// The direct children.
    pub fn children(self) -> impl Iterator<Item = Self> + 'a {
        self.node.children().map(move |node| Self { fdt: self.fdt, node })
    }

    /// The direct child with this name; a name without unit address finds the first that has it.
    pub fn child(self, name: &str) -> Option<Self> {
        let whole = name.contains('@');
        self.children().find(|child| {
            let have = if whole { child.node.name() } else { child.node.name_without_address() };
            have == name
        })
    }

    /// The value of a property.
    pub fn value(&self, name: &str) -> Option<&'a [u8]> {
        // Reading a value as bytes cannot fail.
        self.node.property(name)?.value_as::<&'a [u8]>().ok()
    }

    /// The properties.
    pub fn properties(self) -> impl Iterator<Item = FdtProperty<'a>> + 'a {
        self.node.properties()
    }

    /// A property that is one 32-bit cell.
    pub fn u32(&self, name: &str) -> Option<u32> {
        self.value(name)?.try_into().ok().map(u32::from_be_bytes)
    }

    /// A property that is one string.
    pub fn string(&self, name: &str) -> Option<&'a str> {
        string(self.value(name)?)
    }

    /// Whether `compatible` lists `wanted`.
    pub fn is_compatible(&self, wanted: &str) -> bool {
        self.value("compatible").is_some_and(|list| strings(list).any(|have| have == wanted))
    }

    /// The node's phandle: `phandle`, or the old `linux,phandle`.
    pub fn phandle(&self) -> Option<u32> {
        self.u32("phandle").or_else(|| self.u32("linux,phandle"))
    }

    /// The node itself and everything below it, parents before children.
    pub fn walk(self) -> Walk<'a> {
        Walk { fdt: self.fdt, next: Some(self), stack: [const { None }; MAX_DEPTH], depth: 0 }
    }
}

/// The node at an absolute path, or at a path that begins with an alias (`serial0`).
/// Path components without unit address find the first node that has the name.
pub fn find<'a>(fdt: Fdt<'a>, name: &str) -> Option<Place<'a>> {
    let root = Place::root(fdt);
    let path = match name.strip_prefix('/') {
        Some(_) => name,
        None => root.child("aliases")?.string(name)?,
    };
    let path = path.strip_prefix('/')?;
    path.split('/').filter(|part| !part.is_empty()).try_fold(root, |place, part| place.child(part))
}

/// One zero-terminated string that fills the whole value.
pub fn string(value: &[u8]) -> Option<&str> {
    let (last, text) = value.split_last()?;
    (*last == 0 && !text.contains(&0)).then(|| core::str::from_utf8(text).ok())?
}

/// The strings of a list; ends at the first that is not text.
pub fn strings(value: &[u8]) -> impl Iterator<Item = &str> {
    value.split_inclusive(|&byte| byte == 0).map_while(string)
}

/// See [`Place::walk`].
pub struct Walk<'a> {
    fdt: Fdt<'a>,
    next: Option<Place<'a>>,
    stack: [Option<Children<'a>>; MAX_DEPTH],
    depth: usize,
}

type Children<'a> = <FdtNode<'a> as Node>::Children<'a>;

impl Walk<'_> {
    /// Leaves out what is below the node that was returned last.
    pub fn skip_children(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Place<'a>;

    fn next(&mut self) -> Option<Place<'a>> {
        let place = match self.next.take() {
            Some(first) => first,
            None => loop {
                let children = self.stack.get_mut(self.depth.checked_sub(1)?)?.as_mut()?;
                if let Some(node) = children.next() {
                    break Place { fdt: self.fdt, node };
                }
                self.depth -= 1;
            },
        };
        // `open` refuses a tree deeper than the stack.
        if let Some(slot) = self.stack.get_mut(self.depth) {
            *slot = Some(place.node.children());
            self.depth += 1;
        }
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::testing::Builder;
    use proptest::prelude::*;
    use std::string::String;
    use std::vec::Vec;

    fn sample() -> Vec<u8> {
        let mut tree = Builder::default();
        tree.begin("").begin("aliases").text("serial0", "/soc/serial@4500").end();
        tree.begin("soc@f0000000").text("compatible", "simple-bus");
        tree.begin("serial@4500").cells("reg", &[0x4500, 0x100]).end().end().end();
        tree.finish()
    }

    #[test]
    fn a_node_is_found_by_alias_and_without_unit_address() {
        let bytes = sample();
        let fdt = open(&bytes).unwrap();
        for name in ["serial0", "/soc/serial", "/soc@f0000000/serial@4500"] {
            let place = find(fdt, name).unwrap();
            assert_eq!(std::format!("{}", place.path()), "/soc@f0000000/serial@4500");
        }
        assert!(find(fdt, "serial1").is_none() && find(fdt, "/soc@1/serial").is_none());
    }

    #[test]
    fn a_walk_meets_every_node_once_and_can_skip() {
        let bytes = sample();
        let root = Place::root(open(&bytes).unwrap());
        let names: Vec<String> = root.walk().map(|place| std::format!("{}", place.path())).collect();
        assert_eq!(names, ["/", "/aliases", "/soc@f0000000", "/soc@f0000000/serial@4500"]);
        let mut walk = root.walk();
        let mut seen = 0;
        while let Some(place) = walk.next() {
            seen += 1;
            if place.is_compatible("simple-bus") {
                walk.skip_children();
            }
        }
        assert_eq!(seen, 3);
    }

    #[test]
    fn bytes_behind_the_tree_are_not_part_of_it() {
        let mut bytes = sample();
        bytes.extend([0xff; 64]);
        assert!(open(&bytes).is_ok());
    }

    #[test]
    fn every_truncation_is_an_error() {
        let bytes = sample();
        for len in 0..bytes.len() {
            assert!(open(&bytes[..len]).is_err(), "cut to {len}");
        }
    }

    #[test]
    fn a_length_that_would_wrap_on_a_32_bit_cpu_is_an_error() {
        let mut bytes = sample();
        let at = bytes.windows(8).position(|w| w == [0, 0, 0, 3, 0, 0, 0, 17]).unwrap();
        bytes[at + 4..at + 8].fill(0xff);
        assert!(matches!(open(&bytes), Err(Error::Damaged { .. })));
    }

    #[test]
    fn nesting_is_bounded() {
        let mut tree = Builder::default();
        tree.begin("");
        for _ in 0..MAX_DEPTH {
            tree.begin("a");
        }
        for _ in 0..=MAX_DEPTH {
            tree.end();
        }
        assert_eq!(open(&tree.finish()).err(), Some(Error::TooDeep));
    }

    proptest! {
        #[test]
        fn no_damage_panics(at in 0usize..200, byte: u8) {
            let mut bytes = sample();
            let at = at % bytes.len();
            bytes[at] = byte;
            if let Ok(fdt) = open(&bytes) {
                Place::root(fdt).walk().for_each(|place| {
                    place.properties().for_each(|property| { let _ = (property.name().len(), place.phandle()); });
                });
            }
        }
    }
}
