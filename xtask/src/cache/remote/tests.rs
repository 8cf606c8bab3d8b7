//! A real registry, between two machines with a cache each: shared, forged, damaged, gone.

use std::cell::RefCell;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ssh_key::private::Ed25519Keypair;
use ssh_key::{HashAlg, LineEnding, PrivateKey};

use super::*;
use crate::cache::{Cache, StageId};
use crate::progress::Progress;
use citrine_planner::verify::keys::CACHE_NAMESPACE;

/// Debian's docker-registry, on a port of its own; it ends with this value.
struct Registry {
    child: Child,
    dir: tempfile::TempDir,
    port: u16,
}

impl Registry {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Free a moment ago: another process may take it first, and the registry then says so and ends.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let store = dir.path().join("store");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\nhttp: {{addr: \"127.0.0.1:{port}\"}}\n",
            store.display()
        );
        std::fs::write(dir.path().join("config.yml"), text).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(dir.path().join("config.yml"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry is installed");
        let since = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(since.elapsed() < Duration::from_secs(60), "docker-registry does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { child, dir, port }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/citrine/cache", self.port)
    }

    /// The file in which the registry keeps a blob.
    fn blob(&self, digest: Sha256) -> PathBuf {
        let digest = digest.to_string();
        self.dir.path().join(format!("store/docker/registry/v2/blobs/sha256/{}/{digest}/data", &digest[..2]))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn key(seed: u8) -> PrivateKey {
    PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32]))
}

/// A machine with an empty cache, which signs with one key and believes another.
fn machine(url: &str, signs: u8, believes: u8) -> (tempfile::TempDir, Cache) {
    let dir = tempfile::tempdir().unwrap();
    let line = key(believes).public_key().to_openssh().unwrap();
    let keys = TrustedKeys::parse_for(CACHE_NAMESPACE, &format!("farm {line}")).unwrap();
    let sign: Sign = Box::new(move |bytes| {
        Ok(key(signs).sign(CACHE_NAMESPACE, HashAlg::Sha512, bytes).unwrap().to_pem(LineEnding::LF).unwrap())
    });
    let remote = Remote::new(url, keys, sign).unwrap();
    let cache = Cache::open(dir.path().join("cache"), false).unwrap().with_remote(Some(remote));
    (dir, cache)
}

/// What the stage made or fetched, whether it was fetched, and the codes of what was said.
fn run(cache: &Cache, id: &StageId) -> (Vec<u8>, bool, Vec<String>) {
    let said = RefCell::new(Vec::new());
    let progress = Progress::hidden(|diagnostic| said.borrow_mut().push(diagnostic.code.to_string()));
    let entry = cache
        .stage(id, "test", Duration::from_secs(60), &progress, |dir, _| {
            std::fs::write(dir.join("image"), b"made here").unwrap();
            std::fs::write(dir.join("empty"), b"").unwrap();
            Ok(())
        })
        .unwrap();
    let bytes = entry.read("image").unwrap();
    assert!(entry.read("empty").unwrap().is_empty());
    drop(progress);
    (bytes, entry.cached, said.into_inner())
}

fn made(fetched: bool, said: &[&str]) -> (Vec<u8>, bool, Vec<String>) {
    (b"made here".to_vec(), fetched, said.iter().map(|code| (*code).to_owned()).collect())
}

#[test]
fn a_stage_is_made_once_for_all_machines() {
    let registry = Registry::start();
    let id = StageId::new("test", 1, &[]);
    let ((_a, first), (_b, second)) = (machine(&registry.url(), 1, 1), machine(&registry.url(), 2, 1));
    assert_eq!(run(&first, &id), made(false, &[]));
    assert_eq!(run(&second, &id), made(true, &[]));
    // What was fetched is in the second machine's own cache now.
    drop(registry);
    assert_eq!(run(&second, &id), made(true, &[]));
    // Another stage is made without the registry, which is said.
    assert_eq!(run(&second, &StageId::new("test", 2, &[])), made(false, &["T205", "T205"]));
}

#[test]
fn what_a_stranger_offers_is_made_here() {
    let registry = Registry::start();
    let id = StageId::new("test", 1, &[]);
    let (_a, stranger) = machine(&registry.url(), 9, 9);
    assert_eq!(run(&stranger, &id), made(false, &[]));
    let (_b, ours) = machine(&registry.url(), 1, 1);
    assert_eq!(run(&ours, &id), made(false, &["T206"]));
    // It was offered in the stranger's place.
    let (_c, third) = machine(&registry.url(), 2, 1);
    assert_eq!(run(&third, &id), made(true, &[]));
}

#[test]
fn what_a_registry_changed_is_made_here() {
    let id = StageId::new("test", 1, &[]);
    for bytes in [&b"made here, or was it?"[..], b"made hera", b""] {
        let registry = Registry::start();
        let (_a, first) = machine(&registry.url(), 1, 1);
        assert_eq!(run(&first, &id), made(false, &[]));
        std::fs::write(registry.blob(sha256(b"made here")), bytes).unwrap();
        let (_b, second) = machine(&registry.url(), 1, 1);
        let (image, fetched, said) = run(&second, &id);
        assert_eq!((image, fetched), (b"made here".to_vec(), false), "{said:?}");
        assert!(said.contains(&"T205".to_owned()) || said.contains(&"T206".to_owned()), "{said:?}");
    }
}

#[test]
fn an_address_is_one_of_a_repository() {
    let new = |url: &str| {
        let line = key(1).public_key().to_openssh().unwrap();
        let keys = TrustedKeys::parse_for(CACHE_NAMESPACE, &format!("farm {line}")).unwrap();
        Remote::new(url, keys, Box::new(|_| Ok(String::new()))).map(|remote| (remote.reference("x-1"), remote.plain))
    };
    assert_eq!(new("http://a:1/b").unwrap(), ("docker://a:1/b:x-1".to_owned(), true));
    assert_eq!(new("a.example/b/c").unwrap(), ("docker://a.example/b/c:x-1".to_owned(), false));
    for wrong in ["", "a", "a/", "/b", "-a/b", "a/b:tag", "a/b c", "a/b;reboot", "https://A/b", "ftp://a/b"] {
        assert_eq!(new(wrong).unwrap_err().code, UNREACHABLE, "{wrong}");
    }
}
