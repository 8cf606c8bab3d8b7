//! [`Places`]: where each value of a board or profile stands in its file, for diagnostics that come later.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::diag::Label;

/// Where each value of a parsed file stands, by its path (`partition/p1/cpus`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    file: String,
    ranges: BTreeMap<String, Range<usize>>,
}

impl Places {
    /// No places yet, in `file`.
    pub fn new(file: impl Into<String>) -> Self {
        Self { file: file.into(), ranges: BTreeMap::new() }
    }

    /// The file.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Remembers where `path` stands.
    pub fn set(&mut self, path: impl Into<String>, range: Range<usize>) {
        self.ranges.insert(path.into(), range);
    }

    /// The place of `path` or of the nearest table around it, with `text` as its remark.
    ///
    /// A value that has its default is not in the file, so the table that would hold it is shown.
    pub fn label(&self, path: &str, text: impl Into<String>) -> Label {
        let mut path = path;
        loop {
            if let Some(range) = self.ranges.get(path) {
                return Label::at(self.file.clone(), range.clone(), text);
            }
            match path.rfind('/') {
                Some(at) => path = &path[..at],
                None => return Label::file(self.file.clone(), text),
            }
        }
    }

    /// Whether `path` itself stands in the file.
    pub fn has(&self, path: &str) -> bool {
        self.ranges.contains_key(path)
    }
}
