//! The normal form of device tree source: one property or node per line, tabs, no comments.

use std::fmt::Write as _;

use super::{Cell, Item, Node, Property, Reference, Value};

/// Nodes and properties as text, each line indented by so many tabs.
pub fn print(items: &[Item], indent: usize) -> String {
    let mut out = String::new();
    block(items, indent, &mut out);
    out
}

fn block(items: &[Item], indent: usize, out: &mut String) {
    let tabs = "\t".repeat(indent);
    for item in items {
        out.push_str(&tabs);
        match item {
            Item::Property(property) => line(property, out),
            Item::Node(node) => {
                head(node, out);
                block(&node.items, indent + 1, out);
                let _ = writeln!(out, "{tabs}}};");
            }
        }
    }
}

fn head(node: &Node, out: &mut String) {
    for label in &node.labels {
        let _ = write!(out, "{label}: ");
    }
    let _ = writeln!(out, "{} {{", node.name);
}

fn line(property: &Property, out: &mut String) {
    out.push_str(&property.name);
    for (index, value) in property.values.iter().enumerate() {
        out.push_str(if index == 0 { " = " } else { ", " });
        piece(value, out);
    }
    out.push_str(";\n");
}

fn piece(value: &Value, out: &mut String) {
    match value {
        Value::Text(text) => string(text, out),
        Value::Cells(cells) => {
            let cells: Vec<String> = cells.iter().map(cell).collect();
            let _ = write!(out, "<{}>", cells.join(" "));
        }
        Value::Bytes(bytes) => {
            let bytes: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            let _ = write!(out, "[{}]", bytes.join(" "));
        }
        Value::Path(to) => out.push_str(&reference(to)),
    }
}

fn cell(cell: &Cell) -> String {
    match cell {
        Cell::Number { value, hex: true } => format!("{value:#x}"),
        Cell::Number { value, hex: false } => value.to_string(),
        Cell::Phandle(to) => reference(to),
    }
}

fn reference(to: &Reference) -> String {
    match to {
        Reference::Label(label) => format!("&{label}"),
        Reference::Path(path) => format!("&{{{path}}}"),
    }
}

/// A string as `dtc` reads it back; a hexadecimal escape ends after two digits. An apostrophe is one, so that the text
/// can stand between three of them in a profile.
fn string(text: &[u8], out: &mut String) {
    out.push('"');
    for &byte in text {
        match byte {
            b'"' | b'\\' => {
                out.push('\\');
                out.push(char::from(byte));
            }
            b' '..=b'~' if byte != b'\'' => out.push(char::from(byte)),
            other => {
                let _ = write!(out, "\\x{other:02x}");
            }
        }
    }
    out.push('"');
}
