//! Numbers that look random and are the same in every run.

/// A sequence of numbers (xorshift, Marsaglia 2003, 13-17-5).
#[derive(Clone, Copy, Debug)]
pub struct Random(u32);

impl Random {
    /// The sequence that begins behind `seed`; 0, from which none would come, counts as 1.
    pub const fn new(seed: u32) -> Self {
        Self(if seed == 0 { 1 } else { seed })
    }

    /// The next number.
    pub const fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0
    }

    /// One of 0 to `count` - 1; 0 when there are none.
    pub const fn below(&mut self, count: u32) -> u32 {
        // The upper half is better mixed than the lower one.
        let next = self.next() >> 16;
        if count == 0 { 0 } else { next % count }
    }

    /// True once in `count`.
    pub const fn once_in(&mut self, count: u32) -> bool {
        self.below(count) == 0
    }

    /// One of a list that is not empty.
    pub fn one_of<T: Copy + Default>(&mut self, list: &[T]) -> T {
        list.get(self.below(list.len() as u32) as usize).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_repeats_itself_and_reaches_all() {
        let mut all = [false; 7];
        let (mut one, mut other) = (Random::new(5), Random::new(5));
        for _ in 0..100 {
            let next = one.below(7);
            assert_eq!(next, other.below(7));
            all[next as usize] = true;
        }
        assert_eq!(all, [true; 7]);
        assert_ne!(Random::new(0).next(), 0);
    }
}
