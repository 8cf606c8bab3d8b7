//! The NOR flash of a bundle: which slots its parts take, the script that changes the flash, and the bank's image.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read as _, Write};
use std::path::{Path, PathBuf};

use citrine_formats::addr::Address as _;
use citrine_formats::manifest::{Input, InputKind, Manifest, Role, Sha256};
use citrine_formats::signature;
use citrine_planner::board::{Board, Nor, NorSlots};
use citrine_planner::diag::{Code, Diagnostic};
use citrine_planner::flash::{
    self, FlashPlan, Piece, Placed, are_in_second, crc32, installed, signature_id, write_image,
};
use citrine_planner::pack::{Assembled, Content, PartSource, sha256};
use citrine_planner::place::{self, NO_FLASH, Second};
use citrine_planner::plan::{LoadPlan, Part};
use citrine_planner::render;
use citrine_planner::verify::policy::for_board;

use crate::artifacts::Artifacts;
use crate::bundle::{Texts, add, boot_script, configuration, digests, script_image};
use crate::output::{self, Published, cannot_write};
use crate::project::{Project, template};
use crate::report::{Failure, Ui};
use crate::smoke::bundle::Parts;

/// Name of the part that changes the flash.
pub const FLASH_SCRIPT: &str = "flash.scr";

/// Origin of the input that stands for the bundle that was installed before.
pub const INSTALLED: &str = "installed before; the hash is its identity";

/// A bundle that would take a board back to an older epoch.
pub const ROLLBACK: Code = Code::new('B', 119);

/// What is said of a new bundle before the one that is installed is read.
#[derive(Debug)]
pub struct New<'b> {
    /// The board that it is for.
    pub board: &'b Board,
    /// Its epoch.
    pub epoch: u32,
    /// Whether it may be older than the one that is installed.
    pub may_roll_back: bool,
}

/// The bundle that a board's flash holds.
#[derive(Debug)]
pub struct Installed {
    /// Its parts in the flash.
    pub parts: Vec<Placed>,
    /// Which one it is: the new bundle's bytes depend on it.
    pub input: Input,
}

impl Installed {
    /// Reads and verifies the bundle in `file`, which `new` shall follow.
    ///
    /// # Errors
    /// Whatever is wrong with it (`B1xx`); [`ROLLBACK`]; [`NO_FLASH`] when it has nothing in the flash.
    pub fn read(file: &Path, new: &New<'_>, ui: &Ui) -> Result<Self, Failure> {
        let read = crate::smoke::bundle::read(file, None, ui)?;
        let shown = file.display().to_string();
        let manifest = &read.0.manifest;
        for_board(manifest, &new.board.name, &shown)?;
        let back = manifest.epoch > new.epoch;
        if back && !new.may_roll_back {
            let message = format!(
                "{shown} is of epoch {}, the bundle that shall follow it of epoch {}",
                manifest.epoch, new.epoch
            );
            let help = format!(
                "set `epoch = {}` in the profile; or, if the older system shall really come back, add --allow-rollback",
                manifest.epoch
            );
            return Err(Diagnostic::error(ROLLBACK, message).fact("file", shown).help(help).into());
        }
        let was = manifest.epoch;
        let parts = Parts::of(read, file)?;
        let mut installed = Self::of(&parts.verified.manifest, &parts).ok_or_else(|| {
            Failure::from(
                Diagnostic::error(NO_FLASH, format!("{shown} has no parts for the flash"))
                    .help("name a bundle that was made with `--media nor` or `--media all`, or leave out --installed"),
            )
        })?;
        if back {
            installed.input.version = format!("epoch {was}, left with --allow-rollback");
        }
        Ok(installed)
    }

    /// What `manifest` says of the flash.
    pub fn of(manifest: &Manifest, parts: &Parts) -> Option<Self> {
        let bytes = |name: &str| parts.bytes.get(name).map(Vec::as_slice);
        let input = Input {
            kind: InputKind::File,
            name: format!("{}-{}.tar", manifest.board, manifest.profile),
            origin: INSTALLED.to_owned(),
            sha256: Some(parts.verified.identity),
            size: None,
            version: String::new(),
        };
        let parts = installed(manifest, bytes);
        (!parts.is_empty()).then_some(Self { parts, input })
    }
}

/// What a bundle has in the flash.
#[derive(Debug)]
pub struct InFlash {
    /// Where everything lies.
    pub plan: LoadPlan,
    /// How the flash gets there.
    pub steps: FlashPlan,
    /// Configuration tree and boot script.
    pub texts: Texts,
    /// The script that does it.
    pub script: PartSource<'static>,
}

/// Plans the flash for the parts of `ram`, which says where each is fetched to.
///
/// The addresses of the images stand in the configuration tree, and the tree's own in the script: slots are chosen
/// in that order.
///
/// # Errors
/// What placing, rendering and dtc complain about; `N103`.
pub fn in_flash(
    project: &Project,
    ram: &LoadPlan,
    artifacts: &Artifacts,
    installed: Option<&Installed>,
    epoch: u32,
    ui: &Ui,
) -> Result<InFlash, Failure> {
    let (board, profile, known) = (&ram.board, &ram.profile, artifacts.known());
    let before = installed.map_or(&[][..], |installed| &installed.parts);
    let place = |second: &Second, texts: &Texts| -> Result<LoadPlan, Failure> {
        let mut plan = place::place_in_flash(board, profile, &known, second)?;
        plan.hypervisor = ram.hypervisor;
        let same = |part: &&Part| ram.parts.iter().any(|other| other.file == part.file);
        let facts = plan
            .parts
            .iter()
            .filter(same)
            .filter_map(|part| Some((part.file.clone(), ram.facts.get(&part.file)?.clone())));
        let made = texts
            .iter()
            .map(|(file, content)| (file.clone(), citrine_planner::image::ImageFacts::plain(content.len())));
        let facts: Vec<_> = facts.chain(made).collect();
        plan.facts.extend(facts);
        Ok(plan)
    };
    let mut second = Second::new();
    let mut texts = Texts::new();
    let first = place(&second, &texts)?;
    let (nor, slots) = bank(&first)?;
    let mut parts = Vec::new();
    let mut choose = |placed: Placed, signature: Option<Placed>, second: &mut Second| -> Result<(), Failure> {
        let is_second = are_in_second(nor, slots, before, &placed, signature.as_slice())?;
        for placed in [Some(placed), signature].into_iter().flatten() {
            let at = if is_second { placed.at.get() + slots.second } else { placed.at.get() };
            if is_second {
                second.insert(placed.name.clone());
            }
            parts.push(Placed { at: citrine_formats::addr::TruePhys(at), ..placed });
        }
        Ok(())
    };
    for part in &first.parts {
        let bytes = match part.role {
            Role::Hypervisor => &artifacts.hypervisor.bytes,
            Role::HardwareTree => &artifacts.hardware_tree.bytes,
            _ => match part.image.as_ref().and_then(|image| artifacts.images.get(image)) {
                Some(made) => &made.bytes,
                None => continue,
            },
        };
        choose(placed(part, &Content::plain(bytes.as_slice())), None, &mut second)?;
    }
    let mut plan = place(&second, &texts)?;
    let hv_dtb = Content::plain(configuration(project, &plan, &digests(&plan, artifacts), ui)?);
    for role in [Role::Configuration, Role::Script] {
        let content = match role {
            Role::Configuration => hv_dtb.clone(),
            _ => boot_script(project, &plan, epoch, ui)?,
        };
        if let Some(part) = first.part(role) {
            let placed = placed(part, &content);
            let signature = Some(role).filter(|role| *role == Role::Configuration);
            let signature = signature.and_then(|_| signature_of(&first, &placed.sha256));
            choose(placed, signature, &mut second)?;
        }
        add(&mut plan, &mut texts, role, content);
        plan = place(&second, &texts)?;
    }
    let steps = FlashPlan::of(nor, slots, before, parts);
    let read = project.template("flash.cmd.j2", ui)?;
    let text = render::flash_cmd(ram, &plan, &steps, &template(&read))?;
    let script = PartSource {
        name: FLASH_SCRIPT.to_owned(),
        role: Role::Script,
        slots: Vec::new(),
        entry: None,
        uncompressed: None,
        content: script_image(&plan, epoch, &text)?,
    };
    Ok(InFlash { plan, steps, texts, script })
}

/// The bank, and its slots: placement has refused a board without.
fn bank(plan: &LoadPlan) -> Result<(&Nor, &NorSlots), Failure> {
    let nor = plan.board.nor.as_ref();
    nor.and_then(|nor| Some((nor, nor.slots.as_ref()?)))
        .ok_or_else(|| Diagnostic::error(NO_FLASH, format!("{} has no flash", plan.board.name)).into())
}

fn placed(part: &Part, content: &Content<'_>) -> Placed {
    let pieces = content.pieces();
    Placed {
        name: part.file.clone(),
        role: part.role,
        at: part.load,
        size: content.len(),
        sha256: sha256(&pieces.concat()),
        crc32: Some(crc32(pieces)),
    }
}

/// The place of the signature over a plan's configuration tree, which may be made later.
fn signature_of(plan: &LoadPlan, tree: &Sha256) -> Option<Placed> {
    let (part, key) = (plan.part(Role::Signature)?, plan.profile.trust.as_ref()?);
    Some(Placed {
        name: part.file.clone(),
        role: part.role,
        at: part.load,
        size: signature::LEN as u64,
        sha256: signature_id(key, tree),
        crc32: None,
    })
}

/// The pieces of the bank's image: every part of `plan` that `bytes` has, by its name.
fn pieces<'b>(plan: &LoadPlan, bytes: impl Fn(&str) -> Option<[&'b [u8]; 2]>) -> Vec<Piece<'b>> {
    let base = plan.board.nor.as_ref().map_or(0, |nor| nor.span.base().get());
    plan.parts.iter().filter_map(|part| Some((part.load.get().checked_sub(base)?, bytes(&part.file)?))).collect()
}

/// Writes the image of the whole bank beside the bundle, in one step; one that is there already is left alone.
///
/// # Errors
/// `O101`.
pub fn publish_image(published: &Published, plan: &LoadPlan, bundle: &Assembled<'_>) -> Result<PathBuf, Failure> {
    let path = published.tar.with_extension("nor.img");
    let (nor, _) = bank(plan)?;
    let parts = || bundle.manifest.parts.iter().zip(&bundle.contents);
    let bytes = |name: &str| parts().find(|(part, _)| part.name == name).map(|(_, content)| content.pieces());
    let mut pieces = pieces(plan, bytes);
    let mut known = Comparison { old: File::open(&path).ok().map(BufReader::new) };
    if write_image(&mut known, nor.span.len(), &mut pieces).is_ok() && known.is_at_end() {
        return Ok(path);
    }
    let dir = path.parent().unwrap_or(Path::new("."));
    // With the bundle's own name, so that the next build sweeps what a killed one leaves.
    let name = published.dir.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let _lock = output::lock(dir)?;
    let mut write = || {
        let mut file = output::temporary(dir, &name)?;
        let mut out = BufWriter::with_capacity(1 << 20, file.as_file_mut());
        write_image(&mut out, nor.span.len(), &mut pieces)?;
        out.flush()?;
        drop(out);
        output::put(file, &path)
    };
    write().map_err(|error| cannot_write(&path, &error))?;
    Ok(path)
}

/// Writes the image of the whole bank to `out`.
///
/// # Errors
/// What writing returns.
pub fn write_bank(mut out: &mut dyn Write, plan: &LoadPlan, bundle: &Assembled<'_>) -> std::io::Result<()> {
    let Some(nor) = &plan.board.nor else { return Ok(()) };
    let parts = || bundle.manifest.parts.iter().zip(&bundle.contents);
    let bytes = |name: &str| parts().find(|(part, _)| part.name == name).map(|(_, content)| content.pieces());
    write_image(&mut out, nor.span.len(), &mut pieces(plan, bytes))
}

/// Takes bytes and compares them with a file's: an error at the first that differs.
struct Comparison {
    old: Option<BufReader<File>>,
}

impl Comparison {
    fn is_at_end(&mut self) -> bool {
        self.old.as_mut().is_some_and(|old| matches!(old.read(&mut [0]), Ok(0)))
    }
}

impl Write for Comparison {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let differs = || std::io::Error::from(std::io::ErrorKind::InvalidData);
        let old = self.old.as_mut().ok_or_else(differs)?;
        let mut there = vec![0; bytes.len()];
        old.read_exact(&mut there)?;
        if there == bytes { Ok(bytes.len()) } else { Err(differs()) }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The steps for people, one line each.
pub fn steps_text(steps: &FlashPlan) -> String {
    let count = steps.steps.len();
    let mut text =
        format!("flash: {count} steps, {} of {} parts are there already\n", steps.kept.len(), steps.parts.len());
    for (index, step) in steps.steps.iter().enumerate() {
        let what = match step.action {
            flash::Action::Write { part, from, len } => {
                let name = steps.parts.get(part).map_or("", |part| part.name.as_str());
                format!("{name}, {len} bytes from {from}")
            }
            flash::Action::Erase => "erased: from here on the new system starts".to_owned(),
        };
        text.push_str(&format!("  {:>3}  {}  {what}\n", index + 1, step.sectors));
    }
    text
}
