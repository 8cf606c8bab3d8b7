//! `coverage`: how many lines of the hypervisor's decisions its tests on the host execute.
//!
//! The figure is of `citrine-core` without its tests; what the firmware does to the hardware is proven on QEMU.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use citrine_planner::diag::{Diagnostic, Result};
use serde_json::{Value, json};
use xshell::cmd;

use super::test::clean_cargo;
use crate::cache::io_error;
use crate::cli::Coverage;
use crate::project::Project;
use crate::report::{CmdResult, Ui};
use crate::tools::{CANNOT_START, FAILED, MISSING, capture, shell_in};

/// Where it is built, in the checkout.
const DIR: &str = "target/coverage";
/// Whose lines count.
const SOURCES: &str = "hypervisor/core/src/";

/// Executed lines, and all that could be.
type Lines = (usize, usize);

/// Runs `coverage`.
pub fn run(args: &Coverage, ui: &Ui) -> CmdResult {
    let project = Project::find()?;
    let root = project.root();
    let tools = tools()?;
    ui.say("building and running the tests of citrine-core");
    let report = report(root, &tools)?;
    let files = parse(&report, |path| fs_err::read_to_string(root.join(path)).unwrap_or_default());
    let mut rows: Vec<(&String, Lines)> = files.iter().map(|(path, lines)| (path, *lines)).collect();
    rows.sort_by(|one, other| percent(one.1).total_cmp(&percent(other.1)));
    let all = rows.iter().fold((0, 0), |sum, (_, lines)| (sum.0 + lines.0, sum.1 + lines.1));
    for (path, lines) in rows.iter().map(|(path, lines)| (path.as_str(), *lines)).chain([("all", all)]) {
        if ui.is_json() {
            ui.object(&json!({ "type": "coverage", "file": path, "executed": lines.0, "lines": lines.1 }));
        } else {
            ui.product(&format!("{:5.1} %  {:>5} of {:>5}  {path}\n", percent(lines), lines.0, lines.1));
        }
    }
    if percent(all) < f64::from(args.least) {
        let message =
            format!("tests execute {:.1} % of the lines of {SOURCES}, less than {} %", percent(all), args.least);
        let help = "the first files of the list are the least covered; test their rules, not their lines";
        return Err(Diagnostic::error(FAILED, message).help(help).into());
    }
    Ok(())
}

fn percent((executed, all): Lines) -> f64 {
    if all == 0 { 100.0 } else { 100.0 * executed as f64 / all as f64 }
}

/// The directory of the compiler's own LLVM tools.
fn tools() -> Result<PathBuf> {
    let dir = Path::new(env!("CITRINE_SYSROOT")).join("lib/rustlib");
    let dir = dir.join(env!("CITRINE_HOST")).join("bin");
    if dir.join("llvm-cov").is_file() {
        return Ok(dir);
    }
    let message = "the compiler's LLVM tools are not installed";
    Err(Diagnostic::error(MISSING, message).help("run `rustup component add llvm-tools`").into())
}

/// Runs the tests; which line was executed how often, in the format of lcov.
fn report(root: &Path, tools: &Path) -> Result<String> {
    let dir = root.join(DIR);
    let raw = dir.join("raw");
    _ = fs_err::remove_dir_all(&raw);
    fs_err::create_dir_all(&raw).map_err(|error| io_error(&raw, &error))?;
    let mut cargo = clean_cargo(root);
    cargo.args(["test", "--quiet", "--locked", "-p", "citrine-core", "--lib", "--no-run"]);
    cargo.args(["--message-format=json-render-diagnostics", "--target-dir", DIR]);
    // What `build.rs` and macros leave behind is of no interest.
    cargo.env("CARGO_ENCODED_RUSTFLAGS", "-Cinstrument-coverage").env("LLVM_PROFILE_FILE", "/dev/null");
    let built = cargo.stderr(std::process::Stdio::inherit()).output();
    let built = built.map_err(|error| Diagnostic::error(CANNOT_START, format!("`cargo`: {error}")))?;
    let tests = executable(&String::from_utf8_lossy(&built.stdout)).filter(|_| built.status.success());
    let tests = tests.ok_or_else(|| Diagnostic::error(FAILED, "the tests of citrine-core do not compile"))?;

    let shell = shell_in(root)?;
    let profile = dir.join("merged.profdata");
    capture(cmd!(shell, "{tests} --quiet").env("LLVM_PROFILE_FILE", raw.join("%p.profraw")))?;
    let (merge, show) = (tools.join("llvm-profdata"), tools.join("llvm-cov"));
    capture(cmd!(shell, "{merge} merge -sparse {raw} -o {profile}"))?;
    capture(cmd!(shell, "{show} export {tests} -instr-profile={profile} -format=lcov"))
}

/// The test program among cargo's messages.
fn executable(messages: &str) -> Option<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut programs = messages.filter_map(|message| Some(PathBuf::from(message.get("executable")?.as_str()?)));
    programs.next_back()
}

/// The lines of each file, tests left out, by its path from [`SOURCES`] on; `text` is a file's content by its path in
/// the checkout.
fn parse(report: &str, text: impl Fn(&str) -> String) -> BTreeMap<String, Lines> {
    let mut files = BTreeMap::new();
    for record in report.split("end_of_record") {
        let Some(path) = record.lines().find_map(|line| line.strip_prefix("SF:")) else { continue };
        let Some((_, name)) = path.split_once(SOURCES) else { continue };
        if name.split('/').any(|part| part == "tests" || part == "tests.rs") {
            continue;
        }
        let end = tests_begin(&text(&format!("{SOURCES}{name}")));
        let counts = record.lines().filter_map(|line| {
            let (number, count) = line.strip_prefix("DA:")?.split_once(',')?;
            Some((number.parse::<usize>().ok()?, count.trim() != "0"))
        });
        let lines = counts.filter(|(number, _)| *number < end);
        let sum = lines.fold((0, 0), |sum, (_, executed)| (sum.0 + usize::from(executed), sum.1 + 1));
        files.insert(name.to_owned(), sum);
    }
    files
}

/// The number of the line from which on a file has tests only.
fn tests_begin(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let begins = |pair: &[&str]| pair[0] == "#[cfg(test)]" && pair[1].ends_with('{');
    lines.windows(2).position(begins).map_or(usize::MAX, |index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_do_not_count() {
        let report = "SF:/x/hypervisor/core/src/a.rs\nDA:1,5\nDA:2,0\nDA:4,1\nend_of_record\n\
                      SF:/x/hypervisor/core/src/a/tests.rs\nDA:1,5\nend_of_record\n\
                      SF:/x/hypervisor/core/src/b/c.rs\nDA:9,2\nDA:10,0\nend_of_record\n\
                      SF:/x/hypervisor/formats/src/fdt.rs\nDA:1,1\nend_of_record\n";
        let text =
            |path: &str| if path.ends_with("a.rs") { "a\nb\n#[cfg(test)]\nmod tests {\n}\n" } else { "" }.to_owned();
        let files = parse(report, text);
        assert_eq!(files, [("a.rs".to_owned(), (1, 2)), ("b/c.rs".to_owned(), (1, 2))].into());
        assert_eq!((percent((1, 2)), percent((0, 0))), (50.0, 100.0));
    }

    #[test]
    fn the_test_program_is_found_among_messages() {
        let messages = "{\"reason\":\"compiler-artifact\",\"executable\":null}\nnoise\n\
                        {\"reason\":\"compiler-artifact\",\"executable\":\"/t/core-1\"}\n{\"reason\":\"build-finished\"}";
        assert_eq!(executable(messages), Some("/t/core-1".into()));
        assert_eq!(executable("{}"), None);
    }
}
