//! Whether a bundle that was built again is the same, and where it is not: [`compare`].
//!
//! A part that differs is told by its name, the offset of the first byte that does, and the field of its format
//! that lies there. What it was built from and the manifest's other members are compared by name.

mod place;

use std::collections::{BTreeMap, BTreeSet};

use citrine_formats::manifest::{Input, Manifest, Sha256};
use serde::Serialize;

use crate::diag::Code;
use crate::pack::Assembled;
pub use place::{Place, place};

/// A pinned source of a bundle is no longer to be had.
pub const NO_SOURCE: Code = Code::new('V', 101);
/// A bundle that was built again is another one.
pub const NOT_THE_SAME: Code = Code::new('V', 102);

/// What has become of a part.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
pub enum Verdict {
    /// The same bytes.
    Identical,
    /// Other bytes; the first of them.
    Differs(Place),
    /// Nothing makes it any more.
    Missing,
    /// The bundle does not have it.
    New,
}

/// A part of either bundle.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct PartVerdict {
    /// Its file name.
    pub part: String,
    /// Length in bytes: in the bundle, else as it was built now.
    pub size: u64,
    /// What has become of it.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// A member of the manifest, or something that reached a part, that is not what it was.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Change {
    /// What: `toolchain rustc`, `recipe templates/hv.dts.j2`, `epoch`.
    pub what: String,
    /// Its version, digest or value in the bundle; `None` if it has none.
    pub was: Option<String>,
    /// The same now.
    pub now: Option<String>,
}

/// The result of building a bundle again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Comparison {
    /// Identity of the bundle.
    pub was: Sha256,
    /// Identity of what was built now.
    pub now: Sha256,
    /// Every part, in the bundle's order, new ones last.
    pub parts: Vec<PartVerdict>,
    /// What reached a part and is not what it was: why bytes may differ.
    pub inputs: Vec<Change>,
    /// Other members of the manifest.
    pub members: Vec<Change>,
}

impl Comparison {
    /// Whether the two are one bundle: the identity covers the manifest, and the manifest every byte.
    pub fn is_identical(&self) -> bool {
        self.was == self.now
    }
}

/// Compares a verified bundle, its parts' `bytes` by name, with what was built now.
pub fn compare(
    (was, identity): (&Manifest, Sha256),
    bytes: &BTreeMap<String, Vec<u8>>,
    now: &Assembled<'_>,
) -> Comparison {
    let built: BTreeMap<&str, _> = now
        .manifest
        .parts
        .iter()
        .zip(&now.contents)
        .map(|(part, content)| (part.name.as_str(), (part, content)))
        .collect();
    let mut parts: Vec<PartVerdict> = was
        .parts
        .iter()
        .map(|part| {
            let verdict = match built.get(part.name.as_str()) {
                None => Verdict::Missing,
                Some((new, _)) if new.sha256 == part.sha256 && new.size == part.size => Verdict::Identical,
                Some((_, content)) => {
                    let none = Vec::new();
                    let old = bytes.get(&part.name).unwrap_or(&none);
                    place(part.role, old, &content.pieces().concat()).map_or(Verdict::Identical, Verdict::Differs)
                }
            };
            PartVerdict { part: part.name.clone(), size: part.size, verdict }
        })
        .collect();
    let known: BTreeSet<&str> = was.parts.iter().map(|part| part.name.as_str()).collect();
    let new = now.manifest.parts.iter().filter(|part| !known.contains(part.name.as_str()));
    parts.extend(new.map(|part| PartVerdict { part: part.name.clone(), size: part.size, verdict: Verdict::New }));
    Comparison {
        was: identity,
        now: now.identity,
        parts,
        inputs: inputs(&was.inputs, &now.manifest.inputs),
        members: members(was, &now.manifest),
    }
}

/// Inputs that are not what they were, by kind and name. Of several with one name, those without a counterpart.
fn inputs(was: &[Input], now: &[Input]) -> Vec<Change> {
    let only = |these: &[Input], others: &[Input]| -> BTreeMap<String, String> {
        let others: BTreeSet<&Input> = others.iter().collect();
        let mut found: BTreeMap<String, String> = BTreeMap::new();
        for input in these.iter().filter(|input| !others.contains(input)) {
            let value = found.entry(format!("{} {}", input.kind, input.name)).or_default();
            if !value.is_empty() {
                value.push_str(", ");
            }
            value.push_str(&value_of(input));
        }
        found
    };
    let (mut before, mut after) = (only(was, now), only(now, was));
    let names: BTreeSet<String> = before.keys().chain(after.keys()).cloned().collect();
    names.into_iter().map(|what| Change { was: before.remove(&what), now: after.remove(&what), what }).collect()
}

/// What tells two inputs of one name apart, for people.
fn value_of(input: &Input) -> String {
    let digest = input.sha256.map(|digest| format!("sha256 {digest}"));
    let words = [Some(input.version.clone()).filter(|version| !version.is_empty()), digest];
    let said = words.into_iter().flatten().collect::<Vec<_>>().join(" ");
    if said.is_empty() { input.origin.clone() } else { said }
}

/// The members that are about the whole bundle, and where parts lie.
fn members(was: &Manifest, now: &Manifest) -> Vec<Change> {
    let texts = |manifest: &Manifest| -> BTreeMap<String, String> {
        let own = [
            ("board", manifest.board.clone()),
            ("core", manifest.core.clone()),
            ("epoch", manifest.epoch.to_string()),
            ("plan_sha256", manifest.plan_sha256.to_string()),
            ("profile", manifest.profile.clone()),
            ("soc", manifest.soc.clone()),
            ("source_date_epoch", manifest.source_date_epoch.to_string()),
        ];
        let slots = manifest.parts.iter().flat_map(|part| {
            part.slots.iter().map(|slot| {
                (format!("slot {} of {}", slot.media, part.name), format!("{} ({} bytes)", slot.load, slot.window))
            })
        });
        own.into_iter().map(|(name, value)| (name.to_owned(), value)).chain(slots).collect()
    };
    let (before, after) = (texts(was), texts(now));
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let differ = names.into_iter().filter(|name| before.get(*name) != after.get(*name));
    differ
        .map(|name| Change { what: name.clone(), was: before.get(name).cloned(), now: after.get(name).cloned() })
        .collect()
}

#[cfg(test)]
mod tests;
