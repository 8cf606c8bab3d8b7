//! Images where the boot loader left them: which format, how long, and whether the bytes are whole.
//!
//! An image may lie anywhere in the 36-bit space, so it is read through windows ([`Memory`]), and never
//! beyond the window that the configuration gives it.

use core::fmt;

use citrine_formats::addr::{Size, Span, TruePhys};
use citrine_formats::uimage::{self, Compression, Kind};

/// True-physical memory, read through whatever mapping there is.
pub trait Memory {
    /// At least one and at most `max` bytes from `at`; `None` when the address cannot be mapped.
    fn view(&mut self, at: TruePhys, max: usize) -> Option<&[u8]>;
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
    /// A uImage whose header cannot be believed.
    DamagedUimage,
    /// A 32-bit big-endian ELF program.
    Elf,
    /// Anything else: the whole window is copied.
    Raw,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uimage { kind, compression: Compression::None } => write!(f, "uImage {kind}"),
            Self::Uimage { kind, compression } => write!(f, "uImage {kind} {compression}"),
            Self::DamagedUimage => f.write_str("uImage"),
            Self::Elf => f.write_str("ELF"),
            Self::Raw => f.write_str("raw"),
        }
    }
}

/// Whether an image is whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Header and payload match their CRCs.
    CrcOk,
    /// The format has no checksum.
    NoCrc,
    /// The header does not match its CRC.
    HeaderCrc {
        /// CRC stored in the header.
        stored: u32,
        /// CRC of the header as it is.
        computed: u32,
    },
    /// The payload does not match the header's CRC.
    PayloadCrc {
        /// CRC stored in the header.
        stored: u32,
        /// CRC of the payload as it is.
        computed: u32,
    },
    /// The image is longer than its window.
    TooLong {
        /// Bytes in the window.
        window: u64,
    },
    /// An ELF file that is no program for these CPUs.
    BadElf(&'static str),
    /// The bytes cannot be reached.
    Unreachable,
}

impl Verdict {
    /// Whether the image can be loaded.
    pub fn is_good(self) -> bool {
        matches!(self, Self::CrcOk | Self::NoCrc)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::CrcOk => f.write_str("CRC ok"),
            Self::NoCrc => f.write_str("no CRC"),
            Self::HeaderCrc { stored, computed } => {
                write!(f, "CRC ERROR (header) stored {stored:#010x}, computed {computed:#010x}")
            }
            Self::PayloadCrc { stored, computed } => {
                write!(f, "CRC ERROR (payload) stored {stored:#010x}, computed {computed:#010x}")
            }
            Self::TooLong { window } => write!(f, "TOO LONG for its window of {}", Size(window)),
            Self::BadElf(why) => write!(f, "BAD ELF ({why})"),
            Self::Unreachable => f.write_str("UNREACHABLE"),
        }
    }
}

/// What was found out about an image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Checked {
    /// What it is.
    pub format: Format,
    /// Its length in bytes, header included; the window's when it cannot be known.
    pub size: u64,
    /// Whether it is whole.
    pub verdict: Verdict,
}

/// Identifies and checks the image at the start of `window`.
pub fn check(memory: &mut impl Memory, window: Span<TruePhys>) -> Checked {
    let bad = |format, verdict| Checked { format, size: window.len(), verdict };
    let mut head = [0; uimage::HEADER_LEN];
    let have = usize::try_from(window.len()).map_or(head.len(), |len| len.min(head.len()));
    if read(memory, window.base(), &mut head[..have]).is_none() {
        return bad(Format::Raw, Verdict::Unreachable);
    }
    if head[..have].starts_with(b"\x7fELF") {
        return check_elf(memory, window);
    }
    match uimage::Header::parse(&head[..have]) {
        Ok(header) => check_uimage(memory, window, &header),
        Err(uimage::Error::HeaderCrc { stored, computed }) => {
            bad(Format::DamagedUimage, Verdict::HeaderCrc { stored, computed })
        }
        Err(_) => bad(Format::Raw, Verdict::NoCrc),
    }
}

fn check_uimage(memory: &mut impl Memory, window: Span<TruePhys>, header: &uimage::Header) -> Checked {
    let format = Format::Uimage { kind: header.kind, compression: header.compression };
    let size = header.total_len();
    let checked = |verdict| Checked { format, size, verdict };
    if size > window.len() {
        return checked(Verdict::TooLong { window: window.len() });
    }
    // Within the window, so neither sum can wrap.
    let mut at = window.base().0 + uimage::HEADER_LEN as u64;
    let mut left = u64::from(header.size);
    let mut crc = uimage::Crc::default();
    while left > 0 {
        let max = usize::try_from(left).unwrap_or(usize::MAX);
        match memory.view(TruePhys(at), max) {
            None | Some([]) => return checked(Verdict::Unreachable),
            Some(bytes) => {
                let bytes = &bytes[..bytes.len().min(max)];
                crc.update(bytes);
                at += bytes.len() as u64;
                left -= bytes.len() as u64;
            }
        }
    }
    let (stored, computed) = (header.data_crc, crc.finish());
    checked(if stored == computed { Verdict::CrcOk } else { Verdict::PayloadCrc { stored, computed } })
}

/// ELF-32, System V ABI: the program headers say how long the file is.
fn check_elf(memory: &mut impl Memory, window: Span<TruePhys>) -> Checked {
    let elf = |size, verdict| Checked { format: Format::Elf, size, verdict };
    let bad = |why| elf(window.len(), Verdict::BadElf(why));
    let mut head = [0; 52];
    if window.len() < head.len() as u64 {
        return bad("cut short");
    }
    if read(memory, window.base(), &mut head).is_none() {
        return elf(window.len(), Verdict::Unreachable);
    }
    let half = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
    let phoff = u64::from(u32::from_be_bytes([head[28], head[29], head[30], head[31]]));
    let (phentsize, phnum) = (half(42), half(44));
    if head[4] != 1 || head[5] != 2 {
        return bad("not 32-bit big-endian");
    }
    if half(16) != 2 {
        return bad("not a program at a fixed address");
    }
    if phentsize != 32 || phnum == 0 {
        return bad("no program headers");
    }
    let mut size = phoff + u64::from(phnum) * 32;
    if size > window.len() {
        return elf(size, Verdict::TooLong { window: window.len() });
    }
    for index in 0..u64::from(phnum) {
        let mut header = [0; 32];
        // Within the window, so the sum cannot wrap.
        if read(memory, TruePhys(window.base().0 + phoff + index * 32), &mut header).is_none() {
            return elf(window.len(), Verdict::Unreachable);
        }
        let word =
            |at: usize| u64::from(u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]));
        let (offset, filesz, memsz) = (word(4), word(16), word(20));
        if filesz > memsz {
            return bad("a segment is longer in the file than in memory");
        }
        size = size.max(offset + filesz);
    }
    let verdict = if size > window.len() { Verdict::TooLong { window: window.len() } } else { Verdict::NoCrc };
    elf(size, verdict)
}

/// Copies bytes out of memory, across windows.
fn read(memory: &mut impl Memory, at: TruePhys, mut to: &mut [u8]) -> Option<()> {
    let mut at = at.0;
    while !to.is_empty() {
        let bytes = memory.view(TruePhys(at), to.len())?;
        let count = bytes.len().min(to.len());
        if count == 0 {
            return None;
        }
        let (now, later) = to.split_at_mut(count);
        now.copy_from_slice(&bytes[..count]);
        at = at.checked_add(count as u64)?;
        to = later;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::format;
    use std::vec;
    use std::vec::Vec;

    /// Bytes at an address, seen through windows of `frame` bytes.
    struct Fake {
        base: u64,
        bytes: Vec<u8>,
        frame: u64,
    }

    impl Memory for Fake {
        fn view(&mut self, at: TruePhys, max: usize) -> Option<&[u8]> {
            let offset = usize::try_from(at.0.checked_sub(self.base)?).ok()?;
            let room = (self.frame - at.0 % self.frame) as usize;
            let bytes = self.bytes.get(offset..).filter(|rest| !rest.is_empty())?;
            Some(&bytes[..bytes.len().min(max).min(room)])
        }
    }

    fn look(bytes: &[u8], window: u64, frame: u64) -> std::string::String {
        let base = 0xf_0000_0ff0;
        let mut memory = Fake { base, bytes: bytes.to_vec(), frame };
        let checked = check(&mut memory, Span::new(TruePhys(base), window).unwrap());
        assert_eq!(checked.verdict.is_good(), matches!(checked.verdict, Verdict::CrcOk | Verdict::NoCrc));
        format!("{}, {} bytes, {}", checked.format, checked.size, checked.verdict)
    }

    fn kernel() -> Vec<u8> {
        let payload: Vec<u8> = (0..5000u32).map(|n| (n * 7) as u8).collect();
        let header = uimage::Header::for_payload(Kind::Kernel, Compression::Gzip, "linux", 0, &payload).unwrap();
        [&header.to_bytes()[..], &payload].concat()
    }

    #[test]
    fn a_whole_image_is_good_through_any_window() {
        for frame in [64, 0x1000, 0x10_0000] {
            assert_eq!(look(&kernel(), 0x10000, frame), "uImage kernel gzip, 5064 bytes, CRC ok");
        }
        assert_eq!(look(&kernel(), 5064, 64), "uImage kernel gzip, 5064 bytes, CRC ok");
    }

    #[test]
    fn damage_is_found_and_placed() {
        let mut bytes = kernel();
        bytes[40] ^= 1;
        assert!(look(&bytes, 0x10000, 64).starts_with("uImage, 65536 bytes, CRC ERROR (header) stored 0x"));
        let mut bytes = kernel();
        bytes[5063] ^= 0x80;
        assert!(look(&bytes, 0x10000, 64).starts_with("uImage kernel gzip, 5064 bytes, CRC ERROR (payload) stored 0x"));
        assert_eq!(look(&kernel(), 5063, 64), "uImage kernel gzip, 5064 bytes, TOO LONG for its window of 4.9 KiB");
        assert_eq!(look(&kernel()[..3000], 0x10000, 64), "uImage kernel gzip, 5064 bytes, UNREACHABLE");
    }

    #[test]
    fn an_elf_program_is_as_long_as_its_headers_say() {
        let mut elf = vec![0u8; 0x200];
        elf[..6].copy_from_slice(b"\x7fELF\x01\x02");
        elf[17] = 2;
        elf[31] = 52;
        elf[43] = 32;
        elf[45] = 1;
        elf[52 + 6] = 1; // offset 0x100
        elf[52 + 19] = 0x80;
        elf[52 + 23] = 0x90;
        assert_eq!(look(&elf, 0x1000, 64), "ELF, 384 bytes, no CRC");
        assert_eq!(look(&elf, 383, 64), "ELF, 384 bytes, TOO LONG for its window of 383 bytes");
        elf[5] = 1;
        assert_eq!(look(&elf, 0x1000, 64), "ELF, 4096 bytes, BAD ELF (not 32-bit big-endian)");
    }

    #[test]
    fn anything_else_is_raw() {
        assert_eq!(look(b"hello", 5, 64), "raw, 5 bytes, no CRC");
        assert_eq!(look(b"", 5, 64), "raw, 5 bytes, UNREACHABLE");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), elf: bool, window: u32) {
            if elf && bytes.len() > 4 {
                bytes[..4].copy_from_slice(b"\x7fELF");
            }
            look(&bytes, u64::from(window), 64);
        }
    }
}
