//! `extract`: unpack a bundle, verified from the same bytes in the same pass.
//!
//! Everything is written under a hidden name beside the directory that is asked for, which appears in one step at the
//! end. What a killed run leaves goes with the next one.

use std::fs::{File, Permissions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use citrine_formats::manifest::{FILE_NAME, signature_name};
use citrine_planner::diag::{self, Code, Diagnostic};
use citrine_planner::verify::{Opened, Verified};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use tempfile::TempDir;

use super::verify::{Judged, open_judged, policy_of, refused, to_json};
use crate::cli::Extract;
use crate::output::{self, cannot_write, place_of};
use crate::progress::{check_interrupted, interrupted, watch_signals};
use crate::report::{CmdResult, Ui};

/// Something is where the directory shall be made.
pub const EXISTS: Code = Code::new('B', 120);

/// Runs `extract`.
pub fn run(args: &Extract, ui: &Ui) -> CmdResult {
    watch_signals()?;
    must_be_free(&args.output)?;
    let Judged { shown, keys_file, opened } = open_judged(&args.bundle, &args.demands, ui)?;
    let demands = |verified: &Verified| policy_of(&args.demands).judge_whole(verified, &shown);
    let mut go_on = || if interrupted() { Err(io::Error::other("")) } else { Ok(()) };
    let unpacked = unpack(opened, &args.output, &demands, &mut go_on);
    let verified = unpacked.map_err(|failed| match (check_interrupted(), failed) {
        (Err(signal), _) => signal,
        (Ok(()), Failed::Bundle(error)) => refused(&error, &shown).into(),
        (Ok(()), Failed::Demand(diagnostic)) => diagnostic,
        (Ok(()), Failed::Exists) => exists(&args.output),
        (Ok(()), Failed::Write(error)) => cannot_write(&args.output, &error).into(),
    })?;
    if ui.is_json() {
        let mut object = to_json("extracted", &verified, &shown, &keys_file);
        object["directory"] = args.output.display().to_string().into();
        ui.object(&object);
    } else {
        ui.product(&format!("{} holds {shown}, identity {}\n", args.output.display(), verified.identity));
    }
    Ok(())
}

fn must_be_free(path: &Path) -> diag::Result<()> {
    if std::fs::symlink_metadata(path).is_ok() { Err(exists(path)) } else { Ok(()) }
}

fn exists(path: &Path) -> Box<Diagnostic> {
    let shown = path.display().to_string();
    Diagnostic::error(EXISTS, format!("{shown} is there already; nothing is written into it"))
        .fact("file", shown)
        .help("name a directory that is not there, or move this one away")
        .into()
}

/// Why nothing was unpacked.
#[derive(Debug)]
enum Failed {
    /// The bundle is not good.
    Bundle(citrine_planner::verify::Error),
    /// The bundle is good, but not as the user demands.
    Demand(Box<Diagnostic>),
    /// Something is where the directory shall be.
    Exists,
    /// It cannot be written.
    Write(io::Error),
}

/// Writes the bundle's files and makes them appear as `to`, if they are as `demands` wants. `go_on` is asked before each change of the file system.
fn unpack<R: Read>(
    opened: Opened<R>,
    to: &Path,
    demands: &dyn Fn(&Verified) -> diag::Result<()>,
    go_on: &mut dyn FnMut() -> io::Result<()>,
) -> Result<Verified, Failed> {
    let (parent, name) = place_of(to);
    output::sweep_unclaimed(parent, &name);
    go_on().map_err(Failed::Write)?;
    let dir = output::temporary_dir(parent, &name).map_err(Failed::Write)?;
    let _claim = output::claim(dir.path()).map_err(Failed::Write)?;
    let mut files = Files { dir: &dir, current: None, go_on };
    let texts = opened.signatures.iter().enumerate().map(|(index, text)| (signature_name(index), text.as_bytes()));
    let mut head = std::iter::once((FILE_NAME.to_owned(), &opened.manifest_bytes[..])).chain(texts);
    head.try_for_each(|(name, bytes)| files.piece(&name, bytes)).map_err(Failed::Write)?;
    let verified = opened.parts(&mut |part, bytes| files.piece(&part.name, bytes)).map_err(|error| match error {
        citrine_planner::verify::Error::Visit(error) => Failed::Write(error),
        error => Failed::Bundle(error),
    })?;
    demands(&verified).map_err(Failed::Demand)?;
    files.finish().map_err(Failed::Write)?;
    go_on().map_err(Failed::Write)?;
    std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).map_err(Failed::Write)?;
    go_on().map_err(Failed::Write)?;
    appear(dir, to)?;
    Ok(verified)
}

/// The last step.
fn appear(dir: TempDir, to: &Path) -> Result<(), Failed> {
    let renamed = renameat_with(CWD, dir.path(), CWD, to, RenameFlags::NOREPLACE);
    match renamed.map_err(io::Error::from) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(Failed::Exists),
        // A file system that knows no flags; renaming over what is no empty directory fails there.
        Err(_) => std::fs::rename(dir.path(), to).map_err(Failed::Write)?,
    }
    // It has its name: it must not go with its handle.
    let _ = dir.keep();
    Ok(())
}

/// The files, one after the other. Their names are the manifest's, whose rule lets none out of the directory.
struct Files<'f> {
    dir: &'f TempDir,
    current: Option<(String, File)>,
    go_on: &'f mut dyn FnMut() -> io::Result<()>,
}

impl Files<'_> {
    fn piece(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        if self.current.as_ref().is_none_or(|(current, _)| current != name) {
            self.finish()?;
            (self.go_on)()?;
            let file = File::create_new(self.dir.path().join(name))?;
            self.current = Some((name.to_owned(), file));
        }
        (self.go_on)()?;
        self.current.as_mut().map_or(Ok(()), |(_, file)| file.write_all(bytes))
    }

    fn finish(&mut self) -> io::Result<()> {
        let Some((_, file)) = self.current.take() else { return Ok(()) };
        (self.go_on)()?;
        file.set_permissions(Permissions::from_mode(0o644))
    }
}

#[cfg(test)]
mod tests;
