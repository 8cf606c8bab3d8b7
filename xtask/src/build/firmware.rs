//! The hypervisor's firmware: compiled for the board's core, linked, audited, laid flat.

use std::path::Path;

use citrine_formats::signature::Key;
use citrine_planner::diag::Result;

use super::audit::{self, FIRMWARE};
use super::cargo::{self, Package};
use crate::cache::io_error;

/// What the firmware is made of.
const PACKAGE: Package = Package {
    what: "the firmware",
    name: "citrine-firmware",
    dir: "hypervisor/firmware",
    sources: &["hypervisor/core", "hypervisor/e500", "hypervisor/firmware", "hypervisor/formats"],
    feature: None,
    trust: None,
};

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
    cargo::sources(root, &PACKAGE)
}

/// Compiles, links and audits the firmware for `core`. With `trust` it runs only configurations that this key has signed.
///
/// # Errors
/// What [`cargo::compile`] returns, and what [`audit::audit`] objects to.
pub fn build(root: &Path, core: &str, source_date_epoch: u32, trust: Option<Key>) -> Result<Firmware> {
    of(root, &Package { trust, ..PACKAGE }, core, source_date_epoch)
}

/// The firmware without isolation: only tests can build it, to show that they notice.
///
/// # Errors
/// See [`build`].
#[cfg(test)]
pub fn without_isolation(root: &Path, core: &str) -> Result<Firmware> {
    of(root, &Package { feature: Some("without-isolation"), ..PACKAGE }, core, 0)
}

fn of(root: &Path, package: &Package, core: &str, source_date_epoch: u32) -> Result<Firmware> {
    let path = cargo::compile(root, package, core, source_date_epoch)?.join(package.name);
    let elf = fs_err::read(&path).map_err(|error| io_error(&path, &error))?;
    let image = audit::audit(&elf, &FIRMWARE)?;
    Ok(Firmware { elf, image })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use xshell::cmd;

    use super::*;
    use crate::tools;

    fn project() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
    }

    #[test]
    fn the_firmware_builds_and_passes_the_audit() {
        let firmware = build(&project(), "e500mc", 0, None).unwrap();
        assert!(firmware.image.len() < 1 << 20, "{} bytes", firmware.image.len());
        // `mr r31,r3`, the first instruction: the image is entered at its first byte.
        assert_eq!(firmware.image[..4], [0x7c, 0x7f, 0x1b, 0x78]);
    }

    #[test]
    fn no_path_of_this_machine_is_in_the_firmware() {
        let elf = build(&project(), "e500mc", 0, None).unwrap().elf;
        for path in [project(), env!("CITRINE_SYSROOT").into(), std::env::var_os("HOME").unwrap().into()] {
            let path = path.display().to_string();
            let found = elf.windows(path.len()).any(|window| window == path.as_bytes());
            assert!(path.len() < 4 || !found, "{path}");
        }
    }

    #[test]
    fn only_the_build_without_isolation_says_so() {
        const WARNING: &[u8] = b"WARNING: built without isolation, for tests only";
        let says = |firmware: Firmware| firmware.image.windows(WARNING.len()).any(|window| window == WARNING);
        assert!(!says(build(&project(), "e500mc", 0, None).unwrap()));
        assert!(says(without_isolation(&project(), "e500mc").unwrap()));
    }

    #[test]
    fn the_key_is_in_the_firmware_that_believes_it() {
        // Any key will do: nothing is checked here.
        let key = Key::from_hex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a").unwrap();
        let (with, without) = [Some(key), None].map(|key| build(&project(), "e500mc", 0, key).unwrap()).into();
        let holds = |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).any(|window| window == what);
        assert!(holds(&with.image, &key.0) && !holds(&without.image, &key.0));
        // Whoever has no key pays nothing for the check: the symbols' names show what is there.
        assert!(holds(&with.elf, b"ed25519") && !holds(&without.elf, b"ed25519"));
        assert!(holds(&with.elf, b"sha512") && !holds(&without.elf, b"sha512"));
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
            return build(&project(), core.trim(), 0, None).map(drop);
        }
        let scratch = tempfile::tempdir().unwrap();
        let shell = tools::shell_in(scratch.path()).unwrap();
        if case.join("input").is_dir() {
            let input = case.join("input");
            cmd!(shell, "cp -r {input}/. .").quiet().run().unwrap();
            return build(scratch.path(), "e500mc", 0, None).map(drop);
        }
        let text = std::fs::read_to_string(case.join("input.s")).unwrap();
        let wanted = text.lines().next().and_then(|line| line.strip_prefix("# ld: ")).unwrap();
        let (input, options) = (case.join("input.s"), wanted.split(' '));
        cmd!(shell, "powerpc-linux-gnu-as -me500mc -o input.o {input}").quiet().run().unwrap();
        cmd!(shell, "powerpc-linux-gnu-ld {options...} -o output input.o").quiet().ignore_stderr().run().unwrap();
        audit::audit(&std::fs::read(scratch.path().join("output")).unwrap(), &FIRMWARE).map(drop)
    }
}
