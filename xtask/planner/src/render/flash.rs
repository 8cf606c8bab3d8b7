//! What `flash.cmd.j2` may use: the flash plan with every number as text for U-Boot.

use citrine_formats::addr::{Address as _, TruePhys};
use citrine_formats::manifest::Role;
use serde::Serialize;

use super::typed;
use crate::flash::{Action, FlashPlan, Placed, Step};
use crate::plan::LoadPlan;

/// Context of `flash.cmd.j2`.
#[derive(Serialize)]
pub struct FlashCmd {
    board: String,
    profile: String,
    directory: String,
    bootm_size: Option<String>,
    /// The first and the second slot of the script: what U-Boot tries in turn.
    scripts: [String; 2],
    start_from_flash: Option<String>,
    /// Memory for a checksum before anything is fetched.
    scratch: String,
    /// Whether a plan from a known bundle: then these are the scripts that the board may start with.
    guarded: bool,
    first: Vec<Bytes>,
    second: Vec<Bytes>,
    kept: Vec<Bytes>,
    written: Vec<Written>,
    erased: Option<StepText>,
    total: usize,
}

/// Bytes in the flash that can be recognised.
#[derive(Serialize)]
struct Bytes {
    file: String,
    at: String,
    len: String,
    crc: Option<String>,
}

/// A part that is fetched and written.
#[derive(Serialize)]
struct Written {
    file: String,
    ram: String,
    len: String,
    /// None for a signature, which may be made after this script; then only its first bytes tell it from an empty one.
    crc: Option<String>,
    /// Memory behind it for its checksum.
    scratch: String,
    steps: Vec<StepText>,
}

#[derive(Serialize)]
struct StepText {
    number: usize,
    ram: String,
    flash: String,
    len: String,
    sectors: String,
}

/// A number for U-Boot, which reads all as hexadecimal.
fn hex(value: u64) -> String {
    format!("{value:#x}")
}

/// A checksum for `itest`, which reads both sides as the shell prints them.
fn crc(value: u32) -> String {
    format!("{value:08x}")
}

impl FlashCmd {
    /// The context of `steps`, which lead to `flash`; `ram` says where each part is fetched to.
    pub fn of(ram: &LoadPlan, flash: &LoadPlan, steps: &FlashPlan) -> Self {
        let nor = flash.board.nor.as_ref();
        let effective = |at: TruePhys| hex(nor.and_then(|nor| nor.effective(at)).unwrap_or(at.get()));
        let bytes = |part: &Placed| Bytes {
            file: part.name.clone(),
            at: effective(part.at),
            len: hex(part.size),
            crc: part.crc32.map(crc),
        };
        let slots = nor.and_then(|nor| nor.slots.as_ref());
        let script = slots.map_or(TruePhys(0), |slots| slots.first.script);
        let twin = TruePhys(script.get() + slots.map_or(0, |slots| slots.second));
        let may_start = |slot: TruePhys| {
            let known = steps.before.iter().chain(steps.parts.iter().filter(|part| part.role == Role::Script));
            known.filter(|part| part.at == slot).map(bytes).collect::<Vec<_>>()
        };
        let text = |number: usize, step: &Step, ram: u64, len: u64| StepText {
            number,
            ram: hex(ram),
            flash: effective(step.sectors.base()),
            len: hex(len),
            sectors: hex(step.sectors.len()),
        };
        let numbered = || steps.steps.iter().enumerate().map(|(index, step)| (index + 1, step));
        let written = steps.parts.iter().enumerate().filter(|(index, _)| !steps.kept.contains(index));
        // The script runs from its own slot in RAM while it fetches the new one.
        let fetched_to = |part: &Placed| {
            let role = if part.role == Role::Script { Role::Configuration } else { part.role };
            let same = ram.parts.iter().find(|other| other.file == part.name).or_else(|| ram.part(role));
            same.map_or(0, |other| other.load.0)
        };
        Self {
            board: flash.board.name.clone(),
            profile: flash.profile.name.clone(),
            directory: format!("{}-{}", flash.board.name, flash.profile.name),
            bootm_size: flash.board.uboot.bootm_size.map(hex),
            scripts: [effective(script), effective(twin)],
            start_from_flash: typed::start_from_flash(&flash.board),
            scratch: hex(ram.part(Role::Configuration).map_or(0, |part| part.load.0)),
            guarded: steps.before.is_some(),
            first: may_start(script),
            second: may_start(twin),
            kept: steps.kept.iter().filter_map(|index| steps.parts.get(*index)).map(bytes).collect(),
            written: written
                .map(|(index, part)| {
                    let to = fetched_to(part);
                    let own = numbered().filter_map(|(number, step)| match step.action {
                        Action::Write { part, from, len } if part == index => Some(text(number, step, to + from, len)),
                        _ => None,
                    });
                    Written {
                        file: part.name.clone(),
                        ram: hex(to),
                        len: hex(part.size),
                        crc: part.crc32.map(crc),
                        scratch: hex((to + part.size).next_multiple_of(16)),
                        steps: own.collect(),
                    }
                })
                .collect(),
            erased: numbered().find(|(_, step)| step.action == Action::Erase).map(|(n, step)| text(n, step, 0, 0)),
            total: steps.steps.len(),
        }
    }
}
