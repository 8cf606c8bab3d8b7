//! Texts: nothing of the machine that wrote them, nothing unfinished, nothing too long to read, and no
//! dependency or command that the documents do not know.

use crate::files::{below, judge, read, root, sources};

/// Longest Rust file in lines; a file that reaches it has two jobs.
const MAX_LINES: usize = 600;

#[test]
fn no_file_knows_the_machine_that_wrote_it_or_is_unfinished() {
    let mut words = vec![root().display().to_string(), "/Users/".to_owned()];
    words.extend(std::env::var("HOME").ok().filter(|home| home.len() > 1).map(|home| home + "/"));
    // Written apart, so that this file does not find itself.
    words.extend([["TO", "DO"], ["FIX", "ME"], ["XX", "X:"]].map(|parts| parts.concat()));
    let mut complaints = Vec::new();
    for path in below("") {
        let bytes = std::fs::read(root().join(&path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        let text = String::from_utf8_lossy(&bytes);
        let mut lines = text.lines().enumerate();
        let hit =
            lines.find_map(|(index, line)| Some((index, words.iter().find(|word| line.contains(word.as_str()))?)));
        if path.ends_with("tidy/texts.rs") {
            continue;
        }
        if let Some((index, word)) = hit {
            complaints.push(format!("{path}:{}: `{word}`", index + 1));
        }
    }
    judge(complaints);
}

#[test]
fn crates_come_from_crates_io_and_no_registry_is_named() {
    let lock: toml::Table = read("Cargo.lock").parse().expect("Cargo.lock is TOML");
    let sources =
        lock["package"].as_array().expect("a list of packages").iter().filter_map(|package| package.get("source"));
    let other =
        sources.filter(|source| source.as_str() != Some("registry+https://github.com/rust-lang/crates.io-index"));
    let mut complaints: Vec<String> = other.map(|source| format!("Cargo.lock: {source}")).collect();
    for path in below(".cargo") {
        let text = read(&path);
        for word in ["replace-with", "registries", "[source"] {
            if text.contains(word) {
                complaints.push(format!("{path}: `{word}`"));
            }
        }
    }
    judge(complaints);
}

#[test]
fn no_rust_file_is_too_long() {
    let mut complaints = Vec::new();
    for path in sources() {
        let lines = read(&path).lines().count();
        if lines > MAX_LINES {
            complaints.push(format!("{path} has {lines} lines"));
        }
    }
    judge(complaints);
}

#[test]
fn every_rust_file_says_what_it_owns() {
    let silent = |path: &String| !read(path).trim_start().starts_with("//!");

    judge(sources().into_iter().filter(silent).map(|path| format!("{path} does not begin with `//!`")).collect());
}

#[test]
fn every_dependency_has_its_reason() {
    let workspace: toml::Table = read("Cargo.toml").parse().expect("Cargo.toml is TOML");
    let dependencies = workspace["workspace"]["dependencies"].as_table().expect("a table");
    let reasons = read("docs/dependencies.md");
    let listed: Vec<&str> =
        reasons.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`')).map(|(name, _)| name).collect();
    let foreign = || dependencies.keys().filter(|name| !name.starts_with("citrine-"));
    let mut complaints: Vec<String> = foreign()
        .filter(|name| !listed.contains(&name.as_str()))
        .map(|name| format!("docs/dependencies.md does not say why there is `{name}`"))
        .collect();
    for name in listed {
        if !dependencies.contains_key(name) {
            complaints.push(format!("docs/dependencies.md speaks of `{name}`, which is no dependency"));
        }
    }
    judge(complaints);
}

#[test]
fn continuous_integration_runs_what_the_readme_says() {
    let script = read(".ci/run");
    let command =
        script.lines().filter_map(|line| line.strip_prefix("exec ")).next_back().expect("it ends in a command");
    assert!(read("README.md").contains(command), "README.md does not name `{command}`");
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut complaints = Vec::new();
    for path in below("").into_iter().filter(|path| path.ends_with(".md")) {
        let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
        for link in
            read(&path).split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link.to_owned())
        {
            let target = link.split('#').next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") && !root().join(dir).join(target).exists() {
                complaints.push(format!("{path} links to {link}"));
            }
        }
    }
    judge(complaints);
}
