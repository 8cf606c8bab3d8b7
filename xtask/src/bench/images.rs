//! What is booted to be counted: the product's own kernel and root file system, with as little added as can be.

use std::io::Read as _;
use std::path::Path;

use citrine_formats::uimage::{Compression, Image, Kind};
use citrine_planner::diag::Result;
use citrine_planner::pack::image::{Fields, wrap};
use flate2::read::GzDecoder;
use xshell::cmd;

use crate::build::image;
use crate::cmd::perf::failed;
use crate::emulator::{Machine, tree};
use crate::output::cannot_write;
use crate::tools::{capture, clean, shell_in};

/// Length of a field of Linux's `struct new_utsname`.
const FIELD: usize = 65;
/// The last field: the domain, of which nobody uses more than `(none)`.
const DOMAIN: usize = 5 * FIELD;
/// Where in it the time of the entry is kept; `tests/perf/bench.c` reads it there by `uname`.
const ENTERED: usize = 16;

/// The one time in what is booted.
const EPOCH: u32 = 1_700_000_000;

/// The program that measures, and what starts it instead of a shell.
const PROGRAM: &str = "tests/perf/bench.c";
const INITTAB: &str = "::sysinit:/etc/init.d/rcS\n::once:/bin/bench\n";

/// A kernel that notes the timebase when it is entered, in a few instructions before its own first.
///
/// # Errors
/// `O103` when it is not a kernel as the tool builds them.
pub fn timed_kernel(uimage: &[u8]) -> Result<Vec<u8>> {
    let wrong = |why: &str| failed("preparing the kernel", why);
    let read = Image::verify(uimage).map_err(|error| wrong(&error.to_string()))?;
    let mut flat = Vec::new();
    GzDecoder::new(read.payload).read_to_end(&mut flat).map_err(|error| wrong(&error.to_string()))?;
    let names = names(&flat);
    if names.is_empty() {
        return Err(wrong("it has no `Linux` and `(none)` where its names are").into());
    }
    flat.resize(flat.len().next_multiple_of(16), 0);
    let entry = u32::try_from(flat.len()).map_err(|_| wrong("it is too long"))?;
    for word in note_time(names.into_iter().map(|at| (at + DOMAIN + ENTERED) as u32)) {
        flat.extend_from_slice(&word.to_be_bytes());
    }
    let fields =
        Fields { kind: Kind::Kernel, compression: Compression::Gzip, name: "timed linux", load: 0, entry, time: EPOCH };
    let wrapped = wrap(fields, image::gzip(&flat)).ok_or_else(|| wrong("it is too long"))?;
    Ok(wrapped.pieces().concat())
}

/// Where each `struct new_utsname` is, of which one is the kernel's own: `Linux`, then a name of the host that is not
/// known yet.
fn names(flat: &[u8]) -> Vec<usize> {
    let mut begin = [0; FIELD + 7];
    begin[..5].copy_from_slice(b"Linux");
    begin[FIELD..].copy_from_slice(b"(none)\0");
    flat.windows(begin.len()).enumerate().filter(|(_, window)| *window == begin).map(|(at, _)| at).collect()
}

/// Stores the timebase's lower half at physical addresses and jumps to 0; r3 to r9 are ePAPR's.
fn note_time(addresses: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut code = vec![0x7d6c_42a6]; // mfspr r11, TBL
    for at in addresses {
        code.push(0x3d80_0000 | at >> 16); // lis r12, at@h
        code.push(0x618c_0000 | at & 0xffff); // ori r12, r12, at@l
        code.push(0x916c_0000); // stw r11, 0(r12)
    }
    code.push(0x4800_0002); // ba 0
    code
}

/// The root file system with the program that measures in place of the shell. It is made in `dir`.
///
/// # Errors
/// `T501` when the compiler or `debugfs` fails.
pub fn rootfs(root: &Path, dir: &Path, uimage: &[u8]) -> Result<Vec<u8>> {
    let wrong = |why: &str| failed("preparing the root file system", why);
    let read = Image::verify(uimage).map_err(|error| wrong(&error.to_string()))?;
    let mut ext2 = Vec::new();
    GzDecoder::new(read.payload).read_to_end(&mut ext2).map_err(|error| wrong(&error.to_string()))?;
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.join(name);
        fs_err::write(&path, bytes).map_err(|error| Box::new(cannot_write(&path, &error)))
    };
    write("rootfs.ext2", &ext2)?;
    write("inittab", INITTAB.as_bytes())?;
    let commands = "rm /etc/inittab\nwrite inittab /etc/inittab\nwrite bench /bin/bench\nsif /bin/bench mode 0100755\n";
    write("commands", commands.as_bytes())?;
    let shell = shell_in(dir)?;
    let source = root.join(PROGRAM);
    let options = ["-Os", "-Wall", "-Werror", "-static", "-nostdlib", "-ffreestanding", "-fno-pie", "-no-pie"];
    let linker = ["-Wl,--build-id=none", "-s"];
    capture(clean(cmd!(shell, "powerpc-linux-gnu-gcc {options...} {linker...} -o bench {source}")))?;
    // The time of the files counts, too: it is written in the guest.
    let edit = clean(cmd!(shell, "debugfs -w -f commands rootfs.ext2"));
    capture(edit.env("E2FSPROGS_FAKE_TIME", EPOCH.to_string()))?;
    let ext2 = fs_err::read(dir.join("rootfs.ext2")).map_err(|error| wrong(&error.to_string()))?;
    image::uimage(Kind::Ramdisk, "bench rootfs", EPOCH, &image::gzip(&ext2))
}

/// The bare machine's tree with only what a partition has too: CPU, memory, interrupt controller, serial line.
/// QEMU's own has a PCI bus and an empty MiB, which cost a kernel millions of instructions.
///
/// # Errors
/// What dumping it returns.
pub fn small_tree(machine: &Machine) -> Result<Vec<u8>> {
    tree::pruned(machine, &["aliases", "chosen", "cpus", "memory", "soc"], &["pic", "serial", "msi"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_found_where_both_are() {
        let mut flat = vec![1; 100];
        flat.extend_from_slice(b"Linux\0other");
        let mut names_here = [0; 3 * FIELD];
        names_here[..5].copy_from_slice(b"Linux");
        names_here[FIELD..FIELD + 6].copy_from_slice(b"(none)");
        flat.extend_from_slice(&names_here);
        assert_eq!(names(&flat), [111]);
        assert!(names(&flat[..150]).is_empty());
    }

    #[test]
    fn the_address_is_in_two_instructions() {
        let code = note_time([0x0012_9abc, 4].into_iter());
        assert_eq!((code.len(), code[1], code[2], code[5]), (8, 0x3d80_0012, 0x618c_9abc, 0x618c_0004));
    }
}
