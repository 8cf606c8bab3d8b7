//! A release: what it is made of ([`recipe`]), what it says of itself ([`index`], [`provenance`], [`sbom`], [`notes`]).
//!
//! Everything here is text of its arguments: no time, no machine, no order of a directory reaches it, so two releases
//! of the same inputs are the same bytes.

pub mod index;
pub mod notes;
pub mod provenance;
pub mod recipe;
pub mod sbom;

use citrine_formats::manifest::{Input, Manifest, Sha256};

use crate::diag::Code;

/// A release that cannot be put together: nothing to build, or a name that is not there.
pub const MATRIX: Code = Code::new('E', 101);
/// The list of a release's files is not one.
pub const INDEX: Code = Code::new('E', 102);
/// The signature of a release does not hold, or nobody trusted has signed it.
pub const SIGNATURE: Code = Code::new('E', 103);
/// A development key where a release is signed or believed.
pub const DEVELOPMENT: Code = Code::new('E', 104);
/// A release's files are not those of its list.
pub const FILES: Code = Code::new('E', 105);
/// A bundle of a release cannot be built.
pub const CELL: Code = Code::new('E', 106);
/// Something else is where a release is to be written.
pub const OCCUPIED: Code = Code::new('E', 107);
/// A component whose licence nobody has written down.
pub const LICENCE: Code = Code::new('E', 108);

/// One bundle of a release, as its manifest has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Built {
    /// Its identity: the SHA-256 of its manifest.
    pub identity: Sha256,
    /// Its manifest.
    pub manifest: Manifest,
}

/// The inputs of all bundles, each once, in order.
pub fn inputs(bundles: &[Built]) -> Vec<&Input> {
    let mut inputs: Vec<&Input> = bundles.iter().flat_map(|bundle| &bundle.manifest.inputs).collect();
    inputs.sort();
    inputs.dedup();
    inputs
}

/// JSON in its one spelling here: members in byte order, two blanks of indentation, a newline at the end.
fn canonical(value: &serde_json::Value) -> String {
    format!("{value:#}\n")
}

/// The package URL of an input (<https://github.com/package-url/purl-spec>): `pkg:deb/debian/gcc@12`.
fn purl(kind: &str, name: &str, version: &str) -> String {
    let encoded = |text: &str| -> String {
        let byte = |byte: u8| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        };
        text.bytes().map(byte).collect()
    };
    format!("pkg:{kind}/{}@{}", encoded(name), encoded(version))
}

#[cfg(test)]
mod tests;
