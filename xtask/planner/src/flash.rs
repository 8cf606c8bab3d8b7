//! The NOR flash's contents, and the [`FlashPlan`] that changes them from one bundle to the next.
//!
//! The rule is that nothing which the board starts with is written: a changed part goes to the slot of its pair that
//! is not in use, and the boot script, which alone says where the others lie, is the last to change
//! (`docs/adr/0006-two-slots-and-one-pointer.md`).

use std::io::{self, Write};

use citrine_formats::addr::{Address as _, Size, Span, TruePhys};
use citrine_formats::manifest::{Manifest, Media, Role, Sha256};
use citrine_formats::signature::Key;
use sha2::Digest as _;

use crate::board::{Nor, NorSlots};
use crate::diag::{self, Code, Diagnostic};

/// Neither slot of a part is free while the board starts with the installed bundle.
pub const NO_FREE_SLOT: Code = Code::new('N', 103);

/// Most bytes that one step writes, unless one sector has more.
const STEP: u64 = 1 << 20;

/// A part where it lies in the flash.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Placed {
    /// File name.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// True-physical address of its first byte, which begins a sector.
    pub at: TruePhys,
    /// Length in bytes.
    pub size: u64,
    /// SHA-256 of its bytes; of a signature [`signature_id`], since it may be made later.
    pub sha256: Sha256,
    /// CRC-32 of its bytes, which is all that U-Boot can compute; none of a signature.
    pub crc32: Option<u32>,
}

impl Placed {
    /// The sectors that it has for itself.
    pub fn sectors(&self, nor: &Nor) -> Span<TruePhys> {
        nor.sectors(Span::between(self.at, TruePhys(self.at.get().saturating_add(self.size))))
    }
}

/// CRC-32 of bytes in pieces, as U-Boot's `crc32` computes it.
pub fn crc32(pieces: [&[u8]; 2]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    pieces.iter().for_each(|piece| hasher.update(piece));
    hasher.finalize()
}

/// What a signature will be: Ed25519 gives one key's signature over one text the same bytes each time.
pub fn signature_id(key: &Key, tree: &Sha256) -> Sha256 {
    Sha256(sha2::Sha256::new().chain_update(key.0).chain_update(tree.0).finalize().into())
}

/// What a bundle has in the flash. `bytes` gives the bytes of a part by its name.
pub fn installed<'b>(manifest: &Manifest, bytes: impl Fn(&str) -> Option<&'b [u8]>) -> Vec<Placed> {
    let placed = manifest.parts.iter().filter_map(|part| {
        let signed = || manifest.parts.iter().find(|other| Some(other.name.as_str()) == part.signs());
        let of_signature = || Some(signature_id(part.key.as_ref()?, &signed()?.sha256?));
        Some(Placed {
            name: part.name.clone(),
            role: part.role,
            at: part.slot(Media::Nor)?.load,
            size: part.size,
            sha256: part.sha256.or_else(of_signature)?,
            crc32: part.sha256.and_then(|_| Some(crc32([bytes(&part.name)?, &[]]))),
        })
    });
    placed.collect()
}

/// Whether a part lies in the second set of slots, next to the `installed` ones: an unchanged part stays where it
/// is, another takes the first slot that writing it does not take from them. `part` says where it is in the first.
///
/// # Errors
/// [`NO_FREE_SLOT`].
pub fn is_in_second(nor: &Nor, slots: &NorSlots, installed: &[Placed], part: &Placed) -> diag::Result<bool> {
    are_in_second(nor, slots, installed, part, &[])
}

/// [`is_in_second`] for a part and others that must lie in the same set: a configuration and its signature, which is
/// found by its distance.
///
/// # Errors
/// [`NO_FREE_SLOT`].
pub fn are_in_second(
    nor: &Nor,
    slots: &NorSlots,
    installed: &[Placed],
    part: &Placed,
    others: &[Placed],
) -> diag::Result<bool> {
    let in_set = |part: &Placed, second: bool| {
        let base = if second { part.at.get().saturating_add(slots.second) } else { part.at.get() };
        Placed { at: TruePhys(base), ..part.clone() }
    };
    let places = [false, true].map(|second| (second, in_set(part, second)));
    let same = |place: &Placed| {
        installed.iter().any(|old| (&old.name, old.at, old.sha256) == (&place.name, place.at, place.sha256))
    };
    let free = |place: &Placed| installed.iter().all(|old| !old.sectors(nor).overlaps(&place.sectors(nor)));
    let with_others = |second: bool| others.iter().map(|other| in_set(other, second)).all(|o| same(&o) || free(&o));
    let mut candidates = places.iter().filter(|(second, _)| with_others(*second));
    let found = candidates.clone().find(|(_, place)| same(place)).or_else(|| candidates.find(|(_, place)| free(place)));
    found.map(|(second, _)| *second).ok_or_else(|| {
        let holder = |place: &Placed| {
            installed.iter().find(|old| old.sectors(nor).overlaps(&place.sectors(nor))).map(|old| old.name.clone())
        };
        let in_the_way = |(second, place): &(bool, Placed)| {
            holder(place).or_else(|| others.iter().find_map(|other| holder(&in_set(other, *second))))
        };
        let holders: Vec<String> = places.iter().filter_map(in_the_way).collect();
        Box::new(
            Diagnostic::error(
                NO_FREE_SLOT,
                format!("{} ({}) fits into neither of its slots in the flash", part.name, Size(part.size)),
            )
            .fact("part", &part.name)
            .fact("size", part.size)
            .help(format!(
                "the installed bundle has {} there; install one between them that leaves the place free, or leave out \
                 --installed, and a power cut while it is written costs the installed system",
                holders.join(" and ")
            )),
        )
    })
}

/// What a step does to its sectors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Erases them and writes bytes of a part at their beginning.
    Write {
        /// Index of the part in [`FlashPlan::parts`].
        part: usize,
        /// First of its bytes.
        from: u64,
        /// Number of its bytes.
        len: u64,
    },
    /// Only erases them.
    Erase,
}

/// One bounded change of the flash. Done again, it changes nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// The sectors.
    pub sectors: Span<TruePhys>,
    /// What happens to them.
    pub action: Action,
}

/// How the flash is brought from one bundle to the next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FlashPlan {
    /// What the new bundle has in the flash, in the order in which it is written.
    pub parts: Vec<Placed>,
    /// Indices of the parts that are there already.
    pub kept: Vec<usize>,
    /// The script that the board starts with before; `None` when nothing is known of the flash.
    pub before: Option<Placed>,
    /// The steps, in their order.
    pub steps: Vec<Step>,
}

impl FlashPlan {
    /// The plan from `installed` to `parts`. Images come first, then the configuration that names their addresses,
    /// then the script that names its. U-Boot tries the first slot's script before the second's, so a script in the second
    /// counts when the first one is erased: that is the last step then.
    pub fn of(nor: &Nor, slots: &NorSlots, installed: &[Placed], mut parts: Vec<Placed>) -> Self {
        let order = |role: Role| match role {
            Role::Script => 2,
            Role::Configuration | Role::Signature => 1,
            _ => 0,
        };
        parts.sort_by_key(|part| (order(part.role), part.at));
        // A signature may have been made since; the script compares it itself.
        let is_there = |part: &Placed| {
            part.role != Role::Signature && installed.iter().any(|old| (old.at, old.sha256) == (part.at, part.sha256))
        };
        let kept: Vec<usize> = (0..parts.len()).filter(|&index| parts.get(index).is_some_and(is_there)).collect();
        let mut steps = Vec::new();
        let most = (STEP / nor.sector).max(1) * nor.sector;
        for (index, part) in parts.iter().enumerate().filter(|(index, _)| !kept.contains(index)) {
            let mut from = 0;
            while from < part.size {
                let len = most.min(part.size - from);
                let at = TruePhys(part.at.get() + from);
                let sectors = nor.sectors(Span::between(at, TruePhys(at.get() + len)));
                steps.push(Step { sectors, action: Action::Write { part: index, from, len } });
                from += len;
            }
        }
        let before = installed.iter().find(|old| old.role == Role::Script).cloned();
        let after = parts.iter().find(|part| part.role == Role::Script);
        if let (Some(before), Some(after)) = (&before, after)
            && slots.area.contains(before.at)
            && !slots.area.contains(after.at)
        {
            steps.push(Step { sectors: before.sectors(nor), action: Action::Erase });
        }
        Self { parts, kept, before, steps }
    }
}

/// The bytes of a part and their offset in the bank.
pub type Piece<'b> = (u64, [&'b [u8]; 2]);

/// Writes the image of a whole bank of `size` bytes: `pieces`, which do not overlap, and erased flash.
///
/// # Errors
/// What `out` returns; a piece that does not fit.
pub fn write_image(out: &mut impl Write, size: u64, pieces: &mut [Piece<'_>]) -> io::Result<()> {
    static ERASED: [u8; 64 << 10] = [0xff; 64 << 10];
    let erase = |out: &mut dyn Write, mut count: u64| {
        while count > 0 {
            let now = count.min(ERASED.len() as u64);
            out.write_all(ERASED.get(..now as usize).unwrap_or_default())?;
            count -= now;
        }
        io::Result::Ok(())
    };
    pieces.sort_by_key(|(offset, _)| *offset);
    let mut at = 0;
    let too_long = || io::Error::new(io::ErrorKind::InvalidInput, "a part does not fit into the flash");
    for (offset, bytes) in pieces {
        erase(out, offset.checked_sub(at).ok_or_else(too_long)?)?;
        at = *offset;
        for piece in bytes {
            out.write_all(piece)?;
            at += piece.len() as u64;
        }
    }
    erase(out, size.checked_sub(at).ok_or_else(too_long)?)
}

#[cfg(test)]
mod tests;
