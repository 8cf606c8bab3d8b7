//! How far an image may grow, where U-Boot loads it and in a partition, and what it would reach then.

use citrine_formats::addr::{GuestPhys, Span, TruePhys};

use super::{Kind, MemoryMap, Region, Room};
use crate::place::guest_room;
use crate::plan::{LoadPlan, Part};
use crate::rules::guest::LOWMEM;
use crate::stages::{Claim, ClaimKind, common_stage};

/// `may grow 4.8 MiB before it reaches hv.uImage`, for the kernel or root file system with this file name.
pub fn headroom(map: &MemoryMap<'_>, file: &str) -> Option<String> {
    map.plan.parts.iter().find(|part| part.file == file && part.image.is_some())?;
    map.regions.iter().find(|region| region.kind == Kind::Part && region.name == file)?.may_grow()
}

/// The room of a part where it is loaded: up to its window's end, or to who is there first at the same time.
pub(super) fn of_part(plan: &LoadPlan, claims: &[Claim], index: usize, bytes: &Claim) -> Room<TruePhys> {
    let window = plan.parts.get(index).and_then(|part| Span::new(part.load, part.window).ok()).unwrap_or(bytes.span);
    let behind = |other: &&Claim| {
        other.subject != bytes.subject
            && other.kind != ClaimKind::Window
            && !other.span.is_empty()
            && other.span.base() > bytes.span.base()
    };
    let next = claims.iter().filter(behind).filter(|other| common_stage(bytes, other).is_some());
    let next = next.min_by_key(|other| other.span.base()).filter(|other| other.span.base() <= window.end());
    let end = next.map_or(window.end(), |other| other.span.base());
    let until = match next.or_else(|| claims.iter().filter(behind).find(|other| other.span.base() == end)) {
        Some(other) => other.owner.clone(),
        None => plan.parts.get(index).map_or_else(String::new, |part| end_of(plan, part, end)),
    };
    Room { span: Span::between(bytes.span.end(), end), until }
}

/// What a window ends at where nobody begins.
fn end_of(plan: &LoadPlan, part: &Part, end: TruePhys) -> String {
    let of_guest = plan.profile.partitions.iter().find(|partition| {
        part.image.as_deref().and_then(|image| guest_room(partition, image)).is_some_and(|room| room == part.window)
    });
    if part.window_decided.is_some() {
        "the end of its window".to_owned()
    } else if plan.board.nor.iter().flat_map(|nor| &nor.slots).any(|slots| slots.area.end() == end) {
        "the end of the flash's area".to_owned()
    } else if end == plan.board.image_area.end() {
        "the end of the image area".to_owned()
    } else if end == plan.board.image_area.base() {
        "the image area".to_owned()
    } else if let Some(partition) = of_guest {
        format!("the end of its room in {}", partition.name)
    } else {
        "the end of memory".to_owned()
    }
}

/// Gives every image in a partition its room: up to what lies behind it, the memory's end, or what Linux reaches.
/// `inside` is sorted by address.
pub(super) fn of_images(inside: &mut [Region<GuestPhys>], memory: Option<Span<GuestPhys>>) {
    let starts: Vec<(GuestPhys, String)> =
        inside.iter().map(|region| (region.span.base(), region.name.clone())).collect();
    let limits = [
        (GuestPhys(LOWMEM), "768 MiB, where Linux's reach ends"),
        (memory.map_or(GuestPhys(0), |memory| memory.end()), "the end of its memory"),
    ];
    for region in inside.iter_mut().filter(|region| region.kind == Kind::Image) {
        let base = region.span.base();
        let others = starts.iter().map(|(start, name)| (*start, name.as_str())).chain(limits);
        let next = others.filter(|(start, _)| *start > base).min_by_key(|(start, _)| *start);
        region.room = next
            .map(|(end, until)| Room { span: Span::between(region.span.end().min(end), end), until: until.to_owned() });
    }
}
