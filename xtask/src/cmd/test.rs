//! `test`: the gate. Format, lints, every test of the project; with `--full` also the long proofs.

use std::path::Path;
use std::process::Command;

use citrine_planner::diag::Diagnostic;
use serde_json::json;

use super::fuzz::{self, Budget};
use super::promises;
use crate::build::lock::Lock;
use crate::cli::Test;
use crate::project::Project;
use crate::report::{CmdResult, Failure, Ui};
use crate::setup::{Need, ensure};
use crate::tools::FAILED;

/// The feature that holds what `--full` adds.
const LONG: &str = "xtask/long-proofs";
/// The firmware has no tests of its own and compiles only for its own target.
const HOST: [&str; 3] = ["--workspace", "--exclude", "citrine-firmware"];
/// Inputs that fuzzing tries of each target: half a minute.
const FUZZ_RUNS: u32 = 20_000;

/// Runs `test`.
pub fn run(args: &Test, ui: &Ui) -> CmdResult {
    let project = Project::find()?;
    let lock = Lock::read(project.root())?;
    let needs = [Need::Bundle, Need::Sources, Need::Qemu, Need::Test, Need::Fuzz, Need::Proofs];
    // Only the long proofs need the last two.
    let needs = if args.full { &needs[..] } else { &needs[..4] };
    ensure(needs, args.setup.yes, &lock, &ui.progress())?;
    let mut steps: Vec<(&str, Vec<&str>)> = vec![
        ("format", vec!["fmt", "--all", "--check"]),
        // The long proofs must at least compile: nobody waits for them at every change.
        (
            "lints",
            [&["clippy", "--locked", "--all-targets", "--features", LONG][..], &HOST, &["--", "-D", "warnings"]]
                .concat(),
        ),
        (
            "lints of the firmware",
            vec![
                "clippy",
                "--locked",
                "-p",
                "citrine-firmware",
                "--profile",
                "firmware",
                "--target",
                "powerpc-unknown-linux-gnu",
                "--",
                "-D",
                "warnings",
            ],
        ),
        ("tests", [&["test", "--locked"][..], &HOST].concat()),
    ];
    if args.full {
        steps.push((
            "long proofs",
            vec![
                "test",
                "--locked",
                "-p",
                "xtask",
                "--features",
                "long-proofs",
                "--test",
                "proofs",
                "--",
                "--test-threads=1",
                "--nocapture",
            ],
        ));
        steps.push((
            "long smoke boots",
            vec![
                "test",
                "--locked",
                "-p",
                "xtask",
                "--features",
                "long-proofs",
                "--bin",
                "xtask",
                "--",
                "smoke::tests::beside_linux",
                "smoke::tests::high_memory",
                "smoke::tests::labgrid",
                "--test-threads=1",
                "--nocapture",
            ],
        ));
    }
    for (name, arguments) in &steps {
        ui.say(&format!("== {name}: cargo {}", arguments.join(" ")));
        cargo(project.root(), arguments, args.bless, args.full).map_err(|why| failed(name, arguments, &why))?;
    }
    let mut done: Vec<&str> = steps.iter().map(|step| step.0).collect();
    if args.full {
        for target in fuzz::targets(project.root())? {
            ui.say(&format!("== fuzzing: {target}, {FUZZ_RUNS} inputs"));
            fuzz::fuzz(project.root(), &target, Budget::Runs(FUZZ_RUNS))?;
        }
        done.push("fuzzing");
    }
    if ui.is_json() {
        ui.object(&json!({ "type": "test", "steps": done }));
    } else {
        ui.say(&format!("all {} steps passed", done.len()));
    }
    Ok(())
}

/// Cargo in the checkout, as if it had been called by hand.
pub(super) fn clean_cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    // What the outer `cargo run` says of the tool's own package is not for the inner cargo.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name == "CARGO_MANIFEST_DIR") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs cargo with the output to this process's own; what it failed with is the error.
fn cargo(root: &Path, arguments: &[&str], bless: bool, full: bool) -> Result<(), String> {
    let mut command = clean_cargo(root);
    command.args(arguments);
    if bless {
        command.env("CITRINE_BLESS", "1");
    }
    if full {
        command.env(promises::FULL, "1");
    }
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(status.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

fn failed(name: &str, arguments: &[&str], why: &str) -> Failure {
    Diagnostic::error(FAILED, format!("the step `{name}` failed: {why}"))
        .help(format!("what went wrong stands above; again, by itself: cargo {}", arguments.join(" ")))
        .into()
}
