//! A running checksum: order and value of every word count, and it is cheap enough to run over all memory.

/// A running checksum of words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Checksum(u32);

impl Checksum {
    /// Of nothing.
    pub const fn new() -> Self {
        Self(0x811c_9dc5)
    }

    /// One word more.
    #[inline]
    pub const fn add(self, word: u32) -> Self {
        // FNV-1a on words (Fowler, Noll, Vo): a multiplication by an odd number loses nothing.
        Self((self.0 ^ word).wrapping_mul(0x0100_0193))
    }

    /// Its value.
    pub const fn value(self) -> u32 {
        self.0
    }
}

impl Default for Checksum {
    fn default() -> Self {
        Self::new()
    }
}

/// A pattern: another word at every address and in every round, from which the round cannot be guessed.
pub const fn pattern(address: u32, round: u32) -> u32 {
    let mixed = (address ^ round.wrapping_mul(0x9e37_79b9)).wrapping_mul(0x85eb_ca6b);
    mixed ^ mixed >> 15
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    #[test]
    fn order_and_every_bit_count() {
        let of = |words: &[u32]| words.iter().fold(Checksum::new(), |sum, word| sum.add(*word)).value();
        let good = of(&[1, 2, 3]);
        assert_ne!(good, of(&[2, 1, 3]));
        assert_ne!(good, of(&[1, 2]));
        for bit in 0..32 {
            assert_ne!(good, of(&[1, 2 ^ 1 << bit, 3]), "bit {bit}");
        }
    }

    #[test]
    fn neighbours_and_rounds_differ() {
        for at in (0..4096u32).step_by(4) {
            assert_ne!(pattern(at, 1), pattern(at + 4, 1));
            assert_ne!(pattern(at, 1), pattern(at, 2));
        }
    }
}
