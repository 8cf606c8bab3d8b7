//! Puts a release together from its bundles: all of it in a hidden directory, which is renamed when it is whole.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use citrine_formats::manifest::{Input, InputKind, NAMESPACE, Role};
use citrine_planner::diag::{Diagnostic, Result};
use citrine_planner::diff;
use citrine_planner::release::index::{self, CHECKSUMS, FILE_NAME, Index, SIGNATURE_NAME, SOURCES};
use citrine_planner::release::notes::{self, Change, Previous};
use citrine_planner::release::recipe::{Cell, Recipe};
use citrine_planner::release::sbom::{self, Crates};
use citrine_planner::release::{Built, CELL, FILES, OCCUPIED, inputs, provenance};
use citrine_planner::verify::keys::{RELEASE_NAMESPACE, TrustedKeys};
use citrine_planner::verify::policy::Policy;
use ssh_key::PublicKey;

use super::cannot;
use super::cell::Done;
use super::check::{self, Checked, Keys};
use crate::build::{Context, debian};
use crate::cache::hash_file;
use crate::cli::release::Release;
use crate::progress::check_interrupted;
use crate::report::{Failure, Ui};
use crate::sign::{self, Signer};
use crate::smoke::bundle::Parts;
use crate::tools;

/// The bill of materials.
const BILL: &str = "sbom.cdx.json";
/// The statement of where everything comes from.
const PROVENANCE: &str = "provenance.json";
/// What has changed.
const NOTES: &str = "notes.md";
/// The machine that the tool's crates are listed for: another would list others.
const HOST: &str = "x86_64-unknown-linux-gnu";

/// Everything that a release is put together from.
#[derive(Debug)]
pub struct Made<'m> {
    /// The release file.
    pub recipe: &'m Recipe,
    /// The bundles.
    pub cells: &'m [Cell],
    /// The key that signs.
    pub key: &'m Signer,
    /// The arguments.
    pub args: &'m Release,
    /// Where the bundles are, one directory each.
    pub bundles: &'m Path,
}

/// Those who are believed where only this release's own key counts, as a file of trusted keys and read.
///
/// # Errors
/// `B112` for a key that cannot sign.
pub fn own_keys(key: &PublicKey) -> Result<(String, Keys)> {
    let text = format!("{}\n", sign::trusted_line("release", key));
    let parsed = |namespace| -> Result<TrustedKeys> {
        TrustedKeys::parse_for(namespace, &text)
            .map_err(|error| Diagnostic::error(sign::SIGNING_KEY, format!("the key cannot sign: {}", error.why)).into())
    };
    let keys = Keys { release: parsed(RELEASE_NAMESPACE)?, bundles: parsed(NAMESPACE)? };
    Ok((text, keys))
}

/// Writes the release to `output`, by way of a directory in `work`.
///
/// # Errors
/// Whatever is wrong; there is nothing at `output` then.
pub fn finish(
    context: &Context<'_>,
    made: &Made<'_>,
    work: &Path,
    output: &Path,
    ui: &Ui,
) -> std::result::Result<Checked, Failure> {
    let dir = work.join("release");
    if dir.exists() {
        std::fs::remove_dir_all(&dir).map_err(cannot(&dir))?;
    }
    std::fs::create_dir_all(dir.join(SOURCES)).map_err(cannot(&dir))?;
    let (own, keys) = own_keys(made.key.public())?;
    let own_file = work.join("keys");
    std::fs::write(&own_file, own).map_err(cannot(&own_file))?;

    let mut files = Vec::new();
    for cell in made.cells {
        files.extend(bundle_files(&made.bundles.join(cell.name()), cell, &dir)?);
    }
    let subjects = files.len();
    let bundles = bundles(made.cells, &files, &dir, &keys)?;
    files.extend(sources(context, &inputs(&bundles), &dir)?);
    let file = made.args.file.display().to_string();
    let bill = sbom::bill(made.recipe, &file, &bundles, &crates(context.root)?)?;
    let builder = made.args.builder.as_deref().unwrap_or(provenance::UNKNOWN_BUILDER);
    let subject: Vec<&index::File> = files.iter().take(subjects).collect();
    let statement = provenance::statement(made.recipe, builder, &subject, &bundles);
    let notes = match &made.args.previous {
        None => notes::text(made.recipe, &bundles, None),
        Some(before) => {
            let (previous, changes) = changes(before, &dir, &bundles, &own_file, made, ui)?;
            notes::text(made.recipe, &bundles, Some((&previous, &changes)))
        }
    };
    for (name, text) in [(BILL, bill), (PROVENANCE, statement), (NOTES, notes)] {
        files.push(write(&dir, name, text.as_bytes())?);
    }
    files.sort();
    files.push(write(&dir, CHECKSUMS, index::checksums(&files).as_bytes())?);
    files.sort();
    let entry = |(cell, built): (&Cell, &Built)| index::Bundle {
        board: cell.board.clone(),
        epoch: built.manifest.epoch,
        file: format!("{}.tar", cell.name()),
        identity: built.identity,
        profile: cell.profile.clone(),
    };
    let index = Index {
        bundles: made.cells.iter().zip(&bundles).map(entry).collect(),
        files,
        format: index::FORMAT,
        version: made.recipe.version.clone(),
    };
    let text = index.to_canonical();
    write(&dir, FILE_NAME, text.as_bytes())?;
    write(&dir, SIGNATURE_NAME, made.key.sign(RELEASE_NAMESPACE, text.as_bytes())?.as_bytes())?;
    if std::fs::read_dir(dir.join(SOURCES)).is_ok_and(|mut entries| entries.next().is_none()) {
        let _ = std::fs::remove_dir(dir.join(SOURCES));
    }
    // What is given away is what `verify` accepts, read back from where it was written.
    let checked = check::check(&dir, &keys, &Policy::default())?;
    check_interrupted()?;
    for dir in [&dir, &dir.join(SOURCES)].into_iter().filter(|dir| dir.is_dir()) {
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).map_err(cannot(dir))?;
    }
    // Unlike a bundle, a release is not made again in a moment: it is on the disk before it has its name.
    let opened = File::open(&dir).map_err(cannot(&dir))?;
    rustix::fs::syncfs(&opened).map_err(|error| cannot(&dir)(error.into()))?;
    std::fs::rename(&dir, output).map_err(cannot(output))?;
    if let Some(parent) = output.parent() {
        let _ = File::open(parent).and_then(|parent| parent.sync_all());
    }
    Ok(checked)
}

/// The release that is there already, if it is this one: a version is released once.
///
/// # Errors
/// `E107`.
pub fn there(output: &Path, recipe: &Recipe, cells: &[Cell], key: &PublicKey) -> Result<Checked> {
    let occupied = |why: String| {
        let shown = output.display().to_string();
        Diagnostic::error(OCCUPIED, format!("{shown} is there already, and is not this release: {why}"))
            .fact("file", &shown)
            .help("move it out of the way, or change the version: a release that is out is never changed")
    };
    let (_, keys) = own_keys(key)?;
    let checked = check::check(output, &keys, &Policy::default())
        .map_err(|error| occupied(format!("{}: {}", error.code, error.message)))?;
    let found = checked.index.bundles.iter().map(|bundle| (&bundle.board, &bundle.profile));
    let same = found.eq(cells.iter().map(|cell| (&cell.board, &cell.profile)));
    if checked.index.version != recipe.version || !same {
        return Err(occupied(format!("it is release {} with other bundles", checked.index.version)).into());
    }
    Ok(checked)
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> Result<index::File> {
    let path = dir.join(name);
    std::fs::write(&path, bytes).map_err(cannot(&path))?;
    listed(dir, name)
}

/// A file that is there, with what the index says of it; everybody may read it.
fn listed(dir: &Path, name: &str) -> Result<index::File> {
    let path = dir.join(name);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).map_err(cannot(&path))?;
    let found = hash_file(&path).map_err(cannot(&path))?;
    Ok(index::File { name: name.to_owned(), sha256: found.sha256, size: found.size })
}

/// Takes over the files of a bundle: a second name for the same bytes, where the file system has that.
fn bundle_files(from: &Path, cell: &Cell, dir: &Path) -> Result<Vec<index::File>> {
    check_interrupted()?;
    let done = Done::read(from).ok_or_else(|| {
        Diagnostic::error(CELL, format!("{} is not whole any more", from.display()))
            .fact("cell", cell.name())
            .help("somebody else has changed it; run the same command again")
    })?;
    for file in &done.files {
        let (source, target) = (from.join(&file.name), dir.join(&file.name));
        if std::fs::hard_link(&source, &target).is_err() {
            std::fs::copy(&source, &target).map_err(cannot(&target))?;
        }
    }
    Ok(done.files)
}

fn bundles(cells: &[Cell], files: &[index::File], dir: &Path, keys: &Keys) -> Result<Vec<Built>> {
    let of = |cell: &Cell| {
        let name = format!("{}.tar", cell.name());
        let shown = dir.join(&name).display().to_string();
        let gone = |why: String| Diagnostic::error(CELL, format!("{shown} cannot be used: {why}"));
        let input = File::open(dir.join(&name)).map_err(|error| gone(error.to_string()))?;
        let verified = citrine_planner::verify::verify(input, &keys.bundles, &mut |_, _| Ok(()))
            .map_err(|error| error.diagnostic(&shown).unwrap_or_else(|| gone(error.to_string())))?;
        debug_assert!(files.iter().any(|file| file.name == name), "a bundle is a file of its cell");
        Ok(Built { identity: verified.identity, manifest: verified.manifest })
    };
    cells.iter().map(of).collect()
}

/// The files of the sources that the bundles are built from, each checked against what their manifests say.
fn sources(context: &Context<'_>, inputs: &[&Input], dir: &Path) -> Result<Vec<index::File>> {
    let wanted: Vec<&Input> = inputs.iter().copied().filter(|input| input.kind == InputKind::Source).collect();
    let mut files = Vec::new();
    for pin in context.lock.sources.values() {
        if !pin.files.iter().any(|file| wanted.iter().any(|input| input.name == file.name)) {
            continue;
        }
        let fetched = debian::fetch(context, pin)?;
        for file in &fetched.source.files {
            check_interrupted()?;
            let target = dir.join(SOURCES).join(&file.name);
            std::fs::copy(fetched.entry.dir.join(&file.name), &target).map_err(cannot(&target))?;
            files.push(listed(dir, &format!("{SOURCES}/{}", file.name))?);
        }
    }
    let there: BTreeSet<_> = files.iter().map(|file| (file.name.clone(), Some(file.sha256))).collect();
    match wanted.iter().find(|input| !there.contains(&(format!("{SOURCES}/{}", input.name), input.sha256))) {
        None => Ok(files),
        Some(input) => {
            let message = format!("{} is not among the pinned sources, and bundles were built from it", input.name);
            Err(Diagnostic::error(FILES, message)
                .help("run the same command again: artifacts/lock.toml has changed while the bundles were built")
                .into())
        }
    }
}

/// What cargo says of the crates: nothing is fetched, and Cargo.lock stays as it is.
fn crates(root: &Path) -> Result<Crates> {
    let tree = |package: &str, target: &str| -> Result<String> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let asked = ["tree", "--offline", "--locked", "--no-dedupe", "--edges", "normal", "--prefix", "depth"];
        let mut command = Command::new(&cargo);
        command.current_dir(root).args(asked);
        command.args([
            "--format",
            "{p}|{l}",
            "--charset",
            "ascii",
            "--color",
            "never",
            "-p",
            package,
            "--target",
            target,
        ]);
        let failed = |why: String| {
            Diagnostic::error(tools::FAILED, format!("`cargo tree` cannot list the crates of {package}: {why}"))
                .help("run `cargo fetch --locked` once, with a network")
        };
        let output = command.output().map_err(|error| failed(error.to_string()))?;
        if !output.status.success() {
            return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()).into());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let lock = root.join("Cargo.lock");
    let product = ["citrine-firmware", "citrine-guests"].map(|package| tree(package, tools::RUST_TARGET));
    Ok(Crates {
        product: product.into_iter().collect::<Result<Vec<String>>>()?.concat(),
        tool: tree("xtask", HOST)?,
        lock: std::fs::read_to_string(&lock).map_err(|error| crate::cache::io_error(&lock, &error))?,
    })
}

/// How each bundle differs from the one in the release before.
fn changes(
    before: &Path,
    dir: &Path,
    bundles: &[Built],
    own: &Path,
    made: &Made<'_>,
    ui: &Ui,
) -> std::result::Result<(Previous, Vec<Change>), Failure> {
    let keys = Keys::read(made.args.keys.as_deref(), ui)?;
    let checked = check::check(before, &keys, &Policy::default())?;
    let old = checked.index.by_cell();
    let change = |built: &Built| {
        let cell = (built.manifest.board.as_str(), built.manifest.profile.as_str());
        let Some(old) = old.get(&cell) else { return Ok(Change::New) };
        if old.identity == built.identity {
            return Ok(Change::Same);
        }
        let was = system(&before.join(&old.file), made.args.keys.as_deref(), ui)?;
        let is = system(&dir.join(format!("{}-{}.tar", cell.0, cell.1)), Some(own), ui)?;
        Ok(Change::Differs(diff::compare(&was, &is).iter().map(diff::text::line).collect()))
    };
    let changes = bundles.iter().map(change).collect::<std::result::Result<_, Failure>>()?;
    Ok((Previous { version: checked.index.version.clone(), bundles: checked.bundles }, changes))
}

/// The configuration of a bundle, for `diff`.
fn system(path: &Path, keys: Option<&Path>, ui: &Ui) -> std::result::Result<diff::System, Failure> {
    let parts = Parts::read(path, keys, ui)?;
    let tree = parts.part(Role::Configuration).and_then(|part| parts.bytes.get(&part.name));
    let empty = Vec::new();
    let shown: PathBuf = path.to_owned();
    Ok(diff::bundle::describe(
        &shown.display().to_string(),
        &parts.verified.manifest,
        &parts.profile,
        tree.unwrap_or(&empty),
    )?)
}
