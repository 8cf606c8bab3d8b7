//! The `partition` node: its CPUs, memory, images and devices, and the two properties that Citrine adds to the binding.

use super::{Area, Channel, Problem, Result, Tree, at, devices, exact, name, number, of_kind, rows, schema, span, two};
use crate::addr::{GuestPhys, Span, TruePhys};
use crate::fdt::{FdtProperty, Path, Place, Property as _};
use crate::sha256::Sha256;

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

/// One partition.
#[derive(Clone, Copy, Debug)]
pub struct Partition<'a> {
    pub(super) tree: Tree<'a>,
    pub(super) place: Place<'a>,
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
