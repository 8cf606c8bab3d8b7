//! The way out: bytes of a bundle, without I/O of its own.
//!
//! [`image`] puts U-Boot's header in front of a payload, [`assemble`] hashes the parts and writes the
//! manifest, [`write_tar`] streams it all into an archive. No part is copied: a part is a short head that we
//! made and a body that somebody else owns.

pub mod image;
pub mod parts;
pub mod ram;
mod ustar;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use citrine_formats::manifest::{
    FILE_NAME, FORMAT, Input, Manifest, NAMESPACE, Part, Role, Sha256, Slot, signature_name,
};
use citrine_formats::signature::{self, Key};
use sha2::Digest as _;
use ssh_key::{HashAlg, LineEnding, PrivateKey, SshSig};

use crate::diag;
pub use ustar::{Rewriter, tar_head, tar_len, write_tar};

/// Name of the part that `sha256sum -c` reads.
pub const CHECKSUMS: &str = "SHA256SUMS";

/// The bytes of a part: `head`, then `body`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Content<'a> {
    head: Vec<u8>,
    body: Cow<'a, [u8]>,
    /// Of a signature: the key that makes it.
    key: Option<Key>,
}

impl<'a> Content<'a> {
    /// Bytes as they are.
    pub fn plain(body: impl Into<Cow<'a, [u8]>>) -> Self {
        Self { head: Vec::new(), body: body.into(), key: None }
    }

    /// The empty place of a signature by `key`.
    pub fn unsigned(key: Key) -> Self {
        Self { key: Some(key), ..Self::plain(vec![0; signature::LEN]) }
    }

    /// Both pieces, in order.
    pub fn pieces(&self) -> [&[u8]; 2] {
        [&self.head, &self.body]
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.head.len() as u64 + self.body.len() as u64
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The hash that the manifest signs; a signature has none there.
    fn sha256(&self) -> Option<Sha256> {
        if self.key.is_some() {
            return None;
        }
        let mut hasher = sha2::Sha256::new();
        self.pieces().iter().for_each(|piece| hasher.update(piece));
        Some(Sha256(hasher.finalize().into()))
    }
}

/// A part before its bytes are hashed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartSource<'a> {
    /// File name in the bundle.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Its places, ordered by medium.
    pub slots: Vec<Slot>,
    /// Where its code is entered.
    pub entry: Option<u64>,
    /// Length in bytes of what its compressed payload unpacks to.
    pub uncompressed: Option<u64>,
    /// Its bytes.
    pub content: Content<'a>,
}

/// What a bundle is for and made of, but for its parts. The members are those of [`Manifest`].
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "one fact in one place: see `Manifest`")]
pub struct Subject {
    pub board: String,
    pub core: String,
    pub epoch: u32,
    pub inputs: Vec<Input>,
    pub plan_sha256: Sha256,
    pub profile: String,
    pub soc: String,
    pub source_date_epoch: u32,
}

/// All of a bundle but its signatures.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Assembled<'a> {
    /// The manifest.
    pub manifest: Manifest,
    /// Its bytes: what is signed.
    pub manifest_bytes: Vec<u8>,
    /// SHA-256 of those bytes: which bundle this is.
    pub identity: Sha256,
    /// The bytes of the parts, in the manifest's order.
    pub contents: Vec<Content<'a>>,
}

impl Assembled<'_> {
    /// Every file of the bundle in its order, with `signatures` behind the manifest: name and pieces.
    pub fn files<'s>(&'s self, signatures: &'s [String]) -> impl Iterator<Item = (Cow<'s, str>, [&'s [u8]; 2])> {
        let manifest = (Cow::Borrowed(FILE_NAME), [&self.manifest_bytes[..], &[]]);
        let signatures = signatures
            .iter()
            .enumerate()
            .map(|(index, text)| (Cow::Owned(signature_name(index)), [text.as_bytes(), &[]]));
        let parts = self
            .manifest
            .parts
            .iter()
            .zip(&self.contents)
            .map(|(part, content)| (Cow::Borrowed(part.name.as_str()), content.pieces()));
        std::iter::once(manifest).chain(signatures).chain(parts)
    }
}

/// The signature files of `bundle`, one for each key, in the order in which they stand in it. Ed25519 keys give
/// the same text each time.
///
/// # Errors
/// A key that cannot sign: it is encrypted, or of another type.
pub fn sign(bundle: &Assembled<'_>, keys: &[PrivateKey]) -> Result<Vec<String>, ssh_key::Error> {
    let signed: Result<BTreeMap<_, _>, ssh_key::Error> = keys
        .iter()
        .map(|key| {
            let signature = key.sign(NAMESPACE, HashAlg::Sha512, &bundle.manifest_bytes)?;
            Ok((key.fingerprint(HashAlg::Sha256).sha256(), signature.to_pem(LineEnding::LF)?))
        })
        .collect();
    Ok(signed?.into_values().collect())
}

/// Makes the signature of this part, by this key, over a configuration tree; `None` leaves its place empty.
pub type SignTree<'s, E> = dyn FnMut(&Part, &Key, &[u8]) -> Result<Option<[u8; signature::LEN]>, E> + 's;

/// Fills the signatures over the configurations of `bundle` with what `sign` makes. The bundle stays the same one: the
/// manifest does not have these bytes.
///
/// # Errors
/// What `sign` returns.
pub fn sign_configurations<E>(bundle: &mut Assembled<'_>, sign: &mut SignTree<'_, E>) -> Result<(), E> {
    let Assembled { manifest, contents, .. } = bundle;
    for (index, part) in manifest.parts.iter().enumerate() {
        let tree = manifest.parts.iter().position(|other| Some(other.name.as_str()) == part.signs());
        let tree = tree.and_then(|tree| contents.get(tree)).map(|tree| tree.pieces().concat());
        let (Some(key), Some(tree)) = (&part.key, tree) else { continue };
        if let (Some(blob), Some(content)) = (sign(part, key, &tree)?, contents.get_mut(index)) {
            content.body = Cow::Owned(blob.to_vec());
        }
    }
    Ok(())
}

/// The signature by `key` over a configuration tree, as the firmware reads it.
///
/// # Errors
/// A key that cannot sign, or is of another type than Ed25519.
pub fn configuration_signature(key: &PrivateKey, tree: &[u8]) -> Result<[u8; signature::LEN], ssh_key::Error> {
    let signature = key.sign(signature::NAMESPACE, HashAlg::Sha512, tree)?;
    configuration_blob(&signature).ok_or(ssh_key::Error::AlgorithmUnknown)
}

/// An SSH signature, by whatever program, as the firmware reads it; `None` if it is none that it could read.
pub fn configuration_blob(signature: &SshSig) -> Option<[u8; signature::LEN]> {
    let key = signature.public_key().ed25519()?;
    let fits = signature.namespace() == signature::NAMESPACE
        && signature.hash_alg() == HashAlg::Sha512
        && signature.algorithm() == ssh_key::Algorithm::Ed25519;
    let bytes = <&[u8; signature::ED25519_LEN]>::try_from(signature.signature_bytes()).ok().filter(|_| fits)?;
    Some(signature::blob(&Key(key.0), bytes))
}

/// The key by which the firmware knows an SSH key; `None` if it is not of the one type that the firmware knows.
pub fn configuration_key(key: &ssh_key::PublicKey) -> Option<Key> {
    key.key_data().ed25519().map(|key| Key(key.0))
}

/// SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> Sha256 {
    Sha256(sha2::Sha256::digest(bytes).into())
}

/// Hashes `parts`, adds [`CHECKSUMS`] behind them and writes the manifest. Inputs are put in order, repeated
/// ones once.
///
/// # Errors
/// `B105` if a value breaks a rule of the manifest.
pub fn assemble(subject: Subject, parts: Vec<PartSource<'_>>) -> diag::Result<Assembled<'_>> {
    let hashes = hash_all(&parts);
    let mut list = String::new();
    let mut entries = Vec::with_capacity(parts.len() + 1);
    let mut contents = Vec::with_capacity(parts.len() + 1);
    for (source, sha256) in parts.into_iter().zip(hashes) {
        // The text that `sha256sum` prints: digest, a space, a space for "read as text", name.
        if let Some(sha256) = sha256 {
            list.push_str(&format!("{sha256}  {}\n", source.name));
        }
        entries.push(entry(&source, sha256));
        contents.push(source.content);
    }
    let sums = PartSource {
        name: CHECKSUMS.to_owned(),
        role: Role::Checksums,
        slots: Vec::new(),
        entry: None,
        uncompressed: None,
        content: Content::plain(list.into_bytes()),
    };
    entries.push(entry(&sums, sums.content.sha256()));
    contents.push(sums.content);

    let mut inputs = subject.inputs;
    inputs.sort();
    inputs.dedup();
    let manifest = Manifest {
        board: subject.board,
        core: subject.core,
        epoch: subject.epoch,
        format: FORMAT,
        inputs,
        parts: entries,
        plan_sha256: subject.plan_sha256,
        profile: subject.profile,
        soc: subject.soc,
        source_date_epoch: subject.source_date_epoch,
    };
    let manifest_bytes = manifest.to_canonical().map_err(|error| {
        diag::Diagnostic::error(crate::verify::MANIFEST, format!("the bundle's manifest cannot be written: {error}"))
            .help("change the name or value that it comes from")
    })?;
    Ok(Assembled { identity: sha256(&manifest_bytes), manifest, manifest_bytes, contents })
}

fn entry(source: &PartSource<'_>, sha256: Option<Sha256>) -> Part {
    Part {
        entry: source.entry,
        key: source.content.key,
        name: source.name.clone(),
        role: source.role,
        sha256,
        size: source.content.len(),
        slots: source.slots.clone(),
        uncompressed: source.uncompressed,
    }
}

/// The hashes of all parts, in their order; the largest are begun first, one thread per CPU.
fn hash_all(parts: &[PartSource<'_>]) -> Vec<Option<Sha256>> {
    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(parts[index].content.len()));
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some(&index) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            done.push((index, parts[index].content.sha256()));
        }
        done
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(parts.len());
    let mut hashes = vec![None; parts.len()];
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..workers).map(|_| scope.spawn(work)).collect();
        let mut done = work();
        for other in others {
            done.extend(other.join().expect("hashing does not panic"));
        }
        for (index, hash) in done {
            hashes[index] = hash;
        }
    });
    hashes
}

#[cfg(test)]
mod tests;
