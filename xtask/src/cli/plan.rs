//! The command line of what looks at configurations and builds nothing: `check`, `plan`, `render`, `import`, `guest-tree`,
//! `diff`.

use std::path::PathBuf;

use citrine_planner::stages::Stage;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{Args, ValueEnum};

use super::{Medium, Setup, Target};

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

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

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
}
