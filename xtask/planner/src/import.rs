//! From a configuration tree of another's making to a profile, and what is wrong with the tree.
//!
//! What has a key of its own in a profile gets it; everything else goes into the `dts` keys, so that rendering the
//! profile gives the same tree. That it does is not hoped for: the profile is rendered, compared with the tree, and
//! what is missing is what the `dts` keys get. What a profile cannot say at all is said.

mod draft;
mod judge;
mod lift;
mod rest;
mod uboot;

use citrine_formats::addr::Address as _;

use crate::board::Board;
use crate::diag::{Code, Diagnostic, Label, has_errors};
use crate::dts::{self, Cell, Item, Node, Property, Tree, Value};
use crate::input;
use crate::place::{Artifacts, place};
use crate::render::{Digests, Template, hv_dts};
use draft::Draft;
use lift::Lift;

pub use judge::{DMA_WINDOW, SHARED_LIODN};
pub use lift::NOT_EXPRESSIBLE;
pub use uboot::{CONFIG_ADDR, NOT_LOADED, TORN_ARGUMENT};

/// The compiled tree cannot be read.
pub const NO_TREE: Code = citrine_core::rules::TREE;

/// A configuration tree, and where it came from.
#[derive(Debug)]
pub struct Read {
    /// The file's name in diagnostics.
    pub file: String,
    /// The tree.
    pub tree: Tree,
    /// Whether the text can be given to `dtc`: nothing is wrong with it so far.
    pub is_source: bool,
    /// What is wrong with the text.
    pub found: Vec<Diagnostic>,
}

/// Reads a configuration tree: a compiled one, or source.
pub fn read(file: &str, bytes: &[u8]) -> Read {
    let refuse = |message: String, help: &str| {
        vec![Diagnostic::error(NO_TREE, message).primary(Label::file(file, "this file")).help(help)]
    };
    let (tree, is_source, found) = if bytes.starts_with(&citrine_formats::fdt::MAGIC.to_be_bytes()) {
        match dts::from_blob(bytes) {
            Ok(tree) if tree.len() > dts::MAX_ITEMS => {
                let message = format!("{file} has more than {} nodes and properties", dts::MAX_ITEMS);
                let help = "a configuration tree has some hundreds: is this the right file?";
                (Tree::default(), false, refuse(message, help))
            }
            Ok(tree) => (tree, false, Vec::new()),
            Err(error) => {
                (Tree::default(), false, refuse(format!("{file} is no device tree: {error}"), "compile it again"))
            }
        }
    } else {
        match std::str::from_utf8(bytes) {
            Ok(text) => {
                let (tree, found) = dts::parse(file, text);
                let is_source = found.is_empty() && !tree.is_fragment;
                (tree, is_source, found)
            }
            Err(_) => {
                let help = "give a tree that dtc has compiled, or its source";
                (Tree::default(), false, refuse(format!("{file} is neither text nor a device tree"), help))
            }
        }
    };
    Read { file: file.to_owned(), tree, is_source, found }
}

/// U-Boot commands that go with a tree: the name of their file, and its text.
#[derive(Clone, Copy, Debug)]
pub struct UBoot<'a> {
    /// The file's name in diagnostics.
    pub file: &'a str,
    /// The commands, with prompts and other lines between them.
    pub text: &'a str,
}

/// What is wrong with the tree, and with the commands that start it.
pub fn judge(read: &Read, board: &Board, uboot: Option<UBoot<'_>>) -> Vec<Diagnostic> {
    let commands = uboot.map(|uboot| uboot::Commands::read(uboot.file, uboot.text)).unwrap_or_default();
    let is_broken = has_errors(&read.found);
    let mut judge = judge::Judge { file: &read.file, board, loaded: &commands.loaded, is_broken, found: Vec::new() };
    judge.all(&read.tree);
    let mut found = judge.found;
    if let Some(uboot) = uboot {
        found.extend(commands.judge(uboot.file, (&read.file, &read.tree)));
    }
    found.sort_by_key(|d| std::cmp::Reverse(d.severity));
    found
}

/// What a profile is made for.
#[derive(Clone, Copy, Debug)]
pub struct For<'a> {
    /// The board.
    pub board: &'a Board,
    /// The template that renders the profile back.
    pub template: &'a Template<'a>,
    /// The artifacts that profiles may name.
    pub artifacts: &'a Artifacts,
}

/// The profile's text, named `name`, and what it cannot say of the tree; no text if it would say nothing.
pub fn profile(read: &Read, to: For<'_>, uboot: Option<UBoot<'_>>, name: &str) -> (Option<String>, Vec<Diagnostic>) {
    if read.tree.is_fragment {
        return (None, Vec::new());
    }
    let (tree, from_flash) = in_memory(&without_digests(&read.tree), to.board);
    let mut lift = Lift::new(&read.file, &tree, to.board, name);
    // What follows from a text that is wrong itself says nothing new.
    let is_broken = has_errors(&read.found);
    if lift.all().is_none() {
        return (None, if is_broken { Vec::new() } else { lift.found });
    }
    let mut draft = lift.draft;
    draft.bootargs = uboot
        .and_then(|uboot| uboot::Commands::read(uboot.file, uboot.text).other_bootargs())
        .unwrap_or_else(|| format!("console=ttyS0,{}", to.board.baud()));
    let mut found = Vec::new();
    let whole = || Label::file(&read.file, "this configuration tree");
    match rendered(&draft, to) {
        Ok(made) => rest::fill(&mut draft, &tree, &made),
        Err(why) => found.extend(why),
    }
    let text = draft.text();
    match rendered(&draft, to) {
        Ok(made) => {
            let differences = dts::differences((&read.file, &tree), ("the rendered tree", &made), MAX_DIFFERENCES);
            if !differences.is_empty() {
                let message = format!("the profile does not render to the same tree: {}", differences.join("; "));
                let help = "what a profile always says, or cannot say, differs; correct the profile by hand";
                found.push(Diagnostic::error(NOT_EXPRESSIBLE, message).primary(whole()).help(help));
            }
        }
        Err(why) => found.extend(why),
    }
    if from_flash {
        let message = "the images lie in the flash, at the offsets of the slots";
        let notice = Diagnostic::new(NOT_EXPRESSIBLE, crate::diag::Severity::Notice, message).primary(whole());
        found.push(notice.help("the medium is no part of a profile: render it with --media nor"));
    }
    if is_broken {
        found.retain(|d| d.severity < crate::diag::Severity::Error);
    }
    (Some(text), found)
}

/// Most differences that are named.
const MAX_DIFFERENCES: usize = 10;

/// The tree that the draft renders to.
fn rendered(draft: &Draft, to: For<'_>) -> Result<Tree, Vec<Diagnostic>> {
    let file = format!("{}.toml", draft.name);
    let (profile, found) = input::profile::parse(&file, &draft.text());
    let Some(profile) = profile else { return Err(found) };
    let plan = place(to.board, &profile, to.artifacts)?;
    let text = hv_dts(&plan, &Digests::new(), to.template).map_err(|error| vec![*error])?;
    let (tree, found) = dts::parse(to.template.file, &text);
    if has_errors(&found) { Err(found) } else { Ok(tree) }
}

/// Digests are the bundle's: it makes new ones.
fn without_digests(tree: &Tree) -> Tree {
    let mut tree = tree.clone();
    for item in &mut tree.root.items {
        if let Item::Node(node) = item {
            node.items
                .retain(|item| !matches!(item, Item::Property(p) if p.name == citrine_formats::hvconfig::DIGESTS));
        }
    }
    tree
}

/// The tree with images that lie in the slots of the flash in those of the memory, and whether there are any.
fn in_memory(tree: &Tree, board: &Board) -> (Tree, bool) {
    let mut tree = tree.clone();
    let mut any = false;
    let Some(nor) = &board.nor else { return (tree, any) };
    let slots = [board.slots.kernel, board.slots.rootfs];
    let nodes = tree.root.items.iter_mut().filter_map(|item| match item {
        Item::Node(node) if node.is("partition") => Some(node),
        _ => None,
    });
    for node in nodes {
        for name in ["guest-image", "linux-rootfs"] {
            let Some(property) = property_mut(node, name) else { continue };
            let Some(mut cells) = property.numbers().filter(|cells| cells.len() == 6) else { continue };
            let [high, low, ..] = cells.as_mut_slice() else { continue };
            let at = u64::from(*high) << 32 | u64::from(*low);
            let offset = at.wrapping_sub(nor.span.base().get());
            let slot = slots.iter().find(|slot| slot.get().checked_sub(board.image_area.base().get()) == Some(offset));
            if let Some(slot) = slot {
                any = true;
                (*high, *low) = ((slot.get() >> 32) as u32, slot.get() as u32);
                property.values = vec![Value::Cells(cells.into_iter().map(Cell::number).collect())];
            }
        }
    }
    (tree, any)
}

fn property_mut<'n>(node: &'n mut Node, name: &str) -> Option<&'n mut Property> {
    node.items.iter_mut().find_map(|item| match item {
        Item::Property(property) if property.name == name => Some(property),
        _ => None,
    })
}
