//! Which nodes and properties a configuration tree may have: a table, and the check of a whole tree against it.

use super::{Error, Problem, Result, at, kind_of};
use crate::fdt::{Node as _, Place, Property as _, Walk};

/// A kind of node.
pub(super) struct Kind {
    /// The string in `compatible`.
    pub(super) compatible: &'static str,
    /// Where it has an effect.
    pub(super) place: Where,
    /// The properties it may have besides [`COMMON`].
    properties: &'static [&'static str],
}

/// Where a kind of node has an effect.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Where {
    Anywhere,
    Root,
    Hypervisor,
    Partition,
}

impl Where {
    const fn in_words(self) -> &'static str {
        match self {
            Self::Anywhere => "anywhere",
            Self::Root => "outside partitions and hv-config",
            Self::Hypervisor => "below hv-config",
            Self::Partition => "below a partition",
        }
    }
}

/// Properties that any node may have.
const COMMON: &[&str] = &["compatible", "phandle", "linux,phandle", "name", "#address-cells", "#size-cells"];
/// Properties of a node that assigns a device; `device` is what makes it one.
pub const DEVICE: &[&str] = &[
    "device",
    "baud",
    "claimable",
    "map-ranges",
    "dma-window",
    "operation-mapping",
    "stash-dest",
    "snoop-cpu-only",
    "vcpu",
    "liodn-index",
    "no-dma-disable",
    "atmu-guest-physical",
];

const fn kind_row(compatible: &'static str, place: Where, properties: &'static [&'static str]) -> Kind {
    Kind { compatible, place, properties }
}

const KINDS: &[Kind] = &[
    kind_row("fsl,hv-config", Where::Root, &["label", "model"]),
    kind_row("phys-mem-area", Where::Root, &["addr", "size", "zero-pma", "use-no-law", "allocate-cpc-ways"]),
    kind_row(
        "hv-config",
        Where::Root,
        &["stdout", "legacy-interrupts", "watchdog-enable", "sysreset-on-partition-stop"],
    ),
    kind_row("hv-memory", Where::Hypervisor, &["phys-mem", "hv-persistent-data"]),
    kind_row("byte-channel", Where::Anywhere, &["endpoint", "mux-channel"]),
    kind_row("byte-channel-mux", Where::Anywhere, &["endpoint"]),
    kind_row(
        "partition",
        Where::Root,
        &[
            "label",
            "cpus",
            "dtb-window",
            "guest-image",
            "load-image-table",
            "linux-rootfs",
            super::DIGESTS,
            super::SLOW_TRAPS,
            "no-auto-start",
            "init-map-size",
            "init-map-paddr",
            "init-map-vaddr",
            "privileged",
            "guest-cache-lock-disable",
            "guest-debug-disable",
            "mpic-direct-eoi",
            "direct-guest-tlb-management",
            "direct-guest-tlb-miss",
            "no-dma-disable",
            "defer-dma-disable",
            "watchdog-timeout",
            "watchdog-autostart-period",
            "device-ranges",
        ],
    ),
    kind_row("guest-phys-mem-area", Where::Partition, &["phys-mem", "guest-addr", "dma-only"]),
    kind_row("managed-partition", Where::Partition, &["partition"]),
    kind_row("error-manager", Where::Partition, &["vcpu", "claimable"]),
    kind_row("gdb-stub", Where::Partition, &["endpoint", "mux-channel", "debug-cpus", "gdb-wait-at-start"]),
    kind_row("debug-stub", Where::Partition, &["endpoint", "mux-channel", "debug-cpus", "gdb-wait-at-start"]),
    kind_row("doorbell", Where::Anywhere, &[]),
    kind_row("send-doorbell", Where::Partition, &["global-doorbell"]),
    kind_row("receive-doorbell", Where::Partition, &["global-doorbell"]),
    kind_row("dma-window", Where::Anywhere, &["guest-addr", "size", "subwindow-count"]),
    kind_row("dma-subwindow", Where::Anywhere, &["guest-addr", "size", "pcie-msi-subwindow", "srio-ccsr-subwindow"]),
];

/// The kind with this `compatible` string.
pub(super) fn kind(compatible: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.compatible == compatible)
}

/// The properties that a node of this kind may have besides those of any node; `None` for what is no kind.
pub fn properties(compatible: &str) -> Option<&'static [&'static str]> {
    kind(compatible).map(|kind| kind.properties)
}

/// Whether any node may have this property.
pub fn is_common(property: &str) -> bool {
    COMMON.contains(&property)
}

/// Whether the node edits the guest's tree instead of configuring the hypervisor.
fn is_node_update(place: &Place<'_>) -> bool {
    matches!(place.node.name_without_address(), "node-update" | "node-update-phandle")
}

/// Whether what is below the node is not the hypervisor's configuration: edits of the guest's tree, and
/// what belongs to an assigned device.
fn is_opaque(place: &Place<'_>) -> bool {
    is_node_update(place) || place.value("device").is_some() || place.name() == "portal-devices"
}

/// The node and all below it that configure the hypervisor; opaque nodes are returned, their inside is not.
pub(super) fn configuration_nodes<'a>(place: Place<'a>) -> impl Iterator<Item = Place<'a>> {
    struct Nodes<'a>(Walk<'a>);
    impl<'a> Iterator for Nodes<'a> {
        type Item = Place<'a>;
        fn next(&mut self) -> Option<Place<'a>> {
            let place = self.0.next()?;
            if is_opaque(&place) {
                self.0.skip_children();
            }
            Some(place)
        }
    }
    Nodes(place.walk())
}

/// Checks names and places of a whole tree.
pub(super) fn check<'a>(root: Place<'a>) -> Result<'a, ()> {
    check_below(root, Where::Root)
}

/// Checks the node and what is below it; `around` is the nearest node that gives its inside a meaning.
/// The recursion is bounded by [`crate::fdt::MAX_DEPTH`].
fn check_below<'a>(place: Place<'a>, around: Where) -> Result<'a, ()> {
    if is_node_update(&place) {
        return check_edits(place);
    }
    let kind = kind_of(place);
    if let Some(kind) = kind {
        if kind.place != Where::Anywhere && kind.place != around {
            return Err(at(place, "", Problem::Misplaced { belongs: kind.place.in_words() }));
        }
        check_properties(place, kind.properties)?;
    } else if place.value("device").is_some() {
        check_properties(place, DEVICE)?;
        return place.children().try_for_each(check_device);
    } else if place.name() == "portal-devices" {
        return place.children().try_for_each(check_device);
    } else if place.name() != "aliases" {
        check_container(place)?;
    }
    let inside = match kind.map(|kind| kind.compatible) {
        Some("partition") => Where::Partition,
        Some("hv-config") => Where::Hypervisor,
        _ => around,
    };
    place.children().try_for_each(|child| check_below(child, inside))
}

/// A node without a kind may group others, and has no properties of its own.
fn check_container<'a>(place: Place<'a>) -> Result<'a, ()> {
    let Some(property) = place.properties().find(|property| !is_common(property.name())) else {
        return Ok(());
    };
    let known = || DEVICE.iter().chain(KINDS.iter().flat_map(|kind| kind.properties)).copied();
    // `Device` is what happens to people who mean `device`; with the right case it says what the node is.
    let problem = match known().find(|name| *name != property.name() && name.eq_ignore_ascii_case(property.name())) {
        Some(name) => Problem::Unknown { property, suggestion: Some(name) },
        None => Problem::UnknownKind { property },
    };
    Err(at(place, "", problem))
}

/// Below a device there are its error policies, its DMA settings and edits of the guest's tree.
fn check_device<'a>(place: Place<'a>) -> Result<'a, ()> {
    if is_node_update(&place) {
        return check_edits(place);
    }
    if let Some(kind) = kind_of(place) {
        return Err(at(place, "", Problem::Misplaced { belongs: kind.place.in_words() }));
    }
    place.children().try_for_each(check_device)
}

/// Topaz searches edits of the guest's tree for configuration nodes too and would take them for its own.
fn check_edits<'a>(place: Place<'a>) -> Result<'a, ()> {
    let phantom = place.walk().find_map(|node| kind_of(node).map(|kind| (node, kind)));
    match phantom {
        Some((node, kind)) => Err(at(node, "", Problem::Misplaced { belongs: kind.place.in_words() })),
        None => Ok(()),
    }
}

fn check_properties<'a>(place: Place<'a>, allowed: &'static [&'static str]) -> Result<'a, ()> {
    let wrong = place.properties().find(|property| {
        let name = property.name();
        !is_common(name) && !allowed.contains(&name)
    });
    let Some(property) = wrong else { return Ok(()) };
    let suggestion = allowed.iter().copied().find(|name| is_near(name, property.name()));
    Err(Error { path: place.path(), property: "", problem: Problem::Unknown { property, suggestion } })
}

/// Whether two names differ in case or in one place only.
fn is_near(name: &str, have: &str) -> bool {
    let (a, b) = (name.as_bytes(), have.as_bytes());
    let same = |(x, y): &(&u8, &u8)| x.eq_ignore_ascii_case(y);
    let front = a.iter().zip(b).take_while(same).count();
    let room = a.len().min(b.len()) - front;
    let back = a.iter().rev().zip(b.iter().rev()).take(room).take_while(same).count();
    a.len().max(b.len()) - front - back <= 1
}
