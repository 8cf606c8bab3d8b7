//! The texts inside the columns: addresses, names, sizes and headroom.

use std::ops::RangeInclusive;

use citrine_formats::addr::{Address as _, Hex, Size, Span, TruePhys};
use citrine_formats::manifest::Media;

use super::axis::{LINE, Row};
use super::ink::{Anchor, Canvas, Font, Frame};
use super::{LANES, Sheet, Span32, grows_to_next};
use crate::map::{Kind, Owner, Region, Seen};
use crate::plan::PartitionPlan;
use crate::stages::Stage;

/// Free room inside a box at either side of a text.
const PAD: i32 = 6;

/// What is to say of addresses at which there is nothing.
const NO_MEMORY: &str = "no memory";

/// The first of `texts` that `room` pixels are enough for, else the last, cut.
fn pick(font: Font, texts: &[String], room: i32) -> String {
    let fits = texts.iter().find(|text| font.width(text) <= room);
    fits.or(texts.last()).map(|text| font.fit(text, room)).unwrap_or_default()
}

/// Writes a name and what is to say of it into `frame`: beside each other, else below each other. Where another
/// box lies above this one (in a plan that is wrong), the text moves to the right or down.
fn name(canvas: &mut Canvas, frame: Frame, above: &[Frame], name: &str, details: &[String]) {
    let (x, room) = (frame.x + PAD, frame.w - 2 * PAD);
    let name = name.strip_prefix("the ").unwrap_or(name);
    let font = [Font::Bold, Font::Plain, Font::Small].into_iter().find(|font| font.width(name) <= room);
    let font = font.unwrap_or(Font::Small);
    let shown = font.fit(name, room);
    let is_hidden = |x: i32, y: i32| {
        let text = Frame { x, y: y - 10, w: font.width(&shown), h: 12 };
        above.iter().any(|other| other.meets(&text))
    };
    for y in (frame.y + 12..frame.y + frame.h - 3).step_by(LINE as usize) {
        let right = x + room - font.width(&shown);
        let moved = is_hidden(x, y);
        if (moved && is_hidden(right, y))
            || !canvas.text((if moved { right } else { x }, y), Anchor::Start, font, &shown)
        {
            continue;
        }
        let rest = room - font.width(&shown) - 6;
        let beside = details.iter().find(|text| Font::Plain.width(text) <= rest);
        match beside {
            _ if moved => false,
            Some(text) => canvas.text((frame.x + frame.w - PAD, y), Anchor::End, Font::Plain, text),
            None if y + LINE < frame.y + frame.h => {
                let text = pick(Font::Plain, details, room);
                canvas.text((x, y + LINE - 3), Anchor::Start, Font::Plain, &text)
            }
            None => false,
        };
        return;
    }
}

/// How far something may grow, in forms from the longest to the shortest.
fn growth<A: citrine_formats::addr::Address>(region: &Region<A>) -> Vec<String> {
    let (Some(sentence), Some(bytes)) = (region.may_grow(), region.headroom()) else { return Vec::new() };
    let until = region.room.as_ref().map_or("", |room| room.until.as_str());
    let size = Size(bytes);
    let verb = if region.known { "may grow" } else { "may have" };
    vec![sentence, format!("{verb} {size}, up to {until}"), format!("{verb} {size}"), format!("+ {size}")]
}

impl Sheet<'_> {
    /// The addresses of the rows.
    pub(super) fn axis_labels(&self, canvas: &mut Canvas) {
        let last = self.axis.rows.last().map(|row| (row.end, row.y + row.h));
        // Where something of unknown size seems to end, nothing is known to begin.
        let unknown: Vec<u64> = self.map.regions.iter().filter(|r| !r.known).map(|r| r.span.end().get()).collect();
        let seen = self.map.guests.iter().flatten().filter(|seen| !seen.region.known);
        let inside: Vec<u64> =
            seen.filter_map(|seen| Some(seen.at?.get().saturating_add(seen.region.span.len()))).collect();
        for (address, y) in self.axis.rows.iter().map(|row| (row.base, row.y)).chain(last) {
            if unknown.contains(&address) || inside.contains(&address) {
                continue;
            }
            canvas.text((LANES - 9, y + 4), Anchor::End, Font::Mono, &Hex(address).to_string());
        }
    }

    /// What owns the stages' boxes.
    pub(super) fn region_labels(&self, canvas: &mut Canvas) {
        let all = self.drawn();
        let frames: Vec<Frame> = all.iter().filter_map(|region| self.frame(&region.span, &region.stages)).collect();
        let mut above = frames.as_slice();
        for region in all {
            let users = match &region.owner {
                Owner::Partition(_) | Owner::Several(_) if region.kind == Kind::Part => {
                    format!(", for {}", region.owner.name(self.map.plan))
                }
                Owner::Several(_) => format!(", of {}", region.owner.name(self.map.plan)),
                _ => String::new(),
            };
            let details = [format!("{}{users}", region.size()), region.size()];
            if let Some(frame) = self.frame(&region.span, &region.stages) {
                above = above.get(1..).unwrap_or_default();
                if region.kind == Kind::Flash && self.map.plan.media == Media::Nor {
                    // The bank lies under all that is in it; its notes name it.
                    continue;
                }
                name(canvas, frame, above, &region.name, &details);
            }
            let room = region.room.as_ref().and_then(|room| self.frame(&room.span, &region.stages));
            if let Some(frame) = room.filter(|frame| frame.h > 0) {
                plate(canvas, frame, &growth(region));
            }
        }
    }

    /// What has no owner.
    pub(super) fn gap_labels(&self, canvas: &mut Canvas) {
        let write = |canvas: &mut Canvas, span: &Span<TruePhys>, what: &str| {
            let (y, h) = self.rows(span.base(), span.len());
            let all: RangeInclusive<Stage> = Stage::Load..=Stage::Run;
            let Some(frame) = self.frame(span, &all).filter(|_| h > 0) else { return };
            let text = Font::Plain.fit(&format!("{what}: {}", Size(span.len())), frame.w - 2 * PAD);
            let w = Font::Plain.width(&text);
            // The lines between the stages do not cross it.
            let class = if what == NO_MEMORY { "out none" } else { "lane none" };
            canvas.rect(Frame { x: frame.x + 1, y: y + 2, w: w + 2 * PAD, h: 12 }, class, "");
            canvas.dim((frame.x + PAD, y + 12), Anchor::Start, Font::Plain, &text);
        };
        for gap in self.map.gaps(&self.stages) {
            write(canvas, &gap.span, if gap.reserved { "free, kept for images" } else { "free" });
        }
        // Runs of rows that are neither memory nor a device.
        let is_nothing = |row: &Row| {
            let span = Span::between(TruePhys(row.base), TruePhys(row.end));
            let owned = |region: &Region<TruePhys>| region.span.overlaps(&span);
            !self.map.is_memory(&span) && !self.map.devices.iter().chain(&self.map.regions).any(owned)
        };
        for run in self.axis.rows.chunk_by(|a, b| is_nothing(a) == is_nothing(b)) {
            if let [first, ..] = run
                && let Some(last) = run.last()
                && is_nothing(first)
            {
                write(canvas, &Span::between(TruePhys(first.base), TruePhys(last.end)), NO_MEMORY);
            }
        }
    }

    /// What a partition sees, and at which of its addresses.
    pub(super) fn guest_labels(&self, canvas: &mut Canvas, guest: &(&PartitionPlan, &[Seen], Span32)) {
        let (_, seen, at) = guest;
        let placed = || seen.iter().filter_map(|seen| Some((&seen.region, seen.at?)));
        let address = |canvas: &mut Canvas, guest: u64, place: u64| {
            let text = Hex(guest).to_string();
            canvas.text((at.x - 7, self.axis.y(place) + 4), Anchor::End, Font::Mono, &text);
        };
        for (region, place) in placed() {
            address(canvas, region.span.base().get(), place.get());
        }
        for (region, place) in placed().filter(|(region, _)| region.known) {
            address(canvas, region.span.end().get(), place.get().saturating_add(region.span.len()));
        }
        for (region, place) in placed().filter(|(region, _)| region.kind != Kind::Area) {
            let (y, h) = self.rows(place, region.span.len());
            let frame = Frame { x: at.x + 4, y, w: at.w - 8, h };
            name(canvas, frame, &[], &region.name, &[region.size()]);
            if let Some(len) = grows_to_next(region, seen).filter(|len| *len > 0) {
                let (y, h) = self.rows(TruePhys(place.get().saturating_add(region.span.len())), len);
                plate(canvas, Frame { x: at.x + 4, y, w: at.w - 8, h }, &growth(region));
            }
        }
        for (area, place) in placed().filter(|(region, _)| region.kind == Kind::Area) {
            self.area_label(canvas, area, place, at, seen);
        }
    }

    /// The name of a mapped area, in the highest of its rows that nothing else fills.
    fn area_label(
        &self,
        canvas: &mut Canvas,
        area: &Region<citrine_formats::addr::GuestPhys>,
        place: TruePhys,
        at: &Span32,
        seen: &[Seen],
    ) {
        let Ok(whole) = Span::new(place, area.span.len()) else { return };
        let filled = |row: &Row| {
            seen.iter().filter(|found| found.region.kind != Kind::Area).any(|found| {
                let end = found.region.span.len() + grows_to_next(&found.region, seen).unwrap_or(0);
                found.at.is_some_and(|at| at.get() < row.end && row.base < at.get().saturating_add(end))
            })
        };
        let mut rows: Vec<&Row> = self.axis.rows.iter().filter(|row| whole.contains(TruePhys(row.base))).collect();
        rows.retain(|row| !filled(row));
        rows.sort_by_key(|row| std::cmp::Reverse(row.h));
        for row in rows {
            let (size, name) = (Size(area.span.len()), area.name.strip_prefix("the ").unwrap_or(&area.name));
            let whole = if matches!(area.owner, Owner::Several(_)) { "" } else { " in all" };
            let texts = [format!("{name}: {size}{whole}"), format!("{name}: {size}"), name.to_owned()];
            let text = pick(Font::Plain, &texts, at.w - 2 * PAD);
            if canvas.text((at.x + PAD + 4, row.y + 12), Anchor::Start, Font::Plain, &text) {
                return;
            }
        }
    }
}

/// Writes onto a hatched box: the text gets a plate, so that it can be read.
fn plate(canvas: &mut Canvas, frame: Frame, texts: &[String]) {
    let text = pick(Font::Small, texts, frame.w - 2 * PAD);
    let y = frame.y + (frame.h.min(2 * LINE) + 8) / 2;
    let plate = Frame { x: frame.x + PAD - 2, y: y - 10, w: Font::Small.width(&text) + 4, h: 13 };
    canvas.rect(plate, "paper none", "");
    canvas.text((frame.x + PAD, y), Anchor::Start, Font::Small, &text);
}
