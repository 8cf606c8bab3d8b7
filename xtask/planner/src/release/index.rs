//! `index.json`: every file of a release with its length and SHA-256, and every bundle with its identity.
//!
//! It is what a release's signature covers. Like a bundle's manifest it has one spelling: reading writes it once more
//! and compares, so an index means one thing only.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use citrine_formats::manifest::Sha256;
use serde::{Deserialize, Serialize};

use super::recipe::is_version;
use super::{INDEX, canonical};
use crate::diag::{Diagnostic, Result};

/// The format that this code writes, and the only one it reads.
pub const FORMAT: u32 = 1;
/// Name of the index in a release.
pub const FILE_NAME: &str = "index.json";
/// Name of its signature.
pub const SIGNATURE_NAME: &str = "index.json.sig";
/// Name of the file that `sha256sum -c` reads.
pub const CHECKSUMS: &str = "SHA256SUMS";
/// The one directory of a release: what the bundles were built from and others have made.
pub const SOURCES: &str = "sources";
/// Longest index in bytes; a longer one is refused unread.
pub const MAX_LEN: usize = 4 << 20;

/// A file of a release.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Its name, for those of [`SOURCES`] with that directory in front.
    pub name: String,
    /// SHA-256 of its bytes.
    pub sha256: Sha256,
    /// Length in bytes.
    pub size: u64,
}

/// A bundle of a release.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// The board.
    pub board: String,
    /// The rollback counter.
    pub epoch: u32,
    /// Name of its archive.
    pub file: String,
    /// SHA-256 of its manifest.
    pub identity: Sha256,
    /// The profile.
    pub profile: String,
}

/// What a release is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    /// The bundles, in order of board and profile.
    pub bundles: Vec<Bundle>,
    /// Every file but the index and its signature, in order of name.
    pub files: Vec<File>,
    /// [`FORMAT`].
    pub format: u32,
    /// The version of the release.
    pub version: String,
}

impl Index {
    /// The one spelling of it.
    pub fn to_canonical(&self) -> String {
        canonical(&serde_json::to_value(self).unwrap_or_default())
    }

    /// Reads exactly what [`Self::to_canonical`] writes, naming the file as `shown`.
    ///
    /// # Errors
    /// [`INDEX`].
    pub fn parse(shown: &str, bytes: &[u8]) -> Result<Self> {
        let refuse = |why: &str| refused(shown, why);
        // Through a value, whose objects keep one member of each name: the comparison below finds the others.
        let text = std::str::from_utf8(bytes).map_err(|_| refuse("it is not UTF-8"))?;
        let index: Self = serde_json::from_str(text).map_err(|error| refuse(&error.to_string()))?;
        if index.format != FORMAT {
            return Err(refuse(&format!("it has format {}, and this version reads {FORMAT}", index.format)).into());
        }
        if index.to_canonical().as_bytes() != bytes {
            return Err(refuse("it is not spelled as a release's index is").into());
        }
        index.check().map_err(|why| refuse(&why))?;
        Ok(index)
    }

    fn check(&self) -> std::result::Result<(), String> {
        if !is_version(&self.version) {
            return Err("its version is none".to_owned());
        }
        if let Some(file) = self.files.iter().find(|file| !is_name(&file.name)) {
            return Err(format!("`{}` is no name of a file in a release", file.name.escape_debug()));
        }
        if !self.files.windows(2).all(|pair| matches!(pair, [a, b] if a.name < b.name)) {
            return Err("its files are not in order of name, each once".to_owned());
        }
        let place = |bundle: &Bundle| (bundle.board.clone(), bundle.profile.clone());
        if !self.bundles.windows(2).all(|pair| matches!(pair, [a, b] if place(a) < place(b))) {
            return Err("its bundles are not in order, each once".to_owned());
        }
        let archives: BTreeSet<&str> =
            self.files.iter().map(|file| file.name.as_str()).filter(|name| name.ends_with(".tar")).collect();
        let named: BTreeSet<&str> = self.bundles.iter().map(|bundle| bundle.file.as_str()).collect();
        if archives != named || named.len() != self.bundles.len() {
            return Err("its bundles are not its archives".to_owned());
        }
        Ok(())
    }

    /// The text of [`CHECKSUMS`]: every file but that itself.
    pub fn checksums(&self) -> String {
        checksums(&self.files)
    }

    /// The bundles by board and profile.
    pub fn by_cell(&self) -> BTreeMap<(&str, &str), &Bundle> {
        self.bundles.iter().map(|bundle| ((bundle.board.as_str(), bundle.profile.as_str()), bundle)).collect()
    }
}

/// The text of [`CHECKSUMS`] for these files.
pub fn checksums(files: &[File]) -> String {
    let mut text = String::new();
    for file in files.iter().filter(|file| file.name != CHECKSUMS) {
        let _ = writeln!(text, "{}  {}", file.sha256, file.name);
    }
    text
}

/// An index that is none, for this reason.
pub fn refused(shown: &str, why: &str) -> Diagnostic {
    Diagnostic::error(INDEX, format!("{shown} is not the index of a release: {why}")).fact("file", shown).help(
        "name the directory that `cargo xtask release` wrote; get it again from where it was made if it was changed",
    )
}

/// Whether a file of a release can be called so: plain names, which no shell and no `sha256sum` takes for anything else.
fn is_name(name: &str) -> bool {
    let plain = |name: &str| {
        (1..=128).contains(&name.len())
            && !name.starts_with(['.', '-'])
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-+~".contains(&byte))
    };
    let source = name.strip_prefix(SOURCES).and_then(|rest| rest.strip_prefix('/'));
    source.map_or_else(|| plain(name) && ![FILE_NAME, SIGNATURE_NAME, SOURCES].contains(&name), plain)
}
