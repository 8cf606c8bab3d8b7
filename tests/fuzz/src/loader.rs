//! Any image, for any place in a guest's memory, from a source that changes under the loader's hands or not.
//!
//! No byte is read twice; none is written outside of the room; what the loader says of the image is true of the bytes
//! that it has read, and what it unpacks is what another inflate makes of them.

use std::io::Read as _;

use citrine_core::config::{Digest, ImageRow};
use citrine_core::loader::{Format, Outcome, Scratch, load};
use citrine_core::memory::{GuestMap, GuestMemory, Physical};
use citrine_formats::addr::{Address as _, GuestPhys, Span, TruePhys};
use citrine_formats::sha256::Sha256;
use citrine_formats::uimage::{Compression, Header, Kind};
use sha2::Digest as _;

use crate::input::Input;

/// Where the image is.
const SOURCE: u64 = 0xf_e802_0f00;
/// Where the guest's memory is, and its length: the second half lies in front of the first.
const BASE: u64 = 0x4000_0000;
const LEN: u64 = 0x1_0000;
/// What the guest's memory holds before.
const OLD: u8 = 0xa5;

struct Machine {
    source: Vec<u8>,
    reads: Vec<u8>,
    changes: bool,
    guest: Vec<u8>,
}

impl Physical for Machine {
    fn read(&mut self, at: TruePhys, into: &mut [u8]) -> bool {
        let Some(from) = at.get().checked_sub(SOURCE) else { return false };
        let range = from as usize..from as usize + into.len();
        let Some(bytes) = self.source.get_mut(range.clone()) else { return false };
        into.copy_from_slice(bytes);
        if self.changes {
            bytes.iter_mut().for_each(|byte| *byte = !*byte);
        }
        for reads in &mut self.reads[range] {
            assert_eq!(*reads, 0, "bytes are read again");
            *reads = 1;
        }
        true
    }

    fn write(&mut self, at: TruePhys, from: &[u8]) -> bool {
        let at = at.get().checked_sub(BASE).expect("it is the guest's memory") as usize;
        self.guest[at..at + from.len()].copy_from_slice(from);
        true
    }
}

/// Runs the target.
pub fn run(data: &[u8]) -> usize {
    let mut input = Input::new(data);
    let Some((image, row, end, changes)) = decide(&mut input) else { return 0 };
    let source = image(input.rest());
    let row = row(&source);
    let mut map = GuestMap::default();
    for (guest, base) in [(0, BASE + LEN / 2), (LEN / 2, BASE)] {
        map.add(Span::new(GuestPhys(guest), LEN / 2).expect("it does not wrap around"), TruePhys(base));
    }
    let guest = vec![OLD; LEN as usize];
    let mut machine = Machine { source: source.clone(), reads: vec![0; source.len()], changes, guest };
    let mut memory = GuestMemory { map: &map, physical: &mut machine };
    let room = Span::between(row.dest, GuestPhys(end));
    let Outcome { image, result } = load(&mut memory, &row, room, &mut Scratch::new());
    // As the guest sees it.
    machine.guest.rotate_left(LEN as usize / 2);
    let outside = (0..LEN).find(|at| !room.contains(GuestPhys(*at)) && machine.guest[*at as usize] != OLD);
    assert_eq!(outside, None, "written outside of {room}");

    if let Some(image) = image {
        assert!(image.size <= row.window, "{} bytes of {}", image.size, row.window);
        let read = &source[..image.size as usize];
        assert_eq!(image.sha256, Sha256(sha2::Sha256::digest(read).into()), "other bytes than were read");
    }
    let Ok(loaded) = result else { return usize::from(image.is_some()) };
    let image = image.expect("it has been read");
    let expected = row.digest.map(|digest| (digest.size, digest.sha256));
    assert!(expected.is_none_or(|expected| expected == (image.size, image.sha256)), "not the image that was meant");
    assert!(room.covers(&loaded.dest), "{} is beyond {room}", loaded.dest);
    let written = &machine.guest[loaded.dest.base().get() as usize..loaded.dest.end().get() as usize];
    let read = &source[..image.size as usize];
    match image.format {
        Format::Raw => assert_eq!(written, read),
        // Anything but a kernel is unpacked by the guest.
        Format::Uimage { kind: Kind::Kernel, compression: Compression::Gzip } => {
            let mut unpacked = Vec::new();
            let other = flate2::read::GzDecoder::new(&read[64..]).take(2 * LEN).read_to_end(&mut unpacked);
            assert!(other.is_ok(), "another inflate refuses it");
            assert_eq!(written, unpacked);
        }
        Format::Uimage { .. } => assert!(read.ends_with(written), "the payload is another"),
        Format::Elf => {}
    }
    2
}

type Make = Box<dyn Fn(&[u8]) -> Vec<u8>>;
type Place = Box<dyn Fn(&[u8]) -> ImageRow>;

/// How the rest of the input becomes an image, where it is put, where the room ends, whether the source changes.
fn decide(input: &mut Input<'_>) -> Option<(Make, Place, u64, bool)> {
    let (form, flags, place, kind, compression) =
        (input.byte()?, input.byte()?, input.byte()?, input.byte()?, input.byte()?);
    let entry = input.raw()?;
    let image: Make = match form % 4 {
        0 => Box::new(<[u8]>::to_vec),
        // A fuzzer does not find CRCs.
        1 => Box::new(move |payload| uimage(payload, kind, compression, entry)),
        2 => Box::new(move |deflated| uimage(&gzip_member(deflated), Kind::Kernel.code(), 1, entry)),
        _ => Box::new(move |payload| uimage(&gzip(payload), Kind::Kernel.code(), 1, entry)),
    };
    let dest = u64::from(place) << 8;
    let row: Place = Box::new(move |source| {
        let len = source.len() as u64;
        let window = match flags & 3 {
            0 => len.saturating_sub(1),
            1 => len + 64,
            2 => u64::MAX,
            _ => len,
        };
        let sha256 = Sha256(sha2::Sha256::digest(source).into());
        let digest = match flags >> 2 & 3 {
            0 => Some(Digest { size: len, sha256 }),
            1 => Some(Digest { size: len, sha256: Sha256([0; 32]) }),
            _ => None,
        };
        ImageRow { source: TruePhys(SOURCE), dest: GuestPhys(dest), window, digest }
    });
    let end = if flags & 0x10 != 0 { u64::MAX } else { dest + 0x800 };
    Some((image, row, end, flags & 0x20 != 0))
}

/// A uImage whose sums hold.
fn uimage(payload: &[u8], kind: u8, compression: u8, entry: u32) -> Vec<u8> {
    let (kind, compression) = (Kind::from_code(kind), Compression::from_code(compression));
    let header = Header::for_payload(kind, compression, "fuzz", 0, payload).expect("it is shorter than 4 GiB");
    [&Header { entry, ..header }.to_bytes()[..], payload].concat()
}

/// A gzip member around what may be deflated or not: header and trailer as the bytes would want them.
fn gzip_member(deflated: &[u8]) -> Vec<u8> {
    [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3], deflated].concat()
}

/// A gzip member that is whole.
fn gzip(payload: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    let encoder = flate2::read::GzEncoder::new(payload, flate2::Compression::fast()).read_to_end(&mut packed);
    encoder.expect("memory can be packed");
    packed
}
