//! Two partitions and a byte channel between them: one asks, the other sends back what it gets.
//!
//! `role=ask` or `role=answer` in the boot arguments says which one it is. The one that asks polls, the one that
//! answers takes interrupts, so both ways of the interface are used.
#![cfg_attr(target_arch = "powerpc", no_std, no_main)]

use core::sync::atomic::{AtomicU32, Ordering};

use citrine_guests::interrupts::{Frame, vector};
use citrine_guests::patience::{self, Patience};
use citrine_guests::tree::Channel;
use citrine_guests::{Guest, cpu, guest, hypercall, say};

guest!(run, interrupt);

/// Node of the channel, as the profile calls it.
const CHANNEL: &str = "link-channel";
/// Messages.
const MESSAGES: u32 = 1000;
/// Bytes of a message: not a multiple of what one call moves, so that messages are cut in all ways.
const LEN: usize = 27;
/// Seconds after which the other side is taken to be dead.
const PATIENCE: u32 = 60;

static HANDLE: AtomicU32 = AtomicU32::new(0);
static INTERRUPTS: AtomicU32 = AtomicU32::new(0);
static BYTES: AtomicU32 = AtomicU32::new(0);

fn run(guest: &Guest) {
    let Some(channel) = guest.tree.channel(CHANNEL) else {
        say!("echo: FAILED: the tree has no {CHANNEL}");
        return;
    };
    match guest.tree.argument("role") {
        Some("ask") => ask(guest, channel),
        Some("answer") => answer(guest, channel),
        role => say!("echo: FAILED: role={} is neither ask nor answer", role.unwrap_or_default()),
    }
}

/// Message `number`: its number and a text, which differs at every place.
fn message(number: u32) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = (number.wrapping_mul(31) >> (at % 4 * 8)) as u8 ^ (at as u8).wrapping_mul(7);
    }
    bytes
}

fn ask(guest: &Guest, channel: Channel) {
    let patience = u64::from(guest.tree.timebase_frequency().unwrap_or(1 << 28)) * u64::from(PATIENCE);
    say!("echo: asking");
    for number in 1..=MESSAGES {
        let sent = message(number);
        let mut rest: &[u8] = &sent;
        let mut back = [0; LEN];
        let mut have = 0;
        let begun = cpu::timebase();
        while have < LEN {
            if let Some(status) = exchange(channel.handle, &mut rest, &mut back, &mut have) {
                say!("echo: FAILED: message {number}: status {status}");
                return;
            }
            if cpu::timebase() - begun > patience {
                say!("echo: FAILED: message {number}: {have} of {LEN} bytes came back");
                return;
            }
        }
        if back != sent {
            say!("echo: FAILED: message {number} came back as another");
            return;
        }
    }
    say!("echo: {MESSAGES} messages of {LEN} bytes came back as they were");
    say!("echo: ok");
}

/// Sends and receives what can be at once; a status that is an error.
fn exchange(handle: u32, rest: &mut &[u8], back: &mut [u8; LEN], have: &mut usize) -> Option<u32> {
    if !rest.is_empty() {
        match hypercall::send(handle, rest) {
            Ok(taken) => *rest = rest.get(taken..).unwrap_or_default(),
            Err(status) => return Some(status),
        }
    }
    if let Ok((0, _)) = hypercall::poll(handle) {
        return None;
    }
    let mut bytes = [0; hypercall::MOST];
    match hypercall::receive(handle, &mut bytes) {
        Ok(count) => {
            let room = back.get_mut(*have..).unwrap_or_default();
            *have += count;
            room.iter_mut().zip(bytes.iter().take(count)).for_each(|(to, from)| *to = *from);
            None
        }
        Err(status) => Some(status),
    }
}

fn answer(guest: &Guest, channel: Channel) {
    HANDLE.store(channel.handle, Ordering::Relaxed);
    let (interrupt, config) = channel.receive;
    if let Err(status) = hypercall::enable_interrupt(interrupt, config) {
        say!("echo: FAILED: status {status} for interrupt {interrupt}");
        return;
    }
    say!("echo: answering");
    // What came before may have no interrupt of its own.
    send_back(channel.handle);
    let all = MESSAGES * LEN as u32;
    if !Patience::seconds(&guest.tree, PATIENCE).until(|| BYTES.load(Ordering::Relaxed) >= all) {
        say!("echo: FAILED: {} of {all} bytes came", BYTES.load(Ordering::Relaxed));
        return;
    }
    say!("echo: {all} bytes sent back, {} interrupts", INTERRUPTS.load(Ordering::Relaxed));
    say!("echo: {}", if INTERRUPTS.load(Ordering::Relaxed) > 0 { "ok" } else { "FAILED: none came by interrupt" });
}

fn interrupt(frame: &mut Frame) -> bool {
    if frame.vector != vector::EXTERNAL {
        return patience::beat(frame);
    }
    let interrupt = cpu::external_vector();
    INTERRUPTS.fetch_add(1, Ordering::Relaxed);
    send_back(HANDLE.load(Ordering::Relaxed));
    hypercall::end_of_interrupt(interrupt);
    true
}

/// Sends back all that has come.
fn send_back(handle: u32) {
    let mut bytes = [0; hypercall::MOST];
    while let Ok(count @ 1..) = hypercall::receive(handle, &mut bytes) {
        let mut rest = bytes.get(..count).unwrap_or_default();
        // The other side has room: it sends a message only when the one before has come back.
        while let (Some(_), Ok(taken)) = (rest.first(), hypercall::send(handle, rest)) {
            rest = rest.get(taken..).unwrap_or_default();
        }
        BYTES.fetch_add(count as u32, Ordering::Relaxed);
    }
}
