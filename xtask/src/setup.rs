//! What a machine needs for each kind of work, and how it gets it.
//!
//! Looking costs a few milliseconds and starts no process. What is missing is installed after asking on a
//! terminal, or at once with `--yes` or `CI=true`; where that cannot be, one message lists exactly what to
//! install. The machine's package configuration is never edited.

use std::collections::BTreeSet;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use citrine_planner::diag::{Code, Diagnostic, Result};
use xshell::cmd;

use crate::build::lock::Lock;
use crate::build::other_version;
use crate::progress::Progress;
use crate::tools::{Installed, RUST_TARGET, capture, missing, shell_in};

/// Installing it failed.
pub const NOT_INSTALLED: Code = Code::new('T', 102);

/// A kind of work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Need {
    /// Building a bundle: firmware, guests of the project's own, trees.
    Bundle,
    /// Building Linux and its root file system for it, from source.
    Sources,
    /// Sharing the cache through a registry.
    Remote,
    /// Booting one in QEMU.
    Qemu,
    /// The tests, with the programs that they compare against.
    Test,
    /// Fuzzing: libFuzzer is compiled.
    Fuzz,
    /// The long proofs: labgrid gets a Python environment of its own.
    Proofs,
}

impl Need {
    /// The Debian packages for this kind of work.
    const fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Bundle => &["device-tree-compiler", "xz-utils"],
            Self::Sources => &[
                "bc",
                "binutils-powerpc-linux-gnu",
                "bison",
                "cpp-12-powerpc-linux-gnu",
                "dpkg-dev",
                "flex",
                "gcc",
                "gcc-12-powerpc-linux-gnu",
                "gcc-powerpc-linux-gnu",
                "genext2fs",
                "libc6-dev",
                "libc6-dev-powerpc-cross",
                "libgcc-12-dev-powerpc-cross",
                "linux-libc-dev-powerpc-cross",
                "make",
            ],
            Self::Remote => &["skopeo"],
            Self::Qemu => &["device-tree-compiler", "qemu-system-ppc", "u-boot-qemu"],
            Self::Fuzz => &["g++"],
            Self::Proofs => &["python3-venv"],
            Self::Test => &[
                "curl",
                "docker-registry",
                "e2fsprogs",
                "opensc",
                "openssh-client",
                "python3",
                "skopeo",
                "socat",
                "softhsm2",
                "tftp-hpa",
                "u-boot-tools",
                "util-linux",
            ],
        }
    }

    /// Whether the firmware is compiled for it.
    const fn rust_target(self) -> bool {
        matches!(self, Self::Bundle)
    }
}

/// What is missing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Missing {
    packages: Vec<String>,
    rust_target: bool,
}

impl Missing {
    fn find(needs: &[Need], installed: &Installed, sysroot: &Path) -> Self {
        let packages: BTreeSet<&str> = needs.iter().flat_map(|need| need.packages()).copied().collect();
        let packages = packages.into_iter().filter(|package| installed.version(package).is_none());
        let target = sysroot.join("lib/rustlib").join(RUST_TARGET).join("lib");
        Self {
            packages: packages.map(str::to_string).collect(),
            rust_target: needs.iter().any(|need| need.rust_target()) && !target.is_dir(),
        }
    }

    fn is_empty(&self) -> bool {
        self.packages.is_empty() && !self.rust_target
    }
}

/// Makes sure that everything for this work is there.
///
/// # Errors
/// [`crate::tools::MISSING`], with the command lines to paste; [`NOT_INSTALLED`].
pub fn ensure(needs: &[Need], assume_yes: bool, lock: &Lock, progress: &Progress<'_>) -> Result<()> {
    let sysroot = Path::new(env!("CITRINE_SYSROOT"));
    let found = Missing::find(needs, &Installed::read()?, sysroot);
    if found.is_empty() {
        return Ok(());
    }
    let may = assume_yes || std::env::var("CI").is_ok_and(|value| value == "true");
    let terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    let able = found.packages.is_empty() || (is_root() && is_debian());
    let message = missing(&found.packages, found.rust_target);
    if !able || !(may || (terminal && agreed(&found))) {
        return Err(message.into());
    }
    progress.say(&message.message);
    install(&found, lock, progress)?;
    check(needs, &Installed::read()?, sysroot).map_err(failed)
}

/// Says what is missing for this work, without installing it.
///
/// # Errors
/// [`crate::tools::MISSING`].
pub fn check(needs: &[Need], installed: &Installed, sysroot: &Path) -> Result<()> {
    let found = Missing::find(needs, installed, sysroot);
    if found.is_empty() { Ok(()) } else { Err(missing(&found.packages, found.rust_target).into()) }
}

fn install(found: &Missing, lock: &Lock, progress: &Progress<'_>) -> Result<()> {
    let shell = shell_in(Path::new("/"))?;
    shell.set_var("DEBIAN_FRONTEND", "noninteractive");
    shell.set_var("LC_ALL", "C");
    if !found.packages.is_empty() {
        let step = progress.step("installing Debian packages", None);
        let wait = "DPkg::Lock::Timeout=300";
        step.detail("reading the archive's index");
        capture(cmd!(shell, "apt-get -q -o {wait} update")).map_err(failed)?;
        let mut asked = Vec::new();
        for package in &found.packages {
            asked.push(match lock.packages.get(package) {
                Some(pinned) if carried(&shell, package, pinned)? => format!("{package}={pinned}"),
                Some(pinned) => {
                    progress.notice(&other_version(package, pinned, "the newest that Debian carries", false));
                    package.clone()
                }
                None => package.clone(),
            });
        }
        step.detail("downloading and unpacking");
        // In our own process group: a package half installed is worse than a Ctrl-C that takes its time.
        capture(cmd!(shell, "apt-get -q -y -o {wait} install --no-install-recommends {asked...}")).map_err(failed)?;
        step.finish("done");
    }
    if found.rust_target {
        let step = progress.step("installing the Rust target", None);
        capture(cmd!(shell, "rustup target add {RUST_TARGET}")).map_err(failed)?;
        step.finish("done");
    }
    Ok(())
}

/// What a program that installs said when it failed.
#[expect(clippy::boxed_local, reason = "it maps the error of a `Result`, which is boxed")]
pub fn failed(error: Box<Diagnostic>) -> Box<Diagnostic> {
    Diagnostic::error(NOT_INSTALLED, error.message)
        .help("cure what the program complains about, then run the same command again")
        .into()
}

/// Whether the archive carries exactly this version.
fn carried(shell: &xshell::Shell, package: &str, version: &str) -> Result<bool> {
    let table = capture(cmd!(shell, "apt-cache -q madison {package}"))?;
    Ok(table.lines().any(|line| line.split('|').nth(1).is_some_and(|column| column.trim() == version)))
}

/// Asks on the terminal. No answer is no.
fn agreed(found: &Missing) -> bool {
    let target = if found.rust_target { " and the Rust target with rustup" } else { "" };
    let packages = match found.packages.len() {
        0 => String::new(),
        count => format!(" {count} Debian packages with apt-get ({})", found.packages.join(" ")),
    };
    let question = format!("Install{packages}{target}? [Y/n] ").replacen("Install and", "Install", 1);
    let mut stderr = std::io::stderr();
    if stderr.write_all(question.as_bytes()).and_then(|()| stderr.flush()).is_err() {
        return false;
    }
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer).unwrap_or(0);
    read > 0 && ["", "y", "yes"].contains(&answer.trim().to_lowercase().as_str())
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

fn is_debian() -> bool {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    release.lines().any(|line| line.trim() == "ID=debian" || line.trim() == "ID=\"debian\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn everything(needs: &[Need]) -> String {
        let packages = needs.iter().flat_map(|need| need.packages());
        packages.map(|name| format!("Package: {name}\nStatus: install ok installed\nVersion: 1\n\n")).collect()
    }

    #[test]
    fn what_is_there_is_not_missing() {
        let sysroot = tempfile::tempdir().unwrap();
        fs_err::create_dir_all(sysroot.path().join("lib/rustlib").join(RUST_TARGET).join("lib")).unwrap();
        let needs = [Need::Bundle, Need::Sources, Need::Qemu, Need::Test];
        let installed = Installed::parse(&everything(&needs));
        assert!(Missing::find(&needs, &installed, sysroot.path()).is_empty());
    }

    #[test]
    fn exactly_what_is_missing_is_listed_with_its_cure() {
        let sysroot = tempfile::tempdir().unwrap();
        let installed = Installed::parse(
            &everything(&[Need::Bundle, Need::Sources]).replace("Package: flex\n", "Package: other\n"),
        );
        let found = Missing::find(&[Need::Bundle, Need::Sources, Need::Qemu], &installed, sysroot.path());
        assert_eq!(found.packages, ["flex", "qemu-system-ppc", "u-boot-qemu"]);
        assert!(found.rust_target);
        let diagnostic = missing(&found.packages, found.rust_target);
        let help = diagnostic.help.unwrap();
        assert!(help.contains("apt-get install --no-install-recommends flex qemu-system-ppc u-boot-qemu\n"), "{help}");
        assert!(help.contains("rustup target add powerpc-unknown-linux-gnu"), "{help}");
        assert!(!Missing::find(&[Need::Qemu], &installed, sysroot.path()).rust_target);
    }

    #[test]
    fn everything_that_is_pinned_is_installed_by_the_tool() {
        let lock = Lock::parse(include_str!("../../artifacts/lock.toml")).unwrap();
        for package in lock.packages.keys() {
            let installs = |need: Need| need.packages().contains(&package.as_str());
            assert!(installs(Need::Bundle) || installs(Need::Sources), "{package}");
        }
    }
}
