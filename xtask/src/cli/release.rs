//! The command line of `release`.

use std::path::PathBuf;

use citrine_planner::units::parse_size;
use clap::Args;

use super::Setup;

/// Build every bundle of a release, and put them together with all that makes them trustworthy.
///
/// Builds each board and profile that the release file does not leave out, and writes artifacts/out/release-VERSION/ in
/// one step: bundles, RAM images, flash images, the sources of what others have made, checksums, provenance, bill of
/// materials, notes, and index.json, which lists everything and is signed. A release that is interrupted, however
/// hard, goes on where it was when the same command is given again.
///
/// Example: cargo xtask release --key release-key --previous release-0.1.0
#[derive(Args, Debug, Clone)]
pub struct Release {
    /// What the release is made of
    #[arg(value_name = "FILE", default_value = "artifacts/release.toml")]
    pub file: PathBuf,
    /// Sign bundles and index with this key; a development key is refused
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// The release before, which the notes compare this one with
    #[arg(long, value_name = "DIR")]
    pub previous: Option<PathBuf>,
    /// Trusted keys for the release before, in the allowed_signers format of ssh-keygen(1)
    #[arg(long, value_name = "FILE")]
    pub keys: Option<PathBuf>,
    /// How many bundles are built at once [default: as many as there are CPUs]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub jobs: Option<u16>,
    /// How much memory the builds may take together, such as "2 GiB" [default: half of what is free]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub memory: Option<u64>,
    /// Who builds, as a URI, for the provenance
    #[arg(long, value_name = "URI", value_parser = uri)]
    pub builder: Option<String>,
    /// Build and fetch nothing that the cache does not hold
    #[arg(long)]
    pub offline: bool,
    /// Share built stages with other machines through this repository of an OCI registry [default: CITRINE_REMOTE_CACHE]
    #[arg(long, value_name = "HOST/REPOSITORY")]
    pub remote_cache: Option<String>,
    /// The release's directory [default: artifacts/out/release-VERSION]
    #[arg(long, short, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Build this bundle, BOARD/PROFILE, into the directory of --output: what is run for each
    #[arg(long, value_name = "CELL", hide = true, requires = "output")]
    pub cell: Option<String>,
    #[command(flatten)]
    pub setup: Setup,
}

fn size(text: &str) -> Result<u64, String> {
    parse_size(text).filter(|bytes| *bytes > 0).ok_or_else(|| "a size looks like \"2 GiB\"".to_owned())
}

/// A URI as far as it matters here: a scheme, and nothing that a URI cannot hold.
fn uri(text: &str) -> Result<String, String> {
    let scheme = text.split_once(':').map(|(scheme, rest)| !scheme.is_empty() && !rest.is_empty());
    let plain =
        text.len() <= 256 && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte));
    if scheme == Some(true) && plain {
        Ok(text.to_owned())
    } else {
        Err("a URI looks like urn:example:builder".to_owned())
    }
}
