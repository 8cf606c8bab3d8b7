//! The boards and profiles that ship with Citrine: they parse, place and render without a complaint, on
//! their own board and on its stand-in.

mod common;

use citrine_formats::hvconfig::Digest;
use citrine_formats::manifest::{Role, Sha256};
use citrine_formats::signature::Key;
use citrine_planner::board::Board;
use citrine_planner::diag::Severity;
use citrine_planner::pack::{Content, parts::sources};
use citrine_planner::place::{Second, place, place_in_flash};
use citrine_planner::plan::LoadPlan;
use citrine_planner::profile::Profile;
use citrine_planner::render::{Digests, Template, boot_cmd, hv_dts, strip_markers};
use citrine_planner::rules;

use common::{artifacts, board, profile, read};

fn plan(board: &Board, profile: &Profile) -> LoadPlan {
    let plan = place(board, profile, &artifacts()).unwrap_or_else(|d| panic!("{d:#?}"));
    let found = rules::check(&plan);
    assert!(found.iter().all(|said| said.severity == Severity::Notice), "{found:#?}");
    plan
}

#[test]
fn two_linux_renders_for_the_board_and_its_stand_in() {
    let template = read("templates/hv.dts.j2");
    let script = read("templates/boot.cmd.j2");
    for name in ["p4080ds", "qemu-ppce500"] {
        let plan = plan(&board(name), &profile("two-linux"));
        let dts = hv_dts(&plan, &Digests::new(), &Template { file: "templates/hv.dts.j2", text: &template }).unwrap();
        let dts = strip_markers(&dts);
        let cmd = boot_cmd(&plan, &Template { file: "templates/boot.cmd.j2", text: &script }).unwrap();
        println!("{dts}\n{cmd}");
        assert!(dts.contains("cpus = <0 7>") && dts.contains("cpus = <7 1>"));
        assert!(cmd.contains("bootm 0x78700000 - 0x78800000"));
    }
}

#[test]
fn digests_stand_in_the_order_of_loading_or_not_at_all() {
    let text = read("templates/hv.dts.j2");
    let plan = plan(&board("p4080ds"), &profile("two-linux"));
    let digest = |seed: u8| Digest { size: u64::from(seed), sha256: Sha256([seed; 32]) };
    let file = |role| plan.part(role).map(|part| part.file.clone()).unwrap();
    let kernel = (file(Role::Kernel), digest(0x11));
    let rootfs = (file(Role::Rootfs), digest(0x22));
    let render = |digests: &[&(String, Digest)]| {
        let digests = digests.iter().map(|&digest| digest.clone()).collect();
        strip_markers(&hv_dts(&plan, &digests, &Template { file: "templates/hv.dts.j2", text: &text }).unwrap())
    };
    let row = |seed: &str| format!("00000000000000{seed}{}", seed.repeat(32));
    let all = format!("citrine,sha256 = [{} {}];", row("22"), row("11"));
    assert_eq!(render(&[&kernel, &rootfs]).matches(&all).count(), 2);
    assert_eq!(render(&[&kernel]), render(&[]));
    assert!(!render(&[]).contains("citrine,"));
}

#[test]
fn slow_traps_are_asked_for_by_the_profile_and_by_nobody_else() {
    let text = read("templates/hv.dts.j2");
    let mut profile = profile("two-linux");
    let render = |profile: &Profile| {
        let plan = plan(&board("p4080ds"), profile);
        strip_markers(&hv_dts(&plan, &Digests::new(), &Template { file: "templates/hv.dts.j2", text: &text }).unwrap())
    };
    assert!(!render(&profile).contains("slow-traps"));
    profile.partitions[1].fast_traps = false;
    let dts = render(&profile);
    let (first, second) = dts.split_once("\tp2 {").unwrap();
    assert!(!first.contains("slow-traps") && second.contains("\t\tcitrine,slow-traps;\n"), "{dts}");
}

#[test]
fn the_same_profile_renders_for_a_board_with_four_cpus() {
    let mut small = board("p4080ds");
    small.cpus = 4;
    let plan = plan(&small, &profile("two-linux"));
    let counts: Vec<usize> = plan.partitions.iter().map(|p| p.cpus.len()).collect();
    assert_eq!(counts, [3, 1]);
}

#[test]
fn the_slots_are_those_of_the_overview() {
    let plan = plan(&board("p4080ds"), &profile("two-linux"));
    let load = |role| plan.part(role).map(|part| (part.load.0, part.window));
    assert_eq!(load(Role::Kernel), Some((0x7802_0000, 0x6e_0000)));
    assert_eq!(load(Role::Hypervisor), Some((0x7870_0000, 0x10_0000)));
    assert_eq!(load(Role::HardwareTree), Some((0x7880_0000, 0x10_0000)));
    assert_eq!(load(Role::Configuration), Some((0x7890_0000, 0x10_0000)));
    assert_eq!(load(Role::Rootfs), Some((0x7930_0000, 0x2d0_0000)));
}

#[test]
fn a_key_gives_the_configuration_a_signature_at_the_end_of_its_slot() {
    let key = Key([7; 32]);
    let trusting = Profile { trust: Some(key), ..profile("two-linux") };
    let (board, plain) = (board("p4080ds"), plan(&board("p4080ds"), &profile("two-linux")));
    let ram = plan(&board, &trusting);
    let load = |plan: &LoadPlan, role| plan.part(role).map(|part| (part.file.clone(), part.load.0, part.window));
    assert_eq!(load(&plain, Role::Signature), None);
    assert_eq!(load(&ram, Role::Configuration), Some(("hv.dtb".to_owned(), 0x7890_0000, 0xe_0000)));
    assert_eq!(load(&ram, Role::Signature), Some(("hv.dtb.sig".to_owned(), 0x789e_0000, 0x2_0000)));
    assert_eq!(ram.hv_bootargs, plain.hv_bootargs);
    assert!(rules::check(&ram).iter().all(|finding| finding.severity != Severity::Error), "{:?}", rules::check(&ram));

    let flash = place_in_flash(&board, &trusting, &artifacts(), &Second::new()).unwrap();
    assert_eq!(load(&flash, Role::Signature), Some(("hv-nor.dtb.sig".to_owned(), 0xf_e89e_0000, 0x2_0000)));

    let text = read("templates/boot.cmd.j2");
    let script = boot_cmd(&ram, &Template { file: "templates/boot.cmd.j2", text: &text }).unwrap();
    assert!(script.contains("tftp 0x789e0000 $citrine_dir/hv.dtb.sig") && !script.contains("fdt addr 0x789e0000"));

    let names: Vec<String> = ram.parts.iter().map(|part| part.file.clone()).collect();
    let contents = names.iter().map(|name| (name.clone(), Content::plain(&b"x"[..]))).collect();
    let sources = sources(&[&ram], &trusting, contents).unwrap();
    let at = |name: &str| sources.iter().position(|source| source.name == name).unwrap();
    assert!(at("hv.dtb") < at("hv.dtb.sig"));
    assert_eq!(sources[at("hv.dtb.sig")].content, Content::unsigned(key));
}
