//! Who owns which bytes of RAM, and of the flash if the parts lie there, at which boot stage: [`claims`], the model that overlap rules judge.
//!
//! The stages follow Topaz's boot sequence: U-Boot loads the parts; `bootm` copies the hypervisor to 0 and
//! the hardware tree below its boot map; the hypervisor frees the other CPUs from U-Boot's spin loop; it
//! moves itself into its own memory; it copies the images into the partitions; the partitions run (and a
//! restart reads the images again).

use std::fmt;
use std::ops::RangeInclusive;

use citrine_formats::addr::{Span, TruePhys};
use citrine_formats::manifest::{Media, Role};

use crate::board::{Nor, NorSlots, Until};
use crate::diag::Label;
use crate::plan::{AreaOwner, Decided, LoadPlan};

/// A moment of the boot, in order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Stage {
    /// U-Boot loads the parts and checks them.
    Load,
    /// `bootm` has copied the hypervisor and the hardware tree.
    Bootm,
    /// The hypervisor runs at 0 and frees the other CPUs.
    Release,
    /// The hypervisor moves into its own memory.
    Relocate,
    /// The hypervisor copies the images into the partitions.
    GuestLoad,
    /// The partitions run.
    Run,
}

impl Stage {
    /// All of them, in order.
    pub const ALL: [Self; 6] = [Self::Load, Self::Bootm, Self::Release, Self::Relocate, Self::GuestLoad, Self::Run];

    /// Its name in commands, tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Bootm => "bootm",
            Self::Release => "release",
            Self::Relocate => "relocate",
            Self::GuestLoad => "guest-load",
            Self::Run => "run",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Load => "while U-Boot loads the parts",
            Self::Bootm => "when `bootm` copies the hypervisor and the hardware tree",
            Self::Release => "while the hypervisor starts the other CPUs",
            Self::Relocate => "when the hypervisor moves into its own memory",
            Self::GuestLoad => "while the partitions' images are copied",
            Self::Run => "while the partitions run",
        })
    }
}

/// What a claim is of, in the order in which [`claims`] lists them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Subject {
    /// The board's boot loader memory with this index.
    Loader(usize),
    /// The flash with this index that belongs to others.
    Reserved(usize),
    /// The part with this index.
    Part(usize),
    /// The flash in which the part with this index would lie in the other set of slots.
    Twin(usize),
    /// The hypervisor where `bootm` copies it.
    LowHypervisor,
    /// The hardware tree where `bootm` copies it.
    LowTree,
    /// The memory area with this index.
    Area(usize),
}

/// What kind of claim it is: rules treat them differently.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClaimKind {
    /// Real bytes.
    Bytes,
    /// Room that a part may grow into; real bytes may still fit.
    Window,
    /// The boot loader's own memory.
    Loader,
    /// Flash that belongs to others.
    Reserved,
    /// A memory area of the configuration.
    Area,
}

/// One owner of a range of RAM over some stages.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The owner, for a sentence: `kernel.uImage`, `the memory of p1`.
    pub owner: String,
    /// What it is of. Claims of one subject never conflict: the same thing seen twice.
    pub subject: Subject,
    /// Where.
    pub span: Span<TruePhys>,
    /// When.
    pub stages: RangeInclusive<Stage>,
    /// What kind.
    pub kind: ClaimKind,
    /// The line that decided it.
    pub label: Label,
}

/// Bytes that the hypervisor owns from 0 until it has moved: its text mapping, BSS and stacks. That it needs
/// no more is a rule of its own (U102).
pub const HV_LOW_SIZE: u64 = 4 << 20;
/// Bytes that a part is taken to have before it is built: its first page.
const UNKNOWN_SIZE: u64 = 4096;
/// Bytes that a hardware tree is taken to have before it is built.
const TYPICAL_TREE: u64 = 64 << 10;
const PAGE: u64 = 4096;

/// Every claim of the plan.
pub fn claims(plan: &LoadPlan) -> Vec<Claim> {
    let mut claims = Vec::new();
    for (index, memory) in plan.board.uboot.memory.iter().enumerate() {
        let last = match memory.until {
            Until::Jump => Stage::Bootm,
            Until::Release => Stage::Release,
        };
        claims.push(Claim {
            owner: memory.name.clone(),
            subject: Subject::Loader(index),
            span: memory.span,
            stages: Stage::Load..=last,
            kind: ClaimKind::Loader,
            label: plan.board.places.label(&format!("uboot/memory/{index}/base"), "the boot loader's own memory"),
        });
    }

    let nor = plan.board.nor.as_ref().filter(|_| plan.media == Media::Nor);
    if let Some((nor, slots)) = nor.and_then(|nor| Some((nor, nor.slots.as_ref()?))) {
        in_flash(plan, nor, slots, &mut claims);
    }
    let loaded = plan.parts.iter().enumerate().filter(|_| plan.media == Media::Ram);
    for (index, part) in loaded {
        let last = match part.role {
            Role::Script => Stage::Load,
            Role::Hypervisor | Role::HardwareTree => Stage::Bootm,
            Role::Configuration | Role::Signature => Stage::GuestLoad,
            // A restarted partition reads its images again.
            _ => Stage::Run,
        };
        let size = plan.size_of(part);
        let mut claim = |kind, decided: &Decided, len, text: String| {
            if let Ok(span) = Span::new(part.load, len) {
                claims.push(Claim {
                    owner: part.file.clone(),
                    subject: Subject::Part(index),
                    span,
                    stages: Stage::Load..=last,
                    kind,
                    label: plan.label(decided, text),
                });
            }
        };
        let len = size.unwrap_or_else(|| part.window.min(UNKNOWN_SIZE));
        claim(ClaimKind::Bytes, &part.decided, len, format!("{} is loaded at {}", part.file, part.load));
        if part.window > len {
            claim(
                ClaimKind::Window,
                part.window_decided.as_ref().unwrap_or(&part.decided),
                part.window,
                format!("{} may have {:#x} bytes", part.file, part.window),
            );
        }
    }

    claims.push(Claim {
        owner: "the hypervisor before it has moved".to_owned(),
        subject: Subject::LowHypervisor,
        span: Span::between(TruePhys(0), TruePhys(HV_LOW_SIZE)),
        stages: Stage::Bootm..=Stage::Relocate,
        kind: ClaimKind::Bytes,
        label: plan.board.places.label("slots/hypervisor", "`bootm` copies it from here to 0"),
    });

    let tree = plan.part(Role::HardwareTree);
    let tree_len = tree.and_then(|part| plan.size_of(part)).unwrap_or(TYPICAL_TREE) + plan.board.uboot.tree_pad;
    let bootmap = plan.board.uboot.bootmap;
    let tree_base = bootmap.saturating_sub(tree_len) / PAGE * PAGE;
    claims.push(Claim {
        owner: "the hardware tree after `bootm` has moved it".to_owned(),
        subject: Subject::LowTree,
        span: Span::between(TruePhys(tree_base), TruePhys(bootmap)),
        stages: Stage::Bootm..=Stage::Relocate,
        kind: ClaimKind::Bytes,
        label: plan.board.places.label("uboot/bootmap", "it is moved to just below this address"),
    });

    for (index, area) in plan.areas.iter().enumerate() {
        let (owner, first) = match area.owner {
            AreaOwner::Hypervisor => ("the hypervisor's memory".to_owned(), Stage::Relocate),
            AreaOwner::Partition(owner) => (format!("the memory of {}", plan.partitions[owner].name), Stage::GuestLoad),
            AreaOwner::Shared(shared) => {
                (format!("the shared area {}", plan.profile.shared[shared].name), Stage::GuestLoad)
            }
        };
        claims.push(Claim {
            label: plan.area_label(area, format!("{owner} is {}", area.span)),
            owner,
            subject: Subject::Area(index),
            span: area.span,
            stages: first..=Stage::Run,
            kind: ClaimKind::Area,
        });
    }
    claims
}

/// The flash: what belongs to others, and every part in both sets of slots, since the next change may need the other.
/// It is erased by sectors, so a part owns all of its own.
fn in_flash(plan: &LoadPlan, nor: &Nor, slots: &NorSlots, claims: &mut Vec<Claim>) {
    for (index, other) in nor.reserved.iter().enumerate() {
        claims.push(Claim {
            owner: other.name.clone(),
            subject: Subject::Reserved(index),
            span: nor.sectors(other.span),
            stages: Stage::Load..=Stage::Run,
            kind: ClaimKind::Reserved,
            label: plan.board.places.label(&format!("nor/reserved/{index}/base"), "flash that belongs to others"),
        });
    }
    for (index, part) in plan.parts.iter().enumerate() {
        let base = part.load.0;
        let twin = if slots.area.contains(part.load) { base + slots.second } else { base.saturating_sub(slots.second) };
        let places = [
            (Subject::Part(index), base, part.file.clone()),
            (Subject::Twin(index), twin, format!("the other slot of {}", part.file)),
        ];
        for (subject, base, owner) in places {
            let mut claim = |kind, decided: &Decided, len, text: String| {
                if let Ok(span) = Span::new(TruePhys(base), len) {
                    let (span, stages) = (nor.sectors(span), Stage::Load..=Stage::Run);
                    claims.push(Claim {
                        owner: owner.clone(),
                        subject,
                        span,
                        stages,
                        kind,
                        label: plan.label(decided, text),
                    });
                }
            };
            let len = plan.size_of(part).unwrap_or_else(|| part.window.min(UNKNOWN_SIZE));
            claim(ClaimKind::Bytes, &part.decided, len, format!("{owner} is at {}", TruePhys(base)));
            if part.window > len {
                let decided = part.window_decided.as_ref().unwrap_or(&part.decided);
                claim(ClaimKind::Window, decided, part.window, format!("{owner} may have {:#x} bytes", part.window));
            }
        }
    }
}

/// The first stage at which both claims hold, if there is one.
pub fn common_stage(a: &Claim, b: &Claim) -> Option<Stage> {
    let first = *a.stages.start().max(b.stages.start());
    let last = *a.stages.end().min(b.stages.end());
    (first <= last).then_some(first)
}
