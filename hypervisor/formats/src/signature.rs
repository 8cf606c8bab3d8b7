//! The signature over a configuration tree, as it lies in memory for the firmware: OpenSSH's SSHSIG without its armour
//! (OpenSSH, `PROTOCOL.sshsig`), by an Ed25519 key, with SHA-512.
//!
//! For one key, all of it but its last 64 bytes is constant. So nobody parses it: a reader compares its [`head`], byte
//! for byte, and there is nothing in it to choose an algorithm, a namespace or a key with.

use core::fmt;

use crate::sha256::Sha256;

/// The namespace: a signature that the key made for anything else does not count.
pub const NAMESPACE: &str = "citrine-config";
/// Length in bytes.
pub const LEN: usize = HEAD_LEN + ED25519_LEN;
/// Where it lies: this many bytes behind the tree's first one, on every medium. A tree's slot has 1 MiB, and this is the
/// last 128 KiB of it, which no board's flash erases with what is before.
pub const DISTANCE: u64 = 0xe_0000;
/// Bytes of it that are the same for all trees.
pub const HEAD_LEN: usize = BEFORE_KEY.len() + KEY_LEN + BEHIND_KEY.len();
/// Bytes of an Ed25519 signature (RFC 8032 §5.1.6).
pub const ED25519_LEN: usize = 64;
/// Bytes of an Ed25519 public key (RFC 8032 §5.1.5).
pub const KEY_LEN: usize = 32;
/// Bytes of a SHA-512 digest.
pub const SHA512_LEN: usize = 64;

/// Magic, version 1, and the public key up to its 32 bytes.
const BEFORE_KEY: &[u8; 33] = b"SSHSIG\0\0\0\x01\0\0\0\x33\0\0\0\x0bssh-ed25519\0\0\0\x20";
/// Namespace, nothing reserved, hash, and the signature up to its 64 bytes.
const BEHIND_KEY: &[u8; 55] =
    b"\0\0\0\x0ecitrine-config\0\0\0\0\0\0\0\x06sha512\0\0\0\x53\0\0\0\x0bssh-ed25519\0\0\0\x40";
/// What is signed, up to the digest.
const BEFORE_DIGEST: &[u8; 42] = b"SSHSIG\0\0\0\x0ecitrine-config\0\0\0\0\0\0\0\x06sha512\0\0\0\x40";

/// An Ed25519 public key; as text 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub [u8; KEY_LEN]);

impl Key {
    /// Reads 64 lower-case hexadecimal digits.
    pub const fn from_hex(text: &str) -> Option<Self> {
        match Sha256::from_hex(text) {
            Some(bytes) => Some(Self(bytes.0)),
            None => None,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Sha256(self.0).fmt(f)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The first bytes of every signature by `key`.
pub fn head(key: &Key) -> [u8; HEAD_LEN] {
    let mut head = [0; HEAD_LEN];
    let pieces = BEFORE_KEY.iter().chain(&key.0).chain(BEHIND_KEY);
    head.iter_mut().zip(pieces).for_each(|(to, from)| *to = *from);
    head
}

/// The whole of a signature by `key`.
pub fn blob(key: &Key, ed25519: &[u8; ED25519_LEN]) -> [u8; LEN] {
    let mut blob = [0; LEN];
    blob.iter_mut().zip(head(key).iter().chain(ed25519)).for_each(|(to, from)| *to = *from);
    blob
}

/// What an Ed25519 signature over a tree with this SHA-512 signs.
pub fn message(sha512: &[u8; SHA512_LEN]) -> [u8; BEFORE_DIGEST.len() + SHA512_LEN] {
    let mut message = [0; BEFORE_DIGEST.len() + SHA512_LEN];
    message.iter_mut().zip(BEFORE_DIGEST.iter().chain(sha512)).for_each(|(to, from)| *to = *from);
    message
}

/// Whether the place of a signature is still empty.
pub fn is_empty(blob: &[u8]) -> bool {
    blob.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    /// Reads one string of SSH's encoding (RFC 4251 §5).
    fn string<'a>(bytes: &mut &'a [u8]) -> &'a [u8] {
        let (len, rest) = bytes.split_first_chunk::<4>().unwrap();
        let (string, rest) = rest.split_at(u32::from_be_bytes(*len) as usize);
        *bytes = rest;
        string
    }

    #[test]
    fn a_blob_is_what_the_protocol_says() {
        let blob = blob(&Key([5; 32]), &[6; 64]);
        assert_eq!(blob.len(), 184);
        let mut rest = blob.strip_prefix(b"SSHSIG\0\0\0\x01").unwrap();
        let mut key = string(&mut rest);
        assert_eq!([string(&mut key), string(&mut key), key], [&b"ssh-ed25519"[..], &[5; 32], b""]);
        let fields: Vec<_> = (0..3).map(|_| string(&mut rest)).collect();
        assert_eq!(fields, [NAMESPACE.as_bytes(), b"", b"sha512"]);
        let mut signature = string(&mut rest);
        assert_eq!([string(&mut signature), string(&mut signature), signature], [&b"ssh-ed25519"[..], &[6; 64], b""]);
        assert!(rest.is_empty());
    }

    #[test]
    fn the_message_is_what_the_protocol_says() {
        let message = message(&[7; 64]);
        let mut rest = message.strip_prefix(b"SSHSIG").unwrap();
        let fields: Vec<_> = (0..4).map(|_| string(&mut rest)).collect();
        assert_eq!(fields, [NAMESPACE.as_bytes(), b"", b"sha512", &[7; 64]]);
        assert!(rest.is_empty());
    }

    #[test]
    fn zeros_are_no_signature() {
        assert!(is_empty(&[0; LEN]) && !is_empty(&blob(&Key([0; 32]), &[0; 64])));
    }
}
