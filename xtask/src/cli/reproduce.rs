//! The command line of `reproduce`.

use std::path::PathBuf;

use clap::Args;

use super::Setup;

/// Build a bundle once more from what its manifest pins, and compare every byte.
///
/// Works in a copy of this checkout with an empty cache, so that nothing is taken for granted but the pinned sources,
/// which are checked by their hashes. For every part it says whether it is identical, else which field of which part
/// differs, and what it is built from that is not what it was. Exits with 1 unless all is identical.
///
/// Example: cargo xtask reproduce p4080ds-two-linux.tar --keys release-keys
#[derive(Args, Debug)]
pub struct Reproduce {
    /// The bundle: a .tar file
    #[arg(value_name = "BUNDLE")]
    pub bundle: PathBuf,
    /// Trusted keys, in the allowed_signers format of ssh-keygen(1)
    #[arg(long, value_name = "FILE")]
    pub keys: Option<PathBuf>,
    /// Take the pinned sources from this directory, such as sources/ of a release, and fetch none
    #[arg(long, value_name = "DIR")]
    pub sources: Option<PathBuf>,
    /// Take stages from the build cache where it has them: quick, but what is cached is not proved
    #[arg(long)]
    pub cached: bool,
    /// The board's file, if it is none of boards/
    #[arg(long, value_name = "FILE")]
    pub board: Option<PathBuf>,
    /// The bundle that was given as --installed when this one was made
    #[arg(long, value_name = "BUNDLE")]
    pub installed: Option<PathBuf>,
    #[command(flatten)]
    pub setup: Setup,
}
