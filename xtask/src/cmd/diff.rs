//! `diff`: how two configurations differ, in the user's words.

use std::path::Path;

use citrine_formats::manifest::Role;
use citrine_planner::diff::{self, Difference, System, text};
use citrine_planner::place;
use serde_json::json;

use crate::artifacts;
use crate::cli::Diff;
use crate::cmd::verify::unreadable;
use crate::dtc::{self, Source};
use crate::project::{Project, read_bytes};
use crate::report::{CmdResult, Failure, Ui};
use crate::smoke::bundle::Parts;

/// Runs `diff`.
pub fn run(args: &Diff, ui: &Ui) -> CmdResult {
    let found = differences(args, ui)?;
    if ui.is_json() {
        found.iter().for_each(|difference| ui.object(&text::to_json(difference)));
        ui.object(&json!({ "type": "diff", "differences": found.len() }));
    } else {
        ui.product(&text::lines(&found));
    }
    if args.exit_code && !found.is_empty() {
        return Err(Failure(Vec::new()));
    }
    Ok(())
}

fn differences(args: &Diff, ui: &Ui) -> Result<Vec<Difference>, Failure> {
    let project = Project::find()?;
    match (describe(&project, &args.before, args, ui), describe(&project, &args.after, args, ui)) {
        (Ok(before), Ok(after)) => Ok(diff::compare(&before, &after)),
        // The mistakes of both, each once: the board is the same.
        (Err(mut a), Err(b)) => {
            let new: Vec<_> = b.0.into_iter().filter(|diagnostic| !a.0.contains(diagnostic)).collect();
            a.0.extend(new);
            Err(a)
        }
        (Err(failure), _) | (_, Err(failure)) => Err(failure),
    }
}

/// What one of the two says; its kind is seen from the end of its name.
fn describe(project: &Project, name: &str, args: &Diff, ui: &Ui) -> Result<System, Failure> {
    match Path::new(name).extension().and_then(|ending| ending.to_str()) {
        Some("dtb") => Ok(diff::tree::describe(name, &read_bytes(Path::new(name))?)?),
        Some("dts") => tree_source(name, ui),
        Some("tar") => bundle(name, args, ui),
        _ => profile(project, name, args.board.as_deref(), ui),
    }
}

fn tree_source(name: &str, ui: &Ui) -> Result<System, Failure> {
    let text = String::from_utf8_lossy(&read_bytes(Path::new(name))?).into_owned();
    ui.add_source(name, &text);
    // The name stands in a line marker, which no quote or line end may break.
    let plain = !name.contains(['"', '\\', '\n']);
    let marked = if plain { format!("# 1 \"{name}\"\n{text}") } else { text.clone() };
    let dtb = dtc::compile(&marked, Source { file: name, text: &text })?;
    Ok(diff::tree::describe(name, &dtb)?)
}

fn bundle(name: &str, args: &Diff, ui: &Ui) -> Result<System, Failure> {
    let parts = Parts::read(Path::new(name), args.keys.as_deref(), ui)?;
    let part = parts.part(Role::Configuration).and_then(|part| parts.bytes.get(&part.name));
    let Some(hv_dtb) = part else {
        return Err(unreadable(name, "it has no configuration tree").into());
    };
    Ok(diff::bundle::describe(name, &parts.verified.manifest, &parts.profile, hv_dtb)?)
}

fn profile(project: &Project, name: &str, board: Option<&str>, ui: &Ui) -> Result<System, Failure> {
    let Some(board) = board else { return Ok(diff::profile::describe(&project.profile(name, ui)?)) };
    let (board, profile) = project.target(board, name, ui)?;
    let plan = place::place(&board, &profile, &artifacts::cached(project, &board, Some(&profile)))?;
    Ok(diff::profile::placed(&plan))
}

#[cfg(test)]
mod tests;
