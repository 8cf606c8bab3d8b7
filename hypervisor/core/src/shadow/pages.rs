//! Where the real TLB0 may hold pages of the guest.

/// Under which real PIDs programs use the guest's entries for every process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Users {
    /// Under none.
    None,
    /// Under this one.
    One(u8),
    /// Under several.
    Many,
}

/// A bit for each 4 MiB of effective addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Regions([u32; 32]);

impl Regions {
    const NONE: Self = Self([0; 32]);

    fn add(&mut self, ea: u32) {
        self.0[(ea >> 27) as usize] |= 1 << (ea >> 22 & 31);
    }

    fn meets(&self, base: u32, within: u32) -> bool {
        (base >> 22..=(base | within) >> 22).any(|region| self.0[(region >> 5) as usize] >> (region & 31) & 1 != 0)
    }
}

/// Where there may be pages, since all were dropped last. Ranges are given by their first address and their size less
/// one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pages {
    kernel: Regions,
    programs: Regions,
    /// Those of the kernel that are of one process.
    private: Regions,
    /// Some stand for a part of a larger entry.
    parts: bool,
    users: Users,
}

impl Pages {
    /// There are none.
    pub const NONE: Self = Self {
        kernel: Regions::NONE,
        programs: Regions::NONE,
        private: Regions::NONE,
        parts: false,
        users: Users::None,
    };

    /// A page is written, for the kernel or a program, under a real PID or (0) for every one; `part`: for a larger
    /// entry.
    pub fn add(&mut self, ea: u32, kernel: bool, real: u8, part: bool, users: Users) {
        if kernel {
            self.kernel.add(ea);
        } else {
            self.programs.add(ea);
        }
        if kernel && real != 0 {
            self.private.add(ea);
        }
        self.parts |= part;
        self.users = match (self.users, users) {
            (before, Users::None) => before,
            (Users::None, now) => now,
            (before, now) if before == now => now,
            _ => Users::Many,
        };
    }

    /// Whether the kernel, or programs, may have pages in a range.
    pub fn may_have(&self, base: u32, within: u32, kernel: bool) -> bool {
        if kernel { &self.kernel } else { &self.programs }.meets(base, within)
    }

    /// Whether the kernel may have pages of one process in a range.
    pub fn may_have_private(&self, base: u32, within: u32) -> bool {
        self.private.meets(base, within)
    }

    /// Whether the kernel, or programs, may have any.
    pub fn has_any(&self, kernel: bool) -> bool {
        self.may_have(0, u32::MAX, kernel)
    }

    /// Whether some may stand for a part of a larger entry.
    pub fn has_parts(&self) -> bool {
        self.parts
    }

    /// Who uses entries for every process.
    pub fn users(&self) -> Users {
        self.users
    }
}
