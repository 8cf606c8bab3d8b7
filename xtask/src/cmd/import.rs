//! `import`: a configuration tree of another's making becomes a profile, and what is wrong with it is said.

use std::path::Path;

use citrine_planner::diag::{Diagnostic, Label, has_errors};
use citrine_planner::import::{self, For, UBoot};

use crate::artifacts;
use crate::cli::Import;
use crate::dtc::{self, Source};
use crate::project::{NO_SUCH_FILE, Project, template};
use crate::report::{CmdResult, Failure, Ui};

/// Runs `import`. What can be printed is printed even with errors.
pub fn run(args: &Import, ui: &Ui) -> CmdResult {
    let project = Project::find()?;
    let board = project.board(&args.board, ui)?;
    let (file, bytes) = bytes(&args.tree)?;
    if let Ok(text) = std::str::from_utf8(&bytes) {
        ui.add_source(&file, text);
    }
    let uboot = match &args.uboot {
        None => None,
        Some(path) => {
            let (file, bytes) = self::bytes(path)?;
            let text = String::from_utf8_lossy(&bytes).into_owned();
            ui.add_source(&file, &text);
            Some((file, text))
        }
    };
    let uboot = uboot.as_ref().map(|(file, text)| UBoot { file, text });

    let mut read = import::read(&file, &bytes);
    if read.is_source {
        // What the tolerant reader takes, the compiler may still refuse.
        let text = String::from_utf8_lossy(&bytes);
        let marked = format!("# 1 \"{file}\"\n{text}");
        if let Err(said) = dtc::compile(&marked, Source { file: &file, text: &text }) {
            read.found.extend(said);
        }
    }
    let mut found = read.found.clone();
    found.extend(import::judge(&read, &board, uboot));
    let shapes = project.template("hv.dts.j2", ui)?;
    let target =
        For { board: &board, template: &template(&shapes), artifacts: &artifacts::cached(&project, &board, None) };
    let (text, more) = import::profile(&read, target, uboot, &name(args));
    found.extend(more);
    if let Some(text) = text {
        ui.text("import", &text);
    }
    if has_errors(&found) {
        return Err(found.into());
    }
    ui.diagnostics(&found);
    Ok(())
}

/// The profile's name: the one that is given, or what can be one of the file's.
fn name(args: &Import) -> String {
    let stem = args.tree.file_stem().map(|stem| stem.to_string_lossy().to_lowercase()).unwrap_or_default();
    let plain: String = stem.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(32).collect();
    let plain = plain.trim_matches('-').to_owned();
    let given = args.name.clone();
    given.unwrap_or(if plain.is_empty() { "imported".to_owned() } else { plain })
}

/// A file's name for messages, and its bytes.
fn bytes(path: &Path) -> Result<(String, Vec<u8>), Failure> {
    let file = path.display().to_string();
    match fs_err::read(path) {
        Ok(bytes) => Ok((file, bytes)),
        Err(error) => Err(Diagnostic::error(NO_SUCH_FILE, format!("{file} cannot be read: {error}"))
            .primary(Label::file(file, "this file"))
            .help("check its path and permissions")
            .into()),
    }
}
