//! Other programs read what we write and we read what they write: OpenSSH, coreutils, GNU tar, U-Boot's tools.

use std::path::Path;
use std::process::Command;

use citrine_formats::uimage::{Compression, Kind};
use citrine_planner::pack::image::{Fields, script, wrap};
use citrine_planner::pack::{Assembled, Content};
use citrine_planner::verify::keys::TrustedKeys;
use citrine_planner::verify::verify;

use crate::bundle::{EPOCH, Forge, Member, allowed_signers, archive, assembled, good, stranger, trusted};
use crate::feed;

fn unpacked(bundle: &[u8]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("bundle.tar"), bundle).unwrap();
    run(Command::new("tar").args(["-xf", "bundle.tar"]), dir.path());
    std::fs::write(dir.path().join("keys"), allowed_signers()).unwrap();
    dir
}

fn run(command: &mut Command, dir: &Path) -> String {
    let output = command.current_dir(dir).output().unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{command:?}: {text}");
    text
}

fn ssh_keygen_verifies(dir: &Path) -> (bool, String) {
    let manifest = std::fs::read(dir.join("manifest.json")).unwrap();
    let mut command = Command::new("ssh-keygen");
    command.args(["-Y", "verify", "-n", "citrine-bundle", "-f", "keys", "-I", "owner@example.org"]);
    feed(command.args(["-s", "manifest.json.sig"]).current_dir(dir), &manifest)
}

#[test]
fn ssh_keygen_accepts_our_signature_and_no_strangers() {
    let ours = unpacked(&good());
    let (accepted, text) = ssh_keygen_verifies(ours.path());
    assert!(accepted, "{text}");
    let theirs = unpacked(&archive(&assembled("p4080ds", "two-linux", 1), &[stranger()]));
    assert!(!ssh_keygen_verifies(theirs.path()).0);
    std::fs::write(ours.path().join("manifest.json"), "{}\n").unwrap();
    assert!(!ssh_keygen_verifies(ours.path()).0);
}

#[test]
fn signatures_by_ssh_keygen_are_accepted() {
    for (kind, bits) in [("ed25519", "256"), ("ecdsa", "256")] {
        let dir = unpacked(&good());
        let path = dir.path();
        std::fs::remove_file(path.join("manifest.json.sig")).unwrap();
        run(
            Command::new("ssh-keygen").args(["-q", "-t", kind, "-b", bits, "-N", "", "-C", "token", "-f", "key"]),
            path,
        );
        run(
            Command::new("ssh-keygen").args(["-Y", "sign", "-n", "citrine-bundle", "-f", "key", "manifest.json"]),
            path,
        );
        let mut forge = Forge::good();
        forge.members[1] = Member::new("manifest.json.sig", std::fs::read(path.join("manifest.json.sig")).unwrap());
        let public = std::fs::read_to_string(path.join("key.pub")).unwrap();
        let keys = TrustedKeys::parse(&format!("a namespaces=\"citrine-bundle\" {public}")).unwrap();
        verify(&forge.to_bytes()[..], &keys, &mut |_, _| Ok(())).unwrap_or_else(|error| panic!("{kind}: {error}"));
    }
}

#[test]
fn keys_by_ssh_keygen_sign_as_ssh_keygen_does() {
    let dir = unpacked(&good());
    let key = trusted().to_openssh(ssh_key::LineEnding::LF).unwrap();
    let path = dir.path().join("key");
    std::fs::write(&path, key.as_bytes()).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let ours = std::fs::read(dir.path().join("manifest.json.sig")).unwrap();
    std::fs::remove_file(dir.path().join("manifest.json.sig")).unwrap();
    run(
        Command::new("ssh-keygen").args(["-Y", "sign", "-n", "citrine-bundle", "-f", "key", "manifest.json"]),
        dir.path(),
    );
    assert_eq!(std::fs::read(dir.path().join("manifest.json.sig")).unwrap(), ours);
}

#[test]
fn sha256sum_checks_the_parts() {
    let dir = unpacked(&good());
    let text = run(Command::new("sha256sum").args(["-c", "SHA256SUMS"]), dir.path());
    // All but the signature for the firmware, which may be made later.
    assert_eq!(text.lines().count(), 5, "{text}");
    assert!(text.lines().all(|line| line.ends_with(": OK")), "{text}");
    std::fs::write(dir.path().join("uImage"), "x").unwrap();
    assert!(
        !Command::new("sha256sum")
            .args(["-c", "SHA256SUMS"])
            .current_dir(dir.path())
            .output()
            .unwrap()
            .status
            .success()
    );
}

#[test]
fn gnu_tar_lists_what_is_there_without_a_complaint() {
    let dir = unpacked(&good());
    let text =
        run(Command::new("tar").args(["--utc", "--full-time", "-tvf", "bundle.tar"]).env("LC_ALL", "C"), dir.path());
    let names: Vec<_> = text.lines().map(|line| line.split_whitespace().last().unwrap()).collect();
    assert_eq!(
        names,
        [
            "manifest.json",
            "manifest.json.sig",
            "uImage",
            "rootfs.uboot",
            "boot.scr",
            "hv.dtb",
            "hv.dtb.sig",
            "profile.json",
            "SHA256SUMS"
        ]
    );
    assert!(
        text.lines().all(|line| line.starts_with("-rw-r--r-- 0/0") && line.contains("2023-11-14 22:13:20")),
        "{text}"
    );
}

fn mkimage(dir: &Path, arguments: &[&str]) -> Vec<u8> {
    run(Command::new("mkimage").args(arguments).arg("out").env("SOURCE_DATE_EPOCH", EPOCH.to_string()), dir);
    std::fs::read(dir.join("out")).unwrap()
}

#[test]
fn images_are_mkimages_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    let payload: Vec<u8> = (0..5003u32).map(|n| (n * 7 % 251) as u8).collect();
    std::fs::write(dir.path().join("in"), &payload).unwrap();
    let text = "setenv bootargs console=ttyS0\nbootm 78700000 - 78800000\n";
    std::fs::write(dir.path().join("cmd"), text).unwrap();
    let same = |name: &str, ours: Option<Content<'_>>, arguments: &[&str]| {
        let (ours, theirs) = (ours.unwrap().pieces().concat(), mkimage(dir.path(), arguments));
        assert_eq!(ours[..64], theirs[..64], "the header of the {name}");
        assert!(ours == theirs, "the payload of the {name}");
        std::fs::write(dir.path().join("ours"), ours).unwrap();
        for tool in ["mkimage", "dumpimage"] {
            let text = run(Command::new(tool).args(["-l", "ours"]), dir.path());
            assert!(text.contains("PowerPC Linux"), "{tool}: {text}");
        }
    };
    let image = |kind, compression, name, load, entry| {
        wrap(Fields { kind, compression, name, load, entry, time: EPOCH }, &payload[..])
    };
    same(
        "kernel",
        image(Kind::Kernel, Compression::Gzip, "Linux-6.12", 0, 0),
        &[
            "-A",
            "ppc",
            "-O",
            "linux",
            "-T",
            "kernel",
            "-C",
            "gzip",
            "-a",
            "0",
            "-e",
            "0",
            "-n",
            "Linux-6.12",
            "-d",
            "in",
        ],
    );
    same(
        "hypervisor",
        image(Kind::Kernel, Compression::None, "a name that is longer than a header can hold", 0x10_0000, 0x10_0040),
        &[
            "-A",
            "ppc",
            "-O",
            "linux",
            "-T",
            "kernel",
            "-C",
            "none",
            "-a",
            "100000",
            "-e",
            "100040",
            "-n",
            "a name that is longer than a header can hold",
            "-d",
            "in",
        ],
    );
    same(
        "ramdisk",
        image(Kind::Ramdisk, Compression::Gzip, "rootfs", 0, 0),
        &["-A", "ppc", "-O", "linux", "-T", "ramdisk", "-C", "gzip", "-n", "rootfs", "-d", "in"],
    );
    same(
        "script",
        script("boot", EPOCH, text),
        &["-A", "ppc", "-O", "linux", "-T", "script", "-C", "none", "-n", "boot", "-d", "cmd"],
    );
}

/// The bundle that the docs show is one that is made.
#[test]
fn the_manifest_in_the_docs_is_the_one_that_is_written() {
    let bundle: Assembled<'_> = assembled("p4080ds", "two-linux", 0xa5);
    let text = String::from_utf8(bundle.manifest_bytes).unwrap();
    let docs = std::fs::read_to_string(crate::cases::project().join("docs/formats.md")).unwrap();
    let shown = docs.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    // The docs leave out all parts but one.
    let (start, rest) = shown.split_once("    ...\n").unwrap();
    assert!(text.starts_with(start) && text.ends_with(rest), "docs:\n{shown}\nwritten:\n{text}");
}
