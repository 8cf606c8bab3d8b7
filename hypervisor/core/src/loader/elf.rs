//! ELF programs (System V ABI, 32-bit, big-endian): which bytes of the file go where.
//!
//! The program headers are copied once, out of the file's first chunk; segments are then written as their bytes
//! come by.

use arrayvec::ArrayVec;
use citrine_formats::addr::{Address as _, GuestPhys, Span};

use super::Why;

/// How an ELF file begins.
pub(super) const MAGIC: &[u8] = b"\x7fELF";
/// Length of the file's header in bytes.
const HEADER: usize = 52;
/// Length of a program header in bytes.
const PROGRAM_HEADER: usize = 32;
/// Most segments of a program.
const MAX_SEGMENTS: usize = 16;
/// A segment that is loaded (`PT_LOAD`).
const LOAD: u32 = 1;

/// Where the segments of a program are, in the file and in the guest.
pub(super) struct Program {
    segments: ArrayVec<Segment, MAX_SEGMENTS>,
    entry: GuestPhys,
}

struct Segment {
    /// Its bytes in the file.
    offset: u64,
    filesz: u64,
    /// Its bytes in the guest; those that the file has not are zero.
    dest: Span<GuestPhys>,
}

/// A program header that is loaded, as it stands in the file.
struct Header {
    offset: u64,
    vaddr: u64,
    paddr: u64,
    filesz: u64,
    memsz: u64,
}

impl Program {
    /// The program whose file begins with `first`, moved so that its lowest segment is at `dest`; and how long the
    /// headers say that the file is.
    pub(super) fn parse(first: &[u8], dest: GuestPhys) -> Result<(Self, u64), Why> {
        let bad = |why| Err(Why::Elf(why));
        let Some(head) = first.first_chunk::<HEADER>() else { return bad("it is cut short") };
        if head[4] != 1 {
            return bad("not 32-bit");
        }
        if head[5] != 2 {
            return bad("not big-endian");
        }
        if half(head, 16) != 2 {
            return bad("not at a fixed address");
        }
        let (table, count) = (word(head, 28), half(head, 44) as usize);
        if half(head, 42) as usize != PROGRAM_HEADER || count == 0 {
            return bad("no program headers");
        }
        let from = table as usize;
        let headers = from.checked_add(count * PROGRAM_HEADER).and_then(|end| first.get(from..end));
        let Some(headers) = headers else { return bad("its program headers are not at its beginning") };

        let mut size = (from + headers.len()) as u64;
        let mut loads = ArrayVec::<Header, MAX_SEGMENTS>::new();
        for header in headers.as_chunks::<PROGRAM_HEADER>().0 {
            let number = |at| u64::from(word(header, at));
            let (offset, filesz, memsz) = (number(4), number(16), number(20));
            if filesz > memsz {
                return bad("a segment is longer in the file than in memory");
            }
            size = size.max(offset + filesz);
            let load = Header { offset, vaddr: number(8), paddr: number(12), filesz, memsz };
            if word(header, 0) == LOAD && memsz > 0 && loads.try_push(load).is_err() {
                return bad("more than 16 segments");
            }
        }
        let Some(base) = loads.iter().map(|load| load.paddr).min() else { return bad("no segments to load") };

        let mut segments = ArrayVec::<Segment, MAX_SEGMENTS>::new();
        for load in &loads {
            // From 32-bit numbers, so only a destination near the end can wrap.
            let at = dest.get().checked_add(load.paddr - base);
            let Some(dest) = at.and_then(|at| Span::new(GuestPhys(at), load.memsz).ok()) else {
                return bad("a segment reaches beyond the address space");
            };
            if segments.iter().any(|other| other.dest.overlaps(&dest)) {
                return bad("two segments overlap");
            }
            // There are as many as in the other list.
            segments.push(Segment { offset: load.offset, filesz: load.filesz, dest });
        }
        let entry = u64::from(word(head, 24));
        let is_in = |load: &&Header| (load.vaddr..load.vaddr + load.memsz).contains(&entry);
        let mut inside = loads.iter().zip(&segments).filter(|(load, _)| is_in(load));
        let entry = match (inside.next(), inside.next()) {
            (Some((load, segment)), None) => GuestPhys(segment.dest.base().get() + (entry - load.vaddr)),
            (None, _) => return bad("its entry is in no segment"),
            (Some(_), Some(_)) => return bad("its entry is in several segments"),
        };
        Ok((Self { segments, entry }, size))
    }

    /// Where it is entered, in the guest.
    pub(super) fn entry(&self) -> GuestPhys {
        self.entry
    }

    /// Takes bytes of the file that stand at `offset`; `put` gets those of segments.
    pub(super) fn take(
        &self,
        offset: u64,
        piece: &[u8],
        mut put: impl FnMut(GuestPhys, &[u8]) -> Result<(), Why>,
    ) -> Result<(), Why> {
        let end = offset + piece.len() as u64;
        for segment in &self.segments {
            let (from, to) = (segment.offset.max(offset), (segment.offset + segment.filesz).min(end));
            // Both lie in the piece, so they are indexes into it.
            let part = (from < to).then(|| piece.get((from - offset) as usize..(to - offset) as usize)).flatten();
            if let Some(part) = part {
                put(GuestPhys(segment.dest.base().get() + (from - segment.offset)), part)?;
            }
        }
        Ok(())
    }

    /// Zeroes what the file has no bytes for, at most `most` bytes at once; returns the end of the highest segment.
    pub(super) fn finish(
        &self,
        mut zero: impl FnMut(GuestPhys, usize) -> Result<(), Why>,
        most: usize,
    ) -> Result<GuestPhys, Why> {
        for segment in &self.segments {
            let mut at = segment.dest.base().get() + segment.filesz;
            while at < segment.dest.end().get() {
                let len = (segment.dest.end().get() - at).min(most as u64);
                zero(GuestPhys(at), len as usize)?;
                at += len;
            }
        }
        Ok(self.segments.iter().map(|segment| segment.dest.end()).max().unwrap_or(GuestPhys(0)))
    }
}

fn half(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u16::from_be_bytes(*bytes))
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u32::from_be_bytes(*bytes))
}
