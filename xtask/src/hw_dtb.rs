//! `--hw-dtb`: that a hardware tree of the user's own is what devices are judged by and what a bundle gets.

use std::path::{Path, PathBuf};

use citrine_core::capabilities::Capabilities;
use citrine_planner::inventory::Found;
use citrine_planner::{place, rules};

use crate::artifacts::{self, How};
use crate::blessed::root;
use crate::build::Context;
use crate::build::lock::Lock;
use crate::cache::Cache;
use crate::cli::Target;
use crate::dtc::{self, Source};
use crate::progress::Progress;
use crate::project::Project;
use crate::report::{Failure, Ui};

/// What is added to the board's own tree.
const MINE: &str = "/ {\n\tsoc@ffe000000 {\n\t\tmine@1e0000 {\n\t\t\tcompatible = \"mine\";\n\
    \t\t\treg = <0x1e0000 0x1000>;\n\t\t};\n\t};\n};\n";
/// One more CPU than the board has.
const CPU: &str = "/ {\n\tcpus {\n\t\tcpu@9 {\n\t\t\tdevice_type = \"cpu\";\n\t\t\treg = <0x48>;\n\t\t};\n\t};\n};\n";

/// The board's own tree with something added, in a directory, with its bytes.
fn tree(dir: &Path, added: &str) -> (PathBuf, Vec<u8>) {
    let text = std::fs::read_to_string(root().join("tests/golden/p4080ds/hardware.dts")).unwrap() + added;
    let dtb = dtc::compile(&text, Source { file: "hardware.dts", text: &text }).unwrap_or_else(|d| panic!("{d:#?}"));
    let path = dir.join("mine.dtb");
    std::fs::write(&path, &dtb).unwrap();
    (path, dtb)
}

fn target(profile: &Path, hw_dtb: Option<PathBuf>) -> Target {
    Target { board: "p4080ds".to_owned(), profile: profile.display().to_string(), hw_dtb }
}

/// A profile whose first partition has the added device.
fn profile(dir: &Path) -> PathBuf {
    let text = std::fs::read_to_string(root().join("profiles/two-linux.toml")).unwrap();
    let text = text.replacen("memory = \"1 GiB\"", "memory = \"1 GiB\"\ndevices = [\"/soc/mine\"]", 1);
    let path = dir.join("mine.toml");
    std::fs::write(&path, text).unwrap();
    path
}

fn codes(failure: Failure) -> Vec<String> {
    failure.0.into_iter().map(|diagnostic| diagnostic.code.to_string()).collect()
}

#[test]
fn devices_are_judged_by_the_given_tree_and_a_bundle_gets_it() {
    let dir = tempfile::tempdir().unwrap();
    let (project, ui) = (Project::find().unwrap_or_else(|failure| panic!("{failure:?}")), Ui::new(true));
    let (path, dtb) = tree(dir.path(), MINE);
    let profile = profile(dir.path());
    let says = |hw_dtb: Option<PathBuf>| {
        let (board, profile) = project.target_of(&target(&profile, hw_dtb), &ui).unwrap_or_else(|f| panic!("{f:?}"));
        let mut plan = place::place(&board, &profile, &artifacts::known(None)).unwrap_or_else(|f| panic!("{f:?}"));
        plan.hypervisor = Capabilities::TOPAZ;
        let mine = rules::check(&plan).into_iter().filter(|diagnostic| diagnostic.message.contains("/soc/mine"));
        let found: Vec<String> = mine.map(|diagnostic| diagnostic.code.to_string()).collect();
        (board, plan, found)
    };
    assert_eq!(says(None).2, ["D101"]);
    let (board, plan, found) = says(Some(path.clone()));
    // What is known cannot be unknown; that nobody has a driver for it is a remark.
    assert!(!found.contains(&"D101".to_owned()), "{found:?}");
    let inventory = board.inventory.as_ref().unwrap();
    assert!(matches!(inventory.find("/soc/mine"), Found::Device(device) if device.reg.len() == 1));
    assert_eq!(plan.part(citrine_formats::manifest::Role::HardwareTree).unwrap().file, "p4080ds.dtb");

    let cache = Cache::open(Cache::default_root().unwrap(), true).unwrap();
    let lock = Lock::read(project.root()).unwrap();
    let progress = Progress::hidden(|_| {});
    let context = Context::new(project.root(), &cache, &lock, false, &progress).unwrap();
    let made = artifacts::hardware_tree(&context, &board).unwrap();
    assert_eq!((made.how, made.bytes == dtb), (How::Given, true));
    assert_eq!(made.inputs.iter().map(|input| input.origin.as_str()).collect::<Vec<_>>(), ["given with --hw-dtb"]);
}

#[test]
fn a_tree_of_another_board_or_of_nothing_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (project, ui) = (Project::find().unwrap_or_else(|failure| panic!("{failure:?}")), Ui::new(true));
    let refused = |path: PathBuf| {
        let target = Target { profile: "two-linux".to_owned(), ..target(Path::new(""), Some(path)) };
        codes(project.target_of(&target, &ui).unwrap_err())
    };
    assert_eq!(refused(tree(dir.path(), CPU).0), ["D112"]);
    assert_eq!(refused(dir.path().join("missing.dtb")), ["C108"]);
    let (path, dtb) = tree(dir.path(), "");
    std::fs::write(&path, &dtb[..dtb.len() - 1]).unwrap();
    assert_eq!(refused(path), ["D120"]);
}
