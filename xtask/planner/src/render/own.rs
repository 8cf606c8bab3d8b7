//! The profile's own devicetree source: it may add to the nodes that the template makes, but not change them.

use citrine_core::config::Config;
use citrine_core::rules::TREE;
use citrine_formats::fdt;
use citrine_formats::hvconfig::Tree;

use crate::diag::{Code, Diagnostic, Result};
use crate::dts::{self, Item, Node};
use crate::plan::LoadPlan;

/// The profile's own source sets what the tool sets.
pub const SET_TWICE: Code = Code::new('R', 105);

/// A piece of the profile's own source: the path of the node that it is merged into, and the key that holds it.
pub struct Own<'p> {
    /// Names of the nodes from the root, which is not among them.
    pub path: Vec<String>,
    /// Path of the key in the profile.
    pub key: String,
    /// The source.
    pub dts: &'p str,
}

/// Judges the pieces against the tree that is made without them.
///
/// # Errors
/// [`SET_TWICE`], or [`TREE`]: the hypervisor would refuse the whole.
pub fn judge(plan: &LoadPlan, generated: &str, owns: &[Own<'_>]) -> Result<()> {
    if owns.is_empty() {
        return Ok(());
    }
    let (mut tree, _) = dts::parse("hv.dts", generated);
    for own in owns {
        let path = own.path.join("/");
        let (items, _) = dts::parse_fragment("", own.dts, 0);
        let node = Node { items, ..Node::default() };
        let Some((at, property)) = tree.root.at(&path).and_then(|made| first_common(made, &node, &path)) else {
            let inner = own.path.iter().rev().fold(node.items, |items, name| {
                vec![Item::Node(Node { name: name.clone(), items, ..Node::default() })]
            });
            tree.root.merge(inner);
            continue;
        };
        let message = format!("the profile's own source sets `{property}` of /{at}, which is set already");
        return Err(Diagnostic::error(SET_TWICE, message)
            .primary(plan.profile.places.label(&own.key, "in this source"))
            .help("use the profile's keys for what has one: docs/adding-a-profile.md lists them")
            .into());
    }
    // A label that is missing is for dtc to find: it has a phandle of no node here.
    let Ok(blob) = dts::to_blob(&tree) else { return Ok(()) };
    let read = fdt::open(&blob).map_err(|error| error.to_string());
    let read =
        read.and_then(|tree| Tree::new(tree).and_then(Config::from_tree).map(drop).map_err(|error| error.to_string()));
    let (Err(error), Some(first)) = (read, owns.first()) else { return Ok(()) };
    Err(Diagnostic::error(TREE, format!("with the profile's own source, hv.dts would be refused: {error}"))
        .primary(plan.profile.places.label(&first.key, "the first piece of it"))
        .help("correct the source: the hypervisor takes nothing that it does not know")
        .into())
}

/// The first property, with the path of its node, that both nodes have.
fn first_common(made: &Node, own: &Node, path: &str) -> Option<(String, String)> {
    if let Some(property) = own.properties().find(|property| made.property(&property.name).is_some()) {
        return Some((path.to_owned(), property.name.clone()));
    }
    own.nodes().find_map(|node| first_common(made.node(&node.name)?, node, &format!("{path}/{}", node.name)))
}
