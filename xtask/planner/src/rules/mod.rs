//! The rules that need the board, the boot loader or real files; [`check`] runs them all.
//!
//! One file per family, each rule a function from the plan to diagnostics. Rules that the hypervisor can
//! check for itself live in `citrine_core::rules` and are called from here through [`hypervisor`].

pub mod datapath;
pub mod devices;
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

/// A rule, or several that look at the same things.
pub type Rule = fn(&LoadPlan) -> Vec<Diagnostic>;

/// Every rule with its name, in the order in which they are asked.
pub const RULES: [(&str, Rule); 28] = [
    ("the hypervisor's own", hypervisor::check),
    ("unused CPUs", partition::unused_cpus),
    ("silent consoles", partition::silent),
    ("names of nodes", names::nodes),
    ("labels", names::labels),
    ("parts alone", overlap::parts),
    ("owners of memory", overlap::owners),
    ("guest memory", guest::memory),
    ("entries of kernels", guest::entry),
    ("initrd in reach", guest::initrd),
    ("room in the RAM disk", guest::ramdisk),
    ("boot arguments", loader::bootargs),
    ("the hypervisor's image", loader::hypervisor),
    ("U-Boot's reach", loader::reach),
    ("device assignment", devices::assignment),
    ("known devices", devices::known),
    ("owners of devices", devices::owners),
    ("DMA windows", devices::dma),
    ("drivers", devices::drivers),
    ("what the hypervisor lacks", devices::lacks),
    ("access windows", devices::access_windows),
    ("windows of guest trees", devices::tree_windows),
    ("inventory", devices::inventory),
    ("optional devices", datapath::left_out),
    ("divided windows", datapath::windows),
    ("numbers of the data path", datapath::numbers),
    ("names that the profile gives", names::given),
    ("the hypervisor that is meant", hypervisor::meant),
];

/// Everything that is wrong with `plan`, errors first, each group in the order of its places.
pub fn check(plan: &LoadPlan) -> Vec<Diagnostic> {
    check_with(plan, RULES.iter().map(|(_, rule)| *rule))
}

/// What some of the rules say of `plan`.
pub fn check_with(plan: &LoadPlan, rules: impl Iterator<Item = Rule>) -> Vec<Diagnostic> {
    let mut found: Vec<Diagnostic> = rules.flat_map(|rule| rule(plan)).collect();
    let implied: Vec<String> = plan
        .parts
        .iter()
        .filter(|part| part.window_decided.is_none() && found.iter().any(|d| is_about_bytes_of(d, &part.file)))
        .map(|part| part.file.clone())
        .collect();
    found.retain(|d| d.code != overlap::LARGER_THAN_WINDOW || !implied.iter().any(|file| is_about(d, file)));
    leave_out_echoes(&mut found);
    found.sort_by_key(|d| std::cmp::Reverse(d.severity));
    found
}

fn leave_out_echoes(found: &mut Vec<Diagnostic>) {
    let said: Vec<(Code, Subject)> = found.iter().map(|d| (d.code, subject(d))).collect();
    found.retain(|d| {
        let is_echo = |(real, echo): &(Code, Code)| *echo == d.code && said.contains(&(*real, subject(d)));
        !ECHOES.iter().any(is_echo)
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_is_left_out_where_the_same_was_said_and_not_where_something_else_was() {
        let (real, echo) = ECHOES[0];
        let about = |code, partition: &str| Diagnostic::error(code, "").fact("partition", partition);
        let mut found = vec![about(real, "p1"), about(echo, "p1"), about(echo, "p2")];
        leave_out_echoes(&mut found);
        assert_eq!(found, [about(real, "p1"), about(echo, "p2")]);
    }
}
