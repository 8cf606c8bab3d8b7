//! The NOR flash on QEMU, with the real U-Boot: a change of it, what it starts then, and damage to it.

use std::path::Path;
use std::time::Duration;

use citrine_formats::addr::TruePhys;
use citrine_formats::manifest::Media;
use citrine_planner::flash::{Action, FlashPlan, Placed, crc32};
use citrine_planner::pack::sha256;
use citrine_planner::profile::Profile;
use citrine_planner::render;
use citrine_planner::verify::Verified;

use super::{arguments, refused_by_both};
use crate::build::Context;
use crate::build::lock::Lock;
use crate::bundle::{Made, made, script_image};
use crate::cache::Cache;
use crate::cli;
use crate::emulator::{Expect, Marker, Preload, Session, Source};
use crate::nor::Installed;
use crate::progress::Progress;
use crate::project::{Project, template};
use crate::report::Ui;
use crate::setup::{Need, ensure};
use crate::smoke::boot::{expected, loaded, prepared, start};
use crate::smoke::bundle::Parts;
use crate::smoke::nor;
use crate::smoke::stand_in::{Hardware, StandIn, prepare};

/// The bundle for both media of `two-linux` with something changed, and its verified parts.
fn bundle(change: impl Fn(&mut Profile), installed: Option<&Installed>) -> (Made, Parts) {
    let (ui, project) = (Ui::new(true), Project::find().unwrap());
    let args = cli::BundleArgs { media: cli::Media::All, ..arguments("two-linux") };
    let progress = Progress::hidden(|_| {});
    let lock = Lock::read(project.root()).unwrap();
    ensure(&[Need::Bundle, Need::Qemu], true, &lock, &progress).unwrap();
    let cache = Cache::open(Cache::default_root().unwrap(), false).unwrap();
    let context = Context::new(project.root(), &cache, &lock, false, &progress).unwrap();
    let (board, mut profile) = project.target("p4080ds", "two-linux", &ui).unwrap();
    change(&mut profile);
    let made = made(&project, &context, (&board, &profile), &args, installed, &ui).unwrap();
    let assembled = &made.assembled;
    let all = assembled.manifest.parts.iter().zip(&assembled.contents);
    let parts = Parts {
        verified: Verified {
            manifest: assembled.manifest.clone(),
            identity: assembled.identity,
            signers: Vec::new(),
            unsigned: Vec::new(),
        },
        bytes: all.map(|(part, content)| (part.name.clone(), content.pieces().concat())).collect(),
        profile,
    };
    (made, parts)
}

fn in_flash(parts: &Parts) -> StandIn {
    let hardware = Hardware { flash: true, ..Hardware::default() };
    prepare(&Project::find().unwrap(), parts, &hardware, &Ui::new(true)).unwrap()
}

fn quieter(profile: &mut Profile) {
    profile.partitions[0].bootargs.push_str(" quiet");
}

#[test]
fn a_changed_profile_changes_only_the_sectors_of_its_tree_and_script() {
    let (_, old) = bundle(|_| (), None);
    let installed = Installed::of(&old.verified.manifest, &old).unwrap();
    let (made, new) = bundle(quieter, Some(&installed));
    let flash = made.flash.as_ref().unwrap();
    let slot = |parts: &Parts, name: &str, media| {
        let part = parts.verified.manifest.parts.iter().find(|part| part.name == name).unwrap();
        part.slot(media).map(|slot| slot.load)
    };
    for name in ["kernel.uImage", "rootfs.uImage", "hv.uImage", "p4080ds.dtb"] {
        assert_eq!(slot(&new, name, Media::Nor), slot(&old, name, Media::Nor), "{name}");
        assert!(slot(&new, name, Media::Ram).is_some(), "{name}: stored once for both");
    }
    let steps = flash.steps.steps.iter().map(|step| match step.action {
        Action::Write { part, .. } => {
            (flash.steps.parts[part].name.as_str(), step.sectors.base().0, step.sectors.len())
        }
        Action::Erase => ("", step.sectors.base().0, step.sectors.len()),
    });
    let expected = [
        ("hv-nor.dtb", 0xf_ec90_0000, 128 << 10),
        ("boot-nor.scr", 0xf_eca0_0000, 128 << 10),
        ("", 0xf_e8a0_0000, 128 << 10),
    ];
    assert_eq!(steps.collect::<Vec<_>>(), expected);

    // The first script's sector is erased now: the second one starts the new system.
    let stand_in = in_flash(&new);
    let dir = tempfile::tempdir().unwrap();
    let transcript = dir.path().join("transcript");
    let boot = prepared(&new, &stand_in, &transcript, dir.path()).unwrap();
    start(&boot, &crate::smoke::boot::expected(&new, &stand_in).unwrap().report, &mut |_| {}).unwrap();
    assert_eq!(stand_in.plan.hv_bootargs.split(' ').next(), Some("config-addr=0xf04900000"));
}

#[test]
fn a_damaged_sector_is_noticed_by_uboot_and_by_the_hypervisor() {
    let (_, mut parts) = bundle(|_| (), None);
    let kernel = parts.bytes.get_mut("kernel.uImage").unwrap();
    let middle = kernel.len() / 2;
    kernel[middle..middle + 0x1000].fill(0xff);
    let stand_in = in_flash(&parts);
    let expected = expected(&parts, &stand_in).unwrap();
    let wrong = |line: &&String| line.contains("kernel at 0xf_00020000") && line.ends_with(", digest WRONG");
    assert_eq!(expected.loads.iter().filter(wrong).count(), 2, "{:#?}", expected.loads);
    refused_by_both(&parts, &stand_in, &expected);
}

/// What lies in the stand-in's flash.
fn placed(parts: &Parts, stand_in: &StandIn) -> Vec<(Placed, Vec<u8>)> {
    let role = |at: TruePhys| stand_in.plan.parts.iter().find(|part| part.load == at).unwrap().role;
    let placed = loaded(parts, stand_in).into_iter().map(|(name, at, bytes)| {
        let (size, sha256, crc32) = (bytes.len() as u64, sha256(bytes), crc32([bytes, &[]]));
        (Placed { name: name.to_owned(), role: role(at), at, size, sha256, crc32: Some(crc32) }, bytes.to_vec())
    });
    placed.collect()
}

/// QEMU's U-Boot cannot write its flash, but it can judge it, and it finds every mistake in the script's syntax.
#[test]
fn the_script_that_changes_the_flash_knows_what_lies_in_it() {
    let (_, old) = bundle(|_| (), None);
    let installed = Installed::of(&old.verified.manifest, &old).unwrap();
    let (_, new) = bundle(quieter, Some(&installed));
    let (before, after) = (in_flash(&old), in_flash(&new));
    let project = Project::find().unwrap();
    let ram = prepare(&project, &new, &Hardware::default(), &Ui::new(true)).unwrap();
    let nor = after.plan.board.nor.as_ref().unwrap();
    let (was, is) = (placed(&old, &before), placed(&new, &after));
    let only = |all: &[(Placed, Vec<u8>)]| all.iter().map(|(placed, _)| placed.clone()).collect::<Vec<_>>();
    let steps = FlashPlan::of(nor, nor.slots.as_ref().unwrap(), &only(&was), only(&is));
    let read = project.template("flash.cmd.j2", &Ui::new(true)).unwrap();
    let mut text = render::flash_cmd(&ram.plan, &after.plan, &steps, &template(&read)).unwrap();

    // Instead of a network: the new parts lie in memory already.
    let dir = tempfile::tempdir().unwrap();
    let mut preloads = Vec::new();
    let mut put = |name: &str, addr: u64, bytes: &[u8]| {
        let path = dir.path().join(format!("{addr:x}"));
        std::fs::write(&path, bytes).unwrap();
        preloads.push(Preload { name: name.to_owned(), path, addr: TruePhys(addr) });
    };
    for (at, (placed, bytes)) in (0x7a00_0000u64..).step_by(1 << 20).zip(&is).filter(|(_, (p, _))| p.size < 1 << 20) {
        let fetch = format!("tftp 0x78900000 $citrine_dir/{} ", placed.name);
        text = text.replace(&fetch, &format!("cp.b {at:#x} 0x78900000 {:#x} ", placed.size));
        put(&placed.name, at, bytes);
    }
    assert!(!text.contains("tftp "), "{text}");
    put("flash.scr", 0x78a0_0000, &script_image(&after.plan, 0, &text).unwrap().pieces().concat());

    let run = |flash: &Path, ends: &str| {
        let transcript = dir.path().join("transcript");
        let mut boot = prepared(&new, &after, &transcript, dir.path()).unwrap();
        boot.machine.flash = Some(flash.to_path_buf());
        boot.preloads = preloads.clone();
        boot.bootcmd = Some("source 0x78a00000".to_owned());
        boot.channels = None;
        let expect = Expect {
            name: "the script ends",
            source: Source::Uart(0),
            marker: Marker::LineStart(ends.to_owned()),
            timeout: Duration::from_secs(120),
            failures: &["syntax error"],
        };
        let seen = Session::start(&boot).unwrap().wait_for(&expect, &mut |_| {}).unwrap();
        String::from_utf8_lossy(&seen.bytes).into_owned()
    };
    let holds = |parts: &Parts, stand_in: &StandIn, name: &str| {
        let path = dir.path().join(name);
        nor::write(&stand_in.plan, &loaded(parts, stand_in), &path).unwrap();
        path
    };
    let said = run(&holds(&new, &after, "new"), "citrine: flash good, the board starts two-linux");
    assert_eq!(said.matches("is there already").count(), 2, "{said}");
    let said = run(&holds(&old, &before, "old"), "citrine: flash failed, ");
    assert!(said.contains("Unknown command 'protect'"), "it would have written: {said}");
    let said = run(nor::blank(&after.plan).unwrap().path(), "citrine: flash unknown, ");
    assert!(said.contains("starts another system"), "{said}");

    // A shared part that is not there: nothing is written.
    let mut torn = std::fs::read(holds(&old, &before, "torn")).unwrap();
    torn[0x2_1000] ^= 1;
    std::fs::write(dir.path().join("torn"), torn).unwrap();
    let said = run(&dir.path().join("torn"), "citrine: flash unknown, ");
    assert!(said.contains("kernel.uImage is not in the flash at 0xf0020000"), "{said}");
}
