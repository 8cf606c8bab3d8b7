//! `fuzz`: libFuzzer on a target of `tests/fuzz`, from the inputs that are kept there.
//!
//! The program is built apart from everything else, with flags that let it see which branches an input takes; those
//! are ordinary code generation flags, so that the compiler of the tool will do. What is found interesting is kept in
//! the build directory; what breaks a promise is named, to be added to the kept inputs once the cause is cured.

use std::path::Path;
use std::process::Command;

use citrine_planner::diag::{Diagnostic, Result};
use serde_json::json;

use super::test::clean_cargo;
use crate::build::lock::Lock;
use crate::cache::io_error;
use crate::cli::Fuzz;
use crate::project::{NO_SUCH_FILE, Project};
use crate::report::{CmdResult, Ui};
use crate::setup::{Need, ensure};
use crate::tools::{CANNOT_START, FAILED};

/// Where it is built, and keeps what it finds, in the checkout.
const DIR: &str = "target/fuzz";
/// Counters at every edge, and comparisons as hints; what would panic in a debug build panics.
const FLAGS: [&str; 8] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
    "-Cdebug-assertions=on",
    "-Coverflow-checks=on",
];
/// The host; naming it keeps the flags away from build scripts.
const HOST: &str = env!("CITRINE_HOST");

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub enum Budget {
    /// After this many seconds.
    Seconds(u32),
    /// After this many inputs.
    Runs(u32),
}

/// Runs `fuzz`.
pub fn run(args: &Fuzz, ui: &Ui) -> CmdResult {
    let project = Project::find()?;
    let lock = Lock::read(project.root())?;
    let targets = targets(project.root())?;
    if !targets.contains(&args.target) {
        let message = format!("there is nothing called {} to fuzz", args.target.escape_debug());
        let help = format!("there is {}", targets.join(", "));
        return Err(Diagnostic::error(NO_SUCH_FILE, message).help(help).into());
    }
    ensure(&[Need::Fuzz], args.setup.yes, &lock, &ui.progress())?;
    fuzz(project.root(), &args.target, Budget::Seconds(args.seconds))?;
    if ui.is_json() {
        ui.object(&json!({ "type": "fuzz", "target": args.target, "seconds": args.seconds }));
    } else {
        ui.say(&format!("{}: no promise was broken in {} s", args.target, args.seconds));
    }
    Ok(())
}

/// The targets, by the names of their kept inputs' directories.
///
/// # Errors
/// A file error.
pub fn targets(root: &Path) -> Result<Vec<String>> {
    let dir = root.join("tests/fuzz/corpus");
    let fail = |error| io_error(&dir, &error);
    let mut names = Vec::new();
    for entry in fs_err::read_dir(&dir).map_err(fail)? {
        names.extend(entry.map_err(fail)?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

/// Fuzzes one target.
///
/// # Errors
/// [`FAILED`]: it does not compile, or an input broke a promise.
pub fn fuzz(root: &Path, target: &str, budget: Budget) -> Result<()> {
    let manifest = "tests/fuzz/libfuzzer/Cargo.toml";
    let mut cargo = clean_cargo(root);
    cargo.args(["build", "--quiet", "--locked", "--manifest-path", manifest, "--target", HOST, "--target-dir", DIR]);
    succeed(cargo.env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}")), "the compiler's message stands above")?;

    let (found, broken) = (root.join(DIR).join("corpus").join(target), root.join(DIR).join("broken").join(target));
    for dir in [&found, &broken] {
        fs_err::create_dir_all(dir).map_err(|error| io_error(dir, &error))?;
    }
    let mut fuzzer = Command::new(root.join(DIR).join(HOST).join("debug/citrine-libfuzzer"));
    fuzzer.current_dir(root).env("CITRINE_FUZZ_TARGET", target);
    fuzzer.args(["-max_len=4096", "-timeout=30", "-rss_limit_mb=2048"]);
    fuzzer.arg(format!("-artifact_prefix={}/", broken.display()));
    match budget {
        Budget::Seconds(seconds) => fuzzer.arg(format!("-max_total_time={seconds}")),
        Budget::Runs(runs) => fuzzer.arg(format!("-runs={runs}")).arg("-verbosity=0"),
    };
    // What is new goes to the first directory.
    fuzzer.arg(&found).arg(root.join("tests/fuzz/corpus").join(target));
    let help = format!(
        "the input is in {}: cure the cause, and add the input to tests/fuzz/corpus/{target}/",
        broken.display()
    );
    succeed(&mut fuzzer, &help)
}

/// Runs a program whose output is for the user.
fn succeed(command: &mut Command, help: &str) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Diagnostic::error(FAILED, format!("`{name}` failed ({status})")).help(help).into()),
        Err(error) => Err(Diagnostic::error(CANNOT_START, format!("`{name}`: {error}")).help(help).into()),
    }
}
