//! A machine that runs: start it, wait for markers, type, look into memory, end it.

mod launch;

use std::collections::{BTreeMap, VecDeque};
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

use super::console::{Chunk, Found, Mux, Source, Stream, harmless};
use super::marker::{Expect, Marker};
use super::process::Process;
use super::qmp::Qmp;
use super::transcript::Transcript;
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
/// Lines of the console that a failure shows.
const LINES_SHOWN: usize = 20;
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
    streams: BTreeMap<Source, Stream>,
    mux: Option<Box<dyn Mux>>,
    /// The multiplexer has selected a channel: the bytes of UART 0 are shown by their channels.
    framed: bool,
    lines: VecDeque<String>,
    transcript: Transcript,
    scratch: TempDir,
    reached: Vec<(String, Duration)>,
    last_byte: Duration,
    interrupted: fn() -> Result<()>,
}

impl Session {
    /// From now on UART 0 carries a multiplexer, whose channels are sources of their own beside it.
    pub fn set_mux(&mut self, mux: Box<dyn Mux>) {
        self.mux = Some(mux);
    }

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
        self.streams.entry(expect.source).or_default();
        self.streams.values_mut().for_each(Stream::rewind);
        loop {
            if let Some((source, found)) = self.find(expect.source, &markers) {
                if found.marker < failures {
                    return Err(self.boot_failed(expect, source, found));
                }
                let bytes = self.streams.entry(source).or_default().take(found.end);
                let at = self.last_byte;
                self.reached.push((expect.name.to_owned(), at));
                show(Progress::Reached(expect.name, at));
                return Ok(Seen { bytes, at });
            }
            if self.streams.get(&Source::Uart(0)).is_some_and(Stream::restarted) {
                let error = Diagnostic::error(BOOT_FAILED, format!("the machine was reset before {}", expect.name))
                    .help("the last lines before the second banner of U-Boot say why; a CPU that takes an exception without a handler resets too");
                return Err(self.failed(expect, error));
            }
            (self.interrupted)().inspect_err(|error| self.transcript.verdict(error.message.clone()))?;
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let error = Diagnostic::error(
                    TIMEOUT,
                    format!("{} did not come within {} s: no {} on {}", expect.name, expect.timeout.as_secs_f32(), expect.marker, expect.source),
                )
                .help("the last lines show how far the boot came; a silent console often means that a CPU waits or that the wrong UART is used");
                return Err(self.failed(expect, error));
            }
            match self.next(left.min(TICK))? {
                Next::Chunk(chunk) => self.accept(&chunk, show)?,
                Next::Nothing => self.transcript.flush(),
                Next::Ended(how) => {
                    let error = Diagnostic::error(ENDED, format!("QEMU ended before {}: {how}", expect.name))
                        .help("a guest that powers off, QEMU's own crash and a kill all look like this; QEMU's exit code means nothing");
                    return Err(self.failed(expect, error));
                }
            }
        }
    }

    /// Types on a console.
    ///
    /// # Errors
    /// [`ENDED`] when nothing takes the bytes.
    pub fn send(&mut self, to: Source, bytes: &[u8]) -> Result<()> {
        let (uart, framed) = match (to, &mut self.mux) {
            (Source::Uart(uart), _) => (uart, bytes.to_vec()),
            (Source::Channel(channel), Some(mux)) => (0, mux.encode(channel, bytes)),
            (Source::Channel(_), None) => return Err(cannot_type(to, "UART 0 carries no multiplexer")),
        };
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
            Next::Chunk(chunk) => self.accept(&chunk, &mut |_| {})?,
            Next::Nothing => self.transcript.flush(),
            Next::Ended(how) => {
                let text = format!("QEMU ended: {how}");
                self.transcript.verdict(text.clone());
                return Err(Diagnostic::error(ENDED, text).help("the machine powered off, or QEMU was killed").into());
            }
        }
        let stream = self.streams.entry(source).or_default();
        let all = stream.held().len();
        Ok(stream.take(all))
    }

    /// Ends the machine after a boot that passed.
    pub fn passed(mut self) -> Outcome {
        let elapsed = self.reached.last().map_or(Duration::ZERO, |(_, at)| *at);
        let mut verdict = format!("passed in {:.3} s", elapsed.as_secs_f64());
        for (name, at) in &self.reached {
            verdict.push_str(&format!("\n  {:>8.3} s  {name}", at.as_secs_f64()));
        }
        self.transcript.verdict(verdict);
        Outcome {
            reached: std::mem::take(&mut self.reached),
            elapsed,
            qemu: self.qmp.version().to_owned(),
            transcript: self.transcript.path().to_path_buf(),
        }
    }

    /// QEMU's process id.
    #[cfg(test)]
    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }

    /// The first failure of any source, or the expected marker of its own.
    fn find(&mut self, expected: Source, markers: &[Marker]) -> Option<(Source, Found)> {
        let failures = &markers[..markers.len().saturating_sub(1)];
        self.streams.iter_mut().find_map(|(source, stream)| {
            let searched = if *source == expected { markers } else { failures };
            stream.find(searched).map(|found| (*source, found))
        })
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

    /// Enters what came into the transcript and into the streams.
    fn accept(&mut self, chunk: &Chunk, show: &mut dyn FnMut(Progress<'_>)) -> Result<()> {
        self.last_byte = chunk.at;
        self.transcript.console(chunk.uart, &chunk.bytes)?;
        let visible = chunk.uart != 0 || !self.framed;
        self.feed(Source::Uart(chunk.uart), &chunk.bytes, visible, show);
        if chunk.uart == 0
            && let Some(mut mux) = self.mux.take()
        {
            let mut run: Option<(u8, Vec<u8>)> = None;
            // One run of bytes of a channel is fed at once.
            for (channel, byte) in chunk.bytes.iter().filter_map(|byte| mux.decode(*byte)) {
                self.framed = true;
                match &mut run {
                    Some((current, bytes)) if *current == channel => bytes.push(byte),
                    _ => {
                        if let Some((channel, bytes)) = run.replace((channel, vec![byte])) {
                            self.feed(Source::Channel(channel), &bytes, true, show);
                        }
                    }
                }
            }
            if let Some((channel, bytes)) = run {
                self.feed(Source::Channel(channel), &bytes, true, show);
            }
            self.mux = Some(mux);
        }
        Ok(())
    }

    fn feed(&mut self, source: Source, bytes: &[u8], visible: bool, show: &mut dyn FnMut(Progress<'_>)) {
        let lines = &mut self.lines;
        self.streams.entry(source).or_default().push(bytes, &mut |line| {
            if visible {
                show(Progress::Line(source, line));
                lines.push_back(line.to_owned());
                if lines.len() > LINES_SHOWN {
                    lines.pop_front();
                }
            }
        });
    }

    fn boot_failed(&mut self, expect: &Expect<'_>, source: Source, found: Found) -> Box<Diagnostic> {
        self.last_words(source);
        let text = expect.failures.get(found.marker).copied().unwrap_or_default();
        // The rest of the failing line belongs to the message.
        let bytes = self.streams.get(&source).map_or(&[][..], Stream::held);
        let start = bytes[..found.end].iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let line = bytes[start..].split(|&byte| byte == b'\n').next().unwrap_or_default();
        let line = harmless(&line[..line.len().min(200)]);
        let error = Diagnostic::error(
            BOOT_FAILED,
            format!("the boot failed before {}: {source} says `{}`", expect.name, line.trim()),
        )
        .fact("failure", text)
        .help("this text never appears in a boot that works; the lines around it name the image or the command");
        self.failed(expect, error)
    }

    /// Takes what comes in the next moment, which often explains what came last.
    fn last_words(&mut self, source: Source) {
        let deadline = Instant::now() + LAST_WORDS;
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            match self.next(left.min(TICK)) {
                Ok(Next::Chunk(chunk)) => {
                    // Held bytes must stay where `Found` points; a flood ends the wait.
                    if self.streams.get(&source).is_some_and(|stream| !stream.has_room(chunk.bytes.len()))
                        || self.accept(&chunk, &mut |_| {}).is_err()
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
        self.transcript.verdict(format!("failed: {}", error.message));
        self.transcript.flush();
        let mut shown: Vec<String> = self.lines.iter().map(|line| format!("\n  {line}")).collect();
        let unfinished = self.streams.get(&expect.source).map(Stream::unfinished).unwrap_or_default();
        if !unfinished.is_empty() {
            shown.push(format!("\n  {unfinished}"));
        }
        let told = if shown.is_empty() {
            "the console printed nothing".to_owned()
        } else {
            format!("the console ended with:{}", shown.concat())
        };
        let reached: Vec<&str> = self.reached.iter().map(|(name, _)| name.as_str()).collect();
        error
            .primary(Label::file(self.transcript.path().display().to_string(), told))
            .fact("step", expect.name)
            .fact("reached", reached.join(", "))
            .into()
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
