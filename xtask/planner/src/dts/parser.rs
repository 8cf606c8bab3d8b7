//! From text to nodes and properties, with recovery behind every mistake.
//!
//! Statements are told apart by their first word and what follows it, so that a line of prose is passed over alone
//! and the next line is source again.

use std::collections::BTreeMap;
use std::ops::Range;

use super::cursor::Cursor;
use super::value::values;
use super::{
    BRACES, DIRECTIVE, Item, MAX_DEPTH, MAX_ITEMS, MAX_NAME, MAX_TEXT, Node, PUNCTUATION, Property, REFERENCE,
    Reference, TOO_LARGE, Tree, braces,
};
use crate::diag::{Diagnostic, Label};

/// What may stand in the text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A file: directives, root blocks, or a fragment.
    File,
    /// What stands between two braces.
    Inside,
}

/// Most labels of one node that are read.
const MAX_LABELS: usize = 8;

struct Parser<'t> {
    cursor: Cursor<'t>,
    form: Form,
    /// Blocks that the text ends in.
    unclosed: Vec<Range<usize>>,
    /// Nodes, properties and directives so far.
    count: usize,
}

/// Reads a file of device tree source: several root blocks and blocks of labelled nodes become one tree.
pub fn parse(file: &str, text: &str) -> (Tree, Vec<Diagnostic>) {
    if let Some(refused) = too_long(file, text) {
        return (Tree::default(), vec![refused]);
    }
    let mut parser = Parser { cursor: Cursor::new(file, text, 0), form: Form::File, unclosed: Vec::new(), count: 0 };
    let mut tree = parser.file();
    parser.cursor.finish();
    braces::repair(&mut tree.root, &mut parser.cursor, &parser.unclosed);
    references(&tree, &mut parser.cursor);
    let mut found = parser.cursor.found;
    found.sort_by_key(|d| d.primary.as_ref().and_then(|label| label.range.clone()).map_or(0, |range| range.start));
    (tree, found)
}

/// Reads nodes and properties as they stand between the braces of a node: no directives, no other root.
///
/// The text begins at byte `offset` of `file`, so that places are the file's.
pub fn parse_fragment(file: &str, text: &str, offset: usize) -> (Vec<Item>, Vec<Diagnostic>) {
    if let Some(refused) = too_long(file, text) {
        return (Vec::new(), vec![refused]);
    }
    let mut parser =
        Parser { cursor: Cursor::new(file, text, offset), form: Form::Inside, unclosed: Vec::new(), count: 0 };
    let mut items = Vec::new();
    loop {
        items.extend(parser.block(1));
        if parser.cursor.peek().is_none() {
            break;
        }
        parser.surplus();
    }
    parser.cursor.finish();
    for range in std::mem::take(&mut parser.unclosed) {
        braces::unclosed(&mut parser.cursor, range);
    }
    (items, parser.cursor.found)
}

fn too_long(file: &str, text: &str) -> Option<Diagnostic> {
    (text.len() > MAX_TEXT).then(|| {
        let message = format!("{file} has {} bytes; at most {MAX_TEXT} are read", text.len());
        Diagnostic::error(TOO_LARGE, message)
            .primary(Label::file(file, "this text"))
            .help("a configuration tree has some ten thousand bytes: is this the right file?")
    })
}

impl Parser<'_> {
    fn file(&mut self) -> Tree {
        let mut tree = Tree::default();
        loop {
            self.cursor.skip_blank();
            let start = self.cursor.at;
            match self.cursor.peek() {
                None => return tree,
                Some(b'}') => self.surplus(),
                Some(b'/') if self.takes_root() => {
                    self.cursor.flush();
                    if tree.root.range.is_empty() {
                        tree.root.range = self.cursor.in_file(start..start + 1);
                    }
                    let items = self.braced(start..start + 1, 1);
                    tree.root.merge(items);
                }
                Some(b'&') => self.labelled(&mut tree.root),
                Some(_) => {
                    if let Some(item) = self.statement(0, &mut tree.root.items) {
                        tree.is_fragment = true;
                        tree.root.items.push(item);
                    }
                }
            }
        }
    }

    /// Takes `/ {`.
    fn takes_root(&mut self) -> bool {
        let start = self.cursor.at;
        self.cursor.take(b'/');
        self.cursor.skip_blank();
        let is_root = self.cursor.take(b'{');
        if !is_root {
            self.cursor.at = start;
        }
        is_root
    }

    /// `&label { ... };`: more of a node that there is already.
    fn labelled(&mut self, root: &mut Node) {
        let start = self.cursor.at;
        self.cursor.take(b'&');
        let reference = if self.cursor.take(b'{') {
            let path = self.cursor.take_while(|byte| byte.is_ascii_graphic() && byte != b'}').to_owned();
            self.cursor.take(b'}');
            Reference::Path(path)
        } else {
            Reference::Label(self.cursor.word().to_owned())
        };
        let range = start..self.cursor.at;
        self.cursor.skip_blank();
        if !self.cursor.take(b'{') {
            self.cursor.at = start;
            return self.pass_over();
        }
        let items = self.braced(range.clone(), 2);
        match find_mut(root, &reference) {
            Some(node) => node.merge(items),
            None => unknown(&mut self.cursor, range, &reference),
        }
    }

    /// The items up to a closing brace or the end, neither of which is taken.
    fn block(&mut self, depth: usize) -> Vec<Item> {
        let mut items = Vec::new();
        loop {
            self.cursor.skip_blank();
            if matches!(self.cursor.peek(), None | Some(b'}')) {
                self.cursor.flush();
                return items;
            }
            if let Some(item) = self.statement(depth, &mut items) {
                items.push(item);
            }
        }
    }

    /// What follows an opening brace, up to and with `};`. `opened` is what the block belongs to.
    fn braced(&mut self, opened: Range<usize>, depth: usize) -> Vec<Item> {
        let items = if depth > MAX_DEPTH {
            let message = format!("nodes are nested deeper than {MAX_DEPTH} levels");
            self.cursor.complain(TOO_LARGE, opened.clone(), message, "no reader of compiled trees goes deeper");
            self.skip_block();
            Vec::new()
        } else {
            self.block(depth)
        };
        if !self.cursor.take(b'}') {
            self.unclosed.push(opened);
            return items;
        }
        let end = self.cursor.at;
        self.cursor.skip_blank();
        if !self.cursor.take(b';') {
            self.cursor.semicolon(end);
        }
        items
    }

    /// Goes to the brace that closes this block.
    fn skip_block(&mut self) {
        let mut open = 1usize;
        while let Some(byte) = self.cursor.peek() {
            match byte {
                b'{' => open += 1,
                b'}' => open -= 1,
                _ => {}
            }
            if open == 0 {
                return;
            }
            self.cursor.at += 1;
        }
    }

    /// A closing brace that closes nothing.
    fn surplus(&mut self) {
        let at = self.cursor.at;
        self.cursor.take(b'}');
        self.cursor.complain(BRACES, at..at + 1, "a closing brace closes nothing", "remove it, or open what it closes");
        self.cursor.skip_blank();
        self.cursor.take(b';');
    }

    /// A property, a node, or a directive about what `items` holds already; none if it is something else, which is
    /// passed over.
    fn statement(&mut self, depth: usize, items: &mut Vec<Item>) -> Option<Item> {
        let start = self.cursor.at;
        self.count += 1;
        if self.count > MAX_ITEMS {
            self.give_up();
            return None;
        }
        if self.cursor.peek() == Some(b'/') {
            self.directive(depth, items);
            return None;
        }
        let mut labels = Vec::new();
        let (name, name_range) = loop {
            let from = self.cursor.at;
            let word = self.cursor.word().to_owned();
            let range = from..self.cursor.at;
            let end = self.cursor.at;
            self.cursor.take_while(|byte| byte == b' ' || byte == b'\t');
            if !is_label(&word) || self.cursor.peek() != Some(b':') || labels.len() >= MAX_LABELS {
                self.cursor.at = end;
                break (word, range);
            }
            self.cursor.at += 1;
            let blank = end + 1 != self.cursor.at;
            labels.push(word);
            self.cursor.skip_blank();
            // What stands behind the colon shows whether it is one of a label or of prose.
            if blank && self.is_name_of_node() {
                let help = "write `label: name {`";
                self.cursor.complain(PUNCTUATION, range, "a label is apart from its colon", help);
            }
        };
        let end = self.cursor.at;
        self.cursor.skip_blank();
        let is_alone = self.cursor.is_later_line(end) || self.cursor.peek().is_none();
        let is_word = (1..=MAX_NAME).contains(&name.len()) && name.bytes().any(|byte| byte.is_ascii_alphabetic());
        match self.cursor.peek() {
            _ if !is_word => {}
            Some(b'{') => {
                self.cursor.flush();
                self.cursor.at += 1;
                let opened = start..name_range.end;
                let items = self.braced(opened.clone(), depth.max(1) + 1);
                return Some(Item::Node(Node { name, labels, items, range: self.cursor.in_file(opened) }));
            }
            Some(b'=') if self.cursor.peek_at(1) != Some(b'>') => {
                self.cursor.flush();
                self.cursor.at += 1;
                let (values, end) = values(&mut self.cursor)?;
                self.end_of_property(end);
                let range = self.cursor.in_file(name_range.start..end);
                return Some(Item::Property(Property { name, values, range }));
            }
            Some(b';') => {
                self.cursor.flush();
                self.cursor.at += 1;
                let range = self.cursor.in_file(name_range);
                return Some(Item::Property(Property { name, values: Vec::new(), range }));
            }
            // One word alone on its line, inside a node: a property whose semicolon is missing.
            next if depth > 0 && labels.is_empty() && (is_alone || next == Some(b'}')) && !name.contains("...") => {
                self.cursor.semicolon(end);
                let range = self.cursor.in_file(name_range);
                return Some(Item::Property(Property { name, values: Vec::new(), range }));
            }
            _ => {}
        }
        self.cursor.at = start;
        self.pass_over();
        None
    }

    /// Stops reading: more is no configuration tree.
    fn give_up(&mut self) {
        let at = self.cursor.at;
        self.cursor.at = self.cursor.text.len();
        self.cursor.skip_blank();
        let message = format!("more than {MAX_ITEMS} nodes and properties");
        self.cursor.complain(
            TOO_LARGE,
            at..at,
            message,
            "a configuration tree has some hundreds: is this the right file?",
        );
    }

    /// Whether a word and an opening brace are next.
    fn is_name_of_node(&mut self) -> bool {
        let at = self.cursor.at;
        let is_word = !self.cursor.word().is_empty();
        self.cursor.skip_blank();
        let opens = self.cursor.peek() == Some(b'{');
        self.cursor.at = at;
        is_word && opens
    }

    /// The semicolon behind a value that ended at `end`.
    fn end_of_property(&mut self, end: usize) {
        self.cursor.skip_blank();
        if self.cursor.take(b';') {
            return;
        }
        self.cursor.semicolon(end);
        if !self.cursor.is_later_line(end) {
            let rest = &self.cursor.text.as_bytes()[self.cursor.at..];
            let stop = rest.iter().position(|byte| b";}\n".contains(byte)).unwrap_or(rest.len());
            self.cursor.at += stop;
            self.cursor.take(b';');
        }
    }

    /// Passes over what is no source: the line, up to a word that opens a node, or a closing brace.
    fn pass_over(&mut self) {
        let start = self.cursor.at;
        let rest = &self.cursor.text.as_bytes()[start..];
        let stop = rest.iter().skip(1).position(|byte| b"\n{}".contains(byte)).map_or(rest.len(), |at| at + 1);
        let mut end = start + stop;
        if rest.get(stop) == Some(&b'{') {
            let before = self.cursor.text[start..end].trim_end_matches([' ', '\t']);
            let word = before.bytes().rev().take_while(|byte| byte.is_ascii_alphanumeric() || b"_-@,".contains(byte));
            let word = word.count();
            if word > 0 && word < before.len() {
                end = start + before.len() - word;
            } else {
                end += 1;
            }
        }
        let end = self.cursor.text.ceil_char_boundary(end);
        self.cursor.at = end;
        self.cursor.junk(start..end);
    }

    fn directive(&mut self, depth: usize, items: &mut Vec<Item>) {
        let start = self.cursor.at;
        if self.takes_root() {
            let help = "nodes and properties stand inside of one root";
            self.cursor.complain(BRACES, start..start + 1, "a root begins inside of a node", help);
            self.braced(start..start + 1, depth.max(1) + 1);
            return;
        }
        self.cursor.at += 1;
        let name = self.cursor.word().to_owned();
        if name.is_empty() || !self.cursor.take(b'/') {
            self.cursor.at = start;
            return self.pass_over();
        }
        self.cursor.flush();
        let range = start..self.cursor.at;
        let rest = &self.cursor.text.as_bytes()[self.cursor.at..];
        let stop = rest.iter().position(|byte| b";{}\n".contains(byte)).unwrap_or(rest.len());
        let argument =
            self.cursor.text.get(self.cursor.at..self.cursor.at + stop).unwrap_or_default().trim().to_owned();
        self.cursor.at += stop;
        self.cursor.take(b';');
        match (self.form, name.as_str()) {
            (Form::File, "dts-v1" | "memreserve") => {}
            (Form::File, "delete-node") => {
                items.retain(|item| !matches!(item, Item::Node(node) if node.name == argument));
            }
            (Form::File, "delete-property") => {
                items.retain(|item| !matches!(item, Item::Property(property) if property.name == argument));
            }
            (Form::File, "include" | "incbin") => {
                let help = "run the preprocessor or dtc first, and import what comes out (`dtc -I dts -O dtb`)";
                self.cursor.complain(DIRECTIVE, range, "no other file is read", help);
            }
            _ => {
                let message = format!("the directive /{name}/ has no place here");
                self.cursor.complain(DIRECTIVE, range, message, "write nodes and properties only");
            }
        }
    }
}

/// Whether the word can be a label.
fn is_label(word: &str) -> bool {
    !word.starts_with(|c: char| c.is_ascii_digit())
        && !word.is_empty()
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn find_mut<'n>(node: &'n mut Node, reference: &Reference) -> Option<&'n mut Node> {
    match reference {
        Reference::Path(path) => path.split('/').filter(|part| !part.is_empty()).try_fold(node, |node, part| {
            node.items.iter_mut().find_map(|item| match item {
                Item::Node(child) if child.name == part => Some(child),
                _ => None,
            })
        }),
        Reference::Label(label) if node.labels.contains(label) => Some(node),
        Reference::Label(_) => node.items.iter_mut().find_map(|item| match item {
            Item::Node(child) => find_mut(child, reference),
            Item::Property(_) => None,
        }),
    }
}

fn unknown(cursor: &mut Cursor<'_>, range: Range<usize>, reference: &Reference) {
    let what = match reference {
        Reference::Label(label) => format!("no node has the label {}", label.escape_debug()),
        Reference::Path(path) => format!("there is no node {}", path.escape_debug()),
    };
    cursor.complain(REFERENCE, range, what, "correct the name, or add the node that is meant");
}

/// Complains of labels that two nodes have, and of references to nodes that there are not. In a fragment the
/// missing ones may stand elsewhere.
fn references(tree: &Tree, cursor: &mut Cursor<'_>) {
    let mut labels: BTreeMap<&str, Range<usize>> = BTreeMap::new();
    let mut twice = Vec::new();
    tree.root.walk("", &mut |_, node| {
        for label in &node.labels {
            if let Some(first) = labels.insert(label, node.range.clone()) {
                twice.push((label, first, node.range.clone()));
            }
        }
    });
    for (label, first, second) in twice {
        let (first, second) = (cursor.label(first, "the first"), cursor.label(second, "the second"));
        let diagnostic = Diagnostic::error(REFERENCE, format!("two nodes have the label {label}"));
        cursor.report(diagnostic.primary(second).related(first).help("give one of them another label"));
    }
    if tree.is_fragment {
        return;
    }
    let mut missing = Vec::new();
    tree.root.walk("", &mut |_, node| {
        for property in node.properties() {
            for reference in property.references() {
                let known = match reference {
                    Reference::Label(label) => labels.contains_key(label.as_str()),
                    Reference::Path(path) => tree.root.at(path).is_some(),
                };
                if !known {
                    missing.push((property.range.clone(), reference.clone()));
                }
            }
        }
    });
    for (range, reference) in missing {
        unknown(cursor, range, &reference);
    }
}
