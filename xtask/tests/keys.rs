//! Keys with the programs that hold them: a real ssh-agent, a real PKCS#11 token, ssh-keygen; and what is signed with
//! them, unpacked and interrupted.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use citrine_planner::pack::{self, Content, PartSource, Subject};
use serde_json::Value;
use ssh_key::private::Ed25519Keypair;
use ssh_key::{LineEnding, PrivateKey};
use tempfile::TempDir;

#[path = "../../tests/figures.rs"]
mod figures;

use figures::figure;

/// The module of the software token, as Debian's softhsm2 installs it.
const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";

/// A directory with a bundle signed by the key `first`, which `keys` trusts.
struct Work(TempDir);

impl Work {
    fn new() -> Self {
        Self::of(1_000_001)
    }

    /// With a part of `size` bytes.
    fn of(size: usize) -> Self {
        let work = Self(tempfile::tempdir().unwrap());
        let first = PrivateKey::from(Ed25519Keypair::from_seed(&[1; 32]));
        let public = first.public_key().to_openssh().unwrap();
        std::fs::write(work.at("keys"), format!("first@example.org {public}\n")).unwrap();
        work.private("first", &first);
        let part = PartSource {
            name: "uImage".to_owned(),
            role: citrine_formats::manifest::Role::Kernel,
            slots: Vec::new(),
            entry: None,
            uncompressed: None,
            content: Content::plain(vec![0xa5; size]),
        };
        let subject = Subject {
            board: "p4080ds".to_owned(),
            core: "e500mc".to_owned(),
            epoch: 2,
            inputs: Vec::new(),
            plan_sha256: pack::sha256(b"plan"),
            profile: "two-linux".to_owned(),
            soc: "p4080".to_owned(),
            source_date_epoch: 1,
        };
        let bundle = pack::assemble(subject, vec![part]).unwrap();
        let mut bytes = Vec::new();
        pack::write_tar(&mut bytes, &bundle, &pack::sign(&bundle, &[first]).unwrap()).unwrap();
        std::fs::write(work.at("b.tar"), bytes).unwrap();
        work
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn private(&self, name: &str, key: &PrivateKey) {
        std::fs::write(self.at(name), key.to_openssh(LineEnding::LF).unwrap().as_bytes()).unwrap();
    }

    fn trust(&self, line: &str) {
        let mut file = std::fs::File::options().append(true).open(self.at("keys")).unwrap();
        writeln!(file, "{line}").unwrap();
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).current_dir(self.0.path()).env("XDG_CONFIG_HOME", self.0.path()).stdin(Stdio::null());
        command.env("SSH_AUTH_SOCK", self.at("agent")).env("SOFTHSM2_CONF", self.at("softhsm2.conf"));
        command
    }

    /// Runs a program that must succeed; what it wrote to stdout.
    fn run(&self, program: &str, args: &[&str]) -> String {
        let output = self.command(program, args).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{program} {args:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn tool(&self, args: &[&str]) -> Command {
        self.command(env!("CARGO_BIN_EXE_xtask"), &[args, &["--json"]].concat())
    }

    /// Runs the tool, which must succeed; its one object.
    fn ok(&self, args: &[&str]) -> Value {
        let output = self.tool(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stdout));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Runs the tool, which must refuse; the code.
    fn refused(&self, args: &[&str]) -> String {
        code(&self.tool(args).output().unwrap())
    }

    fn agent(&self) -> Agent {
        let socket = self.at("agent");
        // It resolves links before it compares.
        let module = std::fs::canonicalize(MODULE).unwrap_or_default().display().to_string();
        let child = self.command("ssh-agent", &["-D", "-a", "agent", "-P", &module]).stdout(Stdio::null()).spawn();
        let agent = Agent(child.unwrap());
        while !socket.exists() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        agent
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.at(name)).unwrap()
    }
}

fn code(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let object: Value = serde_json::from_str(text.lines().next().unwrap_or_default()).unwrap();
    object["code"].as_str().unwrap().to_owned()
}

/// A running agent, which ends with its owner.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What follows manifest and signatures: each signature of a supported key takes a header and one block.
fn parts(archive: &[u8], signatures: usize) -> &[u8] {
    let size = std::str::from_utf8(&archive[124..135]).unwrap();
    let manifest = usize::from_str_radix(size, 8).unwrap().next_multiple_of(512);
    &archive[512 + manifest + signatures * 1024..]
}

#[test]
fn two_of_three_sign_without_a_build() {
    let work = Work::new();
    let before = work.bytes("b.tar");
    let identity = work.ok(&["verify", "b.tar", "--keys", "keys"])["identity"].clone();
    let mut made = Vec::new();
    for name in ["second", "third"] {
        let key = work.ok(&["keygen", name, "--no-passphrase", "--name", &format!("{name}@example.org")]);
        let line = key["allowed_signers"].as_str().unwrap().to_owned();
        assert!(line.contains("citrine-bundle,citrine-release,citrine-config"), "{line}");
        work.trust(&line);
        made.push(key);
    }
    assert_eq!(work.refused(&["verify", "b.tar", "--keys", "keys", "--threshold", "2"]), "B116");
    let signed = work.ok(&["sign", "b.tar", "--keys", "keys", "--key", "second"]);
    assert_eq!((&signed["identity"], &signed["signatures"]), (&identity, &2.into()));
    assert_eq!(signed["fingerprint"], made[0]["fingerprint"]);
    let verified = work.ok(&["verify", "b.tar", "--keys", "keys", "--threshold", "2", "--production"]);
    assert_eq!(verified["identity"], identity);
    assert_eq!(work.refused(&["verify", "b.tar", "--keys", "keys", "--threshold", "3"]), "B116");
    let after = work.bytes("b.tar");
    assert_eq!(parts(&after, 2), parts(&before, 1));
    // Again: nothing changes. Another key in place of all: the parts are the same still.
    assert_eq!(work.ok(&["sign", "b.tar", "--keys", "keys", "--key", "second"])["unchanged"], true);
    assert_eq!(work.bytes("b.tar"), after);
    let replaced = work.ok(&["sign", "b.tar", "--keys", "keys", "--key", "third", "--replace", "-o", "c.tar"]);
    assert_eq!((&replaced["identity"], &replaced["signatures"]), (&identity, &1.into()));
    assert_eq!(work.bytes("b.tar"), after);
    assert_eq!(parts(&work.bytes("c.tar"), 1), parts(&before, 1));
    let signers = work.ok(&["verify", "c.tar", "--keys", "keys"])["signers"].clone();
    assert_eq!(signers[0]["principal"], "third@example.org");
    assert_eq!(signers.as_array().unwrap().len(), 1);
    // ssh-keygen agrees.
    work.run("tar", &["-xf", "c.tar"]);
    let verify = ["-Y", "verify", "-n", "citrine-bundle", "-f", "keys", "-I", "third@example.org", "-s"];
    let mut ssh = work.command("ssh-keygen", &[&verify[..], &["manifest.json.sig"]].concat());
    assert!(ssh.stdin(std::fs::File::open(work.at("manifest.json")).unwrap()).status().unwrap().success());
}

#[test]
fn a_damaged_bundle_is_not_signed() {
    let work = Work::new();
    let mut bytes = work.bytes("b.tar");
    let at = bytes.len() - 100_000;
    bytes[at] ^= 1;
    std::fs::write(work.at("b.tar"), &bytes).unwrap();
    assert_eq!(work.refused(&["sign", "b.tar", "--keys", "keys", "--key", "first", "-o", "c.tar"]), "B107");
    assert!(!work.at("c.tar").exists());
    assert_eq!(work.bytes("b.tar"), bytes);
}

#[test]
fn the_agent_signs_for_a_public_key() {
    let work = Work::new();
    for (name, kind) in [("ed", "ed25519"), ("ec", "ecdsa")] {
        work.run("ssh-keygen", &["-q", "-t", kind, "-b", "256", "-N", "secret", "-C", name, "-f", name]);
        work.trust(&format!(
            "{name}@example.org {}",
            String::from_utf8(work.bytes(&format!("{name}.pub"))).unwrap().trim()
        ));
    }
    // Without an agent, with one that lacks the key, and with the private file, which has a passphrase.
    assert_eq!(work.refused(&["sign", "b.tar", "--keys", "keys", "--key", "ed.pub"]), "B118");
    let _agent = work.agent();
    assert_eq!(work.refused(&["sign", "b.tar", "--keys", "keys", "--key", "ed.pub"]), "B118");
    assert_eq!(work.refused(&["sign", "b.tar", "--keys", "keys", "--key", "ed"]), "B112");
    for (count, name) in [(2, "ed"), (3, "ec")] {
        work.run("ssh-keygen", &["-q", "-p", "-P", "secret", "-N", "", "-f", name]);
        work.run("ssh-add", &["-q", name]);
        std::fs::remove_file(work.at(name)).unwrap();
        let public = format!("{name}.pub");
        let signed = work.ok(&["sign", "b.tar", "--keys", "keys", "--key", &public]);
        assert_eq!((&signed["unchanged"], &signed["signatures"]), (&false.into(), &count.into()));
        // ECDSA signs otherwise each time; a good signature stays.
        let bytes = work.bytes("b.tar");
        assert_eq!(work.ok(&["sign", "b.tar", "--keys", "keys", "--key", &public])["unchanged"], true);
        assert_eq!(work.bytes("b.tar"), bytes);
    }
    work.ok(&["verify", "b.tar", "--keys", "keys", "--threshold", "3"]);
}

#[test]
fn a_token_signs_behind_the_agent() {
    let work = Work::new();
    std::fs::create_dir(work.at("tokens")).unwrap();
    let config = format!("directories.tokendir = {}\nlog.level = ERROR\n", work.at("tokens").display());
    std::fs::write(work.at("softhsm2.conf"), config).unwrap();
    work.run("softhsm2-util", &["--init-token", "--free", "--label", "release", "--pin", "1234", "--so-pin", "5678"]);
    let login = ["--module", MODULE, "--token-label", "release", "--login", "--pin", "1234"];
    let make = ["--keypairgen", "--key-type", "EC:prime256v1", "--id", "01", "--label", "release"];
    work.run("pkcs11-tool", &[&login[..], &make].concat());
    let public = work.run("ssh-keygen", &["-D", MODULE]);
    let public = public.lines().find(|line| line.starts_with("ecdsa-sha2-nistp256 ")).unwrap();
    std::fs::write(work.at("token.pub"), format!("{public}\n")).unwrap();
    work.trust(&format!("token@example.org namespaces=\"citrine-bundle\" {public}"));

    let _agent = work.agent();
    std::fs::write(work.at("pin"), "#!/bin/sh\necho 1234\n").unwrap();
    std::fs::set_permissions(work.at("pin"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut add = work.command("ssh-add", &["-s", MODULE]);
    let added = add.env("SSH_ASKPASS", work.at("pin")).env("SSH_ASKPASS_REQUIRE", "force").output().unwrap();
    assert!(added.status.success(), "{added:?}");

    let signed = work.ok(&["sign", "b.tar", "--keys", "keys", "--key", "token.pub", "--replace"]);
    assert_eq!(signed["signatures"], 1);
    let verified = work.ok(&["verify", "b.tar", "--keys", "keys", "--production"]);
    assert_eq!(verified["signers"][0]["principal"], "token@example.org");
    assert_eq!(work.ok(&["sign", "b.tar", "--keys", "keys", "--key", "token.pub"])["unchanged"], true);
}

#[test]
fn keygen_overwrites_nothing_and_asks_only_a_terminal() {
    let work = Work::new();
    assert_eq!(work.refused(&["keygen", "new"]), "B121");
    std::fs::write(work.at("new.pub"), "mine").unwrap();
    assert_eq!(work.refused(&["keygen", "new", "--no-passphrase"]), "B121");
    assert!(!work.at("new").exists());
    assert_eq!(work.bytes("new.pub"), b"mine");
    std::fs::remove_file(work.at("new.pub")).unwrap();
    work.ok(&["keygen", "new", "--no-passphrase"]);
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(work.at("new")).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    let again = work.bytes("new");
    assert_eq!(work.refused(&["keygen", "new", "--no-passphrase"]), "B121");
    assert_eq!(work.bytes("new"), again);
}

/// The most memory, in bytes, that the tool has had when all but the last block of `b.tar` was read from a pipe: all of
/// it, and what is its own.
fn peak(work: &Work, args: &[&str]) -> (u64, u64) {
    let mut child = work.tool(args).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let bytes = work.bytes("b.tar");
    let (most, last) = bytes.split_at(bytes.len() - 512);
    let mut pipe = child.stdin.take().unwrap();
    // It returns when the tool has taken all but what a pipe holds.
    pipe.write_all(most).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let of = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
    };
    pipe.write_all(last).unwrap();
    drop(pipe);
    assert!(child.wait().unwrap().success());
    // Pages of the program and its libraries only become more.
    (of("VmHWM:"), of("VmHWM:") - of("RssFile:"))
}

#[test]
fn a_bundle_of_any_size_needs_little_memory() {
    for verb in [&["verify", "-", "--keys", "keys"][..], &["extract", "-", "--keys", "keys", "-o", "out"]] {
        let (_, small) = peak(&Work::of(500_000), verb);
        let (all, large) = peak(&Work::of(31_000_000), verb);
        assert!(large < small + 256 * 1024 && large < 2 << 20, "{verb:?}: {small} bytes of its own, then {large}");
        assert!(all < 8 << 20, "{verb:?}: {all} bytes, {large} of its own");
        figure(&format!("peak memory of {} of 31 MB: {} KiB, {} KiB of its own", verb[0], all >> 10, large >> 10));
    }
}

fn hidden(dir: &Path) -> usize {
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(".out~")).count()
}

/// The tool has read half of the bundle from a pipe when the signal comes.
#[test]
fn a_signal_in_the_middle_leaves_no_directory() {
    let work = Work::new();
    let bytes = work.bytes("b.tar");
    for signal in ["INT", "TERM", "KILL"] {
        let mut tool = work.tool(&["extract", "-", "-o", "out", "--keys", "keys"]);
        let mut child = tool.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(&bytes[..600_000]).unwrap();
        while hidden(work.0.path()) == 0 {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        work.run("kill", &["-s", signal, &child.id().to_string()]);
        // A tool that is killed reads no more.
        let _ = input.write_all(&bytes[600_000..800_000]);
        drop(input);
        assert!(!child.wait().unwrap().success());
        assert!(!work.at("out").exists(), "{signal}");
        assert_eq!(hidden(work.0.path()), usize::from(signal == "KILL"), "{signal}");
    }
    // The next run sweeps, and does its work.
    work.ok(&["extract", "b.tar", "-o", "out", "--keys", "keys", "--board", "p4080ds", "--min-epoch", "2"]);
    assert_eq!(hidden(work.0.path()), 0);
    assert_eq!(work.bytes("out/uImage"), [0xa5; 1_000_001]);
    assert_eq!(work.refused(&["extract", "b.tar", "-o", "out", "--keys", "keys"]), "B120");
}

/// Files may be no longer than some limit: every write that goes beyond fails, as on a full disk.
#[test]
fn a_disk_that_is_full_leaves_no_directory() {
    let work = Work::new();
    for limit in [0, 1, 100, 4096, 500_000, 1_000_000] {
        let mut args = vec![format!("--fsize={limit}"), "env".to_owned(), "--ignore-signal=XFSZ".to_owned()];
        args.push(env!("CARGO_BIN_EXE_xtask").to_owned());
        args.extend(["--json", "extract", "b.tar", "-o", "out", "--keys", "keys"].map(str::to_owned));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        // Standard output is a pipe, which has no limit.
        let output = work.command("prlimit", &args).output().unwrap();
        assert_eq!(code(&output), "O101", "{limit}");
        assert!(!work.at("out").exists() && hidden(work.0.path()) == 0, "{limit}");
    }
}
