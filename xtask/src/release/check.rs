//! The way back in: is this directory a whole release, signed by somebody whom the user trusts?
//!
//! In that order: the signature over the index, which is not read before, then the names of the files, then each
//! file's length and hash, then each bundle as `verify` does it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use citrine_formats::manifest::NAMESPACE;
use citrine_planner::diag::{Diagnostic, Result};
use citrine_planner::release::index::{self, Bundle, CHECKSUMS, FILE_NAME, Index, SIGNATURE_NAME, SOURCES, refused};
use citrine_planner::release::{Built, DEVELOPMENT, FILES, SIGNATURE};
use citrine_planner::verify::keys::{self, RELEASE_NAMESPACE, Signer, TrustedKeys};
use citrine_planner::verify::policy::Policy;
use citrine_planner::verify::verify;

use crate::cache::hash_file;
use crate::cmd::verify::unreadable;
use crate::progress::check_interrupted;
use crate::report::Ui;
use crate::sign;

/// Longest signature file in bytes.
const MAX_SIGNATURE: u64 = 4096;

/// Whom to believe.
#[derive(Clone, Debug)]
pub struct Keys {
    /// For the index.
    pub release: TrustedKeys,
    /// For the bundles.
    pub bundles: TrustedKeys,
}

impl Keys {
    /// The trusted keys of `file`, or the user's own.
    ///
    /// # Errors
    /// `B111`: there must be one for releases and one for bundles, which may be the same.
    pub fn read(file: Option<&Path>, ui: &Ui) -> Result<Self> {
        let (_, release) = sign::trusted_keys_for(RELEASE_NAMESPACE, file, ui)?;
        let (_, bundles) = sign::trusted_keys_for(NAMESPACE, file, ui)?;
        Ok(Self { release, bundles })
    }
}

/// What a release has proved to be.
#[derive(Clone, Debug)]
pub struct Checked {
    /// Its index.
    pub index: Index,
    /// Who signed that.
    pub signer: Signer,
    /// Its bundles, in the order of the index.
    pub bundles: Vec<Built>,
}

/// Checks the release in `dir`, every bundle of which must be as `policy` demands.
///
/// # Errors
/// The first thing that is wrong: `E102` to `E105`, `B1xx`.
pub fn check(dir: &Path, trusted: &Keys, policy: &Policy) -> Result<Checked> {
    let shown = dir.join(FILE_NAME).display().to_string();
    let bytes = bounded(&dir.join(FILE_NAME), index::MAX_LEN as u64).map_err(|why| refused(&shown, &why))?;
    let signer = signer(dir, &bytes, &trusted.release)?;
    let index = Index::parse(&shown, &bytes)?;
    names(dir, &index)?;
    for file in &index.files {
        check_interrupted()?;
        let found = hash_file(&dir.join(&file.name)).map_err(|error| differs(dir, &file.name, &error.to_string()))?;
        if found.size != file.size {
            return Err(differs(dir, &file.name, &format!("it has {} bytes, {} were signed", found.size, file.size)));
        }
        if found.sha256 != file.sha256 {
            return Err(differs(dir, &file.name, "its bytes are not those that were signed"));
        }
    }
    let listed = bounded(&dir.join(CHECKSUMS), index::MAX_LEN as u64).map_err(|why| differs(dir, CHECKSUMS, &why))?;
    if listed != index.checksums().as_bytes() {
        return Err(differs(dir, CHECKSUMS, "it lists other files or hashes than the index"));
    }
    let bundles =
        index.bundles.iter().map(|bundle| whole(dir, bundle, &trusted.bundles, policy)).collect::<Result<_>>()?;
    Ok(Checked { index, signer, bundles })
}

/// A file of at most `limit` bytes.
fn bounded(path: &Path, limit: u64) -> std::result::Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(limit + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("it cannot be read: {error}"))?;
    if bytes.len() as u64 > limit { Err("it is too long".to_owned()) } else { Ok(bytes) }
}

fn signer(dir: &Path, index: &[u8], trusted: &TrustedKeys) -> Result<Signer> {
    let shown = dir.join(SIGNATURE_NAME).display().to_string();
    let refuse = |why: String| {
        Diagnostic::error(SIGNATURE, format!("{shown} does not vouch for this release: {why}"))
            .fact("file", &shown)
            .help(
                "get the signer's public key on another way than the release came, enter it in an allowed_signers file \
                 for the namespaces citrine-release and citrine-bundle, and name that with `--keys FILE`",
            )
    };
    let text = bounded(&dir.join(SIGNATURE_NAME), MAX_SIGNATURE).map_err(refuse)?;
    let checked = keys::check(RELEASE_NAMESPACE, index, &text).map_err(refuse)?;
    let signer = trusted.signer(&checked.key).ok_or_else(|| refuse("its key is not trusted".to_owned()))?;
    match signer.dev {
        true => Err(development(&shown)),
        false => Ok(signer),
    }
}

/// Something of a release that only a development key vouches for.
fn development(shown: &str) -> Box<Diagnostic> {
    Diagnostic::error(DEVELOPMENT, format!("{shown}: only a development key vouches for it"))
        .fact("file", shown)
        .help("a release is signed with a key that was made for that: `cargo xtask release --key FILE`")
        .into()
}

fn differs(dir: &Path, name: &str, why: &str) -> Box<Diagnostic> {
    let shown = dir.join(name).display().to_string();
    Diagnostic::error(FILES, format!("{shown} is not what the release's index lists: {why}"))
        .fact("file", shown)
        .help("do not use this release: get it again from where it was made")
        .into()
}

/// Nothing more and nothing less than the index lists, and plain files only.
fn names(dir: &Path, index: &Index) -> Result<()> {
    let mut expected: BTreeSet<String> = index.files.iter().map(|file| file.name.clone()).collect();
    expected.extend([FILE_NAME, SIGNATURE_NAME].map(str::to_owned));
    let sources = format!("{SOURCES}/");
    let mut found = BTreeSet::new();
    for (place, prefix) in [(dir.to_owned(), ""), (dir.join(SOURCES), sources.as_str())] {
        if !prefix.is_empty() && !expected.iter().any(|name| name.starts_with(prefix)) {
            break;
        }
        let unreadable = |error: std::io::Error| differs(dir, prefix, &format!("it cannot be read: {error}"));
        for entry in std::fs::read_dir(&place).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            let kind = entry.file_type().map_err(unreadable)?;
            if kind.is_dir() && name == SOURCES && expected.iter().any(|name| name.starts_with(&sources)) {
                continue;
            }
            if !expected.contains(&name) {
                return Err(differs(dir, &name.escape_debug().to_string(), "the index does not have it"));
            }
            if !kind.is_file() {
                return Err(differs(dir, &name, "it is not a plain file"));
            }
            found.insert(name);
        }
    }
    match expected.difference(&found).next() {
        Some(name) => Err(differs(dir, name, "it is missing")),
        None => Ok(()),
    }
}

fn whole(dir: &Path, bundle: &Bundle, trusted: &TrustedKeys, policy: &Policy) -> Result<Built> {
    check_interrupted()?;
    let path = dir.join(&bundle.file);
    let shown = path.display().to_string();
    let input = File::open(&path).map_err(|error| unreadable(&shown, &format!("it cannot be read: {error}")))?;
    let verified = verify(input, trusted, &mut |_, _| Ok(())).map_err(|error| match error.diagnostic(&shown) {
        Some(diagnostic) => diagnostic,
        None => unreadable(&shown, &error.to_string()),
    })?;
    if verified.is_development() {
        return Err(development(&shown));
    }
    let manifest = &verified.manifest;
    policy.judge(manifest, &verified.signers, trusted, &shown)?;
    policy.judge_whole(&verified, &shown)?;
    let of_manifest = (verified.identity, &manifest.board, &manifest.profile, manifest.epoch);
    if of_manifest != (bundle.identity, &bundle.board, &bundle.profile, bundle.epoch) {
        return Err(differs(dir, &bundle.file, "it is another bundle"));
    }
    Ok(Built { identity: verified.identity, manifest: verified.manifest })
}
