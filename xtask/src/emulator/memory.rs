//! Whether what is loaded beforehand fits the machine.
//!
//! QEMU's loader device drops bytes that lie outside memory, and writes over U-Boot, over its control tree
//! or over another file, all without a message; U-Boot then stays silent or boots the wrong bytes. So the
//! tool looks first.

use citrine_formats::addr::{Size, Span, TruePhys};
use citrine_planner::diag::{Code, Diagnostic, Label, Result};
use object::Endianness;
use object::read::elf::{ElfFile32, ProgramHeader as _};

use super::machine::{CANNOT_START, Machine};
use super::{Preload, unusable};

/// A file to be loaded beforehand does not fit.
pub const DOES_NOT_FIT: Code = Code::new('Q', 102);

/// Where QEMU's `hw/ppc/e500.c` puts the control tree: 24 MiB behind U-Boot's start. Its own limit is 1 MiB.
pub const CONTROL_TREE: u64 = 0x270_0000;
/// Largest control tree that leaves room for what QEMU adds: it takes twice the size and a pad.
pub const CONTROL_TREE_MAX: usize = 500 << 10;
/// U-Boot's first stack (`CONFIG_SYS_INIT_SP_ADDR` of `qemu-ppce500`), used until it has relocated.
const EARLY_STACK: (u64, u64) = (0x10_0000, 0x4000);
/// U-Boot uses memory below this only, and relocates to its end.
const UBOOT_MEMORY_MAX: u64 = 2 << 30;
/// What the relocated U-Boot takes there: code, heap, control tree and stack.
const UBOOT_RELOCATED: u64 = 0x57_4000;
/// A firmware larger than this is no U-Boot.
const FIRMWARE_MAX: u64 = 64 << 20;

/// A range of memory and who owns it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Owned {
    owner: String,
    span: Span<TruePhys>,
}

/// Checks every preload of a boot against memory, the boot loader and the others.
///
/// # Errors
/// [`DOES_NOT_FIT`]; [`super::FILE`] for a file that cannot be read; [`CANNOT_START`] for a firmware that
/// is no ELF file.
pub fn check(machine: &Machine, preloads: &[Preload]) -> Result<()> {
    let mut files = Vec::new();
    for preload in preloads {
        let metadata =
            fs_err::metadata(&preload.path).map_err(|error| unusable(&preload.path, &preload.name, &error))?;
        files.push((preload.name.clone(), preload.addr, metadata.len()));
    }
    fits(machine.ram(), boot_loader(machine)?, &files)
}

/// The rule itself: each of `files` (name, address, length) lies in memory and meets no other owner.
fn fits(ram: u64, boot_loader: Vec<Owned>, files: &[(String, TruePhys, u64)]) -> Result<()> {
    let memory = Span::between(TruePhys(0), TruePhys(ram));
    let mut taken = boot_loader;
    for (name, addr, len) in files {
        let span = Span::new(*addr, *len).ok().filter(|span| memory.covers(span));
        let Some(span) = span else {
            return Err(Diagnostic::error(
                DOES_NOT_FIT,
                format!("{name} ({} at {addr}) lies outside the machine's {} of memory", Size(*len), Size(ram)),
            )
            .fact("addr", addr)
            .fact("len", len)
            .help("QEMU would drop it without a word; choose an address in memory, or give the machine more")
            .into());
        };
        if let Some(other) = taken.iter().find(|other| other.span.overlaps(&span)) {
            return Err(Diagnostic::error(
                DOES_NOT_FIT,
                format!("{name} ({span}) overlaps {} ({})", other.owner, other.span),
            )
            .fact("addr", addr)
            .fact("len", len)
            .fact("other", &other.owner)
            .help("QEMU would load one over the other without a word; choose another address")
            .into());
        }
        taken.push(Owned { owner: name.clone(), span });
    }
    Ok(())
}

/// What QEMU and U-Boot own before and after U-Boot relocates.
fn boot_loader(machine: &Machine) -> Result<Vec<Owned>> {
    let top = machine.ram().min(UBOOT_MEMORY_MAX);
    let owned = |owner: &str, base: u64, len: u64| Owned {
        owner: owner.to_owned(),
        span: Span::between(TruePhys(base), TruePhys(base.saturating_add(len))),
    };
    let mut ranges = vec![
        owned("U-Boot's first stack", EARLY_STACK.0, EARLY_STACK.1),
        owned("QEMU's control tree for U-Boot", CONTROL_TREE, 1 << 20),
        owned("U-Boot after its relocation", top.saturating_sub(UBOOT_RELOCATED), UBOOT_RELOCATED),
    ];
    for (base, len) in segments(machine)? {
        ranges.push(owned("U-Boot", base, len));
    }
    Ok(ranges)
}

/// Physical address and memory size of what the firmware loads.
fn segments(machine: &Machine) -> Result<Vec<(u64, u64)>> {
    let path = &machine.firmware;
    let unreadable = |error: std::io::Error| unusable(path, "U-Boot", &error);
    let no_elf = |why: String| {
        Diagnostic::error(CANNOT_START, format!("{} is not U-Boot's ELF file: {why}", path.display()))
            .primary(Label::file(path.display().to_string(), "this file"))
            .help("QEMU starts uboot.elf of the package u-boot-qemu, not u-boot.bin")
    };
    let size = fs_err::metadata(path).map_err(unreadable)?.len();
    if size > FIRMWARE_MAX {
        return Err(no_elf(format!("it has {}", Size(size))).into());
    }
    let bytes = fs_err::read(path).map_err(unreadable)?;
    let elf = ElfFile32::<Endianness>::parse(bytes.as_slice()).map_err(|error| no_elf(error.to_string()))?;
    let endian = elf.endian();
    Ok(elf
        .elf_program_headers()
        .iter()
        .filter(|header| header.p_type(endian) == object::elf::PT_LOAD)
        .map(|header| (header.p_paddr(endian).into(), header.p_memsz(endian).into()))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAM: u64 = 2 << 30;

    fn file(name: &str, addr: u64, len: u64) -> (String, TruePhys, u64) {
        (name.to_owned(), TruePhys(addr), len)
    }

    fn judge(files: &[(String, TruePhys, u64)]) -> std::result::Result<(), String> {
        let machine = Machine::new("e500mc", 8, 2048);
        fits(RAM, boot_loader(&machine).unwrap(), files).map_err(|error| {
            assert_eq!(error.code, DOES_NOT_FIT);
            error.message
        })
    }

    #[test]
    fn the_slots_of_the_board_fit() {
        let slots = [
            file("kernel", 0x7802_0000, 0x60_0000),
            file("hypervisor", 0x7870_0000, 0x2_0000),
            file("rootfs", 0x7930_0000, 0x100_0000),
        ];
        assert_eq!(judge(&slots), Ok(()));
    }

    #[test]
    fn every_owner_is_protected() {
        for (addr, owner) in [
            (0xf6_0000, "U-Boot ("),
            (0x270_0000, "QEMU's control tree"),
            (0x10_3fff, "first stack"),
            (0x7fff_ffff, "after its relocation"),
            (0x7fa8_c000, "after its relocation"),
        ] {
            let error = judge(&[file("a", addr, 1)]).unwrap_err();
            assert!(error.contains(owner), "{error}");
        }
        // One byte beside each of them is free.
        for addr in [0xef_ffff, 0x26f_ffff, 0xf_ffff, 0x10_4000, 0x7fa8_bfff] {
            assert_eq!(judge(&[file("a", addr, 1)]), Ok(()));
        }
    }

    #[test]
    fn outside_memory_and_over_each_other() {
        for (addr, len) in [(RAM, 1), (RAM - 0x800_0000, 0x800_0001), (u64::MAX, 2), (0xf_e800_0000, 1)] {
            assert!(judge(&[file("a", addr, len)]).unwrap_err().contains("outside"));
        }
        let error = judge(&[file("a", 0x7800_0000, 0x1001), file("b", 0x7800_1000, 1)]).unwrap_err();
        assert!(error.contains("b (0x78001000..0x78001001) overlaps a"), "{error}");
    }
}
