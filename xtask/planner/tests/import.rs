//! Import: a tree becomes a profile that renders to the same tree.

mod common;

use citrine_planner::diag::{Diagnostic, Severity, has_errors};
use citrine_planner::dts::{differences, from_blob, parse, to_blob};
use citrine_planner::import::{self, For, NOT_EXPRESSIBLE, UBoot};
use citrine_planner::render::{Digests, Template, hv_dts};
use citrine_planner::{input, place};
use common::{artifacts, board, profile, read};
use proptest::prelude::*;

const TEMPLATE: &str = "templates/hv.dts.j2";

fn imported(name: &str, bytes: &[u8], uboot: Option<UBoot<'_>>) -> (Option<String>, Vec<Diagnostic>) {
    let (board, text) = (board(name), read(TEMPLATE));
    let tree = import::read("hv.dts", bytes);
    let mut found = tree.found.clone();
    found.extend(import::judge(&tree, &board, uboot));
    let template = Template { file: TEMPLATE, text: &text };
    let target = For { board: &board, template: &template, artifacts: &artifacts() };
    let (text, more) = import::profile(&tree, target, uboot, "imported");
    found.extend(more);
    (text, found)
}

/// The source that a profile's text renders to.
fn rendered(name: &str, profile: &str) -> String {
    let (profile, found) = input::profile::parse("imported.toml", profile);
    let plan = place::place(&board(name), &profile.unwrap_or_else(|| panic!("{found:#?}")), &artifacts())
        .expect("it can be placed");
    let text = read(TEMPLATE);
    hv_dts(&plan, &Digests::new(), &Template { file: TEMPLATE, text: &text }).expect("the template is right")
}

/// Imports the tree as source and compiled; both profiles render to it. The profile of the source.
fn round_trip(name: &str, text: &str) -> (String, Vec<Diagnostic>) {
    let (tree, found) = parse("hv.dts", text);
    assert!(found.is_empty(), "{found:#?}");
    let blob = to_blob(&tree).expect("it fits");
    let mut first = None;
    for bytes in [text.as_bytes(), &blob] {
        let (profile, found) = imported(name, bytes, None);
        assert!(!has_errors(&found), "{found:#?}");
        let profile = profile.expect("a whole tree gives a profile");
        let (made, _) = parse(TEMPLATE, &rendered(name, &profile));
        let same = differences(("the tree", &tree), ("the rendered one", &made), 5);
        assert_eq!(same, [""; 0], "{profile}");
        let made = from_blob(&to_blob(&made).expect("it fits")).expect("it is a tree");
        assert_eq!(differences(("the tree", &tree), ("the compiled one", &made), 5), [""; 0]);
        first.get_or_insert((profile, found));
    }
    first.expect("both were imported")
}

#[test]
fn trees_of_the_tool_come_back() {
    for (name, profile) in [
        ("p4080ds", "two-linux"),
        ("p4080ds", "one-linux"),
        ("p4080ds", "echo"),
        ("p4080ds", "hello"),
        ("qemu-ppce500", "two-linux"),
    ] {
        let (text, found) = round_trip(name, &read(&format!("tests/golden/{name}/{profile}/hv.dts")));
        assert!(!text.contains("dts = "), "{text}");
        assert!(!text.contains("[names]"), "{text}");
        assert!(found.iter().all(|d| d.code.to_string() == "H103"), "{found:#?}");
    }
}

#[test]
fn every_feature_gets_its_key_and_the_rest_is_source() {
    let (text, found) = round_trip("p4080ds", &read("xtask/planner/tests/import/rich.dts"));
    for key in [
        "[names]",
        "\"/hypervisor-config\" = \"hv\"",
        "label = \"one-linux\"",
        "cpus = \"0-5\"",
        "reach = [\"memory\", \"msi\", \"area-s\"]",
        "dma = \"memory\"",
        "qman-portals = \"0\"",
        "bpids = \"0x20-0x2f\"",
        "manages = [\"two\"]",
        "fast-traps = false",
        "{ device = \"pci0\", node = \"pci\", msi = \"msi0\", dts = 'map-ranges;' }",
        "{ device = \"sdhc\", node = \"sdhc\", dma = false }",
        "partitions = [\"p1\", \"two\"]",
        "no-dma-disable;",
        "load-image-table",
    ] {
        assert!(text.contains(key), "no {key} in\n{text}");
    }
    // What is right gives no alarm.
    assert!(found.iter().all(|d| d.severity < Severity::Warning), "{found:#?}");
}

#[test]
fn the_largest_shipped_profile_comes_back() {
    let (board, text) = (board("p4080ds"), read(TEMPLATE));
    let plan = place::place(&board, &profile("two-linux-sdk"), &artifacts()).unwrap();
    let dts = hv_dts(&plan, &Digests::new(), &Template { file: TEMPLATE, text: &text }).unwrap();
    let (text, _) = round_trip("p4080ds", &dts);
    assert!(text.contains("qman-portals = \"0-6,8-9\""), "{text}");
}

#[test]
fn images_in_flash_are_those_of_the_slots() {
    let tree = read("tests/golden/p4080ds/two-linux/hv.dts");
    let flash = tree.replace("<0x0 0x78020000", "<0xf 0xe8020000").replace("<0x0 0x79300000", "<0xf 0xe9300000");
    assert_ne!(tree, flash);
    let (profile, found) = imported("p4080ds", flash.as_bytes(), None);
    let [notice] = found.as_slice() else { panic!("{found:#?}") };
    assert_eq!((notice.code, notice.severity), (NOT_EXPRESSIBLE, Severity::Notice));
    assert!(!profile.unwrap().contains("load ="));
}

#[test]
fn commands_give_the_boot_arguments() {
    let tree = read("tests/golden/p4080ds/two-linux/hv.dts");
    let text = "=>tftp 78020000 k\n=>tftp 79300000 r\n=>tftp 78700000 h\n=>tftp 78800000 t\n=>tftp 0x78900000 c\n\n\
                Then type this.\n=>setenv bootargs config-addr=0x78900000 console=ttyS1,9600\n\
                =>bootm 0x78700000 - 0x78800000\n";
    let (profile, found) = imported("p4080ds", tree.as_bytes(), Some(UBoot { file: "boot.txt", text }));
    assert!(found.is_empty(), "{found:#?}");
    assert!(profile.unwrap().contains("bootargs = \"console=ttyS1,9600\""));
}

#[test]
fn a_fragment_gives_no_profile_but_findings() {
    let text = "part1 {\n\tcompatible = \"partition\";\n\tcpus = <0 6>;\n\tpart2 {\n\t\tcompatible = \"partition\";\n\t\tcpus = <7 1>;\n\t}\n... ...\n";
    let (profile, found) = imported("p4080ds", text.as_bytes(), None);
    assert_eq!(profile, None);
    let codes: Vec<String> = found.iter().map(|d| d.code.to_string()).collect();
    for code in ["S101", "S102", "S103", "H103"] {
        assert!(codes.iter().any(|have| have == code), "no {code}: {codes:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn no_damage_panics(at in 0usize..6000, len in 0usize..40, with in "[a-z0-9<>{};&\"=\n ]{0,6}") {
        let mut text = read("xtask/planner/tests/import/rich.dts");
        let at = at % text.len();
        text.replace_range(at..(at + len).min(text.len()), &with);
        let _ = imported("p4080ds", text.as_bytes(), Some(UBoot { file: "boot.txt", text: &text }));
    }
}
