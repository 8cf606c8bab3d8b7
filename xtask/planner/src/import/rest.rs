//! What of a tree the profile does not make yet, as source for its `dts` keys.

use super::draft::{Draft, Entry};
use crate::dts::{Item, Node, Paths, Property, Tree};

/// Adds to the draft what is in `wanted` and not in `made`.
pub(super) fn fill(draft: &mut Draft, wanted: &Tree, made: &Tree) {
    let rest = missing("", &wanted.root, Some(&made.root), &Paths::of(wanted));
    for item in rest {
        let Item::Node(node) = item else {
            draft.dts.push(item);
            continue;
        };
        match draft.partitions.iter_mut().find(|partition| partition.node == node.name) {
            None => draft.dts.push(Item::Node(node)),
            Some(partition) => {
                for item in node.items {
                    match item {
                        Item::Node(mut own) => {
                            if own.name == "portal-devices" {
                                own.items = place(&mut partition.portal_devices, own.items);
                                if own.items.is_empty() {
                                    continue;
                                }
                            }
                            partition.dts.extend(place(&mut partition.devices, vec![Item::Node(own)]));
                        }
                        Item::Property(_) => partition.dts.push(item),
                    }
                }
            }
        }
    }
}

/// Puts what belongs to a device with it; returns the rest.
fn place(entries: &mut [Entry], items: Vec<Item>) -> Vec<Item> {
    let mut rest = Vec::new();
    for item in items {
        match item {
            Item::Node(node) => match entries.iter_mut().find(|entry| entry.node == node.name) {
                Some(entry) => entry.dts = node.items,
                None => rest.push(Item::Node(node)),
            },
            Item::Property(_) => rest.push(item),
        }
    }
    rest
}

/// What is in `wanted` and not in `made`; references as paths, since labels are the template's.
fn missing(path: &str, wanted: &Node, made: Option<&Node>, wants: &Paths) -> Vec<Item> {
    let mut rest = Vec::new();
    for item in &wanted.items {
        match item {
            Item::Property(property) if matches!(property.name.as_str(), "phandle" | "linux,phandle") => {}
            Item::Property(property) => {
                // What is made otherwise cannot be set again: it stays a difference.
                if made.is_none_or(|made| made.property(&property.name).is_none()) {
                    rest.push(Item::Property(plain(wants.by_path(path, property))));
                }
            }
            Item::Node(node) => {
                let same = made.and_then(|made| made.node(&node.name));
                let below = format!("{path}/{}", node.name);
                let items = missing(&below, node, same, wants);
                if same.is_none() || !items.is_empty() {
                    rest.push(Item::Node(Node { name: node.name.clone(), items, ..Node::default() }));
                }
            }
        }
    }
    rest
}

fn plain(property: Property) -> Property {
    Property { range: 0..0, ..property }
}
