//! What a program may touch, and where: its own code, pages of data, addresses at which nothing is.
//!
//! No address is ever translated by two entries at once, since which of them counts is undefined: each page has
//! its own way of its set, or its own slot.

use core::sync::atomic::AtomicU32;

use citrine_guests::tlb::{COHERENT, Entry, SIZE_4K, Slot, permit};

/// Where pages of 4 KiB are translated by entries of TLB0, in address space 0, one set each.
pub const REGION: u32 = 0x6000_0000;
/// Its pages: four of code for every process, four of code for one; as many of data.
pub const PAGES: u32 = 16;
/// The first page of data.
pub const DATA: u32 = 8;
/// The page of data that is not executable, whatever else happens to the others.
pub const NO_CODE: u32 = 14;
/// Where entries of TLB1 of several sizes are written, one slot each.
pub const LARGE: u32 = 0x6200_0000;
/// How far these are from one another.
pub const LARGE_STEP: u32 = 0x10_0000;
/// The first of their slots, and how many there are.
pub const LARGE_SLOT: u32 = 40;
pub const LARGE_SLOTS: u32 = 4;
/// Nothing is ever translated here.
pub const VOID: u32 = 0x6300_0000;
/// Guest-physical address behind every partition's memory.
pub const OUTSIDE: u32 = 0x2000_0000;
/// Processes.
pub const PROCESSES: [u32; 3] = [5, 6, 7];
/// Pages of code of a program.
pub const CODE_PAGES: u32 = 4;
/// Words of a page.
pub const PAGE_WORDS: usize = 1024;

/// A program's code.
#[repr(C, align(4096))]
pub struct Code(pub [AtomicU32; PAGE_WORDS * CODE_PAGES as usize]);
pub static CODE: Code = Code([const { AtomicU32::new(0) }; PAGE_WORDS * CODE_PAGES as usize]);

/// What its data pages mean: as aligned as the largest entry that leads here.
#[repr(C, align(65536))]
pub struct Frames(pub [[AtomicU32; PAGE_WORDS]; FRAMES as usize]);
pub const FRAMES: u32 = 8;
pub static MEMORY: Frames = Frames([const { [const { AtomicU32::new(0) }; PAGE_WORDS] }; FRAMES as usize]);

/// By which entry a program's code is found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The one that maps the first GiB.
    Low,
    /// Pages of TLB0 for every process.
    Global,
    /// Pages of TLB0 for one process.
    Private,
}

impl Kind {
    /// Where the code is.
    pub fn code(self) -> u32 {
        match self {
            Self::Low => CODE.0.as_ptr() as usize as u32,
            Self::Global => REGION,
            Self::Private => REGION + 0x1000 * CODE_PAGES,
        }
    }
}

/// The page of the region at `ea`.
pub const fn page_of(ea: u32) -> Option<u32> {
    let page = ea.wrapping_sub(REGION) >> 12;
    if page < PAGES { Some(page) } else { None }
}

/// Effective address of a page of the region.
pub const fn address_of(page: u32) -> u32 {
    REGION + 0x1000 * page
}

/// Guest-physical address of a frame of data.
pub fn frame(number: u32) -> u32 {
    MEMORY.0.as_ptr() as usize as u32 + 0x1000 * (number % FRAMES)
}

/// Whether a page is for one process.
pub const fn is_private(page: u32) -> bool {
    page & CODE_PAGES != 0
}

/// The way that a page of the region has in its set, for a process.
pub const fn way_of(page: u32, process: u32) -> u32 {
    if is_private(page) { process & 3 } else { 0 }
}

/// The translation that a miss finds for a page of the region; none for every other page of data.
pub fn translation(page: u32, process: u32) -> Option<(Slot, Entry)> {
    let is_code = page < DATA;
    if !is_code && page & 1 != 0 {
        return None;
    }
    let gpa = if is_code { Kind::Low.code() + 0x1000 * (page % CODE_PAGES) } else { frame(page) };
    let permissions = match page {
        10 => permit::KERNEL,
        12 => permit::ALL & !(permit::UW | permit::SW),
        NO_CODE => permit::SR | permit::UR,
        _ => permit::ALL,
    };
    let entry = Entry {
        ea: address_of(page),
        gpa: gpa.into(),
        tsize: SIZE_4K,
        tid: if is_private(page) { process } else { 0 },
        space: false,
        protected: false,
        attributes: COHERENT,
        permissions,
    };
    Some((Slot::Page(way_of(page, process)), entry))
}
