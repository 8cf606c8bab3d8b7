//! What one stage of a build looks like in an OCI registry: [`manifest`] writes it, [`read`] believes it.
//!
//! An entry is an OCI image manifest (OCI Image Format 1.1, "Guidance for an empty descriptor") whose layers are the
//! stage's files. Its annotations hold a statement, which names the stage and each file with its size and hash, and a
//! signature over exactly those bytes. So a registry, and whoever can write to it, is believed nothing: the statement
//! is checked before anything is fetched, and every byte against the statement.

use std::collections::BTreeMap;

use citrine_formats::manifest::{Sha256, is_part_name};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::verify::keys::{CACHE_NAMESPACE, Signer, TrustedKeys, check};

/// Largest manifest that is read, in bytes; one of a stage has less than 10 KiB.
pub const MAX_MANIFEST: usize = 1 << 20;
/// Media type of the manifest.
pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// The configuration of something that is no container.
pub const EMPTY: &[u8] = b"{}";

/// Annotation that holds the statement.
const STATEMENT: &str = "org.citrine.statement";
/// Annotation that holds the signature over it.
const SIGNATURE: &str = "org.citrine.signature";
/// Annotation of a layer: its file name (OCI "Pre-Defined Annotation Keys").
const TITLE: &str = "org.opencontainers.image.title";
/// Media type of a file.
const FILE_TYPE: &str = "application/octet-stream";

/// A file of a stage.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// SHA-256 of its bytes.
    pub sha256: Sha256,
    /// Length in bytes.
    pub size: u64,
}

/// What is signed: which stage this is, and what it made.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// The files by name.
    pub files: BTreeMap<String, File>,
    /// The stage's name in the cache, with the hash of everything that went in.
    pub stage: String,
}

/// The parts of an OCI image manifest that matter here; others are passed over, since the statement says it all.
#[derive(Deserialize)]
struct Manifest {
    layers: Vec<Layer>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Layer {
    digest: String,
    size: u64,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

impl Statement {
    /// The bytes that are signed.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a statement has only strings and integers")
    }
}

/// The manifest of an entry, from the statement and its armoured signature.
pub fn manifest(statement: &Statement, signature: &str, empty: Sha256) -> Vec<u8> {
    let layers: Vec<_> = statement
        .files
        .iter()
        .map(|(name, file)| {
            json!({
                "mediaType": FILE_TYPE,
                "digest": format!("sha256:{}", file.sha256),
                "size": file.size,
                "annotations": { TITLE: name },
            })
        })
        .collect();
    let text = String::from_utf8(statement.to_bytes()).expect("JSON is UTF-8");
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": "application/vnd.citrine.stage",
        "config": { "mediaType": "application/vnd.oci.empty.v1+json", "digest": format!("sha256:{empty}"), "size": EMPTY.len() },
        "layers": layers,
        "annotations": { STATEMENT: text, SIGNATURE: signature },
    });
    serde_json::to_vec(&manifest).expect("it was just made")
}

/// The statement about `stage` in a manifest from a registry, and who signed it.
///
/// # Errors
/// Why it is not believed.
pub fn read(bytes: &[u8], stage: &str, keys: &TrustedKeys) -> Result<(Statement, Signer), String> {
    if bytes.len() > MAX_MANIFEST {
        return Err(format!("its manifest has {} bytes, {MAX_MANIFEST} are the most", bytes.len()));
    }
    let manifest: Manifest = serde_json::from_slice(bytes).map_err(|error| format!("its manifest: {error}"))?;
    let annotation = |name: &str| manifest.annotations.get(name).ok_or_else(|| format!("it has no annotation {name}"));
    let (text, signature) = (annotation(STATEMENT)?, annotation(SIGNATURE)?);
    let checked =
        check(CACHE_NAMESPACE, text.as_bytes(), signature.as_bytes()).map_err(|why| format!("its signature: {why}"))?;
    let signer = keys.signer(&checked.key).ok_or("its signature is by a key that is not trusted")?;
    // From here on the statement is what a trusted key has signed; what the registry adds must agree with it.
    let statement: Statement = serde_json::from_str(text).map_err(|error| format!("its statement: {error}"))?;
    if statement.to_bytes() != text.as_bytes() {
        return Err("its statement is not spelled as the tool spells it".to_owned());
    }
    if statement.stage != stage {
        return Err(format!("it is another stage, {}", statement.stage.escape_debug()));
    }
    if let Some(name) = statement.files.keys().find(|name| !is_part_name(name)) {
        return Err(format!("it has a file with an impossible name, {}", name.escape_debug()));
    }
    let layers: Option<Vec<(&str, Sha256, u64)>> = manifest
        .layers
        .iter()
        .map(|layer| {
            let digest = layer.digest.strip_prefix("sha256:").and_then(Sha256::from_hex)?;
            Some((layer.annotations.get(TITLE)?.as_str(), digest, layer.size))
        })
        .collect();
    let files = statement.files.iter().map(|(name, file)| (name.as_str(), file.sha256, file.size));
    if layers.is_none_or(|layers| !files.eq(layers)) {
        return Err("its layers are not the files of its statement".to_owned());
    }
    Ok((statement, signer))
}

#[cfg(test)]
mod tests;
