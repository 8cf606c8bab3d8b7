//! Where a brace is missing: the text says it only at its end, but the nodes and their indentation say it earlier.

use std::ops::Range;

use super::cursor::Cursor;
use super::{BRACES, Item, Node};
use crate::diag::{Diagnostic, Label};

/// Complains of a block that does not end.
pub(super) fn unclosed(cursor: &mut Cursor<'_>, opened: Range<usize>) {
    let label = cursor.label(opened, "this node");
    complain(cursor, "a node is not closed", label, None);
}

fn complain(cursor: &mut Cursor<'_>, what: &str, node: Label, next: Option<Label>) {
    let diagnostic = Diagnostic::error(BRACES, format!("{what}: a closing brace is missing")).primary(node);
    let diagnostic = match next {
        Some(next) => diagnostic.related(next).help("write `};` in front of the node that follows"),
        None => diagnostic.help("write `};` where it ends"),
    };
    cursor.report(diagnostic);
}

/// Moves what a missing brace has put into the wrong node behind that node, and says so.
pub(super) fn repair(root: &mut Node, cursor: &mut Cursor<'_>, open: &[Range<usize>]) {
    let lines = lines(cursor.text);
    let mut missing = open.len();
    let column = |at: usize| {
        let line = lines.partition_point(|start| *start <= at).saturating_sub(1);
        at - lines.get(line).copied().unwrap_or(0)
    };
    let mut moved = Vec::new();
    // A partition in a partition is wrong whatever the indentation says.
    sort_out(root, &mut |node, inner| node.is("partition") && inner.is("partition"), &mut moved, usize::MAX);
    let rest = missing.saturating_sub(moved.len());
    sort_out(root, &mut |node, inner| column(inner.range.start) <= column(node.range.start), &mut moved, rest);
    missing = missing.saturating_sub(moved.len());
    for (name, node, next) in moved {
        let what = format!("{} is not closed", name.escape_debug());
        let (node, next) = (cursor.label(node, "this node"), cursor.label(next, "begins inside of it"));
        complain(cursor, &what, node, Some(next));
    }
    // Of blocks in blocks, the inner ones end first: the outer ones lack the braces.
    for opened in open.iter().rev().take(missing) {
        unclosed(cursor, opened.clone());
    }
}

/// Where each line begins.
fn lines(text: &str) -> Vec<usize> {
    std::iter::once(0)
        .chain(text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1))
        .collect()
}

/// A node that was not closed: its name and place, and the place of what follows it.
type Moved = (String, Range<usize>, Range<usize>);

/// Moves items out of the nodes in `parent`, from the first node on that does not belong there; at most `budget` times.
fn sort_out(
    parent: &mut Node,
    is_foreign: &mut dyn FnMut(&Node, &Node) -> bool,
    moved: &mut Vec<Moved>,
    mut budget: usize,
) {
    let mut items = Vec::new();
    let mut waiting: Vec<Item> = std::mem::take(&mut parent.items);
    waiting.reverse();
    while let Some(item) = waiting.pop() {
        let Item::Node(mut node) = item else {
            items.push(item);
            continue;
        };
        if budget > 0 {
            let foreign = node.items.iter().position(|inner| match inner {
                Item::Node(inner) => is_foreign(&node, inner),
                Item::Property(_) => false,
            });
            if let Some(at) = foreign {
                let out = node.items.split_off(at);
                let next = out.first().map_or(0..0, |item| match item {
                    Item::Node(node) => node.range.clone(),
                    Item::Property(property) => property.range.clone(),
                });
                moved.push((node.name.clone(), node.range.clone(), next));
                waiting.extend(out.into_iter().rev());
                budget -= 1;
            }
        }
        let before = moved.len();
        sort_out(&mut node, is_foreign, moved, budget);
        budget = budget.saturating_sub(moved.len() - before);
        items.push(Item::Node(node));
    }
    parent.items = items;
}
