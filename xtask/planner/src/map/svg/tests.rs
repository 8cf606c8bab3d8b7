//! The picture: no text on another, nothing outside, XML that every reader takes, and no plan that it cannot show.

use proptest::prelude::*;

use citrine_formats::manifest::Role;

use super::ink::Shape;
use super::*;
use crate::map::tests::{kernel, numbers, plan_of, shaken, two_linux};
use crate::place::{Second, place_in_flash};
use crate::plan::LoadPlan;

/// Panics when something stands on something else, or outside.
fn judge(plan: &LoadPlan, stages: &[Stage]) -> Picture {
    let map = MemoryMap::of(plan);
    let picture = picture(&map, stages);
    let texts: Vec<Frame> = picture.canvas.texts().copied().collect();
    for (at, a) in texts.iter().enumerate() {
        assert!(!texts[at + 1..].iter().any(|b| a.meets(b)), "two texts meet at {a:?}");
    }
    let inside = |x: i32, y: i32| (0..=picture.width).contains(&x) && (0..=picture.height).contains(&y);
    for shape in &picture.canvas.shapes {
        let corners = match shape {
            Shape::Box { frame, .. } | Shape::Text { frame, .. } => {
                vec![(frame.x, frame.y), (frame.x + frame.w, frame.y + frame.h)]
            }
            Shape::Line { points, .. } => points.clone(),
        };
        assert!(corners.iter().all(|(x, y)| inside(*x, *y)), "{shape:?} leaves the picture");
    }
    well_formed(&render(&map, stages));
    picture
}

/// As much of XML as the picture uses: elements that close each other, attributes in quotes, references.
fn well_formed(text: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = text;
    while let Some((before, tag)) = rest.split_once('<') {
        references(before);
        assert!(!before.contains(['>', '\0']) && (!open.is_empty() || before.trim().is_empty()), "{before}");
        let (tag, behind) = tag.split_once('>').expect("every tag ends");
        rest = behind;
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name));
            continue;
        }
        let (tag, closed) = tag.strip_suffix('/').map_or((tag, false), |tag| (tag, true));
        let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
        let quoted: Vec<&str> = attributes.split('"').collect();
        assert!(
            quoted.len() % 2 == 1 && quoted.iter().step_by(2).take(quoted.len() / 2).all(|key| key.ends_with('=')),
            "{tag}"
        );
        references(attributes);
        if !closed {
            open.push(name);
        }
    }
    assert!(open.is_empty() && rest.trim().is_empty());
    assert!(text.chars().all(|c| c == '\n' || (!c.is_control() && c != '\u{fffe}' && c != '\u{ffff}')));
}

fn references(text: &str) {
    for rest in text.split('&').skip(1) {
        let known = ["amp;", "lt;", "gt;", "quot;", "#39;"];
        assert!(known.iter().any(|name| rest.starts_with(name)), "&{rest}");
    }
}

fn texts(picture: &Picture) -> Vec<&str> {
    let text = |shape: &'_ Shape| matches!(shape, Shape::Text { .. });
    let shapes = picture.canvas.shapes.iter().filter(|shape| text(shape));
    shapes.filter_map(|shape| if let Shape::Text { text, .. } = shape { Some(text.as_str()) } else { None }).collect()
}

#[test]
fn everything_is_named() {
    let plan = plan_of("p4080ds", &two_linux(), kernel());
    let picture = judge(&plan, &Stage::ALL);
    let texts = texts(&picture);
    for wanted in [
        "memory of p1",
        "memory of p2",
        "shared area mailbox",
        "hypervisor's memory",
        "kernel.uImage",
        "rootfs.uImage",
        "hv.uImage",
        "p4080ds.dtb",
        "hv.dtb",
        "boot.scr",
        "hypervisor before it has moved",
        "NOR flash",
        "U-Boot's code, heap and stack",
        "U-Boot's spin page",
        "SoC's registers (CCSR)",
        "unpacked kernel",
        "may grow 4.7 MiB before it reaches hv.uImage",
        "0x78700000",
        "0xf_e8000000",
        "free: 2 GiB",
        "p2-linux",
    ] {
        assert!(texts.contains(&wanted), "{wanted} is missing: {texts:#?}");
    }
}

#[test]
fn what_lies_in_the_flash_is_named_and_the_bank_under_it_is_not() {
    let ram = plan_of("p4080ds", &two_linux(), kernel());
    let known = |image: &str| {
        [("linux", "kernel.uImage", Role::Kernel), ("busybox", "rootfs.uImage", Role::Rootfs)]
            .into_iter()
            .find(|(name, ..)| *name == image)
            .map(|(name, file, role)| (name.to_owned(), (role, ram.facts.get(file).cloned())))
    };
    let artifacts = ["linux", "busybox"].into_iter().filter_map(known).collect();
    let plan = place_in_flash(&ram.board, &ram.profile, &artifacts, &Second::new()).unwrap();
    let picture = judge(&plan, &Stage::ALL);
    let texts = texts(&picture);
    for wanted in ["kernel.uImage", "other slot of kernel.uImage", "boot-nor.scr"] {
        assert!(texts.contains(&wanted), "{wanted} is missing: {texts:#?}");
    }
    assert!(!texts.contains(&"NOR flash") && !texts.contains(&"128 MiB"), "{texts:#?}");
    assert!(texts.join(" ").contains("A restart reads the images there again"), "{texts:#?}");
}

#[test]
fn no_address_is_made_up() {
    let known = plan_of("p4080ds", &two_linux(), kernel());
    let unknown = plan_of("p4080ds", &two_linux(), None);
    let (known, unknown) = (judge(&known, &Stage::ALL), judge(&unknown, &Stage::ALL));
    let (known, unknown) = (texts(&known), texts(&unknown));
    let address = |text: &&&str| text.starts_with("0x");
    let made_up: Vec<_> = unknown.iter().filter(address).filter(|text| !known.contains(text)).collect();
    assert!(made_up.is_empty(), "{made_up:?}");
    assert!(known.contains(&"0x78236436") && !unknown.contains(&"0x78021000"));
}

#[test]
fn a_picture_of_the_loading_has_no_partitions_in_it() {
    let plan = plan_of("p4080ds", &two_linux(), kernel());
    let load = judge(&plan, &[Stage::Load]);
    let run = judge(&plan, &[Stage::Run, Stage::Load]);
    assert!(!texts(&load).iter().any(|text| text.contains("sees (guest-physical)")));
    assert!(texts(&run).contains(&"p2 sees (guest-physical)") && load.width < run.width);
    judge(&plan, &[]);
}

#[test]
fn no_name_is_syntax() {
    let mut plan = plan_of("p4080ds", &two_linux(), kernel());
    let names = ["<script>&\"'", "a\0b\u{1}]]>\u{ffff}", "&amp;", "--><!--"];
    plan.profile.title = names.concat();
    plan.board.title = "W".repeat(500);
    for (memory, name) in plan.board.uboot.memory.iter_mut().zip(names) {
        memory.name = name.to_owned();
    }
    for (partition, name) in plan.partitions.iter_mut().zip(names) {
        (partition.name, partition.label) = (name.to_owned(), name.repeat(40));
    }
    for part in &mut plan.parts {
        part.file = format!("{}<&\">", part.file);
    }
    judge(&plan, &Stage::ALL);
}

#[test]
fn the_smallest_and_the_largest_profile_have_a_picture() {
    let head = "name = \"x\"\ntitle = \"x\"\n[hypervisor]\nconsole = 0\n";
    let partition = |index: usize, more: &str| {
        format!(
            "[[partition]]\nname = \"partition-with-a-long-name-{index}\"\ncpus = \"{index}\"\nmemory = \"32 MiB\"\n\
             console = {index}\nkernel = {{ image = \"linux\" }}\n{more}"
        )
    };
    for count in [1, 24] {
        let all: String = (0..count).map(|index| partition(index, "rootfs = { image = \"busybox\" }\n")).collect();
        for facts in [None, kernel()] {
            judge(&plan_of("p4080ds", &format!("{head}{all}"), facts), &Stage::ALL);
        }
    }
    let top = partition(0, "memory-address = 0xf_fe00_0000\n");
    judge(&plan_of("p4080ds", &format!("{head}{top}"), kernel()), &Stage::ALL);
    let mut plan = plan_of("p4080ds", &format!("{head}{top}"), kernel());
    plan.areas[0].span = Span::new(TruePhys(u64::MAX - 1), 1).unwrap();
    plan.partitions[0].kernel.guest = GuestPhys(u64::MAX);
    plan.board.ram.clear();
    judge(&plan, &Stage::ALL);
}

#[test]
fn the_same_plan_gives_the_same_bytes() {
    let picture = || {
        let plan = plan_of("qemu-ppce500", &two_linux(), kernel());
        render(&MemoryMap::of(&plan), &Stage::ALL)
    };
    assert_eq!(picture(), picture());
}

proptest! {
    #[test]
    fn a_text_that_is_cut_fits(text in ".{0,60}", room in 0i32..400) {
        for font in [Font::Title, Font::Bold, Font::Plain, Font::Mono] {
            prop_assert!(font.width(&font.fit(&text, room)) <= room.max(0));
            prop_assert!(font.wrap(&text, room).iter().all(|line| font.width(line) <= room));
        }
    }
}

#[test]
fn every_plan_has_a_picture() {
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(300));
    let shown = proptest::sample::subsequence(Stage::ALL.to_vec(), 1..=6);
    runner
        .run(&(numbers(), shown), |(numbers, stages)| {
            judge(&shaken(&numbers), &stages);
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
}
