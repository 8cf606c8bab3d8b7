//! External programs: how they are run, and which packages of this machine hold them.
//!
//! Programs that make bytes run in a clean environment (fixed search path, locale, time zone), so that
//! nothing of the user's session reaches an artefact. Long ones run in a process group of their own, which
//! ends when the tool does, for whatever reason short of SIGKILL.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use citrine_planner::diag::{Code, Diagnostic, Label, Result};
use process_wrap::std::{ChildWrapper, CommandWrap, ProcessGroup};

use crate::cache::io_error;
use crate::progress::{check_interrupted, interrupted};

/// Something that the command needs is not installed, and cannot be installed by the tool.
pub const MISSING: Code = Code::new('T', 101);
/// A program that should be there cannot be started.
pub const CANNOT_START: Code = Code::new('T', 103);
/// A program of another project failed; its log is kept.
pub const FAILED: Code = Code::new('T', 501);

/// The target of the hypervisor's firmware.
pub const RUST_TARGET: &str = "powerpc-unknown-linux-gnu";

/// Where Debian's packages put programs; the user's own wrappers never reach an artefact.
const SEARCH_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// The packages of this machine, as dpkg keeps them.
const DPKG_STATUS: &str = "/var/lib/dpkg/status";
/// Lines of a failed program's log that a diagnostic repeats.
const LAST_LINES: usize = 12;
/// Longest pause between two looks at a running child.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// The environment of programs that make bytes: nothing of the user's session but what is named here.
pub fn clean(cmd: xshell::Cmd<'_>) -> xshell::Cmd<'_> {
    cmd.env_clear().env("PATH", SEARCH_PATH).env("LC_ALL", "C").env("TZ", "UTC")
}

/// A shell whose commands run in `dir`.
///
/// # Errors
/// A file error when the process has no current directory any more.
pub fn shell_in(dir: &Path) -> Result<xshell::Shell> {
    let shell = xshell::Shell::new().map_err(|error| io_error(dir, &io::Error::other(error)))?;
    shell.change_dir(dir);
    Ok(shell)
}

/// Runs a program to its end, its output appended to `log`.
///
/// # Errors
/// [`CANNOT_START`]; [`FAILED`] with the log's last lines (the log is kept); `T601` after a signal, with the
/// program and all its children ended; `T202` when the log shows that the disk was full.
pub fn run(cmd: xshell::Cmd<'_>, log: &Path) -> Result<()> {
    check_interrupted()?;
    let shown = cmd.to_string();
    let open = || fs_err::OpenOptions::new().create(true).append(true).open(log).map_err(|error| io_error(log, &error));
    let (out, err) = (open()?, open()?);
    let mut command = Command::from(cmd);
    command.stdin(Stdio::null()).stdout(out.into_file()).stderr(err.into_file());
    let status = wait(spawn(command, &shown)?, &shown)?;
    if status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&fs_err::read(log).unwrap_or_default()).into_owned();
    if text.contains("No space left on device") {
        return Err(io_error(log, &io::Error::from(io::ErrorKind::StorageFull)));
    }
    let lines: Vec<&str> = text.lines().collect();
    let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n");
    Err(Diagnostic::error(FAILED, format!("`{shown}` failed ({status}); its log is {}", log.display()))
        .primary(Label::file(log.display().to_string(), format!("ends with:\n{last}")))
        .fact("status", status)
        .help("read the log; if it is no mistake of this machine, the recipe in artifacts/ needs a change")
        .into())
}

/// Runs a short program and returns what it wrote to stdout.
///
/// # Errors
/// [`CANNOT_START`]; [`FAILED`] with what the program wrote to stderr.
pub fn capture(cmd: xshell::Cmd<'_>) -> Result<String> {
    check_interrupted()?;
    let shown = cmd.to_string();
    let output = Command::from(cmd).stdin(Stdio::null()).output().map_err(|error| cannot_start(&shown, &error))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let message = format!("`{shown}` failed ({}): {}", output.status, said.trim());
    Err(Diagnostic::error(FAILED, message).fact("status", output.status).into())
}

/// Gives `input` to a short program and returns the text that it made of it. Its message says what the program said.
///
/// # Errors
/// [`CANNOT_START`]; [`FAILED`] with what the program wrote to stderr.
pub fn filter(cmd: xshell::Cmd<'_>, input: &[u8]) -> Result<String> {
    check_interrupted()?;
    let shown = cmd.to_string();
    let output = cmd.stdin(input).quiet().ignore_status().output();
    let output = output.map_err(|error| cannot_start(&shown, &io::Error::other(error)))?;
    check_interrupted()?;
    match String::from_utf8(output.stdout) {
        Ok(text) if output.status.success() => Ok(text),
        _ => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            let said = if said.is_empty() { format!("`{shown}` failed ({})", output.status) } else { said };
            Err(Diagnostic::error(FAILED, said).fact("status", output.status).into())
        }
    }
}

fn spawn(command: Command, shown: &str) -> Result<Group> {
    CommandWrap::from(command)
        .wrap(ProcessGroup::leader())
        .spawn()
        .map(Group)
        .map_err(|error| cannot_start(shown, &error).into())
}

fn wait(mut group: Group, shown: &str) -> Result<ExitStatus> {
    let mut pause = Duration::from_millis(1);
    loop {
        if interrupted() {
            drop(group);
            check_interrupted()?;
            unreachable!("the flag is never taken back");
        }
        match group.0.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) => std::thread::sleep(pause),
            Err(error) => return Err(cannot_start(shown, &error).into()),
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn cannot_start(shown: &str, error: &io::Error) -> Diagnostic {
    let diagnostic = Diagnostic::error(CANNOT_START, format!("cannot run `{shown}`: {error}"));
    if error.kind() == io::ErrorKind::NotFound {
        diagnostic.help("run `cargo xtask doctor`: it lists the packages that are missing")
    } else {
        diagnostic
    }
}

/// A running process group, which ends with its owner.
struct Group(Box<dyn ChildWrapper>);

impl Drop for Group {
    fn drop(&mut self) {
        // Fails only where all of it has ended already.
        let _ = self.0.kill();
    }
}

/// Says what is missing and which command lines bring it.
pub fn missing(packages: &[String], rust_target: bool) -> Diagnostic {
    let (mut what, mut commands) = (packages.to_vec(), Vec::new());
    if !packages.is_empty() {
        let list = packages.join(" ");
        commands.push(format!("as root: apt-get update && apt-get install --no-install-recommends {list}"));
    }
    if rust_target {
        what.push(format!("the Rust target {RUST_TARGET}"));
        commands.push(format!("as yourself: rustup target add {RUST_TARGET}"));
    }
    let who = if packages.is_empty() { "run this again" } else { "run this as root on Debian 12" };
    let help = format!("install it, or {who} with --yes:\n{}", commands.join("\n"));
    let diagnostic = Diagnostic::error(MISSING, format!("this machine lacks {}", what.join(", "))).help(help);
    diagnostic.fact("packages", packages.join(" ")).fact("rust_target", rust_target)
}

/// The packages that are installed on this machine, with their versions.
#[derive(Debug, Default)]
pub struct Installed {
    versions: BTreeMap<String, String>,
}

impl Installed {
    /// Reads dpkg's own record: no process, a few milliseconds. Empty on a machine without dpkg.
    ///
    /// # Errors
    /// A file error when the record is there and cannot be read.
    pub fn read() -> Result<Self> {
        let path = Path::new(DPKG_STATUS);
        match fs_err::read(path) {
            Ok(bytes) => Ok(Self::parse(&String::from_utf8_lossy(&bytes))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(io_error(path, &error)),
        }
    }

    /// Reads the text of dpkg's status file; a stanza that is not an installed package is passed over.
    pub fn parse(status: &str) -> Self {
        let mut versions = BTreeMap::new();
        for stanza in status.split("\n\n") {
            let field =
                |name: &str| stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
            if field("Status").is_some_and(|status| status.ends_with(" ok installed"))
                && let (Some(package), Some(version)) = (field("Package"), field("Version"))
            {
                versions.insert(package.to_string(), version.to_string());
            }
        }
        Self { versions }
    }

    /// The version of an installed package.
    pub fn version(&self, package: &str) -> Option<&str> {
        self.versions.get(package).map(String::as_str)
    }

    /// The version of a package that must be there.
    ///
    /// # Errors
    /// [`MISSING`].
    pub fn require(&self, package: &str) -> Result<&str> {
        self.version(package).ok_or_else(|| missing(&[package.to_string()], false).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xshell::cmd;

    const STATUS: &str = "Package: make\nStatus: install ok installed\nArchitecture: amd64\nVersion: 4.3-4.1\n\
        Description: utility\n Version: not a field\n\nPackage: bison\nStatus: deinstall ok config-files\nVersion: 2:3.8\n\n\
        Package: held\nStatus: hold ok installed\nVersion: 1\n\nPackage: half\nStatus: install reinstreq half-installed\nVersion: 1\n";

    #[test]
    fn only_what_is_installed_counts() {
        let installed = Installed::parse(STATUS);
        assert_eq!(installed.version("make"), Some("4.3-4.1"));
        assert_eq!(installed.version("held"), Some("1"));
        assert_eq!(installed.version("bison"), None);
        assert_eq!(installed.version("half"), None);
        assert_eq!(installed.version("gcc"), None);
    }

    #[test]
    fn a_failed_program_leaves_its_log_and_shows_the_end_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let shell = shell_in(dir.path()).unwrap();
        let script = "seq 100; echo the cause >&2; exit 3";
        let error = run(clean(cmd!(shell, "sh -c {script}")), &log).unwrap_err();
        assert_eq!(error.code, FAILED);
        let text = &error.primary.as_ref().unwrap().text;
        assert!(text.contains("the cause") && text.contains("100") && !text.contains("\n88\n"), "{text}");
        assert!(log.exists());
    }

    #[test]
    fn a_full_disk_is_called_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let shell = shell_in(dir.path()).unwrap();
        let script = "echo 'fatal error: error writing: No space left on device' >&2; exit 2";
        let error = run(clean(cmd!(shell, "sh -c {script}")), &dir.path().join("log")).unwrap_err();
        assert_eq!(error.code, crate::cache::files::NO_SPACE);
    }

    #[test]
    fn the_environment_is_clean() {
        let dir = tempfile::tempdir().unwrap();
        let shell = shell_in(dir.path()).unwrap();
        let env = capture(clean(cmd!(shell, "env"))).unwrap();
        let mut names: Vec<&str> = env.lines().filter_map(|line| line.split('=').next()).collect();
        names.sort_unstable();
        assert_eq!(names, ["LC_ALL", "PATH", "TZ"]);
    }

    #[test]
    fn a_missing_program_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let shell = shell_in(dir.path()).unwrap();
        let error = capture(cmd!(shell, "no-such-program")).unwrap_err();
        assert_eq!(error.code, CANNOT_START);
        assert!(error.message.contains("no-such-program"));
    }

    #[test]
    fn a_dropped_group_ends_its_grandchildren() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "(sleep 1000 & echo $! > pid.new; mv pid.new pid; wait) & wait"]).current_dir(dir.path());
        let group = spawn(command, "sh").unwrap();
        let pid = loop {
            if let Ok(pid) = std::fs::read_to_string(dir.path().join("pid")) {
                break pid;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        drop(group);
        let stat = Path::new("/proc").join(pid.trim()).join("stat");
        // Ended, though whoever inherits orphans may take a moment to collect it.
        while let Ok(stat) = std::fs::read_to_string(&stat) {
            if stat.contains(") Z") {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
