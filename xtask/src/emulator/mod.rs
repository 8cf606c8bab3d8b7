//! QEMU as a board: boots the real U-Boot hands-free, watches its consoles and decides by markers.
//!
//! [`run`] is the whole of a smoke boot. It is a short loop over [`session::Session`], which tests use
//! directly to type on a console, read memory or ask QEMU's monitor.
//!
//! * `machine` — which machine, and its command line
//! * `memory` — whether what is loaded beforehand fits, which QEMU itself never says
//! * `tree` — QEMU's own hardware tree, and the one that makes U-Boot start by itself
//! * `process`, `qmp`, `console`, `consoles`, `marker`, `transcript` — the pieces of a session
//! * `terminal` — a person at a console

pub mod console;
pub mod consoles;
pub mod machine;
pub mod marker;
mod memory;
mod process;
mod qmp;
pub mod session;
pub mod terminal;
pub mod transcript;
pub mod tree;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use citrine_formats::addr::TruePhys;
use citrine_planner::diag::{Code, Diagnostic, Label, Result};

pub use console::Source;
pub use consoles::Channels;
pub use machine::Machine;
pub use marker::{Expect, Marker, UBOOT_FAILURES};
pub use session::{Progress, Session};

/// A file of the emulator cannot be read or written.
pub const FILE: Code = Code::new('Q', 106);

/// A file that is in memory before U-Boot starts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Preload {
    /// What it is, for messages: `hv.uImage`.
    pub name: String,
    /// Its bytes.
    pub path: PathBuf,
    /// Where its first byte goes.
    pub addr: TruePhys,
}

/// One boot of one machine.
#[derive(Debug)]
pub struct Boot<'a> {
    /// The machine.
    pub machine: Machine,
    /// What lies in memory beforehand.
    pub preloads: Vec<Preload>,
    /// What U-Boot runs instead of waiting for a key; `None` leaves it at its prompt.
    pub bootcmd: Option<String>,
    /// The channels of the console multiplexer that UART 0 will carry, if it will.
    pub channels: Option<Channels>,
    /// File that gets the lines of all consoles; single ones go beside it.
    pub transcript: &'a Path,
    /// Lines for the transcript's head, such as the parts that stand in for the board's own.
    pub notes: Vec<String>,
    /// Asked while waiting; its error ends the boot. This is how a signal ends it.
    pub interrupted: fn() -> Result<()>,
}

/// A boot that passed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// The expectations in their order, and when each was met after the start.
    pub reached: Vec<(String, Duration)>,
    /// Time from start to the last marker.
    pub elapsed: Duration,
    /// Release of QEMU, as it says itself.
    pub qemu: String,
    /// The transcript of all consoles.
    pub transcript: PathBuf,
    /// Those of single consoles, by name.
    pub consoles: BTreeMap<String, PathBuf>,
}

/// Boots and waits for every expectation in turn; when it returns, no process is left.
///
/// # Errors
/// The first thing that went wrong: `Q101` to `Q107`, or what [`Boot::interrupted`] says.
pub fn run(boot: &Boot<'_>, script: &[Expect<'_>], show: &mut dyn FnMut(Progress<'_>)) -> Result<Outcome> {
    let mut session = Session::start(boot)?;
    for expect in script {
        session.wait_for(expect, show)?;
    }
    Ok(session.passed())
}

/// The diagnostic for a file that the emulator needs.
fn unusable(path: &Path, what: &str, error: &std::io::Error) -> Box<Diagnostic> {
    // `fs_err` and `tempfile` name the path themselves.
    Diagnostic::error(FILE, format!("{what} cannot be used: {error}"))
        .primary(Label::file(path.display().to_string(), what))
        .help("check the path, the permissions and the free space")
        .into()
}
