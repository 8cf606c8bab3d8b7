//! [`Profile`]: what a system shall be — partitions, CPUs, memory, images, consoles — on any board.
//!
//! A profile is also a part of every bundle (`profile.json`), so that a bundle can be rendered for another
//! board, such as the emulator's, without the checkout that it came from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use citrine_core::capabilities::Capabilities;
use citrine_formats::addr::{GuestPhys, TruePhys};
use citrine_formats::signature::Key;

use crate::source::Places;
use crate::units::CpuChoice;

/// Version of `profile.json`; a reader refuses every other.
pub const FORMAT: u32 = 1;

/// An image that a partition starts with.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ImageUse {
    /// The artifact's name (`linux`); partitions that name the same one share one copy.
    pub image: String,
    /// Where it goes in the partition.
    pub guest_address: GuestPhys,
    /// Where U-Boot loads it, unless the board's slot is right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<TruePhys>,
    /// Most bytes it may have where it is loaded, unless the next slot decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<u64>,
}

/// What the devices of a partition may read and write by themselves.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dma {
    /// The partition's own memory, at the addresses that the partition uses.
    Memory,
    /// A window with sub-windows, each of which leads to one thing.
    Window(DmaWindow),
}

/// A DMA window from guest-physical 0 that is divided into equal slots (Topaz `dma-window` with `subwindow-count`).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DmaWindow {
    /// Size in bytes of the whole window.
    pub size: u64,
    /// Number of slots.
    pub subwindows: u32,
    /// What it leads to: `memory`, `msi`, or the name of shared memory.
    pub reach: Vec<String>,
}

/// A device that somebody is assigned.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DeviceUse {
    /// Path or alias in the hardware tree.
    pub device: String,
    /// Name of its node in the guest's tree, unless its own is right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The device of the same partition that takes its message-signalled interrupts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub msi: Option<String>,
    /// Whether it gets the partition's DMA window; if nothing is said, as the hardware tree says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dma: Option<bool>,
    /// What else stands in its node, as devicetree source.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub dts: String,
}

/// Which numbers of the data path's resources a partition may use: inclusive ranges.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DataPath {
    /// Buffer pools of BMan.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bpids: Vec<(u32, u32)>,
    /// Frame queues of QMan.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fqids: Vec<(u32, u32)>,
    /// Pool channels of QMan.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pool_channels: Vec<(u32, u32)>,
    /// Congestion groups of QMan.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cgrids: Vec<(u32, u32)>,
}

/// A kind of number of the data path.
#[derive(Clone, Copy, Debug)]
pub struct NumberKind<'p> {
    /// Its key in a profile.
    pub key: &'static str,
    /// The nodes of the hardware tree that hold it, without their address.
    pub node: &'static str,
    /// The property that limits a guest.
    pub property: &'static str,
    /// The inclusive ranges that a partition may use.
    pub ranges: &'p [(u32, u32)],
}

impl DataPath {
    /// Each kind of number.
    pub fn kinds(&self) -> [NumberKind<'_>; 4] {
        let kind = |key, node, property, ranges| NumberKind { key, node, property, ranges };
        [
            kind("bpids", "bman-bpids", "fsl,bpid-range", self.bpids.as_slice()),
            kind("fqids", "qman-fqids", "fsl,fqid-range", self.fqids.as_slice()),
            kind("pool-channels", "qman-pools", "fsl,pool-channel-range", self.pool_channels.as_slice()),
            kind("cgrids", "qman-cgrids", "fsl,cgrid-range", self.cgrids.as_slice()),
        ]
    }

    /// Whether it limits nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// One partition.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Partition {
    /// Short name, unique in the profile.
    pub name: String,
    /// Name that the partition itself and the console show.
    pub label: String,
    /// CPUs it asks for.
    #[serde(with = "cpu_choice")]
    pub cpus: CpuChoice,
    /// Memory in bytes, from guest-physical 0.
    pub memory: u64,
    /// True-physical address of the memory, unless it is placed automatically.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_address: Option<TruePhys>,
    /// Mux channel of the console.
    pub console: u32,
    /// Kernel command line.
    pub bootargs: String,
    /// The image that is entered.
    pub kernel: ImageUse,
    /// The root file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rootfs: Option<ImageUse>,
    /// Where the generated guest tree goes.
    pub dtb_address: GuestPhys,
    /// Most bytes the guest tree may have.
    pub dtb_size: u64,
    /// The devices it is assigned: paths or aliases in the hardware tree.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<DeviceUse>,
    /// The devices that it is assigned where there are any and the hypervisor assigns devices at all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub optional_devices: Vec<DeviceUse>,
    /// Numbers of the QMan portals that it is assigned, each with its stash.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub qman_portals: Vec<u32>,
    /// Numbers of the BMan portals that it is assigned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bman_portals: Vec<u32>,
    /// The devices that reach the partition's memory through its portals, whoever owns them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub portal_devices: Vec<DeviceUse>,
    /// The numbers of the data path that it may use.
    #[serde(default, skip_serializing_if = "DataPath::is_empty")]
    pub data_path: DataPath,
    /// What they may read and write by themselves; nothing unless it is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dma: Option<Dma>,
    /// Whether the hypervisor takes short ways for what the guest does most.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub fast_traps: bool,
    /// Names of the partitions that it may stop and start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub manages: Vec<String>,
    /// What else stands in its node, as devicetree source.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub dts: String,
}

/// Memory that several partitions share.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SharedArea {
    /// Short name, unique in the profile.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// True-physical address, unless it is placed automatically.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<TruePhys>,
    /// Guest-physical address in each of its partitions.
    pub guest_address: GuestPhys,
    /// Names of the partitions that see it.
    pub partitions: Vec<String>,
}

/// A byte channel between two partitions.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Channel {
    /// Short name, unique in the profile.
    pub name: String,
    /// Names of the two partitions.
    pub partitions: [String; 2],
}

/// Which hypervisor a profile is written for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Firmware {
    /// Ours, which every bundle has unless another is given.
    #[default]
    Citrine,
    /// Freescale's, which must be given: it is not built here.
    Freescale,
}

impl Firmware {
    /// What it can do.
    pub fn capabilities(self) -> Capabilities {
        match self {
            Self::Citrine => Capabilities::CITRINE,
            Self::Freescale => Capabilities::TOPAZ,
        }
    }

    /// Whether it is ours.
    fn is_ours(&self) -> bool {
        *self == Self::Citrine
    }
}

/// The hypervisor's own settings.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct HypervisorUse {
    /// Mux channel of the hypervisor's own console.
    pub console: u32,
    /// Boot arguments after `config-addr=`.
    pub bootargs: String,
    /// Whether the tree says the rate of the console's line; otherwise the hardware tree does.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub baud: bool,
    /// Size of its memory, unless the board's default is right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Address of its memory, unless the board's default is right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_address: Option<TruePhys>,
    /// The one that the profile is written for.
    #[serde(default, skip_serializing_if = "Firmware::is_ours")]
    pub firmware: Firmware,
    /// Devices that it has besides those that the board's file names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<DeviceUse>,
}

/// A profile, every value checked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Profile {
    /// Version of this form.
    pub format: u32,
    /// Name of the file without `.toml`.
    pub name: String,
    /// One line for people.
    pub title: String,
    /// Rollback counter of its bundles: raised when older ones shall not be started any more.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub epoch: u32,
    /// CPUs that no partition shall have, as a list (`"6"`).
    pub unused_cpus: Vec<u32>,
    /// The hypervisor's settings.
    pub hypervisor: HypervisorUse,
    /// The partitions, in the order of their handles.
    pub partitions: Vec<Partition>,
    /// Shared memory.
    pub shared: Vec<SharedArea>,
    /// Byte channels between partitions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub channels: Vec<Channel>,
    /// The key that must sign the configuration tree, if the firmware shall check that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<Key>,
    /// Names of nodes of hv.dts that differ from the usual ones, each by the path that the node would have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub names: BTreeMap<String, String>,
    /// What else stands in the root of hv.dts, as devicetree source.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub dts: String,
    /// The file of that key, as the profile names it, until [`crate::input::trust::attach`] has read it.
    #[serde(skip)]
    pub trust_file: Option<String>,
    /// Where every value stands in the profile's file; not part of `profile.json`.
    #[serde(skip)]
    pub places: Places,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_zero(value: &u32) -> bool {
    *value == 0
}

/// The default of a switch that is on.
const fn yes() -> bool {
    true
}

/// Whether a switch is at its default.
const fn is_yes(switch: &bool) -> bool {
    *switch
}

mod cpu_choice {
    //! A CPU choice is written as the profile's author wrote it.
    use super::CpuChoice;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub fn serialize<S: Serializer>(choice: &CpuChoice, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(choice)
    }

    pub fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<CpuChoice, D::Error> {
        let text = String::deserialize(from)?;
        CpuChoice::parse(&text).ok_or_else(|| D::Error::custom("no CPU choice"))
    }
}
