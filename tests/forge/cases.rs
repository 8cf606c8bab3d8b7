//! The cases of `tests/bad/` that have a `forge.toml`: a forged bundle, the tool's arguments, and what it must
//! say. With `CITRINE_BLESS=1` in the environment it writes down what it says; read that before committing it.

use std::path::Path;
use std::process::Command;

use serde::Deserialize;

use crate::bundle::{allowed_signers, trusted};
use crate::{forged, project};

/// One case.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// Name of the forgery that becomes `bundle.tar`; `none` is the good bundle.
    mutation: String,
    /// What the tool is called with.
    args: Vec<String>,
}

#[test]
fn each_code_is_said_as_expected() {
    let mut count = 0;
    let mut wrong = Vec::new();
    let mut dirs: Vec<_> =
        std::fs::read_dir(project().join("tests/bad")).unwrap().map(|dir| dir.unwrap().path()).collect();
    dirs.sort();
    for dir in dirs.iter().filter(|dir| dir.join("forge.toml").exists()) {
        count += 1;
        let said = run(dir);
        let expected = dir.join("expected.txt");
        if std::env::var_os("CITRINE_BLESS").is_some() {
            std::fs::write(&expected, &said).unwrap();
        }
        let code = dir.file_name().unwrap().to_str().unwrap().split('-').next().unwrap();
        if !said.starts_with(&format!("error[{code}]")) || std::fs::read_to_string(&expected).ok() != Some(said.clone())
        {
            wrong.push(format!("{}:\n{said}", dir.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count >= 15, "{count}");
}

fn run(dir: &Path) -> String {
    let case: Case = toml::from_str(&std::fs::read_to_string(dir.join("forge.toml")).unwrap()).unwrap();
    let work = tempfile::tempdir().unwrap();
    let at = |name: &str| work.path().join(name);
    std::fs::write(at("bundle.tar"), forged(&case.mutation)).unwrap();
    std::fs::write(at("keys"), allowed_signers()).unwrap();
    std::fs::write(at("key"), trusted().to_openssh(ssh_key::LineEnding::LF).unwrap().as_bytes()).unwrap();
    for file in std::fs::read_dir(dir).unwrap().map(|file| file.unwrap()) {
        std::fs::copy(file.path(), at(file.file_name().to_str().unwrap())).unwrap();
    }
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(&case.args)
        .current_dir(work.path())
        .env("XDG_CONFIG_HOME", work.path())
        .env("COLUMNS", "100")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", dir.display());
    assert!(output.stdout.is_empty(), "{}: {}", dir.display(), String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_good_bundle_is_shown() {
    let work = tempfile::tempdir().unwrap();
    std::fs::write(work.path().join("bundle.tar"), forged("none")).unwrap();
    std::fs::write(work.path().join("keys"), allowed_signers()).unwrap();
    let tool = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_xtask")).args(args).current_dir(work.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let text = tool(&["verify", "bundle.tar", "--keys", "keys", "--board", "p4080ds"]);
    for line in ["board     p4080ds (p4080, e500mc)", "signer    owner@example.org SHA256:", "trusted by keys\n"] {
        assert!(text.contains(line), "{text}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&tool(&["--json", "verify", "bundle.tar", "--keys", "keys"])).unwrap();
    assert_eq!(json["type"], "verified");
    assert!(text.contains(json["identity"].as_str().unwrap()), "{text}");
    assert_eq!(json["signers"][0]["development"], false);
}
