//! What a profile says, alone or placed on a board.

use citrine_formats::addr::{Hex, Size};

use super::{Kind, Source, System, Thing, Value, What, tree};
use crate::pack::sha256;
use crate::plan::LoadPlan;
use crate::profile::{DeviceUse, Dma, Firmware, ImageUse, NumberKind, Partition, Profile};
use crate::render::names::Names;
use crate::rules::hypervisor::config;
use crate::units::{CpuChoice, cpu_list};

/// How a place is called that nobody has fixed.
const AUTOMATIC: &str = "automatic";

/// Longest devicetree source that is shown, and not only told apart.
const SHORT: usize = 60;

/// A value that may be left out.
fn or_open<T: std::fmt::Display>(value: Option<T>, open: &str) -> Value {
    value.map_or_else(|| Value::Open(open.to_owned()), |value| Value::Text(value.to_string()))
}

/// What a profile says on any board.
pub fn describe(profile: &Profile) -> System {
    let mut system = System::new(Source::Profile);
    let names = Names(&profile.names);
    let mut whole = Thing::default();
    whole.text_of(What::Named, "profile", &profile.name);
    whole.text_of(What::Named, "title", &profile.title);
    if profile.epoch != 0 {
        whole.text_of(What::Named, "epoch", profile.epoch);
    }
    if !profile.unused_cpus.is_empty() {
        whole.text_of(What::Named, "unused CPUs", cpu_list(&profile.unused_cpus.iter().copied().collect()));
    }
    for (path, name) in &profile.names {
        whole.text_of(What::Named, &format!("name of the node {path}"), name);
    }
    dts(&mut whole, &profile.dts);
    system.add(Kind::System, "", whole);

    let mut hypervisor = Thing::default();
    hypervisor.say(What::Memory, or_open(profile.hypervisor.memory.map(Size), "the board's"));
    hypervisor.say(What::MemoryAddress, or_open(profile.hypervisor.memory_address, "the board's"));
    hypervisor.text(What::Console, profile.hypervisor.console);
    if !profile.hypervisor.bootargs.is_empty() {
        hypervisor.text(What::Bootargs, quoted(&profile.hypervisor.bootargs));
    }
    let firmware = match profile.hypervisor.firmware {
        Firmware::Citrine => "citrine",
        Firmware::Freescale => "freescale",
    };
    hypervisor.text_of(What::Named, "firmware", firmware);
    devices(&mut hypervisor, &profile.hypervisor.devices, false);
    system.add(Kind::Hypervisor, "", hypervisor);

    for partition in &profile.partitions {
        system.add(Kind::Partition, &partition.name, describe_partition(partition, names));
    }
    for shared in &profile.shared {
        let mut area = Thing::new(names.of(&[&format!("{}-shared", shared.name)]));
        area.text(What::Memory, Size(shared.size));
        area.say(What::MemoryAddress, or_open(shared.address, AUTOMATIC));
        if !shared.partitions.is_empty() {
            area.text(What::GuestAddress, shared.guest_address);
        }
        area.say(What::Partitions, Value::Partitions(shared.partitions.iter().cloned().collect()));
        system.add(Kind::Area, &shared.name, area);
    }
    for channel in &profile.channels {
        // A tree tells of the first end.
        let ends = profile.partitions.iter().map(|partition| &partition.name);
        let first = ends.into_iter().find(|name| channel.partitions.contains(name)).map_or("", String::as_str);
        let mut thing = Thing::new(names.of(&[first, &format!("{}-channel", channel.name)]));
        thing.say(What::Partitions, Value::Partitions(channel.partitions.iter().cloned().collect()));
        system.add(Kind::Channel, &channel.name, thing);
    }
    system
}

fn describe_partition(partition: &Partition, names: Names<'_>) -> Thing {
    let mut thing = Thing::new(names.of(&[&partition.name]));
    thing.text(What::Label, &partition.label);
    thing.say(
        What::Cpus,
        match &partition.cpus {
            CpuChoice::These(cpus) => Value::Text(cpu_list(cpus)),
            choice => Value::Open(choice.to_string()),
        },
    );
    thing.text(What::Memory, Size(partition.memory));
    thing.say(What::MemoryAddress, or_open(partition.memory_address, AUTOMATIC));
    thing.text(What::Console, partition.console);
    if !partition.bootargs.is_empty() {
        thing.text(What::Bootargs, quoted(&partition.bootargs));
    }
    image(&mut thing, "kernel", &partition.kernel);
    if let Some(rootfs) = &partition.rootfs {
        image(&mut thing, "rootfs", rootfs);
    }
    thing.text(What::Tree, format!("{} at {}", Size(partition.dtb_size), partition.dtb_address));
    devices(&mut thing, &partition.devices, false);
    devices(&mut thing, &partition.optional_devices, true);
    for device in &partition.portal_devices {
        thing.text_of(What::PortalDevice, &device.device, how(device));
    }
    for (kind, numbers) in [("QMan portals", &partition.qman_portals), ("BMan portals", &partition.bman_portals)] {
        if !numbers.is_empty() {
            thing.text_of(What::Numbers, kind, cpu_list(&numbers.iter().copied().collect()));
        }
    }
    for NumberKind { key, ranges, .. } in partition.data_path.kinds() {
        let range = |(first, last): &(u32, u32)| format!("{} to {}", Hex((*first).into()), Hex((*last).into()));
        if !ranges.is_empty() {
            let ranges: Vec<String> = ranges.iter().map(range).collect();
            thing.text_of(What::Numbers, key, ranges.join(" and "));
        }
    }
    match &partition.dma {
        Some(Dma::Memory) => thing.text(What::Dma, "the partition's memory"),
        Some(Dma::Window(window)) => {
            let reach = window.reach.join(", ");
            let size = Size(window.size);
            thing.text(What::Dma, format!("{reach} in a window of {size} with {} slots", window.subwindows));
        }
        None => {}
    }
    dts(&mut thing, &partition.dts);
    thing.text(What::FastTraps, if partition.fast_traps { "on" } else { "off" });
    thing.say(What::Manages, Value::Partitions(partition.manages.iter().cloned().collect()));
    thing
}

/// Devices, and how each is assigned if that is not as usual.
fn devices(thing: &mut Thing, devices: &[DeviceUse], optional: bool) {
    for device in devices {
        let value = if optional { Value::Open("if there is one".to_owned()) } else { Value::Text(String::new()) };
        thing.say_of(What::Device, &device.device, value);
        let how = how(device);
        if !how.is_empty() {
            thing.text_of(What::DeviceHow, &device.device, how);
        }
    }
}

/// What is not as usual about a device.
fn how(device: &DeviceUse) -> String {
    let mut said: Vec<String> = device.node.iter().map(|node| format!("as {node}")).collect();
    said.extend(device.msi.iter().map(|msi| format!("with MSIs to {msi}")));
    said.extend(device.dma.map(|dma| if dma { "with DMA" } else { "without DMA" }.to_owned()));
    said.extend((!device.dts.is_empty()).then(|| format!("with {}", source(&device.dts))));
    said.join(", ")
}

fn dts(thing: &mut Thing, text: &str) {
    if !text.is_empty() {
        thing.text(What::Dts, source(text));
    }
}

/// A devicetree source: itself if it is short, else what tells it apart.
fn source(text: &str) -> String {
    let trimmed = text.trim();
    if trimmed.len() <= SHORT && !trimmed.contains('\n') {
        return quoted(trimmed);
    }
    let hash = sha256(text.as_bytes()).to_string();
    format!("{} lines, sha256 {}", text.lines().count(), hash.get(..16).unwrap_or(&hash))
}

fn image(thing: &mut Thing, role: &str, image: &ImageUse) {
    thing.text_of(What::Image, role, &image.image);
    thing.say_of(What::ImageLoad, role, or_open(image.load, AUTOMATIC));
    thing.say_of(What::ImageWindow, role, or_open(image.window.map(Size), AUTOMATIC));
    thing.text_of(What::ImageGuest, role, image.guest_address);
}

/// A text that may hold anything, with its ends visible.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.escape_default())
}

/// What a profile says on one board.
pub fn placed(plan: &LoadPlan) -> System {
    let mut system = describe(&plan.profile);
    system.source = Source::Placed;
    if let Some(whole) = system.things.get_mut(&(Kind::System, String::new())) {
        whole.text_of(What::Named, "board", &plan.board.name);
    }
    let names = Names(&plan.profile.names);
    let nodes = plan.partitions.iter().map(|partition| tree::Node {
        name: names.of(&[&partition.name]),
        bootargs: None,
        devices: partition.assigned(plan.hypervisor).map(|device| device.device.as_str()).collect(),
        channels: partition.channels.iter().map(|end| names.of(&[&partition.name, &end.node])).collect(),
    });
    let nodes: Vec<tree::Node<'_>> = nodes.collect();
    let areas: Vec<String> = plan.areas.iter().map(|area| names.of(&[&area.name])).collect();
    let mut config = config(plan);
    config.areas.iter_mut().zip(&areas).for_each(|(area, name)| area.name = name);
    system.decide(&tree::describe_config(&config, &nodes));
    system
}
