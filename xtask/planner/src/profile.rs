//! [`Profile`]: what a system shall be — partitions, CPUs, memory, images, consoles — on any board.
//!
//! A profile is also a part of every bundle (`profile.json`), so that a bundle can be rendered for another
//! board, such as the emulator's, without the checkout that it came from.

use serde::{Deserialize, Serialize};

use citrine_formats::addr::{GuestPhys, TruePhys};

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
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dma {
    /// The partition's own memory, at the addresses that the partition uses.
    Memory,
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
    pub devices: Vec<String>,
    /// What they may read and write by themselves; nothing unless it is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dma: Option<Dma>,
    /// Whether the hypervisor takes short ways for what the guest does most.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub fast_traps: bool,
    /// Names of the partitions that it may stop and start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub manages: Vec<String>,
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

/// The hypervisor's own settings.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct HypervisorUse {
    /// Mux channel of the hypervisor's own console.
    pub console: u32,
    /// Boot arguments after `config-addr=`.
    pub bootargs: String,
    /// Size of its memory, unless the board's default is right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Address of its memory, unless the board's default is right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_address: Option<TruePhys>,
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
    /// Where every value stands in the profile's file; not part of `profile.json`.
    #[serde(skip)]
    pub places: Places,
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
