//! The flash as a model: power is cut after every step and in the middle of every sector, and what the board would
//! start then is worked out as U-Boot does it.

use citrine_formats::manifest::Role;
use citrine_formats::uimage::Image;
use proptest::prelude::*;

use super::*;
use crate::board::{Reserved, Slots};
use crate::pack::{image, sha256};

const SECTOR: u64 = 0x100;
const SECOND: u64 = 0x4_0000;
const BASE: u64 = 0xf_0000_0000;

/// The roles with their names and slots in the first set.
const PARTS: [(&str, Role, u64); 6] = [
    ("kernel", Role::Kernel, 0x200),
    ("hv", Role::Hypervisor, 0x1_0000),
    ("tree", Role::HardwareTree, 0x1_8000),
    ("hv-nor.dtb", Role::Configuration, 0x1_9000),
    ("boot-nor.scr", Role::Script, 0x1_a000),
    ("rootfs", Role::Rootfs, 0x2_0000),
];

fn nor() -> (Nor, NorSlots) {
    let at = |offset: u64| TruePhys(BASE + offset);
    let [kernel, hypervisor, hardware_tree, configuration, script, rootfs] = PARTS.map(|(.., offset)| at(offset));
    let first = Slots { kernel, hypervisor, hardware_tree, configuration, script, rootfs };
    let slots = NorSlots { first, area: Span::between(at(0x200), at(SECOND)), second: SECOND };
    let nor = Nor {
        span: Span::between(at(0), at(2 * SECOND + 0x400)),
        window: 0xe000_0000,
        sector: SECTOR,
        reserved: vec![Reserved { name: "others".to_owned(), span: Span::between(at(0), at(0x200)) }],
        slots: Some(slots.clone()),
    };
    (nor, slots)
}

/// A bundle in the flash: its parts, each with its bytes.
#[derive(Clone, Debug)]
struct System(Vec<(Placed, Vec<u8>)>);

impl System {
    /// A system with this many bytes of this content per part, next to an installed one.
    fn beside(old: &Self, payload: &[(u8, u64)]) -> Result<Self, Box<Diagnostic>> {
        let (nor, slots) = nor();
        let installed = old.parts();
        let mut system = Self(Vec::new());
        let mut addresses = String::new();
        let order = [0, 1, 2, 5, 3, 4].map(|index| (index, PARTS[index]));
        for (index, (name, role, offset)) in order {
            let bytes = match role {
                // As the tool's: the tree names the images' addresses, the script all.
                Role::Configuration => addresses.clone().into_bytes(),
                Role::Script => image::script("x", 0, &addresses).unwrap().pieces().concat(),
                _ => vec![payload[index].0; payload[index].1 as usize],
            };
            let mut placed = Placed {
                name: name.to_owned(),
                role,
                at: TruePhys(BASE + offset),
                size: bytes.len() as u64,
                sha256: sha256(&bytes),
                crc32: Some(crc32([&bytes, &[]])),
            };
            if is_in_second(&nor, &slots, &installed, &placed)? {
                placed.at = TruePhys(placed.at.0 + SECOND);
            }
            addresses.push_str(&format!("{name} {} {}\n", placed.at, placed.sha256));
            system.0.push((placed, bytes));
        }
        Ok(system)
    }

    fn parts(&self) -> Vec<Placed> {
        self.0.iter().map(|(placed, _)| placed.clone()).collect()
    }

    fn bytes(&self, name: &str) -> &[u8] {
        &self.0.iter().find(|(placed, _)| placed.name == name).unwrap().1
    }

    /// Whether all of it is in the flash.
    fn is_in(&self, flash: &Flash) -> bool {
        self.0.iter().all(|(placed, bytes)| flash.at(placed.at, bytes.len()) == bytes)
    }
}

#[derive(Clone)]
struct Flash(Vec<u8>);

impl Flash {
    fn erased() -> Self {
        Self(vec![0xff; (2 * SECOND + 0x400) as usize])
    }

    fn at(&self, at: TruePhys, len: usize) -> &[u8] {
        &self.0[(at.0 - BASE) as usize..][..len]
    }

    /// The script that U-Boot finds: the first one whose checksums hold.
    fn script(&self) -> Option<&[u8]> {
        let slots = [0, SECOND].map(|set| TruePhys(BASE + PARTS[4].2 + set));
        slots.into_iter().find_map(|slot| {
            let bytes = self.at(slot, 0x4000);
            let len = 64 + u32::from_be_bytes(bytes[12..16].try_into().unwrap()) as usize;
            Image::verify(bytes.get(..len)?).is_ok().then(|| &bytes[..len])
        })
    }

    /// Which of the systems the board starts, with every part that it needs.
    fn starts(&self, systems: &[&System]) -> Option<usize> {
        let script = self.script()?;
        let index = systems.iter().position(|system| system.bytes("boot-nor.scr") == script)?;
        systems[index].is_in(self).then_some(index)
    }

    /// Does a step, but for the last `left` of its changes: a byte is erased or written by each.
    fn step(&mut self, plan: &FlashPlan, new: &System, step: &Step, mut changes: usize) {
        let start = (step.sectors.base().0 - BASE) as usize;
        for byte in &mut self.0[start..start + step.sectors.len() as usize] {
            if changes == 0 {
                return;
            }
            *byte = 0xff;
            changes -= 1;
        }
        let Action::Write { part, from, len } = step.action else { return };
        let bytes = &new.bytes(&plan.parts[part].name)[from as usize..][..len as usize];
        for (at, byte) in bytes.iter().enumerate().take(changes) {
            self.0[start + at] &= byte;
        }
    }
}

fn plan(old: &System, new: &System) -> FlashPlan {
    let (nor, slots) = nor();
    FlashPlan::of(&nor, &slots, &old.parts(), new.parts())
}

/// Cuts power after `changes` of every step, in turn; the next run of the plan does all of it again.
fn survives(flash: &mut Flash, old: &System, new: &System, changes: &[usize]) {
    let (nor, _) = nor();
    let plan = plan(old, new);
    assert_eq!(flash.starts(&[old]), Some(0), "the old system starts before");
    for (number, step) in plan.steps.iter().enumerate() {
        assert!(nor.span.covers(&step.sectors) && !step.sectors.overlaps(&nor.reserved[0].span), "{step:?}");
        assert_eq!(step.sectors, nor.sectors(step.sectors), "whole sectors: {step:?}");
        assert!(step.sectors.len() <= STEP.max(SECTOR), "bounded: {step:?}");
        for cut in changes.iter().copied().chain([0, 1, SECTOR as usize]) {
            let mut torn = flash.clone();
            torn.step(&plan, new, step, cut);
            assert!(torn.starts(&[old, new]).is_some(), "cut after {cut} bytes of step {number}: {step:?}");
            // Run again from the beginning: it ends where an undisturbed run ends.
            for again in &plan.steps {
                torn.step(&plan, new, again, usize::MAX);
            }
            assert_eq!(torn.starts(&[new]), Some(0));
        }
        flash.step(&plan, new, step, usize::MAX);
        assert!(flash.starts(&[old, new]).is_some(), "after step {number}: {step:?}");
    }
    assert_eq!(flash.starts(&[new]), Some(0), "the new system starts after");
}

fn first(payload: &[(u8, u64)]) -> (Flash, System) {
    let system = System::beside(&System(Vec::new()), payload).unwrap();
    let mut flash = Flash::erased();
    let plan = plan(&System(Vec::new()), &system);
    for step in &plan.steps {
        assert_eq!(flash.starts(&[&system]), None, "the script is last");
        flash.step(&plan, &system, step, usize::MAX);
    }
    assert_eq!(flash.starts(&[&system]), Some(0));
    (flash, system)
}

const PAYLOAD: [(u8, u64); 6] = [(1, 5000), (2, 700), (3, 256), (0, 0), (0, 0), (4, 9000)];

/// A payload that differs in the parts that `changed` says.
fn changed(payload: &[(u8, u64)], changed: &[bool]) -> Vec<(u8, u64)> {
    let all = payload.iter().zip(changed);
    all.map(|((byte, len), changed)| if *changed { (byte.wrapping_add(16), *len) } else { (*byte, *len) }).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_power_cut_leaves_the_old_or_the_new_system(
        updates in proptest::collection::vec(proptest::collection::vec(any::<bool>(), 6), 1..5),
        cuts in proptest::collection::vec(0usize..12_000, 3),
    ) {
        let mut payload = PAYLOAD.to_vec();
        let (mut flash, mut old) = first(&payload);
        for update in updates {
            payload = changed(&payload, &update);
            let new = System::beside(&old, &payload).unwrap();
            survives(&mut flash, &old, &new, &cuts);
            old = new;
        }
    }
}

#[test]
fn every_byte_of_a_change_may_be_the_last() {
    let (mut flash, old) = first(&PAYLOAD);
    let new = System::beside(&old, &changed(&PAYLOAD, &[true, false, false, false, false, false])).unwrap();
    let all: Vec<usize> = (0..6000).step_by(7).collect();
    survives(&mut flash, &old, &new, &all);
    // And back: now the script goes from the second slot to the first.
    let third = System::beside(&new, &PAYLOAD).unwrap();
    survives(&mut flash, &new, &third, &all);
}

#[test]
fn what_does_not_change_is_not_touched() {
    let (_, old) = first(&PAYLOAD);
    let same = System::beside(&old, &PAYLOAD).unwrap();
    assert_eq!(same.parts(), old.parts());
    assert_eq!(plan(&old, &same).steps, []);

    let new = System::beside(&old, &changed(&PAYLOAD, &[false, false, false, false, false, true])).unwrap();
    let plan = plan(&old, &new);
    let touched: Vec<&str> = plan
        .steps
        .iter()
        .map(|step| match step.action {
            Action::Write { part, .. } => plan.parts[part].name.as_str(),
            Action::Erase => "erased",
        })
        .collect();
    assert_eq!(touched, ["rootfs", "hv-nor.dtb", "boot-nor.scr", "erased"]);
    let names: Vec<&str> = plan.kept.iter().map(|index| plan.parts[*index].name.as_str()).collect();
    assert_eq!(names, ["kernel", "hv", "tree"]);
}

#[test]
fn writing_in_place_would_be_noticed() {
    let (flash, old) = first(&PAYLOAD);
    let mut new = System::beside(&old, &changed(&PAYLOAD, &[true; 6])).unwrap();
    // A plan that writes the kernel over the one that is in use.
    new.0[0].0.at = old.0[0].0.at;
    let plan = plan(&old, &new);
    let mut torn = flash;
    torn.step(&plan, &new, &plan.steps[0], 10);
    assert_eq!(torn.starts(&[&old, &new]), None);
}

#[test]
fn a_part_between_two_others_has_no_free_slot() {
    let (nor, slots) = nor();
    let placed = |name: &str, at: u64, size: u64| Placed {
        name: name.to_owned(),
        role: Role::Kernel,
        at: TruePhys(BASE + at),
        size,
        sha256: sha256(name.as_bytes()),
        crc32: Some(0),
    };
    let wanted = placed("kernel", 0x200, 0x150);
    let second = |installed: &[Placed]| is_in_second(&nor, &slots, installed, &wanted);
    assert!(!second(&[]).unwrap());
    assert!(second(&[placed("a", 0x300, 1)]).unwrap(), "its second sector is another's");
    assert!(!second(&[placed("a", 0x400, 1), placed("b", 0x200 + SECOND, 1)]).unwrap());
    let error = second(&[placed("a", 0x200, 1), placed("b", 0x300 + SECOND, 1)]).unwrap_err();
    assert_eq!(error.code, NO_FREE_SLOT);
    assert!(error.help.unwrap().contains("a and b"));
}

#[test]
fn a_configuration_takes_its_signature_along() {
    let (nor, slots) = nor();
    let placed = |name: &str, at: u64, bytes: &[u8]| Placed {
        name: name.to_owned(),
        role: Role::Configuration,
        at: TruePhys(BASE + at),
        size: 0x50,
        sha256: sha256(bytes),
        crc32: None,
    };
    let (tree, blob) = (placed("hv.dtb", 0x200, b"tree"), placed("hv.dtb.sig", 0x400, b"blob"));
    let second = |installed: &[Placed]| are_in_second(&nor, &slots, installed, &tree, std::slice::from_ref(&blob));
    let here = |part: &Placed, second: u64| Placed { at: TruePhys(part.at.0 + second), ..part.clone() };
    assert!(!second(&[]).unwrap());
    assert!(
        !second(&[tree.clone(), blob.clone()]).unwrap() && second(&[here(&tree, SECOND), here(&blob, SECOND)]).unwrap()
    );
    // A tree that has no signature yet stays; one that another key has signed does not, whatever the tree.
    assert!(!second(std::slice::from_ref(&tree)).unwrap());
    let theirs = placed("hv.dtb.sig", 0x400, b"another key's");
    assert!(second(&[tree.clone(), theirs.clone()]).unwrap());
    assert!(second(std::slice::from_ref(&theirs)).unwrap(), "the tree's place alone is not enough");
    let error = second(&[theirs, placed("x", 0x200 + SECOND, b"x")]).unwrap_err();
    assert_eq!(error.code, NO_FREE_SLOT);
    assert!(error.help.unwrap().contains("hv.dtb.sig and x"));
}

#[test]
fn the_image_of_a_bank_is_erased_but_for_its_pieces() {
    let mut image = Vec::new();
    write_image(&mut image, 10, &mut [(6, [&[7], &[8]]), (1, [&[1, 2], &[]])]).unwrap();
    assert_eq!(image, [0xff, 1, 2, 0xff, 0xff, 0xff, 7, 8, 0xff, 0xff]);
    for wrong in [[(0, 3), (2, 1)], [(0, 1), (9, 2)]] {
        let bytes = [5; 4];
        let mut pieces = wrong.map(|(at, len)| (at, [&bytes[..len], &[][..]]));
        assert!(write_image(&mut Vec::new(), 10, &mut pieces).is_err(), "{wrong:?}");
    }
}
