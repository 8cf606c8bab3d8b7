//! Device tree source from any text.
//!
//! Whatever it holds, there are diagnostics whose places lie in the text, and a tree; what is printed of the tree reads
//! back as the same, and compiled it is the same, too.

use citrine_planner::dts::{differences, from_blob, parse, parse_fragment, print, to_blob};

/// How many nodes and properties were read.
pub(crate) fn run(data: &[u8]) -> usize {
    let text = String::from_utf8_lossy(data);
    let (tree, found) = parse("input", &text);
    for diagnostic in &found {
        let places = diagnostic.primary.iter().chain(&diagnostic.related);
        for range in places.filter_map(|label| label.range.clone()) {
            assert!(text.get(range).is_some(), "a place outside the text: {diagnostic:?}");
        }
    }
    let _ = parse_fragment("input", &text, 0);
    let printed = print(&tree.root.items, 0);
    let (items, complaints) = parse_fragment("printed", &printed, 0);
    assert!(complaints.is_empty(), "the normal form is refused: {complaints:?}");
    assert_eq!(print(&items, 0), printed, "the normal form is not stable");
    // In a compiled tree, a number and a reference that became the same number cannot be told apart.
    let mut refers = false;
    tree.root
        .walk("", &mut |_, node| refers |= node.properties().any(|property| property.references().next().is_some()));
    if found.is_empty()
        && !refers
        && let Ok(blob) = to_blob(&tree)
        && let Ok(again) = from_blob(&blob)
    {
        let said = differences(("the source", &tree), ("the compiled tree", &again), 3);
        assert!(said.is_empty(), "compiling changes the tree: {said:?}");
    }
    tree.root.items.len()
}
