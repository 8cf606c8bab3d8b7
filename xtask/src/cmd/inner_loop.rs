//! The inner loop as a person types it: `cargo xtask bundle` with nothing changed, and after a profile edit.
//!
//! Times, not ratios: there is no other tool that does this work. So they are printed beside their goals and
//! never judged.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use citrine_planner::diag::Result;
use serde_json::json;

use super::perf::failed;
use crate::bundle::out_dir;
use crate::output::cannot_write;
use crate::project::Project;
use crate::report::Ui;

/// The profile that is built again and again; its bundle is removed afterwards.
const NAME: &str = "perf-loop";

/// Measures both loops, `runs` times each, and prints the medians.
///
/// # Errors
/// `O103` when a run fails, `O101` when the profile cannot be written.
pub fn measure(project: &Project, runs: u32, ui: &Ui) -> Result<()> {
    let dir = tempfile::tempdir().map_err(|error| cannot_write(&std::env::temp_dir(), &error))?;
    let profile = dir.path().join(format!("{NAME}.toml"));
    let shipped = project.root().join("profiles/two-linux.toml");
    let text = std::fs::read_to_string(&shipped)
        .map_err(|error| failed("reading profiles/two-linux.toml", &error.to_string()))?;
    let text = text.replace("name = \"two-linux\"", &format!("name = \"{NAME}\""));
    let write = |edit: u32| -> Result<()> {
        let edited = text.replace("console=ttyEHV0", &format!("console=ttyEHV0 edit={edit}"));
        Ok(std::fs::write(&profile, edited).map_err(|error| cannot_write(&profile, &error))?)
    };
    write(0)?;
    run(project.root(), &profile)?;
    let mut unchanged = Vec::new();
    let mut edited = Vec::new();
    for round in 1..=runs {
        unchanged.push(run(project.root(), &profile)?);
        write(round)?;
        edited.push(run(project.root(), &profile)?);
    }
    remove(&out_dir(project));
    for (work, times, goal) in [("unchanged", unchanged, 100), ("profile edit", edited, 250)] {
        let median = median(times).as_millis();
        if ui.is_json() {
            ui.object(&json!({ "type": "loop", "work": work, "milliseconds": median as u64, "goal": goal }));
        } else {
            ui.product(&format!("cargo xtask bundle, {work}: {median} ms (goal on an idle machine: {goal} ms)\n"));
        }
    }
    Ok(())
}

fn run(root: &Path, profile: &Path) -> Result<Duration> {
    let mut command = Command::new("cargo");
    command.args(["xtask", "bundle", "--offline", "--board", "p4080ds", "--profile"]).arg(profile);
    command.current_dir(root).stdin(Stdio::null());
    // As typed in a fresh shell: what the running cargo has set is not there.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO")) && name != "CARGO_HOME" {
            command.env_remove(name);
        }
    }
    let start = Instant::now();
    let output = command.output().map_err(|error| failed("cargo", &error.to_string()))?;
    let taken = start.elapsed();
    if output.status.success() {
        return Ok(taken);
    }
    Err(failed("`cargo xtask bundle`", String::from_utf8_lossy(&output.stderr).trim()).into())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Removes the bundle of [`NAME`]; what cannot be removed does no harm.
fn remove(out: &Path) {
    for entry in std::fs::read_dir(out).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_name().to_string_lossy().contains(NAME) {
            let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir_all(&path));
        }
    }
}
