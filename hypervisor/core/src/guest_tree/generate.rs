//! The nodes that every guest's tree has, before the configuration edits them.

use core::fmt::Write as _;

use arrayvec::ArrayString;
use citrine_formats::addr::{Address as _, GuestPhys, Span};
use citrine_formats::fdt::{Place, Property as _, strings};
use citrine_formats::hvconfig::{self, Problem};

use super::arena::{Arena, NodeId};
use super::{Error, Input, Runtime, SPIN_ENTRY_LEN, VMPIC};
use crate::config::{Config, CpuRange, Managed, Partition};
use crate::handles::{self, Local};
use crate::hardware;

/// Major and minor version of the Topaz whose interfaces these are, its API's version, and the oldest API that
/// it is compatible with.
const VERSION: [u32; 4] = [1, 3, 3, 2];
/// `sc 1`.
const HYPERCALL: u32 = 0x4400_0022;
/// Properties of the hardware's `/cpus` that no guest of this hypervisor has; the flags of the partition take
/// away two more.
const NOT_FOR_GUESTS: [&str; 3] = ["power-isa-e.hv", "power-isa-e.hv.lrat", "power-isa-64"];

/// The root's own properties.
pub(super) fn root<'a>(
    arena: &mut Arena,
    root: NodeId,
    config: &Partition<'a>,
    hardware: Place<'a>,
) -> Result<(), Error<'a>> {
    arena.set_strings(root, "label", &[config.name])?;
    arena.set_cells(root, "#address-cells", &[2])?;
    arena.set_cells(root, "#size-cells", &[2])?;
    if let Some(list) = hardware.value("compatible") {
        arena.set_concatenated(root, "compatible", strings(list).flat_map(|name| [name, "-hv\0"]))?;
    }
    arena.set_strings(root, "epapr-version", &["ePAPR-1.0"])?;
    Ok(())
}

/// `/hypervisor`.
pub(super) fn hypervisor<'a>(
    arena: &mut Arena,
    root: NodeId,
    input: &Input<'_, 'a>,
    runtime: &Runtime,
    place: Place<'a>,
) -> Result<(), Error<'a>> {
    let node = arena.add(root, "hypervisor")?;
    arena.set_strings(node, "compatible", &["fsl,embedded-hypervisor-v1.3", "epapr,hypervisor-1"])?;
    arena.set_cells(node, "guest-id", &[handles::partition(input.partition as u32)])?;
    let name = input.config.partitions.get(input.partition).map_or("", |partition| partition.name);
    arena.set_strings(node, "guest-name", &[name])?;
    arena.set_cells(node, "fsl,hv-version", &VERSION)?;
    arena.set_cells(node, "hcall-instructions", &[HYPERCALL])?;
    for (flag, property) in [
        ("guest-cache-lock-disable", "fsl,hv-guest-cache-lock-disable"),
        ("guest-debug-disable", "fsl,hv-guest-debug-disable"),
    ] {
        if place.value(flag).is_some() {
            arena.set(node, property, &[])?;
        }
    }
    if let Some(stop) = runtime.stopped {
        arena.set_strings(node, "fsl,hv-stopped-by", &[text(format_args!("{}", stop.by)).as_str()])?;
        arena.set_strings(node, "fsl,hv-reason-stopped", &[text(format_args!("{}", stop.reason)).as_str()])?;
    }
    Ok(())
}

/// `/cpus`: a copy of the hardware's node of each CPU that the partition has.
pub(super) fn cpus<'a>(
    arena: &mut Arena,
    root: NodeId,
    config: &Partition<'a>,
    runtime: &Runtime,
    hardware: Place<'a>,
    place: Place<'a>,
) -> Result<(), Error<'a>> {
    let Some(hardware) = hardware.child("cpus") else {
        return Err(Error::Hardware { why: "the hardware tree has no /cpus" });
    };
    let node = arena.add(root, "cpus")?;
    copy_properties(arena, hardware, node)?;
    NOT_FOR_GUESTS.iter().for_each(|property| arena.remove(node, property));
    if place.value("guest-debug-disable").is_some() {
        arena.remove(node, "power-isa-e.ed");
    }
    if place.value("guest-cache-lock-disable").is_some() {
        arena.remove(node, "power-isa-ecl");
    }
    arena.set_cells(node, "#address-cells", &[1])?;
    arena.set_cells(node, "#size-cells", &[0])?;
    for (vcpu, cpu) in (0u32..).zip(config.cpus.iter().flat_map(CpuRange::numbers)) {
        let source = find_cpu(hardware, cpu).ok_or(Error::NoCpu { vcpu, cpu })?;
        let node = arena.add(node, &text(format_args!("cpu@{vcpu:x}")))?;
        copy(arena, source, node)?;
        arena.set_cells(node, "reg", &[vcpu])?;
        if vcpu == 0 {
            arena.set_strings(node, "status", &["okay"])?;
            // The boot loader's, when this was a secondary CPU of the hardware.
            arena.remove(node, "enable-method");
            arena.remove(node, "cpu-release-addr");
        } else {
            arena.set_strings(node, "status", &["disabled"])?;
            arena.set_strings(node, "enable-method", &["spin-table"])?;
            let entry = runtime.spin_table.get().saturating_add(u64::from(vcpu) * SPIN_ENTRY_LEN);
            arena.set(node, "cpu-release-addr", &[&entry.to_be_bytes()])?;
        }
    }
    Ok(())
}

/// The hardware's node of the CPU with this number; a threaded core has several numbers.
fn find_cpu(cpus: Place<'_>, number: u32) -> Option<Place<'_>> {
    let (address_cells, _) = hardware::cells(cpus);
    cpus.children().filter(|node| node.string("device_type") == Some("cpu")).find(|node| {
        let mut reg = node.value("reg").unwrap_or_default();
        let mut numbers = core::iter::from_fn(|| match reg.is_empty() {
            true => None,
            false => hardware::take(&mut reg, address_cells.max(1)),
        });
        numbers.any(|have| have == u64::from(number))
    })
}

/// The name of a memory node.
pub(super) fn memory_name(base: GuestPhys) -> Text {
    text(format_args!("memory@{:x}", base.get()))
}

/// A memory node.
pub(super) fn memory<'a>(
    arena: &mut Arena,
    root: NodeId,
    place: Place<'a>,
    span: Span<GuestPhys>,
) -> Result<NodeId, Error<'a>> {
    let node = add_new(arena, root, &memory_name(span.base()), place)?;
    arena.set_strings(node, "device_type", &["memory"])?;
    arena.set_each(node, "reg", [span.base().get(), span.len()].into_iter().map(u64::to_be_bytes))?;
    Ok(node)
}

/// `/chosen`, when there is a RAM disk.
pub(super) fn chosen<'a>(arena: &mut Arena, root: NodeId, runtime: &Runtime) -> Result<(), Error<'a>> {
    if let Some(initrd) = runtime.initrd {
        let node = arena.add(root, "chosen")?;
        arena.set(node, "linux,initrd-start", &[&initrd.base().get().to_be_bytes()])?;
        arena.set(node, "linux,initrd-end", &[&initrd.end().get().to_be_bytes()])?;
    }
    Ok(())
}

/// `/devices` and the interrupt controller in it.
pub(super) fn devices<'a>(
    arena: &mut Arena,
    root: NodeId,
    hardware: Place<'a>,
    place: Place<'a>,
) -> Result<(), Error<'a>> {
    const RANGES: &str = "device-ranges";
    let ranges = place.value(RANGES);
    if let Some(rows) = ranges.filter(|rows| rows.is_empty() || rows.len() % 24 != 0) {
        let want = "rows of 6 cells (true-physical, guest-physical, size; two each)";
        let problem = Problem::Length { have: rows.len(), want };
        return Err(Error::Config(hvconfig::Error { path: place.path(), property: RANGES, problem }));
    }
    let node = arena.add(root, "devices")?;
    arena.set_strings(node, "compatible", &["simple-bus"])?;
    arena.set(node, "ranges", &[ranges.unwrap_or_default()])?;
    arena.set_cells(node, "#address-cells", &[2])?;
    arena.set_cells(node, "#size-cells", &[2])?;
    if let Some(soc) = hardware.walk().find(|node| node.string("device_type") == Some("soc")) {
        arena.set_strings(node, "device_type", &["soc"])?;
        if let Some(frequency) = soc.value("bus-frequency") {
            arena.set(node, "bus-frequency", &[frequency])?;
        }
    }

    let node = arena.add(node, "vmpic")?;
    arena.set_strings(node, "compatible", &["epapr,hv-pic"])?;
    arena.set_cells(node, "#interrupt-cells", &[2])?;
    arena.set_cells(node, "#address-cells", &[0])?;
    arena.set(node, "interrupt-controller", &[])?;
    // The virtual controller always hands over the interrupt in EPR, however the real one is read.
    arena.set(node, "has-external-proxy", &[])?;
    arena.set(node, "no-priority", &[])?;
    arena.set_cells(node, "phandle", &[VMPIC])?;
    arena.set_cells(node, "linux,phandle", &[VMPIC])?;
    Ok(())
}

/// `/hypervisor/handles`.
pub(super) fn handles<'a>(arena: &mut Arena, root: NodeId) -> Result<NodeId, Error<'a>> {
    let hypervisor = arena.add(root, "hypervisor")?;
    let node = arena.add(hypervisor, "handles")?;
    arena.set_cells(node, "#address-cells", &[1])?;
    arena.set_cells(node, "#size-cells", &[0])?;
    arena.set_cells(node, "interrupt-parent", &[VMPIC])?;
    Ok(node)
}

/// A byte channel.
pub(super) fn channel<'a>(
    arena: &mut Arena,
    handles: NodeId,
    index: usize,
    place: Place<'a>,
) -> Result<NodeId, Error<'a>> {
    let node = add_new(arena, handles, place.name(), place)?;
    arena.set_strings(node, "compatible", &["epapr,hv-byte-channel"])?;
    let handle = Local::Channel(index).number();
    arena.set_cells(node, "reg", &[handle])?;
    arena.set_cells(node, "hv-handle", &[handle])?;
    // Both edge: the channel tells what has changed.
    arena.set_cells(node, "interrupts", &[Local::Receive(index).number(), 0, Local::Transmit(index).number(), 0])?;
    Ok(node)
}

/// A partition that this one may control.
pub(super) fn managed<'a>(
    arena: &mut Arena,
    handles: NodeId,
    managed: &Managed<'a>,
    config: &Config<'a>,
    place: Place<'a>,
) -> Result<(), Error<'a>> {
    let node = add_new(arena, handles, place.name(), place)?;
    arena.note(place.phandle(), node)?;
    let handle = handles::partition(managed.partition as u32);
    arena.set_strings(node, "compatible", &["fsl,hv-partition-handle"])?;
    arena.set_cells(node, "reg", &[handle])?;
    arena.set_cells(node, "hv-handle", &[handle])?;
    let label = config.partitions.get(managed.partition).map_or("", |partition| partition.name);
    arena.set_strings(node, "label", &[label])?;
    Ok(())
}

/// A node that must not be there yet: two of one name would become one.
fn add_new<'a>(arena: &mut Arena, to: NodeId, name: &str, place: Place<'a>) -> Result<NodeId, Error<'a>> {
    if arena.exact_child(to, name).is_some() {
        return Err(Error::Twice { name: place.name() });
    }
    Ok(arena.add(to, name)?)
}

/// Copies a node's properties and everything below it. The recursion is bounded by the depth of the tree.
fn copy<'a>(arena: &mut Arena, from: Place<'a>, to: NodeId) -> Result<(), Error<'a>> {
    copy_properties(arena, from, to)?;
    for child in from.children() {
        let node = arena.add(to, child.name())?;
        copy(arena, child, node)?;
    }
    Ok(())
}

fn copy_properties<'a>(arena: &mut Arena, from: Place<'a>, to: NodeId) -> Result<(), Error<'a>> {
    for property in from.properties() {
        arena.set(to, property.name(), &[property.value()])?;
    }
    Ok(())
}

/// A short text that is made of a number.
type Text = ArrayString<32>;

/// What does not fit is cut off; nothing here is as long.
fn text(arguments: core::fmt::Arguments<'_>) -> Text {
    let mut text = Text::new();
    let _ = text.write_fmt(arguments);
    text
}
