//! What the templates may use: typed contexts made from the plan, every number already text.

use citrine_formats::addr::{Address as _, GuestPhys, Size};
use citrine_formats::manifest::{Media, Role};
use serde::Serialize;

use citrine_core::capabilities::Capabilities;

use super::names::{CONSOLE, HYPERVISOR, MUX, Names, WINDOWS};
use super::{Digests, own};
use crate::plan::{self, AssignedDevice, ChannelEnd, GuestImage, LoadPlan, Part, PartitionPlan};
use crate::units::{cpu_list, cpu_runs};

/// A 64-bit number as two device-tree cells (ePAPR 1.1 §2.3.5).
fn cells(value: u64) -> String {
    format!("{:#x} {:#x}", value >> 32, value & 0xffff_ffff)
}

/// A device-tree label from a name: letters, digits and underscores (Devicetree Specification §6.2).
fn reference(name: &str) -> String {
    format!("a_{}", name.replace('-', "_"))
}

/// Context of `hv.dts.j2`.
#[derive(Serialize)]
pub struct HvDts {
    board: String,
    profile: String,
    guest_compatible: Option<String>,
    areas: Vec<Area>,
    windows: Vec<DmaWindow>,
    names: FixedNames,
    hypervisor: Hypervisor,
    partitions: Vec<Partition>,
    own: Vec<Own>,
}

/// What the profile says in devicetree source of its own, and of which node.
#[derive(Serialize)]
struct Own {
    path: Vec<String>,
    dts: String,
}

/// Names of the nodes of which there is one.
#[derive(Serialize)]
struct FixedNames {
    windows: String,
    hypervisor: String,
    memory: String,
    uart: String,
    console: String,
    mux: String,
}

#[derive(Serialize)]
struct Area {
    r#ref: String,
    name: String,
    addr: String,
    addr_text: String,
    size: String,
    size_text: String,
}

#[derive(Serialize)]
struct Device {
    name: String,
    device: String,
}

#[derive(Serialize)]
struct Hypervisor {
    memory: String,
    devices: Vec<Device>,
    uart: String,
    baud: Option<u32>,
    channel: u32,
}

#[derive(Serialize)]
struct GuestArea {
    name: String,
    r#ref: String,
    guest: String,
    shared: bool,
}

#[derive(Serialize)]
struct Channel {
    name: String,
    r#ref: String,
    peer: String,
}

#[derive(Serialize)]
struct Assigned {
    name: String,
    /// Only where another node refers to it.
    r#ref: Option<String>,
    device: String,
    dma: bool,
    msi: Option<String>,
    stash: Option<String>,
    numbers: Option<NumberRange>,
}

#[derive(Serialize)]
struct NumberRange {
    property: &'static str,
    cells: String,
}

#[derive(Serialize)]
struct DmaWindow {
    r#ref: String,
    name: String,
    remark: String,
    guest: String,
    size: String,
    slots: Option<u32>,
    subwindows: Vec<SubWindow>,
}

#[derive(Serialize)]
struct SubWindow {
    name: String,
    remark: String,
    guest: String,
    size: String,
    is_msi: bool,
}

#[derive(Serialize)]
struct Managed {
    name: String,
    r#ref: String,
}

#[derive(Serialize)]
struct Partition {
    name: String,
    /// Only where another node refers to it.
    r#ref: Option<String>,
    label: String,
    cpus: String,
    cpus_text: String,
    kernel: String,
    rootfs: Option<String>,
    digests: Option<String>,
    dtb: String,
    areas: Vec<GuestArea>,
    console: String,
    console_ref: String,
    channel: u32,
    channels: Vec<Channel>,
    dma_window: String,
    devices: Vec<Assigned>,
    portal_devices: Vec<Assigned>,
    managed: Vec<Managed>,
    bootargs: String,
    slow_traps: bool,
}

impl HvDts {
    /// The context of `plan`.
    pub fn of(plan: &LoadPlan, digests: &Digests) -> Self {
        let names = Names(&plan.profile.names);
        let uart = plan.board.uarts.first().map_or("serial0", |uart| uart.alias.as_str());
        let own = |name: &str| names.of(&[HYPERVISOR, name]);
        let boards = plan.board.hv_devices.iter().map(|d| Device { name: own(&d.name), device: d.device.clone() });
        let profiles = plan.own_devices.iter().map(|d| Device { name: d.node.clone(), device: d.device.clone() });
        let hypervisor = Hypervisor {
            memory: reference(&plan.hv_memory().name),
            devices: boards.chain(profiles).collect(),
            uart: uart.to_owned(),
            baud: plan.profile.hypervisor.baud.then(|| plan.board.baud()),
            channel: plan.profile.hypervisor.console,
        };
        Self {
            board: plan.board.name.clone(),
            profile: plan.profile.name.clone(),
            guest_compatible: plan.board.guest_compatible.clone(),
            areas: plan
                .areas
                .iter()
                .map(|area| Area {
                    r#ref: reference(&area.name),
                    name: names.of(&[&area.name]),
                    addr: cells(area.span.base().get()),
                    addr_text: area.span.to_string(),
                    size: cells(area.span.len()),
                    size_text: Size(area.span.len()).to_string(),
                })
                .collect(),
            windows: windows(plan, names),
            names: FixedNames {
                windows: names.of(&[WINDOWS]),
                hypervisor: names.of(&[HYPERVISOR]),
                memory: own("hv-memory"),
                uart: own(uart),
                console: own(CONSOLE),
                mux: names.of(&[MUX]),
            },
            hypervisor,
            partitions: plan.partitions.iter().map(|partition| Partition::of(plan, digests, partition)).collect(),
            own: Vec::new(),
        }
    }
}

impl HvDts {
    /// Adds the profile's own source.
    pub fn add(&mut self, owns: &[own::Own<'_>]) {
        self.own = owns.iter().map(|own| Own { path: own.path.clone(), dts: own.dts.to_owned() }).collect();
    }
}

/// Every piece of the profile's own source.
pub fn owns(plan: &LoadPlan) -> Vec<own::Own<'_>> {
    let names = Names(&plan.profile.names);
    let mut owns = Vec::new();
    let hypervisor = names.of(&[HYPERVISOR]);
    let mut add = |path: &[&str], key: String, dts| {
        if !str::is_empty(dts) {
            owns.push(own::Own { path: path.iter().map(|&node| node.to_owned()).collect(), key, dts });
        }
    };
    add(&[], "dts".to_owned(), &plan.profile.dts);
    for device in &plan.own_devices {
        add(&[&hypervisor, &device.node], format!("{}/dts", device.path), &device.dts);
    }
    for partition in &plan.partitions {
        let own = names.of(&[&partition.name]);
        add(&[&own], format!("partition/{}/dts", partition.name), &partition.dts);
        for device in partition.assigned(plan.hypervisor) {
            add(&[&own, &device.node], format!("{}/dts", device.path), &device.dts);
        }
        for device in &partition.portal_devices {
            add(&[&own, "portal-devices", &device.node], format!("{}/dts", device.path), &device.dts);
        }
    }
    owns
}

/// Every DMA window that some device of some partition has.
fn windows(plan: &LoadPlan, names: Names<'_>) -> Vec<DmaWindow> {
    let mut windows = Vec::new();
    for partition in &plan.partitions {
        let Some(dma) = &partition.dma else { continue };
        let devices = || partition.assigned(plan.hypervisor);
        if !devices().chain(&partition.portal_devices).any(|device| device.dma || device.stash.is_some()) {
            continue;
        }
        let sub = |(index, sub): (usize, &plan::SubWindow)| SubWindow {
            name: names.of(&[WINDOWS, &dma.node, &format!("sub-window@{index}")]),
            remark: format!("{}, {}", sub.reach, Size(sub.span.len())),
            guest: cells(sub.span.base().get()),
            size: cells(sub.span.len()),
            is_msi: sub.is_msi,
        };
        windows.push(DmaWindow {
            r#ref: reference(&dma.node),
            name: names.of(&[WINDOWS, &dma.node]),
            remark: format!("what the devices of {} reach, {}", partition.name, Size(dma.size)),
            guest: cells(0),
            size: cells(dma.size),
            slots: dma.slots,
            subwindows: dma.subwindows.iter().enumerate().map(sub).collect(),
        });
        for (device, ring) in devices().filter_map(|device| Some((device, device.stash.as_ref()?))) {
            windows.push(DmaWindow {
                r#ref: reference(&ring.node),
                name: names.of(&[WINDOWS, &ring.node]),
                remark: format!("the ring of {}", device.node),
                guest: cells(ring.span.base().get()),
                size: cells(ring.span.len()),
                slots: None,
                subwindows: Vec::new(),
            });
        }
    }
    windows
}

impl Assigned {
    fn of(partition: &PartitionPlan, hypervisor: Capabilities, device: &AssignedDevice) -> Self {
        let label = |node: &str| {
            format!("{}_{}", reference(&partition.name), node.replace(|c: char| !c.is_ascii_alphanumeric(), "_"))
        };
        let takes_messages = |other: &AssignedDevice| other.msi.as_ref() == Some(&device.device);
        let msi = device.msi.as_ref().and_then(|msi| partition.assigned(hypervisor).find(|other| other.device == *msi));
        Self {
            name: device.node.clone(),
            r#ref: partition.assigned(hypervisor).any(takes_messages).then(|| label(&device.node)),
            device: device.device.clone(),
            dma: device.dma,
            msi: msi.map(|msi| label(&msi.node)),
            stash: device.stash.as_ref().map(|ring| reference(&ring.node)),
            numbers: device.numbers.as_ref().map(|numbers| NumberRange {
                property: numbers.property,
                cells: format!("{:#x} {:#x}", numbers.first, numbers.count),
            }),
        }
    }
}

impl Partition {
    fn of(plan: &LoadPlan, digests: &Digests, partition: &PartitionPlan) -> Self {
        let names = Names(&plan.profile.names);
        let own = |name: &str| names.of(&[&partition.name, name]);
        let cpus: Vec<String> =
            cpu_runs(&partition.cpus).into_iter().map(|(first, count)| format!("{first} {count}")).collect();
        let area = |index: usize, guest: GuestPhys, shared: bool| GuestArea {
            name: own(&plan.areas[index].name),
            r#ref: reference(&plan.areas[index].name),
            guest: cells(guest.get()),
            shared,
        };
        let mut areas = vec![area(partition.memory, GuestPhys::new(0), false)];
        areas.extend(partition.shared.iter().map(|(index, guest)| area(*index, *guest, true)));
        let everyones = || plan.partitions.iter().flat_map(|manager| &manager.manages);
        let is_managed = everyones().any(|managed| plan.partitions[managed.partition].name == partition.name);
        let manages = |managed: &plan::Managed| Managed {
            name: own(&managed.node),
            r#ref: partition_reference(&plan.partitions[managed.partition]),
        };
        let assigned = |device| Assigned::of(partition, plan.hypervisor, device);
        Self {
            name: names.of(&[&partition.name]),
            r#ref: is_managed.then(|| partition_reference(partition)),
            label: partition.label.clone(),
            cpus: cpus.join(" "),
            cpus_text: format!("CPUs {}", cpu_list(&partition.cpus)),
            kernel: image_row(plan, &partition.kernel),
            rootfs: partition.rootfs.as_ref().map(|rootfs| image_row(plan, rootfs)),
            digests: digest_rows(plan, digests, partition),
            dtb: format!("{} {}", cells(partition.dtb.base().get()), cells(partition.dtb.len())),
            areas,
            console: own(CONSOLE),
            console_ref: format!("{}_console", reference(&partition.name)),
            channel: partition.console,
            channels: partition.channels.iter().map(|end| channel(plan, names, partition, end)).collect(),
            dma_window: partition.dma.as_ref().map(|dma| reference(&dma.node)).unwrap_or_default(),
            devices: partition.assigned(plan.hypervisor).map(assigned).collect(),
            portal_devices: partition.portal_devices.iter().map(assigned).collect(),
            managed: partition.manages.iter().map(manages).collect(),
            bootargs: partition.bootargs.clone(),
            slow_traps: !partition.fast_traps,
        }
    }
}

/// The label of a partition's node.
fn partition_reference(partition: &PartitionPlan) -> String {
    format!("{}_partition", reference(&partition.name))
}

/// One end of a channel between partitions, and the label of the other.
fn channel(plan: &LoadPlan, names: Names<'_>, partition: &PartitionPlan, end: &ChannelEnd) -> Channel {
    let label = |partition: &str| format!("{}_{}", reference(partition), end.node.replace('-', "_"));
    let peer = label(&plan.partitions[end.peer].name);
    Channel { name: names.of(&[&partition.name, &end.node]), r#ref: label(&partition.name), peer }
}

/// `<source destination length>`, each two cells.
fn image_row(plan: &LoadPlan, image: &GuestImage) -> String {
    let part = &plan.parts[image.part];
    format!("{}  {}  {}", cells(part.load.get()), cells(image.guest.get()), cells(part.window))
}

/// Size and SHA-256 of each image, as bytes, in the order in which the hypervisor loads them.
fn digest_rows(plan: &LoadPlan, digests: &Digests, partition: &PartitionPlan) -> Option<String> {
    let images = partition.rootfs.iter().chain([&partition.kernel]);
    let rows: Option<Vec<String>> = images
        .map(|image| {
            let digest = digests.get(&plan.parts[image.part].file)?;
            Some(digest.to_row().iter().map(|byte| format!("{byte:02x}")).collect())
        })
        .collect();
    Some(rows?.join(" "))
}

/// Context of `boot.cmd.j2`.
#[derive(Serialize)]
pub struct BootCmd {
    board: String,
    profile: String,
    medium: &'static str,
    directory: String,
    bootm_size: Option<String>,
    bootargs: String,
    fetched: Vec<Loaded>,
    images: Vec<Loaded>,
    trees: Vec<Loaded>,
    hypervisor: Loaded,
    hardware_tree: Loaded,
}

#[derive(Serialize, Clone)]
struct Loaded {
    file: String,
    load: String,
}

impl Loaded {
    /// U-Boot's numbers are hexadecimal with or without a prefix.
    fn of(plan: &LoadPlan, part: &Part) -> Self {
        Self { file: part.file.clone(), load: format!("{:#x}", plan.effective(part)) }
    }
}

impl BootCmd {
    /// The context of `plan`.
    pub fn of(plan: &LoadPlan) -> Self {
        let with = |roles: &[Role]| -> Vec<Loaded> {
            plan.parts.iter().filter(|part| roles.contains(&part.role)).map(|part| Loaded::of(plan, part)).collect()
        };
        let one = |role: Role| Loaded::of(plan, plan.part(role).expect("placement makes every board's fixed parts"));
        Self {
            board: plan.board.name.clone(),
            profile: plan.profile.name.clone(),
            medium: match plan.media {
                Media::Ram => "RAM",
                Media::Nor => "NOR flash",
            },
            directory: format!("{}-{}", plan.board.name, plan.profile.name),
            bootm_size: plan.board.uboot.bootm_size.map(|size| format!("{size:#x}")),
            bootargs: plan.hv_bootargs.clone(),
            fetched: match plan.media {
                Media::Ram => with(&[
                    Role::Kernel,
                    Role::Rootfs,
                    Role::Hypervisor,
                    Role::HardwareTree,
                    Role::Configuration,
                    Role::Signature,
                ]),
                // What lies in flash is used where it lies.
                Media::Nor => Vec::new(),
            },
            images: with(&[Role::Kernel, Role::Rootfs, Role::Hypervisor]),
            trees: with(&[Role::Configuration, Role::HardwareTree]),
            hypervisor: one(Role::Hypervisor),
            hardware_tree: one(Role::HardwareTree),
        }
    }
}
