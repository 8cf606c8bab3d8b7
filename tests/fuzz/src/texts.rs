//! Any board, inventory and profile.
//!
//! The planner answers with diagnostics or a plan, and of a plan all its views can be made. What its rules accept, the
//! hypervisor accepts. No text of a profile leaves its string in hv.dts or in the boot script: with other texts in their
//! place, all that is outside of strings stays the same.

use std::sync::LazyLock;

use citrine_core::capabilities::Capabilities;
use citrine_formats::diag::Severity;
use citrine_formats::manifest::Role;
use citrine_planner::board::Board;
use citrine_planner::diag::has_errors;
use citrine_planner::map::{self, MemoryMap};
use citrine_planner::pack::parts::profile_json;
use citrine_planner::place::{Artifacts, place};
use citrine_planner::plan::LoadPlan;
use citrine_planner::profile::Profile;
use citrine_planner::render::{Digests, Template, boot_cmd, hv_dts};
use citrine_planner::stages::Stage;
use citrine_planner::{diff, input, rules};

use crate::input::Input;

const BOARDS: [(&str, &str); 2] = [
    (include_str!("../../../boards/p4080ds.toml"), include_str!("../../../boards/devices/p4080ds.toml")),
    (include_str!("../../../boards/qemu-ppce500.toml"), include_str!("../../../boards/devices/qemu-ppce500.toml")),
];
const PROFILES: [&str; 5] = [
    include_str!("../../../profiles/two-linux.toml"),
    include_str!("../../../profiles/manager.toml"),
    include_str!("../../../profiles/echo.toml"),
    include_str!("../../../profiles/twin.toml"),
    include_str!("../../../profiles/hostile.toml"),
];
const HV_DTS: Template<'_> =
    Template { file: "templates/hv.dts.j2", text: include_str!("../../../templates/hv.dts.j2") };
const BOOT_CMD: Template<'_> =
    Template { file: "templates/boot.cmd.j2", text: include_str!("../../../templates/boot.cmd.j2") };
/// What stands where one line ends and another begins in a text that is edited.
const PIECES: [&str; 24] = [
    "\"",
    "'",
    "\n",
    "\\",
    "#",
    "[",
    "]",
    "{",
    "}",
    "=",
    "0",
    "-1",
    "0x",
    "_",
    "7",
    "\u{e9}",
    "\\u0000",
    "\\n",
    "rest",
    "GiB",
    "99999999999999999999",
    "devices = [\"serial1\", \"/soc/i2c@118100\"]\n",
    "[[shared]]\nname = \"x\"\n",
    "$;&|<>{{ }}",
];

static ARTIFACTS: LazyLock<Artifacts> = LazyLock::new(|| {
    let kernels = ["linux", "hello", "manager", "echo", "twin", "hostile", "sentinel", "ipi", "timer"];
    let kernels = kernels.map(|name| (name.to_owned(), (Role::Kernel, None)));
    kernels.into_iter().chain([("busybox".to_owned(), (Role::Rootfs, None))]).collect()
});

/// Runs the target.
pub fn run(data: &[u8]) -> usize {
    let mut input = Input::new(data);
    let Some(which) = input.byte() else { return 0 };
    let (board, devices) = BOARDS[usize::from(which >> 2) % BOARDS.len()];
    let profile = PROFILES[usize::from(which >> 3) % PROFILES.len()];
    match which % 4 {
        0 => plan(board, devices, &text(input.rest())),
        1 => plan(&text(input.rest()), devices, profile),
        2 => plan(board, &text(input.rest()), profile),
        _ => {
            let mut texts = [board.to_owned(), devices.to_owned(), profile.to_owned()];
            while edit(&mut texts, &mut input).is_some() {}
            plan(&texts[0], &texts[1], &texts[2])
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// One edit of one of the texts: something put in, taken out or written twice. None at the end of the input.
fn edit(texts: &mut [String; 3], input: &mut Input<'_>) -> Option<()> {
    // The inventory is long and told again in few words, so the others get more of the edits.
    let text = &mut texts[input.one_of(&[0, 0, 1, 2, 2, 2, 2])?];
    let place = (usize::from(input.byte()?) << 8) | usize::from(input.byte()?);
    let mut at = place % (text.len() + 1);
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let line = text[..at].rfind('\n').map_or(0, |end| end + 1);
    let end = text[at..].find('\n').map_or(text.len(), |len| at + len + 1);
    match input.byte()? % 8 {
        0 => text.insert_str(at, input.one_of(&PIECES)?),
        1 => drop(text.drain(line..end)),
        2 => {
            let twice = text[line..end].to_owned();
            text.insert_str(line, &twice);
        }
        3 => {
            let number = input.raw()?;
            value(text, line, end, &number.to_string());
        }
        4 => {
            let number = (u64::from(input.raw()?) << 20) >> (input.byte()? % 40);
            value(text, line, end, &format!("{number:#x}"));
        }
        5 => {
            let piece = input.one_of(&PIECES)?;
            value(text, line, end, &format!("\"{piece}\""));
        }
        6 => {
            let piece = String::from_utf8_lossy(input.bytes(8)).into_owned();
            text.insert_str(at, &piece);
        }
        _ => text.truncate(line),
    }
    Some(())
}

/// Another value for the key of a line.
fn value(text: &mut String, line: usize, end: usize, new: &str) {
    if let Some(equals) = text[line..end].find('=') {
        text.replace_range(line + equals + 1..end, &format!(" {new}\n"));
    }
}

/// The whole planner on three texts; how far it came.
fn plan(board: &str, devices: &str, profile: &str) -> usize {
    let (board, _) = input::board::parse("board.toml", board);
    let (profile, _) = input::profile::parse("profile.toml", profile);
    let (Some(mut board), Some(profile)) = (board, profile) else { return 0 };
    let refused = !input::inventory::attach(&mut board, "devices.toml", devices).is_empty();
    round_trip(&profile);
    let Ok(mut plan) = place(&board, &profile, &ARTIFACTS) else { return 1 };
    for hypervisor in [Capabilities::CITRINE, Capabilities::TOPAZ] {
        plan.hypervisor = hypervisor;
        let found = rules::check(&plan);
        if !has_errors(&found) {
            let config = rules::hypervisor::config(&plan);
            citrine_core::rules::check(&config, &rules::hypervisor::machine(&plan.board), &mut |finding| {
                assert!(finding.severity() < Severity::Error, "only the hypervisor objects: {finding}");
            });
        }
        let map = MemoryMap::of(&plan);
        let views = [map::table::render, map::svg::render].map(|render| render(&map, &Stage::ALL));
        assert!(views.iter().all(|view| !view.is_empty()) && !map::json::render(&map, &Stage::ALL).is_null());
    }
    let placed = diff::profile::placed(&plan);
    assert_eq!(diff::compare(&placed, &placed), []);
    texts_stay_inside(&plan);
    if refused { 2 } else { 3 }
}

/// A bundle carries the profile, and what is read from it there is the profile.
fn round_trip(profile: &Profile) {
    let back: Profile = serde_json::from_slice(&profile_json(profile)).expect("what is written can be read");
    assert_eq!(back, Profile { places: back.places.clone(), ..profile.clone() });
    assert_eq!(diff::compare(&diff::profile::describe(profile), &diff::profile::describe(&back)), []);
}

/// Renders the plan as it is and with other texts.
fn texts_stay_inside(plan: &LoadPlan) {
    let mut tame = plan.clone();
    for partition in &mut tame.partitions {
        partition.label = "x".to_owned();
        partition.bootargs = "x".to_owned();
    }
    tame.hv_bootargs = "x".to_owned();
    tame.profile.title = "x".to_owned();
    tame_devices(&mut tame.board);
    let render = |plan: &LoadPlan| {
        let dts = hv_dts(plan, &Digests::new(), &HV_DTS).unwrap_or_else(|error| panic!("{error:?}"));
        let script = boot_cmd(plan, &BOOT_CMD).unwrap_or_else(|error| panic!("{error:?}"));
        (dts, script)
    };
    let ((dts, script), (tame_dts, tame_script)) = (render(plan), render(&tame));
    assert_eq!(outside(&dts, '"'), outside(&tame_dts, '"'));
    assert_eq!(outside(&script, '\''), outside(&tame_script, '\''));
}

/// The paths of the hypervisor's devices are texts of the board's.
fn tame_devices(board: &mut Board) {
    for device in &mut board.hv_devices {
        device.device = "x".to_owned();
    }
}

/// What is outside of quotes, as both readers see it who know no escapes in what we write: a backslash inside is kept, so
/// that it is noticed.
fn outside(text: &str, quote: char) -> String {
    let mut inside = false;
    let keep = |c: char| {
        inside ^= c == quote;
        c == quote || !inside || matches!(c, '\\' | '\n')
    };
    let mut keep = keep;
    text.chars().filter(|c| keep(*c)).collect()
}
