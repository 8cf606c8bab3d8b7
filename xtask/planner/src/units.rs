//! The small notations inside values: sizes (`"16 MiB"`) and CPU sets (`"0-5"`, `"last 2"`, `"rest"`).

use std::collections::BTreeSet;
use std::fmt;

/// Highest CPU number that any configuration may name (Topaz `LIBOS_MAX_CPUS` is 24; QorIQ parts stay below).
pub const MAX_CPUS: u32 = 24;

/// Bytes of a size such as `"16 MiB"`; `None` when it is not one or does not fit 64 bits.
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let number: u64 = text[..digits].replace('_', "").parse().ok()?;
    let shift = match text[digits..].trim() {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

/// Which CPUs a partition asks for, before the board is known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CpuChoice {
    /// Every CPU that no other partition asks for.
    Rest,
    /// The first so many.
    First(u32),
    /// The last so many.
    Last(u32),
    /// Just these.
    These(BTreeSet<u32>),
}

impl CpuChoice {
    /// Parses `"rest"`, `"first N"`, `"last N"` (`N` is 1 when left out) or a list such as `"0-5,7"`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let (first, second, more) = (words.next()?, words.next(), words.next());
        if more.is_some() {
            return None;
        }
        let count = || match second {
            None => Some(1),
            Some(number) => number.parse().ok().filter(|n| (1..=MAX_CPUS).contains(n)),
        };
        match first {
            "rest" if second.is_none() => Some(Self::Rest),
            "first" => Some(Self::First(count()?)),
            "last" => Some(Self::Last(count()?)),
            _ if second.is_none() => parse_cpu_list(first).map(Self::These),
            _ => None,
        }
    }
}

impl fmt::Display for CpuChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rest => f.write_str("rest"),
            Self::First(1) => f.write_str("first"),
            Self::First(n) => write!(f, "first {n}"),
            Self::Last(1) => f.write_str("last"),
            Self::Last(n) => write!(f, "last {n}"),
            Self::These(cpus) => f.write_str(&cpu_list(cpus)),
        }
    }
}

/// Parses `"0-5,7"`; `None` for anything else, an empty or backward range, or a number beyond [`MAX_CPUS`].
pub fn parse_cpu_list(text: &str) -> Option<BTreeSet<u32>> {
    let mut cpus = BTreeSet::new();
    for item in text.split(',') {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last >= MAX_CPUS {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

/// The maximal runs of consecutive numbers, as `(first, count)`.
pub fn cpu_runs(cpus: &BTreeSet<u32>) -> Vec<(u32, u32)> {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for &cpu in cpus {
        match runs.last_mut() {
            Some((first, count)) if *first + *count == cpu => *count += 1,
            _ => runs.push((cpu, 1)),
        }
    }
    runs
}

/// A CPU set for people: `0-5,7`.
pub fn cpu_list(cpus: &BTreeSet<u32>) -> String {
    let runs: Vec<String> = cpu_runs(cpus)
        .into_iter()
        .map(|(first, count)| if count == 1 { first.to_string() } else { format!("{first}-{}", first + count - 1) })
        .collect();
    runs.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_size("16 MiB"), Some(16 << 20));
        assert_eq!(parse_size("1GiB"), Some(1 << 30));
        assert_eq!(parse_size("4096"), Some(4096));
        for bad in ["", "MiB", "16 MB", "-1", "1.5 GiB", "99999999999 GiB", "1 GiB x"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }

    #[test]
    fn cpu_choices() {
        assert_eq!(CpuChoice::parse("rest"), Some(CpuChoice::Rest));
        assert_eq!(CpuChoice::parse("last"), Some(CpuChoice::Last(1)));
        assert_eq!(CpuChoice::parse("first 2"), Some(CpuChoice::First(2)));
        assert_eq!(CpuChoice::parse("0-2,5"), Some(CpuChoice::These(BTreeSet::from([0, 1, 2, 5]))));
        for bad in ["", "rest 1", "last 0", "last 99", "3-1", "0-99", "a", "0,,1", "0 1", "first 1 2"] {
            assert_eq!(CpuChoice::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_cpu_list_reads_back(cpus in proptest::collection::btree_set(0u32..MAX_CPUS, 1..MAX_CPUS as usize)) {
            prop_assert_eq!(parse_cpu_list(&cpu_list(&cpus)), Some(cpus.clone()));
            let total: u32 = cpu_runs(&cpus).iter().map(|run| run.1).sum();
            prop_assert_eq!(total as usize, cpus.len());
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = (parse_size(&text), CpuChoice::parse(&text));
        }
    }
}
