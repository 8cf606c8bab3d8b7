//! What the hypervisor says: the log, which is kept, and the console, to which it goes as well.

use core::fmt;

use super::Hypervisor;

/// Bytes of the log that are kept.
pub const LOG_LEN: usize = 8 << 10;

/// The last bytes of the log.
#[derive(Debug)]
pub(super) struct Ring {
    bytes: [u8; LOG_LEN],
    /// How many there have ever been.
    written: u64,
}

impl Ring {
    pub(super) const fn new() -> Self {
        Self { bytes: [0; LOG_LEN], written: 0 }
    }

    const fn slot(position: u64) -> usize {
        // The remainder of a small number.
        (position % LOG_LEN as u64) as usize
    }

    fn push(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(Self::slot(self.written)) {
            *slot = byte;
        }
        self.written += 1;
    }

    /// Position of the oldest byte that is kept; see [`Ring::at`].
    pub(super) const fn first(&self) -> u64 {
        self.written.saturating_sub(LOG_LEN as u64)
    }

    /// Position behind the newest byte.
    pub(super) const fn end(&self) -> u64 {
        self.written
    }

    /// The byte at a position; positions count all bytes that have ever been written.
    pub(super) fn at(&self, position: u64) -> Option<u8> {
        let kept = (self.first()..self.written).contains(&position);
        kept.then(|| self.bytes.get(Self::slot(position)).copied())?
    }
}

/// Writes to the console. What it has no room for is lost: nobody waits for a reader.
#[derive(Debug)]
pub struct Console<'h, 'a>(pub(super) &'h mut Hypervisor<'a>);

impl fmt::Write for Console<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            match byte {
                b'\n' => self.0.write_console(b"\r\n"),
                _ => self.0.write_console(&[byte]),
            }
        }
        Ok(())
    }
}

/// Writes to the log and to the console.
#[derive(Debug)]
pub struct Log<'h, 'a>(pub(super) &'h mut Hypervisor<'a>);

impl fmt::Write for Log<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(|byte| self.0.log.push(byte));
        self.0.console().write_str(text)
    }
}
