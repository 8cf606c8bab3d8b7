//! The forms that images take on their way into a bundle: flat, gzip, uImage. Same input, same bytes.

use std::io::Write as _;

use citrine_formats::uimage::{Compression, Header, Kind};
use citrine_planner::diag::{Code, Diagnostic, Result};
use flate2::{Compression as Level, GzBuilder};
use object::elf::{FileHeader32, PT_LOAD};
use object::read::elf::{FileHeader as _, ProgramHeader as _};
use object::{BigEndian, Endianness};

/// A kernel is not an ELF program that can be laid flat.
pub const NOT_FLAT: Code = Code::new('T', 503);

/// Writes to the compressor are of this size: its output depends on it.
const CHUNK: usize = 64 << 10;
/// Longest memory image that is believed.
const MAX_FLAT: u64 = 256 << 20;

/// One gzip member: level 9, no name, no time.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Level::best());
    for chunk in bytes.chunks(CHUNK) {
        encoder.write_all(chunk).expect("a Vec takes every byte");
    }
    encoder.finish().expect("a Vec takes every byte")
}

/// The payload, compressed already, in a uImage for PowerPC Linux with load address and entry 0.
///
/// # Errors
/// [`NOT_FLAT`] when it is longer than the format can say.
pub fn uimage(kind: Kind, name: &str, epoch: u32, gzipped: &[u8]) -> Result<Vec<u8>> {
    let header = Header::for_payload(kind, Compression::Gzip, name, epoch, gzipped)
        .ok_or_else(|| Diagnostic::error(NOT_FLAT, format!("{name} is longer than a uImage can be")))?;
    Ok([&header.to_bytes()[..], gzipped].concat())
}

/// A program as it lies in memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Flat {
    /// The bytes from the lowest physical address on.
    pub bytes: Vec<u8>,
    /// Bytes of memory that it takes, with what follows the file's bytes and starts as zero.
    pub memory: u64,
}

/// Lays the loaded segments of a 32-bit big-endian PowerPC program flat from physical address 0, where the
/// hypervisor puts a kernel.
///
/// # Errors
/// [`NOT_FLAT`], saying what is wrong.
pub fn flatten(name: &str, elf: &[u8]) -> Result<Flat> {
    segments(elf).map_err(|what| {
        Diagnostic::error(NOT_FLAT, format!("{name} cannot be laid flat: {what}"))
            .help("a kernel is a 32-bit big-endian ELF program linked to start at physical address 0")
            .into()
    })
}

fn segments(elf: &[u8]) -> std::result::Result<Flat, String> {
    let header = FileHeader32::<Endianness>::parse(elf).map_err(|error| error.to_string())?;
    if header.endian().map_err(|error| error.to_string())? != Endianness::Big {
        return Err("it is little-endian".into());
    }
    let header = FileHeader32::<BigEndian>::parse(elf).map_err(|error| error.to_string())?;
    let (mut bytes, mut memory, mut lowest) = (Vec::new(), 0, u64::MAX);
    for segment in header.program_headers(BigEndian, elf).map_err(|error| error.to_string())? {
        if segment.p_type(BigEndian) != PT_LOAD {
            continue;
        }
        let base = u64::from(segment.p_paddr(BigEndian));
        let data = segment.data(BigEndian, elf).map_err(|()| "a segment reaches behind the end of the file")?;
        let end = base + u64::from(segment.p_memsz(BigEndian)).max(data.len() as u64);
        if end > MAX_FLAT {
            return Err(format!("a segment ends at {end:#x}, behind {MAX_FLAT:#x}"));
        }
        let range = base as usize..base as usize + data.len();
        if bytes.len() < range.end {
            bytes.resize(range.end, 0);
        }
        bytes[range].copy_from_slice(data);
        memory = memory.max(end);
        lowest = lowest.min(base);
    }
    match lowest {
        0 => Ok(Flat { bytes, memory }),
        u64::MAX => Err("it has no loaded segment".into()),
        _ => Err(format!("it starts at physical address {lowest:#x}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use citrine_formats::uimage::Image;
    use proptest::prelude::*;
    use std::io::Read as _;

    /// An ELF file with the given segments: physical address, bytes, size in memory.
    fn elf(segments: &[(u32, &[u8], u32)]) -> Vec<u8> {
        let mut file = b"\x7fELF\x01\x02\x01".to_vec();
        file.resize(16, 0);
        file.extend([0, 2, 0, 20, 0, 0, 0, 1]);
        for word in [0u32, 52, 0, 0] {
            file.extend(word.to_be_bytes());
        }
        for half in [52u16, 32, segments.len() as u16, 0, 0, 0] {
            file.extend(half.to_be_bytes());
        }
        let mut offset = 52 + 32 * segments.len() as u32;
        for (paddr, data, memory) in segments {
            for word in [PT_LOAD.0, offset, 0xc000_0000 + paddr, *paddr, data.len() as u32, *memory, 7, 4] {
                file.extend(word.to_be_bytes());
            }
            offset += data.len() as u32;
        }
        segments.iter().for_each(|(_, data, _)| file.extend(*data));
        file
    }

    #[test]
    fn segments_lie_at_their_addresses_and_gaps_are_zero() {
        let flat = flatten("x", &elf(&[(8, b"world", 0x20), (0, b"hello", 5)])).unwrap();
        assert_eq!(flat, Flat { bytes: b"hello\0\0\0world".to_vec(), memory: 0x28 });
    }

    #[test]
    fn what_is_no_kernel_is_refused() {
        let good = elf(&[(0, b"hello", 5)]);
        let mut little = good.clone();
        little[5] = 1;
        let cases = [
            (b"text".to_vec(), "not an ELF"),
            (little, "little-endian"),
            (elf(&[]), "no loaded segment"),
            (elf(&[(4, b"x", 1)]), "starts at"),
            (elf(&[(0, b"x", u32::MAX)]), "ends at"),
            (good[..good.len() - 1].to_vec(), "behind the end"),
        ];
        for (bytes, why) in cases {
            let error = flatten("x", &bytes).unwrap_err();
            assert_eq!(error.code, NOT_FLAT, "{why}");
        }
    }

    #[test]
    fn gzip_says_nothing_of_time_name_or_machine() {
        let bytes: Vec<u8> = (0..200_000u32).flat_map(|n| n.wrapping_mul(n).to_le_bytes()).collect();
        let gzipped = gzip(&bytes);
        assert_eq!(gzipped[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 255]);
        let mut back = Vec::new();
        flate2::read::GzDecoder::new(&gzipped[..]).read_to_end(&mut back).unwrap();
        assert_eq!(back, bytes);
    }

    /// A new deflate crate that makes other bytes must not go unnoticed.
    #[test]
    fn gzip_makes_the_bytes_it_always_made() {
        let bytes: Vec<u8> = (0..50_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> (n % 24)) as u8 & 0x3f).collect();
        assert_eq!(
            crate::cache::sha256(&gzip(&bytes)).to_string(),
            "3eb13098b5a59f24601dcd562685c0ef9e0d08c179aca6aef5f5791ebb297c11"
        );
    }

    #[test]
    fn the_wrapped_image_is_one() {
        let bytes = uimage(Kind::Ramdisk, "root", 1_700_000_000, b"payload").unwrap();
        let image = Image::verify(&bytes).unwrap();
        assert_eq!((image.header.kind, image.header.compression), (Kind::Ramdisk, Compression::Gzip));
        assert_eq!((image.header.load, image.header.entry, image.header.time), (0, 0, 1_700_000_000));
    }

    proptest! {
        #[test]
        fn no_program_panics(mut file in Just(elf(&[(0, b"hello", 5), (8, b"world", 9)])), edits in proptest::collection::vec((0usize..120, any::<u8>()), 1..6)) {
            for (at, byte) in edits {
                file[at] = byte;
            }
            let _ = flatten("x", &file);
        }
    }
}
