//! A person at a console of the machine.
//!
//! The terminal goes into raw mode, so that the guest sees every key; Ctrl-A is the way out. What the guest
//! prints passes through a filter which lets text, cursor movement and colours through and keeps back
//! everything that could make the terminal answer, change its title or its clipboard.

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use citrine_planner::diag::Result;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

use super::console::Source;
use super::session::Session;

/// Ctrl-A.
const ESCAPE: u8 = 0x01;
/// How long a key waits at most before it is sent.
const KEY_DELAY: Duration = Duration::from_millis(10);

/// Connects `input` and `output`, normally standard input and output, to a console until Ctrl-A x, the end
/// of the machine or a signal. Ctrl-A Ctrl-A is sent as one Ctrl-A. Keys that nothing takes yet are lost.
/// After the end of `input` it goes on showing.
///
/// # Errors
/// `Q105` when the machine ends; what [`super::Boot::interrupted`] says.
pub fn attach(session: &mut Session, source: Source, input: impl AsFd, mut output: impl Write) -> Result<()> {
    let _raw = RawMode::enter(input.as_fd());
    let mut keys = Keys::default();
    let mut filter = Filter::default();
    let mut open = true;
    loop {
        let printed = filter.pass(&session.read(source, KEY_DELAY)?);
        if output.write_all(&printed).and_then(|()| output.flush()).is_err() {
            return Ok(());
        }
        if open && readable(input.as_fd()) {
            let mut buffer = [0; 256];
            // Not through a buffer of the library, which would hide keys from `readable`.
            match rustix::io::read(&input, &mut buffer) {
                Ok(0) | Err(_) => open = false,
                Ok(len) => {
                    let Typed { bytes, leave } = keys.typed(&buffer[..len]);
                    if session.takes_keys(source) {
                        session.send(source, &bytes)?;
                    }
                    if leave {
                        return Ok(());
                    }
                }
            }
        }
    }
}

fn readable(input: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(input, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
}

/// A terminal in raw mode until this is dropped; nothing, when the input is no terminal.
struct RawMode<'a>(Option<(BorrowedFd<'a>, Termios)>);

impl<'a> RawMode<'a> {
    fn enter(input: BorrowedFd<'a>) -> Self {
        let Ok(before) = tcgetattr(input) else {
            return Self(None);
        };
        let mut raw = before.clone();
        raw.make_raw();
        // Output keeps its line ends: what the tool itself prints shall not form stairs.
        raw.output_modes = before.output_modes;
        let entered = tcsetattr(input, OptionalActions::Now, &raw).is_ok();
        Self(entered.then_some((input, before)))
    }
}

impl Drop for RawMode<'_> {
    fn drop(&mut self) {
        if let Some((input, before)) = &self.0 {
            let _ = tcsetattr(input, OptionalActions::Now, before);
        }
    }
}

/// What the keys typed so far mean.
#[derive(Debug, Default)]
struct Keys {
    escaped: bool,
}

struct Typed {
    bytes: Vec<u8>,
    leave: bool,
}

impl Keys {
    fn typed(&mut self, keys: &[u8]) -> Typed {
        let mut bytes = Vec::new();
        for &key in keys {
            match (std::mem::take(&mut self.escaped), key) {
                (true, b'x' | b'X') => return Typed { bytes, leave: true },
                (false, ESCAPE) => self.escaped = true,
                // Ctrl-A Ctrl-A is one; any other key after it means nothing by itself.
                (true, ESCAPE) | (false, _) => bytes.push(key),
                (true, _) => bytes.extend([ESCAPE, key]),
            }
        }
        Typed { bytes, leave: false }
    }
}

/// Longest control sequence that is let through.
const SEQUENCE_MAX: usize = 32;

/// Lets through what only draws.
#[derive(Debug, Default)]
struct Filter {
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Text,
    /// Behind ESC.
    Escape,
    /// Within ESC `[`.
    Control(Vec<u8>),
    /// Within a string for the terminal (title, clipboard, ...), until BEL or ESC `\`.
    String { escape: bool },
}

impl Filter {
    fn pass(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            self.state = match std::mem::take(&mut self.state) {
                State::Text => match byte {
                    0x1b => State::Escape,
                    b'\n' | b'\r' | b'\t' | 0x08 | 0x07 => {
                        out.push(byte);
                        State::Text
                    }
                    // C1 controls matter only to terminals without UTF-8, where they begin sequences; in
                    // UTF-8 they are parts of characters.
                    0..0x20 | 0x7f => State::Text,
                    _ => {
                        out.push(byte);
                        State::Text
                    }
                },
                State::Escape => match byte {
                    b'[' => State::Control(Vec::new()),
                    b']' | b'P' | b'X' | b'^' | b'_' | b'k' => State::String { escape: false },
                    0x1b => State::Escape,
                    // Save and restore the cursor, index, reverse index, next line.
                    b'7' | b'8' | b'D' | b'E' | b'M' => {
                        out.extend([0x1b, byte]);
                        State::Text
                    }
                    _ => State::Text,
                },
                State::Control(mut sequence) => {
                    sequence.push(byte);
                    match byte {
                        0x1b => State::Escape,
                        0x20..0x40 if sequence.len() < SEQUENCE_MAX => State::Control(sequence),
                        // Movement, erasing, insertion, modes, colours, scroll region: no report, no window operation.
                        b'A'..=b'H'
                        | b'J'..=b'M'
                        | b'P'
                        | b'S'
                        | b'T'
                        | b'X'
                        | b'@'
                        | b'd'
                        | b'f'
                        | b'h'
                        | b'l'
                        | b'm'
                        | b'r'
                        | b's'
                        | b'u'
                            if sequence[..sequence.len() - 1]
                                .iter()
                                .all(|c| matches!(c, b'0'..=b'9' | b';' | b'?')) =>
                        {
                            out.extend_from_slice(b"\x1b[");
                            out.append(&mut sequence);
                            State::Text
                        }
                        _ => State::Text,
                    }
                }
                State::String { escape } => match byte {
                    0x07 => State::Text,
                    b'\\' if escape => State::Text,
                    _ => State::String { escape: byte == 0x1b },
                },
            };
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_escape_key_leaves_and_can_be_typed() {
        let mut keys = Keys::default();
        let typed = keys.typed(b"ab\x01\x01c\x01d\x01");
        assert_eq!((typed.bytes.as_slice(), typed.leave), (&b"ab\x01c\x01d"[..], false));
        let typed = keys.typed(b"xyz");
        assert_eq!((typed.bytes.as_slice(), typed.leave), (&b""[..], true));
    }

    #[test]
    fn a_terminal_is_raw_while_attached_and_then_as_before() {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        use rustix::termios::LocalModes;
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&controller).unwrap();
        unlockpt(&controller).unwrap();
        let name = ptsname(&controller, Vec::new()).unwrap();
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY;
        let terminal = rustix::fs::open(name, flags, rustix::fs::Mode::empty()).unwrap();
        let keys_are_signals =
            || tcgetattr(&terminal).unwrap().local_modes.contains(LocalModes::ISIG | LocalModes::ICANON);
        assert!(keys_are_signals());
        let raw = RawMode::enter(terminal.as_fd());
        assert!(!keys_are_signals());
        drop(raw);
        assert!(keys_are_signals());
    }

    #[test]
    fn drawing_passes_and_questions_do_not() {
        let drawing = b"\x1b[1;31mred\x1b[0m\r\n\x1b[2J\x1b[H\x1b[?25l\xc3\xa9\t\x08";
        assert_eq!(Filter::default().pass(drawing), drawing);
        for hostile in [
            &b"\x1b[6n"[..],
            b"\x1b[c",
            b"\x1b[>c",
            b"\x1b[21t",
            b"\x1b]0;title\x07",
            b"\x1b]52;c;cm0=\x1b\\",
            b"\x1bP$q\x1b\\",
            b"\x1bc",
            b"\x1bZ",
            b"\x05\x00",
        ] {
            assert_eq!(Filter::default().pass(hostile), b"", "{hostile:?}");
        }
    }

    proptest! {
        /// Cutting the bytes anywhere changes nothing, and what passed passes again.
        #[test]
        fn the_filter_has_no_seams(bytes in proptest::collection::vec(prop_oneof![Just(0x1b), Just(b'['), Just(b']'), any::<u8>()], 0..80), cut in 0usize..80) {
            let whole = Filter::default().pass(&bytes);
            let (head, tail) = bytes.split_at(cut.min(bytes.len()));
            let mut filter = Filter::default();
            let parts = [filter.pass(head), filter.pass(tail)].concat();
            prop_assert_eq!(&whole, &parts);
            prop_assert_eq!(Filter::default().pass(&whole), whole);
        }
    }
}
