//! [`Cursor`]: a place in a text, what separates words, and the mistakes found so far.

use std::ops::Range;

use super::{NO_SOURCE, PUNCTUATION};
use crate::diag::{Code, Diagnostic, Label};

/// Most diagnostics of one text; the rest of a text that is all wrong says nothing new.
const MAX_DIAGNOSTICS: usize = 100;

/// Most places that one diagnostic shows besides the first.
const MAX_RUNS: usize = 8;

/// A text under reading.
pub(super) struct Cursor<'t> {
    file: &'t str,
    pub(super) text: &'t str,
    pub(super) at: usize,
    /// Where the text begins in its file.
    offset: usize,
    /// Lines that are no source, until something is.
    junk: Option<Range<usize>>,
    /// All such lines before.
    passed_over: Vec<Range<usize>>,
    /// The comment that was looked at last: its end is not searched again from inside.
    comment: Range<usize>,
    pub(super) found: Vec<Diagnostic>,
}

impl<'t> Cursor<'t> {
    pub(super) fn new(file: &'t str, text: &'t str, offset: usize) -> Self {
        Self { file, text, at: 0, offset, junk: None, passed_over: Vec::new(), comment: 0..0, found: Vec::new() }
    }

    /// The byte `ahead` of the place.
    pub(super) fn peek_at(&self, ahead: usize) -> Option<u8> {
        self.text.as_bytes().get(self.at + ahead).copied()
    }

    /// The byte at the place.
    pub(super) fn peek(&self) -> Option<u8> {
        self.peek_at(0)
    }

    /// Takes this byte, if it is next.
    pub(super) fn take(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    /// Takes this text, if it is next.
    pub(super) fn take_text(&mut self, text: &str) -> bool {
        let is_next = self.text.as_bytes()[self.at..].starts_with(text.as_bytes());
        self.at += if is_next { text.len() } else { 0 };
        is_next
    }

    /// Takes the bytes that `wanted` accepts; all of them are ASCII.
    pub(super) fn take_while(&mut self, wanted: impl Fn(u8) -> bool) -> &'t str {
        let rest = &self.text.as_bytes()[self.at..];
        let len = rest.iter().position(|&byte| !byte.is_ascii() || !wanted(byte)).unwrap_or(rest.len());
        let start = self.at;
        self.at += len;
        &self.text[start..self.at]
    }

    /// A name of a node or property, or a label (Devicetree Specification §2.2.1, §2.2.4.1).
    pub(super) fn word(&mut self) -> &'t str {
        self.take_while(|byte| byte.is_ascii_alphanumeric() || b",._+*#?@-".contains(&byte))
    }

    /// Skips blanks, ends of lines, comments, and the line markers of the C preprocessor.
    pub(super) fn skip_blank(&mut self) {
        loop {
            self.take_while(|byte| byte.is_ascii_whitespace());
            let rest = &self.text.as_bytes()[self.at..];
            let begins_line = self.at == 0 || self.text.as_bytes()[self.at - 1] == b'\n';
            if rest.starts_with(b"//") || (begins_line && is_line_marker(rest)) {
                self.skip_line();
            } else if rest.starts_with(b"/*") {
                if !self.comment.contains(&self.at) || self.at + 4 > self.comment.end {
                    let end = rest.windows(2).skip(2).position(|two| two == b"*/").map_or(rest.len(), |at| at + 4);
                    self.comment = self.at..self.at + end;
                }
                self.at = self.comment.end;
            } else {
                return;
            }
        }
    }

    /// Goes to the end of the line.
    pub(super) fn skip_line(&mut self) {
        let rest = &self.text.as_bytes()[self.at..];
        self.at += rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
    }

    /// Whether a line ends between `from` and the place.
    pub(super) fn is_later_line(&self, from: usize) -> bool {
        self.text.as_bytes()[from..self.at].contains(&b'\n')
    }

    /// A place in the text.
    pub(super) fn label(&self, range: Range<usize>, text: impl Into<String>) -> Label {
        Label::at(self.file, range.start + self.offset..range.end + self.offset, text)
    }

    /// A range of the text as one of the file.
    pub(super) fn in_file(&self, range: Range<usize>) -> Range<usize> {
        range.start + self.offset..range.end + self.offset
    }

    /// Complains of what stands in `range`.
    pub(super) fn complain(&mut self, code: Code, range: Range<usize>, message: impl Into<String>, help: &str) {
        self.flush();
        // A place behind the end, or in the middle of a character, would be none.
        let start = self.text.floor_char_boundary(range.start);
        let end = self.text.ceil_char_boundary(range.end.min(self.text.len()).max(start));
        let label = self.label(start..end, "here");
        self.report(Diagnostic::error(code, message).primary(label).help(help));
    }

    /// Adds a diagnostic.
    pub(super) fn report(&mut self, diagnostic: Diagnostic) {
        if self.found.len() < MAX_DIAGNOSTICS {
            self.found.push(diagnostic);
        }
    }

    /// Complains that a semicolon is missing behind what ends at `end`.
    pub(super) fn semicolon(&mut self, end: usize) {
        let from = self.text[..end].char_indices().next_back().map_or(0, |(at, _)| at);
        self.complain(PUNCTUATION, from..end, "a semicolon is missing", "write `;` behind it");
    }

    /// Remembers that what stands in `range` is no source.
    pub(super) fn junk(&mut self, range: Range<usize>) {
        match &mut self.junk {
            Some(before) => before.end = range.end,
            None => self.junk = Some(range),
        }
    }

    /// Ends a run of lines that were no source, now that something else follows.
    pub(super) fn flush(&mut self) {
        self.passed_over.extend(self.junk.take());
    }

    /// Says which lines were no source: once, since a document has many.
    pub(super) fn finish(&mut self) {
        self.flush();
        let runs = std::mem::take(&mut self.passed_over);
        let Some(first) = runs.first() else { return };
        let lines: usize = runs.iter().map(|run| self.text[run.clone()].trim_end().lines().count()).sum();
        let message = match (lines, runs.len()) {
            (1, _) => "this is no device tree source".to_owned(),
            (lines, 1) => format!("{lines} lines are no device tree source"),
            (lines, runs) => format!("{lines} lines in {runs} places are no device tree source"),
        };
        let mut diagnostic = Diagnostic::error(NO_SOURCE, message).primary(self.label(first.clone(), "passed over"));
        for run in runs.iter().skip(1).take(MAX_RUNS) {
            diagnostic = diagnostic.related(self.label(run.clone(), "and here"));
        }
        self.found.push(diagnostic.help("remove it, or make it a comment: /* ... */"));
    }
}

/// `# 12 "file"`, and `#line 12 "file"`.
fn is_line_marker(rest: &[u8]) -> bool {
    let Some(rest) = rest.strip_prefix(b"#") else { return false };
    let rest = rest.strip_prefix(b"line").unwrap_or(rest);
    rest.strip_prefix(b" ").and_then(|rest| rest.first()).is_some_and(u8::is_ascii_digit)
}
