//! How a bundle's parts come into the emulated memory: laid there before U-Boot starts, or fetched by U-Boot over
//! TFTP as on a bench.

use std::fs::File;
use std::path::{Path, PathBuf};

use citrine_formats::addr::{Size, TruePhys};
use citrine_formats::manifest::{Media, Part, Role};
use citrine_planner::diag::{Diagnostic, Result};
use citrine_planner::pack::ram::RamImage;
use citrine_planner::pack::sha256;
use citrine_planner::render::typed;
use clap::ValueEnum;

use super::boot::loaded;
use super::bundle::Parts;
use super::stand_in::{NO_STAND_IN, StandIn};
use crate::emulator::Preload;
use crate::output::{RAM_IMAGE, cannot_write, write_sparse};

/// The variable that tells the boot script that the parts lie at their addresses.
pub const LOADED: &str = "citrine_loaded";
/// U-Boot's own address, and that of the server, in QEMU's user network.
const ADDRESS: &str = "10.0.2.15";
const SERVER: &str = "10.0.2.2";

/// How the parts come into memory.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Load {
    /// Each part lies at its address before U-Boot starts
    #[default]
    Preloaded,
    /// U-Boot fetches its script by TFTP, and the script every other part
    Tftp,
    /// U-Boot fetches one RAM image by TFTP, which holds them all
    RamImage,
}

/// What the emulator needs for it.
#[derive(Debug, Default)]
pub struct Loading {
    /// What lies in memory beforehand.
    pub preloads: Vec<Preload>,
    /// What U-Boot runs.
    pub bootcmd: String,
    /// The directory that is served to it.
    pub tftp: Option<PathBuf>,
    /// Lines for the transcript.
    pub notes: Vec<String>,
}

/// Writes what `way` needs to `dir`, which is nobody else's.
///
/// # Errors
/// A file that cannot be written, a bundle without a script, or parts that make no RAM image.
pub fn loading(way: Load, parts: &Parts, stand_in: &StandIn, dir: &Path) -> Result<Loading> {
    match way {
        Load::Preloaded => preloaded(parts, stand_in, dir),
        Load::Tftp => fetched(parts, stand_in, dir),
        Load::RamImage => at_once(parts, stand_in, dir),
    }
}

fn preloaded(parts: &Parts, stand_in: &StandIn, dir: &Path) -> Result<Loading> {
    let mut preloads = Vec::new();
    for (name, addr, bytes) in loaded(parts, stand_in) {
        let path = write(dir, name, bytes)?;
        preloads.push(Preload { name: name.to_owned(), path, addr });
    }
    let bootcmd = format!("setenv {LOADED} yes; source {:#x}", script(parts)?.1.0);
    Ok(Loading { preloads, bootcmd, tftp: None, notes: Vec::new() })
}

/// The directory of the unpacked bundle, with what stands in for two of its parts.
fn fetched(parts: &Parts, stand_in: &StandIn, dir: &Path) -> Result<Loading> {
    let manifest = &parts.verified.manifest;
    // What the boot script takes where nobody has set `citrine_dir`.
    let name = format!("{}-{}", manifest.board, manifest.profile);
    let unpacked = dir.join(&name);
    fs_err::create_dir(&unpacked).map_err(|error| cannot_write(&unpacked, &error))?;
    let mut notes = Vec::new();
    for (file, _, bytes) in loaded(parts, stand_in) {
        write(&unpacked, file, bytes)?;
        notes.push(format!("served   {} {name}/{file}", sha256(bytes)));
    }
    let (file, addr) = script(parts)?;
    let bootcmd = format!("{}; {}", network(stand_in), typed::run_script(&name, file, addr));
    Ok(Loading { preloads: Vec::new(), bootcmd, tftp: Some(dir.to_path_buf()), notes })
}

/// The bundle's RAM image, with what stands in for two of its parts.
fn at_once(parts: &Parts, stand_in: &StandIn, dir: &Path) -> Result<Loading> {
    let manifest = &parts.verified.manifest;
    let placed = loaded(parts, stand_in).into_iter().map(|(name, load, bytes)| (name, load, vec![bytes]));
    let image = RamImage::of(&stand_in.plan.board, placed.collect())?;
    let name = format!("{}-{}.{RAM_IMAGE}", manifest.board, manifest.profile);
    let path = dir.join(&name);
    File::create_new(&path)
        .and_then(|mut file| write_sparse(&mut file, &image))
        .map_err(|error| cannot_write(&path, &error))?;
    let notes = vec![format!("served   {name}: {} for {}", Size(image.len()), image.base)];
    let bootcmd = format!(
        "{}; tftp {:#x} {name} && setenv {LOADED} yes && source {:#x}",
        network(stand_in),
        image.base.0,
        script(parts)?.1.0
    );
    Ok(Loading { preloads: Vec::new(), bootcmd, tftp: Some(dir.to_path_buf()), notes })
}

/// What a person types before the first `tftp`.
fn network(stand_in: &StandIn) -> String {
    typed::before(ADDRESS, SERVER, Some(&stand_in.plan.board)).join("; ")
}

/// Name and address of the boot script.
fn script(parts: &Parts) -> Result<(&str, TruePhys)> {
    let scripts = parts.verified.manifest.parts.iter().filter(|part| part.role == Role::Script);
    let in_ram = |part: &Part| Some(part.slots.iter().find(|slot| slot.media == Media::Ram)?.load);
    let script = scripts.filter_map(|part| Some((part.name.as_str(), in_ram(part)?))).next();
    script.ok_or_else(|| Diagnostic::error(NO_STAND_IN, "the bundle has no boot script").into())
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> Result<PathBuf> {
    let path = dir.join(name);
    fs_err::write(&path, bytes).map_err(|error| cannot_write(&path, &error))?;
    Ok(path)
}
