//! [`place`]: from a board, a profile and the known artifacts to a [`LoadPlan`].
//!
//! Placement only decides what nobody has fixed; it judges nothing. A fixed address is taken as it is, and
//! the rules complain about it with both places named. Only a choice that cannot be made at all (no CPU
//! left, no room left, an unknown artifact) is an error here.

mod devices;

use std::collections::{BTreeMap, BTreeSet};

use citrine_formats::addr::{Address as _, Size, Span, TruePhys};
use citrine_formats::manifest::{Media, Role, SIGNATURE_SUFFIX};
use citrine_formats::signature;

use crate::board::{Board, HardwareTree, NorSlots, Slots};
use crate::diag::{Code, Diagnostic};
use crate::image::ImageFacts;
use crate::input::reader::nearest;
use crate::input::trust::no_key;
use crate::input::{IMPOSSIBLE_VALUE, UNKNOWN_NAME};
use crate::plan::{Area, AreaOwner, ChannelEnd, Decided, GuestImage, LoadPlan, Managed, Part, PartitionPlan};
use crate::profile::{ImageUse, Partition, Profile};
use crate::units::CpuChoice;

/// More CPUs are asked for than there are.
pub const NO_CPU_LEFT: Code = Code::new('P', 101);
/// No gap of memory is large enough.
pub const NO_ROOM: Code = Code::new('L', 105);
/// The board's file does not say where parts lie in its flash.
pub const NO_FLASH: Code = Code::new('N', 101);
/// The flash's sectors are too large for the place of a configuration's signature.
pub const SHARED_SECTOR: Code = Code::new('K', 107);

/// Room for an image beyond the first of its role, unless the profile gives a window.
const EXTRA_WINDOW: u64 = 8 << 20;
/// Images that are placed automatically begin at a multiple of this: one NOR sector of any board.
const EXTRA_ALIGNMENT: u64 = 128 << 10;

/// The artifacts that profiles may name, each with its role and, once it is built, its facts.
pub type Artifacts = BTreeMap<String, (Role, Option<ImageFacts>)>;

/// Names of the parts that lie in the flash's second set of slots; all others lie in the first.
pub type Second = BTreeSet<String>;

/// Where the boot loader finds the parts.
#[derive(Clone, Copy, Debug)]
enum Medium<'a> {
    Ram,
    Nor(&'a NorSlots, &'a Second),
}

impl Medium<'_> {
    /// The slots, the area that they lie in, and where in the board's file both stand.
    fn slots(self, board: &Board) -> (Slots, Span<TruePhys>, &'static str, &'static str) {
        match self {
            Self::Ram => (board.slots, board.image_area, "slots", "image-area"),
            Self::Nor(nor, _) => (nor.first, nor.area, "nor/slots", "nor/area"),
        }
    }

    /// The parts that are not the same on every medium, since addresses stand in them.
    const fn files(self) -> (&'static str, &'static str) {
        match self {
            Self::Ram => ("hv.dtb", "boot.scr"),
            Self::Nor(..) => ("hv-nor.dtb", "boot-nor.scr"),
        }
    }
}

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

/// Whoever writes the signature later would erase the configuration.
fn shared_sector(board: &Board, sector: u64) -> Diagnostic {
    let message = format!(
        "the signature of a configuration cannot have sectors of its own: it lies {:#x} bytes behind the configuration, \
         a sector of this flash has {sector:#x}",
        signature::DISTANCE
    );
    Diagnostic::error(SHARED_SECTOR, message)
        .primary(board.places.label("nor/sector", "the size of a sector"))
        .help("use `--media ram`, or leave out `[trust]`: the firmware knows this one distance")
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

/// What an area still needs: its size, and its address if that is fixed.
struct Wanted {
    name: String,
    owner: AreaOwner,
    size: u64,
    fixed: Option<TruePhys>,
}

fn place_areas(board: &Board, profile: &Profile, diagnostics: &mut Vec<Diagnostic>) -> Vec<Area> {
    let hypervisor = &profile.hypervisor;
    let hv_size = hypervisor.memory.unwrap_or(board.hv_memory.len());
    // A profile that only changes the size keeps the board's end, so that RAM is not split further.
    let hv_base =
        hypervisor.memory_address.unwrap_or_else(|| TruePhys::new(board.hv_memory.end().get().saturating_sub(hv_size)));
    let mut wanted = vec![Wanted {
        name: "hv-memory-area".to_owned(),
        owner: AreaOwner::Hypervisor,
        size: hv_size,
        fixed: Some(hv_base),
    }];
    for (index, partition) in profile.partitions.iter().enumerate() {
        wanted.push(Wanted {
            name: format!("{}-memory", partition.name),
            owner: AreaOwner::Partition(index),
            size: partition.memory,
            fixed: partition.memory_address,
        });
    }
    for (index, shared) in profile.shared.iter().enumerate() {
        wanted.push(Wanted {
            name: format!("{}-shared", shared.name),
            owner: AreaOwner::Shared(index),
            size: shared.size,
            fixed: shared.address,
        });
    }

    let mut areas = Vec::new();
    let mut place_at =
        |want: &Wanted, base: TruePhys, diagnostics: &mut Vec<Diagnostic>| match Span::new(base, want.size) {
            Ok(span) => areas.push(Area { name: want.name.clone(), span, owner: want.owner }),
            Err(error) => {
                diagnostics.push(Diagnostic::error(IMPOSSIBLE_VALUE, format!("area {}: {error}", want.name)));
            }
        };
    for want in &wanted {
        if let Some(base) = want.fixed {
            place_at(want, base, diagnostics);
        }
    }
    // Automatic areas keep away from whatever else will ever own a byte, so they need no stage model.
    let mut taken: Vec<Span<TruePhys>> = vec![board.image_area];
    taken.extend(board.uboot.memory.iter().map(|memory| memory.span));
    taken.extend(wanted.iter().filter_map(|want| Span::new(want.fixed?, want.size).ok()));
    let images = profile.partitions.iter().flat_map(|p| [Some(&p.kernel), p.rootfs.as_ref()]).flatten();
    taken.extend(images.filter_map(|image| Span::new(image.load?, image.window.unwrap_or(EXTRA_WINDOW)).ok()));
    // Large ones first: small ones fit between them, but not the other way round.
    let mut free: Vec<&Wanted> = wanted.iter().filter(|want| want.fixed.is_none()).collect();
    free.sort_by_key(|want| std::cmp::Reverse(want.size));
    for want in free {
        match find_gap(board, &taken, want.size) {
            Some(span) => {
                taken.push(span);
                place_at(want, span.base(), diagnostics);
            }
            None => diagnostics.push(no_room(board, profile, want, &taken)),
        }
    }
    areas.sort_by_key(|area| area.span.base());
    areas
}

/// The lowest free range of `size` bytes at a multiple of its size (of the next power of two, if it is none).
fn find_gap(board: &Board, taken: &[Span<TruePhys>], size: u64) -> Option<Span<TruePhys>> {
    let alignment = size.checked_next_power_of_two()?;
    let mut starts: Vec<u64> = board.ram.iter().map(|bank| bank.base().get()).collect();
    starts.extend(taken.iter().map(|span| span.end().get()));
    starts.sort_unstable();
    starts.into_iter().find_map(|start| {
        let base = start.checked_next_multiple_of(alignment)?;
        let span = Span::new(TruePhys(base), size).ok()?;
        (board.has_ram(&span) && taken.iter().all(|other| !other.overlaps(&span))).then_some(span)
    })
}

fn no_room(board: &Board, profile: &Profile, want: &Wanted, taken: &[Span<TruePhys>]) -> Diagnostic {
    let path = match want.owner {
        AreaOwner::Partition(index) => {
            format!("partition/{}/memory", profile.partitions[index].name)
        }
        AreaOwner::Shared(index) => format!("shared/{}/size", profile.shared[index].name),
        AreaOwner::Hypervisor => "hypervisor/memory".to_owned(),
    };
    let largest = (0..36).rev().map(|bits| 1 << bits).find_map(|size| find_gap(board, taken, size));
    let rest = match largest {
        Some(gap) => format!("the largest area that still fits has {} at {}", Size(gap.len()), gap.base()),
        None => "nothing is left".to_owned(),
    };
    Diagnostic::error(NO_ROOM, format!("no room for {}: {} at a multiple of its size", want.name, Size(want.size)))
        .primary(profile.places.label(&path, "this much memory"))
        .related(board.places.label("ram", format!("{} has {}", board.name, board.ram_text())))
        .fact("size", want.size)
        .help(format!("{rest}; the image area and the boot loader's memory are not given away"))
}

/// An image that some partition uses, with every remark about where it should be loaded.
struct WantedImage<'p> {
    image: &'p str,
    role: Role,
    load: Option<(TruePhys, String)>,
    window: Option<(u64, String)>,
}

fn place_parts(
    board: &Board,
    profile: &Profile,
    artifacts: &Artifacts,
    areas: &[Area],
    medium: Medium<'_>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<Part> {
    let images = wanted_images(profile, artifacts, diagnostics);
    let (slots, image_area, key_of_slots, key_of_area) = medium.slots(board);
    let (configuration, script) = medium.files();
    let fixed = |file: &str, role: Role, load: TruePhys, key: &str| Part {
        file: file.to_owned(),
        role,
        image: None,
        load,
        window: 0,
        window_decided: None,
        decided: Decided::Board(format!("{key_of_slots}/{key}")),
    };
    let tree = match &board.hardware_tree {
        HardwareTree::Kernel(name) => format!("{}.dtb", name.rsplit('/').next().unwrap_or(name)),
        HardwareTree::Emulator | HardwareTree::Given(_) => format!("{}.dtb", board.name),
    };
    let mut parts = vec![
        fixed("hv.uImage", Role::Hypervisor, slots.hypervisor, "hypervisor"),
        fixed(&tree, Role::HardwareTree, slots.hardware_tree, "hardware-tree"),
        fixed(configuration, Role::Configuration, slots.configuration, "configuration"),
        fixed(script, Role::Script, slots.script, "script"),
    ];
    if profile.trust.is_some() {
        if let (Medium::Nor(..), Some(nor)) = (&medium, &board.nor)
            && !signature::DISTANCE.is_multiple_of(nor.sector)
        {
            diagnostics.push(shared_sector(board, nor.sector));
        }
        let at = slots.configuration.get().saturating_add(signature::DISTANCE);
        let file = format!("{configuration}{SIGNATURE_SUFFIX}");
        parts.push(fixed(&file, Role::Signature, TruePhys(at), "configuration"));
    }
    let mut firsts = BTreeSet::new();
    let mut extras = Vec::new();
    for want in &images {
        let (slot, key, file) = match want.role {
            Role::Kernel => (slots.kernel, "kernel", "kernel"),
            _ => (slots.rootfs, "rootfs", "rootfs"),
        };
        let first = firsts.insert(key);
        let mut part = Part {
            file: if first { format!("{file}.uImage") } else { format!("{file}-{}.uImage", want.image) },
            role: want.role,
            image: Some(want.image.to_owned()),
            load: slot,
            window: want.window.as_ref().map_or(0, |(window, _)| *window),
            window_decided: want.window.as_ref().map(|(_, path)| Decided::Profile(path.clone())),
            decided: Decided::Board(format!("{key_of_slots}/{key}")),
        };
        // A profile's addresses are of memory.
        match want.load.as_ref().filter(|_| matches!(medium, Medium::Ram)) {
            Some((load, path)) => {
                part.load = *load;
                part.decided = Decided::Profile(path.clone());
                parts.push(part);
            }
            None if first => parts.push(part),
            None => extras.push(part),
        }
    }
    // Further images go to the end of the image area, downwards, away from the growing first ones.
    let mut top = image_area.end().get();
    for mut part in extras {
        let window = if part.window_decided.is_some() { part.window } else { EXTRA_WINDOW };
        top = top.saturating_sub(window) / EXTRA_ALIGNMENT * EXTRA_ALIGNMENT;
        part.load = TruePhys(top);
        part.decided = Decided::Board(key_of_area.to_owned());
        parts.push(part);
    }
    let mut edges: Vec<TruePhys> = match medium {
        Medium::Ram => areas.iter().map(|area| area.span.base()).collect(),
        Medium::Nor(..) => board.nor.iter().flat_map(|nor| &nor.reserved).map(|other| other.span.base()).collect(),
    };
    if matches!(medium, Medium::Ram) {
        edges.extend(board.uboot.memory.iter().map(|memory| memory.span.base()));
        edges.extend(board.ram.iter().map(Span::end));
    }
    edges.extend([image_area.base(), image_area.end()]);
    close_windows(profile, edges, &mut parts);
    // Both sets are alike, so windows are, too.
    if let Medium::Nor(nor, second) = medium {
        for part in parts.iter_mut().filter(|part| second.contains(&part.file)) {
            part.load = TruePhys(part.load.get().saturating_add(nor.second));
        }
    }
    parts.sort_by(|a, b| (a.load, &a.file).cmp(&(b.load, &b.file)));
    parts
}

/// Ends every window that nobody declared where the next owner begins, on the medium (a part, or one of `edges`:
/// an area, the boot loader, the end of the image area or of the memory) or in a partition that uses the image.
fn close_windows(profile: &Profile, mut edges: Vec<TruePhys>, parts: &mut [Part]) {
    edges.extend(parts.iter().map(|part| part.load));
    for part in parts.iter_mut().filter(|part| part.window_decided.is_none()) {
        let end = edges.iter().copied().filter(|edge| *edge > part.load).min();
        // Behind all memory there is no edge; that the part cannot be there is another rule (L106).
        let room = end.map_or(EXTRA_WINDOW, |end| Span::between(part.load, end).len());
        part.window = profile
            .partitions
            .iter()
            .filter_map(|partition| guest_room(partition, part.image.as_deref()?))
            .fold(room, u64::min);
    }
}

/// Bytes from an image's destination to the next destination in the partition, or to its memory's end. What
/// lies outside the memory has no room, and is another rule's business (H114).
pub(crate) fn guest_room(partition: &Partition, image: &str) -> Option<u64> {
    let images = || [Some(&partition.kernel), partition.rootfs.as_ref()].into_iter().flatten();
    let at = images().find(|known| known.image == image)?.guest_address.get();
    let others = images().map(|image| image.guest_address.get());
    let edges = others.chain([partition.dtb_address.get(), partition.memory]);
    edges.filter(|edge| *edge > at).min().map(|edge| edge - at)
}

fn wanted_images<'p>(
    profile: &'p Profile,
    artifacts: &Artifacts,
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<WantedImage<'p>> {
    let mut images: Vec<WantedImage<'p>> = Vec::new();
    for partition in &profile.partitions {
        let uses =
            [(Role::Kernel, "kernel", Some(&partition.kernel)), (Role::Rootfs, "rootfs", partition.rootfs.as_ref())];
        for (role, key, image) in uses {
            let Some(image) = image else { continue };
            let path = format!("partition/{}/{key}", partition.name);
            if artifacts.get(&image.image).is_none_or(|(known, _)| *known != role) {
                let known = || artifacts.iter().filter(|(_, (r, _))| *r == role).map(|(name, _)| name.as_str());
                let help = match nearest(&image.image, known()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("known: {}", known().collect::<Vec<_>>().join(", ")),
                };
                diagnostics.push(
                    Diagnostic::error(UNKNOWN_NAME, format!("no {key} image is called `{}`", image.image))
                        .primary(profile.places.label(&format!("{path}/image"), "named here"))
                        .help(help),
                );
                continue;
            }
            let load = image.load.map(|load| (load, format!("{path}/load")));
            match images.iter_mut().find(|known| known.image == image.image) {
                Some(known) => merge(profile, known, image, load, &path, diagnostics),
                None => {
                    let window = image.window.map(|window| (window, format!("{path}/window")));
                    images.push(WantedImage { image: &image.image, role, load, window });
                }
            }
        }
    }
    images
}

/// One image has one address: a second, different one is an error.
fn merge(
    profile: &Profile,
    known: &mut WantedImage<'_>,
    image: &ImageUse,
    load: Option<(TruePhys, String)>,
    path: &str,
    diagnostics: &mut Vec<Diagnostic>,
) {
    match (&known.load, load) {
        (Some((first, first_path)), Some((second, second_path))) if *first != second => diagnostics.push(
            Diagnostic::error(
                IMPOSSIBLE_VALUE,
                format!("image `{}` is loaded at {first} and at {second}", image.image),
            )
            .primary(profile.places.label(&second_path, "here"))
            .related(profile.places.label(first_path, "and here"))
            .help("partitions that name one image share one copy: give one address, or leave out both"),
        ),
        (None, Some(load)) => known.load = Some(load),
        _ => {}
    }
    let path = format!("{path}/window");
    match (&known.window, image.window) {
        (Some((first, first_path)), Some(second)) if *first != second => diagnostics.push(
            Diagnostic::error(IMPOSSIBLE_VALUE, format!("image `{}` has two different windows", image.image))
                .primary(profile.places.label(&path, "here"))
                .related(profile.places.label(first_path, "and here"))
                .help("partitions that name one image share one copy: give its window once"),
        ),
        (None, Some(window)) => known.window = Some((window, path)),
        _ => {}
    }
}
