//! The verifier with one of its checks left out or turned round, once for each: the tests must notice.
//!
//! cargo-mutants makes the mutants, in a copy of the tree.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::figures::figure;

/// The release of cargo-mutants; another makes other mutants.
const VERSION: &str = "27.1.0";
/// What is mutated.
const FILES: &str = "xtask/planner/src/verify/**";
/// Tests that say at once what is wrong: the verifier's own, and the forgeries.
const TESTS: [&str; 8] =
    ["verify::", "every_forgery", "every_trunc", "every_block", "the_good", "no_file_of", "signing", "signatures_by"];

/// cargo-mutants, installed on first use where cargo builds.
fn cargo_mutants() -> PathBuf {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cargo-mutants-{VERSION}"));
    let program = root.join("bin/cargo-mutants");
    if !program.is_file() {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["install", "--quiet", "--locked", "cargo-mutants", "--version", VERSION, "--root"]).arg(&root);
        assert!(cargo.status().unwrap().success(), "cargo-mutants cannot be installed");
    }
    program
}

#[test]
fn no_check_of_the_verifier_can_be_left_out() {
    let output = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut mutants = Command::new(cargo_mutants());
    mutants.args(["mutants", "--package", "citrine-planner", "--file", FILES, "--jobs", "1", "--cap-lints=true"]);
    mutants.args(["--no-times", "--output"]).arg(output.path());
    mutants.args(["--", "--locked", "--lib", "--test", "forge", "--"]).args(TESTS);
    // The copies' build directories are larger than a memory file system.
    mutants.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).env("TMPDIR", output.path());
    mutants.status().unwrap();
    let outcomes = std::fs::read_to_string(output.path().join("mutants.out/outcomes.json")).unwrap();
    let outcomes: Value = serde_json::from_str(&outcomes).unwrap();
    let count = |name: &str| outcomes[name].as_u64().unwrap();
    let (caught, missed) = (count("caught") + count("timeout"), count("missed"));
    let list = std::fs::read_to_string(output.path().join("mutants.out/missed.txt")).unwrap_or_default();
    assert!(missed == 0 && caught > 100, "{caught} are noticed, {missed} are not:\n{list}");
    figure(&format!("mutants of the verifier noticed: {caught} of {}", caught + missed));
}
