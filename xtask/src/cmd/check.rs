//! `check`: find every mistake without building anything.

use citrine_formats::addr::Size;
use citrine_planner::diag::{Diagnostic, Severity, has_errors};
use citrine_planner::map::{MemoryMap, headroom};
use citrine_planner::plan::LoadPlan;
use citrine_planner::render::{Digests, has_own_source, hv_dts};
use citrine_planner::{place, rules};
use serde_json::json;

use crate::artifacts;
use crate::cli::Check;
use crate::project::{Project, template};
use crate::report::{CmdResult, Failure, Ui};

/// Runs `check`.
pub fn run(args: &Check, ui: &Ui) -> CmdResult {
    let (plan, found) = judge(&Project::find()?, args, ui)?;
    ui.diagnostics(&found);
    if ui.is_json() {
        ui.object(&json!({
            "type": "check",
            "board": plan.board.name,
            "profile": plan.profile.name,
            "warnings": warnings(&found),
            "parts": plan.parts.iter().map(|part| json!({
                "name": part.file,
                "load": part.load,
                "window": part.window,
                "size": plan.size_of(part),
            })).collect::<Vec<_>>(),
        }));
    } else {
        ui.product(&summary(&plan, &found));
    }
    Ok(())
}

/// The whole work without its report: the plan, and what is to be said of it besides.
///
/// # Errors
/// Every mistake that stops a bundle.
pub fn judge(project: &Project, args: &Check, ui: &Ui) -> Result<(LoadPlan, Vec<Diagnostic>), Failure> {
    let (board, profile) = project.target_of(&args.target, ui)?;
    let mut plan = place::place(&board, &profile, &artifacts::cached(project, &board, Some(&profile)))?;
    plan.hypervisor = artifacts::chosen(args.hypervisor.as_deref())?.unwrap_or(plan.hypervisor);
    let mut found = rules::check(&plan);
    if has_own_source(&plan) {
        let shape = project.template("hv.dts.j2", ui)?;
        found.extend(hv_dts(&plan, &Digests::new(), &template(&shape)).err().map(|error| *error));
    }
    if has_errors(&found) { Err(found.into()) } else { Ok((plan, found)) }
}

fn warnings(found: &[Diagnostic]) -> usize {
    found.iter().filter(|diagnostic| diagnostic.severity == Severity::Warning).count()
}

/// What a person wants to know of a good layout.
pub(crate) fn summary(plan: &LoadPlan, found: &[Diagnostic]) -> String {
    let mut text = format!("{} fits {}", plan.profile.name, plan.board.name);
    match warnings(found) {
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
