//! Says who and where it is, then answers every line that is typed.
#![cfg_attr(target_arch = "powerpc", no_std, no_main)]

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use citrine_guests::interrupts::{Frame, vector};
use citrine_guests::tree::Channel;
use citrine_guests::{Guest, cpu, guest, hypercall, say};

guest!(run, interrupt);

/// The console's handle; its receive interrupt is taken by whoever reads.
static CONSOLE: AtomicU32 = AtomicU32::new(0);
/// What has been typed since the last line.
static TYPED: [AtomicU32; 128] = [const { AtomicU32::new(0) }; 128];
static LEN: AtomicUsize = AtomicUsize::new(0);

fn run(guest: &Guest) {
    let tree = &guest.tree;
    let memory: u64 = tree.memory().map(|(_, len)| len).sum();
    let cpus = tree.cpus().count();
    let plural = if cpus == 1 { "" } else { "s" };
    say!("hello from {}: {cpus} CPU{plural}, {} MiB", tree.label(), memory >> 20);
    if let Some(Channel { handle, receive: (interrupt, config), .. }) = tree.console() {
        CONSOLE.store(handle, Ordering::Relaxed);
        if let Err(status) = hypercall::enable_interrupt(interrupt, config) {
            say!("hello: FAILED: status {status} for interrupt {interrupt}");
        }
        // What was typed before may have no interrupt of its own.
        read(handle);
    }
    say!("hello: done");
}

fn interrupt(frame: &mut Frame) -> bool {
    if frame.vector != vector::EXTERNAL {
        return false;
    }
    let interrupt = cpu::external_vector();
    read(CONSOLE.load(Ordering::Relaxed));
    hypercall::end_of_interrupt(interrupt);
    true
}

/// Takes all that has been typed, and answers each line.
fn read(console: u32) {
    let mut bytes = [0; hypercall::MOST];
    while let Ok(count @ 1..) = hypercall::receive(console, &mut bytes) {
        for byte in bytes.iter().take(count) {
            match byte {
                b'\r' | b'\n' => answer(),
                b' '..=b'~' => {
                    let at = LEN.fetch_add(1, Ordering::Relaxed);
                    if let Some(slot) = TYPED.get(at) {
                        slot.store(u32::from(*byte), Ordering::Relaxed);
                    }
                }
                _ => {}
            }
        }
    }
}

fn answer() {
    let len = LEN.swap(0, Ordering::Relaxed).min(TYPED.len());
    if len == 0 {
        return;
    }
    let mut line = [0; TYPED.len()];
    for (to, from) in line.iter_mut().zip(&TYPED).take(len) {
        *to = from.load(Ordering::Relaxed) as u8;
    }
    let text = line.get(..len).and_then(|line| core::str::from_utf8(line).ok()).unwrap_or_default();
    say!("hello: you said {text}");
}
