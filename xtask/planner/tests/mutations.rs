//! Hostile input: whatever is done to the shipped files, the planner answers with diagnostics or a plan and
//! never panics; whatever rule a good layout is made to break, that rule speaks.

mod common;

use std::collections::BTreeSet;
use std::io::Write as _;

use citrine_core::capabilities::Capabilities;
use citrine_core::rules::TREE;
use citrine_formats::addr::{Address as _, GuestPhys, Span, TruePhys};
use citrine_formats::manifest::Role;
use citrine_formats::uimage::{Compression, Header, Kind};
use citrine_planner::board::{Board, Reserved};
use citrine_planner::diag::{Diagnostic, Severity, has_errors};
use citrine_planner::image::{ImageFacts, inspect};
use citrine_planner::inventory::Inventory;
use citrine_planner::map::{self, MemoryMap};
use citrine_planner::place::{Artifacts, Second, place, place_in_flash};
use citrine_planner::plan::LoadPlan;
use citrine_planner::profile::{DeviceUse, Dma, DmaWindow, Firmware, Profile, SharedArea};
use citrine_planner::render::own::SET_TWICE;
use citrine_planner::render::{Digests, Template, boot_cmd, hv_dts};
use citrine_planner::stages::Stage;
use citrine_planner::units::CpuChoice;
use citrine_planner::{input, rules};
use proptest::prelude::*;

/// Something that happens to a text.
#[derive(Clone, Debug)]
enum Damage {
    Flip(usize, u8),
    Cut(usize),
    Swap(usize, usize),
    Drop(usize),
    Repeat(usize),
    Number(usize, u64),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<usize>();
    prop_oneof![
        (at, any::<u8>()).prop_map(|(at, bits)| Damage::Flip(at, bits)),
        at.prop_map(Damage::Cut),
        (at, at).prop_map(|(a, b)| Damage::Swap(a, b)),
        at.prop_map(Damage::Drop),
        at.prop_map(Damage::Repeat),
        (at, any::<u64>()).prop_map(|(at, number)| Damage::Number(at, number >> (number % 64))),
    ]
}

fn damaged(text: &str, damage: &Damage) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    let count = lines.len().max(1);
    match *damage {
        Damage::Flip(at, bits) => {
            let mut bytes = text.as_bytes().to_vec();
            let at = at % bytes.len().max(1);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= bits;
            }
            return String::from_utf8_lossy(&bytes).into_owned();
        }
        Damage::Cut(at) => {
            let at = at % (text.len() + 1);
            return String::from_utf8_lossy(&text.as_bytes()[..at]).into_owned();
        }
        Damage::Number(at, number) => {
            // Another number in place of the value of one line: still TOML, most often.
            let line = lines.get(at % count).copied().unwrap_or_default();
            let Some((key, _)) = line.split_once('=') else { return text.to_owned() };
            let new = format!("{key}= {number}");
            return text.replacen(line, &new, 1);
        }
        Damage::Swap(a, b) if !lines.is_empty() => lines.swap(a % count, b % count),
        Damage::Drop(at) if !lines.is_empty() => drop(lines.remove(at % count)),
        Damage::Repeat(at) if !lines.is_empty() => {
            let at = at % count;
            lines.insert(at, lines[at]);
        }
        _ => {}
    }
    lines.join("\n")
}

/// What `check` accepts, the hypervisor accepts: without an error of the plan's rules, its own find none.
fn accepted_is_accepted(plan: &LoadPlan) -> Vec<Diagnostic> {
    let found = rules::check(plan);
    if !has_errors(&found) {
        let config = rules::hypervisor::config(plan);
        citrine_core::rules::check(&config, &rules::hypervisor::machine(&plan.board), &mut |finding| {
            assert!(finding.severity() < Severity::Error, "only the hypervisor objects: {finding}");
        });
    }
    found
}

/// The whole planner on the texts of a board, its inventory and a profile; how far it came.
fn run([board, devices, profile]: &[String; 3], templates: &(String, String)) -> &'static str {
    let (board, no_board) = input::board::parse("board.toml", board);
    let (profile, no_profile) = input::profile::parse("profile.toml", profile);
    assert!(board.is_some() || !no_board.is_empty(), "a board is refused without a word");
    assert!(profile.is_some() || !no_profile.is_empty(), "a profile is refused without a word");
    let (Some(mut board), Some(profile)) = (board, profile) else { return "refused" };
    let found = input::inventory::attach(&mut board, "devices.toml", devices);
    assert!(board.inventory.is_some() || !found.is_empty(), "an inventory is refused without a word");
    let mut plan = match place(&board, &profile, &common::all_artifacts()) {
        Ok(plan) => plan,
        Err(found) => {
            assert!(has_errors(&found));
            return "not placed";
        }
    };
    for hypervisor in [Capabilities::TOPAZ, Capabilities::CITRINE] {
        plan.hypervisor = hypervisor;
        accepted_is_accepted(&plan);
    }
    let map = MemoryMap::of(&plan);
    let _ = (
        map::table::render(&map, &Stage::ALL),
        map::json::render(&map, &Stage::ALL),
        map::svg::render(&map, &Stage::ALL),
    );
    let second = Second::from(["kernel.uImage".to_owned(), "boot-nor.scr".to_owned()]);
    if let Ok(in_flash) = place_in_flash(&board, &profile, &common::all_artifacts(), &second) {
        accepted_is_accepted(&in_flash);
        boot_cmd(&in_flash, &Template { file: "boot.cmd.j2", text: &templates.1 }).expect("the template is right");
    }
    if let Err(error) = hv_dts(&plan, &Digests::new(), &Template { file: "hv.dts.j2", text: &templates.0 }) {
        assert!([SET_TWICE, TREE].contains(&error.code), "the template is right: {error:?}");
    }
    boot_cmd(&plan, &Template { file: "boot.cmd.j2", text: &templates.1 }).expect("the template is right");
    "planned"
}

#[test]
fn no_damage_to_the_shipped_files_panics() {
    let boards = ["p4080ds", "qemu-ppce500"].map(|name| {
        [format!("boards/{name}.toml"), format!("boards/devices/{name}.toml")].map(|file| common::read(&file))
    });
    let profiles = common::profiles().map(|name| common::read(&format!("profiles/{name}.toml")));
    let templates = (common::read("templates/hv.dts.j2"), common::read("templates/boot.cmd.j2"));
    let seen = std::cell::RefCell::new(std::collections::BTreeMap::new());
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(3000));
    // The inventory is long, and a board without one is judged all the same: it gets the fewest.
    let target = prop_oneof![4 => Just(0usize), 1 => Just(1), 4 => Just(2)];
    let damages = proptest::collection::vec((target, damage()), 1..4);
    runner
        .run(&(0..boards.len(), 0..profiles.len(), damages), |(board, profile, damages)| {
            let [board, devices] = boards[board].clone();
            let mut texts = [board, devices, profiles[profile].clone()];
            for (target, damage) in &damages {
                texts[*target] = damaged(&texts[*target], damage);
            }
            *seen.borrow_mut().entry(run(&texts, &templates)).or_insert(0) += 1;
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
    let seen = seen.into_inner();
    assert!(seen["refused"] > 100 && seen["planned"] > 100, "too tame or too wild: {seen:?}");
}

proptest! {
    #[test]
    fn no_image_panics(at: usize, bits: u8, cut: usize, behind_the_crc: bool, role in 0usize..3) {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gzip.write_all(&b"kernel ".repeat(1000)).expect("a vector takes all");
        let mut payload = gzip.finish().expect("a vector takes all");
        let hit = |bytes: &mut Vec<u8>| {
            let at = at % bytes.len();
            bytes[at] ^= bits;
            bytes.truncate(1 + cut % (bytes.len() * 4));
        };
        // Either the CRCs notice, or the gzip stream itself is hostile.
        if behind_the_crc {
            hit(&mut payload);
        }
        let role = [Role::Kernel, Role::Rootfs, Role::Hypervisor][role];
        let kind = if role == Role::Rootfs { Kind::Ramdisk } else { Kind::Kernel };
        let header = Header::for_payload(kind, Compression::Gzip, "x", 0, &payload).expect("a small payload");
        let mut bytes = [&header.to_bytes()[..], &payload].concat();
        if !behind_the_crc {
            hit(&mut bytes);
        }
        if let Ok(facts) = inspect("x.uImage", role, &bytes) {
            prop_assert_eq!((facts.size, facts.unpacked), (bytes.len() as u64, 7000));
        }
    }
}

/// What a rule is given to break.
#[derive(Clone)]
struct System {
    board: Board,
    profile: Profile,
    artifacts: Artifacts,
    hypervisor: Capabilities,
    /// What is known of hv.uImage.
    image: Option<ImageFacts>,
}

impl System {
    fn good() -> Self {
        Self {
            board: common::board("p4080ds"),
            profile: common::profile("two-linux"),
            artifacts: common::artifacts(),
            hypervisor: Capabilities::CITRINE,
            image: None,
        }
    }

    /// Gives devices to both partitions, under a hypervisor that assigns them.
    fn devices(&mut self, first: &[&str], second: &[&str]) {
        self.hypervisor = Capabilities::TOPAZ;
        for (partition, devices) in self.profile.partitions.iter_mut().zip([first, second]) {
            partition.devices = devices.iter().map(|&device| plain(device)).collect();
        }
    }

    fn inventory(&mut self) -> &mut Inventory {
        self.board.inventory.as_mut().expect("a shipped board has one")
    }

    fn facts(&mut self, image: &str, size: u64, unpacked: u64) {
        let known = self.artifacts.get_mut(image).expect("a shipped image");
        known.1 = Some(ImageFacts { size, unpacked, memory: None });
    }

    fn says(&self, code: &str) -> bool {
        let placed = match code.starts_with('N') {
            true => place_in_flash(&self.board, &self.profile, &self.artifacts, &Second::new()),
            false => place(&self.board, &self.profile, &self.artifacts),
        };
        let found = match placed {
            Ok(mut plan) => {
                plan.hypervisor = self.hypervisor;
                plan.facts.extend(self.image.clone().map(|facts| ("hv.uImage".to_owned(), facts)));
                accepted_is_accepted(&plan)
            }
            Err(found) => found,
        };
        found.iter().any(|d| d.code.to_string() == code)
    }
}

/// A device of which no more is said.
fn plain(device: &str) -> DeviceUse {
    DeviceUse { device: device.to_owned(), node: None, msi: None, dma: None, dts: String::new() }
}

/// A way to break a rule, with a number that chooses among the ways.
type Break = fn(&mut System, u64);

/// An address in `span` of 4 KiB pages, from a number.
fn within(base: u64, len: u64, number: u64) -> TruePhys {
    TruePhys(base + number % (len / 4096) * 4096)
}

const BREAKS: &[(&str, Break)] = &[
    ("P101", |s, n| s.profile.partitions[1].cpus = CpuChoice::Last(9 + (n % 15) as u32)),
    ("P102", |s, n| {
        s.profile.partitions[0].cpus = CpuChoice::First(7);
        s.profile.unused_cpus = vec![(n % 7) as u32];
    }),
    ("P104", |s, n| {
        let other = ["", "console=ttyS0,115200 rw", "console=tty0"];
        s.profile.partitions[(n % 2) as usize].bootargs = other[(n % 3) as usize].to_owned();
    }),
    ("C105", |s, _| s.profile.partitions[1].label = s.profile.partitions[0].label.clone()),
    ("P103", |s, n| {
        let one = s.profile.shared[0].clone();
        let many = (0..16 + n % 50).map(|i| SharedArea {
            name: format!("s{i}"),
            guest_address: GuestPhys(0x8000_0000 + (i << 20)),
            ..one.clone()
        });
        s.profile.shared = many.collect();
    }),
    ("L102", |s, n| {
        // A window that reaches from outside into an area: the real bytes may fit.
        s.profile.partitions[0].kernel.load = Some(TruePhys(0x7eff_0000));
        s.profile.partitions[0].kernel.window = Some(0x1_0001 + n % 0x10_0000);
    }),
    ("H101", |s, n| {
        s.profile.partitions[0].cpus = CpuChoice::First(7);
        s.profile.partitions[1].cpus = CpuChoice::These([7, (n % 7) as u32].into());
    }),
    ("H102", |s, n| s.profile.partitions[1].cpus = CpuChoice::These([7, 8 + (n % 16) as u32].into())),
    ("H103", |s, n| s.profile.partitions[0].cpus = CpuChoice::First(1 + (n % 6) as u32)),
    ("H104", |s, n| s.profile.partitions[1].memory = (64 << 20) + 4096 * (1 + n % 0x3fff)),
    ("H105", |s, n| s.profile.partitions[1].memory_address = Some(TruePhys((512 << 20) + 4096 * (1 + n % 0x1_ffff)))),
    ("H106", |s, n| {
        s.profile.partitions[0].memory_address = Some(TruePhys(0));
        s.profile.partitions[1].memory_address = Some(TruePhys((n % 2) << 29));
    }),
    ("H107", |s, n| s.profile.partitions[1].memory_address = Some(TruePhys((4 << 30) + ((n % 64) << 29)))),
    ("H109", |s, n| s.profile.shared[0].guest_address = GuestPhys((n % 512) << 20)),
    ("H110", |s, n| s.profile.shared[0].guest_address = GuestPhys(0x8000_0000 + 4096 * (1 + n % 255))),
    ("H111", |s, n| s.profile.partitions[0].console = if n.is_multiple_of(2) { 0 } else { 2 }),
    ("H112", |s, n| s.profile.partitions[0].console = 32 + (n % 224) as u32),
    ("H113", |s, n| s.profile.partitions[1].dtb_address = GuestPhys((512 << 20) - 4096 * (n % 64))),
    ("H114", |s, n| {
        let image = s.profile.partitions[1].rootfs.as_mut().expect("it has one");
        image.guest_address = GuestPhys((512 << 20) + 4096 * (n % 0x1_0000));
    }),
    ("H115", |s, n| s.profile.partitions[0].kernel.window = Some((16 << 20) + 4096 * (1 + n % 64))),
    ("H121", |s, n| s.profile.partitions[(n % 2) as usize].cpus = CpuChoice::These([].into())),
    ("H117", |s, n| s.profile.hypervisor.memory = Some(4096 << (n % 12))),
    ("H119", |s, n| s.profile.partitions[0].dtb_address = GuestPhys((64 << 20) - 0x3_f000 + 4096 * (n % 0x1_0000))),
    ("H120", |s, n| {
        let image = s.profile.partitions[0].rootfs.as_mut().expect("it has one");
        image.guest_address = GuestPhys((768 << 20) + 4096 * (n % 0x8000));
    }),
    ("L101", |s, n| {
        let part = [s.board.slots.rootfs, s.board.slots.hypervisor, s.board.slots.configuration][(n % 3) as usize];
        s.profile.partitions[0].kernel.load = Some(part);
    }),
    ("L101", |s, n| s.profile.partitions[0].kernel.load = Some(within(0, 4 << 20, n))),
    ("L101", |s, n| s.profile.partitions[0].kernel.load = Some(within(0x7f00_0000, 0xa0_0000, n))),
    ("L101", |s, n| s.facts("linux", 0x6e_0001 + n % 0x10_0000, 0x70_0000)),
    ("L102", |s, n| s.profile.partitions[0].kernel.window = Some(0x6e_0001 + n % 0x10_0000)),
    ("L103", |s, n| {
        s.profile.partitions[0].kernel.window = Some(4096 * (1 + n % 64));
        s.facts("linux", 0x4_0001 + n % 0x10_0000, 0x70_0000);
    }),
    ("L104", |s, n| s.facts("linux", 0x60_0000, (16 << 20) + 1 + n % (100 << 20))),
    ("L104", |s, n| {
        s.facts("busybox", 0x10_0000, 0x20_0000);
        s.profile.partitions[0].dtb_address = within(0x12d_0000, 0x10_0000, n).into_guest();
    }),
    ("L105", |s, n| s.profile.partitions[1].memory = 4 << (30 + n % 4)),
    ("L106", |s, n| s.profile.partitions[0].kernel.load = Some(within(2 << 30, 2 << 30, n))),
    ("L107", |s, n| s.facts("linux", 0x60_0000, (1 << 30) + 1 + n % (1 << 30))),
    ("L108", |s, n| {
        let image = s.profile.partitions[0].rootfs.as_mut().expect("it has one");
        image.guest_address = GuestPhys(767 << 20);
        s.facts("busybox", (1 << 20) + 65 + n % (1 << 20), 8 << 20);
    }),
    ("L109", |s, n| {
        s.profile.partitions[0].memory = 2 << 30;
        s.profile.partitions[0].kernel.guest_address = GuestPhys((1 << 30) + 4096 * (n % 0x3_0000));
    }),
    ("I104", |s, n| s.facts("busybox", 0x20_0000, (64 << 20) + 1 + n % (1 << 30))),
    ("U101", |s, n| s.profile.hypervisor.bootargs = "x".repeat(41 + (n % 100) as usize)),
    ("U102", |s, n| s.image = Some(ImageFacts { size: 4096, unpacked: (64 << 20) + 1 + n % (1 << 30), memory: None })),
    ("U102", |s, n| {
        s.image = Some(ImageFacts { size: 4096, unpacked: 8192, memory: Some((4 << 20) + 1 + n % (1 << 30)) });
    }),
    ("N102", |s, n| {
        let nor = s.board.nor.as_mut().expect("the board has flash");
        let slots = nor.slots.clone().expect("and slots in it");
        let first = [slots.first.kernel, slots.first.script, slots.first.rootfs, slots.first.configuration];
        let at = first[(n % 4) as usize].get() + (n / 4 % 2) * slots.second + n / 8 % nor.sector;
        let span = Span::between(TruePhys(at), TruePhys(at + 1));
        nor.reserved.push(Reserved { name: "others".to_owned(), span });
    }),
    ("U103", |s, n| s.profile.partitions[0].kernel.load = Some(within(0x7fa0_0000, 0x5f_f000, n))),
    ("U104", |s, n| s.profile.partitions[0].kernel.load = Some(within(2 << 30, 1 << 30, n))),
    ("D101", |s, n| {
        let no_such = format!("{}i2c{n}", ["", "/soc/"][(n % 2) as usize]);
        s.devices(&[&no_such], &[]);
    }),
    ("D102", |s, n| {
        let vendor = s.board.vendor_devices[n as usize % s.board.vendor_devices.len()].clone();
        s.devices(&[], &[&vendor]);
    }),
    ("D102", |s, _| {
        s.devices(&["serial2"], &[]);
        s.board.inventory = None;
    }),
    ("D103", |s, n| {
        let names = [["i2c@119000", "i2c@119000"], ["gpio@130000", "gpio"]][(n % 2) as usize];
        let [first, second] = names.map(|name| format!("/soc/{name}"));
        s.devices(&[&first], &[&second]);
    }),
    ("D103", |s, _| s.devices(&["serial2", "/soc/serial@11d500"], &[])),
    ("D104", |s, n| {
        let own = s.board.hv_devices[n as usize % s.board.hv_devices.len()].device.clone();
        s.devices(&[], &[&own]);
    }),
    ("D105", |s, n| {
        let (first, second) = PAIRS[n as usize % PAIRS.len()];
        s.devices(&[first], &[second]);
    }),
    ("D105", |s, _| s.devices(&["serial1"], &[])),
    ("D106", |s, n| {
        let (first, second) = PAIRS[n as usize % PAIRS.len()];
        s.devices(&[second], &[first]);
    }),
    ("D107", |s, n| {
        let with_dma: Vec<String> =
            s.inventory().devices.iter().filter(|device| device.dma).map(|device| device.path.clone()).collect();
        s.devices(&[&with_dma[n as usize % with_dma.len()]], &[]);
    }),
    ("D108", |s, n| {
        let part = [format!("ethernet{}", n % 10), format!("sec_jr{}", n % 4)];
        s.devices(&[&part[(n % 2) as usize]], &[]);
    }),
    ("D109", |s, _| {
        s.devices(&["/soc/i2c@119000"], &[]);
        s.hypervisor = Capabilities::CITRINE;
    }),
    ("D110", |s, n| {
        let other = ["/soc/serdes", "/soc/sfp", "crypto", "/soc/gpio"];
        s.board.hv_devices[2].device = other[(n % 4) as usize].to_owned();
    }),
    ("D111", |s, n| drop(s.board.hv_devices.remove((n % 2) as usize))),
    ("D113", |s, n| s.inventory().laws = Some((n % 5) as u32)),
    ("D115", |s, n| s.profile.partitions[(n % 2) as usize].optional_devices = vec![plain("usb0")]),
    ("D115", |s, _| {
        s.profile.partitions[0].optional_devices = vec![plain("usb0"), plain("usb9")];
        s.hypervisor = Capabilities::TOPAZ;
    }),
    ("D116", |s, n| {
        let reach = ["memory", "msi", "mailbox"][..1 + (n % 3) as usize].iter().map(|&name| name.to_owned()).collect();
        let (size, subwindows) =
            [(3 << 30, 4), (4 << 30, 3), (4 << 30, 32), (4 << 30, 8), (1 << 29, 4)][(n % 5) as usize];
        s.profile.partitions[0].dma = Some(Dma::Window(DmaWindow { size, subwindows, reach }));
    }),
    ("D117", |s, n| {
        let first = (n % 1000) as u32;
        s.profile.partitions[0].data_path.fqids = vec![(0, 10), (first + 20, first + 40)];
        s.profile.partitions[1].data_path.fqids = vec![(first + 40, first + 50)];
    }),
    ("P105", |s, _| s.profile.hypervisor.firmware = Firmware::Freescale),
    ("D114", |s, n| s.profile.partitions[0].dtb_size = 4 + n % 2500),
];

/// Devices on one interrupt and in one page.
const PAIRS: [(&str, &str); 3] =
    [("/soc/i2c@118000", "/soc/i2c@118100"), ("/soc/i2c@119000", "/soc/i2c@119100"), ("serial2", "serial3")];

/// Codes of rules that no plan can break.
const NOT_BY_A_PLAN: [(&str, &str); 4] = [
    ("H100", "what the tool renders, the hypervisor understands"),
    ("H108", "placement gives every owner an area of its own"),
    ("H116", "the overlap rules see images with their real bytes"),
    ("H122", "for profiles it is an error: D109"),
];

/// A true-physical number used as a guest-physical one.
trait IntoGuest {
    fn into_guest(self) -> GuestPhys;
}

impl IntoGuest for TruePhys {
    fn into_guest(self) -> GuestPhys {
        GuestPhys(self.get())
    }
}

/// The codes that the rules declare, in the planner and in the hypervisor.
fn declared() -> BTreeSet<String> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let own = std::fs::read_dir(root.join("src/rules")).expect("the rules are there");
    let own = own.map(|entry| entry.expect("a directory can be read to its end").path());
    let files = own.filter(|path| path.is_file()).chain([root.join("../../hypervisor/core/src/rules/finding.rs")]);
    let texts: String = files.map(|path| std::fs::read_to_string(path).expect("sources are text")).collect();
    let code = |rest: &str| {
        let (code, _) = rest.split_once(')').expect("a code is a constant");
        code.replace("', ", "")
    };
    texts.split("Code::new('").skip(1).map(code).collect()
}

#[test]
fn every_rule_has_a_way_to_break_it() {
    let broken: BTreeSet<String> = BREAKS.iter().map(|(code, _)| (*code).to_owned()).collect();
    let excused: BTreeSet<String> = NOT_BY_A_PLAN.iter().map(|(code, _)| (*code).to_owned()).collect();
    let declared = declared();
    assert!(declared.len() > 40, "the scan finds no codes any more: {declared:?}");
    assert_eq!(declared.difference(&(&broken | &excused)).collect::<Vec<_>>(), Vec::<&String>::new());
    assert_eq!(broken.intersection(&excused).collect::<Vec<_>>(), Vec::<&String>::new());
}

#[test]
fn every_way_to_break_a_rule_is_caught() {
    let good = System::good();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(200));
    for (code, break_it) in BREAKS {
        let says = |number| {
            let mut system = good.clone();
            if *code == "L106" {
                system.board.ram.truncate(1);
                system.board.ram[0] = Span::between(TruePhys(0), TruePhys(2 << 30));
            }
            let before = system.says(code);
            break_it(&mut system, number);
            (before, system.says(code))
        };
        runner
            .run(&any::<u64>(), |number| {
                prop_assert_eq!(says(number), (false, true), "{} with {}", code, number);
                Ok(())
            })
            .unwrap_or_else(|error| panic!("{error}"));
    }
}
