//! What a verified bundle says: its profile, decided by its configuration tree, and its files.

use std::collections::BTreeSet;

use citrine_formats::manifest::{Manifest, Role};

use super::{Kind, Source, System, Thing, Value, What, bytes, profile, tree};
use crate::diag::Result;
use crate::profile::Profile;

/// What a bundle with this manifest, this profile and this hv.dtb says. `file` names the bundle in diagnostics.
///
/// # Errors
/// `H100`: the configuration tree is none that the hypervisor would understand.
pub fn describe(file: &str, manifest: &Manifest, profile: &Profile, hv_dtb: &[u8]) -> Result<System> {
    let mut system = profile::describe(profile);
    system.source = Source::Bundle;
    system.decide(&tree::describe(&format!("hv.dtb of {file}"), hv_dtb)?);
    if let Some(whole) = system.things.get_mut(&(Kind::System, String::new())) {
        let named = [("board", &manifest.board), ("SoC", &manifest.soc), ("core", &manifest.core)];
        named.into_iter().for_each(|(name, value)| whole.text_of(What::Named, name, value));
        whole.text_of(What::Named, "epoch", manifest.epoch);
        whole.text_of(What::Named, "time", manifest.source_date_epoch);
    }
    let facts = system.things.values().flat_map(|thing| &thing.facts);
    let said = facts.filter(|((what, _), _)| *what == What::ImageBytes).map(|(_, value)| value.to_string());
    let said: BTreeSet<String> = said.collect();
    for part in &manifest.parts {
        let value = match (part.sha256, part.key) {
            (Some(sha256), _) => bytes(part.size, sha256),
            // Its bytes are not the manifest's, only who makes them.
            (None, key) => Value::Text(format!("signature by {}", key.map_or_else(String::new, |key| key.to_string()))),
        };
        // The profile is told fact by fact, and the checksums are those of the other parts.
        let is_told = match part.role {
            Role::Profile | Role::Checksums => true,
            Role::Kernel | Role::Rootfs => said.contains(&value.to_string()),
            _ => false,
        };
        if is_told {
            continue;
        }
        let mut thing = Thing::default();
        thing.say(What::ImageBytes, value);
        for slot in &part.slots {
            thing.text_of(What::ImageLoad, &slot.media.to_string(), slot.load);
            thing.text_of(What::ImageWindow, &slot.media.to_string(), citrine_formats::addr::Size(slot.window));
        }
        system.add(Kind::Part, &part.name, thing);
    }
    for input in &manifest.inputs {
        let mut thing = Thing::default();
        if !input.version.is_empty() {
            thing.text_of(What::Named, "version", &input.version);
        }
        thing.text_of(What::Named, "origin", &input.origin);
        if let (Some(size), Some(sha256)) = (input.size, input.sha256) {
            thing.say(What::ImageBytes, bytes(size, sha256));
        } else if let Some(sha256) = input.sha256 {
            thing.say(What::ImageBytes, Value::Text(format!("sha256 {sha256}")));
        }
        system.add(Kind::Input, &input.name, thing);
    }
    Ok(system)
}
