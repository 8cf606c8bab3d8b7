//! The guest's console: the byte channel behind `/aliases/stdout`; without a hypervisor, the serial line.

use core::fmt::{self, Write as _};
use core::sync::atomic::{AtomicU32, Ordering};

use crate::tree::Tree;
use crate::{hypercall, tlb};

/// Handle of the byte channel; 0 without one.
static CHANNEL: AtomicU32 = AtomicU32::new(0);
/// Effective address of the serial line's registers; 0 without one.
static SERIAL: AtomicU32 = AtomicU32::new(0);

/// Where the serial line is mapped, and in which entry of TLB1.
const SERIAL_EA: u32 = 0x4fff_f000;
const SERIAL_SLOT: u32 = 15;

/// Finds the console in the tree.
pub fn init(tree: &Tree<'_>) {
    if let Some(channel) = tree.console() {
        CHANNEL.store(channel.handle, Ordering::Relaxed);
    } else if let Some(gpa) = tree.serial() {
        let entry = tlb::Entry::kernel(SERIAL_EA, gpa & !0xfff, tlb::SIZE_4K, tlb::INHIBITED_GUARDED);
        // SAFETY: nothing that Rust knows of is at that address.
        unsafe { tlb::write(tlb::Slot::Large(SERIAL_SLOT), &entry) };
        SERIAL.store(SERIAL_EA + (gpa as u32 & 0xfff), Ordering::Relaxed);
    }
}

/// Prints one line.
#[macro_export]
macro_rules! say {
    ($($argument:tt)*) => {
        $crate::console::line(format_args!($($argument)*))
    };
}

/// Prints one line, and returns when the console has taken it.
pub fn line(text: fmt::Arguments<'_>) {
    let mut writer = Writer { buffer: [0; hypercall::MOST], used: 0 };
    // The writer has no errors.
    let _ = writer.write_fmt(text);
    let _ = writer.write_str("\r\n");
    writer.flush();
}

/// Collects as many bytes as one call takes.
struct Writer {
    buffer: [u8; hypercall::MOST],
    used: usize,
}

impl Writer {
    fn flush(&mut self) {
        let mut rest = self.buffer.get(..self.used).unwrap_or_default();
        let channel = CHANNEL.load(Ordering::Relaxed);
        if channel != 0 {
            // A full channel empties by itself; another error nobody could be told of.
            while let (Some(_), Ok(taken)) = (rest.first(), hypercall::send(channel, rest)) {
                rest = rest.get(taken..).unwrap_or_default();
            }
        } else {
            rest.iter().for_each(|byte| serial(*byte));
        }
        self.used = 0;
    }
}

impl fmt::Write for Writer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if self.used == self.buffer.len() {
                self.flush();
            }
            if let Some(slot) = self.buffer.get_mut(self.used) {
                *slot = byte;
                self.used += 1;
            }
        }
        Ok(())
    }
}

/// Writes a byte to the 16550 of the bare machine.
fn serial(byte: u8) {
    const LINE_STATUS: u32 = 5;
    const EMPTY: u8 = 0x20;
    let base = SERIAL.load(Ordering::Relaxed);
    if base == 0 {
        return;
    }
    // SAFETY: `init` has mapped the registers, and nothing else is there.
    unsafe {
        while ((base + LINE_STATUS) as *const u8).read_volatile() & EMPTY == 0 {}
        (base as *mut u8).write_volatile(byte);
    }
}
