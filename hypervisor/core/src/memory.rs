//! Memory as the hypervisor touches it: true-physical bytes through whatever mapping there is, and a guest's
//! memory, which is what the configuration gives and nothing else.
//!
//! Guests change their memory at any moment. So there are no references into it, only copies, and what has
//! been copied once is not read again for another decision.

use arrayvec::ArrayVec;
use citrine_formats::addr::{Address as _, GuestPhys, Span, TruePhys};

use crate::config::{Area, Mapping};

/// True-physical memory, by copies.
pub trait Physical {
    /// Fills `into` from `at`; false when part of it cannot be reached. It may then have been filled in part.
    #[must_use]
    fn read(&mut self, at: TruePhys, into: &mut [u8]) -> bool;
    /// Writes `from` to `at`; false when part of it cannot be reached. It may then have been written in part.
    /// What is written can be executed afterwards: instruction caches are told.
    #[must_use]
    fn write(&mut self, at: TruePhys, from: &[u8]) -> bool;
}

/// Whether partitions are kept apart: always, but in a build for the one test which shows that the others would
/// notice if they were not.
pub const ISOLATED: bool = !cfg!(feature = "without-isolation");

/// Bytes of the smallest piece that is mapped.
const PAGE: u64 = 4096;

/// Where the memory of a partition is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct GuestMap {
    pieces: ArrayVec<Piece, 17>,
}

/// One contiguous piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Piece {
    guest: Span<GuestPhys>,
    base: TruePhys,
    /// The same as numbers of whole pages of 4 KiB: the first, how many, and the true-physical first.
    pages: [u32; 3],
}

/// A guest's access to an address that its configuration does not give it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotMapped(pub GuestPhys);

impl GuestMap {
    /// The memory of a partition with these mappings; memory for devices alone is left out.
    pub fn new(mappings: &[Mapping], areas: &[Area<'_>]) -> Self {
        let mut map = Self::default();
        for mapping in mappings.iter().filter(|mapping| !mapping.dma_only) {
            let Some(area) = areas.get(mapping.area) else { continue };
            map.add(mapping.guest_span(areas), area.span.base());
        }
        map
    }

    /// Adds a piece; false when there are too many, or when part of it is there already.
    pub fn add(&mut self, guest: Span<GuestPhys>, base: TruePhys) -> bool {
        let new = !self.pieces.iter().any(|piece| piece.guest.overlaps(&guest));
        // Pages that are there in part are left to `translate`.
        let (first, start) = (guest.base().get().div_ceil(PAGE), base.get().div_ceil(PAGE));
        let numbers = [first, (guest.end().get() / PAGE).saturating_sub(first), start].map(u32::try_from);
        let pages = match numbers {
            [Ok(first), Ok(count), Ok(start)] if base.get() % PAGE == guest.base().get() % PAGE => {
                [first, count, start]
            }
            _ => [0; 3],
        };
        new && self.pieces.try_push(Piece { guest, base, pages }).is_ok()
    }

    /// The same as [`translate`](Self::translate) for a whole page of 4 KiB by its number: most translations are of
    /// one. None does not mean that there is no memory.
    pub fn translate_page(&self, page: u32) -> Option<u32> {
        self.pieces.iter().find_map(|piece| {
            let [first, count, start] = piece.pages;
            let offset = page.wrapping_sub(first);
            (offset < count).then(|| start.wrapping_add(offset))
        })
    }

    /// Where a guest-physical address is, and how many bytes from there on are in one piece.
    pub fn translate(&self, at: GuestPhys) -> Option<(TruePhys, u64)> {
        let Some(piece) = self.pieces.iter().find(|piece| piece.guest.contains(at)) else {
            return (!ISOLATED).then(|| (TruePhys(at.get()), PAGE - at.get() % PAGE));
        };
        let offset = at.get() - piece.guest.base().get();
        Some((TruePhys(piece.base.get() + offset), piece.guest.len() - offset))
    }

    /// The end of the highest piece.
    pub fn end(&self) -> GuestPhys {
        self.pieces.iter().map(|piece| piece.guest.end()).max().unwrap_or(GuestPhys(0))
    }
}

/// The memory of a guest.
#[derive(Debug)]
pub struct GuestMemory<'a, P: Physical + ?Sized> {
    /// Where it is.
    pub map: &'a GuestMap,
    /// How it is reached.
    pub physical: &'a mut P,
}

impl<P: Physical + ?Sized> GuestMemory<'_, P> {
    /// Copies out of the guest's memory.
    ///
    /// # Errors
    /// The first address that is not the guest's; what came before may have been copied.
    pub fn read(&mut self, mut at: GuestPhys, mut into: &mut [u8]) -> Result<(), NotMapped> {
        while !into.is_empty() {
            let (true_at, room) = self.map.translate(at).ok_or(NotMapped(at))?;
            let len = into.len().min(usize::try_from(room).unwrap_or(usize::MAX));
            let (now, rest) = into.split_at_mut(len);
            if !self.physical.read(true_at, now) {
                return Err(NotMapped(at));
            }
            (at, into) = (GuestPhys(at.get().saturating_add(len as u64)), rest);
        }
        Ok(())
    }

    /// Copies into the guest's memory.
    ///
    /// # Errors
    /// The first address that is not the guest's; what came before may have been written.
    pub fn write(&mut self, mut at: GuestPhys, mut from: &[u8]) -> Result<(), NotMapped> {
        while !from.is_empty() {
            let (true_at, room) = self.map.translate(at).ok_or(NotMapped(at))?;
            let len = from.len().min(usize::try_from(room).unwrap_or(usize::MAX));
            let (now, rest) = from.split_at(len);
            if !self.physical.write(true_at, now) {
                return Err(NotMapped(at));
            }
            (at, from) = (GuestPhys(at.get().saturating_add(len as u64)), rest);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec;
    use std::vec::Vec;

    struct Ram(Vec<u8>);

    impl Physical for Ram {
        fn read(&mut self, at: TruePhys, into: &mut [u8]) -> bool {
            let from = self.0.get(at.0 as usize..).and_then(|bytes| bytes.get(..into.len()));
            from.map(|from| into.copy_from_slice(from)).is_some()
        }

        fn write(&mut self, at: TruePhys, from: &[u8]) -> bool {
            let into = self.0.get_mut(at.0 as usize..).and_then(|bytes| bytes.get_mut(..from.len()));
            into.map(|into| into.copy_from_slice(from)).is_some()
        }
    }

    fn map() -> GuestMap {
        let mut map = GuestMap::default();
        let span = |base, len| Span::new(GuestPhys(base), len).unwrap();
        assert!(map.add(span(0, 0x100), TruePhys(0x200)));
        assert!(map.add(span(0x100, 0x100), TruePhys(0x80)));
        assert!(!map.add(span(0x1ff, 0x100), TruePhys(0)));
        map
    }

    #[test]
    fn a_copy_crosses_pieces_and_stops_at_the_first_hole() {
        let (map, mut ram) = (map(), Ram(vec![0; 0x400]));
        let mut memory = GuestMemory { map: &map, physical: &mut ram };
        assert_eq!(memory.write(GuestPhys(0xfe), &[1, 2, 3, 4]), Ok(()));
        let mut back = [0; 4];
        assert_eq!(memory.read(GuestPhys(0xfe), &mut back), Ok(()));
        assert_eq!(back, [1, 2, 3, 4]);
        assert_eq!(memory.read(GuestPhys(0x1fe), &mut back), Err(NotMapped(GuestPhys(0x200))));
        assert_eq!(memory.write(GuestPhys(u64::MAX), &[1, 2]), Err(NotMapped(GuestPhys(u64::MAX))));
        assert_eq!((ram.0[0x2fe], ram.0[0x2ff], ram.0[0x80], ram.0[0x81]), (1, 2, 3, 4));
        assert_eq!(map.end(), GuestPhys(0x200));
    }
}
