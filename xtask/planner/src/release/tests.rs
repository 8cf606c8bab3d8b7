//! What a release says of itself is text of its inputs, and nothing but that text is read back.

use citrine_formats::manifest::{Input, InputKind, Manifest, Sha256};
use proptest::prelude::*;
use serde_json::Value;

use super::index::{File, Index};
use super::notes::{Change, Previous};
use super::recipe::{Cell, Recipe};
use super::sbom::Crates;
use super::*;

const RECIPE: &str = include_str!("../../../../artifacts/release.toml");

fn recipe(text: &str) -> Recipe {
    recipe::parse("release.toml", text).unwrap()
}

fn codes(text: &str) -> Vec<String> {
    let found = recipe::parse("release.toml", text).unwrap_err();
    found.iter().map(|d| d.code.to_string()).collect()
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn input(kind: InputKind, name: &str, version: &str) -> Input {
    let sha256 = (kind == InputKind::Source).then_some(Sha256([7; 32]));
    Input { kind, name: name.into(), origin: "debian".into(), sha256, size: None, version: version.into() }
}

fn built(profile: &str, inputs: Vec<Input>) -> Built {
    let manifest = Manifest {
        board: "b".into(),
        core: "e500mc".into(),
        epoch: 3,
        format: 1,
        inputs,
        parts: Vec::new(),
        plan_sha256: Sha256([1; 32]),
        profile: profile.into(),
        soc: "p4080".into(),
        source_date_epoch: 1,
    };
    Built { identity: Sha256([profile.len() as u8; 32]), manifest }
}

fn index() -> Index {
    let file = |name: &str| File { name: name.into(), sha256: Sha256([2; 32]), size: 9 };
    Index {
        bundles: vec![index::Bundle {
            board: "b".into(),
            epoch: 3,
            file: "b-p.tar".into(),
            identity: Sha256([1; 32]),
            profile: "p".into(),
        }],
        files: ["SHA256SUMS", "b-p.tar", "sources/x_1%2b.deb"].map(|name| file(&name.replace("%2b", "+"))).into(),
        format: index::FORMAT,
        version: "1.0-rc1".into(),
    }
}

#[test]
fn the_matrix_is_what_is_not_left_out() {
    let shipped = recipe(RECIPE);
    let (boards, profiles) = (names(&["p4080ds", "qemu-ppce500"]), names(&["hello", "two-linux-sdk"]));
    let cells = shipped.cells(&boards, &profiles).unwrap();
    assert_eq!(cells, [Cell { board: "p4080ds".into(), profile: "hello".into() }]);
    // An exclusion that excludes nothing is a name that was changed elsewhere.
    let found = shipped.cells(&boards, &names(&["hello"])).unwrap_err();
    assert_eq!((found.len(), found[0].code), (1, MATRIX));
    let some = recipe("version = \"1\"\nboards = [\"a\", \"x\"]\nprofiles = [\"b\"]\n");
    let found = some.cells(&names(&["a"]), &names(&["b"])).unwrap_err();
    assert_eq!((found[0].code, found[0].message.as_str()), (MATRIX, "there is no `x` in boards/"));
    assert!(found[0].primary.as_ref().unwrap().range.is_some());
    let twins = recipe("version = \"1\"\n").cells(&names(&["a", "a-b"]), &names(&["b-c", "c"])).unwrap_err();
    assert!(twins[0].message.contains("a-b-c"), "{twins:?}");
    assert!(recipe("version = \"1\"\n").cells(&[], &[]).is_err());
}

#[test]
fn a_wrong_release_file_is_refused() {
    for (text, expected) in [
        ("", "C104"),
        ("version = 1", "C103"),
        ("version = \"../x\"", "C106"),
        ("version = \"1\"\nmedia = \"usb\"", "C106"),
        ("version = \"1\"\nversoin = \"1\"", "C102"),
        ("version = \"1\"\n[[left-out]]\nreason = \"x\"", "C106"),
        ("version = \"1\"\n[[left-out]]\nboard = \"x\"\nreason = \"a\\nb\"", "C106"),
        ("version = \"1\"\n[[left-out]]\nboard = \"x\"", "C104"),
        ("version = \"1\"\n[[component]]\nname = \"x\"\nlicence = \"<b>\"", "C106"),
        ("version = ", "C101"),
    ] {
        assert_eq!(codes(text), [expected], "{text}");
    }
}

#[test]
fn only_the_one_spelling_of_an_index_is_read() {
    let text = index().to_canonical();
    assert_eq!(Index::parse("x", text.as_bytes()).unwrap(), index());
    for (from, to) in [
        ("\"format\": 1", "\"format\": 2"),
        ("\"format\": 1", "\"format\": 1.0"),
        ("\"format\": 1", "\"format\": 1,\n  \"format\": 1"),
        ("\"format\": 1", "\"extra\": 1,\n  \"format\": 1"),
        ("  \"format\"", "   \"format\""),
        ("1.0-rc1", "/etc"),
        ("sources/x_1+.deb", "sources/../x"),
        ("sources/x_1+.deb", "sourcez/x"),
        ("\"SHA256SUMS\"", "\"zz\""),
        ("\"SHA256SUMS\"", "\".hidden\""),
        ("\"file\": \"b-p.tar\"", "\"file\": \"c-p.tar\""),
        ("\"b-p.tar\",\n      \"sha256\"", "\"c.tar\",\n      \"sha256\""),
    ] {
        let wrong = text.replacen(from, to, 1);
        assert_ne!(wrong, text, "{from}");
        assert_eq!(Index::parse("x", wrong.as_bytes()).unwrap_err().code, INDEX, "{to}");
    }
    assert!(Index::parse("x", b"\xff").is_err());
    assert_eq!(index().checksums().lines().count(), 2);
}

#[test]
fn the_statement_is_one_of_in_toto_and_slsa() {
    let inputs = vec![
        input(InputKind::Source, "linux_1.deb", "1"),
        input(InputKind::Package, "gcc+x", "1:2"),
        input(InputKind::Toolchain, "rustc", "1.95.0 (abc)"),
    ];
    let file = File { name: "b-p.tar".into(), sha256: Sha256([2; 32]), size: 9 };
    let text = provenance::statement(&recipe(RECIPE), "urn:x:y", &[&file], &[built("p", inputs)]);
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["_type"], "https://in-toto.io/Statement/v1");
    assert_eq!(value["predicateType"], "https://slsa.dev/provenance/v1");
    let subject = &value["subject"][0];
    assert_eq!((&subject["name"], subject["digest"]["sha256"].as_str().map(str::len)), (&"b-p.tar".into(), Some(64)));
    let definition = &value["predicate"]["buildDefinition"];
    assert!(definition["buildType"].as_str().unwrap().contains(':'));
    assert!(definition["externalParameters"].is_object() && definition["internalParameters"].is_object());
    // ResourceDescriptor: one of uri, digest and content.
    let dependencies = definition["resolvedDependencies"].as_array().unwrap();
    assert_eq!(dependencies.len(), 3);
    assert!(dependencies.iter().all(|each| each["uri"].is_string() || each["digest"]["sha256"].is_string()));
    let uris: Vec<&str> = dependencies.iter().filter_map(|each| each["uri"].as_str()).collect();
    assert_eq!(uris, ["pkg:deb/debian/gcc%2Bx@1%3A2", "pkg:generic/rustc@1.95.0"]);
    assert_eq!(value["predicate"]["runDetails"]["builder"]["id"], "urn:x:y");
    assert!(value["predicate"]["runDetails"]["metadata"].is_null(), "the machine's times are nobody's business");
}

const PRODUCT: &str = "0citrine-firmware v0.1.0 (/home/me/hypervisor/firmware)|MIT OR Apache-2.0\n\
    1thiserror v2.0.1|MIT/Apache-2.0\n\
    2thiserror-impl v2.0.1 (proc-macro)|MIT\n\
    3syn v3.0.0|MIT\n\
    1sha2 v0.10.9|MIT\n";
const TOOL: &str = "0xtask v0.1.0 (/home/me/xtask)|MIT OR Apache-2.0\n1sha2 v0.10.9|MIT\n1clap v4.6.0|MIT (*)\n";

#[test]
fn what_is_in_the_product_is_required_and_nothing_else() {
    let crates = Crates {
        product: PRODUCT.into(),
        tool: TOOL.into(),
        lock: "[[package]]\nname = \"sha2\"\nversion = \"0.10.9\"\nchecksum = \"ab\"\n".into(),
    };
    let inputs = vec![
        input(InputKind::Source, "busybox_1.35.0-4.dsc", "1.35.0-4"),
        input(InputKind::Source, "busybox_1.35.0.orig.tar.bz2", "1.35.0-4"),
        input(InputKind::Package, "genext2fs", "1.5"),
        input(InputKind::Recipe, "boards/p4080ds.toml", ""),
    ];
    let text = sbom::bill(&recipe(RECIPE), "release.toml", &[built("p", inputs)], &crates).unwrap();
    assert!(!text.contains("/home"), "{text}");
    let bill: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&bill["specVersion"], &bill["serialNumber"]), (&"1.6".into(), &Value::Null));
    let rows: Vec<String> = bill["components"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| {
            let hashes = c["hashes"].as_array().map_or(0, Vec::len);
            format!("{} {} {} {hashes}", c["name"], c["scope"], c["licenses"][0]["expression"]).replace('"', "")
        })
        .collect();
    assert_eq!(
        rows,
        [
            "citrine-firmware required MIT OR Apache-2.0 0",
            "clap excluded MIT 0",
            "sha2 required MIT 1",
            "syn excluded MIT 0",
            "thiserror-impl excluded MIT 0",
            "thiserror required MIT OR Apache-2.0 0",
            "xtask excluded MIT OR Apache-2.0 0",
            "busybox required GPL-2.0-only 1",
            "genext2fs excluded GPL-2.0-only 0",
        ]
    );
    let needs = |name: &str| {
        let all = bill["dependencies"].as_array().unwrap();
        all.iter().find(|each| each["ref"] == name).unwrap()["dependsOn"].to_string()
    };
    assert_eq!(needs("pkg:cargo/xtask@0.1.0"), r#"["pkg:cargo/clap@4.6.0","pkg:cargo/sha2@0.10.9"]"#);
    assert_eq!(needs("pkg:cargo/thiserror@2.0.1"), r#"["pkg:cargo/thiserror-impl@2.0.1"]"#);
    let unknown = [built("p", vec![input(InputKind::Package, "tcc", "1")])];
    assert_eq!(sbom::bill(&recipe(RECIPE), "release.toml", &unknown, &crates).unwrap_err().code, LICENCE);
}

#[test]
fn the_notes_say_what_changed() {
    let before = Previous {
        version: "0.9".into(),
        bundles: vec![
            built("a", vec![input(InputKind::Source, "linux_1.deb", "1"), input(InputKind::Crate, "gone", "1")]),
            built("old", Vec::new()),
        ],
    };
    let now = [built("a", vec![input(InputKind::Source, "linux_2.deb", "2")]), built("bb", Vec::new())];
    let changes = [Change::Differs(vec!["p1: CPUs 0-6 -> 0-5".into()]), Change::New];
    let text = notes::text(&recipe(RECIPE), &now, Some((&before, &changes)));
    for line in [
        "Compared with release 0.9.",
        "* a for b:\n    * p1: CPUs 0-6 -> 0-5",
        "* bb for b: new",
        "* old for b: gone",
        "* source linux: 1 -> 2",
        "* crate gone: gone",
        "* two-linux-sdk for every board: needs Freescale's own hypervisor",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let same = notes::text(&recipe(RECIPE), &now, Some((&Previous { bundles: now.to_vec(), ..before }, &[])));
    assert!(same.contains("The same as before."), "{same}");
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        let _ = recipe::parse("x", &text);
        let _ = recipe::parse("x", &format!("version = \"1\"\n[[left-out]]\nboard = \"{text}\"\nreason = \"{text}\""));
        let _ = Index::parse("x", text.as_bytes());
        let crates = Crates { product: text.clone(), tool: format!("1{text} v1|x"), lock: text };
        let _ = sbom::bill(&recipe(RECIPE), "x", &[], &crates);
    }

    #[test]
    fn no_byte_of_an_index_can_be_changed(at in 0usize..2000, to in any::<u8>()) {
        let mut bytes = index().to_canonical().into_bytes();
        let at = at % bytes.len();
        prop_assume!(bytes[at] != to);
        bytes[at] = to;
        // Another index, perhaps; never the same one.
        prop_assert!(Index::parse("x", &bytes).map_or(true, |read| read != index()));
    }
}
