//! The configuration's edits of a guest's tree: `node-update`, `node-update-phandle` and aliases.
//!
//! In each node that is visited, what deletes comes first, then values are copied, then strings are put in
//! front of lists. What Topaz skips with a message or in silence is an error here.

use arrayvec::ArrayVec;
use citrine_formats::fdt::{Node as _, Place, Property as _, string};
use citrine_formats::hvconfig::{self, Problem};

use super::arena::{Arena, NodeId, selects};
use super::{Error, VMPIC};

/// The operations; every other property of an edit is copied.
const OPERATIONS: [&str; 4] = ["delete-subnodes", "delete-node", "delete-prop", "prepend-stringlist"];
/// Longest name of a property (Devicetree Specification 0.4 §2.2.4).
const MAX_PROPERTY_NAME: usize = 31;
/// References in one property of a `node-update-phandle`.
const MAX_REFERENCES: usize = 32;

/// Applies every `node-update` below a configuration node to the node of the guest's tree that stands for it.
pub(super) fn values<'a>(arena: &mut Arena, config: Place<'a>, node: NodeId) -> Result<(), Error<'a>> {
    arena.note(config.phandle(), node)?;
    edits(config, "node-update").try_for_each(|edit| merge_values(arena, edit, node))
}

/// What `node-update-phandle` needs: which nodes it may refer to, and which phandles are free.
#[derive(Debug)]
pub(super) struct Phandles<'a> {
    partition: Place<'a>,
    /// The next that no node has; none when they are used up.
    free: Option<u32>,
}

impl<'a> Phandles<'a> {
    /// New phandles are larger than all of the hardware tree's, which its copies keep.
    pub(super) fn new(partition: Place<'a>, hardware: Place<'a>) -> Self {
        let used = hardware.walk().filter_map(|place| place.phandle()).filter(|phandle| *phandle != VMPIC);
        Self { partition, free: following(used.max().unwrap_or(0)) }
    }

    /// Applies every `node-update-phandle` below a configuration node to the node that stands for it.
    pub(super) fn update(&mut self, arena: &mut Arena, config: Place<'a>, node: NodeId) -> Result<(), Error<'a>> {
        edits(config, "node-update-phandle").try_for_each(|edit| self.merge(arena, edit, node))
    }

    /// The recursion is bounded by the depth of the configuration tree.
    fn merge(&mut self, arena: &mut Arena, edit: Place<'a>, node: NodeId) -> Result<(), Error<'a>> {
        for property in edit.properties().filter(|property| !is_phandle(property.name())) {
            let (cells, rest) = property.value().as_chunks::<4>();
            if cells.is_empty() || !rest.is_empty() {
                let problem = Problem::Length { have: property.value().len(), want: "phandles (4 bytes each)" };
                return Err(at(edit, "phandles", problem));
            }
            let mut list = ArrayVec::<[u8; 4], MAX_REFERENCES>::new();
            for cell in cells {
                let target = target(arena, self.partition, edit, "phandles", u32::from_be_bytes(*cell))?;
                let phandle = self.of(arena, target)?;
                let too_many = Problem::TooMany { limit: MAX_REFERENCES };
                list.try_push(phandle.to_be_bytes()).map_err(|_| at(edit, "phandles", too_many))?;
            }
            arena.set_each(node, property.name(), list.iter().copied())?;
        }
        for child in edit.children() {
            let target = descend(arena, node, child)?;
            self.merge(arena, child, target)?;
        }
        Ok(())
    }

    /// The phandle of a node, which gets one when it has none.
    fn of(&mut self, arena: &mut Arena, node: NodeId) -> Result<u32, Error<'a>> {
        if let Some(have) = arena.u32(node, "phandle").or_else(|| arena.u32(node, "linux,phandle")) {
            return Ok(have);
        }
        let new = self.free.ok_or(Error::NoPhandle)?;
        self.free = following(new);
        arena.set_cells(node, "phandle", &[new])?;
        arena.set_cells(node, "linux,phandle", &[new])?;
        Ok(new)
    }
}

/// Makes `/aliases` of the configuration's `aliases`, which name its own nodes; once all nodes are there.
pub(super) fn aliases<'a>(
    arena: &mut Arena,
    partition: hvconfig::Partition<'a>,
    root: NodeId,
) -> Result<(), Error<'a>> {
    for alias in partition.aliases() {
        let (property, _) = alias?;
        // It is one cell, as has just been checked.
        let phandle = property.value().try_into().map_or(0, u32::from_be_bytes);
        let place = partition.place();
        let target = target(arena, place, place.child("aliases").unwrap_or(place), "alias", phandle)?;
        let aliases = arena.add(root, "aliases")?;
        arena.set_path(aliases, property.name(), target)?;
    }
    Ok(())
}

/// The edits with this name, whatever their unit address.
fn edits<'a>(config: Place<'a>, name: &'static str) -> impl Iterator<Item = Place<'a>> {
    config.children().filter(move |child| child.node.name_without_address() == name)
}

/// The recursion is bounded by the depth of the configuration tree.
fn merge_values<'a>(arena: &mut Arena, edit: Place<'a>, node: NodeId) -> Result<(), Error<'a>> {
    arena.note(edit.phandle(), node)?;
    if edit.value("delete-subnodes").is_some() {
        arena.remove_children(node, |_| true);
    }
    for name in list(edit, "delete-node")? {
        arena.remove_children(node, |have| selects(name, have));
    }
    for name in list(edit, "delete-prop")? {
        arena.remove(node, name);
    }
    for property in edit.properties() {
        let name = property.name();
        if !is_phandle(name) && !OPERATIONS.contains(&name) {
            arena.set(node, name, &[property.value()])?;
        }
    }
    let mut pairs = list(edit, "prepend-stringlist")?;
    while let Some(property) = pairs.next() {
        let text = pairs.next().filter(|_| is_property_name(property)).ok_or(at(
            edit,
            "prepend-stringlist",
            Problem::Length { have: edit.value("prepend-stringlist").map_or(0, <[u8]>::len), want: PAIRS },
        ))?;
        arena.prepend(node, property, text)?;
    }
    for child in edit.children() {
        let target = descend(arena, node, child)?;
        merge_values(arena, child, target)?;
    }
    Ok(())
}

const PAIRS: &str = "pairs of strings (property, string)";

/// The child that an edit's child means, made when there is none.
fn descend<'a>(arena: &mut Arena, node: NodeId, child: Place<'a>) -> Result<NodeId, Error<'a>> {
    match arena.child(node, child.name()) {
        Some(found) => Ok(found),
        None => Ok(arena.add(node, child.name())?),
    }
}

/// The node of the guest's tree that stands for the configuration node with this phandle.
fn target<'a>(
    arena: &Arena,
    partition: Place<'a>,
    place: Place<'a>,
    property: &'static str,
    phandle: u32,
) -> Result<NodeId, Error<'a>> {
    if let Some(node) = arena.noted(phandle) {
        return Ok(node);
    }
    let problem = match partition.walk().find(|node| node.phandle() == Some(phandle)) {
        Some(target) => Problem::WrongTarget { target: target.path(), want: "in the guest's tree" },
        None => Problem::Dangling { phandle },
    };
    Err(at(place, property, problem))
}

/// The phandle behind this one; 0xffff_ffff is none.
fn following(phandle: u32) -> Option<u32> {
    let mut free = (1..=2).filter_map(|step| phandle.checked_add(step));
    free.find(|phandle| *phandle != VMPIC && *phandle != u32::MAX)
}

/// The strings of an operation; none without it.
fn list<'a>(edit: Place<'a>, operation: &'static str) -> Result<impl Iterator<Item = &'a str>, Error<'a>> {
    let value = edit.value(operation).unwrap_or_default();
    let strings = || value.split_inclusive(|byte| *byte == 0).map(string);
    if strings().any(|text| text.is_none()) {
        return Err(at(edit, operation, Problem::Length { have: value.len(), want: "a list of strings" }));
    }
    Ok(strings().flatten())
}

fn is_phandle(property: &str) -> bool {
    matches!(property, "phandle" | "linux,phandle")
}

/// Whether a property may have this name.
fn is_property_name(name: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b",._+?#-".contains(&byte);
    (1..=MAX_PROPERTY_NAME).contains(&name.len()) && name.bytes().all(good)
}

fn at<'a>(place: Place<'a>, property: &'static str, problem: Problem<'a>) -> Error<'a> {
    Error::Config(hvconfig::Error { path: place.path(), property, problem })
}
