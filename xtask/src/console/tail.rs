//! The newest of what a program prints, kept and made harmless to show.

use std::collections::VecDeque;

/// The newest bytes of something endless.
#[derive(Clone, Debug)]
pub struct Tail {
    kept: VecDeque<u8>,
    limit: usize,
}

impl Tail {
    /// Keeps `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { kept: VecDeque::new(), limit }
    }

    /// Adds bytes and forgets the oldest.
    pub fn push(&mut self, bytes: &[u8]) {
        self.kept.extend(bytes);
        let excess = self.kept.len().saturating_sub(self.limit);
        self.kept.drain(..excess);
    }

    /// All that are kept, the oldest first.
    pub fn bytes(&self) -> Vec<u8> {
        self.kept.iter().copied().collect()
    }

    /// As text that is harmless to show.
    pub fn text(&self) -> String {
        harmless(&self.bytes())
    }
}

/// Text that cannot drive a terminal: control characters and those that reorder text become U+FFFD, except
/// for line feed and tab; carriage returns and backspaces vanish.
pub fn harmless(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .filter(|c| !matches!(c, '\r' | '\u{8}'))
        .map(|c| match c {
            '\n' | '\t' => c,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect()
}
