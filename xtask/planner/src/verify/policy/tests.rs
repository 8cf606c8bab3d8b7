//! Each demand, met and not met.

use super::*;
use citrine_formats::addr::TruePhys;
use citrine_formats::manifest::{FORMAT, Part, Role, Sha256, Slot};
use proptest::prelude::*;
use ssh_key::PrivateKey;
use ssh_key::private::Ed25519Keypair;

fn manifest() -> Manifest {
    Manifest {
        board: "p4080ds".to_owned(),
        core: "e500mc".to_owned(),
        epoch: 3,
        format: FORMAT,
        inputs: Vec::new(),
        parts: vec![Part {
            key: None,
            entry: None,
            name: "uImage".to_owned(),
            role: Role::Kernel,
            sha256: Some(Sha256([0; 32])),
            size: 1,
            slots: vec![Slot { load: TruePhys(0), media: Media::Ram, window: 4096 }],
            uncompressed: None,
        }],
        plan_sha256: Sha256([0; 32]),
        profile: "two-linux".to_owned(),
        soc: "p4080".to_owned(),
        source_date_epoch: 0,
    }
}

/// Keys 0 and up; those in `dev` are for development.
fn keys(count: u8, dev: &[u8]) -> (TrustedKeys, Vec<Signer>) {
    let public = |seed| PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32])).public_key().clone();
    let line = |seed| {
        let name = if dev.contains(&seed) { "citrine-dev".to_owned() } else { format!("k{seed}") };
        format!("{name} {}\n", public(seed).to_openssh().unwrap())
    };
    let keys = TrustedKeys::parse(&(0..count).map(line).collect::<String>()).unwrap();
    let signers = (0..count).map(|seed| keys.signer(&public(seed)).unwrap()).collect();
    (keys, signers)
}

fn judged(policy: &Policy) -> Option<Code> {
    let (keys, signers) = keys(2, &[]);
    policy.judge(&manifest(), &signers, &keys, "x.tar").err().map(|error| error.code)
}

#[test]
fn nothing_is_demanded_by_default() {
    let (keys, signers) = keys(1, &[0]);
    assert!(Policy::default().judge(&manifest(), &signers, &keys, "x.tar").is_ok());
}

#[test]
fn each_demand_is_met_or_refused_with_its_own_code() {
    let text = |text: &str| Some(text.to_owned());
    let none = Policy::default();
    for (policy, expected) in [
        (Policy { board: text("p4080ds"), ..none.clone() }, None),
        (Policy { board: text("t2080rdb"), ..none.clone() }, Some(BOARD)),
        (Policy { profile: text("two-linux"), ..none.clone() }, None),
        (Policy { profile: text("two-linux-sdk"), ..none.clone() }, Some(PROFILE)),
        (Policy { media: Some(Media::Ram), ..none.clone() }, None),
        (Policy { media: Some(Media::Nor), ..none.clone() }, Some(MEDIA)),
        (Policy { min_epoch: 3, ..none.clone() }, None),
        (Policy { min_epoch: 4, ..none.clone() }, Some(EPOCH)),
        (Policy { threshold: 2, ..none.clone() }, None),
        (Policy { threshold: 3, ..none.clone() }, Some(THRESHOLD)),
        (Policy { production: true, ..none }, None),
    ] {
        assert_eq!(judged(&policy), expected, "{policy:?}");
    }
}

#[test]
fn a_development_key_beside_good_ones_is_refused_in_production() {
    let (keys, signers) = keys(3, &[1]);
    let policy = Policy { production: true, threshold: 2, ..Policy::default() };
    assert_eq!(policy.judge(&manifest(), &signers, &keys, "x.tar").unwrap_err().code, DEVELOPMENT);
    let good = [signers[0].clone(), signers[2].clone()];
    assert!(policy.judge(&manifest(), &good, &keys, "x.tar").is_ok());
    // It does not count among those who might sign, either.
    let policy = Policy { threshold: 3, ..policy };
    let refused = policy.judge(&manifest(), &good, &keys, "x.tar").unwrap_err();
    assert!(refused.message.contains("2 of the 2 trusted keys"), "{}", refused.message);
}

#[test]
fn who_has_too_few_signatures_learns_whether_others_could_sign() {
    let (keys, signers) = keys(3, &[]);
    for (threshold, cure) in [(2, "let the others sign"), (3, "let the others sign"), (4, "enter the keys")] {
        let policy = Policy { threshold, ..Policy::default() };
        let refused = policy.judge(&manifest(), &signers[..1], &keys, "x.tar").unwrap_err();
        assert!(refused.message.contains("1 of the 3 trusted keys"), "{}", refused.message);
        assert!(refused.help.iter().any(|help| help.contains(cure)), "{threshold}: {:?}", refused.help);
    }
}

#[test]
fn a_configuration_without_signature_is_refused_in_production_only() {
    let verified = |unsigned: &[&str]| Verified {
        manifest: manifest(),
        identity: Sha256([0; 32]),
        signers: Vec::new(),
        unsigned: unsigned.iter().map(|name| (*name).to_owned()).collect(),
    };
    let production = Policy { production: true, ..Policy::default() };
    let code = |policy: &Policy, unsigned: &[&str]| {
        policy.judge_whole(&verified(unsigned), "x.tar").err().map(|refused| refused.code)
    };
    assert_eq!(code(&production, &[]), None);
    assert_eq!(code(&production, &["hv.dtb.sig"]), Some(UNSIGNED));
    assert_eq!(code(&Policy::default(), &["hv.dtb.sig"]), None);
}

#[test]
fn a_key_under_two_names_is_one_key_and_one_of_development_is() {
    let public = PrivateKey::from(Ed25519Keypair::from_seed(&[9; 32])).public_key().clone();
    let text = public.to_openssh().unwrap();
    let keys = TrustedKeys::parse(&format!("alice {text}\nbob,citrine-dev {text}\n")).unwrap();
    assert_eq!((keys.count(), keys.count_in_production()), (1, 0));
    assert!(keys.signer(&public).unwrap().dev);
}

proptest! {
    #[test]
    fn n_of_m(m in 1u8..8, signed in 1usize..8, threshold in 0usize..9) {
        let (keys, signers) = keys(m, &[]);
        let signers = &signers[..signed.min(signers.len())];
        let policy = Policy { threshold, ..Policy::default() };
        prop_assert_eq!(policy.judge(&manifest(), signers, &keys, "x.tar").is_ok(), signers.len() >= threshold);
    }
}
