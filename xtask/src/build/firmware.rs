//! The hypervisor's firmware: one call of cargo, for the board's core, and what comes out of it.
//!
//! The same bytes in every checkout: the compiler is the one that the tool was compiled with, the
//! environment is empty but for what cargo needs to find its registry, every path that could reach the
//! binary is mapped to a fixed one, and the linker script is named relative to the checkout.

use std::path::Path;

use citrine_planner::diag::{Code, Diagnostic, Label, Result};
use xshell::cmd;

use super::audit;
use crate::cache::io_error;
use crate::tools;

/// There is no firmware for this core.
pub const NO_SUCH_CORE: Code = Code::new('F', 101);
/// The firmware does not compile.
pub const DOES_NOT_COMPILE: Code = Code::new('F', 102);

/// The cores that the firmware runs on.
const CORES: &[&str] = &["e500mc"];
/// rustc's name for the architecture; there is no bare-metal one for PowerPC.
const TARGET: &str = "powerpc-unknown-linux-gnu";
/// Where cargo builds, in the checkout.
const TARGET_DIR: &str = "target/firmware";
/// What the firmware is made of: files, and directories with all that is in them.
const SOURCES: &[&str] = &[
    "Cargo.lock",
    "Cargo.toml",
    "hypervisor/core",
    "hypervisor/e500",
    "hypervisor/firmware",
    "hypervisor/formats",
    "rust-toolchain.toml",
];
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

/// What cargo and the linker made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Firmware {
    /// The ELF file, with symbols.
    pub elf: Vec<u8>,
    /// The flat image that is loaded and entered at its first byte.
    pub image: Vec<u8>,
}

/// The content of every source of the firmware, by its path, in order of paths.
///
/// # Errors
/// A file error.
pub fn sources(root: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    for source in SOURCES {
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

/// Compiles, links and audits the firmware for `core`. Nothing in it depends on the time; the epoch is for
/// compilers that would ask.
///
/// # Errors
/// [`NO_SUCH_CORE`], [`DOES_NOT_COMPILE`], and what [`audit::audit`] objects to.
pub fn build(root: &Path, core: &str, source_date_epoch: u32) -> Result<Firmware> {
    if !CORES.contains(&core) {
        let message = format!("there is no firmware for the core {}", core.escape_debug());
        return Err(Diagnostic::error(NO_SUCH_CORE, message)
            .fact("core", core)
            .help(format!("it runs on {}; --hypervisor FILE bundles another one", CORES.join(", ")))
            .into());
    }
    let elf = compile(root, core, source_date_epoch)?;
    let image = audit::audit(&elf)?;
    Ok(Firmware { elf, image })
}

fn compile(root: &Path, core: &str, epoch: u32) -> Result<Vec<u8>> {
    let bin = Path::new(env!("CITRINE_SYSROOT")).join("bin");
    let shell = tools::shell_in(root)?;
    let cargo = bin.join("cargo");
    let mut cmd = cmd!(
        shell,
        "{cargo} build --locked --package citrine-firmware --profile firmware --target {TARGET} --target-dir {TARGET_DIR}"
    );
    cmd = tools::clean(cmd)
        .env("RUSTC", bin.join("rustc"))
        .env("CARGO_TERM_COLOR", "never")
        .env("CARGO_TERM_PROGRESS_WHEN", "never")
        .env("SOURCE_DATE_EPOCH", epoch.to_string())
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(root, core).join("\u{1f}"));
    for name in KEPT {
        if let Some(value) = std::env::var_os(name) {
            cmd = cmd.env(name, value);
        }
    }
    let scratch = tempfile::tempdir().map_err(|error| io_error(&std::env::temp_dir(), &error))?;
    let log = scratch.path().join("cargo.log");
    tools::run(cmd, &log).map_err(|error| match error.code {
        tools::FAILED => does_not_compile(&String::from_utf8_lossy(&fs_err::read(&log).unwrap_or_default())),
        _ => error,
    })?;
    let path = root.join(TARGET_DIR).join(TARGET).join("firmware/citrine-firmware");
    fs_err::read(&path).map_err(|error| io_error(&path, &error))
}

fn does_not_compile(output: &str) -> Box<Diagnostic> {
    // The first error is the cause; what follows often follows from it.
    let from = output.find("error").unwrap_or(0);
    let shown: String = output[from..].chars().take(MOST_OUTPUT).collect();
    let missing = output.contains("can't find crate for `core`") || output.contains("the target may not be installed");
    let help = if missing {
        format!("run `rustup target add {TARGET}`")
    } else {
        "the compiler's message says what is wrong; a fresh checkout compiles".into()
    };
    Diagnostic::error(DOES_NOT_COMPILE, "the firmware does not compile")
        .primary(Label::file("hypervisor/firmware", shown.trim_end()))
        .help(help)
        .into()
}

/// The compiler's flags. `--remap-path-prefix` is the only one that differs between checkouts, and the only
/// one that cargo leaves out of the names it gives to crates.
fn rustflags(root: &Path, core: &str) -> Vec<String> {
    let home = std::env::var_os("CARGO_HOME").map(std::path::PathBuf::from);
    let home = home.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cargo")));
    let remap = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
    let mut flags: Vec<String> = [
        "-Cpanic=abort",
        "-Cforce-unwind-tables=no",
        "-Crelocation-model=static",
        "-Clinker=rust-lld",
        "-Clinker-flavor=ld.lld",
        "-Clink-arg=-Thypervisor/firmware/link.ld",
        "-Clink-arg=--gc-sections",
        "-Clink-arg=--orphan-handling=error",
        "-Clink-arg=--build-id=none",
        // The precompiled core library refers to it, though nothing unwinds.
        "-Clink-arg=--defsym=rust_eh_personality=0",
    ]
    .map(Into::into)
    .into();
    flags.push(format!("-Ctarget-cpu={core}"));
    flags.extend(home.map(|home| remap(&home, "/cargo")));
    flags.push(remap(&Path::new(env!("CITRINE_SYSROOT")).join("lib/rustlib/src/rust"), "/rustc"));
    // The last one that matches wins: the checkout may lie below the others.
    flags.push(remap(root, "/citrine"));
    flags
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn project() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
    }

    #[test]
    fn the_firmware_builds_and_passes_the_audit() {
        let firmware = build(&project(), "e500mc", 0).unwrap();
        assert!(firmware.image.len() < 1 << 20, "{} bytes", firmware.image.len());
        // `mr r31,r3`, the first instruction: the image is entered at its first byte.
        assert_eq!(firmware.image[..4], [0x7c, 0x7f, 0x1b, 0x78]);
    }

    #[test]
    fn no_path_of_this_machine_is_in_the_firmware() {
        let elf = build(&project(), "e500mc", 0).unwrap().elf;
        for path in [project(), env!("CITRINE_SYSROOT").into(), std::env::var_os("HOME").unwrap().into()] {
            let path = path.display().to_string();
            let found = elf.windows(path.len()).any(|window| window == path.as_bytes());
            assert!(path.len() < 4 || !found, "{path}");
        }
    }

    #[test]
    fn every_source_is_listed_once_in_order() {
        let sources = sources(&project()).unwrap();
        let names: Vec<&str> = sources.iter().map(|(name, _)| name.as_str()).collect();
        for name in ["Cargo.lock", "hypervisor/e500/src/entry.s", "hypervisor/firmware/link.ld"] {
            assert!(names.contains(&name), "{names:?}");
        }
        assert!(names.is_sorted_by(|a, b| a < b));
    }

    /// The cases of `tests/bad/F1*`: `core.txt`, a package `input/`, or assembler text `input.s`.
    #[test]
    fn every_bad_firmware_is_refused_with_its_code() {
        let mut cases: Vec<_> =
            std::fs::read_dir(project().join("tests/bad")).unwrap().map(|case| case.unwrap().path()).collect();
        cases.retain(|case| case.file_name().unwrap().to_str().unwrap().starts_with("F1"));
        cases.sort();
        assert_eq!(cases.len(), 5);
        for case in cases {
            let name = case.file_name().unwrap().to_str().unwrap().to_string();
            let error = refused(&case).unwrap_err();
            let expected = std::fs::read_to_string(case.join("expected.txt")).unwrap();
            assert_eq!(format!("{}: {}\n", error.code, error.message), expected, "{name}");
            assert!(name.starts_with(&error.code.to_string()) && error.help.is_some(), "{name}");
            let page = std::fs::read_to_string(project().join(format!("docs/diagnostics/{}.md", error.code))).unwrap();
            assert!(page.starts_with(&format!("# {}: ", error.code)), "{name}");
        }
    }

    fn refused(case: &Path) -> Result<()> {
        if let Ok(core) = std::fs::read_to_string(case.join("core.txt")) {
            return build(&project(), core.trim(), 0).map(drop);
        }
        let scratch = tempfile::tempdir().unwrap();
        let shell = tools::shell_in(scratch.path()).unwrap();
        if case.join("input").is_dir() {
            let input = case.join("input");
            cmd!(shell, "cp -r {input}/. .").quiet().run().unwrap();
            return build(scratch.path(), "e500mc", 0).map(drop);
        }
        let text = std::fs::read_to_string(case.join("input.s")).unwrap();
        let wanted = text.lines().next().and_then(|line| line.strip_prefix("# ld: ")).unwrap();
        let (input, options) = (case.join("input.s"), wanted.split(' '));
        cmd!(shell, "powerpc-linux-gnu-as -me500mc -o input.o {input}").quiet().run().unwrap();
        cmd!(shell, "powerpc-linux-gnu-ld {options...} -o output input.o").quiet().ignore_stderr().run().unwrap();
        audit::audit(&std::fs::read(scratch.path().join("output")).unwrap()).map(drop)
    }
}
