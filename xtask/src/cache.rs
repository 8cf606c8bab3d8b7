//! The stage cache: what a stage made, found again by the id of everything that went in.
//!
//! It lies outside the checkout, so a second clone builds as fast as a no-op. An entry is a directory made
//! under `tmp/`, synced, and renamed into `stages/` in one go: after `kill -9` there is an entry or there is
//! none. Its bytes are hashed again at each use; a damaged entry is made anew. Every process holds the
//! cache's lock shared for as long as it lives, so trimming and sweeping, which need it alone, never take
//! a file from under a build; two builds of one stage wait for one another on the stage's own lock.

mod entry;
pub mod files;
pub mod remote;

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use citrine_formats::manifest::Sha256;
use citrine_planner::diag::{Code, Diagnostic, Label, Result, Severity};
use sha2::Digest as _;

use crate::progress::{Progress, Step, check_interrupted};
pub use entry::Entry;
use entry::{Found, INDEX, read_entry, seal};
pub use files::{FILE, FileInfo, hash_file, io_error, sha256};
use files::{children, make_dir, remove_children, rename, size_of, sync_dir};
use remote::Remote;

/// An entry's bytes are not those that were written.
pub const DAMAGED: Code = Code::new('T', 203);
/// `--offline`, and the cache does not hold the stage.
pub const NOT_CACHED: Code = Code::new('T', 204);

/// Tells backup programs to pass the directory over (<https://bford.info/cachedir/>).
const TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n# Made by citrine; may be deleted at any time.\n";
/// How long to sleep between two tries for a lock that someone else holds.
const LOCK_PAUSE: Duration = Duration::from_millis(100);
/// Stages that are made in less time are not fetched from other machines, nor offered to them.
const WORTH_SHARING: Duration = Duration::from_secs(5);

/// The name of one stage's result: the stage, and a hash of everything that went in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StageId {
    name: &'static str,
    hash: Sha256,
}

impl StageId {
    /// The id of version `version` of stage `name`, fed with `parts`, each a name and its bytes.
    ///
    /// Every length is hashed too, so bytes that move from one part to the next make another id.
    pub fn new(name: &'static str, version: u32, parts: &[(&str, &[u8])]) -> Self {
        let mut hasher = sha2::Sha256::new();
        let mut field = |bytes: &[u8]| {
            hasher.update((bytes.len() as u64).to_be_bytes());
            hasher.update(bytes);
        };
        field(name.as_bytes());
        field(&version.to_be_bytes());
        for (part, bytes) in parts {
            field(part.as_bytes());
            field(bytes);
        }
        Self { name, hash: Sha256(hasher.finalize().into()) }
    }

    fn directory(&self) -> String {
        format!("{}-{}", self.name, self.hash)
    }
}

/// What [`Cache::gc`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Trimmed {
    /// Entries removed.
    pub removed: usize,
    /// Bytes freed.
    pub freed: u64,
    /// Bytes that remain.
    pub kept: u64,
}

/// The cache of this user.
#[derive(Debug)]
pub struct Cache {
    root: PathBuf,
    offline: bool,
    remote: Option<Remote>,
    /// Held shared from `open` until the process ends.
    lock: File,
}

impl Cache {
    /// Where the cache lies: `$CITRINE_CACHE`, else `citrine` in the XDG cache directory.
    ///
    /// # Errors
    /// [`FILE`] when neither it nor a home directory is known.
    pub fn default_root() -> Result<PathBuf> {
        let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        variable("CITRINE_CACHE")
            .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("citrine")))
            .or_else(|| Some(variable("HOME")?.join(".cache/citrine")))
            .ok_or_else(|| {
                Diagnostic::error(FILE, "no directory for the cache: HOME is not set to an absolute path")
                    .help("set CITRINE_CACHE to the absolute path of a directory")
                    .into()
            })
    }

    /// Opens the cache at `root`, and makes it if need be. With `offline`, nothing is built or fetched.
    ///
    /// # Errors
    /// [`FILE`] or [`files::NO_SPACE`].
    pub fn open(root: PathBuf, offline: bool) -> Result<Self> {
        for dir in ["stages", "locks", "tmp", "logs"] {
            make_dir(&root.join(dir))?;
        }
        let tag = root.join("CACHEDIR.TAG");
        if !tag.exists() {
            fs_err::write(&tag, TAG).map_err(|error| io_error(&tag, &error))?;
        }
        let path = root.join("lock");
        let lock = open_lock(&path)?;
        // Alone here: whatever lies in tmp/ was left by a process that was killed.
        if lock.try_lock().is_ok() {
            remove_children(&root.join("tmp"))?;
        }
        lock.lock_shared().map_err(|error| io_error(&path, &error))?;
        Ok(Self { root, offline, remote: None, lock })
    }

    /// The same cache, which also takes entries from a registry, and offers its new ones there.
    pub fn with_remote(self, remote: Option<Remote>) -> Self {
        Self { remote, ..self }
    }

    /// The directory that holds the cache.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether nothing may be built or fetched.
    pub fn offline(&self) -> bool {
        self.offline
    }

    /// The file for the log of a stage that is being made. It is kept when the stage fails.
    pub fn log(&self, stage: &str) -> PathBuf {
        self.root.join("logs").join(format!("{stage}-{}.log", std::process::id()))
    }

    /// An empty directory that is removed when the returned value goes out of scope.
    ///
    /// # Errors
    /// [`FILE`] or [`files::NO_SPACE`].
    pub fn scratch(&self) -> Result<tempfile::TempDir> {
        let tmp = self.root.join("tmp");
        tempfile::Builder::new().prefix("work-").tempdir_in(&tmp).map_err(|error| io_error(&tmp, &error))
    }

    /// The entry of a stage, if the cache holds it undamaged.
    ///
    /// # Errors
    /// [`FILE`] when it is there and cannot be read.
    pub fn find(&self, id: &StageId, progress: &Progress<'_>) -> Result<Option<Entry>> {
        let dir = self.root.join("stages").join(id.directory());
        match read_entry(&dir)? {
            Found::Nothing => Ok(None),
            Found::Whole(files) => {
                // The time of the last use, for `gc`; a cache that cannot be written still serves.
                let _ = File::options()
                    .append(true)
                    .open(dir.join(INDEX))
                    .and_then(|index| index.set_modified(SystemTime::now()));
                Ok(Some(Entry { dir, files, cached: true }))
            }
            Found::Damaged(what) => {
                let message = format!("the cached {} is damaged ({what}); it is made anew", id.name);
                let notice = Diagnostic::new(DAMAGED, Severity::Notice, message);
                progress.notice(&notice.primary(Label::file(dir.display().to_string(), "this entry")));
                Ok(None)
            }
        }
    }

    /// The entry of a stage, made by `make` in the directory it is given unless the cache holds it.
    ///
    /// `label` is the stage's name for people, `expected` how long it takes on an ordinary machine.
    ///
    /// # Errors
    /// What `make` returns; [`NOT_CACHED`] when offline; [`FILE`], [`files::NO_SPACE`].
    pub fn stage(
        &self,
        id: &StageId,
        label: &str,
        expected: Duration,
        progress: &Progress<'_>,
        make: impl FnOnce(&Path, &Step<'_>) -> Result<()>,
    ) -> Result<Entry> {
        if let Some(entry) = self.find(id, progress)? {
            return Ok(entry);
        }
        if self.offline {
            let message = format!("the {label} is not in the cache, and --offline builds and fetches nothing");
            return Err(Diagnostic::error(NOT_CACHED, message)
                .fact("stage", id.directory())
                .help("run the command once without --offline")
                .into());
        }
        let _lock = self.lock_stage(id, label, progress)?;
        // Whoever held the lock may have made it.
        if let Some(entry) = self.find(id, progress)? {
            return Ok(entry);
        }
        let step = progress.step(label, Some(expected));
        let work = self.scratch()?;
        let product = work.path().join("product");
        make_dir(&product)?;
        let remote = self.remote.as_ref().filter(|_| expected >= WORTH_SHARING);
        let fetched = match remote {
            Some(remote) => fetched(remote, id, &step, (work.path(), &product), progress)?,
            None => None,
        };
        let cached = fetched.is_some();
        let files = match fetched {
            Some(files) => files,
            None => {
                make(&product, &step)?;
                check_interrupted()?;
                seal(&product)?
            }
        };
        let dir = self.root.join("stages").join(id.directory());
        if dir.exists() {
            // Damaged: moved away in one go as well, and removed with the work directory.
            rename(&dir, &work.path().join("damaged"))?;
        }
        rename(&product, &dir)?;
        sync_dir(&self.root.join("stages"))?;
        if let Some(remote) = remote.filter(|_| !cached) {
            step.detail("offering it to other machines");
            if let Err(error) = remote.push(&id.directory(), &dir, &files, work.path()) {
                progress.notice(&remote::harmless(*error));
            }
            check_interrupted()?;
        }
        step.finish(if cached { "fetched" } else { "done" });
        Ok(Entry { dir, files, cached })
    }

    /// Removes the entries that were not used for longest, until the rest is at most `max_bytes`.
    /// Waits until no other process uses the cache.
    ///
    /// # Errors
    /// [`FILE`].
    pub fn gc(&self, max_bytes: u64, progress: &Progress<'_>) -> Result<Trimmed> {
        let path = self.root.join("lock");
        wait_for(&self.lock, "another command to finish with the cache", &path, progress)?;
        let mut entries = Vec::new();
        for dir in children(&self.root.join("stages"))? {
            let used =
                fs_err::metadata(dir.join(INDEX)).and_then(|data| data.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
            entries.push((used, size_of(&dir)?, dir));
        }
        entries.sort();
        let mut trimmed = Trimmed { kept: entries.iter().map(|(_, size, _)| size).sum(), ..Trimmed::default() };
        for (_, size, dir) in entries {
            if trimmed.kept <= max_bytes {
                break;
            }
            // Out of sight first: half an entry is never seen.
            let gone = self.root.join("tmp").join(dir.file_name().unwrap_or_default());
            rename(&dir, &gone)?;
            fs_err::remove_dir_all(&gone).map_err(|error| io_error(&gone, &error))?;
            trimmed.removed += 1;
            trimmed.freed += size;
            trimmed.kept -= size;
        }
        remove_children(&self.root.join("logs"))?;
        remove_children(&self.root.join("locks"))?;
        self.lock.lock_shared().map_err(|error| io_error(&path, &error))?;
        Ok(trimmed)
    }

    fn lock_stage(&self, id: &StageId, label: &str, progress: &Progress<'_>) -> Result<File> {
        let path = self.root.join("locks").join(id.directory());
        let file = open_lock(&path)?;
        wait_for(&file, &format!("another command to finish the {label}"), &path, progress)?;
        Ok(file)
    }
}

/// The files of a stage from a registry, sealed; `None` when it has none that is believed, with the reason said.
fn fetched(
    remote: &Remote,
    id: &StageId,
    step: &Step<'_>,
    (work, product): (&Path, &Path),
    progress: &Progress<'_>,
) -> Result<Option<BTreeMap<String, FileInfo>>> {
    step.detail("asking the remote cache");
    match remote.fetch(&id.directory(), work, product) {
        Ok(Some((signer, files))) => {
            let (name, shown) = (id.name, remote.shown());
            progress.say(&format!("{name}: from {shown}, signed by {} {}", signer.principal, signer.fingerprint));
            Ok(Some(files))
        }
        Ok(None) => Ok(None),
        Err(error) => {
            check_interrupted()?;
            progress.notice(&remote::harmless(*error));
            // Whatever came is not built upon.
            fs_err::remove_dir_all(product).map_err(|error| io_error(product, &error))?;
            make_dir(product)?;
            Ok(None)
        }
    }
}

/// Takes a lock for this process alone; says so when it has to wait, and gives up after a signal.
fn wait_for(file: &File, what: &str, path: &Path, progress: &Progress<'_>) -> Result<()> {
    let mut said = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(io_error(path, &error)),
            Err(TryLockError::WouldBlock) if !said => {
                progress.say(&format!("waiting for {what}"));
                said = true;
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
        }
        check_interrupted()?;
    }
}

fn open_lock(path: &Path) -> Result<File> {
    File::options().create(true).truncate(false).write(true).open(path).map_err(|error| io_error(path, &error))
}

#[cfg(test)]
mod tests;
