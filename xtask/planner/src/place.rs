//! [`place`]: from a board, a profile and the known artifacts to a [`LoadPlan`].
//!
//! Placement only decides what nobody has fixed; it judges nothing. A fixed address is taken as it is, and
//! the rules complain about it with both places named. Only a choice that cannot be made at all (no CPU
//! left, no room left, an unknown artifact) is an error here.

mod areas;
mod devices;
mod parts;

use std::collections::{BTreeMap, BTreeSet};

use citrine_formats::addr::{Address as _, Span};
use citrine_formats::manifest::{Media, Role};

use crate::board::Board;
use crate::diag::{Code, Diagnostic};
use crate::image::ImageFacts;
use crate::input::trust::no_key;
use crate::plan::{AreaOwner, ChannelEnd, GuestImage, LoadPlan, Managed, PartitionPlan};
use crate::profile::{ImageUse, Profile};
use crate::units::CpuChoice;
pub use areas::NO_ROOM;
use areas::place_areas;
pub use parts::SHARED_SECTOR;
pub(crate) use parts::guest_room;
use parts::{Medium, place_parts};

/// More CPUs are asked for than there are.
pub const NO_CPU_LEFT: Code = Code::new('P', 101);
/// The board's file does not say where parts lie in its flash.
pub const NO_FLASH: Code = Code::new('N', 101);

/// The artifacts that profiles may name, each with its role and, once it is built, its facts.
pub type Artifacts = BTreeMap<String, (Role, Option<ImageFacts>)>;

/// Names of the parts that lie in the flash's second set of slots; all others lie in the first.
pub type Second = BTreeSet<String>;

/// Places everything, with the parts in RAM.
///
/// # Errors
/// All that could not be placed, in one go.
pub fn place(board: &Board, profile: &Profile, artifacts: &Artifacts) -> Result<LoadPlan, Vec<Diagnostic>> {
    place_on(board, profile, artifacts, Medium::Ram)
}

/// Places everything, with the parts in the NOR flash.
///
/// # Errors
/// All that could not be placed, in one go; [`NO_FLASH`].
pub fn place_in_flash(
    board: &Board,
    profile: &Profile,
    artifacts: &Artifacts,
    second: &Second,
) -> Result<LoadPlan, Vec<Diagnostic>> {
    let Some(slots) = board.nor.as_ref().and_then(|nor| nor.slots.as_ref()) else {
        let message = format!("the board's file does not say where parts lie in the flash of {}", board.name);
        return Err(vec![
            Diagnostic::error(NO_FLASH, message)
                .primary(board.places.label(if board.nor.is_some() { "nor" } else { "name" }, "this board"))
                .help("give the bank an `area` and `slots` (docs/adding-a-board.md), or use `--media ram`"),
        ]);
    };
    place_on(board, profile, artifacts, Medium::Nor(slots, second))
}

fn place_on(
    board: &Board,
    profile: &Profile,
    artifacts: &Artifacts,
    medium: Medium<'_>,
) -> Result<LoadPlan, Vec<Diagnostic>> {
    let mut diagnostics = Vec::new();
    // Never a plan without a check that the profile asks for.
    if profile.trust.is_none() && profile.trust_file.is_some() {
        diagnostics.push(no_key(profile, "nobody has read it"));
    }
    let cpus = place_cpus(board, profile, &mut diagnostics);
    let areas = place_areas(board, profile, &mut diagnostics);
    let parts = place_parts(board, profile, artifacts, &areas, medium, &mut diagnostics);
    if !diagnostics.is_empty() {
        return Err(diagnostics);
    }

    let area_of = |owner: AreaOwner| areas.iter().position(|area| area.owner == owner);
    let part_of = |image: &ImageUse| parts.iter().position(|part| part.image.as_deref() == Some(&image.image));
    let guest_image = |image: &ImageUse| part_of(image).map(|part| GuestImage { part, guest: image.guest_address });
    let mut partitions = Vec::new();
    for (index, (partition, cpus)) in profile.partitions.iter().zip(cpus).enumerate() {
        let shared = profile.shared.iter().enumerate().filter(|(_, s)| s.partitions.contains(&partition.name));
        partitions.push(PartitionPlan {
            name: partition.name.clone(),
            label: partition.label.clone(),
            cpus,
            memory: area_of(AreaOwner::Partition(index)).expect("every partition's memory was placed"),
            shared: shared
                .filter_map(|(s, area)| area_of(AreaOwner::Shared(s)).map(|at| (at, area.guest_address)))
                .collect(),
            kernel: guest_image(&partition.kernel).expect("every image was placed"),
            rootfs: partition.rootfs.as_ref().and_then(guest_image),
            dtb: Span::new(partition.dtb_address, partition.dtb_size).expect("36-bit address and size"),
            console: partition.console,
            channels: channels(profile, &partition.name),
            devices: devices::of_partition(board, partition),
            portal_devices: devices::through_portals(board, partition),
            dma: devices::dma(partition, &profile.shared),
            manages: managed(profile, &partition.manages),
            bootargs: partition.bootargs.clone(),
            fast_traps: partition.fast_traps,
            dts: partition.dts.clone(),
        });
    }
    let configuration = parts.iter().find(|part| part.role == Role::Configuration).map_or(0, |part| part.load.get());
    let mut hv_bootargs = format!("config-addr={configuration:#x}");
    if !profile.hypervisor.bootargs.is_empty() {
        hv_bootargs = format!("{hv_bootargs} {}", profile.hypervisor.bootargs);
    }
    let mut facts = BTreeMap::new();
    for part in &parts {
        let known = part.image.as_ref().and_then(|image| artifacts.get(image)).and_then(|(_, facts)| facts.clone());
        facts.extend(known.map(|known| (part.file.clone(), known)));
    }
    Ok(LoadPlan {
        media: if matches!(medium, Medium::Ram) { Media::Ram } else { Media::Nor },
        board: board.clone(),
        profile: profile.clone(),
        areas,
        partitions,
        own_devices: devices::of_hypervisor(board, profile),
        parts,
        hv_bootargs,
        hypervisor: profile.hypervisor.firmware.capabilities(),
        facts,
    })
}

/// A partition's ends of the channels to others. That both partitions exist was seen when the profile was read.
fn channels(profile: &Profile, partition: &str) -> Vec<ChannelEnd> {
    let ends = profile.channels.iter().filter_map(|channel| {
        let [a, b] = &channel.partitions;
        let peer = match partition {
            name if name == a => b,
            name if name == b => a,
            _ => return None,
        };
        let peer = profile.partitions.iter().position(|other| other.name == *peer)?;
        Some(ChannelEnd { node: format!("{}-channel", channel.name), peer })
    });
    ends.collect()
}

/// The partitions of these names, which were looked for when the profile was read.
fn managed(profile: &Profile, names: &[String]) -> Vec<Managed> {
    let managed = names.iter().filter_map(|name| {
        let partition = profile.partitions.iter().position(|other| other.name == *name)?;
        Some(Managed { node: format!("{name}-partition"), partition })
    });
    managed.collect()
}

/// The CPUs of each partition, in order.
fn place_cpus(board: &Board, profile: &Profile, diagnostics: &mut Vec<Diagnostic>) -> Vec<BTreeSet<u32>> {
    let mut taken: BTreeSet<u32> = profile.unused_cpus.iter().copied().collect();
    let mut chosen: Vec<Option<BTreeSet<u32>>> = Vec::new();
    for partition in &profile.partitions {
        let cpus = match &partition.cpus {
            CpuChoice::Rest => None,
            CpuChoice::These(cpus) => Some(cpus.clone()),
            CpuChoice::First(count) => Some((0..*count).collect()),
            CpuChoice::Last(count) => Some((board.cpus.saturating_sub(*count)..board.cpus).collect()),
        };
        if let CpuChoice::First(count) | CpuChoice::Last(count) = partition.cpus
            && count > board.cpus
        {
            diagnostics.push(no_cpu(board, profile, &partition.name, format!("asks for {count} CPUs")));
        }
        taken.extend(cpus.iter().flatten());
        chosen.push(cpus);
    }
    let rest: BTreeSet<u32> = (0..board.cpus).filter(|cpu| !taken.contains(cpu)).collect();
    for (partition, cpus) in profile.partitions.iter().zip(&chosen) {
        if cpus.is_none() && rest.is_empty() {
            let what = "asks for the rest of the CPUs, and none is left".to_owned();
            diagnostics.push(no_cpu(board, profile, &partition.name, what));
        }
    }
    chosen.into_iter().map(|cpus| cpus.unwrap_or_else(|| rest.clone())).collect()
}

fn no_cpu(board: &Board, profile: &Profile, partition: &str, what: String) -> Diagnostic {
    Diagnostic::error(NO_CPU_LEFT, format!("partition {partition} {what}; {} has {}", board.name, board.cpus))
        .primary(profile.places.label(&format!("partition/{partition}/cpus"), "asked for here"))
        .related(board.places.label("cpus", "CPUs of the board"))
        .help("ask for fewer CPUs here or in another partition, or choose a board with more")
}
