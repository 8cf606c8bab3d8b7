//! Tests of the reader, the normal form, and the comparison.

use proptest::prelude::*;

use super::{
    BRACES, DIRECTIVE, Item, MAX_DEPTH, NO_SOURCE, PUNCTUATION, REFERENCE, TOO_LARGE, Tree, VALUE, differences,
    from_blob, parse, parse_fragment, print, to_blob,
};
use crate::diag::{Code, Diagnostic};

const GOLDEN: [&str; 2] = [
    include_str!("../../../../tests/golden/p4080ds/two-linux/hv.dts"),
    include_str!("../../../../tests/golden/p4080ds/echo/hv.dts"),
];

/// Everything that source can hold.
const RICH: &str = r#"/dts-v1/;
# 1 "rich.dts"
/memreserve/ 0x1000 0x2000;
/ { // root
	compatible = "a", "b\x41\n\"";	/* two */
	empty;
	one: first@1 { x = l: <1 0x2 (3 + 4 * (1 << 2)) 'A' &one &{/first@1} (-1)>; };
	bytes = [00 ff 12ab];
	eight = /bits/ 8 <1 0xff>;
	path = &one, "tail";
	/delete-property/ empty;
};
&one { y; };
/ { first@1 { z = <(1 ? 2 : 3)>; }; };
"#;

fn codes(found: &[Diagnostic]) -> Vec<Code> {
    found.iter().map(|d| d.code).collect()
}

fn places<'t>(text: &'t str, found: &[Diagnostic]) -> Vec<&'t str> {
    found.iter().map(|d| &text[d.primary.clone().unwrap().range.unwrap()]).collect()
}

fn good(text: &str) -> Tree {
    let (tree, found) = parse("t.dts", text);
    assert!(found.is_empty(), "{found:#?}");
    tree
}

fn same(a: &Tree, b: &Tree) {
    assert_eq!(differences(("one", a), ("the other", b), 5), [""; 0]);
}

fn printed(tree: &Tree) -> String {
    format!("/dts-v1/;\n/ {{\n{}}};\n", print(&tree.root.items, 1))
}

#[test]
fn what_is_printed_and_compiled_is_the_same_tree() {
    for text in GOLDEN.into_iter().chain([RICH]) {
        let tree = good(text);
        let again = good(&printed(&tree));
        same(&tree, &again);
        assert_eq!(printed(&again), printed(&tree));
        same(&tree, &from_blob(&to_blob(&tree).unwrap()).unwrap());
    }
}

#[test]
fn values_are_what_the_specification_says() {
    let tree = good(RICH);
    let root = &tree.root;
    assert_eq!(root.property("compatible").unwrap().bytes().unwrap(), b"a\0bA\n\"\0");
    assert!(root.property("empty").is_none());
    assert_eq!(root.property("bytes").unwrap().bytes().unwrap(), [0, 0xff, 0x12, 0xab]);
    assert_eq!(root.property("eight").unwrap().bytes().unwrap(), [1, 0xff]);
    let first = root.node("first@1").unwrap();
    assert!(first.property("y").is_some());
    assert_eq!(first.property("z").unwrap().numbers().unwrap(), [2]);
    let blob = from_blob(&to_blob(&tree).unwrap()).unwrap();
    let x = blob.root.node("first@1").unwrap().property("x").unwrap().numbers().unwrap();
    assert_eq!(x, [1, 2, 19, 65, 1, 1, u32::MAX]);
    assert_eq!(blob.root.property("path").unwrap().texts(), ["/first@1", "tail"]);
}

#[test]
fn every_mistake_is_named_where_it_stands_and_reading_goes_on() {
    let cases: [(&str, Code, &str); 17] = [
        ("/ { a = <1>; Some words of prose. \n b; };", NO_SOURCE, "Some words of prose. "),
        ("/ { a;\n```\n b; };", NO_SOURCE, "```"),
        ("/ { a;\n... ...\n b; };", NO_SOURCE, "... ..."),
        ("/ { a = <1>\n b; };", PUNCTUATION, ">"),
        ("/ { a\n b; };", PUNCTUATION, "a"),
        ("/ { b; x { } };", PUNCTUATION, "}"),
        ("/ { b; l : x { }; };", PUNCTUATION, "l"),
        ("/ { a = <1;\n b; };", VALUE, "<"),
        ("/ { a = \"x;\n b; };", VALUE, "\"x;"),
        ("/ { a = [1];\n b; };", VALUE, "[1"),
        ("/ { a = <0x1ffffffff>;\n b; };", VALUE, "f"),
        ("/ { a = <z>;\n b; };", VALUE, "z"),
        ("/ { a = <(1 / 0)>;\n b; };", VALUE, "(1 / 0"),
        ("/include/ \"x.dtsi\"\n/ { b; };", DIRECTIVE, "/include/"),
        ("/ { b; a = <&nobody>; };", REFERENCE, "a = <&nobody>"),
        ("/ { b; l: x { }; l: y { }; };", REFERENCE, "l: y"),
        ("/ { b; };\n};", BRACES, "}"),
    ];
    for (text, code, place) in cases {
        let (tree, found) = parse("t.dts", text);
        assert_eq!(codes(&found), [code], "{text}: {found:#?}");
        assert_eq!(places(text, &found), [place], "{text}");
        assert!(tree.root.property("b").is_some(), "{text}: {tree:#?}");
    }
}

#[test]
fn a_missing_brace_is_found_where_it_is_missing() {
    let partition = |body: &str| format!("\tcompatible = \"partition\";\n{body}");
    let text = format!("/ {{\np1 {{\n{}p2 {{\n{}}};\n}};\n", partition(""), partition(""));
    let (tree, found) = parse("t.dts", &text);
    assert_eq!((codes(&found), places(&text, &found)), (vec![BRACES], vec!["p1"]), "{found:#?}");
    assert!(tree.root.node("p1").is_some() && tree.root.node("p2").is_some());

    let text = "/ {\n\ta {\n\t\tx;\n\tb {\n\t\ty;\n\t};\n};\n";
    let (tree, found) = parse("t.dts", text);
    assert_eq!((codes(&found), places(text, &found)), (vec![BRACES], vec!["a"]), "{found:#?}");
    assert!(tree.root.node("b").unwrap().property("y").is_some());

    let (_, found) = parse("t.dts", "/ { a { x; }; ");
    assert_eq!(codes(&found), [BRACES]);
}

#[test]
fn a_fragment_has_nodes_and_properties_only() {
    let text = "no-dma-disable; node-update { x = <&l>; l: y { }; };";
    let (items, found) = parse_fragment("p.toml", text, 100);
    assert_eq!((items.len(), found.len()), (2, 0), "{found:#?}");
    let Item::Node(node) = &items[1] else { panic!("{items:?}") };
    assert_eq!(node.range, 116..127);
    assert_eq!(print(&items, 0), "no-dma-disable;\nnode-update {\n\tx = <&l>;\n\tl: y {\n\t};\n};\n");
    for (text, code) in [
        ("/include/ \"x\"", DIRECTIVE),
        ("/delete-node/ x;", DIRECTIVE),
        ("/dts-v1/;", DIRECTIVE),
        ("a = /incbin/(\"x\");", DIRECTIVE),
        ("};", BRACES),
        ("a {", BRACES),
        ("/ { };", BRACES),
        ("#include <x>\n", NO_SOURCE),
        ("&l { };", NO_SOURCE),
    ] {
        let (_, found) = parse_fragment("p.toml", text, 0);
        assert_eq!(found.first().map(|d| d.code), Some(code), "{text}: {found:#?}");
    }
}

#[test]
fn differences_are_said_and_phandles_and_order_are_none() {
    let one = good("/ { a = <1>; l: x { }; y { phys-mem = <&l>; text = \"v\"; }; };");
    let two = good("/ { y { text = \"v\"; phys-mem = <0x7>; }; x { phandle = <7>; }; a = <1>; };");
    same(&one, &two);
    let three = good("/ { a = <2>; x { }; z: z { }; y { phys-mem = <&z>; text = \"w\"; }; };");
    let said = differences(("one", &one), ("three", &three), 9);
    let expected = [
        "/: a is <0x1> in one and <0x2> in three",
        "/y: phys-mem is /x in one and /z in three",
        "/y: text is \"v\" in one and \"w\" in three",
        "/z is only in three",
    ];
    assert_eq!(said, expected);
    assert_eq!(differences(("one", &one), ("three", &three), 2).len(), 2);
}

#[test]
fn what_is_deep_long_or_hostile_is_refused_in_linear_time() {
    let deep = "a{".repeat(MAX_DEPTH + 100);
    assert!(codes(&parse("t", &deep).1).contains(&TOO_LARGE));
    for text in
        ["a{};", "a{", "x /*\n", "a:\n", "}", "\"", "a=<(", "((((", "&a{};", "/{};", "a=<&{/z}>;", "word ", "x\n"]
    {
        let long = format!("/ {{ {} }};", text.repeat((1 << 20) / text.len() - 4));
        let began = std::time::Instant::now();
        let (tree, found) = parse("t", &long);
        assert!(began.elapsed().as_secs() < 20, "{text} takes {:?}", began.elapsed());
        assert!(!found.is_empty(), "{text}");
        let _ = to_blob(&tree);
    }
    assert_eq!(codes(&parse("t", &" ".repeat(super::MAX_TEXT + 1)).1), [TOO_LARGE]);
}

proptest! {
    #[test]
    fn no_text_panics_and_what_is_read_prints_back(text in "[\\PC\n]{0,60}|([a-c/&{}<>;=\"#: \n\\[\\]()*,'1x.@-]|/\\*|\\*/|\\{a){0,60}") {
        let (tree, found) = parse("t", &text);
        for d in &found {
            let range = d.primary.clone().unwrap().range.unwrap();
            prop_assert!(text.get(range).is_some(), "{:?}", d);
        }
        let _ = parse_fragment("t", &text, 7);
        let _ = to_blob(&tree);
        let again = print(&tree.root.items, 0);
        let (items, more) = parse_fragment("t", &again, 0);
        prop_assert_eq!(&more, &[], "{}", again);
        prop_assert_eq!(print(&items, 0), again);
    }
}
