//! `tests/golden/<board>/<profile>/`: whole outputs for the shipped boards and profiles, and the proof that
//! the tree which is rendered says exactly what the plan says.

use citrine_core::capabilities::Capabilities;
use citrine_core::config::Config;
use citrine_formats::{fdt, hvconfig};
use citrine_planner::diag::has_errors;
use citrine_planner::dts;
use citrine_planner::image::ImageFacts;
use citrine_planner::map::{self, MemoryMap};
use citrine_planner::place::{self, Second};
use citrine_planner::plan::LoadPlan;
use citrine_planner::profile::{DeviceUse, Dma};
use citrine_planner::render::{Bench, Digests, boot_cmd, hv_dts, labgrid_environment, strip_markers};
use citrine_planner::rules;
use citrine_planner::stages::Stage;

use crate::artifacts;
use crate::blessed::{compare, directories, root};
use crate::cmd::check::summary;
use crate::dtc::{Source, compile};
use crate::project::{Project, template};
use crate::report::{Ui, Width, to_text};

#[test]
fn every_golden_output_is_what_the_tool_makes_now() {
    let mut complaints = Vec::new();
    for board in directories("tests/golden") {
        for profile in directories(&format!("tests/golden/{board}")) {
            complaints.extend(outputs(&board, &profile));
        }
    }
    assert!(complaints.is_empty(), "{}\n", complaints.join("\n"));
}

fn outputs(board: &str, profile: &str) -> Vec<String> {
    let ui = Ui::new(true);
    let project = Project::find().unwrap_or_else(|failure| panic!("{failure:?}"));
    let (board, profile) = project.target(board, profile, &ui).unwrap_or_else(|failure| panic!("{failure:?}"));
    let plan = place::place(&board, &profile, &artifacts::known(None)).unwrap_or_else(|found| panic!("{found:#?}"));
    let found = rules::check(&plan);
    let read = |name: &str| project.template(name, &ui).unwrap_or_else(|failure| panic!("{failure:?}"));

    let source = read("hv.dts.j2");
    let marked = hv_dts(&plan, &Digests::new(), &template(&source)).unwrap_or_else(|error| panic!("{error:#?}"));
    let script = boot_cmd(&plan, &template(&read("boot.cmd.j2"))).unwrap_or_else(|error| panic!("{error:#?}"));
    let bench = Bench { board: "192.168.1.2".parse().unwrap(), server: "192.168.1.1".parse().unwrap(), port: 18900 };
    let labgrid = labgrid_environment(&plan, bench, &template(&read("labgrid.yaml.j2")))
        .unwrap_or_else(|error| panic!("{error:#?}"));
    let mut check: String = found.iter().map(|d| to_text(d, &Default::default(), Width::Plain) + "\n\n").collect();
    check += &summary(&plan, &found);

    let blob = compile(&marked, Source { file: &source.0, text: &source.1 }).unwrap_or_else(|d| panic!("{d:#?}"));
    // That CPUs are left unused on purpose is not in the tree, so of them it warns.
    let judged = rules::tree::check("hv.dtb", &blob, &board);
    assert!(!has_errors(&judged), "the hypervisor accepts what check accepts: {judged:#?}");
    tree_says_what_the_plan_says(&blob, &plan);

    let dir = format!("tests/golden/{}/{}", plan.board.name, plan.profile.name);
    let mut complaints = in_flash(&dir, &plan, &read("hv.dts.j2"), &read("boot.cmd.j2"));
    complaints.extend(
        [("hv.dts", strip_markers(&marked)), ("boot.cmd", script), ("check.txt", check), ("labgrid.yaml", labgrid)]
            .into_iter()
            .filter_map(|(file, text)| compare(&format!("{dir}/{file}"), &text)),
    );
    complaints
}

/// The same with the parts in the flash, for boards that have slots there.
fn in_flash(dir: &str, ram: &LoadPlan, hv: &(String, String), boot: &(String, String)) -> Vec<String> {
    if ram.board.nor.as_ref().is_none_or(|nor| nor.slots.is_none()) {
        return Vec::new();
    }
    let plan = place::place_in_flash(&ram.board, &ram.profile, &artifacts::known(None), &Second::new())
        .unwrap_or_else(|found| panic!("{found:#?}"));
    let said = |plan: &LoadPlan| rules::check(plan).into_iter().map(|d| d.code).collect::<Vec<_>>();
    assert_eq!(said(&plan), said(ram), "the flash adds nothing");
    let marked = hv_dts(&plan, &Digests::new(), &template(hv)).unwrap_or_else(|error| panic!("{error:#?}"));
    let blob = compile(&marked, Source { file: &hv.0, text: &hv.1 }).unwrap_or_else(|d| panic!("{d:#?}"));
    assert!(!has_errors(&rules::tree::check("hv-nor.dtb", &blob, &plan.board)));
    tree_says_what_the_plan_says(&blob, &plan);
    let script = boot_cmd(&plan, &template(boot)).unwrap_or_else(|error| panic!("{error:#?}"));
    [("hv-nor.dts", strip_markers(&marked)), ("boot-nor.cmd", script)]
        .into_iter()
        .filter_map(|(file, text)| compare(&format!("{dir}/{file}"), &text))
        .collect()
}

fn tree_says_what_the_plan_says(blob: &[u8], plan: &LoadPlan) {
    let tree = hvconfig::Tree::new(fdt::open(blob).expect("dtc makes a device tree")).expect("the tree is known");
    let mut planned = rules::hypervisor::config(plan);
    // In a tree, a partition is known by its label.
    for (config, partition) in planned.partitions.iter_mut().zip(&plan.partitions) {
        config.name = &partition.label;
    }
    assert_eq!(Config::from_tree(tree).expect("the tree is understood"), planned);
}

/// Sizes that parts have had; what is built today must not change these files.
const SIZES: [(&str, u64); 6] = [
    ("kernel.uImage", 2_188_342),
    ("rootfs.uImage", 754_480),
    ("hv.uImage", 389_400),
    ("p4080ds.dtb", 33_617),
    ("hv.dtb", 2832),
    ("boot.scr", 1380),
];

#[test]
fn the_memory_map_is_what_the_tool_makes_now() {
    let ui = Ui::new(true);
    let project = Project::find().unwrap_or_else(|failure| panic!("{failure:?}"));
    let (board, profile) = project.target("p4080ds", "two-linux", &ui).unwrap_or_else(|failure| panic!("{failure:?}"));
    let mut plan = place::place(&board, &profile, &artifacts::known(None)).unwrap_or_else(|found| panic!("{found:#?}"));
    for (file, size) in SIZES {
        assert!(plan.parts.iter().any(|part| part.file == file), "{file}");
        let unpacked = if file == "kernel.uImage" { 4_697_900 } else { size };
        plan.facts.insert(file.to_owned(), ImageFacts { size, unpacked, memory: None });
    }
    let map = MemoryMap::of(&plan);
    let dir = "tests/golden/p4080ds/two-linux";
    let complaints: Vec<String> = [
        (format!("{dir}/map.txt"), map::table::render(&map, &Stage::ALL)),
        (format!("{dir}/map.json"), format!("{:#}\n", map::json::render(&map, &Stage::ALL))),
        ("docs/memory-map.svg".to_owned(), map::svg::render(&map, &Stage::ALL)),
    ]
    .into_iter()
    .filter_map(|(file, text)| compare(&file, &text))
    .collect();
    assert!(complaints.is_empty(), "{}\n", complaints.join("\n"));
}

fn plain(device: &str) -> DeviceUse {
    DeviceUse { device: device.to_owned(), node: None, msi: None, dma: None, dts: String::new() }
}

#[test]
fn devices_are_rendered_as_the_binding_demands() {
    let ui = Ui::new(true);
    let project = Project::find().unwrap_or_else(|failure| panic!("{failure:?}"));
    let (board, mut profile) =
        project.target("p4080ds", "two-linux", &ui).unwrap_or_else(|failure| panic!("{failure:?}"));
    profile.partitions[0].devices = ["usb0", "/soc/i2c@119000", "/soc/i2c@119100", "ethernet0"].map(plain).into();
    profile.partitions[0].dma = Some(Dma::Memory);
    profile.partitions.iter_mut().for_each(|partition| partition.optional_devices.clear());
    let mut plan = place::place(&board, &profile, &artifacts::known(None)).unwrap_or_else(|found| panic!("{found:#?}"));
    let source = project.template("hv.dts.j2", &ui).unwrap_or_else(|failure| panic!("{failure:?}"));
    let mut render = |hypervisor| {
        plan.hypervisor = hypervisor;
        let said: Vec<String> = rules::check(&plan).iter().map(|d| d.code.to_string()).collect();
        let marked = hv_dts(&plan, &Digests::new(), &template(&source)).unwrap_or_else(|error| panic!("{error:#?}"));
        let blob = compile(&marked, Source { file: &source.0, text: &source.1 }).unwrap_or_else(|d| panic!("{d:#?}"));
        tree_says_what_the_plan_says(&blob, &plan);
        (said, strip_markers(&marked))
    };
    // A port of the frame manager is a part of it.
    assert_eq!(render(Capabilities::CITRINE).0, ["D109", "D108"]);
    let (said, text) = render(Capabilities::TOPAZ);
    assert_eq!(said, ["D108"]);
    let dma = "dma-window = <&a_p1_window>;\n";
    assert!(text.contains(&format!("usb@210000 {{\n\t\t\tdevice = \"usb0\";\n\t\t\t{dma}\t\t}};\n")), "{text}");
    assert!(text.contains("i2c@119000 {\n\t\t\tdevice = \"/soc/i2c@119000\";\n\t\t};\n"), "{text}");
    let window =
        "a_p1_window: p1-window {\t/* what the devices of p1 reach, 1 GiB */\n\t\t\tcompatible = \"dma-window\";\n";
    let range = "\t\t\tguest-addr = <0x0 0x0>;\n\t\t\tsize = <0x0 0x40000000>;\n\t\t};\n";
    assert!(text.contains(&format!("{window}{range}")), "{text}");
    assert_eq!(text.matches("-window {").count(), 1, "the other partition has no devices");
}

#[test]
fn the_vendors_configuration_is_written_down() {
    let ui = Ui::new(true);
    let project = Project::find().unwrap_or_else(|failure| panic!("{failure:?}"));
    let target = project.target("p4080ds", "two-linux-sdk", &ui);
    let (board, profile) = target.unwrap_or_else(|failure| panic!("{failure:?}"));
    let plan = place::place(&board, &profile, &artifacts::known(None)).unwrap_or_else(|found| panic!("{found:#?}"));
    let said: Vec<String> = rules::check(&plan).iter().map(|d| d.code.to_string()).collect();
    assert_eq!(said, ["D102", "D102"], "only what the SDK's own hardware tree has is not confirmed");
    let source = project.template("hv.dts.j2", &ui).unwrap_or_else(|failure| panic!("{failure:?}"));
    let marked = hv_dts(&plan, &Digests::new(), &template(&source)).unwrap_or_else(|error| panic!("{error:#?}"));
    let blob = compile(&marked, Source { file: &source.0, text: &source.1 }).unwrap_or_else(|d| panic!("{d:#?}"));
    let tree = dts::from_blob(&blob).unwrap_or_else(|error| panic!("{error}"));
    let count = |kind: &str| {
        let mut count = 0;
        tree.root.walk("", &mut |_, node| count += usize::from(node.name.split('@').next() == Some(kind)));
        count
    };
    // Both partitions' portals, each of QMan's with two windows for what it stashes.
    assert_eq!(["bman-portal", "qman-portal", "stash-mem", "stash-dqrr"].map(count), [10, 10, 10, 10]);
    assert_eq!(["dma-windows", "sub-window", "portal-devices", "msi"].map(count), [1, 5, 2, 2]);
    let portal = tree.root.at("part2/qman-portal@1c000").expect("the second partition's portal");
    assert_eq!(
        portal.nodes().map(|node| node.name.as_str()).collect::<Vec<_>>(),
        ["stash-mem", "stash-dqrr", "node-update"]
    );
    let ring = tree.root.at("dma-windows/qman-portal-7-window").expect("its ring");
    assert_eq!(ring.property("guest-addr").and_then(|at| at.number()), Some(0xf_f421_c000), "P4080RM, portals of QMan");
    let lines = std::fs::read_to_string(root().join("profiles/two-linux-sdk.toml")).expect("a shipped profile");
    assert!(lines.lines().count() < 150, "what a user writes stays short");
}

#[test]
fn no_damage_to_a_tree_panics() {
    let ui = Ui::new(true);
    let project = Project::find().unwrap_or_else(|failure| panic!("{failure:?}"));
    let (board, profile) = project.target("p4080ds", "two-linux", &ui).unwrap_or_else(|failure| panic!("{failure:?}"));
    let plan = place::place(&board, &profile, &artifacts::known(None)).unwrap_or_else(|found| panic!("{found:#?}"));
    let source = project.template("hv.dts.j2", &ui).unwrap_or_else(|failure| panic!("{failure:?}"));
    let marked = hv_dts(&plan, &Digests::new(), &template(&source)).unwrap_or_else(|error| panic!("{error:#?}"));
    let blob = compile(&marked, Source { file: &source.0, text: &source.1 }).unwrap_or_else(|d| panic!("{d:#?}"));
    let mut refused = 0;
    for at in 0..blob.len() {
        for bits in [0x01, 0x80, 0xff] {
            let mut damaged = blob.clone();
            damaged[at] ^= bits;
            refused += usize::from(!rules::tree::check("hv.dtb", &damaged, &board).is_empty());
        }
        let cut = rules::tree::check("hv.dtb", &blob[..at], &board);
        assert!(!cut.is_empty(), "a tree of {at} bytes is accepted");
    }
    assert!(refused > blob.len(), "only {refused} of {} damages are noticed", 3 * blob.len());
}
