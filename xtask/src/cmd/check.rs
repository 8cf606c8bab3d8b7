//! `check`: find every mistake without building anything.

use citrine_formats::addr::Size;
use citrine_planner::diag::has_errors;
use citrine_planner::map::{MemoryMap, headroom};
use citrine_planner::plan::LoadPlan;
use citrine_planner::{place, rules};
use serde_json::json;

use crate::artifacts;
use crate::cli::Check;
use crate::project::Project;
use crate::report::{CmdResult, Ui};

/// Runs `check`.
pub fn run(args: &Check, ui: &Ui) -> CmdResult {
    let project = Project::find()?;
    let (board, profile) = project.target(&args.target.board, &args.target.profile, ui)?;
    let mut plan = place::place(&board, &profile, &artifacts::cached(&project, &board))?;
    plan.hypervisor = artifacts::chosen(args.hypervisor.as_deref())?;
    let found = rules::check(&plan);
    if has_errors(&found) {
        return Err(found.into());
    }
    ui.diagnostics(&found);
    if ui.is_json() {
        ui.object(&json!({
            "type": "check",
            "board": board.name,
            "profile": profile.name,
            "warnings": found.len(),
            "parts": plan.parts.iter().map(|part| json!({
                "name": part.file,
                "load": part.load,
                "window": part.window,
                "size": plan.size_of(part),
            })).collect::<Vec<_>>(),
        }));
    } else {
        ui.product(&summary(&plan, found.len()));
    }
    Ok(())
}

/// What a person wants to know of a good layout.
pub(crate) fn summary(plan: &LoadPlan, warnings: usize) -> String {
    let mut text = format!("{} fits {}", plan.profile.name, plan.board.name);
    match warnings {
        0 => {}
        1 => text.push_str(", with 1 warning"),
        n => text.push_str(&format!(", with {n} warnings")),
    }
    text.push('\n');
    for partition in &plan.partitions {
        let memory = &plan.areas[partition.memory];
        let cpus = match partition.cpus.len() {
            1 => "1 CPU".to_owned(),
            count => format!("{count} CPUs"),
        };
        text.push_str(&format!(
            "  {:12} {} ({}), {} at {}, console on channel {}\n",
            partition.label,
            cpus,
            citrine_planner::units::cpu_list(&partition.cpus),
            Size(memory.span.len()),
            memory.span.base(),
            partition.console,
        ));
    }
    let map = MemoryMap::of(plan);
    for part in &plan.parts {
        if let Some(growth) = headroom(&map, &part.file) {
            text.push_str(&format!("  {:12} {growth}\n", part.file));
        }
    }
    text
}
