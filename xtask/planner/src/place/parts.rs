//! Where the boot loader finds the parts, and how far each may grow.

use std::collections::BTreeSet;

use citrine_formats::addr::{Address as _, Span, TruePhys};
use citrine_formats::manifest::{Role, SIGNATURE_SUFFIX};
use citrine_formats::signature;

use super::{Artifacts, Second};
use crate::board::{Board, HardwareTree, NorSlots, Slots};
use crate::diag::{Code, Diagnostic};
use crate::input::reader::nearest;
use crate::input::{IMPOSSIBLE_VALUE, UNKNOWN_NAME};
use crate::plan::{Area, Decided, Part};
use crate::profile::{ImageUse, Partition, Profile};

/// The flash's sectors are too large for the place of a configuration's signature.
pub const SHARED_SECTOR: Code = Code::new('K', 107);

/// Room for an image beyond the first of its role, unless the profile gives a window.
pub(super) const EXTRA_WINDOW: u64 = 8 << 20;
/// Images that are placed automatically begin at a multiple of this: one NOR sector of any board.
const EXTRA_ALIGNMENT: u64 = 128 << 10;

/// Where the boot loader finds the parts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Medium<'a> {
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

/// An image that some partition uses, with every remark about where it should be loaded.
struct WantedImage<'p> {
    image: &'p str,
    role: Role,
    load: Option<(TruePhys, String)>,
    window: Option<(u64, String)>,
}

/// Places all parts, in order of their address.
pub(super) fn place_parts(
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
