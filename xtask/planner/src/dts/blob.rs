//! From a tree to a compiled one and back. `dtc` compiles what is built; this is for trees that it refuses, of which
//! the hypervisor's rules still have something to say.

use std::collections::BTreeMap;

use citrine_formats::fdt::writer::{Full, Writer};
use citrine_formats::fdt::{self, Place, Property as _};

use super::{Cell, Item, Node, Property, Reference, Tree, Value};

/// The tree in a compiled one.
///
/// # Errors
/// What is wrong with the bytes.
pub fn from_blob(bytes: &[u8]) -> Result<Tree, fdt::Error> {
    let root = node(Place::root(fdt::open(bytes)?));
    Ok(Tree { root, is_fragment: false })
}

/// The recursion is bounded by [`fdt::MAX_DEPTH`].
fn node(place: Place<'_>) -> Node {
    let properties = place.properties().map(|property| {
        // Reading a value as bytes cannot fail.
        let value = property.value_as::<&[u8]>().unwrap_or(&[]);
        Item::Property(Property { name: property.name().to_owned(), values: values(value), range: 0..0 })
    });
    let mut items: Vec<Item> = properties.collect();
    items.extend(place.children().map(|child| Item::Node(node(child))));
    Node { name: place.name().to_owned(), labels: Vec::new(), items, range: 0..0 }
}

/// Text where it can be text, else cells, else bytes.
fn values(bytes: &[u8]) -> Vec<Value> {
    let plain = |byte: &u8| (b' '..0x7f).contains(byte);
    let is_text =
        |piece: &[u8]| matches!(piece.split_last(), Some((0, rest)) if !rest.is_empty() && rest.iter().all(plain));
    if bytes.is_empty() {
        return Vec::new();
    }
    if bytes.split_inclusive(|byte| *byte == 0).all(is_text) {
        let pieces = bytes.split_inclusive(|byte| *byte == 0);
        return pieces.map(|piece| Value::Text(piece.strip_suffix(&[0]).unwrap_or(piece).to_vec())).collect();
    }
    match bytes.as_chunks::<4>() {
        (cells, []) => {
            vec![Value::Cells(cells.iter().map(|cell| Cell::number(u32::from_be_bytes(*cell))).collect())]
        }
        _ => vec![Value::Bytes(bytes.to_vec())],
    }
}

/// The tree as a compiled one; a reference to a node that there is not becomes a phandle that no node has.
///
/// # Errors
/// It is larger than any reader takes.
pub fn to_blob(tree: &Tree) -> Result<Vec<u8>, Full> {
    let mut phandles = Phandles::default();
    tree.root.walk("", &mut |path, node| {
        for label in &node.labels {
            phandles.labels.insert(label.clone(), path.to_owned());
        }
        if let Some(own) = node.property("phandle").and_then(Property::numbers).as_deref().and_then(<[u32]>::first) {
            phandles.of.insert(path.to_owned(), *own);
        }
    });
    let mut next = 1;
    tree.root.walk("", &mut |_, node| {
        for reference in node.properties().flat_map(Property::references) {
            let Some(path) = phandles.path(reference).map(str::to_owned) else { continue };
            if tree.root.at(&path).is_some() && !phandles.of.contains_key(&path) {
                while phandles.of.values().any(|taken| *taken == next) {
                    next += 1;
                }
                phandles.of.insert(path, next);
            }
        }
    });
    let mut buffer = vec![0; fdt::MAX_LEN as usize];
    let mut writer = Writer::new(&mut buffer)?;
    write(&tree.root, "", &phandles, &mut writer)?;
    let len = writer.finish(0)?;
    buffer.truncate(len);
    Ok(buffer)
}

#[derive(Default)]
struct Phandles {
    /// Paths by label.
    labels: BTreeMap<String, String>,
    /// Phandles by path.
    of: BTreeMap<String, u32>,
}

impl Phandles {
    fn path<'p>(&'p self, reference: &'p Reference) -> Option<&'p str> {
        match reference {
            Reference::Path(path) => Some(path),
            Reference::Label(label) => self.labels.get(label).map(String::as_str),
        }
    }

    fn bytes(&self, value: &Value) -> Vec<u8> {
        match value {
            Value::Text(text) => text.iter().copied().chain([0]).collect(),
            Value::Bytes(bytes) => bytes.clone(),
            Value::Path(to) => self.path(to).unwrap_or_default().bytes().chain([0]).collect(),
            Value::Cells(cells) => cells.iter().flat_map(|cell| self.cell(cell).to_be_bytes()).collect(),
        }
    }

    fn cell(&self, cell: &Cell) -> u32 {
        match cell {
            Cell::Number { value, .. } => *value,
            Cell::Phandle(to) => self.path(to).and_then(|path| self.of.get(path)).copied().unwrap_or(u32::MAX),
        }
    }
}

fn write(node: &Node, path: &str, phandles: &Phandles, to: &mut Writer<'_>) -> Result<(), Full> {
    to.begin(&node.name)?;
    for property in node.properties() {
        let bytes: Vec<u8> = property.values.iter().flat_map(|value| phandles.bytes(value)).collect();
        to.property(&property.name, &[&bytes])?;
    }
    let own = phandles.of.get(if path.is_empty() { "/" } else { path });
    if let (Some(own), None) = (own, node.property("phandle")) {
        to.property("phandle", &[&own.to_be_bytes()])?;
    }
    for child in node.nodes() {
        write(child, &format!("{path}/{}", child.name), phandles, to)?;
    }
    to.end()
}
