//! A copy of the checkout for end-to-end tests: what a test builds, signs or breaks is never the user's own.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// A copy of the checkout, with a configuration directory (keys) of its own.
pub struct Checkout {
    dir: TempDir,
}

/// What a run of the tool printed.
pub struct Run {
    /// The process's result.
    pub output: Output,
    /// The objects of `--json`, in order.
    pub objects: Vec<Value>,
}

impl Checkout {
    /// Copies the checkout to a new directory.
    pub fn new() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let dir = tempfile::tempdir().expect("a temporary directory");
        copy(&root, &dir.path().join("checkout"));
        Self { dir }
    }

    /// The copy's root.
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("checkout")
    }

    /// The directory of this copy's keys.
    pub fn keys(&self) -> PathBuf {
        self.dir.path().join("config/citrine")
    }

    /// A path beside the copy.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A command that runs the tool in the copy.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command
            .args(["--json"])
            .args(args)
            .current_dir(self.root())
            .env("CARGO_MANIFEST_DIR", self.root().join("xtask"))
            .env("XDG_CONFIG_HOME", self.dir.path().join("config"));
        command
    }

    /// Runs the tool with `--json`.
    pub fn run(&self, args: &[&str]) -> Run {
        finish(self.command(args))
    }

    /// Builds the bundle of `two-linux` for the P4080DS with further arguments.
    pub fn bundle(&self, more: &[&str]) -> Run {
        self.run(&[&["bundle", "--board", "p4080ds", "--profile", "two-linux", "--yes"], more].concat())
    }

    /// A file of the published bundle.
    pub fn part(&self, name: &str) -> PathBuf {
        self.root().join("artifacts/out/p4080ds-two-linux").join(name)
    }

    /// The published archive.
    pub fn tar(&self) -> PathBuf {
        self.root().join("artifacts/out/p4080ds-two-linux.tar")
    }
}

/// Runs a prepared command to its end.
pub fn finish(mut command: Command) -> Run {
    let output = command.output().expect("the tool starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let objects = text.lines().map(|line| serde_json::from_str(line).expect("one JSON object a line")).collect();
    Run { output, objects }
}

impl Run {
    /// The last object, when the tool succeeded.
    pub fn result(&self) -> &Value {
        let said = String::from_utf8_lossy(&self.output.stderr);
        assert!(self.output.status.success(), "{said}\n{:#?}", self.objects);
        self.objects.last().expect("a result")
    }

    /// The only error, when the tool failed as it should: exit code 1, one diagnostic.
    pub fn error(&self) -> &Value {
        assert_eq!(self.output.status.code(), Some(1), "{:#?}", self.objects);
        let errors: Vec<&Value> = self.objects.iter().filter(|object| object["severity"] == "error").collect();
        assert_eq!(errors.len(), 1, "{errors:#?}");
        errors[0]
    }
}

/// Runs another program, which must succeed; what it printed.
pub fn tool(program: &str, args: &[&OsStr], dir: &Path) -> String {
    let output = Command::new(program).args(args).current_dir(dir).output().expect("the program is installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{program}: {}{text}", String::from_utf8_lossy(&output.stderr));
    text
}

/// Copies a tree, but for what is built or belongs to git.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a readable directory") {
        let entry = entry.expect("an entry");
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let name = entry.file_name();
        let built = name == "target" || name == ".git" || source.ends_with("artifacts/out");
        if built {
            continue;
        }
        if entry.file_type().expect("a type").is_dir() {
            copy(&source, &target);
        } else {
            std::fs::copy(&source, &target).expect("a copy");
        }
    }
}
