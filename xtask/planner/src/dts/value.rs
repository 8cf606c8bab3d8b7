//! What stands behind a `=`: strings, cells, bytes and paths, separated by commas.

use super::cursor::Cursor;
use super::expression::number;
use super::{Cell, DIRECTIVE, Reference, VALUE, Value};

/// The pieces of a value, and where the last of them ends; none if it cannot be read, which has been said.
pub(super) fn values(cursor: &mut Cursor<'_>) -> Option<(Vec<Value>, usize)> {
    let mut values = Vec::new();
    loop {
        cursor.skip_blank();
        let start = cursor.at;
        skip_label(cursor);
        match value(cursor) {
            Some(value) => values.push(value),
            None => {
                // What cannot be read ends with its statement or line.
                let rest = &cursor.text.as_bytes()[cursor.at..];
                let stop = rest.iter().position(|byte| b";{}\n".contains(byte)).unwrap_or(rest.len());
                cursor.at += stop;
                if cursor.at == start {
                    let help = "a value is \"text\", <cells>, [bytes] or &label";
                    cursor.complain(VALUE, start..start + 1, "a value is missing", help);
                }
                cursor.take(b';');
                return None;
            }
        }
        let end = cursor.at;
        skip_label(cursor);
        cursor.skip_blank();
        if !cursor.take(b',') {
            cursor.at = end;
            return Some((values, end));
        }
    }
}

/// A label inside a value, which nothing here needs.
fn skip_label(cursor: &mut Cursor<'_>) {
    let start = cursor.at;
    cursor.skip_blank();
    cursor.word();
    if !cursor.take(b':') {
        cursor.at = start;
    }
    cursor.skip_blank();
}

fn value(cursor: &mut Cursor<'_>) -> Option<Value> {
    let start = cursor.at;
    match cursor.peek() {
        Some(b'"') => text(cursor).map(Value::Text),
        Some(b'<') => cells(cursor).map(Value::Cells),
        Some(b'[') => bytes(cursor).map(Value::Bytes),
        Some(b'&') => reference(cursor).map(Value::Path),
        Some(b'/') if cursor.take_text("/bits/") => numbers_of(cursor),
        Some(b'/') if cursor.take_text("/incbin/") => {
            let help = "write what is in the file: \"text\", <cells> or [bytes]";
            cursor.complain(DIRECTIVE, start..cursor.at, "no other file is read", help);
            None
        }
        _ => {
            let rest = cursor.text[start..].lines().next().unwrap_or_default().trim_end_matches([';', ' ']);
            if !rest.is_empty() {
                let help = "a value is \"text\", <cells>, [bytes] or &label";
                cursor.complain(VALUE, start..start + rest.len(), "this is no value", help);
            }
            cursor.at += usize::from(!rest.is_empty() && !rest.starts_with(['}', '{']) && rest.is_ascii());
            None
        }
    }
}

/// `"text"`, with the escapes of C.
fn text(cursor: &mut Cursor<'_>) -> Option<Vec<u8>> {
    let start = cursor.at;
    cursor.take(b'"');
    let mut text = Vec::new();
    loop {
        let Some(byte) = cursor.peek().filter(|&byte| byte != b'\n') else {
            let help = "close it with \" on the same line";
            cursor.complain(VALUE, start..cursor.at, "a string does not end", help);
            return None;
        };
        cursor.at += 1;
        match byte {
            b'"' => return Some(text),
            b'\\' => text.extend(escape(cursor)),
            byte => text.push(byte),
        }
    }
}

/// What follows a backslash.
fn escape(cursor: &mut Cursor<'_>) -> Option<u8> {
    let byte = cursor.peek().filter(|&byte| byte != b'\n')?;
    let digits = |cursor: &mut Cursor<'_>, radix: u32, most: usize| {
        let mut value = 0u32;
        let mut count = 0;
        while let Some(digit) = cursor.peek().and_then(|byte| char::from(byte).to_digit(radix)).filter(|_| count < most)
        {
            value = value * radix + digit;
            count += 1;
            cursor.at += 1;
        }
        value as u8
    };
    if (b'0'..=b'7').contains(&byte) {
        return Some(digits(cursor, 8, 3));
    }
    cursor.at += 1;
    Some(match byte {
        b'n' => b'\n',
        b't' => b'\t',
        b'r' => b'\r',
        b'a' => 7,
        b'b' => 8,
        b'v' => 11,
        b'f' => 12,
        b'x' => digits(cursor, 16, 2),
        other => other,
    })
}

/// `<1 0x2 (3 + 4) &label>`.
fn cells(cursor: &mut Cursor<'_>) -> Option<Vec<Cell>> {
    let start = cursor.at;
    cursor.take(b'<');
    let mut cells = Vec::new();
    loop {
        skip_label(cursor);
        match cursor.peek() {
            Some(b'>') => {
                cursor.at += 1;
                return Some(cells);
            }
            Some(b'&') => cells.push(Cell::Phandle(reference(cursor)?)),
            Some(b';' | b'{' | b'}') | None => {
                cursor.complain(VALUE, start..start + 1, "a list of cells does not end", "close it with >");
                return None;
            }
            Some(_) => {
                let (value, hex) = number(cursor)?;
                cells.push(Cell::Number { value: fit(cursor, value, 32)? as u32, hex });
            }
        }
    }
}

/// `/bits/ 8 <1 2>`, as bytes.
fn numbers_of(cursor: &mut Cursor<'_>) -> Option<Value> {
    let start = cursor.at;
    cursor.skip_blank();
    let bits = cursor.take_while(|byte| byte.is_ascii_digit());
    let bits: u32 = bits.parse().ok().filter(|bits| [8, 16, 32, 64].contains(bits))?;
    cursor.skip_blank();
    if !cursor.take(b'<') {
        cursor.complain(VALUE, start..cursor.at, "a list of cells is missing", "write /bits/ 8 <...>");
        return None;
    }
    let mut bytes = Vec::new();
    loop {
        cursor.skip_blank();
        if cursor.take(b'>') {
            return Some(Value::Bytes(bytes));
        }
        let (value, _) = number(cursor)?;
        let value = fit(cursor, value, bits)?.to_be_bytes();
        bytes.extend(&value[value.len() - bits as usize / 8..]);
    }
}

/// The number in so many bits; a negative one may fill them.
fn fit(cursor: &mut Cursor<'_>, value: u64, bits: u32) -> Option<u64> {
    let mask = u64::MAX >> (64 - bits);
    if value <= mask || value | mask == u64::MAX {
        return Some(value & mask);
    }
    let at = cursor.at;
    let help = "a cell has 32 bits: write <0xf 0xe8020000> for 0xfe8020000";
    cursor.complain(VALUE, at - 1..at, format!("{value:#x} does not fit into {bits} bits"), help);
    None
}

/// `[00 ff 1234]`.
fn bytes(cursor: &mut Cursor<'_>) -> Option<Vec<u8>> {
    let start = cursor.at;
    cursor.take(b'[');
    let mut bytes = Vec::new();
    loop {
        cursor.skip_blank();
        if cursor.take(b']') {
            return Some(bytes);
        }
        let digits = cursor.take_while(|byte| byte.is_ascii_hexdigit());
        if digits.is_empty() || digits.len() % 2 == 1 {
            let end = cursor.at;
            let help = "two hexadecimal digits for each byte, and ] at the end";
            cursor.complain(VALUE, start..end.max(start + 1), "this list of bytes cannot be read", help);
            return None;
        }
        for pair in digits.as_bytes().chunks(2) {
            let digit = |index: usize| pair.get(index).and_then(|byte| char::from(*byte).to_digit(16)).unwrap_or(0);
            bytes.push((digit(0) * 16 + digit(1)) as u8);
        }
    }
}

/// `&label` or `&{/path}`.
fn reference(cursor: &mut Cursor<'_>) -> Option<Reference> {
    let start = cursor.at;
    cursor.take(b'&');
    let (reference, is_good) = if cursor.take(b'{') {
        let path = cursor.take_while(|byte| byte.is_ascii_alphanumeric() || b",._+*#?@-/".contains(&byte)).to_owned();
        let is_good = cursor.take(b'}') && path.starts_with('/');
        (Reference::Path(path), is_good)
    } else {
        let label = cursor.take_while(|byte| byte.is_ascii_alphanumeric() || byte == b'_').to_owned();
        let is_good = !label.is_empty();
        (Reference::Label(label), is_good)
    };
    if !is_good {
        let help = "write &label or &{/path/of/the/node}";
        cursor.complain(VALUE, start..start + 1, "this refers to nothing", help);
        return None;
    }
    Some(reference)
}
