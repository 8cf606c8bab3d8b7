//! The hypervisor configuration tree (`hv.dtb`): typed views that allocate nothing.
//!
//! The binding is Topaz's, read strictly. Topaz ignores what it does not understand, so a misspelt
//! property or a row with a missing cell surfaces much later as a guest that does not start; here each is
//! an [`Error`] that names node and property. [`Tree::new`] checks the names of the whole tree once;
//! the views check values when they are asked for.
//!
//! Not checked here: whether the numbers fit together (`citrine_core::rules`), and the details of
//! assigned devices and DMA windows.

use crate::addr::{Address, GuestPhys, Span, TruePhys};
use crate::fdt::{Fdt, FdtProperty, Path, Place, Property as _, strings};
use crate::sha256::Sha256;

mod error;
pub mod schema;

pub use error::{Error, Problem};

/// Longest label, device path or other name, in bytes.
pub const MAX_NAME: usize = 128;
/// Bytes of one row of `guest-image`, `linux-rootfs` or `load-image-table`.
const ROW_LEN: usize = 24;
/// The property of a partition that says which bytes its images have: for each of them, in the order in which
/// they are loaded (`load-image-table`, `linux-rootfs`, `guest-image`), two cells of length in bytes and eight of
/// SHA-256. Citrine's own: Topaz passes over it.
pub const DIGESTS: &str = "citrine,sha256";
/// The property of a partition whose guest's privileged instructions all take the long way. Empty; Citrine's own, too.
pub const SLOW_TRAPS: &str = "citrine,slow-traps";
/// Bytes of one row of [`DIGESTS`].
const DIGEST_LEN: usize = 40;

/// A result of reading the configuration tree.
pub type Result<'a, T> = core::result::Result<T, Error<'a>>;

/// A configuration tree in which every node and property has a known name and place.
#[derive(Clone, Copy, Debug)]
pub struct Tree<'a> {
    root: Place<'a>,
}

impl<'a> Tree<'a> {
    /// Checks the names and places of all nodes and properties.
    ///
    /// # Errors
    /// [`Problem::Unknown`], [`Problem::UnknownKind`] or [`Problem::Misplaced`] for the first that is wrong.
    pub fn new(fdt: Fdt<'a>) -> Result<'a, Self> {
        let root = Place::root(fdt);
        schema::check(root)?;
        Ok(Self { root })
    }

    /// All `phys-mem-area` nodes, in tree order.
    pub fn areas(self) -> impl Iterator<Item = Area<'a>> {
        of_kind(self.root, "phys-mem-area").map(Area)
    }

    /// The `hv-config` node.
    ///
    /// # Errors
    /// [`Problem::Missing`], or [`Problem::TooMany`] when there are several.
    pub fn hypervisor(self) -> Result<'a, Hypervisor<'a>> {
        let mut nodes = of_kind(self.root, "hv-config");
        let missing = Error { path: self.root.path(), property: "hv-config node", problem: Problem::Missing };
        let first = nodes.next().ok_or(missing)?;
        match nodes.next() {
            None => Ok(Hypervisor { tree: self, place: first }),
            Some(second) => Err(Error { path: second.path(), property: "", problem: Problem::TooMany { limit: 1 } }),
        }
    }

    /// All `partition` nodes, in tree order.
    pub fn partitions(self) -> impl Iterator<Item = Partition<'a>> {
        of_kind(self.root, "partition").map(move |place| Partition { tree: self, place })
    }

    /// The node that a phandle property of `place` refers to.
    fn follow(self, place: Place<'a>, property: &'static str) -> Result<'a, Option<Place<'a>>> {
        let Some(value) = place.value(property) else {
            return Ok(None);
        };
        let phandle = u32::from_be_bytes(exact(place, property, value, "one phandle")?);
        let target = self.root.walk().find(|node| node.phandle() == Some(phandle));
        target.map(Some).ok_or(at(place, property, Problem::Dangling { phandle }))
    }

    /// The `phys-mem-area` that the `phys-mem` of `place` refers to.
    fn area(self, place: Place<'a>) -> Result<'a, Area<'a>> {
        let target = self.follow(place, "phys-mem")?.ok_or(at(place, "phys-mem", Problem::Missing))?;
        if target.is_compatible("phys-mem-area") {
            Ok(Area(target))
        } else {
            let problem = Problem::WrongTarget { target: target.path(), want: "a phys-mem-area" };
            Err(at(place, "phys-mem", problem))
        }
    }

    /// What the `endpoint` of a byte channel or mux leads to.
    fn end(self, place: Place<'a>) -> Result<'a, End<'a>> {
        let Some(target) = self.follow(place, "endpoint")? else {
            return Ok(End::Open);
        };
        if target.is_compatible("byte-channel-mux") {
            let value = place.value("mux-channel").ok_or(at(place, "mux-channel", Problem::Missing))?;
            let channel = u32::from_be_bytes(exact(place, "mux-channel", value, "one cell")?);
            Ok(End::Mux { mux: Mux { tree: self, place: target }, channel })
        } else if target.is_compatible("byte-channel") {
            Ok(End::Channel(target.path()))
        } else if target.value("device").is_some() {
            Ok(End::Device(name(target, "device")?))
        } else {
            let want = "a byte-channel-mux, a byte-channel or a device of the hypervisor";
            Err(at(place, "endpoint", Problem::WrongTarget { target: target.path(), want }))
        }
    }
}

/// A piece of true-physical memory.
#[derive(Clone, Copy, Debug)]
pub struct Area<'a>(Place<'a>);

impl<'a> Area<'a> {
    /// The node's name.
    pub fn name(self) -> &'a str {
        self.0.name()
    }

    /// The node's path, which is what makes two areas the same.
    pub fn path(self) -> Path<'a> {
        self.0.path()
    }

    /// `addr` and `size`.
    ///
    /// # Errors
    /// [`Problem::Missing`], [`Problem::Length`] or [`Problem::Wraps`].
    pub fn span(self) -> Result<'a, Span<TruePhys>> {
        let (base, len) = (number(self.0, "addr")?, number(self.0, "size")?);
        span(self.0, "size", base, len)
    }
}

/// What the hypervisor itself owns.
#[derive(Clone, Copy, Debug)]
pub struct Hypervisor<'a> {
    tree: Tree<'a>,
    place: Place<'a>,
}

impl<'a> Hypervisor<'a> {
    /// The areas of its `hv-memory` nodes.
    pub fn memory(self) -> impl Iterator<Item = Result<'a, Area<'a>>> {
        of_kind(self.place, "hv-memory").map(move |place| self.tree.area(place))
    }

    /// Where its log goes; `None` without `stdout`, which leaves it to the hardware tree's `stdout` alias.
    ///
    /// # Errors
    /// [`Problem::Dangling`], [`Problem::WrongTarget`], and what is wrong with the name of a device.
    pub fn stdout(self) -> Result<'a, Option<Stdout<'a>>> {
        let Some(target) = self.tree.follow(self.place, "stdout")? else {
            return Ok(None);
        };
        if target.is_compatible("byte-channel") {
            Ok(Some(Stdout::Channel(Channel { tree: self.tree, place: target })))
        } else if target.value("device").is_some() {
            Ok(Some(Stdout::Device(name(target, "device")?)))
        } else {
            let want = "a byte-channel or a device of the hypervisor";
            Err(at(self.place, "stdout", Problem::WrongTarget { target: target.path(), want }))
        }
    }

    /// The devices it drives: node name, and the alias or path in the hardware tree.
    pub fn devices(self) -> impl Iterator<Item = Result<'a, (&'a str, &'a str)>> {
        devices(self.place)
    }
}

/// Where the hypervisor's log goes.
#[derive(Clone, Copy, Debug)]
pub enum Stdout<'a> {
    /// To a device of the hypervisor: alias or path in the hardware tree.
    Device(&'a str),
    /// To a byte channel, of which the hypervisor is one end.
    Channel(Channel<'a>),
}

/// One end of a byte channel.
#[derive(Clone, Copy, Debug)]
pub struct Channel<'a> {
    tree: Tree<'a>,
    place: Place<'a>,
}

impl<'a> Channel<'a> {
    /// The node's name.
    pub fn name(self) -> &'a str {
        self.place.name()
    }

    /// The node's path, which is what makes two channels the same.
    pub fn path(self) -> Path<'a> {
        self.place.path()
    }

    /// Its other end.
    ///
    /// # Errors
    /// What is wrong with `endpoint` or `mux-channel`.
    pub fn end(self) -> Result<'a, End<'a>> {
        self.tree.end(self.place)
    }
}

/// The other end of a byte channel or mux.
#[derive(Clone, Copy, Debug)]
pub enum End<'a> {
    /// A mux, and the channel's number on it.
    Mux {
        /// The mux.
        mux: Mux<'a>,
        /// Its channel.
        channel: u32,
    },
    /// A device of the hypervisor: alias or path in the hardware tree.
    Device(&'a str),
    /// Another byte channel, by its path.
    Channel(Path<'a>),
    /// Nothing; the other end may name this one.
    Open,
}

/// A `byte-channel-mux`: several byte channels on one UART.
#[derive(Clone, Copy, Debug)]
pub struct Mux<'a> {
    tree: Tree<'a>,
    place: Place<'a>,
}

impl<'a> Mux<'a> {
    /// The node's name.
    pub fn name(self) -> &'a str {
        self.place.name()
    }

    /// The UART below: alias or path in the hardware tree.
    ///
    /// # Errors
    /// What is wrong with `endpoint`. A mux on top of a byte channel is not supported.
    pub fn device(self) -> Result<'a, &'a str> {
        let target = self.tree.follow(self.place, "endpoint")?.ok_or(at(self.place, "endpoint", Problem::Missing))?;
        if target.value("device").is_none() {
            let problem = Problem::WrongTarget { target: target.path(), want: "a device of the hypervisor" };
            return Err(at(self.place, "endpoint", problem));
        }
        name(target, "device")
    }
}

/// One partition.
#[derive(Clone, Copy, Debug)]
pub struct Partition<'a> {
    tree: Tree<'a>,
    place: Place<'a>,
}

impl<'a> Partition<'a> {
    /// The node's path.
    pub fn path(self) -> Path<'a> {
        self.place.path()
    }

    /// The node itself, for the edits of the guest's tree below it.
    pub fn place(self) -> Place<'a> {
        self.place
    }

    /// The nodes below it that are compatible with `kind`, in the order in which the other views list them.
    pub fn nodes(self, kind: &'static str) -> impl Iterator<Item = Place<'a>> {
        of_kind(self.place, kind)
    }

    /// `label`, or the node's name.
    ///
    /// # Errors
    /// [`Problem::NotAName`].
    pub fn label(self) -> Result<'a, &'a str> {
        match self.place.value("label") {
            Some(_) => name(self.place, "label"),
            None => Ok(self.place.name()),
        }
    }

    /// `cpus`: pairs of first CPU and count. None without the property.
    ///
    /// # Errors
    /// [`Problem::Length`] when it is empty or not made of pairs.
    pub fn cpus(self) -> Result<'a, impl Iterator<Item = (u32, u32)> + 'a> {
        let rows = rows(self.place, "cpus", "pairs of cells (first CPU, count)")?;
        Ok(rows.map(|pair: &[u8; 8]| {
            let pair = u64::from_be_bytes(*pair);
            ((pair >> 32) as u32, pair as u32)
        }))
    }

    /// `dtb-window`: where the guest's device tree is put, and how long it may be.
    ///
    /// # Errors
    /// [`Problem::Missing`], [`Problem::Length`] or [`Problem::Wraps`].
    pub fn dtb_window(self) -> Result<'a, Span<GuestPhys>> {
        const PROPERTY: &str = "dtb-window";
        let value = self.place.value(PROPERTY).ok_or(at(self.place, PROPERTY, Problem::Missing))?;
        let bytes: [u8; 16] = exact(self.place, PROPERTY, value, "4 cells (address, size; two each)")?;
        let [base, len] = two(&bytes);
        span(self.place, PROPERTY, base, len)
    }

    /// `guest-image`: the image that is entered.
    ///
    /// # Errors
    /// See [`Partition::images`].
    pub fn guest_image(self) -> Result<'a, Option<Row>> {
        self.one_row("guest-image")
    }

    /// `linux-rootfs`: the RAM disk.
    ///
    /// # Errors
    /// See [`Partition::images`].
    pub fn rootfs(self) -> Result<'a, Option<Row>> {
        self.one_row("linux-rootfs")
    }

    /// `load-image-table`: what is loaded besides.
    ///
    /// # Errors
    /// [`Problem::Length`] unless it is made of rows of 2 + 2 + 2 cells.
    pub fn images(self) -> Result<'a, impl Iterator<Item = Result<'a, Row>>> {
        self.image_rows("load-image-table")
    }

    /// [`DIGESTS`]: what the images are, in the order in which they are loaded; none without the property.
    ///
    /// # Errors
    /// [`Problem::Length`] unless there is one row for each image.
    pub fn digests(self) -> Result<'a, impl Iterator<Item = Digest>> {
        const FORM: &str = "rows of 10 cells (size, two; SHA-256, eight), one for each image";
        let rows = rows(self.place, DIGESTS, FORM)?;
        let images = ["load-image-table", "linux-rootfs", "guest-image"];
        let images: usize = images.iter().filter_map(|name| Some(self.place.value(name)?.len() / ROW_LEN)).sum();
        match self.place.value(DIGESTS) {
            Some(value) if rows.len() != images => {
                Err(at(self.place, DIGESTS, Problem::Length { have: value.len(), want: FORM }))
            }
            _ => Ok(rows.map(Digest::from_row)),
        }
    }

    fn image_rows(self, property: &'static str) -> Result<'a, impl Iterator<Item = Result<'a, Row>>> {
        const FORM: &str = "rows of 6 cells (image, destination, window; two each)";
        let place = self.place;
        Ok(rows(place, property, FORM)?.map(move |row: &[u8; ROW_LEN]| {
            let (ends, window) = row.split_at(16);
            let [source, dest] = two(ends);
            // `ends` has 16 of the row's 24 bytes, so 8 are left.
            let window = window.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
            Ok(Row { source: span(place, property, source, window)?, dest: span(place, property, dest, window)? })
        }))
    }

    fn one_row(self, property: &'static str) -> Result<'a, Option<Row>> {
        let mut rows = self.image_rows(property)?;
        let first = rows.next().transpose()?;
        if rows.next().is_some() {
            let have = self.place.value(property).map_or(0, <[u8]>::len);
            return Err(at(self.place, property, Problem::Length { have, want: "one row of 24 (6 cells)" }));
        }
        Ok(first)
    }

    /// Its `guest-phys-mem-area` nodes: what it can address, and where.
    pub fn memory(self) -> impl Iterator<Item = Result<'a, Mapping<'a>>> {
        of_kind(self.place, "guest-phys-mem-area").map(move |place| {
            let area = self.tree.area(place)?;
            let guest = match place.value("guest-addr") {
                Some(_) => number(place, "guest-addr")?,
                None => number(area.0, "addr")?,
            };
            let len = number(area.0, "size")?;
            let guest = span(place, "guest-addr", guest, len)?;
            Ok(Mapping { area, guest, dma_only: place.value("dma-only").is_some() })
        })
    }

    /// Its byte channels, in tree order.
    pub fn channels(self) -> impl Iterator<Item = Channel<'a>> {
        of_kind(self.place, "byte-channel").map(move |place| Channel { tree: self.tree, place })
    }

    /// The partitions that it may control: node name, and the path of the partition.
    pub fn managed(self) -> impl Iterator<Item = Result<'a, (&'a str, Path<'a>)>> {
        const PROPERTY: &str = "partition";
        of_kind(self.place, "managed-partition").map(move |place| {
            let target = self.tree.follow(place, PROPERTY)?.ok_or(at(place, PROPERTY, Problem::Missing))?;
            if target.is_compatible("partition") {
                Ok((place.name(), target.path()))
            } else {
                Err(at(place, PROPERTY, Problem::WrongTarget { target: target.path(), want: "a partition" }))
            }
        })
    }

    /// Its aliases: each a name and the configuration node that it stands for.
    pub fn aliases(self) -> impl Iterator<Item = Result<'a, (FdtProperty<'a>, Path<'a>)>> {
        self.place.child("aliases").into_iter().flat_map(move |aliases| {
            let wanted = aliases.properties().filter(|property| !schema::is_common(property.name()));
            wanted.map(move |property| self.alias(aliases, property))
        })
    }

    fn alias(self, place: Place<'a>, property: FdtProperty<'a>) -> Result<'a, (FdtProperty<'a>, Path<'a>)> {
        // Reading a value as bytes cannot fail.
        let value = property.value_as::<&'a [u8]>().unwrap_or(&[]);
        let phandle = u32::from_be_bytes(exact(place, "alias", value, "one phandle")?);
        let target = self.place.walk().find(|node| node.phandle() == Some(phandle));
        target.map(|target| (property, target.path())).ok_or(at(place, "alias", Problem::Dangling { phandle }))
    }

    /// The devices assigned to it: node name, and the alias or path in the hardware tree.
    pub fn devices(self) -> impl Iterator<Item = Result<'a, (&'a str, &'a str)>> {
        devices(self.place)
    }

    /// Whether it waits for its manager after loading (`no-auto-start`).
    pub fn waits(self) -> bool {
        self.place.value("no-auto-start").is_some()
    }

    /// Whether its guest's traps all take the long way ([`SLOW_TRAPS`]).
    pub fn has_slow_traps(self) -> bool {
        self.place.value(SLOW_TRAPS).is_some()
    }
}

/// A partition's view of one memory area.
#[derive(Clone, Copy, Debug)]
pub struct Mapping<'a> {
    /// The area.
    pub area: Area<'a>,
    /// Where the guest finds it.
    pub guest: Span<GuestPhys>,
    /// Only the partition's devices can reach it.
    pub dma_only: bool,
}

/// An image that is loaded before a partition starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    /// Where the image is found, and how many bytes it may have.
    pub source: Span<TruePhys>,
    /// Where it is put; as long as the source window.
    pub dest: Span<GuestPhys>,
}

/// Which bytes an image has: the bytes of its file, headers included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Digest {
    /// How many.
    pub size: u64,
    /// Their SHA-256.
    pub sha256: Sha256,
}

impl Digest {
    /// The row of [`DIGESTS`].
    pub fn to_row(self) -> [u8; DIGEST_LEN] {
        let mut row = [0; DIGEST_LEN];
        row[..8].copy_from_slice(&self.size.to_be_bytes());
        row[8..].copy_from_slice(&self.sha256.0);
        row
    }

    fn from_row(row: &[u8; DIGEST_LEN]) -> Self {
        let (mut size, mut sha256) = ([0; 8], [0; 32]);
        size.copy_from_slice(&row[..8]);
        sha256.copy_from_slice(&row[8..]);
        Self { size: u64::from_be_bytes(size), sha256: Sha256(sha256) }
    }
}

/// The nodes below `place` that are compatible with `kind`.
fn of_kind<'a>(place: Place<'a>, kind: &'static str) -> impl Iterator<Item = Place<'a>> {
    schema::configuration_nodes(place).filter(move |node| node.is_compatible(kind))
}

fn devices<'a>(place: Place<'a>) -> impl Iterator<Item = Result<'a, (&'a str, &'a str)>> {
    let assigned = place.children().filter(|child| child.value("device").is_some());
    assigned.map(|child| Ok((child.name(), name(child, "device")?)))
}

fn at<'a>(place: Place<'a>, property: &'static str, problem: Problem<'a>) -> Error<'a> {
    Error { path: place.path(), property, problem }
}

fn exact<'a, const N: usize>(
    place: Place<'a>,
    property: &'static str,
    value: &[u8],
    want: &'static str,
) -> Result<'a, [u8; N]> {
    value.try_into().map_err(|_| at(place, property, Problem::Length { have: value.len(), want }))
}

/// A 64-bit number: two cells, whatever `#address-cells` says.
fn number<'a>(place: Place<'a>, property: &'static str) -> Result<'a, u64> {
    let value = place.value(property).ok_or(at(place, property, Problem::Missing))?;
    exact(place, property, value, "2 cells (one 64-bit number)").map(u64::from_be_bytes)
}

/// The two 64-bit numbers of 16 bytes.
fn two(bytes: &[u8]) -> [u64; 2] {
    let (numbers, _) = bytes.as_chunks::<8>();
    [0, 1].map(|index| numbers.get(index).map_or(0, |bytes| u64::from_be_bytes(*bytes)))
}

/// The rows of a property that may be missing, but not empty or ragged.
fn rows<'a, const N: usize>(
    place: Place<'a>,
    property: &'static str,
    want: &'static str,
) -> Result<'a, core::slice::Iter<'a, [u8; N]>> {
    let Some(value) = place.value(property) else {
        return Ok([].iter());
    };
    match value.as_chunks::<N>() {
        (rows, []) if !rows.is_empty() => Ok(rows.iter()),
        _ => Err(at(place, property, Problem::Length { have: value.len(), want })),
    }
}

fn span<'a, A: Address>(place: Place<'a>, property: &'static str, base: u64, len: u64) -> Result<'a, Span<A>> {
    Span::new(A::new(base), len).map_err(|_| at(place, property, Problem::Wraps { base, len }))
}

/// A name that can be printed on a console.
fn name<'a>(place: Place<'a>, property: &'static str) -> Result<'a, &'a str> {
    let printable =
        |text: &&str| (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(|b| (0x20..0x7f).contains(&b));
    place.string(property).filter(printable).ok_or(at(place, property, Problem::NotAName))
}

/// The kind that `compatible` names.
fn kind_of<'a>(place: Place<'a>) -> Option<&'static schema::Kind> {
    place.value("compatible").and_then(|list| strings(list).find_map(schema::kind))
}

#[cfg(test)]
mod tests;
