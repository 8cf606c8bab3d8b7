//! The device tree compiler: hv.dts in, hv.dtb out, its complaints as diagnostics that point into the
//! template.
//!
//! `dtc` honours the C preprocessor's line markers, which [`citrine_planner::render`] puts in, so the places
//! it names are the template's own.

use std::io::Write as _;
use std::ops::Range;
use std::process::{Command, Output, Stdio};

use citrine_planner::diag::{self, Code, Diagnostic, Label};

/// `dtc` refuses the tree.
pub const REFUSED: Code = Code::new('R', 102);
/// `dtc` warns of the tree.
pub const WARNED: Code = Code::new('R', 103);
/// `dtc` cannot be run.
pub const NOT_RUN: Code = Code::new('R', 104);

/// The warnings that the format itself calls for: byte channels and areas are named without unit
/// addresses, and a partition's `chosen` stands below `node-update`.
const ALLOWED: [&str; 4] = ["-W", "no-unit_address_vs_reg", "-W", "no-chosen_node_is_root"];

/// A file and its text, to find a complaint's place.
#[derive(Clone, Copy, Debug)]
pub struct Source<'s> {
    /// Its name in the line markers.
    pub file: &'s str,
    /// Its text.
    pub text: &'s str,
}

/// Compiles a tree.
///
/// # Errors
/// Every complaint of `dtc`, warnings included: a tree that is only probably right is not built.
pub fn compile(dts: &str, source: Source<'_>) -> Result<Vec<u8>, Vec<Diagnostic>> {
    compile_with("dtc", dts, source)
}

/// Compiles a tree with this program, for tests of what happens without one.
pub(crate) fn compile_with(program: &str, dts: &str, source: Source<'_>) -> Result<Vec<u8>, Vec<Diagnostic>> {
    let output = run(program, &[&["-I", "dts", "-O", "dtb", "-b", "0"], &ALLOWED[..]].concat(), dts.as_bytes())
        .map_err(|error| vec![*error])?;
    let complaints: Vec<Diagnostic> =
        String::from_utf8_lossy(&output.stderr).lines().filter_map(|line| complaint(line, source)).collect();
    if !complaints.is_empty() {
        return Err(complaints);
    }
    ended(&output).map_err(|error| vec![*error])?;
    Ok(output.stdout)
}

/// The source of a compiled tree.
///
/// # Errors
/// [`NOT_RUN`], or [`REFUSED`] when it is none.
pub fn decompile(dtb: &[u8]) -> diag::Result<String> {
    let output = run("dtc", &["-q", "-I", "dtb", "-O", "dts"], dtb)?;
    ended(&output)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// An end without success, of which nothing was said.
fn ended(output: &Output) -> diag::Result<()> {
    if output.status.success() {
        return Ok(());
    }
    Err(Diagnostic::error(REFUSED, format!("dtc ended with {} and no word why", output.status)).into())
}

/// Runs the compiler with this input.
fn run(program: &str, args: &[&str], input: &[u8]) -> diag::Result<Output> {
    let not_run = |what: &str, error: &std::io::Error| {
        let message = format!("dtc cannot be {what}: {error}");
        Box::new(Diagnostic::error(NOT_RUN, message).help("install the package device-tree-compiler"))
    };
    let mut child = Command::new(program)
        .args(args)
        .args(["-o", "-", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| not_run("started", &error))?;
    // dtc reads all its input before it writes, so writing first cannot block for ever.
    let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(input));
    let output = child.wait_with_output().map_err(|error| not_run("run", &error))?;
    // What dtc says of an input that it did not read to its end is more than that it was cut short.
    if output.status.success() {
        written.map_err(|error| not_run("fed", &error))?;
    }
    Ok(output)
}

/// One line of dtc's standard error; `None` for lines that only follow from others.
fn complaint(line: &str, source: Source<'_>) -> Option<Diagnostic> {
    let line = line.trim();
    let follows = line.is_empty()
        || line.contains("Failed prerequisite")
        || line.starts_with("FATAL ERROR: Unable to parse")
        || line.starts_with("ERROR: Input tree has errors");
    if follows {
        return None;
    }
    let line = line.strip_prefix("Error: ").unwrap_or(line);
    let warning = line.contains(": Warning (");
    let (code, verb) = if warning { (WARNED, "warns") } else { (REFUSED, "refuses the tree") };
    let diagnostic = match place(line, source) {
        Some((label, rest)) => {
            let rest = rest.strip_prefix("Warning ").unwrap_or(rest);
            Diagnostic::error(code, format!("dtc {verb}: {rest}")).primary(label)
        }
        None => Diagnostic::error(code, format!("dtc {verb}: {line}")),
    };
    Some(diagnostic.help("correct the template, or the name or value that the profile put there"))
}

/// Takes `FILE:LINE.COLUMN-[LINE.]COLUMN` from the front of a complaint.
fn place<'l>(line: &'l str, source: Source<'_>) -> Option<(Label, &'l str)> {
    let rest = line.strip_prefix(source.file)?.strip_prefix(':')?;
    let end = rest.find([' ', ':'])?;
    let (position, message) = (&rest[..end], rest[end..].trim_start_matches([':', ' ']));
    let number: u32 = position.split(['.', '-']).next()?.parse().ok()?;
    Some((Label::at(source.file, line_range(source.text, number)?, "this line of the template"), message))
}

/// The byte range of a line (from 1) without its indentation and end. Columns are the rendered line's, not
/// the template's, so the whole line is shown.
fn line_range(text: &str, number: u32) -> Option<Range<usize>> {
    let index = usize::try_from(number).ok()?.checked_sub(1)?;
    let start: usize = text.split_inclusive('\n').take(index).map(str::len).sum();
    let line = text.split_inclusive('\n').nth(index)?;
    let indent = line.len() - line.trim_start().len();
    Some(start + indent..start + line.trim_end().len().max(indent))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "/dts-v1/;\n/ {\n\ta = <;\n};\n";

    fn compile_marked(body: &str) -> Result<Vec<u8>, Vec<Diagnostic>> {
        compile(&format!("# 1 \"t.j2\"\n{body}"), Source { file: "t.j2", text: body })
    }

    #[test]
    fn a_good_tree_becomes_a_blob() {
        let blob = compile_marked("/dts-v1/;\n/ {\n\ta = <1>;\n};\n").unwrap();
        assert_eq!(blob[..4], [0xd0, 0x0d, 0xfe, 0xed]);
    }

    #[test]
    fn an_error_points_into_the_template() {
        let found = compile_marked(TEXT).unwrap_err();
        assert_eq!((found.len(), found[0].code), (1, REFUSED));
        let range = found[0].primary.clone().unwrap().range.unwrap();
        assert_eq!(&TEXT[range], "a = <;");
    }

    #[test]
    fn a_warning_is_an_error_and_what_follows_from_it_is_left_out() {
        let found = compile_marked("/dts-v1/;\n/ {\n\tb {\n\t\tcompatible = <1>;\n\t};\n};\n").unwrap_err();
        assert_eq!((found.len(), found[0].code), (1, WARNED), "{found:#?}");
        assert!(found[0].message.starts_with("dtc warns: (compatible_is_string_list)"));
    }

    #[test]
    fn the_formats_own_oddities_are_no_warnings() {
        compile_marked("/dts-v1/;\n/ {\n\tp {\n\t\tchosen {\n\t\t\tx = \"y\";\n\t\t};\n\t};\n};\n").unwrap();
    }
}
