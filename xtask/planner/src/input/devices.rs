//! The keys of a profile that speak of the board's devices: lists of them, portals, DMA windows, the numbers of the
//! data path, and devicetree source for what has no key.

use super::reader::{At, Table};
use crate::dts::{parse_fragment, print};
use crate::profile::{DataPath, DeviceUse, Dma, DmaWindow};

/// Most portals, or ranges of one kind of number, that a partition may name.
const MAX_NUMBERS: usize = 64;
/// Longest devicetree source of one key, in bytes.
const MAX_SOURCE: usize = 64 << 10;

/// What the keys of one partition say.
pub(super) struct Devices {
    pub devices: Vec<DeviceUse>,
    pub optional: Vec<DeviceUse>,
    pub qman_portals: Vec<u32>,
    pub bman_portals: Vec<u32>,
    pub portal_devices: Vec<DeviceUse>,
    pub data_path: DataPath,
    pub dma: Option<Dma>,
}

/// Reads the keys of a partition.
pub(super) fn read(table: &mut Table<'_>) -> Devices {
    let read = Devices {
        devices: list(table, "devices"),
        optional: list(table, "optional-devices"),
        qman_portals: portals(table, "qman-portals"),
        bman_portals: portals(table, "bman-portals"),
        portal_devices: list(table, "portal-devices"),
        data_path: table.table("data-path", data_path).unwrap_or_default(),
        dma: dma(table),
    };
    let all = || read.devices.iter().chain(&read.optional);
    for (msi, device) in all().filter_map(|device| Some((device.msi.as_ref()?, &device.device))) {
        if all().all(|other| other.device != *msi) {
            table.impossible(
                table.range(),
                format!("`{device}` is to send its messages to `{msi}`, which the partition does not have"),
                format!("add \"{msi}\" to the partition's devices, or name one that is there"),
            );
        }
    }
    read
}

/// A list of devices: each a path or an alias, or a table that says more.
pub fn list(table: &mut Table<'_>, key: &'static str) -> Vec<DeviceUse> {
    table.mixed(
        key,
        |table, device| Some(plain(named(table, device)?)),
        |table| {
            let device = table.string("device");
            let device = table.required("device", device);
            let node = table.string("node").and_then(|node| {
                let right = is_node_name(&node.value);
                if !right {
                    table.impossible(
                        node.range,
                        format!("`{}` is no name of a node", node.value.escape_debug()),
                        "1 to 31 letters, digits and `,._+-`, and perhaps `@` with an address (ePAPR 1.1 §2.2.1)",
                    );
                }
                right.then_some(node.value)
            });
            let msi = table.string("msi").and_then(|msi| named(table, msi));
            let dma = table.boolean("dma").map(|at| at.value);
            let dts = source(table);
            let device = named(table, device?)?;
            Some(DeviceUse { node, msi, dma, dts, ..plain(device) })
        },
    )
}

fn plain(device: String) -> DeviceUse {
    DeviceUse { device, node: None, msi: None, dma: None, dts: String::new() }
}

/// A path or alias in the hardware tree, of characters that can stand in a string of hv.dts.
fn named(table: &Table<'_>, device: At<String>) -> Option<String> {
    // Topaz `MAX_DT_PATH`, with its NUL.
    let is_path = (1..256).contains(&device.value.len())
        && device.value.bytes().all(|b| b.is_ascii_alphanumeric() || b"/,._+-@".contains(&b));
    if is_path {
        return Some(device.value);
    }
    table.impossible(
        device.range,
        format!("`{}` is neither a path nor an alias", device.value.escape_debug()),
        "a path in the hardware tree such as \"/soc/i2c@118100\", or an alias such as \"serial1\"",
    );
    None
}

/// Whether `text` can name a node (ePAPR 1.1 §2.2.1).
pub fn is_node_name(text: &str) -> bool {
    let (name, address) = text.split_once('@').unwrap_or((text, "0"));
    let is_right = |part: &str| part.bytes().all(|b| b.is_ascii_alphanumeric() || b",._+-".contains(&b));
    (1..=31).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && (1..=31).contains(&address.len())
        && is_right(name)
        && is_right(address)
}

/// Numbers and inclusive ranges of them, in decimal or with `0x`.
fn ranges(text: &str) -> Option<Vec<(u32, u32)>> {
    let number = |text: &str| match text.trim().strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.trim().parse().ok(),
    };
    let range = |item: &str| {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        let (first, last) = (number(first)?, number(last)?);
        // Its length must be a cell, too.
        (first <= last && last < u32::MAX).then_some((first, last))
    };
    let ranges: Option<Vec<_>> = text.split(',').take(MAX_NUMBERS + 1).map(range).collect();
    ranges.filter(|ranges| ranges.len() <= MAX_NUMBERS)
}

fn read_ranges(table: &mut Table<'_>, key: &'static str, most: usize) -> Vec<(u32, u32)> {
    let Some(text) = table.string(key) else { return Vec::new() };
    match ranges(&text.value) {
        Some(ranges) if ranges.len() <= most => ranges,
        _ => {
            let example =
                if most == 1 { "one range such as \"32-47\"" } else { "ranges such as \"0-6,8,0x100-0x17f\"" };
            table.impossible(text.range, format!("`{}` is no `{key}`", text.value.escape_debug()), example);
            Vec::new()
        }
    }
}

fn portals(table: &mut Table<'_>, key: &'static str) -> Vec<u32> {
    let ranges = read_ranges(table, key, MAX_NUMBERS);
    // A SoC has some fifty; a range of millions is a mistake that would take long to find out.
    ranges.into_iter().flat_map(|(first, last)| first..=last.min(first.saturating_add(255))).collect()
}

fn data_path(table: &mut Table<'_>) -> Option<DataPath> {
    Some(DataPath {
        bpids: read_ranges(table, "bpids", 1),
        fqids: read_ranges(table, "fqids", 2),
        pool_channels: read_ranges(table, "pool-channels", 1),
        cgrids: read_ranges(table, "cgrids", 1),
    })
}

fn dma(table: &mut Table<'_>) -> Option<Dma> {
    if !table.is_text("dma") {
        return table.table("dma", |table| {
            let size = table.size("size");
            let size = table.required("size", size);
            let subwindows = table.integer("subwindows", 1 << 15);
            let subwindows = table.required("subwindows", subwindows);
            let reach = table.names("reach");
            let reach = table.required("reach", reach);
            Some(Dma::Window(DmaWindow {
                size: size?.value,
                subwindows: u32::try_from(subwindows?.value).ok()?,
                reach: reach?.into_iter().map(|name| name.value).collect(),
            }))
        });
    }
    let dma = table.string("dma")?;
    if dma.value == "memory" {
        return Some(Dma::Memory);
    }
    table.impossible(
        dma.range,
        format!("`{}` is nothing that devices may reach", dma.value.escape_debug()),
        "\"memory\": the devices read and write the partition's own memory; leave it out for devices without DMA",
    );
    None
}

/// The devicetree source under the key `dts`, in its normal form: nothing else reaches hv.dts.
pub fn source(table: &mut Table<'_>) -> String {
    let Some(text) = table.string("dts") else { return String::new() };
    if text.value.len() > MAX_SOURCE {
        table.impossible(text.range, format!("`dts` has {} bytes", text.value.len()), "at most 64 KiB are possible");
        return String::new();
    }
    // What stands around the text: quotes, and behind three of them the end of a line. With escapes in it, its bytes
    // are not those of the file, and only the text as a whole has a place.
    let opening = match text.range.len().saturating_sub(text.value.len()) {
        2 => 1,
        6 => 3,
        7 => 4,
        _ => 0,
    };
    let (items, found) = parse_fragment(table.collected().file(), &text.value, text.range.start + opening);
    for mut diagnostic in found {
        if opening == 0 {
            diagnostic.primary = Some(table.collected().label(text.range.clone(), "in this source"));
            diagnostic.related.clear();
        }
        table.collected().report(diagnostic);
    }
    print(&items, 0)
}
