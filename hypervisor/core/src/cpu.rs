//! [`Cpu`]: what emulation and the handling of exits need of the real CPU. `e500` implements it; tests have a
//! `Fake`.
//!
//! There is no way in here to the real debug control registers: what a guest writes there could reset the
//! whole machine (DBCR0\[RST\]), so it stays in [`crate::vcpu::Registers::dbcr`].

use citrine_formats::addr::GuestPhys;

use crate::mmu::{Access, Change, Entry};
use crate::shadow::PROGRAMS_END;

/// The registers by which a guest learns what the CPU is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Identification {
    /// Processor version.
    pub pvr: u32,
    /// System version.
    pub svr: u32,
    /// Geometry of the data cache.
    pub l1cfg0: u32,
    /// Geometry of the instruction cache.
    pub l1cfg1: u32,
}

/// Whether a translation for the guest's user programs, or for its kernel, can be made real at this address:
/// programs share their address space with the hypervisor.
pub const fn is_reachable(user: bool, ea: u32) -> bool {
    !user || ea < PROGRAMS_END
}

/// The real CPU on which a virtual CPU runs.
pub trait Cpu {
    /// What it is.
    fn identification(&self) -> Identification;

    /// The timebase, in its ticks.
    fn timebase(&mut self) -> u64;
    /// The real decrementer: the guest owns it.
    fn dec(&mut self) -> u32;
    /// Sets the real decrementer.
    fn set_dec(&mut self, value: u32);
    /// Sets what the real decrementer is reloaded with.
    fn set_decar(&mut self, value: u32);
    /// Sets the real timer control register; never with a watchdog that resets the machine (TCR\[WRC\] is 0).
    fn set_tcr(&mut self, value: u32);
    /// The real timer status.
    fn tsr(&mut self) -> u32;
    /// Clears bits of the real timer status.
    fn clear_tsr(&mut self, bits: u32);

    /// Sets the real SPRG3 to SPRG7, which guest user programs read without a trap; `index` is 3 to 7.
    fn set_sprg(&mut self, index: u32, value: u32);
    /// The instruction at a guest-physical address; none when the guest has no memory there.
    fn fetch(&mut self, at: GuestPhys) -> Option<u32>;

    /// The shadow translations follow a change of the guest's TLBs.
    fn shadow(&mut self, change: &Change);
    /// The guest's PID or address spaces are these from now on: called after every change of PID, or of PR, IS
    /// or DS in the machine state.
    fn context(&mut self, pid: u32, msr: u32);
    /// Makes the guest's translation of the page at `ea` real, for an access of this kind by the guest's user
    /// (`user`) or kernel, at an address that [`is_reachable`]; false when it leads to no memory of the guest.
    #[must_use]
    fn install(&mut self, entry: &Entry, ea: u32, user: bool, access: Access) -> bool;

    /// The guest has executed `msgsnd` with this message; it reaches CPUs of its partition only.
    fn doorbell(&mut self, message: u32);
}

#[cfg(test)]
pub(crate) mod fake {
    //! A real CPU for tests: it remembers what it was told.
    extern crate std;
    use super::{Access, Change, Cpu, Entry, GuestPhys, Identification};
    use std::collections::BTreeMap;
    use std::vec::Vec;

    /// What the CPU was told, in order.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub(crate) enum Told {
        Dec(u32),
        Decar(u32),
        Tcr(u32),
        ClearTsr(u32),
        Sprg(u32, u32),
        Shadow(Change),
        Context(u32, u32),
        Install { ea: u32, user: bool, access: Access },
        Doorbell(u32),
    }

    #[derive(Default)]
    pub(crate) struct Fake {
        pub(crate) told: Vec<Told>,
        pub(crate) timebase: u64,
        pub(crate) dec: u32,
        pub(crate) tsr: u32,
        /// Words of the guest's memory.
        pub(crate) words: BTreeMap<u64, u32>,
        /// Guest-physical addresses from here on are no memory of the guest; 0: it has none at all.
        pub(crate) memory_end: u64,
    }

    impl Fake {
        /// What it was told since the last call.
        pub(crate) fn told(&mut self) -> Vec<Told> {
            core::mem::take(&mut self.told)
        }
    }

    impl Cpu for Fake {
        fn identification(&self) -> Identification {
            Identification { pvr: 0x8023_0020, svr: 0x8208_0020, l1cfg0: 0x10, l1cfg1: 0x11 }
        }
        fn timebase(&mut self) -> u64 {
            self.timebase
        }
        fn dec(&mut self) -> u32 {
            self.dec
        }
        fn set_dec(&mut self, value: u32) {
            self.dec = value;
            self.told.push(Told::Dec(value));
        }
        fn set_decar(&mut self, value: u32) {
            self.told.push(Told::Decar(value));
        }
        fn set_tcr(&mut self, value: u32) {
            self.told.push(Told::Tcr(value));
        }
        fn tsr(&mut self) -> u32 {
            self.tsr
        }
        fn clear_tsr(&mut self, bits: u32) {
            self.tsr &= !bits;
            self.told.push(Told::ClearTsr(bits));
        }
        fn set_sprg(&mut self, index: u32, value: u32) {
            self.told.push(Told::Sprg(index, value));
        }
        fn fetch(&mut self, at: GuestPhys) -> Option<u32> {
            (at.0 < self.memory_end).then(|| self.words.get(&at.0).copied().unwrap_or(0))
        }
        fn shadow(&mut self, change: &Change) {
            self.told.push(Told::Shadow(*change));
        }
        fn context(&mut self, pid: u32, msr: u32) {
            self.told.push(Told::Context(pid, msr));
        }
        fn install(&mut self, entry: &Entry, ea: u32, user: bool, access: Access) -> bool {
            self.told.push(Told::Install { ea, user, access });
            entry.physical(ea).0 < self.memory_end
        }
        fn doorbell(&mut self, message: u32) {
            self.told.push(Told::Doorbell(message));
        }
    }
}
