//! One TLB entry, in the fields of the MMU assist registers.

use citrine_formats::addr::GuestPhys;

/// Fields of the MMU assist registers (EREF §6.5.3).
pub mod mas {
    /// MAS0: TLB1 instead of TLB0.
    pub const TLBSEL: u32 = 1 << 28;
    /// MAS0: shift of the entry: in TLB0 the way, in TLB1 the number.
    pub const ESEL_SHIFT: u32 = 16;
    /// MAS0: way that is to be replaced next in this set of TLB0.
    pub const NV: u32 = 0x3;
    /// MAS1: valid.
    pub const V: u32 = 1 << 31;
    /// MAS1: protected from invalidation.
    pub const IPROT: u32 = 1 << 30;
    /// MAS1 and MAS6: 14 bits of process identity.
    pub const TID: u32 = 0x3fff_0000;
    /// Shift of [`TID`].
    pub const TID_SHIFT: u32 = 16;
    /// MAS1: address space.
    pub const TS: u32 = 1 << 12;
    /// MAS1 and MAS4: size, 4^n KiB.
    pub const TSIZE: u32 = 0xf00;
    /// Shift of [`TSIZE`].
    pub const TSIZE_SHIFT: u32 = 8;
    /// MAS2: effective page number; MAS3: real page number.
    pub const PAGE: u32 = 0xffff_f000;
    /// MAS2 and MAS4: X0, X1 and [`WIMGE`].
    pub const ATTRIBUTES: u32 = 0x7f;
    /// MAS2: write-through, cache-inhibited, coherent, guarded, little-endian.
    pub const WIMGE: u32 = 0x1f;
    /// MAS2: kept coherent.
    pub const M: u32 = 1 << 2;
    /// MAS3: user execute.
    pub const UX: u32 = 1 << 5;
    /// MAS3: supervisor execute.
    pub const SX: u32 = 1 << 4;
    /// MAS3: user write.
    pub const UW: u32 = 1 << 3;
    /// MAS3: supervisor write.
    pub const SW: u32 = 1 << 2;
    /// MAS3: user read.
    pub const UR: u32 = 1 << 1;
    /// MAS3: supervisor read.
    pub const SR: u32 = 1 << 0;
    /// MAS3: all permissions.
    pub const PERMISSIONS: u32 = 0x3f;
    /// MAS3: the user's permissions; the supervisor's are one bit below each.
    pub const USER: u32 = UX | UW | UR;
    /// MAS6: address space of a search.
    pub const SAS: u32 = 1;
    /// MAS7: the upper 4 of 36 bits.
    pub const RPN_HIGH: u32 = 0xf;
}

/// What a page is accessed for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// A load.
    Read,
    /// A store.
    Write,
    /// An instruction fetch.
    Execute,
}

/// One TLB entry, as the MAS registers show it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Entry {
    /// Valid, protected, TID, TS, TSIZE.
    pub mas1: u32,
    /// Effective page number and attributes.
    pub mas2: u32,
    /// Real page number, lower half, and permissions.
    pub mas3: u32,
    /// Real page number, upper half.
    pub mas7: u32,
}

impl Entry {
    /// An entry that translates nothing.
    pub const NONE: Self = Self { mas1: 0, mas2: 0, mas3: 0, mas7: 0 };

    /// Whether it translates anything.
    pub const fn is_valid(&self) -> bool {
        self.mas1 & mas::V != 0
    }

    /// Whether invalidations leave it alone.
    pub const fn is_protected(&self) -> bool {
        self.mas1 & mas::IPROT != 0
    }

    /// Process identity, 14 bits; zero is every process.
    pub const fn tid(&self) -> u32 {
        (self.mas1 & mas::TID) >> mas::TID_SHIFT
    }

    /// Address space.
    pub const fn space(&self) -> bool {
        self.mas1 & mas::TS != 0
    }

    /// Bytes that it translates: 4 KiB to 4 GiB. Sizes that do not exist count as the nearest that does.
    pub const fn size(&self) -> u64 {
        self.offset_bits() as u64 + 1
    }

    /// Bits of an address that are the offset in the page.
    #[inline]
    pub(crate) const fn offset_bits(&self) -> u32 {
        // Each exit asks for it, and 64-bit shifts are functions here.
        match (self.mas1 & mas::TSIZE) >> mas::TSIZE_SHIFT {
            0 => 0xfff,
            size @ 1..=10 => (1024 << (2 * size)) - 1,
            _ => !0,
        }
    }

    /// First effective address.
    pub const fn base(&self) -> u32 {
        self.mas2 & mas::PAGE & !self.offset_bits()
    }

    /// Whether it translates this effective address, in its address space and process.
    pub const fn contains(&self, ea: u32) -> bool {
        (ea ^ self.mas2) & mas::PAGE & !self.offset_bits() == 0
    }

    /// Whether it is valid and translates an address in this space for this process.
    #[inline]
    pub const fn matches(&self, space: bool, pid: u32, ea: u32) -> bool {
        // The address first: it tells most entries apart.
        self.contains(ea) && self.is_valid() && self.space() == space && self.is_of(pid)
    }

    /// Whether it counts when the PID register has this value.
    pub const fn is_of(&self, pid: u32) -> bool {
        let tid = self.tid();
        tid == 0 || tid == pid
    }

    /// The guest-physical address for an effective address that it [contains](Self::contains).
    pub const fn physical(&self, ea: u32) -> GuestPhys {
        let offset = self.offset_bits();
        let low = self.mas3 & mas::PAGE & !offset | ea & offset;
        GuestPhys(((self.mas7 & mas::RPN_HIGH) as u64) << 32 | low as u64)
    }

    /// The number of the guest-physical page of 4 KiB, for an entry of that size.
    pub const fn page(&self) -> u32 {
        (self.mas7 & mas::RPN_HIGH) << 20 | self.mas3 >> 12
    }

    /// Permissions: bits of [`mas::PERMISSIONS`].
    pub const fn permissions(&self) -> u32 {
        self.mas3 & mas::PERMISSIONS
    }

    /// Whether the user (`user`) or the supervisor may access the page so.
    pub const fn permits(&self, user: bool, access: Access) -> bool {
        let of_user = match access {
            Access::Read => mas::UR,
            Access::Write => mas::UW,
            Access::Execute => mas::UX,
        };
        self.mas3 & of_user >> !user as u32 != 0
    }

    /// Attributes: bits of [`mas::WIMGE`].
    pub const fn attributes(&self) -> u32 {
        self.mas2 & mas::WIMGE
    }
}
