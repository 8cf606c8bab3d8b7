//! An entry of the cache: a directory of files, and the list that says which bytes they had.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use citrine_planner::diag::Result;

use super::files::{FileInfo, children, hash_file, io_error, sync_dir};

/// The entry's list of files, itself no part of the product.
pub(super) const INDEX: &str = "entry.json";

/// What a stage made.
#[derive(Debug)]
pub struct Entry {
    /// The directory that holds the files; read only.
    pub dir: PathBuf,
    /// The files by name, with the hashes that were just checked.
    pub files: BTreeMap<String, FileInfo>,
    /// Whether it was there already.
    pub cached: bool,
}

impl Entry {
    /// Reads one file of the entry.
    ///
    /// # Errors
    /// A file error.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.dir.join(name);
        fs_err::read(&path).map_err(|error| io_error(&path, &error))
    }
}

/// What a directory is.
pub(super) enum Found {
    Nothing,
    Damaged(String),
    Whole(BTreeMap<String, FileInfo>),
}

/// Reads an entry and hashes each of its files.
pub(super) fn read_entry(dir: &Path) -> Result<Found> {
    let index = match fs_err::read(dir.join(INDEX)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(if dir.exists() { Found::Damaged(format!("{INDEX} is missing")) } else { Found::Nothing });
        }
        Err(error) => return Err(io_error(dir, &error)),
    };
    let files: BTreeMap<String, FileInfo> = match serde_json::from_slice(&index) {
        Ok(files) => files,
        Err(error) => return Ok(Found::Damaged(format!("{INDEX}: {error}"))),
    };
    for (name, info) in &files {
        // Names come from a file: only a plain name stays inside the entry.
        if Path::new(name).file_name() != Some(name.as_ref()) {
            return Ok(Found::Damaged(format!("{INDEX} names `{}`", name.escape_debug())));
        }
        match hash_file(&dir.join(name)) {
            Ok(found) if found == *info => {}
            Ok(_) => return Ok(Found::Damaged(format!("{name} has other bytes"))),
            Err(error) => return Ok(Found::Damaged(format!("{name}: {error}"))),
        }
    }
    Ok(Found::Whole(files))
}

/// Hashes and syncs what a stage made, and writes its index.
pub(super) fn seal(dir: &Path) -> Result<BTreeMap<String, FileInfo>> {
    let mut files = BTreeMap::new();
    for path in children(dir)? {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_string();
        let fail = |error: io::Error| io_error(&path, &error);
        files.insert(name, hash_file(&path).map_err(fail)?);
        File::open(&path).and_then(|file| file.sync_all()).map_err(fail)?;
    }
    let index = dir.join(INDEX);
    let fail = |error: io::Error| io_error(&index, &error);
    let text = serde_json::to_vec_pretty(&files).map_err(|error| fail(error.into()))?;
    fs_err::write(&index, text).map_err(fail)?;
    File::open(&index).and_then(|file| file.sync_all()).map_err(fail)?;
    sync_dir(dir)?;
    Ok(files)
}
