//! The rules that need the board, the boot loader or real files; [`check`] runs them all.
//!
//! One file per family, each rule a function from the plan to diagnostics. Rules that the hypervisor can
//! check for itself live in `citrine_core::rules` and are called from here through [`hypervisor`].

pub mod guest;
pub mod hypervisor;
pub mod loader;
pub mod names;
pub mod overlap;
pub mod partition;
pub mod tree;

use citrine_formats::diag::Code;

use crate::diag::{Diagnostic, Severity};
use crate::plan::LoadPlan;

/// Pairs of rules that see the same mistake: the first on real bytes or for certain, the second on windows
/// or besides. Where the first has spoken of a partition, image or part, the second has nothing to add.
const ECHOES: [(Code, Code); 4] = [
    (guest::GUEST_OVERLAP, citrine_core::rules::DESTINATIONS_OVERLAP),
    (guest::OUTSIDE_MEMORY, citrine_core::rules::IMAGE_OUTSIDE),
    (guest::INITRD_TOO_HIGH, citrine_core::rules::ROOTFS_TOO_HIGH),
    (overlap::NOT_IN_RAM, loader::NOT_ADDRESSABLE),
];

/// What a diagnostic speaks of.
type Subject = [Option<String>; 3];

fn subject(diagnostic: &Diagnostic) -> Subject {
    ["partition", "image", "part"].map(|key| diagnostic.facts.get(key).cloned())
}

fn is_about(diagnostic: &Diagnostic, file: &str) -> bool {
    ["part", "first", "second"].iter().any(|key| diagnostic.facts.get(key).is_some_and(|value| value == file))
}

/// Whether an error tells with real bytes what a window that nobody declared only hints at: the window ends
/// where that other owner begins.
fn is_about_bytes_of(diagnostic: &Diagnostic, file: &str) -> bool {
    diagnostic.severity == Severity::Error
        && diagnostic.code != overlap::LARGER_THAN_WINDOW
        && is_about(diagnostic, file)
}

/// Everything that is wrong with `plan`, errors first, each group in the order of its places.
pub fn check(plan: &LoadPlan) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    found.extend(hypervisor::check(plan));
    found.extend(partition::check(plan));
    found.extend(names::check(plan));
    found.extend(overlap::check(plan));
    found.extend(guest::check(plan));
    found.extend(loader::check(plan));
    let said: Vec<(Code, Subject)> = found.iter().map(|d| (d.code, subject(d))).collect();
    let implied: Vec<String> = plan
        .parts
        .iter()
        .filter(|part| part.window_decided.is_none() && found.iter().any(|d| is_about_bytes_of(d, &part.file)))
        .map(|part| part.file.clone())
        .collect();
    found.retain(|d| d.code != overlap::LARGER_THAN_WINDOW || !implied.iter().any(|file| is_about(d, file)));
    found.retain(|d| {
        let is_echo = |(real, echo): &(Code, Code)| *echo == d.code && said.contains(&(*real, subject(d)));
        !ECHOES.iter().any(is_echo)
    });
    found.sort_by_key(|d| std::cmp::Reverse(d.severity));
    found
}
