//! The first half of a smoke boot: the bundle's parts in memory, U-Boot's script, the hypervisor's report.

use std::path::Path;
use std::time::Duration;

use citrine_formats::addr::TruePhys;
use citrine_formats::manifest::{Media, Role};
use citrine_planner::diag::Result;
use citrine_planner::plan::Part;

use super::bundle::Parts;
use super::expected::{report_on, with_bootargs};
use super::load::{LOADED, Load, Loading, loading};
use super::nor;
use super::stand_in::StandIn;
use super::system::System;
use crate::emulator::{Boot, Expect, Marker, Progress, Session, Source, UBOOT_FAILURES};
use crate::progress::check_interrupted;
use crate::report::Failure;

/// What the boot script says when it hands over; the word `checked` is a variable's value, so the script's own
/// text does not hold it.
const SCRIPT_DONE: &str = "citrine: boot script checked, starting";
/// What the boot script says first, and what that means: so it is known which of its ways it went.
const FOUND: (&str, &str) = ("U-Boot finds the parts in memory", "citrine: parts are loaded already");
const FETCHED: (&str, &str) = ("U-Boot fetches the parts by TFTP", "citrine: loading from ");
const IN_FLASH: (&str, &str) = ("U-Boot finds the parts in the flash", "citrine: checking the parts");
/// How the last line of the hypervisor's report begins.
const REPORT_ENDS: &str = "citrine: ";
/// What ends the boot as failed besides U-Boot's own messages: the script gives up, the firmware is not ready
/// or stops.
const FAILURES: [&str; 4] = [", nothing was started", "citrine: FAILED", "stopped:", "panicked:"];
/// What U-Boot says of a place where no script is, among its failures.
const NO_SCRIPT: &str = "Wrong image format";
/// Generous: the host may be busy, and a failure is seen by its own marker long before.
const TIMEOUT: Duration = Duration::from_secs(120);

/// The boot of the parts on the stand-in, with each at its address beforehand; their files go to `dir`.
///
/// # Errors
/// See [`prepared_by`].
pub fn prepared<'a>(
    parts: &Parts,
    stand_in: &StandIn,
    transcript: &'a Path,
    dir: &Path,
) -> std::result::Result<Boot<'a>, Failure> {
    prepared_by(Load::Preloaded, parts, stand_in, transcript, dir)
}

/// The boot of the parts on the stand-in, which come into its memory by `way`; files for that go to `dir`.
///
/// # Errors
/// A file that cannot be written, a bundle without a script, parts that make no RAM image.
pub fn prepared_by<'a>(
    way: Load,
    parts: &Parts,
    stand_in: &StandIn,
    transcript: &'a Path,
    dir: &Path,
) -> std::result::Result<Boot<'a>, Failure> {
    let mut machine = stand_in.machine.clone();
    let mut loading = if stand_in.plan.media == Media::Nor {
        let flash = dir.join("nor.img");
        nor::write(&stand_in.plan, &loaded(parts, stand_in), &flash)?;
        machine.flash = Some(flash);
        Loading { bootcmd: nor::bootcmd(&stand_in.plan).unwrap_or_default(), ..Loading::default() }
    } else {
        loading(way, parts, stand_in, dir)?
    };
    machine.tftp = loading.tftp.take();
    let Loading { preloads, bootcmd, notes, .. } = loading;
    let substituted = stand_in.substitutes.iter().map(|s| format!("substituted {}", s.note));
    Ok(Boot {
        machine,
        preloads,
        bootcmd: Some(bootcmd),
        channels: Some(System::of(&parts.verified.manifest, &stand_in.plan).channels()),
        transcript,
        notes: substituted.chain(notes).collect(),
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
    // In the flash, one of the two scripts may be erased.
    let is_failure = |text: &&str| boot.machine.flash.is_none() || *text != NO_SCRIPT;
    let failures: Vec<&str> = UBOOT_FAILURES.iter().copied().filter(is_failure).chain(FAILURES).collect();
    let source = console(boot);
    let told = boot.bootcmd.as_deref().is_some_and(|command| command.contains(LOADED));
    let (fetching, begins) = match (&boot.machine.flash, told) {
        (Some(_), _) => IN_FLASH,
        (None, true) => FOUND,
        (None, false) => FETCHED,
    };
    let marker = Marker::LineStart(begins.to_owned());
    let mut script = vec![Expect { name: fetching, source, marker, timeout: TIMEOUT, failures: &failures }];
    script.push(Expect {
        name: "U-Boot has checked the parts and starts the hypervisor",
        source,
        marker: Marker::LineStart(SCRIPT_DONE.to_owned()),
        timeout: TIMEOUT,
        failures: &failures,
    });
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
pub(super) fn loaded<'p>(parts: &'p Parts, stand_in: &'p StandIn) -> Vec<(&'p str, TruePhys, &'p [u8])> {
    let found = |part: &'p Part| {
        // The hardware tree has the name of the bundle's board.
        let tree = stand_in.substitutes.first().filter(|_| part.role == Role::HardwareTree);
        match tree.or_else(|| stand_in.substitutes.iter().find(|s| s.name == part.file)) {
            Some(substitute) => Some((substitute.name.as_str(), part.load, substitute.bytes.as_slice())),
            None => Some((part.file.as_str(), part.load, parts.bytes.get(&part.file)?.as_slice())),
        }
    };
    stand_in.plan.parts.iter().filter_map(found).collect()
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
    let mut report = report_on(&stand_in.machine.cpu, &loaded, &tree, parts.profile.trust);
    let last = report.iter().position(|line| line.starts_with(REPORT_ENDS)).map_or(report.len(), |at| at + 1);
    let loads = report.split_off(last);
    Ok(Expected { report, loads })
}
