//! The verifier with one of its checks left out or turned round, once for each, and a sample of the rules: the tests must
//! notice.
//!
//! cargo-mutants makes the mutants, in a copy of the tree.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::figures::{FILE, figure};

/// The release of cargo-mutants; another makes other mutants.
const VERSION: &str = "27.1.0";
/// Tests that say at once what is wrong with the verifier: its own, and the forgeries.
const VERIFIER: [&str; 8] =
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

/// How many mutants of the planner's `files` are noticed by `tests` in the test programs that these arguments of cargo
/// `build`, and a list of the others.
fn noticed(files: &str, more: &[&str], build: &[&str], tests: &[&str]) -> (u64, Vec<String>) {
    let output = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut mutants = Command::new(cargo_mutants());
    mutants.args(["mutants", "--package", "citrine-planner", "--file", files, "--jobs", "1", "--cap-lints=true"]);
    mutants.args(["--no-times", "--timeout", "300", "--output"]).arg(output.path());
    mutants.args(more).args(build.iter().map(|word| format!("--cargo-arg={word}")));
    mutants.args(["--", "--"]).args(tests);
    // A mutant is compiled once and run once: nothing else counts. proptest finds in a few cases what a mutant breaks.
    mutants.env("CARGO_PROFILE_DEV_OPT_LEVEL", "0").env("CARGO_PROFILE_DEV_DEBUG", "0").env("PROPTEST_CASES", "16");
    // What the tests count under each mutant is no figure of this proof.
    mutants.env_remove(FILE);
    // The copies' build directories are larger than a memory file system.
    mutants.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).env("TMPDIR", output.path());
    mutants.status().unwrap();
    let outcomes = std::fs::read_to_string(output.path().join("mutants.out/outcomes.json")).unwrap();
    let outcomes: Value = serde_json::from_str(&outcomes).unwrap();
    let count = |name: &str| outcomes[name].as_u64().unwrap();
    let missed = std::fs::read_to_string(output.path().join("mutants.out/missed.txt")).unwrap_or_default();
    (count("caught") + count("timeout"), missed.lines().map(str::to_owned).collect())
}

#[test]
fn no_check_of_the_verifier_can_be_left_out() {
    let build = ["--locked", "--lib", "--test=forge"];
    let (caught, missed) = noticed("xtask/planner/src/verify/**", &[], &build, &VERIFIER);
    assert!(missed.is_empty() && caught > 100, "{caught} are noticed, {} are not: {missed:#?}", missed.len());
    figure(&format!("mutants of the verifier noticed: {caught} of {caught}"));
}

/// A sample: the tool's own tests are compiled for each mutant.
#[test]
fn a_rule_that_judges_otherwise_is_noticed() {
    let sample = ["--sharding", "round-robin", "--shard", "0/16"];
    let build = ["--locked", "--package=xtask", "--bin=xtask", "--lib"];
    let (caught, missed) = noticed("xtask/planner/src/rules/**", &sample, &build, &["bad_inputs::", "rules::"]);
    let all = caught + missed.len() as u64;
    assert!(caught > 10 && caught * 10 >= all * 9, "{caught} of {all} are noticed; not these: {missed:#?}");
    figure(&format!("mutants of the rules noticed: {caught} of {all}, every sixteenth"));
}
