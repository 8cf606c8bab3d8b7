//! Whether two trees mean the same: node by node, in any order, with the node that a phandle means instead of its
//! number.

use std::collections::{BTreeMap, BTreeSet};

use super::{Cell, Node, Property, Reference, Tree, Value};

/// The properties of a configuration tree whose value is a phandle.
const PHANDLES: [&str; 7] = ["phys-mem", "endpoint", "dma-window", "stdout", "partition", "global-doorbell", "fsl,msi"];

/// A piece of a value: bytes, or a node.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Piece {
    Bytes(Vec<u8>),
    Node(String),
}

/// How the trees differ, in words, the first `most` of it; nothing when they mean the same. `a` and `b` are what
/// the trees are called.
pub fn differences((a, first): (&str, &Tree), (b, second): (&str, &Tree), most: usize) -> Vec<String> {
    let mut compare = Compare { names: [a, b], trees: [Paths::of(first), Paths::of(second)], most, found: Vec::new() };
    compare.nodes("", &first.root, &second.root);
    compare.found
}

/// How the nodes of a tree are called: by label, and by phandle.
#[derive(Debug)]
pub struct Paths {
    labels: BTreeMap<String, String>,
    phandles: BTreeMap<u32, String>,
}

impl Paths {
    /// Those of `tree`.
    pub fn of(tree: &Tree) -> Self {
        let mut names = Self { labels: BTreeMap::new(), phandles: BTreeMap::new() };
        tree.root.walk("", &mut |path, node| {
            for label in &node.labels {
                names.labels.insert(label.clone(), path.to_owned());
            }
            let own = node.property("phandle").or_else(|| node.property("linux,phandle"));
            if let Some([own]) = own.and_then(Property::numbers).as_deref() {
                names.phandles.insert(*own, path.to_owned());
            }
        });
        names
    }

    /// The path of the node that is meant; `&label` for a label that no node has.
    pub fn path(&self, reference: &Reference) -> String {
        match reference {
            Reference::Path(path) => path.clone(),
            Reference::Label(label) => self.labels.get(label).cloned().unwrap_or_else(|| format!("&{label}")),
        }
    }

    /// The path of the node that a property of one phandle means.
    pub fn target(&self, property: &Property) -> Option<String> {
        match self.pieces(property, true).as_slice() {
            [Piece::Node(path)] => Some(path.clone()),
            _ => None,
        }
    }

    /// The property with every reference, and every number that is one, as the path of the node.
    pub fn by_path(&self, path: &str, property: &Property) -> Property {
        let refers = refers(path, &property.name);
        let cell = |cell: &Cell| match cell {
            Cell::Phandle(to) => Cell::Phandle(Reference::Path(self.path(to))),
            Cell::Number { value, .. } => match self.phandles.get(value) {
                Some(path) if refers => Cell::Phandle(Reference::Path(path.clone())),
                _ => cell.clone(),
            },
        };
        let value = |value: &Value| match value {
            Value::Path(to) => Value::Path(Reference::Path(self.path(to))),
            Value::Cells(cells) => Value::Cells(cells.iter().map(cell).collect()),
            other => other.clone(),
        };
        Property { values: property.values.iter().map(value).collect(), ..property.clone() }
    }

    /// The pieces of a value; `refers` when its numbers are phandles.
    fn pieces(&self, property: &Property, refers: bool) -> Vec<Piece> {
        let mut pieces = Vec::new();
        for value in &property.values {
            match value {
                Value::Text(text) => bytes(&mut pieces, &[text.as_slice(), &[0]].concat()),
                Value::Bytes(more) => bytes(&mut pieces, more),
                Value::Path(to) => bytes(&mut pieces, format!("{}\0", self.path(to)).as_bytes()),
                Value::Cells(cells) => {
                    for cell in cells {
                        match cell {
                            Cell::Phandle(to) => pieces.push(Piece::Node(self.path(to))),
                            Cell::Number { value, .. } => bytes(&mut pieces, &value.to_be_bytes()),
                        }
                    }
                }
            }
        }
        if refers { pieces.into_iter().flat_map(|piece| self.follow(piece)).collect() } else { pieces }
    }

    /// The node whose phandle is next, and what follows.
    fn phandle_at<'n, 'u>(&'n self, units: &'u [Unit<'u>]) -> Option<(&'n str, &'u [Unit<'u>])> {
        let (cell, rest) = units.split_first_chunk::<4>()?;
        let mut phandle = 0;
        for unit in cell {
            let Unit::Byte(byte) = unit else { return None };
            phandle = phandle << 8 | u32::from(*byte);
        }
        Some((self.phandles.get(&phandle)?.as_str(), rest))
    }

    /// The nodes that bytes mean as phandles.
    fn follow(&self, piece: Piece) -> Vec<Piece> {
        let Piece::Bytes(bytes) = &piece else { return vec![piece] };
        let (cells, rest) = bytes.as_chunks::<4>();
        let nodes: Option<Vec<Piece>> = cells
            .iter()
            .map(|cell| Some(Piece::Node(self.phandles.get(&u32::from_be_bytes(*cell))?.clone())))
            .collect();
        match nodes {
            Some(nodes) if rest.is_empty() && !nodes.is_empty() => nodes,
            _ => vec![piece],
        }
    }
}

fn bytes(pieces: &mut Vec<Piece>, more: &[u8]) {
    match pieces.last_mut() {
        Some(Piece::Bytes(last)) => last.extend(more),
        _ => pieces.push(Piece::Bytes(more.to_vec())),
    }
}

struct Compare<'n> {
    names: [&'n str; 2],
    trees: [Paths; 2],
    most: usize,
    found: Vec<String>,
}

impl Compare<'_> {
    fn say(&mut self, what: String) {
        if self.found.len() < self.most {
            self.found.push(what);
        }
    }

    fn only(&mut self, which: usize, what: &str) {
        let name = self.names.get(which).copied().unwrap_or_default().to_owned();
        self.say(format!("{what} is only in {name}"));
    }

    fn nodes(&mut self, path: &str, a: &Node, b: &Node) {
        let shown = if path.is_empty() { "/" } else { path };
        let is_own = |property: &&Property| !matches!(property.name.as_str(), "phandle" | "linux,phandle");
        // Of a property that stands there twice, the last counts.
        let index = |node: &Node| -> BTreeMap<String, Property> {
            node.properties().filter(is_own).map(|property| (property.name.clone(), property.clone())).collect()
        };
        let (mine, theirs) = (index(a), index(b));
        let names: BTreeSet<&String> = mine.keys().chain(theirs.keys()).collect();
        for name in names {
            let what = format!("{shown}: {}", name.escape_debug());
            match (mine.get(name), theirs.get(name)) {
                (Some(one), Some(two)) => self.values(path, &what, one, two),
                (Some(_), None) => self.only(0, &what),
                _ => self.only(1, &what),
            }
        }
        let (mine, theirs) = (children(a), children(b));
        let names: BTreeSet<&String> = mine.keys().chain(theirs.keys()).collect();
        for name in names {
            let below = format!("{path}/{name}");
            match (mine.get(name).map(Vec::as_slice), theirs.get(name).map(Vec::as_slice)) {
                (Some([one]), Some([two])) => self.nodes(&below, one, two),
                (Some(one), Some(two)) if one.len() == two.len() => {
                    for (one, two) in one.iter().zip(two) {
                        self.nodes(&below, one, two);
                    }
                }
                (Some(one), two) if one.len() > two.map_or(0, <[_]>::len) => self.only(0, &below),
                _ => self.only(1, &below),
            }
        }
    }

    fn values(&mut self, path: &str, what: &str, one: &Property, two: &Property) {
        let refers = refers(path, &one.name);
        let [first, second] = &self.trees;
        let (a, b) = (first.pieces(one, refers), second.pieces(two, refers));
        if !is_equal((&a, first), (&b, second)) {
            let [first, second] = self.names;
            self.say(format!("{what} is {} in {first} and {} in {second}", words(&a), words(&b)));
        }
    }
}

/// Whether the numbers of this property, of a node with this path, are phandles.
fn refers(path: &str, property: &str) -> bool {
    PHANDLES.contains(&property)
        || path.ends_with("/aliases")
        || path.split('/').any(|part| part.split('@').next() == Some("node-update-phandle"))
}

/// Whether the pieces mean the same; where one tree names a node, the other may have its phandle.
fn is_equal((a, mine): (&[Piece], &Paths), (b, theirs): (&[Piece], &Paths)) -> bool {
    let (a, b) = (units(a), units(b));
    let (mut a, mut b) = (a.as_slice(), b.as_slice());
    loop {
        match (a, b) {
            ([], []) => return true,
            ([one, rest_a @ ..], [two, rest_b @ ..]) if one == two => (a, b) = (rest_a, rest_b),
            ([Unit::Node(path), rest_a @ ..], [Unit::Byte(_), ..]) => match theirs.phandle_at(b) {
                Some((other, rest_b)) if other == *path => (a, b) = (rest_a, rest_b),
                _ => return false,
            },
            ([Unit::Byte(_), ..], [Unit::Node(path), rest_b @ ..]) => match mine.phandle_at(a) {
                Some((other, rest_a)) if other == *path => (a, b) = (rest_a, rest_b),
                _ => return false,
            },
            _ => return false,
        }
    }
}

/// A byte, or a node instead of four.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit<'p> {
    Byte(u8),
    Node(&'p str),
}

fn units(pieces: &[Piece]) -> Vec<Unit<'_>> {
    let mut units = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Node(path) => units.push(Unit::Node(path)),
            Piece::Bytes(bytes) => units.extend(bytes.iter().copied().map(Unit::Byte)),
        }
    }
    units
}

fn children(node: &Node) -> BTreeMap<String, Vec<&Node>> {
    let mut children: BTreeMap<String, Vec<&Node>> = BTreeMap::new();
    for child in node.nodes() {
        children.entry(child.name.clone()).or_default().push(child);
    }
    children
}

/// A value for people: text, or numbers, and not all of a long one.
fn words(pieces: &[Piece]) -> String {
    let piece = |piece: &Piece| match piece {
        Piece::Node(path) => path.clone(),
        Piece::Bytes(bytes) => match citrine_formats::fdt::string(bytes) {
            Some(text) => format!("{text:?}"),
            None => {
                let (cells, rest) = bytes.as_chunks::<4>();
                let cells: Vec<String> = cells.iter().map(|cell| format!("{:#x}", u32::from_be_bytes(*cell))).collect();
                let rest: String = rest.iter().map(|byte| format!(" {byte:02x}")).collect();
                format!("<{}{rest}>", cells.join(" "))
            }
        },
    };
    let text: Vec<String> = pieces.iter().map(piece).collect();
    let text = if text.is_empty() { "empty".to_owned() } else { text.join(" ") };
    if text.chars().count() > 80 { text.chars().take(77).chain("...".chars()).collect() } else { text }
}
