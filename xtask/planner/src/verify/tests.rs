//! The strict reader against the packer. What a forger can do is tested in `tests/forge/`.

use super::*;
use crate::pack::{self, Assembled, Content, PartSource, Subject};
use citrine_formats::manifest::Role;
use ssh_key::PrivateKey;
use ssh_key::private::Ed25519Keypair;

fn key(seed: u8) -> PrivateKey {
    PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32]))
}

fn trust(keys: &[(&str, &PrivateKey)]) -> TrustedKeys {
    let lines: String =
        keys.iter().map(|(who, key)| format!("{who} {}\n", key.public_key().to_openssh().unwrap())).collect();
    TrustedKeys::parse(&lines).unwrap()
}

fn bundle() -> Assembled<'static> {
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
        source_date_epoch: 1_700_000_000,
    };
    pack::assemble(subject, vec![part("large", vec![7; 2 * CHUNK + 5]), part("empty", Vec::new())]).unwrap()
}

fn archive(keys: &[PrivateKey]) -> Vec<u8> {
    let bundle = bundle();
    let mut bytes = Vec::new();
    pack::write_tar(&mut bytes, &bundle, &pack::sign(&bundle, keys).unwrap()).unwrap();
    bytes
}

/// A reader that gives one to three bytes at a time.
struct Dribble<'a>(&'a [u8]);

impl Read for Dribble<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(1 + self.0.len() % 3);
        self.0.read(&mut buffer[..most])
    }
}

#[test]
fn what_is_packed_is_verified_and_delivered() {
    let mut seen: Vec<(String, Vec<u8>)> = Vec::new();
    let mut visit = |part: &Part, bytes: &[u8]| {
        // Who writes an archive again makes a header for each first piece.
        assert_eq!(bytes.is_empty(), part.size == 0, "{}", part.name);
        match seen.last_mut() {
            Some((name, all)) if *name == part.name => all.extend_from_slice(bytes),
            _ => seen.push((part.name.clone(), bytes.to_vec())),
        }
        Ok(())
    };
    let verified = verify(&archive(&[key(1)])[..], &trust(&[("citrine-dev", &key(1))]), &mut visit).unwrap();
    assert_eq!((&verified.manifest, verified.identity), (&bundle().manifest, bundle().identity));
    assert!(verified.is_development());
    let parts: Vec<_> = bundle().files(&[]).skip(1).map(|(name, p)| (name.into_owned(), p.concat())).collect();
    assert_eq!(seen, parts);
}

#[test]
fn the_size_of_reads_does_not_matter() {
    let bytes = archive(&[key(1)]);
    assert!(verify(Dribble(&bytes), &trust(&[("a", &key(1))]), &mut |_, _| Ok(())).is_ok());
}

#[test]
fn signing_twice_gives_the_same_bytes() {
    assert_eq!(archive(&[key(1), key(2)]), archive(&[key(2), key(1), key(1)]));
}

#[test]
fn all_signers_must_be_trusted() {
    let bytes = archive(&[key(1), key(2)]);
    let both = trust(&[("citrine-dev", &key(1)), ("b", &key(2))]);
    let verified = verify(&bytes[..], &both, &mut |_, _| Ok(())).unwrap();
    assert_eq!(verified.signers.len(), 2);
    assert!(!verified.is_development());
    for known in [1, 2] {
        let error = verify(&bytes[..], &trust(&[("a", &key(known))]), &mut |_, _| Ok(())).unwrap_err();
        let Error::UnknownSigner { fingerprints } = error else { panic!("{error:?}") };
        assert_eq!(fingerprints, [key(3 - known).fingerprint(ssh_key::HashAlg::Sha256).to_string()]);
    }
}

#[test]
fn a_caller_that_cannot_write_is_not_a_bad_bundle() {
    let error =
        verify(&archive(&[key(1)])[..], &trust(&[("a", &key(1))]), &mut |_, _| Err(io::ErrorKind::StorageFull.into()))
            .unwrap_err();
    assert!(error.code().is_none() && error.diagnostic("x").is_none());
}

#[test]
fn no_name_of_a_forger_reaches_the_terminal() {
    assert_eq!(shown("uImage"), "uImage");
    for name in ["", "\u{1b}[2J", "a\nb", "a b", "\u{202e}gpj"] {
        assert_eq!(shown(name), "a file with an impossible name");
    }
}
