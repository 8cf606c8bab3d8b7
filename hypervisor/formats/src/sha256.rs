//! [`Sha256`]: a digest as bytes and as text. Who computes it chooses the code.

use core::fmt;

/// A SHA-256 digest; as text 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256(pub [u8; 32]);

impl Sha256 {
    /// Reads 64 lower-case hexadecimal digits.
    pub const fn from_hex(text: &str) -> Option<Self> {
        const fn nibble(digit: u8) -> Option<u8> {
            match digit {
                b'0'..=b'9' => Some(digit - b'0'),
                b'a'..=b'f' => Some(digit - b'a' + 10),
                _ => None,
            }
        }
        let Some(pairs) = text.as_bytes().as_chunks::<2>().0.first_chunk::<32>() else { return None };
        if text.len() != 64 {
            return None;
        }
        // No iterators: the firmware reads a key while it is compiled.
        let (mut digest, mut at) = ([0; 32], 0);
        while at < 32 {
            let (Some(high), Some(low)) = (nibble(pairs[at][0]), nibble(pairs[at][1])) else { return None };
            digest[at] = high << 4 | low;
            at += 1;
        }
        Some(Self(digest))
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    #[test]
    fn text_leads_back() {
        let digest = Sha256(core::array::from_fn(|index| index as u8 * 7));
        let text = std::format!("{digest}");
        assert_eq!(Sha256::from_hex(&text), Some(digest));
        for wrong in ["", &text[1..], &text.replace('0', "g"), &text.to_uppercase(), &std::format!("{text}0")] {
            assert_eq!(Sha256::from_hex(wrong), None, "{wrong}");
        }
    }
}
