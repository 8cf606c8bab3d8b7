//! A person's terminal: raw while it is a console, its escape key, and what may reach it.
//!
//! In raw mode the other end sees every key; Ctrl-A is the way out. What the other end prints passes through a filter
//! which lets text, cursor movement and colours through and keeps back everything that could make the terminal answer,
//! change its title or its clipboard.

use std::os::fd::BorrowedFd;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// Ctrl-A.
const ESCAPE: u8 = 0x01;

/// A terminal in raw mode until this is dropped; nothing, when the input is no terminal.
pub struct RawMode<'a>(Option<(BorrowedFd<'a>, Termios)>);

impl<'a> RawMode<'a> {
    /// Changes the mode, and remembers what it was.
    pub fn enter(input: BorrowedFd<'a>) -> Self {
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
#[derive(Debug)]
pub struct Keys {
    /// Those that mean something behind Ctrl-A.
    commands: &'static [u8],
    escaped: bool,
}

/// What was typed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Typed {
    /// For the other end.
    Bytes(Vec<u8>),
    /// Ctrl-A and this key, one of the commands.
    Command(u8),
}

impl Keys {
    /// Ctrl-A and one of `commands`, in lower case, is for the tool.
    pub fn new(commands: &'static [u8]) -> Self {
        Self { commands, escaped: false }
    }

    /// Takes keys. Ctrl-A Ctrl-A is one Ctrl-A; any other key after it means nothing by itself.
    pub fn typed(&mut self, keys: &[u8]) -> Vec<Typed> {
        let mut all = Vec::new();
        let mut bytes = Vec::new();
        for &key in keys {
            match (std::mem::take(&mut self.escaped), key.to_ascii_lowercase()) {
                (true, command) if self.commands.contains(&command) => {
                    if !bytes.is_empty() {
                        all.push(Typed::Bytes(std::mem::take(&mut bytes)));
                    }
                    all.push(Typed::Command(command));
                }
                (false, ESCAPE) => self.escaped = true,
                (true, ESCAPE) | (false, _) => bytes.push(key),
                (true, _) => bytes.extend([ESCAPE, key]),
            }
        }
        if !bytes.is_empty() {
            all.push(Typed::Bytes(bytes));
        }
        all
    }
}

/// Longest control sequence that is let through.
const SEQUENCE_MAX: usize = 32;

/// Lets through what only draws.
#[derive(Debug, Default)]
pub struct Filter {
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
    /// What may reach the terminal of these bytes.
    pub fn pass(&mut self, bytes: &[u8]) -> Vec<u8> {
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
        let mut keys = Keys::new(b"x2");
        assert_eq!(keys.typed(b"ab\x01\x01c\x01d\x01"), [Typed::Bytes(b"ab\x01c\x01d".to_vec())]);
        let commands = [Typed::Command(b'x'), Typed::Bytes(b"yz".to_vec()), Typed::Command(b'2')];
        assert_eq!(keys.typed(b"Xyz\x012"), commands);
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
        let raw = RawMode::enter(std::os::fd::AsFd::as_fd(&terminal));
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
