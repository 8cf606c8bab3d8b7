//! `qemu`: boot the bundle's own bytes through the real U-Boot, and decide.

use std::path::Path;
use std::time::Duration;

use citrine_formats::addr::TruePhys;
use citrine_formats::manifest::Role;
use citrine_planner::diag::Diagnostic;
use serde_json::json;

use crate::bundle::out_dir;
use crate::cli::Qemu;
use crate::cmd::bundle::build;
use crate::emulator::terminal::attach;
use crate::emulator::{self, Boot, Expect, Marker, Outcome, Preload, Progress, Session, Source, UBOOT_FAILURES};
use crate::output::cannot_write;
use crate::progress::check_interrupted;
use crate::project::Project;
use crate::report::{CmdResult, Failure, Ui};
use crate::setup::Need;
use crate::smoke::bundle::Parts;
use crate::smoke::expected::{report, with_bootargs};
use crate::smoke::stand_in::{NO_STAND_IN, StandIn, prepare};

/// What the boot script says when it hands over; the word `checked` is a variable's value, so the script's own
/// text does not hold it.
const SCRIPT_DONE: &str = "citrine: boot script checked, starting";
/// What the boot script says when it gives up.
const SCRIPT_FAILED: &str = ", nothing was started";
/// The firmware's words for a system that is not ready.
const FIRMWARE_FAILED: &str = "citrine: FAILED";
/// Generous: the host may be busy, and a failure is seen by its own marker long before.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Runs `qemu`.
pub fn run(args: &Qemu, ui: &Ui) -> CmdResult {
    let project = Project::find()?;
    let bundle = build(&project, &args.bundle, &[Need::Bundle, Need::Qemu], ui)?;
    let parts = Parts::read(&bundle.published.tar, args.keys.as_deref(), ui)?;
    let name = format!("{}-{}", bundle.manifest.board, bundle.manifest.profile);
    let transcript = args.transcript.clone().unwrap_or_else(|| out_dir(&project).join(format!("{name}.qemu.log")));
    let stand_in = prepare(&project, &parts, ui)?;
    for substitute in &stand_in.substitutes {
        ui.say(&format!("substituted {}", substitute.note));
    }
    let dir = tempfile::tempdir().map_err(|error| cannot_write(&std::env::temp_dir(), &error))?;
    let boot = prepared(&parts, &stand_in, &transcript, dir.path())?;
    if args.console {
        ui.say("Ctrl-A x leaves");
        let mut session = Session::start(&boot)?;
        return Ok(attach(&mut session, Source::Uart(0), std::io::stdin(), std::io::stdout())?);
    }
    let outcome = decide(&boot, &expected_lines(&parts, &stand_in)?, args.verbose, ui)?;
    if ui.is_json() {
        ui.object(&json!({
            "type": "qemu",
            "passed": true,
            "identity": bundle.identity.to_string(),
            "seconds": outcome.elapsed.as_secs_f64(),
            "qemu": outcome.qemu,
            "transcript": outcome.transcript.display().to_string(),
        }));
    } else {
        ui.product(&format!(
            "passed: {} on QEMU {}: {} lines of the hypervisor's report as expected, {:.1} s after power-on\ntranscript: {}\n",
            name,
            outcome.qemu,
            outcome.reached.len() - 1,
            outcome.elapsed.as_secs_f64(),
            outcome.transcript.display()
        ));
    }
    Ok(())
}

/// The boot of the parts on the stand-in; their files go to `dir`.
pub fn prepared<'a>(parts: &Parts, stand_in: &StandIn, transcript: &'a Path, dir: &Path) -> Result<Boot<'a>, Failure> {
    Ok(Boot {
        machine: stand_in.machine.clone(),
        preloads: write_preloads(parts, stand_in, dir)?,
        bootcmd: Some(bootcmd(parts)?),
        transcript,
        notes: stand_in.substitutes.iter().map(|s| format!("substituted {}", s.note)).collect(),
        interrupted: check_interrupted,
    })
}

/// Boots, and waits for every line of the hypervisor's report in turn.
pub fn decide(boot: &Boot<'_>, lines: &[String], show: bool, ui: &Ui) -> Result<Outcome, Failure> {
    let failures: Vec<&str> =
        UBOOT_FAILURES.iter().copied().chain([SCRIPT_FAILED, FIRMWARE_FAILED, "stopped:", "panicked:"]).collect();
    let script_done = Expect {
        name: "U-Boot has checked the parts and starts the hypervisor",
        source: Source::Uart(0),
        marker: Marker::LineStart(SCRIPT_DONE.to_owned()),
        timeout: TIMEOUT,
        failures: &failures,
    };
    let mut script = vec![script_done];
    script.extend(report_steps(lines, &failures));
    Ok(emulator::run(boot, &script, &mut |progress| {
        if let Progress::Line(_, line) = progress
            && show
        {
            ui.say(line);
        }
    })?)
}

/// One step for each line of the hypervisor's report.
pub fn report_steps<'l>(lines: &'l [String], failures: &'l [&'l str]) -> Vec<Expect<'l>> {
    let step = |line: &'l String| Expect {
        name: line,
        source: Source::Uart(0),
        marker: Marker::Line(line.clone()),
        timeout: TIMEOUT,
        failures,
    };
    lines.iter().map(step).collect()
}

/// Every loaded part with its address: the bundle's bytes, or what takes their place.
pub fn loaded<'p>(parts: &'p Parts, stand_in: &'p StandIn) -> Vec<(&'p str, TruePhys, &'p [u8])> {
    let manifest = &parts.verified.manifest;
    let with_slot = manifest.parts.iter().filter_map(|part| Some((part, part.slots.first()?.load)));
    with_slot
        .filter_map(|(part, load)| {
            let substitute = stand_in.substitutes.iter().find(|s| s.name == part.name);
            let bytes = substitute.map(|s| &s.bytes).or_else(|| parts.bytes.get(&part.name))?;
            Some((part.name.as_str(), load, bytes.as_slice()))
        })
        .collect()
}

/// What the firmware must print, from its own code on the host.
pub fn expected_lines(parts: &Parts, stand_in: &StandIn) -> Result<Vec<String>, Failure> {
    let tree = &stand_in.substitutes[0].bytes;
    let tree = with_bootargs(tree, &stand_in.plan.hv_bootargs)?;
    let loaded: Vec<_> = loaded(parts, stand_in).into_iter().map(|(_, load, bytes)| (load, bytes)).collect();
    Ok(report(&loaded, &tree))
}

fn write_preloads(parts: &Parts, stand_in: &StandIn, dir: &Path) -> Result<Vec<Preload>, Failure> {
    let mut preloads = Vec::new();
    for (name, addr, bytes) in loaded(parts, stand_in) {
        let path = dir.join(name);
        fs_err::write(&path, bytes).map_err(|error| cannot_write(&path, &error))?;
        preloads.push(Preload { name: name.to_owned(), path, addr });
    }
    Ok(preloads)
}

/// Tells the script that the parts are loaded, and runs it.
fn bootcmd(parts: &Parts) -> Result<String, Failure> {
    let script = parts.part(Role::Script).and_then(|part| part.slots.first());
    match script {
        Some(slot) => Ok(format!("setenv citrine_loaded yes; source {:#x}", slot.load.0)),
        None => Err(Diagnostic::error(NO_STAND_IN, "the bundle has no boot script").into()),
    }
}
