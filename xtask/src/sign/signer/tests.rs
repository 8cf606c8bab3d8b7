//! Signers whose keys are files; the agent and a token are tried in `tests/keys.rs`.

use super::*;
use citrine_planner::verify::keys::{NAMESPACES, RELEASE_NAMESPACE};
use ssh_key::private::Ed25519Keypair;

fn key(seed: u8, comment: &str) -> PrivateKey {
    let mut key = PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32]));
    key.set_comment(comment);
    key
}

fn signer_of(key: &PrivateKey) -> (tempfile::TempDir, Signer) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    std::fs::write(&file, key.to_openssh(LineEnding::LF).unwrap().as_bytes()).unwrap();
    let signer = signer(Some(&file)).unwrap();
    (dir, signer)
}

#[test]
fn a_signature_is_good_for_its_key_namespace_and_message_alone() {
    let (_dir, signer) = signer_of(&key(1, "a"));
    let text = signer.sign(RELEASE_NAMESPACE, b"index").unwrap();
    assert!(signer.has_signed(RELEASE_NAMESPACE, b"index", &text));
    assert!(!signer.has_signed(RELEASE_NAMESPACE, b"other", &text));
    assert!(!signer.has_signed("citrine-bundle", b"index", &text));
    let (_dir, other) = signer_of(&key(2, "a"));
    assert!(!other.has_signed(RELEASE_NAMESPACE, b"index", &text));
}

#[test]
fn a_line_of_trust_is_for_every_namespace() {
    let key = key(1, "a comment");
    let line = trusted_line("a@example.org", key.public_key());
    for namespace in NAMESPACES {
        let keys = TrustedKeys::parse_for(namespace, &line).unwrap();
        assert_eq!(keys.signer(key.public_key()).unwrap().principal, "a@example.org");
    }
    assert!(TrustedKeys::parse_for("git", &line).is_err());
}

#[test]
fn a_development_key_is_known_by_its_comment() {
    assert!(signer_of(&key(1, DEV_PRINCIPAL)).1.is_development());
    assert!(!signer_of(&key(200, "production")).1.is_development());
}
