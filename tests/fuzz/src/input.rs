//! Bytes as decisions.

/// What is left of the input.
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    /// The next byte; none at the end, with which every program ends.
    pub fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// A number below `count`.
    pub fn below(&mut self, count: usize) -> Option<usize> {
        Some(usize::from(self.byte()?) % count)
    }

    /// One of these.
    pub fn one_of<T: Copy>(&mut self, list: &[T]) -> Option<T> {
        let index = self.below(list.len())?;
        list.get(index).copied()
    }

    /// 32 bits as they are.
    pub fn raw(&mut self) -> Option<u32> {
        let (word, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*word))
    }

    /// 32 bits: one of these, or as they are.
    pub fn word(&mut self, list: &[u32]) -> Option<u32> {
        match usize::from(self.byte()?) {
            index if index < 0xe0 => list.get(index % list.len()).copied(),
            _ => self.raw(),
        }
    }

    /// At most this many bytes.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// All that is left.
    pub fn rest(self) -> &'a [u8] {
        self.0
    }
}
