//! `notes.md`: what a release holds, and what has changed since the one before.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use citrine_formats::manifest::{Input, InputKind};

use super::recipe::Recipe;
use super::{Built, inputs};

/// A bundle as the notes speak of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// The same bundle as before.
    Same,
    /// Another one; the lines say how their configurations differ, and there may be none.
    Differs(Vec<String>),
    /// There was none.
    New,
}

/// The release before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Previous {
    /// Its version.
    pub version: String,
    /// Its bundles.
    pub bundles: Vec<Built>,
}

/// The notes of a release. `changes` are those of `bundles`, one by one; without a release before they are not looked at.
pub fn text(recipe: &Recipe, bundles: &[Built], previous: Option<(&Previous, &[Change])>) -> String {
    let mut text = format!("# Release {}\n", recipe.version);
    let _ = match previous {
        Some((before, _)) => writeln!(text, "\nCompared with release {}.", before.version),
        None => Ok(()),
    };
    text.push_str("\n## Bundles\n\n| board | profile | epoch | identity |\n|---|---|---|---|\n");
    for Built { identity, manifest } in bundles {
        let _ = writeln!(text, "| {} | {} | {} | `{identity}` |", manifest.board, manifest.profile, manifest.epoch);
    }
    if let Some((before, changes)) = previous {
        text.push_str(&changed(before, bundles, changes));
    }
    if !recipe.left_out.is_empty() {
        text.push_str("\n## Left out\n\n");
    }
    for out in &recipe.left_out {
        let profile = out.profile.as_deref().unwrap_or("every profile");
        let board = out.board.as_deref().unwrap_or("every board");
        let _ = writeln!(text, "* {profile} for {board}: {}", out.reason);
    }
    text
}

fn changed(before: &Previous, bundles: &[Built], changes: &[Change]) -> String {
    let mut text = "\n## Changes\n\n".to_owned();
    for (bundle, change) in bundles.iter().zip(changes) {
        let name = name(bundle);
        let _ = match change {
            Change::Same => writeln!(text, "* {name}: the same bundle"),
            Change::New => writeln!(text, "* {name}: new"),
            Change::Differs(lines) if lines.is_empty() => {
                writeln!(text, "* {name}: the same configuration; other bytes")
            }
            Change::Differs(lines) => writeln!(text, "* {name}:\n    * {}", lines.join("\n    * ")),
        };
    }
    let there: BTreeSet<String> = bundles.iter().map(name).collect();
    for gone in before.bundles.iter().map(name).filter(|name| !there.contains(name)) {
        let _ = writeln!(text, "* {gone}: gone");
    }
    text.push_str("\n## Inputs\n\n");
    let lines = changed_inputs(&inputs(&before.bundles), &inputs(bundles));
    if lines.is_empty() {
        text.push_str("The same as before.\n");
    }
    lines.iter().for_each(|line| {
        let _ = writeln!(text, "* {line}");
    });
    text
}

fn name(bundle: &Built) -> String {
    format!("{} for {}", bundle.manifest.profile, bundle.manifest.board)
}

/// What an input is called whatever its version: the name of a source's file has the version in it.
fn key(input: &Input) -> (InputKind, String) {
    let name = match input.kind {
        InputKind::Source => input.name.split('_').next().unwrap_or_default(),
        _ => &input.name,
    };
    (input.kind, name.to_owned())
}

fn changed_inputs(before: &[&Input], after: &[&Input]) -> Vec<String> {
    type Said = BTreeMap<(InputKind, String), BTreeSet<String>>;
    let said = |inputs: &[&Input]| -> Said {
        let mut said = Said::new();
        for input in inputs {
            // What has a version is told by it; the rest, text of this project, by its bytes.
            let what = match (input.version.as_str(), input.sha256) {
                ("", Some(sha256)) => sha256.to_string(),
                (version, _) => version.to_owned(),
            };
            said.entry(key(input)).or_default().insert(what);
        }
        said
    };
    let (before, after) = (said(before), said(after));
    let names: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let shown = |values: &BTreeSet<String>| values.iter().cloned().collect::<Vec<_>>().join(", ");
    let line = |key: &(InputKind, String)| {
        let (kind, name) = key;
        match (before.get(key), after.get(key)) {
            (Some(old), Some(new)) if old == new => None,
            (Some(_), Some(_)) if *kind == InputKind::Recipe => Some(format!("{name}: changed")),
            (Some(old), Some(new)) => Some(format!("{kind} {name}: {} -> {}", shown(old), shown(new))),
            (None, _) => Some(format!("{kind} {name}: new")),
            (_, None) => Some(format!("{kind} {name}: gone")),
        }
    };
    names.into_iter().filter_map(line).collect()
}
