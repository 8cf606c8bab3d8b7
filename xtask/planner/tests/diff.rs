//! What is compared says what was changed: of any one change to a profile exactly that, and of none nothing.

mod common;

use std::collections::BTreeSet;

use citrine_formats::addr::{GuestPhys, TruePhys};
use citrine_planner::diff::{Change, Difference, Kind, System, What, compare, profile, text};
use citrine_planner::place::place;
use citrine_planner::profile::{Channel, DeviceUse, Dma, DmaWindow, Firmware, Profile, SharedArea};
use citrine_planner::units::CpuChoice;
use proptest::prelude::*;

fn device(name: &str) -> DeviceUse {
    DeviceUse { device: name.to_owned(), node: None, msi: None, dma: None, dts: String::new() }
}

/// A device that no edit takes away.
fn pci(profile: &mut Profile) -> &mut DeviceUse {
    let devices = &mut profile.partitions[0].devices;
    devices.iter_mut().find(|device| device.device == "pci0").expect("nobody has taken it away")
}

/// The shipped profile with one of everything that it lacks.
fn rich() -> Profile {
    let mut profile = common::profile("two-linux");
    profile.unused_cpus = vec![3];
    profile.dts = "a = <1>;".to_owned();
    profile.names.insert("/p1".to_owned(), "part1".to_owned());
    profile.hypervisor.devices = vec![device("serial2")];
    profile.channels.push(Channel { name: "link".to_owned(), partitions: ["p1".to_owned(), "p2".to_owned()] });
    let [first, second] = profile.partitions.as_mut_slice() else { panic!("two partitions") };
    first.devices = vec![device("serial1"), DeviceUse { node: Some("pci".to_owned()), ..device("pci0") }];
    first.optional_devices = vec![device("usb0")];
    first.portal_devices = vec![device("fman0")];
    first.qman_portals = vec![0, 1];
    first.data_path.bpids = vec![(32, 47)];
    first.dts = "no-dma-disable;".to_owned();
    first.dma = Some(Dma::Memory);
    first.manages = vec!["p2".to_owned()];
    second.memory_address = Some(TruePhys(0x2000_0000));
    second.kernel.load = Some(TruePhys(0x7b00_0000));
    profile
}

/// A change to a profile with a number in it, and what must be said of it.
type Edit = (Kind, &'static str, What, fn(&mut Profile, u64));

const EDITS: &[Edit] = &[
    (Kind::System, "", What::Named, |p, n| p.name = format!("other-{n}")),
    (Kind::System, "", What::Named, |p, n| p.title = format!("Title {n}")),
    (Kind::System, "", What::Named, |p, n| p.unused_cpus = vec![4 + (n % 3) as u32]),
    (Kind::Hypervisor, "", What::Console, |p, n| p.hypervisor.console = 3 + (n % 9) as u32),
    (Kind::Hypervisor, "", What::Bootargs, |p, n| p.hypervisor.bootargs = format!("x={n}")),
    (Kind::Hypervisor, "", What::Memory, |p, n| p.hypervisor.memory = Some((1 + n % 64) << 20)),
    (Kind::Hypervisor, "", What::MemoryAddress, |p, n| p.hypervisor.memory_address = Some(TruePhys(n % 99))),
    (Kind::Partition, "p1", What::Label, |p, n| p.partitions[0].label = format!("label-{n}")),
    (Kind::Partition, "p1", What::Cpus, |p, n| p.partitions[0].cpus = CpuChoice::First(1 + (n % 9) as u32)),
    (Kind::Partition, "p2", What::Cpus, |p, n| p.partitions[1].cpus = CpuChoice::These([n as u32 % 24].into())),
    (Kind::Partition, "p1", What::Memory, |p, n| p.partitions[0].memory = (n % 512 + 1) << 20),
    (Kind::Partition, "p1", What::MemoryAddress, |p, n| p.partitions[0].memory_address = Some(TruePhys(n))),
    (Kind::Partition, "p2", What::MemoryAddress, |p, _| p.partitions[1].memory_address = None),
    (Kind::Partition, "p2", What::Console, |p, n| p.partitions[1].console = 5 + n as u32 % 9),
    (Kind::Partition, "p2", What::Bootargs, |p, n| p.partitions[1].bootargs = format!("root={n}")),
    (Kind::Partition, "p2", What::Bootargs, |p, _| p.partitions[1].bootargs.clear()),
    (Kind::Partition, "p1", What::Image, |p, n| p.partitions[0].kernel.image = format!("linux-{n}")),
    (Kind::Partition, "p1", What::ImageLoad, |p, n| p.partitions[0].kernel.load = Some(TruePhys(n))),
    (Kind::Partition, "p2", What::ImageLoad, |p, _| p.partitions[1].kernel.load = None),
    (Kind::Partition, "p1", What::ImageWindow, |p, n| p.partitions[0].kernel.window = Some(n)),
    (Kind::Partition, "p1", What::ImageGuest, |p, n| p.partitions[0].kernel.guest_address = GuestPhys(n | 1)),
    (Kind::Partition, "p2", What::Image, |p, _| p.partitions[1].rootfs = None),
    (Kind::Partition, "p1", What::Tree, |p, n| p.partitions[0].dtb_address = GuestPhys(n | 1)),
    (Kind::Partition, "p1", What::Tree, |p, n| p.partitions[0].dtb_size = 1 + n % 0x1000),
    (Kind::System, "", What::Dts, |p, n| p.dts = format!("a = <{n}>;")),
    (Kind::System, "", What::Named, |p, n| drop(p.names.insert("/p1".to_owned(), format!("part{n}")))),
    (Kind::System, "", What::Named, |p, _| p.names.clear()),
    (Kind::Hypervisor, "", What::Named, |p, _| p.hypervisor.firmware = Firmware::Freescale),
    (Kind::Hypervisor, "", What::Device, |p, n| p.hypervisor.devices.push(device(&format!("device{n}")))),
    (Kind::Partition, "p1", What::Dts, |p, n| p.partitions[0].dts = format!("a {{\n}};\nb = <{n}>;")),
    (Kind::Partition, "p1", What::Device, |p, n| p.partitions[0].devices.push(device(&format!("device{n}")))),
    (Kind::Partition, "p1", What::Device, |p, _| p.partitions[0].devices.retain(|d| d.device != "serial1")),
    (Kind::Partition, "p1", What::Device, |p, _| p.partitions[0].optional_devices.clear()),
    (Kind::Partition, "p1", What::DeviceHow, |p, n| pci(p).node = Some(format!("n{n}"))),
    (Kind::Partition, "p1", What::DeviceHow, |p, n| pci(p).msi = Some(format!("msi{n}"))),
    (Kind::Partition, "p1", What::DeviceHow, |p, n| pci(p).dts = format!("a = <{n}>;")),
    (Kind::Partition, "p1", What::DeviceHow, |p, _| pci(p).dma = Some(false)),
    (Kind::Partition, "p1", What::PortalDevice, |p, _| p.partitions[0].portal_devices.clear()),
    (Kind::Partition, "p1", What::PortalDevice, |p, n| {
        p.partitions[0].portal_devices.iter_mut().for_each(|d| d.node = Some(format!("n{n}")))
    }),
    (Kind::Partition, "p1", What::Numbers, |p, n| p.partitions[0].qman_portals.push(2 + n as u32 % 9)),
    (Kind::Partition, "p1", What::Numbers, |p, n| p.partitions[0].data_path.bpids = vec![(n as u32 % 9, 9)]),
    (Kind::Partition, "p2", What::Dma, |p, n| {
        let reach = vec!["memory".to_owned(), "msi".to_owned()];
        p.partitions[1].dma = Some(Dma::Window(DmaWindow { size: n | 1, subwindows: 4, reach }));
    }),
    (Kind::Partition, "p1", What::Dma, |p, _| p.partitions[0].dma = None),
    (Kind::Partition, "p1", What::FastTraps, |p, _| p.partitions[0].fast_traps = false),
    (Kind::Partition, "p1", What::Manages, |p, _| p.partitions[0].manages.clear()),
    (Kind::Partition, "p2", What::Manages, |p, _| p.partitions[1].manages.push("p1".to_owned())),
    (Kind::Area, "mailbox", What::Memory, |p, n| p.shared[0].size = (2 + n % 64) << 20),
    (Kind::Area, "mailbox", What::MemoryAddress, |p, n| p.shared[0].address = Some(TruePhys(n))),
    (Kind::Area, "mailbox", What::GuestAddress, |p, n| p.shared[0].guest_address = GuestPhys(n | 1)),
    (Kind::Area, "mailbox", What::Partitions, |p, n| drop(p.shared[0].partitions.remove(n as usize % 2))),
];

/// What a difference is about; for a thing that only one has, there is no single fact.
fn subject(difference: &Difference) -> (Kind, &str, Option<What>) {
    let what = match &difference.change {
        Change::Fact { key, .. } => Some(key.0),
        Change::New(_) | Change::Gone(_) => None,
    };
    (difference.kind, &difference.name, what)
}

/// The same difference, told from the other side.
fn mirrored(difference: &Difference) -> Difference {
    let change = match difference.change.clone() {
        Change::New(facts) => Change::Gone(facts),
        Change::Gone(facts) => Change::New(facts),
        Change::Fact { key, before, after } => Change::Fact { key, before: after, after: before },
    };
    Difference { change, ..difference.clone() }
}

fn mirrors(a: &System, b: &System) {
    let there: Vec<Difference> = compare(a, b).iter().map(mirrored).collect();
    assert_eq!(there, compare(b, a));
    assert_eq!((compare(a, a), compare(b, b)), (Vec::new(), Vec::new()));
}

#[test]
fn exactly_what_was_changed_is_named() {
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(50));
    let before = profile::describe(&rich());
    for (index, (kind, name, what, edit)) in EDITS.iter().enumerate() {
        runner
            .run(&any::<u64>(), |number| {
                let mut edited = rich();
                edit(&mut edited, number >> 8);
                let after = profile::describe(&edited);
                let found = compare(&before, &after);
                let subjects: Vec<_> = found.iter().map(subject).collect();
                prop_assert_eq!(subjects, [(*kind, *name, Some(*what))], "edit {}", index);
                mirrors(&before, &after);
                prop_assert!(!text::line(&found[0]).is_empty());
                Ok(())
            })
            .unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn no_fact_of_a_profile_is_without_its_edit() {
    let said: BTreeSet<(Kind, What)> = profile::describe(&rich())
        .things
        .iter()
        .flat_map(|((kind, _), thing)| thing.facts.keys().map(|(what, _)| (*kind, *what)))
        .collect();
    let edited: BTreeSet<(Kind, What)> = EDITS.iter().map(|(kind, _, what, _)| (*kind, *what)).collect();
    // A channel is nothing but its two ends: with others it is another one.
    let left: Vec<_> = said.difference(&edited).filter(|(kind, _)| *kind != Kind::Channel).collect();
    assert_eq!(left, Vec::<&(Kind, What)>::new());
}

#[test]
fn new_and_lost_things_are_told_whole() {
    let before = rich();
    let mut after = rich();
    let mut third = after.partitions[1].clone();
    third.name = "p3".to_owned();
    after.partitions.push(third);
    after.channels.clear();
    after.shared.push(SharedArea { name: "log".to_owned(), partitions: Vec::new(), ..after.shared[0].clone() });
    let (before, after) = (profile::describe(&before), profile::describe(&after));
    let found = compare(&before, &after);
    let subjects: Vec<_> = found.iter().map(subject).collect();
    assert_eq!(subjects, [(Kind::Partition, "p3", None), (Kind::Area, "log", None), (Kind::Channel, "link", None)],);
    assert!(text::line(&found[0]).starts_with("new partition p3: label p2-linux, CPUs last, memory 512 MiB, "));
    assert_eq!(text::line(&found[2]), "channel link is gone");
    mirrors(&before, &after);
}

#[test]
fn a_placed_profile_is_the_profile_with_everything_decided() {
    for name in common::profiles() {
        let profile = common::profile(name);
        let plan = place(&common::board("p4080ds"), &profile, &common::all_artifacts());
        let plan = plan.unwrap_or_else(|found| panic!("{found:?}"));
        let (alone, placed) = (profile::describe(&profile), profile::placed(&plan));
        let only_board: Vec<String> = compare(&alone, &placed).iter().map(text::line).collect();
        assert_eq!(only_board, Vec::<String>::new(), "{name}");
        mirrors(&alone, &placed);
        let facts = || placed.things.values().flat_map(|thing| thing.facts.values());
        assert!(facts().count() > 10 && facts().all(|value| !value.to_string().contains("automatic")), "{placed:#?}");
    }
}

proptest! {
    #[test]
    fn two_profiles_of_many_edits_mirror_each_other(edits in proptest::collection::vec((0..EDITS.len(), any::<u64>(), any::<bool>()), 0..8)) {
        let (mut a, mut b) = (rich(), rich());
        // Each edit once: some take away what others change.
        let mut seen = BTreeSet::new();
        for (index, number, first) in edits.into_iter().filter(|(index, ..)| seen.insert(*index)) {
            let target = if first { &mut a } else { &mut b };
            if EDITS[index].2 != What::Partitions {
                EDITS[index].3(target, number >> 8);
            }
        }
        mirrors(&profile::describe(&a), &profile::describe(&b));
    }
}
