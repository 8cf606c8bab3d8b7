//! What the templates may use: typed contexts made from the plan, every number already text.

use citrine_formats::addr::{Address as _, GuestPhys, Size, TruePhys};
use citrine_formats::manifest::Role;
use serde::Serialize;

use super::Digests;
use crate::plan::{ChannelEnd, GuestImage, LoadPlan, Part, PartitionPlan};
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
    hypervisor: Hypervisor,
    partitions: Vec<Partition>,
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
    baud: u32,
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
    device: String,
    dma: bool,
}

#[derive(Serialize)]
struct DmaWindow {
    r#ref: String,
    size: String,
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
    channel: u32,
    channels: Vec<Channel>,
    dma_window: Option<DmaWindow>,
    devices: Vec<Assigned>,
    managed: Vec<Managed>,
    bootargs: String,
    slow_traps: bool,
}

impl HvDts {
    /// The context of `plan`.
    pub fn of(plan: &LoadPlan, digests: &Digests) -> Self {
        let hypervisor = Hypervisor {
            memory: reference(&plan.hv_memory().name),
            devices: plan
                .board
                .hv_devices
                .iter()
                .map(|d| Device { name: d.name.clone(), device: d.device.clone() })
                .collect(),
            uart: plan.board.uarts.first().map_or_else(|| "serial0".to_owned(), |uart| uart.alias.clone()),
            baud: plan.board.baud(),
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
                    name: area.name.clone(),
                    addr: cells(area.span.base().get()),
                    addr_text: area.span.to_string(),
                    size: cells(area.span.len()),
                    size_text: Size(area.span.len()).to_string(),
                })
                .collect(),
            hypervisor,
            partitions: plan.partitions.iter().map(|partition| Partition::of(plan, digests, partition)).collect(),
        }
    }
}

impl Partition {
    fn of(plan: &LoadPlan, digests: &Digests, partition: &PartitionPlan) -> Self {
        let cpus: Vec<String> =
            cpu_runs(&partition.cpus).into_iter().map(|(first, count)| format!("{first} {count}")).collect();
        let area = |index: usize, guest: GuestPhys, shared: bool| GuestArea {
            name: plan.areas[index].name.clone(),
            r#ref: reference(&plan.areas[index].name),
            guest: cells(guest.get()),
            shared,
        };
        let mut areas = vec![area(partition.memory, GuestPhys::new(0), false)];
        areas.extend(partition.shared.iter().map(|(index, guest)| area(*index, *guest, true)));
        let everyones = || plan.partitions.iter().flat_map(|manager| &manager.manages);
        let is_managed = everyones().any(|managed| plan.partitions[managed.partition].name == partition.name);
        let manages = |managed: &crate::plan::Managed| Managed {
            name: managed.node.clone(),
            r#ref: partition_reference(&plan.partitions[managed.partition]),
        };
        Self {
            name: partition.name.clone(),
            r#ref: is_managed.then(|| partition_reference(partition)),
            label: partition.label.clone(),
            cpus: cpus.join(" "),
            cpus_text: format!("CPUs {}", cpu_list(&partition.cpus)),
            kernel: image_row(plan, &partition.kernel),
            rootfs: partition.rootfs.as_ref().map(|rootfs| image_row(plan, rootfs)),
            digests: digest_rows(plan, digests, partition),
            dtb: format!("{} {}", cells(partition.dtb.base().get()), cells(partition.dtb.len())),
            areas,
            console: format!("{}_console", reference(&partition.name)),
            channel: partition.console,
            channels: partition.channels.iter().map(|end| channel(plan, partition, end)).collect(),
            dma_window: partition.devices.iter().any(|device| device.dma).then(|| DmaWindow {
                r#ref: format!("{}_dma", reference(&partition.name)),
                size: cells(plan.areas[partition.memory].span.len()),
            }),
            devices: partition
                .devices
                .iter()
                .map(|d| Assigned { name: d.node.clone(), device: d.device.clone(), dma: d.dma })
                .collect(),
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
fn channel(plan: &LoadPlan, partition: &PartitionPlan, end: &ChannelEnd) -> Channel {
    let label = |partition: &str| format!("{}_{}", reference(partition), end.node.replace('-', "_"));
    let peer = label(&plan.partitions[end.peer].name);
    Channel { name: end.node.clone(), r#ref: label(&partition.name), peer }
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
    fn of(part: &Part) -> Self {
        Self { file: part.file.clone(), load: hex(part.load) }
    }
}

/// An address for U-Boot, whose numbers are hexadecimal with or without a prefix.
fn hex(address: TruePhys) -> String {
    format!("{:#x}", address.get())
}

impl BootCmd {
    /// The context of `plan`.
    pub fn of(plan: &LoadPlan) -> Self {
        let with = |roles: &[Role]| -> Vec<Loaded> {
            plan.parts.iter().filter(|part| roles.contains(&part.role)).map(Loaded::of).collect()
        };
        let one = |role: Role| Loaded::of(plan.part(role).expect("placement makes every board's fixed parts"));
        Self {
            board: plan.board.name.clone(),
            profile: plan.profile.name.clone(),
            directory: format!("{}-{}", plan.board.name, plan.profile.name),
            bootm_size: plan.board.uboot.bootm_size.map(|size| format!("{size:#x}")),
            bootargs: plan.hv_bootargs.clone(),
            fetched: with(&[Role::Kernel, Role::Rootfs, Role::Hypervisor, Role::HardwareTree, Role::Configuration]),
            images: with(&[Role::Kernel, Role::Rootfs, Role::Hypervisor]),
            trees: with(&[Role::Configuration, Role::HardwareTree]),
            hypervisor: one(Role::Hypervisor),
            hardware_tree: one(Role::HardwareTree),
        }
    }
}
