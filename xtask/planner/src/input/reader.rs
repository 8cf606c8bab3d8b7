//! A TOML table read key by key, where every problem becomes a diagnostic and reading goes on.
//!
//! A getter returns `None` both for an absent key and for a value it has complained about, so a caller
//! can read on and the user sees everything that is wrong in one run. [`Table::finish`] reports the
//! keys that nobody asked for, with the nearest known one as a suggestion.

use std::cell::RefCell;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{IMPOSSIBLE_VALUE, MISSING_KEY, SYNTAX, UNKNOWN_KEY, WRONG_TYPE};
use crate::diag::{Diagnostic, Label};
use crate::source::Places;
use crate::units::parse_size;

/// Longest text that is read at all, in bytes: a board or profile is a page, not a megabyte.
pub const MAX_TEXT: usize = 1 << 20;

/// What reading one file collects: its diagnostics and the places of its values.
#[derive(Debug)]
pub struct Collected {
    file: String,
    diagnostics: RefCell<Vec<Diagnostic>>,
    places: RefCell<Places>,
}

impl Collected {
    /// Nothing yet, for `file`.
    pub fn new(file: &str) -> Self {
        Self { file: file.to_owned(), diagnostics: RefCell::new(Vec::new()), places: RefCell::new(Places::new(file)) }
    }

    /// Name of the file.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Adds a diagnostic.
    pub fn report(&self, diagnostic: Diagnostic) {
        self.diagnostics.borrow_mut().push(diagnostic);
    }

    /// A place in this file.
    pub fn label(&self, range: Range<usize>, text: impl Into<String>) -> Label {
        Label::at(self.file.clone(), range, text)
    }

    /// The place of a value that has been read, by its path.
    pub fn label_of(&self, path: &str, text: impl Into<String>) -> Label {
        self.places.borrow().label(path, text)
    }

    /// Remembers where `path` stands.
    pub fn place(&self, path: &str, range: Range<usize>) {
        self.places.borrow_mut().set(path, range);
    }

    /// Everything collected.
    pub fn into_parts(self) -> (Places, Vec<Diagnostic>) {
        (self.places.into_inner(), self.diagnostics.into_inner())
    }
}

/// Parses `text` and reads its root table with `read`.
///
/// Returns what `read` returned, with every place and every diagnostic; `None` when the text is not
/// TOML at all.
pub fn read_document<T>(
    file: &str,
    text: &str,
    read: impl FnOnce(&mut Table<'_>) -> Option<T>,
) -> (Option<T>, Places, Vec<Diagnostic>) {
    let collected = Collected::new(file);
    if text.len() > MAX_TEXT {
        collected.report(Diagnostic::error(
            SYNTAX,
            format!("{file} has {} bytes; a board or profile has at most {MAX_TEXT}", text.len()),
        ));
        let (places, diagnostics) = collected.into_parts();
        return (None, places, diagnostics);
    }
    let (root, errors) = DeTable::parse_recoverable(text);
    let broken = !errors.is_empty();
    for error in errors {
        let range = error.span().unwrap_or(0..0);
        collected.report(
            Diagnostic::error(SYNTAX, format!("{file} is not valid TOML: {}", error.message()))
                .primary(collected.label(range, "here")),
        );
    }
    let value = if broken {
        // What a broken text seems to say would only add false complaints.
        None
    } else {
        let mut table = Table::new(&collected, String::new(), root.get_ref(), 0..text.len().min(1));
        let value = read(&mut table);
        table.finish();
        value
    };
    let (places, diagnostics) = collected.into_parts();
    (value, places, diagnostics)
}

/// One table under reading.
pub struct Table<'a> {
    collected: &'a Collected,
    path: String,
    entries: &'a DeTable<'a>,
    range: Range<usize>,
    known: Vec<&'static str>,
}

/// A value with the place where it stands.
#[derive(Clone, Debug)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Its byte range in the file.
    pub range: Range<usize>,
}

impl<'a> Table<'a> {
    fn new(collected: &'a Collected, path: String, entries: &'a DeTable<'a>, range: Range<usize>) -> Self {
        Self { collected, path, entries, range, known: Vec::new() }
    }

    /// The collector, for diagnostics of the caller's own.
    pub fn collected(&self) -> &'a Collected {
        self.collected
    }

    /// Where the table stands.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// Names the table in the places: values read from now on are found under `path`.
    pub fn rename(&mut self, path: &str) {
        path.clone_into(&mut self.path);
        self.collected.place(path, self.range.clone());
    }

    /// The path of `key` in this table.
    pub fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}/{key}", self.path) }
    }

    fn get(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.known.push(key);
        let value = self.entries.get(key)?;
        self.collected.place(&self.path_of(key), value.span());
        Some(value)
    }

    fn wrong_type(&self, key: &str, value: &Spanned<DeValue<'_>>, wanted: &str) {
        self.collected.report(
            Diagnostic::error(
                WRONG_TYPE,
                format!("`{key}` must be {wanted}, not {}", article(value.get_ref().type_str())),
            )
            .primary(self.collected.label(value.span(), format!("expected {wanted}"))),
        );
    }

    /// Complains about the value of `key` at `range`.
    pub fn impossible(&self, range: Range<usize>, message: impl Into<String>, help: impl Into<String>) {
        self.collected.report(
            Diagnostic::error(IMPOSSIBLE_VALUE, message).primary(self.collected.label(range, "this value")).help(help),
        );
    }

    /// Complains that `key` is absent if it is; passes its value through.
    pub fn required<T>(&self, key: &str, value: Option<T>) -> Option<T> {
        if value.is_none() && !self.entries.contains_key(key) {
            let place = if self.path.is_empty() { self.collected.file.clone() } else { format!("`{}`", self.path) };
            self.collected.report(
                Diagnostic::error(MISSING_KEY, format!("{place} needs the key `{key}`"))
                    .primary(self.collected.label(self.range.clone(), format!("`{key}` is missing here"))),
            );
        }
        value
    }

    /// A string.
    pub fn string(&mut self, key: &'static str) -> Option<At<String>> {
        let value = self.get(key)?;
        match value.get_ref().as_str() {
            Some(text) => Some(At { value: text.to_owned(), range: value.span() }),
            None => {
                self.wrong_type(key, value, "a string");
                None
            }
        }
    }

    /// A truth value.
    pub fn boolean(&mut self, key: &'static str) -> Option<At<bool>> {
        let value = self.get(key)?;
        match value.get_ref().as_bool() {
            Some(truth) => Some(At { value: truth, range: value.span() }),
            None => {
                self.wrong_type(key, value, "`true` or `false`");
                None
            }
        }
    }

    /// A name: `[a-z0-9][a-z0-9-]*`, at most 32 characters, so that it can be a file name, a node name
    /// and a word of a script.
    pub fn name(&mut self, key: &'static str) -> Option<At<String>> {
        let name = self.string(key)?;
        if is_name(&name.value) {
            return Some(name);
        }
        self.impossible(
            name.range,
            format!("`{}` is no name", name.value.escape_debug()),
            "a name has 1 to 32 of the characters a-z, 0-9 and -, and does not begin with -",
        );
        None
    }

    /// An integer from 0 to `max`.
    pub fn integer(&mut self, key: &'static str, max: u64) -> Option<At<u64>> {
        let value = self.get(key)?;
        self.integer_value(key, value, max)
    }

    fn integer_value(&self, key: &str, value: &Spanned<DeValue<'_>>, max: u64) -> Option<At<u64>> {
        let Some(integer) = value.get_ref().as_integer() else {
            self.wrong_type(key, value, "an integer");
            return None;
        };
        match u64::from_str_radix(integer.as_str().trim_start_matches('+'), integer.radix()) {
            Ok(number) if number <= max => Some(At { value: number, range: value.span() }),
            _ => {
                self.impossible(
                    value.span(),
                    format!("`{key}` is out of range"),
                    format!("it lies between 0 and {max} ({max:#x})"),
                );
                None
            }
        }
    }

    /// A physical address; at most 36 bits (e500mc RM §2.1).
    pub fn address(&mut self, key: &'static str) -> Option<At<u64>> {
        self.integer(key, (1 << 36) - 1)
    }

    /// A size in bytes: an integer, or a string such as `"16 MiB"`. Zero is refused.
    pub fn size(&mut self, key: &'static str) -> Option<At<u64>> {
        let value = self.get(key)?;
        let size = if let Some(text) = value.get_ref().as_str() {
            match parse_size(text) {
                Some(bytes) => At { value: bytes, range: value.span() },
                None => {
                    self.impossible(
                        value.span(),
                        format!("`{}` is no size", text.escape_debug()),
                        "write a number of bytes, or a whole number with KiB, MiB or GiB, such as \"16 MiB\"",
                    );
                    return None;
                }
            }
        } else if value.get_ref().is_integer() {
            self.integer_value(key, value, 1 << 36)?
        } else {
            self.wrong_type(key, value, "a size (\"16 MiB\", or a number of bytes)");
            return None;
        };
        if size.value == 0 || size.value > 1 << 36 {
            self.impossible(size.range, format!("`{key}` is out of range"), "a size lies between 1 byte and 64 GiB");
            return None;
        }
        Some(size)
    }

    /// `true` or `false`; `false` when it is left out.
    pub fn flag(&mut self, key: &'static str) -> bool {
        let Some(value) = self.get(key) else { return false };
        value.get_ref().as_bool().unwrap_or_else(|| {
            self.wrong_type(key, value, "true or false");
            false
        })
    }

    /// A list of names.
    pub fn names(&mut self, key: &'static str) -> Option<Vec<At<String>>> {
        let value = self.get(key)?;
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(key, value, "a list of names");
            return None;
        };
        let mut names = Vec::new();
        for (index, item) in array.iter().enumerate() {
            self.collected.place(&format!("{}/{index}", self.path_of(key)), item.span());
            match item.get_ref().as_str() {
                Some(text) => names.push(At { value: text.to_owned(), range: item.span() }),
                None => self.wrong_type(key, item, "a list of names"),
            }
        }
        Some(names)
    }

    /// A list of texts and tables: `text` reads the one, `table` the other. What either refuses is left out.
    pub fn mixed<T>(
        &mut self,
        key: &'static str,
        mut text: impl FnMut(&Self, At<String>) -> Option<T>,
        mut table: impl FnMut(&mut Table<'a>) -> Option<T>,
    ) -> Vec<T> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(key, value, "a list");
            return Vec::new();
        };
        let mut items = Vec::new();
        for (index, item) in array.iter().enumerate() {
            let path = format!("{}/{index}", self.path_of(key));
            self.collected.place(&path, item.span());
            if let Some(value) = item.get_ref().as_str() {
                items.extend(text(self, At { value: value.to_owned(), range: item.span() }));
            } else if let Some(entries) = item.get_ref().as_table() {
                let mut inner = Table::new(self.collected, path, entries, item.span());
                items.extend(table(&mut inner));
                inner.finish();
            } else {
                self.wrong_type(key, item, "a list of texts or tables");
            }
        }
        items
    }

    /// A table of texts under keys of the user's own.
    pub fn texts(&mut self, key: &'static str) -> Option<Vec<(At<String>, At<String>)>> {
        let value = self.get(key)?;
        let Some(entries) = value.get_ref().as_table() else {
            self.wrong_type(key, value, "a table");
            return None;
        };
        let mut texts = Vec::new();
        for (own, value) in entries {
            let own = At { value: own.get_ref().to_string(), range: own.span() };
            self.collected.place(&format!("{}/{}", self.path_of(key), own.value), own.range.clone());
            match value.get_ref().as_str() {
                Some(text) => texts.push((own, At { value: text.to_owned(), range: value.span() })),
                None => self.wrong_type(&own.value, value, "a text"),
            }
        }
        Some(texts)
    }

    /// Whether the value of `key` is a text.
    pub fn is_text(&self, key: &str) -> bool {
        self.entries.get(key).is_some_and(|value| value.get_ref().is_str())
    }

    /// Reads a sub-table with `read`; its unknown keys are reported.
    pub fn table<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Table<'a>) -> Option<T>) -> Option<T> {
        let value = self.get(key)?;
        let Some(entries) = value.get_ref().as_table() else {
            self.wrong_type(key, value, "a table");
            return None;
        };
        let mut table = Table::new(self.collected, self.path_of(key), entries, value.span());
        let read = read(&mut table);
        table.finish();
        read
    }

    /// Reads each table of an array of tables with `read`; those that it refuses are left out.
    pub fn tables<T>(&mut self, key: &'static str, mut read: impl FnMut(&mut Table<'a>) -> Option<T>) -> Vec<T> {
        let Some(value) = self.get(key) else {
            return Vec::new();
        };
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(key, value, "a list of tables");
            return Vec::new();
        };
        let mut items = Vec::new();
        for (index, item) in array.iter().enumerate() {
            let Some(entries) = item.get_ref().as_table() else {
                self.wrong_type(key, item, "a list of tables");
                continue;
            };
            let path = format!("{}/{index}", self.path_of(key));
            self.collected.place(&path, item.span());
            let mut table = Table::new(self.collected, path, entries, item.span());
            items.extend(read(&mut table));
            table.finish();
        }
        items
    }

    /// Reports the keys that were never asked for.
    fn finish(&self) {
        for key in self.entries.keys() {
            let name: &str = key.get_ref();
            if self.known.contains(&name) {
                continue;
            }
            let mut diagnostic = Diagnostic::error(UNKNOWN_KEY, format!("unknown key `{}`", name.escape_debug()))
                .primary(self.collected.label(key.span(), "nothing reads this key"));
            diagnostic.help = Some(match nearest(name, self.known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known keys here: {}", self.known.join(", ")),
            });
            self.collected.report(diagnostic);
        }
    }
}

/// Whether `text` is a name: see [`Table::name`].
pub fn is_name(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && !text.starts_with('-')
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// The candidate that `word` is probably a misspelling of.
pub fn nearest<'c>(word: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    // Only the first part of a long word is compared: the input is hostile and the measure quadratic.
    let word: String = word.chars().take(40).collect::<String>().to_lowercase().replace('_', "-");
    candidates
        .map(|candidate| (strsim::jaro_winkler(&word, candidate), candidate))
        .filter(|(score, _)| *score > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

fn article(type_name: &str) -> String {
    let vowel = type_name.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {type_name}", if vowel { "an" } else { "a" })
}
