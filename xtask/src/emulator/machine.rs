//! The machine that is emulated, and the command line that makes QEMU be it.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use citrine_planner::diag::{Code, Diagnostic, Label, Result};

/// QEMU or U-Boot is missing, or QEMU ends before the machine exists.
pub const CANNOT_START: Code = Code::new('Q', 101);

/// The 64-bit emulator, for 32-bit cores too: it alone runs the CPUs in parallel.
pub const QEMU: &str = "qemu-system-ppc64";
/// U-Boot for this machine as Debian ships it. Only the ELF starts; `u-boot.bin` beside it does not.
pub const UBOOT: &str = "/usr/lib/u-boot/qemu-ppce500/uboot.elf";

/// A `ppce500` machine with two UARTs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Machine {
    /// The emulator: a path, or a name to look up in `PATH`.
    pub qemu: PathBuf,
    /// U-Boot's ELF file.
    pub firmware: PathBuf,
    /// Core: `e500mc`, `e5500` or `e6500`.
    pub cpu: String,
    /// Number of CPUs.
    pub cpus: u32,
    /// Memory from address 0, in MiB.
    pub ram_mib: u32,
    /// Image of the NOR flash at `0xf_00000000`; a power of two of at most 128 MiB. It is never written.
    pub flash: Option<PathBuf>,
    /// Directory that U-Boot's `tftp` sees on 10.0.2.2 through an Ethernet controller.
    pub tftp: Option<PathBuf>,
    /// Whether U-Boot reaches this machine itself through that controller, by way of 10.0.2.2, when it sees no directory.
    pub host: bool,
    /// Whether time is counted in instructions: one is a nanosecond, on one thread, and sleeping takes no time. Two
    /// runs of the same bytes are then the same.
    pub counts: bool,
}

impl Machine {
    /// A machine from Debian's packages, without flash and network.
    pub fn new(cpu: impl Into<String>, cpus: u32, ram_mib: u32) -> Self {
        let (qemu, firmware) = (QEMU.into(), UBOOT.into());
        Self { qemu, firmware, cpu: cpu.into(), cpus, ram_mib, flash: None, tftp: None, host: false, counts: false }
    }

    /// Memory in bytes.
    pub fn ram(&self) -> u64 {
        u64::from(self.ram_mib) << 20
    }

    /// The arguments of every run; `properties` (`,dumpdtb=…`) follow the machine's name. Devices of the
    /// platform bus are here, since the dumped tree must name exactly those of the boot.
    pub(super) fn arguments(&self, properties: OsString) -> Vec<OsString> {
        let mut machine = OsString::from("ppce500");
        machine.push(properties);
        let mut args: Vec<OsString> = vec!["-M".into(), machine];
        let mut push = |name: &str, value: OsString| args.extend([name.into(), value]);
        push("-cpu", self.cpu.clone().into());
        push("-smp", self.cpus.to_string().into());
        push("-m", self.ram_mib.to_string().into());
        push("-display", "none".into());
        push("-bios", self.firmware.clone().into());
        if let Some(flash) = &self.flash {
            push("-drive", option("if=pflash,format=raw,readonly=on,file=", flash, ""));
        }
        if let Some(tftp) = &self.tftp {
            push("-netdev", option("user,id=n0,restrict=on,tftp=", tftp, ""));
            push("-device", "eTSEC,netdev=n0".into());
        } else if self.host {
            push("-netdev", "user,id=n0".into());
            push("-device", "eTSEC,netdev=n0".into());
        }
        if self.counts {
            // Neither the host's clock nor its random numbers.
            args.extend(
                ["-icount", "shift=0,sleep=off", "-rtc", "base=2024-01-01,clock=vm", "-seed", "1"].map(Into::into),
            );
        }
        args.push("-nodefaults".into());
        args
    }

    /// The emulator's path, once both programs are known to be there.
    ///
    /// # Errors
    /// [`CANNOT_START`], which names the package.
    pub(super) fn locate(&self) -> Result<PathBuf> {
        let qemu = find_program(&self.qemu).ok_or_else(|| missing(&self.qemu, "QEMU", "qemu-system-ppc"))?;
        if !self.firmware.is_file() {
            return Err(missing(&self.firmware, "U-Boot", "u-boot-qemu"));
        }
        Ok(qemu)
    }
}

fn find_program(name: &Path) -> Option<PathBuf> {
    if name.components().count() > 1 {
        return name.is_file().then(|| name.to_path_buf());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

fn missing(path: &Path, what: &str, package: &str) -> Box<Diagnostic> {
    Diagnostic::error(CANNOT_START, format!("{what} is not installed: there is no {}", path.display()))
        .primary(Label::file(path.display().to_string(), "is looked for here"))
        .fact("package", package)
        .help(format!("install it: `apt install {package}`"))
        .into()
}

/// An option with a path in it; a comma of the path is doubled, since a single one ends it.
pub(super) fn option(before: &str, path: &Path, after: &str) -> OsString {
    let mut bytes = before.as_bytes().to_vec();
    for &byte in path.as_os_str().as_bytes() {
        bytes.push(byte);
        if byte == b',' {
            bytes.push(byte);
        }
    }
    bytes.extend_from_slice(after.as_bytes());
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comma_in_a_path_does_not_end_the_option() {
        let option = option("loader,file=", Path::new("/a,b/c"), ",addr=0x0");
        assert_eq!(option, "loader,file=/a,,b/c,addr=0x0");
    }

    #[test]
    fn the_dump_and_the_boot_have_the_same_devices() {
        let mut machine = Machine::new("e500mc", 8, 2048);
        machine.tftp = Some("/srv".into());
        machine.flash = Some("/nor".into());
        let dump = machine.arguments(",dumpdtb=t".into());
        let boot = machine.arguments(OsString::new());
        assert_eq!(dump[2..], boot[2..]);
        assert!(boot.contains(&"eTSEC,netdev=n0".into()));
    }
}
