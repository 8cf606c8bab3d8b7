//! The tool itself against every attack: each case of `tests/forge/`, what `tests/bad/` says with a `forge.toml`, and a
//! real bundle that is damaged in every way. With `CITRINE_BLESS=1` in the environment a case's `expected.txt` is written;
//! read that before committing it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[allow(dead_code, reason = "the planner's own test uses all of it")]
mod bundle;
#[allow(dead_code, reason = "the planner's own test uses all of it")]
mod cases;
#[path = "../../xtask/tests/common/mod.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod common;
#[path = "../figures.rs"]
mod figures;
mod mutations;
mod python;
mod real;

use std::path::Path;
use std::process::{Command, Stdio};

use bundle::{allowed_signers, trusted};
use cases::{Call, Case, cases, code_in, project};
use figures::figure;
use mutations::{MUTATIONS, forged};

/// Whether a signature's place is before another's depends on the keys alone.
fn ordered(a: &ssh_key::PrivateKey, b: &ssh_key::PrivateKey) -> bool {
    a.fingerprint(ssh_key::HashAlg::Sha256).sha256() < b.fingerprint(ssh_key::HashAlg::Sha256).sha256()
}

fn blessing() -> bool {
    std::env::var_os("CITRINE_BLESS").is_some_and(|value| value == "1")
}

/// What the tool says when it is called in a directory with the bundle, keys, and the files of `dir`. It must refuse.
fn refusal(dir: &Path, bundle: &[u8], args: &[String]) -> Result<String, String> {
    let work = tempfile::tempdir().unwrap();
    let at = |name: &str| work.path().join(name);
    std::fs::write(at("bundle.tar"), bundle).unwrap();
    std::fs::write(at("keys"), allowed_signers()).unwrap();
    std::fs::create_dir(at("citrine")).unwrap();
    std::fs::write(at("citrine/allowed_signers"), allowed_signers()).unwrap();
    std::fs::write(at("key"), trusted().to_openssh(ssh_key::LineEnding::LF).unwrap().as_bytes()).unwrap();
    for file in std::fs::read_dir(dir).unwrap().map(|file| file.unwrap()) {
        std::fs::copy(file.path(), at(file.file_name().to_str().unwrap())).unwrap();
    }
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(args)
        .current_dir(work.path())
        .env("XDG_CONFIG_HOME", work.path())
        .env("COLUMNS", "100")
        .env_remove("SSH_AUTH_SOCK")
        .stdin(Stdio::from(std::fs::File::open(at("bundle.tar")).unwrap()))
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    if output.status.code() != Some(1) {
        return Err(format!("it is not refused: {said}"));
    }
    if !output.stdout.is_empty() {
        return Err(format!("it says something before it refuses: {}", String::from_utf8_lossy(&output.stdout)));
    }
    Ok(said)
}

/// Compares with the case's `expected.txt`, or writes it.
fn judge(dir: &Path, bundle: &[u8], args: &[String]) -> Result<String, String> {
    let said = refusal(dir, bundle, args).map_err(|why| format!("{}: {why}", dir.display()))?;
    let expected = dir.join("expected.txt");
    if blessing() {
        std::fs::write(&expected, &said).unwrap();
    }
    if std::fs::read_to_string(&expected).ok().as_ref() == Some(&said) {
        Ok(said)
    } else {
        Err(format!("{}: it says\n{said}", dir.display()))
    }
}

#[test]
fn every_attack_is_refused_with_what_is_expected() {
    if blessing() {
        for mutation in MUTATIONS {
            std::fs::create_dir_all(project().join("tests/forge").join(mutation.name)).unwrap();
        }
    }
    let verify = || ["verify", "bundle.tar", "--keys", "keys"].map(str::to_owned).to_vec();
    let run = |case: &Case| {
        let call = case.call().unwrap_or(Call { args: verify(), mutation: None });
        let named = call.mutation.map(|name| forged(&name).unwrap_or_else(|| panic!("no {name}")));
        let bundle = named.or_else(|| case.bundle()).or_else(|| forged("none")).unwrap();
        judge(&case.dir, &bundle, &call.args)
    };
    let cases = cases();
    let wrong: Vec<String> = cases.iter().filter_map(|case| run(case).err()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    figure(&format!("{0} attacks on the tool refused of {0}, each with its words", cases.len()));
}

#[test]
fn each_code_is_said_as_expected() {
    let mut dirs: Vec<_> =
        std::fs::read_dir(project().join("tests/bad")).unwrap().map(|dir| dir.unwrap().path()).collect();
    dirs.sort();
    let mut count = 0;
    let mut wrong = Vec::new();
    for dir in dirs.iter().filter(|dir| dir.join("forge.toml").exists()) {
        count += 1;
        let call: Call = toml::from_str(&std::fs::read_to_string(dir.join("forge.toml")).unwrap()).unwrap();
        let bundle = forged(call.mutation.as_deref().unwrap_or("none")).unwrap();
        let code = dir.file_name().unwrap().to_str().unwrap().split('-').next().unwrap();
        match judge(dir, &bundle, &call.args) {
            Ok(said) if code_in(&said).as_deref() == Some(code) => {}
            Ok(said) | Err(said) => wrong.push(said),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count >= 15, "{count}");
}

#[test]
fn a_good_bundle_is_shown() {
    let work = tempfile::tempdir().unwrap();
    std::fs::write(work.path().join("bundle.tar"), forged("none").unwrap()).unwrap();
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
