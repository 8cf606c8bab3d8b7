//! The hypervisor configuration tree (`hv.dtb`): typed views that allocate nothing.
//!
//! The binding is Topaz's, read strictly. Topaz ignores what it does not understand, so a misspelt
//! property or a row with a missing cell surfaces much later as a guest that does not start; here each is
//! an [`Error`] that names node and property. [`Tree::new`] checks the names of the whole tree once;
//! the views check values when they are asked for.
//!
//! Not checked here: whether the numbers fit together (`citrine_core::rules`), and the details of
//! assigned devices and DMA windows.

use crate::addr::{Address, Span, TruePhys};
use crate::fdt::{Fdt, Path, Place, strings};

mod error;
mod partition;
pub mod schema;

pub use error::{Error, Problem};
pub use partition::{DIGESTS, Digest, Mapping, Partition, Row, SLOW_TRAPS};

/// Longest label, device path or other name, in bytes.
pub const MAX_NAME: usize = 128;
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
