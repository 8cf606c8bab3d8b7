//! The long proofs, run by `cargo xtask test --full`: two builds that share nothing, an interrupted build, and
//! boots in a row. The date of the second build is another one for every program that it starts: a library that
//! shifts the clock is preloaded in a mount namespace of its own (which needs root or user namespaces).

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[expect(dead_code, reason = "the end-to-end tests use the rest")]
mod common;
#[path = "../../tests/figures.rs"]
mod figures;
#[path = "proofs/mutants.rs"]
mod mutants;
#[expect(dead_code, reason = "the quick tests use the rest")]
mod releases;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Checkout, Run, finish};
use figures::figure;
use serde_json::Value;

const BUNDLE: [&str; 8] = ["bundle", "--board", "p4080ds", "--profile", "two-linux", "--media", "all", "--yes"];

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

/// A build as everybody has it, with whatever the user's cache holds.
fn built_here(checkout: &Checkout) -> Run {
    finish(checkout.command(&BUNDLE))
}

/// A build where everything differs that has ever leaked into somebody's artefacts: an empty cache, another path on
/// another file system (which lists directories in another order), user, group, host name, umask, time zone, locale,
/// clock, number of CPUs, and variables that compilers and make listen to.
fn built_elsewhere(checkout: &Checkout, place: &Path) -> Run {
    let etc = place.join("etc");
    let library = checkout.beside("later.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/proofs/later.c");
    let options = ["-shared", "-fPIC", "-O1", "-o"].map(OsStr::new);
    let paths = [library.as_os_str(), source.as_os_str()];
    common::tool("gcc", &[&options[..], &paths].concat(), &checkout.root());
    // The tool clears its programs' environment, so the library is named in a copy of /etc that only they see. The
    // mounts need root, or a user namespace in which this user is; the build is another user's then, without root.
    let script = format!(
        "set -e
         mount -t tmpfs -o size=16g tmpfs {place}
         mkdir -m 777 {place}/tmp
         cp -r {checkout} {place}/a-path-of-another-length
         cp {library} {place}/later.so
         cp -r /etc {etc} 2>/dev/null || :
         echo {place}/later.so > {etc}/ld.so.preload
         mount --bind {etc} /etc
         hostname otherhost4711
         test $(date +%s) -gt $((today + 30000000))
         umask 077
         cd {place}/a-path-of-another-length
         exec unshare --user --map-user=4321 --map-group=4321 taskset --cpu-list 0 \"$@\"",
        place = place.display(),
        checkout = checkout.root().display(),
        library = library.display(),
        etc = etc.display(),
    );
    let tool = checkout.command(&BUNDLE);
    let mut shell = Command::new("unshare");
    shell
        .args(["--mount", "--uts", "--map-root-user", "sh", "-c"])
        .arg(format!("today=$(date +%s); {script}"))
        .arg("sh");
    // The build's own output goes with the mount, so its files are sent out as an archive.
    let there = place.join("a-path-of-another-length");
    let kept = checkout.beside("elsewhere");
    shell
        .args(["sh", "-c"])
        .arg(format!("\"$@\" && cp -rL {0}/artifacts/out {1}", there.display(), kept.display()))
        .arg("sh");
    shell.arg(tool.get_program()).args(tool.get_args());
    shell.current_dir(checkout.root());
    shell.envs(tool.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.env("CARGO_MANIFEST_DIR", there.join("xtask")).env("CITRINE_CACHE", place.join("cache"));
    shell
        .env("TMPDIR", place.join("tmp"))
        .env("TZ", "Pacific/Kiritimati")
        .env("LANG", "de_DE.UTF-8")
        .env("LC_ALL", "de_DE.UTF-8");
    shell.env("CFLAGS", "-O0 -g").env("MAKEFLAGS", "-k").env("KBUILD_BUILD_USER", "somebody").env("RUSTFLAGS", "-g");
    finish(shell)
}

/// Everything that the manifest names, built twice; what is compared is taken from the manifest, so nothing is forgotten.
#[test]
fn two_builds_that_share_nothing_are_the_same_bytes() {
    let (here, there) = (Checkout::new(), Checkout::new());
    let place = tempfile::tempdir().unwrap();
    let (first, second) = (built_here(&here), built_elsewhere(&there, place.path()));
    let (first, second) = (first.result(), second.result());
    let (a, mut b) = (files(&here.part("")), files(&there.beside("elsewhere/p4080ds-two-linux")));
    let how = |run: &Value, part: &str| {
        let stages = run["stages"].as_array().unwrap();
        let stage = stages.iter().find(|stage| stage["part"] == part);
        // A text that is made of the plan is made each time.
        stage.map_or("built".to_owned(), |stage| stage["how"].as_str().unwrap().to_owned())
    };
    println!("{:16} {:>10}  {:9} {:9} the same bytes", "part", "bytes", "here", "elsewhere");
    let mut wrong = Vec::new();
    for part in first["parts"].as_array().unwrap() {
        let name = part["name"].as_str().unwrap();
        let same = a[name] == b[name];
        let (one, two) = (how(first, name), how(second, name));
        println!("{name:16} {:>10}  {one:9} {two:9} {}", a[name].len(), if same { "yes" } else { "NO" });
        // What was not built twice proves nothing.
        if !same || two != "built" {
            wrong.push(name.to_owned());
        }
    }
    let all = first["parts"].as_array().unwrap().len();
    figure(&format!("parts built elsewhere with an empty cache, the same bytes: {} of {all}", all - wrong.len()));
    assert!(wrong.is_empty(), "{wrong:?}");
    assert_eq!(first["identity"], second["identity"]);
    // The two machines' development keys differ, so their signatures do; nothing else.
    assert_ne!(a["manifest.json.sig"], b.remove("manifest.json.sig").unwrap());
    assert_eq!(a.keys().filter(|name| *name != "manifest.json.sig").collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for (name, bytes) in &b {
        assert!(*bytes == a[name], "{name}");
        let home = std::env::var("HOME").unwrap();
        for secret in [
            here.root().to_str().unwrap(),
            place.path().to_str().unwrap(),
            &format!("{home}/"),
            "elsewhere",
            "somebody",
        ] {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{name} holds {secret}");
        }
    }
}

#[test]
fn a_build_that_is_killed_leaves_the_old_bundle_and_no_part_of_a_new_one() {
    const KILLS: u64 = 60;
    let checkout = Checkout::new();
    let old = checkout.bundle(&[]).result()["identity"].clone();
    // A change, so that there is something to write.
    let profile = checkout.root().join("profiles/two-linux.toml");
    let text = std::fs::read_to_string(&profile).unwrap();
    std::fs::write(&profile, text.replace("console=ttyEHV0", "console=ttyEHV0 quiet")).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for delay in 0..KILLS {
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
    figure(&format!("killed {KILLS} times while it replaced a bundle: a whole one was there each time"));
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

/// Python with CycloneDX's validator, as tests/sbom/requirements.txt pins it; made once per version of that file.
fn validator() -> PathBuf {
    let pins = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/sbom/requirements.txt");
    let home = PathBuf::from(std::env::var_os("HOME").unwrap());
    let cache = std::env::var_os("CITRINE_CACHE").map_or_else(|| home.join(".cache/citrine"), PathBuf::from);
    let id = common::tool("sha256sum", &[pins.as_os_str()], Path::new("/"));
    let venv = cache.join(format!("cyclonedx-{}", &id[..16]));
    if !venv.join("whole").is_file() {
        common::tool(
            "python3",
            &[OsStr::new("-m"), OsStr::new("venv"), OsStr::new("--clear"), venv.as_os_str()],
            Path::new("/"),
        );
        let words = ["-m", "pip", "install", "--quiet", "--no-deps", "-r"].map(OsStr::new);
        let python = venv.join("bin/python");
        common::tool(python.to_str().unwrap(), &[&words[..], &[pins.as_os_str()]].concat(), Path::new("/"));
        std::fs::write(venv.join("whole"), "").unwrap();
    }
    venv.join("bin/python")
}

#[test]
fn a_release_killed_at_ten_random_moments_ends_with_the_same_bytes() {
    let mut state = std::process::id();
    println!("random moments from {state}");
    let random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(state >> 8) / f64::from(1 << 24)
    };
    let toml = |path: std::io::Result<std::fs::DirEntry>| path.unwrap().path().extension() == Some(OsStr::new("toml"));
    let profiles = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../profiles")).unwrap();
    // All but the one for a hypervisor that is not ours; the other board is the emulator's.
    let bundles = profiles.map(toml).filter(|is_profile| *is_profile).count() - 1;
    let releases = releases::killed_and_undisturbed_are_the_same(None, bundles, 10, random);
    releases::no_file_knows_its_maker(&releases, "a");
    let sources = releases.files("a").keys().filter(|name| name.starts_with("sources/")).count();
    assert!(sources >= 4, "Linux and busybox");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/sbom/validate.py");
    let bill = releases.checkout.beside("a/sbom.cdx.json");
    let said = common::tool(validator().to_str().unwrap(), &[script.as_os_str(), bill.as_os_str()], Path::new("/"));
    assert_eq!(said, "valid\n");
}
