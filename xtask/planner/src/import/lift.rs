//! What of a tree has a key of its own in a profile.
//!
//! Nothing here needs to be complete: what is not lifted is found missing when the profile is rendered, and goes into
//! a `dts` key. But what is lifted must render to exactly what stands in the tree.

use std::collections::{BTreeMap, BTreeSet};

use citrine_formats::addr::Address as _;

use super::draft::{Dma, Draft, Entry, Image, Partition, Shared};
use super::judge::name_of;
use crate::board::Board;
use crate::diag::{Code, Diagnostic, Label};
use crate::dts::{Node, Paths, Property, Tree};
use crate::input::reader::is_name;
use crate::inventory::{Device, Found};
use crate::units::cpu_list;

/// A profile cannot say this.
pub const NOT_EXPRESSIBLE: Code = Code::new('S', 120);

/// The defaults of a profile's keys, which need not be said.
const SHARED_ADDRESS: u64 = 0x8000_0000;
const KERNEL_ADDRESS: u64 = 0;
const ROOTFS_ADDRESS: u64 = 0x0130_0000;
/// Bytes of a sub-window that leads to the register of message-signalled interrupts.
const MSI_SIZE: u64 = 4096;
/// The numbers of the data path: key of a profile, node of the hardware tree, property.
const NUMBERS: [(&str, &str, &str); 4] = [
    ("bpids", "bman-bpids", "fsl,bpid-range"),
    ("fqids", "qman-fqids", "fsl,fqid-range"),
    ("pool-channels", "qman-pools", "fsl,pool-channel-range"),
    ("cgrids", "qman-cgrids", "fsl,cgrid-range"),
];

pub(super) struct Lift<'a> {
    pub(super) file: &'a str,
    pub(super) tree: &'a Tree,
    pub(super) paths: Paths,
    pub(super) board: &'a Board,
    pub(super) draft: Draft,
    pub(super) found: Vec<Diagnostic>,
    /// Areas that a profile's partitions and hypervisor own, by path.
    owned: BTreeSet<String>,
    /// Windows of DMA, by path, and the partition that has it.
    windows: BTreeMap<String, String>,
}

fn number(node: &Node, name: &str) -> Option<u64> {
    node.property(name)?.number()
}

impl<'a> Lift<'a> {
    pub(super) fn new(file: &'a str, tree: &'a Tree, board: &'a Board, name: &str) -> Self {
        let draft = Draft { file: file.to_owned(), name: name.to_owned(), ..Draft::default() };
        let (owned, windows) = (BTreeSet::new(), BTreeMap::new());
        Self { file, tree, paths: Paths::of(tree), board, draft, found: Vec::new(), owned, windows }
    }

    /// Complains that a profile cannot say what stands at `node`.
    fn cannot(&mut self, node: &Node, message: &str, help: &str) {
        let label = match node.range.is_empty() {
            true => Label::file(self.file, node.name.clone()),
            false => Label::at(self.file, node.range.clone(), "here"),
        };
        self.found.push(Diagnostic::error(NOT_EXPRESSIBLE, message).primary(label).help(help));
    }

    /// Gives the node that usually has this path its name.
    fn name(&mut self, usual: &str, name: &str) {
        if usual.rsplit('/').next() != Some(name) {
            self.draft.names.insert(usual.to_owned(), name.to_owned());
        }
    }

    fn target(&self, node: &Node, property: &str) -> Option<(String, &'a Node)> {
        let path = self.paths.target(node.property(property)?)?;
        let node = self.tree.root.at(&path)?;
        Some((path, node))
    }

    /// Everything; none of it if the tree has not what every profile has.
    pub(super) fn all(&mut self) -> Option<()> {
        let root = &self.tree.root;
        self.hypervisor(root)?;
        let nodes: Vec<&Node> = root.nodes().filter(|node| node.is("partition")).collect();
        if nodes.is_empty() {
            self.cannot(root, "the tree has no partition", "a profile has at least one");
            return None;
        }
        for (index, node) in nodes.iter().enumerate() {
            let name = if is_name(&node.name) { node.name.clone() } else { format!("p{}", index + 1) };
            self.name(&format!("/{name}"), &node.name);
            self.draft.partitions.push(Partition { name, node: node.name.clone(), ..Partition::default() });
        }
        for (index, node) in nodes.iter().enumerate() {
            self.memory(index, node)?;
        }
        self.shared(&nodes);
        self.between(&nodes);
        for (index, node) in nodes.iter().enumerate() {
            self.partition(index, node)?;
        }
        Some(())
    }

    fn hypervisor(&mut self, root: &'a Node) -> Option<()> {
        let Some(own) = root.nodes().find(|node| node.is("hv-config")) else {
            self.cannot(
                root,
                "the tree has no hv-config node at its root",
                "a profile always describes the hypervisor",
            );
            return None;
        };
        self.name("/hypervisor-config", &own.name);
        let memory = own.nodes().find(|node| node.is("hv-memory"));
        let Some((memory, (path, area))) = memory.and_then(|memory| Some((memory, self.target(memory, "phys-mem")?)))
        else {
            self.cannot(own, "the hypervisor has no memory", "add an hv-memory node");
            return None;
        };
        self.name("/hypervisor-config/hv-memory", &memory.name);
        self.name("/hv-memory-area", &area.name);
        self.owned.insert(path);
        let (base, size) = (number(area, "addr")?, number(area, "size")?);
        let default = self.board.hv_memory;
        self.draft.memory = (size != default.len()).then_some(size);
        self.draft.memory_address = (base != default.base().get()).then_some(base);

        let console = self.target(own, "stdout").filter(|(_, node)| node.is("byte-channel"));
        let mux = console.as_ref().and_then(|(_, channel)| self.target(channel, "endpoint"));
        let uart = mux.as_ref().and_then(|(_, mux)| self.target(mux, "endpoint"));
        let (Some((path, channel)), Some((_, mux)), Some((_, uart))) = (console, mux, uart) else {
            let help = "a profile's consoles are channels of one mux; `stdout` must lead to one of them";
            self.cannot(own, "the hypervisor's console is no channel of a mux", help);
            return None;
        };
        if !path.starts_with(&format!("/{}/", own.name)) {
            self.cannot(channel, "the hypervisor's console is a channel of somebody else", "make it one of its own");
            return None;
        }
        self.name("/hypervisor-config/byte-channel", &channel.name);
        self.name("/byte-channel-mux", &mux.name);
        self.draft.no_baud = uart.property("baud").is_none();
        self.draft.console = *channel.property("mux-channel")?.numbers()?.first()?;
        let alias = self.board.uarts.first().map_or("serial0", |uart| uart.alias.as_str());
        self.name(&format!("/hypervisor-config/{alias}"), &uart.name);
        for node in own.nodes().filter(|node| node.name != uart.name) {
            let Some(device) = node.property("device").and_then(Property::text) else { continue };
            let is_same = |known: &str| known == device || self.is_same_device(known, &device);
            match self.board.hv_devices.iter().find(|known| is_same(&known.device)) {
                Some(known) => self.name(&format!("/hypervisor-config/{}", known.name), &node.name),
                None => {
                    let entry = self.entry(node, device, false);
                    self.draft.hv_devices.push(entry);
                }
            }
        }
        Some(())
    }

    /// Whether two names lead to one device of the board.
    pub(super) fn is_same_device(&self, a: &str, b: &str) -> bool {
        let find = |name: &str| match self.board.inventory.as_ref()?.find(name) {
            Found::Device(device) => Some(device.path.clone()),
            _ => None,
        };
        find(a).is_some() && find(a) == find(b)
    }

    fn memory(&mut self, index: usize, node: &'a Node) -> Option<()> {
        let areas = node.nodes().filter(|node| node.is("guest-phys-mem-area"));
        let at_zero = areas.filter(|area| number(area, "guest-addr") == Some(0));
        let found = at_zero.filter_map(|area| Some((area, self.target(area, "phys-mem")?))).next();
        let Some((mapping, (path, area))) = found.filter(|(_, (path, _))| !self.owned.contains(path)) else {
            let help = "a profile's partition has memory of its own from guest-physical 0";
            self.cannot(node, &format!("{} has no memory of its own at guest-physical 0", node.name), help);
            return None;
        };
        let (base, size) = (number(area, "addr")?, number(area, "size")?);
        let name = self.draft.partitions.get(index)?.name.clone();
        self.name(&format!("/{name}-memory"), &area.name);
        self.name(&format!("/{name}/{name}-memory"), &mapping.name);
        self.owned.insert(path);
        let partition = self.draft.partitions.get_mut(index)?;
        (partition.memory, partition.memory_address) = (size, base);
        Some(())
    }

    /// All areas that nobody owns alone; a partition that sees one in its own way keeps that as source.
    fn shared(&mut self, nodes: &[&'a Node]) {
        let mut taken: BTreeSet<String> = BTreeSet::new();
        for area in self.tree.root.nodes().filter(|node| node.is("phys-mem-area")) {
            let path = format!("/{}", area.name);
            let (Some(address), Some(size)) = (number(area, "addr"), number(area, "size")) else { continue };
            // What nobody maps is nobody's memory: it stays source.
            if self.owned.contains(&path) || !self.is_mapped(nodes, &path) {
                continue;
            }
            let short: String =
                area.name.to_lowercase().replace(['_', '@', ',', '.', '+'], "-").chars().take(24).collect();
            let short = short.strip_suffix("-shared").unwrap_or(&short).trim_matches('-').to_owned();
            let short = if is_name(&short) { short } else { "area".to_owned() };
            let numbered = (2..).map(|number| format!("{short}-{number}"));
            let name = std::iter::once(short.clone()).chain(numbered).find(|name| taken.insert(name.clone()));
            let name = name.unwrap_or_default();
            self.name(&format!("/{name}-shared"), &area.name);
            let mut guest_address = None;
            let mut partitions = Vec::new();
            for (index, node) in nodes.iter().enumerate() {
                let mapping = node.nodes().find(|node| {
                    node.is("guest-phys-mem-area") && self.target(node, "phys-mem").is_some_and(|(to, _)| to == path)
                });
                let Some((mapping, at)) = mapping.and_then(|node| Some((node, number(node, "guest-addr")?))) else {
                    continue;
                };
                let edit = mapping.node("node-update").and_then(|edit| edit.property("delete-prop"));
                let is_usual = edit.is_some_and(|edit| edit.texts() == ["device_type"]);
                if is_usual && *guest_address.get_or_insert(at) == at {
                    let own = self.draft.partitions.get(index).map(|p| p.name.clone()).unwrap_or_default();
                    self.name(&format!("/{own}/{name}-shared"), &mapping.name);
                    partitions.push(own);
                }
            }
            let guest_address = guest_address.filter(|at| *at != SHARED_ADDRESS);
            self.draft.shared.push(Shared { name, size, address, guest_address, partitions });
        }
    }

    fn is_mapped(&self, nodes: &[&'a Node], area: &str) -> bool {
        let mappings = nodes.iter().flat_map(|node| node.nodes()).filter(|node| node.is("guest-phys-mem-area"));
        mappings.filter_map(|node| self.target(node, "phys-mem")).any(|(path, _)| path == area)
    }

    /// Byte channels between partitions, and who manages whom.
    fn between(&mut self, nodes: &[&'a Node]) {
        let name_at = |lift: &Self, path: &str| {
            let own = path.trim_start_matches('/').split('/').next().unwrap_or_default();
            lift.draft.partitions.iter().find(|p| p.node == own).map(|p| p.name.clone())
        };
        let mut said = BTreeSet::new();
        for (index, node) in nodes.iter().enumerate() {
            let Some(own) = self.draft.partitions.get(index).map(|p| p.name.clone()) else { continue };
            for child in node.nodes() {
                if child.is("byte-channel")
                    && let Some((to, peer)) = self.target(child, "endpoint").filter(|(_, peer)| peer.is("byte-channel"))
                    && let Some(other) = name_at(self, &to).filter(|other| *other != own)
                {
                    let path = format!("/{}/{}", node.name, child.name);
                    let is_mutual = self.target(peer, "endpoint").is_some_and(|(back, _)| back == path);
                    if is_mutual && said.insert(path) && said.insert(to) {
                        let name = format!("c{}", self.draft.channels.len() + 1);
                        let own_name = child.name.strip_suffix("-channel").filter(|short| is_name(short));
                        let name = own_name.map_or(name, str::to_owned);
                        self.name(&format!("/{own}/{name}-channel"), &child.name);
                        self.name(&format!("/{other}/{name}-channel"), &peer.name);
                        self.draft.channels.push((name, [own.clone(), other]));
                    }
                }
                if child.is("managed-partition")
                    && let Some((to, _)) = self.target(child, "partition")
                    && let Some(other) = name_at(self, &to)
                {
                    self.name(&format!("/{own}/{other}-partition"), &child.name);
                    self.draft.partitions.get_mut(index).into_iter().for_each(|p| p.manages.push(other.clone()));
                }
            }
        }
    }

    fn partition(&mut self, index: usize, node: &'a Node) -> Option<()> {
        let name = self.draft.partitions.get(index)?.name.clone();
        let stdout = node.node("aliases").and_then(|aliases| self.target(aliases, "stdout"));
        let console = stdout.filter(|(path, _)| path.starts_with(&format!("/{}/", node.name)));
        let channel =
            console.and_then(|(_, channel)| Some((channel, *channel.property("mux-channel")?.numbers()?.first()?)));
        let Some((channel, console)) = channel else {
            let help = "add a byte-channel on the mux, and `aliases { stdout = <&it>; };`";
            self.cannot(node, &format!("{} has no console on the mux", node.name), help);
            return None;
        };
        self.name(&format!("/{name}/byte-channel"), &channel.name);
        let Some(kernel) = self.image(node, "guest-image", "linux", KERNEL_ADDRESS) else {
            self.cannot(
                node,
                &format!("{} has no guest-image", node.name),
                "a profile's partition starts with a kernel",
            );
            return None;
        };
        let rootfs = self.image(node, "linux-rootfs", "busybox", ROOTFS_ADDRESS);
        let dtb = node.property("dtb-window").and_then(Property::numbers).unwrap_or_default();
        let cells: Vec<u64> = dtb.iter().copied().map(u64::from).collect();
        let Some([a, b, c, d]) = cells.first_chunk::<4>().copied() else {
            self.cannot(node, &format!("{} has no dtb-window", node.name), "add it");
            return None;
        };
        let cpus = node.property("cpus").and_then(Property::numbers).unwrap_or_default();
        // A hostile range would take for ever; the rules have said that there is no such CPU.
        let range = |pair: &[u32]| match pair {
            [first, count] => *first..first.saturating_add((*count).min(64)),
            _ => 0..0,
        };
        let cpus: BTreeSet<u32> = cpus.chunks(2).take(8).flat_map(range).collect();
        let dma = self.dma(node, &name);
        let bootargs = node.at("node-update/chosen").and_then(|chosen| chosen.property("bootargs"));
        let partition = self.draft.partitions.get_mut(index)?;
        partition.label = name_of(node);
        partition.cpus = cpu_list(&cpus);
        partition.console = console;
        partition.bootargs = bootargs.and_then(Property::text).unwrap_or_default();
        (partition.kernel, partition.rootfs) = (Some(kernel), rootfs);
        partition.dtb = (a << 32 | b, c << 32 | d);
        partition.slow_traps = node.property("citrine,slow-traps").is_some();
        let has_dma = dma.is_some();
        partition.dma = dma;
        self.devices(index, node, has_dma);
        Some(())
    }

    fn image(&self, node: &Node, property: &str, name: &'static str, default: u64) -> Option<Image> {
        let cells = node.property(property)?.numbers()?;
        let [a, b, c, d, e, f] =
            cells.iter().copied().map(u64::from).collect::<Vec<_>>().first_chunk::<6>().copied()?;
        let slot = if name == "linux" { self.board.slots.kernel } else { self.board.slots.rootfs };
        let (at, guest, window) = (a << 32 | b, c << 32 | d, e << 32 | f);
        let load = (at != slot.get()).then_some(at);
        Some(Image { name, guest_address: (guest != default).then_some(guest), load, window })
    }

    /// The window that the partition's devices have in common, if a profile can say it.
    fn dma(&mut self, node: &'a Node, name: &str) -> Option<Dma> {
        let below = node.nodes().chain(node.node("portal-devices").into_iter().flat_map(Node::nodes));
        let mut users: BTreeMap<String, usize> = BTreeMap::new();
        for device in below.filter(|node| node.property("device").is_some()) {
            if let Some((path, _)) = self.target(device, "dma-window") {
                *users.entry(path).or_default() += 1;
            }
        }
        let (path, _) = users.into_iter().max_by_key(|(_, count)| *count)?;
        let (parent, window) = path.trim_start_matches('/').split_once('/')?;
        let node = self.tree.root.at(&path)?;
        let partition = self.draft.partitions.iter().find(|p| p.name == name)?;
        let (memory, size) = (partition.memory, number(node, "size")?);
        if number(node, "guest-addr") != Some(0) || window.contains('/') || self.windows.contains_key(&path) {
            return None;
        }
        let dma = match node.property("subwindow-count").map(Property::numbers) {
            None => (size == memory && node.nodes().next().is_none()).then_some(Dma::Memory)?,
            Some(count) => {
                let subs: Option<Vec<String>> = node.nodes().map(|sub| self.reach(sub, memory)).collect();
                Dma::Window { size, subwindows: *count?.first()?, reach: subs? }
            }
        };
        let subs: Vec<String> = node.nodes().map(|sub| sub.name.clone()).collect();
        let (parent, window) = (parent.to_owned(), window.to_owned());
        self.name("/dma-windows", &parent);
        self.name(&format!("/dma-windows/{name}-window"), &window);
        for (index, sub) in subs.iter().enumerate() {
            self.name(&format!("/dma-windows/{name}-window/sub-window@{index}"), sub);
        }
        self.windows.insert(path, name.to_owned());
        Some(dma)
    }

    /// What a sub-window leads to, in a profile's words.
    fn reach(&self, sub: &Node, memory: u64) -> Option<String> {
        let (at, size) = (number(sub, "guest-addr")?, number(sub, "size")?);
        let is_msi = sub.property("pcie-msi-subwindow").is_some();
        if is_msi {
            return (at == memory && size == MSI_SIZE).then(|| "msi".to_owned());
        }
        if at == 0 && size == memory {
            return Some("memory".to_owned());
        }
        let is_it = |shared: &&Shared| shared.size == size && shared.guest_address.unwrap_or(SHARED_ADDRESS) == at;
        self.draft.shared.iter().find(is_it).map(|shared| shared.name.clone())
    }

    fn devices(&mut self, index: usize, node: &'a Node, has_dma: bool) {
        let mut partition = std::mem::take(&mut self.draft.partitions[index]);
        for child in node.nodes() {
            if child.name == "portal-devices" {
                for device in child.nodes() {
                    if let Some(path) = device.property("device").and_then(Property::text) {
                        partition.portal_devices.push(self.entry(device, path, has_dma));
                    }
                }
                continue;
            }
            let Some(device) = child.property("device").and_then(Property::text) else { continue };
            if let Some(number) = self.portal(child, &device, &partition.name) {
                partition.qman_portals.push(number);
            } else {
                let mut entry = self.entry(child, device, has_dma);
                entry.msi = self.msi(node, child);
                partition.devices.push(entry);
            }
        }
        partition.qman_portals.sort_unstable();
        self.numbers(node, &mut partition);
        self.draft.partitions[index] = partition;
    }

    /// The device of the same partition that takes a device's messages.
    fn msi(&self, partition: &Node, device: &Node) -> Option<String> {
        let (path, target) = self.target(device.node("node-update-phandle")?, "fsl,msi")?;
        let is_near = path == format!("/{}/{}", partition.name, target.name);
        target.property("device").filter(|_| is_near)?.text()
    }

    fn known(&self, device: &str) -> Option<&'a Device> {
        match self.board.inventory.as_ref()?.find(device) {
            Found::Device(known) => Some(known),
            _ => None,
        }
    }

    fn entry(&self, node: &Node, device: String, has_dma: bool) -> Entry {
        let known = self.known(&device);
        let own = known.map_or_else(|| device.rsplit('/').next().unwrap_or_default(), Device::name);
        let wants = self.target(node, "dma-window").is_some_and(|(path, _)| self.windows.contains_key(&path));
        let gets = has_dma && known.map_or_else(|| self.board.vendor_dma.contains(&device), |known| known.dma);
        let (says_node, no_dma) = (own != node.name, gets && !wants);
        Entry { node: node.name.clone(), says_node, no_dma, device, ..Entry::default() }
    }

    /// The number of a QMan portal that has the usual stash, and nothing but what a profile's portal has.
    fn portal(&mut self, node: &'a Node, device: &str, partition: &str) -> Option<u32> {
        let inventory = self.board.inventory.as_ref()?;
        let is_portal = |device: &&Device| device.name().starts_with("qman-portal@");
        let mut portals = inventory.devices.iter().filter(is_portal);
        let number = portals.position(|portal| portal.path == device && portal.name() == node.name)?;
        let stash = |name: &str, index: u32| {
            let stash = node.node(name)?;
            let usual = [("liodn-index", index), ("operation-mapping", 0), ("stash-dest", 3)];
            let is = |(name, value): (&str, u32)| stash.property(name)?.numbers().filter(|have| have == &[value]);
            usual.into_iter().all(|usual| is(usual).is_some()).then(|| self.target(stash, "dma-window")).flatten()
        };
        let (memory, _) = stash("stash-mem", 1)?;
        let (ring_path, ring) = stash("stash-dqrr", 0)?;
        let reg = inventory.devices.iter().filter(is_portal).nth(number)?.reg.first()?;
        let is_ring = super::lift::number(ring, "guest-addr") == Some(reg.base().get())
            && super::lift::number(ring, "size") == Some(reg.len());
        let (parent, _) = ring_path.trim_start_matches('/').split_once('/')?;
        let windows = self.draft.names.get("/dma-windows").map_or("dma-windows", String::as_str);
        if !is_ring || parent != windows || self.windows.get(&memory).map(String::as_str) != Some(partition) {
            return None;
        }
        self.name(&format!("/dma-windows/qman-portal-{number}-window"), &ring.name);
        u32::try_from(number).ok()
    }

    /// Devices that stand for numbers of the data path, instead of as devices.
    fn numbers(&self, node: &Node, partition: &mut Partition) {
        for (key, kind, property) in NUMBERS {
            let range = |entry: &Entry, index: usize| {
                let own = node.node(&entry.node)?;
                let edit = own.node("node-update")?;
                let is_all = own.items.len() == 2 && edit.items.len() == 1;
                let cells = edit.property(property)?.numbers()?;
                let &[first, count] = cells.as_slice() else { return None };
                let path = self
                    .board
                    .vendor_devices
                    .iter()
                    .find(|path| path.rsplit('/').next() == Some(&format!("{kind}@{index}")));
                let known = path.is_some_and(|path| *path == entry.device);
                (is_all && known && count > 0).then(|| format!("{first:#x}-{:#x}", first.saturating_add(count - 1)))
            };
            let position = |index: usize, name: &str| {
                partition.devices.iter().position(|entry| entry.node == name && range(entry, index).is_some())
            };
            let alone = position(0, kind);
            let several: Vec<usize> = (0..8).map_while(|index| position(index, &format!("{kind}@{index}"))).collect();
            let places = match (alone, several.len()) {
                (Some(at), _) => vec![at],
                (None, 2..) => several,
                _ => continue,
            };
            let ranges: Option<Vec<String>> =
                places.iter().enumerate().map(|(index, at)| range(partition.devices.get(*at)?, index)).collect();
            let Some(ranges) = ranges else { continue };
            partition.data_path.push((key, ranges.join(",")));
            let mut index = 0;
            partition.devices.retain(|_| {
                index += 1;
                !places.contains(&(index - 1))
            });
        }
    }
}
