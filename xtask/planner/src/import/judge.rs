//! What a careful reader finds in a configuration tree, each with its line: names and lengths that the hypervisor
//! refuses, and numbers that do not fit together. The rules that the hypervisor asks itself are asked of the compiled
//! tree; what they say is given the line that they speak of.

use std::collections::BTreeMap;
use std::ops::Range;

use citrine_core::capabilities::Capabilities;
use citrine_core::rules::TREE;
use citrine_formats::addr::{Address as _, GuestPhys, Hex, Span, TruePhys};
use citrine_formats::hvconfig::schema;

use super::uboot::Loaded;
use crate::board::Board;
use crate::diag::{Code, Diagnostic, Label};
use crate::dts::{Cell, Item, Node, Property, Tree, Value, to_blob};
use crate::input::reader::nearest;
use crate::rules::overlap::WINDOWS_OVERLAP;
use crate::rules::tree;

/// A DMA window or sub-window that the hypervisor does not set up.
pub const DMA_WINDOW: Code = Code::new('S', 111);
/// A device reaches the memory of several partitions through their portals.
pub const SHARED_LIODN: Code = Code::new('S', 112);

/// The forms of values: property, node kind, cells of a row, whether there may be several rows, in words.
const FORMS: [(&str, &str, usize, bool, &str); 10] = [
    ("guest-image", "partition", 6, false, "6 cells: where it lies, where it goes, its length; two cells each"),
    ("linux-rootfs", "partition", 6, false, "6 cells: where it lies, where it goes, its length; two cells each"),
    ("load-image-table", "partition", 6, true, "rows of 6 cells: where it lies, where it goes, its length"),
    ("dtb-window", "partition", 4, false, "4 cells: address and length; two cells each"),
    ("cpus", "partition", 2, true, "pairs of cells: the first CPU, and how many"),
    ("addr", "phys-mem-area", 2, false, "2 cells, which are one 64-bit number"),
    ("size", "phys-mem-area", 2, false, "2 cells, which are one 64-bit number"),
    ("guest-addr", "guest-phys-mem-area", 2, false, "2 cells, which are one 64-bit number"),
    ("guest-addr", "dma-window", 2, false, "2 cells, which are one 64-bit number"),
    ("size", "dma-window", 2, false, "2 cells, which are one 64-bit number"),
];

/// A text under judgement.
pub(super) struct Judge<'a> {
    pub(super) file: &'a str,
    pub(super) board: &'a Board,
    /// What U-Boot's commands load, where they are known.
    pub(super) loaded: &'a [Loaded],
    /// Whether the text itself is wrong: what the hypervisor cannot understand may follow from that.
    pub(super) is_broken: bool,
    pub(super) found: Vec<Diagnostic>,
}

impl Judge<'_> {
    /// Everything that is wrong with the tree.
    pub(super) fn all(&mut self, tree: &Tree) {
        let mut good = tree.clone();
        self.names_and_lengths(&mut good.root, false);
        self.dma_windows(&tree.root);
        self.image_windows(&tree.root);
        self.portal_devices(&tree.root);
        if tree.is_fragment {
            self.cpus(&good.root);
        } else {
            self.hypervisors_rules(&good);
        }
    }

    fn label(&self, range: &Range<usize>, text: &str) -> Label {
        if range.is_empty() { Label::file(self.file, text) } else { Label::at(self.file, range.clone(), text) }
    }

    fn refuse(&mut self, range: &Range<usize>, message: String, help: String) {
        let label = self.label(range, "here");
        self.found.push(Diagnostic::error(TREE, message).primary(label).help(help));
    }

    /// Complains of properties that the hypervisor does not know or that have no value that it could read, and takes
    /// them out, so that the other rules speak of the rest.
    fn names_and_lengths(&mut self, node: &mut Node, is_device: bool) {
        if is_edit(node) || node.name == "aliases" {
            return;
        }
        let kinds = node.property("compatible").map(Property::texts).unwrap_or_default();
        let kind = kinds.iter().find_map(|kind| Some((kind.clone(), schema::properties(kind)?)));
        let assigns = node.property("device").is_some();
        let name = node.name.clone();
        let mut items = Vec::new();
        for item in std::mem::take(&mut node.items) {
            match item {
                Item::Node(mut child) => {
                    self.names_and_lengths(&mut child, is_device || assigns || node.name == "portal-devices");
                    items.push(Item::Node(child));
                }
                Item::Property(property) => {
                    if is_device || schema::is_common(&property.name) || self.is_good(&name, &property, &kind, assigns)
                    {
                        items.push(Item::Property(property));
                    }
                }
            }
        }
        node.items = items;
    }

    fn is_good(
        &mut self,
        node: &str,
        property: &Property,
        kind: &Option<(String, &'static [&'static str])>,
        assigns: bool,
    ) -> bool {
        let known = match kind {
            Some((_, known)) => known,
            None if assigns => schema::DEVICE,
            None => {
                self.of_no_kind(node, property);
                return false;
            }
        };
        let shown = property.name.escape_debug();
        if !known.contains(&property.name.as_str()) {
            let help = match nearest(&property.name, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known here: {}", known.join(", ")),
            };
            self.refuse(&property.range, format!("{node}: the hypervisor knows no property `{shown}` here"), help);
            return false;
        }
        let form =
            FORMS.iter().find(|form| form.0 == property.name && kind.as_ref().is_some_and(|kind| kind.0 == form.1));
        let Some((_, _, cells, several, words)) = form else { return true };
        let have = property.bytes().map_or(0, |bytes| bytes.len());
        let is_right = if *several { have > 0 && have.is_multiple_of(cells * 4) } else { have == cells * 4 };
        if !is_right {
            let cells = match (have / 4, have % 4) {
                (1, 0) => "1 cell".to_owned(),
                (cells, 0) => format!("{cells} cells"),
                _ => format!("{have} bytes"),
            };
            self.refuse(&property.range, format!("{node}: `{shown}` has {cells}"), format!("it has {words}"));
        }
        is_right
    }

    /// A node that is no kind of node may group others, and has no properties of its own.
    fn of_no_kind(&mut self, node: &str, property: &Property) {
        let name = &property.name;
        let shown = name.escape_debug();
        let is_case = |known: &&&str| known.eq_ignore_ascii_case(name) && **known != name;
        let (message, help) = match schema::DEVICE.iter().find(is_case) {
            Some(known) => (
                format!("{node}: `{shown}` is no property; names are written in lower case"),
                format!("did you mean `{known}`? without it, the device is missing from the partition"),
            ),
            None => (
                format!("{node} has the property `{shown}`, but nothing says what kind of node it is"),
                "add the `compatible` of its kind, or `device` if it assigns a device".to_owned(),
            ),
        };
        self.refuse(&property.range, message, help);
    }

    /// What the hypervisor says of the rest of the tree, each with its line.
    fn hypervisors_rules(&mut self, tree: &Tree) {
        let Ok(blob) = to_blob(tree) else { return };
        let refused = self.is_broken || self.found.iter().any(|d| d.code == TREE);
        for mut diagnostic in tree::check(self.file, &blob, self.board) {
            // A tree with devices is one for a hypervisor that assigns them.
            let is_ours_alone = is(&diagnostic, "H122") && Capabilities::TOPAZ.devices;
            if is_ours_alone || (refused && diagnostic.code == TREE) {
                continue;
            }
            if let Some((range, text)) = place_of(&tree.root, &diagnostic) {
                diagnostic.primary = Some(self.label(&range, &text));
            }
            self.found.push(diagnostic);
        }
    }

    /// The rules about CPUs, which can be asked of partitions alone. Of one partition nothing is said about the
    /// CPUs of others.
    fn cpus(&mut self, root: &Node) {
        let mut bare = Tree::default();
        let text = |name: &str, text: &str| property(name, Value::Text(text.as_bytes().to_vec()));
        let kind = text("compatible", "hv-config");
        bare.root.items.push(Item::Node(Node { name: "hv".to_owned(), items: vec![kind], ..Node::default() }));
        for partition in partitions(root) {
            let Some(cpus) = partition.property("cpus") else { continue };
            let window = property("dtb-window", Value::Cells(vec![Cell::number(0); 4]));
            let own = [text("compatible", "partition"), text("label", &name_of(partition)), window];
            let items = own.into_iter().chain([Item::Property(cpus.clone())]).collect();
            bare.root.items.push(Item::Node(Node { name: partition.name.clone(), items, ..Node::default() }));
        }
        let Ok(blob) = to_blob(&bare) else { return };
        let rules = ["H101", "H102", "H121", "H103"];
        let wanted = if bare.root.items.len() > 2 { &rules[..] } else { &rules[..3] };
        for mut diagnostic in tree::check(self.file, &blob, self.board) {
            if !wanted.iter().any(|code| is(&diagnostic, code)) {
                continue;
            }
            if let Some((range, text)) = place_of(root, &diagnostic) {
                diagnostic.primary = Some(self.label(&range, &text));
            }
            self.found.push(diagnostic);
        }
    }

    /// Whether what an image may grow into is another part's: U-Boot copies without a word.
    fn image_windows(&mut self, root: &Node) {
        let parts = if self.loaded.is_empty() { slots(self.board) } else { self.loaded.to_vec() };
        let mut said: Vec<(u64, u64, u64)> = Vec::new();
        for node in partitions(root) {
            for property in ["guest-image", "linux-rootfs"].iter().filter_map(|name| node.property(name)) {
                let Some(&[high, low, _, _, len_high, len]) = property.numbers().as_deref() else { continue };
                let (base, len) = (u64::from(high) << 32 | u64::from(low), u64::from(len_high) << 32 | u64::from(len));
                let Ok(window) = Span::new(TruePhys(base), len) else { continue };
                for part in parts.iter().filter(|part| part.at != base) {
                    let key = (base, len, part.at);
                    if !window.contains(TruePhys(part.at)) || said.contains(&key) {
                        continue;
                    }
                    said.push(key);
                    let room = part.at - base;
                    let message = format!(
                        "the window of {} ends at {}, but {} begins at {}",
                        property.name,
                        window.end(),
                        part.name,
                        Hex(part.at)
                    );
                    let help = format!(
                        "an image that grows past {} would destroy {} without a word; end its window there ({} bytes), \
                         or move one of them",
                        Hex(part.at),
                        part.name,
                        Hex(room)
                    );
                    let label = self.label(&property.range, "may have that many bytes");
                    let diagnostic = Diagnostic::warning(WINDOWS_OVERLAP, message).primary(label).help(help);
                    self.found.push(match &part.label {
                        Some(label) => diagnostic.related(label.clone()),
                        None => diagnostic,
                    });
                }
            }
        }
    }

    /// Windows and sub-windows that the hypervisor leaves out with a line on its console.
    fn dma_windows(&mut self, root: &Node) {
        let mut windows = Vec::new();
        root.walk("", &mut |_, node| windows.extend(node.is("dma-window").then_some(node)));
        for window in windows {
            let number = |node: &Node, name: &str| node.property(name).and_then(Property::number);
            let (Some(base), Some(size)) = (number(window, "guest-addr"), number(window, "size")) else { continue };
            let mut refuse = |node: &Node, message: String, help: String| {
                let label = self.label(&node.range, "this window");
                self.found.push(Diagnostic::error(DMA_WINDOW, message).primary(label).help(help));
            };
            if !size.is_power_of_two() || size < 4096 || !base.is_multiple_of(size) {
                let message = format!("{}: {} bytes at {} are no DMA window", window.name, Hex(size), Hex(base));
                refuse(
                    window,
                    message,
                    "its size is a power of two from 4 KiB, its address a multiple of that".to_owned(),
                );
                continue;
            }
            let subs: Vec<&Node> = window.nodes().filter(|node| node.is("dma-subwindow")).collect();
            let Some(count) = window.property("subwindow-count") else {
                if !subs.is_empty() {
                    let message = format!("{}: sub-windows without `subwindow-count` have no effect", window.name);
                    refuse(window, message, "add `subwindow-count`, a power of two of at least 2".to_owned());
                }
                continue;
            };
            let count = match count.numbers().as_deref() {
                Some(&[count]) if count.is_power_of_two() && (2..=256).contains(&count) => u64::from(count),
                _ => {
                    let message = format!("{}: `subwindow-count` is no power of two from 2 to 256", window.name);
                    refuse(window, message, "the hardware divides a window into so many equal slots only".to_owned());
                    continue;
                }
            };
            let slot = size / count;
            for sub in subs {
                let at = number(sub, "guest-addr");
                let len = number(sub, "size").unwrap_or(slot);
                let is_in = at.is_some_and(|at| at >= base && at - base < size && at.is_multiple_of(slot));
                if !is_in || !len.is_power_of_two() || !(4096..=slot).contains(&len) {
                    let message = format!("{}/{} fits no slot of its window", window.name, sub.name);
                    let help = format!(
                        "its address is a multiple of {} from {} on, its size a power of two from 4 KiB to {}",
                        Hex(slot),
                        GuestPhys(base),
                        Hex(slot)
                    );
                    refuse(sub, message, help);
                }
            }
        }
    }

    /// Devices that frames of several partitions come from: the hypervisor configures their LIODN once, and says for
    /// each further one a line that looks like an error.
    fn portal_devices(&mut self, root: &Node) {
        let mut users: BTreeMap<String, Vec<(String, Range<usize>)>> = BTreeMap::new();
        for partition in partitions(root) {
            for device in partition.node("portal-devices").into_iter().flat_map(Node::nodes) {
                if let Some(name) = device.property("device").and_then(Property::text) {
                    users.entry(name).or_default().push((name_of(partition), device.range.clone()));
                }
            }
        }
        for (device, users) in users.iter().filter(|(_, users)| users.len() > 1) {
            let names: Vec<&str> = users.iter().map(|(name, _)| name.as_str()).collect();
            let message = format!("{device} reaches the memory of {} through their portals", names.join(" and "));
            let help = "that is right where they share an interface; \"liodn N or device in use\" and \"config of liodn \
                        failed (rc=-259)\" on the hypervisor's console are then harmless";
            let mut diagnostic = Diagnostic::new(SHARED_LIODN, crate::diag::Severity::Notice, message).help(help);
            for (index, (name, range)) in users.iter().enumerate() {
                let label = self.label(range, name);
                diagnostic = if index == 0 { diagnostic.primary(label) } else { diagnostic.related(label) };
            }
            self.found.push(diagnostic);
        }
    }
}

/// Whether the node edits a guest's tree.
fn is_edit(node: &Node) -> bool {
    matches!(node.name.split('@').next(), Some("node-update" | "node-update-phandle"))
}

/// The partitions of a tree.
pub(super) fn partitions(root: &Node) -> Vec<&Node> {
    let mut found = Vec::new();
    root.walk("", &mut |_, node| found.extend(node.is("partition").then_some(node)));
    found
}

/// What the hypervisor calls a partition.
pub(super) fn name_of(partition: &Node) -> String {
    partition.property("label").and_then(Property::text).unwrap_or_else(|| partition.name.clone())
}

/// The parts that the board's slots are for, in memory and in flash.
fn slots(board: &Board) -> Vec<Loaded> {
    let slots = [
        ("hv.uImage", board.slots.hypervisor, "slots/hypervisor"),
        ("the hardware tree", board.slots.hardware_tree, "slots/hardware-tree"),
        ("hv.dtb", board.slots.configuration, "slots/configuration"),
        ("boot.scr", board.slots.script, "slots/script"),
        ("the first root file system", board.slots.rootfs, "slots/rootfs"),
    ];
    let mut parts = Vec::new();
    for (name, at, path) in slots {
        let label = Some(board.places.label(path, format!("the slot of {name}")));
        parts.push(Loaded { name: name.to_owned(), at: at.get(), label: label.clone() });
        // The flash has the same slots, at the same distances.
        let offset = at.get().checked_sub(board.image_area.base().get());
        let in_flash = board.nor.as_ref().zip(offset).and_then(|(nor, by)| nor.span.base().get().checked_add(by));
        if let Some(at) = in_flash {
            parts.push(Loaded { name: name.to_owned(), at, label });
        }
    }
    parts
}

fn property(name: &str, value: Value) -> Item {
    Item::Property(Property { name: name.to_owned(), values: vec![value], range: 0..0 })
}

/// Whether it is what the hypervisor's rule of this code says.
fn is(diagnostic: &Diagnostic, code: &str) -> bool {
    diagnostic.code.to_string() == code
}

/// Where in the tree the thing is that a rule of the hypervisor speaks of.
fn place_of(root: &Node, diagnostic: &Diagnostic) -> Option<(Range<usize>, String)> {
    let message = &diagnostic.message;
    let property: &[&str] = match diagnostic.code.to_string().as_str() {
        "H101" | "H102" | "H103" | "H121" => &["cpus"],
        "H104" => &["size"],
        "H105" | "H106" | "H107" => &["addr"],
        "H113" | "H119" => &["dtb-window"],
        "H114" | "H115" | "H116" | "H120" if message.contains("rootfs") => &["linux-rootfs"],
        "H114" | "H115" | "H116" => &["guest-image"],
        _ => &[],
    };
    let mut best: Option<(&Node, String)> = None;
    root.walk("", &mut |path, node| {
        let is_named = match diagnostic.code {
            TREE => message.contains(&format!(" {path}: ")),
            _ => {
                let name = if node.is("partition") { name_of(node) } else { node.name.clone() };
                let can_be_named = node.is("partition") || node.is("phys-mem-area");
                can_be_named && message.split([' ', ',']).any(|word| word == name)
            }
        };
        // The first partition or area that is named is the one to change.
        if is_named && best.is_none() {
            best = Some((node, node.name.clone()));
        }
    });
    if best.is_none() && is(diagnostic, "H103") {
        best = partitions(root).first().map(|node| (*node, node.name.clone()));
    }
    let (node, name) = best?;
    let own = property.iter().find_map(|name| node.property(name));
    let range = own.map_or(node.range.clone(), |property| property.range.clone());
    (!range.is_empty()).then_some((range, name))
}
