//! From what a profile says of devices to the nodes that assign them: names, portals, DMA windows.

use citrine_formats::addr::{Address as _, GuestPhys, Span};

use crate::board::Board;
use crate::inventory::{Device, Found};
use crate::plan::{AssignedDevice, DmaPlan, Numbers, RingWindow, SubWindow};
use crate::profile::{DeviceUse, Dma, NumberKind, Partition, Profile, SharedArea};

/// Bytes of the register that takes message-signalled interrupts, with the page that it lies in.
const MSI_SIZE: u64 = 4096;

/// The devices of a partition: those that it names, its portals, and the resources of the data path.
pub fn of_partition(board: &Board, partition: &Partition) -> Vec<AssignedDevice> {
    let at = |key: &str| format!("partition/{}/{key}", partition.name);
    let mut nodes = Nodes { board, has_dma: partition.dma.is_some(), devices: Vec::new() };
    nodes.add_all(&partition.devices, &at("devices"), false);
    for (key, kind, numbers) in [
        ("bman-portals", "bman-portal", &partition.bman_portals),
        ("qman-portals", "qman-portal", &partition.qman_portals),
    ] {
        for number in numbers {
            nodes.add_portal(kind, *number, at(key));
        }
    }
    for NumberKind { key, node: kind, property, ranges } in partition.data_path.kinds() {
        for (index, (first, last)) in ranges.iter().enumerate() {
            let node = if ranges.len() == 1 { kind.to_owned() } else { format!("{kind}@{index}") };
            let numbers = Numbers { property, first: *first, count: last - first + 1 };
            nodes.add_resource(node, &format!("{kind}@{index}"), numbers, at(&format!("data-path/{key}")));
        }
    }
    nodes.add_all(&partition.optional_devices, &at("optional-devices"), true);
    nodes.devices
}

/// The devices that reach a partition's memory through its portals.
pub fn through_portals(board: &Board, partition: &Partition) -> Vec<AssignedDevice> {
    let mut nodes = Nodes { board, has_dma: partition.dma.is_some(), devices: Vec::new() };
    for (index, device) in partition.portal_devices.iter().enumerate() {
        // That they reach memory is what they are here for.
        let device = DeviceUse { dma: device.dma.or(Some(true)), ..device.clone() };
        nodes.add(&device, format!("partition/{}/portal-devices/{index}", partition.name), false);
    }
    nodes.devices
}

/// The devices of the hypervisor that the profile names.
pub fn of_hypervisor(board: &Board, profile: &Profile) -> Vec<AssignedDevice> {
    let mut nodes = Nodes { board, has_dma: false, devices: Vec::new() };
    nodes.add_all(&profile.hypervisor.devices, "hypervisor/devices", false);
    nodes.devices
}

/// The window of a partition's devices.
pub fn dma(partition: &Partition, shared: &[SharedArea]) -> Option<DmaPlan> {
    let node = format!("{}-window", partition.name);
    let window = match partition.dma.as_ref()? {
        Dma::Memory => return Some(DmaPlan { node, size: partition.memory, slots: None, subwindows: Vec::new() }),
        Dma::Window(window) => window,
    };
    let subwindows = window.reach.iter().filter_map(|reach| {
        let (base, size) = match reach.as_str() {
            "memory" => (0, partition.memory),
            // Linux extends its view of memory by one page, to reach the register right behind it.
            "msi" => (partition.memory, MSI_SIZE),
            name => shared.iter().find(|area| area.name == name).map(|area| (area.guest_address.get(), area.size))?,
        };
        let span = Span::new(GuestPhys(base), size).ok()?;
        Some(SubWindow { reach: reach.clone(), span, is_msi: reach == "msi" })
    });
    Some(DmaPlan { node, size: window.size, slots: Some(window.subwindows), subwindows: subwindows.collect() })
}

/// The nodes of one owner, as they come together.
struct Nodes<'b> {
    board: &'b Board,
    has_dma: bool,
    devices: Vec<AssignedDevice>,
}

impl<'b> Nodes<'b> {
    fn add_all(&mut self, devices: &[DeviceUse], path: &str, optional: bool) {
        for (index, device) in devices.iter().enumerate() {
            self.add(device, format!("{path}/{index}"), optional);
        }
    }

    /// Adds a device. A node of hv.dts has the name that the guest will see: the device's own, made unique, unless
    /// the profile gives it another.
    fn add(&mut self, device: &DeviceUse, path: String, optional: bool) {
        let found = self.board.inventory.as_ref().map(|inventory| inventory.find(&device.device));
        let (own, dma, known) = match found {
            Some(Found::Device(known)) => (known.name(), known.dma, true),
            _ => {
                let own = device.device.rsplit('/').next().unwrap_or_default();
                (own, self.board.vendor_dma.contains(&device.device), false)
            }
        };
        let node = device.node.clone().unwrap_or_else(|| self.unused(own));
        self.devices.push(AssignedDevice {
            node,
            device: device.device.clone(),
            path,
            dma: device.dma.unwrap_or(dma) && self.has_dma,
            optional,
            known,
            msi: device.msi.clone(),
            stash: None,
            numbers: None,
            dts: device.dts.clone(),
        });
    }

    /// The name `own`, or one like it that no node has yet.
    fn unused(&self, own: &str) -> String {
        let (kind, address) = own.split_once('@').map_or((own, String::new()), |(kind, at)| (kind, format!("@{at}")));
        let names = std::iter::once(own.to_owned()).chain((2..).map(|number| format!("{kind}-{number}{address}")));
        names.into_iter().find(|name| self.devices.iter().all(|other| other.node != *name)).unwrap_or_default()
    }

    /// Adds the portal of this kind and number; portals are numbered in the order of the hardware tree.
    fn add_portal(&mut self, kind: &str, number: u32, path: String) {
        let is_portal = |device: &&Device| device.name().split('@').next() == Some(kind);
        let inventory = self.board.inventory.as_ref();
        let portal = inventory.and_then(|i| i.devices.iter().filter(is_portal).nth(number as usize));
        let device = portal.map_or_else(|| format!("/{kind}s/{kind}-{number}"), |portal| portal.path.clone());
        let ring = portal.filter(|_| kind == "qman-portal").and_then(|portal| portal.reg.first());
        let stash = ring.and_then(|ring| {
            // Portals are seen by guests where they are.
            let span = Span::new(GuestPhys(ring.base().get()), ring.len()).ok()?;
            Some(RingWindow { node: format!("qman-portal-{number}-window"), span })
        });
        let own = device.rsplit('/').next().unwrap_or_default().to_owned();
        self.devices.push(AssignedDevice {
            node: self.unused(&own),
            device,
            path,
            dma: false,
            optional: false,
            known: portal.is_some(),
            msi: None,
            stash,
            numbers: None,
            dts: String::new(),
        });
    }

    /// Adds the node `name` of the hardware tree that stands for a resource of the data path.
    fn add_resource(&mut self, node: String, name: &str, numbers: Numbers, path: String) {
        let is_it = |path: &&str| path.rsplit('/').next() == Some(name);
        let inventory = self.board.inventory.iter().flat_map(|inventory| &inventory.devices);
        let known = inventory.map(|device| device.path.as_str()).find(is_it);
        let vendors = || self.board.vendor_devices.iter().map(String::as_str).find(is_it);
        let device = known.or_else(vendors).map_or_else(|| format!("/{name}"), str::to_owned);
        let (dma, optional, known) = (false, false, known.is_some());
        let (msi, stash, dts) = (None, None, String::new());
        let numbers = Some(numbers);
        self.devices.push(AssignedDevice { node, device, path, dma, optional, known, msi, stash, numbers, dts });
    }
}
