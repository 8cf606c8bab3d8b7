//! `bundle`: the main job, and what it says about it.

use citrine_formats::addr::Size;
use citrine_planner::flash::{Action, FlashPlan, Step};
use citrine_planner::map::{MemoryMap, headroom};
use citrine_planner::verify::keys::CACHE_NAMESPACE;
use serde_json::json;

use crate::artifacts::needs_sources;
use crate::build::Context;
use crate::build::lock::Lock;
use crate::bundle::{Bundle, bring_up_to_date};
use crate::cache::Cache;
use crate::cache::remote::Remote;
use crate::cli::{BundleArgs, Making};
use crate::nor::steps_text;
use crate::progress::watch_signals;
use crate::project::Project;
use crate::report::{CmdResult, Failure, Ui};
use crate::setup::{Need, ensure};
use crate::sign;

/// Names the registry where no flag does, for farms and continuous integration.
const REMOTE_VARIABLE: &str = "CITRINE_REMOTE_CACHE";

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
    let (_, profile) = project.target_of(&args.target, ui)?;
    let sources = needs_sources(&profile, &args.making.overrides).then_some(Need::Sources);
    let remote = remote_address(&args.making).is_some().then_some(Need::Remote);
    let needs: Vec<Need> = needs.iter().copied().chain(sources).chain(remote).collect();
    ensure(&needs, args.making.setup.yes, &lock, &progress)?;
    let cache = open_cache(&args.making, ui)?;
    let context = Context::new(project.root(), &cache, &lock, args.making.locked, &progress)?;
    bring_up_to_date(project, &context, args, ui)
}

/// The registry that the user names, by flag or environment; none where nothing may be fetched.
pub fn remote_address(making: &Making) -> Option<String> {
    let named = || std::env::var(REMOTE_VARIABLE).ok().filter(|address| !address.is_empty());
    making.remote_cache.clone().or_else(named).filter(|_| !making.offline)
}

/// The user's cache, and the registry behind it. What this machine offers there is signed with the key that signs the
/// bundle.
///
/// # Errors
/// A file error; an address that is none; a key that cannot be used.
pub fn open_cache(making: &Making, ui: &Ui) -> Result<Cache, Failure> {
    let remote = |address: String| -> Result<Remote, Failure> {
        let signer = sign::signer(making.key.as_deref())?;
        let (_, keys) = sign::trusted_keys_for(CACHE_NAMESPACE, None, ui)?;
        Ok(Remote::new(&address, keys, Box::new(move |bytes| signer.sign(CACHE_NAMESPACE, bytes)))?)
    };
    let remote = remote_address(making).map(remote).transpose()?;
    Ok(Cache::open(Cache::default_root()?, making.offline)?.with_remote(remote))
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
        "ram_image": bundle.ram_image.map(|size| json!({
            "file": bundle.published.ram.display().to_string(),
            "load": bundle.plan.board.image_area.base(),
            "size": size,
        })),
        "parts": bundle.manifest.parts,
        "flash": bundle.flash.as_ref().map(|(steps, image)| json!({
            "image": image.display().to_string(),
            "steps": steps.steps.iter().map(|step| step_json(steps, step)).collect::<Vec<_>>(),
        })),
        "stages": bundle.stages.iter().map(|(name, how)| json!({ "part": name, "how": how.as_str() })).collect::<Vec<_>>(),
    })
}

/// A step of the flash plan; without a part it only erases.
fn step_json(plan: &FlashPlan, step: &Step) -> serde_json::Value {
    let (part, from, len) = match step.action {
        Action::Write { part, from, len } => (plan.parts.get(part).map(|part| part.name.as_str()), from, len),
        Action::Erase => (None, 0, 0),
    };
    json!({
        "address": step.sectors.base().0,
        "size": step.sectors.len(),
        "part": part,
        "from": from,
        "bytes": len,
    })
}

/// What was done per part, sizes, headroom, and where the bundle is.
fn summary(bundle: &Bundle) -> String {
    let map = MemoryMap::of(&bundle.plan);
    let shown = |path: &std::path::Path| {
        let here = std::env::current_dir().unwrap_or_default();
        path.strip_prefix(&here).unwrap_or(path).display().to_string()
    };
    let mut text = format!("{} for {}\n", bundle.manifest.profile, bundle.manifest.board);
    for part in &bundle.manifest.parts {
        let how = bundle.stages.iter().find(|(name, _)| *name == part.name).map_or("", |(_, how)| how.as_str());
        let slot = part.slot(bundle.plan.media).or(part.slots.first());
        let place = slot.map_or(String::new(), |slot| format!("at {}", slot.load));
        text.push_str(&format!(
            "  {:16} {:>9}  {place:14} {how:7}{}\n",
            part.name,
            Size(part.size).to_string(),
            headroom(&map, &part.name).unwrap_or_default()
        ));
    }
    if let Some((steps, image)) = &bundle.flash {
        text.push_str(&steps_text(steps));
        text.push_str(&format!("flash image: {}\n", shown(image)));
    }
    let state = if bundle.unchanged { "unchanged" } else { "written" };
    text.push_str(&format!("identity {}\n", bundle.identity));
    if bundle.new_key {
        text.push_str("signed with a development key that was made for this machine just now\n");
    }
    text.push_str(&format!("{state}: {} and {}/\n", shown(&bundle.published.tar), shown(&bundle.published.dir)));
    if let Some(size) = bundle.ram_image {
        let (file, base) = (shown(&bundle.published.ram), bundle.plan.board.image_area.base());
        text.push_str(&format!("RAM image for {base}: {file}, {}\n", Size(size)));
    }
    text
}
