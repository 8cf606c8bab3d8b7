//! The memory map as text: a table for each stage, the flash, and what each partition sees.

use std::fmt::Write as _;

use citrine_formats::addr::{Address as _, Size, Span};
use citrine_formats::manifest::Media;

use super::{MemoryMap, Region};
use crate::stages::Stage;
use crate::units::cpu_list;

/// The map at `stages`, and what does not depend on them.
pub fn render(map: &MemoryMap<'_>, stages: &[Stage]) -> String {
    let plan = map.plan;
    let mut text = format!("{} on {}: who owns which memory\n", plan.profile.name, plan.board.name);
    let _ =
        writeln!(text, "A range ends before its second address. What an image may grow into is not listed as free.");
    for stage in stages {
        let _ = writeln!(text, "\n{}: {stage}", stage.name());
        let mut rows: Vec<[String; 4]> = Vec::new();
        let mut lines: Vec<(u64, usize, [String; 4])> = Vec::new();
        for region in map.regions.iter().filter(|region| region.is_at(&[*stage])) {
            lines.push((region.span.base().get(), 0, row(map, region)));
        }
        for gap in map.gaps(&[*stage]) {
            let what = if gap.reserved { "free, in the image area" } else { "free" };
            let cells = [gap.span.to_string(), Size(gap.span.len()).to_string(), "-".to_owned(), what.to_owned()];
            lines.push((gap.span.base().get(), 1, cells));
        }
        lines.sort_by_key(|(base, order, _)| (*base, *order));
        rows.extend(lines.into_iter().map(|(.., cells)| cells));
        table(&mut text, &rows);
    }
    flash(&mut text, map);
    for (partition, seen) in plan.partitions.iter().zip(&map.guests) {
        let label = if partition.label == partition.name { String::new() } else { format!(" ({})", partition.label) };
        let cpus = if partition.cpus.len() == 1 { "CPU" } else { "CPUs" };
        let _ = writeln!(
            text,
            "\nwhat {}{label} sees, guest-physical and where that is; {cpus} {}, console on channel {}",
            partition.name,
            cpu_list(&partition.cpus),
            partition.console
        );
        let rows: Vec<[String; 4]> = seen
            .iter()
            .map(|seen| {
                let [span, size, _, what] = row(map, &seen.region);
                [span, size, seen.at.map_or("nowhere".to_owned(), |at| at.to_string()), what]
            })
            .collect();
        table(&mut text, &rows);
    }
    text
}

fn row<A: citrine_formats::addr::Address>(map: &MemoryMap<'_>, region: &Region<A>) -> [String; 4] {
    let mut what = region.name.clone();
    if let Some(growth) = region.may_grow() {
        let _ = write!(what, ": {growth}");
    }
    let place = if region.known { region.span.to_string() } else { format!("{}..", region.span.base()) };
    let size = if region.known { region.size() } else { "not known".to_owned() };
    [place, size, region.owner.name(map.plan), what]
}

fn flash(text: &mut String, map: &MemoryMap<'_>) {
    let board = &map.plan.board;
    let Some(nor) = &board.nor else {
        let _ = writeln!(text, "\nflash: {} declares none", board.name);
        return;
    };
    let _ = writeln!(
        text,
        "\nflash: NOR, {} at {}; U-Boot sees it at {:#x}; sectors of {}",
        Size(nor.span.len()),
        nor.span.base(),
        nor.window,
        Size(nor.sector)
    );
    if map.plan.media == Media::Ram {
        let _ = writeln!(text, "  the plan puts nothing there; what else lies in it, {} does not say", board.name);
    }
    let ccsr: Span<_> = board.ccsr;
    let _ = writeln!(text, "registers: {} at {}", Size(ccsr.len()), ccsr.base());
}

/// Columns as wide as their widest cell; the last is not filled up.
fn table(text: &mut String, rows: &[[String; 4]]) {
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let (place, size, owner) = (width(0), width(1), width(2));
    for [a, b, c, d] in rows {
        let _ = writeln!(text, "  {a:place$}  {b:>size$}  {c:owner$}  {d}");
    }
}
