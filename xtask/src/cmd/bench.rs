//! `bench`: what the hypervisor costs its guests, in instructions.

use std::path::{Path, PathBuf};

use citrine_formats::manifest::Role;
use citrine_planner::diag::Result as DiagResult;
use serde::Deserialize;
use serde_json::json;

use super::perf::failed;
use crate::bench::{self, Counts, RAM_MIB, images};
use crate::bundle::out_dir;
use crate::cli::{Bench, BundleArgs, Making, Media, Overrides, Target};
use crate::cmd::bundle::build;
use crate::output::cannot_write;
use crate::project::Project;
use crate::report::{CmdResult, Failure, Ui};
use crate::setup::Need;
use crate::smoke::boot::{expected, prepared, start};
use crate::smoke::bundle::Parts;
use crate::smoke::stand_in::{Hardware, prepare};
use crate::smoke::system::System;

/// The board that the bundles are for.
const BOARD: &str = "p4080ds";
/// How far the loop of known length may be off.
const TOLERANCE: f64 = 0.01;

/// What somebody measured last: `tests/perf/bench.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Baseline {
    mfmsr: f64,
    hypercall: f64,
    syscall: f64,
    fork: f64,
    boot: f64,
}

/// What a row is compared with.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Goal {
    /// At most so many instructions.
    Instructions(f64),
    /// At most so many times what it takes on the bare machine.
    Ratio(f64),
    /// Only shown.
    None,
}

/// One line of the result.
#[derive(Clone, PartialEq, Debug)]
struct Row {
    key: &'static str,
    what: &'static str,
    bare: Option<f64>,
    hypervised: Option<f64>,
    target: Goal,
    baseline: Option<f64>,
}

impl Row {
    fn ratio(&self) -> Option<f64> {
        Some(self.hypervised? / self.bare.filter(|bare| *bare > 0.0)?)
    }

    /// Whether the target is met; none without one.
    fn is_met(&self) -> Option<bool> {
        match self.target {
            Goal::Instructions(most) => Some(self.hypervised? <= most),
            Goal::Ratio(most) => Some(self.ratio()? <= most),
            Goal::None => None,
        }
    }
}

/// Runs `bench`.
pub fn run(args: &Bench, ui: &Ui) -> CmdResult {
    let project = Project::find()?;
    let out = out_dir(&project);
    let baseline = std::fs::read_to_string(project.root().join("tests/perf/bench.toml"))
        .ok()
        .and_then(|text| toml::from_str::<Baseline>(&text).ok())
        .ok_or_else(|| failed("reading tests/perf/bench.toml", "it is not the five numbers"))?;
    let dir = tempfile::tempdir().map_err(|error| cannot_write(&std::env::temp_dir(), &error))?;

    ui.say("bench: preparing");
    // The product's own images first, then the same with what measures in them.
    let plain = bundle(&project, "tests/perf/bench-linux.toml", Overrides::default(), args, ui)?;
    let plain = Parts::read(&plain, None, ui)?;
    let kernel = images::timed_kernel(part(&plain, Role::Kernel)?)?;
    let rootfs = images::rootfs(project.root(), dir.path(), part(&plain, Role::Rootfs)?)?;
    let write = |name: &str, bytes: &[u8]| -> DiagResult<PathBuf> {
        let path = dir.path().join(name);
        fs_err::write(&path, bytes).map_err(|error| cannot_write(&path, &error))?;
        Ok(path)
    };
    let (kernel_file, rootfs_file) = (write("kernel.uImage", &kernel)?, write("rootfs.uImage", &rootfs)?);
    let given = Overrides { kernel: Some(kernel_file), rootfs: Some(rootfs_file), hypervisor: None };
    let linux = Parts::read(&bundle(&project, "tests/perf/bench-linux.toml", given, args, ui)?, None, ui)?;
    let small = bundle(&project, "tests/perf/bench-guest.toml", Overrides::default(), args, ui)?;
    let small = Parts::read(&small, None, ui)?;

    let log = |name: &str| out.join(format!("bench-{name}.log"));
    ui.say("bench: the small guest, bare");
    let guest_bare = bench::bare(dir.path(), part(&small, Role::Kernel)?, None, &log("guest-bare"))?;
    ui.say("bench: the small guest under the hypervisor");
    let guest = hypervised(&project, &small, dir.path(), &log("guest"), ui)?;
    ui.say("bench: Linux, bare");
    let linux_bare = bench::bare(dir.path(), &kernel, Some(&rootfs), &log("linux-bare"))?;
    ui.say("bench: Linux under the hypervisor");
    let linux = hypervised(&project, &linux, dir.path(), &log("linux"), ui)?;
    calibrated(&guest_bare)?;
    calibrated(&linux_bare)?;

    let rows = rows(&[guest_bare, guest], &[linux_bare, linux], &baseline);
    print(&rows, &out.join("bench.json"), ui)
}

/// A bundle that is up to date, of the profile in a file of the project.
fn bundle(project: &Project, profile: &str, overrides: Overrides, args: &Bench, ui: &Ui) -> Result<PathBuf, Failure> {
    let profile = project.root().join(profile).display().to_string();
    let target = Target { board: BOARD.to_owned(), profile, hw_dtb: None };
    let making = Making { overrides, setup: args.setup.clone(), ..Making::default() };
    let args = BundleArgs { target, making, media: Media::Ram, installed: None, allow_rollback: false };
    Ok(build(project, &args, &[Need::Bundle, Need::Sources, Need::Qemu, Need::Test], ui)?.published.tar)
}

fn part(parts: &Parts, role: Role) -> DiagResult<&[u8]> {
    let bytes = parts.part(role).and_then(|part| parts.bytes.get(&part.name));
    Ok(bytes.map(Vec::as_slice).ok_or_else(|| failed("the bundle", &format!("it has no {role}")))?)
}

/// Boots a bundle of one partition on one CPU.
fn hypervised(project: &Project, parts: &Parts, dir: &Path, transcript: &Path, ui: &Ui) -> Result<Counts, Failure> {
    let hardware = Hardware { cpus: Some(1), counts: true, ..Hardware::default() };
    let stand_in = prepare(project, parts, &hardware, ui)?;
    let system = System::of(&parts.verified.manifest, &stand_in.plan);
    let console = system.guests.first().ok_or_else(|| failed("the bundle", "it has no partition"))?.console();
    let boot = prepared(parts, &stand_in, transcript, dir)?;
    let report = expected(parts, &stand_in)?.report;
    let mut session = start(&boot, &report, &mut |_| {})?.session;
    let counts = bench::counts(&mut session, console)?;
    session.passed();
    Ok(counts)
}

/// A loop of as many instructions as turns must take as many.
fn calibrated(bare: &Counts) -> DiagResult<()> {
    match bare.each("turn") {
        Some(each) if (each - 1.0).abs() <= TOLERANCE => Ok(()),
        each => {
            let why = format!("one instruction counts as {} of them", each.unwrap_or(f64::NAN));
            Err(failed("QEMU's clock", &why).into())
        }
    }
}

fn rows([guest_bare, guest]: &[Counts; 2], [linux_bare, linux]: &[Counts; 2], baseline: &Baseline) -> Vec<Row> {
    let instruction = |key, what, target, baseline| {
        let (bare, hypervised) = (guest_bare.in_loop(key), guest.in_loop(key));
        Row { key, what, bare, hypervised, target, baseline }
    };
    let linux = |key, what, target, baseline| {
        let (bare, hypervised) = (linux_bare.each(key), linux.each(key));
        Row { key, what, bare, hypervised, target: Goal::Ratio(target), baseline: Some(baseline) }
    };
    let call = guest.each("hypercall");
    vec![
        instruction("mfmsr", "mfmsr in the guest's kernel", Goal::Instructions(22.0), Some(baseline.mfmsr)),
        instruction("wrteei", "wrteei 0", Goal::None, None),
        instruction("mfspr", "mfspr SRR0", Goal::None, None),
        instruction("mtspr", "mtspr SRR0", Goal::None, None),
        Row {
            key: "hypercall",
            what: "hypercall (EV_BYTE_CHANNEL_POLL)",
            bare: None,
            hypervised: call,
            target: Goal::None,
            baseline: Some(baseline.hypercall),
        },
        linux("syscall", "Linux: getppid", 2.0, baseline.syscall),
        linux("fork", "Linux: fork, exec, exit, wait", 1.25, baseline.fork),
        linux("boot", "Linux: kernel entry to the first shell", 1.08, baseline.boot),
    ]
}

fn print(rows: &[Row], file: &Path, ui: &Ui) -> CmdResult {
    let objects: Vec<serde_json::Value> = rows.iter().map(object).collect();
    let written = json!({ "unit": "instructions", "ram_mib": RAM_MIB, "rows": objects });
    fs_err::write(file, format!("{written:#}\n")).map_err(|error| cannot_write(file, &error))?;
    if ui.is_json() {
        objects.iter().for_each(|object| ui.object(object));
        return Ok(());
    }
    let mut text = format!(
        "{:40} {:>12} {:>12} {:>8}  {:14} {:>12}\n",
        "instructions", "bare", "hypervisor", "ratio", "target", "baseline"
    );
    for row in rows {
        text.push_str(&format!(
            "{:40} {:>12} {:>12} {:>8}  {:14} {:>12}\n",
            row.what,
            number(row.bare),
            number(row.hypervised),
            row.ratio().map_or(String::new(), |ratio| format!("{ratio:.3}")),
            target(row),
            number(row.baseline),
        ));
    }
    ui.product(&text);
    Ok(())
}

fn object(row: &Row) -> serde_json::Value {
    let target = match row.target {
        Goal::Instructions(most) => json!({ "instructions": most }),
        Goal::Ratio(most) => json!({ "ratio": most }),
        Goal::None => serde_json::Value::Null,
    };
    json!({
        "type": "bench", "work": row.key, "bare": row.bare, "hypervisor": row.hypervised, "ratio": row.ratio(),
        "target": target, "met": row.is_met(), "baseline": row.baseline,
    })
}

/// Whole instructions, or one digit more of few.
fn number(count: Option<f64>) -> String {
    match count {
        Some(count) if count < 100.0 => format!("{count:.1}"),
        Some(count) => format!("{count:.0}"),
        None => "-".to_owned(),
    }
}

fn target(row: &Row) -> String {
    let most = match row.target {
        Goal::Instructions(most) => format!("{most:.0}"),
        Goal::Ratio(most) => format!("{most:.2}x"),
        Goal::None => return String::new(),
    };
    let verdict = match row.is_met() {
        Some(true) => "met",
        Some(false) => "missed",
        None => "?",
    };
    format!("{most} {verdict}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(bare: Option<f64>, hypervised: f64, target: Goal) -> Row {
        Row { key: "k", what: "w", bare, hypervised: Some(hypervised), target, baseline: None }
    }

    #[test]
    fn targets_are_met_or_missed() {
        assert_eq!(target(&row(Some(1.0), 22.0, Goal::Instructions(22.0))), "22 met");
        assert_eq!(target(&row(Some(1.0), 22.1, Goal::Instructions(22.0))), "22 missed");
        assert_eq!(target(&row(Some(250.0), 500.0, Goal::Ratio(2.0))), "2.00x met");
        assert_eq!(target(&row(None, 500.0, Goal::Ratio(2.0))), "2.00x ?");
        assert_eq!(object(&row(Some(2.0), 3.0, Goal::None))["ratio"], 1.5);
    }

    #[test]
    fn a_clock_that_does_not_count_instructions_is_refused() {
        assert!(calibrated(&Counts::read(b"bench: turn 1000 403\n")).is_ok());
        assert!(calibrated(&Counts::read(b"bench: turn 1000 405\n")).is_err());
        assert!(calibrated(&Counts::default()).is_err());
    }
}
