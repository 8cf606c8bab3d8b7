//! Bundles that differ in one place, and the place that is named.

use std::borrow::Cow;

use citrine_formats::manifest::{InputKind, Media, Role, Slot};
use citrine_formats::uimage::{Compression, Kind};
use proptest::prelude::*;

use super::*;
use crate::pack::image::{Fields, script, wrap};
use crate::pack::{Content, PartSource, Subject, assemble};

const FIELDS: Fields<'static> = Fields {
    kind: Kind::Kernel,
    compression: Compression::None,
    name: "Linux-6.12",
    load: 0,
    entry: 0x1000,
    time: 1_700_000_000,
};

fn input(name: &str, version: &str) -> Input {
    let (kind, origin) = (InputKind::Toolchain, "here".to_owned());
    Input { kind, name: name.to_owned(), origin, sha256: None, size: None, version: version.to_owned() }
}

fn source(name: &str, role: Role, content: Content<'static>) -> PartSource<'static> {
    let slot = Slot { load: citrine_formats::addr::TruePhys(0x7800_0000), media: Media::Ram, window: 1 << 20 };
    PartSource { name: name.to_owned(), role, slots: vec![slot], entry: None, uncompressed: None, content }
}

fn bundle(parts: Vec<PartSource<'static>>, rustc: &str, epoch: u32) -> Assembled<'static> {
    let subject = Subject {
        board: "p4080ds".to_owned(),
        core: "e500mc".to_owned(),
        epoch,
        inputs: vec![input("rustc", rustc), input("dtc", "1.6.1")],
        plan_sha256: Sha256([0; 32]),
        profile: "hello".to_owned(),
        soc: "p4080".to_owned(),
        source_date_epoch: 1_700_000_000,
    };
    assemble(subject, parts).unwrap()
}

fn kernel(fields: Fields<'_>, payload: &[u8]) -> Vec<u8> {
    wrap(fields, Cow::Borrowed(payload)).unwrap().pieces().concat()
}

fn compared(was: &Assembled<'_>, now: &Assembled<'_>) -> Comparison {
    let bytes = was.manifest.parts.iter().zip(&was.contents);
    let bytes = bytes.map(|(part, content)| (part.name.clone(), content.pieces().concat())).collect();
    compare((&was.manifest, was.identity), &bytes, now)
}

#[test]
fn the_same_is_identical() {
    let make = || bundle(vec![source("uImage", Role::Kernel, Content::plain(kernel(FIELDS, b"code")))], "1.95.0", 0);
    let found = compared(&make(), &make());
    assert!(found.is_identical() && found.inputs.is_empty() && found.members.is_empty());
    assert!(found.parts.iter().all(|part| part.verdict == Verdict::Identical), "{found:?}");
}

#[test]
fn what_differs_is_named_with_its_reason() {
    let was = bundle(
        vec![
            source("uImage", Role::Kernel, Content::plain(kernel(FIELDS, b"code"))),
            source("gone", Role::Kernel, Content::plain(&b"x"[..])),
        ],
        "1.95.0",
        0,
    );
    let new_time = Fields { time: 1, ..FIELDS };
    let now = bundle(
        vec![
            source("uImage", Role::Kernel, Content::plain(kernel(new_time, b"code"))),
            source("new", Role::Kernel, Content::plain(&b"y"[..])),
        ],
        "1.96.0",
        1,
    );
    let found = compared(&was, &now);
    assert!(!found.is_identical());
    let verdicts: Vec<(&str, &Verdict)> = found.parts.iter().map(|part| (part.part.as_str(), &part.verdict)).collect();
    let time = Place { offset: 8, field: "ih_time".into(), was: "6553f100".into(), now: "00000001".into() };
    assert_eq!(verdicts[0], ("uImage", &Verdict::Differs(time)));
    assert_eq!(verdicts[1], ("gone", &Verdict::Missing));
    assert_eq!((verdicts[2].0, verdicts[3]), ("SHA256SUMS", ("new", &Verdict::New)));
    let change = |what: &str, was: Option<&str>, now: Option<&str>| Change {
        what: what.to_owned(),
        was: was.map(str::to_owned),
        now: now.map(str::to_owned),
    };
    assert_eq!(found.inputs, [change("toolchain rustc", Some("1.95.0"), Some("1.96.0"))]);
    let slot = Some("0x78000000 (1048576 bytes)");
    assert_eq!(
        found.members,
        [
            change("epoch", Some("0"), Some("1")),
            change("slot ram of gone", slot, None),
            change("slot ram of new", None, slot)
        ]
    );
}

#[test]
fn an_image_differs_in_a_field_its_payload_or_its_compression() {
    let field = |role, was: &[u8], now: &[u8]| {
        let place = place(role, was, now).unwrap();
        (place.field, place.offset)
    };
    let plain = kernel(FIELDS, b"code");
    for (other, name, at) in [
        (Fields { load: 1, ..FIELDS }, "ih_load", 16),
        (Fields { entry: 1, ..FIELDS }, "ih_ep", 20),
        (Fields { name: "Linux-7", ..FIELDS }, "ih_name", 32),
        (Fields { compression: Compression::Gzip, ..FIELDS }, "ih_comp", 31),
    ] {
        // Whatever the payload: a field that was chosen says more than a sum over it.
        assert_eq!(field(Role::Kernel, &plain, &kernel(other, b"c0de")), (name.to_owned(), at));
    }
    assert_eq!(field(Role::Kernel, &plain, &kernel(FIELDS, b"c0de")), ("payload, byte 1".to_owned(), 65));
    assert_eq!(field(Role::Kernel, &plain, &kernel(FIELDS, b"code!")), ("payload, byte 4".to_owned(), 68));

    let gzip = |bytes: &[u8], level| {
        let mut encoder = flate2::GzBuilder::new().write(Vec::new(), flate2::Compression::new(level));
        std::io::Write::write_all(&mut encoder, bytes).unwrap();
        kernel(Fields { compression: Compression::Gzip, ..FIELDS }, &encoder.finish().unwrap())
    };
    let text: Vec<u8> = (0..5000u32).flat_map(|n| n.to_string().into_bytes()).collect();
    let mut other = text.clone();
    other[4000] ^= 1;
    assert!(field(Role::Kernel, &gzip(&text, 9), &gzip(&other, 9)).0.contains("byte 4000 of what it unpacks to"));
    assert!(field(Role::Kernel, &gzip(&text, 9), &gzip(&text, 1)).0.contains("what it unpacks to is the same"));
}

#[test]
fn a_script_and_a_text_differ_in_a_line() {
    let image = |text: &str| script("p4080ds", 1, text).unwrap().pieces().concat();
    let found = place(Role::Script, &image("echo a\nbootm 1\n"), &image("echo a\nbootm 2\n")).unwrap();
    let expected = Place { offset: 64 + 8 + 13, field: "line 2".into(), was: "bootm 1".into(), now: "bootm 2".into() };
    assert_eq!(found, expected);
    let found = place(Role::Checksums, b"a\nb\n", b"a\n\x1b[2J\n").unwrap();
    assert_eq!((found.field.as_str(), found.now.as_str()), ("line 2", "\\u{1b}[2J"));
}

#[test]
fn a_tree_differs_in_a_property() {
    let blob = |text: &str| {
        let (tree, found) = crate::dts::parse("x.dts", text);
        assert!(found.is_empty(), "{found:?}");
        crate::dts::to_blob(&tree).unwrap()
    };
    let (was, now) = (blob("/dts-v1/; / { a { reg = <1>; }; };"), blob("/dts-v1/; / { a { reg = <2>; }; };"));
    let found = place(Role::Configuration, &was, &now).unwrap();
    assert!(found.field.contains("/a") && found.field.contains("reg"), "{found:?}");
    // A file that is no tree any more is compared byte by byte.
    assert_eq!(place(Role::Configuration, &was, b"no tree").unwrap().field, "byte");
}

proptest! {
    /// Hostile bytes: a place exactly where bytes differ, and never a panic.
    #[test]
    fn a_place_is_found_exactly_when_bytes_differ(
        was in proptest::collection::vec(any::<u8>(), 0..200),
        now in proptest::collection::vec(any::<u8>(), 0..200),
        header in any::<bool>(),
    ) {
        let make = |payload: &[u8]| {
            let fields = Fields { compression: Compression::Gzip, ..FIELDS };
            if header { kernel(fields, payload) } else { payload.to_vec() }
        };
        let (was, now) = (make(&was), make(&now));
        for role in [Role::Kernel, Role::Rootfs, Role::Hypervisor, Role::HardwareTree, Role::Configuration, Role::Script, Role::Profile, Role::Checksums] {
            let found = place(role, &was, &now);
            prop_assert_eq!(found.is_some(), was != now);
            if let Some(place) = found {
                let at = usize::try_from(place.offset).unwrap();
                prop_assert!(at <= was.len().max(now.len()));
                prop_assert!(was.get(at) != now.get(at) || at < 64, "{:?}", place);
            }
        }
    }
}
