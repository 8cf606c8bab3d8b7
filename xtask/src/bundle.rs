//! The main job: from a board and a profile to a signed bundle in `artifacts/out/`.
//!
//! Everything is computed each time, since all of it but the builds takes milliseconds, and builds are
//! cached; a bundle that is there already, byte for byte, is not written again.

use std::collections::BTreeMap;
use std::path::PathBuf;

use citrine_formats::hvconfig::Digest;
use citrine_formats::manifest::{Input, Manifest, Role, Sha256};
use citrine_planner::board::Board;
use citrine_planner::diag::{Diagnostic, has_errors};
use citrine_planner::image::ImageFacts;
use citrine_planner::pack::{self, Assembled, Content, Subject, image, parts, sha256};
use citrine_planner::plan::{LoadPlan, Part};
use citrine_planner::profile::Profile;
use citrine_planner::render::Digests;
use citrine_planner::{place, render, rules};
use ssh_key::PrivateKey;

use crate::artifacts::{Artifacts, How, capabilities, chosen, gather};
use crate::build::{Context, deflate_input};
use crate::cli::{BundleArgs, Making, Overrides};
use crate::dtc::{self, Source};
use crate::output::{self, Published};
use crate::project::{Project, template};
use crate::report::{Failure, Ui};
use crate::sign;

/// A bundle that is up to date in `artifacts/out/`.
#[derive(Debug)]
pub struct Bundle {
    /// Where everything lies.
    pub plan: LoadPlan,
    /// The manifest.
    pub manifest: Manifest,
    /// Its SHA-256.
    pub identity: Sha256,
    /// Where it is.
    pub published: Published,
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
    let (board, profile) = project.target(&args.target.board, &args.target.profile, ui)?;
    // Mistakes that need no image are found before the first one is built.
    let mut early = place::place(&board, &profile, &crate::artifacts::cached(project, &board))?;
    early.hypervisor = chosen(args.making.overrides.hypervisor.as_deref())?;
    judge(&early)?;
    let Planned { plan, artifacts, hv_dtb, boot_scr } =
        planned(project, context, (&board, &profile), &args.making.overrides, ui)?;
    let warnings = judge(&plan)?;
    ui.diagnostics(&warnings);

    let epoch = context.lock.source_date_epoch;
    let stages = stages(&plan, &artifacts);
    let inputs = inputs(context, &artifacts)?;
    let contents = contents(&plan, artifacts, hv_dtb, boot_scr);
    let sources = parts::sources(&plan, contents).map_err(missing_part)?;
    let assembled = pack::assemble(subject(&plan, inputs, epoch), sources)?;
    let (key, new_key) = key(&args.making)?;
    let signatures = pack::sign(&assembled, &[key]).map_err(|error| {
        Diagnostic::error(sign::SIGNING_KEY, format!("the key cannot sign: {error}"))
            .help("use an unencrypted Ed25519 key in OpenSSH's format")
    })?;
    let (published, unchanged) = publish(project, &plan, &assembled, &signatures)?;
    Ok(Bundle {
        identity: assembled.identity,
        manifest: assembled.manifest,
        plan,
        published,
        unchanged,
        stages,
        new_key,
    })
}

/// The plan with the real size of every part, and what the parts are made of.
#[derive(Debug)]
pub struct Planned {
    /// The plan.
    pub plan: LoadPlan,
    artifacts: Artifacts,
    hv_dtb: Vec<u8>,
    boot_scr: Content<'static>,
}

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
    let (hv_dtb, boot_scr) = texts(project, &plan, &digests(&plan, &artifacts), context.lock.source_date_epoch, ui)?;
    for (role, size) in [(Role::Configuration, hv_dtb.len() as u64), (Role::Script, boot_scr.len())] {
        let file = plan.part(role).map(|part| part.file.clone());
        plan.facts.extend(file.map(|file| (file, ImageFacts::plain(size))));
    }
    Ok(Planned { plan, artifacts, hv_dtb, boot_scr })
}

/// Errors as a failure, the rest to be shown.
fn judge(plan: &LoadPlan) -> Result<Vec<Diagnostic>, Failure> {
    let found = rules::check(plan);
    if has_errors(&found) { Err(found.into()) } else { Ok(found) }
}

/// What the guests' images are, for the configuration tree. So the signature on the bundle reaches what the
/// hypervisor loads.
fn digests(plan: &LoadPlan, artifacts: &Artifacts) -> Digests {
    let parts = plan.parts.iter().filter_map(|part| Some((part, artifacts.images.get(part.image.as_ref()?)?)));
    let digest = |bytes: &[u8]| Digest { size: bytes.len() as u64, sha256: sha256(bytes) };
    parts.map(|(part, made)| (part.file.clone(), digest(&made.bytes))).collect()
}

/// The configuration tree, compiled, and the boot script's image.
fn texts(
    project: &Project,
    plan: &LoadPlan,
    digests: &Digests,
    epoch: u32,
    ui: &Ui,
) -> Result<(Vec<u8>, Content<'static>), Failure> {
    let hv_dtb = configuration(project, plan, digests, ui)?;
    let read = project.template("boot.cmd.j2", ui)?;
    let script = render::boot_cmd(plan, &template(&read))?;
    let name = format!("{} {}", plan.board.name, plan.profile.name);
    let boot_scr = image::script(&name, epoch, &script)
        .ok_or_else(|| Failure::from(Diagnostic::error(dtc::REFUSED, "the boot script is longer than 4 GiB")))?;
    Ok((hv_dtb, boot_scr))
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

fn contents(
    plan: &LoadPlan,
    artifacts: Artifacts,
    hv_dtb: Vec<u8>,
    boot_scr: Content<'static>,
) -> BTreeMap<String, Content<'static>> {
    let Artifacts { mut images, hypervisor, hardware_tree } = artifacts;
    let mut contents = BTreeMap::new();
    let (mut hypervisor, mut hardware_tree) = (Some(hypervisor.bytes), Some(hardware_tree.bytes));
    let (mut hv_dtb, mut boot_scr) = (Some(hv_dtb), Some(boot_scr));
    for part in &plan.parts {
        let bytes = match part.role {
            Role::Hypervisor => hypervisor.take(),
            Role::HardwareTree => hardware_tree.take(),
            Role::Configuration => hv_dtb.take(),
            Role::Script => {
                contents.extend(boot_scr.take().map(|content| (part.file.clone(), content)));
                continue;
            }
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

fn subject(plan: &LoadPlan, inputs: Vec<Input>, epoch: u32) -> Subject {
    Subject {
        board: plan.board.name.clone(),
        core: plan.board.core.clone(),
        epoch: 0,
        inputs,
        plan_sha256: sha256(render::json::plan(plan).to_string().as_bytes()),
        profile: plan.profile.name.clone(),
        soc: plan.board.soc.clone(),
        source_date_epoch: epoch,
    }
}

/// The key to sign with, and whether it was made just now.
fn key(args: &Making) -> Result<(PrivateKey, bool), Failure> {
    Ok(match &args.key {
        Some(file) => (sign::key_from(file)?, false),
        None => sign::development_key(&sign::config_dir()?)?,
    })
}

fn publish(
    project: &Project,
    plan: &LoadPlan,
    assembled: &Assembled<'_>,
    signatures: &[String],
) -> Result<(Published, bool), Failure> {
    let out = out_dir(project);
    let name = format!("{}-{}", plan.board.name, plan.profile.name);
    if let Some(published) = output::is_current(&out, &name, assembled, signatures) {
        return Ok((published, true));
    }
    Ok((output::publish(&out, &name, assembled, signatures)?, false))
}

/// Where bundles are written.
pub fn out_dir(project: &Project) -> PathBuf {
    project.root().join("artifacts/out")
}
