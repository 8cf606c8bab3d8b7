//! [`Draft`]: a profile in the making, and its text as a person would write it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use citrine_formats::addr::Size;

use crate::dts::{Item, print};

/// A device of somebody.
#[derive(Clone, Default)]
pub(super) struct Entry {
    pub(super) device: String,
    /// The node's name, and whether it must be said.
    pub(super) node: String,
    pub(super) says_node: bool,
    pub(super) msi: Option<String>,
    pub(super) no_dma: bool,
    /// What else stands in its node.
    pub(super) dts: Vec<Item>,
}

/// An image that a partition starts with.
pub(super) struct Image {
    pub(super) name: &'static str,
    pub(super) guest_address: Option<u64>,
    pub(super) load: Option<u64>,
    pub(super) window: u64,
}

/// A partition.
#[derive(Default)]
pub(super) struct Partition {
    pub(super) name: String,
    /// The name of its node.
    pub(super) node: String,
    pub(super) label: String,
    pub(super) cpus: String,
    pub(super) memory: u64,
    pub(super) memory_address: u64,
    pub(super) console: u32,
    pub(super) bootargs: String,
    pub(super) kernel: Option<Image>,
    pub(super) rootfs: Option<Image>,
    pub(super) dtb: (u64, u64),
    pub(super) dma: Option<Dma>,
    pub(super) qman_portals: Vec<u32>,
    pub(super) devices: Vec<Entry>,
    pub(super) portal_devices: Vec<Entry>,
    /// Keys of the data path, each with its ranges as text.
    pub(super) data_path: Vec<(&'static str, String)>,
    pub(super) slow_traps: bool,
    pub(super) manages: Vec<String>,
    pub(super) dts: Vec<Item>,
}

/// What devices read and write by themselves.
pub(super) enum Dma {
    Memory,
    Window { size: u64, subwindows: u32, reach: Vec<String> },
}

/// Shared memory.
pub(super) struct Shared {
    pub(super) name: String,
    pub(super) size: u64,
    pub(super) address: u64,
    pub(super) guest_address: Option<u64>,
    pub(super) partitions: Vec<String>,
}

/// A whole profile.
#[derive(Default)]
pub(super) struct Draft {
    pub(super) file: String,
    pub(super) name: String,
    pub(super) console: u32,
    pub(super) bootargs: String,
    /// The hardware tree says the console's rate.
    pub(super) no_baud: bool,
    pub(super) memory: Option<u64>,
    pub(super) memory_address: Option<u64>,
    pub(super) hv_devices: Vec<Entry>,
    pub(super) partitions: Vec<Partition>,
    pub(super) shared: Vec<Shared>,
    pub(super) channels: Vec<(String, [String; 2])>,
    pub(super) names: BTreeMap<String, String>,
    pub(super) dts: Vec<Item>,
}

/// A size as a profile has it.
fn size(bytes: u64) -> String {
    let text = Size(bytes).to_string();
    if crate::units::parse_size(&text) == Some(bytes) { format!("\"{text}\"") } else { format!("{bytes:#x}") }
}

fn quoted(text: &str) -> String {
    // What is not plain is refused when the profile is read.
    format!("\"{}\"", text.escape_default())
}

fn list(items: &[String]) -> String {
    let items: Vec<String> = items.iter().map(|item| quoted(item)).collect();
    format!("[{}]", items.join(", "))
}

impl Draft {
    /// Whether devices decide that a profile is for Freescale's hypervisor.
    fn has_devices(&self) -> bool {
        self.partitions.iter().any(|partition| !partition.devices.is_empty() || !partition.qman_portals.is_empty())
    }

    /// The text.
    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(out, "# Imported from {}.", self.file.escape_debug());
        let _ = writeln!(out, "name = {}", quoted(&self.name));
        let _ = writeln!(out, "title = {}", quoted(&format!("Imported: {}", self.name)));
        source(&mut out, &self.dts, "What else stands in the root of the tree");
        let _ = writeln!(out, "\n[hypervisor]");
        if self.has_devices() {
            let _ = writeln!(out, "firmware = \"freescale\"              # ours assigns no devices");
        }
        let _ = writeln!(out, "console = {}", self.console);
        let _ = writeln!(out, "bootargs = {}", quoted(&self.bootargs));
        if self.no_baud {
            let _ = writeln!(out, "baud = false                        # the hardware tree says it");
        }
        if let Some(memory) = self.memory {
            let _ = writeln!(out, "memory = {}", size(memory));
        }
        if let Some(address) = self.memory_address {
            let _ = writeln!(out, "memory-address = {address:#x}");
        }
        entries(&mut out, "devices", &self.hv_devices);
        for partition in &self.partitions {
            partition.text(&mut out);
        }
        for shared in &self.shared {
            let _ = writeln!(out, "\n[[shared]]\nname = {}\nsize = {}", quoted(&shared.name), size(shared.size));
            let _ = writeln!(out, "address = {:#x}", shared.address);
            if let Some(guest) = shared.guest_address {
                let _ = writeln!(out, "guest-address = {guest:#x}");
            }
            let _ = writeln!(out, "partitions = {}", list(&shared.partitions));
        }
        for (name, partitions) in &self.channels {
            let _ = writeln!(out, "\n[[channel]]\nname = {}\npartitions = {}", quoted(name), list(partitions));
        }
        if !self.names.is_empty() {
            let _ = writeln!(out, "\n[names]                            # what the tree calls its nodes");
            for (path, name) in &self.names {
                let _ = writeln!(out, "{} = {}", quoted(path), quoted(name));
            }
        }
        out
    }
}

impl Partition {
    fn text(&self, out: &mut String) {
        let _ = writeln!(out, "\n[[partition]]\nname = {}", quoted(&self.name));
        if self.label != self.name {
            let _ = writeln!(out, "label = {}", quoted(&self.label));
        }
        let _ = writeln!(out, "cpus = {}\nmemory = {}", quoted(&self.cpus), size(self.memory));
        let _ = writeln!(out, "memory-address = {:#x}", self.memory_address);
        let _ = writeln!(out, "console = {}\nbootargs = {}", self.console, quoted(&self.bootargs));
        for (key, image) in [("kernel", &self.kernel), ("rootfs", &self.rootfs)] {
            let Some(image) = image else { continue };
            let mut keys = vec![format!("image = {}", quoted(image.name))];
            keys.extend(image.guest_address.map(|at| format!("guest-address = {at:#x}")));
            keys.extend(image.load.map(|at| format!("load = {at:#x}")));
            keys.push(format!("window = {}", size(image.window)));
            let _ = writeln!(out, "{key} = {{ {} }}", keys.join(", "));
        }
        let (at, len) = self.dtb;
        let _ = writeln!(out, "dtb-address = {at:#x}\ndtb-size = {}", size(len));
        if self.slow_traps {
            let _ = writeln!(out, "fast-traps = false");
        }
        match &self.dma {
            None => {}
            Some(Dma::Memory) => {
                let _ = writeln!(out, "dma = \"memory\"");
            }
            Some(Dma::Window { size: bytes, subwindows, reach }) => {
                let (bytes, reach) = (size(*bytes), list(reach));
                let _ = writeln!(out, "dma = {{ size = {bytes}, subwindows = {subwindows}, reach = {reach} }}");
            }
        }
        if !self.qman_portals.is_empty() {
            let numbers = crate::units::cpu_list(&self.qman_portals.iter().copied().collect());
            let _ = writeln!(out, "qman-portals = {}", quoted(&numbers));
        }
        if !self.data_path.is_empty() {
            let keys: Vec<String> =
                self.data_path.iter().map(|(key, ranges)| format!("{key} = {}", quoted(ranges))).collect();
            let _ = writeln!(out, "data-path = {{ {} }}", keys.join(", "));
        }
        if !self.manages.is_empty() {
            let _ = writeln!(out, "manages = {}", list(&self.manages));
        }
        entries(out, "devices", &self.devices);
        entries(out, "portal-devices", &self.portal_devices);
        source(out, &self.dts, "What has no key of its own");
    }
}

fn entries(out: &mut String, key: &str, entries: &[Entry]) {
    if entries.is_empty() {
        return;
    }
    let _ = writeln!(out, "{key} = [");
    for entry in entries {
        let mut keys = vec![format!("device = {}", quoted(&entry.device))];
        keys.extend(entry.says_node.then(|| format!("node = {}", quoted(&entry.node))));
        keys.extend(entry.msi.as_ref().map(|msi| format!("msi = {}", quoted(msi))));
        keys.extend(entry.no_dma.then(|| "dma = false".to_owned()));
        if !entry.dts.is_empty() {
            // An inline table is one line; strings of the tree cannot hold an apostrophe.
            let dts: Vec<String> = print(&entry.dts, 0).lines().map(|line| line.trim().to_owned()).collect();
            keys.push(format!("dts = '{}'", dts.join(" ")));
        }
        let _ = match keys.as_slice() {
            [_] => writeln!(out, "    {},", quoted(&entry.device)),
            _ => writeln!(out, "    {{ {} }},", keys.join(", ")),
        };
    }
    let _ = writeln!(out, "]");
}

fn source(out: &mut String, items: &[Item], remark: &str) {
    if !items.is_empty() {
        let _ = writeln!(out, "# {remark}.\ndts = '''\n{}'''", print(items, 0));
    }
}
