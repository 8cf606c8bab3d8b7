//! `plan`: the memory map, as a table, as JSON or as a picture.

use std::path::PathBuf;

use citrine_planner::board::Board;
use citrine_planner::diag::has_errors;
use citrine_planner::map::{MemoryMap, json, svg, table};
use citrine_planner::place::{self, Second};
use citrine_planner::plan::LoadPlan;
use citrine_planner::profile::Profile;
use citrine_planner::rules;
use citrine_planner::stages::Stage;

use crate::artifacts;
use crate::build::Context;
use crate::build::lock::Lock;
use crate::bundle::planned;
use crate::cache::Cache;
use crate::cli::{MapFormat, Medium, Overrides, Plan};
use crate::output::write_file;
use crate::progress::Progress;
use crate::project::Project;
use crate::report::{CmdResult, Failure, Ui};

/// Runs `plan`. What can be shown is shown even with errors.
pub fn run(args: &Plan, ui: &Ui) -> CmdResult {
    let project = Project::find()?;
    let (board, profile) = project.target_of(&args.target, ui)?;
    let capabilities = artifacts::chosen(args.hypervisor.as_deref())?;
    let mut plan = match (args.media, from_cache(&project, &board, &profile, args.hypervisor.clone(), ui)) {
        (Medium::Nor, ram) => {
            let known = artifacts::cached(&project, &board, Some(&profile));
            let mut plan = place::place_in_flash(&board, &profile, &known, &Second::new())?;
            plan.facts.extend(ram.map(|ram| ram.facts).unwrap_or_default());
            plan
        }
        (Medium::Ram, Ok(plan)) => plan,
        (Medium::Ram, Err(_)) => place::place(&board, &profile, &artifacts::cached(&project, &board, Some(&profile)))?,
    };
    plan.hypervisor = capabilities.unwrap_or(profile.hypervisor.firmware.capabilities());
    let found = rules::check(&plan);
    let map = MemoryMap::of(&plan);
    let stages = if args.stage.is_empty() { &Stage::ALL[..] } else { &args.stage };
    let product = match format(args, ui) {
        MapFormat::Table => table::render(&map, stages),
        MapFormat::Json => format!("{}\n", json::render(&map, stages)),
        MapFormat::Svg => svg::render(&map, stages),
    };
    match &args.output {
        Some(file) => write_file(file, product.as_bytes())?,
        None => ui.product(&product),
    }
    if has_errors(&found) {
        return Err(found.into());
    }
    ui.diagnostics(&found);
    Ok(())
}

/// The form that was asked for, or that the file's name promises.
fn format(args: &Plan, ui: &Ui) -> MapFormat {
    let ending = args.output.as_ref().and_then(|file| file.extension()?.to_str());
    match (args.format, ending) {
        (Some(format), _) => format,
        _ if ui.is_json() => MapFormat::Json,
        (None, Some("svg")) => MapFormat::Svg,
        (None, Some("json")) => MapFormat::Json,
        (None, _) => MapFormat::Table,
    }
}

/// The plan with the real size of every part, if all of them are in the cache.
fn from_cache(
    project: &Project,
    board: &Board,
    profile: &Profile,
    hypervisor: Option<PathBuf>,
    ui: &Ui,
) -> Result<LoadPlan, Failure> {
    let overrides = Overrides { hypervisor, ..Overrides::default() };
    let lock = Lock::read(project.root())?;
    let cache = Cache::open(Cache::default_root()?, true)?;
    let progress = Progress::hidden(|_| {});
    let context = Context::new(project.root(), &cache, &lock, false, &progress)?;
    Ok(planned(project, &context, (board, profile), &overrides, ui)?.plan)
}
