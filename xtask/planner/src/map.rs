//! [`MemoryMap`]: the plan as people review it — who owns which bytes at each boot stage, how far each image may
//! grow, and what each partition sees where. One more view of [`LoadPlan`]: addresses come from there and from
//! [`claims`].
//!
//! [`table`], [`json`] and [`svg`] are its forms.

pub mod json;
mod room;
pub mod svg;
pub mod table;
#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;

use citrine_formats::addr::{Address, GuestPhys, Size, Span, TruePhys};

use crate::plan::{AreaOwner, LoadPlan, PartitionPlan};
use crate::rules::guest::pieces;
use crate::stages::{Claim, ClaimKind, Stage, Subject, claims};
pub use room::headroom;

/// Bytes of a guest's image that has not been built yet: enough to be seen.
const UNKNOWN_SIZE: u64 = 4096;

/// Whose bytes they are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Owner {
    /// The hypervisor's, or parts for it.
    Hypervisor,
    /// The boot loader's, or parts for it.
    BootLoader,
    /// The partition's with this index, or parts for it.
    Partition(usize),
    /// Several partitions', by their indices.
    Several(Vec<usize>),
    /// Nobody's: the board's registers and flash.
    Board,
}

impl Owner {
    /// The owner for people: `hypervisor`, `U-Boot`, `p1, p2`.
    pub fn name(&self, plan: &LoadPlan) -> String {
        let name = |index: &usize| plan.partitions.get(*index).map_or("", |partition| partition.name.as_str());
        match self {
            Self::Hypervisor => "hypervisor".to_owned(),
            Self::BootLoader => "U-Boot".to_owned(),
            Self::Partition(index) => name(index).to_owned(),
            Self::Several(indices) => indices.iter().map(name).collect::<Vec<_>>().join(", "),
            Self::Board => "board".to_owned(),
        }
    }
}

/// What a region is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The boot loader's own memory.
    Loader,
    /// A part where U-Boot loads it.
    Part,
    /// A part where `bootm` copies it.
    Copy,
    /// A memory area of the configuration.
    Area,
    /// The flash bank.
    Flash,
    /// The SoC's registers.
    Registers,
    /// An image in a partition, as it is used there.
    Image,
    /// The window of the guest tree.
    Tree,
}

impl Kind {
    /// Its name in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Loader => "loader",
            Self::Part => "part",
            Self::Copy => "copy",
            Self::Area => "area",
            Self::Flash => "flash",
            Self::Registers => "registers",
            Self::Image => "image",
            Self::Tree => "tree",
        }
    }
}

/// Bytes behind a region that it may grow into.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Room<A: Address> {
    /// Where; empty when nothing is left.
    pub span: Span<A>,
    /// What ends it, for a sentence: `hv.uImage`, `the end of the image area`.
    pub until: String,
}

/// A range of one address space with an owner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Region<A: Address> {
    /// What lies there, for a sentence.
    pub name: String,
    /// Whose it is.
    pub owner: Owner,
    /// What it is.
    pub kind: Kind,
    /// Where.
    pub span: Span<A>,
    /// Whether the length is real; a part that has not been built has its first page.
    pub known: bool,
    /// When.
    pub stages: RangeInclusive<Stage>,
    /// How far it may grow, for what can grow.
    pub room: Option<Room<A>>,
}

impl<A: Address> Region<A> {
    /// Whether it is there at one of `stages`.
    pub fn is_at(&self, stages: &[Stage]) -> bool {
        stages.iter().any(|stage| self.stages.contains(stage))
    }

    /// Its size for people.
    pub fn size(&self) -> String {
        if self.known { Size(self.span.len()).to_string() } else { "size not known".to_owned() }
    }

    /// Bytes that it may still have.
    pub fn headroom(&self) -> Option<u64> {
        let room = self.room.as_ref()?;
        Some(Span::between(if self.known { self.span.end() } else { self.span.base() }, room.span.end()).len())
    }

    /// How far it may grow, for a sentence that begins with its name.
    pub fn may_grow(&self) -> Option<String> {
        let (bytes, until) = (self.headroom()?, &self.room.as_ref()?.until);
        Some(match (self.known, bytes) {
            (true, 0) => format!("may not grow: {until} follows"),
            (true, bytes) => format!("may grow {} before it reaches {until}", Size(bytes)),
            (false, bytes) => format!("may have {} before it reaches {until}", Size(bytes)),
        })
    }
}

/// Something that a partition sees, and where it really is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// Where the partition sees it.
    pub region: Region<GuestPhys>,
    /// The true-physical address of its first byte; `None` where no memory is mapped.
    pub at: Option<TruePhys>,
}

/// A piece of memory that has no owner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gap {
    /// Where.
    pub span: Span<TruePhys>,
    /// Whether it lies in the image area, which partitions never get.
    pub reserved: bool,
}

/// Two regions that hold the same bytes at the same time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Conflict {
    /// The bytes.
    pub span: Span<TruePhys>,
    /// When.
    pub stages: RangeInclusive<Stage>,
    /// Indices of the two in [`MemoryMap::regions`].
    pub regions: [usize; 2],
}

/// The plan's memory map.
#[derive(Clone, Debug)]
pub struct MemoryMap<'p> {
    /// What it is a view of.
    pub plan: &'p LoadPlan,
    /// True-physical memory, by address.
    pub regions: Vec<Region<TruePhys>>,
    /// What the board has besides memory: flash and registers, by address.
    pub devices: Vec<Region<TruePhys>>,
    /// What each partition sees, in the plan's order: its memory and shared areas first, then what lies in them.
    pub guests: Vec<Vec<Seen>>,
}

impl<'p> MemoryMap<'p> {
    /// The memory map of a plan, whether the plan is right or wrong.
    pub fn of(plan: &'p LoadPlan) -> Self {
        let claims = claims(plan);
        let mut regions: Vec<Region<TruePhys>> =
            claims.iter().filter(|c| c.kind != ClaimKind::Window).map(|c| region(plan, &claims, c)).collect();
        regions.sort_by_key(|region| (region.span.base(), *region.stages.start()));
        let guests = plan.partitions.iter().enumerate().map(|(index, partition)| seen(plan, index, partition));
        Self { plan, regions, devices: devices(plan), guests: guests.collect() }
    }

    /// Memory that nobody owns at any of `stages` and no image may grow into, by address.
    pub fn gaps(&self, stages: &[Stage]) -> Vec<Gap> {
        let mut taken: Vec<Span<TruePhys>> = Vec::new();
        for region in self.regions.iter().filter(|region| region.is_at(stages)) {
            taken.push(region.span);
            taken.extend(region.room.as_ref().map(|room| room.span));
        }
        taken.sort();
        let area = self.plan.board.image_area;
        let mut gaps = Vec::new();
        for bank in &self.plan.board.ram {
            let mut free = bank.base();
            let ends = taken.iter().copied().chain([Span::between(bank.end(), bank.end())]);
            for span in ends {
                let gap = Span::between(free, span.base().min(bank.end()));
                free = free.max(span.end());
                let (before, behind) = (gap.end().min(area.base()), gap.base().max(area.end()));
                let pieces = [
                    (Some(Span::between(gap.base(), before)), false),
                    (gap.intersection(&area), true),
                    (Some(Span::between(behind, gap.end())), false),
                ];
                let pieces = pieces.into_iter().filter_map(|(span, reserved)| Some(Gap { span: span?, reserved }));
                gaps.extend(pieces.filter(|gap| !gap.span.is_empty()));
            }
        }
        gaps
    }

    /// Every two regions that hold the same bytes at the same time; [`crate::rules`] says what to do about them.
    pub fn conflicts(&self) -> Vec<Conflict> {
        let mut found = Vec::new();
        for (first, a) in self.regions.iter().enumerate() {
            for (second, b) in self.regions.iter().enumerate().skip(first + 1) {
                let stages = *a.stages.start().max(b.stages.start())..=*a.stages.end().min(b.stages.end());
                if let Some(span) = a.span.intersection(&b.span).filter(|_| !stages.is_empty()) {
                    found.push(Conflict { span, stages, regions: [first, second] });
                }
            }
        }
        found
    }

    /// Whether a memory bank holds the first byte of `span`.
    pub fn is_memory(&self, span: &Span<TruePhys>) -> bool {
        self.plan.board.ram.iter().any(|bank| bank.contains(span.base()))
    }
}

fn region(plan: &LoadPlan, claims: &[Claim], claim: &Claim) -> Region<TruePhys> {
    let (owner, kind) = match claim.subject {
        Subject::Loader(_) => (Owner::BootLoader, Kind::Loader),
        Subject::Reserved(_) => (Owner::Board, Kind::Flash),
        Subject::Part(part) | Subject::Twin(part) => (part_owner(plan, part), Kind::Part),
        Subject::LowHypervisor | Subject::LowTree => (Owner::Hypervisor, Kind::Copy),
        Subject::Area(area) => (area_owner(plan, area), Kind::Area),
    };
    let part = match claim.subject {
        Subject::Part(index) => plan.parts.get(index).map(|part| (index, part)),
        _ => None,
    };
    Region {
        name: claim.owner.clone(),
        owner,
        kind,
        span: claim.span,
        known: part.is_none_or(|(_, part)| plan.size_of(part).is_some()),
        stages: claim.stages.clone(),
        room: part.map(|(index, _)| room::of_part(plan, claims, index, claim)),
    }
}

fn part_owner(plan: &LoadPlan, part: usize) -> Owner {
    use citrine_formats::manifest::Role;
    let uses = |p: &PartitionPlan| p.kernel.part == part || p.rootfs.as_ref().is_some_and(|r| r.part == part);
    let users: Vec<usize> = plan.partitions.iter().enumerate().filter(|(_, p)| uses(p)).map(|(at, _)| at).collect();
    match (users.as_slice(), plan.parts.get(part).map(|part| part.role)) {
        (&[only], _) => Owner::Partition(only),
        ([], Some(Role::Script)) => Owner::BootLoader,
        ([], _) => Owner::Hypervisor,
        _ => Owner::Several(users),
    }
}

fn area_owner(plan: &LoadPlan, area: usize) -> Owner {
    let sees = |p: &PartitionPlan| p.shared.iter().any(|(shared, _)| *shared == area);
    match plan.areas.get(area).map(|area| area.owner) {
        Some(AreaOwner::Partition(index)) => Owner::Partition(index),
        Some(AreaOwner::Shared(_)) => {
            Owner::Several(plan.partitions.iter().enumerate().filter(|(_, p)| sees(p)).map(|(at, _)| at).collect())
        }
        _ => Owner::Hypervisor,
    }
}

fn devices(plan: &LoadPlan) -> Vec<Region<TruePhys>> {
    let device = |name: &str, kind, span| Region {
        name: name.to_owned(),
        owner: Owner::Board,
        kind,
        span,
        known: true,
        stages: Stage::Load..=Stage::Run,
        room: None,
    };
    let nor = plan.board.nor.as_ref().map(|nor| device("NOR flash", Kind::Flash, nor.span));
    let ccsr = device("the SoC's registers (CCSR)", Kind::Registers, plan.board.ccsr);
    let mut devices: Vec<_> = nor.into_iter().chain([ccsr]).collect();
    devices.sort_by_key(|device| device.span.base());
    devices
}

/// What a partition sees.
fn seen(plan: &LoadPlan, index: usize, partition: &PartitionPlan) -> Vec<Seen> {
    let own = (partition.memory, GuestPhys(0));
    let mapped = std::iter::once(own).chain(partition.shared.iter().copied());
    let maps: Vec<(Region<GuestPhys>, TruePhys)> = mapped
        .filter_map(|(area, guest)| {
            let place = plan.areas.get(area)?;
            let region = Region {
                name: match place.owner {
                    AreaOwner::Shared(shared) => format!("the shared area {}", plan.profile.shared.get(shared)?.name),
                    _ => "its memory".to_owned(),
                },
                owner: area_owner(plan, area),
                kind: Kind::Area,
                span: Span::new(guest, place.span.len()).ok()?,
                known: true,
                stages: Stage::GuestLoad..=Stage::Run,
                room: None,
            };
            Some((region, place.span.base()))
        })
        .collect();
    let at = |guest: GuestPhys| {
        let (map, base) = maps.iter().find(|(map, _)| map.span.contains(guest))?;
        Some(TruePhys(base.get() + (guest.get() - map.span.base().get())))
    };

    let known = pieces(plan, partition);
    let mut inside: Vec<Region<GuestPhys>> = Vec::new();
    let mut push = |name: &str, kind, span, known| {
        let (owner, stages) = (Owner::Partition(index), Stage::GuestLoad..=Stage::Run);
        inside.push(Region { name: name.to_owned(), owner, kind, span, known, stages, room: None });
    };
    for piece in &known {
        push(piece.name, if piece.image.is_some() { Kind::Image } else { Kind::Tree }, piece.span, true);
    }
    let images = [("kernel", "the kernel", Some(&partition.kernel))];
    for (key, name, image) in images.into_iter().chain([("rootfs", "the root file system", partition.rootfs.as_ref())])
    {
        let is_known = known.iter().any(|piece| piece.image == Some(key));
        if let Some(image) = image.filter(|_| !is_known)
            && let Ok(span) = Span::new(image.guest, UNKNOWN_SIZE)
        {
            push(name, Kind::Image, span, false);
        }
    }
    inside.sort_by_key(|region| region.span.base());
    room::of_images(&mut inside, maps.first().map(|(memory, _)| memory.span));
    let shown = |region: Region<GuestPhys>| Seen { at: at(region.span.base()), region };
    let mut all: Vec<Seen> = maps.iter().map(|(map, base)| Seen { region: map.clone(), at: Some(*base) }).collect();
    all.extend(inside.into_iter().map(shown));
    all
}
