//! A million random layouts in a universe of 64 pages, each judged against a page map: for every stage and page the
//! owners that hold it, filled in page by page. No disagreement about who meets whom, when, where, and how gravely.

use std::collections::BTreeMap;

use citrine_formats::addr::{Span, TruePhys};

use super::conflicts;
use crate::diag::{Label, Severity};
use crate::stages::{Claim, ClaimKind, Stage, Subject};

const LAYOUTS: u32 = 1_000_000;
const PAGE: u64 = 4096;
const PAGES: u64 = 64;

/// SplitMix64: the same layouts in every run, so that what fails once fails again.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.0;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (number ^ (number >> 31)) % end
    }
}

/// Makes up to six owners of the claims that exist; a part may have a window besides its bytes.
fn layout(numbers: &mut Numbers, claims: &mut [Claim]) -> usize {
    let mut used = 0;
    for part in 0..2 + numbers.below(5) as usize {
        let subject = Subject::Part(part);
        let kind = [ClaimKind::Bytes, ClaimKind::Loader, ClaimKind::Area][numbers.below(3) as usize];
        let (first, last) = (numbers.below(6) as usize, numbers.below(6) as usize);
        let base = numbers.below(PAGES);
        let len = 1 + numbers.below(PAGES - base).min(numbers.below(24));
        let claim = &mut claims[used];
        claim.subject = subject;
        claim.kind = kind;
        claim.stages = Stage::ALL[first.min(last)]..=Stage::ALL[first.max(last)];
        claim.span = Span::new(TruePhys(base * PAGE), len * PAGE).expect("small numbers");
        used += 1;
        if kind == ClaimKind::Bytes && base + len < PAGES && numbers.below(2) == 0 {
            let window = len + 1 + numbers.below(PAGES - base - len);
            claims[used].subject = subject;
            claims[used].kind = ClaimKind::Window;
            claims[used].stages = claims[used - 1].stages.clone();
            claims[used].span = Span::new(TruePhys(base * PAGE), window * PAGE).expect("small numbers");
            used += 1;
        }
    }
    used
}

/// One bit for each page of a span.
fn pages(span: &Span<TruePhys>) -> u64 {
    (0..PAGES).filter(|page| span.contains(TruePhys(page * PAGE))).fold(0, |pages, page| pages | 1 << page)
}

/// What two owners do to each other: how gravely, from which stage on, on which pages.
type Meeting = (Severity, usize, u64);

/// What the page map says of every two owners.
fn expected(claims: &[Claim]) -> BTreeMap<(Subject, Subject), Meeting> {
    let maps: Vec<[u64; 6]> = claims
        .iter()
        .map(|claim| {
            let held = pages(&claim.span);
            Stage::ALL.map(|stage| if claim.stages.contains(&stage) { held } else { 0 })
        })
        .collect();
    let mut meetings: BTreeMap<(Subject, Subject), Meeting> = BTreeMap::new();
    for (a, a_map) in claims.iter().zip(&maps) {
        for (b, b_map) in claims.iter().zip(&maps).filter(|(b, _)| a.subject < b.subject) {
            if a.kind == b.kind && matches!(a.kind, ClaimKind::Area | ClaimKind::Loader) {
                continue;
            }
            let Some(stage) = (0..6).find(|&stage| a_map[stage] & b_map[stage] != 0) else { continue };
            let grown = a.kind == ClaimKind::Window || b.kind == ClaimKind::Window;
            let severity = if grown { Severity::Warning } else { Severity::Error };
            let meeting = meetings.entry((a.subject, b.subject)).or_insert((severity, stage, 0));
            match meeting.0.cmp(&severity) {
                std::cmp::Ordering::Less => *meeting = (severity, stage, a_map[stage] & b_map[stage]),
                std::cmp::Ordering::Equal if meeting.2 == 0 => meeting.2 = a_map[stage] & b_map[stage],
                _ => {}
            }
        }
    }
    meetings
}

#[test]
fn a_million_layouts_agree_with_the_page_map() {
    let claim = Claim {
        owner: String::new(),
        subject: Subject::Part(0),
        span: Span::between(TruePhys(0), TruePhys(0)),
        stages: Stage::Load..=Stage::Load,
        kind: ClaimKind::Bytes,
        label: Label::file("x", ""),
    };
    let mut claims = vec![claim; 12];
    let mut numbers = Numbers(0);
    let mut seen = [0_u32; 3];
    for number in 0..LAYOUTS {
        let used = layout(&mut numbers, &mut claims);
        let claims = &claims[..used];
        let found: BTreeMap<(Subject, Subject), Meeting> = conflicts(claims)
            .iter()
            .map(|conflict| {
                let owners = (conflict.mover.subject, conflict.other.subject);
                let owners = (owners.0.min(owners.1), owners.0.max(owners.1));
                (owners, (conflict.severity(), conflict.stage as usize, pages(&conflict.common)))
            })
            .collect();
        let expected = expected(claims);
        assert_eq!(found, expected, "layout {number}: {claims:#?}");
        seen[if expected.is_empty() { 0 } else { 1 }] += 1;
        seen[2] += expected.values().filter(|meeting| meeting.0 == Severity::Warning).count() as u32;
    }
    assert!(seen.iter().all(|&count| count > LAYOUTS / 10), "the layouts were too tame to prove anything: {seen:?}");
}
