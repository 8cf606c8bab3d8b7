//! One bundle of a release with its images, in a directory that appears in one step. Built again, it is compared with
//! what is there, and nothing is written when that is the same.

use std::fs::{File, Permissions};
use std::io::{self, Seek as _, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use citrine_formats::manifest::{NAMESPACE, Sha256};
use citrine_planner::diag::Result;
use citrine_planner::pack::ram::{RamImage, Segment};
use citrine_planner::pack::write_tar;
use citrine_planner::release::index;
use citrine_planner::release::recipe::{Cell, Media as Wanted};
use flate2::write::GzEncoder;
use flate2::{Compression, GzBuilder};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::build::Context;
use crate::build::lock::Lock;
use crate::bundle::{Made, made};
use crate::cache::hash_file;
use crate::cli::release::Release;
use crate::cli::{BundleArgs, Making, Media, Target};
use crate::cmd::bundle::open_cache;
use crate::progress::{check_interrupted, watch_signals};
use crate::project::Project;
use crate::report::{CmdResult, Failure, Ui};
use crate::sign::configuration;
use crate::{nor, output, sign};

/// The file of a finished cell that says what it holds.
pub const DONE: &str = "done.json";
/// Another number whenever the same bundle gets other files.
const VERSION: u32 = 1;
/// Writes to the compressor are of this size: its output depends on it.
const CHUNK: usize = 64 << 10;
/// A run of zeros in a RAM image.
static ZEROS: [u8; CHUNK] = [0; CHUNK];

/// What a finished cell holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Done {
    version: u32,
    /// The bundle.
    pub identity: Sha256,
    /// The fingerprint of the key that signed it.
    pub key: String,
    /// Its files.
    pub files: Vec<index::File>,
}

impl Done {
    /// What `dir` holds, if it is whole.
    pub fn read(dir: &Path) -> Option<Self> {
        let done: Self = serde_json::from_slice(&std::fs::read(dir.join(DONE)).ok()?).ok()?;
        let is_whole = |file: &index::File| {
            hash_file(&dir.join(&file.name)).is_ok_and(|found| (found.sha256, found.size) == (file.sha256, file.size))
        };
        done.files.iter().all(is_whole).then_some(done)
    }
}

/// Builds the bundle `name`, as `BOARD/PROFILE`, of a release below `out`, for the process that runs it.
///
/// # Errors
/// Everything that is wrong with it.
pub fn run(project: &Project, args: &Release, name: &str, out: &Path, ui: &Ui) -> CmdResult {
    // It must not outlive the process that waits for it, and has compilers of its own to end.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM));
    watch_signals()?;
    let (recipe, _) = super::recipe(project, &args.file, ui)?;
    let (board, profile) = name.split_once('/').unwrap_or((name, ""));
    let cell = Cell { board: board.to_owned(), profile: profile.to_owned() };
    let progress = ui.progress();
    let lock = Lock::read(project.root())?;
    let making = making(args);
    let cache = open_cache(&making, ui)?;
    let context = Context::new(project.root(), &cache, &lock, true, &progress)?;
    let key = sign::signer(Some(&args.key))?;
    let target = Target { board: board.to_owned(), profile: profile.to_owned(), hw_dtb: None };
    let both = project.target_of(&target, ui)?;
    let flash = recipe.media == Wanted::All && both.0.nor.as_ref().is_some_and(|nor| nor.slots.is_some());
    let bundle = BundleArgs {
        target,
        making,
        media: if flash { Media::All } else { Media::Ram },
        installed: None,
        allow_rollback: false,
    };
    let mut made = made(project, &context, (&both.0, &both.1), &bundle, None, ui)?;
    // Only the release's own key signs here: what it may not sign for the firmware is said, as `bundle` does.
    let unsigned = configuration::fill(&mut made.assembled, &key, &mut |_| None)?;
    ui.diagnostics(configuration::notice(&unsigned, &format!("{}.tar", cell.name())).as_slice());
    check_interrupted()?;

    std::fs::create_dir_all(out).map_err(super::cannot(out))?;
    let _turn = turn(out, &cell.name())?;
    let (dir, fingerprint) = (out.join(cell.name()), key.fingerprint());
    let known = Done::read(&dir)
        .filter(|done| (done.version, &done.identity, &done.key) == (VERSION, &made.assembled.identity, &fingerprint));
    let state = if known.is_some() { "kept" } else { "written" };
    if known.is_none() {
        let signatures = [key.sign(NAMESPACE, &made.assembled.manifest_bytes)?];
        write(&dir, &cell, &made, &signatures, fingerprint)?;
    }
    ui.object(&json!({
        "type": "cell",
        "cell": name,
        "state": state,
        "identity": made.assembled.identity,
        "peak": peak(),
    }));
    Ok(())
}

/// How every bundle of a release is made.
pub fn making(args: &Release) -> Making {
    Making {
        key: Some(args.key.clone()),
        locked: true,
        offline: args.offline,
        remote_cache: args.remote_cache.clone(),
        ..Making::default()
    }
}

/// Waits until no other process works on this cell: one that was left by a killed run is ending.
fn turn(out: &Path, name: &str) -> Result<File> {
    let path = out.join(format!(".{name}.lock"));
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(super::cannot(&path))?;
    file.lock().map_err(super::cannot(&path))?;
    Ok(file)
}

/// The most memory that this process has had, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0) << 10
}

fn write(dir: &Path, cell: &Cell, made: &Made, signatures: &[String], key: String) -> std::result::Result<(), Failure> {
    let (out, name) = (dir.parent().unwrap_or(dir), cell.name());
    let fail = super::cannot(dir);
    output::sweep(out, &name, None);
    let new = tempfile::Builder::new().prefix(&format!(".{name}~")).tempdir_in(out).map_err(&fail)?;
    let mut files = Vec::new();
    let mut file = |ending: &str, fill: &mut dyn FnMut(&mut File) -> io::Result<()>| -> Result<()> {
        check_interrupted()?;
        let file_name = format!("{name}.{ending}");
        let path = new.path().join(&file_name);
        let mut file = File::create_new(&path).map_err(&fail)?;
        fill(&mut file).map_err(super::cannot(&path))?;
        file.set_permissions(Permissions::from_mode(0o644)).map_err(&fail)?;
        let found = hash_file(&path).map_err(&fail)?;
        files.push(index::File { name: file_name, sha256: found.sha256, size: found.size });
        Ok(())
    };
    file("tar", &mut |file| write_tar(file, &made.assembled, signatures))?;
    if let Ok(image) = RamImage::of_bundle(&made.plan.board, &made.assembled.manifest, &made.assembled.contents) {
        file("ram.img.gz", &mut |file| compressed(file, |out| write_ram(out, &image)))?;
    }
    if let Some(flash) = &made.flash {
        file("nor.img.gz", &mut |file| compressed(file, |out| nor::write_bank(out, &flash.plan, &made.assembled)))?;
    }
    let done = Done { version: VERSION, identity: made.assembled.identity, key, files };
    let text = serde_json::to_vec(&done).map_err(|error| fail(error.into()))?;
    std::fs::write(new.path().join(DONE), text).map_err(&fail)?;
    if dir.exists() {
        // Of other inputs, or damaged: moved away in one go.
        std::fs::rename(dir, new.path().with_extension("old")).map_err(&fail)?;
    }
    std::fs::rename(new.path(), dir).map_err(&fail)?;
    let _ = new.keep();
    output::sweep(out, &name, None);
    Ok(())
}

fn write_ram(out: &mut dyn Write, image: &RamImage<'_>) -> io::Result<()> {
    for segment in image.segments() {
        match segment {
            Segment::Bytes(bytes) => out.write_all(bytes)?,
            Segment::Gap(len) => {
                let mut left = len;
                while left > 0 {
                    let len = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
                    out.write_all(ZEROS.get(..len).unwrap_or(&ZEROS))?;
                    left -= len as u64;
                }
            }
        }
    }
    Ok(())
}

/// One gzip member of what `fill` writes: level 9, no name, no time, fed in pieces of one size.
fn compressed(file: &mut File, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let encoder = GzBuilder::new().mtime(0).write(file, Compression::best());
    let mut pieces = Pieces { encoder, piece: Vec::with_capacity(CHUNK) };
    fill(&mut pieces)?;
    pieces.flush()?;
    pieces.encoder.finish()?.rewind()
}

/// Feeds a compressor in pieces of [`CHUNK`].
struct Pieces<W: Write> {
    encoder: GzEncoder<W>,
    piece: Vec<u8>,
}

impl<W: Write> Write for Pieces<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (now, _) = bytes.split_at(bytes.len().min(CHUNK - self.piece.len()));
        self.piece.extend_from_slice(now);
        if self.piece.len() == CHUNK {
            self.flush()?;
        }
        Ok(now.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.encoder.write_all(&self.piece)?;
        self.piece.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn the_compressed_bytes_do_not_depend_on_how_they_are_written() {
        let bytes: Vec<u8> = (0..300_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 27) as u8).collect();
        let packed = |len: usize| {
            let mut file = tempfile::tempfile().unwrap();
            compressed(&mut file, |out| bytes.chunks(len).try_for_each(|chunk| out.write_all(chunk))).unwrap();
            let mut packed = Vec::new();
            file.read_to_end(&mut packed).unwrap();
            packed
        };
        let whole = packed(bytes.len());
        assert_eq!(whole, crate::build::image::gzip(&bytes));
        assert!([1000, 65_536, 65_537].into_iter().all(|len| packed(len) == whole));
    }
}
