//! `guest-tree`: print the device tree that a guest will be given.

use std::path::Path;

use citrine_planner::board::{Board, HardwareTree};
use citrine_planner::diag::{Diagnostic, has_errors};
use citrine_planner::input::UNKNOWN_NAME;
use citrine_planner::input::reader::nearest;
use citrine_planner::plan::LoadPlan;
use citrine_planner::{place, rules};
use serde_json::json;

use crate::artifacts;
use crate::build::Context;
use crate::build::lock::Lock;
use crate::bundle::configuration;
use crate::cache::Cache;
use crate::cli::GuestTree;
use crate::dtc;
use crate::emulator;
use crate::guest_tree::{Trees, flatten};
use crate::progress::watch_signals;
use crate::project::{Project, read_bytes};
use crate::report::{CmdResult, Failure, Ui};
use crate::setup::{Need, ensure};
use crate::smoke::stand_in::machine;

/// Runs `guest-tree`.
pub fn run(args: &GuestTree, ui: &Ui) -> CmdResult {
    let project = Project::find()?;
    let (board, profile) = project.target_of(&args.target, ui)?;
    let plan = place::place(&board, &profile, &artifacts::cached(&project, &board, Some(&profile)))?;
    let found = rules::check(&plan);
    if has_errors(&found) {
        return Err(found.into());
    }
    ui.diagnostics(&found);
    let partition = partition(&plan, &args.partition)?;
    let configuration = configuration(&project, &plan, &Default::default(), ui)?;
    let (name, hardware) = hardware(&project, &board, args, ui)?;
    let trees = Trees { hardware: (&name, &hardware), configuration: ("hv.dtb", &configuration) };
    let text = dtc::decompile(&flatten(trees, partition, initrd_len(&plan, partition))?)?;
    if ui.is_json() {
        ui.object(&json!({ "type": "guest-tree", "partition": args.partition, "text": text }));
    } else {
        ui.product(&text);
    }
    Ok(())
}

/// The place of the partition with this name.
fn partition(plan: &LoadPlan, wanted: &str) -> Result<usize, Failure> {
    let names = || plan.partitions.iter().map(|partition| partition.name.as_str());
    names().position(|name| name == wanted).ok_or_else(|| {
        let near = nearest(wanted, names()).map(|near| format!("did you mean `{near}`? ")).unwrap_or_default();
        let known = names().collect::<Vec<_>>().join(", ");
        Diagnostic::error(UNKNOWN_NAME, format!("no partition is called `{}`", wanted.escape_debug()))
            .help(format!("{near}known: {known}"))
            .into()
    })
}

/// The board's hardware tree and its name: the user's, the emulator's, or the one that the kernel's sources have.
fn hardware(project: &Project, board: &Board, args: &GuestTree, ui: &Ui) -> Result<(String, Vec<u8>), Failure> {
    watch_signals()?;
    let progress = ui.progress();
    let lock = Lock::read(project.root())?;
    if board.hardware_tree == HardwareTree::Emulator {
        ensure(&[Need::Qemu], args.setup.yes, &lock, &progress)?;
        return Ok(("QEMU's tree".to_owned(), emulator::tree::hardware_tree(&machine(board)?)?));
    }
    if let HardwareTree::Given(file) = &board.hardware_tree {
        return Ok((file.clone(), read_bytes(Path::new(file))?));
    }
    ensure(&[Need::Bundle], args.setup.yes, &lock, &progress)?;
    let cache = Cache::open(Cache::default_root()?, args.offline)?;
    let context = Context::new(project.root(), &cache, &lock, false, &progress)?;
    let made = artifacts::hardware_tree(&context, board)?;
    ui.say("the hardware tree is the kernel's: what the boot loader adds to it (frequencies, spin tables) is missing");
    Ok((format!("{}.dtb", board.name), made.bytes))
}

/// The length of a partition's RAM disk in memory, once it has been built.
fn initrd_len(plan: &LoadPlan, partition: usize) -> Option<u64> {
    let image = plan.partitions.get(partition)?.rootfs.as_ref()?;
    let part = plan.parts.get(image.part)?;
    plan.facts.get(&part.file).map(|facts| facts.unpacked)
}
