//! Diagnostics: each code is declared once, explained, and shown by an input that it refuses.

use std::collections::{BTreeMap, BTreeSet};

use crate::files::{below, code, is_test, judge, read, rust};

/// Every code that the sources declare, with the files that do.
fn declared() -> BTreeMap<String, Vec<String>> {
    let mut codes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for path in rust("hypervisor").into_iter().chain(rust("xtask")).filter(|path| !is_test(path)) {
        for rest in code(&path).split("Code::new('").skip(1) {
            if let Some((family, number)) = parse(rest) {
                codes.entry(format!("{family}{number}")).or_default().push(path.clone());
            }
        }
    }
    codes
}

/// Reads `L', 101)`.
fn parse(rest: &str) -> Option<(char, u16)> {
    let (family, rest) = rest.split_once("',")?;
    let (number, _) = rest.split_once(')')?;
    Some((family.parse().ok()?, number.trim().parse().ok()?))
}

#[test]
fn every_code_is_declared_once() {
    let codes = declared();
    assert!(codes.len() > 50, "the scan finds no codes any more: {codes:?}");
    let twice = codes.iter().filter(|(_, paths)| paths.len() > 1);
    judge(twice.map(|(code, paths)| format!("{code} is declared in {}", paths.join(" and "))).collect());
}

#[test]
fn every_code_has_a_page_and_no_page_is_an_orphan() {
    let codes = declared();
    let pages: BTreeSet<String> = below("docs/diagnostics")
        .into_iter()
        .map(|path| path.trim_start_matches("docs/diagnostics/").trim_end_matches(".md").to_owned())
        .collect();
    let mut complaints: Vec<String> = Vec::new();
    for code in codes.keys().filter(|code| !pages.contains(*code)) {
        complaints.push(format!("{code} has no page docs/diagnostics/{code}.md"));
    }
    for page in &pages {
        if !codes.contains_key(page) {
            complaints.push(format!("docs/diagnostics/{page}.md explains a code that nothing declares"));
        }
        let text = read(&format!("docs/diagnostics/{page}.md"));
        if !text.starts_with(&format!("# {page}: ")) {
            complaints.push(format!("docs/diagnostics/{page}.md does not begin with `# {page}: `"));
        }
        for part in ["**Rule.**", "**Consequence.**", "**Smallest failing input**", "**Correction.**"] {
            // Some pages give the input in a sentence: then the words end with a stop inside the stars.
            if !text.contains(part) && !text.contains(&part.replace("input**", "input.**")) {
                complaints.push(format!("docs/diagnostics/{page}.md lacks {part}"));
            }
        }
    }
    judge(complaints);
}

#[test]
fn every_code_has_a_bad_input_and_no_bad_input_is_an_orphan() {
    let codes = declared();
    let mut cases: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in below("tests/bad") {
        if let Some((case, file)) = path.trim_start_matches("tests/bad/").split_once('/') {
            cases.entry(case.to_owned()).or_default().insert(file.to_owned());
        }
    }
    let code_of = |case: &str| case.split('-').next().unwrap_or_default().to_owned();
    let shown: BTreeSet<String> = cases.keys().map(|case| code_of(case)).collect();
    let mut complaints: Vec<String> = Vec::new();
    for code in codes.keys().filter(|code| !shown.contains(*code)) {
        complaints.push(format!("{code} has no directory tests/bad/{code}-..."));
    }
    for (case, files) in &cases {
        if !codes.contains_key(&code_of(case)) {
            complaints.push(format!("tests/bad/{case} shows a code that nothing declares"));
        }
        if !files.contains("expected.txt") {
            complaints.push(format!("tests/bad/{case} has no expected.txt"));
        }
        if files.len() < 2 {
            complaints.push(format!("tests/bad/{case} has no input"));
        }
    }
    judge(complaints);
}

#[test]
fn a_declaration_is_recognised() {
    assert_eq!(parse("L', 101);"), Some(('L', 101)));
    assert_eq!(parse("H', number)"), None);
}
