//! What a configuration tree says, through the hypervisor's own reader.

use std::collections::BTreeSet;

use citrine_core::config::{Area, ChannelEnd, Config, ImageRow, Mapping, Partition, Role};
use citrine_core::rules::TREE;
use citrine_formats::addr::{Address as _, Size};
use citrine_formats::{fdt, hvconfig};

use super::profile::quoted;
use super::{Kind, Source, System, Thing, Value, What, bytes};
use crate::diag::{Diagnostic, Label, Result};
use crate::pack::sha256;
use crate::profile::DataPath;

/// What the tree says of a partition and [`Config`] does not keep.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Node<'a> {
    /// Name of its node.
    pub name: String,
    /// The kernel command line.
    pub bootargs: Option<&'a str>,
    /// Paths or aliases of its devices.
    pub devices: Vec<&'a str>,
    /// Names of the nodes of its byte channels that lead to other partitions.
    pub channels: Vec<String>,
}

/// What a compiled configuration tree says. `file` names it in diagnostics.
///
/// # Errors
/// `H100`: what the hypervisor would not understand.
pub fn describe(file: &str, dtb: &[u8]) -> Result<System> {
    let refused = |why: &dyn std::fmt::Display| {
        Diagnostic::error(TREE, format!("{file}: {why}"))
            .primary(Label::file(file, "this configuration tree"))
            .help("give a tree that the hypervisor would take; `cargo xtask check` and dtc say what is wrong with one")
            .fact("file", file)
    };
    let tree = fdt::open(dtb).map_err(|why| refused(&why))?;
    let tree = hvconfig::Tree::new(tree).map_err(|why| refused(&why))?;
    let config = Config::from_tree(tree).map_err(|why| refused(&why))?;
    let mut nodes = Vec::new();
    for (partition, read) in tree.partitions().zip(&config.partitions) {
        let chosen = partition.place().child("node-update").and_then(|update| update.child("chosen"));
        let devices: std::result::Result<Vec<_>, _> = partition.devices().collect();
        let ends = partition.channels().zip(&read.channels);
        nodes.push(Node {
            name: partition.place().name().to_owned(),
            bootargs: chosen.and_then(|chosen| chosen.string("bootargs")),
            devices: devices.map_err(|why| refused(&why))?.into_iter().map(|(_, device)| device).collect(),
            channels: ends
                .filter(|(_, read)| matches!(read.end, ChannelEnd::Peer(_)))
                .map(|(node, _)| node.name().to_owned())
                .collect(),
        });
    }
    let mut system = describe_config(&config, &nodes);
    system.bytes = Some(sha256(dtb));
    Ok(system)
}

/// What a configuration and its partitions' nodes say.
pub fn describe_config(config: &Config<'_>, nodes: &[Node<'_>]) -> System {
    let mut system = System::new(Source::Tree);
    // Of the whole a tree says nothing.
    system.add(Kind::System, "", Thing::default());
    let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
    let mut taken: BTreeSet<usize> = config.hypervisor.memory.iter().copied().collect();

    let mut hypervisor = Thing::default();
    memory(&mut hypervisor, config.hypervisor.memory.iter().filter_map(|index| config.areas.get(*index)));
    if let Some(channel) = config.hypervisor.console.and_then(|console| console.mux_channel) {
        hypervisor.text(What::Console, channel);
    }
    system.add(Kind::Hypervisor, "", hypervisor);

    for (index, partition) in config.partitions.iter().enumerate() {
        let node = nodes.get(index).cloned().unwrap_or_default();
        let mut thing = describe_partition(partition, &node, &names);
        let own = partition.memory.iter().find(|mapping| is_own(mapping, config));
        let area = own.and_then(|mapping| config.areas.get(mapping.area));
        memory(&mut thing, area.into_iter());
        taken.extend(own.map(|mapping| mapping.area));
        system.add(Kind::Partition, &node.name, thing);
    }
    for (index, area) in config.areas.iter().enumerate().filter(|(index, _)| !taken.contains(index)) {
        let users = || {
            let users = config.partitions.iter().zip(&names);
            users.filter_map(|(partition, name)| {
                partition.memory.iter().find(|mapping| mapping.area == index).map(|mapping| (mapping.guest, *name))
            })
        };
        let mut thing = Thing::new(area.name);
        memory(&mut thing, std::iter::once(area));
        let guests: BTreeSet<_> = users().map(|(guest, _)| guest).collect();
        if guests.len() == 1 {
            guests.iter().for_each(|guest| thing.text(What::GuestAddress, guest));
        } else if !guests.is_empty() {
            let each: Vec<String> = users().map(|(guest, name)| format!("{guest} in {name}")).collect();
            thing.text(What::GuestAddress, each.join(", "));
        }
        thing.say(What::Partitions, Value::Partitions(users().map(|(_, name)| name.to_owned()).collect()));
        system.add(Kind::Area, area.name, thing);
    }
    channels(&mut system, config, nodes);
    system
}

/// Whether a mapping is its partition's own memory: from guest-physical 0, and nobody else's.
fn is_own(mapping: &Mapping, config: &Config<'_>) -> bool {
    let users = config.partitions.iter().flat_map(|partition| &partition.memory);
    mapping.guest.get() == 0 && !mapping.dma_only && users.filter(|other| other.area == mapping.area).count() == 1
}

/// Size and address of what is most often one area.
fn memory<'c>(thing: &mut Thing, areas: impl Iterator<Item = &'c Area<'c>> + Clone) {
    let list = |each: &dyn Fn(&Area<'_>) -> String| areas.clone().map(each).collect::<Vec<_>>().join(" and ");
    let (sizes, bases) = (list(&|area| Size(area.span.len()).to_string()), list(&|area| area.span.base().to_string()));
    if !sizes.is_empty() {
        thing.text(What::Memory, sizes);
        thing.text(What::MemoryAddress, bases);
    }
}

fn describe_partition(partition: &Partition<'_>, node: &Node<'_>, names: &[&str]) -> Thing {
    let mut thing = Thing::new(&node.name);
    thing.text(What::Label, partition.name);
    thing.text(What::Cpus, cpus(partition));
    let consoles = partition.channels.iter().filter_map(|channel| match channel.end {
        ChannelEnd::Mux { channel, .. } => Some(channel.to_string()),
        _ => None,
    });
    let consoles: Vec<String> = consoles.collect();
    if !consoles.is_empty() {
        thing.text(What::Console, consoles.join(", "));
    }
    if let Some(bootargs) = node.bootargs.filter(|bootargs| !bootargs.is_empty()) {
        thing.text(What::Bootargs, quoted(bootargs));
    }
    for (role, row) in partition.rows() {
        image(&mut thing, role, &row);
    }
    thing.text(What::Tree, format!("{} at {}", Size(partition.dtb_window.len()), partition.dtb_window.base()));
    for device in &node.devices {
        let what = if is_resource(device) { What::Resource } else { What::Device };
        thing.text_of(what, device, "");
    }
    thing.text(What::FastTraps, if partition.slow_traps { "off" } else { "on" });
    let managed = partition.managed.iter().filter_map(|managed| names.get(managed.partition));
    let managed: BTreeSet<String> = managed.map(|name| (*name).to_owned()).collect();
    thing.say(What::Manages, Value::Partitions(managed));
    if !partition.starts {
        thing.text(What::Starts, "when it is started");
    }
    thing
}

/// Whether a device is one of those that a profile speaks of by their numbers.
fn is_resource(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    let kind = name.split('@').next().unwrap_or_default();
    let (portals, data_path) = (["qman-portal", "bman-portal"], DataPath::default());
    let mut kinds = portals.into_iter().chain(data_path.kinds().map(|kind| kind.node));
    // Without an inventory, a portal's address is not known.
    kinds.any(|known| kind == known) || portals.iter().any(|portal| name.starts_with(&format!("{portal}-")))
}

/// The CPUs in their order, which is that of the virtual CPUs: `0-5,7`.
fn cpus(partition: &Partition<'_>) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for cpu in partition.cpus.iter().flat_map(|range| range.numbers()) {
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(cpu) => *last = cpu,
            _ => runs.push((cpu, cpu)),
        }
    }
    let run = |(first, last): (u32, u32)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    runs.into_iter().map(run).collect::<Vec<_>>().join(",")
}

fn image(thing: &mut Thing, role: Role, row: &ImageRow) {
    let role = role.to_string();
    thing.say_of(What::Image, &role, Value::Open("any image".to_owned()));
    let what = row.digest.map_or_else(|| Value::Open("any".to_owned()), |digest| bytes(digest.size, digest.sha256));
    thing.say_of(What::ImageBytes, &role, what);
    thing.text_of(What::ImageLoad, &role, row.source);
    thing.text_of(What::ImageWindow, &role, Size(row.window));
    thing.text_of(What::ImageGuest, &role, row.dest);
}

/// The channels between partitions, each by the name of its first end.
fn channels(system: &mut System, config: &Config<'_>, nodes: &[Node<'_>]) {
    for (partition, (read, node)) in config.partitions.iter().zip(nodes).enumerate() {
        let peers = read.channels.iter().enumerate().filter_map(|(channel, read)| match read.end {
            ChannelEnd::Peer(peer) => Some((channel, peer)),
            _ => None,
        });
        for ((channel, peer), name) in peers.zip(&node.channels) {
            let is_first = (partition, channel) < (peer.partition, peer.channel);
            let (Some(other), true) = (nodes.get(peer.partition), is_first) else { continue };
            let mut thing = Thing::new(name);
            let ends = BTreeSet::from([node.name.clone(), other.name.clone()]);
            thing.say(What::Partitions, Value::Partitions(ends));
            system.add(Kind::Channel, name, thing);
        }
    }
}
