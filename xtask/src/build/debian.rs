//! Sources from Debian's archive, by apt with state of its own: no file of the machine's apt is written, its
//! lists may be stale or missing, and no root is needed.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};
use std::time::Duration;

use citrine_formats::manifest::Sha256;
use citrine_planner::diag::{Code, Diagnostic, Label, Result};
use xshell::{Cmd, Shell, cmd};

use crate::build::Context;
use crate::build::context::other_version;
use crate::build::lock::{Form, PATH, PinnedFile, Source};
use crate::build::sources::private_list;
use crate::cache::{Cache, Entry, StageId, hash_file, io_error};
use crate::progress::Progress;
use crate::tools;

/// A source cannot be fetched.
pub const UNAVAILABLE: Code = Code::new('T', 401);
/// A source's bytes are not the pinned ones.
pub const OTHER_BYTES: Code = Code::new('T', 402);

/// The file of a fetched entry that says what it holds.
const DESCRIPTION: &str = "source.json";
const STAGE_VERSION: u32 = 1;

/// A source in the cache.
#[derive(Debug)]
pub struct Fetched {
    /// What it is: the pin, or what was taken in its place.
    pub source: Source,
    /// Its files.
    pub entry: Entry,
}

impl Fetched {
    /// The file of the source whose name ends so.
    ///
    /// # Errors
    /// [`UNAVAILABLE`] when the package does not have one.
    pub fn file(&self, suffix: &str) -> Result<PathBuf> {
        let found = self.source.files.iter().find(|file| file.name.ends_with(suffix));
        found.map(|file| self.entry.dir.join(&file.name)).ok_or_else(|| {
            let (package, version) = (&self.source.package, &self.source.version);
            Diagnostic::error(UNAVAILABLE, format!("{package} {version} has no file that ends in `{suffix}`")).into()
        })
    }
}

/// The id under which the cache has a source that is pinned so.
fn id(pin: &Source) -> Result<StageId> {
    let pin_bytes = serde_json::to_vec(pin).map_err(|error| io_error(Path::new(DESCRIPTION), &error.into()))?;
    Ok(StageId::new("source", STAGE_VERSION, &[("pin", &pin_bytes)]))
}

/// The directory in which the cache has exactly the pinned source, if it does.
///
/// # Errors
/// A file error.
pub fn cached(cache: &Cache, pin: &Source, progress: &Progress<'_>) -> Result<Option<PathBuf>> {
    let Some(entry) = cache.find(&id(pin)?, progress)? else { return Ok(None) };
    let has = |file: &PinnedFile| {
        entry.files.get(&file.name).is_some_and(|found| (found.sha256, found.size) == (file.sha256, file.size))
    };
    Ok(pin.files.iter().all(has).then_some(entry.dir))
}

/// Puts the pinned source into the cache from a directory that has its files, instead of fetching it.
///
/// # Errors
/// [`OTHER_BYTES`]; a file error, also for a file that is not there.
pub fn provide(context: &Context<'_>, pin: &Source, from: &Path) -> Result<()> {
    let label = format!("source of {}", pin.package);
    context.cache.stage(&id(pin)?, &label, Duration::from_secs(2), context.progress, |dir, _| {
        for file in &pin.files {
            let path = from.join(&file.name);
            fs_err::copy(&path, dir.join(&file.name)).map_err(|error| io_error(&path, &error))?;
        }
        same_bytes(pin, &files_of(dir)?)?;
        describe(dir, pin)
    })?;
    Ok(())
}

fn describe(dir: &Path, source: &Source) -> Result<()> {
    let path = dir.join(DESCRIPTION);
    let text = serde_json::to_vec_pretty(source).map_err(|error| io_error(&path, &error.into()))?;
    fs_err::write(&path, text).map_err(|error| io_error(&path, &error))
}

/// The pinned source, or the newest of its series where Debian no longer carries the pinned version.
///
/// # Errors
/// [`UNAVAILABLE`]; [`OTHER_BYTES`]; `T302` when another version would have to do and the context is locked.
pub fn fetch(context: &Context<'_>, pin: &Source) -> Result<Fetched> {
    let label = format!("source of {}", pin.package);
    let entry = context.cache.stage(&id(pin)?, &label, Duration::from_secs(30), context.progress, |dir, step| {
        let work = context.cache.scratch()?;
        let log = context.cache.log(&format!("source-{}", pin.package));
        step.detail("reading the archive's index");
        let apt = Apt::new(work.path(), &log)?;
        let version = match apt.versions(pin)?.contains(&pin.version) {
            true => pin.version.clone(),
            false => apt.newest(pin)?,
        };
        if version != pin.version && context.locked {
            return Err(other_version(&pin.package, &pin.version, &version, true).into());
        }
        step.detail("downloading");
        apt.download(pin, &version, dir)?;
        let files = files_of(dir)?;
        if version == pin.version {
            same_bytes(pin, &files)?;
        }
        let _ = fs_err::remove_file(&log);
        describe(dir, &Source { version, files, ..pin.clone() })
    })?;
    let description = entry.read(DESCRIPTION)?;
    let source: Source =
        serde_json::from_slice(&description).map_err(|error| io_error(&entry.dir.join(DESCRIPTION), &error.into()))?;
    if source.version != pin.version {
        let diagnostic = other_version(&pin.package, &pin.version, &source.version, context.locked);
        if context.locked {
            return Err(diagnostic.into());
        }
        context.progress.notice(&diagnostic);
    }
    Ok(Fetched { source, entry })
}

/// The files in a directory, hashed, in order of name.
///
/// # Errors
/// A file error.
pub fn files_of(dir: &Path) -> Result<Vec<PinnedFile>> {
    let fail = |error: std::io::Error| io_error(dir, &error);
    let mut files = Vec::new();
    for entry in fs_err::read_dir(dir).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let info = hash_file(&entry.path()).map_err(fail)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        files.push(PinnedFile { name, sha256: info.sha256, size: info.size });
    }
    files.sort();
    Ok(files)
}

/// Compares what was fetched with the pin, file by file.
///
/// # Errors
/// [`OTHER_BYTES`].
pub fn same_bytes(pin: &Source, files: &[PinnedFile]) -> Result<()> {
    let differs = |file: &&PinnedFile| !(files.contains(file) && pin.files.contains(file));
    let mut wrong: Vec<&str> = pin.files.iter().chain(files).filter(differs).map(|file| file.name.as_str()).collect();
    wrong.sort_unstable();
    wrong.dedup();
    if wrong.is_empty() {
        return Ok(());
    }
    let message = format!("{} {} is not what the lock file pins: {}", pin.package, pin.version, wrong.join(", "));
    Err(Diagnostic::error(OTHER_BYTES, message)
        .primary(Label::file(PATH, format!("pins {}", pin.package)))
        .help("Debian never changes a published version: suspect an edited lock file, the mirror, or the network")
        .into())
}

/// apt with directories of its own.
pub struct Apt {
    shell: Shell,
    log: PathBuf,
    /// What `apt-get update` complained about, for the case that something is missing later.
    complaints: String,
}

impl Apt {
    /// Sets apt up in `dir` and reads the index of every Debian archive that this machine is set up for.
    ///
    /// # Errors
    /// [`UNAVAILABLE`] when there is none; a file error.
    pub fn new(dir: &Path, log: &Path) -> Result<Self> {
        let list = archives(&configured_sources()?, &codename())?;
        let write = |path: &Path, text: &str| fs_err::write(path, text).map_err(|error| io_error(path, &error));
        for sub in ["sources", "state/lists/partial", "cache/archives/partial"] {
            let path = dir.join(sub);
            fs_err::create_dir_all(&path).map_err(|error| io_error(&path, &error))?;
        }
        let configuration = dir.join("apt.conf");
        write(&dir.join("sources/archive.sources"), &list)?;
        write(&configuration, &settings(dir, Path::new("/etc/apt/apt.conf").exists()))?;
        let shell = tools::shell_in(dir)?;
        shell.set_var("APT_CONFIG", &configuration);
        shell.set_var("LC_ALL", "C");
        let mut apt = Self { shell, log: log.to_path_buf(), complaints: String::new() };
        // One archive out of reach is no harm if another has what is needed.
        if let Err(error) = apt.run(cmd!(apt.shell, "apt-get -qq update")) {
            if error.code != tools::FAILED {
                return Err(error);
            }
            apt.complaints = error.primary.map(|label| label.text).unwrap_or_default();
        }
        Ok(apt)
    }

    fn run(&self, command: Cmd<'_>) -> Result<()> {
        tools::run(command, &self.log)
    }

    /// The versions that the archive carries.
    ///
    /// # Errors
    /// [`tools::FAILED`].
    pub fn versions(&self, source: &Source) -> Result<Vec<String>> {
        let package = &source.package;
        let table = tools::capture(cmd!(self.shell, "apt-cache -q madison {package}"))?;
        Ok(versions_in(&table, package, source.form))
    }

    /// The newest version that the archive carries.
    ///
    /// # Errors
    /// [`UNAVAILABLE`] when it carries none.
    pub fn newest(&self, source: &Source) -> Result<String> {
        let mut newest: Option<String> = None;
        for version in self.versions(source)? {
            if newest.as_ref().is_none_or(|newest| self.compare(&version, newest) == Ordering::Greater) {
                newest = Some(version);
            }
        }
        newest.ok_or_else(|| self.unavailable(&source.package, "Debian's archive does not carry it").into())
    }

    /// Debian's order of versions, as dpkg has it.
    fn compare(&self, left: &str, right: &str) -> Ordering {
        match cmd!(self.shell, "dpkg --compare-versions {left} gt {right}").quiet().run() {
            Ok(()) => Ordering::Greater,
            Err(_) => Ordering::Less,
        }
    }

    /// Names, hashes and sizes of a version's files, from the signed index, without downloading them.
    ///
    /// # Errors
    /// [`UNAVAILABLE`].
    pub fn files(&self, source: &Source, version: &str) -> Result<Vec<PinnedFile>> {
        let asked = format!("{}={version}", source.package);
        let list = tools::capture(match source.form {
            Form::Binary => cmd!(self.shell, "apt-get -qq --print-uris download {asked}"),
            Form::Source => cmd!(self.shell, "apt-get -qq --print-uris --download-only --only-source source {asked}"),
        })?;
        let mut files: Vec<PinnedFile> = list.lines().filter_map(listed_file).collect();
        files.sort();
        if files.is_empty() {
            return Err(self.unavailable(&asked, "the archive's index has no SHA-256 for it").into());
        }
        Ok(files)
    }

    /// Downloads all files of a version into `dir`; apt checks them against the archive's signed index.
    ///
    /// # Errors
    /// [`UNAVAILABLE`].
    pub fn download(&self, source: &Source, version: &str, dir: &Path) -> Result<()> {
        let asked = format!("{}={version}", source.package);
        let _there = self.shell.push_dir(dir);
        let command = match source.form {
            Form::Binary => cmd!(self.shell, "apt-get -q download {asked}"),
            Form::Source => cmd!(self.shell, "apt-get -q --download-only --only-source source {asked}"),
        };
        self.run(command).map_err(|error| match error.code {
            tools::FAILED => {
                let why = error.primary.map(|label| label.text).unwrap_or_default();
                self.unavailable(&asked, &why).into()
            }
            _ => error,
        })
    }

    fn unavailable(&self, what: &str, why: &str) -> Diagnostic {
        let mut text = why.to_string();
        if !self.complaints.is_empty() {
            text = format!("{text}\nreading the index {}", self.complaints);
        }
        Diagnostic::error(UNAVAILABLE, format!("cannot fetch {what} from Debian's archive"))
            .primary(Label::file(self.log.display().to_string(), text))
            .help("check the network and /etc/apt; sources fetched once stay in the cache and work with --offline")
    }
}

/// The source list for the Debian archives among what the machine is set up for.
///
/// # Errors
/// [`UNAVAILABLE`] when there is none.
pub fn archives(configured: &[(String, String)], codename: &str) -> Result<String> {
    let list = private_list(configured, codename);
    if list.is_empty() {
        return Err(Diagnostic::error(UNAVAILABLE, "no Debian archive is set up in /etc/apt")
            .help("sources are taken from Debian's archive: run on Debian, or set up its `main` in /etc/apt/sources.list.d")
            .into());
    }
    Ok(list)
}

/// apt's settings: the machine's own (proxies, certificates), with every directory and hook replaced.
fn settings(dir: &Path, has_main: bool) -> String {
    let main = if has_main { "#include \"/etc/apt/apt.conf\";\n" } else { "" };
    let dir = dir.display();
    // Hooks of the machine (clearing its cache, telling its desktop) are not ours to run.
    format!(
        "#include \"/etc/apt/apt.conf.d/\";\n{main}\
         #clear APT::Update::Pre-Invoke;\n#clear APT::Update::Post-Invoke;\n#clear APT::Update::Post-Invoke-Success;\n\
         #clear DPkg::Post-Invoke;\n\
         Dir::Etc::Main \"/dev/null\";\nDir::Etc::Parts \"/dev/null\";\n\
         Dir::Etc::SourceList \"/dev/null\";\nDir::Etc::SourceParts \"{dir}/sources\";\n\
         Dir::State \"{dir}/state\";\nDir::Cache \"{dir}/cache\";\n\
         APT::Sandbox::User \"root\";\nAcquire::Languages \"none\";\nAcquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n"
    )
}

/// The machine's source lists.
fn configured_sources() -> Result<Vec<(String, String)>> {
    let mut paths = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(parts) = fs_err::read_dir("/etc/apt/sources.list.d") {
        paths.extend(parts.filter_map(|part| Some(part.ok()?.path())));
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "list" || extension == "sources"));
    paths.sort();
    let mut files = Vec::new();
    for path in paths.iter().filter(|path| path.exists()) {
        let text = fs_err::read_to_string(path).map_err(|error| io_error(path, &error))?;
        files.push((path.display().to_string(), text));
    }
    Ok(files)
}

/// The name of this machine's Debian release.
fn codename() -> String {
    let release = fs_err::read_to_string("/etc/os-release").unwrap_or_default();
    let line = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    line.unwrap_or("bookworm").trim_matches('"').to_string()
}

/// The versions in a table of `apt-cache madison`: `package | version | archive suite arch Packages`.
fn versions_in(table: &str, package: &str, form: Form) -> Vec<String> {
    let ending = match form {
        Form::Binary => " Packages",
        Form::Source => " Sources",
    };
    let version = |line: &str| {
        let mut columns = line.split('|').map(str::trim);
        let (name, version, archive) = (columns.next()?, columns.next()?, columns.next()?);
        (name == package && archive.ends_with(ending)).then(|| version.to_string())
    };
    table.lines().filter_map(version).collect()
}

/// A line of `apt-get --print-uris`: `'uri' name size SHA256:hash`.
fn listed_file(line: &str) -> Option<PinnedFile> {
    let (_, rest) = line.strip_prefix('\'')?.split_once("' ")?;
    let mut words = rest.split(' ');
    let (name, size, hash) = (words.next()?, words.next()?, words.next()?);
    Some(PinnedFile {
        name: name.to_string(),
        sha256: Sha256::from_hex(hash.strip_prefix("SHA256:")?)?,
        size: size.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_table_is_read() {
        let table = "   busybox | 1:1.35.0-4+deb12u1+b1 | http://a/debian bookworm/main amd64 Packages\n   \
            busybox | 1:1.35.0-4+deb12u1 | http://a/debian bookworm/main Sources\n other | 1 | http://a x Sources\nnonsense\n";
        assert_eq!(versions_in(table, "busybox", Form::Source), ["1:1.35.0-4+deb12u1"]);
        assert_eq!(versions_in(table, "busybox", Form::Binary), ["1:1.35.0-4+deb12u1+b1"]);
    }

    #[test]
    fn listed_files_are_read() {
        let hash = "9c01fe128b0eeded371c70e37d474fdb5055f71b5d0a778db44c6b0c62d3a7fa";
        let line = format!("'http://a/pool/b%2bc.dsc' b+c.dsc 2321 SHA256:{hash}");
        let file = listed_file(&line).unwrap();
        assert_eq!((file.name.as_str(), file.size, file.sha256.to_string()), ("b+c.dsc", 2321, hash.into()));
        for line in ["Need to get 2551 kB", "'x' y", "'x' y 1 MD5Sum:00", "'x' y 1 SHA256:00", ""] {
            assert_eq!(listed_file(line), None);
        }
    }
}
