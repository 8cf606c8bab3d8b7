//! What every stage is given, and what it hands on.

use std::path::{Path, PathBuf};

use citrine_formats::manifest::{Input, InputKind, Sha256};
use citrine_planner::diag::{Diagnostic, Label, Result, Severity};

use crate::build::lock::{self, Lock, Source};
use crate::cache::{Cache, Entry, io_error, sha256};
use crate::progress::Progress;
use crate::tools::Installed;

/// A recipe: a file of this project, by its path in it.
pub fn recipe_input(name: &str, bytes: &[u8]) -> Input {
    Input {
        kind: InputKind::Recipe,
        name: name.into(),
        origin: "this project".into(),
        sha256: Some(sha256(bytes)),
        size: Some(bytes.len() as u64),
        version: String::new(),
    }
}

/// The crate that compresses: another version may make other bytes.
pub fn deflate_input() -> Input {
    let (name, version) = env!("CITRINE_DEFLATE").split_once(' ').unwrap_or_default();
    plain(InputKind::Crate, name, version, "Cargo.lock")
}

fn plain(kind: InputKind, name: &str, version: &str, origin: &str) -> Input {
    Input { kind, name: name.into(), origin: origin.into(), sha256: None, size: None, version: version.into() }
}

/// What a stage made, ready to be packed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Artifact {
    /// File name.
    pub name: String,
    /// Where it is; read only.
    pub path: PathBuf,
    /// SHA-256 of its bytes, just checked.
    pub sha256: Sha256,
    /// Length in bytes.
    pub size: u64,
    /// Whether the cache had it.
    pub cached: bool,
    /// What it was made from, in order of kind and name.
    pub inputs: Vec<Input>,
}

impl Artifact {
    /// The files of a cache entry.
    pub fn of_entry(entry: &Entry, inputs: &[Input]) -> Vec<Self> {
        let artifact = |(name, info): (&String, &crate::cache::FileInfo)| Self {
            name: name.clone(),
            path: entry.dir.join(name),
            sha256: info.sha256,
            size: info.size,
            cached: entry.cached,
            inputs: inputs.to_vec(),
        };
        entry.files.iter().map(artifact).collect()
    }
}

/// What every stage is given.
#[derive(Debug)]
pub struct Context<'a> {
    /// The project's directory.
    pub root: &'a Path,
    /// The cache; it also knows of `--offline`.
    pub cache: &'a Cache,
    /// The pins.
    pub lock: &'a Lock,
    /// `--locked`: any other version than the pinned one is an error.
    pub locked: bool,
    /// Progress and notices.
    pub progress: &'a Progress<'a>,
    installed: Installed,
}

impl<'a> Context<'a> {
    /// Reads which packages this machine has, and compares them with the pins.
    ///
    /// # Errors
    /// [`lock::OTHER_VERSION`] when `locked`; a file error.
    pub fn new(
        root: &'a Path,
        cache: &'a Cache,
        lock: &'a Lock,
        locked: bool,
        progress: &'a Progress<'a>,
    ) -> Result<Self> {
        let installed = Installed::read()?;
        for diagnostic in other_versions(lock, &installed, locked) {
            if diagnostic.severity == Severity::Error {
                return Err(diagnostic.into());
            }
            progress.notice(&diagnostic);
        }
        Ok(Self { root, cache, lock, locked, progress, installed })
    }

    /// An installed package, as an input.
    ///
    /// # Errors
    /// [`crate::tools::MISSING`] when it is not installed.
    pub fn package(&self, name: &str) -> Result<Input> {
        let version = self.installed.require(name)?;
        Ok(plain(InputKind::Package, name, version, &self.lock.origin))
    }

    /// The files of a source, as inputs.
    pub fn source_inputs(&self, source: &Source) -> Vec<Input> {
        let input = |file: &lock::PinnedFile| Input {
            kind: InputKind::Source,
            name: file.name.clone(),
            origin: self.lock.origin.clone(),
            sha256: Some(file.sha256),
            size: Some(file.size),
            version: source.version.clone(),
        };
        source.files.iter().map(input).collect()
    }

    /// Reads a recipe of this project.
    ///
    /// # Errors
    /// A file error.
    pub fn recipe(&self, path: &str) -> Result<Vec<u8>> {
        let path = self.root.join(path);
        fs_err::read(&path).map_err(|error| io_error(&path, &error))
    }
}

/// One diagnostic for each package, and for the compiler, that is not as pinned.
pub fn other_versions(lock: &Lock, installed: &Installed, locked: bool) -> Vec<Diagnostic> {
    let packages =
        lock.packages.iter().filter_map(|(name, pinned)| Some((name.as_str(), pinned, installed.version(name)?)));
    packages
        .chain([("rustc", &lock.rustc, env!("CITRINE_RUSTC_RELEASE"))])
        .filter(|(_, pinned, found)| pinned != found)
        .map(|(name, pinned, found)| other_version(name, pinned, found, locked))
        .collect()
}

/// Says that a version is not the pinned one: an error when `locked`, else a notice.
pub fn other_version(name: &str, pinned: &str, found: &str, locked: bool) -> Diagnostic {
    let severity = if locked { Severity::Error } else { Severity::Notice };
    let message = format!("{name} is version {found}, where {} names {pinned}", lock::PATH);
    Diagnostic::new(lock::OTHER_VERSION, severity, message)
        .primary(Label::file(lock::PATH, format!("names {name} {pinned}")))
        .fact("found", found)
        .fact("pinned", pinned)
        .help("the bundle may differ from one built elsewhere; `cargo xtask lock --update` takes the new versions")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_is_a_notice_or_with_locked_an_error() {
        let lock = Lock::parse(include_str!("../../../artifacts/lock.toml")).unwrap();
        let status = |version: &str| {
            Installed::parse(&format!("Package: genext2fs\nStatus: install ok installed\nVersion: {version}\n"))
        };
        let of_packages = |installed: &Installed, locked| {
            let mut found = other_versions(&lock, installed, locked);
            found.retain(|diagnostic| !diagnostic.message.starts_with("rustc"));
            found
        };
        assert!(of_packages(&status(&lock.packages["genext2fs"]), true).is_empty());
        let notice = of_packages(&status("0"), false);
        assert_eq!((notice.len(), notice[0].severity), (1, Severity::Notice));
        assert_eq!(of_packages(&status("0"), true)[0].severity, Severity::Error);
    }

    #[test]
    fn the_deflate_crate_is_known() {
        let input = deflate_input();
        assert!(input.name == "zlib-rs" && input.version.starts_with("0."), "{input:?}");
    }
}
