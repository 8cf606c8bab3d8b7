//! The keys of `boards/devices/*.toml`, which [`crate::inventory`] writes; and hardware trees in place of such a file.

use std::collections::BTreeMap;

use citrine_formats::addr::{Span, TruePhys};

use super::IMPOSSIBLE_VALUE;
use super::reader::{At, Table, read_document};
use crate::board::{Board, HardwareTree};
use crate::diag::{Code, Diagnostic, Label};
use crate::inventory::{Device, Inventory};
use crate::source::Places;

/// A board's file and its hardware tree tell of different boards.
pub const OTHER_BOARD: Code = Code::new('D', 112);
/// A file that is to be a hardware tree is none.
pub const NO_HARDWARE_TREE: Code = Code::new('D', 120);

/// Reads the text of an inventory and gives it to its board. `file` is its name in diagnostics.
pub fn attach(board: &mut Board, file: &str, text: &str) -> Vec<Diagnostic> {
    let (inventory, places, mut found) = parse_with_places(file, text);
    let Some(inventory) = inventory else { return found };
    let help = "correct the board's file; if the tree has changed, make the inventory anew: docs/adding-a-board.md";
    found.extend(compare(board, &inventory, &|key, text| places.label(key, text), help));
    board.inventory = Some(inventory);
    found
}

/// Gives a board the devices of the hardware tree in `bytes`, and that tree in place of its own. `file` is its path.
pub fn attach_tree(board: &mut Board, file: &str, bytes: &[u8]) -> Vec<Diagnostic> {
    let inventory = match Inventory::from_tree(bytes) {
        Ok(inventory) => inventory,
        Err(error) => {
            let no_tree = Diagnostic::error(NO_HARDWARE_TREE, format!("{file} is no hardware tree: {error}"))
                .primary(Label::file(file, "this file"))
                .fact("file", file)
                .help("give a flattened device tree: `dtc -I dts -O dtb -o FILE.dtb FILE.dts` makes one");
            return vec![no_tree];
        }
    };
    let help = "give the hardware tree of this board, or name the board that it is of";
    let found = compare(board, &inventory, &|_, text| Label::file(file, text), help);
    board.hardware_tree = HardwareTree::Given(file.to_owned());
    board.inventory = Some(inventory);
    found
}

/// Where a board's file and its hardware tree differ; `place` is where the tree says something.
fn compare(
    board: &Board,
    inventory: &Inventory,
    place: &dyn Fn(&str, &'static str) -> Label,
    help: &str,
) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut differ = |key: &str, board_says: String, tree_says: String| {
        found.push(
            Diagnostic::error(
                OTHER_BOARD,
                format!("{} has {board_says}, but its hardware tree {tree_says}", board.name),
            )
            .primary(board.places.label(key, "this is what the board's file says"))
            .related(place(key, "and this its hardware tree"))
            .help(help),
        );
    };
    if board.cpus != inventory.cpus {
        differ("cpus", format!("{} CPUs", board.cpus), inventory.cpus.to_string());
    }
    if board.compatible != inventory.compatible {
        differ("compatible", format!("`{}`", board.compatible), format!("`{}`", inventory.compatible));
    }
    found
}

/// Reads the text of an inventory. `file` is its name in diagnostics.
pub fn parse(file: &str, text: &str) -> (Option<Inventory>, Vec<Diagnostic>) {
    let (inventory, _, found) = parse_with_places(file, text);
    (inventory, found)
}

fn parse_with_places(file: &str, text: &str) -> (Option<Inventory>, Places, Vec<Diagnostic>) {
    let (inventory, places, found) = read_document(file, text, read);
    (inventory.filter(|_| found.is_empty()), places, found)
}

fn texts(table: &mut Table<'_>, key: &'static str) -> Vec<At<String>> {
    table.names(key).unwrap_or_default()
}

/// `0xf_fe118000+0x100`.
fn span(text: &str) -> Option<Span<TruePhys>> {
    let (base, len) = text.split_once('+')?;
    let number = |text: &str| u64::from_str_radix(&text.strip_prefix("0x")?.replace('_', ""), 16).ok();
    Span::new(TruePhys(number(base)?), number(len)?).ok().filter(|span| !span.is_empty())
}

fn device(table: &mut Table<'_>) -> Option<Device> {
    let path = table.string("path");
    let path = table.required("path", path);
    let plain = |list: Vec<At<String>>| list.into_iter().map(|at| at.value).collect();
    let compatible = plain(texts(table, "compatible"));
    let mut reg = Vec::new();
    for text in texts(table, "reg") {
        match span(&text.value) {
            Some(span) => reg.push(span),
            None => {
                let message = format!("`{}` is no range of registers", text.value.escape_debug());
                table.impossible(text.range, message, "an address and a size, such as \"0xf_fe118000+0x100\"");
            }
        }
    }
    let interrupts = plain(texts(table, "interrupts"));
    let dma = table.flag("dma");
    let bus = table.flag("bus");
    let tree = table.integer("tree", u64::from(u32::MAX)).map_or(0, |at| at.value);
    Some(Device { path: path?.value, compatible, reg, interrupts, dma, bus, tree })
}

fn read(root: &mut Table<'_>) -> Option<Inventory> {
    let compatible = root.string("compatible");
    let compatible = root.required("compatible", compatible);
    let cpus = root.integer("cpus", u64::from(u32::MAX));
    let cpus = root.required("cpus", cpus);
    let laws = root.integer("laws", u64::from(u32::MAX)).and_then(|at| u32::try_from(at.value).ok());
    let mut aliases = BTreeMap::new();
    for alias in texts(root, "aliases") {
        match alias.value.split_once(' ') {
            Some((name, path)) if path.starts_with('/') => {
                aliases.insert(name.to_owned(), path.to_owned());
            }
            _ => root.collected().report(
                Diagnostic::error(IMPOSSIBLE_VALUE, format!("`{}` is no alias", alias.value.escape_debug()))
                    .primary(root.collected().label(alias.range, "this value"))
                    .help("a name and a path, such as \"serial0 /soc@ffe000000/serial@11c500\""),
            ),
        }
    }
    let devices = root.tables("device", device);
    root.required("device", (!devices.is_empty()).then_some(()));
    let cpus = u32::try_from(cpus?.value).ok()?;
    Some(Inventory { compatible: compatible?.value, cpus, laws, aliases, devices })
}
