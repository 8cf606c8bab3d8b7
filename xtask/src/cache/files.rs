//! Files and directories as the cache and the writers of results use them, with errors that name the path.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use citrine_formats::manifest::Sha256;
use citrine_planner::diag::{Code, Diagnostic, Label, Result};
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

/// A file or directory cannot be read or written.
pub const FILE: Code = Code::new('T', 201);
/// The disk is full, or the user's share of it.
pub const NO_SPACE: Code = Code::new('T', 202);

/// A file error as a diagnostic: full disks are told apart from everything else.
pub fn io_error(path: &Path, error: &io::Error) -> Box<Diagnostic> {
    let shown = path.display();
    let diagnostic = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Diagnostic::error(NO_SPACE, format!("no space left on the disk that holds {shown}"))
                .help("make room, trim the cache with `cargo xtask cache --gc 0`, or set CITRINE_CACHE to another disk")
        }
        // fs-err has named the path already.
        _ if error.to_string().contains(&shown.to_string()) => Diagnostic::error(FILE, error.to_string()),
        _ => Diagnostic::error(FILE, format!("cannot use {shown}: {error}")),
    };
    diagnostic.primary(Label::file(shown.to_string(), "this file or directory")).into()
}

/// The SHA-256 of bytes.
pub fn sha256(bytes: &[u8]) -> Sha256 {
    Sha256(sha2::Sha256::digest(bytes).into())
}

/// Size and hash of one file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FileInfo {
    /// SHA-256 of its bytes.
    pub sha256: Sha256,
    /// Length in bytes.
    pub size: u64,
}

/// Size and hash of a file, in one pass and bounded memory.
///
/// # Errors
/// What reading it returns.
pub fn hash_file(path: &Path) -> io::Result<FileInfo> {
    let mut file = File::open(path)?;
    let (mut hasher, mut size, mut buffer) = (sha2::Sha256::new(), 0, vec![0; 256 << 10]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(FileInfo { sha256: Sha256(hasher.finalize().into()), size }),
            read => {
                hasher.update(&buffer[..read]);
                size += read as u64;
            }
        }
    }
}

pub(super) fn make_dir(path: &Path) -> Result<()> {
    fs_err::create_dir_all(path).map_err(|error| io_error(path, &error))
}

pub(super) fn rename(from: &Path, to: &Path) -> Result<()> {
    fs_err::rename(from, to).map_err(|error| io_error(to, &error))
}

pub(super) fn sync_dir(path: &Path) -> Result<()> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(|error| io_error(path, &error))
}

/// What a directory holds, in order of name.
pub(super) fn children(dir: &Path) -> Result<Vec<PathBuf>> {
    let list = || -> io::Result<Vec<PathBuf>> {
        let mut paths: Vec<PathBuf> =
            fs_err::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
        paths.sort();
        Ok(paths)
    };
    list().map_err(|error| io_error(dir, &error))
}

pub(super) fn size_of(dir: &Path) -> Result<u64> {
    let mut size = 0;
    for path in children(dir)? {
        size += fs_err::symlink_metadata(&path).map_err(|error| io_error(&path, &error))?.len();
    }
    Ok(size)
}

pub(super) fn remove_children(dir: &Path) -> Result<()> {
    for path in children(dir)? {
        let removed = if path.is_dir() { fs_err::remove_dir_all(&path) } else { fs_err::remove_file(&path) };
        removed.map_err(|error| io_error(&path, &error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_apart() {
        let path = Path::new("/cache/file");
        let full = io_error(path, &io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!(full.code, NO_SPACE);
        assert!(full.message.contains("/cache/file"));
        assert_eq!(io_error(path, &io::Error::from(io::ErrorKind::PermissionDenied)).code, FILE);
    }
}
