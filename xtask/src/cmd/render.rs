//! `render`: print hv.dts or the U-Boot script.

use citrine_planner::diag::has_errors;
use citrine_planner::render::{Digests, boot_cmd, hv_dts, strip_markers};
use citrine_planner::{place, rules};

use crate::artifacts;
use crate::cli::Render;
use crate::project::{Project, template};
use crate::report::{CmdResult, Ui};

/// Runs `render`. What can be printed is printed even with errors.
pub fn run(args: &Render, ui: &Ui) -> CmdResult {
    let project = Project::find()?;
    let (board, profile) = project.target(&args.target.board, &args.target.profile, ui)?;
    let mut plan = place::place(&board, &profile, &artifacts::cached(&project, &board))?;
    plan.hypervisor = artifacts::chosen(args.hypervisor.as_deref())?;
    let found = rules::check(&plan);
    let text = if args.script {
        boot_cmd(&plan, &template(&project.template("boot.cmd.j2", ui)?))?
    } else {
        strip_markers(&hv_dts(&plan, &Digests::new(), &template(&project.template("hv.dts.j2", ui)?))?)
    };
    if ui.is_json() {
        ui.object(&serde_json::json!({ "type": "render", "text": text }));
    } else {
        ui.product(&text);
    }
    if has_errors(&found) {
        return Err(found.into());
    }
    ui.diagnostics(&found);
    Ok(())
}
