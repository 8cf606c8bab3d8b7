//! [`Canvas`]: shapes on whole pixels, texts whose room is known, and their form as SVG.
//!
//! Nobody knows which font a reader has, so the width of a text is what a wide one (DejaVu Sans) needs.

use std::fmt::Write as _;

/// A rectangle in pixels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame {
    /// Left edge.
    pub x: i32,
    /// Upper edge.
    pub y: i32,
    /// Width.
    pub w: i32,
    /// Height.
    pub h: i32,
}

impl Frame {
    /// Whether both hold a common point.
    pub fn meets(&self, other: &Self) -> bool {
        self.x < other.x + other.w
            && other.x < self.x + self.w
            && self.y < other.y + other.h
            && other.y < self.y + self.h
    }
}

/// A kind of text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Font {
    /// The picture's title.
    Title,
    /// A column's title.
    Heading,
    /// What most texts are.
    Plain,
    /// A name that shall be found at once.
    Bold,
    /// Remarks.
    Small,
    /// Addresses.
    Mono,
}

impl Font {
    fn class(self) -> &'static str {
        match self {
            Self::Title => "t1",
            Self::Heading => "t2",
            Self::Plain => "t3",
            Self::Bold => "t4",
            Self::Small => "t5",
            Self::Mono => "t6",
        }
    }

    /// Height of the letters in pixels.
    pub fn size(self) -> i32 {
        match self {
            Self::Title => 21,
            Self::Heading => 13,
            Self::Plain | Self::Bold | Self::Mono => 11,
            Self::Small => 10,
        }
    }

    /// Pixels that `text` needs at most.
    pub fn width(self, text: &str) -> i32 {
        let milli: i32 = text.chars().map(|c| self.advance(c)).sum();
        (milli * self.size() + 999) / 1000
    }

    /// A character's width in thousandths of the size.
    fn advance(self, c: char) -> i32 {
        if self == Self::Mono {
            return 610;
        }
        let plain = match c {
            'i' | 'j' | 'l' | ' ' | '.' | ',' | ':' | ';' | '\'' | '|' | '!' | 'I' => 330,
            'f' | 't' | 'r' | '(' | ')' | '-' | '/' | '[' | ']' | '"' | '`' => 430,
            'm' | 'w' | 'M' | 'W' | '@' | '%' | '…' => 1000,
            'A'..='Z' => 770,
            c if c.is_ascii() => 640,
            _ => 1000,
        };
        let bold = matches!(self, Self::Title | Self::Heading | Self::Bold);
        if bold { plain * 11 / 10 } else { plain }
    }

    /// `text`, cut with an ellipsis if `room` pixels are too few for it.
    pub fn fit(self, text: &str, room: i32) -> String {
        if self.width(text) <= room {
            return text.to_owned();
        }
        let mut used = self.advance('…');
        let fits = |c: &char| {
            used += self.advance(*c);
            used * self.size() <= room * 1000
        };
        let kept: String = text.chars().take_while(fits).collect();
        if kept.is_empty() { kept } else { format!("{}…", kept.trim_end()) }
    }

    /// `text` in lines of at most `room` pixels.
    pub fn wrap(self, text: &str, room: i32) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for word in text.split_whitespace() {
            match lines.last_mut() {
                Some(line) if self.width(&format!("{line} {word}")) <= room => {
                    line.push(' ');
                    line.push_str(word);
                }
                _ => lines.push(self.fit(word, room)),
            }
        }
        lines
    }
}

/// Where a text stands relative to its point.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Anchor {
    /// It begins there.
    Start,
    /// It ends there.
    End,
}

/// Something that is drawn.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Shape {
    /// A rectangle of a class of the style, with a remark that shows when a pointer rests on it.
    Box {
        /// Where.
        frame: Frame,
        /// Classes of the style.
        class: String,
        /// The remark.
        remark: String,
    },
    /// Straight lines.
    Line {
        /// Through these points.
        points: Vec<(i32, i32)>,
        /// Classes of the style.
        class: &'static str,
    },
    /// A text.
    Text {
        /// The room that it has.
        frame: Frame,
        /// Where it stands in it.
        anchor: Anchor,
        /// Its font.
        font: Font,
        /// Whether it is less important than others.
        dim: bool,
        /// The text.
        text: String,
    },
}

/// A picture while it is drawn, later shapes above earlier ones.
#[derive(Clone, Debug, Default)]
pub struct Canvas {
    /// The shapes.
    pub shapes: Vec<Shape>,
}

impl Canvas {
    /// Draws a rectangle.
    pub fn rect(&mut self, frame: Frame, class: impl Into<String>, remark: impl Into<String>) {
        if frame.w > 0 && frame.h > 0 {
            self.shapes.push(Shape::Box { frame, class: class.into(), remark: remark.into() });
        }
    }

    /// Draws lines.
    pub fn line(&mut self, points: Vec<(i32, i32)>, class: &'static str) {
        self.shapes.push(Shape::Line { points, class });
    }

    /// Writes `text` with its base line at `y`, if nothing is written there yet.
    pub fn text(&mut self, at: (i32, i32), anchor: Anchor, font: Font, text: &str) -> bool {
        self.write(at, anchor, font, false, text)
    }

    /// [`Self::text`] in grey.
    pub fn dim(&mut self, at: (i32, i32), anchor: Anchor, font: Font, text: &str) -> bool {
        self.write(at, anchor, font, true, text)
    }

    fn write(&mut self, (x, y): (i32, i32), anchor: Anchor, font: Font, dim: bool, text: &str) -> bool {
        let w = font.width(text);
        let left = match anchor {
            Anchor::Start => x,
            Anchor::End => x - w,
        };
        let frame = Frame { x: left, y: y - font.size(), w, h: font.size() + 2 };
        if text.is_empty() || self.texts().any(|other| other.meets(&frame)) {
            return false;
        }
        self.shapes.push(Shape::Text { frame, anchor, font, dim, text: text.to_owned() });
        true
    }

    /// Where the texts stand.
    pub fn texts(&self) -> impl Iterator<Item = &Frame> {
        self.shapes.iter().filter_map(|shape| match shape {
            Shape::Text { frame, .. } => Some(frame),
            _ => None,
        })
    }

    /// The shapes as SVG elements.
    pub fn to_svg(&self) -> String {
        let mut svg = String::new();
        for shape in &self.shapes {
            let _ = match shape {
                Shape::Box { frame: Frame { x, y, w, h }, class, remark } if remark.is_empty() => {
                    writeln!(svg, r#"<rect class="{class}" x="{x}" y="{y}" width="{w}" height="{h}"/>"#)
                }
                Shape::Box { frame: Frame { x, y, w, h }, class, remark } => writeln!(
                    svg,
                    r#"<rect class="{class}" x="{x}" y="{y}" width="{w}" height="{h}"><title>{}</title></rect>"#,
                    escape(remark)
                ),
                Shape::Line { points, class } => {
                    let points: Vec<String> = points.iter().map(|(x, y)| format!("{x},{y}")).collect();
                    writeln!(svg, r#"<polyline class="{class}" points="{}"/>"#, points.join(" "))
                }
                Shape::Text { frame, anchor, font, dim, text } => {
                    let (x, anchor) = match anchor {
                        Anchor::Start => (frame.x, ""),
                        Anchor::End => (frame.x + frame.w, " e"),
                    };
                    let (y, dim) = (frame.y + font.size(), if *dim { " dim" } else { "" });
                    let class = font.class();
                    writeln!(svg, r#"<text class="{class}{anchor}{dim}" x="{x}" y="{y}">{}</text>"#, escape(text))
                }
            };
        }
        svg
    }
}

/// `text` as character data of XML 1.0; what XML cannot hold becomes U+FFFD.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c if c.is_control() || ('\u{fffe}'..='\u{ffff}').contains(&c) => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}
