//! Editing of one line at a terminal that knows backspace, and the lines that were entered before.

use core::fmt::{self, Write};

use arrayvec::ArrayVec;

/// Longest line.
const MAX_LEN: usize = 256;
/// Lines that can be recalled.
const HISTORY: usize = 8;

/// ASCII, printable.
type Line = ArrayVec<u8, MAX_LEN>;

/// Where in an escape sequence the terminal is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Escape {
    None,
    /// ESC.
    Begun,
    /// ESC [ or ESC O, and the last digit.
    Sequence(u8),
}

/// A line in the making.
#[derive(Debug)]
pub(super) struct LineEdit {
    line: Line,
    /// At most the length of the line.
    cursor: usize,
    escape: Escape,
    /// The newest first.
    history: ArrayVec<Line, HISTORY>,
    /// How many lines back the line was recalled from; 0 is the new one.
    back: usize,
}

impl LineEdit {
    pub(super) const fn new() -> Self {
        Self { line: Line::new_const(), cursor: 0, escape: Escape::None, history: ArrayVec::new_const(), back: 0 }
    }

    /// The line.
    pub(super) fn line(&self) -> &str {
        // It is ASCII.
        core::str::from_utf8(&self.line).unwrap_or("")
    }

    /// Begins a new line, and remembers the old one.
    pub(super) fn clear(&mut self) {
        let line = core::mem::take(&mut self.line);
        (self.cursor, self.back) = (0, 0);
        if line.is_empty() || self.history.first() == Some(&line) {
            return;
        }
        self.history.truncate(HISTORY - 1);
        // There is room for one.
        _ = self.history.try_insert(0, line);
    }

    /// Takes a byte that was typed, and shows what it does; true when the line is complete.
    pub(super) fn push(&mut self, byte: u8, out: &mut dyn Write) -> bool {
        if byte == b'\r' {
            self.escape = Escape::None;
            _ = out.write_str("\n");
            return true;
        }
        // Nothing can be done about a terminal that takes no text.
        _ = self.edit(byte, out);
        false
    }

    fn edit(&mut self, byte: u8, out: &mut dyn Write) -> fmt::Result {
        match core::mem::replace(&mut self.escape, Escape::None) {
            Escape::None => self.key(byte, out),
            Escape::Begun => {
                if matches!(byte, b'[' | b'O') {
                    self.escape = Escape::Sequence(0);
                }
                Ok(())
            }
            Escape::Sequence(digit) => match byte {
                b'0'..=b'9' => {
                    self.escape = Escape::Sequence(byte);
                    Ok(())
                }
                b';' => {
                    self.escape = Escape::Sequence(digit);
                    Ok(())
                }
                b'A' => self.recall(self.back + 1, out),
                b'B' => self.recall(self.back.saturating_sub(1), out),
                b'C' => self.go_to(self.cursor + 1, out),
                b'D' => self.go_to(self.cursor.saturating_sub(1), out),
                b'H' => self.go_to(0, out),
                b'F' => self.go_to(MAX_LEN, out),
                b'~' => match digit {
                    b'1' | b'7' => self.go_to(0, out),
                    b'4' | b'8' => self.go_to(MAX_LEN, out),
                    b'3' => self.remove(self.cursor, self.cursor + 1, out),
                    _ => Ok(()),
                },
                _ => Ok(()),
            },
        }
    }

    fn key(&mut self, byte: u8, out: &mut dyn Write) -> fmt::Result {
        const fn control(letter: u8) -> u8 {
            letter - b'@'
        }
        const A: u8 = control(b'A');
        const E: u8 = control(b'E');
        const K: u8 = control(b'K');
        const U: u8 = control(b'U');
        match byte {
            0x1b => {
                self.escape = Escape::Begun;
                Ok(())
            }
            0x08 | 0x7f => self.remove(self.cursor.saturating_sub(1), self.cursor, out),
            A => self.go_to(0, out),
            E => self.go_to(MAX_LEN, out),
            U => self.remove(0, self.cursor, out),
            K => self.remove(self.cursor, MAX_LEN, out),
            b' '..=b'~' => self.insert(byte, out),
            _ => Ok(()),
        }
    }

    fn insert(&mut self, byte: u8, out: &mut dyn Write) -> fmt::Result {
        if self.line.try_insert(self.cursor, byte).is_err() {
            return Ok(());
        }
        let from = self.cursor;
        self.show(from, out)?;
        self.cursor = self.line.len();
        self.go_to(from + 1, out)
    }

    /// Writes the line from a position on; the terminal's cursor is there, and then at its end.
    fn show(&self, from: usize, out: &mut dyn Write) -> fmt::Result {
        out.write_str(self.line().get(from..).unwrap_or(""))
    }

    /// Moves the cursor, as far as the line reaches.
    fn go_to(&mut self, to: usize, out: &mut dyn Write) -> fmt::Result {
        let to = to.min(self.line.len());
        out.write_str(self.line().get(self.cursor..to).unwrap_or(""))?;
        (to..self.cursor).try_for_each(|_| out.write_char('\x08'))?;
        self.cursor = to;
        Ok(())
    }

    /// Removes what is between two positions, and leaves the cursor there.
    fn remove(&mut self, from: usize, to: usize, out: &mut dyn Write) -> fmt::Result {
        let to = to.min(self.line.len());
        if from >= to {
            return Ok(());
        }
        self.go_to(from, out)?;
        self.line.drain(from..to);
        self.show(from, out)?;
        // Over what was at the end, and back.
        let shown = self.line.len() - from;
        (from..to).try_for_each(|_| out.write_char(' '))?;
        (0..to - from + shown).try_for_each(|_| out.write_char('\x08'))
    }

    /// Replaces the line by one that was entered before; 0 is a new one.
    fn recall(&mut self, back: usize, out: &mut dyn Write) -> fmt::Result {
        let line = match back.checked_sub(1) {
            None => Line::new(),
            Some(index) => match self.history.get(index) {
                Some(line) => line.clone(),
                None => return Ok(()),
            },
        };
        self.back = back;
        self.go_to(0, out)?;
        self.remove(0, MAX_LEN, out)?;
        self.line = line;
        self.show(0, out)?;
        self.cursor = self.line.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::string::String;
    use std::vec::Vec;

    /// What a terminal shows after the text, and where its cursor is.
    fn screen(text: &str) -> (String, usize) {
        let (mut cells, mut at) = (Vec::new(), 0);
        for character in text.chars() {
            match character {
                '\x08' => at -= 1,
                '\n' => (cells, at) = (Vec::new(), 0),
                _ => {
                    cells.resize(cells.len().max(at + 1), ' ');
                    cells[at] = character;
                    at += 1;
                }
            }
        }
        let shown: String = cells.into_iter().collect();
        (shown.trim_end().into(), at)
    }

    fn typed(edit: &mut LineEdit, out: &mut String, keys: &str) -> Vec<String> {
        let mut lines = Vec::new();
        for byte in keys.bytes() {
            if edit.push(byte, out) {
                lines.push(edit.line().into());
                edit.clear();
            }
        }
        lines
    }

    fn lines(keys: &str) -> Vec<String> {
        typed(&mut LineEdit::new(), &mut String::new(), keys)
    }

    #[test]
    fn keys_edit_the_line() {
        assert_eq!(lines("info\r"), ["info"]);
        assert_eq!(lines("\ninfp\x08o\x7fo\n\r"), ["info"]);
        assert_eq!(lines("bc\x01a\x05d\r"), ["abcd"]);
        assert_eq!(lines("ac\x1b[Db\x1b[Cd\r"), ["abcd"]);
        assert_eq!(lines("abcd\x1b[D\x1b[D\x15x\r"), ["xcd"]);
        assert_eq!(lines("abcd\x1b[D\x1b[D\x0bx\r"), ["abx"]);
        assert_eq!(lines("bcd\x1b[Ha\x1b[4~e\x1bOH\x1b[3~\r"), ["bcde"]);
        assert_eq!(lines("a\x1b[1;5Cb\x1b[99Zc\x1bxd\x02\r"), ["abcd"]);
        assert_eq!(lines("\x7f\x1b[D\x1b[C\x15\x0b\r"), [""]);
    }

    #[test]
    fn a_line_has_256_characters() {
        let keys = "x".repeat(300) + "\x08y\r";
        assert_eq!(lines(&keys), ["x".repeat(255) + "y"]);
    }

    #[test]
    fn lines_are_recalled() {
        assert_eq!(lines("a\rbb\r\x1b[A\x1b[A\r")[2], "a");
        assert_eq!(lines("a\rbb\r\x1b[A\x1b[A\x1b[A\x1b[B!\r")[2], "bb!");
        assert_eq!(lines("a\rx\x1b[A\x1b[B\x1b[By\r")[1], "y");
        // Neither empty lines nor repetitions are remembered.
        assert_eq!(lines("a\rb\rb\r\r\x1b[A\x1b[A\r")[4], "a");
        let many: String = (0..20).map(|n| std::format!("{n}\r")).collect();
        assert_eq!(lines(&(many + &"\x1b[A".repeat(20) + "\r"))[20], "12");
    }

    proptest! {
        #[test]
        fn the_terminal_shows_the_line(keys in "([ -~]|\u{8}|\u{7f}|\u{1}|\u{5}|\u{15}|\u{b}|\r|\u{1b}\\[[ABCDHF]|\u{1b}\\[3~){0,80}") {
            let (mut edit, mut out) = (LineEdit::new(), String::new());
            typed(&mut edit, &mut out, &keys);
            let (shown, at) = screen(&out);
            prop_assert_eq!(shown, edit.line().trim_end());
            prop_assert_eq!(at, edit.cursor);
        }

        #[test]
        fn no_bytes_panic(keys in prop::collection::vec(any::<u8>(), 0..600)) {
            let (mut edit, mut out) = (LineEdit::new(), String::new());
            for byte in keys {
                if edit.push(byte, &mut out) {
                    edit.clear();
                }
            }
        }
    }
}
