//! A machine that runs: start it, wait for markers, type, look into memory, end it.

pub(super) mod launch;

use std::io::Write as _;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use citrine_formats::addr::{Size, TruePhys};
use citrine_planner::diag::{Code, Diagnostic, Label, Result};
use serde_json::json;
use tempfile::TempDir;

use super::console::{Chunk, Found, Source};
use super::consoles::Consoles;
use super::marker::{Expect, Marker};
use super::process::Process;
use super::qmp::Qmp;
use super::{Outcome, unusable};

/// A console printed what must not appear.
pub const BOOT_FAILED: Code = Code::new('Q', 103);
/// A marker did not come in time.
pub const TIMEOUT: Code = Code::new('Q', 104);
/// QEMU ended while something was expected of it.
pub const ENDED: Code = Code::new('Q', 105);

/// How long a wait sleeps before it looks for signals and at the process.
const TICK: Duration = Duration::from_millis(50);
/// After a failure, time for the rest of its message.
const LAST_WORDS: Duration = Duration::from_millis(300);
/// U-Boot types slower than we do; this is for one that no longer reads.
const TYPING: Duration = Duration::from_secs(60);
/// Largest piece of memory that is read at once.
const MEMORY_MAX: u64 = 256 << 20;

/// What a caller may show while it waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress<'a> {
    /// A step begins.
    Waiting(&'a str),
    /// A step's marker has come.
    Reached(&'a str, Duration),
    /// A console has printed a line; it is harmless to show.
    Line(Source, &'a str),
}

/// What preceded a marker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// The bytes from the previous marker of this source to the end of this one.
    pub bytes: Vec<u8>,
    /// When its last byte came, after the start.
    pub at: Duration,
}

/// A running machine; dropping it ends it.
#[derive(Debug)]
pub struct Session {
    // The order of the fields is the order of the end: first the process, then what it was connected to.
    process: Process,
    uarts: Vec<UnixStream>,
    chunks: Option<Receiver<Chunk>>,
    readers: Vec<JoinHandle<()>>,
    qmp: Qmp,
    consoles: Consoles,
    scratch: TempDir,
    reached: Vec<(String, Duration)>,
    interrupted: fn() -> Result<()>,
}

impl Session {
    /// Waits for one marker.
    ///
    /// # Errors
    /// [`BOOT_FAILED`], [`TIMEOUT`] or [`ENDED`] with the console's last lines; the machine is ended then.
    pub fn wait_for(&mut self, expect: &Expect<'_>, show: &mut dyn FnMut(Progress<'_>)) -> Result<Seen> {
        show(Progress::Waiting(expect.name));
        let mut markers: Vec<Marker> = expect.failures.iter().map(|text| Marker::Text((*text).to_owned())).collect();
        let failures = markers.len();
        markers.push(expect.marker.clone());
        let deadline = Instant::now() + expect.timeout;
        self.consoles.rewind();
        loop {
            if let Some((source, found)) = self.consoles.find(expect.source, &markers) {
                if found.marker < failures {
                    return Err(self.boot_failed(expect, source, found));
                }
                let (bytes, at) = self.consoles.take(source, found.end);
                self.reached.push((expect.name.to_owned(), at));
                show(Progress::Reached(expect.name, at));
                return Ok(Seen { bytes, at });
            }
            if self.consoles.restarted() {
                let error = Diagnostic::error(BOOT_FAILED, format!("the machine was reset before {}", expect.name))
                    .help("the last lines before the second banner of U-Boot say why; a CPU that takes an exception without a handler resets too");
                return Err(self.failed(expect, error));
            }
            (self.interrupted)().inspect_err(|error| self.consoles.transcript().verdict(error.message.clone()))?;
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let error = Diagnostic::error(
                    TIMEOUT,
                    format!("{} did not come within {} s: no {} on {}", expect.name, expect.timeout.as_secs_f32(), expect.marker, self.consoles.name(expect.source)),
                )
                .help("the last lines show how far the boot came; a silent console often means that a CPU waits or that the wrong UART is used");
                return Err(self.failed(expect, error));
            }
            match self.next(left.min(TICK))? {
                Next::Chunk(chunk) => self.consoles.accept(&chunk, show)?,
                Next::Nothing => self.consoles.transcript().flush(),
                Next::Ended(how) => {
                    let error = Diagnostic::error(ENDED, format!("QEMU ended before {}: {how}", expect.name))
                        .help("a guest that powers off, QEMU's own crash and a kill all look like this; QEMU's exit code means nothing");
                    return Err(self.failed(expect, error));
                }
            }
        }
    }

    /// Lets the machine run for a while; what it prints is looked at in the next step.
    ///
    /// # Errors
    /// What [`super::Boot::interrupted`] says; `Q106`.
    pub fn pause(&mut self, time: Duration, show: &mut dyn FnMut(Progress<'_>)) -> Result<()> {
        let deadline = Instant::now() + time;
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            (self.interrupted)().inspect_err(|error| self.consoles.transcript().verdict(error.message.clone()))?;
            match self.next(left.min(TICK))? {
                Next::Chunk(chunk) => self.consoles.accept(&chunk, show)?,
                Next::Nothing => self.consoles.transcript().flush(),
                // The next step says so.
                Next::Ended(_) => break,
            }
        }
        Ok(())
    }

    /// Whether anything takes what is typed on a console: until the hypervisor multiplexes, only it and U-Boot
    /// are there.
    pub fn takes_keys(&mut self, to: Source) -> bool {
        self.consoles.frame(to, &[]).is_ok()
    }

    /// Types on a console.
    ///
    /// # Errors
    /// [`ENDED`] when nothing takes the bytes.
    pub fn send(&mut self, to: Source, bytes: &[u8]) -> Result<()> {
        let (uart, framed) = self.consoles.frame(to, bytes).map_err(|why| cannot_type(to, why))?;
        let Some(mut socket) = self.uarts.get(usize::from(uart)) else {
            return Err(cannot_type(to, "the machine has no such UART"));
        };
        socket
            .set_write_timeout(Some(TYPING))
            .and_then(|()| socket.write_all(&framed))
            .map_err(|error| cannot_type(to, &error.to_string()))
    }

    /// Runs a command of QEMU's human monitor (`info tlb`, `xp /4x 0x100`) and returns its text.
    ///
    /// # Errors
    /// `Q107`.
    pub fn monitor(&mut self, command: &str) -> Result<String> {
        self.qmp.human(command)
    }

    /// Reads physical memory.
    ///
    /// # Errors
    /// `Q106` or `Q107`.
    pub fn read_memory(&mut self, addr: TruePhys, len: u64) -> Result<Vec<u8>> {
        let file = self.scratch.path().join("memory.bin");
        let failed = |error: std::io::Error| unusable(&file, "the copy of memory", &error);
        if len > MEMORY_MAX {
            return Err(failed(std::io::Error::other(format!("{} are more than {}", Size(len), Size(MEMORY_MAX)))));
        }
        let name = file.to_str().ok_or_else(|| failed(std::io::Error::other("its path is not UTF-8")))?;
        self.qmp.execute("pmemsave", json!({ "val": addr.0, "size": len, "filename": name }))?;
        let bytes = fs_err::read(&file).map_err(failed)?;
        let _ = fs_err::remove_file(&file);
        if bytes.len() as u64 != len {
            return Err(failed(std::io::Error::other(format!("it has {} bytes instead of {len}", bytes.len()))));
        }
        Ok(bytes)
    }

    /// Takes the next bytes of the consoles, waiting at most `patience`; those of `source` are returned.
    /// For a person at the console: no marker is looked for.
    ///
    /// # Errors
    /// [`ENDED`], or what [`super::Boot::interrupted`] says.
    pub fn read(&mut self, source: Source, patience: Duration) -> Result<Vec<u8>> {
        (self.interrupted)()?;
        match self.next(patience)? {
            Next::Chunk(chunk) => self.consoles.accept(&chunk, &mut |_| {})?,
            Next::Nothing => self.consoles.transcript().flush(),
            Next::Ended(how) => {
                let text = format!("QEMU ended: {how}");
                self.consoles.transcript().verdict(text.clone());
                return Err(Diagnostic::error(ENDED, text).help("the machine powered off, or QEMU was killed").into());
            }
        }
        Ok(self.consoles.take_all(source))
    }

    /// Enters something that the caller has found out into the list of what was reached.
    pub fn found_out(&mut self, what: String, at: Duration) {
        self.reached.push((what, at));
    }

    /// Ends the machine, since a console said what it must not; completes the diagnostic with what is known.
    pub fn refuse(&mut self, step: &str, source: Source, error: Diagnostic) -> Box<Diagnostic> {
        let step = Expect { name: step, source, marker: Marker::Text(String::new()), timeout: TICK, failures: &[] };
        self.failed(&step, error)
    }

    /// Ends the machine after a boot that passed.
    pub fn passed(mut self) -> Outcome {
        let elapsed = self.reached.iter().map(|(_, at)| *at).max().unwrap_or_default();
        let mut verdict = format!("passed in {:.3} s", elapsed.as_secs_f64());
        for (name, at) in &self.reached {
            verdict.push_str(&format!("\n  {:>8.3} s  {name}", at.as_secs_f64()));
        }
        let transcript = self.consoles.transcript();
        transcript.verdict(verdict);
        Outcome {
            reached: std::mem::take(&mut self.reached),
            elapsed,
            qemu: self.qmp.version().to_owned(),
            transcript: transcript.path().to_path_buf(),
            consoles: transcript.files(),
        }
    }

    /// QEMU's process id.
    #[cfg(test)]
    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }

    fn next(&mut self, patience: Duration) -> Result<Next> {
        let received = match &self.chunks {
            Some(chunks) => chunks.recv_timeout(patience),
            None => Err(RecvTimeoutError::Disconnected),
        };
        match received {
            Ok(chunk) => Ok(Next::Chunk(chunk)),
            Err(RecvTimeoutError::Timeout) => Ok(match self.process.ended() {
                // What it printed at last may still be on its way through a reader.
                Some(how) => match self.chunks.as_ref().and_then(|chunks| chunks.recv_timeout(LAST_WORDS).ok()) {
                    Some(chunk) => Next::Chunk(chunk),
                    None => Next::Ended(how.to_string()),
                },
                None => Next::Nothing,
            }),
            Err(RecvTimeoutError::Disconnected) => {
                // Closed consoles come a moment before the end of the process that held them.
                let deadline = Instant::now() + TYPING;
                while Instant::now() < deadline {
                    if let Some(how) = self.process.ended() {
                        return Ok(Next::Ended(how.to_string()));
                    }
                    (self.interrupted)()?;
                    std::thread::sleep(Duration::from_millis(2));
                }
                Ok(Next::Ended("it closed its consoles".to_owned()))
            }
        }
    }

    fn boot_failed(&mut self, expect: &Expect<'_>, source: Source, found: Found) -> Box<Diagnostic> {
        self.last_words(source);
        let text = expect.failures.get(found.marker).copied().unwrap_or_default();
        // The rest of the failing line belongs to the message.
        let line = self.consoles.line_of(source, found);
        let who = self.consoles.name(source);
        let error =
            Diagnostic::error(BOOT_FAILED, format!("the boot failed before {}: {who} says `{line}`", expect.name))
                .fact("failure", text)
                .help(
                    "this text never appears in a boot that works; the lines around it name the image or the command",
                );
        self.failed(expect, error)
    }

    /// Takes what comes in the next moment, which often explains what came last.
    fn last_words(&mut self, source: Source) {
        let deadline = Instant::now() + LAST_WORDS;
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            match self.next(left.min(TICK)) {
                Ok(Next::Chunk(chunk)) => {
                    // Held bytes must stay where `Found` points; a flood ends the wait.
                    if !self.consoles.has_room(source, chunk.bytes.len())
                        || self.consoles.accept(&chunk, &mut |_| {}).is_err()
                    {
                        return;
                    }
                }
                Ok(Next::Nothing) => {}
                Ok(Next::Ended(_)) | Err(_) => return,
            }
        }
    }

    /// Completes a diagnostic with what is known, and writes it into the transcript.
    fn failed(&mut self, expect: &Expect<'_>, error: Diagnostic) -> Box<Diagnostic> {
        self.process.kill();
        let shown = self.consoles.last_lines(expect.source);
        let transcript = self.consoles.transcript();
        transcript.verdict(format!("failed: {}", error.message));
        transcript.flush();
        let path = transcript.path().display().to_string();
        let told = match shown.as_str() {
            "" => "the console printed nothing".to_owned(),
            lines => format!("the console ended with:{lines}"),
        };
        let reached: Vec<&str> = self.reached.iter().map(|(name, _)| name.as_str()).collect();
        error.primary(Label::file(path, told)).fact("step", expect.name).fact("reached", reached.join(", ")).into()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.process.kill();
        // A reader waits for room in the channel or for bytes; both end here, even if another child of the
        // tool has inherited the other end of a socket.
        self.chunks = None;
        for socket in &self.uarts {
            let _ = socket.shutdown(Shutdown::Both);
        }
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
    }
}

/// What a wait brings.
enum Next {
    Chunk(Chunk),
    Nothing,
    Ended(String),
}

fn cannot_type(to: Source, why: &str) -> Box<Diagnostic> {
    Diagnostic::error(ENDED, format!("nothing can be typed on {to}: {why}"))
        .help("a machine that has ended or hangs reads nothing")
        .into()
}
