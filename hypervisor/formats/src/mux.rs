//! Framing of the console multiplexer: several byte channels on one serial line, as Topaz and its `mux_server`
//! speak it.
//!
//! A byte stream in each direction, with its own state: any byte but 0x18 is data of the current channel,
//! `18 18` is the data byte 0x18, `18 c` with c from 0x30 on selects channel c - 0x30, and `18 01` asks the
//! receiver to select again before it sends its next data. There are no lengths, no checksums and no flow control.

/// What introduces everything that is not data.
pub const ESCAPE: u8 = 0x18;
/// The command that asks for a new selection.
const RESET: u8 = 0x01;
/// The command that selects channel 0; those above select the following ones.
const SELECT: u8 = b'0';

/// Channels that the framing has room for: a `mux_server` has no more streams. The hypervisor uses fewer.
pub const MAX_CHANNELS: u8 = 95;

/// Asks the other end to select a channel before it sends its next data: sent once for each channel that is
/// attached, and by a receiver that does not know the current channel.
pub const RESET_REQUEST: [u8; 2] = [ESCAPE, RESET];

/// The sending direction.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Encoder {
    current: Option<u8>,
}

impl Encoder {
    /// Most bytes that one byte of data becomes.
    pub const MAX_LEN: usize = 4;

    /// No channel has been selected.
    pub const fn new() -> Self {
        Self { current: None }
    }

    /// The bytes to send for one byte of data of a channel below [`MAX_CHANNELS`]. All of them must be sent.
    pub fn encode(&mut self, channel: u8, byte: u8) -> impl Iterator<Item = u8> + use<> {
        let selected = self.current.replace(channel) == Some(channel);
        let select = (!selected).then_some([ESCAPE, SELECT.saturating_add(channel)]);
        let escape = (byte == ESCAPE).then_some(ESCAPE);
        select.into_iter().flatten().chain(escape).chain([byte])
    }

    /// Whether a byte of data of this channel is sent as it is, without anything around it.
    pub fn is_plain(&self, channel: u8, byte: u8) -> bool {
        self.current == Some(channel) && byte != ESCAPE
    }

    /// Selects again before the next data, as [`Event::Reset`] asks.
    pub const fn forget(&mut self) {
        self.current = None;
    }
}

/// The receiving direction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decoder {
    channel: u8,
    escaped: bool,
}

/// What has been received.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// One byte of data.
    Data {
        /// The channel that is selected, which the receiver need not have; at most 255 - 0x30.
        channel: u8,
        /// The byte.
        byte: u8,
    },
    /// The other end has forgotten which channel is selected: [`Encoder::forget`].
    Reset,
    /// An escape was followed by this byte, which means nothing; both are dropped.
    Error(u8),
}

impl Decoder {
    /// Data before the first selection belongs to `first`.
    pub const fn new(first: u8) -> Self {
        Self { channel: first, escaped: false }
    }

    /// Takes one byte; `None` when it is not complete without the next one, or was a selection.
    pub const fn push(&mut self, byte: u8) -> Option<Event> {
        let escaped = core::mem::replace(&mut self.escaped, false);
        match (escaped, byte) {
            (false, ESCAPE) => {
                self.escaped = true;
                None
            }
            (false, _) | (true, ESCAPE) => Some(Event::Data { channel: self.channel, byte }),
            (true, RESET) => Some(Event::Reset),
            (true, SELECT..) => {
                self.channel = byte - SELECT;
                None
            }
            (true, _) => Some(Event::Error(byte)),
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// Three channels attached; a prompt on 0, output with an escape on 2 and one on the last, a bad command.
    const RECORDED: &[u8] = b"\x18\x01\x18\x01\x18\x01\x180HV> \x182a\x18\x18b\x18\x8ez\x18\x02c\x180\x18\x18";

    fn data(channel: u8, bytes: &[u8]) -> impl Iterator<Item = Event> + '_ {
        bytes.iter().map(move |&byte| Event::Data { channel, byte })
    }

    fn recorded() -> Vec<Event> {
        let mut events = std::vec![Event::Reset; 3];
        events.extend(data(0, b"HV> ").chain(data(2, b"a\x18b")).chain(data(94, b"z")));
        events.push(Event::Error(2));
        events.extend(data(94, b"c").chain(data(0, b"\x18")));
        events
    }

    #[test]
    fn a_recorded_stream_is_the_same_wherever_it_is_split() {
        for cut in 0..=RECORDED.len() {
            let (first, rest) = RECORDED.split_at(cut);
            let mut decoder = Decoder::new(7);
            let mut events: Vec<Event> = first.iter().filter_map(|&byte| decoder.push(byte)).collect();
            let mut later = decoder.clone();
            events.extend(rest.iter().filter_map(|&byte| later.push(byte)));
            assert_eq!(events, recorded(), "split at {cut}");
        }
    }

    #[test]
    fn data_before_any_selection_belongs_to_the_first_channel() {
        let mut decoder = Decoder::new(7);
        assert_eq!(decoder.push(b'x'), Some(Event::Data { channel: 7, byte: b'x' }));
    }

    #[test]
    fn every_command_has_its_meaning() {
        for command in 0..=u8::MAX {
            let mut decoder = Decoder::new(7);
            assert_eq!(decoder.push(0x18), None);
            let want = match command {
                0x18 => Some(Event::Data { channel: 7, byte: 0x18 }),
                0x01 => Some(Event::Reset),
                0x30.. => None,
                _ => Some(Event::Error(command)),
            };
            assert_eq!(decoder.push(command), want);
            let channel = if command >= 0x30 { command - 0x30 } else { 7 };
            assert_eq!(decoder.push(b'x'), Some(Event::Data { channel, byte: b'x' }));
        }
    }

    #[test]
    fn a_channel_is_selected_once_and_again_when_forgotten() {
        let mut encoder = Encoder::new();
        let mut sent = Vec::new();
        for (channel, byte) in [(0, b'a'), (0, b'b'), (31, 0x18)] {
            sent.extend(encoder.encode(channel, byte));
        }
        encoder.forget();
        sent.extend(encoder.encode(31, b'c'));
        assert_eq!(sent, b"\x180ab\x18O\x18\x18\x18Oc");
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(stream in prop::collection::vec((0..MAX_CHANNELS, any::<u8>(), any::<bool>()), 0..200)) {
            let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(0));
            for (channel, byte, forget) in stream {
                if forget {
                    encoder.forget();
                }
                let bytes: Vec<u8> = encoder.encode(channel, byte).collect();
                prop_assert!(bytes.len() <= Encoder::MAX_LEN);
                let events: Vec<Event> = bytes.into_iter().filter_map(|byte| decoder.push(byte)).collect();
                prop_assert_eq!(events, [Event::Data { channel, byte }]);
            }
        }
    }
}
