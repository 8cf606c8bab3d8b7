//! The stage cache of other machines: entries in an OCI registry, fetched and offered by `skopeo`, which knows the
//! registries' logins, proxies and certificates. What an entry looks like, and why none is believed unsigned, stands in
//! `xtask/planner/src/remote.rs`.
//!
//! Nothing here is needed for a build: whatever goes wrong is said, and the stage is made here.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use citrine_formats::manifest::Sha256;
use citrine_planner::diag::{Code, Diagnostic, Result, Severity};
use citrine_planner::remote::{EMPTY, File, Statement, manifest, read};
use citrine_planner::verify::keys::{Signer, TrustedKeys};
use xshell::{Cmd, cmd};

use super::{FileInfo, io_error, seal, sha256};
use crate::tools;

/// The registry cannot be used.
pub const UNREACHABLE: Code = Code::new('T', 205);
/// An entry of the registry is not believed.
pub const NOT_BELIEVED: Code = Code::new('T', 206);

/// What `skopeo` calls a directory that holds an image (containers-transports(5)).
const DIRECTORY_VERSION: &str = "Directory Transport Version: 1.1\n";
/// What it says when a registry has no such entry.
const ABSENT: [&str; 2] = ["manifest unknown", "name unknown"];

/// Makes an armoured signature over bytes, for the namespace of entries.
pub type Sign = Box<dyn Fn(&[u8]) -> Result<String> + Send + Sync>;

/// A registry, whom to believe of what it has, and who signs what it is offered.
pub struct Remote {
    /// As the user gave it.
    shown: String,
    /// `host/repository`.
    place: String,
    /// Whether it speaks HTTP without TLS.
    plain: bool,
    keys: TrustedKeys,
    sign: Sign,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Remote {
    /// The registry `url`: `HOST[:PORT]/REPOSITORY`, with `http://` in front for one without TLS.
    ///
    /// # Errors
    /// [`UNREACHABLE`] for something else.
    pub fn new(url: &str, keys: TrustedKeys, sign: Sign) -> Result<Self> {
        let (plain, place) = match url.strip_prefix("http://") {
            Some(place) => (true, place),
            None => (false, url.strip_prefix("https://").unwrap_or(url)),
        };
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"./:_-".contains(&byte);
        let (host, repository) = place.split_once('/').unwrap_or_default();
        let whole = !host.is_empty() && repository.split('/').all(|word| !word.is_empty());
        if !whole || !place.bytes().all(fits) || place.starts_with(['-', '.']) || repository.contains(':') {
            let message = format!("`{}` names no repository of a registry", url.escape_debug());
            return Err(Diagnostic::error(UNREACHABLE, message)
                .help("name it as registry.example:5000/citrine/cache, with http:// in front of one without TLS")
                .into());
        }
        Ok(Self { shown: url.to_owned(), place: place.to_owned(), plain, keys, sign })
    }

    /// How messages call it.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    fn reference(&self, stage: &str) -> String {
        format!("docker://{}:{stage}", self.place)
    }

    /// Fetches the files of a stage into the empty directory `product` and seals them; `work` is for what is needed in
    /// between. Returns who signed the entry; `None` when the registry does not have it.
    ///
    /// # Errors
    /// [`UNREACHABLE`], [`NOT_BELIEVED`], a file error.
    pub fn fetch(
        &self,
        stage: &str,
        work: &Path,
        product: &Path,
    ) -> Result<Option<(Signer, BTreeMap<String, FileInfo>)>> {
        let shell = tools::shell_in(work)?;
        let reference = self.reference(stage);
        let verify = format!("--tls-verify={}", !self.plain);
        let found = match tools::capture(quiet(cmd!(shell, "skopeo inspect --raw {verify} {reference}"))) {
            Ok(found) => found,
            Err(error) if ABSENT.iter().any(|word| error.message.contains(word)) => return Ok(None),
            Err(error) => return Err(self.unreachable(error)),
        };
        let (statement, signer) = self.believed(found.as_bytes(), stage)?;
        let image = work.join("image");
        let (verify, to) = (format!("--src-tls-verify={}", !self.plain), format!("dir:{}", image.display()));
        tools::capture(quiet(cmd!(shell, "skopeo copy --quiet --preserve-digests {verify} {reference} {to}")))
            .map_err(|error| self.unreachable(error))?;
        for (name, file) in &statement.files {
            let (from, to) = (image.join(file.sha256.to_string()), product.join(name));
            fs_err::copy(&from, &to).map_err(|error| io_error(&from, &error))?;
        }
        // The tag may have moved in between, and skopeo is believed no more than the registry.
        let files = seal(product)?;
        let same = |(name, info): (&String, &FileInfo)| {
            statement.files.get(name).is_some_and(|file| (file.sha256, file.size) == (info.sha256, info.size))
        };
        if files.len() != statement.files.len() || !files.iter().all(same) {
            return Err(self.not_believed(stage, "its files are not those of its statement"));
        }
        Ok(Some((signer, files)))
    }

    /// The statement of an entry's manifest, and who signed it.
    ///
    /// # Errors
    /// [`NOT_BELIEVED`].
    pub fn believed(&self, manifest: &[u8], stage: &str) -> Result<(Statement, Signer)> {
        read(manifest, stage, &self.keys).map_err(|why| self.not_believed(stage, &why))
    }

    /// Offers the files of a stage, which lie in `dir`, to other machines.
    ///
    /// # Errors
    /// [`UNREACHABLE`], a file error, what signing returns.
    pub fn push(&self, stage: &str, dir: &Path, files: &BTreeMap<String, FileInfo>, work: &Path) -> Result<()> {
        let named = files.iter().map(|(name, info)| (name.clone(), File { sha256: info.sha256, size: info.size }));
        let statement = Statement { files: named.collect(), stage: stage.to_owned() };
        let signature = (self.sign)(&statement.to_bytes())?;
        let image = work.join("offer");
        super::make_dir(&image)?;
        let empty = sha256(EMPTY);
        let write = |name: &str, bytes: &[u8]| {
            let path = image.join(name);
            fs_err::write(&path, bytes).map_err(|error| io_error(&path, &error))
        };
        write("version", DIRECTORY_VERSION.as_bytes())?;
        write("manifest.json", &manifest(&statement, &signature, empty))?;
        write(&empty.to_string(), EMPTY)?;
        for (name, info) in files {
            link(&dir.join(name), &image, info.sha256)?;
        }
        let shell = tools::shell_in(work)?;
        let (verify, from) = (format!("--dest-tls-verify={}", !self.plain), format!("dir:{}", image.display()));
        let reference = self.reference(stage);
        tools::capture(quiet(cmd!(shell, "skopeo copy --quiet --preserve-digests {verify} {from} {reference}")))
            .map_err(|error| self.unreachable(error))?;
        Ok(())
    }

    fn unreachable(&self, error: Box<Diagnostic>) -> Box<Diagnostic> {
        if error.code != tools::FAILED {
            return error;
        }
        let why = error.message.lines().last().unwrap_or_default().to_owned();
        Diagnostic::error(UNREACHABLE, format!("the remote cache {} cannot be used: {why}", self.shown))
            .help("the stage is made here instead; check the address, the network, and `skopeo login`")
            .into()
    }

    fn not_believed(&self, stage: &str, why: &str) -> Box<Diagnostic> {
        Diagnostic::error(
            NOT_BELIEVED,
            format!("the remote cache {} has {stage}, which is not believed: {why}", self.shown),
        )
        .fact("stage", stage)
        .help(
            "the stage is made here instead; if you know who offers it, enter the key in allowed_signers with \
                 namespaces=\"citrine-cache\"",
        )
        .into()
    }
}

/// What went wrong with a remote cache, as something that stops nothing.
pub fn harmless(error: Diagnostic) -> Diagnostic {
    match error.code {
        UNREACHABLE | NOT_BELIEVED => Diagnostic { severity: Severity::Warning, ..error },
        _ => error,
    }
}

/// A program that is run with the user's environment, for logins and proxies; its words are English.
fn quiet(cmd: Cmd<'_>) -> Cmd<'_> {
    cmd.env("LC_ALL", "C").quiet()
}

/// A file of an entry under its digest: linked where it can be, so that nothing is copied.
fn link(from: &Path, image: &Path, digest: Sha256) -> Result<()> {
    let to: PathBuf = image.join(digest.to_string());
    if to.exists() || fs_err::hard_link(from, &to).is_ok() {
        return Ok(());
    }
    fs_err::copy(from, &to).map(drop).map_err(|error| io_error(from, &error))
}

#[cfg(test)]
mod tests;
