//! What is expected of a console, and what must not appear on it.

use std::fmt;
use std::time::Duration;

use super::console::Source;

/// A text that decides. It must not occur in what is typed or loaded, only in what the program computes:
/// `echo marker-$x` after `setexpr x 6 * 7`, never `echo marker-42`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Marker {
    /// Anywhere.
    Text(String),
    /// At the beginning of a line, such as a prompt.
    LineStart(String),
    /// A whole line, which has ended.
    Line(String),
}

impl Marker {
    /// The text itself.
    pub fn text(&self) -> &str {
        match self {
            Self::Text(text) | Self::LineStart(text) | Self::Line(text) => text,
        }
    }

    /// Bytes of a console that decide whether it is there: the text, and the end of the line if it counts.
    pub fn decided_by(&self) -> usize {
        self.text().len() + usize::from(matches!(self, Self::Line(_)))
    }
}

impl fmt::Display for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.text().escape_debug())
    }
}

/// One step of a boot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Expect<'a> {
    /// What has happened when the marker comes, for people: `the hypervisor's banner`.
    pub name: &'a str,
    /// Where it comes.
    pub source: Source,
    /// What comes.
    pub marker: Marker,
    /// How long it may take from the step before. Be generous: the host may be busy, and a failure is
    /// seen by its own marker long before.
    pub timeout: Duration,
    /// Texts that end the boot as failed when any console prints them in this step.
    pub failures: &'a [&'a str],
}

/// What U-Boot and its `bootm` print when they fail (2023.01, measured). None of them resets U-Boot's
/// script, which goes on with its next line. A second banner, a reset, is a failure in every step.
pub const UBOOT_FAILURES: &[&str] = &[
    "## Error",
    "### ERROR ###",
    "Bad Data CRC",
    "Bad Data Hash",
    "Bad data crc",
    "Bad header crc",
    "Bad trap at PC",
    "ERROR:",
    "FDT_ERR_",
    "Must RESET",
    "Please RESET the board",
    "TFTP error",
    "Unimplemented compression type",
    "Unknown command",
    "Unknown image format",
    "Unsupported Architecture",
    "Wrong Image",
    "Wrong image format",
    "inflate() returned",
    "must RESET",
    "syntax error",
];

/// How a console says that the boot loader starts.
pub const UBOOT_BANNER: &str = "U-Boot 20";
