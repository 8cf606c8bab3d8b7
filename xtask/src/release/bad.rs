//! `tests/bad/E1*`: the smallest release that breaks each rule, and exactly what the tool says of it.
//!
//! A directory holds what the rule reads: a release file, an index, a release with the keys that are trusted, or what
//! the process of a bundle printed. `expected.txt` is the answer.

use std::collections::BTreeMap;
use std::path::Path;

use citrine_formats::manifest::{Input, InputKind, Manifest, NAMESPACE, Sha256};
use citrine_planner::diag::Diagnostic;
use citrine_planner::release::Built;
use citrine_planner::release::index::Index;
use citrine_planner::release::recipe::parse;
use citrine_planner::release::sbom::{Crates, bill};
use citrine_planner::verify::keys::{RELEASE_NAMESPACE, TrustedKeys};
use citrine_planner::verify::policy::Policy;

use super::check::{Keys, check};
use super::schedule::failure;
use crate::blessed::{compare, directories, root};
use crate::report::{Width, to_text};

/// A bundle of which only one input matters.
fn built() -> Built {
    let input = Input {
        kind: InputKind::Package,
        name: "gcc-12-powerpc-linux-gnu".into(),
        origin: "debian bookworm".into(),
        sha256: None,
        size: None,
        version: "12".into(),
    };
    let manifest = Manifest {
        board: "p4080ds".into(),
        core: "e500mc".into(),
        epoch: 0,
        format: 1,
        inputs: vec![input],
        parts: Vec::new(),
        plan_sha256: Sha256([0; 32]),
        profile: "hello".into(),
        soc: "p4080".into(),
        source_date_epoch: 0,
    };
    Built { identity: Sha256([0; 32]), manifest }
}

/// What the tool says of the case in `dir`.
fn say(code: &str, dir: &Path, sources: &mut BTreeMap<String, String>) -> Vec<Diagnostic> {
    let text =
        |file: &str| std::fs::read_to_string(dir.join(file)).unwrap_or_else(|error| panic!("{code}: {file}: {error}"));
    let mut recipe = || {
        sources.insert("release.toml".into(), text("release.toml"));
        parse("release.toml", &text("release.toml")).unwrap()
    };
    let keys = || {
        let parsed = |namespace| TrustedKeys::parse_for(namespace, &text("keys")).unwrap();
        Keys { release: parsed(RELEASE_NAMESPACE), bundles: parsed(NAMESPACE) }
    };
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    match code {
        "E101" => recipe().cells(&names(&["p4080ds"]), &names(&["hello", "two-linux"])).unwrap_err(),
        "E102" => vec![*Index::parse("index.json", text("index.json").as_bytes()).unwrap_err()],
        "E103" | "E104" | "E105" => vec![*check(&dir.join("release"), &keys(), &Policy::default()).unwrap_err()],
        "E106" => {
            let lines: Vec<_> = text("lines.json").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            vec![failure("p4080ds/mine", &lines, "its process ended")]
        }
        "E107" => {
            let (recipe, key) = (parse("x", "version = \"1\"").unwrap(), crate::sign::signer(Some(&dir.join("key"))));
            vec![*super::finish::there(&dir.join("release"), &recipe, &[], key.unwrap().public()).unwrap_err()]
        }
        "E108" => vec![*bill(&recipe(), "release.toml", &[built()], &Crates::default()).unwrap_err()],
        other => panic!("no one knows how to run {other}"),
    }
}

#[test]
fn every_bad_release_says_what_is_expected() {
    let mut complaints = Vec::new();
    let names: Vec<String> = directories("tests/bad").into_iter().filter(|name| name.starts_with('E')).collect();
    assert!(names.len() >= 8, "{names:?}");
    for name in names {
        let dir = root().join("tests/bad").join(&name);
        let code = name.split('-').next().unwrap_or_default();
        let mut sources = BTreeMap::new();
        let found = say(code, &dir, &mut sources);
        assert!(found.iter().all(|diagnostic| diagnostic.code.to_string() == code), "{name}: {found:?}");
        let text: String = found.iter().map(|diagnostic| to_text(diagnostic, &sources, Width::Plain) + "\n").collect();
        let text = text.replace(&dir.display().to_string(), "CASE");
        complaints.extend(compare(&format!("tests/bad/{name}/expected.txt"), &text));
    }
    assert!(complaints.is_empty(), "{}\n", complaints.join("\n"));
}
