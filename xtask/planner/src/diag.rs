//! [`Diagnostic`]: every error, warning and notice of the tool, as data.
//!
//! Rendering for people (colour, underlined source) and for machines (`--json`) happens once, in the
//! tool's `report` module; nothing else formats an error.

use std::collections::BTreeMap;
use std::ops::Range;

pub use citrine_formats::diag::{Code, Severity};

/// A place in a file that a diagnostic points at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Label {
    /// The file, as the user named it or relative to the project.
    pub file: String,
    /// Byte range in a text file; `None` for a place in a file that has no lines (an image).
    pub range: Option<Range<usize>>,
    /// What is there, in a few words.
    pub text: String,
}

impl Label {
    /// A place in a text file.
    pub fn at(file: impl Into<String>, range: Range<usize>, text: impl Into<String>) -> Self {
        Self { file: file.into(), range: Some(range), text: text.into() }
    }

    /// A whole file.
    pub fn file(file: impl Into<String>, text: impl Into<String>) -> Self {
        Self { file: file.into(), range: None, text: text.into() }
    }
}

/// One finding of one rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Diagnostic {
    /// The rule's stable name.
    pub code: Code,
    /// Whether it stops a bundle.
    pub severity: Severity,
    /// What is wrong, in one sentence without a final stop.
    pub message: String,
    /// The place to change.
    pub primary: Option<Label>,
    /// Other places that take part: the second owner, the declaration.
    pub related: Vec<Label>,
    /// The numbers behind the message, for machines.
    pub facts: BTreeMap<&'static str, String>,
    /// What to do about it.
    pub help: Option<String>,
}

impl Diagnostic {
    /// A diagnostic without places, facts or help.
    pub fn new(code: Code, severity: Severity, message: impl Into<String>) -> Self {
        Self {
            code,
            severity,
            message: message.into(),
            primary: None,
            related: Vec::new(),
            facts: BTreeMap::new(),
            help: None,
        }
    }

    /// An error without places, facts or help.
    pub fn error(code: Code, message: impl Into<String>) -> Self {
        Self::new(code, Severity::Error, message)
    }

    /// A warning without places, facts or help.
    pub fn warning(code: Code, message: impl Into<String>) -> Self {
        Self::new(code, Severity::Warning, message)
    }

    /// Points at the place to change.
    #[must_use]
    pub fn primary(mut self, label: Label) -> Self {
        self.primary = Some(label);
        self
    }

    /// Points at a further place.
    #[must_use]
    pub fn related(mut self, label: Label) -> Self {
        self.related.push(label);
        self
    }

    /// Adds a number or name for machines.
    #[must_use]
    pub fn fact(mut self, name: &'static str, value: impl ToString) -> Self {
        self.facts.insert(name, value.to_string());
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// A result whose error is one diagnostic; boxed, since errors are rare and results are many.
pub type Result<T> = std::result::Result<T, Box<Diagnostic>>;

/// Whether any of the diagnostics stops a bundle.
pub fn has_errors(diagnostics: &[Diagnostic]) -> bool {
    diagnostics.iter().any(|d| d.severity == Severity::Error)
}
