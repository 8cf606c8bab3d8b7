//! What the nodes of hv.dts are called, unless the profile's `[names]` says otherwise.

use std::collections::{BTreeMap, BTreeSet};

use crate::plan::LoadPlan;

/// The hypervisor's own node.
pub const HYPERVISOR: &str = "hypervisor-config";
/// The node around the DMA windows.
pub const WINDOWS: &str = "dma-windows";
/// The multiplexer of the consoles.
pub const MUX: &str = "byte-channel-mux";
/// The console of the hypervisor and of each partition.
pub const CONSOLE: &str = "byte-channel";

/// The names that a profile gives.
#[derive(Clone, Copy)]
pub struct Names<'p>(pub &'p BTreeMap<String, String>);

impl Names<'_> {
    /// The name of the node that usually has this path.
    pub fn of(self, path: &[&str]) -> String {
        let usual = path.last().copied().unwrap_or_default();
        if self.0.is_empty() {
            return usual.to_owned();
        }
        let path: String = path.iter().flat_map(|part| ["/", part]).collect();
        self.0.get(&path).map_or(usual, String::as_str).to_owned()
    }
}

/// The usual paths of the nodes that `[names]` may name: all but devices, which are named where they are assigned.
pub fn paths(plan: &LoadPlan) -> BTreeSet<String> {
    let mut paths: BTreeSet<String> = [HYPERVISOR, WINDOWS, MUX].map(|name| format!("/{name}")).into();
    paths.extend(plan.areas.iter().map(|area| format!("/{}", area.name)));
    let uart = plan.board.uarts.first().map_or("serial0", |uart| uart.alias.as_str());
    let boards = plan.board.hv_devices.iter().map(|device| device.name.as_str());
    paths.extend(boards.chain(["hv-memory", uart, CONSOLE]).map(|name| format!("/{HYPERVISOR}/{name}")));
    for partition in &plan.partitions {
        let own = format!("/{}", partition.name);
        let areas = std::iter::once(partition.memory).chain(partition.shared.iter().map(|(area, _)| *area));
        let areas = areas.filter_map(|area| Some(plan.areas.get(area)?.name.as_str()));
        let channels = partition.channels.iter().map(|end| end.node.as_str());
        let managed = partition.manages.iter().map(|managed| managed.node.as_str());
        paths.extend(areas.chain(channels).chain(managed).chain([CONSOLE]).map(|name| format!("{own}/{name}")));
        paths.insert(own);
        if let Some(window) = &partition.dma {
            let own = format!("/{WINDOWS}/{}", window.node);
            paths.extend((0..window.subwindows.len()).map(|index| format!("{own}/sub-window@{index}")));
            paths.insert(own);
        }
        let rings = partition.devices.iter().filter_map(|device| device.stash.as_ref());
        paths.extend(rings.map(|ring| format!("/{WINDOWS}/{}", ring.node)));
    }
    paths
}
