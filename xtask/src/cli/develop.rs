//! The command line of what tests and measures Citrine itself: `test`, `promises`, `fuzz`, `coverage`, `perf`, `bench`.

use std::path::PathBuf;

use clap::Args;

use super::Setup;

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
