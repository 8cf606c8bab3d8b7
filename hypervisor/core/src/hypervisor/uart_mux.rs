//! The serial line: many channels framed by [`citrine_formats::mux`], or the console alone without framing.
//!
//! Nothing holds a sender on the line back. What arrives for a channel that does not exist or has no room is
//! discarded, and counted.

use citrine_formats::mux::{Decoder, Encoder, Event, RESET_REQUEST};

use super::channel::Plug;
use crate::rules::MUX_CHANNELS;

/// Bytes that a channel may send before it is another one's turn.
const TURN: u32 = 64;
/// Most bytes that are taken at once: as many as a hypercall brings.
pub const BATCH: usize = 16;
const CHANNELS: usize = MUX_CHANNELS as usize;

/// The serial line.
#[derive(Debug)]
pub struct UartMux {
    plugs: [Option<Plug>; CHANNELS],
    /// The highest channel that has one, and 1.
    attached: usize,
    /// The channel alone has the line, without framing.
    alone: Option<Plug>,
    encoder: Encoder,
    decoder: Decoder,
    /// Reset requests that are still to be sent.
    resets: usize,
    /// The rest of a frame.
    frame: [u8; Encoder::MAX_LEN],
    frame_at: usize,
    frame_len: usize,
    /// Bytes of whose turn it is that are to be framed.
    batch: [u8; BATCH],
    batch_at: usize,
    batch_len: usize,
    /// Whose turn it is, and for how many bytes it has been.
    turn: usize,
    sent: u32,
    discarded: u32,
}

/// What a byte from the line means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Received {
    /// Nothing without the next byte, or nothing that anyone must know.
    Nothing,
    /// Data for this end.
    Data(Plug, u8),
    /// A command that does not exist.
    BadCommand(u8),
}

impl UartMux {
    /// Nothing is attached.
    pub const fn new() -> Self {
        Self {
            plugs: [None; CHANNELS],
            attached: 0,
            alone: None,
            encoder: Encoder::new(),
            decoder: Decoder::new(0),
            resets: 0,
            frame: [0; Encoder::MAX_LEN],
            frame_at: 0,
            frame_len: 0,
            batch: [0; BATCH],
            batch_at: 0,
            batch_len: 0,
            turn: 0,
            sent: 0,
            discarded: 0,
        }
    }

    /// Attaches an end as a channel; false when the number is too large or taken, or one has the line alone. Until the other side of the
    /// line selects a channel, it talks to the one that was attached first.
    pub fn attach(&mut self, channel: u32, plug: Plug) -> bool {
        let number = u8::try_from(channel).unwrap_or(u8::MAX);
        let first = self.plugs.iter().all(Option::is_none);
        let Some(slot @ None) = self.plugs.get_mut(usize::from(number)) else { return false };
        if self.alone.is_some() {
            return false;
        }
        *slot = Some(plug);
        self.attached = self.attached.max(usize::from(number) + 1);
        if first {
            self.decoder = Decoder::new(number);
        }
        self.resets += 1;
        true
    }

    /// Gives the line to one end, without framing.
    pub const fn attach_alone(&mut self, plug: Plug) {
        self.alone = Some(plug);
    }

    /// Takes a byte from the line.
    pub fn receive(&mut self, byte: u8) -> Received {
        if let Some(plug) = self.alone {
            return Received::Data(plug, byte);
        }
        match self.decoder.push(byte) {
            None => Received::Nothing,
            Some(Event::Reset) => {
                self.encoder.forget();
                Received::Nothing
            }
            Some(Event::Error(command)) => Received::BadCommand(command),
            Some(Event::Data { channel, byte }) => match self.plugs.get(usize::from(channel)) {
                Some(Some(plug)) => Received::Data(*plug, byte),
                Some(None) | None => {
                    self.discard();
                    Received::Nothing
                }
            },
        }
    }

    /// Counts a byte that could not be delivered.
    pub const fn discard(&mut self) {
        self.discarded = self.discarded.saturating_add(1);
    }

    /// Bytes from the line that could not be delivered.
    pub const fn discarded(&self) -> u32 {
        self.discarded
    }

    /// The next bytes for the line of what has been taken already; returns how many.
    pub fn framed(&mut self, into: &mut [u8]) -> usize {
        let mut count = 0;
        let channel = self.turn as u8;
        for slot in into {
            if self.frame_at == self.frame_len {
                if let Some(resets) = self.resets.checked_sub(1) {
                    self.resets = resets;
                    self.put(RESET_REQUEST);
                } else {
                    let Some(byte) = self.batch.get(..self.batch_len).and_then(|batch| batch.get(self.batch_at)) else {
                        break;
                    };
                    let byte = *byte;
                    self.batch_at += 1;
                    if self.alone.is_some() || self.encoder.is_plain(channel, byte) {
                        *slot = byte;
                        count += 1;
                        continue;
                    }
                    let bytes = self.encoder.encode(channel, byte);
                    self.put(bytes);
                }
            }
            let Some(byte) = self.frame.get(self.frame_at) else { break };
            *slot = *byte;
            count += 1;
            self.frame_at += 1;
        }
        count
    }

    /// Whether there is a byte for the line, when `has_data` says which ends have one.
    pub fn has_output(&self, has_data: impl Fn(Plug) -> bool) -> bool {
        let framed = self.frame_at < self.frame_len || self.batch_at < self.batch_len || self.resets > 0;
        let turn = self.plugs.get(self.turn).copied().flatten();
        // Whose turn it was has most often more.
        let plugs = self.plugs.iter().take(self.attached);
        framed || turn.is_some_and(&has_data) || plugs.chain([&self.alone]).flatten().any(|plug| has_data(*plug))
    }

    fn put(&mut self, bytes: impl IntoIterator<Item = u8>) {
        (self.frame_at, self.frame_len) = (0, 0);
        for (slot, byte) in self.frame.iter_mut().zip(bytes) {
            *slot = byte;
            self.frame_len += 1;
        }
    }

    /// The end whose turn it is to send a byte, of those that have one.
    pub fn next(&mut self, has_data: impl Fn(Plug) -> bool) -> Option<Plug> {
        if let Some(plug) = self.alone {
            return Some(plug).filter(|plug| has_data(*plug));
        }
        let has_data = |channel: &usize| matches!(self.plugs.get(*channel), Some(Some(plug)) if has_data(*plug));
        let first = if self.sent < TURN { self.turn } else { self.turn + 1 };
        let channel = (first..self.attached).chain(0..first.min(self.attached)).find(has_data)?;
        if (channel, self.sent < TURN) != (self.turn, true) {
            (self.turn, self.sent) = (channel, 0);
        }
        self.plugs.get(channel).copied().flatten()
    }

    /// Takes the first `count` bytes, of the end that [`UartMux::next`] returned. What was taken before must have been
    /// sent.
    pub const fn take(&mut self, bytes: [u8; BATCH], count: usize) {
        (self.batch, self.batch_at, self.batch_len) = (bytes, 0, count);
        self.sent += count as u32;
    }
}
