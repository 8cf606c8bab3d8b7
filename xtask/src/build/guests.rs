//! The guests of `hypervisor/guests`: small programs that show what a partition can do, as kernels to enter.

use std::path::Path;
use std::time::Duration;

use citrine_formats::uimage::{Compression, Kind};
use citrine_planner::diag::Result;
use citrine_planner::pack::image::{Fields, wrap};

use super::audit::{self, GUEST};
use super::cargo::{self, Package};
use super::context::{Artifact, Context};
use crate::cache::{StageId, io_error};

/// The guests, by the names that profiles use. Each is a program of the package.
pub const GUESTS: [&str; 9] = ["bench", "echo", "hello", "hostile", "ipi", "manager", "sentinel", "timer", "twin"];

/// What they are made of.
const PACKAGE: Package = Package {
    what: "the guests' package",
    name: "citrine-guests",
    dir: "hypervisor/guests",
    // Of the hypervisor's own they have the functions that copy memory.
    sources: &["hypervisor/e500/src/mem.s", "hypervisor/formats", "hypervisor/guests"],
    feature: None,
    trust: None,
};
/// Changes when the same sources shall give other images.
const VERSION: u32 = 1;

/// All guests for `core`, each as `NAME.uImage`: built when one of their sources, the compiler or the core changes.
///
/// # Errors
/// An unsupported core, what cargo and the audit complain about (`F1xx`), a file error.
pub fn guests(context: &Context<'_>, core: &str) -> Result<Vec<Artifact>> {
    let epoch = context.lock.source_date_epoch;
    let sources = cargo::sources(context.root, &PACKAGE)?;
    let time = epoch.to_string();
    let mut parts: Vec<(&str, &[u8])> =
        vec![("core", core.as_bytes()), ("rustc", env!("CITRINE_RUSTC").as_bytes()), ("time", time.as_bytes())];
    parts.extend(sources.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())));
    let id = StageId::new("guests", VERSION, &parts);
    let entry = context.cache.stage(&id, "guests", Duration::from_secs(30), context.progress, |dir, _| {
        let built = cargo::compile(context.root, &PACKAGE, core, epoch)?;
        for name in GUESTS {
            let path = built.join(name);
            let elf = fs_err::read(&path).map_err(|error| io_error(&path, &error))?;
            write(&dir.join(format!("{name}.uImage")), &image(name, &elf, epoch)?)?;
            write(&dir.join(format!("{name}.elf")), &elf)?;
        }
        Ok(())
    })?;
    Ok(Artifact::of_entry(&entry, &cargo::inputs(&sources)))
}

/// A guest's program, as it is entered: flat, from guest-physical 0.
fn image(name: &str, elf: &[u8], epoch: u32) -> Result<Vec<u8>> {
    let flat = audit::audit(elf, &GUEST)?;
    let fields = Fields {
        kind: Kind::Kernel,
        compression: Compression::None,
        name: &format!("Citrine guest {name}"),
        load: 0,
        entry: 0,
        time: epoch,
    };
    Ok(wrap(fields, flat).expect("the audit bounds the image to 1 MiB").pieces().concat())
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs_err::write(path, bytes).map_err(|error| io_error(path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use citrine_formats::uimage::Image;

    #[test]
    fn every_guest_builds_and_passes_the_audit() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let built = cargo::compile(root, &PACKAGE, "e500mc", 0).unwrap();
        for name in GUESTS {
            let bytes = image(name, &std::fs::read(built.join(name)).unwrap(), 0).unwrap();
            let image = Image::verify(&bytes).unwrap();
            // `lis r4,...`, the first instruction: it is entered at its first byte.
            assert_eq!(image.payload[..2], [0x3c, 0x80], "{name}");
        }
    }

    #[test]
    fn every_program_of_the_package_is_a_guest() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut names: Vec<String> = std::fs::read_dir(root.join("hypervisor/guests/src/bin"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_str().unwrap().trim_end_matches(".rs").to_owned())
            .collect();
        names.sort();
        assert_eq!(names, GUESTS);
    }
}
