//! Which devices of the board belong to whom, judged by what the board's hardware tree says of them.

use std::collections::BTreeMap;

use citrine_formats::addr::{Address as _, Size, TruePhys};

use crate::diag::{Code, Diagnostic, Label, Severity};
use crate::input::reader::nearest;
use crate::inventory::{Device, Found, Inventory, PAGE};
use crate::plan::{LoadPlan, PartitionPlan};

/// The board has no such device.
pub const NO_SUCH_DEVICE: Code = Code::new('D', 101);
/// Nobody knows whether the board has such a device.
pub const UNCONFIRMED: Code = Code::new('D', 102);
/// Two owners of one device.
pub const TWO_OWNERS: Code = Code::new('D', 103);
/// A partition is assigned what the hypervisor drives.
pub const HYPERVISORS_OWN: Code = Code::new('D', 104);
/// Two owners' devices share an interrupt.
pub const SHARED_INTERRUPT: Code = Code::new('D', 105);
/// Two owners' devices share a page.
pub const SHARED_PAGE: Code = Code::new('D', 106);
/// A device that reads and writes memory by itself has no window to do so.
pub const NO_DMA_WINDOW: Code = Code::new('D', 107);
/// A part of a device, which cannot be assigned without the rest.
pub const PART_OF_DEVICE: Code = Code::new('D', 108);
/// The bundled hypervisor assigns no devices.
pub const NO_ASSIGNMENT: Code = Code::new('D', 109);
/// The hypervisor is given a device that it has no driver for.
pub const NO_DRIVER: Code = Code::new('D', 110);
/// The hypervisor is not given what it needs.
pub const HYPERVISOR_LACKS: Code = Code::new('D', 111);
/// More memory areas than the SoC has local access windows.
pub const TOO_FEW_WINDOWS: Code = Code::new('D', 113);
/// The guest tree cannot fit its window.
pub const TREE_TOO_SMALL: Code = Code::new('D', 114);

/// Interrupt controllers, of which every hypervisor needs one.
const MPIC: &[&str] = &["fsl,mpic", "chrp,open-pic"];
/// Blocks that reset the board and say why it was reset.
const GUTS: &[&str] = &["fsl,qoriq-device-config-1.0", "fsl,qoriq-device-config-2.0", "fsl,mpc8544-guts"];
/// What else a hypervisor of this configuration tree has drivers for. Nothing else is bound, without a word.
const DRIVERS: &[&str] = &[
    "fsl,pamu",
    "fsl,p4080-pamu",
    "fsl,corenet-law",
    "fsl,corenet-cf",
    "fsl,corenet2-cf",
    "fsl,b4860-corenet-cf",
    "fsl,b4420-corenet-cf",
    "fsl,p4080-l3-cache-controller",
    "fsl,t4240-l3-cache-controller",
    "fsl,qoriq-rcpm-1.0",
    "fsl,qoriq-rcpm-2.0",
    "fsl,qoriq-memory-controller",
    "fsl,p4080-memory-controller",
    "fsl,soc-sram-error",
    "ns16550",
];

/// Bytes of a guest tree beside its CPUs and devices: the root, its memory, the hypervisor's own nodes, the names of
/// properties. Measured on the trees in tests/golden, and rounded down.
const TREE_BASE: u64 = 1400;
/// The same for each CPU with its caches.
const TREE_CPU: u64 = 160;

/// Judges whether the board has the devices that are given.
pub fn known(plan: &LoadPlan) -> Vec<Diagnostic> {
    let Some(inventory) = &plan.board.inventory else { return Vec::new() };
    // What reaches memory through portals may belong to anyone, but must be there.
    let through = plan.partitions.iter().flat_map(|partition| {
        partition.portal_devices.iter().map(move |device| {
            let label = plan.profile.places.label(&device.path, "named here");
            Given { owner: Some(partition), name: &device.device, label }
        })
    });
    let judged = given(plan).into_iter().chain(through).filter_map(|given| match inventory.find(given.name) {
        Found::Device(_) => None,
        Found::Below(device) => Some(part_of(&given, device)),
        Found::Nothing if is_vendors(plan, &given) => None,
        Found::Nothing => Some(unknown(plan, inventory, &given)),
    });
    judged.chain(only_vendors(plan)).collect()
}

fn is_vendors(plan: &LoadPlan, given: &Given<'_>) -> bool {
    plan.board.vendor_devices.iter().any(|known| known == given.name)
}

/// Up to four names, or two and how many more there are.
fn in_words(names: &[&str]) -> Option<String> {
    match names {
        [] => None,
        [one] => Some(format!("`{one}`")),
        [some @ .., last] if names.len() < 5 => Some(format!("`{}` and `{last}`", some.join("`, `"))),
        [one, two, rest @ ..] => Some(format!("`{one}`, `{two}` and {} more devices", rest.len())),
    }
}

/// Says of each owner which of its devices only the vendor's hardware tree has.
fn only_vendors(plan: &LoadPlan) -> Vec<Diagnostic> {
    let Some(inventory) = &plan.board.inventory else { return Vec::new() };
    let mut owners: BTreeMap<String, Vec<Given<'_>>> = BTreeMap::new();
    for given in given(plan) {
        if inventory.find(given.name) == Found::Nothing && is_vendors(plan, &given) {
            owners.entry(given.owner()).or_default().push(given);
        }
    }
    let said = owners.into_iter().filter_map(|(owner, devices)| {
        let first = devices.first()?;
        let names: Vec<&str> = devices.iter().map(|given| given.name).collect();
        let which = format!("{} of {owner}", in_words(&names)?);
        let index = plan.board.vendor_devices.iter().position(|known| known == first.name)?;
        Some(
            Diagnostic::new(
                UNCONFIRMED,
                Severity::Notice,
                format!("only the hardware tree of the vendor's SDK has {which}"),
            )
            .primary(first.label.clone())
            .related(plan.board.places.label(&format!("vendor-tree/devices/{index}"), "listed here"))
            .fact("devices", names.join(" "))
            .help("load that tree in place of the bundle's: with the kernel's own, they will be missing"),
        )
    });
    said.collect()
}

/// Judges every pair of devices that are given.
pub fn owners(plan: &LoadPlan) -> Vec<Diagnostic> {
    let resolved = resolved(plan);
    let earlier = |(index, second)| resolved[..index].iter().flat_map(move |first| pair(first, second));
    resolved.iter().enumerate().flat_map(earlier).collect()
}

/// Judges whether devices that read and write memory may do so, and which memory.
pub fn dma(plan: &LoadPlan) -> Vec<Diagnostic> {
    resolved(plan).iter().filter_map(|resolved| no_window(plan, resolved)).collect()
}

/// Judges whether the hypervisor can drive what it is given.
pub fn drivers(plan: &LoadPlan) -> Vec<Diagnostic> {
    resolved(plan).iter().filter_map(no_driver).collect()
}

/// Judges whether the windows of the guest trees have room for the devices.
pub fn tree_windows(plan: &LoadPlan) -> Vec<Diagnostic> {
    let resolved = resolved(plan);
    plan.partitions.iter().filter_map(|partition| tree_window(plan, partition, &resolved)).collect()
}

/// A device that somebody is given.
struct Given<'p> {
    /// The partition; `None` is the hypervisor.
    owner: Option<&'p PartitionPlan>,
    /// Path or alias.
    name: &'p str,
    /// Where that stands.
    label: Label,
}

impl Given<'_> {
    fn owner(&self) -> String {
        self.owner.map_or_else(|| "the hypervisor".to_owned(), |partition| format!("partition {}", partition.name))
    }

    fn is_same_owner(&self, other: &Self) -> bool {
        self.owner.map(|partition| &partition.name) == other.owner.map(|partition| &partition.name)
    }
}

/// A device that somebody is given, with what the hardware tree says of it.
struct Resolved<'p> {
    given: Given<'p>,
    device: &'p Device,
}

/// The devices that are given and that the board has.
fn resolved(plan: &LoadPlan) -> Vec<Resolved<'_>> {
    let Some(inventory) = &plan.board.inventory else { return Vec::new() };
    let devices = given(plan).into_iter().filter_map(|given| match inventory.find(given.name) {
        Found::Device(device) => Some(Resolved { given, device }),
        Found::Below(_) | Found::Nothing => None,
    });
    devices.collect()
}

/// The hypervisor's devices and, behind them, each partition's.
fn given(plan: &LoadPlan) -> Vec<Given<'_>> {
    let board = |path: String, text: &str| plan.board.places.label(&path, text);
    let mut all = Vec::new();
    for (index, device) in plan.board.hv_devices.iter().enumerate() {
        let label = board(format!("hypervisor/device/{index}/device"), "the hypervisor has it");
        all.push(Given { owner: None, name: &device.device, label });
    }
    if let Some(uart) = plan.board.uarts.first() {
        let label = board("uart/0/alias".to_owned(), "the console of the hypervisor");
        all.push(Given { owner: None, name: &uart.alias, label });
    }
    for device in &plan.own_devices {
        let label = plan.profile.places.label(&device.path, "the hypervisor has it");
        all.push(Given { owner: None, name: &device.device, label });
    }
    for partition in &plan.partitions {
        for device in partition.assigned(plan.hypervisor) {
            let label = plan.profile.places.label(&device.path, format!("{} has it", partition.name));
            all.push(Given { owner: Some(partition), name: &device.device, label });
        }
    }
    all
}

/// Judges whether the bundled hypervisor assigns devices at all.
pub fn assignment(plan: &LoadPlan) -> Vec<Diagnostic> {
    let partitions = plan.partitions.iter().filter(|partition| partition.assigned(plan.hypervisor).next().is_some());
    let refused = partitions.filter(|_| !plan.hypervisor.devices).map(|partition| {
        let path = format!("partition/{}/devices", partition.name);
        let message = format!(
            "partition {} is assigned devices, but {} assigns none: the partition would start without",
            partition.name, plan.hypervisor.name
        );
        Diagnostic::error(NO_ASSIGNMENT, message)
            .primary(plan.profile.places.label(&path, "these devices"))
            .fact("partition", &partition.name)
            .fact("devices", partition.assigned(plan.hypervisor).count())
            .help("leave `devices` out, or bundle a hypervisor that assigns them: --hypervisor FILE")
    });
    refused.collect()
}

/// Judges whether there is an inventory: without it, no device can be judged.
pub fn inventory(plan: &LoadPlan) -> Vec<Diagnostic> {
    no_inventory(plan).into_iter().collect()
}

fn no_inventory(plan: &LoadPlan) -> Option<Diagnostic> {
    if plan.board.inventory.is_some() {
        return None;
    }
    let partition = plan.partitions.iter().find(|partition| partition.assigned(plan.hypervisor).next().is_some())?;
    let path = format!("partition/{}/devices", partition.name);
    let board = &plan.board.name;
    Some(
        Diagnostic::warning(UNCONFIRMED, format!("nothing is known of the devices of {board}, so none is judged"))
            .primary(plan.profile.places.label(&path, "these devices"))
            .help(format!(
                "put the board's inventory into devices/{board}.toml beside its file: docs/adding-a-board.md says how"
            )),
    )
}

fn unknown(plan: &LoadPlan, inventory: &Inventory, given: &Given<'_>) -> Diagnostic {
    let board = &plan.board;
    let fill = |diagnostic: Diagnostic| diagnostic.primary(given.label.clone()).fact("device", given.name);
    let kind = if given.name.starts_with('/') { "path" } else { "alias" };
    let diagnostic = Diagnostic::error(
        NO_SUCH_DEVICE,
        format!("the hardware tree of {} has no {kind} `{}`, which {} is given", board.name, given.name, given.owner()),
    );
    fill(diagnostic).help(match similar(inventory, given.name) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("boards/devices/{}.toml lists every device", board.name),
    })
}

/// The path or alias that `name` is probably a misspelling of.
fn similar<'i>(inventory: &'i Inventory, name: &str) -> Option<&'i str> {
    let Some((_, last)) = name.rsplit_once('/') else {
        return nearest(name, inventory.aliases.keys().map(String::as_str));
    };
    // Paths of one bus differ in their last part alone, and that is what people get wrong.
    let near = nearest(last, inventory.devices.iter().map(Device::name))?;
    inventory.devices.iter().find(|device| device.name() == near).map(|device| device.path.as_str())
}

fn part_of(given: &Given<'_>, device: &Device) -> Diagnostic {
    let message =
        format!("`{}` is a part of `{}`, which is no bus: it cannot be assigned alone", given.name, device.path);
    Diagnostic::error(PART_OF_DEVICE, message)
        .primary(given.label.clone())
        .fact("device", given.name)
        .help(format!("assign the whole device: \"{}\"", device.path))
}

/// What is wrong between two devices, of which the second was given later.
fn pair(first: &Resolved<'_>, second: &Resolved<'_>) -> Vec<Diagnostic> {
    let (a, b) = (first.device, second.device);
    let both = |diagnostic: Diagnostic| {
        let placed = diagnostic.primary(second.given.label.clone()).related(first.given.label.clone());
        placed.fact("first", &a.path).fact("second", &b.path)
    };
    let is_inside =
        |outer: &Device, inner: &Device| inner.path.strip_prefix(&outer.path).is_some_and(|rest| rest.starts_with('/'));
    let owners = format!("{} and {}", first.given.owner(), second.given.owner());
    let is_same_owner = first.given.is_same_owner(&second.given);
    if a.path == b.path && is_same_owner {
        let message = format!("{} is given `{}` twice", second.given.owner(), b.path);
        return vec![both(Diagnostic::error(TWO_OWNERS, message)).help("name it once")];
    }
    if is_same_owner {
        return Vec::new();
    }
    if a.path == b.path || is_inside(a, b) || is_inside(b, a) {
        let what = match a.path == b.path {
            true => format!("`{}` belongs to both {owners}", b.path),
            false => format!("`{}` and `{}`, one inside the other, belong to {owners}", a.path, b.path),
        };
        let is_hypervisors = first.given.owner.is_none();
        let code = if is_hypervisors { HYPERVISORS_OWN } else { TWO_OWNERS };
        return vec![both(Diagnostic::error(code, what)).help(match is_hypervisors {
            true => "a partition cannot have what the hypervisor drives; take it from the partition's list",
            false => "give each device to one partition",
        })];
    }
    let which = format!("`{}` of {} and `{}` of {}", a.path, first.given.owner(), b.path, second.given.owner());
    let mut found = Vec::new();
    if let Some(interrupt) = a.interrupts.iter().find(|interrupt| b.interrupts.contains(interrupt)) {
        let message = format!("{which} share interrupt {interrupt}");
        found.push(both(Diagnostic::error(SHARED_INTERRUPT, message)).fact("interrupt", interrupt).help(
            match first.given.owner {
                None => "an interrupt has one owner: leave this device to the hypervisor",
                Some(_) => "an interrupt has one owner: give both devices to the same partition",
            },
        ));
    }
    // The hypervisor stands between guests and the interrupt controller, whose registers lie around those of MSIs.
    if !a.is(MPIC)
        && let Some(page) = common_page(a, b)
    {
        let message = format!("{which} have registers in one page at {page}");
        found.push(both(Diagnostic::warning(SHARED_PAGE, message)).fact("page", page).help(
            "memory is given by the page of 4 KiB, so each owner can reach the other's registers: give both to one owner",
        ));
    }
    found
}

fn common_page(a: &Device, b: &Device) -> Option<TruePhys> {
    let common =
        a.pages().find_map(|x| b.pages().find(|y| x.start() <= y.end() && y.start() <= x.end()).map(|y| (x, y)));
    common.map(|(x, y)| TruePhys::new(*x.start().max(y.start()) * PAGE))
}

fn no_window(plan: &LoadPlan, resolved: &Resolved<'_>) -> Option<Diagnostic> {
    let partition = resolved.given.owner?;
    let has_window = partition.devices.iter().any(|device| device.dma && device.device == resolved.given.name);
    let memory = &plan.areas[partition.memory];
    (resolved.device.dma && !has_window).then(|| {
        let message = format!(
            "`{}` of partition {} reads and writes memory by itself, but has no DMA window",
            resolved.device.path, partition.name
        );
        Diagnostic::error(NO_DMA_WINDOW, message)
            .primary(resolved.given.label.clone())
            .related(plan.area_label(memory, "the memory that it could be confined to"))
            .fact("partition", &partition.name)
            .fact("device", &resolved.device.path)
            .help(format!(
                "add `dma = \"memory\"` to the partition: its devices then reach its own {} and nothing else",
                Size(memory.span.len())
            ))
    })
}

fn no_driver(resolved: &Resolved<'_>) -> Option<Diagnostic> {
    let device = resolved.device;
    let is_known = device.is(MPIC) || device.is(GUTS) || device.is(DRIVERS);
    (resolved.given.owner.is_none() && !is_known).then(|| {
        let kinds = device.compatible.join(", ");
        Diagnostic::warning(NO_DRIVER, format!("the hypervisor is given `{}`, but has no driver for it", device.path))
            .primary(resolved.given.label.clone())
            .fact("device", &device.path)
            .fact("compatible", &kinds)
            .help(format!("it is compatible with {kinds}; correct the path, or take it from the list"))
    })
}

/// Judges whether the hypervisor has what none can do without, when the board has it.
pub fn lacks(plan: &LoadPlan) -> Vec<Diagnostic> {
    let Some(inventory) = &plan.board.inventory else { return Vec::new() };
    let resolved = resolved(plan);
    let needs: [(&[&str], Severity, &str); 2] = [
        (MPIC, Severity::Error, "nobody would get an interrupt"),
        (GUTS, Severity::Warning, "it cannot reset the board, and a partition that is given it can"),
    ];
    let mut found = Vec::new();
    for (kinds, severity, consequence) in needs {
        let Some(device) = inventory.devices.iter().find(|device| device.is(kinds)) else { continue };
        let mut own = resolved.iter().filter(|resolved| resolved.given.owner.is_none());
        if !own.any(|resolved| resolved.device.is(kinds)) {
            let message = format!("the hypervisor is not given `{}`: {consequence}", device.path);
            found.push(
                Diagnostic::new(HYPERVISOR_LACKS, severity, message)
                    .primary(plan.board.places.label("hypervisor/device", "the devices of the hypervisor"))
                    .fact("device", &device.path)
                    .help(format!("add a [[hypervisor.device]] with device = \"{}\"", device.path)),
            );
        }
    }
    found
}

/// Judges whether the SoC has a local access window for each memory area.
pub fn access_windows(plan: &LoadPlan) -> Vec<Diagnostic> {
    too_few_windows(plan).into_iter().collect()
}

fn too_few_windows(plan: &LoadPlan) -> Option<Diagnostic> {
    let laws = plan.board.inventory.as_ref()?.laws?;
    // One for each area, one for the tables of the PAMU.
    let needed = plan.areas.len() + 1;
    (needed > laws as usize).then(|| {
        let message = format!(
            "{} memory areas and the PAMU's tables need {needed} local access windows; the SoC has {laws}",
            plan.areas.len()
        );
        Diagnostic::warning(TOO_FEW_WINDOWS, message)
            .primary(plan.profile.places.label("shared", "most of the areas"))
            .fact("needed", needed)
            .fact("windows", laws)
            .help(
                "use fewer shared areas; U-Boot needs windows too. An area without one is coherent with every CPU of \
                 the board, and so slower",
            )
    })
}

/// A guest's tree holds the nodes of its devices; some room must be left for what the hypervisor adds.
fn tree_window(plan: &LoadPlan, partition: &PartitionPlan, resolved: &[Resolved<'_>]) -> Option<Diagnostic> {
    let own = resolved.iter().filter(|r| r.given.owner.is_some_and(|owner| owner.name == partition.name));
    let devices: u64 = own.map(|resolved| resolved.device.tree).sum();
    let needed = TREE_BASE + TREE_CPU * partition.cpus.len() as u64 + devices + devices / 4;
    let window = partition.dtb.len();
    (window < needed).then(|| {
        let path = format!("partition/{}/dtb-size", partition.name);
        let message = format!(
            "the guest tree of partition {} needs about {needed} bytes, and its window has {window}",
            partition.name
        );
        Diagnostic::error(TREE_TOO_SMALL, message)
            .primary(plan.profile.places.label(&path, "its window"))
            .fact("partition", &partition.name)
            .fact("needed", needed)
            .fact("window", window)
            .help(format!("dtb-size = \"{}\", or leave it out", Size(needed.next_power_of_two().max(0x1_0000))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_names_are_listed_and_many_are_counted() {
        for (names, words) in [
            (&[][..], None),
            (&["a"], Some("`a`")),
            (&["a", "b"], Some("`a` and `b`")),
            (&["a", "b", "c", "d"], Some("`a`, `b`, `c` and `d`")),
            (&["a", "b", "c", "d", "e"], Some("`a`, `b` and 3 more devices")),
            (&["a", "b", "c", "d", "e", "f"], Some("`a`, `b` and 4 more devices")),
        ] {
            assert_eq!(in_words(names).as_deref(), words);
        }
    }
}
