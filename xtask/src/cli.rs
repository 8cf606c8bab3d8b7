//! The command line: every verb, every flag, and the help that people read.

pub mod console;
mod promises;
pub mod release;
mod reproduce;
mod trust;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use citrine_planner::stages::Stage;
use citrine_planner::units::parse_size;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::smoke::load::Load;
pub use promises::Promises;
pub use reproduce::Reproduce;
pub use trust::{Demands, Extract, Keygen, Sign, Verify};

/// Reproducible, signed, bootable bundles for statically partitioned QorIQ boards.
///
/// Example: cargo xtask bundle --board p4080ds --profile two-linux
#[derive(Parser, Debug)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, propagate_version = true)]
pub struct Cli {
    /// Print results and diagnostics for machines: one JSON object per line on standard output
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The verbs.
#[derive(Subcommand, Debug)]
pub enum Command {
    Bundle(BundleArgs),
    Check(Check),
    Plan(Plan),
    Render(Render),
    Import(Import),
    GuestTree(GuestTree),
    Diff(Diff),
    Verify(Verify),
    Release(release::Release),
    Extract(Extract),
    Sign(Sign),
    Keygen(Keygen),
    Reproduce(Reproduce),
    Perf(Perf),
    Bench(Bench),
    Explain(Explain),
    Qemu(Qemu),
    Serve(Serve),
    Labgrid(Labgrid),
    Console(console::Console),
    Lock(Lock),
    Cache(CacheArgs),
    Test(Test),
    Promises(Promises),
    Fuzz(Fuzz),
    Coverage(Coverage),
}

/// A board and a profile, by name or by file.
#[derive(Args, Debug, Clone)]
pub struct Target {
    /// Board: a name from boards/, or the path of a .toml file
    #[arg(long, value_name = "BOARD")]
    pub board: String,
    /// Profile: a name from profiles/, or the path of a .toml file
    #[arg(long, value_name = "PROFILE")]
    pub profile: String,
    /// Hardware tree (.dtb) to work with instead of the one of the kernel's sources, such as one with devices added
    #[arg(long, value_name = "FILE")]
    pub hw_dtb: Option<PathBuf>,
}

/// Find every mistake of a configuration without building anything.
///
/// Places everything, runs every rule, and prints what it found, with the lines that take part.
/// The real sizes of images count as soon as they have been built once.
///
/// Example: cargo xtask check --board p4080ds --profile two-linux
#[derive(Args, Debug)]
pub struct Check {
    #[command(flatten)]
    pub target: Target,
    /// Judge for this hypervisor uImage instead of our own, such as Topaz's hv.uImage
    #[arg(long, value_name = "FILE")]
    pub hypervisor: Option<PathBuf>,
}

/// Show who owns which memory at each stage of the boot, and how far every image may grow.
///
/// The picture is made for a design review: true-physical memory over the boot stages, and beside it what each
/// partition sees. It is the same for the same input. Nothing is built; images that have been built count with their
/// real size, and the others with their address. A plan that is wrong is shown, too, with exit code 1.
///
/// Example: cargo xtask plan --board p4080ds --profile two-linux -o map.svg
#[derive(Args, Debug)]
pub struct Plan {
    #[command(flatten)]
    pub target: Target,
    /// Judge for this hypervisor uImage instead of our own, such as Topaz's hv.uImage
    #[arg(long, value_name = "FILE")]
    pub hypervisor: Option<PathBuf>,
    /// Form of the map [default: what the name of the output file ends in, else table]
    #[arg(long, value_name = "FORMAT", conflicts_with = "json")]
    pub format: Option<MapFormat>,
    /// Show this stage only; may be given several times
    #[arg(long, value_name = "STAGE", value_parser = stage_parser())]
    pub stage: Vec<Stage>,
    /// Write it to this file instead of standard output
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Where the parts lie: in memory, or in the NOR flash
    #[arg(long, value_name = "MEDIUM", default_value = "ram")]
    pub media: Medium,
}

/// The forms of a memory map.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum MapFormat {
    /// Text in columns
    Table,
    /// One JSON object
    Json,
    /// A picture
    Svg,
}

/// Reads the name of a boot stage.
fn stage_parser() -> impl clap::builder::TypedValueParser<Value = Stage> {
    PossibleValuesParser::new(Stage::ALL.map(Stage::name))
        .map(|name| Stage::ALL.into_iter().find(|stage| stage.name() == name).unwrap_or(Stage::Run))
}

/// Print the hypervisor configuration tree (hv.dts), or the U-Boot script.
///
/// Example: cargo xtask render --board p4080ds --profile two-linux > hv.dts
#[derive(Args, Debug)]
pub struct Render {
    #[command(flatten)]
    pub target: Target,
    /// Judge for this hypervisor uImage instead of our own, such as Topaz's hv.uImage
    #[arg(long, value_name = "FILE")]
    pub hypervisor: Option<PathBuf>,
    /// Print the U-Boot script instead
    #[arg(long)]
    pub script: bool,
    /// Where the parts lie: in memory, or in the NOR flash
    #[arg(long, value_name = "MEDIUM", default_value = "ram")]
    pub media: Medium,
}

/// Where the boot loader finds the parts.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Medium {
    /// In memory, loaded there by U-Boot
    #[default]
    Ram,
    /// In the NOR flash, read in place
    Nor,
}

/// Turn a configuration tree (hv.dts or hv.dtb) of another's making into a profile, and say what is wrong with it.
///
/// The profile goes to standard output; rendering it for the same board gives the same tree. A tree that is not
/// whole, such as a fragment in a document, is judged as far as it goes.
///
/// Example: cargo xtask import hv.dts --board p4080ds > profiles/mine.toml
#[derive(Args, Debug)]
pub struct Import {
    /// The configuration tree, as source or compiled
    #[arg(value_name = "FILE")]
    pub tree: PathBuf,
    /// Board: a name from boards/, or the path of a .toml file
    #[arg(long, value_name = "BOARD")]
    pub board: String,
    /// U-Boot commands that start the tree, as they are typed; other lines are passed over
    #[arg(long, value_name = "FILE")]
    pub uboot: Option<PathBuf>,
    /// Name of the profile [default: the file's name]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
}

/// Print the device tree that a guest will be given at its first start.
///
/// The hypervisor's own code makes it on this machine, from the rendered hv.dtb and the board's hardware tree;
/// the emulator's board has QEMU's tree. The RAM disk is in it once it has been built.
///
/// Example: cargo xtask guest-tree --board qemu-ppce500 --profile two-linux --partition p1
#[derive(Args, Debug)]
pub struct GuestTree {
    #[command(flatten)]
    pub target: Target,
    /// The partition, by its name in the profile
    #[arg(long, value_name = "NAME")]
    pub partition: String,
    /// Build and fetch nothing that the cache does not hold
    #[arg(long)]
    pub offline: bool,
    #[command(flatten)]
    pub setup: Setup,
}

/// Say how two configurations differ: partitions, CPUs, memory, images, consoles, channels, devices.
///
/// Each is a profile (a name from profiles/, or a .toml file), a configuration tree (.dtb, or .dts, which dtc compiles)
/// or a bundle (.tar, which is verified first). Those of different kinds are compared as far as both say something.
///
/// Example: cargo xtask diff two-linux artifacts/out/p4080ds-two-linux.tar
#[derive(Args, Debug)]
pub struct Diff {
    /// What was
    #[arg(value_name = "A")]
    pub before: String,
    /// What is
    #[arg(value_name = "B")]
    pub after: String,
    /// Place profiles on this board: a name from boards/, or the path of a .toml file
    #[arg(long, value_name = "BOARD")]
    pub board: Option<String>,
    /// Trusted keys for bundles, in the allowed_signers format of ssh-keygen(1)
    #[arg(long, value_name = "FILE")]
    pub keys: Option<PathBuf>,
    /// Exit with 1 when they differ, as `git diff --exit-code` does; without it, a comparison that worked exits with 0
    #[arg(long)]
    pub exit_code: bool,
}

/// Measure packing and verifying against a shell script that does the same work (tests/perf/), and checking.
///
/// Runs both in turn and prints how many times faster the tool is; such a ratio can be compared between
/// machines and days, where seconds cannot.
///
/// Example: cargo xtask perf
#[derive(Args, Debug)]
pub struct Perf {
    /// How often each side runs
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub runs: u32,
    /// Do the work of one run in this directory: what is measured
    #[arg(long, value_name = "DIR", hide = true, conflicts_with = "runs")]
    pub pack: Option<PathBuf>,
}

/// Count the instructions of a guest under the hypervisor and on a bare machine.
///
/// Boots the same kernel, root file system and small guest in both on QEMU, with its clock counting instructions, and
/// prints what single instructions, hypercalls, system calls, processes and the boot take, and by how much more. The
/// same bytes give the same numbers, on any machine. They are also written to artifacts/out/bench.json.
///
/// Example: cargo xtask bench
#[derive(Args, Debug)]
pub struct Bench {
    #[command(flatten)]
    pub setup: Setup,
}

/// Explain a diagnostic: the rule, its consequence on the board, an example, the correction.
///
/// Example: cargo xtask explain L101
#[derive(Args, Debug)]
pub struct Explain {
    /// The code, such as L101; all codes are listed without one
    pub code: Option<String>,
}

/// Whether the machine may be set up without asking.
#[derive(Args, Debug, Clone, Default)]
pub struct Setup {
    /// Install what is missing (Debian packages, the Rust target) without asking; CI=true does the same
    #[arg(long, short)]
    pub yes: bool,
}

/// Build, pack and sign a bundle: the main job.
///
/// Builds what is not cached, checks every rule on the real bytes, and writes
/// artifacts/out/BOARD-PROFILE.tar and the same parts unpacked beside it. A bundle that is there already is
/// left as it is; one that cannot be finished leaves the old one as it was.
///
/// With --media nor or all it also writes artifacts/out/BOARD-PROFILE.nor.img, the whole flash bank, and the bundle has
/// the script flash.scr, which changes the flash of a board that runs the bundle given as --installed, or of
/// any board. It lists the steps on standard output.
///
/// Example: cargo xtask bundle --board p4080ds --profile two-linux
#[derive(Args, Debug)]
pub struct BundleArgs {
    #[command(flatten)]
    pub target: Target,
    #[command(flatten)]
    pub making: Making,
    /// What the board loads the parts from: memory, the NOR flash, or either
    #[arg(long, value_name = "MEDIA", default_value = "ram")]
    pub media: Media,
    /// The bundle that the board's flash holds now: this one leaves it able to boot until its own last step
    #[arg(long, value_name = "BUNDLE")]
    pub installed: Option<PathBuf>,
    /// Make it although the installed bundle is of a higher epoch; the new bundle says so
    #[arg(long, requires = "installed")]
    pub allow_rollback: bool,
}

/// The media that a bundle is for.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Media {
    /// Memory, filled by TFTP
    #[default]
    Ram,
    /// The NOR flash
    Nor,
    /// Both: what is the same on both is stored once
    All,
}

/// How a bundle is made.
#[derive(Args, Debug, Clone, Default)]
pub struct Making {
    #[command(flatten)]
    pub overrides: Overrides,
    /// Sign with this OpenSSH key instead of this machine's development key; with a public key, the ssh-agent signs
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Fail when an input or tool has another version than artifacts/lock.toml says
    #[arg(long)]
    pub locked: bool,
    /// Build and fetch nothing that the cache does not hold
    #[arg(long)]
    pub offline: bool,
    /// Share built stages with other machines through this repository of an OCI registry [default: CITRINE_REMOTE_CACHE]
    #[arg(long, value_name = "HOST/REPOSITORY")]
    pub remote_cache: Option<String>,
    #[command(flatten)]
    pub setup: Setup,
}

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

/// Show or renew the pins of everything that is not ours.
///
/// Example: cargo xtask lock --update
#[derive(Args, Debug)]
pub struct Lock {
    /// Pin the newest versions of the same series
    #[arg(long)]
    pub update: bool,
    #[command(flatten)]
    pub setup: Setup,
}

/// Show or trim the build cache.
///
/// Example: cargo xtask cache --gc "2 GiB"
#[derive(Args, Debug)]
pub struct CacheArgs {
    /// Remove what was not used for longest, until at most this much is left
    #[arg(long, value_name = "SIZE")]
    pub gc: Option<String>,
}

/// Run every test of the project.
///
/// Format, lints, unit, property and golden tests, bad inputs, forged bundles, and smoke boots on QEMU.
///
/// Example: cargo xtask test --yes
#[derive(Args, Debug)]
pub struct Test {
    /// Add the long proofs: double build with empty caches, repeated boots, some fuzzing
    #[arg(long)]
    pub full: bool,
    /// Rewrite the expected output of golden and bad-input tests instead of comparing
    #[arg(long)]
    pub bless: bool,
    #[command(flatten)]
    pub setup: Setup,
}

/// Let libFuzzer look for inputs that make the hypervisor or the tool break a promise.
///
/// It begins with the inputs that are kept in tests/fuzz/corpus/. One that breaks a promise is kept, and named.
///
/// Example: cargo xtask fuzz emulator --seconds 600
#[derive(Args, Debug)]
pub struct Fuzz {
    /// What to fuzz: bundle, dts, emulator, fdt, guest-tree, hv-dtb, hypercalls, inflate, loader, manifest, mux, texts or uimage
    #[arg(value_name = "TARGET")]
    pub target: String,
    /// For how long
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    pub seconds: u32,
    #[command(flatten)]
    pub setup: Setup,
}

/// Show how many lines of the hypervisor its tests on the host execute, file by file.
///
/// Needs the compiler's LLVM tools: rustup component add llvm-tools
///
/// Example: cargo xtask coverage
#[derive(Args, Debug)]
pub struct Coverage {
    /// Fail below this percentage
    #[arg(long, value_name = "PERCENT", default_value_t = 90, value_parser = clap::value_parser!(u8).range(..=100))]
    pub least: u8,
}

/// Files of the user's own in place of built ones.
#[derive(Args, Debug, Clone, Default)]
pub struct Overrides {
    /// Kernel uImage to bundle instead of the built one
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
    /// Root file system (ramdisk uImage) to bundle instead of the built one
    #[arg(long, value_name = "FILE")]
    pub rootfs: Option<PathBuf>,
    /// Hypervisor uImage to bundle instead of our own, such as Topaz's hv.uImage
    #[arg(long, value_name = "FILE")]
    pub hypervisor: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn plan_shows_one_form_of_some_stages() {
        let plan = |words: &str| {
            let words = ["xtask", "plan", "--board", "b", "--profile", "p"].into_iter().chain(words.split_whitespace());
            match Cli::try_parse_from(words).ok()?.command {
                Command::Plan(args) => Some(args),
                other => panic!("{other:?}"),
            }
        };
        let args = plan("--format svg --stage guest-load --stage load -o x").unwrap();
        assert_eq!((args.format, args.stage), (Some(MapFormat::Svg), vec![Stage::GuestLoad, Stage::Load]));
        assert!(plan("--json").is_some());
        for wrong in ["--json --format svg", "--stage boot", "--format png"] {
            assert!(plan(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn the_emulated_memory_is_whole_mebibytes() {
        assert_eq!(qemu("x.tar --memory 4GiB --cpu e5500").unwrap().memory, Some(4096));
        for wrong in ["1000", "0", "4", "many", "9999999TiB"] {
            assert!(qemu(&format!("x.tar --memory {wrong}")).is_none(), "{wrong}");
        }
    }
}
