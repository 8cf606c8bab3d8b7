//! One call of cargo for a program that runs on the board's core: the firmware, or guests.
//!
//! The same bytes in every checkout: the compiler is the one that the tool was compiled with, the
//! environment is empty but for what cargo needs to find its registry, every path that could reach the
//! binary is mapped to a fixed one, and the linker script is named relative to the checkout.

use std::path::{Path, PathBuf};

use citrine_formats::manifest::{Input, InputKind};
use citrine_formats::signature::Key;
use citrine_planner::diag::{Code, Diagnostic, Label, Result};
use xshell::cmd;

use super::context::recipe_input;
use crate::cache::io_error;
use crate::tools;

/// There is no firmware for this core.
pub const NO_SUCH_CORE: Code = Code::new('F', 101);
/// The firmware, or a guest, does not compile.
pub const DOES_NOT_COMPILE: Code = Code::new('F', 102);

/// The cores that the programs run on.
const CORES: &[&str] = &["e500mc"];
/// rustc's name for the architecture; there is no bare-metal one for PowerPC.
const TARGET: &str = "powerpc-unknown-linux-gnu";
/// Where cargo builds, in the checkout.
const TARGET_DIR: &str = "target/firmware";
/// What every program depends on.
const WORKSPACE: &[&str] = &["Cargo.lock", "Cargo.toml", "rust-toolchain.toml"];
/// Variables of the user's session that cargo needs to find its registry, and the way there.
const KEPT: &[&str] = &[
    "ALL_PROXY",
    "CARGO_HOME",
    "CARGO_NET_OFFLINE",
    "HOME",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TMPDIR",
    "all_proxy",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];
/// Characters of cargo's output that a diagnostic repeats.
const MOST_OUTPUT: usize = 4000;

/// A package of programs for the board's core.
#[derive(Debug)]
pub struct Package {
    /// What it is, for a sentence: `the firmware`.
    pub what: &'static str,
    /// Its name for cargo.
    pub name: &'static str,
    /// Its directory, which holds `link.ld`.
    pub dir: &'static str,
    /// The directories, with all that is in them, that it is made of.
    pub sources: &'static [&'static str],
    /// The feature that it is built with; none in whatever is bundled.
    pub feature: Option<&'static str>,
    /// The key that the firmware believes configurations of, if it checks them at all.
    pub trust: Option<Key>,
}

/// The content of every source of a package, by its path, in order of paths.
///
/// # Errors
/// A file error.
pub fn sources(root: &Path, package: &Package) -> Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    for source in WORKSPACE.iter().chain(package.sources) {
        collect(root, source, &mut found)?;
    }
    found.sort();
    Ok(found)
}

fn collect(root: &Path, path: &str, found: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    let whole = root.join(path);
    let fail = |error| io_error(&whole, &error);
    if !whole.is_dir() {
        found.push((path.into(), fs_err::read(&whole).map_err(fail)?));
        return Ok(());
    }
    for entry in fs_err::read_dir(&whole).map_err(fail)? {
        let name = entry.map_err(fail)?.file_name();
        // Not ours: no source has such a name, and editors leave files that begin with a dot.
        let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else { continue };
        collect(root, &format!("{path}/{name}"), found)?;
    }
    Ok(())
}

/// The compiler, and every source by its hash.
pub fn inputs(sources: &[(String, Vec<u8>)]) -> Vec<Input> {
    let rustc = Input {
        kind: InputKind::Toolchain,
        name: "rustc".into(),
        origin: "rust-toolchain.toml".into(),
        sha256: None,
        size: None,
        version: env!("CITRINE_RUSTC").into(),
    };
    sources.iter().map(|(path, bytes)| recipe_input(path, bytes)).chain([rustc]).collect()
}

/// Compiles and links a package for `core`; the directory of its programs. Nothing in them depends on the time; the
/// epoch is for compilers that would ask.
///
/// # Errors
/// [`NO_SUCH_CORE`], [`DOES_NOT_COMPILE`].
pub fn compile(root: &Path, package: &Package, core: &str, epoch: u32) -> Result<PathBuf> {
    if !CORES.contains(&core) {
        let message = format!("there is no firmware for the core {}", core.escape_debug());
        return Err(Diagnostic::error(NO_SUCH_CORE, message)
            .fact("core", core)
            .help(format!("it runs on {}; --hypervisor FILE bundles another one", CORES.join(", ")))
            .into());
    }
    let (name, script) = (package.name, format!("{}/link.ld", package.dir));
    let bin = Path::new(env!("CITRINE_SYSROOT")).join("bin");
    let shell = tools::shell_in(root)?;
    let cargo = bin.join("cargo");
    // Never where a program without the feature, or with another key, could be found, and taken for one with it.
    let feature = package.feature.map(|feature| format!("-{feature}")).unwrap_or_default();
    let trust = package.trust.map(|key| format!("-{key}")).unwrap_or_default();
    let dir = format!("{TARGET_DIR}{feature}{trust}");
    let mut cmd =
        cmd!(shell, "{cargo} build --locked --package {name} --profile firmware --target {TARGET} --target-dir {dir}");
    if let Some(feature) = package.feature {
        cmd = cmd.args(["--features", feature]);
    }
    cmd = tools::clean(cmd)
        .env("RUSTC", bin.join("rustc"))
        .env("CARGO_TERM_COLOR", "never")
        .env("CARGO_TERM_PROGRESS_WHEN", "never")
        .env("SOURCE_DATE_EPOCH", epoch.to_string())
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(root, core, &script).join("\u{1f}"));
    if let Some(key) = package.trust {
        cmd = cmd.env("CITRINE_TRUST", key.to_string());
    }
    for name in KEPT {
        if let Some(value) = std::env::var_os(name) {
            cmd = cmd.env(name, value);
        }
    }
    let scratch = tempfile::tempdir().map_err(|error| io_error(&std::env::temp_dir(), &error))?;
    let log = scratch.path().join("cargo.log");
    tools::run(cmd, &log).map_err(|error| match error.code {
        tools::FAILED => does_not_compile(package, &String::from_utf8_lossy(&fs_err::read(&log).unwrap_or_default())),
        _ => error,
    })?;
    Ok(root.join(dir).join(TARGET).join("firmware"))
}

fn does_not_compile(package: &Package, output: &str) -> Box<Diagnostic> {
    // The first error is the cause; what follows often follows from it.
    let from = output.find("error").unwrap_or(0);
    let shown: String = output[from..].chars().take(MOST_OUTPUT).collect();
    let missing = output.contains("can't find crate for `core`") || output.contains("the target may not be installed");
    let help = if missing {
        format!("run `rustup target add {TARGET}`")
    } else {
        "the compiler's message says what is wrong; a fresh checkout compiles".into()
    };
    Diagnostic::error(DOES_NOT_COMPILE, format!("{} does not compile", package.what))
        .primary(Label::file(package.dir, shown.trim_end()))
        .help(help)
        .into()
}

/// The compiler's flags. `--remap-path-prefix` is the only one that differs between checkouts, and the only
/// one that cargo leaves out of the names it gives to crates.
fn rustflags(root: &Path, core: &str, script: &str) -> Vec<String> {
    let home = std::env::var_os("CARGO_HOME").map(std::path::PathBuf::from);
    let home = home.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cargo")));
    let remap = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
    let mut flags: Vec<String> = [
        "-Cpanic=abort",
        "-Cforce-unwind-tables=no",
        "-Crelocation-model=static",
        "-Clinker=rust-lld",
        "-Clinker-flavor=ld.lld",
        "-Clink-arg=--gc-sections",
        "-Clink-arg=--orphan-handling=error",
        "-Clink-arg=--build-id=none",
        // The precompiled core library refers to it, though nothing unwinds.
        "-Clink-arg=--defsym=rust_eh_personality=0",
    ]
    .map(Into::into)
    .into();
    flags.push(format!("-Clink-arg=-T{script}"));
    flags.push(format!("-Ctarget-cpu={core}"));
    flags.extend(home.map(|home| remap(&home, "/cargo")));
    flags.push(remap(&Path::new(env!("CITRINE_SYSROOT")).join("lib/rustlib/src/rust"), "/rustc"));
    // The last one that matches wins: the checkout may lie below the others.
    flags.push(remap(root, "/citrine"));
    flags
}
