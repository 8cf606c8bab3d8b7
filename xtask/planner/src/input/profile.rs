//! The keys of `profiles/*.toml`, and the defaults of those that are left out.

use std::collections::BTreeMap;
use std::ops::Range;

use citrine_formats::addr::{GuestPhys, TruePhys};

use super::devices;
use super::reader::{At, Table, nearest, read_document};
use super::{DUPLICATE_NAME, IMPOSSIBLE_VALUE, UNKNOWN_NAME};
use crate::diag::Diagnostic;
use crate::profile::{Channel, FORMAT, Firmware, HypervisorUse, ImageUse, Partition, Profile, SharedArea};
use crate::units::{CpuChoice, MAX_CPUS, parse_cpu_list};

/// Most partitions of a profile (Topaz `CONFIG_MAX_PARTITIONS`).
pub const MAX_PARTITIONS: usize = 24;
/// Where Linux expects to be entered: its uImage has load address and entry 0.
const DEFAULT_KERNEL_ADDRESS: u64 = 0;
/// Where the guest tree goes: below the 64 MiB that Linux maps at first, above any kernel's end.
const DEFAULT_DTB_ADDRESS: u64 = 0x0100_0000;
/// Room for the guest tree; every partition with few devices fits half of it.
const DEFAULT_DTB_SIZE: u64 = 0x4_0000;
/// Where the root file system goes.
const DEFAULT_ROOTFS_ADDRESS: u64 = 0x0130_0000;
/// Where shared memory appears: above every partition's own.
const DEFAULT_SHARED_ADDRESS: u64 = 0x8000_0000;
/// Highest mux channel number that is a number at all; that it is below 32 is the hypervisor's rule.
const MAX_CHANNEL: u64 = 255;
/// Longest string, in bytes: Linux's `COMMAND_LINE_SIZE` on PowerPC.
const MAX_BOOTARGS: usize = 2048;

/// Reads the text of a profile. `file` is its name in diagnostics.
pub fn parse(file: &str, text: &str) -> (Option<Profile>, Vec<Diagnostic>) {
    let (profile, places, mut diagnostics) = read_document(file, text, read);
    let profile = profile.filter(|_| diagnostics.is_empty()).map(|profile| Profile { places, ..profile });
    if profile.is_none() && diagnostics.is_empty() {
        diagnostics.push(Diagnostic::error(IMPOSSIBLE_VALUE, format!("{file} does not describe a profile")));
    }
    (profile, diagnostics)
}

/// A text that ends up in a device tree string and, for boot arguments, in a U-Boot script: printable
/// ASCII without quotes, `$`, `;`, `&`, `|` or a backslash, so that no reader of it sees syntax.
fn plain_text(table: &mut Table<'_>, key: &'static str, max: usize) -> Option<String> {
    let text = table.string(key)?;
    let bad = text.value.chars().find(|c| !(' '..='~').contains(c) || "\"'`$;&|\\{}<>#".contains(*c));
    if let Some(bad) = bad {
        table.impossible(
            text.range,
            match bad {
                ' '..='~' => format!("`{key}` holds the character {bad}"),
                _ => format!("`{key}` holds the character {}", bad.escape_unicode()),
            },
            "only printable ASCII without quotes, `$`, `;`, `&`, `|`, `\\`, `{}`, `<>` and `#` reaches scripts and trees",
        );
        return None;
    }
    if text.value.len() > max {
        table.impossible(
            text.range,
            format!("`{key}` has {} characters", text.value.len()),
            format!("at most {max} are possible"),
        );
        return None;
    }
    Some(text.value)
}

fn channel(table: &mut Table<'_>, key: &'static str) -> Option<u32> {
    table.integer(key, MAX_CHANNEL).and_then(|at| u32::try_from(at.value).ok())
}

fn image_use(table: &mut Table<'_>, default_address: u64) -> Option<ImageUse> {
    let image = table.name("image");
    let image = table.required("image", image);
    let guest_address = table.address("guest-address").map_or(default_address, |at| at.value);
    let load = table.integer("load", u64::from(u32::MAX)).map(|at| TruePhys(at.value));
    let window = table.size("window").map(|at| at.value);
    Some(ImageUse { image: image?.value, guest_address: GuestPhys(guest_address), load, window })
}

fn cpus(table: &mut Table<'_>) -> Option<CpuChoice> {
    let text = table.string("cpus");
    let text = table.required("cpus", text)?;
    let choice = CpuChoice::parse(&text.value);
    if choice.is_none() {
        table.impossible(
            text.range,
            format!("`{}` is no choice of CPUs", text.value.escape_debug()),
            format!("\"rest\", \"first N\", \"last N\", or a list such as \"0-5,7\" of numbers below {MAX_CPUS}"),
        );
    }
    choice
}

/// The names of the partitions that the one of this name manages: others, each once.
fn manages(table: &mut Table<'_>, name: Option<&At<String>>) -> Vec<At<String>> {
    let names = table.names("manages").unwrap_or_default();
    for (index, other) in names.iter().enumerate() {
        let shown = other.value.escape_debug();
        let message = if name.is_some_and(|name| name.value == other.value) {
            format!("the partition `{shown}` is to manage itself")
        } else if names.iter().take(index).any(|before| before.value == other.value) {
            format!("`manages` names `{shown}` twice")
        } else {
            continue;
        };
        table.impossible(other.range.clone(), message, "name other partitions, each once; every one may stop itself");
    }
    names
}

/// A partition's name, the partition when it makes sense, and those that it manages as they are named.
type Owner = (At<String>, Option<Partition>, Vec<At<String>>);

/// A partition with its name; the name alone when the rest is not usable, so that others may refer to it.
fn partition(table: &mut Table<'_>) -> Option<Owner> {
    let name = table.name("name");
    let name = table.required("name", name);
    if let Some(name) = &name {
        table.rename(&format!("partition/{}", name.value));
        table.collected().place(&table.path_of("name"), name.range.clone());
    }
    let label = table.name("label").map(|at| at.value);
    let cpus = cpus(table);
    let memory = table.size("memory");
    let memory = table.required("memory", memory);
    let memory_address = table.address("memory-address").map(|at| TruePhys(at.value));
    let console = channel(table, "console");
    let console = table.required("console", console);
    let bootargs = plain_text(table, "bootargs", MAX_BOOTARGS - 1).unwrap_or_default();
    let kernel = table.table("kernel", |t| image_use(t, DEFAULT_KERNEL_ADDRESS));
    let kernel = table.required("kernel", kernel);
    let rootfs = table.table("rootfs", |t| image_use(t, DEFAULT_ROOTFS_ADDRESS));
    let dtb_address = table.address("dtb-address").map_or(DEFAULT_DTB_ADDRESS, |at| at.value);
    let dtb_size = table.size("dtb-size").map_or(DEFAULT_DTB_SIZE, |at| at.value);
    let devices = devices::read(table);
    let fast_traps = table.boolean("fast-traps").is_none_or(|at| at.value);
    let manages = manages(table, name.as_ref());
    let dts = devices::source(table);
    let name = name?;
    let read = || {
        Some(Partition {
            label: label.unwrap_or_else(|| name.value.clone()),
            name: name.value.clone(),
            cpus: cpus?,
            memory: memory?.value,
            memory_address,
            console: console?,
            bootargs,
            kernel: kernel?,
            rootfs,
            dtb_address: GuestPhys(dtb_address),
            dtb_size,
            devices: devices.devices,
            optional_devices: devices.optional,
            qman_portals: devices.qman_portals,
            bman_portals: devices.bman_portals,
            portal_devices: devices.portal_devices,
            data_path: devices.data_path,
            dma: devices.dma,
            fast_traps,
            manages: manages.iter().map(|other| other.value.clone()).collect(),
            dts,
        })
    };
    let partition = read();
    Some((name, partition, manages))
}

fn shared(table: &mut Table<'_>) -> Option<(At<String>, SharedArea, Vec<At<String>>)> {
    let name = table.name("name");
    let name = table.required("name", name);
    if let Some(name) = &name {
        table.rename(&format!("shared/{}", name.value));
        table.collected().place(&table.path_of("name"), name.range.clone());
    }
    let size = table.size("size");
    let size = table.required("size", size);
    let address = table.address("address").map(|at| TruePhys(at.value));
    let guest_address = table.address("guest-address").map_or(DEFAULT_SHARED_ADDRESS, |at| at.value);
    let partitions = table.names("partitions");
    let partitions = table.required("partitions", partitions);
    let (name, partitions) = (name?, partitions?);
    let area = SharedArea {
        name: name.value.clone(),
        size: size?.value,
        address,
        guest_address: GuestPhys(guest_address),
        partitions: partitions.iter().map(|p| p.value.clone()).collect(),
    };
    Some((name, area, partitions))
}

/// The name of a channel between two partitions, the channel when it makes sense, and the partitions as they are named.
type Connection = (At<String>, Option<Channel>, Vec<At<String>>);

fn connection(table: &mut Table<'_>) -> Option<Connection> {
    let name = table.name("name");
    let name = table.required("name", name);
    if let Some(name) = &name {
        table.rename(&format!("channel/{}", name.value));
        table.collected().place(&table.path_of("name"), name.range.clone());
    }
    let partitions = table.names("partitions");
    let partitions = table.required("partitions", partitions);
    let (name, partitions) = (name?, partitions?);
    let channel = match partitions.as_slice() {
        [a, b] if a.value != b.value => {
            Some(Channel { name: name.value.clone(), partitions: [a.value.clone(), b.value.clone()] })
        }
        _ => {
            table.impossible(
                table.range(),
                format!("the channel `{}` does not connect two partitions", name.value),
                "name two different partitions: `partitions = [\"p1\", \"p2\"]`",
            );
            None
        }
    };
    Some((name, channel, partitions))
}

fn firmware(table: &mut Table<'_>) -> Firmware {
    let Some(firmware) = table.string("firmware") else { return Firmware::default() };
    match firmware.value.as_str() {
        "citrine" => Firmware::Citrine,
        "freescale" => Firmware::Freescale,
        other => {
            table.impossible(
                firmware.range,
                format!("`{}` is no hypervisor that is known", other.escape_debug()),
                "\"citrine\", which is built here, or \"freescale\", which `bundle` takes from --hypervisor FILE",
            );
            Firmware::default()
        }
    }
}

/// Names of nodes by path.
fn names(root: &mut Table<'_>) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    for (path, name) in root.texts("names").unwrap_or_default() {
        if devices::is_node_name(&name.value) {
            names.insert(path.value, name.value);
        } else {
            root.impossible(
                name.range,
                format!("`{}` is no name of a node", name.value.escape_debug()),
                "1 to 31 letters, digits and `,._+-`, and perhaps `@` with an address (ePAPR 1.1 §2.2.1)",
            );
        }
    }
    names
}

fn hypervisor(table: &mut Table<'_>) -> Option<HypervisorUse> {
    let console = channel(table, "console");
    let console = table.required("console", console);
    let bootargs = plain_text(table, "bootargs", MAX_BOOTARGS - 1).unwrap_or_default();
    let baud = table.boolean("baud").is_none_or(|at| at.value);
    let memory = table.size("memory").map(|at| at.value);
    let memory_address = table.address("memory-address").map(|at| TruePhys(at.value));
    let firmware = firmware(table);
    let devices = devices::list(table, "devices");
    Some(HypervisorUse { console: console?, bootargs, baud, memory, memory_address, firmware, devices })
}

/// Reports every name that is given twice.
fn unique<'n>(root: &Table<'_>, what: &str, names: impl Iterator<Item = &'n At<String>>) {
    let mut seen: BTreeMap<&str, &Range<usize>> = BTreeMap::new();
    for name in names {
        if let Some(first) = seen.insert(&name.value, &name.range) {
            root.collected().report(
                Diagnostic::error(DUPLICATE_NAME, format!("two {what} are called `{}`", name.value))
                    .primary(root.collected().label(name.range.clone(), "the second"))
                    .related(root.collected().label(first.clone(), "the first"))
                    .help("give one of them another name"),
            );
        }
    }
}

fn read(root: &mut Table<'_>) -> Option<Profile> {
    let name = root.name("name");
    let name = root.required("name", name);
    let title = plain_text(root, "title", 100);
    let title = root.required("title", title);
    let epoch = root.integer("epoch", u64::from(u32::MAX)).and_then(|at| u32::try_from(at.value).ok()).unwrap_or(0);
    let unused_cpus = match root.string("unused-cpus") {
        None => Vec::new(),
        Some(text) => match parse_cpu_list(&text.value) {
            Some(cpus) => cpus.into_iter().collect(),
            None => {
                root.impossible(
                    text.range,
                    format!("`{}` is no list of CPUs", text.value.escape_debug()),
                    format!("a list such as \"6\" or \"4-5,7\" of numbers below {MAX_CPUS}"),
                );
                Vec::new()
            }
        },
    };
    let hypervisor = root.table("hypervisor", hypervisor);
    let hypervisor = root.required("hypervisor", hypervisor);
    let partitions = root.tables("partition", partition);
    let shared = root.tables("shared", shared);
    let channels = root.tables("channel", connection);
    let names = names(root);
    let dts = devices::source(root);
    let trust_file = root.table("trust", |table| {
        let key = table.string("key");
        table.required("key", key)
    });
    if let (Some(key), Some(Firmware::Freescale)) = (&trust_file, hypervisor.as_ref().map(|known| known.firmware)) {
        let help = "leave out `[trust]`, or take the hypervisor that is built here";
        root.impossible(key.range.clone(), "Freescale's hypervisor checks no signatures", help);
    }
    let trust_file = trust_file.map(|key| key.value);

    root.required("partition", (!partitions.is_empty()).then_some(()));
    if partitions.len() > MAX_PARTITIONS {
        root.impossible(
            root.range(),
            format!("{} partitions", partitions.len()),
            format!("a profile has at most {MAX_PARTITIONS}"),
        );
    }
    unique(root, "partitions", partitions.iter().map(|p| &p.0));
    unique(root, "shared areas", shared.iter().map(|s| &s.0));
    unique(root, "channels", channels.iter().map(|c| &c.0));
    let members = shared.iter().flat_map(|s| &s.2).chain(channels.iter().flat_map(|c| &c.2));
    for member in members.chain(partitions.iter().flat_map(|p| &p.2)) {
        let known = || partitions.iter().map(|p| p.0.value.as_str());
        if known().all(|name| name != member.value) {
            let help = match nearest(&member.value, known()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the profile's partitions: {}", known().collect::<Vec<_>>().join(", ")),
            };
            root.collected().report(
                Diagnostic::error(UNKNOWN_NAME, format!("no partition is called `{}`", member.value.escape_debug()))
                    .primary(root.collected().label(member.range.clone(), "named here"))
                    .help(help),
            );
        }
    }
    let rests: Vec<&str> = partitions
        .iter()
        .filter(|p| p.1.as_ref().is_some_and(|p| p.cpus == CpuChoice::Rest))
        .map(|p| p.0.value.as_str())
        .collect();
    if let [first, second, ..] = rests.as_slice() {
        root.collected().report(
            Diagnostic::error(IMPOSSIBLE_VALUE, "two partitions ask for the rest of the CPUs")
                .primary(root.collected().label_of(&format!("partition/{second}/cpus"), "this one"))
                .related(root.collected().label_of(&format!("partition/{first}/cpus"), "and this one"))
                .help("give one of them a number of CPUs, such as \"last 2\""),
        );
    }

    Some(Profile {
        format: FORMAT,
        name: name?.value,
        title: title?,
        epoch,
        unused_cpus,
        hypervisor: hypervisor?,
        partitions: partitions.into_iter().filter_map(|p| p.1).collect(),
        shared: shared.into_iter().map(|s| s.1).collect(),
        channels: channels.into_iter().filter_map(|c| c.1).collect(),
        trust: None,
        trust_file,
        names,
        dts,
        places: crate::source::Places::default(),
    })
}
