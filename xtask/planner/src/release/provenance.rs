//! `provenance.json`: an in-toto Statement v1 (<https://in-toto.io/Statement/v1>) with a SLSA Provenance v1 predicate.
//!
//! What was built is named by digest, and so is what it was built from. There is no time, host, user or path in it, so
//! that whoever builds the same gets the same statement.

use citrine_formats::manifest::{Input, InputKind};
use serde_json::{Value, json};

use super::index::File;
use super::recipe::{Media, Recipe};
use super::{Built, canonical, inputs, purl};

/// How a release is built: what the external parameters mean.
pub const BUILD_TYPE: &str = "urn:citrine:build:release:1";
/// The builder of whom nothing is said.
pub const UNKNOWN_BUILDER: &str = "urn:citrine:builder:unknown";

/// The statement for these files, the subjects, and the bundles among them.
pub fn statement(recipe: &Recipe, builder: &str, subjects: &[&File], bundles: &[Built]) -> String {
    let subject = |file: &&File| json!({ "name": file.name, "digest": { "sha256": file.sha256 } });
    let cell = |bundle: &Built| {
        json!({
            "board": bundle.manifest.board,
            "identity": bundle.identity,
            "plan_sha256": bundle.manifest.plan_sha256,
            "profile": bundle.manifest.profile,
        })
    };
    let left_out = recipe.left_out.iter().map(|out| {
        let mut value = json!({ "reason": out.reason });
        for (key, name) in [("board", &out.board), ("profile", &out.profile)] {
            if let Some(name) = name {
                value[key] = json!(name);
            }
        }
        value
    });
    canonical(&json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": subjects.iter().map(subject).collect::<Vec<_>>(),
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "version": recipe.version,
                    "media": match recipe.media { Media::Ram => "ram", Media::All => "all" },
                    "bundles": bundles.iter().map(cell).collect::<Vec<_>>(),
                    "left_out": left_out.collect::<Vec<_>>(),
                },
                "internalParameters": {},
                "resolvedDependencies": inputs(bundles).into_iter().map(dependency).collect::<Vec<_>>(),
            },
            "runDetails": { "builder": { "id": builder } },
        },
    }))
}

/// An input as a ResourceDescriptor of in-toto: it has a digest, or a package URL with its version.
fn dependency(input: &Input) -> Value {
    let mut value = json!({ "name": input.name, "annotations": { "kind": input.kind, "origin": input.origin } });
    if let Some(sha256) = input.sha256 {
        value["digest"] = json!({ "sha256": sha256 });
    }
    if let Some(uri) = uri(input) {
        value["uri"] = json!(uri);
    }
    value
}

/// The package URL of an input that is one package; the files of a source and recipes have digests instead.
pub(super) fn uri(input: &Input) -> Option<String> {
    let version = input.version.split(' ').next().unwrap_or_default();
    let kind = match input.kind {
        InputKind::Package => "deb/debian",
        InputKind::Crate => "cargo",
        InputKind::Toolchain => "generic",
        _ => return None,
    };
    Some(purl(kind, &input.name, version))
}
