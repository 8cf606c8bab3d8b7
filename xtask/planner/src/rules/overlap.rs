//! Two owners of one byte of true-physical memory at any boot stage.

use std::collections::BTreeMap;

use citrine_formats::addr::{Hex, Size, Span, TruePhys};

use citrine_formats::manifest::Media;

use crate::diag::{Code, Diagnostic, Severity};
use crate::plan::{LoadPlan, Part};
use crate::stages::{Claim, ClaimKind, Stage, Subject, claims, common_stage};

/// Real bytes of two owners overlap.
pub const OVERLAP: Code = Code::new('L', 101);
/// A part's window reaches into another owner's memory, while the real bytes still fit.
pub const WINDOWS_OVERLAP: Code = Code::new('L', 102);
/// A part is larger than its window.
pub const LARGER_THAN_WINDOW: Code = Code::new('L', 103);
/// A part is loaded where the board has no memory.
pub const NOT_IN_RAM: Code = Code::new('L', 106);
/// A part lies in the boot loader's own memory.
pub const LOADER_MEMORY: Code = Code::new('U', 103);

/// A part would be written over flash that belongs to others.
pub const RESERVED_FLASH: Code = Code::new('N', 102);

/// Judges every part against its window and the board's memory.
pub fn parts(plan: &LoadPlan) -> Vec<Diagnostic> {
    plan.parts.iter().filter_map(|part| part_alone(plan, part)).collect()
}

/// Judges every pair of claims.
pub fn owners(plan: &LoadPlan) -> Vec<Diagnostic> {
    overlaps(&claims(plan))
}

/// One diagnostic for every two owners that meet.
pub fn overlaps(claims: &[Claim]) -> Vec<Diagnostic> {
    conflicts(claims).iter().map(Conflict::diagnostic).collect()
}

/// Two claims on the same bytes at the same time.
struct Conflict<'c> {
    /// The one that should move.
    mover: &'c Claim,
    /// The one that it meets.
    other: &'c Claim,
    /// The bytes.
    common: Span<TruePhys>,
    /// The first stage at which both hold.
    stage: Stage,
}

/// For every two owners that meet, the gravest of their conflicts.
fn conflicts(claims: &[Claim]) -> Vec<Conflict<'_>> {
    let mut worst: BTreeMap<(Subject, Subject), Conflict<'_>> = BTreeMap::new();
    for (index, a) in claims.iter().enumerate() {
        for b in &claims[index + 1..] {
            let Some(found) = Conflict::between(a, b) else { continue };
            let owners = (a.subject.min(b.subject), a.subject.max(b.subject));
            match worst.get(&owners) {
                Some(known) if known.severity() >= found.severity() => {}
                _ => drop(worst.insert(owners, found)),
            }
        }
    }
    worst.into_values().collect()
}

/// What is wrong with a part whatever else there is.
fn part_alone(plan: &LoadPlan, part: &Part) -> Option<Diagnostic> {
    let place = plan.label(&part.decided, format!("{} is loaded at {}", part.file, part.load));
    let size = plan.size_of(part);
    let loaded = Span::new(part.load, size.unwrap_or(1));
    // In the flash, slots lie where the board's file has some, or they are not read.
    if plan.media == Media::Ram && !loaded.is_ok_and(|span| plan.board.has_ram(&span)) {
        let what = match size {
            Some(size) => format!("{} has {size} bytes at {}", part.file, part.load),
            None => format!("{} is loaded at {}", part.file, part.load),
        };
        let ram = format!("{} has {}", plan.board.name, plan.board.ram_text());
        return Some(
            Diagnostic::error(NOT_IN_RAM, format!("{what}, where {} has no memory", plan.board.name))
                .primary(place)
                .related(plan.board.places.label("ram", ram))
                .fact("part", &part.file)
                .help("U-Boot would write to nowhere without a word; choose an address in the board's memory"),
        );
    }
    let size = size.filter(|size| *size > part.window)?;
    let end = Hex(part.load.0.saturating_add(part.window));
    let diagnostic = Diagnostic::error(
        LARGER_THAN_WINDOW,
        format!("{} has {size} bytes, {} more than its window", part.file, size - part.window),
    )
    .fact("part", &part.file)
    .fact("size", size)
    .fact("window", part.window);
    Some(match &part.window_decided {
        Some(decided) => diagnostic
            .primary(plan.label(decided, format!("its window: {}, up to {end}", Size(part.window))))
            .related(place)
            .help(format!(
                "make the image smaller, or its window at least {}",
                Size(size.checked_next_multiple_of(1 << 20).unwrap_or(size))
            )),
        None => diagnostic.primary(place).help(format!(
            "nobody declared its window, so it ends at {end} ({}), where something else begins in RAM or in the \
             partition; make the image smaller, or move one of them",
            Size(part.window)
        )),
    })
}

impl<'c> Conflict<'c> {
    fn between(a: &'c Claim, b: &'c Claim) -> Option<Self> {
        let stage = common_stage(a, b)?;
        let common = a.span.intersection(&b.span).filter(|_| a.subject != b.subject)?;
        let (mover, other) = match (a.kind, b.kind) {
            // Two areas are the hypervisor's own rule (H106); two loader ranges the board file's business.
            (ClaimKind::Area, ClaimKind::Area) | (ClaimKind::Loader, ClaimKind::Loader) => return None,
            (ClaimKind::Reserved, ClaimKind::Reserved) => return None,
            (ClaimKind::Window, _) => (a, b),
            (_, ClaimKind::Window) | (ClaimKind::Loader | ClaimKind::Reserved, _) => (b, a),
            _ => (a, b),
        };
        Some(Self { mover, other, common, stage })
    }

    /// Real bytes are destroyed for certain; a window is only room that a part may grow into.
    fn severity(&self) -> Severity {
        if self.mover.kind == ClaimKind::Window { Severity::Warning } else { Severity::Error }
    }

    fn diagnostic(&self) -> Diagnostic {
        let Self { mover, other, common, stage } = self;
        let diagnostic = if self.severity() == Severity::Warning {
            let room = Span::between(mover.span.base(), other.span.base()).len();
            let message = format!(
                "the window of {} ends at {}, but {} begins at {}",
                mover.owner,
                mover.span.end(),
                other.owner,
                other.span.base()
            );
            Diagnostic::warning(WINDOWS_OVERLAP, message).fact("room", room).help(format!(
                "an image that grows past {} would destroy {} without a word; end its window there \
                 ({room:#x} bytes), or move one of them",
                other.span.base(),
                other.owner
            ))
        } else {
            let both = format!("{} and {} both own {common} {stage}", mover.owner, other.owner);
            if other.kind == ClaimKind::Loader {
                Diagnostic::error(LOADER_MEMORY, both).help("choose an address outside the boot loader's own memory")
            } else if other.kind == ClaimKind::Reserved {
                Diagnostic::error(RESERVED_FLASH, both)
                    .help("the board does not start without it; move the slot, or the area, in the board's file")
            } else {
                Diagnostic::error(OVERLAP, both).help("move one of them, or leave its address out to have it placed")
            }
        };
        diagnostic
            .primary(mover.label.clone())
            .related(other.label.clone())
            .fact("first", &mover.owner)
            .fact("second", &other.owner)
            .fact("from", common.base())
            .fact("to", common.end())
            .fact("bytes", common.len())
    }
}

#[cfg(test)]
mod tests;
