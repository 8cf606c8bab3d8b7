//! What a person sees while the tool works, and what Ctrl-C does.
//!
//! On a terminal one status line: what is running, for how long, how long it usually takes. Elsewhere one
//! plain line at the start and one at the end. All of it goes to stderr; stdout belongs to the product.
//! Signals only set a flag, which every wait in the tool looks at, so children and temporary directories
//! go the ordinary way: by leaving scope. A second signal ends the process at once.

use std::fmt;
use std::io::{IsTerminal as _, Write as _, stderr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use citrine_planner::diag::{Code, Diagnostic, Result};

/// The user ended the command with a signal.
pub const INTERRUPTED: Code = Code::new('T', 601);

/// How often the status line is written anew.
const REFRESH: Duration = Duration::from_millis(200);
/// A step shorter than this leaves no line behind on a terminal.
const WORTH_A_LINE: Duration = Duration::from_secs(1);

static SIGNALLED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// From now on SIGINT, SIGTERM and SIGHUP ask the tool to clean up and end. Call once, first thing in `main`.
///
/// # Errors
/// [`INTERRUPTED`] when the system refuses a handler, which it does only to a forbidden signal.
pub fn watch_signals() -> Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // The order matters: the shutdown acts on a flag that an earlier signal has set.
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&SIGNALLED))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&SIGNALLED)))
            .map_err(|error| Diagnostic::error(INTERRUPTED, format!("cannot watch for signal {signal}: {error}")))?;
    }
    Ok(())
}

/// Whether a signal has asked the tool to end.
pub fn interrupted() -> bool {
    SIGNALLED.load(Ordering::Relaxed)
}

/// An error when a signal has asked the tool to end: `?` between two pieces of work.
///
/// # Errors
/// [`INTERRUPTED`].
pub fn check_interrupted() -> Result<()> {
    check(interrupted())
}

/// An error when `signalled`.
///
/// # Errors
/// [`INTERRUPTED`].
pub fn check(signalled: bool) -> Result<()> {
    if signalled {
        return Err(Diagnostic::error(INTERRUPTED, "interrupted; nothing half-made is left behind")
            .help("run the same command again: finished stages are in the cache")
            .into());
    }
    Ok(())
}

/// Where progress goes.
pub struct Progress<'n> {
    output: Output,
    line: Arc<Mutex<Line>>,
    notices: Box<dyn Fn(&Diagnostic) + 'n>,
}

impl fmt::Debug for Progress<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress").field("output", &self.output).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Output {
    Terminal,
    Plain,
    Hidden,
}

/// What the status line is made of; empty when no step runs.
#[derive(Default)]
struct Line {
    text: String,
    shown: bool,
}

impl<'n> Progress<'n> {
    /// Progress on stderr; `notices` prints a notice or warning (colours and `--json` are its matter).
    pub fn stderr(notices: impl Fn(&Diagnostic) + 'n) -> Self {
        let output = if stderr().is_terminal() { Output::Terminal } else { Output::Plain };
        Self { output, line: Arc::default(), notices: Box::new(notices) }
    }

    /// No lines at all; notices still reach `notices`.
    pub fn hidden(notices: impl Fn(&Diagnostic) + 'n) -> Self {
        Self { output: Output::Hidden, line: Arc::default(), notices: Box::new(notices) }
    }

    /// Passes a notice or warning on while a status line may be standing.
    pub fn notice(&self, diagnostic: &Diagnostic) {
        let mut line = lock(&self.line);
        clear(&mut line);
        (self.notices)(diagnostic);
    }

    /// One line for people, above the status line.
    pub fn say(&self, text: &str) {
        if self.output != Output::Hidden {
            let mut line = lock(&self.line);
            clear(&mut line);
            let _ = writeln!(stderr(), "{text}");
        }
    }

    /// Begins a step; it ends when the returned value is finished or dropped.
    pub fn step(&self, label: &str, expected: Option<Duration>) -> Step<'_> {
        let started = Instant::now();
        let usual = expected.map(|time| format!(", usually {}", human(time))).unwrap_or_default();
        if self.output == Output::Plain {
            self.say(&format!("{label} ...{}", usual.trim_start_matches(',')));
        }
        lock(&self.line).text = label.to_string();
        let ticker = (self.output == Output::Terminal).then(|| {
            let line = Arc::clone(&self.line);
            let (stop, stopped) = channel();
            let thread = std::thread::spawn(move || {
                while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(REFRESH) {
                    let mut line = lock(&line);
                    let _ = write!(stderr(), "\r\x1b[2K{} ({}{usual})", line.text, human(started.elapsed()));
                    let _ = stderr().flush();
                    line.shown = true;
                }
            });
            (stop, thread)
        });
        Step { progress: self, label: label.to_string(), started, ticker }
    }
}

/// A step that is running.
pub struct Step<'p> {
    progress: &'p Progress<'p>,
    label: String,
    started: Instant,
    ticker: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Step<'_> {
    /// Says which part of the step is running.
    pub fn detail(&self, text: &str) {
        lock(&self.progress.line).text = format!("{}: {text}", self.label);
    }

    /// Ends the step with a word such as `built`.
    pub fn finish(self, word: &str) {
        let (progress, time) = (self.progress, self.started.elapsed());
        let text = format!("{}: {word} in {}", self.label, human(time));
        drop(self);
        if progress.output == Output::Plain || time >= WORTH_A_LINE {
            progress.say(&text);
        }
    }
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.ticker.take() {
            drop(stop);
            let _ = thread.join();
        }
        let mut line = lock(&self.progress.line);
        clear(&mut line);
        line.text.clear();
    }
}

fn clear(line: &mut Line) {
    if line.shown {
        let _ = write!(stderr(), "\r\x1b[2K");
        line.shown = false;
    }
}

/// A panic while the line was held leaves nothing in it that could be wrong.
fn lock(line: &Mutex<Line>) -> MutexGuard<'_, Line> {
    line.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A time for people: `0.3 s`, `42 s`, `3 min 20 s`.
pub fn human(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", time.as_secs_f32()),
        10..60 => format!("{seconds} s"),
        _ if seconds.is_multiple_of(60) => format!("{} min", seconds / 60),
        _ => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn times_are_short_and_exact_enough() {
        assert_eq!(human(Duration::from_millis(340)), "0.3 s");
        assert_eq!(human(Duration::from_secs(42)), "42 s");
        assert_eq!(human(Duration::from_secs(200)), "3 min 20 s");
        assert_eq!(human(Duration::from_secs(300)), "5 min");
    }

    #[test]
    fn a_signal_becomes_an_error() {
        assert!(check(false).is_ok());
        assert_eq!(check(true).unwrap_err().code, INTERRUPTED);
    }

    #[test]
    fn notices_reach_the_renderer_even_when_nothing_is_shown() {
        static SEEN: AtomicUsize = AtomicUsize::new(0);
        let progress = Progress::hidden(|_| {
            SEEN.fetch_add(1, Ordering::Relaxed);
        });
        let step = progress.step("step", None);
        progress.notice(&Diagnostic::new(INTERRUPTED, citrine_planner::diag::Severity::Notice, "seen"));
        step.finish("done");
        assert_eq!(SEEN.load(Ordering::Relaxed), 1);
    }
}
