//! The command line of `bundle`, and how whatever makes a bundle makes it.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{Setup, Target};

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
