//! TLB1: which effective address leads where, as values; [`crate::cpu::tlbwe`] makes them true.
//!
//! The hypervisor's effective addresses, all above what a guest's programs use (0 to 0xbfff_ffff):
//!
//! | from | slots | what |
//! |---|---|---|
//! | 0xc000_0000 | 8..11 | three 256 MiB windows on true-physical memory, replaced on demand |
//! | 0xf000_0000 | 0, 1 | the image, 4 MiB (written by `entry.s`) |
//! | 0xfc00_0000 | 4 | the interrupt controller, 256 KiB |
//! | 0xfd00_0000 | 5 | a page of the boot loader's spin tables |
//! | 0xfe00_0000 | 2 | the serial line |
//! | 0xffff_0000 | 3 | this CPU's page ([`crate::percpu`]) |
//! | | 16..63 | the guest's large pages ([`GUEST_SLOTS`]) |
//! | | 63 | for a moment: the image in address space 1 (`entry.s`) |

use citrine_formats::addr::TruePhys;

/// True-physical addresses have 36 bits (e500mc reference manual §6.1).
pub const PHYSICAL_BITS: u32 = 36;

/// Effective address of the image.
pub const IMAGE: u32 = 0xf000_0000;
/// Effective address of the page with the serial line's registers.
pub const SERIAL: u32 = 0xfe00_0000;
/// Effective address of a page of spin tables.
pub const SPIN: u32 = 0xfd00_0000;
/// Effective address of the interrupt controller.
pub const MPIC: u32 = 0xfc00_0000;
/// Effective address of this CPU's page.
pub const PERCPU: u32 = 0xffff_0000;
/// Slots of TLB1 for the guest.
pub const GUEST_SLOTS: core::ops::Range<u8> = 16..63;
/// Effective address of the first window.
pub const WINDOWS: u32 = 0xc000_0000;
/// How many windows.
pub const WINDOW_COUNT: usize = 3;

/// What one entry maps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The entry's number in TLB1.
    pub slot: u8,
    /// Effective address, a multiple of the size.
    pub ea: u32,
    /// True-physical address, a multiple of the size.
    pub pa: TruePhys,
    /// Size.
    pub size: PageSize,
    /// What is there.
    pub what: What,
}

/// Sizes of TLB1 entries: the number is MAS1[TSIZE], 4^n KiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageSize {
    /// 4 KiB.
    K4 = 1,
    /// 64 KiB.
    K64 = 3,
    /// 256 KiB.
    K256 = 4,
    /// 256 MiB.
    M256 = 9,
}

impl PageSize {
    /// The size in bytes.
    pub const fn bytes(self) -> u32 {
        1024 << (2 * self as u32)
    }
}

/// What is mapped. Nothing that is mapped by these entries can be executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// Memory, kept coherent among the CPUs.
    Memory,
    /// Device registers: no caching, no guessing.
    Device,
}

/// The MMU assist registers of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mas {
    /// Which entry.
    pub mas0: u32,
    /// Valid, protected, size.
    pub mas1: u32,
    /// Effective page and attributes.
    pub mas2: u32,
    /// Real page, lower half, and permissions.
    pub mas3: u32,
    /// Real page, upper half.
    pub mas7: u32,
}

impl Entry {
    /// The registers that make this entry; `None` when an address is not aligned or has too many bits.
    pub fn mas(&self) -> Option<Mas> {
        let mask = self.size.bytes() - 1;
        let (high, low) = ((self.pa.0 >> 32) as u32, self.pa.0 as u32);
        if self.pa.0 >> PHYSICAL_BITS != 0 || (low | self.ea) & mask != 0 {
            return None;
        }
        Some(Mas {
            mas0: 1 << 28 | u32::from(self.slot) << 16,
            mas1: 0xc000_0000 | (self.size as u32) << 8,
            mas2: self.ea
                | match self.what {
                    What::Memory => 0x4,
                    What::Device => 0xa,
                },
            // SW and SR: for the supervisor alone, not to be executed.
            mas3: low | 0x5,
            mas7: high,
        })
    }
}

/// The page of `size` that holds an address, and the address's place in it.
pub fn page(at: TruePhys, size: PageSize) -> (TruePhys, u32) {
    let offset = at.0 & u64::from(size.bytes() - 1);
    (TruePhys(at.0 - offset), offset as u32)
}

/// Which window shows which 256 MiB of memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Windows {
    pages: [Option<TruePhys>; WINDOW_COUNT],
    next: usize,
    changes: u32,
}

impl Windows {
    /// No window shows anything.
    pub const fn new() -> Self {
        Self { pages: [None; WINDOW_COUNT], next: 0, changes: 0 }
    }

    /// How often a window has been replaced: what was reached through one is there for as long as this stays.
    pub const fn changes(&self) -> u32 {
        self.changes
    }

    /// The effective address for a true-physical one, and the entry to write first if there is one.
    pub fn reach(&mut self, at: TruePhys) -> (u32, Option<Entry>) {
        let (pa, offset) = page(at, PageSize::M256);
        let known = self.pages.iter().position(|page| *page == Some(pa));
        let index = known.unwrap_or(self.next);
        let ea = WINDOWS + index as u32 * PageSize::M256.bytes();
        if known.is_some() {
            return (ea + offset, None);
        }
        self.pages[index] = Some(pa);
        self.changes = self.changes.wrapping_add(1);
        self.next = (index + 1) % WINDOW_COUNT;
        (ea + offset, Some(Entry { slot: 8 + index as u8, ea, pa, size: PageSize::M256, what: What::Memory }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_encoded_as_the_manual_says() {
        let entry = Entry { slot: 2, ea: SERIAL, pa: TruePhys(0xf_e000_4000), size: PageSize::K4, what: What::Device };
        let mas = Mas { mas0: 0x1002_0000, mas1: 0xc000_0100, mas2: 0xfe00_000a, mas3: 0xe000_4005, mas7: 0xf };
        assert_eq!(entry.mas(), Some(mas));
        assert_eq!(Entry { pa: TruePhys(0xf_e000_4500), ..entry }.mas(), None);
        assert_eq!(Entry { pa: TruePhys(0x10_0000_0000), ..entry }.mas(), None);
        assert_eq!(Entry { size: PageSize::K64, ..entry }.mas(), None);
        assert_eq!((PageSize::K4.bytes(), PageSize::K64.bytes(), PageSize::M256.bytes()), (4096, 64 << 10, 256 << 20));
    }

    #[test]
    fn a_window_is_replaced_when_all_are_in_use() {
        let mut windows = Windows::default();
        let at = |page: u64| TruePhys(page << 28 | 0x123);
        for (page, index) in [(0, 0u32), (7, 1), (0xf0, 2)] {
            let (ea, entry) = windows.reach(at(page));
            assert_eq!(ea, 0xc000_0123 + (index << 28));
            assert_eq!(entry.map(|entry| (entry.slot, entry.pa)), Some((8 + index as u8, TruePhys(page << 28))));
            assert!(entry.is_some_and(|entry| entry.mas().is_some()));
        }
        assert_eq!(windows.reach(at(7)), (0xd000_0123, None));
        assert_eq!(windows.reach(at(1)).0, 0xc000_0123);
        assert!(windows.reach(at(0)).1.is_some(), "page 0 has been replaced");
    }
}
