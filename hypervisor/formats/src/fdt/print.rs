//! Trees as text, in the form of device tree source.

use core::fmt::{self, Write};

use dtoolkit::Property as _;

use super::{Place, open, strings};

/// Prints a flattened tree; one that cannot be read prints why.
///
/// # Errors
/// Only those of `out`.
pub fn dts(bytes: &[u8], out: &mut dyn Write) -> fmt::Result {
    match open(bytes) {
        Ok(fdt) => node(Place::root(fdt), 0, out),
        Err(why) => writeln!(out, "{why}"),
    }
}

fn indent(depth: usize, out: &mut dyn Write) -> fmt::Result {
    (0..depth).try_for_each(|_| out.write_char('\t'))
}

fn node(place: Place<'_>, depth: usize, out: &mut dyn Write) -> fmt::Result {
    indent(depth, out)?;
    let name = if depth == 0 { "/" } else { place.name() };
    writeln!(out, "{name} {{")?;
    for property in place.properties() {
        indent(depth + 1, out)?;
        out.write_str(property.name())?;
        // Reading a value as bytes cannot fail.
        value(property.value_as::<&[u8]>().unwrap_or(&[]), out)?;
        out.write_str(";\n")?;
    }
    place.children().try_for_each(|child| node(child, depth + 1, out))?;
    indent(depth, out)?;
    out.write_str("};\n")
}

/// Text where it can be text, else cells, else bytes.
fn value(bytes: &[u8], out: &mut dyn Write) -> fmt::Result {
    let plain = |byte: &u8| (b' '..0x7f).contains(byte) && !b"\"\\".contains(byte);
    let text =
        |piece: &[u8]| matches!(piece.split_last(), Some((0, rest)) if !rest.is_empty() && rest.iter().all(plain));
    if bytes.is_empty() {
        return Ok(());
    }
    out.write_str(" = ")?;
    if bytes.split_inclusive(|byte| *byte == 0).all(text) {
        for (index, piece) in strings(bytes).enumerate() {
            write!(out, "{}\"{piece}\"", if index == 0 { "" } else { ", " })?;
        }
        return Ok(());
    }
    let (cells, rest) = bytes.as_chunks::<4>();
    if rest.is_empty() {
        list(cells.iter().map(|cell| u32::from_be_bytes(*cell)), ('<', '>'), |out, cell| write!(out, "{cell:#x}"), out)
    } else {
        list(bytes.iter(), ('[', ']'), |out, byte| write!(out, "{byte:02x}"), out)
    }
}

fn list<T>(
    items: impl Iterator<Item = T>,
    (open, close): (char, char),
    show: impl Fn(&mut dyn Write, T) -> fmt::Result,
    out: &mut dyn Write,
) -> fmt::Result {
    out.write_char(open)?;
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.write_char(' ')?;
        }
        show(out, item)?;
    }
    out.write_char(close)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::testing::Builder;
    use std::string::String;

    #[test]
    fn a_value_is_text_cells_or_bytes() {
        let mut t = Builder::default();
        t.begin("").text("model", "x").prop("list", b"a\0bc\0").prop("empty", b"");
        t.begin("cpu@1").cells("reg", &[1, 0xff]).prop("odd", &[1, 2, 3]).prop("two", b"a\0\0b").end().end();
        let mut out = String::new();
        dts(&t.finish(), &mut out).unwrap();
        let want = "/ {\n\tmodel = \"x\";\n\tlist = \"a\", \"bc\";\n\tempty;\n\tcpu@1 {\n\t\treg = <0x1 0xff>;\n\t\todd = [01 02 03];\n\t\ttwo = <0x61000062>;\n\t};\n};\n";
        assert_eq!(out, want);
        out.clear();
        dts(b"no", &mut out).unwrap();
        assert!(out.contains("truncated") || out.contains("bytes"), "{out}");
    }
}
