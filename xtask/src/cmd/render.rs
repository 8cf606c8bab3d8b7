//! `render`: print hv.dts or the U-Boot script.

use citrine_planner::diag::has_errors;
use citrine_planner::place::{self, Second};
use citrine_planner::render::{Digests, boot_cmd, hv_dts, strip_markers};
use citrine_planner::rules;

use crate::artifacts;
use crate::cli::{Medium, Render};
use crate::project::{Project, template};
use crate::report::{CmdResult, Ui};

/// Runs `render`. What can be printed is printed even with errors.
pub fn run(args: &Render, ui: &Ui) -> CmdResult {
    let project = Project::find()?;
    let (board, profile) = project.target_of(&args.target, ui)?;
    let known = artifacts::cached(&project, &board, Some(&profile));
    let mut plan = match args.media {
        Medium::Ram => place::place(&board, &profile, &known)?,
        Medium::Nor => place::place_in_flash(&board, &profile, &known, &Second::new())?,
    };
    plan.hypervisor = artifacts::chosen(args.hypervisor.as_deref())?.unwrap_or(plan.hypervisor);
    let found = rules::check(&plan);
    let text = if args.script {
        boot_cmd(&plan, &template(&project.template("boot.cmd.j2", ui)?))?
    } else {
        strip_markers(&hv_dts(&plan, &Digests::new(), &template(&project.template("hv.dts.j2", ui)?))?)
    };
    ui.text("render", &text);
    if has_errors(&found) {
        return Err(found.into());
    }
    ui.diagnostics(&found);
    Ok(())
}
