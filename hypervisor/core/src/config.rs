//! [`Config`]: what the hypervisor is to do, with fixed capacity and borrowed names.
//!
//! The firmware reads it from the configuration tree, the tool builds it from its plan, and both then ask
//! [`crate::rules`] the same questions.

use arrayvec::ArrayVec;
use citrine_formats::addr::{Address, GuestPhys, Span, TruePhys};
use citrine_formats::fdt::Path;
use citrine_formats::hvconfig::{self, End, Error, Problem, Stdout};

use crate::machine::CpuSet;
pub use crate::machine::MAX_CPUS;
pub use citrine_formats::hvconfig::Digest;

mod connect;

/// Memory areas in one configuration.
pub const MAX_AREAS: usize = 64;
/// Partitions in one configuration; Topaz has the same limit.
pub const MAX_PARTITIONS: usize = 24;
/// Areas of the hypervisor itself; Topaz has the same limit.
pub const MAX_HYPERVISOR_AREAS: usize = 8;
/// Byte channels of one partition.
pub const MAX_CHANNELS: usize = 8;
/// Partitions that one partition may control.
pub const MAX_MANAGED: usize = 8;

/// A whole configuration.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Config<'a> {
    /// All memory areas; the others refer to them by index.
    pub areas: ArrayVec<Area<'a>, MAX_AREAS>,
    /// What the hypervisor owns.
    pub hypervisor: Hypervisor<'a>,
    /// The partitions.
    pub partitions: ArrayVec<Partition<'a>, MAX_PARTITIONS>,
}

/// A piece of true-physical memory. Two owners share it only by naming the same area.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Area<'a> {
    /// Its name.
    pub name: &'a str,
    /// Where it is.
    pub span: Span<TruePhys>,
}

/// What the hypervisor owns.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Hypervisor<'a> {
    /// Indexes into [`Config::areas`]: its private memory.
    pub memory: ArrayVec<usize, MAX_HYPERVISOR_AREAS>,
    /// Where its log goes; `None` leaves it to the hardware tree.
    pub console: Option<Console<'a>>,
}

/// A serial line, and the channel on it when it is shared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Console<'a> {
    /// The UART: an alias or a path in the hardware tree.
    pub device: &'a str,
    /// The mux channel; `None` when the line is not shared.
    pub mux_channel: Option<u32>,
}

/// One partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Partition<'a> {
    /// Its label.
    pub name: &'a str,
    /// Its CPUs; the first of the first range is its virtual CPU 0.
    pub cpus: ArrayVec<CpuRange, 8>,
    /// The memory it can address.
    pub memory: ArrayVec<Mapping, 16>,
    /// Where its device tree is put, and how long that may be.
    pub dtb_window: Span<GuestPhys>,
    /// The image that is entered.
    pub guest_image: Option<ImageRow>,
    /// The RAM disk.
    pub rootfs: Option<ImageRow>,
    /// What is loaded besides.
    pub images: ArrayVec<ImageRow, 8>,
    /// Its consoles and other byte channels.
    pub channels: ArrayVec<Channel<'a>, MAX_CHANNELS>,
    /// The partitions that it may control besides itself.
    pub managed: ArrayVec<Managed<'a>, MAX_MANAGED>,
    /// How many devices of the board it is assigned; which ones, nothing here asks so far.
    pub devices: usize,
    /// Whether it starts by itself; otherwise its manager starts it.
    pub starts: bool,
    /// Whether all traps of its guest take the long way through [`crate::exits`], for comparison with the short ones.
    pub slow_traps: bool,
}

/// Consecutive CPUs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CpuRange {
    /// Number of the first.
    pub first: u32,
    /// How many.
    pub count: u32,
}

impl CpuRange {
    /// The numbers of the range, of which a hostile one may have 2^32: no more than it takes to reach one
    /// that no CPU can have.
    pub fn numbers(&self) -> impl Iterator<Item = u32> + use<> {
        let first = self.first;
        (0..self.count.min(MAX_CPUS + 1)).map_while(move |index| first.checked_add(index))
    }
}

/// A partition's view of one memory area.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// Index into [`Config::areas`].
    pub area: usize,
    /// Where the guest finds it; it is as long as the area.
    pub guest: GuestPhys,
    /// Only the partition's devices can reach it.
    pub dma_only: bool,
}

/// An image that is loaded before a partition starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ImageRow {
    /// Where the image is found.
    pub source: TruePhys,
    /// Where it is put.
    pub dest: GuestPhys,
    /// Bytes that it may have at both places. Only a gzip kernel and an ELF program may take more where they are
    /// put, as far as nothing else is there: Topaz limits what they have where they are found.
    pub window: u64,
    /// Which bytes it must have; `None` when the configuration does not say.
    pub digest: Option<Digest>,
}

impl ImageRow {
    /// The bytes that the image may have where it is found.
    pub fn source_span(&self) -> Span<TruePhys> {
        window(self.source, self.window)
    }

    /// The bytes that the image may have where it is put.
    pub fn dest_span(&self) -> Span<GuestPhys> {
        window(self.dest, self.window)
    }
}

/// What an image is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// It is entered.
    Kernel,
    /// The RAM disk.
    Rootfs,
    /// Loaded besides: its place in the table, from 0.
    Extra(usize),
}

impl core::fmt::Display for Role {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Kernel => f.write_str("kernel"),
            Self::Rootfs => f.write_str("rootfs"),
            Self::Extra(index) => write!(f, "image {index}"),
        }
    }
}

/// A byte channel of a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Channel<'a> {
    /// Its name.
    pub name: &'a str,
    /// Where it leads.
    pub end: ChannelEnd<'a>,
}

/// Where a byte channel leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChannelEnd<'a> {
    /// To one of the channels on a shared serial line.
    Mux {
        /// The UART: an alias or a path in the hardware tree.
        device: &'a str,
        /// The channel's number.
        channel: u32,
    },
    /// To a serial line of its own.
    Device(&'a str),
    /// To another byte channel of a partition, which leads back here.
    Peer(ChannelId),
    /// To the hypervisor's console.
    Console,
    /// Nowhere.
    Open,
}

/// Which byte channel of which partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChannelId {
    /// Index into [`Config::partitions`].
    pub partition: usize,
    /// Index into [`Partition::channels`].
    pub channel: usize,
}

/// A partition that another one may control.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Managed<'a> {
    /// What the manager calls it.
    pub name: &'a str,
    /// Index into [`Config::partitions`].
    pub partition: usize,
}

impl Partition<'_> {
    /// Its CPUs as a set; numbers that no CPU can have are left out.
    pub fn cpu_set(&self) -> CpuSet {
        self.cpus.iter().flat_map(CpuRange::numbers).collect()
    }

    /// Its images in the order in which they are loaded: what is entered comes last.
    pub fn rows(&self) -> impl Iterator<Item = (Role, ImageRow)> + '_ {
        let extra = self.images.iter().enumerate().map(|(index, row)| (Role::Extra(index), *row));
        let rootfs = self.rootfs.map(|row| (Role::Rootfs, row));
        extra.chain(rootfs).chain(self.guest_image.map(|row| (Role::Kernel, row)))
    }
}

impl Mapping {
    /// The guest-physical range of the mapping, cut at the end of the address space.
    pub fn guest_span(&self, areas: &[Area<'_>]) -> Span<GuestPhys> {
        window(self.guest, areas.get(self.area).map_or(0, |area| area.span.len()))
    }
}

/// The range of `len` bytes from `base`, cut at the end of the address space.
fn window<A: Address>(base: A, len: u64) -> Span<A> {
    Span::between(base, A::new(base.get().saturating_add(len)))
}

impl<'a> Config<'a> {
    /// Reads the configuration tree.
    ///
    /// # Errors
    /// The first thing in the tree that cannot be understood.
    pub fn from_tree(tree: hvconfig::Tree<'a>) -> Result<Self, Error<'a>> {
        let mut config = Self::default();
        config.add(tree)?;
        Ok(config)
    }

    /// Adds what the configuration tree says: a configuration has 40 KiB, of which the firmware can do without copies.
    ///
    /// # Errors
    /// See [`Config::from_tree`].
    pub fn add(&mut self, tree: hvconfig::Tree<'a>) -> Result<(), Error<'a>> {
        // What makes an area is its node: two nodes may have the same name.
        let mut paths = ArrayVec::<Path<'a>, MAX_AREAS>::new();
        for area in tree.areas() {
            push(&mut self.areas, Area { name: area.name(), span: area.span()? }, area.path(), "")?;
            push(&mut paths, area.path(), area.path(), "")?;
        }
        let index = |area: hvconfig::Area<'a>| {
            let found = paths.iter().position(|path| *path == area.path());
            found.ok_or(Error { path: area.path(), property: "", problem: Problem::Missing })
        };

        let hypervisor = tree.hypervisor()?;
        for area in hypervisor.memory() {
            let area = area?;
            push(&mut self.hypervisor.memory, index(area)?, area.path(), "hv-memory")?;
        }
        self.hypervisor.console = match hypervisor.stdout()? {
            Some(Stdout::Device(device)) => Some(Console { device, mux_channel: None }),
            Some(Stdout::Channel(stdout)) => match stdout.end()? {
                End::Mux { mux, channel } => Some(Console { device: mux.device()?, mux_channel: Some(channel) }),
                End::Device(device) => Some(Console { device, mux_channel: None }),
                End::Channel(_) | End::Open => None,
            },
            None => None,
        };
        for partition in tree.partitions() {
            let read = read_partition(partition, index)?;
            push(&mut self.partitions, read, partition.path(), "")?;
        }
        connect::channels(self, tree)?;
        connect::managers(self, tree)?;
        Ok(())
    }
}

fn read_partition<'a>(
    partition: hvconfig::Partition<'a>,
    index: impl Fn(hvconfig::Area<'a>) -> Result<usize, Error<'a>>,
) -> Result<Partition<'a>, Error<'a>> {
    let path = partition.path();
    // Taken in the order in which the images are loaded.
    let mut digests = partition.digests()?;
    let mut row = |row: hvconfig::Row| ImageRow {
        source: row.source.base(),
        dest: row.dest.base(),
        window: row.source.len(),
        digest: digests.next(),
    };
    let mut images = ArrayVec::new();
    for extra in partition.images()? {
        push(&mut images, row(extra?), path, "load-image-table")?;
    }
    let rootfs = partition.rootfs()?.map(&mut row);
    let guest_image = partition.guest_image()?.map(&mut row);
    let mut read = Partition {
        name: partition.label()?,
        cpus: ArrayVec::new(),
        memory: ArrayVec::new(),
        dtb_window: partition.dtb_window()?,
        guest_image,
        rootfs,
        images,
        channels: ArrayVec::new(),
        managed: ArrayVec::new(),
        devices: partition.devices().try_fold(0, |count, device| device.map(|_| count + 1))?,
        starts: !partition.waits(),
        slow_traps: partition.has_slow_traps(),
    };
    for (first, count) in partition.cpus()? {
        push(&mut read.cpus, CpuRange { first, count }, path, "cpus")?;
    }
    for mapping in partition.memory() {
        let mapping = mapping?;
        let area = index(mapping.area)?;
        let mapping = Mapping { area, guest: mapping.guest.base(), dma_only: mapping.dma_only };
        push(&mut read.memory, mapping, path, "guest-phys-mem-area")?;
    }
    for channel in partition.channels() {
        let end = match channel.end()? {
            End::Mux { mux, channel } => ChannelEnd::Mux { device: mux.device()?, channel },
            End::Device(device) => ChannelEnd::Device(device),
            End::Channel(_) | End::Open => ChannelEnd::Open,
        };
        push(&mut read.channels, Channel { name: channel.name(), end }, path, "byte-channel")?;
    }
    // References are not configuration, but a dangling one is a mistake that shows only in the guest.
    partition.aliases().try_for_each(|alias| alias.map(drop))?;
    Ok(read)
}

/// Adds to a list of fixed capacity.
fn push<'a, T, const N: usize>(
    list: &mut ArrayVec<T, N>,
    item: T,
    path: Path<'a>,
    property: &'static str,
) -> Result<(), Error<'a>> {
    list.try_push(item).map_err(|_| Error { path, property, problem: Problem::TooMany { limit: N } })
}
