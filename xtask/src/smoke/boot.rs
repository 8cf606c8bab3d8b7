//! The first half of a smoke boot: the bundle's parts in memory, U-Boot's script, the hypervisor's report.

use std::path::Path;
use std::time::Duration;

use citrine_formats::addr::TruePhys;
use citrine_formats::manifest::Role;
use citrine_planner::diag::{Diagnostic, Result};

use super::bundle::Parts;
use super::expected::{report_on, with_bootargs};
use super::stand_in::{NO_STAND_IN, StandIn};
use super::system::System;
use crate::emulator::{Boot, Expect, Marker, Preload, Progress, Session, Source, UBOOT_FAILURES};
use crate::output::cannot_write;
use crate::progress::check_interrupted;
use crate::report::Failure;

/// What the boot script says when it hands over; the word `checked` is a variable's value, so the script's own
/// text does not hold it.
const SCRIPT_DONE: &str = "citrine: boot script checked, starting";
/// How the last line of the hypervisor's report begins.
const REPORT_ENDS: &str = "citrine: ";
/// What ends the boot as failed besides U-Boot's own messages: the script gives up, the firmware is not ready
/// or stops.
const FAILURES: [&str; 4] = [", nothing was started", "citrine: FAILED", "stopped:", "panicked:"];
/// Generous: the host may be busy, and a failure is seen by its own marker long before.
const TIMEOUT: Duration = Duration::from_secs(120);

/// The boot of the parts on the stand-in; their files go to `dir`.
///
/// # Errors
/// A file that cannot be written, or a bundle without a script.
pub fn prepared<'a>(
    parts: &Parts,
    stand_in: &StandIn,
    transcript: &'a Path,
    dir: &Path,
) -> std::result::Result<Boot<'a>, Failure> {
    Ok(Boot {
        machine: stand_in.machine.clone(),
        preloads: write_preloads(parts, stand_in, dir)?,
        bootcmd: Some(bootcmd(parts)?),
        channels: Some(System::of(&parts.verified.manifest, &stand_in.plan).channels()),
        transcript,
        notes: stand_in.substitutes.iter().map(|s| format!("substituted {}", s.note)).collect(),
        interrupted: check_interrupted,
    })
}

/// A machine whose hypervisor has reported.
#[derive(Debug)]
pub struct Reported {
    /// The machine.
    pub session: Session,
    /// All that the hypervisor's console has said so far.
    pub said: Vec<u8>,
    /// When the last line came, after power-on.
    pub at: Duration,
}

/// Boots until the hypervisor has printed every line of its report, in turn.
///
/// # Errors
/// The first thing that went wrong: `Q101` to `Q107`.
pub fn start(boot: &Boot<'_>, lines: &[String], show: &mut dyn FnMut(Progress<'_>)) -> Result<Reported> {
    let failures: Vec<&str> = UBOOT_FAILURES.iter().copied().chain(FAILURES).collect();
    let source = console(boot);
    let mut script = vec![Expect {
        name: "U-Boot has checked the parts and starts the hypervisor",
        source,
        marker: Marker::LineStart(SCRIPT_DONE.to_owned()),
        timeout: TIMEOUT,
        failures: &failures,
    }];
    script.extend(report_steps(source, lines, &failures));
    let mut reported = Reported { session: Session::start(boot)?, said: Vec::new(), at: Duration::ZERO };
    for expect in &script {
        let seen = reported.session.wait_for(expect, show)?;
        reported.said.extend(seen.bytes);
        reported.at = seen.at;
    }
    Ok(reported)
}

/// The console of U-Boot and of the hypervisor's report.
pub fn console(boot: &Boot<'_>) -> Source {
    boot.channels.as_ref().map_or(Source::Uart(0), |channels| Source::Channel(channels.first))
}

/// One step for each line of the hypervisor's report.
pub fn report_steps<'l>(source: Source, lines: &'l [String], failures: &'l [&'l str]) -> Vec<Expect<'l>> {
    let step = |line: &'l String| Expect {
        name: line,
        source,
        marker: Marker::Line(line.clone()),
        timeout: TIMEOUT,
        failures,
    };
    lines.iter().map(step).collect()
}

/// Every loaded part with its address: the bundle's bytes, or what takes their place.
fn loaded<'p>(parts: &'p Parts, stand_in: &'p StandIn) -> Vec<(&'p str, TruePhys, &'p [u8])> {
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

/// What the firmware must print.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Expected {
    /// The report of the start, line by line.
    pub report: Vec<String>,
    /// What loading the partitions says. They load at once, so the lines have no order.
    pub loads: Vec<String>,
}

/// What the firmware must print, from its own code on the host.
///
/// # Errors
/// A hardware tree that is none.
pub fn expected(parts: &Parts, stand_in: &StandIn) -> Result<Expected> {
    let tree = &stand_in.substitutes[0].bytes;
    let tree = with_bootargs(tree, &stand_in.plan.hv_bootargs)?;
    let loaded: Vec<_> = loaded(parts, stand_in).into_iter().map(|(_, load, bytes)| (load, bytes)).collect();
    let mut report = report_on(&stand_in.machine.cpu, &loaded, &tree);
    let last = report.iter().position(|line| line.starts_with(REPORT_ENDS)).map_or(report.len(), |at| at + 1);
    let loads = report.split_off(last);
    Ok(Expected { report, loads })
}

fn write_preloads(parts: &Parts, stand_in: &StandIn, dir: &Path) -> Result<Vec<Preload>> {
    let mut preloads = Vec::new();
    for (name, addr, bytes) in loaded(parts, stand_in) {
        let path = dir.join(name);
        fs_err::write(&path, bytes).map_err(|error| cannot_write(&path, &error))?;
        preloads.push(Preload { name: name.to_owned(), path, addr });
    }
    Ok(preloads)
}

/// Tells the script that the parts are loaded, and runs it.
fn bootcmd(parts: &Parts) -> Result<String> {
    let script = parts.part(Role::Script).and_then(|part| part.slots.first());
    match script {
        Some(slot) => Ok(format!("setenv citrine_loaded yes; source {:#x}", slot.load.0)),
        None => Err(Diagnostic::error(NO_STAND_IN, "the bundle has no boot script").into()),
    }
}
