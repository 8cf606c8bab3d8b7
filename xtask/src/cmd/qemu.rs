//! `qemu`: boot the bundle's own bytes through the real U-Boot, and decide; or give a person its console.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, json};

use crate::build::lock::Lock;
use crate::bundle::out_dir;
use crate::cli::{BundleArgs, Media, Medium, Qemu, Target};
use crate::cmd::bundle::build;
use crate::emulator::terminal::attach;
use crate::emulator::{Boot, Outcome, Progress as Event, Session, Source};
use crate::output::cannot_write;
use crate::progress::watch_signals;
use crate::project::Project;
use crate::report::{CmdResult, Failure, Ui};
use crate::setup::{Need, ensure};
use crate::smoke::boot::{Expected, Reported, expected, prepared_by, start};
use crate::smoke::bundle::Parts;
use crate::smoke::script::{self, Live};
use crate::smoke::stand_in::{Hardware, prepare};
use crate::smoke::steps::Steps;
use crate::smoke::system::System;

/// Runs `qemu`.
pub fn run(args: &Qemu, ui: &Ui) -> CmdResult {
    let project = Project::find()?;
    let parts = Parts::read(&bundle(&project, args, ui)?, args.keys.as_deref(), ui)?;
    let manifest = &parts.verified.manifest;
    let name = format!("{}-{}", manifest.board, manifest.profile);
    let transcript = args.transcript.clone().unwrap_or_else(|| out_dir(&project).join(format!("{name}.qemu.log")));
    let hardware = Hardware {
        cpu: args.cpu.clone(),
        ram_mib: args.memory,
        key: args.making.key.clone(),
        flash: args.media == Medium::Nor,
        ..Hardware::default()
    };
    let stand_in = prepare(&project, &parts, &hardware, ui)?;
    if args.bundle.is_some() && args.making.key.is_some() && stand_in.plan.profile.trust.is_none() {
        ui.say("--key is not used: the bundle's profile has no [trust]");
    }
    for substitute in &stand_in.substitutes {
        ui.say(&format!("substituted {}", substitute.note));
    }
    let system = System::of(manifest, &stand_in.plan);
    let dir = tempfile::tempdir().map_err(|error| cannot_write(&std::env::temp_dir(), &error))?;
    let boot = prepared_by(args.load, &parts, &stand_in, &transcript, dir.path())?;
    if let Some(console) = &args.console {
        let source = system.console(console)?;
        ui.say(&format!("console {console}: Ctrl-A x leaves; transcripts: {} and beside it", transcript.display()));
        let mut session = Session::start(&boot)?;
        return Ok(attach(&mut session, source, std::io::stdin(), std::io::stdout())?);
    }
    let steps = Steps::of(project.root(), &manifest.profile, &system)?;
    let passed = decide(&boot, &expected(&parts, &stand_in)?, &system, &steps, args.verbose, ui)?;
    print(&passed, &name, &parts.verified.identity.to_string(), ui);
    Ok(())
}

/// The bundle to boot: the one that is named, or the one that is brought up to date.
fn bundle(project: &Project, args: &Qemu, ui: &Ui) -> Result<PathBuf, Failure> {
    if let Some(file) = &args.bundle {
        watch_signals()?;
        let lock = Lock::read(project.root())?;
        ensure(&[Need::Qemu], args.making.setup.yes, &lock, &ui.progress())?;
        return Ok(file.clone());
    }
    // The command line's own rules: without a bundle both are there.
    let target = Target {
        board: args.board.clone().unwrap_or_default(),
        profile: args.profile.clone().unwrap_or_default(),
        hw_dtb: None,
    };
    let media = match args.media {
        Medium::Ram => Media::Ram,
        Medium::Nor => Media::All,
    };
    let args = BundleArgs { target, making: args.making.clone(), media, installed: None, allow_rollback: false };
    Ok(build(project, &args, &[Need::Bundle, Need::Qemu], ui)?.published.tar)
}

/// A smoke boot that passed.
struct Passed {
    outcome: Outcome,
    /// Lines of the hypervisor's report.
    report: usize,
    /// Each partition's first prompt, after power-on.
    prompts: Vec<(String, Duration)>,
}

/// Boots, waits for every line of the hypervisor's report in turn, and talks to everyone.
fn decide(
    boot: &Boot<'_>,
    expected: &Expected,
    system: &System,
    steps: &Steps,
    verbose: bool,
    ui: &Ui,
) -> Result<Passed, Failure> {
    let progress = ui.progress();
    let step = progress.step("smoke boot", None);
    let names = system.channels().names;
    let reached = |what: &str, at: Duration| progress.say(&format!("{:>8.1} s  {what}", at.as_secs_f64()));
    let mut show = |event: Event<'_>| match event {
        Event::Waiting(what) => step.detail(what),
        // Every line of the report is a step.
        Event::Reached(what, at) if !expected.report.iter().any(|line| line == what) => reached(what, at),
        Event::Line(Source::Channel(channel), line) if verbose => {
            progress.say(&format!("{}: {line}", names.get(&channel).map_or("", String::as_str)));
        }
        Event::Reached(..) | Event::Line(..) => {}
    };
    let Reported { mut session, said, at } = start(boot, &expected.report, &mut show)?;
    reached("the hypervisor has reported what it was to report", at);
    let mut live = Live { session: &mut session, show: &mut show };
    let prompts = script::run(&mut live, system, steps, &expected.loads, said)?;
    let outcome = session.passed();
    step.finish("passed");
    Ok(Passed { outcome, report: expected.report.len(), prompts })
}

fn print(passed: &Passed, name: &str, identity: &str, ui: &Ui) {
    let Passed { outcome, report, prompts } = passed;
    let all = prompts.iter().map(|(_, at)| *at).max();
    if ui.is_json() {
        let seconds = |at: &Duration| at.as_secs_f64();
        ui.object(&json!({
            "type": "qemu",
            "passed": true,
            "identity": identity,
            "seconds": seconds(&outcome.elapsed),
            "prompts": prompts.iter().map(|(name, at)| (name.clone(), seconds(at).into())).collect::<Map<_, _>>(),
            "seconds_to_prompts": all.as_ref().map(seconds),
            "qemu": outcome.qemu,
            "transcript": outcome.transcript.display().to_string(),
            "consoles": outcome.consoles,
        }));
        return;
    }
    let mut text = format!(
        "passed: {name} on QEMU {}: {report} lines of the hypervisor's report as expected, {:.1} s after power-on\n",
        outcome.qemu,
        outcome.elapsed.as_secs_f64()
    );
    if let Some(all) = all {
        let each: Vec<String> = prompts.iter().map(|(name, at)| format!("{name} {:.1} s", at.as_secs_f64())).collect();
        text.push_str(&format!("prompts of all partitions after {:.1} s: {}\n", all.as_secs_f64(), each.join(", ")));
    }
    text.push_str(&format!("transcript: {}\n", outcome.transcript.display()));
    for (name, file) in &outcome.consoles {
        text.push_str(&format!("       {name:>4}: {}\n", file.display()));
    }
    ui.product(&text);
}
