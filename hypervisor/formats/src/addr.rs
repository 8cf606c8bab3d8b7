//! Address newtypes that do not mix, and [`Span`], a range of one address space that cannot wrap around.
//!
//! A true-physical address is what the SoC's interconnect sees (36 bits on e500mc, e500mc RM §2.1);
//! a guest-physical address is what a partition believes to be physical. Confusing the two is the
//! classic error of a partitioning hypervisor, so the compiler refuses it.

use core::fmt;

/// An address space whose addresses are 64-bit integers.
pub trait Address: Copy + Ord + fmt::Debug + fmt::Display {
    /// The address as an integer.
    fn get(self) -> u64;
    /// The address with this integer value.
    fn new(value: u64) -> Self;
}

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[cfg_attr(feature = "manifest", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
        pub struct $name(pub u64);

        impl Address for $name {
            fn get(self) -> u64 {
                self.0
            }
            fn new(value: u64) -> Self {
                Self(value)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&Hex(self.0), f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), Hex(self.0))
            }
        }
    };
}

address!(
    /// A true-physical address: what the memory controller and the local access windows see.
    TruePhys
);
address!(
    /// A guest-physical address: what one partition's software takes for physical.
    GuestPhys
);
address!(
    /// A byte offset from the start of a flash bank.
    FlashOff
);

/// A 64-bit number in hexadecimal as the manuals of 36-bit parts write it: `0x78020000`, `0xf_e8020000`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hex(pub u64);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (high, low) = (self.0 >> 32, self.0 & 0xffff_ffff);
        if high == 0 { write!(f, "{low:#x}") } else { write!(f, "{high:#x}_{low:08x}") }
    }
}

/// A number of bytes for people: `4 KiB`, `1.4 MiB`, `1 GiB`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u32, &str); 3] = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
        for (shift, unit) in UNITS {
            let one = 1u64 << shift;
            if self.0 >= one {
                return if self.0.is_multiple_of(one) {
                    write!(f, "{} {unit}", self.0 >> shift)
                } else {
                    // One decimal, rounded down: a size is never shown larger than it is.
                    let tenths = (self.0 >> (shift - 10)) * 10 / 1024;
                    write!(f, "{}.{} {unit}", tenths / 10, tenths % 10)
                };
            }
        }
        write!(f, "{} bytes", self.0)
    }
}

/// A non-wrapping range of addresses: `base .. base + len`, where the end is at most 2^64 - 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span<A> {
    base: A,
    len: u64,
}

/// The end of a range would lie beyond the address space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WrapsAround;

impl fmt::Display for WrapsAround {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the range wraps around the end of the address space")
    }
}

impl<A: Address> Span<A> {
    /// The range of `len` bytes from `base`.
    ///
    /// # Errors
    /// [`WrapsAround`] when `base + len` does not fit 64 bits.
    pub fn new(base: A, len: u64) -> Result<Self, WrapsAround> {
        base.get().checked_add(len).ok_or(WrapsAround)?;
        Ok(Self { base, len })
    }

    /// The range between two addresses; empty when `end <= base`.
    pub fn between(base: A, end: A) -> Self {
        let len = end.get().saturating_sub(base.get());
        Self { base, len }
    }

    /// First address.
    pub fn base(&self) -> A {
        self.base
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the range holds no byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// First address behind the range.
    pub fn end(&self) -> A {
        A::new(self.base.get() + self.len)
    }

    /// Whether `addr` lies in the range.
    pub fn contains(&self, addr: A) -> bool {
        self.base <= addr && addr < self.end()
    }

    /// Whether every byte of `other` lies in this range. An empty range lies in any that reaches its base.
    pub fn covers(&self, other: &Self) -> bool {
        self.base <= other.base && other.end() <= self.end()
    }

    /// The bytes that both ranges hold, if there are any.
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        let base = self.base.max(other.base);
        let end = self.end().min(other.end());
        (base < end).then(|| Self::between(base, end))
    }

    /// Whether both ranges hold a common byte.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.intersection(other).is_some()
    }

    /// Whether the length is a power of two and the base a multiple of it: what one TLB entry, one
    /// local access window and one phys-mem-area can map.
    pub fn is_naturally_aligned(&self) -> bool {
        self.len.is_power_of_two() && self.base.get().is_multiple_of(self.len)
    }
}

impl<A: Address> fmt::Display for Span<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.base, self.end())
    }
}

impl<A: Address> fmt::Debug for Span<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::format;

    #[test]
    fn addresses_read_like_the_manuals() {
        assert_eq!(format!("{}", TruePhys(0x7802_0000)), "0x78020000");
        assert_eq!(format!("{}", TruePhys(0xf_e802_0000)), "0xf_e8020000");
        assert_eq!(format!("{}", Size(0x700000)), "7 MiB");
        assert_eq!(format!("{}", Size(1_500_000)), "1.4 MiB");
        assert_eq!(format!("{}", Size(63)), "63 bytes");
    }

    #[test]
    fn a_span_that_wraps_is_refused() {
        assert_eq!(Span::new(TruePhys(u64::MAX), 1), Err(WrapsAround));
        assert!(Span::new(TruePhys(u64::MAX), 0).is_ok());
    }

    #[test]
    fn natural_alignment() {
        let span = |base, len| Span::new(TruePhys(base), len).unwrap();
        assert!(span(0x4000_0000, 0x2000_0000).is_naturally_aligned());
        assert!(!span(0x1000_0000, 0x2000_0000).is_naturally_aligned());
        assert!(!span(0, 0x600000).is_naturally_aligned());
        assert!(!span(0, 0).is_naturally_aligned());
    }

    proptest! {
        #[test]
        fn overlap_agrees_with_the_definition(a in 0u64..64, n in 0u64..64, b in 0u64..64, m in 0u64..64) {
            let x = Span::new(GuestPhys(a), n).unwrap();
            let y = Span::new(GuestPhys(b), m).unwrap();
            let common = (0..128).any(|i| x.contains(GuestPhys(i)) && y.contains(GuestPhys(i)));
            prop_assert_eq!(x.overlaps(&y), common);
            prop_assert_eq!(x.overlaps(&y), y.overlaps(&x));
        }
    }
}
