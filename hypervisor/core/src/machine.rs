//! What a configuration is checked against: the CPUs and the RAM of one machine.

use core::fmt;

use arrayvec::ArrayVec;
use citrine_formats::addr::{Span, TruePhys};

/// CPUs that the hypervisor can count: numbers 0 to 31.
pub const MAX_CPUS: u32 = 32;

/// The parts of a machine that partitions divide among themselves.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Machine {
    /// The CPUs it has.
    pub cpus: CpuSet,
    /// Its RAM.
    pub ram: ArrayVec<Span<TruePhys>, 8>,
}

/// A set of CPU numbers below [`MAX_CPUS`], shown as `0-6,8`.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct CpuSet(u32);

impl CpuSet {
    /// No CPU.
    pub const EMPTY: Self = Self(0);

    /// The CPUs 0 to `count` - 1; all, if `count` is larger than [`MAX_CPUS`].
    pub fn first(count: u32) -> Self {
        (0..count.min(MAX_CPUS)).collect()
    }

    /// Adds a CPU; false when the number is too large.
    pub fn insert(&mut self, cpu: u32) -> bool {
        let bit = 1u32.checked_shl(cpu);
        self.0 |= bit.unwrap_or(0);
        bit.is_some()
    }

    /// Whether the CPU is in the set.
    pub fn contains(self, cpu: u32) -> bool {
        self.0 & 1u32.checked_shl(cpu).unwrap_or(0) != 0
    }

    /// How many CPUs.
    pub fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The CPUs of this set that `other` has not.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The CPUs of both sets.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The numbers, in rising order.
    pub fn iter(self) -> impl Iterator<Item = u32> {
        (0..MAX_CPUS).filter(move |cpu| self.contains(*cpu))
    }
}

impl FromIterator<u32> for CpuSet {
    /// Numbers that are too large are left out.
    fn from_iter<T: IntoIterator<Item = u32>>(cpus: T) -> Self {
        let mut set = Self::EMPTY;
        for cpu in cpus {
            set.insert(cpu);
        }
        set
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        let mut comma = "";
        let mut cpu = 0;
        while cpu < MAX_CPUS {
            if !self.contains(cpu) {
                cpu += 1;
                continue;
            }
            let first = cpu;
            while self.contains(cpu) {
                cpu += 1;
            }
            match cpu - first {
                1 => write!(f, "{comma}{first}")?,
                _ => write!(f, "{comma}{first}-{}", cpu - 1)?,
            }
            comma = ",";
        }
        Ok(())
    }
}

impl fmt::Debug for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::format;

    #[test]
    fn a_set_reads_as_ranges() {
        let set = |cpus: &[u32]| format!("{}", cpus.iter().copied().collect::<CpuSet>());
        assert_eq!(set(&[]), "none");
        assert_eq!(set(&[3]), "3");
        assert_eq!(set(&[0, 1, 2, 5, 7, 6, 31]), "0-2,5-7,31");
        assert_eq!(format!("{}", CpuSet::first(99)), "0-31");
    }

    #[test]
    fn a_number_that_is_too_large_is_refused() {
        let mut set = CpuSet::EMPTY;
        assert!(set.insert(31) && !set.insert(32) && !set.insert(u32::MAX));
        assert!(set.contains(31) && !set.contains(32) && set.len() == 1);
    }
}
