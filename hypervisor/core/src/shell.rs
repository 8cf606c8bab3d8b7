//! The shell at the hypervisor's console: its commands are Topaz's.
//!
//! Nothing here waits. Output that is longer than the console's ring goes out in pages, each when there is room;
//! what is not in [`Hypervisor`] is asked of the caller as a [`Request`].

use core::fmt::{self, Write};

use citrine_formats::addr::{Address as _, GuestPhys};

use crate::hypervisor::Hypervisor;

mod command;
mod line_edit;

use line_edit::LineEdit;

/// Before anything is read or printed there is room for this many bytes.
const ROOM: usize = 2048;
/// Characters of a page; a line's end becomes two bytes.
const PAGE: usize = ROOM / 2;
/// Bytes of guest memory in a [`Request`], which become a page.
const MEMORY: usize = 256;
/// Bytes of guest memory in a line.
const MEMORY_LINE: usize = 16;

/// What the shell needs from its caller, and cannot go on without.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// Bytes of a guest's memory, for [`Shell::guest_memory`].
    GuestMemory {
        /// Index of the partition.
        partition: usize,
        /// The first byte.
        at: GuestPhys,
        /// How many; at most 256.
        len: usize,
    },
    /// A guest's device tree as text, for [`Shell::guest_tree`].
    GuestTree {
        /// Index of the partition.
        partition: usize,
    },
}

/// What the shell is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Job {
    /// It has nothing to do, and has not said so yet.
    Prompt,
    /// Someone types.
    Edit,
    /// It prints the log from one position to another.
    Log { at: u64, end: u64 },
    /// It prints the memory of a guest.
    Memory { partition: usize, at: GuestPhys, len: usize },
    /// It prints the tree of a guest, of which this many characters are done.
    Tree { partition: usize, done: usize },
}

/// The shell.
#[derive(Debug)]
pub struct Shell {
    edit: LineEdit,
    job: Job,
}

impl Shell {
    /// Nobody has typed anything.
    pub const fn new() -> Self {
        Self { edit: LineEdit::new(), job: Job::Prompt }
    }

    /// Goes on as far as what has been typed and the room at the console allow. The caller serves the request and
    /// calls again, until there is none; and when bytes have been received or sent on the serial line.
    pub fn poll(&mut self, hv: &mut Hypervisor<'_>) -> Option<Request> {
        while hv.console_room() >= ROOM {
            match self.job {
                Job::Prompt => {
                    print(hv, format_args!("HV> "));
                    self.job = Job::Edit;
                }
                Job::Edit => {
                    let byte = hv.console_read()?;
                    if self.edit.push(byte, &mut hv.console()) {
                        self.job = command::run(self.edit.line(), hv);
                        self.edit.clear();
                    }
                }
                Job::Log { at, end } => self.job = page_of_log(hv, at, end),
                Job::Memory { partition, at, len } => {
                    return Some(Request::GuestMemory { partition, at, len: len.min(MEMORY) });
                }
                Job::Tree { partition, .. } => return Some(Request::GuestTree { partition }),
            }
        }
        None
    }

    /// Answers [`Request::GuestMemory`]; `None` when some of it is not the guest's.
    pub fn guest_memory(&mut self, hv: &mut Hypervisor<'_>, bytes: Option<&[u8]>) {
        let Job::Memory { partition, at, len } = self.job else { return };
        self.job = Job::Prompt;
        let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) else {
            return print(hv, format_args!("{:08x}: not in the memory of the guest\n", at.get()));
        };
        for (index, line) in bytes.chunks(MEMORY_LINE).enumerate() {
            let at = at.get().saturating_add((index * MEMORY_LINE) as u64);
            // Writing to the console cannot fail.
            _ = dump_line(&mut hv.console(), at, line);
        }
        if let Some(left @ 1..) = len.checked_sub(bytes.len()) {
            self.job = Job::Memory { partition, at: GuestPhys(at.get().saturating_add(bytes.len() as u64)), len: left };
        }
    }

    /// Answers [`Request::GuestTree`]: `tree` writes all of it, each time; the shell takes the page that it needs.
    pub fn guest_tree(&mut self, hv: &mut Hypervisor<'_>, tree: impl FnOnce(&mut dyn Write) -> fmt::Result) {
        let Job::Tree { partition, done } = self.job else { return };
        let mut page = Page { out: &mut hv.console(), skip: done, left: PAGE, cut: false };
        // A page that is full ends the writing with an error, which says no more than `cut`.
        _ = tree(&mut page);
        self.job = if page.cut { Job::Tree { partition, done: done.saturating_add(PAGE) } } else { Job::Prompt };
    }
}

impl Default for Shell {
    fn default() -> Self {
        Self::new()
    }
}

fn print(hv: &mut Hypervisor<'_>, text: fmt::Arguments<'_>) {
    // Writing to the console cannot fail.
    _ = hv.console().write_fmt(text);
}

/// What was overwritten since the command was given is left out.
fn page_of_log(hv: &mut Hypervisor<'_>, at: u64, end: u64) -> Job {
    let at = at.max(hv.log_first());
    let stop = end.min(at + PAGE as u64);
    for position in at..stop {
        let byte = hv.log_at(position).map_or('.', char::from);
        print(hv, format_args!("{byte}"));
    }
    if stop < end { Job::Log { at: stop, end } } else { Job::Prompt }
}

fn dump_line(out: &mut dyn Write, at: u64, bytes: &[u8]) -> fmt::Result {
    write!(out, "{at:08x}: ")?;
    for index in 0..MEMORY_LINE {
        match bytes.get(index) {
            Some(byte) => write!(out, "{byte:02x} ")?,
            None => out.write_str("   ")?,
        }
    }
    out.write_str("  |  ")?;
    for byte in bytes {
        let shown = if (0x20..0x7f).contains(byte) { char::from(*byte) } else { '.' };
        out.write_char(shown)?;
    }
    out.write_str("\n")
}

/// A part of a text: some characters are skipped, some let through, then writing ends in an error.
struct Page<'o> {
    out: &'o mut dyn Write,
    skip: usize,
    left: usize,
    /// There was more.
    cut: bool,
}

impl Write for Page<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if self.skip > 0 {
                self.skip -= 1;
            } else if let Some(left) = self.left.checked_sub(1) {
                self.left = left;
                self.out.write_char(character)?;
            } else {
                self.cut = true;
                return Err(fmt::Error);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
