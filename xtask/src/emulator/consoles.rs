//! All consoles of one machine: what the UARTs bring goes to its source's stream and into the transcripts,
//! what is typed gets its frame.
//!
//! With a console multiplexer on UART 0 every byte of it belongs to a channel. Before the other end has
//! selected one, that is the hypervisor's own: U-Boot prints there, and the hypervisor until it multiplexes.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use citrine_planner::diag::Result;

use super::console::{Chunk, Found, Source, Stream, UARTS, harmless};
use super::marker::Marker;
use super::session::Progress;
use super::transcript::Transcript;
use crate::console::framing::Framing;

/// Lines of the consoles that a failure shows.
const LINES_SHOWN: usize = 20;

/// The channels of a multiplexer on UART 0.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Channels {
    /// The channel of everything before the first selection.
    pub first: u8,
    /// What transcripts call each channel; one without a name is not kept.
    pub names: BTreeMap<u8, String>,
}

/// The consoles of a running machine.
#[derive(Debug)]
pub struct Consoles {
    streams: BTreeMap<Source, Stream>,
    /// UART 0's, if it has one, and the channel of everything before the first selection.
    mux: Option<(u8, Framing)>,
    names: BTreeMap<Source, String>,
    /// What was shown last.
    lines: VecDeque<String>,
    transcript: Transcript,
}

impl Consoles {
    /// Silent ones: UARTs, or with `channels` those in place of UART 0. `transcript` makes the files for all
    /// sources and their names.
    ///
    /// # Errors
    /// What `transcript` returns.
    pub fn new(
        channels: Option<&Channels>,
        transcript: impl FnOnce(&[(Source, String)]) -> Result<Transcript>,
    ) -> Result<Self> {
        let framed = channels.iter().flat_map(|channels| &channels.names);
        let mut names: Vec<(Source, String)> =
            framed.map(|(channel, name)| (Source::Channel(*channel), name.clone())).collect();
        let plain = if channels.is_some() { 1..UARTS } else { 0..UARTS };
        names.extend(plain.map(|uart| (Source::Uart(uart), format!("uart{uart}"))));
        let mux = channels.map(|channels| (channels.first, Framing::new(channels.first)));
        Ok(Self {
            streams: BTreeMap::new(),
            mux,
            transcript: transcript(&names)?,
            names: names.into_iter().collect(),
            lines: VecDeque::new(),
        })
    }

    /// Enters what came.
    ///
    /// # Errors
    /// [`super::FILE`] when the transcript cannot be written.
    pub fn accept(&mut self, chunk: &Chunk, show: &mut dyn FnMut(Progress<'_>)) -> Result<()> {
        let Some((_, framing)) = self.mux.as_mut().filter(|_| chunk.uart == 0) else {
            return self.feed(Source::Uart(chunk.uart), chunk.at, &chunk.bytes, show);
        };
        let runs = framing.receive(&chunk.bytes);
        runs.into_iter().try_for_each(|(channel, bytes)| self.feed(Source::Channel(channel), chunk.at, &bytes, show))
    }

    fn feed(&mut self, source: Source, at: Duration, bytes: &[u8], show: &mut dyn FnMut(Progress<'_>)) -> Result<()> {
        self.transcript.console(source, at, bytes)?;
        let name = self.names.get(&source).map_or("", String::as_str);
        let lines = &mut self.lines;
        self.streams.entry(source).or_default().push(bytes, at, &mut |line| {
            show(Progress::Line(source, line));
            lines.push_back(format!("{name}: {line}"));
            if lines.len() > LINES_SHOWN {
                lines.pop_front();
            }
        });
        Ok(())
    }

    /// What to write to which UART to type `bytes` on a console.
    ///
    /// # Errors
    /// Why nothing can be typed there.
    pub fn frame(&mut self, to: Source, bytes: &[u8]) -> std::result::Result<(u8, Vec<u8>), &'static str> {
        match (to, &mut self.mux) {
            (Source::Uart(0), Some(_)) => Err("UART 0 carries a multiplexer"),
            (Source::Uart(uart), _) => Ok((uart, bytes.to_vec())),
            (Source::Channel(_), None) => Err("UART 0 carries no multiplexer"),
            // U-Boot knows nothing of frames.
            (Source::Channel(channel), Some((first, framing))) if !framing.has_escaped() && channel == *first => {
                Ok((0, bytes.to_vec()))
            }
            (Source::Channel(_), Some((_, framing))) if !framing.has_escaped() => Err("nothing multiplexes UART 0 yet"),
            (Source::Channel(channel), Some((_, framing))) => Ok((0, framing.frame(channel, bytes))),
        }
    }

    /// The next search begins with the oldest bytes held: the markers are others.
    pub fn rewind(&mut self) {
        self.streams.values_mut().for_each(Stream::rewind);
    }

    /// The first failure of any source, or the expected marker of its own, which is the last of `markers`.
    pub fn find(&mut self, expected: Source, markers: &[Marker]) -> Option<(Source, Found)> {
        let failures = &markers[..markers.len().saturating_sub(1)];
        self.streams.iter_mut().find_map(|(source, stream)| {
            let searched = if *source == expected { markers } else { failures };
            stream.find(searched).map(|found| (*source, found))
        })
    }

    /// Takes what a source has brought up to `end`, and when the last of it came.
    pub fn take(&mut self, source: Source, end: usize) -> (Vec<u8>, Duration) {
        let stream = self.streams.entry(source).or_default();
        let at = stream.time_of(end);
        (stream.take(end), at)
    }

    /// Takes all that a source has brought.
    pub fn take_all(&mut self, source: Source) -> Vec<u8> {
        let stream = self.streams.entry(source).or_default();
        let all = stream.held().len();
        stream.take(all)
    }

    /// Whether the boot loader has started again.
    pub fn restarted(&self) -> bool {
        self.streams.values().map(Stream::banners).sum::<usize>() > 1
    }

    /// Whether `len` more bytes of a source push none out that are still held.
    pub fn has_room(&self, source: Source, len: usize) -> bool {
        self.streams.get(&source).is_none_or(|stream| stream.has_room(len))
    }

    /// The whole line around what was found.
    pub fn line_of(&self, source: Source, found: Found) -> String {
        let bytes = self.streams.get(&source).map_or(&[][..], Stream::held);
        let start = bytes[..found.end].iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let line = bytes[start..].split(|&byte| byte == b'\n').next().unwrap_or_default();
        harmless(&line[..line.len().min(200)]).trim().to_owned()
    }

    /// The last lines of all consoles, and the unfinished one of `source`, each indented on a line of its own;
    /// empty when nothing was printed.
    pub fn last_lines(&self, source: Source) -> String {
        let unfinished = self.streams.get(&source).map(Stream::unfinished).filter(|line| !line.is_empty());
        let unfinished = unfinished.map(|line| format!("{}: {line}", self.name(source)));
        self.lines.iter().chain(&unfinished).map(|line| format!("\n  {line}")).collect()
    }

    /// What people call a source.
    pub fn name(&self, source: Source) -> String {
        let name = self.names.get(&source).filter(|_| matches!(source, Source::Channel(_)));
        name.cloned().unwrap_or_else(|| source.to_string())
    }

    /// The files.
    pub fn transcript(&mut self) -> &mut Transcript {
        &mut self.transcript
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn consoles(dir: &Path) -> Consoles {
        let names = [(0, "hv"), (1, "p1"), (2, "p2")].map(|(channel, name)| (channel, name.to_owned()));
        let channels = Channels { first: 0, names: names.into() };
        Consoles::new(Some(&channels), |names| Transcript::create(&dir.join("boot.log"), &[], names)).unwrap()
    }

    /// What a machine sends, and when: U-Boot, the hypervisor's plain report, three channels, a bad escape.
    const RECORDED: [(u64, &[u8]); 6] = [
        (1, b"\r\nU-Boot 2023.01\r\nciti"),
        (2, b"zen\r\nready\r\n\x18\x01\x18\x01\x18\x01\x18"),
        (3, b"0HV> \x181Linux\r\n\x182Lin"),
        (4, b"ux\r\np2# \x181p1# a\x18\x18b"),
        (5, b"\x18\x02\x182x\x185nobody's"),
        (6, b"\x180late"),
    ];

    fn play(consoles: &mut Consoles, lines: &mut Vec<String>) {
        for (second, bytes) in RECORDED {
            let chunk = Chunk { uart: 0, at: Duration::from_secs(second), bytes: bytes.to_vec() };
            let mut show = |progress: Progress<'_>| {
                if let Progress::Line(source, line) = progress {
                    lines.push(format!("{source}: {line}"));
                }
            };
            consoles.accept(&chunk, &mut show).unwrap();
        }
    }

    #[test]
    fn a_recorded_stream_becomes_consoles_and_files() {
        let dir = tempfile::tempdir().unwrap();
        let mut consoles = consoles(dir.path());
        let mut lines = Vec::new();
        play(&mut consoles, &mut lines);
        let expected = [
            "channel 0: ",
            "channel 0: U-Boot 2023.01",
            "channel 0: citizen",
            "channel 0: ready",
            "channel 1: Linux",
            "channel 2: Linux",
        ];
        assert_eq!(lines, expected);
        assert!(consoles.last_lines(Source::Channel(2)).ends_with("\n  p1: Linux\n  p2: Linux\n  p2: p2# x"));
        let prompt = [Marker::LineStart("p2# ".to_owned())];
        let (source, found) = consoles.find(Source::Channel(2), &prompt).unwrap();
        assert_eq!(consoles.take(source, found.end), (b"Linux\r\np2# ".to_vec(), Duration::from_secs(4)));
        assert_eq!(consoles.take_all(Source::Channel(1)), b"Linux\r\np1# a\x18b");
        assert!(consoles.take_all(Source::Channel(0)).ends_with(b"ready\r\nHV> late"));
        let files = consoles.transcript().files();
        assert_eq!(files.keys().collect::<Vec<_>>(), ["hv", "p1", "p2"]);
        drop(consoles);
        let text = |name: &str| fs_err::read_to_string(&files[name]).unwrap();
        assert_eq!(text("p1"), "[   3.000] Linux\n[   4.000] p1# a\u{18}b");
        assert_eq!(text("p2"), "[   3.000] Linux\n[   4.000] p2# x");
        assert!(text("hv").contains("[   1.000] citizen\n[   2.000] ready\n[   3.000] HV> late"));
        assert!(!fs_err::read_to_string(dir.path().join("boot.log")).unwrap().contains("nobody"));
    }

    #[test]
    fn keys_are_framed_once_the_other_end_multiplexes() {
        let dir = tempfile::tempdir().unwrap();
        let mut consoles = consoles(dir.path());
        assert_eq!(consoles.frame(Source::Channel(0), b"run\n"), Ok((0, b"run\n".to_vec())));
        assert!(consoles.frame(Source::Channel(1), b"x").is_err());
        assert!(consoles.frame(Source::Uart(0), b"x").is_err());
        play(&mut consoles, &mut Vec::new());
        assert_eq!(consoles.frame(Source::Channel(1), b"a\x18"), Ok((0, b"\x181a\x18\x18".to_vec())));
        assert_eq!(consoles.frame(Source::Channel(1), b"b"), Ok((0, b"b".to_vec())));
        assert_eq!(consoles.frame(Source::Uart(1), b"b"), Ok((1, b"b".to_vec())));
        let reset = Chunk { uart: 0, at: Duration::ZERO, bytes: b"\x18\x01".to_vec() };
        consoles.accept(&reset, &mut |_| {}).unwrap();
        assert_eq!(consoles.frame(Source::Channel(1), b"c"), Ok((0, b"\x181c".to_vec())));
    }

    #[test]
    fn a_second_banner_is_a_restart_on_whatever_channel() {
        let dir = tempfile::tempdir().unwrap();
        let mut consoles = consoles(dir.path());
        play(&mut consoles, &mut Vec::new());
        assert!(!consoles.restarted());
        let chunk = Chunk { uart: 0, at: Duration::ZERO, bytes: b"\x181\r\n\r\nU-Boot 2023.01\r\n".to_vec() };
        consoles.accept(&chunk, &mut |_| {}).unwrap();
        assert!(consoles.restarted());
    }
}
