//! Images of every format, whole, damaged, hostile, and changed under the loader's hands.

extern crate std;
use std::format;
use std::io::Write as _;
use std::string::String;
use std::vec;
use std::vec::Vec;

use citrine_formats::uimage::Header;
use flate2::{Compression as Level, GzBuilder};
use proptest::prelude::*;

use super::*;
use crate::memory::GuestMap;

/// Where the image is.
const SOURCE: u64 = 0xf_e802_0f00;
/// Where the guest's memory is, and how long.
const BASE: u64 = 0x4000_0000;
const LEN: usize = 0x4_0000;
/// What the guest's memory holds before.
const OLD: u8 = 0xa5;

/// A source that may change after each look, and a guest's memory.
struct Machine {
    source: Vec<u8>,
    reads: Vec<u32>,
    changes: bool,
    guest: Vec<u8>,
}

impl Physical for Machine {
    fn read(&mut self, at: TruePhys, into: &mut [u8]) -> bool {
        let from = at.0.checked_sub(SOURCE).map(|offset| offset as usize);
        let Some(range) = from.map(|from| from..from + into.len()).filter(|range| range.end <= self.source.len())
        else {
            return false;
        };
        into.copy_from_slice(&self.source[range.clone()]);
        self.reads[range.clone()].iter_mut().for_each(|reads| *reads += 1);
        if self.changes {
            self.source[range].iter_mut().for_each(|byte| *byte = !*byte);
        }
        true
    }

    fn write(&mut self, at: TruePhys, from: &[u8]) -> bool {
        let at = (at.0 - BASE) as usize;
        self.guest[at..at + from.len()].copy_from_slice(from);
        true
    }
}

/// What came of loading, and the guest's memory.
struct After {
    result: Result<Loaded, Why>,
    image: Option<Image>,
    machine: Machine,
}

impl After {
    fn why(&self) -> String {
        self.result.map_or_else(|why| format!("{why}"), |_| "nothing".into())
    }

    /// The guest's bytes, where it has been written.
    fn written(&self) -> &[u8] {
        let span = self.result.unwrap().dest;
        &self.machine.guest[span.base().0 as usize..span.end().0 as usize]
    }
}

fn row(window: u64, dest: u64) -> ImageRow {
    ImageRow { source: TruePhys(SOURCE), dest: GuestPhys(dest), window, digest: None }
}

fn digest(bytes: &[u8]) -> Digest {
    Digest { size: bytes.len() as u64, sha256: Sha256(sha2::Sha256::digest(bytes).into()) }
}

fn load_into(source: &[u8], row: ImageRow, end: u64, changes: bool, scratch: &mut Scratch) -> After {
    let mut machine = Machine { source: source.to_vec(), reads: vec![0; source.len()], changes, guest: vec![OLD; LEN] };
    let mut map = GuestMap::default();
    // In two pieces, the second of which lies in front of the first.
    let half = LEN as u64 / 2;
    map.add(Span::new(GuestPhys(0), half).unwrap(), TruePhys(BASE + half));
    map.add(Span::new(GuestPhys(half), half).unwrap(), TruePhys(BASE));
    let mut memory = GuestMemory { map: &map, physical: &mut machine };
    let room = Span::between(row.dest, GuestPhys(end));
    let Outcome { image, result } = load(&mut memory, &row, room, scratch);
    assert!(machine.reads.iter().all(|reads| *reads <= 1), "bytes are read again");
    // As the guest sees it.
    machine.guest.rotate_left(LEN / 2);
    let outside = machine.guest.iter().enumerate().filter(|(at, _)| !room.contains(GuestPhys(*at as u64)));
    assert!(outside.into_iter().all(|(_, byte)| *byte == OLD), "written outside the room");
    After { result, image, machine }
}

fn load_row(source: &[u8], row: ImageRow) -> After {
    load_into(source, row, u64::MAX, false, &mut Scratch::new())
}

fn load_it(source: &[u8]) -> After {
    load_row(source, row(source.len() as u64, 0x1000))
}

fn noise(len: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_103_515_245).wrapping_add(12345);
        (state >> 16) as u8
    };
    // Repetitions near and far, so that there is something to compress.
    (0..len).map(|index| if index % 5000 < 3000 { next() & 3 } else { (index / 100) as u8 }).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzBuilder::new().write(Vec::new(), Level::best());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

fn uimage(kind: Kind, compression: Compression, payload: &[u8]) -> Vec<u8> {
    let header = Header::for_payload(kind, compression, "test", 0, payload).unwrap();
    let header = Header { load: 0x100, entry: 0x120, ..header };
    [&header.to_bytes()[..], payload].concat()
}

fn kernel(unpacked: &[u8]) -> Vec<u8> {
    uimage(Kind::Kernel, Compression::Gzip, &gzip(unpacked))
}

/// A program header.
#[derive(Clone, Copy)]
struct Load(u32, u32, u32, u32, u32);

fn elf(entry: u32, loads: &[Load], len: usize) -> Vec<u8> {
    let mut file: Vec<u8> = b"\x7fELF\x01\x02\x01".to_vec();
    file.resize(16, 0);
    let halves = |file: &mut Vec<u8>, halves: &[u16]| halves.iter().for_each(|half| file.extend(half.to_be_bytes()));
    let words = |file: &mut Vec<u8>, words: &[u32]| words.iter().for_each(|word| file.extend(word.to_be_bytes()));
    halves(&mut file, &[2, 20]);
    words(&mut file, &[1, entry, 52, 0, 0]);
    halves(&mut file, &[52, 32, loads.len() as u16, 0, 0, 0]);
    for Load(offset, vaddr, paddr, filesz, memsz) in loads {
        words(&mut file, &[1, *offset, *vaddr, *paddr, *filesz, *memsz, 7, 4]);
    }
    let at = file.len();
    file.extend(noise(len.saturating_sub(at)));
    file
}

/// A program of two segments with zeroed data, of which the second lies lower.
fn program() -> Vec<u8> {
    elf(
        0xc000_2010,
        &[Load(0x200, 0xc000_2000, 0x2000, 0x1800, 0x1900), Load(0x1a00, 0xc000_0000, 0, 0x100, 0x1500)],
        0x1b00,
    )
}

#[test]
fn a_gzip_kernel_is_unpacked() {
    let unpacked = noise(100_000);
    let image = kernel(&unpacked);
    let outcome = load_it(&image);
    assert!(outcome.written() == unpacked, "{}", outcome.why());
    let loaded = outcome.result.unwrap();
    assert_eq!((loaded.dest.base(), loaded.entry), (GuestPhys(0x1000), GuestPhys(0x1020)));
    let text = format!("{}", outcome.image.unwrap());
    assert_eq!(text, format!("uImage kernel gzip, {} bytes, CRC ok, sha256 {}", image.len(), digest(&image).sha256));
    assert!(outcome.machine.reads.iter().all(|reads| *reads == 1));
}

#[test]
fn what_is_no_kernel_stays_as_it_is() {
    let payload = gzip(&noise(9000));
    for image in [
        uimage(Kind::Ramdisk, Compression::Gzip, &payload),
        uimage(Kind::Kernel, Compression::None, &payload),
        uimage(Kind::Firmware, Compression::Lzma, &payload),
    ] {
        // What lies behind the image in its window is not part of it.
        let outcome = load_row(&[&image[..], &[1; 100]].concat(), row(image.len() as u64 + 100, 0x1ffff));
        assert!(outcome.written() == payload);
        assert_eq!(outcome.image.unwrap().sha256, digest(&image).sha256);
    }
    let lzma = uimage(Kind::Kernel, Compression::Lzma, &payload);
    assert_eq!(load_it(&lzma).why(), "compressed with lzma, which nobody here unpacks");
}

#[test]
fn anything_else_is_raw_and_as_long_as_its_window_or_its_digest() {
    let bytes = noise(10_000);
    let outcome = load_it(&bytes);
    assert!(outcome.written() == bytes);
    assert!(format!("{}", outcome.image.unwrap()).starts_with("raw, 10000 bytes, no CRC, sha256 "));
    let digest = Some(digest(&bytes[..4097]));
    let outcome = load_row(&bytes, ImageRow { digest, ..row(10_000, 0) });
    assert!(outcome.written() == &bytes[..4097]);
    assert!(format!("{}", outcome.image.unwrap()).ends_with(", digest ok"));
    assert_eq!(load_row(&bytes, row(0, 0)).why(), "its window is empty");
    let outcome = load_row(&bytes, row(10_001, 0));
    assert_eq!((outcome.why().as_str(), outcome.image), ("its bytes from 0xf_e8022f00 on cannot be read", None));
}

#[test]
fn an_elf_program_is_laid_out_by_its_headers() {
    let file = program();
    for digest in [None, Some(digest(&file))] {
        let outcome = load_row(&file, ImageRow { digest, ..row(file.len() as u64 + 5, 0x8000) });
        let mut memory = vec![OLD; 0x3900];
        memory[..0x1500].fill(0);
        memory[..0x100].copy_from_slice(&file[0x1a00..0x1b00]);
        memory[0x2000..0x3900].fill(0);
        memory[0x2000..0x3800].copy_from_slice(&file[0x200..0x1a00]);
        assert!(outcome.written() == memory, "{}", outcome.why());
        assert_eq!(outcome.result.unwrap().entry, GuestPhys(0xa010));
    }
}

#[test]
fn a_wrong_elf_program_is_refused() {
    let whole = Load(0x200, 0, 0, 0x100, 0x100);
    let why = |entry, loads: &[Load]| load_it(&elf(entry, loads, 0x400)).why();
    let bad = |why: &str| format!("bad ELF program: {why}");
    assert_eq!(why(0x20, &[whole]), "nothing");
    assert_eq!(why(0x100, &[whole]), bad("its entry is in no segment"));
    assert_eq!(why(0, &[whole, Load(0, 0, 0x1000, 4, 4)]), bad("its entry is in several segments"));
    assert_eq!(why(0, &[whole, Load(0, 0x5000, 0x80, 4, 4)]), bad("two segments overlap"));
    assert_eq!(why(0, &[Load(0, 0, 0, 5, 4)]), bad("a segment is longer in the file than in memory"));
    assert_eq!(why(0, &[Load(0, 0, 0, 0, 0)]), bad("no segments to load"));
    let many: Vec<_> = (0..17).map(|n| Load(0, n * 16, n * 16, 8, 8)).collect();
    assert_eq!((why(0, &many[..16]), why(0, &many)), ("nothing".into(), bad("more than 16 segments")));
    assert_eq!(why(0, &[Load(0x380, 0, 0, 0x81, 0x81)]), "1025 bytes, TOO LONG for its window of 1 KiB");
    assert_eq!(why(0, &[Load(0, 0, 0, 8, u32::MAX)]), "it reaches guest 0x40000, which is not the partition's memory");
    for (at, byte, text) in [
        (4, 2, "not 32-bit"),
        (5, 1, "not big-endian"),
        (17, 3, "not at a fixed address"),
        (43, 31, "no program headers"),
        (45, 0, "no program headers"),
        (30, 0x10, "its program headers are not at its beginning"),
        (28, 0xff, "its program headers are not at its beginning"),
    ] {
        let mut file = program();
        file[at] = byte;
        assert_eq!(load_it(&file).why(), bad(text), "byte {at}");
    }
    let file = program();
    let cut = digest(&file[..file.len() - 1]);
    assert_eq!(load_row(&file, ImageRow { digest: Some(cut), ..row(0x4000, 0) }).why(), bad("it is cut short"));
}

#[test]
fn damage_is_named_by_its_cause() {
    let image = kernel(&noise(50_000));
    let with = |at: usize| {
        let mut damaged = image.clone();
        damaged[at] ^= 0x10;
        let whole = load_row(&damaged, row(damaged.len() as u64, 0));
        let digested = load_row(&damaged, ImageRow { digest: Some(digest(&image)), ..row(damaged.len() as u64, 0) });
        assert_eq!(whole.why(), digested.why());
        digested
    };
    assert!(with(20).why().starts_with("CRC ERROR (header) stored 0x"), "{}", with(20).why());
    // The stream breaks here, but that is not the cause.
    let outcome = with(5000);
    assert_eq!(outcome.why(), "the payload does not match its CRC");
    let text = format!("{}", outcome.image.unwrap());
    assert!(text.contains("CRC ERROR (payload) stored 0x") && text.ends_with(", digest WRONG"), "{text}");

    // Another image, whole.
    let other = kernel(&noise(49_999));
    let expected = Digest { size: other.len() as u64, ..digest(&image) };
    let outcome = load_row(&other, ImageRow { digest: Some(expected), ..row(60_000, 0) });
    let (expected, found) = (expected.sha256, digest(&other).sha256);
    assert_eq!(outcome.why(), format!("SHA-256 does not match: expected {expected}, found {found}"));
    assert!(format!("{}", outcome.image.unwrap()).contains("CRC ok"));
    let longer = Digest { size: other.len() as u64 + 1, sha256: found };
    let outcome = load_row(&other, ImageRow { digest: Some(longer), ..row(60_000, 0) });
    assert_eq!(outcome.why(), format!("size does not match: expected {} bytes, found {}", longer.size, other.len()));

    let window = image.len() as u64 - 1;
    assert!(load_row(&image, row(window, 0)).why().contains("TOO LONG for its window of "));
    let outcome = load_row(&image, ImageRow { digest: Some(digest(&image)), ..row(window, 0) });
    assert!(outcome.why().contains("TOO LONG for its window of "));
}

#[test]
fn a_gzip_payload_is_one_member_and_nothing_else() {
    let unpacked = noise(5000);
    let member = gzip(&unpacked);
    let why = |payload: &[u8]| load_it(&uimage(Kind::Kernel, Compression::Gzip, payload)).why();
    let bad = |why: &str| format!("bad gzip payload: {why}");
    assert_eq!(why(&member), "nothing");
    assert_eq!(why(&[&member[..], &[0]].concat()), bad("bytes follow its end"));
    assert_eq!(why(&[&member[..], &member].concat()), bad("bytes follow its end"));
    for len in [0, 1, 9, 10, 100, member.len() - 1] {
        assert_eq!(why(&member[..len]), bad("it is cut short"), "{len}");
    }
    let changed = |at: usize, byte: u8| {
        let mut member = member.clone();
        member[at] = byte;
        why(&member)
    };
    assert_eq!(changed(0, 0), bad("no gzip header"));
    assert_eq!(changed(2, 7), bad("not deflated"));
    assert_eq!(changed(3, 0x20), bad("unknown flags"));
    assert_eq!(changed(10, 7), bad("it cannot be unpacked"));
    let (crc, len) = (member.len() - 8, member.len() - 4);
    assert_eq!(changed(crc, !member[crc]), bad("what it unpacks to does not match its CRC"));
    assert_eq!(changed(len + 3, 1), bad("what it unpacks to does not match its length"));
}

/// Zeros in the dictionary, or what an earlier image left there, are nothing that a member may refer to.
#[test]
fn a_distance_that_reaches_before_the_start_is_refused() {
    // Fixed codes (RFC 1951 §3.2.6): three bytes from a distance of one, at the very start; the end.
    let deflated = [0x03, 0x02, 0x00];
    let mut zeros = uimage::Crc::default();
    zeros.update(&[0; 3]);
    let member = [&gzip(&[])[..10], &deflated, &zeros.finish().to_le_bytes(), &3u32.to_le_bytes()].concat();
    let outcome = load_it(&uimage(Kind::Kernel, Compression::Gzip, &member));
    assert_eq!(outcome.why(), "bad gzip payload: it cannot be unpacked");
}

#[test]
fn what_it_unpacks_to_is_bounded() {
    let bomb = kernel(&vec![0; LEN]);
    assert!(bomb.len() < 1000);
    assert_eq!(load_it(&bomb).why(), "it reaches guest 0x40000, which is not the partition's memory");
    assert_eq!(load_row(&bomb, row(0x1000, 0)).why().as_str(), "its bytes from 0xf_e8020f00 on cannot be read");
    let mut padded = bomb.clone();
    padded.resize(0x1000, 0);
    assert_eq!(load_row(&padded, row(0x1000, 0)).why(), "nothing");
    let outcome = load_into(&padded, row(0x1000, 0x100), 0x2_0000, false, &mut Scratch::new());
    assert_eq!(outcome.why(), "it does not end within guest 0x100..0x20000, where something else begins");
    let high = load_into(&padded, row(0x1000, u64::MAX - 0x100), u64::MAX, false, &mut Scratch::new());
    assert!(high.why().starts_with("it does not end within"), "{}", high.why());
}

#[test]
fn the_room_ends_where_something_is() {
    let span = |base, len| Span::new(GuestPhys(base), len).unwrap();
    let taken = [span(0x8000, 0x1000), span(0x4000, 0x1000), span(0x2000, 0)];
    assert_eq!(room(GuestPhys(0), &taken), span(0, 0x4000));
    assert_eq!(room(GuestPhys(0x5000), &taken), span(0x5000, 0x3000));
    assert!(room(GuestPhys(0x4fff), &taken).is_empty());
    assert_eq!(room(GuestPhys(0x9000), &taken).end(), GuestPhys(u64::MAX));
}

#[test]
fn nobody_gains_by_changing_the_source_meanwhile() {
    let unpacked = noise(70_000);
    for image in [kernel(&unpacked), program(), unpacked.clone()] {
        let row = ImageRow { digest: Some(digest(&image)), ..row(image.len() as u64, 0) };
        let still = load_row(&image, row);
        let changing = load_into(&image, row, u64::MAX, true, &mut Scratch::new());
        assert_eq!(changing.why(), "nothing");
        assert!(changing.written() == still.written() && changing.machine.source != image);
    }
}

/// Deflated bytes, bit by bit.
#[derive(Default)]
struct Bits(Vec<u8>, u32);

impl Bits {
    fn push(&mut self, bits: impl IntoIterator<Item = bool>) {
        for bit in bits {
            if self.1.is_multiple_of(8) {
                self.0.push(0);
            }
            *self.0.last_mut().unwrap() |= u8::from(bit) << (self.1 % 8);
            self.1 += 1;
        }
    }

    /// A number, lowest bit first.
    fn number(&mut self, value: u32, len: u32) {
        self.push((0..len).map(|bit| value >> bit & 1 == 1));
    }

    /// A Huffman code, highest bit first.
    fn code(&mut self, value: u32, len: u32) {
        self.push((0..len).rev().map(|bit| value >> bit & 1 == 1));
    }
}

#[test]
fn an_image_cannot_fetch_what_another_left() {
    let mut scratch = Scratch::new();
    let secret = kernel(&[b'S'; 40_000]);
    assert_eq!(load_into(&secret, row(secret.len() as u64, 0), u64::MAX, false, &mut scratch).why(), "nothing");
    // A last block with fixed codes: ten bytes from a hundred bytes before the beginning.
    let mut bits = Bits::default();
    bits.number(1, 1);
    bits.number(1, 2);
    bits.code(264 - 256, 7);
    bits.code(13, 5);
    bits.number(100 - 97, 5);
    bits.code(0, 7);
    let crc = |bytes: &[u8]| {
        let mut crc = uimage::Crc::default();
        crc.update(bytes);
        crc.finish().to_le_bytes()
    };
    let head = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    for (guess, leaks) in [(b"SSSSSSSSSS", true), (&[0; 10], false)] {
        let payload = [&head[..], &bits.0, &crc(guess), &10u32.to_le_bytes()].concat();
        let image = uimage(Kind::Kernel, Compression::Gzip, &payload);
        let outcome = load_into(&image, row(image.len() as u64, 0), u64::MAX, false, &mut scratch);
        assert!(!outcome.machine.guest.contains(&b'S'), "{}", outcome.why());
        assert!(!leaks || outcome.result.is_err());
    }
}

/// Unpacks `member` in pieces of these lengths, in turn.
fn gunzip(member: &[u8], lens: &[usize]) -> Result<Vec<u8>, Why> {
    let mut space = inflate::Space::new();
    let mut gunzip = Gunzip::new(&mut space);
    let (mut out, mut rest, mut lens) = (Vec::new(), member, lens.iter().cycle());
    while !rest.is_empty() {
        let (piece, later) = rest.split_at(rest.len().min(*lens.next().unwrap()));
        gunzip.take(piece, &mut |bytes| {
            out.extend_from_slice(bytes);
            Ok(())
        })?;
        rest = later;
    }
    gunzip.finish()?;
    Ok(out)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_member_unpacks_from_any_pieces(
        (unpacked, level) in (proptest::collection::vec(0u8..5, 0..3000), 0u32..10),
        times in 1usize..40,
        lens in proptest::collection::vec(1usize..300, 1..6),
        extra in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..300)),
        name in proptest::option::of("[a-z]{0,20}"),
        comment in proptest::option::of("[a-z]{0,20}"),
        checked: bool,
    ) {
        let unpacked = unpacked.repeat(times);
        let mut builder = GzBuilder::new();
        if let Some(extra) = extra { builder = builder.extra(extra); }
        if let Some(name) = name { builder = builder.filename(name); }
        if let Some(comment) = comment { builder = builder.comment(comment); }
        let mut writer = builder.write(Vec::new(), Level::new(level));
        writer.write_all(&unpacked).unwrap();
        let mut member = writer.finish().unwrap();
        let head = header_len(&member);
        if checked {
            member[3] |= 2;
            let mut crc = uimage::Crc::default();
            crc.update(&member[..head]);
            let crc = crc.finish().to_le_bytes();
            member.splice(head..head, [crc[0], crc[1]]);
        }
        prop_assert!(gunzip(&member, &lens) == Ok(unpacked.clone()));
        prop_assert!(gunzip(&member, &[1]) == Ok(unpacked));
        prop_assert!(gunzip(&member[..member.len() - 1], &lens).is_err());
        if checked {
            member[head] ^= 1;
            prop_assert_eq!(gunzip(&member, &lens), Err(Why::Gzip("its header does not match its CRC")));
        }
    }

    /// With a digest nothing but the image itself is loaded; without one nothing breaks.
    #[test]
    fn no_damage_panics_or_passes_the_digest(
        which in 0usize..4,
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        at_head: bool,
        cut in proptest::option::of(any::<prop::sample::Index>()),
        window in 0u64..20_000,
        end in 0u64..0x5_0000,
    ) {
        let good = match which {
            0 => kernel(&noise(20_000)),
            1 => program(),
            2 => uimage(Kind::Ramdisk, Compression::Gzip, &noise(9000)),
            _ => noise(5000),
        };
        let mut bytes = good.clone();
        for (index, byte) in damage {
            let len = if at_head { bytes.len().min(120) } else { bytes.len() };
            bytes[index.index(len)] ^= byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(good.len() + 1));
        }
        let whole = row(good.len() as u64, 0x800);
        let outcome = load_row(&bytes, ImageRow { digest: Some(digest(&good)), ..whole });
        prop_assert_eq!(outcome.result.is_ok(), bytes == good, "{}", outcome.why());
        load_into(&bytes, row(window, 0x800), end, true, &mut Scratch::new());
        load_row(&bytes, row(u64::from(u32::MAX), u64::MAX - window));
    }

    /// Damage below the CRCs, which only the unpacking itself can find.
    #[test]
    fn no_deflated_bytes_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        real: bool,
    ) {
        let mut member = if real { gzip(&noise(3000)) } else { [&gzip(&[])[..10], &bytes].concat() };
        for (index, byte) in damage {
            let len = member.len();
            member[index.index(len)] ^= byte;
        }
        load_it(&uimage(Kind::Kernel, Compression::Gzip, &member));
    }

    #[test]
    fn no_elf_headers_panic(words in proptest::collection::vec(prop_oneof![0u32..0x3000, any::<u32>()], 24..80)) {
        let mut file = elf(words[0], &[], 0);
        file[45] = (words.len() / 8) as u8;
        words.iter().for_each(|word| file.extend(word.to_be_bytes()));
        for header in file[52..].chunks_exact_mut(32).step_by(2) {
            header[..4].copy_from_slice(&[0, 0, 0, 1]);
        }
        file.extend(noise(0x3000));
        load_it(&file);
    }
}

/// Length of a member's header.
fn header_len(member: &[u8]) -> usize {
    let mut at = 10;
    if member[3] & 4 != 0 {
        at += 2 + usize::from(u16::from_le_bytes([member[10], member[11]]));
    }
    for flag in [8, 16] {
        if member[3] & flag != 0 {
            at += member[at..].iter().position(|byte| *byte == 0).unwrap() + 1;
        }
    }
    at
}
