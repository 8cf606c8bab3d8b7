//! Device tree source, read tolerantly and with places: what `import` and the `dts` keys of a profile need.
//!
//! This is no compiler. `dtc` compiles every tree that is built; here a text becomes nodes and properties that
//! remember where they stand, whatever is wrong with the rest of it: every mistake is a diagnostic, and reading goes
//! on. The grammar is that of the Devicetree Specification 0.4 §6, with the directives of `dtc` that need no other
//! file. The same types hold a compiled tree ([`from_blob`]); [`print`] is their normal form, and [`differences`]
//! compares two trees by what they mean.

mod blob;
mod braces;
mod cursor;
mod differences;
mod expression;
mod parser;
mod print;
mod value;

use std::ops::Range;

use crate::diag::Code;

pub use blob::{from_blob, to_blob};
pub use differences::{Paths, differences};
pub use parser::{parse, parse_fragment};
pub use print::print;

/// Text that is no device tree source.
pub const NO_SOURCE: Code = Code::new('S', 101);
/// Braces that do not match.
pub const BRACES: Code = Code::new('S', 102);
/// A semicolon is missing, or a label is apart from its colon.
pub const PUNCTUATION: Code = Code::new('S', 103);
/// A value that cannot be read.
pub const VALUE: Code = Code::new('S', 104);
/// A directive that has no place here.
pub const DIRECTIVE: Code = Code::new('S', 105);
/// A reference to a node that there is not, or a label that two nodes have.
pub const REFERENCE: Code = Code::new('S', 106);
/// Longer or deeper than any real tree.
pub const TOO_LARGE: Code = Code::new('S', 107);

/// Longest text that is read, in bytes; the largest of the vendor's trees has 60 KiB.
pub const MAX_TEXT: usize = 1 << 20;
/// Most nodes and properties of one text: what compares names costs the square of it.
pub const MAX_ITEMS: usize = 10_000;
/// Longest name, in bytes; Topaz's longest path.
const MAX_NAME: usize = 256;
/// Deepest nesting of nodes, the root included; the reader of compiled trees has the same limit.
pub const MAX_DEPTH: usize = citrine_formats::fdt::MAX_DEPTH;

/// A node or a property, in the order of the text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Item {
    /// A property.
    Property(Property),
    /// A node.
    Node(Node),
}

/// A property.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Property {
    /// Its name.
    pub name: String,
    /// What stands between the commas; empty for a property without value.
    pub values: Vec<Value>,
    /// From its name to the end of its value, as bytes of the text; empty in a compiled tree.
    pub range: Range<usize>,
}

/// One piece of a value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// A string, without the zero that ends it.
    Text(Vec<u8>),
    /// 32-bit cells.
    Cells(Vec<Cell>),
    /// Bytes.
    Bytes(Vec<u8>),
    /// The path of a node, as a string.
    Path(Reference),
}

/// One cell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cell {
    /// A number.
    Number {
        /// The number.
        value: u32,
        /// Whether it is written in hexadecimal.
        hex: bool,
    },
    /// The phandle of a node.
    Phandle(Reference),
}

impl Cell {
    /// A number, written as people write addresses: in hexadecimal from 10 on.
    pub const fn number(value: u32) -> Self {
        Self::Number { value, hex: value > 9 }
    }
}

/// Which node is meant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reference {
    /// The one with this label.
    Label(String),
    /// The one at this path.
    Path(String),
}

/// A node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Node {
    /// Its name with unit address; empty for the root.
    pub name: String,
    /// Its labels.
    pub labels: Vec<String>,
    /// What is in it.
    pub items: Vec<Item>,
    /// Its labels and name, as bytes of the text; empty in a compiled tree.
    pub range: Range<usize>,
}

/// A whole tree, or what of one there is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tree {
    /// The root.
    pub root: Node,
    /// Whether nodes stood outside `/ { }`: the text is a part of a tree.
    pub is_fragment: bool,
}

impl Tree {
    /// How many nodes and properties it has, the root included.
    pub fn len(&self) -> usize {
        let mut len = 0;
        self.root.walk("", &mut |_, node| len += 1 + node.properties().count());
        len
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.root.items.is_empty()
    }
}

impl Property {
    /// The value as bytes; none if it refers to nodes.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        for value in &self.values {
            match value {
                Value::Text(text) => {
                    bytes.extend(text);
                    bytes.push(0);
                }
                Value::Bytes(more) => bytes.extend(more),
                Value::Cells(cells) => {
                    for cell in cells {
                        let Cell::Number { value, .. } = cell else { return None };
                        bytes.extend(value.to_be_bytes());
                    }
                }
                Value::Path(_) => return None,
            }
        }
        Some(bytes)
    }

    /// The value as cells of 32 bits; none if it refers to nodes or has other bytes besides.
    pub fn numbers(&self) -> Option<Vec<u32>> {
        let bytes = self.bytes()?;
        let (cells, rest) = bytes.as_chunks::<4>();
        rest.is_empty().then(|| cells.iter().map(|cell| u32::from_be_bytes(*cell)).collect())
    }

    /// The value as one 64-bit number of two cells.
    pub fn number(&self) -> Option<u64> {
        self.bytes()?.try_into().ok().map(u64::from_be_bytes)
    }

    /// The value as one string.
    pub fn text(&self) -> Option<String> {
        citrine_formats::fdt::string(&self.bytes()?).map(str::to_owned)
    }

    /// The value as a list of strings.
    pub fn texts(&self) -> Vec<String> {
        let bytes = self.bytes().unwrap_or_default();
        citrine_formats::fdt::strings(&bytes).map(str::to_owned).collect()
    }

    /// Every reference in the value.
    pub fn references(&self) -> impl Iterator<Item = &Reference> {
        self.values.iter().flat_map(|value| {
            let (path, cells): (Option<&Reference>, &[Cell]) = match value {
                Value::Path(reference) => (Some(reference), &[]),
                Value::Cells(cells) => (None, cells),
                Value::Text(_) | Value::Bytes(_) => (None, &[]),
            };
            path.into_iter().chain(cells.iter().filter_map(|cell| match cell {
                Cell::Phandle(reference) => Some(reference),
                Cell::Number { .. } => None,
            }))
        })
    }

    /// The node that the value, one phandle, refers to.
    pub fn reference(&self) -> Option<&Reference> {
        match self.values.as_slice() {
            [Value::Cells(cells)] => match cells.as_slice() {
                [Cell::Phandle(reference)] => Some(reference),
                _ => None,
            },
            _ => None,
        }
    }
}

impl Node {
    /// The nodes in it.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.items.iter().filter_map(|item| match item {
            Item::Node(node) => Some(node),
            Item::Property(_) => None,
        })
    }

    /// Its properties.
    pub fn properties(&self) -> impl Iterator<Item = &Property> {
        self.items.iter().filter_map(|item| match item {
            Item::Property(property) => Some(property),
            Item::Node(_) => None,
        })
    }

    /// The node of this name in it.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes().find(|node| node.name == name)
    }

    /// The property of this name.
    pub fn property(&self, name: &str) -> Option<&Property> {
        self.properties().find(|property| property.name == name)
    }

    /// Whether `compatible` lists `kind`.
    pub fn is(&self, kind: &str) -> bool {
        self.property("compatible").is_some_and(|list| list.texts().iter().any(|have| have == kind))
    }

    /// The node at a path below this one, whose components are whole names.
    pub fn at(&self, path: &str) -> Option<&Node> {
        path.split('/').filter(|part| !part.is_empty()).try_fold(self, Node::node)
    }

    /// Asks `visit` about this node, whose path is `path`, and all below it, parents first.
    pub fn walk<'n>(&'n self, path: &str, visit: &mut dyn FnMut(&str, &'n Node)) {
        visit(if path.is_empty() { "/" } else { path }, self);
        for node in self.nodes() {
            node.walk(&format!("{path}/{}", node.name), visit);
        }
    }

    /// Adds what `other` holds: its nodes are merged with those of the same name, its properties replace theirs.
    pub fn merge(&mut self, other: Vec<Item>) {
        for item in other {
            match item {
                Item::Property(property) => {
                    let same = |item: &&mut Item| matches!(item, Item::Property(old) if old.name == property.name);
                    match self.items.iter_mut().find(same) {
                        Some(old) => *old = Item::Property(property),
                        None => self.items.push(Item::Property(property)),
                    }
                }
                Item::Node(node) => self.merge_node(node),
            }
        }
    }

    fn merge_node(&mut self, node: Node) {
        let same = self.items.iter_mut().find_map(|item| match item {
            Item::Node(old) if old.name == node.name => Some(old),
            _ => None,
        });
        match same {
            Some(old) => {
                old.labels.extend(node.labels);
                old.merge(node.items);
            }
            None => self.items.push(Item::Node(node)),
        }
    }
}

#[cfg(test)]
mod tests;
