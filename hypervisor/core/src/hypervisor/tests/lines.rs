//! The serial line: framing, turns, what is lost, and the guests' interrupts.

use super::*;

#[test]
fn the_line_begins_with_a_request_for_each_channel() {
    let mut hv = hypervisor(&config(), true);
    write!(hv.console(), "HV> ").unwrap();
    assert_eq!(line(&mut hv), b"\x18\x01\x18\x01\x18\x01\x18\x01\x180HV> ");
    assert_eq!(send(&mut hv, LINUX2, CHANNEL, b"a\x18"), (0, 2));
    assert_eq!(line(&mut hv), b"\x182a\x18\x18");
    // The other side has forgotten.
    type_in(&mut hv, &mux::RESET_REQUEST);
    assert_eq!(send(&mut hv, LINUX2, CHANNEL, b"b"), (0, 1));
    assert_eq!(line(&mut hv), b"\x182b");
}

#[test]
fn input_goes_where_it_is_selected_and_to_the_console_before() {
    let mut hv = running(true);
    type_in(&mut hv, b"i\x182hello\x18Othird\x180\x18\x18");
    assert_eq!((hv.console_read(), hv.console_read(), hv.console_read()), (Some(b'i'), Some(0x18), None));
    assert_eq!(receive(&mut hv, LINUX2, CHANNEL), b"hello");
    assert_eq!(receive(&mut hv, THIRD, CHANNEL), b"third");
    assert_eq!(receive(&mut hv, LINUX1, CHANNEL), b"");
    assert_eq!(hv.discarded(), 0);
}

#[test]
fn what_nobody_can_take_is_discarded_and_counted() {
    let mut hv = running(true);
    type_in(&mut hv, b"\x183lost\x18\x8e!\x181");
    assert_eq!(hv.discarded(), 5);
    type_in(&mut hv, &[b'x'; 5000]);
    assert_eq!(hv.discarded(), 5 + 905);
    assert_eq!(call(&mut hv, LINUX1, POLL, &[CHANNEL]).1[..2], [4095, 4095]);
    type_in(&mut hv, b"\x18\x07");
    assert_eq!(line(&mut hv), b"\x180[0] bad command 7 on the serial line\r\n");
}

#[test]
fn channels_take_turns() {
    let mut hv = running(true);
    for _ in 0..10 {
        send(&mut hv, LINUX1, CHANNEL, &[b'1'; 16]);
        send(&mut hv, LINUX2, CHANNEL, &[b'2'; 16]);
        send(&mut hv, THIRD, CHANNEL, b"third");
    }
    let sent = line(&mut hv);
    let mut decoder = mux::Decoder::new(0);
    let data = sent.iter().filter_map(|byte| match decoder.push(*byte) {
        Some(mux::Event::Data { channel, .. }) => Some(channel),
        _ => None,
    });
    let mut turns: Vec<(u8, usize)> = Vec::new();
    for channel in data {
        match turns.last_mut() {
            Some((last, count)) if *last == channel => *count += 1,
            _ => turns.push((channel, 1)),
        }
    }
    assert_eq!(turns, [(1, 64), (2, 64), (31, 50), (1, 64), (2, 64), (1, 32), (2, 32)]);
}

#[test]
fn a_line_that_is_not_shared_is_not_framed() {
    let mut config = config();
    config.hypervisor.console = Some(ConsoleConfig { device: "serial0", mux_channel: None });
    let mut hv = hypervisor(&config, true);
    let text = String::from_utf8(line(&mut hv)).unwrap();
    assert!(text.starts_with("[0] linux1: byte channel bc leads nowhere\r\n"), "{text}");
    type_in(&mut hv, b"\x18\x01");
    assert_eq!((hv.console_read(), hv.console_read()), (Some(0x18), Some(1)));
    // A guest's console that is not connected swallows what is written to it.
    assert_eq!(send(&mut hv, LINUX1, CHANNEL, b"x"), (0, 1));
    assert_eq!(call(&mut hv, LINUX1, POLL, &[CHANNEL]), (0, [0, 4095, 0xdead_0000, 0xdead_0000, 0xdead_0000]));
    assert_eq!(line(&mut hv), b"");
}

#[test]
fn a_guest_that_does_not_read_the_line_does_not_stop_the_others() {
    let mut hv = running(true);
    while send(&mut hv, LINUX1, CHANNEL, &[b'x'; 16]).0 == 0 {}
    assert_eq!(send(&mut hv, LINUX2, CHANNEL, b"still here"), (0, 10));
    let sent = line(&mut hv);
    assert!(sent.windows(10).any(|bytes| bytes == b"still here"));
    assert_eq!(sent.iter().filter(|byte| **byte == b'x').count(), 4095);
}

/// Linux's driver: take the interrupt, count, read what was counted, end the interrupt. Data that arrives in
/// between must not get lost, whatever sense the tree has given to the interrupt.
#[test]
fn linux_reads_everything() {
    for (sense, proxy) in [(0, true), (1, true), (2, true), (3, false)] {
        let mut hv = running(proxy);
        assert_eq!(call(&mut hv, LINUX1, SET_CONFIG, &[RX, sense, 8, 1]).0, 0);
        assert_eq!(call(&mut hv, LINUX1, SET_MASK, &[RX, 0]).0, 0);
        let vcpu = Who { partition: LINUX1, vcpu: 1 };
        type_in(&mut hv, b"\x181first");
        assert_eq!(hv.kicks(), [1].into_iter().collect());
        let mut read: Vec<u8> = Vec::new();
        let mut interrupts = 0;
        while let Some(vector) = hv.external(vcpu) {
            let mut gpr = [0; 32];
            gpr[11] = IACK;
            hv.hypercall(vcpu, &mut gpr);
            let acknowledged = if proxy { (11, vector) } else { (0, gpr[4]) };
            assert_eq!((gpr[3], acknowledged.1), (acknowledged.0, RX));
            let counted = call(&mut hv, LINUX1, POLL, &[CHANNEL]).1[0];
            if interrupts == 0 {
                type_in(&mut hv, b", second");
            }
            // No more than was counted, and not all of it.
            let some = counted.min(7);
            let (_, [count, words @ ..]) = call(&mut hv, LINUX1, RECEIVE, &[CHANNEL, some]);
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
            read.extend(&bytes[..count as usize]);
            assert_eq!(call(&mut hv, LINUX1, EOI, &[RX]).0, 0);
            interrupts += 1;
            assert!(interrupts < 10, "a storm of interrupts with sense {sense}");
        }
        assert_eq!(read, b"first, second");
    }
}

/// Linux's driver: when a send is refused, it waits for the interrupt that says there is room.
#[test]
fn linux_writes_everything() {
    for sense in 0..4 {
        let mut hv = running(true);
        assert_eq!(call(&mut hv, LINUX1, SET_CONFIG, &[TX, sense, 8, 0]).0, 0);
        let text: Vec<u8> = (0..9000u32).map(|n| b'a' + (n % 26) as u8).collect();
        let (mut written, mut on_line) = (0, Vec::new());
        let mut waits = 0;
        while written < text.len() {
            let next = &text[written..text.len().min(written + 16)];
            match send(&mut hv, LINUX1, CHANNEL, next) {
                (0, count) => written += count as usize,
                (status, count) => {
                    assert_eq!((status, count), (4, 0));
                    assert_eq!(call(&mut hv, LINUX1, SET_MASK, &[TX, 0]).0, 0);
                    // With edge sense an interrupt may have been waiting since the last time.
                    while !hv.is_external_pending(boot(LINUX1)) {
                        on_line.push(hv.transmit().unwrap());
                    }
                    assert_eq!(hv.external(boot(LINUX1)), Some(TX));
                    assert_eq!(call(&mut hv, LINUX1, EOI, &[TX]).0, 0);
                    assert_eq!(call(&mut hv, LINUX1, SET_MASK, &[TX, 1]).0, 0);
                    waits += 1;
                }
            }
        }
        on_line.extend(line(&mut hv));
        assert_eq!(on_line, [b"\x181", &text[..]].concat());
        assert!(waits > 0);
    }
}
