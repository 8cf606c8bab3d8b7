//! The root file system of a guest: busybox, a skeleton, and nothing else.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use citrine_formats::uimage::Kind;
use citrine_planner::diag::{Code, Diagnostic, Result};
use tar::{Builder, EntryType, Header};
use xshell::cmd;

use crate::build::context::{Artifact, Context};
use crate::build::debian::Fetched;
use crate::build::stage::Stage;
use crate::build::{image, kconfig};
use crate::cache::io_error;
use crate::progress::Step;
use crate::tools::{clean, run, shell_in};

/// A file of the skeleton cannot become part of the root file system.
pub const SKELETON: Code = Code::new('T', 504);

/// Busybox's options, on top of none.
const CONFIG: &str = "artifacts/busybox/busybox.config";
/// Files as they stand in the root file system; a script is executable, nothing else is.
const FILES: &str = "artifacts/rootfs";
/// Directories, made in this order.
const DIRECTORIES: [(&str, u32); 19] = [
    ("bin", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("etc/init.d", 0o755),
    ("home", 0o755),
    ("lib", 0o755),
    ("mnt", 0o755),
    ("opt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("sbin", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("usr/bin", 0o755),
    ("usr/sbin", 0o755),
    ("var", 0o755),
    ("var/log", 0o755),
];
/// Character devices that exist before the kernel mounts its own: name, mode, major, minor.
const DEVICES: [(&str, u32, u32, u32); 2] = [("dev/console", 0o600, 5, 1), ("dev/null", 0o666, 1, 3)];
/// Size of the file system in KiB: busybox takes 1.6 MiB, and what is empty costs a guest boot time.
const SIZE_KIB: u32 = 4096;
/// Number of inodes.
const INODES: u32 = 512;

const STAGE: Stage = Stage {
    name: "rootfs",
    version: 1,
    label: "root file system",
    expected: Duration::from_secs(45),
    source: "busybox",
    packages: &[
        "binutils-powerpc-linux-gnu",
        "cpp-12-powerpc-linux-gnu",
        "gcc-12-powerpc-linux-gnu",
        "genext2fs",
        "libc6-dev-powerpc-cross",
        "libgcc-12-dev-powerpc-cross",
        "linux-libc-dev-powerpc-cross",
    ],
};

/// `rootfs.uImage` (what hypervisor and U-Boot take), `rootfs.ext2.gz` (the same without the header, which
/// QEMU's `-initrd` takes), and what is known of them in `rootfs.json`.
///
/// # Errors
/// What fetching and building return.
pub fn rootfs(context: &Context<'_>) -> Result<Vec<Artifact>> {
    let mut recipes = skeleton(context.root)?;
    recipes.insert(CONFIG.to_string(), context.recipe(CONFIG)?);
    let recipes: Vec<(String, Vec<u8>)> = recipes.into_iter().collect();
    STAGE.run(context, &recipes, |source, out, step| build(context, &recipes, source, out, step))
}

/// The files below [`FILES`] by path in the project.
///
/// # Errors
/// [`SKELETON`], or a file error.
pub fn skeleton(root: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    let mut directories = vec![root.join(FILES)];
    while let Some(directory) = directories.pop() {
        let fail = |error: std::io::Error| io_error(&directory, &error);
        for entry in fs_err::read_dir(&directory).map_err(fail)? {
            let path = entry.map_err(fail)?.path();
            let name = path.strip_prefix(root).ok().and_then(Path::to_str);
            let kind = fs_err::symlink_metadata(&path).map_err(fail)?.file_type();
            match name {
                Some(_) if kind.is_dir() => directories.push(path),
                Some(name) if kind.is_file() => {
                    files.insert(name.to_string(), fs_err::read(&path).map_err(fail)?);
                }
                _ => {
                    let message = format!("{} is neither a file nor a directory with a plain name", path.display());
                    return Err(Diagnostic::error(SKELETON, message)
                        .help("links and devices of the root file system are made by the recipe, not by the checkout")
                        .into());
                }
            }
        }
    }
    Ok(files)
}

fn build(
    context: &Context<'_>,
    recipes: &[(String, Vec<u8>)],
    source: &Fetched,
    out: &Path,
    step: &Step<'_>,
) -> Result<()> {
    let epoch = context.lock.source_date_epoch;
    let work = context.cache.scratch()?;
    let log = context.cache.log(STAGE.name);
    let tree = work.path().join("busybox");
    let (busybox, applets) = build_busybox(context, source, &tree, &log, step)?;

    step.detail("packing");
    let write = |path: &Path, bytes: &[u8]| fs_err::write(path, bytes).map_err(|error| io_error(path, &error));
    let archive = work.path().join("rootfs.tar");
    let content = Content { files: recipes, busybox: &busybox, applets: &applets, epoch };
    write(&archive, &content.to_tar().map_err(|error| io_error(&archive, &error))?)?;
    let shell = shell_in(work.path())?;
    let (size, inodes) = (SIZE_KIB.to_string(), INODES.to_string());
    let make = cmd!(shell, "genext2fs -f -U -B 1024 -b {size} -N {inodes} -a rootfs.tar rootfs.ext2");
    run(clean(make).env("SOURCE_DATE_EPOCH", epoch.to_string()), &log)?;
    let ext2 = work.path().join("rootfs.ext2");
    let ext2 = fs_err::read(&ext2).map_err(|error| io_error(&ext2, &error))?;
    let gzipped = image::gzip(&ext2);
    write(&out.join("rootfs.ext2.gz"), &gzipped)?;
    write(&out.join("rootfs.uImage"), &image::uimage(Kind::Ramdisk, "rootfs", epoch, &gzipped)?)?;
    let known = serde_json::json!({ "image_size": ext2.len() });
    write(&out.join("rootfs.json"), format!("{known:#}\n").as_bytes())?;
    let _ = fs_err::remove_file(&log);
    Ok(())
}

/// The static busybox and the absolute paths of its applets.
fn build_busybox(
    context: &Context<'_>,
    source: &Fetched,
    tree: &Path,
    log: &Path,
    step: &Step<'_>,
) -> Result<(Vec<u8>, Vec<String>)> {
    let read = |path: &Path| fs_err::read_to_string(path).map_err(|error| io_error(path, &error));
    let description = source.file(".dsc")?;
    step.detail("unpacking");
    let shell = shell_in(&source.entry.dir)?;
    run(clean(cmd!(shell, "dpkg-source --no-copy --extract {description} {tree}")), log)?;

    let shell = shell_in(tree)?;
    let epoch = context.lock.source_date_epoch.to_string();
    let in_tree = |command| run(clean(command).env("SOURCE_DATE_EPOCH", &epoch), log);
    step.detail("configuring");
    in_tree(cmd!(shell, "make allnoconfig"))?;
    let config = tree.join(".config");
    let fragment = String::from_utf8_lossy(&context.recipe(CONFIG)?).into_owned();
    let merged = kconfig::merge(&read(&config)?, &fragment);
    fs_err::write(&config, merged).map_err(|error| io_error(&config, &error))?;
    // What the options bring up is asked about, and takes its default.
    let answer = "yes '' | make oldconfig";
    in_tree(cmd!(shell, "sh -c {answer}"))?;
    kconfig::check(CONFIG, &fragment, &config)?;
    step.detail("compiling");
    let jobs = std::thread::available_parallelism().map_or(1, usize::from).to_string();
    in_tree(cmd!(shell, "nice make -j{jobs} CROSS_COMPILE=powerpc-linux-gnu- busybox busybox.links"))?;

    let binary = tree.join("busybox");
    let binary = fs_err::read(&binary).map_err(|error| io_error(&binary, &error))?;
    let applets = read(&tree.join("busybox.links"))?.lines().map(str::to_string).collect();
    Ok((binary, applets))
}

/// What the root file system holds.
struct Content<'a> {
    files: &'a [(String, Vec<u8>)],
    busybox: &'a [u8],
    applets: &'a [String],
    epoch: u32,
}

impl Content<'_> {
    /// As a tar archive: everything belongs to root and is of one time, whoever builds it and wherever.
    fn to_tar(&self) -> std::io::Result<Vec<u8>> {
        let mut tar = Builder::new(Vec::new());
        for (name, mode) in DIRECTORIES {
            tar.append_data(&mut self.header(EntryType::Directory, mode, 0), format!("{name}/"), &[][..])?;
        }
        for (name, mode, major, minor) in DEVICES {
            let mut header = self.header(EntryType::Char, mode, 0);
            header.set_device_major(major)?;
            header.set_device_minor(minor)?;
            tar.append_data(&mut header, name, &[][..])?;
        }
        let files = self.files.iter().filter_map(|(path, bytes)| Some((path.strip_prefix(FILES)?, &bytes[..])));
        for (path, bytes) in files.chain([("/bin/busybox", self.busybox)]) {
            let script = bytes.starts_with(b"#!") || path == "/bin/busybox";
            let mode = if script { 0o755 } else { 0o644 };
            tar.append_data(&mut self.header(EntryType::Regular, mode, bytes.len()), &path[1..], bytes)?;
        }
        for applet in self.applets {
            let mut header = self.header(EntryType::Symlink, 0o777, 0);
            tar.append_link(&mut header, applet.trim_start_matches('/'), "/bin/busybox")?;
        }
        tar.into_inner()
    }

    fn header(&self, kind: EntryType, mode: u32, size: usize) -> Header {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(self.epoch.into());
        header.set_size(size as u64);
        header
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
    }

    #[test]
    fn the_archive_holds_what_a_guest_needs_to_start() {
        let files: Vec<(String, Vec<u8>)> = skeleton(project()).unwrap().into_iter().collect();
        let applets = ["/bin/sh".to_string(), "/sbin/init".to_string()];
        let content = Content { files: &files, busybox: b"\x7fELF", applets: &applets, epoch: 1_700_000_000 };
        let bytes = content.to_tar().unwrap();
        assert_eq!(bytes, content.to_tar().unwrap());
        let mut seen = BTreeMap::new();
        for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
            let entry = entry.unwrap();
            let header = entry.header();
            assert_eq!((header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()), (0, 0, 1_700_000_000));
            let path = entry.path().unwrap().to_str().unwrap().trim_end_matches('/').to_string();
            let parent = Path::new(&path).parent().unwrap().to_str().unwrap().to_string();
            assert!(parent.is_empty() || seen.contains_key(&parent), "{path} comes before its directory");
            assert!(seen.insert(path, (header.entry_type(), header.mode().unwrap())).is_none());
        }
        assert_eq!(seen["bin/busybox"], (EntryType::Regular, 0o755));
        assert_eq!(seen["etc/init.d/rcS"], (EntryType::Regular, 0o755));
        assert_eq!(seen["etc/inittab"], (EntryType::Regular, 0o644));
        assert_eq!(seen["sbin/init"], (EntryType::Symlink, 0o777));
        assert_eq!(seen["dev/console"], (EntryType::Char, 0o600));
        assert_eq!(seen["tmp"], (EntryType::Directory, 0o1777));
    }

    #[test]
    fn no_file_says_that_a_guest_is_ready() {
        for (path, bytes) in skeleton(project()).unwrap() {
            assert!(!String::from_utf8_lossy(&bytes).contains("citrine-guest-42-ready"), "{path}");
        }
    }

    #[test]
    fn a_link_in_the_skeleton_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let files = root.path().join(FILES);
        fs_err::create_dir_all(&files).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", files.join("passwd")).unwrap();
        assert_eq!(skeleton(root.path()).unwrap_err().code, SKELETON);
    }
}
