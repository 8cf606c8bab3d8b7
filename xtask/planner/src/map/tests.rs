//! The memory map against the plan: everything once, nothing else, and what every headroom means.

use std::collections::BTreeMap;
use std::path::Path;

use citrine_formats::manifest::Role;
use proptest::prelude::*;

use super::*;
use crate::image::ImageFacts;
use crate::input;
use crate::place::{Artifacts, place};

/// What a shipped board and a profile's text give, with images of these sizes.
pub(super) fn plan_of(board: &str, profile: &str, kernel: Option<ImageFacts>) -> LoadPlan {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = std::fs::read_to_string(root.join(format!("boards/{board}.toml"))).unwrap();
    let board = input::board::parse("board.toml", &text).0.unwrap();
    let (profile, found) = input::profile::parse("profile.toml", profile);
    let rootfs = kernel.as_ref().map(|_| ImageFacts::plain(754_480));
    let artifacts =
        Artifacts::from([("linux".to_owned(), (Role::Kernel, kernel)), ("busybox".to_owned(), (Role::Rootfs, rootfs))]);
    place(&board, &profile.unwrap_or_else(|| panic!("{found:#?}")), &artifacts).unwrap_or_else(|d| panic!("{d:#?}"))
}

/// The text of the shipped profile with two Linux partitions.
pub(super) fn two_linux() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::fs::read_to_string(root.join("profiles/two-linux.toml")).unwrap()
}

/// A kernel as it is built.
pub(super) fn kernel() -> Option<ImageFacts> {
    Some(ImageFacts { size: 2_188_342, unpacked: 4_697_900, memory: None })
}

/// A plan, right or wrong: the good one with `numbers` deciding where everything lies and how large it is.
pub(super) fn shaken(numbers: &[(u64, u64)]) -> LoadPlan {
    const PAGE: u64 = 1 << 20;
    let mut plan = plan_of("p4080ds", &two_linux(), kernel());
    let mut next = numbers.iter().copied().cycle();
    let mut number = || next.next().unwrap();
    let span = |(base, len): (u64, u64)| Span::new(TruePhys(base % 4200 * PAGE), (1 + len % 900) * PAGE).unwrap();
    for memory in &mut plan.board.uboot.memory {
        memory.span = span(number());
    }
    for part in &mut plan.parts {
        let (at, sizes) = (span(number()), number());
        (part.load, part.window) = (at.base(), at.len());
        if sizes.0 % 3 > 0 {
            plan.facts.insert(part.file.clone(), ImageFacts::plain(sizes.1 % (2 * at.len())));
        } else {
            plan.facts.remove(&part.file);
        }
    }
    for area in &mut plan.areas {
        area.span = span(number());
    }
    for partition in &mut plan.partitions {
        partition.kernel.guest = GuestPhys(number().0 % 1200 * PAGE);
        partition.dtb = Span::new(GuestPhys(number().0 % 1200 * PAGE), number().1 % (4 * PAGE)).unwrap();
    }
    plan
}

/// Numbers for [`shaken`].
pub(super) fn numbers() -> impl Strategy<Value = Vec<(u64, u64)>> {
    proptest::collection::vec((any::<u64>(), any::<u64>()), 30)
}

fn grows(map: &MemoryMap<'_>, name: &str) -> String {
    map.regions.iter().find(|region| region.name == name).unwrap().may_grow().unwrap()
}

#[test]
fn headroom_is_what_lies_before_the_neighbour() {
    let plan = plan_of("p4080ds", &two_linux(), kernel());
    let map = MemoryMap::of(&plan);
    assert_eq!(grows(&map, "kernel.uImage"), "may grow 4.7 MiB before it reaches hv.uImage");
    assert_eq!(headroom(&map, "kernel.uImage"), Some(grows(&map, "kernel.uImage")));
    assert_eq!(grows(&map, "rootfs.uImage"), "may grow 44.2 MiB before it reaches the end of the image area");
    assert_eq!(grows(&map, "hv.uImage"), "may have 1 MiB before it reaches p4080ds.dtb");
    assert_eq!(headroom(&map, "hv.uImage"), None);
    let inside: Vec<String> = map.guests[1].iter().filter_map(|seen| seen.region.may_grow()).collect();
    let expected = [
        "may grow 11.5 MiB before it reaches the guest tree's window",
        "may grow 492.2 MiB before it reaches the end of its memory",
    ];
    assert_eq!(inside, expected);
    let first = map.guests[0].iter().find(|seen| seen.region.name == "the root file system").unwrap();
    assert_eq!(
        first.region.may_grow().unwrap(),
        "may grow 748.2 MiB before it reaches 768 MiB, where Linux's reach ends"
    );
    assert_eq!(first.at, Some(TruePhys(0x130_0000)));
}

#[test]
fn a_declared_window_and_a_partition_limit_it_too() {
    let declared =
        two_linux().replace(r#"kernel = { image = "linux" }"#, r#"kernel = { image = "linux", window = "4 MiB" }"#);
    let plan = plan_of("p4080ds", &declared, kernel());
    assert_eq!(
        grows(&MemoryMap::of(&plan), "kernel.uImage"),
        "may grow 1.9 MiB before it reaches the end of its window"
    );
    // A window that was declared too large does not let it grow over its neighbour.
    let plan = plan_of("p4080ds", &declared.replace("4 MiB", "32 MiB"), kernel());
    assert_eq!(grows(&MemoryMap::of(&plan), "kernel.uImage"), "may grow 4.7 MiB before it reaches hv.uImage");
    let close = two_linux()
        .replace(r#"rootfs = { image = "busybox" }"#, "rootfs = { image = \"busybox\" }\ndtb-address = 0x30_0000");
    let plan = plan_of("p4080ds", &close, kernel());
    assert_eq!(
        grows(&MemoryMap::of(&plan), "kernel.uImage"),
        "may grow 934.9 KiB before it reaches the end of its room in p1"
    );
    let mut plan = plan_of("p4080ds", &two_linux(), kernel());
    plan.facts.insert("kernel.uImage".to_owned(), ImageFacts::plain(8 << 20));
    assert_eq!(grows(&MemoryMap::of(&plan), "kernel.uImage"), "may not grow: hv.uImage follows");
}

#[test]
fn an_overlap_is_a_conflict_at_the_stages_that_both_have() {
    let mut plan = plan_of("p4080ds", &two_linux(), kernel());
    assert_eq!(MemoryMap::of(&plan).conflicts(), []);
    plan.facts.insert("kernel.uImage".to_owned(), ImageFacts::plain(0x6e_1000));
    let map = MemoryMap::of(&plan);
    let [conflict] = <[Conflict; 1]>::try_from(map.conflicts()).unwrap();
    assert_eq!(
        (conflict.span.to_string().as_str(), conflict.stages),
        ("0x78700000..0x78701000", Stage::Load..=Stage::Bootm)
    );
    assert_eq!(conflict.regions.map(|index| map.regions[index].name.as_str()), ["kernel.uImage", "hv.uImage"]);
}

proptest! {
    #[test]
    fn everything_in_the_plan_is_there_once(numbers in numbers()) {
        let plan = shaken(&numbers);
        let map = MemoryMap::of(&plan);
        let mut wanted: BTreeMap<String, u32> = BTreeMap::new();
        let loader = plan.board.uboot.memory.iter().map(|memory| format!("{} {}", memory.name, memory.span));
        let parts = plan.parts.iter().map(|part| format!("{} {}", part.file, part.load));
        for thing in loader.chain(parts) {
            *wanted.entry(thing).or_default() += 1;
        }
        for area in &plan.areas {
            *wanted.entry(area.span.to_string()).or_default() += 1;
        }
        let mut found: BTreeMap<String, u32> = BTreeMap::new();
        for region in &map.regions {
            let thing = match region.kind {
                Kind::Loader => format!("{} {}", region.name, region.span),
                Kind::Part => format!("{} {}", region.name, region.span.base()),
                Kind::Area => region.span.to_string(),
                _ => continue,
            };
            *found.entry(thing).or_default() += 1;
        }
        prop_assert_eq!(found, wanted);
        prop_assert_eq!(map.regions.iter().filter(|region| region.kind == Kind::Copy).count(), 2);
        prop_assert!(map.regions.is_sorted_by_key(|region| region.span.base()));
        for (partition, seen) in plan.partitions.iter().zip(&map.guests) {
            let mapped = seen.iter().filter(|seen| seen.region.kind == Kind::Area).count();
            let inside = seen.iter().filter(|seen| seen.region.kind == Kind::Image).count();
            let trees = seen.iter().filter(|seen| seen.region.kind == Kind::Tree).count();
            prop_assert_eq!((mapped, inside, trees), (1 + partition.shared.len(), 2, 1));
        }
    }

    #[test]
    fn every_byte_of_memory_is_owned_kept_or_free(numbers in numbers(), probes in proptest::collection::vec(0u64..4 << 30, 40)) {
        let plan = shaken(&numbers);
        let map = MemoryMap::of(&plan);
        for stage in Stage::ALL {
            let gaps = map.gaps(&[stage]);
            prop_assert!(gaps.windows(2).all(|pair| pair[0].span.end() <= pair[1].span.base()));
            for probe in probes.iter().map(|probe| TruePhys(*probe)) {
                let there = map.regions.iter().filter(|region| region.is_at(&[stage]));
                let taken = there.clone().any(|region| region.span.contains(probe))
                    || there.clone().any(|region| region.room.as_ref().is_some_and(|room| room.span.contains(probe)));
                let gap = gaps.iter().find(|gap| gap.span.contains(probe));
                prop_assert_eq!(gap.is_some(), !taken, "{} {}", probe, stage);
                prop_assert!(gap.is_none_or(|gap| gap.reserved == plan.board.image_area.contains(probe)));
            }
        }
    }

    #[test]
    fn headroom_meets_no_neighbour(numbers in numbers()) {
        let plan = shaken(&numbers);
        let map = MemoryMap::of(&plan);
        for region in &map.regions {
            let Some(room) = &region.room else { continue };
            for other in map.regions.iter().filter(|other| other.span.base() > region.span.base()) {
                let both = region.stages.start().max(other.stages.start()) <= region.stages.end().min(other.stages.end());
                prop_assert!(!both || !room.span.overlaps(&other.span), "{} {}", region.name, other.name);
            }
        }
    }

    #[test]
    fn the_texts_say_the_same(numbers in numbers()) {
        let plan = shaken(&numbers);
        let map = MemoryMap::of(&plan);
        let (text, value) = (table::render(&map, &Stage::ALL), json::render(&map, &Stage::ALL));
        for region in &map.regions {
            let times = region.stages.clone();
            let times = Stage::ALL.iter().filter(|stage| times.contains(stage)).count();
            let named = |line: &&str| line.contains(&format!(" {}", region.name)) && line.contains(&region.span.base().to_string());
            prop_assert!(text.lines().filter(named).count() >= times, "{}\n{}", region.name, text);
        }
        prop_assert_eq!(value["regions"].as_array().map(Vec::len), Some(map.regions.len()));
    }
}
