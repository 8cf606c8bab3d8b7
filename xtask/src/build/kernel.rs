//! Linux for guests.

use std::path::Path;
use std::time::Duration;

use citrine_formats::uimage::Kind;
use citrine_planner::diag::Result;
use xshell::cmd;

use crate::build::context::{Artifact, Context};
use crate::build::debian::Fetched;
use crate::build::stage::Stage;
use crate::build::{image, kconfig};
use crate::cache::io_error;
use crate::progress::Step;
use crate::tools::{clean, run, shell_in};

/// The kernel's options, on top of none.
const CONFIG: &str = "artifacts/linux/e500mc.config";
/// Parts of the source that no build for this processor reads; they are two thirds of its bytes.
const NOT_UNPACKED: &str = "artifacts/linux/not-unpacked.txt";

const STAGE: Stage = Stage {
    name: "linux",
    version: 1,
    label: "linux kernel",
    expected: Duration::from_secs(300),
    source: "linux",
    packages: &["binutils-powerpc-linux-gnu", "cpp-12-powerpc-linux-gnu", "gcc-12-powerpc-linux-gnu"],
};

/// `kernel.uImage`, and what is known of it in `kernel.json`.
///
/// # Errors
/// What fetching and building return.
pub fn linux(context: &Context<'_>) -> Result<Vec<Artifact>> {
    let recipes = [CONFIG, NOT_UNPACKED].map(|path| Ok((path.to_string(), context.recipe(path)?)));
    let recipes = recipes.into_iter().collect::<Result<Vec<_>>>()?;
    STAGE.run(context, &recipes, |source, out, step| build(context, source, out, step))
}

fn build(context: &Context<'_>, source: &Fetched, out: &Path, step: &Step<'_>) -> Result<()> {
    let epoch = context.lock.source_date_epoch;
    let work = context.cache.scratch()?;
    let log = context.cache.log(STAGE.name);
    let config = context.root.join(CONFIG);
    let fragment = String::from_utf8_lossy(&context.recipe(CONFIG)?).into_owned();
    let not_unpacked = context.root.join(NOT_UNPACKED);
    let package = source.file(".deb")?;
    let series = &source.source.package;

    step.detail("unpacking");
    let shell = shell_in(work.path())?;
    run(clean(cmd!(shell, "dpkg-deb --extract {package} package")), &log)?;
    let archive = format!("package/usr/src/{series}.tar.xz");
    let unpack = cmd!(shell, "tar --extract --xz --no-same-owner --exclude-from={not_unpacked} --file={archive}");
    run(clean(unpack).env("XZ_DEFAULTS", "--threads=0"), &log)?;
    let package = work.path().join("package");
    fs_err::remove_dir_all(&package).map_err(|error| io_error(&package, &error))?;

    let tree = work.path().join(series);
    let shell = shell_in(&tree)?;
    let make = |arguments: &[String]| {
        let command = clean(cmd!(shell, "nice make {arguments...}"));
        run(
            command
                .env("ARCH", "powerpc")
                .env("CROSS_COMPILE", "powerpc-linux-gnu-")
                .env("KBUILD_BUILD_TIMESTAMP", format!("@{epoch}"))
                .env("KBUILD_BUILD_USER", "citrine")
                .env("KBUILD_BUILD_HOST", "citrine")
                .env("KBUILD_BUILD_VERSION", "1")
                .env("SOURCE_DATE_EPOCH", epoch.to_string())
                .env("KCONFIG_ALLCONFIG", &config),
            &log,
        )
    };
    step.detail("configuring");
    make(&["allnoconfig".into()])?;
    kconfig::check(CONFIG, &fragment, &tree.join(".config"))?;
    step.detail("compiling");
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    make(&[format!("-j{jobs}"), "vmlinux".into()])?;

    step.detail("packing");
    let read = |path: &Path| fs_err::read(path).map_err(|error| io_error(path, &error));
    let write = |name: &str, bytes: &[u8]| {
        let path = out.join(name);
        fs_err::write(&path, bytes).map_err(|error| io_error(&path, &error))
    };
    let release = String::from_utf8_lossy(&read(&tree.join("include/config/kernel.release"))?).trim().to_string();
    let flat = image::flatten("vmlinux", &read(&tree.join("vmlinux"))?)?;
    let gzipped = image::gzip(&flat.bytes);
    write("kernel.uImage", &image::uimage(Kind::Kernel, &format!("Linux-{release}"), epoch, &gzipped)?)?;
    let known = serde_json::json!({
        "image_size": flat.bytes.len(),
        "memory_size": flat.memory,
        "release": release,
    });
    write("kernel.json", format!("{known:#}\n").as_bytes())?;
    let _ = fs_err::remove_file(&log);
    Ok(())
}
