//! The RAM image: every part at its slot in one flat file, which one `tftp` brings to where it belongs.

use citrine_formats::addr::{Span, TruePhys};
use citrine_formats::manifest::{Manifest, Media};

use super::Content;
use crate::board::Board;
use crate::diag::{Code, Diagnostic, Result};

/// The parts make no RAM image.
pub const NO_RAM_IMAGE: Code = Code::new('O', 104);

/// A part in RAM: its name, its address, and its bytes in pieces that follow each other.
pub type Placed<'a> = (&'a str, TruePhys, Vec<&'a [u8]>);

/// A flat copy of a board's image area, from its base to the last used byte.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RamImage<'a> {
    /// Address of its first byte.
    pub base: TruePhys,
    /// By offset; none overlaps another.
    pieces: Vec<(u64, &'a [u8])>,
    len: u64,
}

/// What comes next in an image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Segment<'a> {
    /// So many zeros, which nobody owns.
    Gap(u64),
    /// Bytes of a part.
    Bytes(&'a [u8]),
}

impl<'a> RamImage<'a> {
    /// The image of `parts` over the image area of `board`.
    ///
    /// # Errors
    /// [`NO_RAM_IMAGE`] when a part lies outside the area or meets another one, or when the image would go over memory
    /// that the boot loader still needs.
    pub fn of(board: &Board, mut parts: Vec<Placed<'a>>) -> Result<Self> {
        let area = board.image_area;
        parts.sort_by_key(|(_, load, _)| *load);
        let (mut pieces, mut end, mut before) = (Vec::new(), area.base().0, "");
        for (name, load, bytes) in parts {
            let len = bytes.iter().map(|piece| piece.len() as u64).sum();
            if len == 0 {
                continue;
            }
            let span = Span::new(load, len).ok().filter(|span| area.covers(span));
            let Some(span) = span else {
                return Err(refused(format!("{name} at {load} lies outside the board's image area, {area}")));
            };
            if load.0 < end {
                return Err(refused(format!("{name} at {load} begins before {before} ends, at {end:#x}")));
            }
            let mut offset = load.0 - area.base().0;
            for piece in bytes.into_iter().filter(|piece| !piece.is_empty()) {
                pieces.push((offset, piece));
                offset += piece.len() as u64;
            }
            (end, before) = (span.end().0, name);
        }
        let whole = Span::between(area.base(), TruePhys(end));
        if let Some(loader) = board.uboot.memory.iter().find(|memory| memory.span.overlaps(&whole)) {
            return Err(refused(format!("it would go over {}, {}", loader.name, loader.span)));
        }
        Ok(Self { base: area.base(), pieces, len: whole.len() })
    }

    /// The image of a bundle whose parts have these bytes, in the manifest's order.
    ///
    /// # Errors
    /// As [`RamImage::of`].
    pub fn of_bundle(board: &Board, manifest: &'a Manifest, contents: &'a [Content<'_>]) -> Result<Self> {
        let parts = manifest.parts.iter().zip(contents).filter_map(|(part, content)| {
            let slot = part.slots.iter().find(|slot| slot.media == Media::Ram)?;
            Some((part.name.as_str(), slot.load, content.pieces().to_vec()))
        });
        Self::of(board, parts.collect())
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Parts and gaps from the first byte to the last.
    pub fn segments(&self) -> impl Iterator<Item = Segment<'a>> {
        let mut at = 0;
        self.pieces.iter().flat_map(move |&(offset, bytes)| {
            let gap = offset - at;
            at = offset + bytes.len() as u64;
            (gap > 0).then_some(Segment::Gap(gap)).into_iter().chain([Segment::Bytes(bytes)])
        })
    }
}

fn refused(why: String) -> Box<Diagnostic> {
    Diagnostic::error(NO_RAM_IMAGE, format!("there is no RAM image: {why}"))
        .help("the bundle itself is whole: load its parts one by one, as its boot script does; or move the part into the image area")
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input;
    use proptest::prelude::*;

    const BASE: u64 = 0x7800_0000;

    fn board() -> Board {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../boards/p4080ds.toml");
        input::board::parse("board.toml", &std::fs::read_to_string(path).unwrap()).0.unwrap()
    }

    fn bytes(image: &RamImage<'_>) -> Vec<u8> {
        let pieces = image.segments().map(|segment| match segment {
            Segment::Gap(len) => vec![0; usize::try_from(len).unwrap()],
            Segment::Bytes(bytes) => bytes.to_vec(),
        });
        pieces.collect::<Vec<_>>().concat()
    }

    fn refusal(board: &Board, parts: Vec<Placed<'_>>) -> String {
        let error = RamImage::of(board, parts).unwrap_err();
        assert_eq!(error.code, NO_RAM_IMAGE);
        error.message
    }

    #[test]
    fn parts_lie_at_their_slots_with_zeros_between() {
        let parts: Vec<Placed<'_>> = vec![
            ("b", TruePhys(BASE + 8), vec![b"head", b"", b"body"]),
            ("a", TruePhys(BASE + 2), vec![b"abc"]),
            ("empty", TruePhys(BASE + 600), vec![b""]),
        ];
        let image = RamImage::of(&board(), parts).unwrap();
        assert_eq!((image.base, image.len()), (TruePhys(BASE), 16));
        assert_eq!(bytes(&image), b"\0\0abc\0\0\0headbody");
    }

    #[test]
    fn what_would_go_wrong_in_memory_is_refused() {
        let board = board();
        for (name, load) in [("below", BASE - 1), ("behind", BASE + (64 << 20)), ("across", BASE + (64 << 20) - 1)] {
            let said = refusal(&board, vec![(name, TruePhys(load), vec![b"ab"])]);
            assert!(said.contains(&format!("{name} at ")) && said.contains("outside"), "{said}");
        }
        assert!(refusal(&board, vec![("x", TruePhys(u64::MAX), vec![b"ab"])]).contains("outside"));
        let meet: Vec<Placed<'_>> = vec![("a", TruePhys(BASE), vec![b"ab"]), ("b", TruePhys(BASE + 1), vec![b"c"])];
        assert!(refusal(&board, meet).contains("b at 0x78000001 begins before a ends, at 0x78000002"));

        let mut crowded = board;
        crowded.uboot.memory[0].span = Span::new(TruePhys(BASE + 0x1000), 1).unwrap();
        let behind = |load: u64| vec![("x", TruePhys(load), vec![&b"ab"[..]])];
        assert!(refusal(&crowded, behind(BASE + 0x2000)).contains("U-Boot's code"));
        assert!(RamImage::of(&crowded, behind(BASE + 0xffe)).is_ok());
    }

    proptest! {
        /// Whatever the parts are: an image holds each of them at its offset, and nothing else but zeros.
        #[test]
        fn every_part_is_where_its_address_says(
            parts in proptest::collection::vec((0u64..4096, proptest::collection::vec(1u8.., 0..64)), 0..8)
        ) {
            let placed = parts.iter().map(|(at, body)| ("part", TruePhys(BASE + at), vec![body.as_slice()])).collect();
            let full = parts.iter().filter(|(_, body)| !body.is_empty());
            let mut order: Vec<_> = full.map(|(at, body)| (*at, at + body.len() as u64)).collect();
            order.sort_unstable();
            match RamImage::of(&board(), placed) {
                Ok(image) => {
                    let bytes = bytes(&image);
                    prop_assert_eq!(bytes.len() as u64, image.len());
                    prop_assert_eq!(image.len(), order.iter().map(|(_, end)| *end).max().unwrap_or(0));
                    for (at, body) in parts.iter().filter(|(_, body)| !body.is_empty()) {
                        let at = usize::try_from(*at).unwrap();
                        prop_assert_eq!(&bytes[at..at + body.len()], &body[..]);
                    }
                    let owned: usize = parts.iter().map(|(_, body)| body.len()).sum();
                    prop_assert_eq!(bytes.iter().filter(|byte| **byte != 0).count(), owned);
                }
                Err(_) => prop_assert!(order.windows(2).any(|two| two[0].1 > two[1].0)),
            }
        }
    }
}
