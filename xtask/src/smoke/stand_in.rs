//! The emulator's board in place of the bundle's: QEMU has none of the SoC's peripherals, so its own hardware
//! tree takes the place of the board's, and hv.dtb is rendered for it from the bundle's profile.
//!
//! All other parts are the bundle's own bytes, at the addresses that its manifest signs.

use citrine_formats::addr::TruePhys;
use citrine_formats::manifest::{Manifest, Role};
use citrine_planner::board::Board;
use citrine_planner::diag::{Code, Diagnostic, has_errors};
use citrine_planner::pack::sha256;
use citrine_planner::plan::LoadPlan;
use citrine_planner::profile::Profile;
use citrine_planner::{place, rules};

use super::bundle::Parts;
use crate::artifacts;
use crate::bundle::configuration;
use crate::emulator::{self, Machine};
use crate::project::Project;
use crate::report::{Failure, Ui};

/// The bundle cannot be booted on the stand-in.
pub const NO_STAND_IN: Code = Code::new('Q', 201);

/// A part that takes another's place.
#[derive(Debug)]
pub struct Substitute {
    /// Name of the part in the bundle.
    pub name: String,
    /// The bytes that take its place.
    pub bytes: Vec<u8>,
    /// For the transcript: name, both hashes, why.
    pub note: String,
}

/// The emulator's machine and the parts that it needs others of.
#[derive(Debug)]
pub struct StandIn {
    /// The machine.
    pub machine: Machine,
    /// The stand-in's plan: the bundle's addresses, the emulator's devices.
    pub plan: LoadPlan,
    /// Hardware tree and configuration tree.
    pub substitutes: [Substitute; 2],
}

/// Prepares the stand-in for a bundle.
///
/// # Errors
/// [`NO_STAND_IN`] when the bundle does not fit it; what rendering, dtc or QEMU complain about.
pub fn prepare(project: &Project, parts: &Parts, ui: &Ui) -> Result<StandIn, Failure> {
    let manifest = &parts.verified.manifest;
    let bundled = project.board(&manifest.board, ui)?;
    let board = project.board(&bundled.stand_in, ui)?;
    if board.core != manifest.core {
        return Err(no_stand_in(format!(
            "{} has {} cores, the bundle is for {}",
            board.name, board.core, manifest.core
        )));
    }
    let (board, profile) = at_bundled_addresses(board, parts.profile.clone(), manifest);
    let board = Board { cpus: bundled.cpus, ..board };
    let plan = place::place(&board, &profile, &artifacts::known(None))?;
    let found = rules::check(&plan);
    if has_errors(&found) {
        return Err(found.into());
    }
    let mib = board.ram_size() >> 20;
    let ram = u32::try_from(mib).map_err(|_| no_stand_in(format!("{mib} MiB of memory are more than QEMU has")))?;
    let machine = Machine::new(board.core.clone(), board.cpus, ram);
    let tree = emulator::tree::hardware_tree(&machine)?;
    let config = configuration(project, &plan, ui)?;
    let substitutes = [
        substitute(parts, Role::HardwareTree, tree, "QEMU's own devices")?,
        substitute(
            parts,
            Role::Configuration,
            config,
            "names QEMU's devices; rendered from the bundle's profile.json",
        )?,
    ];
    Ok(StandIn { machine, plan, substitutes })
}

/// Board and profile with every part where the bundle's manifest says.
fn at_bundled_addresses(mut board: Board, mut profile: Profile, manifest: &Manifest) -> (Board, Profile) {
    let load = |role: Role| -> Option<TruePhys> {
        manifest.parts.iter().find(|part| part.role == role)?.slots.first().map(|slot| slot.load)
    };
    let slots = &mut board.slots;
    for (role, slot) in [
        (Role::Kernel, &mut slots.kernel),
        (Role::Rootfs, &mut slots.rootfs),
        (Role::Hypervisor, &mut slots.hypervisor),
        (Role::HardwareTree, &mut slots.hardware_tree),
        (Role::Configuration, &mut slots.configuration),
        (Role::Script, &mut slots.script),
    ] {
        *slot = load(role).unwrap_or(*slot);
    }
    // The first image of a role has its slot already; the others name their artifact.
    for partition in &mut profile.partitions {
        for image in [Some(&mut partition.kernel), partition.rootfs.as_mut()].into_iter().flatten() {
            let named = format!("-{}.uImage", image.image);
            let part = manifest.parts.iter().find(|part| part.name.ends_with(&named));
            image.load = part.and_then(|part| part.slots.first()).map(|slot| slot.load).or(image.load);
        }
    }
    (board, profile)
}

fn substitute(parts: &Parts, role: Role, bytes: Vec<u8>, why: &'static str) -> Result<Substitute, Failure> {
    let Some(part) = parts.part(role) else {
        return Err(no_stand_in(format!("the bundle has no {role}")));
    };
    let note = format!("{}: {} instead of {} ({why})", part.name, sha256(&bytes), part.sha256);
    Ok(Substitute { name: part.name.clone(), bytes, note })
}

fn no_stand_in(why: String) -> Failure {
    Diagnostic::error(NO_STAND_IN, format!("the bundle cannot be booted on QEMU: {why}"))
        .help("it may still boot on its board; `cargo xtask verify` checks the bundle itself")
        .into()
}
