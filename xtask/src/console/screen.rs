//! A person's terminal, which shows one channel after the other.

use std::io::Write;
use std::os::fd::BorrowedFd;

use super::sink::Sink;
use super::terminal::{Filter, Keys, Typed};

/// The keys behind Ctrl-A, and what Ctrl-A ? says of them.
const KEYS: &[u8] = b"x0123456789nphl?";
const HELP: &str =
    "Ctrl-A and: x leave | 0-9 channel | n p next, previous channel | l channels | h scroll-back | Ctrl-A itself";
/// Bytes of a channel that are shown when it is switched to: more than a screen.
const SHOWN: usize = 4 << 10;

/// A terminal that shows a channel.
#[derive(Debug)]
pub struct Screen<'f> {
    /// Keys come from here; `None` after their end.
    pub input: Option<BorrowedFd<'f>>,
    /// What waits for the terminal.
    pub sink: Sink,
    /// The channel that is shown.
    pub channel: u8,
    filter: Filter,
    keys: Keys,
}

impl<'f> Screen<'f> {
    /// One that shows `channel`.
    pub fn new(input: BorrowedFd<'f>, output: impl Write + Send + 'static, channel: u8) -> Self {
        let (sink, filter, keys) = (Sink::new(output), Filter::default(), Keys::new(KEYS));
        let mut screen = Self { input: Some(input), sink, channel, filter, keys };
        screen.say(&format!("channel {channel}; Ctrl-A ? shows the keys"));
        screen
    }

    /// Shows what the channel has brought.
    pub fn show(&mut self, bytes: &[u8]) {
        let harmless = self.filter.pass(bytes);
        self.sink.push(&harmless);
    }

    /// Says something of the tool's own.
    pub fn say(&mut self, text: &str) {
        self.sink.push(format!("\r\n[{text}]\r\n").as_bytes());
    }

    /// Says what the keys are.
    pub fn help(&mut self) {
        self.say(HELP);
    }

    /// Shows another channel, and the newest of what it has brought.
    pub fn switch(&mut self, channel: u8, history: &[u8]) {
        self.channel = channel;
        self.say(&format!("channel {channel}"));
        self.replay(&history[history.len().saturating_sub(SHOWN)..]);
    }

    /// Shows again what the channel has brought.
    pub fn replay(&mut self, history: &[u8]) {
        // What another channel, or the middle of a sequence, has left half-done is not continued.
        self.filter = Filter::default();
        self.show(history);
    }

    /// Reads what has been typed.
    pub fn typed(&mut self) -> Vec<Typed> {
        let Some(input) = self.input else { return Vec::new() };
        let mut buffer = [0; 64];
        match rustix::io::read(input, &mut buffer) {
            Ok(len @ 1..) => self.keys.typed(&buffer[..len]),
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => Vec::new(),
            Ok(_) | Err(_) => {
                self.input = None;
                Vec::new()
            }
        }
    }
}
