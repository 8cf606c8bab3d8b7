//! Every way in which a signature can be wrong: the tree, the key, the bytes around it, and Ed25519's own edge cases.

extern crate std;
use std::vec::Vec;

use ed25519_dalek::{Signer as _, SigningKey};
use proptest::prelude::*;

use super::*;

fn signer(seed: u8) -> (SigningKey, Key) {
    let signing = SigningKey::from_bytes(&[seed; 32]);
    let key = Key(signing.verifying_key().to_bytes());
    (signing, key)
}

/// The beginning of a tree of `len` bytes, and some bytes behind it that are not its own.
fn tree_of(len: u32) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..len as usize + 9).map(|at| (at * 7) as u8).collect();
    bytes[..4].copy_from_slice(&[0xd0, 0x0d, 0xfe, 0xed]);
    bytes[4..8].copy_from_slice(&len.to_be_bytes());
    bytes
}

fn sign(signing: &SigningKey, key: &Key, whole: &[u8]) -> Vec<u8> {
    let message = signature::message(&Sha512::digest(whole).into());
    signature::blob(key, &signing.sign(&message).to_bytes()).to_vec()
}

/// A key, a tree of 64 bytes, and its signature.
fn good() -> (Key, Vec<u8>, Vec<u8>) {
    let (signing, key) = signer(1);
    let tree = tree_of(64);
    let blob = sign(&signing, &key, &tree[..64]);
    (key, tree, blob)
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn a_signed_tree_is_believed_to_its_own_end() {
    let (key, mut bytes, mut blob) = good();
    assert_eq!(tree(&key, &blob, &bytes), Ok(&bytes[..64]));
    // What lies behind either is nobody's.
    bytes[64..].fill(0xff);
    blob.extend([0xff; 100]);
    assert!(tree(&key, &blob, &bytes).is_ok());
}

#[test]
fn every_bit_of_tree_and_signature_counts() {
    let (key, bytes, blob) = good();
    for bit in 0..64 * 8 {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(tree(&key, &blob, &changed).is_err(), "bit {bit} of the tree");
    }
    for bit in 0..signature::LEN * 8 {
        let mut changed = blob.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let why = if bit / 8 < signature::HEAD_LEN { Why::Foreign } else { Why::Mismatch };
        assert_eq!(tree(&key, &changed, &bytes), Err(why), "bit {bit} of the signature");
    }
}

#[test]
fn each_mistake_has_its_reason() {
    let (key, bytes, blob) = good();
    let (other, other_key) = signer(2);
    let zeros = [0; signature::LEN];
    assert_eq!(tree(&key, &zeros, &bytes), Err(Why::Unsigned));
    assert_eq!(tree(&key, &sign(&other, &other_key, &bytes[..64]), &bytes), Err(Why::Foreign));
    // Another key's signature under this key's name.
    assert_eq!(tree(&key, &sign(&other, &key, &bytes[..64]), &bytes), Err(Why::Mismatch));
    let mut bundle = blob.clone();
    bundle[69..83].copy_from_slice(b"citrine-bundle");
    assert_eq!(tree(&key, &bundle, &bytes), Err(Why::Foreign));
    assert_eq!(tree(&key, &blob, &tree_of(65)), Err(Why::Mismatch));
    for len in 0..signature::LEN {
        assert_eq!(tree(&key, &blob[..len], &bytes), Err(Why::Foreign), "{len}");
        assert!(check(&key, &blob[..len], &[0; 64]).is_err());
    }
    assert_eq!(check(&key, &[&blob[..], &[0]].concat(), &[0; 64]), Err(Why::Foreign));
}

#[test]
fn the_length_in_the_header_is_bounded() {
    let (key, bytes, blob) = good();
    for total in [0, 1, 39, 74, u32::MAX] {
        let mut lying = bytes.clone();
        lying[4..8].copy_from_slice(&total.to_be_bytes());
        assert_eq!(tree(&key, &blob, &lying), Err(Why::Length { total: total.into(), have: 73 }));
    }
    for len in 0..64 {
        assert!(matches!(tree(&key, &blob, &bytes[..len]), Err(Why::Length { .. })), "{len}");
    }
}

/// RFC 8032 §7.1, tests 1 to 3: key, message, signature.
const RFC: [(&str, &str, &str); 3] = [
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
];

/// The order of the base point, little-endian.
const ORDER: &str = "edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010";

#[test]
fn vectors_hold_in_one_spelling() {
    for (key, message, good) in RFC {
        let key = Key(hex(key).try_into().unwrap());
        let good: [u8; 64] = hex(good).try_into().unwrap();
        assert_eq!(holds(&key, &hex(message), &good), Ok(()));
        assert_eq!(holds(&key, b"other", &good), Err(Why::Mismatch));
        // S + L means the same as S.
        let (mut other, mut carry) = (good, 0u16);
        for (byte, order) in other[32..].iter_mut().zip(hex(ORDER)) {
            carry += u16::from(*byte) + u16::from(order);
            *byte = carry as u8;
            carry >>= 8;
        }
        assert_eq!(holds(&key, &hex(message), &other), Err(Why::Mismatch));
    }
}

/// Points of order 1, 2, 4 and 8, and other spellings of them ("Taming the many EdDSAs", table 6).
const SMALL: [&str; 8] = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
];

#[test]
fn points_of_small_order_are_no_keys_and_no_commitments() {
    for point in SMALL {
        let key = Key(hex(point).try_into().unwrap());
        assert!(!is_usable(&key), "{point}");
        // With such a key R = A and S = 0 hold for many messages.
        let mut any = [0; 64];
        any[..32].copy_from_slice(&key.0);
        for message in 0..8u8 {
            assert_eq!(holds(&key, &[message], &any), Err(Why::Key), "{point}");
        }
        let (_, honest) = signer(1);
        assert_eq!(holds(&honest, b"", &any), Err(Why::Mismatch));
    }
    assert!(is_usable(&signer(1).1));
    // No point has this y.
    assert!(!is_usable(&Key(hex("0200000000000000000000000000000000000000000000000000000000000000")
        .try_into()
        .unwrap())));
}

proptest! {
    #[test]
    fn no_bytes_panic_and_none_are_believed(blob in proptest::collection::vec(any::<u8>(), 0..250), bytes in proptest::collection::vec(any::<u8>(), 0..100), key: [u8; 32]) {
        prop_assert!(tree(&Key(key), &blob, &bytes).is_err());
        prop_assert!(check(&Key(key), &blob, &[0; 64]).is_err());
    }

    #[test]
    fn whatever_is_signed_is_believed(seed: u8, len in 40u32..500, at in 0usize..500) {
        let (signing, key) = signer(seed);
        let mut bytes = tree_of(len);
        let blob = sign(&signing, &key, &bytes[..len as usize]);
        prop_assert!(tree(&key, &blob, &bytes).is_ok());
        let at = at % len as usize;
        bytes[at] ^= 0x10;
        prop_assert!(tree(&key, &blob, &bytes).is_err());
    }
}

#[test]
fn every_reason_is_a_sentence() {
    let all = [Why::Length { total: 7, have: 3 }, Why::Unsigned, Why::Foreign, Why::Key, Why::Mismatch];
    let texts: Vec<_> = all.iter().map(|why| std::format!("{why}")).collect();
    assert_eq!(texts[0], "its header says 7 bytes, of which 3 can be read");
    assert!(texts.iter().all(|text| text.len() > 15));
}
