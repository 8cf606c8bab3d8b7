//! One end of a multiplexed line: bytes of the line become bytes of channels, and the other way.
//!
//! The framing itself is [`citrine_formats::mux`], which the hypervisor has, too.

use citrine_formats::mux::{Decoder, ESCAPE, Encoder, Event};

/// One end, with the state of both directions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Framing {
    decoder: Decoder,
    encoder: Encoder,
    escaped: bool,
}

impl Framing {
    /// Nothing has passed; what comes before the first selection belongs to `first`.
    pub fn new(first: u8) -> Self {
        Self { decoder: Decoder::new(first), encoder: Encoder::new(), escaped: false }
    }

    /// The data in these bytes of the line, in its order; neighbouring bytes of a channel are one piece.
    pub fn receive(&mut self, bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let mut pieces: Vec<(u8, Vec<u8>)> = Vec::new();
        for &byte in bytes {
            // No program prints this without a multiplexer.
            self.escaped |= byte == ESCAPE;
            match self.decoder.push(byte) {
                Some(Event::Data { channel, byte }) => match pieces.last_mut() {
                    Some((current, piece)) if *current == channel => piece.push(byte),
                    _ => pieces.push((channel, vec![byte])),
                },
                Some(Event::Reset) => self.encoder.forget(),
                // An escape that means nothing is dropped, as every receiver does.
                Some(Event::Error(_)) | None => {}
            }
        }
        pieces
    }

    /// What to send for data of a channel below [`citrine_formats::mux::MAX_CHANNELS`]. All of it must be sent.
    pub fn frame(&mut self, channel: u8, bytes: &[u8]) -> Vec<u8> {
        bytes.iter().flat_map(|&byte| self.encoder.encode(channel, byte)).collect()
    }

    /// Whether the other end has ever sent an escape: it multiplexes.
    pub fn has_escaped(&self) -> bool {
        self.escaped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use citrine_formats::mux::MAX_CHANNELS;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// The first seconds of a real machine: see the note beside it.
    const RECORDED: &[u8] = include_bytes!("../../../tests/console/hello.mux");

    fn channels(pieces: Vec<(u8, Vec<u8>)>) -> BTreeMap<u8, Vec<u8>> {
        let mut channels: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
        for (channel, bytes) in pieces {
            channels.entry(channel).or_default().extend(bytes);
        }
        channels
    }

    #[test]
    fn a_recorded_machine_says_the_same_wherever_its_bytes_are_split() {
        let whole = channels(Framing::new(0).receive(RECORDED));
        let has = |channel: u8, text: &str| {
            let bytes = whole.get(&channel).expect("the channel has data");
            assert!(String::from_utf8_lossy(bytes).contains(text), "channel {channel}: {text}");
        };
        has(0, "U-Boot 20");
        has(0, "HV> ");
        has(1, "hello");
        for cut in 0..=RECORDED.len() {
            let mut framing = Framing::new(0);
            let mut pieces = framing.receive(&RECORDED[..cut]);
            pieces.extend(framing.receive(&RECORDED[cut..]));
            assert_eq!(channels(pieces), whole, "split at {cut}");
        }
    }

    proptest! {
        #[test]
        fn each_channel_gets_exactly_its_bytes(
            sent in proptest::collection::vec((0..MAX_CHANNELS, proptest::collection::vec(any::<u8>(), 0..20)), 0..40),
            cuts in proptest::collection::vec(1usize..30, 0..60),
        ) {
            let mut sender = Framing::new(0);
            let line: Vec<u8> = sent.iter().flat_map(|(channel, bytes)| sender.frame(*channel, bytes)).collect();
            let (mut receiver, mut rest, mut pieces) = (Framing::new(0), &line[..], Vec::new());
            for cut in cuts.into_iter().chain([usize::MAX]) {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                pieces.extend(receiver.receive(now));
                rest = later;
            }
            let sent = sent.into_iter().filter(|(_, bytes)| !bytes.is_empty()).collect();
            prop_assert_eq!(channels(pieces), channels(sent));
        }

        #[test]
        fn any_bytes_can_come(line in proptest::collection::vec(prop_oneof![Just(ESCAPE), any::<u8>()], 0..200)) {
            let mut framing = Framing::new(0);
            let data: usize = framing.receive(&line).iter().map(|(_, bytes)| bytes.len()).sum();
            prop_assert!(data <= line.len());
            prop_assert_eq!(framing.has_escaped(), line.contains(&ESCAPE));
        }
    }
}
