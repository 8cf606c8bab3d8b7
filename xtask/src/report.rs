//! The one printer: diagnostics and results, for people on standard error and for machines (`--json`) on
//! standard output.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use citrine_planner::diag::{Diagnostic, Label, Severity};
use serde_json::{Value, json};

use crate::progress::Progress;

/// Why a command did not succeed: at least one error, and whatever else was found. Nothing at all is the exit code of a
/// command that worked, where the user has asked for one (`diff --exit-code`).
#[derive(Debug)]
pub struct Failure(pub Vec<Diagnostic>);

impl From<Diagnostic> for Failure {
    fn from(diagnostic: Diagnostic) -> Self {
        Self(vec![diagnostic])
    }
}

impl From<Box<Diagnostic>> for Failure {
    fn from(diagnostic: Box<Diagnostic>) -> Self {
        Self(vec![*diagnostic])
    }
}

impl From<Vec<Diagnostic>> for Failure {
    fn from(diagnostics: Vec<Diagnostic>) -> Self {
        Self(diagnostics)
    }
}

/// How a command ends.
pub type CmdResult = Result<(), Failure>;

/// Where results and diagnostics go.
#[derive(Debug)]
pub struct Ui {
    json: bool,
    sources: RefCell<BTreeMap<String, String>>,
}

impl Ui {
    /// A printer for machines, or for people.
    pub fn new(json: bool) -> Self {
        Self { json, sources: RefCell::default() }
    }

    /// Whether results are for machines.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Remembers the text of a file, so that diagnostics can show its lines.
    pub fn add_source(&self, file: &str, text: &str) {
        self.sources.borrow_mut().insert(file.to_owned(), text.to_owned());
    }

    /// Prints the product of a command to standard output.
    pub fn product(&self, text: &str) {
        // A reader that has gone away (`| head`) is no error.
        let _ = std::io::stdout().lock().write_all(text.as_bytes());
    }

    /// Prints a product that is a text: as it is, or as an object of this type.
    pub fn text(&self, kind: &str, text: &str) {
        match self.is_json() {
            true => self.object(&serde_json::json!({ "type": kind, "text": text })),
            false => self.product(text),
        }
    }

    /// Prints one JSON object to standard output.
    pub fn object(&self, value: &Value) {
        self.product(&format!("{value}\n"));
    }

    /// Prints what the tool is doing, or has done, to standard error; nothing for machines.
    pub fn say(&self, text: &str) {
        if !self.json {
            let _ = writeln!(anstream::stderr().lock(), "{text}");
        }
    }

    /// Prints diagnostics.
    pub fn diagnostics(&self, diagnostics: &[Diagnostic]) {
        let sources = self.sources.borrow();
        for diagnostic in diagnostics {
            if self.json {
                self.object(&to_json(diagnostic, &sources));
            } else {
                let _ = writeln!(anstream::stderr().lock(), "{}\n", to_text(diagnostic, &sources, Width::Terminal));
            }
        }
    }

    /// Progress for people on standard error; its notices are printed like all diagnostics.
    pub fn progress(&self) -> Progress<'_> {
        let notices = |diagnostic: &Diagnostic| self.diagnostics(std::slice::from_ref(diagnostic));
        if self.json { Progress::hidden(notices) } else { Progress::stderr(notices) }
    }

    /// Prints why a command failed.
    pub fn failure(&self, failure: &Failure) {
        self.diagnostics(&failure.0);
        let errors = failure.0.iter().filter(|d| d.severity == Severity::Error).count();
        let code = failure.0.iter().find(|d| d.severity == Severity::Error).map(|d| d.code);
        if let Some(code) = code {
            let count = if errors == 1 { "1 error".to_owned() } else { format!("{errors} errors") };
            self.say(&format!("{count}; `cargo xtask explain {code}` says more about the first"));
        }
    }
}

/// Whether the text shall fit the terminal or always be the same.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Width {
    /// Coloured, if standard error is a terminal.
    Terminal,
    /// Plain, for what tests compare with a file.
    #[cfg_attr(not(test), expect(dead_code, reason = "only tests write reports to files"))]
    Plain,
}

/// One diagnostic for people: the message, every place with its lines, and the cure.
pub fn to_text(diagnostic: &Diagnostic, sources: &BTreeMap<String, String>, width: Width) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Notice => Level::INFO.with_name("notice"),
    };
    let code = diagnostic.code.to_string();
    let title = level.primary_title(diagnostic.message.as_str()).id(code.as_str());
    let labels: Vec<(&Label, AnnotationKind)> = diagnostic
        .primary
        .iter()
        .map(|label| (label, AnnotationKind::Primary))
        .chain(diagnostic.related.iter().map(|label| (label, AnnotationKind::Context)))
        .collect();
    // One snippet per file, the primary label's first; a place without lines is a note.
    let mut files: Vec<&str> = Vec::new();
    let mut elsewhere = Vec::new();
    for (label, _) in &labels {
        let known = label.range.as_ref().zip(sources.get(&label.file)).is_some();
        if !known {
            elsewhere.push(format!("{}: {}", label.file, label.text));
        } else if !files.contains(&label.file.as_str()) {
            files.push(&label.file);
        }
    }
    let mut group = Group::with_title(title);
    for file in files {
        let text = &sources[file];
        let mut snippet = Snippet::source(text.as_str()).path(file).fold(true);
        for (label, kind) in labels.iter().filter(|(label, _)| label.file == file) {
            let range = label.range.clone().unwrap_or(0..0);
            let end = range.end.min(text.len());
            snippet = snippet.annotation(kind.span(range.start.min(end)..end).label(label.text.as_str()));
        }
        group = group.element(snippet);
    }
    for note in &elsewhere {
        group = group.element(Level::NOTE.message(note.as_str()));
    }
    if let Some(help) = &diagnostic.help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    let coloured = width == Width::Terminal && std::io::stderr().is_terminal();
    let renderer = if coloured { Renderer::styled() } else { Renderer::plain() };
    renderer.render(&[group])
}

/// One diagnostic for machines.
pub fn to_json(diagnostic: &Diagnostic, sources: &BTreeMap<String, String>) -> Value {
    json!({
        "type": "diagnostic",
        "code": diagnostic.code.to_string(),
        "severity": diagnostic.severity.as_str(),
        "message": diagnostic.message,
        "primary": diagnostic.primary.as_ref().map(|label| place(label, sources)),
        "related": diagnostic.related.iter().map(|label| place(label, sources)).collect::<Vec<_>>(),
        "facts": diagnostic.facts,
        "help": diagnostic.help,
    })
}

fn place(label: &Label, sources: &BTreeMap<String, String>) -> Value {
    let mut value = json!({ "file": label.file, "text": label.text });
    if let Some((range, text)) = label.range.clone().zip(sources.get(&label.file)) {
        let (line, column) = line_and_column(text, range.start);
        let (end_line, end_column) = line_and_column(text, range.end);
        value["line"] = line.into();
        value["column"] = column.into();
        value["end_line"] = end_line.into();
        value["end_column"] = end_column.into();
    }
    value
}

/// Line and column of a byte offset, both from 1, columns in characters.
fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let mut end = offset.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let before = &text[..end];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}
