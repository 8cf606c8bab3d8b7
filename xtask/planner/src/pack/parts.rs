//! From the plan and real bytes to the parts of a bundle: [`profile_json`], [`sources`].

use std::collections::BTreeMap;

use citrine_formats::manifest::{Role, Slot};
use citrine_formats::uimage::Header;

use super::{Content, PartSource};
use crate::plan::LoadPlan;
use crate::profile::Profile;

/// Name of the part that holds the resolved profile.
pub const PROFILE: &str = "profile.json";

/// The bytes of `profile.json`: the profile with every default filled in.
pub fn profile_json(profile: &Profile) -> Vec<u8> {
    let mut text = serde_json::to_string_pretty(profile).expect("a profile has only strings, integers and lists");
    text.push('\n');
    text.into_bytes()
}

/// Every part with its slots, in the order of load addresses, then the profile. The plans are of one profile, one for each
/// medium: a part of several is stored once. `contents` holds the bytes by file name; the first name that has
/// none is the error.
pub fn sources<'a>(
    plans: &[&LoadPlan],
    profile: &Profile,
    mut contents: BTreeMap<String, Content<'a>>,
) -> Result<Vec<PartSource<'a>>, String> {
    let mut sources: Vec<PartSource<'a>> = Vec::new();
    for (plan, part) in plans.iter().flat_map(|plan| plan.parts.iter().map(move |part| (plan, part))) {
        let slot = Slot { load: part.load, media: plan.media, window: part.window };
        if let Some(known) = sources.iter_mut().find(|source| source.name == part.file) {
            known.slots.push(slot);
            known.slots.sort_by_key(|slot| slot.media);
            continue;
        }
        let made = match (part.role, profile.trust) {
            (Role::Signature, Some(key)) => Some(Content::unsigned(key)),
            _ => contents.remove(&part.file),
        };
        let content = made.ok_or_else(|| part.file.clone())?;
        let header = match part.role {
            Role::Kernel | Role::Rootfs | Role::Hypervisor => Header::parse(&header_bytes(&content)).ok(),
            _ => None,
        };
        let unpacked = plan.facts.get(&part.file).map(|facts| facts.unpacked);
        sources.push(PartSource {
            name: part.file.clone(),
            role: part.role,
            slots: vec![slot],
            entry: header.filter(|_| part.role != Role::Rootfs).map(|header| u64::from(header.entry)),
            uncompressed: header.and(unpacked),
            content,
        });
    }
    // Whatever their addresses: a signature comes behind what it signs.
    sources.sort_by_key(|source| source.role == Role::Signature);
    sources.push(PartSource {
        name: PROFILE.to_owned(),
        role: Role::Profile,
        slots: Vec::new(),
        entry: None,
        uncompressed: None,
        content: Content::plain(profile_json(profile)),
    });
    Ok(sources)
}

/// The first bytes of a content, whichever piece they are in.
fn header_bytes(content: &Content<'_>) -> Vec<u8> {
    let pieces = content.pieces();
    pieces.iter().flat_map(|piece| piece.iter()).take(citrine_formats::uimage::HEADER_LEN).copied().collect()
}
