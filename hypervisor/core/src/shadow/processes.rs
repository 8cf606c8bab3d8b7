//! Real PIDs for the guest's.

/// The real PID of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Row {
    guest: u16,
    /// 0 when there is none.
    real: u8,
}

/// The processes that have one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Processes {
    /// A process is found at the lower 8 bits of its PID. The one that is pushed out by another keeps nothing, which
    /// is right though slow; Linux uses no more than 8 bits.
    rows: [Row; 256],
    /// The real PID that was handed out last.
    last: u8,
}

impl Processes {
    /// None has one.
    pub const NONE: Self = Self { rows: [Row { guest: 0, real: 0 }; 256], last: 0 };

    /// The real PID of a process.
    pub fn find(&self, pid: u32) -> Option<u8> {
        let row = self.rows[pid as usize % 256];
        (u32::from(row.guest) == pid && row.real != 0).then_some(row.real)
    }

    /// Gives a process a real PID that has not been in use; none when there is no such.
    pub fn add(&mut self, pid: u32) -> Option<u8> {
        self.last = self.last.checked_add(1)?;
        self.rows[pid as usize % 256] = Row { guest: pid as u16, real: self.last };
        Some(self.last)
    }

    /// Takes its real PID from a process.
    pub fn forget(&mut self, pid: u32) {
        if self.find(pid).is_some() {
            self.rows[pid as usize % 256].real = 0;
        }
    }

    /// Takes theirs from all processes, when there is nothing left under any of them, and gives one to this.
    pub fn restart(&mut self, pid: u32) -> u8 {
        *self = Self::NONE;
        self.add(pid).unwrap_or(1)
    }
}
