//! The guest's device tree, as far as the guests look (ePAPR 1.1 §3, and the hypervisor's binding).

use citrine_formats::fdt::{self, Fdt, Place};

/// The device tree.
#[derive(Clone, Copy, Debug)]
pub struct Tree<'a>(Fdt<'a>);

/// A byte channel and its interrupts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Channel {
    /// Its handle.
    pub handle: u32,
    /// The interrupt for data to read, and its configuration.
    pub receive: (u32, u32),
    /// The interrupt for room to write, and its configuration.
    pub transmit: (u32, u32),
}

/// A partition that the guest may stop and start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Managed<'a> {
    /// Its label.
    pub label: &'a str,
    /// Its handle.
    pub handle: u32,
}

/// Another CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cpu {
    /// Its number.
    pub number: u32,
    /// Guest-physical address of its entry in the spin table; `None` for the one that runs.
    pub release: Option<u64>,
}

/// A piece of memory: guest-physical address and length in bytes.
pub type Memory = (u64, u64);

/// Opens the tree at `address`.
///
/// # Safety
/// There is a device tree, mapped one to one, that nobody changes any more; the header says how long it is.
#[cfg(target_arch = "powerpc")]
pub unsafe fn open(address: u32) -> Option<Tree<'static>> {
    let at = address as *const u8;
    // SAFETY: the caller's promise; a header is shorter than any tree.
    let header = unsafe { core::slice::from_raw_parts(at, fdt::HEADER_LEN) };
    let len = fdt::announced_len(header).ok()? as usize;
    // SAFETY: the caller's promise.
    fdt::open(unsafe { core::slice::from_raw_parts(at, len) }).ok().map(Tree)
}

impl<'a> Tree<'a> {
    /// A tree.
    pub const fn new(fdt: Fdt<'a>) -> Self {
        Self(fdt)
    }

    fn node(&self, path: &str) -> Option<Place<'a>> {
        fdt::find(self.0, path)
    }

    /// The partition's label, or the machine's model.
    pub fn label(&self) -> &'a str {
        let root = Place::root(self.0);
        root.string("label").or_else(|| root.string("model")).unwrap_or("nameless")
    }

    /// Whether there is a hypervisor, by whose calls all devices are reached.
    pub fn has_hypervisor(&self) -> bool {
        self.node("/hypervisor").is_some()
    }

    /// The guest's own handle.
    pub fn own_handle(&self) -> Option<u32> {
        self.node("/hypervisor")?.u32("guest-id")
    }

    /// The value of a word `key=VALUE` of the boot arguments.
    pub fn argument(&self, key: &str) -> Option<&'a str> {
        let arguments = self.node("/chosen")?.string("bootargs")?;
        arguments.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }

    /// Ticks of the timebase in a second.
    pub fn timebase_frequency(&self) -> Option<u32> {
        let cpus = self.node("/cpus")?;
        let of_cpu = || cpus.children().find_map(|cpu| cpu.u32("timebase-frequency"));
        cpus.u32("timebase-frequency").or_else(of_cpu)
    }

    /// The CPUs, in the tree's order.
    pub fn cpus(&self) -> impl Iterator<Item = Cpu> + use<'a> {
        let nodes = self.node("/cpus").into_iter().flat_map(Place::children);
        nodes.filter(|node| node.string("device_type") == Some("cpu")).filter_map(|node| {
            let release = node.value("cpu-release-addr").and_then(number);
            let waits = node.string("status") == Some("disabled");
            Some(Cpu { number: node.u32("reg")?, release: release.filter(|_| waits) })
        })
    }

    /// The memory, shared areas included.
    pub fn memory(&self) -> impl Iterator<Item = Memory> + use<'a> {
        let nodes = Place::root(self.0).children();
        let nodes = nodes.filter(|node| node.name().split('@').next() == Some("memory"));
        nodes.filter_map(|node| match *node.value("reg")?.as_chunks::<8>().0 {
            [base, len] => Some((u64::from_be_bytes(base), u64::from_be_bytes(len))),
            _ => None,
        })
    }

    /// The byte channel of the console.
    pub fn console(&self) -> Option<Channel> {
        channel(self.node("stdout")?)
    }

    /// The byte channel whose node has this name.
    pub fn channel(&self, name: &str) -> Option<Channel> {
        channel(self.node("/hypervisor/handles")?.child(name)?)
    }

    /// The partitions that the guest manages.
    pub fn managed(&self) -> impl Iterator<Item = Managed<'a>> + use<'a> {
        let nodes = self.node("/hypervisor/handles").into_iter().flat_map(Place::children);
        nodes.filter(|node| node.is_compatible("fsl,hv-partition-handle")).filter_map(|node| {
            Some(Managed { label: node.string("label").unwrap_or("nameless"), handle: node.u32("hv-handle")? })
        })
    }

    /// Physical address of the first serial line, for a machine without a hypervisor.
    pub fn serial(&self) -> Option<u64> {
        let node = self.node("serial0")?;
        let soc = self.node("/soc")?;
        // <child 1 cell, parent 2 cells, length 1 cell>
        let ranges = soc.value("ranges")?;
        let base = number(ranges.get(4..12)?)?;
        let offset = number(node.value("reg")?.get(..4)?)?;
        base.checked_add(offset)
    }
}

/// A number of one or two cells.
fn number(cells: &[u8]) -> Option<u64> {
    match cells.len() {
        4 => Some(u64::from(u32::from_be_bytes(cells.try_into().ok()?))),
        8 => Some(u64::from_be_bytes(cells.try_into().ok()?)),
        _ => None,
    }
}

fn channel(node: Place<'_>) -> Option<Channel> {
    if !node.is_compatible("epapr,hv-byte-channel") {
        return None;
    }
    let mut cells = node.value("interrupts").unwrap_or_default().as_chunks::<4>().0.iter();
    let mut next = || cells.next().map_or(0, |cell| u32::from_be_bytes(*cell));
    let (receive, transmit) = ((next(), next()), (next(), next()));
    Some(Channel { handle: node.u32("hv-handle")?, receive, transmit })
}
