//! The hypervisor's own rules (`H1xx`), on the configuration that the plan will become.
//!
//! [`citrine_core::rules`] speaks of names; here every name gets its place in the board's file or the
//! profile, and the cure in the profile's words.

use citrine_core::capabilities::Capabilities;
use citrine_core::config::{
    Area, Channel, ChannelEnd, ChannelId, Config, Console, CpuRange, Hypervisor, ImageRow, MAX_CHANNELS, MAX_MANAGED,
    Managed, Mapping, Partition, Role,
};
use citrine_core::machine::{CpuSet, Machine};
use citrine_core::rules::{Finding, check as core_check};
use citrine_formats::addr::{GuestPhys, Size};

use crate::board::Board;
use crate::diag::{Code, Diagnostic, Label};
use crate::plan::{AreaOwner, GuestImage, LoadPlan, PartitionPlan};
use crate::units::cpu_runs;

/// More than the hypervisor can hold.
pub const TOO_MANY: Code = Code::new('P', 103);

/// The bundle has another hypervisor than the profile is written for.
pub const OTHER_HYPERVISOR: Code = Code::new('P', 105);

/// Judges whether the hypervisor is the one that the profile is written for.
pub fn meant(plan: &LoadPlan) -> Vec<Diagnostic> {
    let meant = plan.profile.hypervisor.firmware.capabilities();
    // What is written for ours asks for nothing that the other could not do.
    if meant == plan.hypervisor || meant == Capabilities::CITRINE {
        return Vec::new();
    }
    let (name, have) = (&plan.profile.name, plan.hypervisor.name);
    let message = format!("profile {name} is written for {}, and the bundle would have {have}", meant.name);
    vec![
        Diagnostic::error(OTHER_HYPERVISOR, message)
            .primary(plan.profile.places.label("hypervisor/firmware", "written for this one"))
            .help("give its image: --hypervisor FILE"),
    ]
}

/// Runs the hypervisor's rules on the plan.
pub fn check(plan: &LoadPlan) -> Vec<Diagnostic> {
    let config = config(plan);
    let machine = machine(&plan.board);
    let mut found = cut(plan, &config, &machine);
    if !found.is_empty() {
        // Of half a configuration the rules would say what is not true.
        return found;
    }
    core_check(&config, &machine, &mut |finding| {
        found.extend(diagnostic(plan, &finding));
    });
    found
}

/// The board as the hypervisor will find it.
pub fn machine(board: &Board) -> Machine {
    Machine { cpus: CpuSet::first(board.cpus), ram: board.ram.iter().copied().take(8).collect() }
}

/// Says which lists are longer than the hypervisor can hold: its rules see only what fits.
fn cut(plan: &LoadPlan, config: &Config<'_>, machine: &Machine) -> Vec<Diagnostic> {
    let profile = |path: String, text: String| plan.profile.places.label(&path, text);
    let mut found = Vec::new();
    let mut compare = |what: String, have: usize, room: usize, place: &dyn Fn(String) -> Label| {
        if have > room {
            found.push(
                Diagnostic::error(TOO_MANY, format!("{what}: {have}, and the hypervisor can hold {room}"))
                    .primary(place(format!("{have} of them")))
                    .fact("have", have)
                    .fact("room", room)
                    .help("use fewer; a larger one often does the work of several"),
            );
        }
    };
    compare("memory areas".to_owned(), plan.areas.len(), config.areas.capacity(), &|text| {
        profile("shared".to_owned(), text)
    });
    compare("banks of memory".to_owned(), plan.board.ram.len(), machine.ram.capacity(), &|text| {
        plan.board.places.label("ram", text)
    });
    for (plan, config) in plan.partitions.iter().zip(&config.partitions) {
        let of = |key: &'static str| move |text: String| profile(format!("partition/{}/{key}", plan.name), text);
        let runs = cpu_runs(&plan.cpus).len();
        compare(format!("ranges of CPUs of partition {}", plan.name), runs, config.cpus.capacity(), &of("cpus"));
        let areas = 1 + plan.shared.len();
        compare(format!("memory areas of partition {}", plan.name), areas, config.memory.capacity(), &of("memory"));
        let channels = 1 + plan.channels.len();
        let room = config.channels.capacity();
        compare(format!("byte channels of partition {}", plan.name), channels, room, &of("name"));
        let (managed, room) = (plan.manages.len(), config.managed.capacity());
        compare(format!("partitions that {} manages", plan.name), managed, room, &of("manages"));
    }
    found
}

/// The configuration that hv.dtb will hold. A list that is too long for the hypervisor is cut ([`TOO_MANY`]).
pub fn config(plan: &LoadPlan) -> Config<'_> {
    let console = plan.board.uarts.first().map(|uart| uart.alias.as_str()).unwrap_or_default();
    let hv_memory = plan.areas.iter().position(|area| area.owner == AreaOwner::Hypervisor);
    Config {
        areas: plan.areas.iter().map(|area| Area { name: &area.name, span: area.span }).take(64).collect(),
        hypervisor: Hypervisor {
            memory: hv_memory.into_iter().collect(),
            console: Some(Console { device: console, mux_channel: Some(plan.profile.hypervisor.console) }),
        },
        partitions: plan.partitions.iter().map(|p| partition(plan, p, console)).take(24).collect(),
    }
}

fn partition<'p>(plan: &'p LoadPlan, partition: &'p PartitionPlan, console: &'p str) -> Partition<'p> {
    let row = |image: &GuestImage| {
        let part = &plan.parts[image.part];
        ImageRow { source: part.load, dest: image.guest, window: part.window, digest: None }
    };
    let mapping = |(area, guest): (usize, GuestPhys)| Mapping { area, guest, dma_only: false };
    let memory = [(partition.memory, GuestPhys(0))].into_iter().chain(partition.shared.iter().copied());
    Partition {
        name: &partition.name,
        cpus: cpu_runs(&partition.cpus).into_iter().map(|(first, count)| CpuRange { first, count }).take(8).collect(),
        memory: memory.map(mapping).take(16).collect(),
        dtb_window: partition.dtb,
        guest_image: Some(row(&partition.kernel)),
        rootfs: partition.rootfs.as_ref().map(row),
        images: Default::default(),
        channels: [Channel {
            name: "byte-channel",
            end: ChannelEnd::Mux { device: console, channel: partition.console },
        }]
        .into_iter()
        .chain(partition.channels.iter().map(|end| channel(plan, end)))
        .take(MAX_CHANNELS)
        .collect(),
        managed: partition
            .manages
            .iter()
            .map(|managed| Managed { name: &managed.node, partition: managed.partition })
            .take(MAX_MANAGED)
            .collect(),
        devices: partition.assigned(plan.hypervisor).count(),
        starts: true,
        slow_traps: !partition.fast_traps,
    }
}

/// A channel to another partition, where the console comes before all others.
fn channel<'p>(plan: &'p LoadPlan, end: &'p crate::plan::ChannelEnd) -> Channel<'p> {
    let peer = plan.partitions.get(end.peer);
    let index = peer.and_then(|peer| peer.channels.iter().position(|back| back.node == end.node));
    let peer = ChannelId { partition: end.peer, channel: 1 + index.unwrap_or(0) };
    Channel { name: &end.node, end: ChannelEnd::Peer(peer) }
}

/// The finding with its places and its cure; `None` where the plan knows better.
fn diagnostic(plan: &LoadPlan, finding: &Finding<'_>) -> Option<Diagnostic> {
    let profile = |path: String, text: String| plan.profile.places.label(&path, text);
    let of = |partition: &str, key: &str, text: &str| profile(format!("partition/{partition}/{key}"), text.to_owned());
    let area = |name: &str, text: &str| {
        let found = plan.areas.iter().find(|area| area.name == name);
        found.map_or_else(|| Label::file(plan.board.name.clone(), text), |area| plan.area_label(area, text))
    };
    let channel_of = |owner: &str, text: &str| {
        if plan.partitions.iter().any(|p| p.name == owner) {
            of(owner, "console", text)
        } else {
            profile("hypervisor/console".to_owned(), text.to_owned())
        }
    };
    let role_key = |role: Role| match role {
        Role::Rootfs => "rootfs",
        _ => "kernel",
    };
    let base = Diagnostic::new(finding.code(), finding.severity(), finding.to_string());
    let placed = match *finding {
        Finding::CpuTwice { cpu, first, second } => base
            .primary(of(second, "cpus", &format!("{second} takes CPU {cpu}")))
            .related(of(first, "cpus", &format!("{first} has it")))
            .fact("cpu", cpu)
            .help("give each CPU to one partition; \"rest\" takes what the others leave"),
        Finding::CpuMissing { partition, cpu, .. } => base
            .primary(of(partition, "cpus", &format!("asks for CPU {cpu}")))
            .related(plan.board.places.label("cpus", "the board's CPUs are counted from 0"))
            .fact("cpu", cpu)
            .help(format!("{} has the CPUs 0 to {}", plan.board.name, plan.board.cpus.saturating_sub(1))),
        Finding::CpusIdle { cpus } => {
            let unwanted: CpuSet = plan.profile.unused_cpus.iter().copied().collect();
            let idle = cpus.without(unwanted);
            if idle.is_empty() {
                return None;
            }
            // Each partition's CPUs are shown: the gap is between them.
            let mut diagnostic =
                Diagnostic::new(finding.code(), finding.severity(), Finding::CpusIdle { cpus: idle }.to_string());
            for (index, p) in plan.partitions.iter().enumerate() {
                let runs: CpuSet = p.cpus.iter().copied().collect();
                let label = of(&p.name, "cpus", &format!("{} has {runs}", p.name));
                diagnostic = if index == 0 { diagnostic.primary(label) } else { diagnostic.related(label) };
            }
            let it = if idle.len() == 1 { "it" } else { "them" };
            diagnostic
                .fact("cpus", idle)
                .help(format!("give {it} to a partition, or say that nobody shall have {it}: unused-cpus = \"{idle}\""))
        }
        Finding::AreaSize { area: name, size } => base
            .primary(area(name, "this area"))
            .fact("size", size)
            .help(format!("the next larger power of two is {}", Size(size.checked_next_power_of_two().unwrap_or(0)))),
        Finding::AreaUnaligned { area: name, span } => base.primary(area(name, "this area")).help(format!(
            "the nearest multiples are {:#x} and {:#x}; without an address it is placed automatically",
            span.base().0 / span.len() * span.len(),
            span.base().0.checked_next_multiple_of(span.len()).unwrap_or(0)
        )),
        Finding::AreasOverlap { first, second, common } => base
            .primary(area(second, "this one"))
            .related(area(first, "and this one"))
            .fact("bytes", common.len())
            .help("move one of them, or leave its address out to have it placed"),
        Finding::AreaOutsideRam { area: name, .. } => base
            .primary(area(name, "this area"))
            .related(plan.board.places.label("ram", format!("{} has {}", plan.board.name, plan.board.ram_text())))
            .help("choose an address in the board's memory, or leave it out"),
        Finding::HypervisorMapped { area: name, partition } => {
            base.primary(area(name, "the hypervisor's memory")).related(of(partition, "memory", "mapped here"))
        }
        Finding::MappingsOverlap { partition, first, second, .. } => base
            .primary(shared_label(plan, second).unwrap_or_else(|| of(partition, "memory", second)))
            .related(shared_label(plan, first).unwrap_or_else(|| of(partition, "memory", first)))
            .help("give the shared area a guest-address that none of its partitions uses"),
        Finding::GuestUnaligned { partition, area: name, size, .. } => base
            .primary(shared_label(plan, name).unwrap_or_else(|| of(partition, "memory", name)))
            .help(format!("a guest address is a multiple of the area's size, {size:#x}")),
        Finding::ChannelTwice { channel, first, second } => base
            .primary(channel_of(second, "the second"))
            .related(channel_of(first, "the first"))
            .fact("channel", channel)
            .help("give each console a channel of its own, from 0 to 31"),
        Finding::ChannelTooLarge { owner, channel } => base
            .primary(channel_of(owner, "this channel"))
            .fact("channel", channel)
            .help("a mux has the channels 0 to 31"),
        Finding::DtbOutside { partition, .. } => base
            .primary(of(partition, "dtb-address", "the guest tree's window"))
            .related(of(partition, "memory", "the partition's memory"))
            .help("move the window into the partition's memory"),
        Finding::ImageOutside { partition, role, .. } => base
            .primary(of(partition, &format!("{}/guest-address", role_key(role)), "this image"))
            .related(of(partition, "memory", "the partition's memory"))
            .fact("image", role)
            .help("lower its guest-address, give the image a smaller window, or the partition more memory"),
        Finding::DestinationsOverlap { partition, first, second, .. } => base
            .primary(of(partition, &format!("{}/guest-address", role_key(first)), "this image may reach"))
            .related(match second {
                Some(role) => of(partition, &format!("{}/guest-address", role_key(role)), "this one"),
                None => of(partition, "dtb-address", "the guest tree"),
            })
            .help("move one of them up, or make the image's window smaller"),
        // The stage model judges sources more strictly, with their real bytes (L101, L102); for a profile, devices
        // that are left out are an error, if the bundle has this hypervisor at all (D109).
        Finding::SourceOwned { .. } | Finding::DevicesIgnored { .. } => return None,
        Finding::HypervisorMemory { .. } => base
            .primary(area(&plan.hv_memory().name, "the hypervisor's memory"))
            .help("the hypervisor needs at least 16 MiB: its image, page tables for guests, and heap"),
        Finding::DtbTooHigh { partition, .. } => base
            .primary(of(partition, "dtb-address", "the guest tree's window"))
            .help("choose a window that ends at or below 0x4000000"),
        Finding::RootfsTooHigh { partition, .. } => base
            .primary(of(partition, "rootfs/guest-address", "the root file system"))
            .fact("image", "rootfs")
            .help("choose a lower guest-address, or a smaller window"),
        Finding::NoCpu { partition } => {
            base.primary(of(partition, "cpus", "chooses no CPU")).help("give it at least one CPU")
        }
    };
    Some(match partition_of(finding) {
        Some(partition) => placed.fact("partition", partition),
        None => placed,
    })
}

/// The partition that a finding is about, for machines and for [`super::check`].
fn partition_of<'f>(finding: &Finding<'f>) -> Option<&'f str> {
    match *finding {
        Finding::CpuMissing { partition, .. }
        | Finding::HypervisorMapped { partition, .. }
        | Finding::MappingsOverlap { partition, .. }
        | Finding::GuestUnaligned { partition, .. }
        | Finding::DtbOutside { partition, .. }
        | Finding::ImageOutside { partition, .. }
        | Finding::DestinationsOverlap { partition, .. }
        | Finding::DtbTooHigh { partition, .. }
        | Finding::RootfsTooHigh { partition, .. }
        | Finding::NoCpu { partition } => Some(partition),
        _ => None,
    }
}

fn shared_label(plan: &LoadPlan, area: &str) -> Option<Label> {
    let area = plan.areas.iter().find(|known| known.name == area)?;
    let AreaOwner::Shared(index) = area.owner else { return None };
    let name = &plan.profile.shared[index].name;
    Some(plan.profile.places.label(&format!("shared/{name}/guest-address"), "this shared area"))
}
