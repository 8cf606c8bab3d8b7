//! The files of the repository, without what is built or downloaded.

use std::path::{Path, PathBuf};

/// Directories that hold nothing of the project's own.
const FOREIGN: [&str; 3] = ["target", ".git", "out"];

/// The root of the checkout.
pub fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    root.canonicalize().expect("the checkout that the test was built from is there")
}

/// A file of the project as text.
pub fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every file below `dir`, as paths from the root, sorted.
pub fn below(dir: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting = vec![root().join(dir)];
    while let Some(dir) = waiting.pop() {
        let entries = std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        for entry in entries {
            let path = entry.expect("a directory can be read to its end").path();
            let name = path.file_name().and_then(|name| name.to_str()).expect("names in the project are UTF-8");
            if FOREIGN.contains(&name) {
                continue;
            }
            if path.is_dir() {
                waiting.push(path);
            } else {
                let path = path.strip_prefix(root()).expect("the walk began at the root");
                found.push(path.to_str().expect("names in the project are UTF-8").to_owned());
            }
        }
    }
    found.sort();
    found
}

/// Every Rust file below `dir`.
pub fn rust(dir: &str) -> Vec<String> {
    below(dir).into_iter().filter(|path| path.ends_with(".rs")).collect()
}

/// Every Rust file of the project; what stands in bad inputs is not meant to be good.
pub fn sources() -> Vec<String> {
    let dirs = ["hypervisor", "tests", "xtask"];
    dirs.into_iter().flat_map(rust).filter(|path| !path.starts_with("tests/bad/")).collect()
}

/// Whether the file holds tests only.
pub fn is_test(path: &str) -> bool {
    path.split('/').any(|name| ["tests", "tests.rs", "bad_inputs.rs", "golden.rs", "testing.rs"].contains(&name))
}

/// The text of a Rust file up to its unit tests, without comments.
pub fn code(path: &str) -> String {
    let text = read(path);
    let text = text.find("#[cfg(test)]\nmod tests {").map_or(text.as_str(), |at| &text[..at]);
    let line = |line: &str| line.find("//").map_or(line, |at| &line[..at]).to_owned() + "\n";
    text.lines().map(line).collect()
}

/// Panics with every complaint, if there is one.
pub fn judge(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}
