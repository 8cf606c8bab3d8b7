//! QEMU's own hardware tree, and the one with which U-Boot starts by itself.
//!
//! U-Boot takes `bootcmd` and `bootdelay` from the node `/config` of its control tree before its default
//! environment, so nothing has to be typed and no second is lost on a countdown.

use dtoolkit::Node as _;
use dtoolkit::fdt::Fdt;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};

use citrine_planner::diag::{Diagnostic, Label, Result};

use super::machine::{CANNOT_START, Machine, option};
use super::memory::CONTROL_TREE_MAX;
use super::process::Process;
use super::unusable;

/// QEMU writes 1 MiB; what is larger is no tree of its.
const DUMP_MAX: u64 = 8 << 20;
/// `bootdelay` of -2: run `bootcmd` at once and look at no key.
const NO_DELAY: u32 = -2i32 as u32;

/// QEMU's tree of this machine without free room, and without the random seed that differs every time: the
/// same bytes for the same machine.
///
/// # Errors
/// `Q101` when QEMU or U-Boot is missing or writes no valid tree.
pub fn hardware_tree(machine: &Machine) -> Result<Vec<u8>> {
    Ok(dump(machine)?.to_dtb())
}

/// QEMU's tree of this machine with only those nodes whose names begin with one of `roots`, and in `/soc` with one of
/// `devices`.
///
/// # Errors
/// As [`hardware_tree`].
pub fn pruned(machine: &Machine, roots: &[&str], devices: &[&str]) -> Result<Vec<u8>> {
    let mut tree = dump(machine)?;
    prune(&mut tree.root, roots);
    for soc in tree.root.children_mut().filter(|node| node.name().starts_with("soc")) {
        prune(soc, devices);
    }
    Ok(tree.to_dtb())
}

fn prune(node: &mut DeviceTreeNode, kept: &[&str]) {
    let names: Vec<String> = node.children().map(|child| child.name().to_owned()).collect();
    for name in names.iter().filter(|name| !kept.iter().any(|kept| name.starts_with(kept))) {
        node.remove_child(name);
    }
}

/// The tree that QEMU gives to U-Boot: the machine's own, with what U-Boot shall run.
pub(super) fn control_tree(machine: &Machine, bootcmd: Option<&str>) -> Result<Vec<u8>> {
    let mut tree = dump(machine)?;
    if let Some(bootcmd) = bootcmd {
        let mut config = DeviceTreeNode::new_unchecked("config");
        config.add_property(DeviceTreeProperty::new_unchecked("bootcmd", bootcmd));
        config.add_property(DeviceTreeProperty::new_unchecked("bootdelay", NO_DELAY));
        tree.root.add_child(config);
    }
    let bytes = tree.to_dtb();
    if bytes.len() > CONTROL_TREE_MAX {
        return Err(Diagnostic::error(
            CANNOT_START,
            format!(
                "U-Boot's control tree would have {} bytes, more than the {CONTROL_TREE_MAX} that it starts with",
                bytes.len()
            ),
        )
        .help("put the commands into a script and let `bootcmd` source it")
        .into());
    }
    Ok(bytes)
}

fn dump(machine: &Machine) -> Result<DeviceTree> {
    let dir =
        tempfile::tempdir().map_err(|error| unusable(&std::env::temp_dir(), "the temporary directory", &error))?;
    let file = dir.path().join("dump.dtb");
    let mut args = machine.arguments(option(",dumpdtb=", &file, ""));
    // U-Boot finds a UART only if its node exists, and the node exists only if the UART is connected.
    for _ in 0..super::console::UARTS {
        args.extend(["-serial".into(), "null".into()]);
    }
    let ended = Process::spawn(&machine.locate()?, &args, Vec::new())?.wait()?;
    let invalid = |why: String| {
        Diagnostic::error(CANNOT_START, format!("{} wrote no device tree: {why}", machine.qemu.display()))
            .primary(Label::file(machine.qemu.display().to_string(), ended.stderr.trim()))
            .help("the machine or the emulator is not one that this tool knows; see docs/diagnostics/Q101.md")
    };
    if !ended.status.success() {
        return Err(invalid(ended.to_string()).into());
    }
    match fs_err::metadata(&file) {
        Ok(metadata) if metadata.len() > DUMP_MAX => return Err(invalid("it is too large".into()).into()),
        Ok(_) => {}
        Err(error) => return Err(invalid(error.to_string()).into()),
    }
    let bytes = fs_err::read(&file).map_err(|error| unusable(&file, "QEMU's tree", &error))?;
    let fdt = Fdt::new(&bytes).map_err(|error| invalid(error.to_string()))?;
    let mut tree = DeviceTree::from_fdt(&fdt);
    if let Some(chosen) = tree.root.child_mut("chosen") {
        chosen.remove_property("rng-seed");
    }
    Ok(tree)
}
