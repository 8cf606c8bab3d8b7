//! The profile's own devicetree source: it may add to the nodes that the template makes, but not change them.

use citrine_core::config::{Config, Partition};
use citrine_core::rules::TREE;
use citrine_formats::fdt;
use citrine_formats::hvconfig::Tree;

use crate::diag::{Code, Diagnostic, Result};
use crate::dts::{self, Item, Node};
use crate::plan::LoadPlan;

/// The profile's own source sets what the tool sets.
pub const SET_TWICE: Code = Code::new('R', 105);
/// The profile's own source gives a partition memory that is another's.
pub const MEMORY_OF_OTHERS: Code = Code::new('R', 106);

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
/// [`SET_TWICE`]; [`MEMORY_OF_OTHERS`]; [`TREE`]: the hypervisor would refuse the whole.
pub fn judge(plan: &LoadPlan, generated: &str, owns: &[Own<'_>]) -> Result<()> {
    if owns.is_empty() {
        return Ok(());
    }
    let (mut tree, _) = dts::parse("hv.dts", generated);
    let made = dts::to_blob(&tree).ok();
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
    // A piece merges with others before it is judged: which one is wrong is known only of a partition.
    let place = |label: Option<&str>| {
        let partition = plan.profile.partitions.iter().find(|partition| label == Some(partition.label.as_str()));
        let own = owns.iter().find(|own| partition.is_some_and(|of| own.path.first() == Some(&of.name)));
        let known = own.map(|own| plan.profile.places.label(&own.key, "in this source"));
        known.or_else(|| Some(plan.profile.places.label(&owns.first()?.key, "the first piece of it")))
    };
    let config = match configuration(&blob) {
        Ok(config) => config,
        Err(error) => {
            let message = format!("with the profile's own source, hv.dts would be refused: {error}");
            let diagnostic = Diagnostic { primary: place(None), ..Diagnostic::error(TREE, message) };
            return Err(diagnostic
                .help("correct the source: the hypervisor takes nothing that it does not know")
                .into());
        }
    };
    let made = made.as_deref().and_then(|made| configuration(made).ok()).unwrap_or_default();
    match borrowed(&made, &config) {
        None => Ok(()),
        Some((partition, area)) => {
            let message = format!("the profile's own source gives {partition} the area {area}, which is not its own");
            let diagnostic =
                Diagnostic { primary: place(Some(partition)), ..Diagnostic::error(MEMORY_OF_OTHERS, message) };
            Err(diagnostic.help("let partitions share memory with [[shared]]: then every rule knows of it").into())
        }
    }
}

/// What the hypervisor would make of a tree.
fn configuration(blob: &[u8]) -> std::result::Result<Config<'_>, String> {
    let tree = fdt::open(blob).map_err(|error| error.to_string())?;
    Tree::new(tree).and_then(Config::from_tree).map_err(|error| error.to_string())
}

/// The first partition that the source lets map what only others have without it, the hypervisor included, and the area.
fn borrowed<'a>(made: &Config<'_>, config: &Config<'a>) -> Option<(&'a str, &'a str)> {
    let maps = |owner: &Partition<'_>, span| {
        owner.memory.iter().filter_map(|mapping| made.areas.get(mapping.area)).any(|area| area.span.overlaps(span))
    };
    let hypervisors =
        |span| made.hypervisor.memory.iter().filter_map(|area| made.areas.get(*area)).any(|a| a.span.overlaps(span));
    config.partitions.iter().find_map(|partition| {
        let areas = partition.memory.iter().filter_map(|mapping| config.areas.get(mapping.area));
        let mut new = areas.filter(|area| {
            let has = |owner: &&Partition<'_>| maps(owner, &area.span);
            let own = made.partitions.iter().filter(|owner| owner.name == partition.name).find(has);
            let others = made.partitions.iter().filter(|owner| owner.name != partition.name).find(has);
            own.is_none() && others.is_some() || hypervisors(&area.span)
        });
        new.next().map(|area| (partition.name, area.name))
    })
}

/// The first property, with the path of its node, that both nodes have.
fn first_common(made: &Node, own: &Node, path: &str) -> Option<(String, String)> {
    if let Some(property) = own.properties().find(|property| made.property(&property.name).is_some()) {
        return Some((path.to_owned(), property.name.clone()));
    }
    own.nodes().find_map(|node| first_common(made.node(&node.name)?, node, &format!("{path}/{}", node.name)))
}
