//! Colours and patterns: light, dark where the screen is, and light again on paper. Nothing is said by colour
//! alone: every region is named, and headroom, boot loader and conflicts have patterns.

use std::fmt::Write as _;

use crate::map::Owner;

/// Partitions have these colours in turn: fill and stroke in the light, fill and stroke in the dark.
const PARTITIONS: [[&str; 4]; 8] = [
    ["#cfe3f9", "#2b6cb0", "#1c3d61", "#7fb5ee"],
    ["#e6daf7", "#6b46c1", "#3b2d63", "#b99ff5"],
    ["#fbd5e0", "#b83260", "#5a2038", "#f291b2"],
    ["#c9eeea", "#23807a", "#164a47", "#6fd3cc"],
    ["#f3efb4", "#857a00", "#4a4610", "#d8cf5a"],
    ["#d8dcf5", "#434f9e", "#2b3266", "#9aa8f0"],
    ["#f5d0c5", "#a83a20", "#5a2a1c", "#f2a28c"],
    ["#eed3ee", "#8b3a8b", "#4a214a", "#e39ee3"],
];
/// Who else owns something, with a class.
const OTHERS: [(&str, [&str; 4]); 4] = [
    ("hv", ["#fbdfae", "#a86a12", "#5e4414", "#e6b155"]),
    ("boot", ["#dedede", "#6b6b6b", "#3f4146", "#a5a8ad"]),
    ("all", ["#d3edd8", "#2f7d4a", "#1d4a30", "#74cf97"]),
    ("board", ["#f0f0f0", "#8a8a8a", "#2b2d31", "#85888d"]),
];
/// What has no owner, and texts: selector, then the declarations in the light and in the dark.
const REST: [(&str, &str, &str); 12] = [
    (".paper", "fill:#ffffff", "fill:#15171b"),
    (".lane", "fill:#fafafa;stroke:#c9c9c9", "fill:#1b1e23;stroke:#43474e"),
    (".out", "fill:#e9e9e9", "fill:#0c0d10"),
    (".rule", "stroke:#dcdcdc", "stroke:#2c3037"),
    (".tick", "stroke:#555555", "stroke:#a5a8ad"),
    (".cut", "fill:#ffffff;stroke:#555555", "fill:#15171b;stroke:#a5a8ad"),
    (".bad", "stroke:#c00000", "stroke:#ff6b6b"),
    (".hatch", "stroke:#777777", "stroke:#9a9da3"),
    ("rect.dots", "fill:#8c8c8c", "fill:#7d8087"),
    (".cross", "stroke:#c00000", "stroke:#ff6b6b"),
    ("text", "fill:#161616", "fill:#f0f0f0"),
    ("text.dim", "fill:#5c5c5c", "fill:#a9acb2"),
];
const FIXED: &str = "\
text{font-family:Helvetica,Arial,'Liberation Sans','DejaVu Sans',sans-serif}
.t1{font-size:21px;font-weight:bold}.t2{font-size:13px;font-weight:bold}.t3{font-size:11px}
.t4{font-size:11px;font-weight:bold}.t5{font-size:10px}
.t6{font-size:11px;font-family:'DejaVu Sans Mono',Menlo,Consolas,'Liberation Mono',monospace}
.e{text-anchor:end}
rect{stroke-width:1;shape-rendering:crispEdges}
polyline{fill:none;stroke-width:1}
rect.none{stroke:none}rect.room{stroke-dasharray:2 2}rect.unbuilt{stroke-dasharray:4 3}
rect.spots{fill:url(#spots);stroke:none}rect.link{fill-opacity:.35;stroke:none}rect.seen{fill-opacity:.45}
rect.bad{fill:url(#cross);stroke-width:2}polyline.cut{stroke-linejoin:bevel}
";
/// The patterns' shapes.
const PATTERNS: &str = r#"<defs>
<pattern id="hatch" width="7" height="7" patternUnits="userSpaceOnUse"><path class="hatch" d="M-1,8 L8,-1 M-1,1 L1,-1 M6,8 L8,6" stroke-width="0.8" fill="none"/></pattern>
<pattern id="spots" width="6" height="6" patternUnits="userSpaceOnUse"><rect class="dots none" x="2" y="2" width="1" height="1"/></pattern>
<pattern id="cross" width="12" height="12" patternUnits="userSpaceOnUse"><path class="cross" d="M0,0 L12,12 M12,0 L0,12" stroke-width="1" stroke-opacity="0.4" fill="none"/></pattern>
</defs>
"#;

/// The class that gives a region its owner's colours.
pub fn class(owner: &Owner) -> String {
    match owner {
        Owner::Hypervisor => "hv".to_owned(),
        Owner::BootLoader => "boot".to_owned(),
        Owner::Partition(index) => format!("p{}", index % PARTITIONS.len()),
        Owner::Several(_) => "all".to_owned(),
        Owner::Board => "board".to_owned(),
    }
}

/// The style sheet and the patterns.
pub fn head() -> String {
    let partitions = PARTITIONS.iter().enumerate().map(|(index, colours)| (format!("p{index}"), *colours));
    let owners: Vec<(String, [&str; 4])> =
        OTHERS.iter().map(|(class, colours)| ((*class).to_owned(), *colours)).chain(partitions).collect();
    let sheet = |dark: bool| {
        let mut sheet = String::new();
        for (selector, light, night) in REST {
            let _ = writeln!(sheet, "{selector}{{{}}}", if dark { night } else { light });
        }
        for (class, [fill, stroke, night_fill, night_stroke]) in &owners {
            let (fill, stroke) = if dark { (night_fill, night_stroke) } else { (fill, stroke) };
            let _ = writeln!(sheet, ".{class}{{fill:{fill};stroke:{stroke}}}");
            let _ = writeln!(sheet, ".room.{class}{{fill:url(#hatch);stroke:{stroke}}}");
        }
        sheet
    };
    let dark = sheet(true);
    format!(
        "<style>\n{}{FIXED}@media screen and (prefers-color-scheme:dark){{\n{dark}}}\n</style>\n{PATTERNS}",
        sheet(false)
    )
}
