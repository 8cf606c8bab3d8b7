//! [`Board`]: what a board is — addresses, sizes and inventories, no decisions.

use citrine_formats::addr::{Address as _, Size, Span, TruePhys};

use crate::inventory::Inventory;
use crate::source::Places;

/// Until when the boot loader needs a piece of its own memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Until {
    /// Until `bootm` jumps to the hypervisor.
    Jump,
    /// Until the last CPU has left the boot loader's spin loop.
    Release,
}

/// Memory that belongs to the boot loader.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoaderMemory {
    /// What lies there.
    pub name: String,
    /// Where.
    pub span: Span<TruePhys>,
    /// How long it must stay.
    pub until: Until,
}

/// What the board's U-Boot does to memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UBoot {
    /// Release that the numbers were taken from.
    pub generation: String,
    /// Value that the script gives `bootm_size`; without it a U-Boot since 2018 refuses to load above it.
    pub bootm_size: Option<u64>,
    /// `bootm` moves the hardware tree to just below this address (`CONFIG_SYS_BOOTMAPSZ`).
    pub bootmap: u64,
    /// Longest image that `bootm` unpacks, in bytes (`CONFIG_SYS_BOOTM_LEN`).
    pub bootm_len: u64,
    /// Bytes that U-Boot adds to the hardware tree for its own fix-ups (`CONFIG_SYS_FDT_PAD`).
    pub tree_pad: u64,
    /// Its own memory.
    pub memory: Vec<LoaderMemory>,
}

/// Where the parts are loaded in RAM, or lie in the flash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slots {
    /// The first kernel.
    pub kernel: TruePhys,
    /// `hv.uImage`.
    pub hypervisor: TruePhys,
    /// The hardware device tree.
    pub hardware_tree: TruePhys,
    /// `hv.dtb`.
    pub configuration: TruePhys,
    /// `boot.scr`.
    pub script: TruePhys,
    /// The first root file system.
    pub rootfs: TruePhys,
}

/// The NOR flash bank that the board boots from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Nor {
    /// True-physical range.
    pub span: Span<TruePhys>,
    /// Effective address under which U-Boot sees it.
    pub window: u32,
    /// Erase sector in bytes.
    pub sector: u64,
    /// What in it belongs to others, who need it to start.
    pub reserved: Vec<Reserved>,
    /// Where parts lie in it; a bank without is never written.
    pub slots: Option<NorSlots>,
}

/// Flash that belongs to somebody else.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reserved {
    /// What lies there.
    pub name: String,
    /// Where.
    pub span: Span<TruePhys>,
}

/// Where parts lie in the flash. There are two sets of slots, so that a changed part never has to be written over
/// the one that the board starts with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NorSlots {
    /// The first set's slots.
    pub first: Slots,
    /// All of the first set's flash: further images lie at its end.
    pub area: Span<TruePhys>,
    /// Bytes from each slot to its twin in the second set.
    pub second: u64,
}

impl Nor {
    /// The address under which U-Boot sees true-physical `at`; `None` outside the bank.
    pub fn effective(&self, at: TruePhys) -> Option<u64> {
        self.span.contains(at).then(|| u64::from(self.window) + (at.get() - self.span.base().get()))
    }

    /// All bytes of the sectors that `span` touches.
    pub fn sectors(&self, span: Span<TruePhys>) -> Span<TruePhys> {
        let base = self.span.base().get();
        let offset = |at: TruePhys| at.get().saturating_sub(base);
        let first = offset(span.base()) / self.sector * self.sector;
        let end = offset(span.end()).div_ceil(self.sector).saturating_mul(self.sector);
        Span::between(TruePhys(base + first), TruePhys(base.saturating_add(end)))
    }
}

/// A serial port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Uart {
    /// Alias in the hardware tree (`serial0`).
    pub alias: String,
    /// Offset of its registers in CCSR.
    pub offset: u64,
    /// Baud rate.
    pub baud: u32,
}

/// A device that the hypervisor takes for itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HvDevice {
    /// Node name in the configuration tree.
    pub name: String,
    /// Path or alias in the hardware tree.
    pub device: String,
}

/// Where a board's hardware tree comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HardwareTree {
    /// Built from the kernel's sources, under this name (`fsl/p4080ds`).
    Kernel(String),
    /// The emulator's own.
    Emulator,
    /// A file of the user's own, by its path, instead of either.
    Given(String),
}

/// A board, every value checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Board {
    /// Name of the file without `.toml`.
    pub name: String,
    /// One line for people.
    pub title: String,
    /// System on chip.
    pub soc: String,
    /// CPU core, which decides what the firmware is compiled for.
    pub core: String,
    /// Number of CPUs.
    pub cpus: u32,
    /// First string of the hardware tree's root `compatible`.
    pub compatible: String,
    /// The string that guests get in front of theirs, if Linux does not know the board's own with `-hv`.
    pub guest_compatible: Option<String>,
    /// Memory banks.
    pub ram: Vec<Span<TruePhys>>,
    /// The SoC's register block.
    pub ccsr: Span<TruePhys>,
    /// NOR flash, if the board has one.
    pub nor: Option<Nor>,
    /// Serial ports; the first is the console's.
    pub uarts: Vec<Uart>,
    /// Its boot loader.
    pub uboot: UBoot,
    /// RAM that parts are loaded into.
    pub image_area: Span<TruePhys>,
    /// Where in it.
    pub slots: Slots,
    /// The hypervisor's own memory, unless a profile says otherwise.
    pub hv_memory: Span<TruePhys>,
    /// The hypervisor's own devices.
    pub hv_devices: Vec<HvDevice>,
    /// The hardware tree.
    pub hardware_tree: HardwareTree,
    /// Paths and aliases of devices that only the vendor's hardware tree has.
    pub vendor_devices: Vec<String>,
    /// Those of them that read and write memory by themselves.
    pub vendor_dma: Vec<String>,
    /// The devices of the hardware tree, where they are known.
    pub inventory: Option<Inventory>,
    /// Board that stands in for this one in the emulator; itself for the emulator's board.
    pub stand_in: String,
    /// Where every value stands in the board's file.
    pub places: Places,
}

impl Board {
    /// Whether one memory bank holds all of `span`.
    pub fn has_ram(&self, span: &Span<TruePhys>) -> bool {
        self.ram.iter().any(|bank| bank.covers(span))
    }

    /// All memory in bytes.
    pub fn ram_size(&self) -> u64 {
        self.ram.iter().map(Span::len).sum()
    }

    /// The memory for people: `2 GiB at 0x0`.
    pub fn ram_text(&self) -> String {
        let banks: Vec<String> =
            self.ram.iter().map(|bank| format!("{} at {}", Size(bank.len()), bank.base())).collect();
        banks.join(", ")
    }

    /// The console's baud rate.
    pub fn baud(&self) -> u32 {
        self.uarts.first().map_or(115_200, |uart| uart.baud)
    }

    /// Highest address plus one of all RAM.
    pub fn ram_end(&self) -> TruePhys {
        self.ram.iter().map(Span::end).max().unwrap_or(TruePhys::new(0))
    }
}
