//! An image from where the boot loader left it into a guest's memory, in one pass over its bytes.
//!
//! Each byte is copied once, in chunks. What is hashed, what the CRCs are taken of, what is unpacked and what
//! the guest gets all come from that copy, so whoever changes the source meanwhile changes all of them or none.
//! The price is that an image is judged only when the guest has it; a partition whose image is not good is not
//! started, and its memory then holds whatever the image was.
//!
//! Formats, in the order in which they are tried: ELF, uImage, raw. The rules are Topaz's, and where that reads
//! on or overwrites, an error.

use core::fmt;

use citrine_formats::addr::{Address as _, GuestPhys, Size, Span, TruePhys};
use citrine_formats::sha256::Sha256;
use citrine_formats::uimage::{self, Compression, HEADER_LEN, Kind};
use sha2::Digest as _;

use crate::config::{Digest, ImageRow};
use crate::memory::{GuestMemory, NotMapped, Physical};

mod elf;
mod inflate;

use elf::Program;
use inflate::Gunzip;

/// Bytes that are copied at once. An ELF program's headers must be among the first.
pub const CHUNK: usize = 4096;

/// Memory for loading one image after another: 47 KiB, all of them zero at first.
pub struct Scratch {
    chunk: [u8; CHUNK],
    inflate: inflate::Space,
}

impl Scratch {
    /// Unused memory.
    pub const fn new() -> Self {
        Self { chunk: [0; CHUNK], inflate: inflate::Space::new() }
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scratch").finish_non_exhaustive()
    }
}

/// What an image is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// A uImage.
    Uimage {
        /// What its header says it is.
        kind: Kind,
        /// How its payload is compressed.
        compression: Compression,
    },
    /// A 32-bit big-endian ELF program.
    Elf,
    /// Anything else: it is copied as it is.
    Raw,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uimage { kind, compression: Compression::None } => write!(f, "uImage {kind}"),
            Self::Uimage { kind, compression } => write!(f, "uImage {kind} {compression}"),
            Self::Elf => f.write_str("ELF"),
            Self::Raw => f.write_str("raw"),
        }
    }
}

/// What became of an image's own checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Crc {
    /// It holds.
    Ok,
    /// The format has none.
    None,
    /// The payload is not the one that the header is for.
    Wrong {
        /// The header's CRC.
        stored: u32,
        /// The payload's.
        computed: u32,
    },
}

impl fmt::Display for Crc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Ok => f.write_str("CRC ok"),
            Self::None => f.write_str("no CRC"),
            Self::Wrong { stored, computed } => {
                write!(f, "CRC ERROR (payload) stored {stored:#010x}, computed {computed:#010x}")
            }
        }
    }
}

/// An image that was read from its first byte to its last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Image {
    /// What it is.
    pub format: Format,
    /// Its length in bytes, headers included.
    pub size: u64,
    /// Its own checksum.
    pub crc: Crc,
    /// SHA-256 of all its bytes.
    pub sha256: Sha256,
    /// What the configuration expects.
    pub expected: Option<Digest>,
}

impl Image {
    /// What is wrong with its bytes.
    fn damage(&self) -> Option<Why> {
        match (self.crc, self.expected) {
            (Crc::Wrong { .. }, _) => Some(Why::PayloadCrc),
            (_, Some(expected)) if expected.sha256 != self.sha256 => {
                Some(Why::Digest { expected: expected.sha256, found: self.sha256 })
            }
            _ => None,
        }
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} bytes, {}, sha256 {}", self.format, self.size, self.crc, self.sha256)?;
        match self.expected {
            None => Ok(()),
            Some(expected) if expected.sha256 == self.sha256 => f.write_str(", digest ok"),
            Some(_) => f.write_str(", digest WRONG"),
        }
    }
}

/// An image that is in its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Loaded {
    /// What was written: for an ELF program from its lowest segment to the end of its highest.
    pub dest: Span<GuestPhys>,
    /// Where it says that it is entered; not necessarily in `dest`.
    pub entry: GuestPhys,
}

/// What came of loading an image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// What was read, if it was all read.
    pub image: Option<Image>,
    /// Where it is, or why it is not, or not wholly, there.
    pub result: Result<Loaded, Why>,
}

/// Why an image cannot be loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// Its window has no byte.
    Empty,
    /// Its bytes cannot be reached.
    Unreachable(TruePhys),
    /// It is longer than its window where it is found.
    TooLong {
        /// Its length in bytes.
        size: u64,
        /// The window's.
        window: u64,
    },
    /// It has another length than the configuration says.
    Size {
        /// The configuration's, in bytes.
        expected: u64,
        /// Its own.
        found: u64,
    },
    /// It is not the image that the configuration means.
    Digest {
        /// The configuration's.
        expected: Sha256,
        /// Its own.
        found: Sha256,
    },
    /// A uImage whose header does not match the header's own CRC.
    HeaderCrc {
        /// CRC stored in the header.
        stored: u32,
        /// CRC of the header as it is.
        computed: u32,
    },
    /// A uImage whose payload does not match the header's CRC.
    PayloadCrc,
    /// A kernel in a form that nobody here unpacks.
    Compression(Compression),
    /// What is wrong with a gzip payload.
    Gzip(&'static str),
    /// What is wrong with an ELF program.
    Elf(&'static str),
    /// It reaches into what else is in the partition.
    NoRoom(Span<GuestPhys>),
    /// It reaches beyond the partition's memory.
    NotMapped(GuestPhys),
    /// It is entered where it is not.
    Entry(GuestPhys),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Empty => f.write_str("its window is empty"),
            Self::Unreachable(at) => write!(f, "its bytes from {at} on cannot be read"),
            Self::TooLong { size, window } => write!(f, "{size} bytes, TOO LONG for its window of {}", Size(window)),
            Self::Size { expected, found } => {
                write!(f, "size does not match: expected {expected} bytes, found {found}")
            }
            Self::Digest { expected, found } => {
                write!(f, "SHA-256 does not match: expected {expected}, found {found}")
            }
            Self::HeaderCrc { stored, computed } => {
                write!(f, "CRC ERROR (header) stored {stored:#010x}, computed {computed:#010x}")
            }
            Self::PayloadCrc => f.write_str("the payload does not match its CRC"),
            Self::Compression(compression) => write!(f, "compressed with {compression}, which nobody here unpacks"),
            Self::Gzip(why) => write!(f, "bad gzip payload: {why}"),
            Self::Elf(why) => write!(f, "bad ELF program: {why}"),
            Self::NoRoom(room) => write!(f, "it does not end within guest {room}, where something else begins"),
            Self::NotMapped(at) => write!(f, "it reaches guest {at}, which is not the partition's memory"),
            Self::Entry(entry) => write!(f, "its entry, guest {entry}, is outside of it"),
        }
    }
}

/// What an image is written to.
struct Target<'m, 'g, P: Physical + ?Sized> {
    memory: &'m mut GuestMemory<'g, P>,
    /// What it may write.
    room: Span<GuestPhys>,
    /// Where [`Target::append`] goes on.
    at: GuestPhys,
}

impl<P: Physical + ?Sized> Target<'_, '_, P> {
    fn put(&mut self, at: GuestPhys, bytes: &[u8]) -> Result<(), Why> {
        let span = Span::new(at, bytes.len() as u64).ok().filter(|span| self.room.covers(span));
        span.ok_or(Why::NoRoom(self.room))?;
        self.memory.write(at, bytes).map_err(|NotMapped(at)| Why::NotMapped(at))
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), Why> {
        self.put(self.at, bytes)?;
        // Within the room, so it cannot wrap.
        self.at = GuestPhys(self.at.get() + bytes.len() as u64);
        Ok(())
    }
}

/// How the bytes of an image become those of the guest.
#[expect(clippy::large_enum_variant, reason = "there is one at a time, on the stack")]
enum Payload<'s> {
    /// As they are.
    Flat,
    /// Unpacked.
    Gzip(Gunzip<'s>),
    /// Segment by segment.
    Elf(Program),
}

impl Payload<'_> {
    /// Takes the next bytes, which stand at `offset` in the file.
    fn take<P: Physical + ?Sized>(
        &mut self,
        offset: u64,
        piece: &[u8],
        target: &mut Target<'_, '_, P>,
    ) -> Result<(), Why> {
        match self {
            Self::Flat => target.append(piece),
            Self::Gzip(gunzip) => gunzip.take(piece, &mut |bytes| target.append(bytes)),
            Self::Elf(program) => program.take(offset, piece, |at, bytes| target.put(at, bytes)),
        }
    }
}

/// What the first bytes of an image say of it.
struct Plan<'s> {
    format: Format,
    /// Length of the whole image in bytes.
    size: u64,
    /// Length of the header, which the guest does not get.
    head: usize,
    /// The header's CRC of the rest.
    crc: Option<u32>,
    entry: GuestPhys,
    payload: Payload<'s>,
}

impl<'s> Plan<'s> {
    /// The plan for an image that begins with `first` and has at most `limit` bytes.
    fn new(first: &[u8], limit: u64, row: &ImageRow, space: &'s mut inflate::Space) -> Result<Self, Why> {
        if first.starts_with(elf::MAGIC) {
            let (program, size) = Program::parse(first, row.dest)?;
            let size = match row.digest {
                Some(digest) if size > digest.size => return Err(Why::Elf("it is cut short")),
                Some(digest) => digest.size,
                None if size > limit => return Err(Why::TooLong { size, window: limit }),
                None => size,
            };
            let (format, entry) = (Format::Elf, program.entry());
            return Ok(Self { format, size, head: 0, crc: None, entry, payload: Payload::Elf(program) });
        }
        match uimage::Header::parse(first) {
            Ok(header) => Self::uimage(&header, row, space),
            Err(uimage::Error::HeaderCrc { stored, computed }) => Err(Why::HeaderCrc { stored, computed }),
            Err(_) => {
                let (format, payload) = (Format::Raw, Payload::Flat);
                Ok(Self { format, size: limit, head: 0, crc: None, entry: row.dest, payload })
            }
        }
    }

    fn uimage(header: &uimage::Header, row: &ImageRow, space: &'s mut inflate::Space) -> Result<Self, Why> {
        let size = header.total_len();
        if size > row.window {
            return Err(Why::TooLong { size, window: row.window });
        }
        if let Some(expected) = row.digest
            && expected.size != size
        {
            return Err(Why::Size { expected: expected.size, found: size });
        }
        // What is not a kernel is the guest's to unpack.
        let payload = match (header.kind, header.compression) {
            (Kind::Kernel, Compression::Gzip) => Payload::Gzip(Gunzip::new(space)),
            (Kind::Kernel, Compression::None) => Payload::Flat,
            (Kind::Kernel, other) => return Err(Why::Compression(other)),
            _ => Payload::Flat,
        };
        // Any result is possible; what is entered must lie where something was written.
        let entry = row.dest.get().wrapping_add(u64::from(header.entry)).wrapping_sub(u64::from(header.load));
        Ok(Self {
            format: Format::Uimage { kind: header.kind, compression: header.compression },
            size,
            head: HEADER_LEN,
            crc: Some(header.data_crc),
            entry: GuestPhys(entry),
            payload,
        })
    }
}

/// Loads the image of `row` into a guest's memory, and there into nothing but `room`. Of several things that are
/// wrong with it the outcome names damaged bytes before what follows from them; the room may have been written then.
pub fn load<P: Physical + ?Sized>(
    memory: &mut GuestMemory<'_, P>,
    row: &ImageRow,
    room: Span<GuestPhys>,
    scratch: &mut Scratch,
) -> Outcome {
    let mut image = None;
    let result = try_load(memory, row, room, scratch, &mut image);
    Outcome { image, result }
}

fn try_load<P: Physical + ?Sized>(
    memory: &mut GuestMemory<'_, P>,
    row: &ImageRow,
    room: Span<GuestPhys>,
    scratch: &mut Scratch,
    whole: &mut Option<Image>,
) -> Result<Loaded, Why> {
    let Scratch { chunk, inflate } = scratch;
    let limit = row.digest.map_or(row.window, |digest| digest.size);
    if limit > row.window {
        return Err(Why::TooLong { size: limit, window: row.window });
    }
    let mut piece = read(memory.physical, row.source, 0, limit, chunk)?;
    let Plan { format, size, head, crc, entry, mut payload } = Plan::new(piece, limit, row, inflate)?;

    let mut target = Target { memory, room, at: row.dest };
    let (mut sha256, mut sum, mut fault) = (sha2::Sha256::new(), uimage::Crc::default(), None);
    piece = &piece[..piece.len().min(usize::try_from(size).unwrap_or(usize::MAX))];
    let mut body = piece.get(head..).unwrap_or(&[]);
    let mut offset = 0;
    loop {
        sha256.update(piece);
        sum.update(body);
        // An image that is damaged is read to its end all the same: its sums say so most clearly.
        if fault.is_none() {
            fault = payload.take(offset, body, &mut target).err();
        }
        offset += piece.len() as u64;
        if offset >= size {
            break;
        }
        piece = read(target.memory.physical, row.source, offset, size, chunk)?;
        body = piece;
    }

    let computed = sum.finish();
    let crc = match crc {
        None => Crc::None,
        Some(stored) if stored == computed => Crc::Ok,
        Some(stored) => Crc::Wrong { stored, computed },
    };
    let image = Image { format, size, crc, sha256: Sha256(sha256.finalize().into()), expected: row.digest };
    *whole = Some(image);
    if let Some(why) = image.damage().or(fault) {
        return Err(why);
    }
    match payload {
        Payload::Flat => {}
        Payload::Gzip(gunzip) => gunzip.finish()?,
        Payload::Elf(program) => {
            chunk.fill(0);
            target.at = program.finish(|at, len| target.put(at, chunk.get(..len).unwrap_or(chunk)), CHUNK)?;
        }
    }
    Ok(Loaded { dest: Span::between(row.dest, target.at), entry })
}

/// Copies the bytes from `offset` on, no further than `end` and no more than a chunk.
fn read<'c, P: Physical + ?Sized>(
    physical: &mut P,
    source: TruePhys,
    offset: u64,
    end: u64,
    chunk: &'c mut [u8; CHUNK],
) -> Result<&'c [u8], Why> {
    let left = usize::try_from(end.saturating_sub(offset)).unwrap_or(CHUNK).min(CHUNK);
    let into = &mut chunk[..left];
    if into.is_empty() {
        return Err(Why::Empty);
    }
    let at = source.get().checked_add(offset).map(TruePhys).ok_or(Why::Unreachable(source))?;
    if physical.read(at, into) { Ok(into) } else { Err(Why::Unreachable(at)) }
}

/// The room for an image that is put at `dest`: up to the first byte that is taken.
pub fn room(dest: GuestPhys, taken: &[Span<GuestPhys>]) -> Span<GuestPhys> {
    let behind = taken.iter().filter(|taken| !taken.is_empty() && taken.end() > dest);
    let end = behind.map(|taken| taken.base()).min().unwrap_or(GuestPhys(u64::MAX));
    Span::between(dest, end)
}

#[cfg(test)]
mod tests;
