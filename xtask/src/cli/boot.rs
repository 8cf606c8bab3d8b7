//! The command line of what brings a bundle onto a machine: `qemu`, `serve`, `labgrid`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use citrine_planner::units::parse_size;
use clap::Args;

use super::{Making, Medium, Target};
use crate::smoke::load::Load;

/// Boot a bundle on QEMU through the real U-Boot, and say whether it passed.
///
/// Brings the bundle up to date as `bundle` does, or takes the file that is named, verifies it, loads its parts at
/// their own addresses (--load says how) and lets U-Boot run its script. Then it waits for the hypervisor's report and
/// every partition's prompt, works in their shells, and stops and starts a partition. QEMU has none of the SoC's
/// peripherals, so the hardware tree and hv.dtb are substituted; the transcript names them.
///
/// Example: cargo xtask qemu --board p4080ds --profile two-linux
#[derive(Args, Debug)]
pub struct Qemu {
    /// A bundle that is there already: a .tar file, instead of --board and --profile
    #[arg(value_name = "BUNDLE", conflicts_with_all = ["board", "profile", "kernel", "rootfs", "hypervisor", "locked", "offline", "remote_cache"])]
    pub bundle: Option<PathBuf>,
    /// Board: a name from boards/, or the path of a .toml file
    #[arg(long, value_name = "BOARD", required_unless_present = "bundle")]
    pub board: Option<String>,
    /// Profile: a name from profiles/, or the path of a .toml file
    #[arg(long, value_name = "PROFILE", required_unless_present = "bundle")]
    pub profile: Option<String>,
    #[command(flatten)]
    pub making: Making,
    /// Trusted keys in OpenSSH's allowed_signers format, instead of the user's own
    #[arg(long, value_name = "FILE")]
    pub keys: Option<PathBuf>,
    /// Where to keep the transcript; those of single consoles go beside it [default: artifacts/out/BOARD-PROFILE.qemu.log]
    #[arg(long, value_name = "FILE")]
    pub transcript: Option<PathBuf>,
    /// Show all consoles while it boots
    #[arg(long, short, conflicts_with = "console")]
    pub verbose: bool,
    /// Connect this terminal to a console instead of deciding: hv, which is U-Boot's first, or a partition's name; Ctrl-A x leaves
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "hv")]
    pub console: Option<String>,
    /// How the parts come into the machine's memory; not together with --media, for in the flash they lie already
    #[arg(long, value_name = "HOW", value_enum, default_value_t = Load::Preloaded, conflicts_with = "media")]
    pub load: Load,
    /// Boot from memory, or from the emulator's NOR flash; a bundle that is made has both
    #[arg(long, value_name = "MEDIUM", default_value = "ram")]
    pub media: Medium,
    /// Core to emulate instead of the stand-in's own, such as e5500
    #[arg(long, value_name = "CORE")]
    pub cpu: Option<String>,
    /// Memory to emulate instead of the stand-in's own, from address 0, such as "8 GiB"; partitions may lie in all of it
    #[arg(long, value_name = "SIZE", value_parser = mebibytes)]
    pub memory: Option<u32>,
}

/// A size in whole MiB.
fn mebibytes(text: &str) -> Result<u32, String> {
    let bytes = parse_size(text).ok_or("a size looks like \"4 GiB\"")?;
    let mib = u32::try_from(bytes >> 20).map_err(|_| "this is more than any machine has")?;
    if bytes.is_multiple_of(1 << 20) && mib > 0 { Ok(mib) } else { Err("the size must be whole MiB".to_owned()) }
}

/// Serve a bundle's parts over TFTP, for U-Boot.
///
/// Verifies the bundle as `verify` does and serves the verified bytes until Ctrl-C: each part under its own name and as
/// BOARD-PROFILE/NAME, which is what the boot script asks for, and the RAM image as BOARD-PROFILE.ram.img. Every other
/// name is refused, and so is writing. It prints what to type at U-Boot's prompt.
///
/// Example: cargo xtask serve artifacts/out/p4080ds-two-linux.tar --listen 192.168.1.1:69
#[derive(Args, Debug)]
pub struct Serve {
    /// The bundle: a .tar file
    #[arg(value_name = "BUNDLE")]
    pub bundle: PathBuf,
    /// Where to listen: an address of this machine that the board reaches. Port 69, which U-Boot asks, needs root
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:69")]
    pub listen: SocketAddr,
    /// Trusted keys in OpenSSH's allowed_signers format, instead of the user's own
    #[arg(long, value_name = "FILE")]
    pub keys: Option<PathBuf>,
}

/// Write a labgrid environment that brings a board to the prompts of all partitions.
///
/// It has the consoles as `console` offers them, what is typed at U-Boot's prompt, and each partition's shell; beside it
/// is its strategy, with the states off, uboot, hypervisor and partitions. The power switch is yours to enter.
///
/// Example: cargo xtask labgrid --board p4080ds --profile two-linux -o lab
#[derive(Args, Debug)]
pub struct Labgrid {
    #[command(flatten)]
    pub target: Target,
    /// The board's own address
    #[arg(long, value_name = "ADDRESS", default_value = "192.168.1.2")]
    pub board_address: Ipv4Addr,
    /// The address of the machine that serves the bundle
    #[arg(long, value_name = "ADDRESS", default_value = "192.168.1.1")]
    pub server_address: Ipv4Addr,
    /// Port of channel 0 of the console; those of the other channels follow
    #[arg(long, value_name = "PORT", default_value_t = 18900, value_parser = clap::value_parser!(u16).range(1..=65000))]
    pub port: u16,
    /// Directory for the two files [default: artifacts/out/BOARD-PROFILE-labgrid]
    #[arg(long, short, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn qemu(words: &str) -> Option<Qemu> {
        let words = ["xtask", "qemu"].into_iter().chain(words.split_whitespace());
        match Cli::try_parse_from(words).ok()?.command {
            Command::Qemu(args) => Some(args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn qemu_takes_a_bundle_or_what_makes_one() {
        assert_eq!(qemu("out/x.tar").unwrap().bundle, Some("out/x.tar".into()));
        let made = qemu("--board b --profile p --offline").unwrap();
        assert_eq!((made.board.as_deref(), made.profile.as_deref()), (Some("b"), Some("p")));
        assert!(made.making.offline);
        for wrong in ["", "--board b", "--profile p", "x.tar --board b", "x.tar --offline", "x.tar --kernel k"] {
            assert!(qemu(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn qemu_has_a_console_for_every_name() {
        assert_eq!(qemu("x.tar").unwrap().console, None);
        assert_eq!(qemu("x.tar --console").unwrap().console.as_deref(), Some("hv"));
        assert_eq!(qemu("--console p1 x.tar").unwrap().console.as_deref(), Some("p1"));
        assert!(qemu("x.tar --console p1 --verbose").is_none());
    }

    #[test]
    fn the_emulated_memory_is_whole_mebibytes() {
        assert_eq!(qemu("x.tar --memory 4GiB --cpu e5500").unwrap().memory, Some(4096));
        for wrong in ["1000", "0", "4", "many", "9999999TiB"] {
            assert!(qemu(&format!("x.tar --memory {wrong}")).is_none(), "{wrong}");
        }
    }
}
