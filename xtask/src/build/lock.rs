//! `artifacts/lock.toml`: the pins of everything that is not ours.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use citrine_formats::manifest::{Input, InputKind, Manifest, Sha256};
use citrine_planner::diag::{Code, Diagnostic, Label, Result};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::build::debian::Apt;
use crate::cache::{Cache, io_error};
use crate::progress::Progress;
use crate::tools::Installed;

/// The lock file cannot be read as one.
pub const INVALID: Code = Code::new('T', 301);
/// A version in use is not the one that the lock file names.
pub const OTHER_VERSION: Code = Code::new('T', 302);

/// The lock file, relative to the project.
pub const PATH: &str = "artifacts/lock.toml";

/// The pins.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// The time stamp of everything that is built, in seconds since 1970: never the clock, never git.
    pub source_date_epoch: u32,
    /// Where the packages come from, in words.
    pub origin: String,
    /// Release of the Rust compiler.
    pub rustc: String,
    /// Installed packages whose bytes or version reach an artefact.
    pub packages: BTreeMap<String, String>,
    /// Sources that are built.
    pub sources: BTreeMap<String, Source>,
}

/// One source, as a package of Debian.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The package's name. It includes the series, where there is one.
    pub package: String,
    /// Where in the archive it is.
    pub form: Form,
    /// The package's version.
    pub version: String,
    /// Every file of the package, in order of name.
    pub files: Vec<PinnedFile>,
}

/// How Debian carries a source.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// As the content of a binary package.
    Binary,
    /// As a source package: `.dsc`, the original archive, Debian's patches.
    Source,
}

/// One file of a source.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinnedFile {
    /// Its name in the archive: a plain file name.
    #[serde(deserialize_with = "file_name")]
    pub name: String,
    /// SHA-256 of its bytes.
    #[serde(deserialize_with = "sha256")]
    pub sha256: Sha256,
    /// Length in bytes.
    pub size: u64,
}

impl Lock {
    /// Reads the lock file of the project at `root`.
    ///
    /// # Errors
    /// [`INVALID`], or a file error.
    pub fn read(root: &Path) -> Result<Self> {
        let path = root.join(PATH);
        let text = fs_err::read_to_string(&path).map_err(|error| io_error(&path, &error))?;
        Self::parse(&text)
    }

    /// Reads the text of a lock file.
    ///
    /// # Errors
    /// [`INVALID`], with the place.
    pub fn parse(text: &str) -> Result<Self> {
        toml::from_str(text).map_err(|error| {
            let label = Label { file: PATH.into(), range: error.span(), text: "here".into() };
            invalid(error.message()).primary(label).into()
        })
    }

    /// The pin of a source.
    ///
    /// # Errors
    /// [`INVALID`] when the lock file has none.
    pub fn source(&self, name: &str) -> Result<&Source> {
        self.sources.get(name).ok_or_else(|| invalid(&format!("it has no [sources.{name}]")).into())
    }

    /// These pins with what a bundle was built from in their place: its time, its packages, and the files of its
    /// sources. Which package a file belongs to is seen from its name (`deb-version(7)`: no underscore in either).
    pub fn of_bundle(&self, manifest: &Manifest) -> Self {
        let mut pins = Self { source_date_epoch: manifest.source_date_epoch, ..self.clone() };
        for source in pins.sources.values_mut() {
            let begin = format!("{}_", source.package);
            let inputs = manifest.inputs.iter().filter(|input| input.kind == InputKind::Source);
            let own: Vec<&Input> = inputs.filter(|input| input.name.starts_with(&begin)).collect();
            let file = |input: &&Input| {
                Some(PinnedFile { name: input.name.clone(), sha256: input.sha256?, size: input.size? })
            };
            if let Some(files) = own.iter().map(file).collect::<Option<Vec<_>>>().filter(|files| !files.is_empty()) {
                source.version.clone_from(&own[0].version);
                source.files = files;
            }
        }
        for input in manifest.inputs.iter().filter(|input| input.kind == InputKind::Package) {
            if let Some(version) = pins.packages.get_mut(&input.name) {
                version.clone_from(&input.version);
            }
        }
        pins
    }

    /// The file's text below its comments.
    fn to_text(&self) -> String {
        let mut text = format!(
            "source_date_epoch = {}\norigin = {:?}\nrustc = {:?}\n\n[packages]\n",
            self.source_date_epoch, self.origin, self.rustc
        );
        // Writing to a String cannot fail.
        for (package, version) in &self.packages {
            let _ = writeln!(text, "{package} = {version:?}");
        }
        for (name, source) in &self.sources {
            let form = match source.form {
                Form::Binary => "binary",
                Form::Source => "source",
            };
            let _ = writeln!(text, "\n[sources.{name}]\npackage = {:?}\nform = {form:?}", source.package);
            let _ = writeln!(text, "version = {:?}", source.version);
            for PinnedFile { name: file, sha256, size } in &source.files {
                let _ = write!(text, "\n[[sources.{name}.files]]\nname = {file:?}\n");
                let _ = write!(text, "sha256 = \"{sha256}\"\nsize = {size}\n");
            }
        }
        text
    }
}

fn invalid(what: &str) -> Diagnostic {
    Diagnostic::error(INVALID, format!("{PATH} is not a lock file: {what}"))
        .help("take the file from version control, then write it anew with `cargo xtask lock --update`")
}

fn sha256<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Sha256, D::Error> {
    let text = String::deserialize(deserializer)?;
    Sha256::from_hex(&text).ok_or_else(|| D::Error::custom("expected 64 lower-case hexadecimal digits"))
}

fn file_name<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    match Path::new(&name).file_name() == Some(name.as_ref()) {
        true => Ok(name),
        false => Err(D::Error::custom("expected a plain file name")),
    }
}

/// Writes the lock file of the project at `root` anew: the versions that are installed here and the newest
/// sources of the same series. Returns one line for each change.
///
/// # Errors
/// A missing package, a source that Debian does not carry, a file error.
pub fn update(root: &Path, cache: &Cache, progress: &Progress<'_>) -> Result<Vec<String>> {
    let path = root.join(PATH);
    let text = fs_err::read_to_string(&path).map_err(|error| io_error(&path, &error))?;
    let old = Lock::parse(&text)?;
    let mut new = old.clone();
    new.rustc = env!("CITRINE_RUSTC_RELEASE").to_string();
    let installed = Installed::read()?;
    for (package, version) in &mut new.packages {
        *version = installed.require(package)?.to_string();
    }
    let step = progress.step("newest sources", None);
    let work = cache.scratch()?;
    let apt = Apt::new(work.path(), &cache.log("lock"))?;
    for source in new.sources.values_mut() {
        let newest = apt.newest(source)?;
        source.files = apt.files(source, &newest)?;
        source.version = newest;
    }
    step.finish("found");

    let comments: String = text
        .lines()
        .take_while(|line| line.starts_with('#') || line.is_empty())
        .map(|line| format!("{line}\n"))
        .collect();
    let written = comments + &new.to_text();
    if written != text {
        let temporary = path.with_extension("toml.new");
        fs_err::write(&temporary, written).map_err(|error| io_error(&temporary, &error))?;
        fs_err::rename(&temporary, &path).map_err(|error| io_error(&path, &error))?;
    }
    Ok(changes(&old, &new))
}

fn changes(old: &Lock, new: &Lock) -> Vec<String> {
    let versions = |lock: &Lock| -> BTreeMap<String, String> {
        let sources =
            lock.sources.values().map(|source| (format!("source {}", source.package), source.version.clone()));
        let packages = lock.packages.clone().into_iter();
        sources.chain(packages).chain([("rustc".to_string(), lock.rustc.clone())]).collect()
    };
    let (old, new) = (versions(old), versions(new));
    old.iter()
        .filter_map(|(name, before)| {
            let after = new.get(name)?;
            (before != after).then(|| format!("{name}: {before} -> {after}"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMITTED: &str = include_str!("../../../artifacts/lock.toml");

    #[test]
    fn the_committed_file_is_what_the_tool_writes() {
        let lock = Lock::parse(COMMITTED).unwrap();
        let text = lock.to_text();
        assert!(COMMITTED.ends_with(&text), "{text}");
        assert_eq!(Lock::parse(&text).unwrap(), lock);
    }

    #[test]
    fn it_names_no_server() {
        assert!(!COMMITTED.contains("://"));
    }

    #[test]
    fn what_is_no_lock_file_is_refused_with_its_place() {
        for (from, to) in [
            ("source_date_epoch = 1700000000", "source_date_epoch = \"now\""),
            ("form = \"binary\"", "form = \"git\""),
            ("origin =", "colour = 1\norigin ="),
            ("name = \"busybox_1.35.0.orig.tar.bz2\"", "name = \"../busybox.tar\""),
            ("sha256 = \"faeeb2", "sha256 = \"FAEEB2"),
            ("sha256 = \"faeeb2", "sha256 = \""),
            ("[sources.linux]", "[sources.linux"),
        ] {
            let text = COMMITTED.replacen(from, to, 1);
            assert_ne!(text, COMMITTED);
            let error = Lock::parse(&text).unwrap_err();
            assert_eq!(error.code, INVALID);
            assert!(error.primary.as_ref().unwrap().range.is_some(), "{to}: {error:?}");
        }
        assert_eq!(Lock::parse(COMMITTED).unwrap().source("gnu").unwrap_err().code, INVALID);
    }

    #[test]
    fn changes_name_both_versions() {
        let old = Lock::parse(COMMITTED).unwrap();
        let mut new = old.clone();
        new.packages.insert("genext2fs".into(), "2".into());
        assert_eq!(changes(&old, &new), ["genext2fs: 1.5.0-3 -> 2"]);
        assert!(changes(&old, &old).is_empty());
    }
}
