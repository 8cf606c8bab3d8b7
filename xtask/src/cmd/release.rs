//! `release`: all bundles, and everything that makes them trustworthy, in one directory.

use std::path::{Path, PathBuf};
use std::time::Instant;

use citrine_formats::addr::Size;
use citrine_planner::diag::Diagnostic;
use citrine_planner::release::DEVELOPMENT;
use citrine_planner::release::recipe::{Cell, Recipe};
use serde_json::json;

use crate::artifacts::{cached, needs_sources};
use crate::build::Context;
use crate::build::lock::Lock;
use crate::bundle::out_dir;
use crate::cli::Overrides;
use crate::cli::release::Release;
use crate::cmd::bundle::{open_cache, remote_address};
use crate::output;
use crate::progress::{human, watch_signals};
use crate::project::Project;
use crate::release::check::Checked;
use crate::release::schedule::{Budget, Job, Outcome};
use crate::release::{cell, finish, recipe, schedule, work_dir};
use crate::report::{CmdResult, Failure, Ui};
use crate::setup::{Need, ensure};
use crate::sign::{self, Signer};

/// Runs `release`.
pub fn run(args: &Release, ui: &Ui) -> CmdResult {
    let project = Project::find()?;
    if let (Some(name), Some(out)) = (&args.cell, &args.output) {
        return cell::run(&project, args, name, out, ui);
    }
    let started = Instant::now();
    watch_signals()?;
    let (recipe, cells) = recipe(&project, &args.file, ui)?;
    let key = sign::signer(Some(&args.key))?;
    if key.is_development() {
        return Err(Diagnostic::error(DEVELOPMENT, "a development key cannot sign a release")
            .help("make a key for releases with `cargo xtask keygen FILE`, and keep it where nobody else reads it")
            .into());
    }
    let output = match &args.output {
        Some(output) => std::path::absolute(output).map_err(|error| output::cannot_write(output, &error))?,
        None => out_dir(&project).join(format!("release-{}", recipe.version)),
    };
    let work = work_dir(&output);
    if output.symlink_metadata().is_ok() {
        let checked = finish::there(&output, &recipe, &cells, key.public())?;
        let _ = std::fs::remove_dir_all(&work);
        report(&checked, &output, None, started, ui);
        return Ok(());
    }
    std::fs::create_dir_all(&work).map_err(|error| output::cannot_write(&work, &error))?;
    // A second command for the same release waits here.
    let turn = output::lock(&work)?;
    let (checked, outcome) = build(&project, args, (&recipe, &cells, &key), &work, &output, ui)?;
    drop(turn);
    let _ = std::fs::remove_dir_all(&work);
    report(&checked, &output, Some(&outcome), started, ui);
    Ok(())
}

fn build(
    project: &Project,
    args: &Release,
    (recipe, cells, key): (&Recipe, &[Cell], &Signer),
    work: &Path,
    output: &Path,
    ui: &Ui,
) -> Result<(Checked, Outcome), Failure> {
    let progress = ui.progress();
    let lock = Lock::read(project.root())?;
    let mut jobs = Vec::new();
    let mut needs = vec![Need::Bundle];
    for cell in cells {
        let (board, profile) = project.target(&cell.board, &cell.profile, ui)?;
        let from_sources = needs_sources(&profile, &Overrides::default());
        if from_sources && !needs.contains(&Need::Sources) {
            needs.push(Need::Sources);
        }
        let known = cached(project, &board, Some(&profile));
        let uses = |name: &str| known.get(name).is_some_and(|(_, facts)| facts.is_some());
        let used = profile.partitions.iter().all(|partition| uses(&partition.kernel.image));
        jobs.push(Job { cell: cell.clone(), heavy: from_sources && !used });
    }
    let making = cell::making(args);
    needs.extend(remote_address(&making).map(|_| Need::Remote));
    ensure(&needs, args.setup.yes, &lock, &progress)?;
    // Held while the bundles are built, so that nobody trims what they share.
    let cache = open_cache(&making, ui)?;
    let context = Context::new(project.root(), &cache, &lock, true, &progress)?;
    let bundles = work.join("bundles");
    let budget = Budget::of(args);
    ui.say(&format!("{} bundles, {} at once in {}", cells.len(), budget.jobs, Size(budget.memory)));
    let outcome = schedule::run(jobs, args, &bundles, budget, ui)?;
    let step = progress.step("putting the release together", None);
    let made = finish::Made { recipe, cells, key, args, bundles: &bundles };
    let checked = finish::finish(&context, &made, work, output, ui)?;
    step.finish("done");
    Ok((checked, outcome))
}

fn report(checked: &Checked, output: &Path, outcome: Option<&Outcome>, started: Instant, ui: &Ui) {
    let files = &checked.index.files;
    let bytes: u64 = files.iter().map(|file| file.size).sum();
    if ui.is_json() {
        ui.object(&json!({
            "type": "release",
            "version": checked.index.version,
            "directory": output.display().to_string(),
            "unchanged": outcome.is_none(),
            "bundles": checked.index.bundles,
            "written": outcome.map_or(0, |outcome| outcome.written),
            "files": files.len(),
            "bytes": bytes,
            "peak": outcome.map_or(0, |outcome| outcome.peak),
            "seconds": started.elapsed().as_secs_f64(),
        }));
        return;
    }
    let here = std::env::current_dir().unwrap_or_default();
    let shown: PathBuf = output.strip_prefix(&here).unwrap_or(output).to_owned();
    let state = if outcome.is_some() { "written" } else { "there already" };
    ui.product(&format!(
        "release {}: {} bundles, {} files, {}\n{state}: {}/ in {}\n",
        checked.index.version,
        checked.index.bundles.len(),
        files.len(),
        Size(bytes),
        shown.display(),
        human(started.elapsed())
    ));
}
