//! [`Arena`]: a device tree that can still be changed, in memory of fixed size.
//!
//! Nodes and properties are lists in the order in which they were added, each entry with its owner; names and
//! values are copied into one pool. What is replaced or removed stays in the pool until the next tree: trees
//! are small, and are thrown away as soon as they are flattened.

use core::fmt;

use arrayvec::ArrayVec;
use citrine_formats::fdt::MAX_DEPTH;
use citrine_formats::fdt::writer::{Full, Writer};

/// Nodes of one tree.
const MAX_NODES: usize = 512;
/// Properties of one tree.
const MAX_PROPERTIES: usize = 3072;
/// Bytes of all names and values.
const MAX_BYTES: usize = 96 << 10;
/// Configuration nodes with a phandle that have a node in the guest's tree.
const MAX_ORIGINS: usize = 128;

/// Room for one tree. It is used anew for each; it holds nothing between them that is needed.
#[derive(Debug)]
pub struct Arena {
    nodes: ArrayVec<Node, MAX_NODES>,
    properties: ArrayVec<Property, MAX_PROPERTIES>,
    bytes: ArrayVec<u8, MAX_BYTES>,
    origins: ArrayVec<(u32, NodeId), MAX_ORIGINS>,
}

/// Which node of the arena.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct NodeId(u16);

#[derive(Clone, Copy, Debug)]
struct Node {
    /// None for the root, and for what was removed.
    parent: Option<NodeId>,
    depth: u8,
    name: Text,
}

#[derive(Clone, Copy, Debug)]
struct Property {
    owner: NodeId,
    name: Text,
    value: Text,
}

/// A piece of the pool.
#[derive(Clone, Copy, Debug)]
struct Text {
    start: u32,
    len: u32,
}

/// What a tree has too many of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limit {
    /// Nodes.
    Nodes,
    /// Properties.
    Properties,
    /// Bytes of names and values.
    Bytes,
    /// Levels of nodes.
    Depth,
    /// Nodes that others can refer to.
    References,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nodes => write!(f, "more than {MAX_NODES} nodes"),
            Self::Properties => write!(f, "more than {MAX_PROPERTIES} properties"),
            Self::Bytes => write!(f, "more than {MAX_BYTES} bytes of names and values"),
            Self::Depth => write!(f, "more than {MAX_DEPTH} levels"),
            Self::References => write!(f, "more than {MAX_ORIGINS} nodes that others refer to"),
        }
    }
}

impl Arena {
    /// Room for a tree.
    pub const fn new() -> Self {
        Self {
            nodes: ArrayVec::new_const(),
            properties: ArrayVec::new_const(),
            bytes: ArrayVec::new_const(),
            origins: ArrayVec::new_const(),
        }
    }

    /// Begins a tree; its root.
    pub(super) fn begin(&mut self) -> NodeId {
        self.nodes.clear();
        self.properties.clear();
        self.bytes.clear();
        self.origins.clear();
        // There is room: it has just been emptied.
        self.nodes.extend([Node { parent: None, depth: 1, name: Text { start: 0, len: 0 } }]);
        NodeId(0)
    }

    /// The child with exactly this name, or, when the name has no unit address, the first that has it before
    /// its unit address.
    pub(super) fn child(&self, of: NodeId, name: &str) -> Option<NodeId> {
        self.children(of).find(|child| selects(name, self.name(*child)))
    }

    /// The child with exactly this name.
    pub(super) fn exact_child(&self, of: NodeId, name: &str) -> Option<NodeId> {
        self.children(of).find(|child| self.name(*child) == name)
    }

    /// Adds a child, or returns the one with exactly this name.
    pub(super) fn add(&mut self, to: NodeId, name: &str) -> Result<NodeId, Limit> {
        if let Some(child) = self.exact_child(to, name) {
            return Ok(child);
        }
        let depth = self.nodes.get(usize::from(to.0)).map_or(0, |node| node.depth) + 1;
        if usize::from(depth) > MAX_DEPTH {
            return Err(Limit::Depth);
        }
        let id = NodeId(u16::try_from(self.nodes.len()).map_err(|_| Limit::Nodes)?);
        let name = self.store(name.as_bytes())?;
        self.nodes.try_push(Node { parent: Some(to), depth, name }).map_err(|_| Limit::Nodes)?;
        Ok(id)
    }

    /// Removes the children with these names.
    pub(super) fn remove_children(&mut self, of: NodeId, selected: impl Fn(&str) -> bool) {
        for index in 0..self.nodes.len() as u16 {
            if self.parent(NodeId(index)) == Some(of)
                && selected(self.name(NodeId(index)))
                && let Some(node) = self.nodes.get_mut(usize::from(index))
            {
                node.parent = None;
            }
        }
    }

    /// Sets a property to a value that is given in pieces.
    pub(super) fn set(&mut self, node: NodeId, name: &str, value: &[&[u8]]) -> Result<(), Limit> {
        let start = self.bytes.len();
        value.iter().try_for_each(|piece| self.push(piece))?;
        self.commit(node, name, start)
    }

    /// Sets a property to 32-bit cells.
    pub(super) fn set_cells(&mut self, node: NodeId, name: &str, cells: &[u32]) -> Result<(), Limit> {
        self.set_each(node, name, cells.iter().map(|cell| cell.to_be_bytes()))
    }

    /// Sets a property to pieces of one size.
    pub(super) fn set_each<const N: usize>(
        &mut self,
        node: NodeId,
        name: &str,
        mut pieces: impl Iterator<Item = [u8; N]>,
    ) -> Result<(), Limit> {
        let start = self.bytes.len();
        pieces.try_for_each(|piece| self.push(&piece))?;
        self.commit(node, name, start)
    }

    /// Sets a property to strings, each of which gets its terminating zero.
    pub(super) fn set_strings(&mut self, node: NodeId, name: &str, strings: &[&str]) -> Result<(), Limit> {
        self.set_concatenated(node, name, strings.iter().flat_map(|text| [text, "\0"]))
    }

    /// Sets a property to texts without anything between them.
    pub(super) fn set_concatenated<'t>(
        &mut self,
        node: NodeId,
        name: &str,
        mut texts: impl Iterator<Item = &'t str>,
    ) -> Result<(), Limit> {
        let start = self.bytes.len();
        texts.try_for_each(|text| self.push(text.as_bytes()))?;
        self.commit(node, name, start)
    }

    /// Puts a string in front of a list of strings, which is made when there is none.
    pub(super) fn prepend(&mut self, node: NodeId, name: &str, text: &str) -> Result<(), Limit> {
        let old = self.find(node, name).map_or(Text { start: 0, len: 0 }, |property| property.value);
        let start = self.bytes.len();
        self.push(text.as_bytes())?;
        self.push(&[0])?;
        for index in old.start..old.start + old.len {
            let byte = self.bytes.get(index as usize).copied().unwrap_or(0);
            self.push(&[byte])?;
        }
        self.commit(node, name, start)
    }

    /// Sets a property to the path of a node.
    pub(super) fn set_path(&mut self, node: NodeId, name: &str, of: NodeId) -> Result<(), Limit> {
        let mut chain = ArrayVec::<NodeId, MAX_DEPTH>::new();
        let mut next = Some(of);
        while let Some(id) = next {
            next = self.parent(id);
            if next.is_some() {
                chain.try_push(id).map_err(|_| Limit::Depth)?;
            }
        }
        let start = self.bytes.len();
        if chain.is_empty() {
            self.push(b"/")?;
        }
        for id in chain.iter().rev() {
            let Text { start, len } = self.nodes.get(usize::from(id.0)).map_or(Text { start: 0, len: 0 }, |n| n.name);
            self.push(b"/")?;
            for index in start..start + len {
                let byte = self.bytes.get(index as usize).copied().unwrap_or(0);
                self.push(&[byte])?;
            }
        }
        self.push(&[0])?;
        self.commit(node, name, start)
    }

    /// Removes a property.
    pub(super) fn remove(&mut self, node: NodeId, name: &str) {
        let bytes = &self.bytes;
        self.properties.retain(|property| property.owner != node || text(bytes, property.name) != name.as_bytes());
    }

    /// The value of a property.
    pub(super) fn value(&self, node: NodeId, name: &str) -> Option<&[u8]> {
        self.find(node, name).map(|property| text(&self.bytes, property.value))
    }

    /// A property that is one cell.
    pub(super) fn u32(&self, node: NodeId, name: &str) -> Option<u32> {
        self.value(node, name)?.try_into().ok().map(u32::from_be_bytes)
    }

    /// Notes which node stands for the configuration node with this phandle.
    pub(super) fn note(&mut self, phandle: Option<u32>, node: NodeId) -> Result<(), Limit> {
        match phandle {
            Some(phandle) => self.origins.try_push((phandle, node)).map_err(|_| Limit::References),
            None => Ok(()),
        }
    }

    /// The node that stands for the configuration node with this phandle, unless it was removed.
    pub(super) fn noted(&self, phandle: u32) -> Option<NodeId> {
        let wanted = self.origins.iter().filter(|origin| origin.0 == phandle);
        wanted.map(|origin| origin.1).find(|node| self.is_there(*node))
    }

    /// Writes the tree; its length in bytes.
    pub(super) fn flatten(&self, into: &mut [u8]) -> Result<usize, Full> {
        let mut writer = Writer::new(into)?;
        self.write(NodeId(0), &mut writer)?;
        // The guest's first CPU has the number 0.
        writer.finish(0)
    }

    /// The recursion is bounded by [`MAX_DEPTH`].
    fn write(&self, node: NodeId, writer: &mut Writer<'_>) -> Result<(), Full> {
        writer.begin(self.name(node))?;
        for property in self.properties.iter().filter(|property| property.owner == node) {
            let name = core::str::from_utf8(text(&self.bytes, property.name)).unwrap_or_default();
            writer.property(name, &[text(&self.bytes, property.value)])?;
        }
        self.children(node).try_for_each(|child| self.write(child, writer))?;
        writer.end()
    }

    fn children(&self, of: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        (0..self.nodes.len() as u16).map(NodeId).filter(move |child| self.parent(*child) == Some(of))
    }

    fn parent(&self, of: NodeId) -> Option<NodeId> {
        self.nodes.get(usize::from(of.0))?.parent
    }

    fn name(&self, of: NodeId) -> &str {
        let name = self.nodes.get(usize::from(of.0)).map(|node| text(&self.bytes, node.name));
        name.and_then(|name| core::str::from_utf8(name).ok()).unwrap_or_default()
    }

    fn is_there(&self, node: NodeId) -> bool {
        // Parents come before their children, so this ends.
        node == NodeId(0) || self.parent(node).is_some_and(|parent| self.is_there(parent))
    }

    fn find(&self, node: NodeId, name: &str) -> Option<&Property> {
        self.properties
            .iter()
            .find(|property| property.owner == node && text(&self.bytes, property.name) == name.as_bytes())
    }

    /// Makes what was pushed since `start` the value of a property.
    fn commit(&mut self, owner: NodeId, name: &str, start: usize) -> Result<(), Limit> {
        // The pool is smaller than 4 GiB.
        let value = Text { start: start as u32, len: (self.bytes.len() - start) as u32 };
        let bytes = &self.bytes;
        let same = |have: &&mut Property| have.owner == owner && text(bytes, have.name) == name.as_bytes();
        if let Some(property) = self.properties.iter_mut().find(same) {
            property.value = value;
            return Ok(());
        }
        let name = self.store(name.as_bytes())?;
        self.properties.try_push(Property { owner, name, value }).map_err(|_| Limit::Properties)
    }

    fn store(&mut self, bytes: &[u8]) -> Result<Text, Limit> {
        let text = Text { start: self.bytes.len() as u32, len: bytes.len() as u32 };
        self.push(bytes)?;
        Ok(text)
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), Limit> {
        self.bytes.try_extend_from_slice(bytes).map_err(|_| Limit::Bytes)
    }
}

impl Default for Arena {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether a name in an edit means the node that is called `have`.
pub(super) fn selects(name: &str, have: &str) -> bool {
    have == name || (!name.contains('@') && have.split_once('@').is_some_and(|(front, _)| front == name))
}

fn text(bytes: &[u8], at: Text) -> &[u8] {
    let start = at.start as usize;
    bytes.get(start..start + at.len as usize).unwrap_or_default()
}
