//! Memory of the hypervisor, of the partitions and of those that share some: fixed addresses as they are, the others in gaps.

use citrine_formats::addr::{Address as _, Size, Span, TruePhys};

use super::parts::EXTRA_WINDOW;
use crate::board::Board;
use crate::diag::{Code, Diagnostic};
use crate::input::IMPOSSIBLE_VALUE;
use crate::plan::{Area, AreaOwner};
use crate::profile::Profile;

/// No gap of memory is large enough.
pub const NO_ROOM: Code = Code::new('L', 105);

/// What an area still needs: its size, and its address if that is fixed.
struct Wanted {
    name: String,
    owner: AreaOwner,
    size: u64,
    fixed: Option<TruePhys>,
}

/// Places all areas, in order of their address.
pub(super) fn place_areas(board: &Board, profile: &Profile, diagnostics: &mut Vec<Diagnostic>) -> Vec<Area> {
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
