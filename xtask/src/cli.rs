//! The command line: the verbs, and what several of them take. Each verb's own flags and help lie below.

mod boot;
mod bundle;
pub mod console;
mod develop;
mod plan;
pub mod release;
mod reproduce;
mod trust;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use boot::{Labgrid, Qemu, Serve};
pub use bundle::{BundleArgs, Making, Media, Overrides};
pub use develop::{Bench, Coverage, Fuzz, Perf, Promises, Test};
pub use plan::{Check, Diff, GuestTree, Import, MapFormat, Plan, Render};
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

/// Where the boot loader finds the parts.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Medium {
    /// In memory, loaded there by U-Boot
    #[default]
    Ram,
    /// In the NOR flash, read in place
    Nor,
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
