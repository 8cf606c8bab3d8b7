//! Whatever fails at whatever step, no directory appears and nothing is left.

use super::*;
use citrine_formats::manifest::Role;
use citrine_planner::pack::{self, Content, PartSource, Subject};
use citrine_planner::verify;
use citrine_planner::verify::keys::TrustedKeys;
use ssh_key::PrivateKey;
use ssh_key::private::Ed25519Keypair;

fn bundle() -> (Vec<u8>, TrustedKeys) {
    let key = PrivateKey::from(Ed25519Keypair::from_seed(&[1; 32]));
    let keys = TrustedKeys::parse(&format!("a {}", key.public_key().to_openssh().unwrap())).unwrap();
    let part = |name: &str, body: Vec<u8>| PartSource {
        name: name.to_owned(),
        role: Role::Kernel,
        slots: Vec::new(),
        entry: None,
        uncompressed: None,
        content: Content::plain(body),
    };
    let subject = Subject {
        board: "p4080ds".to_owned(),
        core: "e500mc".to_owned(),
        epoch: 0,
        inputs: Vec::new(),
        plan_sha256: pack::sha256(b"plan"),
        profile: "two-linux".to_owned(),
        soc: "p4080".to_owned(),
        source_date_epoch: 1,
    };
    let parts = vec![part("large", vec![7; 400_000]), part("empty", Vec::new()), part("odd", vec![8; 513])];
    let bundle = pack::assemble(subject, parts).unwrap();
    let mut bytes = Vec::new();
    pack::write_tar(&mut bytes, &bundle, &pack::sign(&bundle, &[key]).unwrap()).unwrap();
    (bytes, keys)
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn all_files_appear_with_their_bytes() {
    let (bytes, keys) = bundle();
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("out");
    unpack(verify::open(&bytes[..], &keys).unwrap(), &to, &|_| Ok(()), &mut || Ok(())).unwrap();
    assert_eq!(names(dir.path()), ["out"]);
    assert_eq!(names(&to), ["SHA256SUMS", "empty", "large", "manifest.json", "manifest.json.sig", "odd"]);
    assert_eq!(std::fs::read(to.join("large")).unwrap(), [7; 400_000]);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&to), mode(&to.join("odd"))), (0o755, 0o644));
    // A second time: nothing is written into what is there.
    let again = unpack(verify::open(&bytes[..], &keys).unwrap(), &to, &|_| Ok(()), &mut || Ok(()));
    assert!(matches!(again, Err(Failed::Exists)), "{again:?}");
    assert_eq!(names(dir.path()), ["out"]);
}

#[test]
fn a_failure_at_any_step_leaves_nothing() {
    let (bytes, keys) = bundle();
    let mut steps = 0;
    loop {
        let dir = tempfile::tempdir().unwrap();
        let mut left = steps;
        let mut go_on = || {
            left -= 1;
            if left < 0 { Err(io::Error::from(io::ErrorKind::StorageFull)) } else { Ok(()) }
        };
        let done = unpack(verify::open(&bytes[..], &keys).unwrap(), &dir.path().join("out"), &|_| Ok(()), &mut go_on);
        if done.is_ok() {
            break;
        }
        assert!(matches!(done, Err(Failed::Write(_))), "{done:?}");
        assert_eq!(names(dir.path()), Vec::<String>::new(), "after {steps} steps");
        steps += 1;
    }
    assert!(steps > 20, "{steps}");
}

#[test]
fn a_bundle_that_is_cut_or_changed_anywhere_leaves_nothing() {
    let (bytes, keys) = bundle();
    for at in (3 * 512..bytes.len()).step_by(1777) {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        for bad in [&bytes[..at], &changed[..]] {
            let dir = tempfile::tempdir().unwrap();
            if let Ok(opened) = verify::open(bad, &keys) {
                let done = unpack(opened, &dir.path().join("out"), &|_| Ok(()), &mut || Ok(()));
                assert!(matches!(done, Err(Failed::Bundle(_))), "{at}: {done:?}");
            }
            assert_eq!(names(dir.path()), Vec::<String>::new(), "{at}");
        }
    }
}

#[test]
fn what_a_dead_run_left_goes_and_what_a_living_one_holds_stays() {
    let (bytes, keys) = bundle();
    let dir = tempfile::tempdir().unwrap();
    let dead = output::temporary_dir(dir.path(), "out").unwrap().keep();
    std::fs::write(dead.join("large"), "half").unwrap();
    let living = output::temporary_dir(dir.path(), "out").unwrap();
    let claim = output::claim(living.path()).unwrap();
    unpack(verify::open(&bytes[..], &keys).unwrap(), &dir.path().join("out"), &|_| Ok(()), &mut || Ok(())).unwrap();
    assert!(!dead.exists() && living.path().exists());
    drop(claim);
    output::sweep_unclaimed(dir.path(), "out");
    assert_eq!(names(dir.path()), ["out"]);
}
