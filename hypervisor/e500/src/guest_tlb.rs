//! The real TLBs as [`citrine_core::shadow`] writes them. Nothing here decides what may be mapped.

use citrine_core::shadow::RealTlb;

use crate::cpu;
use crate::tlb::Mas;

/// TLB1 in MAS0.
const TLB1: u32 = 1 << 28;
/// MAS1: valid.
const VALID: u32 = 1 << 31;

/// The TLBs of this CPU.
#[derive(Debug)]
pub struct Tlbs {
    /// Which way of TLB0 is written next: all are equally good.
    way: u32,
}

impl Tlbs {
    /// There is one of these on each CPU.
    pub const fn new() -> Self {
        Self { way: 0 }
    }
}

impl Default for Tlbs {
    fn default() -> Self {
        Self::new()
    }
}

impl RealTlb for Tlbs {
    fn write_page(&mut self, mas1: u32, mas2: u32, mas3: u32, mas7: u32) {
        self.way = (self.way + 1) & 3;
        // SAFETY: an entry for problem state only, as `RealTlb` promises: the hypervisor does not see it.
        unsafe { cpu::tlbwe_guest(&Mas { mas0: self.way << 16, mas1, mas2, mas3, mas7 }) };
    }

    fn write_slot(&mut self, slot: u8, mas1: u32, mas2: u32, mas3: u32, mas7: u32) {
        // SAFETY: as above; `slot` is one of `tlb::GUEST_SLOTS`.
        unsafe { cpu::tlbwe_guest(&Mas { mas0: TLB1 | u32::from(slot) << 16, mas1, mas2, mas3, mas7 }) };
    }

    fn invalidate_page(&mut self, ea: u32, space: bool, pid: u8) {
        let found = cpu::tlbsx(ea, u32::from(pid) << 16 | u32::from(space));
        if found.mas1 & VALID != 0 && found.mas0 & TLB1 == 0 {
            // SAFETY: takes a translation away that is the guest's: the hypervisor has none in TLB0.
            unsafe { cpu::tlbwe_guest(&Mas { mas1: found.mas1 & !VALID, ..found }) };
        }
    }

    fn invalidate_pages(&mut self) {
        cpu::invalidate_tlb0();
    }

    fn set_pid(&mut self, pid: u8) {
        cpu::set_pid(u32::from(pid));
    }
}
