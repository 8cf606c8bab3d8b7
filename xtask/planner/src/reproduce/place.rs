//! The first place at which two files differ, by the field of the file's format: [`place`].

use std::io::{BufReader, Read};

use citrine_formats::manifest::Role;
use citrine_formats::uimage::{Compression, HEADER_LEN, Header};
use flate2::bufread::GzDecoder;
use serde::Serialize;

use crate::dts::{differences, from_blob};
use crate::image::MAX_UNPACKED;

/// The fields of U-Boot's header (`include/image.h`, `struct legacy_img_hdr`): offset, length in bytes, name.
const HEADER: [(usize, usize, &str); 12] = [
    (0, 4, "ih_magic"),
    (4, 4, "ih_hcrc"),
    (8, 4, "ih_time"),
    (12, 4, "ih_size"),
    (16, 4, "ih_load"),
    (20, 4, "ih_ep"),
    (24, 4, "ih_dcrc"),
    (28, 1, "ih_os"),
    (29, 1, "ih_arch"),
    (30, 1, "ih_type"),
    (31, 1, "ih_comp"),
    (32, 32, "ih_name"),
];
/// Fields that follow from others, and would hide what the cause is.
const DERIVED: [&str; 3] = ["ih_hcrc", "ih_size", "ih_dcrc"];
/// Bytes that are shown of a value.
const SHOWN: usize = 32;

/// Where two files differ.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Place {
    /// Offset in the file, in bytes.
    pub offset: u64,
    /// What lies there.
    pub field: String,
    /// What it was.
    pub was: String,
    /// What it is now.
    pub now: String,
}

/// The first place at which `was` and `now`, both files of this role, differ; `None` if they do not.
pub fn place(role: Role, was: &[u8], now: &[u8]) -> Option<Place> {
    let at = first(was, now)?;
    Some(
        match role {
            Role::Kernel | Role::Rootfs | Role::Hypervisor | Role::Script => image(was, now),
            Role::HardwareTree | Role::Configuration => tree(was, now),
            Role::Profile | Role::Checksums => line(was, now),
            Role::Signature => None,
        }
        .unwrap_or_else(|| bytes(at, "byte", was, now)),
    )
}

/// Offset of the first byte that differs, or at which the shorter one ends.
fn first(was: &[u8], now: &[u8]) -> Option<usize> {
    let same = was.iter().zip(now).take_while(|(a, b)| a == b).count();
    (same < was.len() || same < now.len()).then_some(same)
}

/// A place without a format.
fn bytes(at: usize, field: &str, was: &[u8], now: &[u8]) -> Place {
    let hex = |bytes: &[u8]| match bytes.get(at..).filter(|rest| !rest.is_empty()) {
        Some(rest) => rest.iter().take(8).map(|byte| format!("{byte:02x}")).collect(),
        None => format!("ends after {} bytes", bytes.len()),
    };
    Place { offset: at as u64, field: field.to_owned(), was: hex(was), now: hex(now) }
}

/// A place in a file with U-Boot's header.
fn image(was: &[u8], now: &[u8]) -> Option<Place> {
    let (old, new) = (Header::parse(was).ok()?, Header::parse(now).ok()?);
    let differ =
        |&(offset, len, _): &(usize, usize, &str)| was.get(offset..offset + len) != now.get(offset..offset + len);
    let field = HEADER.iter().filter(|field| !DERIVED.contains(&field.2)).find(|field| differ(field));
    if let Some(&(offset, len, name)) = field {
        let shown = |bytes: &[u8]| {
            let value = bytes.get(offset..offset + len).unwrap_or_default();
            if name == "ih_name" { text(value) } else { value.iter().map(|byte| format!("{byte:02x}")).collect() }
        };
        return Some(Place { offset: offset as u64, field: name.to_owned(), was: shown(was), now: shown(now) });
    }
    let (a, b) = (was.get(HEADER_LEN..)?, now.get(HEADER_LEN..)?);
    let at = first(a, b)?;
    let offset = (HEADER_LEN + at) as u64;
    if old.kind == citrine_formats::uimage::Kind::Script {
        // Two words, the text's length and the end of the list, come before it.
        return line(a.get(8..)?, b.get(8..)?)
            .map(|place| Place { offset: place.offset + HEADER_LEN as u64 + 8, ..place });
    }
    if old.compression == Compression::Gzip && new.compression == Compression::Gzip {
        let field = match unpacked(a, b) {
            Some(at) => format!("payload, byte {at} of what it unpacks to"),
            None => "payload's compression; what it unpacks to is the same".to_owned(),
        };
        return Some(Place { field, ..bytes(HEADER_LEN + at, "", was, now) });
    }
    Some(Place { offset, ..bytes(HEADER_LEN + at, &format!("payload, byte {at}"), was, now) })
}

/// The first byte at which two gzip streams unpack to different things; `None` if they do not, or are damaged alike.
fn unpacked(was: &[u8], now: &[u8]) -> Option<u64> {
    let open = |bytes| BufReader::with_capacity(1 << 16, GzDecoder::new(bytes).take(MAX_UNPACKED));
    let (mut was, mut now) = (open(was).bytes(), open(now).bytes());
    let mut at = 0;
    loop {
        match (was.next().and_then(Result::ok), now.next().and_then(Result::ok)) {
            (None, None) => return None,
            (a, b) if a != b => return Some(at),
            _ => at += 1,
        }
    }
}

/// A place in a device tree: node and property.
fn tree(was: &[u8], now: &[u8]) -> Option<Place> {
    let (old, new) = (from_blob(was).ok()?, from_blob(now).ok()?);
    let said = differences(("the bundle's", &old), ("the new one", &new), 1);
    let field = said.into_iter().next().unwrap_or_else(|| "order of nodes; they mean the same".to_owned());
    Some(Place { field, ..bytes(first(was, now)?, "", was, now) })
}

/// A place in a text: its line.
fn line(was: &[u8], now: &[u8]) -> Option<Place> {
    let at = first(was, now)?;
    let before = was.get(..at)?;
    let number = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let shown = |bytes: &[u8]| {
        let rest = bytes.get(start..).unwrap_or_default();
        let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
        String::from_utf8_lossy(line).escape_debug().to_string()
    };
    Some(Place { offset: at as u64, field: format!("line {number}"), was: shown(was), now: shown(now) })
}

/// Bytes up to the first zero, as text that any terminal may show.
fn text(value: &[u8]) -> String {
    let value = value.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(value).escape_debug().take(SHOWN * 4).collect()
}
