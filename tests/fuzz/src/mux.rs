//! Any bytes on the serial line.
//!
//! What the decoder takes for data comes out of it again when it is encoded; the hypervisor delivers each byte to one
//! channel or counts it as discarded, and what it sends is well framed, of its own channels only.

use citrine_core::hypervisor::Hypervisor;
use citrine_formats::mux::{Decoder, Encoder, Event};

use crate::hypercalls;

/// Runs the target.
pub fn run(data: &[u8]) -> usize {
    round_trip(data);
    let config = hypercalls::config();
    let mut hv = hypercalls::hypervisor(&config);
    let (mut decoder, mut seen) = (Decoder::new(0), Vec::new());
    let mut typed = 0;
    for byte in data {
        let before = hv.discarded();
        hv.receive(*byte);
        assert!(hv.discarded() - before <= 1, "{byte:#x}");
        typed += 1;
        if typed % 16 == 0 {
            drain(&mut hv, &mut decoder, &mut seen);
        }
    }
    drain(&mut hv, &mut decoder, &mut seen);
    assert!(seen.iter().all(|event| *event == Event::Reset || channel(event).is_some()), "{seen:?}");
    data.len()
}

/// The channel of data, if it is one that is attached.
fn channel(event: &Event) -> Option<u8> {
    match event {
        Event::Data { channel, .. } if hypercalls::CHANNELS.contains(channel) => Some(*channel),
        _ => None,
    }
}

fn drain(hv: &mut Hypervisor<'_>, decoder: &mut Decoder, seen: &mut Vec<Event>) {
    while hv.has_output() {
        let byte = hv.transmit().expect("there was a byte");
        seen.extend(decoder.push(byte));
    }
    assert_eq!(hv.transmit(), None);
}

fn round_trip(data: &[u8]) {
    let (mut decoder, mut encoder, mut other) = (Decoder::new(0), Encoder::new(), Decoder::new(7));
    for event in data.iter().filter_map(|byte| decoder.push(*byte)) {
        match event {
            // The encoder has no bytes for channels beyond those that it has room for.
            Event::Data { channel, byte } if channel < citrine_formats::mux::MAX_CHANNELS => {
                let sent: Vec<u8> = encoder.encode(channel, byte).collect();
                assert!(sent.len() <= Encoder::MAX_LEN, "{event:?}");
                let back: Vec<Event> = sent.iter().filter_map(|byte| other.push(*byte)).collect();
                assert_eq!(back, [event]);
            }
            Event::Reset => encoder.forget(),
            Event::Data { .. } | Event::Error(_) => {}
        }
    }
}
