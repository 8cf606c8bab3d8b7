//! One gzip member (RFC 1952), unpacked as its bytes come: the header byte by byte, what is deflated through a
//! dictionary that is the hypervisor's own, so that nothing is read back from the guest.

use arrayvec::ArrayVec;
use citrine_formats::uimage::Crc;
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, TINFL_LZ_DICT_SIZE, decompress, inflate_flags};

use super::Why;

/// What unpacking needs.
pub(super) struct Space {
    /// None or one: a static one would not be zero, and be part of the firmware's file.
    state: ArrayVec<DecompressorOxide, 1>,
    dictionary: [u8; TINFL_LZ_DICT_SIZE],
}

impl Space {
    pub(super) const fn new() -> Self {
        Self { state: ArrayVec::new_const(), dictionary: [0; TINFL_LZ_DICT_SIZE] }
    }

    /// Makes the state, once. In a function of its own the compiler makes it in its place; inlined, it takes the way
    /// over 11 KiB of stack.
    #[inline(never)]
    fn prepare(&mut self) {
        if self.state.is_empty() {
            self.state.push(DecompressorOxide::new());
        }
    }
}

/// Flags of the header (RFC 1952 §2.3.1): a CRC of the header.
const FHCRC: u8 = 1 << 1;
/// An extra field.
const FEXTRA: u8 = 1 << 2;
/// A file's name.
const FNAME: u8 = 1 << 3;
/// A comment.
const FCOMMENT: u8 = 1 << 4;
/// Flags that nobody may set.
const RESERVED: u8 = 0xe0;

/// What the next byte belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// The ten bytes that every header has.
    Fixed,
    ExtraLen,
    /// The extra field; how much of it is left.
    Extra(u16),
    /// A text that a zero ends.
    Text,
    HeaderCrc,
    Deflate,
    Trailer,
    End,
}

/// A member in the making.
pub(super) struct Gunzip<'s> {
    state: &'s mut DecompressorOxide,
    dictionary: &'s mut [u8; TINFL_LZ_DICT_SIZE],
    /// Where in the dictionary the next byte goes.
    at: usize,
    /// The dictionary holds bytes of this member alone.
    full: bool,
    step: Step,
    /// Parts of the header that are to come.
    flags: u8,
    /// Bytes of the current step that have come, and the number that they make, lowest byte first.
    count: u32,
    number: u64,
    header: Crc,
    crc: Crc,
    /// Bytes unpacked, modulo 2^32.
    len: u32,
}

impl<'s> Gunzip<'s> {
    pub(super) fn new(space: &'s mut Space) -> Self {
        space.prepare();
        let Space { state, dictionary } = space;
        // A distance that reaches before the start is refused below; what an earlier image left is not there for it, either.
        dictionary.fill(0);
        let [state] = state.as_mut_slice() else { unreachable!("one was put there") };
        state.init();
        Self {
            state,
            dictionary,
            at: 0,
            full: false,
            step: Step::Fixed,
            flags: 0,
            count: 0,
            number: 0,
            header: Crc::default(),
            crc: Crc::default(),
            len: 0,
        }
    }

    /// Takes the next bytes of the member; `put` gets what they unpack to.
    pub(super) fn take(&mut self, mut piece: &[u8], put: &mut impl FnMut(&[u8]) -> Result<(), Why>) -> Result<(), Why> {
        while let Some((&byte, rest)) = piece.split_first() {
            piece = match self.step {
                Step::End => return Err(Why::Gzip("bytes follow its end")),
                Step::Deflate => self.inflate(piece, put)?,
                Step::Trailer => {
                    self.trailer(byte)?;
                    rest
                }
                _ => {
                    self.header(byte)?;
                    rest
                }
            };
        }
        Ok(())
    }

    /// Whether the member is complete.
    pub(super) fn finish(&self) -> Result<(), Why> {
        if self.step == Step::End { Ok(()) } else { Err(Why::Gzip("it is cut short")) }
    }

    /// Adds a byte to the number of the current step; returns how many it now has.
    fn collect(&mut self, byte: u8) -> u32 {
        self.number |= u64::from(byte) << (8 * self.count);
        self.count += 1;
        self.count
    }

    fn header(&mut self, byte: u8) -> Result<(), Why> {
        if self.step != Step::HeaderCrc {
            self.header.update(&[byte]);
        }
        match self.step {
            Step::Fixed => {
                self.count += 1;
                match (self.count, byte) {
                    (1, 0x1f) | (2, 0x8b) | (3, 8) | (5..=9, _) => {}
                    (1 | 2, _) => return Err(Why::Gzip("no gzip header")),
                    (3, _) => return Err(Why::Gzip("not deflated")),
                    (4, flags) if flags & RESERVED != 0 => return Err(Why::Gzip("unknown flags")),
                    (4, flags) => self.flags = flags,
                    _ => self.next(),
                }
            }
            Step::ExtraLen => {
                if self.collect(byte) == 2 {
                    match self.number as u16 {
                        0 => self.next(),
                        len => self.step = Step::Extra(len),
                    }
                }
            }
            Step::Extra(1) => self.next(),
            Step::Extra(left) => self.step = Step::Extra(left - 1),
            Step::Text if byte == 0 => self.next(),
            Step::HeaderCrc => {
                if self.collect(byte) == 2 {
                    if self.number as u16 != self.header.clone().finish() as u16 {
                        return Err(Why::Gzip("its header does not match its CRC"));
                    }
                    self.next();
                }
            }
            Step::Text | Step::Deflate | Step::Trailer | Step::End => {}
        }
        Ok(())
    }

    /// The next part of the header, or what it is the header of.
    fn next(&mut self) {
        let fields = [(FEXTRA, Step::ExtraLen), (FNAME, Step::Text), (FCOMMENT, Step::Text), (FHCRC, Step::HeaderCrc)];
        let next = fields.into_iter().find(|(flag, _)| self.flags & flag != 0);
        let (flag, step) = next.unwrap_or((0, Step::Deflate));
        self.flags &= !flag;
        (self.step, self.count, self.number) = (step, 0, 0);
    }

    /// Unpacks; returns what is left of `piece` when the deflated part ends in it.
    fn inflate<'p>(
        &mut self,
        mut piece: &'p [u8],
        put: &mut impl FnMut(&[u8]) -> Result<(), Why>,
    ) -> Result<&'p [u8], Why> {
        loop {
            // A dictionary that has not gone round is a buffer with a beginning, before which no distance may reach
            // (RFC 1951 §3.2.5).
            let start = if self.full { 0 } else { inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF };
            let flags = inflate_flags::TINFL_FLAG_HAS_MORE_INPUT | start;
            let (status, used, made) = decompress(self.state, piece, self.dictionary, self.at, flags);
            piece = piece.get(used..).unwrap_or(&[]);
            let out = self.dictionary.get(self.at..self.at + made).unwrap_or(&[]);
            self.crc.update(out);
            self.len = self.len.wrapping_add(out.len() as u32);
            put(out)?;
            self.full |= self.at + made == TINFL_LZ_DICT_SIZE;
            self.at = (self.at + made) % TINFL_LZ_DICT_SIZE;
            match status {
                TINFLStatus::HasMoreOutput if used + made > 0 => {}
                TINFLStatus::NeedsMoreInput if piece.is_empty() => return Ok(piece),
                TINFLStatus::Done => {
                    (self.step, self.count, self.number) = (Step::Trailer, 0, 0);
                    return Ok(piece);
                }
                _ => return Err(Why::Gzip("it cannot be unpacked")),
            }
        }
    }

    fn trailer(&mut self, byte: u8) -> Result<(), Why> {
        if self.collect(byte) < 8 {
            return Ok(());
        }
        self.step = Step::End;
        match (self.number as u32, (self.number >> 32) as u32) {
            (crc, _) if crc != self.crc.clone().finish() => Err(Why::Gzip("what it unpacks to does not match its CRC")),
            (_, len) if len != self.len => Err(Why::Gzip("what it unpacks to does not match its length")),
            _ => Ok(()),
        }
    }
}
