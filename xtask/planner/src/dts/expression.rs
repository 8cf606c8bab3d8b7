//! Numbers, and the integer expressions of C that may stand in parentheses (Devicetree Specification §6.3).

use super::VALUE;
use super::cursor::Cursor;

/// Deepest nesting of an expression.
const MAX_NESTING: usize = 32;

/// The operators of two operands, the loosest first; of those with a common beginning, the longer first.
const OPERATORS: [&[&str]; 10] = [
    &["||"],
    &["&&"],
    &["|"],
    &["^"],
    &["&"],
    &["==", "!="],
    &["<=", ">=", "<", ">"],
    &["<<", ">>"],
    &["+", "-"],
    &["*", "/", "%"],
];

/// A number as it stands in cells: a literal, or an expression in parentheses. Whether it is hexadecimal is for
/// printing it as it was.
pub(super) fn number(cursor: &mut Cursor<'_>) -> Option<(u64, bool)> {
    let start = cursor.at;
    let is_hex =
        cursor.text.as_bytes()[start..].starts_with(b"0x") || cursor.text.as_bytes()[start..].starts_with(b"0X");
    let value = if cursor.peek() == Some(b'(') { operand(cursor, 0) } else { literal(cursor) };
    if value.is_none() {
        let end = cursor.at.clamp(start + 1, start + 40);
        cursor.complain(VALUE, start..end, "this is no number", "a number is 12, 0xc, 'c' or an expression in ( )");
    }
    value.map(|value| (value, is_hex || cursor.text.as_bytes().get(start) == Some(&b'(')))
}

fn literal(cursor: &mut Cursor<'_>) -> Option<u64> {
    if cursor.take(b'\'') {
        let byte = cursor.peek().filter(|byte| byte.is_ascii_graphic() && *byte != b'\\')?;
        cursor.at += 1;
        return cursor.take(b'\'').then_some(u64::from(byte));
    }
    let word = cursor.take_while(|byte| byte.is_ascii_alphanumeric());
    let digits = word.trim_end_matches(['u', 'U', 'l', 'L']);
    match digits.strip_prefix("0x").or(digits.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None if digits.len() > 1 && digits.starts_with('0') => u64::from_str_radix(digits, 8).ok(),
        None => digits.parse().ok(),
    }
}

/// A literal, an expression in parentheses, or one of these behind an operator of one operand.
fn operand(cursor: &mut Cursor<'_>, depth: usize) -> Option<u64> {
    if depth > MAX_NESTING {
        return None;
    }
    cursor.skip_blank();
    match cursor.peek()? {
        b'(' => {
            cursor.at += 1;
            let value = choice(cursor, depth + 1)?;
            cursor.skip_blank();
            cursor.take(b')').then_some(value)
        }
        b'-' => {
            cursor.at += 1;
            operand(cursor, depth + 1).map(u64::wrapping_neg)
        }
        b'~' => {
            cursor.at += 1;
            operand(cursor, depth + 1).map(|value| !value)
        }
        b'!' => {
            cursor.at += 1;
            operand(cursor, depth + 1).map(|value| u64::from(value == 0))
        }
        _ => literal(cursor),
    }
}

/// `a ? b : c`, or less.
fn choice(cursor: &mut Cursor<'_>, depth: usize) -> Option<u64> {
    if depth > MAX_NESTING {
        return None;
    }
    let condition = binary(cursor, 0, depth)?;
    cursor.skip_blank();
    if !cursor.take(b'?') {
        return Some(condition);
    }
    let yes = choice(cursor, depth + 1)?;
    cursor.skip_blank();
    if !cursor.take(b':') {
        return None;
    }
    let no = choice(cursor, depth + 1)?;
    Some(if condition != 0 { yes } else { no })
}

/// Operands with operators that bind at least as tightly as those of `level`.
fn binary(cursor: &mut Cursor<'_>, level: usize, depth: usize) -> Option<u64> {
    let Some(operators) = OPERATORS.get(level) else {
        return operand(cursor, depth);
    };
    let mut value = binary(cursor, level + 1, depth)?;
    loop {
        cursor.skip_blank();
        let rest = &cursor.text.as_bytes()[cursor.at..];
        // `|` is not the beginning of `||`, nor `<` that of `<<`.
        let is_here = |operator: &&&str| {
            rest.starts_with(operator.as_bytes())
                && !(operator.len() == 1 && b"|&<>".contains(&operator.as_bytes()[0]) && rest.get(1) == rest.first())
        };
        let Some(operator) = operators.iter().find(is_here) else {
            return Some(value);
        };
        cursor.at += operator.len();
        let right = binary(cursor, level + 1, depth)?;
        value = apply(operator, value, right)?;
    }
}

/// None for a division by zero.
fn apply(operator: &str, a: u64, b: u64) -> Option<u64> {
    let shift = |by: u64| u32::try_from(by).ok().filter(|by| *by < 64);
    Some(match operator {
        "||" => u64::from(a != 0 || b != 0),
        "&&" => u64::from(a != 0 && b != 0),
        "|" => a | b,
        "^" => a ^ b,
        "&" => a & b,
        "==" => u64::from(a == b),
        "!=" => u64::from(a != b),
        "<=" => u64::from(a <= b),
        ">=" => u64::from(a >= b),
        "<" => u64::from(a < b),
        ">" => u64::from(a > b),
        "<<" => shift(b).map_or(0, |by| a << by),
        ">>" => shift(b).map_or(0, |by| a >> by),
        "+" => a.wrapping_add(b),
        "-" => a.wrapping_sub(b),
        "*" => a.wrapping_mul(b),
        "/" => a.checked_div(b)?,
        _ => a.checked_rem(b)?,
    })
}
