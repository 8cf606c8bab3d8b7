//! The long proofs, run by `cargo xtask test --full`: two builds that share nothing, an interrupted build, and
//! boots in a row. The date of the second build is another one for every program that it starts: a library that
//! shifts the clock is preloaded in a mount namespace of its own (which needs root or user namespaces).

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[expect(dead_code, reason = "the end-to-end tests use the rest")]
mod common;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Checkout, finish};

const BUNDLE: [&str; 6] = ["bundle", "--board", "p4080ds", "--profile", "two-linux", "--yes"];

/// The files of a directory by name.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap())
        })
        .collect()
}

/// What is done before a build: nothing but a umask.
const TODAY: &str = "umask 022";

/// What is done before a build: another umask, and the clock shifted by more than a year. The tool clears its
/// programs' environment, so the library is named in a copy of `/etc` that only they see.
fn another_day(checkout: &Checkout) -> String {
    let (library, etc) = (checkout.beside("later.so"), checkout.beside("etc"));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/proofs/later.c");
    common::tool(
        "gcc",
        &["-shared", "-fPIC", "-O1", "-o"]
            .map(OsStr::new)
            .into_iter()
            .chain([library.as_os_str(), source.as_os_str()])
            .collect::<Vec<_>>(),
        checkout.root().as_path(),
    );
    let (library, etc) = (library.display(), etc.display());
    format!(
        "today=$(date +%s); cp -r /etc {etc} 2>/dev/null || :; echo {library} > {etc}/ld.so.preload; mount --bind {etc} /etc
         test $(date +%s) -gt $((today + 30000000)); umask 077"
    )
}

/// A build whose environment differs in everything that has ever leaked into somebody's artefacts, with a cache
/// that is empty and its own.
fn built_elsewhere(checkout: &Checkout, before: &str, zone: &str, lang: &str) -> (String, BTreeMap<String, Vec<u8>>) {
    let tool = checkout.command(&BUNDLE);
    let mut shell = Command::new("unshare");
    shell
        .args(["--mount", "--map-root-user", "sh", "-c"])
        .arg(format!("set -e; {before}; exec \"$@\""))
        .arg("sh")
        .arg(tool.get_program())
        .args(tool.get_args());
    shell.current_dir(checkout.root());
    for (name, value) in tool.get_envs() {
        shell.env(name, value.unwrap_or_default());
    }
    shell.env("TZ", zone).env("LANG", lang).env("LC_ALL", lang).env("CITRINE_CACHE", checkout.beside("cache"));
    let run = finish(shell);
    let identity = run.result()["identity"].as_str().unwrap().to_owned();
    (identity, files(&checkout.part("")))
}

#[test]
fn two_builds_that_share_nothing_are_the_same_bytes() {
    let (here, there) = (Checkout::new(), Checkout::new());
    let (first, mut a) = built_elsewhere(&here, TODAY, "UTC", "C");
    let (second, mut b) = built_elsewhere(&there, &another_day(&there), "Pacific/Kiritimati", "de_DE.UTF-8");
    assert_eq!(first, second);
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&a), names(&b));
    // The two machines' development keys differ, so their signatures do.
    assert_ne!(a.remove("manifest.json.sig"), b.remove("manifest.json.sig"));
    for (name, bytes) in &a {
        assert!(bytes == &b[name], "{name} differs");
        for secret in [here.root(), there.root()] {
            let secret = secret.to_string_lossy().into_owned();
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{name} holds the path of the checkout");
        }
    }
}

#[test]
fn a_build_that_is_killed_leaves_the_old_bundle_and_no_part_of_a_new_one() {
    let checkout = Checkout::new();
    let old = checkout.bundle(&[]).result()["identity"].clone();
    // A change, so that there is something to write.
    let profile = checkout.root().join("profiles/two-linux.toml");
    let text = std::fs::read_to_string(&profile).unwrap();
    std::fs::write(&profile, text.replace("console=ttyEHV0", "console=ttyEHV0 quiet")).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for delay in 0..60 {
        let mut child =
            checkout.command(&BUNDLE).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(delay * 1500));
        child.kill().unwrap();
        child.wait().unwrap();
        let verified = checkout.run(&["verify", "artifacts/out/p4080ds-two-linux.tar"]);
        seen.insert(verified.result()["identity"].as_str().unwrap().to_owned());
        let unpacked = std::fs::read_to_string(checkout.part("SHA256SUMS")).unwrap();
        assert!(unpacked.lines().count() >= 7, "{unpacked}");
        common::tool(
            "sha256sum",
            &["-c", "--strict", "--quiet", "SHA256SUMS"].map(std::ffi::OsStr::new),
            &checkout.part(""),
        );
    }
    assert!(seen.contains(old.as_str().unwrap()), "no kill came before the end: {seen:?}");
    let new = checkout.bundle(&[]).result()["identity"].clone();
    assert_ne!(old, new);
    let left: Vec<String> = files_of(&checkout.root().join("artifacts/out"));
    assert!(left.iter().filter(|name| name.ends_with(".tar")).count() == 1, "{left:?}");
}

fn files_of(dir: &Path) -> Vec<String> {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

/// Seconds, as the tool reports them.
fn seconds(run: &common::Run, key: &str) -> f64 {
    run.result()[key].as_f64().unwrap()
}

#[test]
fn twenty_boots_in_a_row_pass() {
    const BOOTS: usize = 20;
    let checkout = Checkout::new();
    let mut prompts: Vec<f64> = Vec::new();
    for boot in 1..=BOOTS {
        let run = checkout.run(&["qemu", "--board", "p4080ds", "--profile", "two-linux", "--yes"]);
        assert_eq!(run.result()["passed"], true, "boot {boot}");
        let (all, end) = (seconds(&run, "seconds_to_prompts"), seconds(&run, "seconds"));
        println!("boot {boot:2}: prompts of all partitions after {all:5.1} s, everything after {end:5.1} s");
        prompts.push(all);
    }
    prompts.sort_by(f64::total_cmp);
    let (first, median, last) = (prompts[0], prompts[BOOTS / 2], prompts[BOOTS - 1]);
    println!("prompts of {BOOTS} boots: {first:.1} s to {last:.1} s, median {median:.1} s");
}
