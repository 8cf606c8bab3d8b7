//! The boards' hardware trees, compiled from the kernel's source. No kernel is built for them.

use std::path::Path;
use std::time::Duration;

use citrine_planner::diag::Result;
use xshell::cmd;

use crate::build::context::{Artifact, Context};
use crate::build::debian::Fetched;
use crate::build::stage::Stage;
use crate::progress::Step;
use crate::tools::{clean, run, shell_in};

/// The boards whose hardware tree is made.
const BOARDS: [&str; 1] = ["p4080ds"];
/// Where the source has them.
const TREES: &str = "arch/powerpc/boot/dts";

const STAGE: Stage = Stage {
    name: "trees",
    version: 1,
    label: "hardware trees",
    expected: Duration::from_secs(20),
    source: "linux",
    packages: &["device-tree-compiler"],
};

/// `BOARD.dtb` for each board.
///
/// # Errors
/// What fetching and building return.
pub fn trees(context: &Context<'_>) -> Result<Vec<Artifact>> {
    STAGE.run(context, &[], |source, out, step| build(context, source, out, step))
}

fn build(context: &Context<'_>, source: &Fetched, out: &Path, step: &Step<'_>) -> Result<()> {
    let work = context.cache.scratch()?;
    let log = context.cache.log(STAGE.name);
    let package = source.file(".deb")?;
    let series = &source.source.package;

    step.detail("unpacking");
    let shell = shell_in(work.path())?;
    run(clean(cmd!(shell, "dpkg-deb --extract {package} package")), &log)?;
    let archive = format!("package/usr/src/{series}.tar.xz");
    let wanted = format!("{series}/{TREES}");
    let unpack = cmd!(shell, "tar --extract --xz --no-same-owner --file={archive} {wanted}");
    run(clean(unpack).env("XZ_DEFAULTS", "--threads=0"), &log)?;

    step.detail("compiling");
    let shell = shell_in(&work.path().join(wanted).join("fsl"))?;
    for board in BOARDS {
        let (from, to) = (format!("{board}.dts"), out.join(format!("{board}.dtb")));
        // Warnings about the kernel's trees are the kernel's to heed.
        run(clean(cmd!(shell, "dtc -q -I dts -O dtb -b 0 -i .. -o {to} {from}")), &log)?;
    }
    let _ = fs_err::remove_file(&log);
    Ok(())
}
