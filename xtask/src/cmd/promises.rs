//! `promises`: the table of `docs/promises.md`, with what its tests find now.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::path::Path;

use citrine_planner::diag::{Diagnostic, Result};
use citrine_planner::input::UNKNOWN_NAME;
use serde_json::json;

use super::test::clean_cargo;
use crate::build::lock::Lock;
use crate::cache::io_error;
use crate::cli::Promises;
use crate::project::Project;
use crate::report::{CmdResult, Ui};
use crate::setup::{Need, ensure};
use crate::tools::{CANNOT_START, FAILED};

/// The one place of the promises.
const FILE: &str = "docs/promises.md";
/// Names the file to which a test adds its figures, a line each.
const FIGURES: &str = "CITRINE_FIGURES";
/// Lets tests that can do more do more: `cargo xtask test --full` sets it, too.
pub(super) const FULL: &str = "CITRINE_FULL";
/// The test program that takes long.
const LONG: &str = "proofs";

/// A test, as the table names it: package, test program (`lib`, `bin`, or the name of one of `tests/`), test.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Proof {
    package: String,
    program: String,
    test: String,
}

/// A row of the table.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Promise {
    id: String,
    text: String,
    proofs: Vec<Proof>,
}

/// What a test has found.
#[derive(Debug)]
enum Found {
    /// It passed, and left these figures.
    Kept(Vec<String>),
    /// It failed, and said this.
    Broken(String),
    /// It takes long, and nobody asked for it.
    NotRun,
}

/// Runs `promises`.
pub fn run(args: &Promises, ui: &Ui) -> CmdResult {
    let project = Project::find()?;
    let root = project.root();
    let file = root.join(FILE);
    let text = fs_err::read_to_string(&file).map_err(|error| io_error(&file, &error))?;
    let lock = Lock::read(root)?;
    let needs = [Need::Bundle, Need::Sources, Need::Qemu, Need::Test, Need::Proofs];
    ensure(if args.full { &needs[..] } else { &needs[..4] }, args.setup.yes, &lock, &ui.progress())?;
    let mut broken = BTreeSet::new();
    // Some tests stand behind several promises, and take long.
    let mut tried = BTreeMap::new();
    let promises = chosen(parse(&text), &args.only)?;
    for promise in &promises {
        // Each object names its promise.
        if !ui.is_json() {
            ui.product(&format!("{}  {}\n", promise.id, promise.text));
        }
        for proof in &promise.proofs {
            let found = match tried.entry(proof) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) if proof.program == LONG && !args.full => new.insert(Found::NotRun),
                Entry::Vacant(new) => new.insert(prove(root, proof, args.full)?),
            };
            let (verdict, figures) = match found {
                Found::Kept(figures) => ("kept", figures.clone()),
                Found::NotRun => ("not run", vec!["--full runs it".to_owned()]),
                Found::Broken(why) => {
                    if broken.insert(proof.test.as_str()) {
                        ui.say(why.trim());
                    }
                    ("broken", vec![format!("again, by itself: cargo {}", cargo_arguments(proof).join(" "))])
                }
            };
            if ui.is_json() {
                ui.object(&json!({
                    "type": "promise", "promise": promise.id, "text": promise.text, "verdict": verdict,
                    "package": proof.package, "program": proof.program, "test": proof.test, "figures": figures,
                }));
            } else {
                let said = if figures.is_empty() { String::new() } else { format!(": {}", figures.join("; ")) };
                ui.product(&format!("     {verdict:7}  {}{said}\n", proof.test.replace('_', " ")));
            }
        }
    }
    if broken.is_empty() {
        return Ok(());
    }
    let message = format!("tests of promises failed: {}", Vec::from_iter(broken).join(", "));
    Err(Diagnostic::error(FAILED, message).help("the lines above say how to run one again, by itself").into())
}

/// Those of `promises` that are wanted: all, if none is named.
fn chosen(mut promises: Vec<Promise>, wanted: &[String]) -> Result<Vec<Promise>> {
    if let Some(unknown) = wanted.iter().find(|id| !promises.iter().any(|promise| promise.id == **id)) {
        let known: Vec<&str> = promises.iter().map(|promise| promise.id.as_str()).collect();
        let message = format!("there is no promise {unknown}");
        return Err(Diagnostic::error(UNKNOWN_NAME, message).help(format!("name some of {}", known.join(", "))).into());
    }
    promises.retain(|promise| wanted.is_empty() || wanted.contains(&promise.id));
    Ok(promises)
}

/// The rows of the table that name tests.
fn parse(text: &str) -> Vec<Promise> {
    let cells = |line: &str| -> Option<[String; 3]> {
        let inside = line.trim().strip_prefix('|')?.strip_suffix('|')?;
        let cells: Vec<String> = inside.split('|').map(|cell| cell.trim().to_owned()).collect();
        cells.try_into().ok()
    };
    let rows = text.lines().filter_map(cells);
    let promises = rows.map(|[id, text, tests]| {
        let named = tests.split('`').skip(1).step_by(2);
        let proofs = named.filter_map(|name| {
            let words: [&str; 3] = name.split_whitespace().collect::<Vec<_>>().try_into().ok()?;
            let [package, program, test] = words.map(str::to_owned);
            Some(Proof { package, program, test })
        });
        Promise { id, text, proofs: proofs.collect() }
    });
    promises.filter(|promise| !promise.proofs.is_empty()).collect()
}

fn cargo_arguments(proof: &Proof) -> Vec<&str> {
    let mut arguments = vec!["test", "--quiet", "--locked", "-p", &proof.package];
    match proof.program.as_str() {
        "lib" => arguments.push("--lib"),
        "bin" => arguments.extend(["--bin", &proof.package]),
        name => arguments.extend(["--test", name]),
    }
    if proof.program == LONG {
        arguments.extend(["--features", "xtask/long-proofs"]);
    }
    arguments.extend(["--", "--exact", &proof.test]);
    arguments
}

/// Runs a test.
fn prove(root: &Path, proof: &Proof, full: bool) -> Result<Found> {
    let dir = tempfile::tempdir().map_err(|error| io_error(&std::env::temp_dir(), &error))?;
    let figures = dir.path().join("figures");
    let mut cargo = clean_cargo(root);
    cargo.args(cargo_arguments(proof)).env(FIGURES, &figures);
    if full {
        cargo.env(FULL, "1");
    }
    let output =
        cargo.output().map_err(|error| Box::new(Diagnostic::error(CANNOT_START, format!("`cargo`: {error}"))))?;
    // A name that fits no test makes a program of tests that passes.
    let passed = output.status.success() && String::from_utf8_lossy(&output.stdout).contains("ok. 1 passed");
    if !passed {
        let said = [output.stdout, output.stderr].concat();
        return Ok(Found::Broken(String::from_utf8_lossy(&said).into_owned()));
    }
    let text = fs_err::read_to_string(&figures).unwrap_or_default();
    Ok(Found::Kept(text.lines().map(str::to_owned).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blessed::root;

    #[test]
    fn a_row_is_read_and_other_lines_are_not() {
        let text = "# Title\n| | promise | tests |\n|---|---|---|\n| P1 | It holds | `a lib b::c`, `d e f` |\n| P2 | Said | |\n";
        let promises = parse(text);
        assert_eq!((promises.len(), promises[0].id.as_str()), (1, "P1"));
        assert_eq!(
            cargo_arguments(&promises[0].proofs[0]).join(" "),
            "test --quiet --locked -p a --lib -- --exact b::c"
        );
        assert!(cargo_arguments(&promises[0].proofs[1]).contains(&"e"));
    }

    #[test]
    fn those_that_are_named_are_tried_and_a_mistyped_one_is_said() {
        let all = || parse("| P1 | a | `a lib b` |\n| P2 | b | `a lib b` |\n");
        let ids = |wanted: &[&str]| {
            let wanted: Vec<String> = wanted.iter().map(|id| (*id).to_owned()).collect();
            chosen(all(), &wanted).map(|found| found.into_iter().map(|promise| promise.id).collect::<Vec<_>>())
        };
        assert_eq!(ids(&[]).unwrap(), ["P1", "P2"]);
        assert_eq!(ids(&["P2"]).unwrap(), ["P2"]);
        assert!(ids(&["P2", "P3"]).unwrap_err().message.contains("P3"));
    }

    /// Each test that a promise names is somewhere in its package, in the module that its name says.
    #[test]
    fn every_test_that_a_promise_names_is_there() {
        let promises = parse(&std::fs::read_to_string(root().join(FILE)).unwrap());
        assert!(promises.len() >= 10, "{}", promises.len());
        for proof in promises.iter().flat_map(|promise| &promise.proofs) {
            let (dir, program) = match proof.package.as_str() {
                "citrine-planner" => ("xtask/planner", proof.program.as_str()),
                "citrine-fuzz" => ("tests/fuzz", proof.program.as_str()),
                "xtask" => ("xtask", proof.program.as_str()),
                other => panic!("no package {other}"),
            };
            let function = proof.test.rsplit("::").next().unwrap_or_default();
            let dir = match program {
                "lib" | "bin" => format!("{dir}/src"),
                "forge" | "forge-tool" => "tests/forge".to_owned(),
                _ => format!("{dir}/tests"),
            };
            assert!(has(&root().join(&dir), &format!("fn {function}(")), "{dir} has no {function}");
        }
    }

    fn has(dir: &Path, text: &str) -> bool {
        let paths = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        paths.into_iter().any(|path| {
            if path.is_dir() {
                has(&path, text)
            } else {
                path.extension().is_some_and(|end| end == "rs") && std::fs::read_to_string(path).unwrap().contains(text)
            }
        })
    }
}
