//! The manifest: one spelling, and the rules of its values.

extern crate std;
use super::*;
use alloc::vec;
use proptest::prelude::*;

fn part(name: &str, size: u64) -> Part {
    Part {
        entry: None,
        key: None,
        name: name.to_owned(),
        role: Role::Kernel,
        sha256: Some(Sha256([0xab; 32])),
        size,
        slots: vec![
            Slot { load: TruePhys(0xe802_0000), media: Media::Nor, window: 0x6e_0000 },
            Slot { load: TruePhys(0x7802_0000), media: Media::Ram, window: 0x6e_0000 },
        ],
        uncompressed: Some(9),
    }
}

/// A configuration and its signature.
fn signed() -> Vec<Part> {
    let tree = Part { role: Role::Configuration, ..part("hv.dtb", 9) };
    let sig = Part {
        key: Some(signature::Key([3; 32])),
        role: Role::Signature,
        sha256: None,
        uncompressed: None,
        ..part("hv.dtb.sig", 184)
    };
    vec![tree, sig]
}

fn input(name: &str) -> Input {
    Input {
        kind: InputKind::Source,
        name: name.to_owned(),
        origin: "https://example.org/".to_owned(),
        sha256: Some(Sha256([1; 32])),
        size: Some(7),
        version: String::new(),
    }
}

fn manifest() -> Manifest {
    Manifest {
        board: "p4080ds".to_owned(),
        core: "e500mc".to_owned(),
        epoch: 0,
        format: FORMAT,
        inputs: vec![input("busybox"), input("linux")],
        parts: vec![part("uImage", 5), part("SHA256SUMS", 6)],
        plan_sha256: Sha256([2; 32]),
        profile: "two-linux".to_owned(),
        soc: "p4080".to_owned(),
        source_date_epoch: 1_700_000_000,
    }
}

fn text() -> String {
    String::from_utf8(manifest().to_canonical().unwrap()).unwrap()
}

#[test]
fn what_is_written_is_read() {
    assert_eq!(Manifest::parse(text().as_bytes()).unwrap(), manifest());
    assert!(text().starts_with("{\n  \"board\": \"p4080ds\",\n") && text().ends_with("\n}\n"), "{}", text());
}

#[test]
fn members_are_in_byte_order() {
    let mut open: Vec<Option<String>> = Vec::new();
    for line in text().lines() {
        let line = line.trim_start();
        if let Some((key, _)) = line.strip_prefix('"').and_then(|rest| rest.split_once("\": ")) {
            let last = open.last_mut().unwrap();
            assert!(last.as_deref() < Some(key), "{key} after {last:?}");
            *last = Some(key.to_owned());
        }
        if line.ends_with(['{', '[']) {
            open.push(None);
        } else if line.starts_with(['}', ']']) {
            open.pop();
        }
    }
}

#[test]
fn another_spelling_is_refused() {
    for (from, to) in [
        ("\n}\n", "\n}"),
        ("\n}\n", "\n}\n\n"),
        ("  \"board\"", "\t\"board\""),
        ("\"epoch\": 0", "\"epoch\":0"),
        ("\"epoch\": 0", "\"epoch\": -0"),
        ("\"epoch\": 0", "\"epoch\": 0.0"),
        ("\"epoch\": 0", "\"epoch\": 0e0"),
        ("\"epoch\": 0", "\"epoch\": NaN"),
        ("\"epoch\": 0", "\"epoch\": -1"),
        ("\"epoch\": 0", "\"epoch\": 4294967296"),
        ("\"epoch\": 0", "\"epoch\": \"0\""),
        ("\"epoch\": 0", "\"epoch\": 0,\n  \"epoch\": 0"),
        ("\"epoch\": 0", "\"dev\": 1,\n  \"epoch\": 0"),
        ("p4080ds", "p4080\\u0064s"),
        ("\"size\": 7,", "\"size\": null,"),
        ("abab", "ABAB"),
    ] {
        let changed = text().replacen(from, to, 1);
        assert_ne!(changed, text(), "{from} is not there");
        assert!(Manifest::parse(changed.as_bytes()).is_err(), "{from} -> {to}");
    }
    let reordered =
        text().replacen("  \"core\": \"e500mc\",\n  \"epoch\": 0,\n", "  \"epoch\": 0,\n  \"core\": \"e500mc\",\n", 1);
    assert!(matches!(Manifest::parse(reordered.as_bytes()), Err(Error::NotCanonical { .. })));
}

#[test]
fn a_later_format_is_named() {
    let later = text().replacen("\"format\": 2", "\"format\": 3,\n  \"more\": 1", 1);
    assert_eq!(Manifest::parse(later.as_bytes()), Err(Error::Format { found: 3 }));
    let earlier = text().replacen("\"format\": 2", "\"format\": 1", 1);
    assert_eq!(Manifest::parse(earlier.as_bytes()), Err(Error::Format { found: 1 }));
}

#[test]
fn values_follow_the_rules() {
    let broken = |change: fn(&mut Manifest)| {
        let mut manifest = manifest();
        change(&mut manifest);
        match manifest.to_canonical() {
            Err(Error::Value { member, .. }) => member,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(broken(|m| m.board = "P4080DS".to_owned()), "board");
    assert_eq!(broken(|m| m.soc = String::new()), "soc");
    assert_eq!(broken(|m| m.parts.clear()), "parts");
    assert_eq!(broken(|m| m.parts = vec![part("a", 1); 257]), "parts");
    assert_eq!(broken(|m| m.parts[1].name = "UIMAGE".to_owned()), "parts[1].name");
    assert_eq!(broken(|m| m.parts[0].size = 1 << 32), "parts[0].size");
    assert_eq!(broken(|m| m.parts[0].size = 0x6e_0001), "parts[0].slots[0].window");
    assert_eq!(broken(|m| m.parts[0].slots.reverse()), "parts[0].slots");
    assert_eq!(broken(|m| m.parts[0].slots[1].load = TruePhys(u64::MAX)), "parts[0].slots[1].load");
    assert_eq!(broken(|m| m.parts[0].entry = Some(1 << 53)), "parts[0].entry");
    assert_eq!(broken(|m| m.parts[1].sha256 = None), "parts[1].sha256");
    assert_eq!(broken(|m| m.parts[1].key = Some(signature::Key([0; 32]))), "parts[1].key");
    assert_eq!(broken(|m| m.inputs.reverse()), "inputs");
    assert_eq!(broken(|m| m.inputs[1] = m.inputs[0].clone()), "inputs");
    assert_eq!(broken(|m| m.inputs[0].origin = "\x1b[2J".to_owned()), "inputs[0].origin");
}

#[test]
fn a_signature_is_of_a_configuration_before_it() {
    let with = |change: fn(&mut Vec<Part>)| {
        let mut parts = signed();
        change(&mut parts);
        match (Manifest { parts, ..manifest() }).to_canonical() {
            Ok(bytes) => String::from_utf8(bytes).unwrap(),
            Err(Error::Value { member, .. }) => member,
            Err(other) => panic!("{other:?}"),
        }
    };
    let good = with(|_| ());
    assert!(good.contains(&std::format!("\"key\": \"{}\"", "03".repeat(32))) && !good.contains("null"), "{good}");
    assert_eq!(Manifest::parse(good.as_bytes()).unwrap().parts, signed());
    assert_eq!(signed().iter().map(Part::signs).collect::<Vec<_>>(), [None, Some("hv.dtb")]);
    assert_eq!(with(|p| p[1].sha256 = Some(Sha256([0; 32]))), "parts[1].sha256");
    assert_eq!(with(|p| p[1].key = None), "parts[1].key");
    assert_eq!(with(|p| p[1].size = 183), "parts[1].size");
    assert_eq!(with(|p| p[1].entry = Some(0)), "parts[1].entry");
    assert_eq!(with(|p| p[1].uncompressed = Some(0)), "parts[1].uncompressed");
    assert_eq!(with(|p| p[1].name = "other.sig".to_owned()), "parts[1].name");
    assert_eq!(with(|p| p[1].name = "hv.dtb".to_owned() + "sig"), "parts[1].name");
    assert_eq!(with(|p| p[0].role = Role::Script), "parts[1].name");
    assert_eq!(with(|p| p.reverse()), "parts[0].name");
}

#[test]
fn part_names() {
    for good in ["a", "hv.uImage", "SHA256SUMS", "hv-p4080ds.dts", &"x".repeat(64)] {
        assert!(is_part_name(good), "{good}");
    }
    for bad in ["", ".", "..", ".x", "-rf", "a/b", "a b", "a;b", "$x", "ä", "manifest.json", "Manifest.json.3.sig"] {
        assert!(!is_part_name(bad), "{bad}");
    }
    assert!(!is_part_name(&"x".repeat(65)));
}

proptest! {
    #[test]
    fn no_change_of_a_byte_is_read_as_the_same(at in 0usize..1000, value in any::<u8>()) {
        let mut bytes = text().into_bytes();
        let at = at % bytes.len();
        prop_assume!(bytes[at] != value);
        bytes[at] = value;
        if let Ok(other) = Manifest::parse(&bytes) {
            prop_assert_ne!(other, manifest());
        }
    }

    #[test]
    fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Manifest::parse(&bytes);
    }
}
