//! What stands below the columns: how to read them, how far every image may grow, and who has how much.

use citrine_formats::addr::Size;
use citrine_formats::manifest::Media;

use super::ink::{Anchor, Canvas, Font, Frame};
use super::{MARGIN, Sheet, style};
use crate::map::{Kind, Owner};
use crate::stages::Stage;

/// From one line to the next.
const STEP: i32 = 14;
/// Between two columns.
const BETWEEN: i32 = 30;

/// A column of remarks.
struct Column {
    x: i32,
    y: i32,
    w: i32,
}

impl Column {
    fn heading(&mut self, canvas: &mut Canvas, text: &str) {
        canvas.text((self.x, self.y), Anchor::Start, Font::Heading, text);
        self.y += STEP + 6;
    }

    /// A remark, with a sample of what it explains beside it.
    fn remark(&mut self, canvas: &mut Canvas, class: &str, text: &str) {
        let inset = if class.is_empty() { 0 } else { 32 };
        if !class.is_empty() {
            for class in class.split('+') {
                canvas.rect(Frame { x: self.x, y: self.y - 10, w: 24, h: 13 }, class, "");
            }
        }
        for line in Font::Plain.wrap(text, self.w - inset) {
            canvas.text((self.x + inset, self.y), Anchor::Start, Font::Plain, &line);
            self.y += STEP;
        }
        self.y += 4;
    }
}

/// Draws the remarks, and returns where they end.
pub(super) fn draw(sheet: &Sheet<'_>, canvas: &mut Canvas) -> i32 {
    let y = sheet.axis.bottom() + 44;
    let w = ((sheet.width - 2 * MARGIN - 2 * BETWEEN) / 3).min(460);
    let mut columns = [0, 1, 2].map(|at| Column { x: MARGIN + at * (w + BETWEEN), y, w });
    let [how, growth, who] = &mut columns;
    how_to_read(sheet, canvas, how);
    headroom(sheet, canvas, growth);
    totals(sheet, canvas, who);
    columns.iter().map(|column| column.y).max().unwrap_or(y)
}

fn how_to_read(sheet: &Sheet<'_>, canvas: &mut Canvas, column: &mut Column) {
    let conflicts = sheet.map.conflicts();
    if !conflicts.is_empty() {
        column.heading(canvas, "What is wrong");
        for conflict in &conflicts {
            let [first, second] =
                conflict.regions.map(|index| sheet.map.regions.get(index).map_or("", |region| region.name.as_str()));
            let when = conflict.stages.start();
            column.remark(canvas, "bad", &format!("{first} and {second} both hold {} {when}", conflict.span));
        }
        column.y += STEP;
    }
    column.heading(canvas, "How to read it");
    column.remark(
        canvas,
        "",
        "Each row is the same bytes, from left to right: who owns them at each stage of the boot, then which \
         partition sees them, and at which guest-physical address. Addresses grow downwards; the one at a line is \
         that of the first byte below it.",
    );
    column.remark(
        canvas,
        "",
        "Rows grow with their size, but only the bar at the left is to scale. A row with a torn strip is cut short, \
         and small ones are enlarged.",
    );
    column.remark(canvas, "lane", "nobody's: free memory, or free again from this stage on");
    column.remark(canvas, "room boot", "headroom: bytes that an image may grow into before it reaches its neighbour");
    if sheet.map.regions.iter().any(|region| !region.known) {
        column.remark(canvas, "hv unbuilt", "its size is not known before it has been built");
    }
    column.remark(canvas, "out none", "in a stage, no memory; in a partition's column, out of its reach");
}

fn headroom(sheet: &Sheet<'_>, canvas: &mut Canvas, column: &mut Column) {
    column.heading(canvas, "Headroom");
    let parts = sheet.map.regions.iter().filter(|region| region.is_at(&sheet.stages));
    for region in parts {
        let Some(growth) = region.may_grow() else { continue };
        column.remark(canvas, &style::class(&region.owner), &format!("{} {growth}", region.name));
    }
    for (partition, seen, _) in &sheet.guests {
        for region in seen.iter().map(|seen| &seen.region) {
            let Some(growth) = region.may_grow() else { continue };
            let text = format!("in {}, {} {growth}", partition.name, region.name);
            column.remark(canvas, &format!("{} seen", style::class(&region.owner)), &text);
        }
    }
}

fn totals(sheet: &Sheet<'_>, canvas: &mut Canvas, column: &mut Column) {
    let (map, plan) = (sheet.map, sheet.map.plan);
    column.heading(canvas, "Who has how much while the partitions run");
    let areas = map.regions.iter().filter(|region| region.kind == Kind::Area);
    for region in areas {
        let size = Size(region.span.len());
        let text = match &region.owner {
            Owner::Partition(_) => format!("{size}: {}", region.name),
            Owner::Several(_) => format!("{size}: {}, of {}", region.name, region.owner.name(plan)),
            _ => format!("{size}: {}", region.name),
        };
        column.remark(canvas, &style::class(&region.owner), &text);
    }
    let in_flash = plan.media == Media::Nor;
    if !in_flash {
        let area = &plan.board.image_area;
        let text = format!("{}: the image area, for the images that a restart reads again", Size(area.len()));
        column.remark(canvas, "lane+room all", &text);
    }
    let free: u64 = map.gaps(&[Stage::Run]).iter().filter(|gap| !gap.reserved).map(|gap| gap.span.len()).sum();
    column.remark(canvas, "lane", &format!("{} of {}: free", Size(free), Size(plan.board.ram_size())));
    if sheet.stages.contains(&Stage::Load) {
        column.remark(canvas, "boot+spots", "U-Boot's own, until nothing needs it any more");
    }
    let nor = plan.board.nor.as_ref().map(|nor| {
        format!(
            "NOR flash: {} at {}, for U-Boot at {:#x}. {}",
            Size(nor.span.len()),
            nor.span.base(),
            nor.window,
            match in_flash {
                true => "A restart reads the images there again; the next version of a part goes to its other slot.",
                false => "The plan puts nothing there; what else lies in it, the board's file does not say.",
            }
        )
    });
    let none = || "Flash: the board's file declares none.".to_owned();
    column.remark(canvas, "board", &nor.unwrap_or_else(none));
}
