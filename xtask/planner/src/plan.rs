//! [`LoadPlan`]: where everything lies, on one board, for one profile. The single source of truth.
//!
//! hv.dts, the U-Boot script, the emulator's command line, the manifest and the report are views of it;
//! no other place computes an address.

use std::collections::{BTreeMap, BTreeSet};

use citrine_formats::addr::{GuestPhys, Span, TruePhys};
use citrine_formats::manifest::{Media, Role};

use citrine_core::capabilities::Capabilities;

use crate::board::Board;
use crate::diag::Label;
use crate::image::ImageFacts;
use crate::profile::Profile;

/// Whose memory an area is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AreaOwner {
    /// The hypervisor's own.
    Hypervisor,
    /// The partition with this index.
    Partition(usize),
    /// The shared area with this index in the profile.
    Shared(usize),
}

/// A phys-mem-area: a piece of true-physical memory with an owner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Area {
    /// Node name in the configuration tree.
    pub name: String,
    /// Where.
    pub span: Span<TruePhys>,
    /// Whose.
    pub owner: AreaOwner,
}

/// A part of the bundle that is loaded somewhere.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    /// File name in the bundle and on the TFTP server.
    pub file: String,
    /// What it is.
    pub role: Role,
    /// The artifact it is made from, for kernels and root file systems.
    pub image: Option<String>,
    /// Where U-Boot loads it.
    pub load: TruePhys,
    /// Bytes it may have there.
    pub window: u64,
    /// The place that decided the window; without one it simply ends where the next owner begins.
    pub window_decided: Option<Decided>,
    /// The place that decided the address.
    pub decided: Decided,
}

/// Which file decided an address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decided {
    /// This path in the board's file.
    Board(String),
    /// This path in the profile.
    Profile(String),
}

/// An image as a partition sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GuestImage {
    /// Index of its part.
    pub part: usize,
    /// Where it goes in the partition.
    pub guest: GuestPhys,
}

/// One end of a byte channel between two partitions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChannelEnd {
    /// Name of its node, the same at both ends.
    pub node: String,
    /// Index of the partition at the other end.
    pub peer: usize,
}

/// A device that somebody is assigned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AssignedDevice {
    /// Name of its node, in the configuration tree and in the guest's.
    pub node: String,
    /// Path or alias in the hardware tree.
    pub device: String,
    /// Where the profile asks for it.
    pub path: String,
    /// Whether it gets the partition's DMA window.
    pub dma: bool,
    /// Whether the partition goes without it where there is none.
    pub optional: bool,
    /// Whether the board's inventory has it.
    pub known: bool,
    /// The device of the same partition that takes its message-signalled interrupts.
    pub msi: Option<String>,
    /// For a portal of QMan, the window that its ring lies in.
    pub stash: Option<RingWindow>,
    /// The numbers that it is limited to.
    pub numbers: Option<Numbers>,
    /// What else stands in its node, as devicetree source.
    pub dts: String,
}

/// The part of a QMan portal's registers that QMan itself writes: the ring of dequeued frames (P4080DPAARM,
/// "Software Portals", DQRR).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RingWindow {
    /// Name of the window's node.
    pub node: String,
    /// Where.
    pub span: Span<GuestPhys>,
}

/// A limit on the numbers that a guest may use of a resource of the data path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Numbers {
    /// The property that says it.
    pub property: &'static str,
    /// The first number.
    pub first: u32,
    /// How many.
    pub count: u32,
}

/// The window through which a partition's devices reach memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DmaPlan {
    /// Name of its node.
    pub node: String,
    /// Size in bytes; it begins at guest-physical 0.
    pub size: u64,
    /// Number of equal slots, where it is divided.
    pub slots: Option<u32>,
    /// What lies in slots.
    pub subwindows: Vec<SubWindow>,
}

/// A sub-window of a DMA window.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SubWindow {
    /// What it leads to: `memory`, `msi`, or the name of shared memory.
    pub reach: String,
    /// Where.
    pub span: Span<GuestPhys>,
    /// Whether it leads to the register that takes message-signalled interrupts.
    pub is_msi: bool,
}

/// A partition that another one may stop and start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Managed {
    /// Name of its node in the other one's tree.
    pub node: String,
    /// Index of the partition.
    pub partition: usize,
}

/// One partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionPlan {
    /// Short name.
    pub name: String,
    /// Name for the partition itself.
    pub label: String,
    /// Its CPUs.
    pub cpus: BTreeSet<u32>,
    /// Index of its memory area.
    pub memory: usize,
    /// Shared areas: index and guest-physical address.
    pub shared: Vec<(usize, GuestPhys)>,
    /// The image that is entered.
    pub kernel: GuestImage,
    /// The root file system.
    pub rootfs: Option<GuestImage>,
    /// Window of the generated guest tree.
    pub dtb: Span<GuestPhys>,
    /// Mux channel.
    pub console: u32,
    /// Its ends of the byte channels to other partitions, in the profile's order.
    pub channels: Vec<ChannelEnd>,
    /// Devices of the board, in the profile's order; [`Self::assigned`] are those that the hypervisor will assign.
    pub devices: Vec<AssignedDevice>,
    /// Devices that reach its memory through its portals.
    pub portal_devices: Vec<AssignedDevice>,
    /// The window of its devices, if they have one.
    pub dma: Option<DmaPlan>,
    /// The partitions that it manages, in the order of its key.
    pub manages: Vec<Managed>,
    /// Kernel command line.
    pub bootargs: String,
    /// Whether the hypervisor takes short ways for what its guest does most.
    pub fast_traps: bool,
    /// What else stands in its node, as devicetree source.
    pub dts: String,
}

impl PartitionPlan {
    /// The devices that `hypervisor` will assign: optional ones only where both it and the board can.
    pub fn assigned(&self, hypervisor: Capabilities) -> impl Iterator<Item = &AssignedDevice> {
        self.devices.iter().filter(move |device| !device.optional || (hypervisor.devices && device.known))
    }
}

/// What a guest calls itself: its label without what host names cannot have (`artifacts/rootfs/etc/init.d/rcS`).
pub fn host_name(label: &str) -> String {
    label.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')).collect()
}

/// The prompt of the built root file system's shell on the console of the partition with this label.
pub fn shell_prompt(label: &str) -> String {
    format!("{}:/# ", host_name(label))
}

/// Where everything lies, when the boot loader finds the parts on one medium.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoadPlan {
    /// The medium.
    pub media: Media,
    /// The board.
    pub board: Board,
    /// The profile.
    pub profile: Profile,
    /// Memory areas, by address.
    pub areas: Vec<Area>,
    /// Partitions, in the profile's order.
    pub partitions: Vec<PartitionPlan>,
    /// Devices that the hypervisor has besides those of the board's file.
    pub own_devices: Vec<AssignedDevice>,
    /// Parts that are loaded, by address.
    pub parts: Vec<Part>,
    /// The hypervisor's whole boot argument string.
    pub hv_bootargs: String,
    /// What the bundled hypervisor can do.
    pub hypervisor: Capabilities,
    /// What is known of the parts' real bytes, by file name.
    pub facts: BTreeMap<String, ImageFacts>,
}

impl LoadPlan {
    /// The place in the board's file or the profile that `decided` names.
    pub fn label(&self, decided: &Decided, text: impl Into<String>) -> Label {
        match decided {
            Decided::Board(path) => self.board.places.label(path, text),
            Decided::Profile(path) => self.profile.places.label(path, text),
        }
    }

    /// The place that decided `area`.
    pub fn area_label(&self, area: &Area, text: impl Into<String>) -> Label {
        let decided = match area.owner {
            AreaOwner::Hypervisor if self.profile.hypervisor.memory_address.is_some() => {
                Decided::Profile("hypervisor/memory-address".to_owned())
            }
            AreaOwner::Hypervisor if self.profile.hypervisor.memory.is_some() => {
                Decided::Profile("hypervisor/memory".to_owned())
            }
            AreaOwner::Hypervisor => Decided::Board("hypervisor/base".to_owned()),
            AreaOwner::Partition(index) => {
                let partition = &self.profile.partitions[index];
                let key = if partition.memory_address.is_some() { "memory-address" } else { "memory" };
                Decided::Profile(format!("partition/{}/{key}", partition.name))
            }
            AreaOwner::Shared(index) => {
                let shared = &self.profile.shared[index];
                let key = if shared.address.is_some() { "address" } else { "size" };
                Decided::Profile(format!("shared/{}/{key}", shared.name))
            }
        };
        self.label(&decided, text)
    }

    /// The part with this role that comes first.
    pub fn part(&self, role: Role) -> Option<&Part> {
        self.parts.iter().find(|part| part.role == role)
    }

    /// The hypervisor's memory.
    pub fn hv_memory(&self) -> &Area {
        self.areas
            .iter()
            .find(|area| area.owner == AreaOwner::Hypervisor)
            .expect("placement always makes the hypervisor's area")
    }

    /// Real size of a part, once it is known.
    pub fn size_of(&self, part: &Part) -> Option<u64> {
        self.facts.get(&part.file).map(|facts| facts.size)
    }

    /// What U-Boot's commands call the place of a part: memory is mapped 1:1, flash through its window.
    pub fn effective(&self, part: &Part) -> u64 {
        let nor = self.board.nor.as_ref().filter(|_| self.media == Media::Nor);
        nor.and_then(|nor| nor.effective(part.load)).unwrap_or(part.load.0)
    }

    /// Names of the partitions that start with `part`.
    pub fn users_of(&self, part: usize) -> Vec<&str> {
        self.partitions
            .iter()
            .filter(|p| p.kernel.part == part || p.rootfs.as_ref().is_some_and(|r| r.part == part))
            .map(|p| p.name.as_str())
            .collect()
    }
}
