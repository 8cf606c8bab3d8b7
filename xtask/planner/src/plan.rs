//! [`LoadPlan`]: where everything lies, on one board, for one profile. The single source of truth.
//!
//! hv.dts, the U-Boot script, the emulator's command line, the manifest and the report are views of it;
//! no other place computes an address.

use std::collections::{BTreeMap, BTreeSet};

use citrine_formats::addr::{GuestPhys, Span, TruePhys};
use citrine_formats::manifest::Role;

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

/// A device that a partition is assigned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AssignedDevice {
    /// Name of its node, in the configuration tree and in the guest's.
    pub node: String,
    /// Path or alias in the hardware tree.
    pub device: String,
    /// Whether it gets the partition's DMA window.
    pub dma: bool,
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
    /// Devices of the board, in the profile's order.
    pub devices: Vec<AssignedDevice>,
    /// The partitions that it manages, in the order of its key.
    pub manages: Vec<Managed>,
    /// Kernel command line.
    pub bootargs: String,
    /// Whether the hypervisor takes short ways for what its guest does most.
    pub fast_traps: bool,
}

/// Where everything lies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoadPlan {
    /// The board.
    pub board: Board,
    /// The profile.
    pub profile: Profile,
    /// Memory areas, by address.
    pub areas: Vec<Area>,
    /// Partitions, in the profile's order.
    pub partitions: Vec<PartitionPlan>,
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

    /// Names of the partitions that start with `part`.
    pub fn users_of(&self, part: usize) -> Vec<&str> {
        self.partitions
            .iter()
            .filter(|p| p.kernel.part == part || p.rootfs.as_ref().is_some_and(|r| r.part == part))
            .map(|p| p.name.as_str())
            .collect()
    }
}
