//! `bundle`: the main job, and what it says about it.

use citrine_formats::addr::Size;
use citrine_planner::map::{MemoryMap, headroom};
use serde_json::json;

use crate::artifacts::needs_sources;
use crate::build::Context;
use crate::build::lock::Lock;
use crate::bundle::{Bundle, bring_up_to_date};
use crate::cache::Cache;
use crate::cli::BundleArgs;
use crate::progress::watch_signals;
use crate::project::Project;
use crate::report::{CmdResult, Failure, Ui};
use crate::setup::{Need, ensure};

/// Runs `bundle`.
pub fn run(args: &BundleArgs, ui: &Ui) -> CmdResult {
    let project = Project::find()?;
    let bundle = build(&project, args, &[Need::Bundle], ui)?;
    if ui.is_json() {
        ui.object(&to_json(&bundle));
    } else {
        ui.product(&summary(&bundle));
    }
    Ok(())
}

/// Sets the machine up for `needs` and brings the bundle up to date.
pub fn build(project: &Project, args: &BundleArgs, needs: &[Need], ui: &Ui) -> Result<Bundle, Failure> {
    watch_signals()?;
    let progress = ui.progress();
    let lock = Lock::read(project.root())?;
    let (_, profile) = project.target(&args.target.board, &args.target.profile, ui)?;
    let sources = needs_sources(&profile, &args.making.overrides).then_some(Need::Sources);
    let needs: Vec<Need> = needs.iter().copied().chain(sources).collect();
    ensure(&needs, args.making.setup.yes, &lock, &progress)?;
    let cache = Cache::open(Cache::default_root()?, args.making.offline)?;
    let context = Context::new(project.root(), &cache, &lock, args.making.locked, &progress)?;
    bring_up_to_date(project, &context, args, ui)
}

fn to_json(bundle: &Bundle) -> serde_json::Value {
    json!({
        "type": "bundle",
        "identity": bundle.identity.to_string(),
        "board": bundle.manifest.board,
        "profile": bundle.manifest.profile,
        "unchanged": bundle.unchanged,
        "tar": bundle.published.tar.display().to_string(),
        "directory": bundle.published.dir.display().to_string(),
        "parts": bundle.manifest.parts,
        "stages": bundle.stages.iter().map(|(name, how)| json!({ "part": name, "how": how.as_str() })).collect::<Vec<_>>(),
    })
}

/// What was done per part, sizes, headroom, and where the bundle is.
fn summary(bundle: &Bundle) -> String {
    let map = MemoryMap::of(&bundle.plan);
    let mut text = format!("{} for {}\n", bundle.manifest.profile, bundle.manifest.board);
    for part in &bundle.manifest.parts {
        let how = bundle.stages.iter().find(|(name, _)| *name == part.name).map_or("", |(_, how)| how.as_str());
        let place = part.slots.first().map_or(String::new(), |slot| format!("at {}", slot.load));
        text.push_str(&format!(
            "  {:16} {:>9}  {place:14} {how:7}{}\n",
            part.name,
            Size(part.size).to_string(),
            headroom(&map, &part.name).unwrap_or_default()
        ));
    }
    let state = if bundle.unchanged { "unchanged" } else { "written" };
    text.push_str(&format!("identity {}\n", bundle.identity));
    if bundle.new_key {
        text.push_str("signed with a development key that was made for this machine just now\n");
    }
    let shown = |path: &std::path::Path| {
        let here = std::env::current_dir().unwrap_or_default();
        path.strip_prefix(&here).unwrap_or(path).display().to_string()
    };
    text.push_str(&format!("{state}: {} and {}/\n", shown(&bundle.published.tar), shown(&bundle.published.dir)));
    text
}
