//! Standard output and standard error, which may be stopped at any time: a pager, a terminal after Ctrl-S.
//!
//! They cannot be made non-blocking without changing them for every other program that has them. So a thread writes,
//! and what it has not written yet waits in a queue like any client's.

use std::io::Write;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, channel, sync_channel};
use std::time::{Duration, Instant};

use super::queue::Queue;

/// Pieces on their way to the thread.
const PIECES: usize = 16;
/// Bytes of a piece.
const PIECE: usize = 4096;

/// An output that never makes its writer wait.
#[derive(Debug)]
pub struct Sink {
    queue: Queue,
    pieces: Option<SyncSender<Vec<u8>>>,
    ended: Receiver<()>,
}

impl Sink {
    /// One that writes to `output`.
    pub fn new(mut output: impl Write + Send + 'static) -> Self {
        let (pieces, written) = sync_channel::<Vec<u8>>(PIECES);
        let (end, ended) = channel();
        std::thread::spawn(move || {
            // Its going is what `finish` waits for.
            let _end = end;
            for piece in written {
                if output.write_all(&piece).and_then(|()| output.flush()).is_err() {
                    break;
                }
            }
        });
        Self { queue: Queue::default(), pieces: Some(pieces), ended }
    }

    /// Adds bytes; the oldest are dropped when nobody reads.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.pieces.is_some() {
            self.queue.push(bytes);
            self.pump();
        }
    }

    /// Whether bytes wait for the thread.
    pub fn waits(&self) -> bool {
        self.pieces.is_some() && !self.queue.is_empty()
    }

    /// Hands over what the thread has room for; false when the reader has gone.
    pub fn pump(&mut self) -> bool {
        while let Some(pieces) = self.pieces.as_ref().filter(|_| !self.queue.is_empty()) {
            let next = self.queue.next();
            let piece = next[..next.len().min(PIECE)].to_vec();
            let len = piece.len();
            match pieces.try_send(piece) {
                Ok(()) => self.queue.written(len),
                Err(TrySendError::Full(_)) => break,
                Err(TrySendError::Disconnected(_)) => self.pieces = None,
            }
        }
        self.pieces.is_some()
    }
}

impl Drop for Sink {
    /// Lets the thread write what there is, if somebody reads it.
    fn drop(&mut self) {
        let deadline = Instant::now() + Duration::from_millis(500);
        while self.waits() && Instant::now() < deadline {
            self.pump();
            std::thread::sleep(Duration::from_millis(5));
        }
        self.pieces = None;
        let left = deadline.saturating_duration_since(Instant::now());
        // Nothing is ever sent: this returns when the thread ends, or when it is too late.
        let _ = self.ended.recv_timeout(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::queue::LIMIT;
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_reader_that_stalls_stops_nobody() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut sink = Sink::new(ours);
        let begun = Instant::now();
        let all = 4 * LIMIT;
        for _ in 0..all / 4096 {
            sink.push(&[b'x'; 4096]);
        }
        sink.push(b"end");
        assert!(begun.elapsed() < Duration::from_secs(5) && sink.queue.dropped() > 0);
        let dropped = sink.queue.dropped();
        let reader = std::thread::spawn(move || {
            let mut seen = Vec::new();
            theirs.read_to_end(&mut seen).unwrap();
            seen
        });
        while sink.waits() {
            sink.pump();
        }
        drop(sink);
        let seen = reader.join().unwrap();
        assert!(seen.ends_with(b"end"));
        let come = seen.iter().filter(|&&byte| byte == b'x').count() as u64;
        assert_eq!(come, all as u64 - dropped);
    }

    #[test]
    fn a_reader_that_has_gone_is_noticed() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        let mut sink = Sink::new(ours);
        let deadline = Instant::now() + Duration::from_secs(10);
        while sink.pump() && Instant::now() < deadline {
            sink.push(b"x");
        }
        assert!(!sink.pump() && !sink.waits());
    }
}
