//! What the rules can object to: one variant per rule, with its code, severity and words.

use core::fmt;

use citrine_formats::addr::{GuestPhys, Hex, Size, Span, TruePhys};
use citrine_formats::diag::{Code, Severity};

use crate::config::Role;
use crate::machine::CpuSet;

/// The configuration tree cannot be understood; see `citrine_formats::hvconfig`.
pub const TREE: Code = Code::new('H', 100);
/// [`Finding::ImageOutside`]; the tool drops it where it knows the image's real bytes.
pub const IMAGE_OUTSIDE: Code = Code::new('H', 114);
/// [`Finding::DestinationsOverlap`]; the tool drops it where it knows the real bytes.
pub const DESTINATIONS_OVERLAP: Code = Code::new('H', 115);
/// [`Finding::RootfsTooHigh`]; the tool drops it where it knows the real bytes.
pub const ROOTFS_TOO_HIGH: Code = Code::new('H', 120);

/// Smallest area that the hypervisor can live in, in bytes; also Topaz's practical minimum.
pub const MIN_HYPERVISOR_MEMORY: u64 = 16 << 20;
/// Linux maps this much of its memory before it reads its device tree (arch/powerpc/mm/nohash, e500).
pub const LINUX_FIRST_MAP: GuestPhys = GuestPhys(64 << 20);
/// End of what 32-bit Linux maps linearly: a RAM disk above it cannot be reached.
pub const LINUX_LOW_MEMORY: GuestPhys = GuestPhys(768 << 20);
/// Channels of one mux: 0 to 31.
pub const MUX_CHANNELS: u32 = 32;

/// Something in a configuration that a rule objects to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Finding<'a> {
    /// H101: a CPU belongs to two partitions, or to one twice.
    CpuTwice {
        /// The CPU.
        cpu: u32,
        /// The partition that lists it first.
        first: &'a str,
        /// The partition that lists it again.
        second: &'a str,
    },
    /// H102: the machine has no such CPU.
    CpuMissing {
        /// The partition.
        partition: &'a str,
        /// The CPU.
        cpu: u32,
        /// The CPUs there are.
        machine: CpuSet,
    },
    /// H103: nobody owns these CPUs.
    CpusIdle {
        /// The CPUs.
        cpus: CpuSet,
    },
    /// H104: the size of an area is no power of two.
    AreaSize {
        /// The area.
        area: &'a str,
        /// Its size in bytes.
        size: u64,
    },
    /// H105: an area does not begin at a multiple of its size.
    AreaUnaligned {
        /// The area.
        area: &'a str,
        /// Where it is.
        span: Span<TruePhys>,
    },
    /// H106: two areas hold the same bytes.
    AreasOverlap {
        /// One area.
        first: &'a str,
        /// The other.
        second: &'a str,
        /// The bytes.
        common: Span<TruePhys>,
    },
    /// H107: an area is not RAM, or not only.
    AreaOutsideRam {
        /// The area.
        area: &'a str,
        /// Where it is.
        span: Span<TruePhys>,
    },
    /// H108: a partition can address the hypervisor's memory.
    HypervisorMapped {
        /// The area.
        area: &'a str,
        /// The partition.
        partition: &'a str,
    },
    /// H109: two mappings of a partition hold the same guest-physical addresses.
    MappingsOverlap {
        /// The partition.
        partition: &'a str,
        /// One area.
        first: &'a str,
        /// The other.
        second: &'a str,
        /// The addresses.
        common: Span<GuestPhys>,
    },
    /// H110: a guest address is no multiple of the area's size.
    GuestUnaligned {
        /// The partition.
        partition: &'a str,
        /// The area.
        area: &'a str,
        /// Where the guest finds it.
        guest: GuestPhys,
        /// The area's size in bytes.
        size: u64,
    },
    /// H111: two byte channels use the same channel of a mux.
    ChannelTwice {
        /// The channel's number.
        channel: u32,
        /// Who uses it first: a partition, or the hypervisor.
        first: &'a str,
        /// Who uses it again.
        second: &'a str,
    },
    /// H112: a mux has no such channel.
    ChannelTooLarge {
        /// Who wants it.
        owner: &'a str,
        /// The channel's number.
        channel: u32,
    },
    /// H113: the device tree's window is not the partition's memory.
    DtbOutside {
        /// The partition.
        partition: &'a str,
        /// The window.
        window: Span<GuestPhys>,
    },
    /// H114: an image's destination is not the partition's memory.
    ImageOutside {
        /// The partition.
        partition: &'a str,
        /// The image.
        role: Role,
        /// Its destination.
        window: Span<GuestPhys>,
    },
    /// H115: two of a partition's destinations overlap.
    DestinationsOverlap {
        /// The partition.
        partition: &'a str,
        /// One image.
        first: Role,
        /// The other; `None` is the device tree.
        second: Option<Role>,
        /// The addresses.
        common: Span<GuestPhys>,
    },
    /// H116: an image lies in memory that gets another use before the image is read.
    SourceOwned {
        /// The partition that wants the image.
        partition: &'a str,
        /// The image.
        role: Role,
        /// Where it may lie.
        window: Span<TruePhys>,
        /// The area that is in use.
        area: &'a str,
        /// Where that is.
        span: Span<TruePhys>,
    },
    /// H117: the hypervisor has no area of at least [`MIN_HYPERVISOR_MEMORY`] bytes.
    HypervisorMemory {
        /// Its largest area in bytes; 0 when there is none.
        largest: u64,
    },
    /// H119: Linux cannot read its device tree above [`LINUX_FIRST_MAP`].
    DtbTooHigh {
        /// The partition.
        partition: &'a str,
        /// The window.
        window: Span<GuestPhys>,
        /// Whether the partition is known to run Linux: it has a RAM disk.
        linux: bool,
    },
    /// H120: Linux cannot reach a RAM disk above [`LINUX_LOW_MEMORY`].
    RootfsTooHigh {
        /// The partition.
        partition: &'a str,
        /// Its destination.
        window: Span<GuestPhys>,
    },
    /// H121: a partition has no CPU.
    NoCpu {
        /// The partition.
        partition: &'a str,
    },
    /// H122: a partition is assigned devices, and this hypervisor assigns none.
    DevicesIgnored {
        /// The partition.
        partition: &'a str,
        /// How many devices.
        count: usize,
    },
}

impl Finding<'_> {
    /// The rule's code.
    pub const fn code(&self) -> Code {
        match self {
            Self::CpuTwice { .. } => Code::new('H', 101),
            Self::CpuMissing { .. } => Code::new('H', 102),
            Self::CpusIdle { .. } => Code::new('H', 103),
            Self::AreaSize { .. } => Code::new('H', 104),
            Self::AreaUnaligned { .. } => Code::new('H', 105),
            Self::AreasOverlap { .. } => Code::new('H', 106),
            Self::AreaOutsideRam { .. } => Code::new('H', 107),
            Self::HypervisorMapped { .. } => Code::new('H', 108),
            Self::MappingsOverlap { .. } => Code::new('H', 109),
            Self::GuestUnaligned { .. } => Code::new('H', 110),
            Self::ChannelTwice { .. } => Code::new('H', 111),
            Self::ChannelTooLarge { .. } => Code::new('H', 112),
            Self::DtbOutside { .. } => Code::new('H', 113),
            Self::ImageOutside { .. } => IMAGE_OUTSIDE,
            Self::DestinationsOverlap { .. } => DESTINATIONS_OVERLAP,
            Self::SourceOwned { .. } => Code::new('H', 116),
            Self::HypervisorMemory { .. } => Code::new('H', 117),
            Self::DtbTooHigh { .. } => Code::new('H', 119),
            Self::RootfsTooHigh { .. } => ROOTFS_TOO_HIGH,
            Self::NoCpu { .. } => Code::new('H', 121),
            Self::DevicesIgnored { .. } => Code::new('H', 122),
        }
    }

    /// How grave it is. A window is only what may be used: where the real bytes decide, it is a warning.
    pub fn severity(&self) -> Severity {
        match self {
            Self::CpusIdle { .. } | Self::DestinationsOverlap { .. } | Self::DevicesIgnored { .. } => Severity::Warning,
            Self::DtbTooHigh { linux: false, .. } => Severity::Warning,
            Self::SourceOwned { window, span, .. } if !span.contains(window.base()) => Severity::Warning,
            Self::RootfsTooHigh { window, .. } if window.base() < LINUX_LOW_MEMORY => Severity::Warning,
            _ => Severity::Error,
        }
    }
}

impl fmt::Display for Finding<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::CpuTwice { cpu, first, second } if first == second => {
                write!(f, "CPU {cpu} is listed twice by partition {first}")
            }
            Self::CpuTwice { cpu, first, second } => {
                write!(f, "CPU {cpu} belongs to both partition {first} and partition {second}")
            }
            Self::CpuMissing { partition, cpu, machine } => {
                write!(f, "partition {partition} lists CPU {cpu}, but the machine has CPUs {machine}")
            }
            Self::CpusIdle { cpus } if cpus.len() == 1 => write!(f, "no partition owns CPU {cpus}"),
            Self::CpusIdle { cpus } => write!(f, "no partition owns CPUs {cpus}"),
            Self::AreaSize { area, size } => {
                write!(f, "the size of area {area}, {}, is no power of two", Hex(size))
            }
            Self::AreaUnaligned { area, span } => {
                write!(f, "area {area} begins at {}, which is no multiple of its size {}", span.base(), Hex(span.len()))
            }
            Self::AreasOverlap { first, second, common } => {
                write!(f, "areas {first} and {second} both hold {common}")
            }
            Self::AreaOutsideRam { area, span } => {
                write!(f, "area {area} at {span} is not completely RAM")
            }
            Self::HypervisorMapped { area, partition } => {
                write!(f, "partition {partition} maps area {area}, which is the hypervisor's own memory")
            }
            Self::MappingsOverlap { partition, first, second, common } => {
                write!(f, "partition {partition} has areas {first} and {second} both at guest-physical {common}")
            }
            Self::GuestUnaligned { partition, area, guest, size } => write!(
                f,
                "partition {partition} has area {area} at guest-physical {guest}, which is no multiple of its size {}",
                Hex(size)
            ),
            Self::ChannelTwice { channel, first, second } => {
                write!(f, "mux channel {channel} is used by both {first} and {second}")
            }
            Self::ChannelTooLarge { owner, channel } => {
                write!(f, "{owner} uses mux channel {channel}; the last one is {}", MUX_CHANNELS - 1)
            }
            Self::DtbOutside { partition, window } => {
                write!(f, "the device tree of partition {partition} at {window} is outside its memory")
            }
            Self::ImageOutside { partition, role, window } => {
                write!(f, "the {role} of partition {partition} goes to {window}, which is outside its memory")
            }
            Self::DestinationsOverlap { partition, first, second: Some(second), common } => {
                write!(f, "the windows of {first} and {second} of partition {partition} both hold {common}")
            }
            Self::DestinationsOverlap { partition, first, second: None, common } => {
                write!(f, "the windows of {first} and device tree of partition {partition} both hold {common}")
            }
            Self::SourceOwned { partition, role, window, area, .. } => write!(
                f,
                "the {role} of partition {partition} is read from {window}, which overlaps area {area} that is in use"
            ),
            Self::HypervisorMemory { largest: 0 } => f.write_str("the hypervisor has no memory"),
            Self::HypervisorMemory { largest } => write!(
                f,
                "the hypervisor's largest area has {}; it needs {}",
                Size(largest),
                Size(MIN_HYPERVISOR_MEMORY)
            ),
            Self::DtbTooHigh { partition, window, .. } => write!(
                f,
                "the device tree of partition {partition} at {window} ends above {LINUX_FIRST_MAP}, \
                 where Linux cannot read it"
            ),
            Self::RootfsTooHigh { partition, window } => write!(
                f,
                "the rootfs of partition {partition} at {window} ends above {LINUX_LOW_MEMORY}, \
                 where Linux cannot reach it"
            ),
            Self::NoCpu { partition } => write!(f, "partition {partition} has no CPU"),
            Self::DevicesIgnored { partition, count } => write!(
                f,
                "partition {partition} is assigned {count} device{}, but this hypervisor assigns none: it starts without",
                if count == 1 { "" } else { "s" }
            ),
        }
    }
}
