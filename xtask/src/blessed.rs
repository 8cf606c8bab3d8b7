//! Files that tests compare with what the tool makes now; `CITRINE_BLESS=1` writes them instead.

use std::path::{Path, PathBuf};

/// The root of the checkout that the tests were built from.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Sub-directories of `dir`, below the root, by name.
pub fn directories(dir: &str) -> Vec<String> {
    let entries = std::fs::read_dir(root().join(dir)).unwrap_or_else(|error| panic!("{dir}: {error}"));
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap_or_else(|error| panic!("{dir}: {error}")))
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_str().expect("file names of the project are UTF-8").to_owned())
        .collect();
    names.sort();
    names
}

/// Compares `file`, below the root, with `text`; a complaint when they differ, after blessing `None`.
pub fn compare(file: &str, text: &str) -> Option<String> {
    let path = root().join(file);
    if std::env::var_os("CITRINE_BLESS").is_some_and(|value| value == "1") {
        std::fs::create_dir_all(path.parent().expect("the file lies below the root")).expect("directories can be made");
        std::fs::write(&path, text).unwrap_or_else(|error| panic!("{file}: {error}"));
        return None;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    if expected == text {
        return None;
    }
    let same = expected.lines().zip(text.lines()).take_while(|(a, b)| a == b).count();
    let line = |text: &str| text.lines().nth(same).unwrap_or("(end of file)").to_owned();
    Some(format!("{file}:{}: expected\n  {}\nbut it is now\n  {}", same + 1, line(&expected), line(text)))
}
