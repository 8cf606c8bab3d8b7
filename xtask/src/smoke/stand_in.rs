//! The emulator's board in place of the bundle's: QEMU has none of the SoC's peripherals, so its own hardware
//! tree takes the place of the board's, and hv.dtb is rendered for it from the bundle's profile.
//!
//! All other parts are the bundle's own bytes, at the addresses that its manifest signs.

use std::path::{Path, PathBuf};

use citrine_formats::addr::{Span, TruePhys};
use citrine_formats::hvconfig::Digest;
use citrine_formats::manifest::{Manifest, Media, Part, Role};
use citrine_formats::signature::Key;
use citrine_formats::uimage::Header;
use citrine_planner::board::Board;
use citrine_planner::diag::{self, Code, Diagnostic, has_errors};
use citrine_planner::pack::sha256;
use citrine_planner::plan::LoadPlan;
use citrine_planner::profile::Profile;
use citrine_planner::render::Digests;
use citrine_planner::{place, rules};

use super::bundle::Parts;
use super::nor;
use crate::artifacts;
use crate::build::HV_NAME;
use crate::bundle::{boot_script, configuration};
use crate::emulator::{self, Machine};
use crate::project::Project;
use crate::report::{Failure, Ui};
use crate::sign::{self, configuration::Blob};

/// The bundle cannot be booted on the stand-in.
pub const NO_STAND_IN: Code = Code::new('Q', 201);

/// The bundled hypervisor needs what no emulator has.
pub const FOREIGN: Code = Code::new('Q', 202);

/// The emulator's configuration lacks the signature that the bundled firmware wants.
pub const NOT_SIGNED: Code = Code::new('K', 106);

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
    /// Hardware tree and configuration tree; for the flash the boot script, too.
    pub substitutes: Vec<Substitute>,
}

/// What the user wants of the machine instead of what the stand-in's board file says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Hardware {
    /// Core, as QEMU calls it.
    pub cpu: Option<String>,
    /// Memory from address 0, in MiB: with more of it the stand-in has room for partitions that its own has not.
    pub ram_mib: Option<u32>,
    /// Number of CPUs; the profile's other CPUs must be unused ones.
    pub cpus: Option<u32>,
    /// [`Machine::counts`].
    pub counts: bool,
    /// The key that signs its configuration, for a firmware that believes one.
    pub key: Option<PathBuf>,
    /// Whether it boots from its flash instead of from memory.
    pub flash: bool,
}

/// Prepares the stand-in for a bundle.
///
/// # Errors
/// [`NO_STAND_IN`] when the bundle does not fit it, [`FOREIGN`] when its hypervisor cannot run there; what
/// rendering, dtc or QEMU complain about.
pub fn prepare(project: &Project, parts: &Parts, wanted: &Hardware, ui: &Ui) -> Result<StandIn, Failure> {
    let manifest = &parts.verified.manifest;
    if let Some(part) = parts.part(Role::Hypervisor)
        && let Some(image) = parts.bytes.get(&part.name)
    {
        runs_without_hypervisor_category(&part.name, image)?;
    }
    let bundled = project.board(&manifest.board, ui)?;
    let board = project.board(&bundled.stand_in, ui)?;
    if board.core != manifest.core {
        return Err(no_stand_in(format!(
            "{} has {} cores, the bundle is for {}",
            board.name, board.core, manifest.core
        )));
    }
    let (mut board, profile) = at_bundled_addresses(board, parts.profile.clone(), manifest);
    let in_flash = wanted.flash.then(|| nor::moved(manifest, &bundled, &mut board)).transpose()?;
    let ram = wanted.ram_mib.and_then(|mib| Span::new(TruePhys(0), u64::from(mib) << 20).ok());
    let ram = ram.map_or(board.ram, |bank| vec![bank]);
    let cpus = wanted.cpus.unwrap_or(bundled.cpus);
    let board = Board { cpus, ram, image_area: bundled.image_area, ..board };
    let mut profile = profile;
    profile.unused_cpus.retain(|cpu| *cpu < board.cpus);
    let known = artifacts::known(None);
    let plan = match &in_flash {
        Some(second) => place::place_in_flash(&board, &profile, &known, second)?,
        None => place::place(&board, &profile, &known)?,
    };
    if in_flash.is_some() {
        nor::same_offsets(manifest, &bundled, &plan)?;
    }
    let found = rules::check(&plan);
    if has_errors(&found) {
        return Err(found.into());
    }
    let mut machine = machine(&board)?;
    machine.cpu = wanted.cpu.clone().unwrap_or(machine.cpu);
    machine.counts = wanted.counts;
    let blank = in_flash.as_ref().map(|_| nor::blank(&plan)).transpose()?;
    machine.flash = blank.as_ref().map(|file| file.path().to_path_buf());
    let tree = emulator::tree::hardware_tree(&machine)?;
    // The real one exists when all that it holds does.
    machine.flash = None;
    // What is signed, not what was read.
    let digest = |part: &Part| Some(Digest { size: part.size, sha256: part.sha256? });
    let digests: Digests = manifest.parts.iter().filter_map(|part| Some((part.name.clone(), digest(part)?))).collect();
    if let Some(part) = plan.parts.iter().find(|part| part.image.is_some() && !digests.contains_key(&part.file)) {
        return Err(no_stand_in(format!("its profile asks for {}, which it does not have", part.file)));
    }
    let config = configuration(project, &plan, &digests, ui)?;
    let trust = plan.profile.trust;
    let signature = trust.map(|key| signed(&key, wanted.key.as_deref(), &config)).transpose()?;
    let mut substitutes = vec![
        substitute(parts, &plan, Role::HardwareTree, tree, "QEMU's own devices")?,
        substitute(
            parts,
            &plan,
            Role::Configuration,
            config,
            "names QEMU's devices; rendered from the bundle's profile.json",
        )?,
    ];
    if let Some(blob) = signature {
        substitutes.push(substitute(parts, &plan, Role::Signature, blob.to_vec(), "signs QEMU's configuration")?);
    }
    if plan.media == Media::Nor {
        let script = boot_script(project, &plan, manifest.source_date_epoch, ui)?.pieces().concat();
        substitutes.push(substitute(parts, &plan, Role::Script, script, "QEMU's flash lies at another address")?);
    }
    Ok(StandIn { machine, plan, substitutes })
}

/// The signature over the stand-in's configuration: the bundled firmware believes no other key on any machine.
fn signed(key: &Key, file: Option<&Path>, config: &[u8]) -> diag::Result<Blob> {
    let signer = file.map(|file| sign::signer(Some(file))).transpose()?;
    match signer.filter(|signer| sign::configuration::is_by(signer, key)) {
        Some(signer) => sign::configuration::sign(&signer, config),
        None => Err(unsigned_here(file).into()),
    }
}

/// That nobody can sign the emulator's configuration.
fn unsigned_here(file: Option<&Path>) -> Diagnostic {
    let message = "the bundled firmware runs signed configurations only, and the emulator needs one of its own";
    let given =
        file.map_or_else(|| "no --key is given".to_owned(), |file| format!("{} is another key", file.display()));
    Diagnostic::error(NOT_SIGNED, message).fact("key", given).help(
        "give the key of the profile's `[trust]` with `--key FILE`; or boot a profile without `[trust]`, or with a key for \
         tests: what a production key signs here, the board would believe, too",
    )
}

/// Our own firmware runs guests deprivileged; every other hypervisor for these cores needs the category
/// Embedded.Hypervisor. Ours is known by the name in its header, which the manifest signs with all its bytes.
fn runs_without_hypervisor_category(name: &str, image: &[u8]) -> diag::Result<()> {
    let named = Header::parse(image).map(|header| header.name.to_string()).unwrap_or_default();
    if named.starts_with(HV_NAME) {
        return Ok(());
    }
    let message = format!("{name} is not Citrine's own but `{named}`, which cannot run on QEMU");
    Err(Diagnostic::error(FOREIGN, message)
        .help(
            "it needs the processor's category Embedded.Hypervisor (E.HV), which QEMU has for no core: boot the bundle on its board, or leave out --hypervisor",
        )
        .into())
}

/// The machine that is this board.
///
/// # Errors
/// [`NO_STAND_IN`] when the emulator has not that much memory.
pub fn machine(board: &Board) -> Result<Machine, Failure> {
    let mib = board.ram_size() >> 20;
    let ram = u32::try_from(mib).map_err(|_| no_stand_in(format!("{mib} MiB of memory are more than QEMU has")))?;
    Ok(Machine::new(board.core.clone(), board.cpus, ram))
}

/// Board and profile with every part where the bundle's manifest says.
fn at_bundled_addresses(mut board: Board, mut profile: Profile, manifest: &Manifest) -> (Board, Profile) {
    let load = |role: Role| -> Option<TruePhys> {
        manifest.parts.iter().filter(|part| part.role == role).find_map(|part| Some(part.slot(Media::Ram)?.load))
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
            image.load = part.and_then(|part| part.slot(Media::Ram)).map(|slot| slot.load).or(image.load);
        }
    }
    (board, profile)
}

fn substitute(
    parts: &Parts,
    plan: &LoadPlan,
    role: Role,
    bytes: Vec<u8>,
    why: &'static str,
) -> Result<Substitute, Failure> {
    // The hardware tree has the name of another board.
    let file = plan.part(role).filter(|_| role != Role::HardwareTree).map(|part| part.file.as_str());
    let mut signed = parts.verified.manifest.parts.iter();
    let Some(part) = signed.find(|part| part.role == role && file.is_none_or(|file| part.name == file)) else {
        return Err(no_stand_in(format!("the bundle has no {role}")));
    };
    let signed = part.sha256.map_or_else(|| "the signature".to_owned(), |sha256| sha256.to_string());
    let note = format!("{}: {} instead of {signed} ({why})", part.name, sha256(&bytes));
    Ok(Substitute { name: part.name.clone(), bytes, note })
}

pub(super) fn no_stand_in(why: String) -> Failure {
    Diagnostic::error(NO_STAND_IN, format!("the bundle cannot be booted on QEMU: {why}"))
        .help("it may still boot on its board; `cargo xtask verify` checks the bundle itself")
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blessed;
    use crate::report::{Width, to_text};

    #[test]
    fn only_the_key_that_the_firmware_believes_signs_for_the_emulator() {
        let case = "tests/bad/K106-another-key";
        let file = blessed::root().join(case).join("key.pub");
        let refused = signed(&Key([7; 32]), Some(&file), b"tree").unwrap_err();
        let text = format!("{}\n", to_text(&refused, &Default::default(), Width::Plain));
        assert_eq!(blessed::compare(&format!("{case}/expected.txt"), &text), None);
        assert_eq!(signed(&Key([7; 32]), None, b"tree").unwrap_err().code, NOT_SIGNED);
    }

    #[test]
    fn a_foreign_hypervisor_is_refused_with_the_reason() {
        let case = "tests/bad/Q202-topaz";
        let mut image = std::fs::read(blessed::root().join(case).join("hv.uImage")).unwrap();
        let error = runs_without_hypervisor_category("hv.uImage", &image).unwrap_err();
        let text = format!("{}\n", to_text(&error, &Default::default(), Width::Plain));
        assert_eq!(blessed::compare(&format!("{case}/expected.txt"), &text), None);

        let mut header = Header::parse(&image).unwrap();
        header.name = citrine_formats::uimage::Name::new(concat!("Citrine ", env!("CARGO_PKG_VERSION")));
        image[..64].copy_from_slice(&header.to_bytes());
        assert!(runs_without_hypervisor_category("hv.uImage", &image).is_ok());
    }
}
