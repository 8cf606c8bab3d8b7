//! Releases in a copy of the checkout, by a person and on a machine whose names would stand out.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Read as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use memchr::memmem;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::common::{Checkout, Run, finish, tool};
use crate::figures::figure;

/// The user's name, which is in the path of the home directory too.
const USER: &str = "mallory4711";

/// A checkout with a key for releases.
pub struct Releases {
    pub checkout: Checkout,
}

impl Releases {
    pub fn new() -> Self {
        let checkout = Checkout::new();
        let home = checkout.beside(USER);
        std::fs::create_dir(&home).unwrap();
        let key = checkout.beside("key");
        tool(
            "ssh-keygen",
            &["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"]
                .map(OsStr::new)
                .into_iter()
                .chain([key.as_os_str()])
                .collect::<Vec<_>>(),
            &home,
        );
        let public = std::fs::read_to_string(key.with_extension("pub")).unwrap();
        let line = format!("release namespaces=\"citrine-bundle,citrine-release\" {public}");
        std::fs::write(checkout.beside("signers"), line).unwrap();
        Self { checkout }
    }

    pub fn path(&self, name: &str) -> String {
        self.checkout.beside(name).to_str().unwrap().to_owned()
    }

    /// The shipped release file with another version; with profiles, it is for these alone.
    pub fn recipe(&self, version: &str, profiles: Option<&[&str]>) {
        let shipped = std::fs::read_to_string(self.checkout.root().join("artifacts/release.toml")).unwrap();
        let text = match profiles {
            Some(profiles) => {
                let (_, components) = shipped.split_once("[[component]]").unwrap();
                let cells = format!("boards = [\"p4080ds\"]\nprofiles = {profiles:?}");
                format!("version = {version:?}\n{cells}\n[[component]]{components}")
            }
            None => {
                let lines = shipped.lines().map(|line| match line.strip_prefix("version = ") {
                    Some(_) => format!("version = {version:?}\n"),
                    None => format!("{line}\n"),
                });
                lines.collect()
            }
        };
        std::fs::write(self.checkout.beside("release.toml"), text).unwrap();
    }

    /// `release` into this directory beside the checkout.
    pub fn command(&self, to: &str, more: &[&str]) -> Command {
        let (file, key, out) = (self.path("release.toml"), self.path("key"), self.path(to));
        let words = [&["release", file.as_str(), "--key", &key, "-o", &out, "--yes"], more].concat();
        let mut command = self.checkout.command(&words);
        let home = std::env::var_os("HOME").map(PathBuf::from).unwrap();
        let or = |name: &str, default: &str| std::env::var_os(name).unwrap_or_else(|| home.join(default).into());
        command.env("CARGO_HOME", or("CARGO_HOME", ".cargo")).env("RUSTUP_HOME", or("RUSTUP_HOME", ".rustup"));
        command.env("CITRINE_CACHE", or("CITRINE_CACHE", ".cache/citrine"));
        command.env("HOME", self.checkout.beside(USER)).env("USER", USER).env("LOGNAME", USER);
        command
    }

    pub fn release(&self, to: &str, more: &[&str]) -> Run {
        finish(self.command(to, more))
    }

    pub fn verify(&self, dir: &str) -> Run {
        self.checkout.run(&["verify", &self.path(dir), "--keys", &self.path("signers")])
    }

    /// Every file of a release by name.
    pub fn files(&self, dir: &str) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        collect(&self.checkout.beside(dir), "", &mut files);
        files
    }

    /// Starts the release `to` and kills its processes at once, at moments of `whole` that `random` says, until that has hit
    /// `kills` times. One that ends before is taken away, and begins from nothing; how many did.
    pub fn killed(&self, to: &str, kills: u32, whole: Duration, mut random: impl FnMut() -> f64) -> u32 {
        let (mut hits, mut ended) = (0, 0);
        while hits < kills {
            let mut command = self.command(to, &[]);
            let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).spawn().unwrap();
            std::thread::sleep(whole.mul_f64(random()));
            let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
            if child.wait().unwrap().signal().is_some() {
                hits += 1;
            } else {
                ended += 1;
                assert!(ended < 10 * kills, "every release fails, or is too fast to be killed");
                std::fs::remove_dir_all(self.checkout.beside(to)).unwrap();
            }
        }
        ended
    }
}

fn collect(dir: &Path, prefix: &str, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("{prefix}{}", path.file_name().unwrap().to_string_lossy());
        if path.is_dir() {
            collect(&path, &format!("{name}/"), files);
        } else {
            files.insert(name, std::fs::read(&path).unwrap());
        }
    }
}

/// An undisturbed release of these profiles (of all boards and profiles without), and the same killed and begun again: the
/// same bytes. It has `bundles` bundles.
pub fn killed_and_undisturbed_are_the_same(
    profiles: Option<&[&str]>,
    bundles: usize,
    kills: u32,
    random: impl FnMut() -> f64,
) -> Releases {
    let releases = Releases::new();
    releases.recipe("1.0.0", profiles);
    // What is not in the cache yet is built here, so that the time is that of a release.
    releases.release("warm", &[]).result();
    std::fs::remove_dir_all(releases.checkout.beside("warm")).unwrap();
    let started = Instant::now();
    let first = releases.release("a", &[]);
    let result = first.result();
    assert_eq!((&result["unchanged"], &result["written"]), (&false.into(), &bundles.into()), "{result}");
    let whole = started.elapsed();

    let ended = releases.killed("b", kills, whole, random);
    let last = releases.release("b", &[]);
    let written = &last.result()["written"];
    println!("{kills} kills in {whole:?} each; {ended} came too late; the last run wrote {written}");
    let (a, b) = (releases.files("a"), releases.files("b"));
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for (name, bytes) in &a {
        assert!(*bytes == b[name], "{name} differs");
    }
    assert!(!releases.checkout.beside(".b~work").exists());
    figure(&format!("{bundles} bundles: killed {kills} times, {} files of {} the same", a.len(), b.len()));
    releases
}

/// Nothing in a release says who made it and where; what is compressed is looked at as it is unpacked.
pub fn no_file_knows_its_maker(releases: &Releases, dir: &str) {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_owned();
    let place = releases.checkout.root().parent().unwrap().to_string_lossy().into_owned();
    let home = std::env::var("HOME").unwrap() + "/";
    let mut needles = vec![USER.to_owned(), place, home, "/home/".to_owned()];
    needles.extend(Some(host).filter(|host| host.len() > 4 && host != "localhost"));
    for (name, bytes) in releases.files(dir) {
        // What others have published is theirs.
        if name.starts_with("sources/") {
            continue;
        }
        let mut plain = Vec::new();
        if name.ends_with(".gz") {
            flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut plain).unwrap();
        }
        for needle in &needles {
            let found = |bytes: &[u8]| memmem::find(bytes, needle.as_bytes()).is_some();
            assert!(!found(&bytes) && !found(&plain), "{name} holds {needle}");
        }
    }
}
