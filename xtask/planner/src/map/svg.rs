//! The memory map as a picture for a design review.
//!
//! One axis of true-physical addresses serves all columns, so that every row of the picture is the same bytes: who
//! owns them at each boot stage, and which partition sees them at which address of its own. A bar beside it shows
//! all memory to scale. The same map gives the same bytes.

mod axis;
mod ink;
mod labels;
mod notes;
mod style;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use citrine_formats::addr::{Address, GuestPhys, Size, Span, TruePhys};

use self::axis::{Axis, LINE};
use self::ink::{Anchor, Canvas, Font, Frame, escape};
use super::{Kind, MemoryMap, Owner, Region, Seen};
use crate::plan::PartitionPlan;
use crate::stages::Stage;
use crate::units::cpu_list;

/// Free border around everything.
const MARGIN: i32 = 24;
/// Upper edge of the columns.
const TOP: i32 = 172;
/// The bar of all memory.
const BAR: Span32 = Span32 { x: MARGIN + 54, w: 28 };
/// Right edge of the bracket that shows the image area.
const BRACKET: i32 = BAR.x + BAR.w + 52;
/// Left edge of the first stage.
const LANES: i32 = BRACKET + 98;
/// Least width of a stage, and of all stages.
const LANE: (i32, i32) = (108, 432);
/// Room for a partition's addresses, for what it sees, and between partitions.
const GUEST: (i32, i32, i32) = (82, 216, 8);
/// Least width of the picture.
const WIDTH: i32 = 1100;

/// Left edge and width of a column.
#[derive(Clone, Copy)]
struct Span32 {
    x: i32,
    w: i32,
}

/// The map at `stages` as SVG.
pub fn render(map: &MemoryMap<'_>, stages: &[Stage]) -> String {
    let Picture { width, height, canvas } = picture(map, stages);
    let plan = map.plan;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} \
         {height}\" role=\"img\">\n<title>{}</title>\n{}{}</svg>\n",
        escape(&format!("Memory map of {} on {}", plan.profile.name, plan.board.name)),
        style::head(),
        canvas.to_svg()
    )
}

/// A finished picture.
struct Picture {
    width: i32,
    height: i32,
    canvas: Canvas,
}

/// What all columns share.
struct Sheet<'m> {
    map: &'m MemoryMap<'m>,
    stages: Vec<Stage>,
    axis: Axis,
    lane: i32,
    /// The partitions' columns; none before they have memory.
    guests: Vec<(&'m PartitionPlan, &'m [Seen], Span32)>,
    width: i32,
}

fn picture(map: &MemoryMap<'_>, stages: &[Stage]) -> Picture {
    let sheet = Sheet::new(map, stages);
    let mut canvas = Canvas::default();
    // The paper is as high as what is on it, which is known at the end.
    canvas.rect(Frame { x: 0, y: 0, w: sheet.width, h: 1 }, "paper none", "");
    sheet.title(&mut canvas);
    sheet.background(&mut canvas);
    sheet.bar(&mut canvas);
    sheet.regions(&mut canvas);
    for guest in &sheet.guests {
        sheet.guest(&mut canvas, guest);
    }
    sheet.conflicts(&mut canvas);
    sheet.cuts(&mut canvas);
    sheet.axis_labels(&mut canvas);
    sheet.region_labels(&mut canvas);
    sheet.gap_labels(&mut canvas);
    for guest in &sheet.guests {
        sheet.guest_labels(&mut canvas, guest);
    }
    let height = notes::draw(&sheet, &mut canvas) + MARGIN;
    if let Some(ink::Shape::Box { frame, .. }) = canvas.shapes.first_mut() {
        frame.h = height;
    }
    Picture { width: sheet.width, height, canvas }
}

impl<'m> Sheet<'m> {
    fn new(map: &'m MemoryMap<'m>, stages: &[Stage]) -> Self {
        let stages: Vec<Stage> = Stage::ALL.into_iter().filter(|stage| stages.contains(stage)).collect();
        let lanes = i32::try_from(stages.len()).unwrap_or(1).max(1);
        let lane = (LANE.1 / lanes).max(LANE.0);
        let (addresses, block, between) = GUEST;
        let mut x = LANES + lanes * lane + between;
        let mut guests = Vec::new();
        if stages.iter().any(|stage| *stage >= Stage::GuestLoad) {
            for (partition, seen) in map.plan.partitions.iter().zip(&map.guests) {
                guests.push((partition, seen.as_slice(), Span32 { x: x + addresses, w: block }));
                x += addresses + block + between;
            }
        }
        let is_memory = |base| map.is_memory(&Span::between(TruePhys(base), TruePhys(base)));
        let axis = Axis::new(&edges(map, &stages, !guests.is_empty()), TOP, |base| !is_memory(base));
        Self { map, stages, axis, lane, guests, width: (x + MARGIN).max(WIDTH) }
    }

    /// Right edge of the stages.
    fn lanes_end(&self) -> i32 {
        LANES + i32::try_from(self.stages.len()).unwrap_or(1) * self.lane
    }

    /// Right edge of all columns.
    fn columns_end(&self) -> i32 {
        self.guests.last().map_or(self.lanes_end(), |(.., at)| at.x + at.w)
    }

    /// The rows of a range.
    fn rows<A: Address>(&self, base: A, len: u64) -> (i32, i32) {
        let y = self.axis.y(base.get());
        (y, self.axis.y(base.get().saturating_add(len)) - y)
    }

    /// A range over some of the stages that are shown.
    fn frame(&self, span: &Span<TruePhys>, stages: &std::ops::RangeInclusive<Stage>) -> Option<Frame> {
        let shown = || self.stages.iter().enumerate().filter(|(_, stage)| stages.contains(stage)).map(|(at, _)| at);
        let (first, last) = (i32::try_from(shown().next()?).ok()?, i32::try_from(shown().next_back()?).ok()?);
        let (y, h) = self.rows(span.base(), span.len());
        Some(Frame { x: LANES + first * self.lane + 4, y, w: (last - first + 1) * self.lane - 8, h })
    }

    fn title(&self, canvas: &mut Canvas) {
        let (plan, room) = (self.map.plan, self.width - 2 * MARGIN);
        let title = format!("Memory map: {} on {}", plan.profile.name, plan.board.name);
        canvas.text((MARGIN, 42), Anchor::Start, Font::Title, &Font::Title.fit(&title, room));
        let board = &plan.board;
        let below = format!(
            "{}. {}: {}, {} CPUs ({}), memory {}, U-Boot {}.",
            plan.profile.title,
            board.title,
            board.soc,
            board.cpus,
            board.core,
            board.ram_text(),
            board.uboot.generation
        );
        canvas.dim((MARGIN, 62), Anchor::Start, Font::Plain, &Font::Plain.fit(&below, room));
        let conflicts = self.map.conflicts().len();
        if conflicts > 0 {
            let what = if conflicts == 1 { "1 overlap".to_owned() } else { format!("{conflicts} overlaps") };
            let text = format!("THIS PLAN IS WRONG: {what}, crossed out below; cargo xtask check explains them");
            canvas.text((MARGIN, 80), Anchor::Start, Font::Bold, &Font::Bold.fit(&text, room));
        }

        let heading = |canvas: &mut Canvas, x: i32, room: i32, text: &str| {
            canvas.text((x, 106), Anchor::Start, Font::Heading, &Font::Heading.fit(text, room));
        };
        heading(canvas, MARGIN, 120, "To scale");
        heading(canvas, LANES, self.lanes_end() - LANES, "True-physical: who owns it at each stage of the boot");
        let mut x = LANES;
        for stage in &self.stages {
            canvas.text((x + 6, 124), Anchor::Start, Font::Bold, stage.name());
            for (line, y) in Font::Small.wrap(caption(*stage), self.lane - 8).iter().zip([138, 150, 162]) {
                canvas.dim((x + 6, y), Anchor::Start, Font::Small, line);
            }
            x += self.lane;
        }
        let last = self.stages.last().map_or("", |stage| stage.name());
        for (line, y) in ["all memory,".to_owned(), format!("at {last}")].iter().zip([138, 150]) {
            canvas.dim((MARGIN, y), Anchor::Start, Font::Small, line);
        }
        for (partition, seen, at) in &self.guests {
            let (x, room) = (at.x - GUEST.0 + 16, at.w + GUEST.0 - 16);
            heading(canvas, x, room, &format!("{} sees (guest-physical)", partition.name));
            let size = seen.first().map_or(0, |memory| memory.region.span.len());
            let label = if partition.label == partition.name { "" } else { partition.label.as_str() };
            canvas.text((x, 124), Anchor::Start, Font::Bold, &Font::Bold.fit(label, room));
            let cpus = if partition.cpus.len() == 1 { "CPU" } else { "CPUs" };
            let lines = [
                format!("{cpus} {}, {} of memory", cpu_list(&partition.cpus), Size(size)),
                format!("console on channel {}", partition.console),
            ];
            for (line, y) in lines.iter().zip([138, 150]) {
                canvas.dim((x, y), Anchor::Start, Font::Small, &Font::Small.fit(line, room));
            }
        }
    }

    /// Columns, rows, and where there is no memory.
    fn background(&self, canvas: &mut Canvas) {
        let (top, h) = (TOP, self.axis.bottom() - TOP);
        for (at, stage) in self.stages.iter().enumerate() {
            let x = LANES + i32::try_from(at).unwrap_or(0) * self.lane;
            canvas.rect(Frame { x, y: top, w: self.lane, h }, "lane", stage.to_string());
        }
        // What leads from the stages to the partitions: the same bytes. It passes behind the columns of the others.
        for (.., seen, at) in &self.guests {
            for seen in seen.iter().filter(|seen| seen.region.kind == Kind::Area) {
                let Some(place) = seen.at else { continue };
                let (y, h) = self.rows(place, seen.region.span.len());
                let frame = Frame { x: self.lanes_end() - 4, y, w: at.x - self.lanes_end() + 4, h };
                canvas.rect(frame, format!("link {}", style::class(&seen.region.owner)), "");
            }
        }
        for (partition, _, at) in &self.guests {
            let remark = format!("{} cannot reach what is grey here", partition.name);
            canvas.rect(Frame { x: at.x, y: top, w: at.w, h }, "out none", remark);
        }
        for row in &self.axis.rows {
            if !self.map.is_memory(&Span::between(TruePhys(row.base), TruePhys(row.end))) {
                let frame = Frame { x: LANES, y: row.y, w: self.lanes_end() - LANES, h: row.h };
                canvas.rect(frame, "out none", "");
            }
            canvas.line(vec![(LANES - 6, row.y), (self.columns_end(), row.y)], "rule");
        }
        canvas.line(vec![(LANES - 6, self.axis.bottom()), (self.columns_end(), self.axis.bottom())], "rule");
        let area = self.map.plan.board.image_area;
        let (y, h) = self.rows(area.base(), area.len());
        if h > 0 {
            let (x, end) = (BRACKET, y + h);
            canvas.line(vec![(x + 6, y + 1), (x, y + 1), (x, end - 1), (x + 6, end - 1)], "tick");
            let size = Size(area.len()).to_string();
            for (line, down) in ["image", "area", size.as_str()].iter().zip([-10, 3, 16]) {
                canvas.text((x - 5, y + h / 2 + down), Anchor::End, Font::Small, line);
            }
        }
    }

    /// All memory, to scale.
    fn bar(&self, canvas: &mut Canvas) {
        let (plan, height) = (self.map.plan, i64::from((self.axis.bottom() - TOP).min(760)));
        let total = i128::from(plan.board.ram_size().max(1));
        let mut before = 0;
        for bank in &plan.board.ram {
            let y = |address: TruePhys| {
                let inside = Span::between(bank.base(), address.min(bank.end())).len();
                let pixels = i128::from(before + inside) * i128::from(height) / total;
                TOP + i32::try_from(pixels).unwrap_or(0)
            };
            let frame = Frame { x: BAR.x, y: y(bank.base()), w: BAR.w, h: y(bank.end()) - y(bank.base()) };
            canvas.rect(frame, "lane", format!("{bank}: {}", Size(bank.len())));
            let last = self.stages.last().map_or(&[][..], std::slice::from_ref);
            for region in self.map.regions.iter().filter(|region| region.is_at(last)) {
                let Some(span) = region.span.intersection(bank) else { continue };
                let (first, end) = (y(span.base()), y(span.end()));
                let frame = Frame { x: BAR.x, y: first, w: BAR.w, h: (end - first).max(1) };
                canvas.rect(frame, style::class(&region.owner), self.remark(region));
            }
            let step = (plan.board.ram_size() / 4).max(1).next_power_of_two();
            for tick in (0..=bank.len() / step).take(64) {
                let address = TruePhys(bank.base().get() + tick * step);
                canvas.line(vec![(BAR.x - 5, y(address)), (BAR.x, y(address))], "tick");
                let label = if address.get() == 0 { "0".to_owned() } else { Size(address.get()).to_string() };
                canvas.dim((BAR.x - 8, y(address) + 4), Anchor::End, Font::Small, &label);
            }
            before += bank.len();
        }
    }

    /// What a pointer shows of a region.
    fn remark<A: Address>(&self, region: &Region<A>) -> String {
        let span = if region.known { region.span.to_string() } else { region.span.base().to_string() };
        let grows = region.may_grow().map(|growth| format!("; {growth}")).unwrap_or_default();
        format!("{}: {span}, {}, {}{grows}", region.name, region.size(), region.owner.name(self.map.plan))
    }

    /// Everything in the stages in the order in which it is drawn: what is small lies above what is large.
    fn drawn(&self) -> Vec<&'m Region<TruePhys>> {
        let mut all: Vec<_> = self.map.regions.iter().chain(&self.map.devices).collect();
        all.sort_by_key(|region| std::cmp::Reverse(region.span.len()));
        all
    }

    fn regions(&self, canvas: &mut Canvas) {
        for region in self.drawn() {
            let class = style::class(&region.owner);
            if let Some(frame) = region.room.as_ref().and_then(|room| self.frame(&room.span, &region.stages)) {
                canvas.rect(frame, format!("room {class}"), region.may_grow().unwrap_or_default());
            }
            let Some(frame) = self.frame(&region.span, &region.stages) else { continue };
            let built = if region.known { "" } else { " unbuilt" };
            canvas.rect(frame, format!("{class}{built}"), self.remark(region));
            if region.owner == Owner::BootLoader {
                canvas.rect(frame, "spots", self.remark(region));
            }
        }
    }

    fn guest(&self, canvas: &mut Canvas, (_, seen, at): &(&PartitionPlan, &[Seen], Span32)) {
        for found in *seen {
            let (Some(place), region) = (found.at, &found.region) else { continue };
            let class = style::class(&region.owner);
            let (y, h) = self.rows(place, region.span.len());
            let (inset, kind) = match region.kind {
                Kind::Area => (0, "seen"),
                _ if region.known => (4, ""),
                _ => (4, "unbuilt"),
            };
            if let Some(span) = grows_to_next(region, seen) {
                let (y, h) = self.rows(TruePhys(place.get().saturating_add(region.span.len())), span);
                let frame = Frame { x: at.x + 4, y, w: at.w - 8, h };
                canvas.rect(frame, format!("room {class}"), region.may_grow().unwrap_or_default());
            }
            let frame = Frame { x: at.x + inset, y, w: at.w - 2 * inset, h };
            canvas.rect(frame, format!("{class} {kind}"), self.remark(region));
        }
    }

    fn conflicts(&self, canvas: &mut Canvas) {
        for conflict in self.map.conflicts() {
            let names = conflict.regions.map(|index| self.map.regions.get(index).map_or("", |r| r.name.as_str()));
            if let Some(frame) = self.frame(&conflict.span, &conflict.stages) {
                canvas.rect(frame, "bad", format!("{} and {} both hold {}", names[0], names[1], conflict.span));
            }
        }
    }

    /// A torn strip across every row that is not shown in whole.
    fn cuts(&self, canvas: &mut Canvas) {
        let (left, right) = (LANES - 6, self.columns_end() + 6);
        for row in self.axis.rows.iter().filter(|row| row.is_cut) {
            let y = row.y + (row.h + LINE) / 2;
            let xs: Vec<i32> = (left..right).step_by(14).chain([right]).collect();
            let edge = |dy: i32| {
                let tooth = move |at: usize| y + dy + if at.is_multiple_of(2) { -3 } else { 3 };
                xs.iter().enumerate().map(move |(at, x)| (*x, tooth(at)))
            };
            let (upper, lower): (Vec<_>, Vec<_>) = (edge(-3).collect(), edge(3).collect());
            canvas.line(upper.into_iter().chain(lower.into_iter().rev()).collect(), "cut");
        }
    }
}

/// Every address at which something that is shown begins or ends.
fn edges(map: &MemoryMap<'_>, stages: &[Stage], with_guests: bool) -> BTreeSet<u64> {
    let mut edges = BTreeSet::new();
    let mut add = |base: u64, len: u64| edges.extend([base, base.saturating_add(len)]);
    for span in map.plan.board.ram.iter().chain([&map.plan.board.image_area]) {
        add(span.base().get(), span.len());
    }
    for region in map.regions.iter().filter(|region| region.is_at(stages)).chain(&map.devices) {
        let spans = [Some(region.span), region.room.as_ref().map(|room| room.span)];
        spans.into_iter().flatten().for_each(|span| add(span.base().get(), span.len()));
    }
    for seen in map.guests.iter().flatten().filter(|_| with_guests) {
        if let Some(at) = seen.at {
            add(at.get(), seen.region.span.len());
        }
    }
    edges
}

/// Bytes between an image in a partition and the next thing there; where only free memory follows, there is nothing
/// that has to be kept in mind.
fn grows_to_next(region: &Region<GuestPhys>, seen: &[Seen]) -> Option<u64> {
    let room = &region.room.as_ref()?.span;
    let is_next = |other: &Seen| other.region.kind != Kind::Area && other.region.span.base() == room.end();
    seen.iter().any(is_next).then(|| room.len())
}

/// What happens at a stage, in the width of a column.
fn caption(stage: Stage) -> &'static str {
    match stage {
        Stage::Load => "U-Boot loads and checks the parts",
        Stage::Bootm => "U-Boot copies hypervisor and tree",
        Stage::Release => "the hypervisor frees the CPUs",
        Stage::Relocate => "it moves into its own memory",
        Stage::GuestLoad => "it copies the images",
        Stage::Run => "the partitions run",
    }
}
