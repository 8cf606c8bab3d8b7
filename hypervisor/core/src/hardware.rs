//! The hardware tree: what the boot loader says about the board, read as hostile input.
//!
//! Binding: ePAPR 1.1 §2 (reg, ranges), §3 (cpus, memory, chosen, aliases), §5.5.2 (spin table).

use core::fmt;

use arrayvec::ArrayVec;
use citrine_formats::addr::{Span, TruePhys};
use citrine_formats::fdt::{Fdt, MAX_DEPTH, Place};

use crate::config::MAX_CPUS;
use crate::machine::{CpuSet, Machine};

/// Longest `/chosen/bootargs` in bytes, the terminating zero not counted; Topaz has the same limit.
pub const MAX_BOOTARGS: usize = 63;

/// The boot argument that says where the configuration tree is; Topaz has the same.
const CONFIG_ADDR: &str = "config-addr=";

/// What the hypervisor needs to know about a board.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Board {
    /// The CPUs, in tree order.
    pub cpus: ArrayVec<Cpu, { MAX_CPUS as usize }>,
    /// The RAM.
    pub ram: ArrayVec<Span<TruePhys>, 8>,
    /// Ticks of the timebase in a second.
    pub timebase_hz: u32,
    /// Where the configuration tree is.
    pub config: TruePhys,
}

/// One CPU of the hardware tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cpu {
    /// Its number: `reg`, which is also what its PIR reads.
    pub number: u32,
    /// How it can be started; `None` when it cannot.
    pub release: Option<TruePhys>,
}

/// Why a hardware tree cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error<'a> {
    /// `/chosen/bootargs` is missing or no string.
    NoBootargs,
    /// `/chosen/bootargs` is too long.
    BootargsTooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// The boot arguments do not say where the configuration is.
    NoConfigAddr,
    /// The configuration's address is no number of 64 bits.
    BadConfigAddr {
        /// What stands there.
        text: &'a str,
    },
    /// The root's `#address-cells` and `#size-cells` are not 2 and 2.
    RootCells,
    /// There is no usable CPU node, or none has a timebase frequency.
    NoCpus,
    /// There is no memory node with RAM in it.
    NoRam,
    /// More memory ranges than the hypervisor can hold.
    TooMuchRam,
    /// A serial line cannot be used.
    Serial {
        /// Its alias or path.
        device: &'a str,
        /// Why.
        why: &'static str,
    },
}

impl fmt::Display for Error<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NoBootargs => f.write_str("the hardware tree has no /chosen/bootargs"),
            Self::BootargsTooLong { len } => {
                write!(f, "/chosen/bootargs has {len} characters; {MAX_BOOTARGS} is the limit")
            }
            Self::NoConfigAddr => f.write_str("/chosen/bootargs has no config-addr=ADDRESS"),
            Self::BadConfigAddr { text } => not_a_number(f, CONFIG_ADDR, text),
            Self::RootCells => f.write_str("#address-cells and #size-cells of the hardware tree are not 2 and 2"),
            Self::NoCpus => f.write_str("the hardware tree has no CPU with a timebase-frequency"),
            Self::NoRam => f.write_str("the hardware tree has no memory"),
            Self::TooMuchRam => f.write_str("the hardware tree has too many ranges of memory"),
            Self::Serial { device, why } => write!(f, "serial line {device}: {why}"),
        }
    }
}

impl core::error::Error for Error<'_> {}

/// Shows an argument that is no number; its text may come from anywhere.
fn not_a_number(f: &mut fmt::Formatter<'_>, name: &str, text: &str) -> fmt::Result {
    f.write_str(name)?;
    text.chars().try_for_each(|c| write!(f, "{}", if c.is_ascii_graphic() { c } else { '?' }))?;
    f.write_str(" is not a number")
}

impl Board {
    /// Reads the hardware tree.
    ///
    /// # Errors
    /// The first thing that is missing; see [`Error`].
    pub fn read<'a>(fdt: Fdt<'a>) -> Result<Self, Error<'a>> {
        let root = Place::root(fdt);
        if cells(root) != (2, 2) {
            return Err(Error::RootCells);
        }
        let (cpus, timebase_hz) = read_cpus(root).ok_or(Error::NoCpus)?;
        let (ram, bootargs) = (read_ram(root)?, bootargs(fdt)?);
        let config = address(bootargs, CONFIG_ADDR).ok_or(Error::NoConfigAddr)?;
        let config = config.map_err(|text| Error::BadConfigAddr { text })?;
        Ok(Self { cpus, ram, timebase_hz, config })
    }

    /// The machine that a configuration is checked against.
    pub fn machine(&self) -> Machine {
        Machine { cpus: self.cpus.iter().map(|cpu| cpu.number).collect(), ram: self.ram.clone() }
    }

    /// The spin-table pages of CPUs: the boot loader's until these CPUs have left.
    pub fn spin_pages(&self, cpus: CpuSet) -> impl Iterator<Item = Span<TruePhys>> + '_ {
        let waiting = self.cpus.iter().filter(move |cpu| cpus.contains(cpu.number));
        waiting.filter_map(|cpu| Span::new(TruePhys(cpu.release?.0 & !0xfff), 0x1000).ok())
    }
}

/// The boot arguments.
fn bootargs(fdt: Fdt<'_>) -> Result<&str, Error<'_>> {
    let chosen = Place::root(fdt).child("chosen").ok_or(Error::NoBootargs)?;
    let text = chosen.string("bootargs").ok_or(Error::NoBootargs)?;
    if text.len() > MAX_BOOTARGS {
        return Err(Error::BootargsTooLong { len: text.len() });
    }
    Ok(text)
}

/// An address among the boot arguments, or the text that is none; what else is there is not ours.
fn address<'a>(bootargs: &'a str, name: &str) -> Option<Result<TruePhys, &'a str>> {
    let text = bootargs.split_ascii_whitespace().find_map(|word| word.strip_prefix(name))?;
    Some(number(text).map(TruePhys).ok_or(text))
}

/// A number as Topaz reads it: `0x` hexadecimal, `0b` binary, a leading `0` octal, decimal.
fn number(text: &str) -> Option<u64> {
    let lower = |prefix: [&str; 2]| prefix.iter().find_map(|prefix| text.strip_prefix(prefix));
    let (digits, radix) = if let Some(digits) = lower(["0x", "0X"]) {
        (digits, 16)
    } else if let Some(digits) = lower(["0b", "0B"]) {
        (digits, 2)
    } else if text.len() > 1 && text.starts_with('0') {
        (&text[1..], 8)
    } else {
        (text, 10)
    };
    // `from_str_radix` would take a sign.
    if !digits.starts_with(|c: char| c.is_digit(radix)) {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()
}

/// `#address-cells` and `#size-cells`, with the defaults of ePAPR §2.3.5.
pub fn cells(place: Place<'_>) -> (usize, usize) {
    let cell = |name, default| place.u32(name).map_or(default, |count| count as usize);
    (cell("#address-cells", 2), cell("#size-cells", 1))
}

/// Takes a number of `cells` cells off the front of `bytes`; `None` when it is too short or the number
/// has more than 64 bits.
pub fn take(bytes: &mut &[u8], cells: usize) -> Option<u64> {
    if cells > 2 {
        return None;
    }
    let (number, rest) = bytes.split_at_checked(cells * 4)?;
    *bytes = rest;
    Some(number.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

fn read_cpus(root: Place<'_>) -> Option<(ArrayVec<Cpu, { MAX_CPUS as usize }>, u32)> {
    let parent = root.child("cpus")?;
    let (address_cells, _) = cells(parent);
    let mut list = ArrayVec::new();
    let mut timebase = None;
    for cpu in parent.children().filter(|node| node.string("device_type") == Some("cpu")) {
        let Some(number) = cpu.value("reg").and_then(|mut reg| take(&mut reg, address_cells)) else {
            continue;
        };
        let Some(number) = u32::try_from(number).ok().filter(|number| *number < MAX_CPUS) else {
            continue;
        };
        if list.iter().any(|other: &Cpu| other.number == number) {
            continue;
        }
        timebase = timebase.or(cpu.u32("timebase-frequency").filter(|hz| *hz > 0));
        let parked = cpu.string("status") == Some("disabled") && cpu.string("enable-method") == Some("spin-table");
        let release = cpu.value("cpu-release-addr").and_then(|value| match value.len() {
            8 => take(&mut &*value, 2),
            _ => None,
        });
        list.try_push(Cpu { number, release: release.filter(|_| parked).map(TruePhys) }).ok()?;
    }
    Some((list, timebase?))
}

fn read_ram<'a>(root: Place<'a>) -> Result<ArrayVec<Span<TruePhys>, 8>, Error<'a>> {
    let mut ram = ArrayVec::new();
    for node in root.children().filter(|node| node.string("device_type") == Some("memory")) {
        let mut reg = node.value("reg").unwrap_or(&[]);
        while let (Some(base), Some(len)) = (take(&mut reg, 2), take(&mut reg, 2)) {
            if let Some(span) = Span::new(TruePhys(base), len).ok().filter(|span| !span.is_empty()) {
                ram.try_push(span).map_err(|_| Error::TooMuchRam)?;
            }
        }
    }
    if ram.is_empty() { Err(Error::NoRam) } else { Ok(ram) }
}

/// Where the registers of a 16550 are: the first byte of its register block.
///
/// # Errors
/// [`Error::Serial`].
pub fn serial<'a>(fdt: Fdt<'a>, device: &'a str) -> Result<TruePhys, Error<'a>> {
    let because = |why| Error::Serial { device, why };
    let chain = chain(fdt, device).ok_or(because("the hardware tree has no such node"))?;
    let (node, buses) = chain.split_last().ok_or(because("the hardware tree has no such node"))?;
    if !["ns16550", "ns16550a", "fsl,ns16550"].iter().any(|kind| node.is_compatible(kind)) {
        return Err(because("not an ns16550"));
    }
    if node.string("status").is_some_and(|status| status != "okay" && status != "ok") {
        return Err(because("disabled"));
    }
    let parent = buses.last().copied().ok_or(because("no bus"))?;
    let reg = node.value("reg").and_then(|mut reg| take(&mut reg, cells(parent).0));
    let address = reg.and_then(|address| translate(buses, address));
    address.map(TruePhys).ok_or(because("its registers have no true-physical address"))
}

/// Number of the MPIC source by which a serial line interrupts; `None` when the tree does not say.
pub fn serial_interrupt(fdt: Fdt<'_>, device: &str) -> Option<u32> {
    let chain = chain(fdt, device)?;
    // The specifier begins with the source's number, whether it has two cells or four (ePAPR, `fsl,mpic`).
    chain.last()?.value("interrupts").and_then(|mut cells| take(&mut cells, 1)).and_then(|n| u32::try_from(n).ok())
}

/// Where the registers of the MPIC are.
pub fn interrupt_controller(fdt: Fdt<'_>) -> Option<TruePhys> {
    let root = Place::root(fdt);
    let is_mpic = |node: &Place<'_>| ["chrp,open-pic", "fsl,mpic"].iter().any(|kind| node.is_compatible(kind));
    let (bus, node) = root.children().find_map(|bus| bus.children().find(is_mpic).map(|node| (bus, node)))?;
    let address = node.value("reg").and_then(|mut reg| take(&mut reg, cells(bus).0))?;
    translate(&[root, bus], address).map(TruePhys)
}

/// The nodes from the root to the one at a path or alias.
fn chain<'a>(fdt: Fdt<'a>, name: &'a str) -> Option<ArrayVec<Place<'a>, MAX_DEPTH>> {
    let root = Place::root(fdt);
    let path = if name.starts_with('/') { name } else { root.child("aliases")?.string(name)? };
    let mut chain = ArrayVec::new();
    chain.try_push(root).ok()?;
    for part in path.strip_prefix('/')?.split('/').filter(|part| !part.is_empty()) {
        let next = chain.last()?.child(part)?;
        chain.try_push(next).ok()?;
    }
    Some(chain)
}

/// Translates an address on the last of `buses`, of which the first is the root, up to the root's, through each
/// `ranges`. `None` for an address that no bus above passes on.
pub fn translate(buses: &[Place<'_>], mut address: u64) -> Option<u64> {
    for pair in buses.windows(2).rev() {
        let [parent, bus] = pair else { return None };
        let mut ranges = bus.value("ranges")?;
        if ranges.is_empty() {
            continue;
        }
        let ((address_cells, size_cells), (parent_cells, _)) = (cells(*bus), cells(*parent));
        loop {
            // A row that is cut short ends the search: no address.
            let child = take(&mut ranges, address_cells)?;
            let above = take(&mut ranges, parent_cells)?;
            let size = take(&mut ranges, size_cells)?;
            if let Some(offset) = address.checked_sub(child).filter(|offset| *offset < size) {
                address = above.checked_add(offset)?;
                break;
            }
        }
    }
    Some(address)
}

/// The first serial line when there is no tree to ask, by the SoC's version register: a person who forgot
/// the tree in `bootm` shall read so. `None` for a SoC whose registers' place is not known.
pub fn serial_without_tree(svr: u32) -> Option<TruePhys> {
    match svr >> 16 {
        // QEMU's ppce500 has no version register.
        0 => Some(TruePhys(0xf_e000_4500)),
        // P4080, P4040; with security engine P4080E, P4040E (U-Boot, arch/powerpc/include/asm/processor.h).
        0x8200 | 0x8208 => Some(TruePhys(0xf_fe11_c500)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use citrine_formats::fdt;
    use citrine_formats::testing::Builder;
    use proptest::prelude::*;
    use std::format;
    use std::vec::Vec;

    /// A board of two CPUs whose serial line is behind a bus at 0xf_e000_0000.
    pub(crate) fn board(bootargs: &str) -> Vec<u8> {
        let mut t = Builder::default();
        t.begin("").cells("#address-cells", &[2]).cells("#size-cells", &[2]);
        t.begin("aliases").text("serial0", "/soc@fe0000000/serial@4500").end();
        t.begin("chosen").text("bootargs", bootargs).end();
        t.begin("memory").text("device_type", "memory").cells("reg", &[0, 0, 0, 0x8000_0000]).end();
        t.begin("cpus").cells("#address-cells", &[1]).cells("#size-cells", &[0]);
        t.begin("cpu@0").text("device_type", "cpu").cells("reg", &[0]).text("status", "okay");
        t.cells("timebase-frequency", &[400_000_000]).end();
        t.begin("cpu@1").text("device_type", "cpu").cells("reg", &[1]).text("status", "disabled");
        t.text("enable-method", "spin-table").cells("cpu-release-addr", &[0xf, 0xef00_0020]).end();
        t.end();
        t.begin("soc@fe0000000").cells("#address-cells", &[1]).cells("#size-cells", &[1]);
        t.cells("ranges", &[0, 0xf, 0xe000_0000, 0x10_0000]);
        t.begin("serial@4500").text("compatible", "ns16550").cells("reg", &[0x4500, 0x100]);
        t.cells("interrupts", &[42, 2]).end();
        t.begin("serial@200000").text("compatible", "ns16550").cells("reg", &[0x20_0000, 0x100]).end();
        t.begin("pic@40000").text("compatible", "chrp,open-pic").cells("reg", &[0x40000, 0x40000]).end();
        t.end().end();
        t.finish()
    }

    #[test]
    fn a_board_is_read() {
        let bytes = board("console=ttyS0 config-addr=0xfe8900000 x");
        let board = Board::read(fdt::open(&bytes).unwrap()).unwrap();
        assert_eq!(board.config, TruePhys(0xf_e890_0000));
        let cpus = [Cpu { number: 0, release: None }, Cpu { number: 1, release: Some(TruePhys(0xf_ef00_0020)) }];
        assert_eq!(board.cpus.as_slice(), cpus);
        assert_eq!(
            format!("{} {:?} {}", board.machine().cpus, board.ram, board.timebase_hz),
            "0-1 [0x0..0x80000000] 400000000"
        );
        let pages: Vec<_> = board.spin_pages(CpuSet::first(2)).collect();
        assert_eq!(format!("{pages:?}"), "[0xf_ef000000..0xf_ef001000]");
    }

    #[test]
    fn a_serial_line_is_found_behind_its_bus() {
        let bytes = board("");
        let fdt = fdt::open(&bytes).unwrap();
        assert_eq!(serial(fdt, "serial0"), Ok(TruePhys(0xf_e000_4500)));
        assert_eq!(serial(fdt, "/soc/serial@4500"), Ok(TruePhys(0xf_e000_4500)));
        let why = |device| serial(fdt, device).map_err(|error| format!("{error}")).unwrap_err();
        assert_eq!(why("serial9"), "serial line serial9: the hardware tree has no such node");
        assert_eq!(why("/soc/pic"), "serial line /soc/pic: not an ns16550");
        assert!(why("/soc/serial@200000").ends_with("have no true-physical address"));
    }

    #[test]
    fn interrupts_lead_to_their_controller() {
        let bytes = board("");
        let fdt = fdt::open(&bytes).unwrap();
        assert_eq!(interrupt_controller(fdt), Some(TruePhys(0xf_e004_0000)));
        assert_eq!(serial_interrupt(fdt, "serial0"), Some(42));
        assert_eq!(serial_interrupt(fdt, "/soc/serial@200000"), None);
    }

    #[test]
    fn boot_arguments_are_read_strictly() {
        let read =
            |text: &str| Board::read(fdt::open(&board(text)).unwrap()).map(|b| b.config).map_err(|e| format!("{e}"));
        assert_eq!(read("config-addr=16"), Ok(TruePhys(16)));
        assert_eq!(read("config-addr=020"), Ok(TruePhys(16)));
        assert_eq!(read("config-addr=0b10000"), Ok(TruePhys(16)));
        assert_eq!(read("console=x").unwrap_err(), "/chosen/bootargs has no config-addr=ADDRESS");
        assert_eq!(read("config-addr=0x1\x1bz").unwrap_err(), "config-addr=0x1?z is not a number");
        assert!(read("config-addr=0x10000000000000000").is_err() && read("config-addr=+1").is_err());
        assert!(read("config-addr=0x-1").is_err() && read("config-addr=").is_err());
        let long = format!("config-addr=1 {}", "x".repeat(50));
        assert_eq!(read(&long).unwrap_err(), "/chosen/bootargs has 64 characters; 63 is the limit");
        assert_eq!(read(&long[..63]), Ok(TruePhys(1)));
    }

    proptest! {
        #[test]
        fn no_damage_panics(at: usize, byte: u8) {
            let mut bytes = board("config-addr=1");
            let at = at % bytes.len();
            bytes[at] = byte;
            if let Ok(fdt) = fdt::open(&bytes) {
                let _ = (Board::read(fdt).is_ok(), serial(fdt, "serial0").is_ok());
            }
        }
    }
}
