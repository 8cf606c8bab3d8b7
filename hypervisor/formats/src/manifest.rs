//! The bundle's manifest: what a signature covers, and the one grammar it is written in.
//!
//! **Canonical JSON.** The file is the output of [`Manifest::to_canonical`] and nothing else: objects with
//! their keys in byte order, two spaces of indentation, one member per line, `": "` after a key, `[]` for an
//! empty list, one newline at the end; strings of printable ASCII; integers from 0 to 2^53 - 1 in decimal, so
//! that every JSON reader gets the same number; absent members left out, never `null`. [`Manifest::parse`]
//! writes what it has read once more and compares the bytes, so no two files mean the same manifest, and no
//! file means two: unknown keys, repeated keys, floats and other spacings are all refused.
//!
//! The identity of a bundle is the SHA-256 of these bytes.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::addr::{Address, Span, TruePhys};
pub use crate::sha256::Sha256;
use crate::signature;

/// The format that this code writes, and the only one it reads. `docs/formats.md` says what changes it.
pub const FORMAT: u32 = 2;
/// Longest manifest in bytes; a longer one is refused unread.
pub const MAX_LEN: usize = 1 << 20;
/// Most parts of a bundle.
pub const MAX_PARTS: usize = 256;
/// Largest integer in a manifest: the last one before JSON readers that use doubles lose count.
pub const MAX_INTEGER: u64 = (1 << 53) - 1;
/// Largest part in bytes: what the 32-bit size field of a uImage can say.
pub const MAX_PART: u64 = u32::MAX as u64;
/// Name of the manifest in a bundle: its first file.
pub const FILE_NAME: &str = "manifest.json";
/// Most signatures of one manifest.
pub const MAX_SIGNATURES: usize = 16;
/// The SSHSIG namespace of a bundle's signatures: a signature made for anything else does not count.
pub const NAMESPACE: &str = "citrine-bundle";

/// What is behind a configuration's name in that of its signature.
pub const SIGNATURE_SUFFIX: &str = ".sig";

/// Name of the `index`-th signature file, from 0: `manifest.json.sig`, `manifest.json.2.sig`, ...
pub fn signature_name(index: usize) -> String {
    match index {
        0 => format!("{FILE_NAME}.sig"),
        _ => format!("{FILE_NAME}.{}.sig", index + 1),
    }
}

impl Serialize for Sha256 {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Sha256 {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&str>::deserialize(deserializer)?;
        Self::from_hex(text).ok_or_else(|| serde::de::Error::custom("expected 64 lower-case hexadecimal digits"))
    }
}

impl Serialize for signature::Key {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for signature::Key {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Sha256::deserialize(deserializer).map(|bytes| Self(bytes.0))
    }
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $text)] $variant,)*
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(match self {
                    $(Self::$variant => $text,)*
                })
            }
        }
    };
}

words!(
    /// What a part is for.
    Role {
        /// A guest's kernel.
        Kernel = "kernel",
        /// A guest's root file system.
        Rootfs = "rootfs",
        /// The hypervisor.
        Hypervisor = "hypervisor",
        /// The device tree of the board, from which U-Boot and the hypervisor learn what there is.
        HardwareTree = "hardware-tree",
        /// The hypervisor configuration tree.
        Configuration = "configuration",
        /// The U-Boot script.
        Script = "script",
        /// The resolved profile, from which the bundle can be rendered anew.
        Profile = "profile",
        /// The list of checksums for `sha256sum -c`.
        Checksums = "checksums",
        /// The signature over a configuration tree, which the firmware checks. Its bytes are not the manifest's, so
        /// that a bundle can be signed later, elsewhere.
        Signature = "signature",
    }
);
words!(
    /// Where the boot loader finds a part.
    Media {
        /// NOR flash, read in place.
        Nor = "nor",
        /// Memory, loaded there by U-Boot.
        Ram = "ram",
    }
);
words!(
    /// What kind of thing reached a part.
    InputKind {
        /// A source archive or tree.
        Source = "source",
        /// A distribution's package.
        Package = "package",
        /// A Rust crate.
        Crate = "crate",
        /// A compiler or binary tool.
        Toolchain = "toolchain",
        /// A file that the user named.
        File = "file",
        /// A file of the project that says how something is built.
        Recipe = "recipe",
    }
);

// In all structs below the members stand in the byte order of their names: that is the order they are
// written in, and a test holds them to it.

/// The place of a part on one medium.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slot {
    /// Address of the part's first byte.
    pub load: TruePhys,
    /// The medium.
    pub media: Media,
    /// Bytes from `load` that the part may fill.
    pub window: u64,
}

/// One file of a bundle.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Where its code is entered, as the image's own header says, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<u64>,
    /// Of a signature alone: the key that makes it, which is the one that the firmware believes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<signature::Key>,
    /// File name: see [`is_part_name`].
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// SHA-256 of its bytes; `None` for a signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256>,
    /// Length in bytes.
    pub size: u64,
    /// Its places, ordered by medium, at most one each; empty for a part that no boot loader reads.
    pub slots: Vec<Slot>,
    /// Length in bytes of what its compressed payload unpacks to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uncompressed: Option<u64>,
}

/// Something whose bytes or version reached a part.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// What it is.
    pub kind: InputKind,
    /// Its name.
    pub name: String,
    /// Where it came from: an address, a package archive, never a path of the machine.
    pub origin: String,
    /// SHA-256 of its bytes, where there is one file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256>,
    /// Length of that file in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Its version; empty if it has none.
    pub version: String,
}

/// All that a signature of a bundle binds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The board, such as `p4080ds`.
    pub board: String,
    /// The core that the code was built for, such as `e500mc`.
    pub core: String,
    /// The rollback counter.
    pub epoch: u32,
    /// [`FORMAT`].
    pub format: u32,
    /// What reached a part, ordered by kind, name, origin, ... (the order of [`Input`]), each once.
    pub inputs: Vec<Input>,
    /// The files, in the order in which they stand in the bundle.
    pub parts: Vec<Part>,
    /// SHA-256 of the load plan's JSON.
    pub plan_sha256: Sha256,
    /// The profile, such as `two-linux`.
    pub profile: String,
    /// The SoC, such as `p4080`.
    pub soc: String,
    /// The one time in the bundle, seconds since 1970: of the image headers and of the archive's members.
    pub source_date_epoch: u32,
}

/// Why bytes or values are no manifest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Error {
    /// Longer than [`MAX_LEN`].
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// Another format than [`FORMAT`].
    Format {
        /// The format it declares.
        found: u32,
    },
    /// Not JSON, or a member is missing, unknown, repeated or of another type.
    Syntax {
        /// What is wrong and at which line and column.
        reason: String,
    },
    /// It means a manifest but is spelled otherwise than [`Manifest::to_canonical`] spells it.
    NotCanonical {
        /// Offset of the first byte that differs.
        at: usize,
    },
    /// A value breaks a rule of the format.
    Value {
        /// The member, such as `parts[2].name`.
        member: String,
        /// The rule.
        rule: &'static str,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { len } => write!(f, "it has {len} bytes, {MAX_LEN} are the most"),
            Self::Format { found } => write!(f, "it has format {found}, this version reads format {FORMAT}"),
            Self::Syntax { reason } => f.write_str(reason),
            Self::NotCanonical { at } => write!(f, "byte {at} is not as the canonical form has it"),
            Self::Value { member, rule } => write!(f, "`{member}` {rule}"),
        }
    }
}

impl core::error::Error for Error {}

/// Whether `name` may name a part: 1 to 64 of `A-Z a-z 0-9 . _ -`, the first no `.` or `-`, and not one of
/// the names of the manifest and its signatures. Such a name means itself to every shell, to U-Boot and to TFTP.
pub fn is_part_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=64).contains(&name.len())
        && name.bytes().all(plain)
        && !name.starts_with(['.', '-'])
        && !name.as_bytes().get(..FILE_NAME.len()).is_some_and(|head| head.eq_ignore_ascii_case(FILE_NAME.as_bytes()))
}

/// Whether `name` may name a board, SoC, core or profile: a part name without capitals.
pub fn is_identifier(name: &str) -> bool {
    is_part_name(name) && !name.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn rule(holds: bool, member: impl FnOnce() -> String, rule: &'static str) -> Result<(), Error> {
    if holds { Ok(()) } else { Err(Error::Value { member: member(), rule }) }
}

impl Part {
    /// Its place on a medium.
    pub fn slot(&self, media: Media) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.media == media)
    }

    /// The name of the part that this one signs, if it is a signature.
    pub fn signs(&self) -> Option<&str> {
        self.name.strip_suffix(SIGNATURE_SUFFIX).filter(|_| self.role == Role::Signature)
    }

    fn check(&self, index: usize) -> Result<(), Error> {
        let member = |name: &str| format!("parts[{index}].{name}");
        let signature = self.role == Role::Signature;
        rule(self.key.is_some() == signature, || member("key"), "must be there for a signature, and for nothing else")?;
        rule(self.sha256.is_none() == signature, || member("sha256"), "must be there for all but a signature")?;
        rule(!signature || self.size == signature::LEN as u64, || member("size"), "must be that of a signature")?;
        rule(!signature || self.entry.is_none(), || member("entry"), "must not be there for a signature")?;
        rule(
            !signature || self.uncompressed.is_none(),
            || member("uncompressed"),
            "must not be there for a signature",
        )?;
        rule(
            is_part_name(&self.name),
            || member("name"),
            "must be 1 to 64 of A-Z a-z 0-9 . _ - that do not begin with . or - or manifest.json",
        )?;
        rule(self.size <= MAX_PART, || member("size"), "must fit 32 bits")?;
        rule(self.entry.is_none_or(|entry| entry <= MAX_INTEGER), || member("entry"), "must be less than 2^53")?;
        rule(self.uncompressed.is_none_or(|len| len <= MAX_PART), || member("uncompressed"), "must fit 32 bits")?;
        rule(
            self.slots.is_sorted_by(|a, b| a.media < b.media),
            || member("slots"),
            "must be ordered by medium, one each",
        )?;
        for (at, slot) in self.slots.iter().enumerate() {
            let member = |name: &str| format!("parts[{index}].slots[{at}].{name}");
            rule(self.size <= slot.window, || member("window"), "must be large enough for the part")?;
            rule(
                Span::new(slot.load, slot.window).is_ok_and(|span| span.end().get() <= MAX_INTEGER),
                || member("load"),
                "and its window must end below 2^53",
            )?;
        }
        Ok(())
    }
}

impl Input {
    fn check(&self, index: usize) -> Result<(), Error> {
        let member = |name: &str| format!("inputs[{index}].{name}");
        let printable = |text: &str| text.len() <= 512 && text.bytes().all(|byte| matches!(byte, 0x20..0x7f));
        let rule_of_text = "must be at most 512 printable ASCII characters";
        rule(printable(&self.name) && !self.name.is_empty(), || member("name"), rule_of_text)?;
        rule(printable(&self.origin), || member("origin"), rule_of_text)?;
        rule(printable(&self.version), || member("version"), rule_of_text)?;
        rule(self.size.is_none_or(|size| size <= MAX_INTEGER), || member("size"), "must be less than 2^53")
    }
}

impl Manifest {
    /// The rules that the types do not say by themselves.
    fn check(&self) -> Result<(), Error> {
        if self.format != FORMAT {
            return Err(Error::Format { found: self.format });
        }
        for (member, value) in
            [("board", &self.board), ("core", &self.core), ("profile", &self.profile), ("soc", &self.soc)]
        {
            rule(is_identifier(value), || member.to_owned(), "must be 1 to 64 of a-z 0-9 . _ -")?;
        }
        rule((1..=MAX_PARTS).contains(&self.parts.len()), || "parts".to_owned(), "must be 1 to 256")?;
        let mut names = BTreeSet::new();
        for (index, part) in self.parts.iter().enumerate() {
            part.check(index)?;
            rule(
                names.insert(part.name.to_ascii_lowercase()),
                || format!("parts[{index}].name"),
                "must differ from every other name in more than case",
            )?;
            let before = self.parts.get(..index).unwrap_or_default();
            let signed = part.signs().and_then(|name| before.iter().find(|other| other.name == name));
            rule(
                part.role != Role::Signature || signed.is_some_and(|signed| signed.role == Role::Configuration),
                || format!("parts[{index}].name"),
                "must be that of a configuration before it, and .sig",
            )?;
        }
        self.inputs.iter().enumerate().try_for_each(|(index, input)| input.check(index))?;
        rule(self.inputs.is_sorted_by(|a, b| a < b), || "inputs".to_owned(), "must be in order, each once")
    }

    /// The one spelling of this manifest.
    ///
    /// # Errors
    /// [`Error::Value`] or [`Error::Format`] if it breaks a rule of the format, [`Error::TooLong`].
    pub fn to_canonical(&self) -> Result<Vec<u8>, Error> {
        self.check()?;
        let mut bytes = serde_json::to_vec_pretty(self).map_err(|error| Error::Syntax { reason: error.to_string() })?;
        bytes.push(b'\n');
        if bytes.len() > MAX_LEN { Err(Error::TooLong { len: bytes.len() }) } else { Ok(bytes) }
    }

    /// Reads exactly what [`Self::to_canonical`] writes.
    ///
    /// # Errors
    /// Any [`Error`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        /// The one member that every format has.
        #[derive(Deserialize)]
        struct AnyFormat {
            format: u32,
        }

        if bytes.len() > MAX_LEN {
            return Err(Error::TooLong { len: bytes.len() });
        }
        // First, so that a later format is named rather than called a syntax error.
        if let Ok(AnyFormat { format }) = serde_json::from_slice(bytes)
            && format != FORMAT
        {
            return Err(Error::Format { found: format });
        }
        let manifest: Self =
            serde_json::from_slice(bytes).map_err(|error| Error::Syntax { reason: error.to_string() })?;
        let canonical = manifest.to_canonical()?;
        if canonical != bytes {
            let at = canonical.iter().zip(bytes).take_while(|(a, b)| a == b).count();
            return Err(Error::NotCanonical { at });
        }
        Ok(manifest)
    }
}

#[cfg(test)]
mod tests;
