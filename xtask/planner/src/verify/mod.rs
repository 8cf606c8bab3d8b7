//! The way back in: a bundle is read once, from its first byte to its last, and nothing in it is believed
//! before a trusted key's signature over the manifest holds.
//!
//! In that order: the bytes of the manifest (not parsed), its signatures, then the manifest ([`open`]), then each part
//! against the size and hash that the manifest gives it ([`Opened::parts`]). Between the two a [`policy`] may refuse it. The reader is our own and strict ([`ustar`]); memory
//! is constant but for the manifest. A part that is a signature has no hash there: it is checked over the part that it
//! signs.

pub mod keys;
pub mod policy;
mod ustar;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};

use citrine_core::trust;
use citrine_formats::diag::Code;
use citrine_formats::manifest::{
    self, FILE_NAME, MAX_LEN, MAX_SIGNATURES, Manifest, NAMESPACE, Part, Role, Sha256, signature_name,
};
use citrine_formats::signature;
use sha2::Digest as _;

use crate::diag::Diagnostic;
use keys::{Signer, TrustedKeys};
use ustar::{Archive, Entry};

/// Not a bundle.
pub const NOT_A_BUNDLE: Code = Code::new('B', 101);
/// A bundle that nobody signed.
pub const NO_SIGNATURE: Code = Code::new('B', 102);
/// A signature is by a key that is not trusted.
pub const UNKNOWN_SIGNER: Code = Code::new('B', 103);
/// A signature does not hold.
pub const SIGNATURE: Code = Code::new('B', 104);
/// The manifest is not one.
pub const MANIFEST: Code = Code::new('B', 105);
/// A part is missing, added or moved.
pub const PARTS: Code = Code::new('B', 106);
/// A part has other bytes than were signed.
pub const BYTES: Code = Code::new('B', 107);
/// The archive ends early or late.
pub const END: Code = Code::new('B', 108);
/// A header of the archive is not as a bundle's are.
pub const HEADER: Code = Code::new('B', 109);

/// The signature over a configuration tree does not hold.
pub const CONFIGURATION: Code = Code::new('K', 101);

/// Longest signature file in bytes; those of the supported keys have less than 600.
const MAX_SIGNATURE: usize = 4096;
/// Bytes of a part that are hashed at a time: they stay in the CPU's cache.
const CHUNK: usize = 128 << 10;

/// What a bundle has proved to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verified {
    /// The manifest.
    pub manifest: Manifest,
    /// SHA-256 of its bytes.
    pub identity: Sha256,
    /// The trusted keys that signed it, at least one, in the order of their signatures; nobody else did.
    pub signers: Vec<Signer>,
    /// Configurations that the firmware shall refuse until somebody has signed them: the names of the empty signatures.
    pub unsigned: Vec<String>,
}

impl Verified {
    /// Whether only development keys vouch for it.
    pub fn is_development(&self) -> bool {
        self.signers.iter().all(|signer| signer.dev)
    }
}

/// Why a bundle is refused.
#[derive(Debug)]
pub enum Error {
    /// It cannot be read.
    Read(io::Error),
    /// The caller could not use what was read.
    Visit(io::Error),
    /// It does not begin as a bundle does.
    NotABundle {
        /// What is wrong.
        why: &'static str,
    },
    /// No signature follows the manifest.
    NoSignature,
    /// A signature is by a key that is not trusted.
    UnknownSigner {
        /// The fingerprints of the keys that signed it.
        fingerprints: Vec<String>,
    },
    /// A signature does not hold, or its file is not in its place.
    Signature {
        /// The file.
        file: String,
        /// What is wrong.
        why: String,
    },
    /// The signed manifest is not one.
    Manifest(manifest::Error),
    /// The files are not the manifest's, one by one.
    Parts {
        /// The part that is due, if any is.
        expected: Option<String>,
        /// The file that is there, if there is one.
        found: Option<String>,
    },
    /// A part has other bytes than were signed.
    Bytes {
        /// The part.
        part: String,
        /// Length or hash.
        why: String,
    },
    /// The signature over a configuration tree does not hold.
    Configuration {
        /// The part.
        part: String,
        /// What is wrong.
        why: trust::Why,
    },
    /// The archive ends early or late.
    End {
        /// Offset in bytes.
        at: u64,
        /// What is wrong.
        why: &'static str,
    },
    /// A header, or what fills up a file's last block, is not as a bundle's are.
    Header {
        /// Offset in bytes.
        at: u64,
        /// What is wrong.
        why: &'static str,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => write!(f, "it cannot be read: {error}"),
            Self::Visit(error) => write!(f, "its parts cannot be used: {error}"),
            Self::NotABundle { why } => write!(f, "it is not a bundle: {why}"),
            Self::NoSignature => f.write_str("nobody has signed it"),
            Self::UnknownSigner { fingerprints } => {
                write!(f, "it is signed by {}, which is not trusted", fingerprints.join(" and by "))
            }
            Self::Signature { file, why } => write!(f, "{file}: {why}"),
            Self::Manifest(error) => write!(f, "{FILE_NAME}: {error}"),
            Self::Parts { expected, found } => match (expected, found) {
                (Some(expected), Some(found)) => write!(f, "{found} is where {expected} should be"),
                (Some(expected), None) => write!(f, "{expected} is missing"),
                (None, Some(found)) => write!(f, "{found} is in it, but not in the manifest"),
                (None, None) => f.write_str("its files are not those of the manifest"),
            },
            Self::Bytes { part, why } => write!(f, "{part}: {why}"),
            Self::Configuration { part, why: trust::Why::Foreign } => {
                write!(f, "{part}: it is not a signature by the key that the firmware believes")
            }
            Self::Configuration { part, why } => write!(f, "{part}: {why}"),
            Self::End { at, why } | Self::Header { at, why } => write!(f, "at byte {at}: {why}"),
        }
    }
}

impl std::error::Error for Error {}

impl Error {
    /// The rule that the bundle breaks; `None` if reading or using it failed.
    pub fn code(&self) -> Option<Code> {
        Some(match self {
            Self::Read(_) | Self::Visit(_) => return None,
            Self::NotABundle { .. } => NOT_A_BUNDLE,
            Self::NoSignature => NO_SIGNATURE,
            Self::UnknownSigner { .. } => UNKNOWN_SIGNER,
            Self::Signature { .. } => SIGNATURE,
            Self::Manifest(_) => MANIFEST,
            Self::Parts { .. } => PARTS,
            Self::Bytes { .. } => BYTES,
            Self::Configuration { .. } => CONFIGURATION,
            Self::End { .. } => END,
            Self::Header { .. } => HEADER,
        })
    }

    /// The finding, naming the bundle as `file`; `None` if reading or using it failed.
    pub fn diagnostic(&self, file: &str) -> Option<Diagnostic> {
        let help = match self {
            Self::Read(_) | Self::Visit(_) => return None,
            Self::NotABundle { .. } => "name a `.tar` that `cargo xtask bundle` wrote, unpacked if it was packed since",
            Self::NoSignature => {
                "sign it when it is built: `cargo xtask bundle` does, with `--key FILE` or this machine's key"
            }
            Self::UnknownSigner { .. } => {
                "if you know the signer, get the public key on another way than the bundle came, \
                 enter it in an allowed_signers file, and name that with `--keys FILE`"
            }
            Self::Signature { .. } | Self::Parts { .. } | Self::Bytes { .. } | Self::Header { .. } => {
                "do not use this file: it was changed after it was signed; get it again from where it was built"
            }
            Self::Configuration { .. } => "the firmware would refuse it: get the bundle again from where it was built",
            Self::End { .. } => "do not use this file: it was cut or added to; get it again from where it was built",
            Self::Manifest(manifest::Error::Format { .. }) => "use the version of the tool that built the bundle",
            Self::Manifest(_) => {
                "build the bundle anew: its signature holds, but no version of the tool writes this manifest"
            }
        };
        let diagnostic = Diagnostic::error(self.code()?, format!("{file} is refused: {self}"));
        Some(diagnostic.fact("file", file).help(help))
    }
}

/// Receives the parts while they are read: called with each piece of each part in order, at least once for each part; only
/// the one piece of an empty part is empty. The bytes of a part are the signed ones only once the next part begins or [`verify`] returns;
/// act on nothing before that.
pub type Visit<'a> = dyn FnMut(&Part, &[u8]) -> io::Result<()> + 'a;

/// A bundle that has been read up to its first part: the manifest is what trusted keys have signed.
pub struct Opened<R> {
    archive: Archive<R>,
    next: Option<Entry>,
    /// The manifest.
    pub manifest: Manifest,
    /// Its bytes, as they were signed.
    pub manifest_bytes: Vec<u8>,
    /// The text of each signature file, in order.
    pub signatures: Vec<String>,
    /// The trusted keys that made them, in the same order.
    pub signers: Vec<Signer>,
}

/// Reads a bundle to its end and checks all of it.
///
/// # Errors
/// The first thing that is wrong.
pub fn verify(input: impl Read, keys: &TrustedKeys, visit: &mut Visit<'_>) -> Result<Verified, Error> {
    open(input, keys)?.parts(visit)
}

/// Reads the manifest and its signatures.
///
/// # Errors
/// The first thing that is wrong.
pub fn open<R: Read>(input: R, keys: &TrustedKeys) -> Result<Opened<R>, Error> {
    let mut archive = Archive::new(input);
    let first = archive.next()?.ok_or(Error::NotABundle { why: "it is an empty archive" })?;
    if first.name != FILE_NAME {
        return Err(Error::NotABundle { why: "its first file is not manifest.json" });
    }
    let bytes = archive
        .whole(MAX_LEN)?
        .ok_or(Error::Manifest(manifest::Error::TooLong { len: usize::try_from(first.size).unwrap_or(usize::MAX) }))?;

    let (signatures, signers, next) = signatures(&mut archive, &bytes, keys)?;
    // From here on the manifest is what a trusted key has signed.
    let manifest = Manifest::parse(&bytes).map_err(Error::Manifest)?;
    // The archive has one time, which is signed; the headers that came before the manifest agree already.
    if first.time != manifest.source_date_epoch {
        return Err(Error::Header { at: 0, why: "the time of a file is not the manifest's" });
    }
    Ok(Opened { archive, next, manifest, manifest_bytes: bytes, signatures, signers })
}

impl<R: Read> Opened<R> {
    /// Reads the parts, to the bundle's end.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parts(self, visit: &mut Visit<'_>) -> Result<Verified, Error> {
        let Self { mut archive, mut next, manifest, manifest_bytes, signers, .. } = self;
        let mut reader = Reader { archive: &mut archive, buffer: vec![0; CHUNK], visit };
        // Of the configurations, which are signed once more, and of nothing else.
        let mut digests: BTreeMap<&str, [u8; signature::SHA512_LEN]> = BTreeMap::new();
        let mut unsigned = Vec::new();
        for part in &manifest.parts {
            match next {
                Some(entry) if entry.name == part.name => match part.role {
                    Role::Signature => unsigned.extend(reader.signature(&entry, part, &digests)?),
                    Role::Configuration => {
                        let mut digest = sha2::Sha512::new();
                        reader.part(&entry, part, &mut |bytes| digest.update(bytes))?;
                        digests.insert(&part.name, digest.finalize().into());
                    }
                    _ => reader.part(&entry, part, &mut |_| ())?,
                },
                other => {
                    let found = other.map(|entry| shown(&entry.name));
                    return Err(Error::Parts { expected: Some(part.name.clone()), found });
                }
            }
            next = reader.archive.next()?;
        }
        if let Some(entry) = next {
            return Err(Error::Parts { expected: None, found: Some(shown(&entry.name)) });
        }
        let identity = Sha256(sha2::Sha256::digest(&manifest_bytes).into());
        Ok(Verified { manifest, identity, signers, unsigned })
    }
}

/// The texts of the signature files, who made them, and the header behind them.
type Signatures = (Vec<String>, Vec<Signer>, Option<Entry>);

fn signatures<R: Read>(archive: &mut Archive<R>, message: &[u8], keys: &TrustedKeys) -> Result<Signatures, Error> {
    let (mut texts, mut signers, mut strangers) = (Vec::new(), Vec::new(), Vec::new());
    let mut last = None;
    let mut next = archive.next()?;
    for index in 0..MAX_SIGNATURES {
        let file = signature_name(index);
        if next.as_ref().is_none_or(|entry| entry.name != file) {
            break;
        }
        let refuse = |why: &str| Error::Signature { file: file.clone(), why: why.to_owned() };
        let bytes = archive.whole(MAX_SIGNATURE)?.ok_or_else(|| refuse("it is too long for a signature"))?;
        let checked = keys::check(NAMESPACE, message, &bytes).map_err(|why| refuse(&why))?;
        if last.is_some_and(|last| last >= checked.fingerprint) {
            return Err(refuse("signatures must be ordered by the fingerprints of their keys, one each"));
        }
        last = Some(checked.fingerprint);
        match keys.signer(&checked.key) {
            Some(signer) => signers.push(signer),
            None => strangers.push(checked.key.fingerprint(ssh_key::HashAlg::Sha256).to_string()),
        }
        texts.push(String::from_utf8(bytes).map_err(|_| refuse("it is not a text"))?);
        next = archive.next()?;
    }
    if last.is_none() {
        return Err(Error::NoSignature);
    }
    // One that nobody here knows would be a place to hide bytes that are not signed.
    if !strangers.is_empty() {
        return Err(Error::UnknownSigner { fingerprints: strangers });
    }
    Ok((texts, signers, next))
}

/// Reads parts.
struct Reader<'r, 'v, R> {
    archive: &'r mut Archive<R>,
    buffer: Vec<u8>,
    visit: &'r mut Visit<'v>,
}

impl<R: Read> Reader<'_, '_, R> {
    /// Reads a part, and compares it with what was signed of it.
    fn part(&mut self, entry: &Entry, part: &Part, see: &mut dyn FnMut(&[u8])) -> Result<(), Error> {
        let refuse = |why: String| Error::Bytes { part: part.name.clone(), why };
        if entry.size != part.size {
            return Err(refuse(format!("it has {} bytes, {} were signed", entry.size, part.size)));
        }
        let mut hasher = sha2::Sha256::new();
        loop {
            let len = self.archive.chunk(&mut self.buffer)?;
            let bytes = &self.buffer[..len];
            hasher.update(bytes);
            see(bytes);
            if len > 0 || part.size == 0 {
                (self.visit)(part, bytes).map_err(Error::Visit)?;
            }
            if len == 0 {
                break;
            }
        }
        if part.sha256.is_none_or(|sha256| hasher.finalize()[..] == sha256.0) {
            Ok(())
        } else {
            Err(refuse("its bytes are not those that were signed".to_owned()))
        }
    }

    /// Reads a signature, and checks it over the part that it signs, of which this is the digest; its name, if it is
    /// empty.
    fn signature(
        &mut self,
        entry: &Entry,
        part: &Part,
        digests: &BTreeMap<&str, [u8; signature::SHA512_LEN]>,
    ) -> Result<Option<String>, Error> {
        let mut blob = Vec::new();
        self.part(entry, part, &mut |bytes| blob.extend_from_slice(bytes))?;
        let refuse = |why| Error::Configuration { part: part.name.clone(), why };
        // The manifest has no signature without a key, and none before what it signs.
        let key = part.key.as_ref().ok_or_else(|| refuse(trust::Why::Key))?;
        let digest = part.signs().and_then(|name| digests.get(name)).ok_or_else(|| refuse(trust::Why::Mismatch))?;
        match trust::check(key, &blob, digest) {
            Ok(()) => Ok(None),
            Err(trust::Why::Unsigned) => Ok(Some(part.name.clone())),
            Err(why) => Err(refuse(why)),
        }
    }
}

/// A name from the archive, if it is one that can be printed.
fn shown(name: &str) -> String {
    if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic()) {
        name.to_owned()
    } else {
        "a file with an impossible name".to_owned()
    }
}

#[cfg(test)]
mod tests;
