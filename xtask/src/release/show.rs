//! What a person sees while a release is built: on a terminal one line for each bundle that is at work, elsewhere
//! plain lines, for machines objects.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _, stderr};
use std::time::Instant;

use serde_json::json;

use crate::progress::human;
use crate::report::Ui;

/// Most lines on a terminal at once; what is behind them is counted.
const MOST_LINES: usize = 20;

/// The bundles that are at work, and how many are done.
pub struct Show<'u> {
    ui: &'u Ui,
    terminal: bool,
    running: BTreeMap<String, Instant>,
    total: usize,
    done: usize,
    /// Lines that stand on the terminal and are written over.
    standing: usize,
}

impl<'u> Show<'u> {
    /// Nothing yet of `total` bundles.
    pub fn new(ui: &'u Ui, total: usize) -> Self {
        let terminal = !ui.is_json() && stderr().is_terminal();
        Self { ui, terminal, running: BTreeMap::new(), total, done: 0, standing: 0 }
    }

    /// A bundle is being built.
    pub fn started(&mut self, cell: &str) {
        self.running.insert(cell.to_owned(), Instant::now());
        self.event(cell, "started", None);
        if !self.terminal {
            self.ui.say(&format!("{cell} ..."));
        }
    }

    /// It is done, or has failed.
    pub fn ended(&mut self, cell: &str, state: &str) {
        let Some(started) = self.running.remove(cell) else { return };
        self.done += 1;
        let time = started.elapsed();
        self.event(cell, state, Some(time.as_secs_f64()));
        self.clear();
        self.ui.say(&format!("{cell}: {state} in {} ({} of {})", human(time), self.done, self.total));
    }

    /// Writes the lines of a terminal anew.
    pub fn refresh(&mut self) {
        if !self.terminal {
            return;
        }
        self.clear();
        let mut text = String::new();
        for (cell, started) in self.running.iter().take(MOST_LINES) {
            text.push_str(&format!("  {cell:40} {}\n", human(started.elapsed())));
        }
        let waiting = self.total - self.done - self.running.len();
        text.push_str(&format!("  {} done, {} at work, {waiting} to do\n", self.done, self.running.len()));
        self.standing = self.running.len().min(MOST_LINES) + 1;
        let _ = stderr().write_all(text.as_bytes());
    }

    fn clear(&mut self) {
        if self.standing > 0 {
            let _ = write!(stderr(), "\x1b[{}A\x1b[J", self.standing);
            self.standing = 0;
        }
    }

    fn event(&self, cell: &str, state: &str, seconds: Option<f64>) {
        if self.ui.is_json() {
            self.ui.object(&json!({ "type": "progress", "cell": cell, "state": state, "seconds": seconds }));
        }
    }
}

impl Drop for Show<'_> {
    fn drop(&mut self) {
        self.clear();
    }
}
