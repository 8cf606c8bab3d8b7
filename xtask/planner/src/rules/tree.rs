//! A compiled configuration tree (hv.dtb), judged as the firmware will judge it: the same reader, the same
//! rules. What it says of the tool's own trees is what `check` has said of the plan; a tree of another's
//! making can be wrong in more ways.

use citrine_core::config::Config;
use citrine_core::machine::Machine;
use citrine_core::rules::{Finding, TREE, check as core_check};
use citrine_formats::fdt;
use citrine_formats::hvconfig::Tree;

use crate::board::Board;
use crate::diag::{Diagnostic, Label};
use crate::rules::hypervisor::machine;

/// Everything that the hypervisor will say of the tree `dtb` on `board`. `file` names it in diagnostics.
pub fn check(file: &str, dtb: &[u8], board: &Board) -> Vec<Diagnostic> {
    let refused = |message: String, help: &str| {
        vec![
            Diagnostic::error(TREE, message)
                .primary(Label::file(file, "this configuration tree"))
                .help(help)
                .fact("file", file),
        ]
    };
    let tree = match fdt::open(dtb) {
        Ok(tree) => tree,
        Err(error) => return refused(format!("{file} is no device tree: {error}"), "compile it again with dtc"),
    };
    match Tree::new(tree).and_then(Config::from_tree) {
        Ok(config) => judge(file, &config, &machine(board)),
        Err(error) => {
            refused(format!("{file}: {error}"), "correct the tree: the hypervisor takes nothing that it does not know")
        }
    }
}

fn judge(file: &str, config: &Config<'_>, machine: &Machine) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    core_check(config, machine, &mut |finding| {
        let diagnostic = Diagnostic::new(finding.code(), finding.severity(), finding.to_string())
            .primary(Label::file(file, "this configuration tree"));
        found.push(match cure(&finding) {
            Some(cure) => diagnostic.help(cure),
            None => diagnostic,
        });
    });
    found.sort_by_key(|d| std::cmp::Reverse(d.severity));
    found
}

/// The cure of what only a tree can get wrong; the message of every other rule carries its numbers.
fn cure(finding: &Finding<'_>) -> Option<&'static str> {
    match finding {
        Finding::CpusIdle { .. } => {
            Some("`cpus` holds pairs of first CPU and count: <0 6> are the CPUs 0 to 5, not 0 to 6")
        }
        Finding::HypervisorMapped { .. } => Some("give the partition a phys-mem-area of its own"),
        Finding::SourceOwned { .. } => {
            Some("load the image where no area in use lies, or make the length in its row smaller")
        }
        Finding::NoCpu { .. } => Some("`cpus` holds pairs of first CPU and count; a count of 0 gives no CPU"),
        _ => None,
    }
}
