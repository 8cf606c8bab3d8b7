//! The device tree that a guest is given: what the configuration says of the partition, what its CPUs are in
//! the hardware tree, the numbers by which it reaches the hypervisor, and the configuration's edits of all this.
//!
//! The contents are Topaz's, so that a guest finds what it finds there. Assigned devices and doorbells
//! are not made yet. Bindings: ePAPR 1.1 §3 (nodes), §5.5.2 (spin table), §7 (virtualization).

use core::fmt;

use citrine_formats::addr::{Address as _, GuestPhys, Span};
use citrine_formats::fdt::{Fdt, Place, writer};
use citrine_formats::hvconfig;

use crate::config::{Config, Partition};
use crate::hardware;
use crate::hypervisor::partition::LastStop;
use crate::memory::GuestMap;

mod arena;
mod generate;
mod update;

pub use arena::{Arena, Limit};

/// Length in bytes of a spin table, which has a page of its own.
pub const SPIN_TABLE_LEN: u64 = 4096;
/// Distance in bytes of the entries of a spin table; that of virtual CPU n is the n-th.
pub const SPIN_ENTRY_LEN: u64 = 64;
/// The phandle of a guest's interrupt controller, as Topaz has it: "VMPC".
const VMPIC: u32 = 0x564d_5043;

/// What a guest's tree is made of.
#[derive(Clone, Copy, Debug)]
pub struct Input<'c, 'a> {
    /// The hardware tree.
    pub hardware: Fdt<'a>,
    /// The configuration tree.
    pub tree: hvconfig::Tree<'a>,
    /// What was read from the configuration tree.
    pub config: &'c Config<'a>,
    /// The partition, by its place in [`Config::partitions`].
    pub partition: usize,
}

/// What only the running system knows of a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Runtime {
    /// The RAM disk, as it was unpacked.
    pub initrd: Option<Span<GuestPhys>>,
    /// Where the spin table is: see [`spin_table`].
    pub spin_table: GuestPhys,
    /// Who stopped the partition and why; none before the first start.
    pub stopped: Option<LastStop>,
}

/// Why a guest's tree cannot be made.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Error<'a> {
    /// The configuration tree has no such partition.
    NoPartition {
        /// Its place.
        index: usize,
    },
    /// The hardware tree's root has other than two cells for addresses and sizes, or no CPUs.
    Hardware {
        /// What is wrong with it.
        why: &'static str,
    },
    /// A CPU of the partition is not in the hardware tree.
    NoCpu {
        /// The virtual CPU.
        vcpu: u32,
        /// The CPU.
        cpu: u32,
    },
    /// An edit in the configuration tree is wrong.
    Config(hvconfig::Error<'a>),
    /// Two nodes of the configuration would be one in the guest's tree.
    Twice {
        /// The second.
        name: &'a str,
    },
    /// Every phandle is taken.
    NoPhandle,
    /// The tree has more than there is room for while it is made.
    TooMuch(Limit),
    /// The flattened tree is longer than the room for it.
    TooLarge {
        /// Bytes there are.
        room: usize,
    },
}

impl fmt::Display for Error<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("guest tree: ")?;
        match self {
            Self::NoPartition { index } => write!(f, "the configuration tree has no partition {index}"),
            Self::Hardware { why } => f.write_str(why),
            Self::NoCpu { vcpu, cpu } => {
                write!(f, "the hardware tree has no CPU {cpu}, which is to be virtual CPU {vcpu}")
            }
            Self::Config(error) => error.fmt(f),
            Self::Twice { name } => write!(f, "two nodes of the partition are called {name}"),
            Self::NoPhandle => f.write_str("the hardware tree leaves no phandle free"),
            Self::TooMuch(limit) => limit.fmt(f),
            Self::TooLarge { room } => write!(f, "it does not fit into {room} bytes; dtb-window is too small"),
        }
    }
}

impl core::error::Error for Error<'_> {}

impl<'a> From<hvconfig::Error<'a>> for Error<'a> {
    fn from(error: hvconfig::Error<'a>) -> Self {
        Self::Config(error)
    }
}

impl From<Limit> for Error<'_> {
    fn from(limit: Limit) -> Self {
        Self::TooMuch(limit)
    }
}

/// Makes the tree of a partition in `arena` and flattens it to the beginning of `into`; its length in bytes.
/// Give no more room than the partition's `dtb-window` has.
///
/// # Errors
/// The first thing that is wrong; see [`Error`].
pub fn build<'a>(
    input: &Input<'_, 'a>,
    runtime: &Runtime,
    arena: &mut Arena,
    into: &mut [u8],
) -> Result<usize, Error<'a>> {
    let no_partition = Error::NoPartition { index: input.partition };
    let config = input.config.partitions.get(input.partition).ok_or(no_partition)?;
    let node = input.tree.partitions().nth(input.partition).ok_or(no_partition)?;
    let hardware = Place::root(input.hardware);
    if hardware::cells(hardware) != (2, 2) {
        return Err(Error::Hardware { why: "#address-cells and #size-cells of the hardware tree are not 2 and 2" });
    }

    let root = arena.begin();
    generate::root(arena, root, config, hardware)?;
    generate::hypervisor(arena, root, input, runtime, node.place())?;
    generate::cpus(arena, root, config, runtime, hardware, node.place())?;
    let spans = || config.memory.iter().map(|mapping| (mapping.dma_only, mapping.guest_span(&input.config.areas)));
    for (place, (dma_only, span)) in node.nodes("guest-phys-mem-area").zip(spans()) {
        if !dma_only {
            let memory = generate::memory(arena, root, place, span)?;
            update::values(arena, place, memory)?;
        }
    }
    generate::chosen(arena, root, runtime)?;
    generate::devices(arena, root, hardware, node.place())?;
    let handles = generate::handles(arena, root)?;
    for (index, place) in channels(node, config) {
        let channel = generate::channel(arena, handles, index, place)?;
        update::values(arena, place, channel)?;
    }
    for (managed, place) in config.managed.iter().zip(node.nodes("managed-partition")) {
        generate::managed(arena, handles, managed, input.config, place)?;
    }
    update::values(arena, node.place(), root)?;

    // What refers to nodes comes when all are there.
    update::aliases(arena, node, root)?;
    let mut phandles = update::Phandles::new(node.place(), hardware);
    for (place, (dma_only, span)) in node.nodes("guest-phys-mem-area").zip(spans()) {
        let memory = arena.child(root, &generate::memory_name(span.base()));
        if let Some(memory) = memory.filter(|_| !dma_only) {
            phandles.update(arena, place, memory)?;
        }
    }
    for (_, place) in channels(node, config) {
        if let Some(channel) = arena.child(handles, place.name()) {
            phandles.update(arena, place, channel)?;
        }
    }
    phandles.update(arena, node.place(), root)?;

    arena.flatten(into).map_err(|writer::Full| Error::TooLarge { room: into.len() })
}

/// The byte channels of a partition, by number.
fn channels<'a>(
    node: hvconfig::Partition<'a>,
    config: &Partition<'a>,
) -> impl Iterator<Item = (usize, Place<'a>)> + use<'a> {
    node.nodes("byte-channel").take(config.channels.len()).enumerate()
}

/// Where the spin table of a guest is: in the page behind its memory, but not below the last page of 4 GiB.
pub fn spin_table(map: &GuestMap) -> GuestPhys {
    let end = map.end().get().checked_next_multiple_of(SPIN_TABLE_LEN).unwrap_or(!(SPIN_TABLE_LEN - 1));
    GuestPhys(end.max(0xffff_f000))
}

/// The first bytes of a virtual CPU's entry in the spin table: it waits (address 1), and will be entered with
/// its own number in r3 and in the PIR.
pub fn spin_entry(vcpu: u32) -> [u8; SPIN_ENTRY_LEN as usize] {
    let mut entry = [0; SPIN_ENTRY_LEN as usize];
    let words = [0, 1, 0, vcpu, 0, vcpu];
    for (slot, word) in entry.chunks_exact_mut(4).zip(words) {
        slot.copy_from_slice(&word.to_be_bytes());
    }
    entry
}

#[cfg(test)]
mod tests;
