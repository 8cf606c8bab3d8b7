//! [`Inventory`]: what devices a board has — the part of its hardware tree that assigning them to partitions needs.
//!
//! `check` builds nothing, so the inventory is a small generated file beside the board's own; a test compares it
//! with the real tree wherever that has been built. [`Inventory::from_tree`] makes it, [`Inventory::to_text`]
//! writes it, and [`crate::input::inventory`] reads it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use citrine_core::hardware::{cells, take, translate};
use citrine_formats::addr::{Address as _, Span, TruePhys};
use citrine_formats::fdt::{self, Place, Property as _, strings};

/// Nodes whose children are devices of their own (Topaz assigns only what is below one of them, or below the root).
const BUSES: [&str; 2] = ["simple-bus", "fsl,dpaa"];
/// What says that a device reads and writes memory by itself: the number that U-Boot gives it for the PAMU, or
/// where in the SoC it will put that number.
const DMA: [&str; 3] = ["fsl,liodn", "fsl,liodn-reg", "fsl,iommu-parent"];
/// Interrupt controllers whose numbers are the board's.
const MPIC: [&str; 2] = ["fsl,mpic", "chrp,open-pic"];
/// Bytes of a page: what memory management can tell apart.
pub const PAGE: u64 = 4096;

/// A device that can be assigned, with everything below it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Device {
    /// Path in the hardware tree.
    pub path: String,
    /// What it is compatible with, the most special first.
    pub compatible: Vec<String>,
    /// Its registers.
    pub reg: Vec<Span<TruePhys>>,
    /// Its interrupts: `38` is a source of the MPIC, `16.24` number 24 of the sources behind the error interrupt.
    pub interrupts: Vec<String>,
    /// Whether it reads and writes memory by itself.
    pub dma: bool,
    /// Whether its children are devices of their own, and not a part of it.
    pub bus: bool,
    /// Bytes of its nodes in a flattened tree, without the names of properties.
    pub tree: u64,
}

impl Device {
    /// The last part of its path.
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    /// The pages that its registers are in, by number.
    pub fn pages(&self) -> impl Iterator<Item = std::ops::RangeInclusive<u64>> + '_ {
        let pages = |span: &Span<TruePhys>| span.base().get() / PAGE..=(span.end().get() - 1) / PAGE;
        self.reg.iter().filter(|span| !span.is_empty()).map(pages)
    }

    /// Whether one of `kinds` is among what it is compatible with.
    pub fn is(&self, kinds: &[&str]) -> bool {
        self.compatible.iter().any(|own| kinds.contains(&own.as_str()))
    }
}

/// The devices of a board.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Inventory {
    /// First string of the root's `compatible`.
    pub compatible: String,
    /// Number of CPUs.
    pub cpus: u32,
    /// Local access windows of the SoC, where it has them.
    pub laws: Option<u32>,
    /// Aliases, each with the path that it stands for.
    pub aliases: BTreeMap<String, String>,
    /// The devices, in the order of the tree.
    pub devices: Vec<Device>,
}

/// What a path or alias leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found<'i> {
    /// To this device.
    Device(&'i Device),
    /// To something below this device, which is no bus.
    Below(&'i Device),
    /// Nowhere.
    Nothing,
}

impl Inventory {
    /// The devices of a flattened hardware tree.
    ///
    /// # Errors
    /// What is wrong with the tree.
    pub fn from_tree(bytes: &[u8]) -> Result<Self, fdt::Error> {
        let root = Place::root(fdt::open(bytes)?);
        let mpic = root.walk().find(|place| MPIC.iter().any(|kind| place.is_compatible(kind)));
        let mut inventory = Self {
            compatible: root.value("compatible").and_then(|list| strings(list).next()).unwrap_or_default().to_owned(),
            laws: root.walk().find_map(|place| place.u32("fsl,num-laws")),
            ..Self::default()
        };
        if let Some(cpus) = root.child("cpus") {
            let count = cpus.children().filter(|cpu| cpu.string("device_type") == Some("cpu")).count();
            inventory.cpus = u32::try_from(count).unwrap_or(u32::MAX);
        }
        for alias in root.child("aliases").into_iter().flat_map(Place::properties) {
            let path = alias.value_as::<&str>().ok().filter(|path| path.starts_with('/'));
            inventory.aliases.extend(path.map(|path| (alias.name().to_owned(), path.to_owned())));
        }
        let interrupts = Interrupts {
            mpic: mpic.and_then(|mpic| mpic.phandle()),
            cells: mpic.and_then(|mpic| mpic.u32("#interrupt-cells")).unwrap_or(2) as usize,
        };
        let bus = Bus { chain: vec![root], path: String::new(), parent: interrupts.parent(root, None) };
        inventory.add(&interrupts, &bus, None);
        Ok(inventory)
    }

    /// Adds what is below the last node of `bus`: as devices, or as parts of the device that `owner` is the index of.
    fn add(&mut self, interrupts: &Interrupts, bus: &Bus<'_>, owner: Option<usize>) {
        let Some(parent) = bus.chain.last() else { return };
        for node in parent.children() {
            let is_device = node.value("compatible").is_some() || node.value("reg").is_some();
            let is_memory = node.string("device_type").is_some_and(|kind| kind == "memory");
            if owner.is_none() && (!is_device || is_memory) {
                continue;
            }
            let path = format!("{}/{}", bus.path, node.name());
            let index = owner.unwrap_or_else(|| {
                let compatible = node.value("compatible").into_iter().flat_map(strings).map(str::to_owned).collect();
                let is_bus = BUSES.iter().any(|kind| node.is_compatible(kind));
                self.devices.push(Device { path: path.clone(), compatible, bus: is_bus, ..Device::default() });
                self.devices.len() - 1
            });
            let controller = interrupts.parent(node, bus.parent);
            let below = Bus { chain: bus.chain.iter().copied().chain([node]).collect(), path, parent: controller };
            if let Some(device) = self.devices.get_mut(index) {
                for span in registers(node, &bus.chain) {
                    // The parts of a device repeat what it says of itself.
                    if !device.reg.iter().any(|known| known.covers(&span)) {
                        device.reg.push(span);
                    }
                }
                device.dma |= DMA.iter().any(|property| node.value(property).is_some());
                device.tree += tree_len(node);
                if controller == interrupts.mpic {
                    for interrupt in interrupts.of(node) {
                        if !device.interrupts.contains(&interrupt) {
                            device.interrupts.push(interrupt);
                        }
                    }
                }
                let inside = (!device.bus).then_some(index);
                self.add(interrupts, &below, inside);
            }
        }
    }

    /// What a path or an alias of the hardware tree leads to. Parts of a path may lack their unit address.
    pub fn find(&self, name: &str) -> Found<'_> {
        let path = self.aliases.get(name).map_or(name, String::as_str);
        let Some(path) = path.strip_prefix('/') else { return Found::Nothing };
        let wanted: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let is = |have: &str, wanted: &str| have == wanted || have.split('@').next() == Some(wanted);
        let mut below = Found::Nothing;
        for device in &self.devices {
            let have: Vec<&str> = device.path.split('/').skip(1).collect();
            if have.len() > wanted.len() || !have.iter().zip(&wanted).all(|(have, wanted)| is(have, wanted)) {
                continue;
            }
            if have.len() == wanted.len() {
                return Found::Device(device);
            }
            if !device.bus && below == Found::Nothing {
                below = Found::Below(device);
            }
        }
        below
    }

    /// The text of the inventory's file.
    pub fn to_text(&self) -> String {
        let list = |items: &[String]| items.iter().map(|item| format!("{item:?}")).collect::<Vec<_>>().join(", ");
        let mut text = String::from(
            "# Made from the board's hardware tree by `CITRINE_BLESS=1 cargo test -p xtask inventory`; not to be edited.\n",
        );
        let aliases: Vec<String> = self.aliases.iter().map(|(alias, path)| format!("{alias} {path}")).collect();
        let _ = writeln!(text, "compatible = {:?}\ncpus = {}", self.compatible, self.cpus);
        if let Some(laws) = self.laws {
            let _ = writeln!(text, "laws = {laws}");
        }
        text.push_str("aliases = [\n");
        for alias in &aliases {
            let _ = writeln!(text, "    {alias:?},");
        }
        text.push_str("]\ndevice = [\n");
        for device in &self.devices {
            let _ = write!(text, "    {{ path = {:?}", device.path);
            let reg: Vec<String> = device.reg.iter().map(|span| format!("{}+{:#x}", span.base(), span.len())).collect();
            for (key, items) in [("compatible", &device.compatible), ("reg", &reg), ("interrupts", &device.interrupts)]
            {
                if !items.is_empty() {
                    let _ = write!(text, ", {key} = [{}]", list(items));
                }
            }
            for (key, _) in [("dma", ()), ("bus", ())].iter().zip([device.dma, device.bus]).filter(|(_, is)| *is) {
                let _ = write!(text, ", {} = true", key.0);
            }
            let _ = writeln!(text, ", tree = {} }},", device.tree);
        }
        text.push_str("]\n");
        text
    }
}

/// A node with the nodes above it.
struct Bus<'a> {
    /// From the root to the node.
    chain: Vec<Place<'a>>,
    /// Path of the node.
    path: String,
    /// The interrupt controller of what is below, unless it says otherwise.
    parent: Option<u32>,
}

/// How interrupts are written in the tree.
struct Interrupts {
    mpic: Option<u32>,
    cells: usize,
}

impl Interrupts {
    /// The interrupt controller of a node (ePAPR 1.1 §2.4).
    fn parent(&self, node: Place<'_>, inherited: Option<u32>) -> Option<u32> {
        node.u32("interrupt-parent").or(inherited)
    }

    /// The node's interrupts at the MPIC (ePAPR 1.1 §2.4; the kernel's `fsl,mpic` binding for four cells).
    fn of(&self, node: Place<'_>) -> Vec<String> {
        let mut value = node.value("interrupts").unwrap_or(&[]);
        let mut found = Vec::new();
        while let Some(source) = take(&mut value, 1) {
            let mut rest = (1..self.cells).map_while(|_| take(&mut value, 1));
            let (_, kind, number) = (rest.next(), rest.next().unwrap_or(0), rest.next().unwrap_or(0));
            match kind {
                0 => found.push(source.to_string()),
                1 => found.push(format!("{source}.{number}")),
                // Timers and doorbells between CPUs are no lines that a device has.
                _ => {}
            }
        }
        found
    }
}

/// The registers of a node, where they have true-physical addresses.
fn registers(node: Place<'_>, buses: &[Place<'_>]) -> Vec<Span<TruePhys>> {
    let Some(parent) = buses.last() else { return Vec::new() };
    let (address_cells, size_cells) = cells(*parent);
    let mut reg = node.value("reg").unwrap_or(&[]);
    let mut found = Vec::new();
    // Without a size it is a number on another kind of bus: a chip select, an address of I2C.
    if size_cells == 0 {
        return found;
    }
    while let (Some(address), Some(len)) = (take(&mut reg, address_cells), take(&mut reg, size_cells)) {
        let base = translate(buses, address).map(TruePhys);
        found.extend(base.and_then(|base| Span::new(base, len).ok()).filter(|span| !span.is_empty()));
    }
    found
}

/// Bytes of a node in a flattened tree without its children: tokens, name, properties (Devicetree Specification §5.4).
fn tree_len(node: Place<'_>) -> u64 {
    let padded = |len: usize| len.next_multiple_of(4) as u64;
    let properties = node.properties().map(|property| 12 + padded(property.value().len()));
    8 + padded(node.name().len() + 1) + properties.sum::<u64>()
}

#[cfg(test)]
mod tests;
