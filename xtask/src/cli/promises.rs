//! The command line of `promises`.

use clap::Args;

use super::Setup;

/// Show what Citrine promises, and try every promise now.
///
/// docs/promises.md has the promises and names the tests of each. This runs them and prints the figures that they found:
/// how many forgeries were refused, in how many bundles two verifiers agree, how many bits were flipped.
///
/// Example: cargo xtask promises P4 P5 --full
#[derive(Args, Debug)]
pub struct Promises {
    /// Try these promises only
    #[arg(value_name = "PROMISE")]
    pub only: Vec<String>,
    /// Try those, too, that take long: the double build, the mutants of the verifier, a million layouts
    #[arg(long)]
    pub full: bool,
    #[command(flatten)]
    pub setup: Setup,
}
