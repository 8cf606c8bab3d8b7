//! Releases: each bundle is built by a process of its own ([`cell`], run by [`schedule`]), [`finish`] puts them together,
//! and [`check`] is the way back in.
//!
//! Processes and not threads: one that is killed, runs out of memory or hangs takes no other with it, a signal reaches
//! its compilers, and what a bundle needs in memory is given back when it is done. What they share are the stages in
//! the cache, each of which has a lock and is built once.

pub mod cell;
pub mod check;
pub mod finish;
pub mod schedule;
mod show;

#[cfg(test)]
mod bad;

use std::path::{Path, PathBuf};

use citrine_planner::diag::Diagnostic;
use citrine_planner::release::recipe::{Cell, Recipe, parse};

use crate::project::{Project, read_bytes};
use crate::report::{Failure, Ui};

/// Reads the release file, and which bundles it asks for of this project.
///
/// # Errors
/// `C1xx`, `E101`.
pub fn recipe(project: &Project, file: &Path, ui: &Ui) -> Result<(Recipe, Vec<Cell>), Failure> {
    // The default is found from anywhere in the checkout.
    let path = if file.exists() { file.to_owned() } else { project.root().join(file) };
    let shown = file.display().to_string();
    let text = String::from_utf8_lossy(&read_bytes(&path)?).into_owned();
    ui.add_source(&shown, &text);
    let recipe = parse(&shown, &text)?;
    let cells = recipe.cells(&names(project, "boards"), &names(project, "profiles"))?;
    Ok((recipe, cells))
}

/// The names of what lies in a directory of the project as a `.toml` file, in order.
fn names(project: &Project, dir: &str) -> Vec<String> {
    let entries = std::fs::read_dir(project.root().join(dir)).into_iter().flatten().flatten();
    let name = |entry: std::fs::DirEntry| Some(entry.file_name().to_str()?.strip_suffix(".toml")?.to_owned());
    let mut names: Vec<String> = entries.filter_map(name).collect();
    names.sort();
    names
}

/// Where a release that is not finished lies: beside the finished one, so that it gets there by being renamed.
pub fn work_dir(output: &Path) -> PathBuf {
    let name = output.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    output.with_file_name(format!(".{name}~work"))
}

/// Something that could not be written.
fn cannot(path: &Path) -> impl Fn(std::io::Error) -> Box<Diagnostic> {
    let path = path.to_owned();
    move |error| crate::output::cannot_write(&path, &error).into()
}
