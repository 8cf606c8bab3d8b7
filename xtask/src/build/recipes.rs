//! The texts of the checkout that say what a bundle holds, as inputs: the board's files and the templates.
//!
//! The profile is not among them: it is a part itself.

use citrine_formats::manifest::{Input, InputKind};
use citrine_planner::board::Board;
use citrine_planner::diag::Result;

use super::context::{Context, recipe_input};
use crate::cache::io_error;

/// What the templates of configuration trees and U-Boot's scripts end in; those for other programs reach no part.
const ENDINGS: [&str; 2] = [".cmd.j2", ".dts.j2"];

/// The board's files and the templates. A board of the user's own is named without its directory.
///
/// # Errors
/// A file error.
pub fn recipes(context: &Context<'_>, board: &Board) -> Result<Vec<Input>> {
    let mut inputs = Vec::new();
    let dir = context.root.join("templates");
    let fail = |error| io_error(&dir, &error);
    for entry in fs_err::read_dir(&dir).map_err(fail)? {
        let name = entry.map_err(fail)?.file_name().to_string_lossy().into_owned();
        // Editors leave files that begin with a dot.
        if !name.starts_with('.') && ENDINGS.iter().any(|ending| name.ends_with(ending)) {
            let path = format!("templates/{name}");
            inputs.push(recipe_input(&path, &context.recipe(&path)?));
        }
    }
    let file = board.places.file();
    if file.starts_with("boards/") {
        inputs.push(recipe_input(file, &context.recipe(file)?));
        let devices = format!("boards/devices/{}.toml", board.name);
        if context.root.join(&devices).is_file() {
            inputs.push(recipe_input(&devices, &context.recipe(&devices)?));
        }
    } else {
        let bytes = crate::project::read_bytes(file.as_ref())?;
        let name = format!("{}.toml", board.name);
        let origin = "given with --board".to_owned();
        inputs.push(Input { kind: InputKind::File, origin, ..recipe_input(&name, &bytes) });
    }
    Ok(inputs)
}
