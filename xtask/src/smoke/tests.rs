//! Boots of a real bundle that is not as it should be: the firmware says which image is damaged, and the tool
//! sees that it said so.

use std::time::Duration;

use citrine_formats::manifest::{Media, Role};
use clap::Parser as _;
use dtoolkit::fdt::Fdt;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};

use super::answers::said;
use super::boot::{Expected, console, expected, prepared, report_steps, start};
use super::bundle::Parts;
use super::expected::{report_on, with_bootargs};
use super::stand_in::{Hardware, StandIn, prepare};
use crate::cli::{BundleArgs, Cli, Command};
use crate::cmd::bundle::build;
use crate::emulator::{Expect, Marker, Session};
use crate::project::Project;
use crate::report::Ui;
use crate::setup::Need;

#[cfg(feature = "long-proofs")]
mod beside_linux;
mod damaged;
mod flash;
#[cfg(feature = "long-proofs")]
mod high_memory;
mod isolation;
#[cfg(feature = "long-proofs")]
mod labgrid;
mod loading;
#[cfg(feature = "long-proofs")]
mod shell;
mod trusted;

fn arguments(profile: &str) -> BundleArgs {
    let words = ["xtask", "bundle", "--board", "p4080ds", "--profile", profile, "--yes"];
    match Cli::try_parse_from(words).expect("these are the bundle's arguments").command {
        Command::Bundle(args) => args,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_flipped_bit_in_the_loaded_kernel_is_a_crc_error_of_that_image() {
    let ui = Ui::new(true);
    let project = Project::find().unwrap();
    let bundle = build(&project, &arguments("two-linux"), &[Need::Bundle, Need::Qemu], &ui).unwrap();
    let mut parts = Parts::read(&bundle.published.tar, None, &ui).unwrap();
    let whole = expected(&parts, &prepare(&project, &parts, &Hardware::default(), &ui).unwrap()).unwrap().loads;
    let good = |line: &&String| line.contains(" bytes, CRC ok, sha256 ") && line.ends_with(", digest ok");
    assert_eq!(whole.iter().filter(good).count(), 4, "{whole:#?}");
    assert_eq!(whole.iter().filter(|line| line.ends_with(": loaded, entry 0x0")).count(), 2, "{whole:#?}");

    let kernel = parts.bytes.get_mut("kernel.uImage").unwrap();
    let middle = kernel.len() / 2;
    kernel[middle] ^= 0x10;
    let stand_in = prepare(&project, &parts, &Hardware::default(), &ui).unwrap();
    let expected = expected(&parts, &stand_in).unwrap();
    let lines = &expected.loads;
    let damaged = lines
        .iter()
        .filter(|line| {
            line.contains("kernel at") && line.contains("CRC ERROR (payload)") && line.ends_with(", digest WRONG")
        })
        .count();
    assert_eq!(damaged, 2, "one line for each partition: {lines:#?}");
    assert!(
        lines.iter().filter(|line| line.contains("rootfs at") && line.contains("CRC ok")).count() == 2,
        "{lines:#?}"
    );

    refused_by_both(&parts, &stand_in, &expected);
}

/// That U-Boot refuses damaged parts, and that without its checks the hypervisor does.
fn refused_by_both(parts: &Parts, stand_in: &StandIn, expected: &Expected) {
    // U-Boot's own check refuses the image before the hypervisor sees it.
    let dir = tempfile::tempdir().unwrap();
    let transcript = dir.path().join("transcript");
    let mut boot = prepared(parts, stand_in, &transcript, dir.path()).unwrap();
    let refused = start(&boot, &expected.report, &mut |_| {}).unwrap_err();
    assert_eq!(refused.code.to_string(), "Q103", "{refused:?}");

    // Without the script's checks the hypervisor itself finds it.
    let plan = &stand_in.plan;
    let at = |role| plan.effective(plan.part(role).unwrap());
    boot.bootcmd = Some(format!(
        "setenv bootargs '{}'; bootm {:#x} - {:#x}",
        plan.hv_bootargs,
        at(Role::Hypervisor),
        at(Role::HardwareTree)
    ));
    let mut session = Session::start(&boot).unwrap();
    for step in report_steps(console(&boot), &expected.report, &[]) {
        session.wait_for(&step, &mut |_| {}).unwrap();
    }
    // Both partitions load at once.
    let refusal = Expect {
        name: "a partition is not started",
        source: console(&boot),
        marker: Marker::Text("NOT STARTED: ".to_owned()),
        timeout: Duration::from_secs(120),
        failures: &[],
    };
    let end_of_line = Expect { marker: Marker::Text("\n".to_owned()), ..refusal.clone() };
    let mut text = Vec::new();
    for step in [&refusal, &end_of_line, &refusal, &end_of_line] {
        text.extend(session.wait_for(step, &mut |_| {}).unwrap().bytes);
    }
    assert_eq!(said(&expected.loads, &String::from_utf8_lossy(&text)), Ok(()));
}

/// The hardware tree as the P4080DS's U-Boot hands it over: memory, release addresses and the time base filled
/// in (U-Boot, arch/powerpc/cpu/mpc85xx/fdt.c).
fn as_the_boards_uboot_fixes_it(tree: &[u8], bootargs: &str) -> Vec<u8> {
    let bytes = with_bootargs(tree, bootargs).unwrap();
    let mut tree = DeviceTree::from_fdt(&Fdt::new(&bytes).unwrap());
    let set = |node: &mut DeviceTreeNode, name: &str, value: &[u8]| {
        node.add_property(DeviceTreeProperty::new_unchecked(name, value));
    };
    let memory = tree.find_node_mut("/memory").unwrap();
    set(memory, "reg", &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
    for cpu in 0..8u8 {
        let node = tree.find_node_mut(&format!("/cpus/PowerPC,e500mc@{cpu}")).unwrap();
        set(node, "timebase-frequency", &50_000_000u32.to_be_bytes());
        if cpu > 0 {
            set(node, "status", b"disabled\0");
            set(node, "enable-method", b"spin-table\0");
            set(node, "cpu-release-addr", &(0x7fff_f000u64 + 0x40 * u64::from(cpu)).to_be_bytes());
        }
    }
    tree.to_dtb()
}

#[test]
fn the_boards_own_trees_pass_the_firmwares_whole_start_path() {
    let ui = Ui::new(true);
    let project = Project::find().unwrap();
    let bundle = build(&project, &arguments("two-linux"), &[Need::Bundle], &ui).unwrap();
    let parts = Parts::read(&bundle.published.tar, None, &ui).unwrap();
    let loaded: Vec<_> = parts
        .verified
        .manifest
        .parts
        .iter()
        .filter_map(|part| Some((part.slot(Media::Ram)?.load, parts.bytes[&part.name].as_slice())))
        .collect();
    let tree = as_the_boards_uboot_fixes_it(&parts.bytes["p4080ds.dtb"], &bundle.plan.hv_bootargs);
    let lines = report_on("e500mc", &loaded, &tree, None);
    assert!(lines.contains(&"cpus: 8 of 8 started".to_owned()), "{lines:#?}");
    assert!(lines.contains(&"partition p1-linux: 7 CPUs (0-6)".to_owned()), "{lines:#?}");
    assert!(lines.contains(&"citrine: ready, 2 partitions, 0 errors".to_owned()), "{lines:#?}");
    assert_eq!(lines.iter().filter(|line| line.ends_with(", digest ok")).count(), 4, "{lines:#?}");
    assert_eq!(lines.last().unwrap(), "p2-linux: loaded, entry 0x0", "{lines:#?}");
}
