//! The signature over a configuration tree, for a firmware that believes one key.

use citrine_core::trust;
use citrine_formats::signature::{self, Key};
use citrine_planner::diag::{self, Diagnostic, Severity};
use citrine_planner::pack::{Assembled, configuration_blob, configuration_key, sign_configurations};
use citrine_planner::verify::policy::unsigned_configuration;
use sha2::{Digest as _, Sha512};
use ssh_key::SshSig;

use super::Signer;
use super::signer::AGENT;

/// A signature as the firmware reads it.
pub type Blob = [u8; signature::LEN];

/// Whether `signer` has the key that a firmware believes.
pub fn is_by(signer: &Signer, key: &Key) -> bool {
    configuration_key(signer.public()).as_ref() == Some(key)
}

/// Whether `blob` is a signature by `key` over `tree`, as the firmware judges.
pub fn holds(key: &Key, blob: &[u8], tree: &[u8]) -> bool {
    trust::check(key, blob, &Sha512::digest(tree).into()).is_ok()
}

/// The signature by `signer` over `tree`.
///
/// # Errors
/// What [`Signer::sign`] returns; `B118` for one that the firmware would refuse.
pub fn sign(signer: &Signer, tree: &[u8]) -> diag::Result<Blob> {
    let text = signer.sign(signature::NAMESPACE, tree)?;
    let blob = SshSig::from_pem(&text).ok().and_then(|made| configuration_blob(&made));
    let good = blob.filter(|blob| configuration_key(signer.public()).is_some_and(|key| holds(&key, blob, tree)));
    good.ok_or_else(|| {
        let message = format!("the signature by {} is none that the firmware takes", signer.fingerprint());
        Diagnostic::error(AGENT, message).help("sign with an Ed25519 key: the firmware knows no other").into()
    })
}

/// Fills the signatures of a bundle: those that hold among what is there already, by name, and those that `signer` can
/// make. The names of the others, which stay empty.
///
/// # Errors
/// As for [`sign`].
pub fn fill(
    bundle: &mut Assembled<'_>,
    signer: &Signer,
    there: &mut dyn FnMut(&str) -> Option<Vec<u8>>,
) -> diag::Result<Vec<String>> {
    let mut unsigned = Vec::new();
    sign_configurations(bundle, &mut |part, key, tree| {
        if is_by(signer, key) {
            return sign(signer, tree).map(Some);
        }
        let known =
            there(&part.name).and_then(|bytes| Blob::try_from(bytes).ok()).filter(|blob| holds(key, blob, tree));
        if known.is_none() {
            unsigned.push(part.name.clone());
        }
        Ok(known)
    })?;
    Ok(unsigned)
}

/// That these signatures of a bundle are still to be made, if there are any.
pub fn notice(unsigned: &[String], shown: &str) -> Option<Diagnostic> {
    let diagnostic = unsigned_configuration(unsigned, shown)?;
    Some(Diagnostic { severity: Severity::Notice, ..diagnostic })
}

#[cfg(test)]
mod tests {
    use super::*;
    use citrine_formats::manifest::{Role, Sha256};
    use citrine_planner::pack::{Content, PartSource, Subject, assemble, configuration_signature};
    use ssh_key::private::Ed25519Keypair;
    use ssh_key::{LineEnding, PrivateKey};

    fn key(seed: u8) -> PrivateKey {
        PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32]))
    }

    fn signer_of(key: &PrivateKey) -> Signer {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        std::fs::write(&file, key.to_openssh(LineEnding::LF).unwrap().as_bytes()).unwrap();
        super::super::signer(Some(&file)).unwrap()
    }

    /// A bundle of a configuration and its empty signature by `key`.
    fn bundle(key: &PrivateKey) -> Assembled<'static> {
        let part = |name: &str, role, content| PartSource {
            name: name.into(),
            role,
            slots: Vec::new(),
            entry: None,
            uncompressed: None,
            content,
        };
        let sources = vec![
            part("hv.dtb", Role::Configuration, Content::plain(&b"tree"[..])),
            part("hv.dtb.sig", Role::Signature, Content::unsigned(configuration_key(key.public_key()).unwrap())),
        ];
        let subject = Subject {
            board: "p4080ds".into(),
            core: "e500mc".into(),
            epoch: 0,
            inputs: Vec::new(),
            plan_sha256: Sha256([0; 32]),
            profile: "hello".into(),
            soc: "p4080".into(),
            source_date_epoch: 0,
        };
        assemble(subject, sources).unwrap()
    }

    #[test]
    fn a_signature_is_made_taken_over_or_missing() {
        let blob_in = |bundle: &Assembled<'_>| bundle.contents[1].pieces().concat();
        let good = configuration_signature(&key(1), b"tree").unwrap().to_vec();
        let identity = bundle(&key(1)).identity;

        let mut own = bundle(&key(1));
        assert_eq!(fill(&mut own, &signer_of(&key(1)), &mut |_| None).unwrap(), Vec::<String>::new());
        assert_eq!((blob_in(&own), own.identity), (good.clone(), identity));

        let stranger = signer_of(&key(2));
        let mut taken = bundle(&key(1));
        assert!(fill(&mut taken, &stranger, &mut |_| Some(good.clone())).unwrap().is_empty());
        assert_eq!(blob_in(&taken), good);

        let of_another_tree = configuration_signature(&key(1), b"other").unwrap().to_vec();
        let by_another = configuration_signature(&key(2), b"tree").unwrap().to_vec();
        for bad in [Vec::new(), vec![0; 184], of_another_tree, by_another, good[..183].to_vec()] {
            let mut left = bundle(&key(1));
            assert_eq!(fill(&mut left, &stranger, &mut |_| Some(bad.clone())).unwrap(), ["hv.dtb.sig"]);
            assert_eq!(blob_in(&left), [0; 184]);
        }
    }

    #[test]
    fn only_an_ed25519_key_signs_for_the_firmware() {
        let p256 = PrivateKey::random(
            &mut ssh_key::rand_core::OsRng,
            ssh_key::Algorithm::Ecdsa { curve: ssh_key::EcdsaCurve::NistP256 },
        );
        assert_eq!(sign(&signer_of(&p256.unwrap()), b"tree").unwrap_err().code, AGENT);
    }
}
