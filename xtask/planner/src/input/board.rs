//! The keys of `boards/*.toml`.

use citrine_formats::addr::{Address as _, Span, TruePhys};

use super::IMPOSSIBLE_VALUE;
use super::reader::{At, Table, read_document};
use crate::board::{Board, HardwareTree, HvDevice, LoaderMemory, Nor, NorSlots, Reserved, Slots, UBoot, Uart, Until};
use crate::diag::Diagnostic;
use crate::units::MAX_CPUS;

/// The cores that QorIQ boards of this family have. Which of them the firmware supports is the
/// firmware build's to say.
const CORES: [&str; 3] = ["e500mc", "e5500", "e6500"];

/// Reads the text of a board file. `file` is its name in diagnostics.
pub fn parse(file: &str, text: &str) -> (Option<Board>, Vec<Diagnostic>) {
    let (board, places, mut diagnostics) = read_document(file, text, read);
    // A board is complete only when nothing at all was wrong with it.
    let board = board.filter(|_| diagnostics.is_empty()).map(|board| Board { places, ..board });
    if board.is_none() && diagnostics.is_empty() {
        diagnostics.push(Diagnostic::error(IMPOSSIBLE_VALUE, format!("{file} does not describe a board")));
    }
    (board, diagnostics)
}

/// `base` and `size` of a table as one range.
fn span(table: &mut Table<'_>) -> Option<Span<TruePhys>> {
    let base = table.address("base");
    let base = table.required("base", base);
    let size = table.size("size");
    let size = table.required("size", size);
    Span::new(TruePhys(base?.value), size?.value).ok()
}

fn required_string(table: &mut Table<'_>, key: &'static str) -> Option<String> {
    let value = table.string(key);
    table.required(key, value).map(|at| at.value)
}

fn required_name(table: &mut Table<'_>, key: &'static str) -> Option<String> {
    let value = table.name(key);
    table.required(key, value).map(|at| at.value)
}

fn required_size(table: &mut Table<'_>, key: &'static str) -> Option<u64> {
    let value = table.size(key);
    table.required(key, value).map(|at| at.value)
}

fn slot(table: &mut Table<'_>, key: &'static str) -> Option<TruePhys> {
    // U-Boot's commands take 32-bit effective addresses, and RAM is mapped 1:1.
    let value = table.integer(key, u64::from(u32::MAX));
    table.required(key, value).map(|at| TruePhys(at.value))
}

fn loader_memory(table: &mut Table<'_>) -> Option<LoaderMemory> {
    let name = required_string(table, "name");
    let span = span(table);
    let until = table.string("until");
    let until = match table.required("until", until) {
        Some(At { value, .. }) if value == "jump" => Some(Until::Jump),
        Some(At { value, .. }) if value == "release" => Some(Until::Release),
        Some(At { value, range }) => {
            table.impossible(
                range,
                format!("`{}` is no moment", value.escape_debug()),
                "`jump` (bootm enters the hypervisor) or `release` (the last CPU has left U-Boot's spin loop)",
            );
            None
        }
        None => None,
    };
    Some(LoaderMemory { name: name?, span: span?, until: until? })
}

fn uboot(table: &mut Table<'_>) -> Option<UBoot> {
    let generation = required_string(table, "generation");
    let bootm_size = table.size("bootm-size").map(|at| at.value);
    let bootmap = required_size(table, "bootmap");
    let bootm_len = required_size(table, "bootm-len");
    let tree_pad = required_size(table, "tree-pad");
    let memory = table.tables("memory", loader_memory);
    Some(UBoot {
        generation: generation?,
        bootm_size,
        bootmap: bootmap?,
        bootm_len: bootm_len?,
        tree_pad: tree_pad?,
        memory,
    })
}

fn slots(table: &mut Table<'_>) -> Option<Slots> {
    let kernel = slot(table, "kernel");
    let hypervisor = slot(table, "hypervisor");
    let hardware_tree = slot(table, "hardware-tree");
    let configuration = slot(table, "configuration");
    let script = slot(table, "script");
    let rootfs = slot(table, "rootfs");
    Some(Slots {
        kernel: kernel?,
        hypervisor: hypervisor?,
        hardware_tree: hardware_tree?,
        configuration: configuration?,
        script: script?,
        rootfs: rootfs?,
    })
}

fn nor(table: &mut Table<'_>) -> Option<Nor> {
    let span = span(table);
    let window = table.integer("window", u64::from(u32::MAX));
    let window = table.required("window", window);
    let sector = table.size("sector");
    let sector = table.required("sector", sector);
    if let Some(At { value, range }) = &sector
        && !value.is_power_of_two()
    {
        table.impossible(
            range.clone(),
            "an erase sector that is no power of two",
            "say how many bytes are erased at once",
        );
    }
    let reserved = table.tables("reserved", |table| {
        let (name, span) = (required_string(table, "name"), self::span(table));
        Some(Reserved { name: name?, span: span? })
    });
    let area = table.table("area", |table| {
        let span = self::span(table);
        let second = table.size("second");
        let second = table.required("second", second);
        Some((span?, second?))
    });
    let first = table.table("slots", slots);
    let nor = Nor {
        span: span?,
        window: u32::try_from(window?.value).ok()?,
        sector: sector?.value.max(1),
        reserved,
        slots: None,
    };
    let Some(first) = first else { return Some(nor) };
    let area = table.required("area", area);
    let (area, At { value: second, range }) = area?;
    let twin = Span::new(TruePhys(area.base().get().saturating_add(second)), area.len());
    // In the file the slots stand as U-Boot's commands take them.
    let real = |slot: TruePhys| {
        let offset = slot.get().wrapping_sub(u64::from(nor.window));
        TruePhys(nor.span.base().get().wrapping_add(offset))
    };
    let first = Slots {
        kernel: real(first.kernel),
        hypervisor: real(first.hypervisor),
        hardware_tree: real(first.hardware_tree),
        configuration: real(first.configuration),
        script: real(first.script),
        rootfs: real(first.rootfs),
    };
    let all = [first.kernel, first.hypervisor, first.hardware_tree, first.configuration, first.script, first.rootfs];
    let starts_sector = |at: &TruePhys| (at.get() - nor.span.base().get()).is_multiple_of(nor.sector);
    let fits = u64::from(nor.window) + nor.span.len() <= 1 << 32
        && second >= area.len()
        && second.is_multiple_of(nor.sector)
        && twin.is_ok_and(|twin| nor.span.covers(&area) && nor.span.covers(&twin))
        && all.iter().all(|slot| area.contains(*slot) && starts_sector(slot));
    if !fits {
        table.impossible(
            range,
            "two sets of slots that do not fit into the flash bank",
            "every slot begins a sector in the area; the area, and as much flash again this far behind it, lie in \
             the bank and do not overlap; U-Boot's window of the bank ends at 4 GiB",
        );
        return None;
    }
    Some(Nor { slots: Some(NorSlots { first, area, second }), ..nor })
}

fn uart(table: &mut Table<'_>) -> Option<Uart> {
    let alias = required_name(table, "alias");
    let offset = table.address("offset");
    let offset = table.required("offset", offset);
    let baud = table.integer("baud", 4_000_000);
    let baud = table.required("baud", baud);
    Some(Uart { alias: alias?, offset: offset?.value, baud: u32::try_from(baud?.value).ok()? })
}

fn hv_device(table: &mut Table<'_>) -> Option<HvDevice> {
    let name = required_name(table, "name");
    let device = required_string(table, "device");
    Some(HvDevice { name: name?, device: device? })
}

fn hardware_tree(table: &mut Table<'_>) -> Option<HardwareTree> {
    let tree = table.string("hardware-tree");
    match table.required("hardware-tree", tree)?.value.as_str() {
        "emulator" => Some(HardwareTree::Emulator),
        kernel => Some(HardwareTree::Kernel(kernel.to_owned())),
    }
}

fn core(table: &mut Table<'_>) -> Option<String> {
    let core = table.string("core");
    let core = table.required("core", core)?;
    if CORES.contains(&core.value.as_str()) {
        return Some(core.value);
    }
    table.impossible(
        core.range,
        format!("`{}` is no core", core.value.escape_debug()),
        format!("one of {}", CORES.join(", ")),
    );
    None
}

fn read(root: &mut Table<'_>) -> Option<Board> {
    let name = required_name(root, "name");
    let title = required_string(root, "title");
    let soc = required_name(root, "soc");
    let core = core(root);
    let cpus = root.integer("cpus", u64::from(MAX_CPUS));
    let cpus = root.required("cpus", cpus);
    if let Some(At { value: 0, range }) = &cpus {
        root.impossible(range.clone(), "a board without CPUs", "say how many CPUs the board has");
    }
    let compatible = required_string(root, "compatible");
    let guest_compatible = root.string("guest-compatible").map(|at| at.value);
    let hardware_tree = hardware_tree(root);
    let stand_in = required_name(root, "stand-in");
    let ram = root.tables("ram", span);
    let ccsr = root.table("ccsr", span);
    let ccsr = root.required("ccsr", ccsr);
    let nor = root.table("nor", nor);
    let uarts = root.tables("uart", uart);
    let uboot = root.table("uboot", uboot);
    let uboot = root.required("uboot", uboot);
    let image_area = root.table("image-area", span);
    let image_area = root.required("image-area", image_area);
    let slots = root.table("slots", slots);
    let slots = root.required("slots", slots);
    let hv = root.table("hypervisor", |table| {
        let memory = span(table);
        let devices = table.tables("device", hv_device);
        Some((memory?, devices))
    });
    let hv = root.required("hypervisor", hv);
    let vendor = root.table("vendor-tree", |table| {
        let devices = table.names("devices");
        let devices = table.required("devices", devices);
        let dma = table.names("dma").unwrap_or_default();
        Some([devices?, dma])
    });
    let [vendor_devices, vendor_dma] = vendor.unwrap_or_default();
    root.required("ram", (!ram.is_empty()).then_some(()));
    root.required("uart", (!uarts.is_empty()).then_some(()));
    let (hv_memory, hv_devices) = hv?;
    Some(Board {
        name: name?,
        title: title?,
        soc: soc?,
        core: core?,
        cpus: u32::try_from(cpus?.value).ok()?,
        compatible: compatible?,
        guest_compatible,
        ram,
        ccsr: ccsr?,
        nor,
        uarts,
        uboot: uboot?,
        image_area: image_area?,
        slots: slots?,
        hv_memory,
        hv_devices,
        hardware_tree: hardware_tree?,
        vendor_devices: vendor_devices.into_iter().map(|at| at.value).collect(),
        vendor_dma: vendor_dma.into_iter().map(|at| at.value).collect(),
        inventory: None,
        stand_in: stand_in?,
        places: crate::source::Places::default(),
    })
}
