//! The stand-in's NOR flash: the bundle's slots in QEMU's bank, which lies at another address than a board's.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use citrine_formats::addr::{Address as _, Span, TruePhys};
use citrine_formats::manifest::{Manifest, Media};
use citrine_planner::board::{Board, Nor, NorSlots, Slots};
use citrine_planner::flash::{Piece, write_image};
use citrine_planner::place::Second;
use citrine_planner::plan::LoadPlan;
use tempfile::NamedTempFile;

use super::stand_in::no_stand_in;
use crate::output::cannot_write;
use crate::report::Failure;

/// Gives the stand-in's bank the slots of the bundle's board, and returns the parts that lie in the second set.
///
/// # Errors
/// [`super::stand_in::NO_STAND_IN`] when the bundle has nothing in the flash, or one of the boards has none.
pub fn moved(manifest: &Manifest, from: &Board, to: &mut Board) -> Result<Second, Failure> {
    let slots_of = |nor: &Nor| nor.slots.clone().map(|slots| (nor.span.base().get(), slots));
    let (Some((base, slots)), Some(bank)) = (from.nor.as_ref().and_then(slots_of), to.nor.as_mut()) else {
        return Err(no_stand_in(format!("{} or {} has no flash with slots", from.name, to.name)));
    };
    if manifest.parts.iter().all(|part| part.slot(Media::Nor).is_none()) {
        return Err(no_stand_in("it has nothing for the flash: make it with `--media all`".to_owned()));
    }
    let at = |slot: TruePhys| TruePhys(bank.span.base().get() + (slot.get() - base));
    let in_second = |load: TruePhys| !slots.area.contains(load);
    let second = manifest.parts.iter().filter(|part| part.slot(Media::Nor).is_some_and(|slot| in_second(slot.load)));
    let second = second.map(|part| part.name.clone()).collect();
    bank.slots = Some(NorSlots {
        first: Slots {
            kernel: at(slots.first.kernel),
            hypervisor: at(slots.first.hypervisor),
            hardware_tree: at(slots.first.hardware_tree),
            configuration: at(slots.first.configuration),
            script: at(slots.first.script),
            rootfs: at(slots.first.rootfs),
        },
        area: Span::between(at(slots.area.base()), at(slots.area.end())),
        second: slots.second,
    });
    Ok(second)
}

/// Requires every part to lie where the manifest says, counted from the beginning of the bank.
///
/// # Errors
/// [`super::stand_in::NO_STAND_IN`]: the board's file is not the one that the bundle was made with.
pub fn same_offsets(manifest: &Manifest, bundled: &Board, plan: &LoadPlan) -> Result<(), Failure> {
    let offset = |board: &Board, at: TruePhys| Some(at.get().wrapping_sub(board.nor.as_ref()?.span.base().get()));
    for part in &plan.parts {
        let signed = manifest.parts.iter().find(|signed| signed.name == part.file);
        let Some(slot) = signed.and_then(|signed| signed.slot(Media::Nor)) else { continue };
        if offset(bundled, slot.load) != offset(&plan.board, part.load) {
            let why = format!("{} lies at {} in the flash, where boards/ has no slot for it", part.file, slot.load);
            return Err(no_stand_in(why));
        }
    }
    Ok(())
}

/// A bank without contents, for what only asks what there is.
///
/// # Errors
/// `O101`.
pub fn blank(plan: &LoadPlan) -> Result<NamedTempFile, Failure> {
    let size = plan.board.nor.as_ref().map_or(0, |nor| nor.span.len());
    let make = || {
        let file = NamedTempFile::new()?;
        file.as_file().set_len(size)?;
        Ok(file)
    };
    make().map_err(|error| cannot_write(&std::env::temp_dir(), &error).into())
}

/// Writes the bank's image to `path`: `loaded` is what lies in it, by file name.
///
/// # Errors
/// `O101`.
pub fn write(plan: &LoadPlan, loaded: &[(&str, TruePhys, &[u8])], path: &Path) -> Result<(), Failure> {
    let size = plan.board.nor.as_ref().map_or(0, |nor| nor.span.len());
    let base = plan.board.nor.as_ref().map_or(0, |nor| nor.span.base().get());
    let mut pieces: Vec<Piece<'_>> =
        loaded.iter().filter_map(|(_, at, bytes)| Some((at.get().checked_sub(base)?, [*bytes, &[]]))).collect();
    let mut write = || {
        let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
        write_image(&mut out, size, &mut pieces)?;
        out.flush()
    };
    write().map_err(|error| cannot_write(path, &error).into())
}

/// What is typed once on a board (`setenv bootcmd`), the first script that is whole; and an end that can be seen when
/// there is none.
pub fn bootcmd(plan: &LoadPlan) -> Option<String> {
    let nor = plan.board.nor.as_ref()?;
    let slots = nor.slots.as_ref()?;
    let first = nor.effective(slots.first.script)?;
    let none = "echo citrine: no script is whole, nothing was started";
    Some(format!("source {first:#x} || source {:#x} || {none}", first + slots.second))
}
