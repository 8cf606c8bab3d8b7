//! [`Axis`]: from true-physical addresses to pixels, the same for every column of the picture.
//!
//! Every address at which something begins or ends starts a row. Rows are high enough for a line of text, so that
//! labels never meet, and grow with their size up to a limit, beyond which they are cut.

use std::collections::BTreeSet;

/// Least height of a row: one line of text.
pub const LINE: i32 = 17;
/// Pixels of a MiB, as far as rows are to scale.
const MIB: i64 = 2;
/// Rows of more bytes than this are cut.
const CUT: u64 = 24 << 20;

/// The bytes between two neighbouring addresses at which anything begins or ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    /// First address.
    pub base: u64,
    /// First address behind it.
    pub end: u64,
    /// Upper edge in pixels.
    pub y: i32,
    /// Height in pixels.
    pub h: i32,
    /// Whether it is too large to be shown in whole.
    pub is_cut: bool,
}

/// The rows of the picture, by address.
#[derive(Clone, Debug)]
pub struct Axis {
    /// The rows.
    pub rows: Vec<Row>,
    top: i32,
}

impl Axis {
    /// An axis from the pixel `top` downwards that has a row for every two neighbours of `edges`. Rows whose size
    /// nobody cares for, by their first address, are low.
    pub fn new(edges: &BTreeSet<u64>, top: i32, is_low: impl Fn(u64) -> bool) -> Self {
        let mut y = top;
        let mut rows = Vec::new();
        for (&base, &end) in edges.iter().zip(edges.iter().skip(1)) {
            let h = if is_low(base) { height(end - base).min(2 * LINE) } else { height(end - base) };
            rows.push(Row { base, end, y, h, is_cut: end - base > CUT });
            y += h;
        }
        Self { rows, top }
    }

    /// The pixel at which `address` is; within a row, the row's upper edge.
    pub fn y(&self, address: u64) -> i32 {
        let row = self.rows.get(self.rows.partition_point(|row| row.end <= address));
        row.map_or(self.bottom(), |row| row.y)
    }

    /// The pixel below the last row.
    pub fn bottom(&self) -> i32 {
        self.rows.last().map_or(self.top, |row| row.y + row.h)
    }
}

/// Height of a row of `len` bytes: never less for more bytes.
fn height(len: u64) -> i32 {
    let to_scale = |len: u64| i64::try_from(len >> 10).unwrap_or(i64::MAX >> 2) * MIB / 1024;
    let pixels = if len <= CUT {
        to_scale(len)
    } else {
        // Eight pixels for every doubling; between two powers of two along a straight line.
        let doublings = |len: u64| {
            let power = len.ilog2();
            let rest = ((len - (1 << power)) >> power.saturating_sub(6)).min(63);
            i64::from(power) * 8 + i64::try_from(rest).unwrap_or(0) / 8
        };
        to_scale(CUT) + doublings(len) - doublings(CUT)
    };
    i32::try_from(pixels).unwrap_or(LINE).max(LINE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn more_bytes_are_never_shown_smaller(a in 1u64..1 << 36, b in 1u64..1 << 36) {
            let (less, more) = (a.min(b), a.max(b));
            prop_assert!(height(less) <= height(more));
            prop_assert!((LINE..300).contains(&height(more)));
        }

        #[test]
        fn addresses_are_in_order(edges in proptest::collection::btree_set(0u64..1 << 37, 2..60)) {
            let axis = Axis::new(&edges, 100, |base| base % 2 == 0);
            let ys: Vec<i32> = edges.iter().map(|edge| axis.y(*edge)).collect();
            prop_assert!(ys.windows(2).all(|pair| pair[1] - pair[0] >= LINE));
            prop_assert_eq!((ys[0], *ys.last().unwrap()), (100, axis.bottom()));
        }
    }
}
