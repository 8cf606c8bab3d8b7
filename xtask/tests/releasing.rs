//! `release` with small bundles, so that it takes seconds: killed and begun again, judged by programs that are not
//! ours, compared with the one before, and refused in every way that it can be wrong. The long proofs kill a large one.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[expect(dead_code, reason = "other tests use the rest")]
mod common;
#[path = "../../tests/figures.rs"]
mod figures;
mod releases;

use std::ffi::OsStr;

use common::tool;
use releases::{killed_and_undisturbed_are_the_same, no_file_knows_its_maker};
use serde_json::Value;
use ssh_key::private::Ed25519Keypair;
use ssh_key::{LineEnding, PrivateKey};

#[test]
fn a_release_survives_being_killed_and_believes_nobody() {
    let mut moments = [0.2, 0.5, 0.8].into_iter().cycle();
    let releases = killed_and_undisturbed_are_the_same(Some(&["echo", "hello"]), 2, 3, || moments.next().unwrap());
    no_file_knows_its_maker(&releases, "a");
    let dir = releases.checkout.beside("a");

    // Everybody agrees.
    assert_eq!(releases.verify("a").result()["version"], "1.0.0");
    tool("sha256sum", &["-c", "--strict", "--quiet", "SHA256SUMS"].map(OsStr::new), &dir);
    let signers = releases.path("signers");
    let agrees = |dir: &std::path::Path| {
        let index = std::fs::File::open(dir.join("index.json")).unwrap();
        let mut command = std::process::Command::new("ssh-keygen");
        command.args(["-Y", "verify", "-n", "citrine-release", "-I", "release", "-f", &signers, "-s"]);
        command.arg(dir.join("index.json.sig")).stdin(index).output().unwrap().status.success()
    };
    assert!(agrees(&dir));
    let files = releases.files("a");
    let provenance: Value = serde_json::from_slice(&files["provenance.json"]).unwrap();
    let subjects = provenance["subject"].as_array().unwrap();
    assert_eq!(subjects.len(), 6, "two bundles, each with an image for memory and one for the flash");

    // Again: nothing is done. Another release: not over this one.
    assert_eq!(releases.release("a", &[]).result()["unchanged"], true);
    releases.recipe("1.1.0", Some(&["hello"]));
    assert_eq!(releases.release("a", &[]).error()["code"], "E107");

    // The next one says what has changed.
    let profile = releases.checkout.root().join("profiles/hello.toml");
    let text = std::fs::read_to_string(&profile).unwrap();
    std::fs::write(&profile, text.replacen("64 MiB", "128 MiB", 1)).unwrap();
    let previous = ["--previous", &releases.path("a"), "--keys", &signers].map(str::to_owned);
    let previous: Vec<&str> = previous.iter().map(String::as_str).collect();
    releases.release("c", &previous).result();
    let notes = String::from_utf8(releases.files("c")["notes.md"].clone()).unwrap();
    for line in ["Compared with release 1.0.0.", "* hello for p4080ds:", "128 MiB", "* echo for p4080ds: gone"] {
        assert!(notes.contains(line), "{line}: {notes}");
    }

    // A byte, a file more, a file less, a link, an index of one's own.
    let refused = |change: &dyn Fn(), code: &str| {
        for (name, bytes) in &files {
            std::fs::write(dir.join(name), bytes).unwrap();
        }
        assert_eq!(releases.verify("a").result()["files"], files.len() - 2);
        change();
        let run = releases.verify("a");
        assert_eq!(run.error()["code"], code, "{:#?}", run.objects);
    };
    let changed = |name: &str| {
        let mut bytes = files[name].clone();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(dir.join(name), bytes).unwrap();
    };
    for name in files.keys().filter(|name| !name.starts_with("index.json")) {
        refused(&|| changed(name), "E105");
    }
    refused(&|| changed("index.json"), "E103");
    assert!(!agrees(&dir));
    refused(&|| changed("index.json.sig"), "E103");
    refused(&|| std::fs::remove_file(dir.join("notes.md")).unwrap(), "E105");
    refused(
        &|| {
            std::fs::remove_file(dir.join("notes.md")).unwrap();
            std::os::unix::fs::symlink("/etc/passwd", dir.join("notes.md")).unwrap();
        },
        "E105",
    );
    std::fs::remove_file(dir.join("notes.md")).unwrap();
    refused(&|| std::fs::write(dir.join("more"), "").unwrap(), "E105");

    // A development key.
    let key = releases.path("development");
    let words = ["-q", "-t", "ed25519", "-N", "", "-C", "citrine-dev", "-f", &key].map(OsStr::new);
    tool("ssh-keygen", &words, &dir);
    std::fs::copy(&key, releases.path("key")).unwrap();
    assert_eq!(releases.release("d", &[]).error()["code"], "E104");
    assert!(!releases.checkout.beside("d").exists());
}

#[test]
fn a_bundle_that_cannot_be_built_stops_the_release_and_leaves_nothing() {
    let releases = releases::Releases::new();
    releases.recipe("1.0.0", Some(&["hello", "two-linux-sdk"]));
    let run = releases.release("a", &["--jobs", "1"]);
    // The bundle's own mistakes come before, with its name.
    assert_eq!(run.output.status.code(), Some(1));
    assert!(run.objects.iter().any(|object| object["code"] == "P105" && object["cell"] == "p4080ds/two-linux-sdk"));
    let error = run.objects.last().unwrap();
    assert_eq!((&error["code"], &error["facts"]["cell"]), (&"E106".into(), &"p4080ds/two-linux-sdk".into()), "{error}");
    assert!(!releases.checkout.beside("a").exists());
    // Without it, what was built is not built again.
    releases.recipe("1.0.0", Some(&["hello"]));
    assert_eq!(releases.release("a", &[]).result()["written"], 0);
}

#[test]
fn a_release_signs_what_the_firmware_believes_or_is_not_made() {
    let releases = releases::Releases::new();
    let profiles = releases.checkout.root().join("profiles");
    let hello = std::fs::read_to_string(profiles.join("hello.toml")).unwrap();
    let trusting = hello.replace("name = \"hello\"", "name = \"trusting\"") + "\n[trust]\nkey = \"key.pub\"\n";
    std::fs::write(profiles.join("trusting.toml"), trusting).unwrap();
    // The same key each time: the firmware with it is compiled once.
    let key = PrivateKey::from(Ed25519Keypair::from_seed(&[7; 32]));
    std::fs::write(profiles.join("key.pub"), key.public_key().to_openssh().unwrap()).unwrap();
    releases.recipe("1.0.0", Some(&["trusting"]));

    // Signed by another key than the firmware's: no board would start it.
    releases.release("stranger", &[]).result();
    let strict = |dir: &str, signers: &str| {
        releases.checkout.run(&["verify", &releases.path(dir), "--keys", signers, "--production"])
    };
    let found = strict("stranger", &releases.path("signers"));
    assert_eq!(found.error()["code"], "K105", "{:#?}", found.objects);

    std::fs::write(releases.path("key"), key.to_openssh(LineEnding::LF).unwrap().as_bytes()).unwrap();
    let line =
        format!("release namespaces=\"citrine-bundle,citrine-release\" {}", key.public_key().to_openssh().unwrap());
    std::fs::write(releases.path("own"), line).unwrap();
    releases.release("own-key", &[]).result();
    strict("own-key", &releases.path("own")).result();
}
