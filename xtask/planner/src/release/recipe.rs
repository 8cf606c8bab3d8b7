//! `artifacts/release.toml`: the version, which boards and profiles, which of them not and why, and the licences of
//! what others have made.

use std::collections::{BTreeMap, BTreeSet};

use super::MATRIX;
use crate::diag::{Diagnostic, Label};
use crate::input::reader::{At, Table, nearest, read_document};
use crate::source::Places;

/// Longest reason for leaving something out, in bytes.
const MAX_REASON: usize = 200;

/// What the bundles of a release are for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Media {
    /// Memory alone.
    Ram,
    /// Memory, and the flash of boards that have one.
    All,
}

/// Boards, profiles or both that a release does without.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeftOut {
    /// The board; every board without.
    pub board: Option<String>,
    /// The profile; every profile without.
    pub profile: Option<String>,
    /// Why.
    pub reason: String,
}

/// Something that others have made and that a bundle is made from or with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Licensed {
    /// Its licence, as an SPDX expression.
    pub licence: String,
    /// Whether bytes of it are in a bundle; otherwise it is a tool.
    pub in_product: bool,
}

/// What a release is made of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recipe {
    /// The version that it is called by.
    pub version: String,
    /// What its bundles are for.
    pub media: Media,
    /// What it does without.
    pub left_out: Vec<LeftOut>,
    /// Licences by the name of a package, source or tool, as manifests have it.
    pub licences: BTreeMap<String, Licensed>,
    boards: Option<Vec<String>>,
    profiles: Option<Vec<String>>,
    places: Places,
}

/// A board and a profile.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Cell {
    /// The board.
    pub board: String,
    /// The profile.
    pub profile: String,
}

impl Cell {
    /// What its files are called: `BOARD-PROFILE`.
    pub fn name(&self) -> String {
        format!("{}-{}", self.board, self.profile)
    }
}

/// Reads the text of a release file; every mistake that it has otherwise.
///
/// # Errors
/// `C101` to `C106`, `E101`.
pub fn parse(file: &str, text: &str) -> Result<Recipe, Vec<Diagnostic>> {
    let (recipe, places, found) = read_document(file, text, |table| Some(read(table)));
    match recipe.flatten() {
        Some(recipe) if found.is_empty() => Ok(Recipe { places, ..recipe }),
        _ => Err(found),
    }
}

fn read(table: &mut Table<'_>) -> Option<Recipe> {
    let version = table.string("version");
    let version = table.required("version", version).filter(|version| {
        let fine = is_version(&version.value);
        if !fine {
            table.impossible(
                version.range.clone(),
                format!("`{}` is no version", version.value.escape_debug()),
                "a version has 1 to 32 of the characters a-z, 0-9, . and -, and begins with a digit",
            );
        }
        fine
    });
    let media = table.string("media").and_then(|media| match media.value.as_str() {
        "ram" => Some(Media::Ram),
        "all" => Some(Media::All),
        _ => {
            table.impossible(media.range, "`media` is `ram` or `all`", "`all` makes images of the flash, too");
            None
        }
    });
    let names = |names: Vec<At<String>>| names.into_iter().map(|name| name.value).collect::<Vec<_>>();
    let (boards, profiles) = (table.names("boards").map(names), table.names("profiles").map(names));
    let left_out = table.tables("left-out", left_out);
    let licences = table.tables("component", component).into_iter().collect();
    Some(Recipe {
        version: version?.value,
        media: media.unwrap_or(Media::All),
        left_out,
        licences,
        boards,
        profiles,
        places: Places::new(""),
    })
}

fn left_out(table: &mut Table<'_>) -> Option<LeftOut> {
    let (board, profile) = (table.name("board"), table.name("profile"));
    let reason = table.string("reason");
    let reason = table.required("reason", reason)?;
    if board.is_none() && profile.is_none() {
        table.impossible(table.range(), "this leaves out nothing by name", "name a `board`, a `profile` or both");
        return None;
    }
    let text = reason.value.trim();
    if text.is_empty() || text.len() > MAX_REASON || !text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        table.impossible(
            reason.range,
            "this is no reason that can be printed",
            format!("write one line of 1 to {MAX_REASON} plain characters: it stands in the release's notes"),
        );
        return None;
    }
    let value = |name: Option<At<String>>| name.map(|name| name.value);
    Some(LeftOut { board: value(board), profile: value(profile), reason: text.to_owned() })
}

fn component(table: &mut Table<'_>) -> Option<(String, Licensed)> {
    let (name, licence) = (table.string("name"), table.string("licence"));
    let in_product = table.flag("in-product");
    let (name, licence) = (table.required("name", name)?, table.required("licence", licence)?);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b" .-+()".contains(&byte);
    if licence.value.is_empty() || licence.value.len() > MAX_REASON || !licence.value.bytes().all(plain) {
        table.impossible(licence.range, "this is no licence expression", "write one of SPDX, such as \"GPL-2.0-only\"");
        return None;
    }
    Some((name.value, Licensed { licence: licence.value, in_product }))
}

/// Whether `text` can name a release, its directory and its row in a table.
pub fn is_version(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'-')
}

impl Recipe {
    /// The bundles of the release, in order, where the project has these boards and profiles.
    ///
    /// # Errors
    /// `E101` for each name that is not there, each exclusion that excludes nothing, and if nothing is left.
    pub fn cells(&self, boards: &[String], profiles: &[String]) -> Result<Vec<Cell>, Vec<Diagnostic>> {
        let mut found = Vec::new();
        let mut chosen = |key: &str, asked: &Option<Vec<String>>, known: &[String]| -> Vec<String> {
            let asked = asked.as_deref().unwrap_or(known);
            let strangers = asked.iter().enumerate().filter(|(_, name)| !known.contains(name));
            found.extend(strangers.map(|(index, name)| {
                let near = nearest(name, known.iter().map(String::as_str));
                let help = near
                    .map_or_else(|| format!("known: {}", known.join(", ")), |near| format!("did you mean `{near}`?"));
                Diagnostic::error(MATRIX, format!("there is no `{}` in {key}/", name.escape_debug()))
                    .primary(self.places.label(&format!("{key}/{index}"), "this name"))
                    .help(help)
            }));
            asked.to_vec()
        };
        let (boards, profiles) = (chosen("boards", &self.boards, boards), chosen("profiles", &self.profiles, profiles));
        let mut used = BTreeSet::new();
        let mut cells = BTreeSet::new();
        for (board, profile) in boards.iter().flat_map(|board| profiles.iter().map(move |profile| (board, profile))) {
            let is_out = |rule: &LeftOut| {
                rule.board.as_ref().is_none_or(|name| name == board)
                    && rule.profile.as_ref().is_none_or(|name| name == profile)
            };
            let out: Vec<usize> =
                (0..self.left_out.len()).filter(|&at| self.left_out.get(at).is_some_and(is_out)).collect();
            if out.is_empty() {
                cells.insert(Cell { board: board.clone(), profile: profile.clone() });
            }
            used.extend(out);
        }
        for index in (0..self.left_out.len()).filter(|index| !used.contains(index)) {
            found.push(
                Diagnostic::error(MATRIX, "this leaves out what is not in the release anyway")
                    .primary(self.places.label(&format!("left-out/{index}"), "matches no board and profile"))
                    .help("take it out, or correct its names"),
            );
        }
        let cells: Vec<Cell> = cells.into_iter().collect();
        let mut names: BTreeMap<String, &Cell> = BTreeMap::new();
        for cell in &cells {
            if let Some(other) = names.insert(cell.name(), cell) {
                let both = format!("{} of {}, and {} of {}", other.profile, other.board, cell.profile, cell.board);
                let message = format!("two bundles would be called {}: {both}", cell.name());
                found.push(Diagnostic::error(MATRIX, message).help("leave one of them out"));
            }
        }
        if cells.is_empty() && found.is_empty() {
            found.push(
                Diagnostic::error(MATRIX, "nothing is left to release")
                    .primary(Label::file(self.places.file(), "leaves out everything"))
                    .help("name at least one board and one profile that are not left out"),
            );
        }
        if found.is_empty() { Ok(cells) } else { Err(found) }
    }
}
