//! What `artifacts/out/` shows: always a whole bundle, the old one or the new one, whenever the tool dies.
//!
//! A bundle has three names there: the archive `NAME.tar`, a plain file; its unpacked files under `NAME`, a
//! symbolic link to a hidden directory beside it; and its RAM image `NAME.ram.img`. All are written under hidden names
//! first; then the link, the image and the archive are renamed into place, each in one step. The archive is the bundle
//! and its renaming the last step: a tool that dies in between leaves the old archive beside newer files, which
//! [`is_current`] sees, so that the next build puts all in order. Hidden leftovers of builds that died go with
//! the next build; builds at once take turns.
//!
//! Nothing is flushed to the disk: after a power cut a torn archive may show, which `verify` refuses, as every
//! command does before it uses one. Waiting for the disk would take longer than all of the packing.

use std::fs::{File, Permissions};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use citrine_planner::diag::{self, Code, Diagnostic};
use citrine_planner::pack::ram::{RamImage, Segment};
use citrine_planner::pack::{Assembled, tar_head, tar_len, write_tar};
use tempfile::{Builder, NamedTempFile, TempDir};

/// Something cannot be written.
pub const CANNOT_WRITE: Code = Code::new('O', 101);

/// What the name of a RAM image ends in.
pub const RAM_IMAGE: &str = "ram.img";
/// Bytes that are compared at a time.
const CHUNK: usize = 128 << 10;

/// Stands behind the name in hidden names. No board, profile or part has it in its name, so that the leftovers
/// of `a` are not taken for those of `a.b`.
const MARK: char = '~';

/// Where a bundle was published.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Published {
    /// The archive.
    pub tar: PathBuf,
    /// Its files, unpacked.
    pub dir: PathBuf,
    /// Its RAM image, if its parts make one.
    pub ram: PathBuf,
}

impl Published {
    fn at(out: &Path, name: &str) -> Self {
        let file = |suffix: &str| out.join(format!("{name}.{suffix}"));
        Self { tar: file("tar"), dir: out.join(name), ram: file(RAM_IMAGE) }
    }
}

/// The finding for a path that cannot be written: what to do depends on why.
pub fn cannot_write(path: &Path, error: &io::Error) -> Diagnostic {
    let help = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            "free some space there, or raise the limit; what was there before is untouched"
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "make that directory writable for this user, or work in a checkout of your own"
        }
        ErrorKind::IsADirectory | ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
            "move what is there out of the way"
        }
        _ => "check the path and its file system; what was there before is untouched",
    };
    let shown = path.display().to_string();
    Diagnostic::error(CANNOT_WRITE, format!("{shown} cannot be written: {error}")).fact("file", shown).help(help)
}

/// Waits for its turn in `dir` and keeps it until the value is dropped, or the process ends.
///
/// # Errors
/// `O101`.
pub fn lock(dir: &Path) -> diag::Result<File> {
    let path = dir.join(".lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|error| cannot_write(&path, &error))?;
    file.lock().map_err(|error| cannot_write(&path, &error))?;
    Ok(file)
}

/// A hidden file in `dir` that belongs to `name`; it goes when it is dropped.
///
/// # Errors
/// What creating it returns.
pub fn temporary(dir: &Path, name: &str) -> io::Result<NamedTempFile> {
    Builder::new().prefix(&format!(".{name}{MARK}")).tempfile_in(dir)
}

/// Removes the hidden leftovers of `name` in `dir`, but for `keep`. Call it with the lock held: nobody alive
/// uses them then. One that cannot be removed is left for the next time.
pub fn sweep(dir: &Path, name: &str, keep: Option<&Path>) {
    let prefix = format!(".{name}{MARK}");
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix));
        if !ours || keep == Some(Path::new(&entry.file_name())) {
            continue;
        }
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let _ = if is_dir { std::fs::remove_dir_all(entry.path()) } else { std::fs::remove_file(entry.path()) };
    }
}

/// Claims a hidden file or directory of [`temporary`]'s kind for this process, until the value is dropped or the process
/// ends. So others can tell it from a leftover, without a lock file beside it.
///
/// # Errors
/// What opening and locking return.
pub fn claim(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    file.lock()?;
    Ok(file)
}

/// Removes the hidden leftovers of `name` in `dir` that nobody alive has claimed. One that cannot be removed is left for
/// the next time.
pub fn sweep_unclaimed(dir: &Path, name: &str) {
    let prefix = format!(".{name}{MARK}");
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if !entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix)) {
            continue;
        }
        let Ok(file) = File::open(entry.path()) else { continue };
        if file.try_lock().is_ok() {
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let _ = if is_dir { std::fs::remove_dir_all(entry.path()) } else { std::fs::remove_file(entry.path()) };
        }
    }
}

/// A hidden directory in `dir` that belongs to `name`; it goes when it is dropped.
///
/// # Errors
/// What creating it returns.
pub fn temporary_dir(dir: &Path, name: &str) -> io::Result<TempDir> {
    Builder::new().prefix(&format!(".{name}{MARK}")).tempdir_in(dir)
}

/// The directory that a path lies in, and its last name.
pub fn place_of(path: &Path) -> (&Path, String) {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    (dir, path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned()))
}

/// Writes a file that the user has named, in one step: what is there before stays until the new one is whole.
/// Something other than a file, such as a terminal or a pipe, is written to.
///
/// # Errors
/// `O101`.
pub fn write_file(path: &Path, bytes: &[u8]) -> diag::Result<()> {
    let write = || {
        // A link stays a link: what it leads to is replaced.
        let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        if std::fs::metadata(&target).is_ok_and(|old| !old.is_file() && !old.is_dir()) {
            return File::options().write(true).open(&target)?.write_all(bytes);
        }
        let (dir, name) = place_of(&target);
        let mut file = temporary(dir, &name)?;
        file.write_all(bytes)?;
        file.as_file().set_permissions(Permissions::from_mode(0o644))?;
        replace(file, &target)
    };
    write().map_err(|error| cannot_write(path, &error).into())
}

/// Publishes a bundle in the directory `out`, which is made if need be, as `name`.
///
/// # Errors
/// `O101`; what was published before is untouched.
pub fn publish(
    out: &Path,
    name: &str,
    bundle: &Assembled<'_>,
    signatures: &[String],
    ram: Option<&RamImage<'_>>,
) -> diag::Result<Published> {
    let published = Published::at(out, name);
    std::fs::create_dir_all(out).map_err(|error| cannot_write(out, &error))?;
    let _lock = lock(out)?;
    let before = std::fs::read_link(&published.dir).ok();
    sweep(out, name, before.as_deref());

    // Half of the time goes to each, so they go at once.
    let (tar, (dir, image)) = std::thread::scope(|scope| {
        let others = scope.spawn(|| {
            let image = ram.map(|ram| write_image(out, name, ram)).transpose();
            (write_dir(out, name, bundle, signatures), image)
        });
        let tar = write_archive(out, name, bundle, signatures);
        (tar, others.join().expect("writing files does not panic"))
    });
    let image = image.map_err(|error| cannot_write(&published.ram, &error))?;
    let tar = tar.map_err(|error| cannot_write(&published.tar, &error))?;
    let dir = dir.map_err(|error| cannot_write(&published.dir, &error))?;
    let target = dir.path().file_name().expect("it was given a name").to_owned();
    let link = Builder::new()
        .prefix(&format!(".{name}{MARK}"))
        .make_in(out, |path| std::os::unix::fs::symlink(&target, path))
        .map_err(|error| cannot_write(&published.dir, &error))?;
    link.persist(&published.dir).map_err(|error| cannot_write(&published.dir, &error.error))?;
    // It is in use now: it must not go with its handle.
    let _ = dir.keep();
    match image {
        Some(image) => replace(image, &published.ram),
        None => remove(&published.ram),
    }
    .map_err(|error| cannot_write(&published.ram, &error))?;
    replace(tar, &published.tar).map_err(|error| cannot_write(&published.tar, &error))?;
    sweep(out, name, Some(Path::new(&target)));
    Ok(published)
}

/// Whether `out` shows exactly this bundle as `name` already: the archive begins with this manifest and these
/// signatures and has the right length, and so do the unpacked files. The bytes of the parts are not read;
/// whoever uses the archive verifies it. Those of the RAM image are: nothing in it says which bundle it is of.
pub fn is_current(
    out: &Path,
    name: &str,
    bundle: &Assembled<'_>,
    signatures: &[String],
    ram: Option<&RamImage<'_>>,
) -> Option<Published> {
    let published = Published::at(out, name);
    let head = tar_head(bundle, signatures);
    let mut found = vec![0; head.len()];
    let mut archive = File::open(&published.tar).ok()?;
    archive.read_exact(&mut found).ok()?;
    let same_archive = found == head && archive.metadata().ok()?.len() == tar_len(bundle, signatures);
    let mut files = bundle.files(signatures);
    let same_texts = files
        .by_ref()
        .take(1 + signatures.len())
        .all(|(name, [text, _])| std::fs::read(published.dir.join(name.as_ref())).is_ok_and(|bytes| bytes == text));
    let same_parts = files.zip(&bundle.manifest.parts).all(|((name, pieces), part)| {
        let len: usize = pieces.iter().map(|piece| piece.len()).sum();
        // The manifest vouches for the bytes of the others.
        if part.sha256.is_none() {
            return std::fs::read(published.dir.join(name.as_ref())).is_ok_and(|bytes| bytes == pieces.concat());
        }
        std::fs::metadata(published.dir.join(name.as_ref()))
            .is_ok_and(|file| file.is_file() && file.len() == len as u64)
    });
    let same_image = || match ram {
        Some(ram) => holds(&published.ram, ram).unwrap_or(false),
        None => !published.ram.exists(),
    };
    (same_archive && same_texts && same_parts && same_image()).then_some(published)
}

/// Whether the file is this image, byte for byte.
fn holds(file: &Path, image: &RamImage<'_>) -> io::Result<bool> {
    let mut file = File::open(file)?;
    let mut found = vec![0; CHUNK];
    let mut next = |len: usize, same: &dyn Fn(&[u8]) -> bool| -> io::Result<bool> {
        file.read_exact(&mut found[..len])?;
        Ok(same(&found[..len]))
    };
    for segment in image.segments() {
        match segment {
            Segment::Gap(mut left) => {
                while left > 0 {
                    let len = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
                    if !next(len, &|found| found.iter().all(|byte| *byte == 0))? {
                        return Ok(false);
                    }
                    left -= len as u64;
                }
            }
            Segment::Bytes(bytes) => {
                for piece in bytes.chunks(CHUNK) {
                    if !next(piece.len(), &|found| found == piece)? {
                        return Ok(false);
                    }
                }
            }
        }
    }
    Ok(file.metadata()?.len() == image.len())
}

/// Removes a file that may not be there.
fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Puts `new` at `path` in one step. Where something is there already, the two change places and the old one goes
/// as a hidden file: ext4 starts to write a file out when it is renamed over another, which takes as long as
/// all of the packing. File systems that cannot exchange names rename over it.
fn replace(new: NamedTempFile, path: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    // Only with a file: anything else is the user's, and renaming over it says so.
    if !std::fs::symlink_metadata(path).is_ok_and(|old| old.is_file()) {
        return new.persist(path).map(drop).map_err(|error| error.error);
    }
    match renameat_with(CWD, new.path(), CWD, path, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(()),
        Err(_) => new.persist(path).map(drop).map_err(|error| error.error),
    }
}

/// Makes a finished temporary file readable for everybody and puts it at `path` in one step.
///
/// # Errors
/// What the file system returns; what was there before stays then.
pub fn put(new: NamedTempFile, path: &Path) -> io::Result<()> {
    new.as_file().set_permissions(Permissions::from_mode(0o644))?;
    replace(new, path)
}

fn write_archive(out: &Path, name: &str, bundle: &Assembled<'_>, signatures: &[String]) -> io::Result<NamedTempFile> {
    let mut file = temporary(out, name)?;
    write_tar(file.as_file_mut(), bundle, signatures)?;
    file.as_file().set_permissions(Permissions::from_mode(0o644))?;
    Ok(file)
}

/// Writes a RAM image into `file`: its gaps are holes, where the file system has them.
///
/// # Errors
/// What writing returns.
pub fn write_sparse(file: &mut File, image: &RamImage<'_>) -> io::Result<()> {
    let mut at = 0;
    for segment in image.segments() {
        match segment {
            Segment::Gap(len) => {
                at += len;
                file.seek(SeekFrom::Start(at))?;
            }
            Segment::Bytes(bytes) => {
                file.write_all(bytes)?;
                at += bytes.len() as u64;
            }
        }
    }
    file.set_len(image.len())
}

fn write_image(out: &Path, name: &str, image: &RamImage<'_>) -> io::Result<NamedTempFile> {
    let mut file = temporary(out, name)?;
    write_sparse(file.as_file_mut(), image)?;
    file.as_file().set_permissions(Permissions::from_mode(0o644))?;
    Ok(file)
}

fn write_dir(out: &Path, name: &str, bundle: &Assembled<'_>, signatures: &[String]) -> io::Result<TempDir> {
    let dir = temporary_dir(out, name)?;
    for (name, pieces) in bundle.files(signatures) {
        let mut file = File::create_new(dir.path().join(name.as_ref()))?;
        for piece in pieces {
            file.write_all(piece)?;
        }
        file.set_permissions(Permissions::from_mode(0o644))?;
    }
    std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755))?;
    Ok(dir)
}

#[cfg(test)]
mod tests;
