//! Whether a configuration tree is signed by the key that the firmware was built for.
//!
//! The tree says who owns which memory and which digests the guests' images have: whoever may change it may do anything. So it is
//! checked before it is read, but for its length. The signature is not parsed ([`citrine_formats::signature`]), and Ed25519 is
//! checked strictly (RFC 8032 §5.1.7 with a canonical S, and no keys of small order), so that one signature has one spelling.

use core::fmt;

use citrine_formats::fdt;
use citrine_formats::signature::{self, Key, SHA512_LEN};
use ed25519_dalek::{Signature, VerifyingKey};
use sha2::{Digest as _, Sha512};

/// Why a configuration tree is not believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// The length in the tree's header is impossible.
    Length {
        /// What it says.
        total: u64,
        /// How many bytes there are.
        have: usize,
    },
    /// There is no signature: its place holds zeros.
    Unsigned,
    /// What lies there is no signature for this purpose by this key.
    Foreign,
    /// The key that is to be believed is none.
    Key,
    /// The key has signed another tree.
    Mismatch,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { total, have } => write!(f, "its header says {total} bytes, of which {have} can be read"),
            Self::Unsigned => f.write_str("nobody has signed it"),
            Self::Foreign => f.write_str("its signature is not by the key that this firmware believes"),
            Self::Key => f.write_str("this firmware believes a key that is none"),
            Self::Mismatch => {
                f.write_str("its signature does not match: it was changed, or the signature is another tree's")
            }
        }
    }
}

/// Checks the signature `blob` by `key` over a tree with this SHA-512.
///
/// # Errors
/// Why it does not hold; never [`Why::Length`].
pub fn check(key: &Key, blob: &[u8], sha512: &[u8; SHA512_LEN]) -> Result<(), Why> {
    let Some((head, rest)) = blob.split_first_chunk::<{ signature::HEAD_LEN }>() else { return Err(Why::Foreign) };
    let Ok(ed25519) = <&[u8; signature::ED25519_LEN]>::try_from(rest) else { return Err(Why::Foreign) };
    if signature::is_empty(blob) {
        return Err(Why::Unsigned);
    }
    if *head != signature::head(key) {
        return Err(Why::Foreign);
    }
    holds(key, &signature::message(sha512), ed25519)
}

/// Ed25519 itself.
fn holds(key: &Key, message: &[u8], ed25519: &[u8; signature::ED25519_LEN]) -> Result<(), Why> {
    let believed = verifying_key(key).ok_or(Why::Key)?;
    believed.verify_strict(message, &Signature::from_bytes(ed25519)).map_err(|_| Why::Mismatch)
}

/// Checks the signature that lies in the first bytes of `blob` over the tree in the first bytes of `tree`; gives the
/// tree's own bytes. Nothing of the tree is believed before, but for its length, which is checked.
///
/// # Errors
/// Why it does not hold.
pub fn tree<'t>(key: &Key, blob: &[u8], tree: &'t [u8]) -> Result<&'t [u8], Why> {
    let total = signed_len(tree).unwrap_or(0);
    let whole = tree.get(..total).filter(|whole| whole.len() >= fdt::HEADER_LEN);
    let whole = whole.ok_or(Why::Length { total: total as u64, have: tree.len() })?;
    let blob = blob.get(..signature::LEN).ok_or(Why::Foreign)?;
    // The signature is judged first where it is cheap: an empty place needs no hash.
    if signature::is_empty(blob) {
        return Err(Why::Unsigned);
    }
    check(key, blob, &Sha512::digest(whole).into())?;
    Ok(whole)
}

/// How many bytes of a tree are signed, by its header, which is not believed yet: its second word (Devicetree
/// Specification 0.4 §5.2).
pub fn signed_len(header: &[u8]) -> Option<usize> {
    let word = header.get(4..8)?.try_into().ok()?;
    usize::try_from(u32::from_be_bytes(word)).ok()
}

/// Whether a key can be believed: it is a point of the curve, and not of small order.
pub fn is_usable(key: &Key) -> bool {
    verifying_key(key).is_some()
}

fn verifying_key(key: &Key) -> Option<VerifyingKey> {
    VerifyingKey::from_bytes(&key.0).ok().filter(|key| !key.is_weak())
}

#[cfg(test)]
mod tests;
