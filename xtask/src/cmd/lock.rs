//! `lock`: show or renew the pins.

use serde_json::json;

use crate::build::lock::{self, Lock};
use crate::cache::Cache;
use crate::cli;
use crate::progress::watch_signals;
use crate::project::Project;
use crate::report::{CmdResult, Ui};
use crate::setup::{Need, ensure};

/// Runs `lock`.
pub fn run(args: &cli::Lock, ui: &Ui) -> CmdResult {
    let project = Project::find()?;
    let pins = Lock::read(project.root())?;
    if !args.update {
        for (name, source) in &pins.sources {
            show(ui, name, &source.version);
        }
        for (package, version) in &pins.packages {
            show(ui, package, version);
        }
        show(ui, "rustc", &pins.rustc);
        return Ok(());
    }
    watch_signals()?;
    let progress = ui.progress();
    ensure(&[Need::Bundle, Need::Sources], args.setup.yes, &pins, &progress)?;
    let cache = Cache::open(Cache::default_root()?, false)?;
    let changes = lock::update(project.root(), &cache, &progress)?;
    for change in &changes {
        if ui.is_json() {
            ui.object(&json!({ "type": "pin-changed", "change": change }));
        } else {
            ui.product(&format!("{change}\n"));
        }
    }
    if changes.is_empty() {
        ui.say("every pin is the newest of its series");
    }
    Ok(())
}

fn show(ui: &Ui, name: &str, version: &str) {
    if ui.is_json() {
        ui.object(&json!({ "type": "pin", "name": name, "version": version }));
    } else {
        ui.product(&format!("{name:32} {version}\n"));
    }
}
