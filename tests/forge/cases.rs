//! The cases: one directory each, called `CLASS-NUMBER-SLUG`.
//!
//! The letter is the class of attack: A the signature does not cover what is used, B two parsers with two meanings, C
//! header fields believed early, D what unpacking would do, E bombs, F change between check and use, G absent taken for
//! accepted, H an old, another or a mixed bundle, I device trees, J text that a script would run, K supply chain, L
//! secrets.
//!
//! A directory that is called as a forgery in `mutations.rs` is about that bundle; another has its own input: a profile,
//! a tree. `case.toml` says what the tool is called with, if that is not `verify`. `expected.txt` is all that the tool
//! says; the code in its first line is the one that every verifier of ours must give. `elsewhere.toml` names attacks,
//! class by class, whose input stands in `tests/bad/` already.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::mutations::forged;

/// The classes of attack.
pub const CLASSES: &str = "ABCDEFGHIJKL";

/// One directory.
pub struct Case {
    /// Its name.
    pub name: String,
    pub dir: PathBuf,
}

/// How the tool is called, when it is not `verify bundle.tar --keys keys`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// What it is called with, in a directory that holds the case's files, `bundle.tar`, `keys`, and `key`.
    pub args: Vec<String>,
    /// The forgery that is `bundle.tar`, if it is not the case's own.
    pub mutation: Option<String>,
}

impl Case {
    pub fn class(&self) -> char {
        self.name.chars().next().unwrap()
    }

    /// The forged bundle; none for another kind of input.
    pub fn bundle(&self) -> Option<Vec<u8>> {
        forged(&self.name)
    }

    /// What it says about the call.
    pub fn call(&self) -> Option<Call> {
        let text = std::fs::read_to_string(self.dir.join("case.toml")).ok()?;
        Some(toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", self.name)))
    }

    /// All that the tool says; nothing before it has been blessed.
    pub fn expected(&self) -> String {
        std::fs::read_to_string(self.dir.join("expected.txt")).unwrap_or_default()
    }
}

/// The code of the first diagnostic.
pub fn code_in(said: &str) -> Option<String> {
    Some(said.strip_prefix("error[")?.split_once(']')?.0.to_owned())
}

/// The root of the checkout.
pub fn project() -> PathBuf {
    let mut dirs = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    dirs.find(|dir| dir.join("boards").is_dir()).unwrap().to_owned()
}

/// All cases, by name.
pub fn cases() -> Vec<Case> {
    let dirs = std::fs::read_dir(project().join("tests/forge")).unwrap().map(|entry| entry.unwrap().path());
    let mut cases: Vec<Case> = dirs
        .filter(|path| path.is_dir())
        .map(|dir| Case { name: dir.file_name().unwrap().to_str().unwrap().to_owned(), dir })
        .collect();
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    cases
}

/// The attacks whose input stands in `tests/bad/`: directories there by class.
pub fn elsewhere() -> BTreeMap<char, Vec<String>> {
    toml::from_str(&std::fs::read_to_string(project().join("tests/forge/elsewhere.toml")).unwrap()).unwrap()
}
