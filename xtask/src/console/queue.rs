//! What waits for a client that is slower than the line.
//!
//! The line is never slowed down by a client. So the queue has a limit; beyond it the oldest bytes go, and where they
//! were the client finds a line that says how many. The transcript has them all.

use std::collections::VecDeque;

/// Bytes that wait for one client at most: 22 seconds of a line at 115200 baud.
pub const LIMIT: usize = 256 << 10;

/// What waits for one client.
#[derive(Debug, Default)]
pub struct Queue {
    /// What is left of a mark. It is not part of the limit and is never dropped.
    mark: VecDeque<u8>,
    /// Some of the mark is written, so it must stay as it is.
    begun: bool,
    /// Bytes of which no mark that is begun speaks.
    unmarked: u64,
    bytes: VecDeque<u8>,
    dropped: u64,
}

impl Queue {
    /// Adds bytes, and drops the oldest if there are too many.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        let excess = self.bytes.len().saturating_sub(LIMIT);
        self.bytes.drain(..excess);
        self.unmarked += excess as u64;
        self.dropped += excess as u64;
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.mark.is_empty() && self.bytes.is_empty()
    }

    /// How many bytes have ever been dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The next bytes to write, as far as they lie in one piece.
    pub fn next(&mut self) -> &[u8] {
        if !self.begun && self.unmarked > 0 {
            self.mark = mark(self.unmarked).into_bytes().into();
        }
        let from = if self.mark.is_empty() { &self.bytes } else { &self.mark };
        from.as_slices().0
    }

    /// Takes `len` bytes of what [`Queue::next`] has returned away: they are written.
    pub fn written(&mut self, len: usize) {
        if len == 0 {
            return;
        }
        if self.mark.is_empty() {
            self.bytes.drain(..len.min(self.bytes.len()));
            return;
        }
        if !std::mem::replace(&mut self.begun, true) {
            self.unmarked = 0;
        }
        self.mark.drain(..len.min(self.mark.len()));
        self.begun = !self.mark.is_empty();
    }
}

/// What a client reads in place of `dropped` bytes.
pub fn mark(dropped: u64) -> String {
    format!("\r\n[citrine: {dropped} bytes were dropped here, since nobody read them]\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(queue: &mut Queue, mut most: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while most > 0 && !queue.is_empty() {
            let next = queue.next();
            let len = next.len().min(most);
            all.extend_from_slice(&next[..len]);
            queue.written(len);
            most -= len;
        }
        all
    }

    #[test]
    fn nothing_is_dropped_up_to_the_limit() {
        let mut queue = Queue::default();
        queue.push(&[b'x'; LIMIT]);
        assert_eq!(read(&mut queue, usize::MAX), [b'x'; LIMIT]);
        assert_eq!(queue.dropped(), 0);
        assert_eq!(queue.next(), b"");
    }

    #[test]
    fn the_oldest_go_and_a_mark_stands_where_they_were() {
        let mut queue = Queue::default();
        queue.push(b"read");
        assert_eq!(read(&mut queue, 4), b"read");
        queue.push(b"lo");
        queue.push(&[b'x'; LIMIT]);
        // Asked and not written: the mark still grows.
        assert_eq!(queue.next(), mark(2).as_bytes());
        queue.push(b"xx");
        // The mark itself is interrupted by another drop.
        let mut seen = read(&mut queue, 10);
        queue.push(b"last");
        seen.extend(read(&mut queue, usize::MAX));
        let mut wanted = mark(4).into_bytes();
        wanted.extend(mark(4).into_bytes());
        wanted.extend([&[b'x'; LIMIT - 6][..], b"xxlast"].concat());
        assert!(seen == wanted);
        assert_eq!(queue.dropped(), 8);
    }
}
