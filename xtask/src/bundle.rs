//! The main job: from a board and a profile to a signed bundle in `artifacts/out/`.
//!
//! Everything is computed each time, since all of it but the builds takes milliseconds, and builds are
//! cached; a bundle that is there already, byte for byte, is not written again.

use std::collections::BTreeMap;
use std::path::PathBuf;

use citrine_formats::hvconfig::Digest;
use citrine_formats::manifest::{Input, Manifest, NAMESPACE, Role, Sha256, signature_name};
use citrine_planner::board::Board;
use citrine_planner::diag::{self, Diagnostic, Severity, has_errors};
use citrine_planner::flash::FlashPlan;
use citrine_planner::image::ImageFacts;
use citrine_planner::pack::ram::RamImage;
use citrine_planner::pack::{self, Assembled, Content, Subject, image, parts, sha256};
use citrine_planner::place::{self, NO_FLASH, Second};
use citrine_planner::plan::{LoadPlan, Part};
use citrine_planner::profile::Profile;
use citrine_planner::render::Digests;
use citrine_planner::{render, rules};

use crate::artifacts::{Artifacts, How, capabilities, chosen, gather, key_input};
use crate::build::{Context, deflate_input, recipes};
use crate::cli::{BundleArgs, Media, Overrides};
use crate::dtc::{self, Source};
use crate::nor::{self, InFlash};
use crate::output::{self, Published};
use crate::project::{Project, template};
use crate::report::{Failure, Ui};
use crate::sign::{self, Signer, configuration};
use crate::smoke::bundle::read;

/// A bundle that is up to date in `artifacts/out/`.
#[derive(Debug)]
pub struct Bundle {
    /// Where everything lies, on the medium that people ask for first.
    pub plan: LoadPlan,
    /// How the flash is changed, and the image of the whole bank, when it is for the flash.
    pub flash: Option<(FlashPlan, PathBuf)>,
    /// The manifest.
    pub manifest: Manifest,
    /// Its SHA-256.
    pub identity: Sha256,
    /// Where it is.
    pub published: Published,
    /// Length in bytes of its RAM image; `None` if its parts make none.
    pub ram_image: Option<u64>,
    /// Whether it was there already.
    pub unchanged: bool,
    /// How each part came about.
    pub stages: Vec<(String, How)>,
    /// Whether the development key was made for it.
    pub new_key: bool,
}

/// Brings the bundle of `args` up to date.
///
/// # Errors
/// Everything that is wrong with the configuration, the images, the tools or the output directory. Whatever
/// bundle was there before stays as it is.
pub fn bring_up_to_date(
    project: &Project,
    context: &Context<'_>,
    args: &BundleArgs,
    ui: &Ui,
) -> Result<Bundle, Failure> {
    let (board, profile) = project.target_of(&args.target, ui)?;
    // Mistakes that need no image are found before the first one is built.
    let known = crate::artifacts::cached(project, &board, Some(&profile));
    let mut early = vec![place::place(&board, &profile, &known)?];
    if args.media != Media::Ram {
        early.push(place::place_in_flash(&board, &profile, &known, &Second::new())?);
    }
    for plan in &mut early {
        plan.hypervisor = chosen(args.making.overrides.hypervisor.as_deref())?.unwrap_or(plan.hypervisor);
        judge(plan)?;
    }
    let installed = match (&args.installed, args.media) {
        (Some(file), Media::Nor | Media::All) => {
            let new = nor::New { board: &board, epoch: profile.epoch, may_roll_back: args.allow_rollback };
            Some(nor::Installed::read(file, &new, ui)?)
        }
        (Some(_), Media::Ram) => {
            return Err(Diagnostic::error(NO_FLASH, "a bundle for memory alone does not change what the flash holds")
                .help("add `--media all` or `--media nor`, or leave out --installed")
                .into());
        }
        (None, _) => None,
    };
    let Made { mut assembled, plan, flash, stages } =
        made(project, context, (&board, &profile), args, installed.as_ref(), ui)?;
    let signer = sign::signer(args.making.key.as_deref())?;
    let tar = out_dir(project).join(name(&plan)).with_added_extension("tar");
    let mut known = None;
    // One that was made with another machine's key stays good as long as the tree is the same.
    let unsigned = configuration::fill(&mut assembled, &signer, &mut |name| {
        known.get_or_insert_with(|| read(&tar, None, ui).map(|(_, bytes)| bytes).unwrap_or_default()).remove(name)
    })?;
    ui.diagnostics(configuration::notice(&unsigned, &tar.display().to_string()).as_slice());
    let signatures = vec![signature(project, &plan, &assembled, &signer)?];
    let ram = ram_image(&board, &assembled, ui);
    let (published, unchanged) = publish(project, &plan, &assembled, &signatures, ram.as_ref())?;
    let flash = match flash {
        Some(flash) => {
            let image = nor::publish_image(&published, &flash.plan, &assembled)?;
            Some((flash.steps, image))
        }
        None => None,
    };
    Ok(Bundle {
        flash,
        ram_image: ram.map(|image| image.len()),
        identity: assembled.identity,
        manifest: assembled.manifest,
        plan,
        published,
        unchanged,
        stages,
        new_key: signer.is_new,
    })
}

/// A bundle before it is signed.
#[derive(Debug)]
pub struct Made {
    /// All of it but the signatures.
    pub assembled: Assembled<'static>,
    /// Where everything lies, on the medium that people ask for first.
    pub plan: LoadPlan,
    /// What it has in the flash.
    pub flash: Option<InFlash>,
    /// How each part came about.
    pub stages: Vec<(String, How)>,
}

/// Builds and packs everything that is asked for.
///
/// # Errors
/// As for [`bring_up_to_date`].
pub fn made(
    project: &Project,
    context: &Context<'_>,
    (board, profile): (&Board, &Profile),
    args: &BundleArgs,
    installed: Option<&nor::Installed>,
    ui: &Ui,
) -> Result<Made, Failure> {
    let Planned { plan, artifacts, texts } = planned(project, context, (board, profile), &args.making.overrides, ui)?;
    let mut found = judge(&plan)?;
    let epoch = context.lock.source_date_epoch;
    let flash = match args.media {
        Media::Ram => None,
        Media::Nor | Media::All => Some(nor::in_flash(project, &plan, &artifacts, installed, epoch, ui)?),
    };
    if let Some(flash) = &flash {
        found.extend(judge(&flash.plan)?.into_iter().filter(|warning| !found.contains(warning)).collect::<Vec<_>>());
    }
    ui.diagnostics(&found);

    let stages = stages(&plan, &artifacts);
    let mut inputs = inputs(context, &artifacts)?;
    inputs.extend(recipes(context, board)?);
    inputs.extend(profile.trust.as_ref().map(key_input));
    inputs.extend(installed.map(|installed| installed.input.clone()));
    let mut contents = contents(&plan, artifacts);
    contents.extend(texts);
    let plans = [Some(&plan).filter(|_| args.media != Media::Nor), flash.as_ref().map(|flash| &flash.plan)];
    let plans: Vec<&LoadPlan> = plans.into_iter().flatten().collect();
    contents.extend(flash.iter().flat_map(|flash| flash.texts.clone()));
    let mut sources = parts::sources(&plans, profile, contents).map_err(missing_part)?;
    sources.extend(flash.as_ref().map(|flash| flash.script.clone()));
    let assembled = pack::assemble(subject(&plans, profile, inputs, epoch), sources)?;
    let plan = if args.media == Media::Nor { flash.as_ref().map_or(plan, |flash| flash.plan.clone()) } else { plan };
    Ok(Made { assembled, plan, flash, stages })
}

/// The plan with the real size of every part, and what the parts are made of.
#[derive(Debug)]
pub struct Planned {
    /// The plan, with the parts in RAM.
    pub plan: LoadPlan,
    artifacts: Artifacts,
    texts: Texts,
}

/// The parts that are made of the plan itself, by file name.
pub type Texts = BTreeMap<String, Content<'static>>;

/// Builds every part, or takes it from the cache, and plans with what came out.
///
/// # Errors
/// What building, placing and rendering return.
pub fn planned(
    project: &Project,
    context: &Context<'_>,
    (board, profile): (&Board, &Profile),
    overrides: &Overrides,
    ui: &Ui,
) -> Result<Planned, Failure> {
    let artifacts = gather(context, board, profile, overrides)?;
    let mut plan = place::place(board, profile, &artifacts.known())?;
    plan.hypervisor = capabilities(&artifacts.hypervisor.bytes);
    for (role, made) in [(Role::Hypervisor, &artifacts.hypervisor), (Role::HardwareTree, &artifacts.hardware_tree)] {
        let file = plan.part(role).map(|part| part.file.clone());
        plan.facts.extend(file.map(|file| (file, made.facts.clone())));
    }
    let mut texts = Texts::new();
    let hv_dtb = configuration(project, &plan, &digests(&plan, &artifacts), ui)?;
    add(&mut plan, &mut texts, Role::Configuration, Content::plain(hv_dtb));
    let boot_scr = boot_script(project, &plan, context.lock.source_date_epoch, ui)?;
    add(&mut plan, &mut texts, Role::Script, boot_scr);
    Ok(Planned { plan, artifacts, texts })
}

/// Notes the bytes of a part that is made of the plan, and their number in the plan.
pub fn add(plan: &mut LoadPlan, texts: &mut Texts, role: Role, content: Content<'static>) {
    let Some(file) = plan.part(role).map(|part| part.file.clone()) else { return };
    plan.facts.insert(file.clone(), ImageFacts::plain(content.len()));
    texts.insert(file, content);
}

/// Errors as a failure, the rest to be shown.
fn judge(plan: &LoadPlan) -> Result<Vec<Diagnostic>, Failure> {
    let found = rules::check(plan);
    if has_errors(&found) { Err(found.into()) } else { Ok(found) }
}

/// What the guests' images are, for the configuration tree. So the signature on the bundle reaches what the
/// hypervisor loads.
pub fn digests(plan: &LoadPlan, artifacts: &Artifacts) -> Digests {
    let parts = plan.parts.iter().filter_map(|part| Some((part, artifacts.images.get(part.image.as_ref()?)?)));
    let digest = |bytes: &[u8]| Digest { size: bytes.len() as u64, sha256: sha256(bytes) };
    parts.map(|(part, made)| (part.file.clone(), digest(&made.bytes))).collect()
}

/// The boot script's image.
///
/// # Errors
/// What the template complains about.
pub fn boot_script(project: &Project, plan: &LoadPlan, epoch: u32, ui: &Ui) -> Result<Content<'static>, Failure> {
    let read = project.template("boot.cmd.j2", ui)?;
    script_image(plan, epoch, &render::boot_cmd(plan, &template(&read))?)
}

/// A U-Boot script of a plan as an image.
///
/// # Errors
/// A text that no header can describe.
pub fn script_image(plan: &LoadPlan, epoch: u32, text: &str) -> Result<Content<'static>, Failure> {
    let name = format!("{} {}", plan.board.name, plan.profile.name);
    image::script(&name, epoch, text)
        .ok_or_else(|| Failure::from(Diagnostic::error(dtc::REFUSED, "the script is longer than 4 GiB")))
}

/// The configuration tree of a plan, for images with these digests, compiled by dtc.
///
/// # Errors
/// What the template or dtc complain about.
pub fn configuration(project: &Project, plan: &LoadPlan, digests: &Digests, ui: &Ui) -> Result<Vec<u8>, Failure> {
    let read = project.template("hv.dts.j2", ui)?;
    let dts = render::hv_dts(plan, digests, &template(&read))?;
    Ok(dtc::compile(&dts, Source { file: &read.0, text: &read.1 })?)
}

fn stages(plan: &LoadPlan, artifacts: &Artifacts) -> Vec<(String, How)> {
    let how = |part: &Part| match part.role {
        Role::Hypervisor => Some(artifacts.hypervisor.how),
        Role::HardwareTree => Some(artifacts.hardware_tree.how),
        _ => part.image.as_ref().and_then(|image| artifacts.images.get(image)).map(|made| made.how),
    };
    plan.parts.iter().filter_map(|part| Some((part.file.clone(), how(part)?))).collect()
}

/// Everything whose bytes or version reached a part.
fn inputs(context: &Context<'_>, artifacts: &Artifacts) -> Result<Vec<Input>, Failure> {
    let mut inputs = vec![deflate_input(), context.package("device-tree-compiler")?];
    let made = artifacts.images.values().chain([&artifacts.hypervisor, &artifacts.hardware_tree]);
    inputs.extend(made.flat_map(|made| made.inputs.iter().cloned()));
    Ok(inputs)
}

/// The bytes of the parts that are the same on every medium.
fn contents(plan: &LoadPlan, artifacts: Artifacts) -> Texts {
    let Artifacts { mut images, hypervisor, hardware_tree } = artifacts;
    let mut contents = Texts::new();
    let (mut hypervisor, mut hardware_tree) = (Some(hypervisor.bytes), Some(hardware_tree.bytes));
    for part in &plan.parts {
        let bytes = match part.role {
            Role::Hypervisor => hypervisor.take(),
            Role::HardwareTree => hardware_tree.take(),
            _ => part.image.as_ref().and_then(|image| images.remove(image)).map(|made| made.bytes),
        };
        contents.extend(bytes.map(|bytes| (part.file.clone(), Content::plain(bytes))));
    }
    contents
}

fn missing_part(file: String) -> Diagnostic {
    Diagnostic::error(crate::project::NO_SUCH_FILE, format!("nothing makes {file}"))
        .help("the board's file and the recipes in artifacts/ do not fit together")
}

fn subject(plans: &[&LoadPlan], profile: &Profile, inputs: Vec<Input>, epoch: u32) -> Subject {
    let texts: Vec<String> = plans.iter().map(|plan| render::json::plan(plan).to_string()).collect();
    let plan = plans[0];
    Subject {
        board: plan.board.name.clone(),
        core: plan.board.core.clone(),
        epoch: profile.epoch,
        inputs,
        plan_sha256: sha256(texts.join("\n").as_bytes()),
        profile: profile.name.clone(),
        soc: plan.board.soc.clone(),
        source_date_epoch: epoch,
    }
}

/// The bundle's signature: the one that is there already, if it is a good one by the key that is asked for. Tokens and
/// the agent make another each time, and may ask somebody to press a button.
fn signature(project: &Project, plan: &LoadPlan, assembled: &Assembled<'_>, signer: &Signer) -> diag::Result<String> {
    let there = out_dir(project).join(name(plan)).join(signature_name(0));
    if let Ok(text) = std::fs::read_to_string(there)
        && signer.has_signed(NAMESPACE, &assembled.manifest_bytes, &text)
    {
        return Ok(text);
    }
    signer.sign(NAMESPACE, &assembled.manifest_bytes)
}

/// What the bundle's files are called.
fn name(plan: &LoadPlan) -> String {
    format!("{}-{}", plan.board.name, plan.profile.name)
}

/// The bundle's RAM image. A profile may put parts where none reaches; the bundle does without one then.
fn ram_image<'a>(board: &Board, assembled: &'a Assembled<'_>, ui: &Ui) -> Option<RamImage<'a>> {
    let image = RamImage::of_bundle(board, &assembled.manifest, &assembled.contents);
    image.map_err(|error| ui.diagnostics(&[Diagnostic { severity: Severity::Notice, ..*error }])).ok()
}

fn publish(
    project: &Project,
    plan: &LoadPlan,
    assembled: &Assembled<'_>,
    signatures: &[String],
    ram: Option<&RamImage<'_>>,
) -> Result<(Published, bool), Failure> {
    let out = out_dir(project);
    let name = name(plan);
    if let Some(published) = output::is_current(&out, &name, assembled, signatures, ram) {
        return Ok((published, true));
    }
    Ok((output::publish(&out, &name, assembled, signatures, ram)?, false))
}

/// Where bundles are written.
pub fn out_dir(project: &Project) -> PathBuf {
    project.root().join("artifacts/out")
}
