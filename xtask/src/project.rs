//! The checkout: where it is, and the boards, profiles and templates in it.

use std::path::{Path, PathBuf};

use citrine_planner::board::Board;
use citrine_planner::diag::{self, Code, Diagnostic, Label, has_errors};
use citrine_planner::input::reader::nearest;
use citrine_planner::input::{self, IMPOSSIBLE_VALUE};
use citrine_planner::profile::Profile;
use citrine_planner::render::Template;

use crate::cli::Target;
use crate::report::{Failure, Ui};
use crate::sign;

/// There is no such board or profile, or its file cannot be read.
pub const NO_SUCH_FILE: Code = Code::new('C', 108);

/// The root of the checkout.
#[derive(Clone, Debug)]
pub struct Project {
    root: PathBuf,
}

impl Project {
    /// The checkout that cargo runs the tool from, else the one around the current directory.
    pub fn find() -> Result<Self, Failure> {
        let marked = |dir: &Path| dir.join("boards").is_dir() && dir.join("xtask").is_dir();
        let from_cargo = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let here = std::env::current_dir().unwrap_or_default();
        let candidates = from_cargo.iter().flat_map(|dir| dir.ancestors()).chain(here.ancestors());
        match candidates.map(Path::to_path_buf).find(|dir| marked(dir)) {
            Some(root) => Ok(Self { root }),
            None => Err(Diagnostic::error(
                NO_SUCH_FILE,
                "this is no checkout of Citrine: there is no directory boards/ here or above",
            )
            .help("run `cargo xtask` inside the checkout")
            .into()),
        }
    }

    /// The checkout at `root`.
    pub fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// The root directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Reads a board by name or path; its diagnostics are the failure.
    pub fn board(&self, name: &str, ui: &Ui) -> Result<Board, Failure> {
        self.board_with(name, None, ui)
    }

    /// [`Project::board`] with this hardware tree in place of its own.
    pub fn board_with(&self, name: &str, tree: Option<&Path>, ui: &Ui) -> Result<Board, Failure> {
        let (file, text) = self.read("boards", "board", name, ui)?;
        let (mut board, mut found) = input::board::parse(&file, &text);
        if let Some(board) = &mut board {
            found.extend(match tree {
                None => self.inventory(board, &file, ui).unwrap_or_default(),
                Some(tree) => match read_bytes(tree) {
                    Ok(bytes) => input::inventory::attach_tree(board, &tree.display().to_string(), &bytes),
                    Err(error) => vec![*error],
                },
            });
        }
        found.extend(board.as_ref().and_then(|b| misnamed(name, &file, &b.name, b.places.label("name", "this name"))));
        parsed((board, found))
    }

    /// Gives a board its devices, if the file beside its own is there. What the rules could not judge without, they say.
    fn inventory(&self, board: &mut Board, file: &str, ui: &Ui) -> Option<Vec<Diagnostic>> {
        let file = match file.rsplit_once('/') {
            Some((dir, name)) => format!("{dir}/devices/{name}"),
            None => format!("devices/{file}"),
        };
        // A board that is given by its path is found from where the user is.
        let path = if file.starts_with("boards/") { self.root.join(&file) } else { PathBuf::from(&file) };
        let text = fs_err::read_to_string(path).ok()?;
        ui.add_source(&file, &text);
        Some(input::inventory::attach(board, &file, &text))
    }

    /// Reads a profile by name or path; its diagnostics are the failure.
    pub fn profile(&self, name: &str, ui: &Ui) -> Result<Profile, Failure> {
        let (file, text) = self.read("profiles", "profile", name, ui)?;
        let (mut profile, mut found) = input::profile::parse(&file, &text);
        found.extend(profile.as_mut().and_then(|profile| self.key_to_believe(profile, &file)));
        found
            .extend(profile.as_ref().and_then(|p| misnamed(name, &file, &p.name, p.places.label("name", "this name"))));
        parsed((profile, found))
    }

    /// Gives a profile the key whose file it names, from the profile's own directory.
    fn key_to_believe(&self, profile: &mut Profile, file: &str) -> Option<Diagnostic> {
        let profile_file = if file.starts_with("profiles/") { self.root.join(file) } else { PathBuf::from(file) };
        let path = profile_file.with_file_name(profile.trust_file.as_ref()?);
        let text = std::fs::read_to_string(path).map_err(|error| format!("it cannot be read: {error}"));
        input::trust::attach(profile, text, &sign::is_development)
    }

    /// Reads the board, with the hardware tree that the user may have given, and the profile, and reports the mistakes
    /// of both in one run.
    pub fn target_of(&self, target: &Target, ui: &Ui) -> Result<(Board, Profile), Failure> {
        both(self.board_with(&target.board, target.hw_dtb.as_deref(), ui), self.profile(&target.profile, ui))
    }

    /// Reads board and profile, and reports the mistakes of both in one run.
    pub fn target(&self, board: &str, profile: &str, ui: &Ui) -> Result<(Board, Profile), Failure> {
        both(self.board(board, ui), self.profile(profile, ui))
    }

    /// Reads a template: its file name for messages, and its text.
    pub fn template(&self, name: &str, ui: &Ui) -> Result<(String, String), Failure> {
        let file = format!("templates/{name}");
        let text = fs_err::read_to_string(self.root.join(&file)).map_err(|error| unreadable(&file, &error))?;
        ui.add_source(&file, &text);
        Ok((file, text))
    }

    fn read(&self, dir: &str, what: &str, name: &str, ui: &Ui) -> Result<(String, String), Failure> {
        let (file, path) = if name.ends_with(".toml") {
            (name.to_owned(), PathBuf::from(name))
        } else {
            let file = format!("{dir}/{name}.toml");
            let path = self.root.join(&file);
            if !input::reader::is_name(name) || !path.is_file() {
                return Err(self.no_such(dir, what, name));
            }
            (file, path)
        };
        let text = fs_err::read_to_string(&path).map_err(|error| unreadable(&file, &error))?;
        ui.add_source(&file, &text);
        Ok((file, text))
    }

    fn no_such(&self, dir: &str, what: &str, name: &str) -> Failure {
        let mut known: Vec<String> = std::fs::read_dir(self.root.join(dir))
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_suffix(".toml").map(str::to_owned))
            .collect();
        known.sort();
        let near = nearest(name, known.iter().map(String::as_str)).map(|near| format!("did you mean `{near}`? "));
        Diagnostic::error(NO_SUCH_FILE, format!("there is no {what} `{}`", name.escape_debug()))
            .help(format!(
                "{}known: {}; a path that ends in .toml works too",
                near.unwrap_or_default(),
                known.join(", ")
            ))
            .into()
    }
}

/// What was read, or the mistakes of both.
fn both(board: Result<Board, Failure>, profile: Result<Profile, Failure>) -> Result<(Board, Profile), Failure> {
    match (board, profile) {
        (Ok(board), Ok(profile)) => Ok((board, profile)),
        (Err(mut a), Err(b)) => {
            a.0.extend(b.0);
            Err(a)
        }
        (Err(failure), _) | (_, Err(failure)) => Err(failure),
    }
}

/// The template of a file that [`Project::template`] has read.
pub fn template<'t>(read: &'t (String, String)) -> Template<'t> {
    Template { file: &read.0, text: &read.1 }
}

/// A file that is found under one name and calls itself by another: most often a copy that was not finished.
/// The name inside is the one that bundles and directories get.
fn misnamed(wanted: &str, file: &str, name: &str, place: Label) -> Option<Diagnostic> {
    let differs = !wanted.ends_with(".toml") && wanted != name;
    differs.then(|| {
        Diagnostic::error(IMPOSSIBLE_VALUE, format!("{file} calls itself `{name}`"))
            .primary(place)
            .help(format!("name = \"{wanted}\""))
    })
}

/// The bytes of a file that the user has named.
///
/// # Errors
/// [`NO_SUCH_FILE`].
pub fn read_bytes(file: &Path) -> diag::Result<Vec<u8>> {
    fs_err::read(file).map_err(|error| unreadable(&file.display().to_string(), &error))
}

fn unreadable(file: &str, error: &std::io::Error) -> Box<Diagnostic> {
    Diagnostic::error(NO_SUCH_FILE, format!("{file} cannot be read: {error}"))
        .primary(Label::file(file, "this file"))
        .help("check its path and permissions")
        .into()
}

fn parsed<T>((value, diagnostics): (Option<T>, Vec<Diagnostic>)) -> Result<T, Failure> {
    match value {
        Some(value) if !has_errors(&diagnostics) => Ok(value),
        _ => Err(Failure(diagnostics)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unfinished_copy_is_noticed() {
        let root = tempfile::tempdir().unwrap();
        let project = Project { root: root.path().to_owned() };
        for dir in ["boards", "profiles"] {
            std::fs::create_dir(root.path().join(dir)).unwrap();
        }
        let shipped = Project::find().unwrap();
        let copy = |from: &str, to: &str| {
            std::fs::copy(shipped.root().join(from), root.path().join(to)).unwrap();
        };
        copy("boards/p4080ds.toml", "boards/mine.toml");
        copy("profiles/two-linux.toml", "profiles/mine.toml");
        let failure = project.target("mine", "mine", &Ui::new(true)).unwrap_err();
        let said: Vec<(Code, &str)> = failure.0.iter().map(|d| (d.code, d.message.as_str())).collect();
        let expected = [
            (IMPOSSIBLE_VALUE, "boards/mine.toml calls itself `p4080ds`"),
            (IMPOSSIBLE_VALUE, "profiles/mine.toml calls itself `two-linux`"),
        ];
        assert_eq!(said, expected);
    }
}
