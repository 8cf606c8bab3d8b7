//! The overlap rules against a page map: random layouts in a small universe of 96 MiB, where every owner's
//! pages at every stage are one bit set, worked out from the plan without the rules' own model of claims.

mod common;
#[path = "../../../tests/figures.rs"]
mod figures;

use std::collections::{BTreeMap, BTreeSet};

use citrine_formats::addr::{Address as _, Span, TruePhys};
use citrine_formats::manifest::Role;
use citrine_planner::board::{LoaderMemory, Until};
use citrine_planner::diag::Severity;
use citrine_planner::image::ImageFacts;
use citrine_planner::place::place;
use citrine_planner::plan::{AreaOwner, LoadPlan};
use citrine_planner::rules::overlap::overlaps;
use citrine_planner::stages::claims;
use proptest::prelude::*;

/// One page of the map.
const PAGE: u64 = 1 << 20;
/// Pages in the universe.
const PAGES: u64 = 96;
/// Load, bootm, release, relocate, guest load, run.
const STAGES: usize = 6;

/// The pages of one owner: what it holds, and what it may grow into.
#[derive(Default, Clone, Copy)]
struct Held {
    bytes: [u128; STAGES],
    window: [u128; STAGES],
    kind: Kind,
}

#[derive(Default, Clone, Copy, PartialEq)]
enum Kind {
    #[default]
    Part,
    Loader,
    Area,
}

fn bits(base: u64, len: u64) -> u128 {
    (base / PAGE..(base + len) / PAGE).fold(0, |bits, page| bits | 1 << page)
}

fn at(stages: std::ops::RangeInclusive<usize>, pages: u128) -> [u128; STAGES] {
    std::array::from_fn(|stage| if stages.contains(&stage) { pages } else { 0 })
}

/// Who holds what, told anew from the boot sequence in docs/architecture.md.
fn page_map(plan: &LoadPlan) -> BTreeMap<String, Held> {
    let mut map = BTreeMap::new();
    for memory in &plan.board.uboot.memory {
        let last = if memory.until == Until::Jump { 1 } else { 2 };
        let bytes = at(0..=last, bits(memory.span.base().get(), memory.span.len()));
        map.insert(memory.name.clone(), Held { bytes, kind: Kind::Loader, ..Held::default() });
    }
    for part in &plan.parts {
        let last = match part.role {
            Role::Script => 0,
            Role::Hypervisor | Role::HardwareTree => 1,
            Role::Configuration => 4,
            _ => 5,
        };
        let (base, size) = (part.load.get(), plan.facts[&part.file].size);
        let bytes = at(0..=last, bits(base, size));
        let window = at(0..=last, bits(base, part.window.max(size)));
        map.insert(part.file.clone(), Held { bytes, window, kind: Kind::Part });
    }
    let mut fixed = |name: &str, bytes| map.insert(name.to_owned(), Held { bytes, ..Held::default() });
    fixed("the hypervisor before it has moved", at(1..=3, bits(0, 4 * PAGE)));
    let tree = plan.part(Role::HardwareTree).expect("every plan has one");
    let tree = plan.facts[&tree.file].size + plan.board.uboot.tree_pad;
    fixed("the hardware tree after `bootm` has moved it", at(1..=3, bits(64 * PAGE - tree, tree)));
    for area in &plan.areas {
        let (name, first) = match area.owner {
            AreaOwner::Hypervisor => ("the hypervisor's memory".to_owned(), 3),
            AreaOwner::Partition(index) => (format!("the memory of {}", plan.partitions[index].name), 4),
            AreaOwner::Shared(index) => (format!("the shared area {}", plan.profile.shared[index].name), 4),
        };
        let bytes = at(first..=5, bits(area.span.base().get(), area.span.len()));
        map.insert(name, Held { bytes, kind: Kind::Area, ..Held::default() });
    }
    map
}

/// The pairs of owners that meet, and how gravely.
fn expected(plan: &LoadPlan) -> BTreeMap<BTreeSet<String>, Severity> {
    let map = page_map(plan);
    let mut pairs = BTreeMap::new();
    for (a_name, a) in &map {
        for (b_name, b) in map.range::<String, _>((std::ops::Bound::Excluded(a_name), std::ops::Bound::Unbounded)) {
            if a.kind == b.kind && a.kind != Kind::Part {
                continue;
            }
            let meet = |x: &[u128; STAGES], y: &[u128; STAGES]| (0..STAGES).any(|stage| x[stage] & y[stage] != 0);
            let severity = if meet(&a.bytes, &b.bytes) {
                Severity::Error
            } else if meet(&a.window, &b.bytes) || meet(&a.bytes, &b.window) || meet(&a.window, &b.window) {
                Severity::Warning
            } else {
                continue;
            };
            pairs.insert(BTreeSet::from([a_name.clone(), b_name.clone()]), severity);
        }
    }
    pairs
}

/// The good plan, with `numbers` deciding where everything lies.
fn layout(good: &LoadPlan, numbers: &[(u64, u64, u64)]) -> LoadPlan {
    let mut plan = good.clone();
    let mut next = numbers.iter().copied().cycle();
    let mut number = || next.next().expect("a cycle has no end");
    plan.board.uboot.tree_pad = PAGE;
    plan.board.uboot.memory = [("code", Until::Jump), ("spin page", Until::Release)]
        .map(|(name, until)| {
            let (base, len, _) = number();
            let span = Span::new(TruePhys(base * PAGE), (1 + len % 8) * PAGE).expect("small numbers");
            LoaderMemory { name: name.to_owned(), span, until }
        })
        .to_vec();
    for part in &mut plan.parts {
        let (base, size, window) = number();
        part.load = TruePhys(base * PAGE);
        part.window = (window % 16) * PAGE;
        plan.facts.insert(part.file.clone(), ImageFacts::plain((1 + size % 4) * PAGE));
    }
    for area in &mut plan.areas {
        let (base, len, _) = number();
        area.span = Span::new(TruePhys(base * PAGE), (1 + len % 16) * PAGE).expect("small numbers");
    }
    plan
}

#[test]
fn overlaps_agree_with_the_page_map() {
    let good = place(&common::board("p4080ds"), &common::profile("two-linux"), &common::artifacts());
    let good = good.unwrap_or_else(|found| panic!("{found:#?}"));
    let count = good.board.uboot.memory.len() + good.parts.len() + good.areas.len();
    let numbers = proptest::collection::vec((0..PAGES - 24, any::<u64>(), any::<u64>()), count);
    // A million takes minutes: for the long proofs.
    let cases = if std::env::var_os("CITRINE_FULL").is_some() { 1_000_000 } else { 10_000 };
    let mut seen = [0; 3];
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(cases));
    let seen_by_cases = std::cell::RefCell::new(&mut seen);
    runner
        .run(&numbers, |numbers| {
            let plan = layout(&good, &numbers);
            let found: BTreeMap<BTreeSet<String>, Severity> = overlaps(&claims(&plan))
                .into_iter()
                .map(|d| (BTreeSet::from([d.facts["first"].clone(), d.facts["second"].clone()]), d.severity))
                .collect();
            let expected = expected(&plan);
            let mut seen = seen_by_cases.borrow_mut();
            for severity in expected.values() {
                seen[*severity as usize] += 1;
            }
            prop_assert_eq!(found, expected);
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
    assert!(seen[1] > 1000 && seen[2] > 1000, "the layouts were too tame to prove anything: {seen:?}");
    figures::figure(&format!("layouts that agree with the page map: {cases} of {cases}"));
}
