//! Everything that a bundle is made of and that is not text of the checkout: kernel, root file system,
//! hardware tree and hypervisor, from the build stages or from files of the user's own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use citrine_core::capabilities::Capabilities;
use citrine_formats::manifest::{Input, InputKind, Role};
use citrine_formats::signature::Key;
use citrine_formats::uimage::Header;
use citrine_planner::board::{Board, HardwareTree};
use citrine_planner::diag::{Code, Diagnostic, Result};
use citrine_planner::image::{ImageFacts, inspect};
use citrine_planner::pack::sha256;
use citrine_planner::place;
use citrine_planner::profile::Profile;

use crate::build::lock::Lock;
use crate::build::{self, Context, GUESTS};
use crate::cache::Cache;
use crate::cli::Overrides;
use crate::progress::Progress;
use crate::project::{NO_SUCH_FILE, Project, read_bytes};

/// A hypervisor without the key that the profile asks for.
pub const BELIEVES_NOBODY: Code = Code::new('K', 104);

/// The artifact that profiles call `linux`.
const LINUX: &str = "linux";
/// The artifact that profiles call `busybox`.
const BUSYBOX: &str = "busybox";

/// One artifact, its bytes in memory.
#[derive(Debug)]
pub struct Made {
    /// What it is.
    pub role: Role,
    /// Its bytes, as they go into the bundle.
    pub bytes: Vec<u8>,
    /// What the planner must know of them.
    pub facts: ImageFacts,
    /// What they were made from.
    pub inputs: Vec<Input>,
    /// `built`, `cached` or `given`.
    pub how: How,
}

/// Where an artifact came from in this run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    /// It was made now.
    Built,
    /// The cache had it.
    Cached,
    /// It is a file of the user's own.
    Given,
}

impl How {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Built => "built",
            Self::Cached => "cached",
            Self::Given => "given",
        }
    }

    fn of(cached: bool) -> Self {
        if cached { Self::Cached } else { Self::Built }
    }
}

/// All artifacts of one bundle.
#[derive(Debug)]
pub struct Artifacts {
    /// Kernels and root file systems by the names that profiles use.
    pub images: BTreeMap<String, Made>,
    /// The hypervisor's uImage.
    pub hypervisor: Made,
    /// The board's hardware tree.
    pub hardware_tree: Made,
}

impl Artifacts {
    /// What placement needs to know.
    pub fn known(&self) -> place::Artifacts {
        self.images.iter().map(|(name, made)| (name.clone(), (made.role, Some(made.facts.clone())))).collect()
    }
}

/// The artifacts that profiles may name, with the facts of those that are in the cache and that `profile` names; of all
/// without one. Builds nothing.
pub fn known(context: Option<(&Context<'_>, &Board, Option<&Profile>)>) -> place::Artifacts {
    let facts = |made: Result<Made>| made.ok().map(|made| made.facts);
    let asked =
        |name: &str| context.filter(|(_, _, profile)| profile.is_none_or(|profile| named(profile).contains(name)));
    let linux = asked(LINUX).and_then(|(context, ..)| facts(linux_kernel(context)));
    let busybox = asked(BUSYBOX).and_then(|(context, ..)| facts(busybox(context)));
    let some_guest = GUESTS.iter().find_map(|name| asked(name));
    let guests = some_guest.and_then(|(context, board, _)| build::guests(context, &board.core).ok());
    let guest = |name: &str| facts(guest(asked(name)?.0, guests.as_ref()?, name));
    let mut known: place::Artifacts =
        GUESTS.iter().map(|name| ((*name).to_owned(), (Role::Kernel, guest(name)))).collect();
    known.insert(LINUX.to_owned(), (Role::Kernel, linux));
    known.insert(BUSYBOX.to_owned(), (Role::Rootfs, busybox));
    known
}

/// [`known`] for commands that build nothing: without a lock file, a cache or the packages, no facts are known.
pub fn cached(project: &Project, board: &Board, profile: Option<&Profile>) -> place::Artifacts {
    let progress = Progress::hidden(|_| {});
    let open =
        || -> Result<(Cache, Lock)> { Ok((Cache::open(Cache::default_root()?, true)?, Lock::read(project.root())?)) };
    let Ok((cache, lock)) = open() else { return known(None) };
    let context = Context::new(project.root(), &cache, &lock, false, &progress).ok();
    known(context.as_ref().map(|context| (context, board, profile)))
}

/// The images that the partitions start with.
fn named(profile: &Profile) -> BTreeSet<&str> {
    let uses = profile.partitions.iter().flat_map(|partition| [Some(&partition.kernel), partition.rootfs.as_ref()]);
    uses.flatten().map(|image| image.image.as_str()).collect()
}

/// Whether a profile needs what is built from sources of Debian's with the cross compiler.
pub fn needs_sources(profile: &Profile, overrides: &Overrides) -> bool {
    let named = named(profile);
    named.contains(LINUX) && overrides.kernel.is_none() || named.contains(BUSYBOX) && overrides.rootfs.is_none()
}

/// Builds, or takes from the cache or the user, everything that a bundle of `profile` for `board` needs.
///
/// # Errors
/// What building and reading return; an image that cannot work (`I1xx`).
pub fn gather(context: &Context<'_>, board: &Board, profile: &Profile, overrides: &Overrides) -> Result<Artifacts> {
    let mut images = BTreeMap::new();
    let mut guests = None;
    for name in named(profile) {
        let made = match (name, &overrides.kernel, &overrides.rootfs) {
            (LINUX, Some(file), _) => given(context, file, Role::Kernel, "--kernel")?,
            (LINUX, None, _) => linux_kernel(context)?,
            (BUSYBOX, _, Some(file)) => given(context, file, Role::Rootfs, "--rootfs")?,
            (BUSYBOX, _, None) => busybox(context)?,
            // Placement has refused every other name.
            _ => {
                let guests = match &mut guests {
                    Some(guests) => guests,
                    none => none.insert(build::guests(context, &board.core)?),
                };
                guest(context, guests, name)?
            }
        };
        images.insert(name.to_owned(), made);
    }
    let hypervisor = match &overrides.hypervisor {
        Some(file) => given(context, file, Role::Hypervisor, "--hypervisor")?,
        None => hypervisor(context, board, profile.trust)?,
    };
    believes(&hypervisor.bytes, profile.trust)?;
    Ok(Artifacts { images, hypervisor, hardware_tree: hardware_tree(context, board)? })
}

fn linux_kernel(context: &Context<'_>) -> Result<Made> {
    stage_file(context, &build::linux(context)?, "kernel.uImage", Role::Kernel)
}

fn busybox(context: &Context<'_>) -> Result<Made> {
    stage_file(context, &build::rootfs(context)?, "rootfs.uImage", Role::Rootfs)
}

fn guest(context: &Context<'_>, guests: &[build::Artifact], name: &str) -> Result<Made> {
    stage_file(context, guests, &format!("{name}.uImage"), Role::Kernel)
}

/// The board's hardware tree: from the kernel's sources, or a file of the user's own; for the emulator's own board none
/// yet.
///
/// # Errors
/// What building returns; [`NO_SUCH_FILE`] for the emulator's board.
pub fn hardware_tree(context: &Context<'_>, board: &Board) -> Result<Made> {
    let name = match &board.hardware_tree {
        HardwareTree::Kernel(name) => name,
        HardwareTree::Given(file) => return given(context, Path::new(file), Role::HardwareTree, "--hw-dtb"),
        HardwareTree::Emulator => {
            let name = &board.name;
            let message =
                format!("{name} is only the emulator's stand-in: its hardware tree exists when the emulator runs");
            return Err(Diagnostic::error(NO_SUCH_FILE, message)
                .help("bundle for a real board; `cargo xtask qemu` boots that")
                .into());
        }
    };
    let file = format!("{}.dtb", name.rsplit('/').next().unwrap_or(name));
    stage_file(context, &build::trees(context)?, &file, Role::HardwareTree)
}

/// One file of a stage, with its facts.
fn stage_file(context: &Context<'_>, artifacts: &[build::Artifact], name: &str, role: Role) -> Result<Made> {
    let Some(artifact) = artifacts.iter().find(|artifact| artifact.name == name) else {
        return Err(Diagnostic::error(NO_SUCH_FILE, format!("the recipe made no {name}"))
            .help("the recipe in artifacts/ does not build what the board's file names")
            .into());
    };
    let bytes = read_bytes(&artifact.path)?;
    let facts = facts(context, name, role, &bytes)?;
    Ok(Made { role, bytes, facts, inputs: artifact.inputs.clone(), how: How::of(artifact.cached) })
}

/// A file of the user's own.
fn given(context: &Context<'_>, file: &Path, role: Role, flag: &str) -> Result<Made> {
    let shown = file.display().to_string();
    let bytes = read_bytes(file)?;
    let facts = facts(context, &shown, role, &bytes)?;
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or("file");
    let plain: String = name.chars().map(|c| if (' '..='~').contains(&c) { c } else { '?' }).collect();
    let input = Input {
        kind: InputKind::File,
        name: plain,
        origin: format!("given with {flag}"),
        sha256: Some(sha256(&bytes)),
        size: Some(bytes.len() as u64),
        version: String::new(),
    };
    Ok(Made { role, bytes, facts, inputs: vec![input], how: How::Given })
}

/// Our own hypervisor, for the board's core.
fn hypervisor(context: &Context<'_>, board: &Board, trust: Option<Key>) -> Result<Made> {
    let artifacts = build::hypervisor(context, &board.core, trust)?;
    stage_file(context, &artifacts, build::HV_IMAGE, Role::Hypervisor)
}

/// Refuses a hypervisor that cannot believe the key that it shall believe: one that is built without it does not check at
/// all.
fn believes(image: &[u8], trust: Option<Key>) -> Result<()> {
    let Some(key) = trust.filter(|key| !image.windows(key.0.len()).any(|bytes| bytes == key.0)) else { return Ok(()) };
    Err(Diagnostic::error(BELIEVES_NOBODY, "the hypervisor does not have the key that the profile's `[trust]` names")
        .fact("key", key)
        .help("leave out --hypervisor, so that one is built with this key, or leave out `[trust]`")
        .into())
}

/// What a key that the firmware believes is among the inputs: its bytes, so that whoever has the bundle has the input.
pub fn key_input(key: &Key) -> Input {
    Input {
        kind: InputKind::File,
        name: "trust-key".into(),
        origin: "`[trust]` of the profile; 32 bytes".into(),
        sha256: Some(sha256(&key.0)),
        size: Some(key.0.len() as u64),
        version: String::new(),
    }
}

/// The facts of an image; unpacked and checked once, then remembered by its hash.
fn facts(context: &Context<'_>, name: &str, role: Role, bytes: &[u8]) -> Result<ImageFacts> {
    if !matches!(role, Role::Kernel | Role::Rootfs | Role::Hypervisor) {
        return inspect(name, role, bytes);
    }
    build::facts(context, role, bytes, || inspect(name, role, bytes))
}

/// What the hypervisor in this image can do. Ours is known by the name in its header; every other is taken for Topaz,
/// whose configuration tree it will read.
pub fn capabilities(image: &[u8]) -> Capabilities {
    let is_ours = Header::parse(image).is_ok_and(|header| header.name.to_string().starts_with(build::HV_NAME));
    if is_ours { Capabilities::CITRINE } else { Capabilities::TOPAZ }
}

/// What the hypervisor in a file of the user's own can do, if one is given.
///
/// # Errors
/// [`NO_SUCH_FILE`].
pub fn chosen(hypervisor: Option<&Path>) -> Result<Option<Capabilities>> {
    hypervisor.map(|file| Ok(capabilities(&read_bytes(file)?))).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blessed;
    use crate::report::{Width, to_text};

    #[test]
    fn a_hypervisor_without_the_key_is_refused() {
        let case = "tests/bad/K104-another-hypervisor";
        let mut image = std::fs::read(blessed::root().join(case).join("hv.uImage")).unwrap();
        let key = Key(std::array::from_fn(|index| index as u8 ^ 0x5a));
        let refused = believes(&image, Some(key)).unwrap_err();
        let text = format!("{}\n", to_text(&refused, &Default::default(), Width::Plain));
        assert_eq!(blessed::compare(&format!("{case}/expected.txt"), &text), None);
        assert!(believes(&image, None).is_ok());
        image.extend(key.0);
        image.push(0);
        assert!(believes(&image, Some(key)).is_ok());
    }
}
