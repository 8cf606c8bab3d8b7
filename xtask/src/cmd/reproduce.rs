//! `reproduce`: builds a bundle once more, where nothing of the first build is left, and says whether it is the same.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use citrine_formats::addr::Size;
use citrine_formats::manifest::{Input, InputKind, Manifest, Media as Medium};
use citrine_planner::diag::{self, Diagnostic, Severity};
use citrine_planner::pack::CHECKSUMS;
use citrine_planner::reproduce::{Change, Comparison, NO_SOURCE, NOT_THE_SAME, PartVerdict, Verdict, compare};
use serde_json::{Value, json};

use crate::artifacts::How;
use crate::build::lock::{Lock, OTHER_VERSION, Source};
use crate::build::{Context, debian};
use crate::bundle::made;
use crate::cache::{Cache, io_error};
use crate::cli::{BundleArgs, Making, Media, Overrides, Reproduce, Target};
use crate::nor::{Installed, New};
use crate::progress::{Progress, watch_signals};
use crate::project::{NO_SUCH_FILE, Project};
use crate::report::{CmdResult, Failure, Ui};
use crate::setup::{Need, ensure};
use crate::smoke::bundle::Parts;

/// What a build reads of a checkout.
const CHECKOUT: [&str; 10] = [
    "Cargo.lock",
    "Cargo.toml",
    "artifacts",
    "boards",
    "hypervisor",
    "profiles",
    "rust-toolchain.toml",
    "templates",
    "tests",
    "xtask",
];

/// Runs `reproduce`.
pub fn run(args: &Reproduce, ui: &Ui) -> CmdResult {
    watch_signals()?;
    let parts = Parts::read(&args.bundle, args.keys.as_deref(), ui)?;
    let (comparison, stages) = build_again(args, &parts, ui)?;
    let shown = args.bundle.display().to_string();
    if ui.is_json() {
        ui.object(&to_json(&comparison, &stages, &shown));
    } else {
        ui.product(&to_text(&comparison, &stages, &shown));
    }
    if comparison.is_identical() { Ok(()) } else { Err(findings(&comparison, &shown).into()) }
}

/// How the parts that are not texts came about.
type Stages = Vec<(String, How)>;

fn build_again(args: &Reproduce, parts: &Parts, ui: &Ui) -> Result<(Comparison, Stages), Failure> {
    let manifest = &parts.verified.manifest;
    let here = Project::find()?;
    let lock = Lock::read(here.root())?.of_bundle(manifest);
    let progress = ui.progress();
    let has_sources = manifest.inputs.iter().any(|input| input.kind == InputKind::Source);
    let needs = [Some(Need::Bundle), has_sources.then_some(Need::Sources)];
    ensure(&needs.into_iter().flatten().collect::<Vec<_>>(), args.setup.yes, &lock, &progress)?;

    let own = Cache::open(Cache::default_root()?, false)?;
    // Below the user's cache, which sweeps what a killed process leaves.
    let work = own.scratch()?;
    let elsewhere = work.path().join("checkout");
    fs_err::create_dir_all(&elsewhere).map_err(|error| io_error(&elsewhere, &error))?;
    for name in CHECKOUT {
        copy(&here.root().join(name), &elsewhere.join(name))?;
    }
    let project = Project::at(elsewhere);
    let empty;
    let cache = match args.cached {
        true => &own,
        false => {
            empty = Cache::open(work.path().join("cache"), false)?;
            &empty
        }
    };
    let mut context = Context::new(project.root(), cache, &lock, false, &progress)?;
    context.locked = true;
    sources(&context, &own, manifest, args.sources.as_deref(), &progress)?;

    let (overrides, hw_dtb) = given(parts, &work.path().join("given"))?;
    let board = args.board.as_ref().map_or(manifest.board.clone(), |file| file.display().to_string());
    let target = Target { board, profile: manifest.profile.clone(), hw_dtb };
    let board = project.board_with(&target.board, target.hw_dtb.as_deref(), ui)?;
    let media = media(manifest);
    let new = New { board: &board, epoch: manifest.epoch, may_roll_back: true };
    let installed = installed(args.installed.as_deref(), manifest, &new, ui)?;
    let making = Making { overrides, ..Making::default() };
    let bundle = BundleArgs { target, making, media, installed: None, allow_rollback: false };
    let made = made(&project, &context, (&board, &parts.profile), &bundle, installed.as_ref(), ui)
        .map_err(|failure| no_longer(failure, &lock))?;
    let comparison = compare((manifest, parts.verified.identity), &parts.bytes, &made.assembled);
    Ok((comparison, made.stages))
}

/// The media that a bundle was made for.
fn media(manifest: &Manifest) -> Media {
    let on = |medium| manifest.parts.iter().any(|part| part.slot(medium).is_some());
    match (on(Medium::Ram), on(Medium::Nor)) {
        (true, true) => Media::All,
        (false, true) => Media::Nor,
        _ => Media::Ram,
    }
}

/// Puts the pinned sources into the cache: from the directory that the user names, else from the user's own cache; those
/// that neither has are fetched when they are needed. All are checked against the bundle's hashes.
fn sources(
    context: &Context<'_>,
    own: &Cache,
    manifest: &Manifest,
    from: Option<&Path>,
    progress: &Progress<'_>,
) -> Result<(), Failure> {
    let used = |source: &&Source| source.files.iter().any(|file| manifest.inputs.iter().any(|i| i.name == file.name));
    for source in context.lock.sources.values().filter(used) {
        match from {
            Some(dir) => {
                provided(source, dir, dir)?;
                debian::provide(context, source, dir)?;
            }
            None => {
                if let Some(dir) = debian::cached(own, source, progress)? {
                    debian::provide(context, source, &dir)?;
                }
            }
        }
    }
    Ok(())
}

/// Requires a directory, which messages call `shown`, to have every file of a source.
fn provided(source: &Source, shown: &Path, dir: &Path) -> diag::Result<()> {
    match source.files.iter().find(|file| !dir.join(&file.name).is_file()) {
        Some(file) => Err(no_source(source, &format!("{} does not have {}", shown.display(), file.name)).into()),
        None => Ok(()),
    }
}

fn no_source(source: &Source, why: &str) -> Diagnostic {
    let names: Vec<&str> = source.files.iter().map(|file| file.name.as_str()).collect();
    Diagnostic::error(
        NO_SOURCE,
        format!("{} {}, which the bundle is built from, is not to be had: {why}", source.package, source.version),
    )
    .fact("package", &source.package)
    .fact("version", &source.version)
    .help(format!(
        "name a directory that has {} with `--sources DIR`; a release keeps them in sources/",
        names.join(", ")
    ))
}

/// Of a failed build: whether it is a source that Debian does not carry any more.
fn no_longer(failure: Failure, lock: &Lock) -> Failure {
    let gone = failure.0.first().filter(|d| [OTHER_VERSION, debian::UNAVAILABLE].contains(&d.code)).cloned();
    let Some(gone) = gone else { return failure };
    match lock.sources.values().find(|source| gone.message.contains(&source.package)) {
        Some(source) => no_source(source, &gone.message).into(),
        None => failure,
    }
}

/// Files of the user's own that the bundle was made with are in it as parts: they are written to `dir`, to be given again.
fn given(parts: &Parts, dir: &Path) -> Result<(Overrides, Option<PathBuf>), Failure> {
    let (mut overrides, mut hw_dtb) = (Overrides::default(), None);
    let manifest = &parts.verified.manifest;
    for input in manifest.inputs.iter().filter(|input| input.kind == InputKind::File) {
        let place = match input.origin.as_str() {
            "given with --kernel" => &mut overrides.kernel,
            "given with --rootfs" => &mut overrides.rootfs,
            "given with --hypervisor" => &mut overrides.hypervisor,
            "given with --hw-dtb" => &mut hw_dtb,
            _ => continue,
        };
        let part = manifest.parts.iter().find(|part| part.sha256.is_some() && part.sha256 == input.sha256);
        if let Some(bytes) = part.and_then(|part| parts.bytes.get(&part.name)) {
            // The name is signed, and the last part of a path on the machine that built the bundle; a directory of its own
            // keeps it from meeting another.
            let name = Path::new(&input.name).file_name().unwrap_or("file".as_ref());
            let path = dir.join(input.origin.rsplit('-').next().unwrap_or_default()).join(name);
            let parent = path.parent().unwrap_or(dir);
            fs_err::create_dir_all(parent).map_err(|error| io_error(parent, &error))?;
            fs_err::write(&path, bytes).map_err(|error| io_error(&path, &error))?;
            *place = Some(path);
        }
    }
    Ok((overrides, hw_dtb))
}

/// The bundle that was installed when this one was made.
fn installed(file: Option<&Path>, manifest: &Manifest, new: &New<'_>, ui: &Ui) -> Result<Option<Installed>, Failure> {
    let before = manifest.inputs.iter().find(|input| is_installed(input));
    match (file, before) {
        (Some(file), _) => Ok(Some(Installed::read(file, new, ui)?)),
        (None, None) => Ok(None),
        (None, Some(input)) => {
            let identity = input.sha256.map(|identity| identity.to_string()).unwrap_or_default();
            let message = format!("the bundle was made to replace another one, whose identity is {identity}");
            Err(Diagnostic::error(NO_SUCH_FILE, message).help("name that one with `--installed FILE`").into())
        }
    }
}

fn is_installed(input: &Input) -> bool {
    input.kind == InputKind::File && input.origin == crate::nor::INSTALLED
}

/// Copies what a build reads; what was built, and what editors leave, stays.
fn copy(from: &Path, to: &Path) -> diag::Result<()> {
    let fail = |error: std::io::Error| io_error(from, &error);
    if !from.is_dir() {
        return fs_err::copy(from, to).map(drop).map_err(fail);
    }
    fs_err::create_dir_all(to).map_err(fail)?;
    for entry in fs_err::read_dir(from).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name();
        let built = name == "target" || entry.path().ends_with("artifacts/out");
        if !built && !name.to_string_lossy().starts_with('.') {
            copy(&entry.path(), &to.join(name))?;
        }
    }
    Ok(())
}

/// How a part came about: a text that is made of the plan is always made.
fn how(stages: &Stages, part: &str) -> How {
    stages.iter().find(|(name, _)| name == part).map_or(How::Built, |(_, how)| *how)
}

/// The parts that are identical only because nobody built them.
fn unproved<'c>(comparison: &'c Comparison, stages: &Stages) -> Vec<&'c str> {
    let parts = comparison.parts.iter().filter(|part| how(stages, &part.part) != How::Built);
    parts.map(|part| part.part.as_str()).collect()
}

fn word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Identical => "identical",
        Verdict::Differs(_) => "DIFFERS",
        Verdict::Missing => "MISSING",
        Verdict::New => "NEW",
    }
}

fn to_text(comparison: &Comparison, stages: &Stages, shown: &str) -> String {
    let mut text = format!("{shown}, built again\n");
    for PartVerdict { part, size, verdict } in &comparison.parts {
        let how = how(stages, part).as_str();
        let _ = writeln!(text, "  {part:16} {:>10}  {:9}  {how}", Size(*size).to_string(), word(verdict));
    }
    let unproved = unproved(comparison, stages);
    if !unproved.is_empty() {
        let _ = writeln!(text, "not built here, so unproved: {}", unproved.join(", "));
    }
    if comparison.is_identical() {
        let _ = writeln!(text, "identical: {}", comparison.was);
    } else {
        let _ = writeln!(text, "not identical: was {}, is {}", comparison.was, comparison.now);
    }
    text
}

fn to_json(comparison: &Comparison, stages: &Stages, shown: &str) -> Value {
    let parts: Vec<Value> = comparison
        .parts
        .iter()
        .map(|part| {
            let mut value = json!(part);
            value["how"] = json!(how(stages, &part.part).as_str());
            value
        })
        .collect();
    json!({
        "type": "reproduce",
        "bundle": shown,
        "identical": comparison.is_identical(),
        "identity": comparison.was,
        "identity_now": comparison.now,
        "parts": parts,
        "unproved": unproved(comparison, stages),
        "inputs": comparison.inputs,
        "members": comparison.members,
    })
}

/// What differs, as errors, and why it may, as notices.
fn findings(comparison: &Comparison, shown: &str) -> Vec<Diagnostic> {
    let value = |value: &Option<String>| value.as_ref().map_or("nothing".to_owned(), |value| format!("`{value}`"));
    // The list of checksums differs because another part does.
    let cause = |part: &&PartVerdict| {
        part.part != CHECKSUMS
            || comparison.parts.iter().all(|other| other.part == CHECKSUMS || other.verdict == Verdict::Identical)
    };
    let mut found: Vec<Diagnostic> =
        comparison.parts.iter().filter(cause).filter_map(|part| differs(part, shown)).collect();
    let members = comparison.members.iter().map(|Change { what, was, now }| {
        Diagnostic::error(NOT_THE_SAME, format!("{shown}: {what} was {} and is {}", value(was), value(now)))
            .fact("member", what)
            .help("build it with the configuration of the checkout that the bundle was made in")
    });
    found.extend(members);
    found.extend(comparison.inputs.iter().map(|Change { what, was, now }| {
        let message = format!("{what} was {} and is {}", value(was), value(now));
        Diagnostic::new(NOT_THE_SAME, Severity::Notice, message)
            .fact("input", what)
            .help("this may be why bytes differ: use what it was")
    }));
    // Only the inputs differ, or their order: then the manifest's bytes do.
    if found.iter().all(|diagnostic| diagnostic.severity != Severity::Error) {
        let message = format!("{shown} has the same parts, and was built from something else");
        found.insert(0, Diagnostic::error(NOT_THE_SAME, message).help("the notices below say from what"));
    }
    found
}

fn differs(PartVerdict { part, verdict, .. }: &PartVerdict, shown: &str) -> Option<Diagnostic> {
    let diagnostic = match verdict {
        Verdict::Identical => return None,
        Verdict::Differs(place) => Diagnostic::error(
            NOT_THE_SAME,
            format!(
                "{shown}: {part} differs at byte {}, {}: it was `{}`, and is `{}`",
                place.offset, place.field, place.was, place.now
            ),
        )
        .fact("offset", place.offset)
        .fact("field", &place.field),
        Verdict::Missing => Diagnostic::error(NOT_THE_SAME, format!("{shown}: {part} is not made any more")),
        Verdict::New => Diagnostic::error(NOT_THE_SAME, format!("{shown}: {part} is made now, and is not in it")),
    };
    Some(
        diagnostic
            .fact("part", part)
            .help("the notices say what it is built from now that was another then; without any, report it: a build should repeat"),
    )
}

#[cfg(test)]
mod tests;
