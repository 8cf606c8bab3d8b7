//! Console bytes: where they come from, how they wait for a marker, how they are made harmless to show.
//!
//! Whatever runs in the machine may print anything, for ever. So every buffer has a limit; when nobody
//! reads, the sockets fill up and the emulated UARTs wait, which loses nothing.

use std::collections::VecDeque;
use std::fmt;
use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::marker::{Marker, UBOOT_BANNER};
pub use crate::console::tail::{Tail, harmless};

/// UARTs of the machine.
pub const UARTS: u8 = 2;
/// Bytes of one source that wait for a marker; older ones are forgotten.
const HELD_MAX: usize = 256 << 10;
/// A longer line is shown in pieces.
const LINE_MAX: usize = 1024;

/// Where bytes come from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Source {
    /// A UART's bytes as they are.
    Uart(u8),
    /// One channel of the console multiplexer on UART 0. UART 0 is no source of its own then.
    Channel(u8),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uart(number) => write!(f, "UART {number}"),
            Self::Channel(number) => write!(f, "channel {number}"),
        }
    }
}

/// Bytes that came from a UART in one read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chunk {
    /// Which.
    pub uart: u8,
    /// After the start of the machine.
    pub at: Duration,
    /// At most 4 KiB.
    pub bytes: Vec<u8>,
}

/// Reads a UART's socket until it closes, or until nobody listens.
pub fn reader(uart: u8, mut socket: UnixStream, started: Instant, chunks: SyncSender<Chunk>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(len @ 1..) = socket.read(&mut buffer) {
            let chunk = Chunk { uart, at: started.elapsed(), bytes: buffer[..len].to_vec() };
            if chunks.send(chunk).is_err() {
                break;
            }
        }
    })
}

/// The bytes of one source: those in which markers are still to be found, and the line that is growing.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    held: Vec<u8>,
    /// Up to where `held` had grown at which time after the start, for every piece that is still there.
    arrivals: VecDeque<(usize, Duration)>,
    /// The byte before `held` does not end a line.
    inside_line: bool,
    /// Up to here `held` has been searched for the markers of this step.
    searched: usize,
    line: Vec<u8>,
    banners: usize,
}

/// Where a marker was found in a [`Stream`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    /// Index of the marker in the list that was searched for.
    pub marker: usize,
    /// First byte behind it.
    pub end: usize,
}

impl Stream {
    /// Adds bytes that came at `at`; `line` gets every line that they complete, harmless and without its end.
    pub fn push(&mut self, bytes: &[u8], at: Duration, line: &mut dyn FnMut(&str)) {
        self.held.extend_from_slice(bytes);
        self.arrivals.push_back((self.held.len(), at));
        if self.held.len() > HELD_MAX {
            self.forget(self.held.len() - HELD_MAX / 2);
        }
        for &byte in bytes {
            if byte != b'\n' {
                self.line.push(byte);
            }
            if byte == b'\n' || self.line.len() >= LINE_MAX {
                if self.line.starts_with(UBOOT_BANNER.as_bytes()) {
                    self.banners += 1;
                }
                line(&harmless(&self.line));
                self.line.clear();
            }
        }
    }

    /// The line that has not ended yet.
    pub fn unfinished(&self) -> String {
        harmless(&self.line)
    }

    /// How often the boot loader has started.
    pub fn banners(&self) -> usize {
        self.banners
    }

    /// When the held byte before `end` came, after the start.
    pub fn time_of(&self, end: usize) -> Duration {
        self.arrivals.iter().find(|(len, _)| *len >= end).map_or(Duration::ZERO, |(_, at)| *at)
    }

    /// The next search begins with the oldest byte held: the markers are others.
    pub fn rewind(&mut self) {
        self.searched = 0;
    }

    /// The first of the markers in the order of the bytes. Call again with the same markers after more
    /// bytes have come.
    pub fn find(&mut self, markers: &[Marker]) -> Option<Found> {
        let longest = markers.iter().map(Marker::decided_by).max()?;
        let first =
            markers.iter().enumerate().filter_map(|(index, marker)| Some((self.position(marker)?, index))).min();
        match first {
            Some((start, index)) => Some(Found { marker: index, end: start + markers[index].text().len() }),
            None => {
                self.searched = self.held.len().saturating_sub(longest.saturating_sub(1));
                None
            }
        }
    }

    fn position(&self, marker: &Marker) -> Option<usize> {
        let text = marker.text().as_bytes();
        let ends_line = |byte: &u8| matches!(byte, b'\n' | b'\r');
        let starts_line = |at: usize| match at.checked_sub(1) {
            Some(before) => ends_line(&self.held[before]),
            None => !self.inside_line,
        };
        let fits = |at: usize| match marker {
            Marker::Text(_) => true,
            Marker::LineStart(_) => starts_line(at),
            Marker::Line(_) => starts_line(at) && self.held.get(at + text.len()).is_some_and(ends_line),
        };
        self.held[self.searched..]
            .windows(text.len().max(1))
            .enumerate()
            .filter(|(_, window)| *window == text)
            .map(|(at, _)| at + self.searched)
            .find(|&at| fits(at))
    }

    /// The bytes that wait for a marker.
    pub fn held(&self) -> &[u8] {
        &self.held
    }

    /// Whether `len` more bytes push none out.
    pub fn has_room(&self, len: usize) -> bool {
        self.held.len() + len <= HELD_MAX
    }

    /// Takes the oldest `len` bytes away and returns them: they are dealt with.
    pub fn take(&mut self, len: usize) -> Vec<u8> {
        let taken = self.held[..len].to_vec();
        self.forget(len);
        taken
    }

    fn forget(&mut self, len: usize) {
        if let Some(&last) = self.held[..len].last() {
            self.inside_line = !matches!(last, b'\n' | b'\r');
        }
        self.held.drain(..len);
        self.arrivals.retain_mut(|(end, _)| {
            *end = end.saturating_sub(len);
            *end > 0
        });
        self.searched = self.searched.saturating_sub(len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn markers(texts: &[&str]) -> Vec<Marker> {
        texts.iter().map(|text| Marker::Text((*text).to_owned())).collect()
    }

    fn push(stream: &mut Stream, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        stream.push(bytes, Duration::ZERO, &mut |line| lines.push(line.to_owned()));
        lines
    }

    #[test]
    fn the_first_marker_of_the_stream_wins() {
        let mut stream = Stream::default();
        push(&mut stream, b"xx late ok early ERROR: ");
        let found = stream.find(&markers(&["ERROR:", "ok"])).unwrap();
        assert_eq!(found.marker, 1);
        assert_eq!(stream.take(found.end), b"xx late ok");
        stream.rewind();
        assert_eq!(stream.find(&markers(&["ERROR:", "ok"])).unwrap().marker, 0);
    }

    #[test]
    fn a_prompt_is_one_only_at_the_beginning_of_a_line() {
        let prompt = [Marker::LineStart("=> ".to_owned())];
        let mut stream = Stream::default();
        push(&mut stream, b"a => b");
        assert_eq!(stream.find(&prompt), None);
        push(&mut stream, b"\r\n=> ");
        let end = stream.find(&prompt).unwrap().end;
        stream.take(end);
        stream.rewind();
        // What follows the prompt on its line does not begin one.
        push(&mut stream, b"=> ");
        assert_eq!(stream.find(&prompt), None);
    }

    #[test]
    fn a_whole_line_has_a_beginning_and_an_end() {
        let line = [Marker::Line("CPU 1".to_owned())];
        let mut stream = Stream::default();
        push(&mut stream, b"no CPU 1\r\nCPU 10\r\nCPU 1");
        assert_eq!(stream.find(&line), None);
        push(&mut stream, b"\r\n");
        let found = stream.find(&line).unwrap();
        assert_eq!(stream.take(found.end), b"no CPU 1\r\nCPU 10\r\nCPU 1");
    }

    #[test]
    fn lines_are_bounded_and_harmless() {
        let mut stream = Stream::default();
        assert_eq!(push(&mut stream, b"a\x1b[2Jb\xff\r\n\nc"), ["a\u{fffd}[2Jb\u{fffd}", ""]);
        assert_eq!(stream.unfinished(), "c");
        assert_eq!(push(&mut stream, &[b'x'; 3 * LINE_MAX]).len(), 3);
        assert_eq!(harmless("\u{202e}\u{9b}a\tb".as_bytes()), "\u{fffd}\u{fffd}a\tb");
    }

    #[test]
    fn a_flood_is_held_within_the_limit() {
        let mut stream = Stream::default();
        for _ in 0..1000 {
            push(&mut stream, &[b'x'; 4096]);
            assert_eq!(stream.find(&markers(&["needle"])), None);
            assert!(stream.held.len() <= HELD_MAX);
        }
        push(&mut stream, b"nee");
        assert_eq!(stream.find(&markers(&["needle"])), None);
        push(&mut stream, b"dle");
        assert!(stream.find(&markers(&["needle"])).is_some());
        let mut tail = Tail::new(4);
        tail.push(b"abcdef");
        assert_eq!(tail.text(), "cdef");
    }

    #[test]
    fn the_second_banner_is_a_restart() {
        let mut stream = Stream::default();
        push(&mut stream, b"\r\nU-Boot 2023.01\r\nsays U-Boot 2023.01\r\n");
        assert_eq!(stream.banners(), 1);
        push(&mut stream, b"U-Boot 2023.01\r\n");
        assert_eq!(stream.banners(), 2);
    }

    #[test]
    fn a_marker_has_the_time_of_its_last_byte() {
        let mut stream = Stream::default();
        for (second, bytes) in [(1, &b"boot\nrea"[..]), (2, b"dy\n"), (9, b"more")] {
            stream.push(bytes, Duration::from_secs(second), &mut |_| {});
        }
        let found = stream.find(&markers(&["ready"])).unwrap();
        assert_eq!(stream.time_of(found.end), Duration::from_secs(2));
        stream.take(found.end);
        stream.rewind();
        let found = stream.find(&markers(&["mo"])).unwrap();
        assert_eq!(stream.time_of(found.end), Duration::from_secs(9));
        assert_eq!(stream.time_of(1), Duration::from_secs(2), "the end of the line came with the marker");
    }

    proptest! {
        /// However the bytes are cut into chunks, the same marker is found at the same place.
        #[test]
        fn chunks_do_not_matter(text in "[ab\n]{0,60}", cuts in proptest::collection::vec(1usize..9, 60)) {
            let wanted = [Marker::Text("aab".into()), Marker::LineStart("ba".into()), Marker::Line("bb".into())];
            let mut whole = Stream::default();
            push(&mut whole, text.as_bytes());
            let expected = whole.find(&wanted);

            let mut stream = Stream::default();
            let (mut rest, mut found) = (text.as_bytes(), None);
            for cut in cuts {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                rest = later;
                push(&mut stream, now);
                found = stream.find(&wanted);
                if found.is_some() {
                    break;
                }
            }
            // A longer marker that starts earlier may still be growing when a shorter one is complete.
            prop_assert_eq!(found.is_some(), expected.is_some());
        }

        #[test]
        fn nothing_shown_drives_a_terminal(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let text = harmless(&bytes);
            prop_assert!(text.chars().all(|c| !c.is_control() || c == '\n' || c == '\t'));
        }
    }
}
