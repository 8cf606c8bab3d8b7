//! What `reproduce` says of bundles that are the same, and of those that are not.

use std::collections::BTreeMap;

use citrine_formats::manifest::{Role, Sha256};
use citrine_planner::pack::{Assembled, PartSource, Subject, assemble, image};

use super::*;
use crate::blessed::{compare as blessed, root};
use crate::build::deflate_input;
use crate::report::{Width, to_text as shown};

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join("tests/bad").join(path)).unwrap()
}

/// A bundle whose only part is the script in a file.
fn scripted(case: &str, file: &str) -> Assembled<'static> {
    let content = image::script("p4080ds hello", 1, &text(&format!("{case}/{file}.cmd"))).unwrap();
    let (name, slots) = ("boot.scr".to_owned(), Vec::new());
    let part = PartSource { name, role: Role::Script, slots, entry: None, uncompressed: None, content };
    let recipe = Input { version: String::new(), ..deflate_input() };
    let subject = Subject {
        board: "p4080ds".to_owned(),
        core: "e500mc".to_owned(),
        epoch: 0,
        inputs: vec![Input {
            kind: InputKind::Recipe,
            name: "templates/boot.cmd.j2".to_owned(),
            origin: file.to_owned(),
            ..recipe
        }],
        plan_sha256: Sha256([0; 32]),
        profile: "hello".to_owned(),
        soc: "p4080".to_owned(),
        source_date_epoch: 1,
    };
    assemble(subject, vec![part]).unwrap()
}

fn compared(was: &Assembled<'_>, now: &Assembled<'_>) -> Comparison {
    let bytes: BTreeMap<String, Vec<u8>> = was
        .manifest
        .parts
        .iter()
        .zip(&was.contents)
        .map(|(part, content)| (part.name.clone(), content.pieces().concat()))
        .collect();
    compare((&was.manifest, was.identity), &bytes, now)
}

fn said(diagnostics: &[Diagnostic]) -> String {
    diagnostics.iter().map(|diagnostic| shown(diagnostic, &BTreeMap::new(), Width::Plain) + "\n\n").collect()
}

/// The cases of `tests/bad/V1*`.
#[test]
fn what_is_not_the_same_is_said_as_expected() {
    let source: Source = toml::from_str(&text("V101-a-source-is-gone/source.toml")).unwrap();
    let gone =
        provided(&source, Path::new("sources"), &root().join("tests/bad/V101-a-source-is-gone/sources")).unwrap_err();
    let case = "V102-another-script";
    let (was, now) = (scripted(case, "was"), scripted(case, "now"));
    let found = findings(&compared(&was, &now), "p4080ds-hello.tar");
    assert!(findings(&compared(&was, &was), "x")[0].message.contains("built from something else"));
    let complaints: Vec<String> = [("V101-a-source-is-gone", vec![*gone]), (case, found)]
        .into_iter()
        .flat_map(|(case, found)| blessed(&format!("tests/bad/{case}/expected.txt"), &said(&found)))
        .collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn what_nobody_built_is_unproved() {
    let bundle = scripted("V102-another-script", "was");
    let comparison = compared(&bundle, &bundle);
    assert!(comparison.is_identical());
    let stages = vec![("boot.scr".to_owned(), How::Cached)];
    assert_eq!(unproved(&comparison, &stages), ["boot.scr"]);
    assert!(to_text(&comparison, &stages, "x").contains("unproved: boot.scr\nidentical: "));
    assert_eq!(to_json(&comparison, &Vec::new(), "x")["unproved"], json!([]));
}

#[test]
fn a_build_is_given_the_checkout_and_nothing_that_was_built() {
    let from = tempfile::tempdir().unwrap();
    for path in ["artifacts/lock.toml", "artifacts/out/x.tar", "tests/fuzz/target/x", "tests/.x", "tests/y"] {
        let path = from.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "x").unwrap();
    }
    let to = tempfile::tempdir().unwrap();
    for name in ["artifacts", "tests"] {
        copy(&from.path().join(name), &to.path().join(name)).unwrap();
    }
    let is = |path: &str| to.path().join(path).exists();
    assert!(is("artifacts/lock.toml") && is("tests/y"));
    assert!(!is("artifacts/out") && !is("tests/fuzz/target") && !is("tests/.x"));
    assert!(copy(&from.path().join("boards"), &to.path().join("boards")).is_err());
}
