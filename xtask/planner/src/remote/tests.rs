//! An entry that is believed, and every forgery that is not.

use proptest::prelude::*;
use ssh_key::private::Ed25519Keypair;
use ssh_key::{HashAlg, LineEnding, PrivateKey};

use super::*;
use crate::pack::sha256;

const STAGE: &str = "linux-0123";

fn key(seed: u8) -> PrivateKey {
    PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32]))
}

fn sign(key: &PrivateKey, namespace: &str, message: &[u8]) -> String {
    key.sign(namespace, HashAlg::Sha512, message).unwrap().to_pem(LineEnding::LF).unwrap()
}

fn keys() -> TrustedKeys {
    let line = key(1).public_key().to_openssh().unwrap();
    TrustedKeys::parse_for(CACHE_NAMESPACE, &format!("farm namespaces=\"citrine-cache\" {line}")).unwrap()
}

fn statement() -> Statement {
    let file = |text: &str| File { sha256: sha256(text.as_bytes()), size: text.len() as u64 };
    let files = [("kernel.json", file("{}")), ("kernel.uImage", file("code"))];
    Statement { files: files.map(|(name, file)| (name.to_owned(), file)).into(), stage: STAGE.to_owned() }
}

fn entry(statement: &Statement) -> Vec<u8> {
    manifest(statement, &sign(&key(1), CACHE_NAMESPACE, &statement.to_bytes()), sha256(EMPTY))
}

#[test]
fn what_was_written_is_believed() {
    let (found, signer) = read(&entry(&statement()), STAGE, &keys()).unwrap();
    assert_eq!((found, signer.principal.as_str()), (statement(), "farm"));
}

#[test]
fn what_is_forged_is_not() {
    let good = statement();
    let text = String::from_utf8(entry(&good)).unwrap();
    let other = Statement { stage: "linux-9999".to_owned(), ..good.clone() };
    let named = |name: &str| {
        let files = [(name.to_owned(), good.files["kernel.json"])].into();
        entry(&Statement { files, stage: STAGE.to_owned() })
    };
    let zeros = "0".repeat(64);
    let kernel = format!("\"digest\":\"sha256:{}\"", good.files["kernel.uImage"].sha256);
    let signed_by =
        |key: &PrivateKey, namespace: &str| manifest(&good, &sign(key, namespace, &good.to_bytes()), sha256(EMPTY));
    for (bytes, why) in [
        (signed_by(&key(2), CACHE_NAMESPACE), "not trusted"),
        (signed_by(&key(1), "citrine-bundle"), "another purpose"),
        (manifest(&good, &sign(&key(1), CACHE_NAMESPACE, &other.to_bytes()), sha256(EMPTY)), "does not match"),
        (manifest(&good, "", sha256(EMPTY)), "not an SSH signature"),
        (entry(&other), "another stage"),
        (named("../../bin/sh"), "impossible name"),
        (named("entry.json/x"), "impossible name"),
        (text.replacen(&kernel, &format!("\"digest\":\"sha256:{zeros}\""), 1).into_bytes(), "layers"),
        (text.replacen("\"size\":4}", "\"size\":5}", 1).into_bytes(), "layers"),
        (text.replacen("\"layers\":[{", "\"layers\":[{\"digest\":\"sha256:\",\"size\":1},{", 1).into_bytes(), "layers"),
        (text.replacen(SIGNATURE, "x", 1).into_bytes(), "no annotation"),
        (text.replacen(STATEMENT, "x", 1).into_bytes(), "no annotation"),
        (b"{}".to_vec(), "manifest"),
        (vec![b' '; MAX_MANIFEST + 1], "the most"),
    ] {
        assert_ne!(bytes, text.as_bytes(), "{why}");
        let found = read(&bytes, STAGE, &keys()).unwrap_err();
        assert!(found.contains(why), "{why}: {found}");
    }
}

proptest! {
    /// One flipped bit anywhere is refused, or changes nothing that is used.
    #[test]
    fn a_flipped_bit_changes_nothing_that_is_believed(at in any::<usize>(), bit in 0u8..8) {
        let mut bytes = entry(&statement());
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        if let Ok((found, _)) = read(&bytes, STAGE, &keys()) {
            prop_assert_eq!(found, statement());
        }
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(read(&bytes, STAGE, &keys()).is_err());
    }
}
