//! `hv.uImage`: our firmware for the board's core, as U-Boot's `bootm` takes it.

use std::path::Path;
use std::time::Duration;

use citrine_formats::signature::Key;
use citrine_formats::uimage::{Compression, Kind};
use citrine_planner::diag::Result;
use citrine_planner::pack::image::{Fields, wrap};

use super::context::{Artifact, Context};
use super::{cargo, firmware};
use crate::cache::{StageId, io_error};

/// Name of the image in its stage and in every bundle.
pub const HV_IMAGE: &str = "hv.uImage";
/// How the name in the image's header begins: by this it is known to be ours.
pub const HV_NAME: &str = "Citrine ";
/// Changes when the same sources shall give another image.
const VERSION: u32 = 1;

/// The hypervisor for `core` that believes configurations by the key `trust`: built when one of its sources, the compiler,
/// the core or the key changes.
///
/// # Errors
/// An unsupported core, what cargo and the audit complain about (`F1xx`), a file error.
pub fn hypervisor(context: &Context<'_>, core: &str, trust: Option<Key>) -> Result<Vec<Artifact>> {
    let epoch = context.lock.source_date_epoch;
    let sources = firmware::sources(context.root)?;
    let time = epoch.to_string();
    let mut parts: Vec<(&str, &[u8])> =
        vec![("core", core.as_bytes()), ("rustc", env!("CITRINE_RUSTC").as_bytes()), ("time", time.as_bytes())];
    let key = trust.map(|key| key.to_string());
    parts.extend(key.iter().map(|key| ("trust", key.as_bytes())));
    parts.extend(sources.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())));
    let id = StageId::new("firmware", VERSION, &parts);
    let entry =
        context.cache.stage(&id, "hypervisor firmware", Duration::from_secs(20), context.progress, |dir, _| {
            let built = firmware::build(context.root, core, epoch, trust)?;
            write(&dir.join(HV_IMAGE), &image(built.image, epoch))?;
            write(&dir.join("hv.elf"), &built.elf)
        })?;
    Ok(Artifact::of_entry(&entry, &cargo::inputs(&sources)))
}

/// A flat firmware as U-Boot takes it.
fn image(flat: Vec<u8>, epoch: u32) -> Vec<u8> {
    let fields = Fields {
        kind: Kind::Kernel,
        compression: Compression::None,
        name: &format!("{HV_NAME}{}", env!("CARGO_PKG_VERSION")),
        load: 0,
        entry: 0,
        time: epoch,
    };
    wrap(fields, flat).expect("the audit bounds the image to 4 MiB").pieces().concat()
}

/// The image of the firmware that does not keep partitions apart.
///
/// # Errors
/// See [`hypervisor`].
#[cfg(test)]
pub fn hypervisor_without_isolation(root: &Path, core: &str) -> Result<Vec<u8>> {
    Ok(image(firmware::without_isolation(root, core)?.image, 0))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs_err::write(path, bytes).map_err(|error| io_error(path, &error))
}
