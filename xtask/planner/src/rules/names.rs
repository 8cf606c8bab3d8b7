//! Names that would meet in hv.dts or on a console although each is unique among its kind.

use std::collections::BTreeMap;

use crate::diag::{Diagnostic, Label};
use crate::input::reader::nearest;
use crate::input::{DUPLICATE_NAME, UNKNOWN_NAME};
use crate::plan::LoadPlan;
use crate::render::names;

/// Nodes that the template itself makes at the tree's root.
const FIXED_NODES: [&str; 2] = ["hypervisor-config", "byte-channel-mux"];

fn name_of(plan: &LoadPlan, partition: &str, key: &str, text: &str) -> Label {
    plan.profile.places.label(&format!("partition/{partition}/{key}"), text)
}

/// Judges the names of the root's nodes.
pub fn nodes(plan: &LoadPlan) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let areas = plan.areas.iter().map(|area| (area.name.as_str(), plan.area_label(area, "the area of this name")));
    let mut nodes: BTreeMap<&str, Option<Label>> = FIXED_NODES.iter().map(|node| (*node, None)).collect();
    nodes.extend(areas.map(|(name, label)| (name, Some(label))));
    for partition in &plan.partitions {
        if let Some(other) = nodes.get(partition.name.as_str()) {
            let place = name_of(plan, &partition.name, "name", "this name");
            let diagnostic =
                Diagnostic::error(DUPLICATE_NAME, format!("hv.dts has another node called `{}`", partition.name))
                    .primary(place)
                    .help("give the partition another name");
            found.push(other.iter().cloned().fold(diagnostic, Diagnostic::related));
        }
    }
    found
}

/// Judges the partitions' labels.
pub fn labels(plan: &LoadPlan) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut labels: BTreeMap<&str, &str> = BTreeMap::new();
    for partition in &plan.partitions {
        if let Some(first) = labels.insert(&partition.label, &partition.name) {
            found.push(
                Diagnostic::error(
                    DUPLICATE_NAME,
                    format!("partitions {first} and {} have the same label `{}`", partition.name, partition.label),
                )
                .primary(name_of(plan, &partition.name, "label", "the second"))
                .related(name_of(plan, first, "label", "the first"))
                .help("give one of them another label: consoles and the hypervisor's shell show nothing else"),
            );
        }
    }
    found
}

/// Judges whether the nodes are there that the profile gives names to.
pub fn given(plan: &LoadPlan) -> Vec<Diagnostic> {
    if plan.profile.names.is_empty() {
        return Vec::new();
    }
    let paths = names::paths(plan);
    let unknown = plan.profile.names.keys().filter(|path| !paths.contains(*path));
    let said = unknown.map(|path| {
        Diagnostic::error(UNKNOWN_NAME, format!("hv.dts has no node `{}` to give another name", path.escape_debug()))
            .primary(plan.profile.places.label(&format!("names/{path}"), "named here"))
            .help(match nearest(path, paths.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => {
                    "a device gets its name where it is assigned, by `node`; other paths are as `render` shows them \
                         without [names]"
                        .to_owned()
                }
            })
    });
    said.collect()
}
