//! Any gzip stream as a kernel, unpacked by the tool (flate2 with zlib-rs) and by the hypervisor (miniz_oxide).
//!
//! Both take it, or neither does; what does not fit into a guest the hypervisor refuses at that byte.

use std::io::{Read as _, Write as _};

use citrine_core::config::ImageRow;
use citrine_core::loader::{Scratch, load};
use citrine_core::memory::{GuestMap, GuestMemory, Physical};
use citrine_formats::addr::{Address as _, GuestPhys, Span, TruePhys};
use citrine_formats::manifest::Role;
use citrine_formats::uimage::{Compression, Header, Kind};
use citrine_planner::image::inspect;

use crate::input::Input;

/// Where the guest's memory is, and its length.
const BASE: u64 = 0x1000_0000;
const LEN: u64 = 0x4_0000;

struct Machine {
    source: Vec<u8>,
    guest: Vec<u8>,
}

impl Physical for Machine {
    fn read(&mut self, at: TruePhys, into: &mut [u8]) -> bool {
        let from = at.get() as usize;
        let Some(bytes) = self.source.get(from..from + into.len()) else { return false };
        into.copy_from_slice(bytes);
        true
    }

    fn write(&mut self, at: TruePhys, from: &[u8]) -> bool {
        let at = (at.get() - BASE) as usize;
        self.guest[at..at + from.len()].copy_from_slice(from);
        true
    }
}

/// Runs the target: 1 for a stream that both refuse, 2 for one that both take.
pub(crate) fn run(data: &[u8]) -> usize {
    let mut input = Input::new(data);
    let Some(form) = input.byte() else { return 0 };
    let member = match form % 3 {
        0 => input.rest().to_vec(),
        // A fuzzer does not find CRCs.
        1 => around(input.rest()),
        _ => changed(&mut input),
    };
    let header = Header::for_payload(Kind::Kernel, Compression::Gzip, "fuzz", 0, &member).expect("it is short");
    let source = [&header.to_bytes()[..], &member].concat();
    let tool = inspect("kernel", Role::Kernel, &source);

    let (window, len) = (source.len() as u64, LEN as usize);
    let mut map = GuestMap::default();
    map.add(Span::new(GuestPhys(0), LEN).expect("it does not wrap around"), TruePhys(BASE));
    let mut machine = Machine { source, guest: vec![0; len] };
    let row = ImageRow { source: TruePhys(0), dest: GuestPhys(0), window, digest: None };
    let mut memory = GuestMemory { map: &map, physical: &mut machine };
    let hypervisor = load(&mut memory, &row, Span::between(GuestPhys(0), GuestPhys(LEN)), &mut Scratch::new()).result;

    match (tool, hypervisor) {
        (Ok(facts), Ok(loaded)) => assert_eq!(facts.unpacked, loaded.dest.len()),
        (Ok(facts), Err(why)) => assert!(facts.unpacked > LEN, "only the hypervisor refuses it: {why}"),
        (Err(why), Ok(_)) => panic!("only the tool refuses it: {why:?}"),
        (Err(_), Err(_)) => return 1,
    }
    2
}

/// A member around a deflated stream, with the trailer of what it unpacks to.
fn around(deflated: &[u8]) -> Vec<u8> {
    let (mut unpacked, mut sum) = (Vec::new(), flate2::Crc::new());
    let _ = flate2::read::DeflateDecoder::new(deflated).take(4 * LEN).read_to_end(&mut unpacked);
    sum.update(&unpacked);
    let head = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    [&head[..], deflated, &sum.sum().to_le_bytes(), &sum.amount().to_le_bytes()].concat()
}

/// A good member in which one byte is another, with a header that has everything a header may have.
fn changed(input: &mut Input<'_>) -> Vec<u8> {
    let (flags, at, by) = (input.byte().unwrap_or(0), input.byte().unwrap_or(0), input.byte().unwrap_or(0));
    let mut builder = flate2::GzBuilder::new();
    if flags & 1 != 0 {
        builder = builder.filename("vmlinux");
    }
    if flags & 2 != 0 {
        builder = builder.extra([1, 2, 3]);
    }
    if flags & 4 != 0 {
        builder = builder.comment("none");
    }
    let mut encoder = builder.write(Vec::new(), flate2::Compression::fast());
    encoder.write_all(input.bytes(4096)).expect("memory can be written");
    let mut member = encoder.finish().expect("memory can be written");
    let len = member.len();
    member[usize::from(at) % len] ^= by;
    member
}
