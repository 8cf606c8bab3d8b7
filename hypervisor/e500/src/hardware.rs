//! What `citrine_core` asks of the CPU on behalf of its guest: timers, translations, instruction words.

use citrine_core::cpu::{Cpu, Identification};
use citrine_core::guest_tree;
use citrine_core::hypervisor::Who;
use citrine_core::memory::{GuestMap, GuestMemory};
use citrine_core::mmu;
use citrine_core::shadow::{Access, Shadow};
use citrine_formats::addr::{Address as _, GuestPhys};

use crate::cpu::{self, spr};
use crate::guest_tlb::Tlbs;
use crate::physical::{Ram, reach, word};
use crate::system::{SHARED, kick};
use crate::tlb::Windows;

/// A spin table entry's words: release address, r3, reserved, PIR (ePAPR 1.1 §5.5.2.1).
const SPIN_ADDR_LOW: u64 = 4;
const SPIN_WORDS: usize = 4;
/// Pages of 4 KiB.
const PAGE_BITS: u32 = 12;
const PAGE_OFFSET: u32 = 0xfff;

/// The page from which an instruction was read last: the next one is most often in it, too.
#[derive(Clone, Copy, Debug)]
struct Code {
    /// Number of the guest-physical page; none has the highest.
    page: u32,
    /// Effective address of the page in a window.
    ea: u32,
    /// [`Windows::changes`] when it was found there.
    changes: u32,
}

/// The CPU as its guest needs it.
#[derive(Debug)]
pub struct Hardware {
    cpu: u32,
    who: Who,
    map: GuestMap,
    /// Where the guest expects its spin table.
    spin_table: GuestPhys,
    shadow: &'static mut Shadow,
    windows: &'static mut Windows,
    tlbs: Tlbs,
    code: Code,
    /// There may be mail for this CPU, from itself.
    pub has_mail: bool,
}

impl Hardware {
    /// The CPU with this number, for a partition's virtual CPU and the partition's memory.
    pub fn new(
        cpu: u32,
        who: Who,
        (map, spin_table): (GuestMap, GuestPhys),
        shadow: &'static mut Shadow,
        windows: &'static mut Windows,
    ) -> Self {
        let code = Code { page: u32::MAX, ea: 0, changes: 0 };
        Self { cpu, who, map, spin_table, shadow, windows, tlbs: Tlbs::new(), code, has_mail: false }
    }

    /// The guest's memory.
    pub fn memory(&mut self) -> (&GuestMap, Ram<'_>) {
        (&self.map, Ram(self.windows))
    }

    /// Whether the guest's translations are of the kind that fast paths know.
    pub fn is_plain(&self) -> bool {
        self.shadow.is_plain()
    }

    /// The windows, for whoever needs other memory.
    pub fn windows(&mut self) -> &mut Windows {
        self.windows
    }

    /// Finds the page from which the next instructions are read.
    #[cold]
    #[inline(never)]
    fn find_code(&mut self, page: u32) -> Option<()> {
        // The map of a partition does not change, and consists of whole pages.
        let (start, room) = self.map.translate(GuestPhys(u64::from(page) << PAGE_BITS))?;
        let (ea, _) = reach(self.windows, start).filter(|_| room > u64::from(PAGE_OFFSET))?;
        self.code = Code { page, ea, changes: self.windows.changes() };
        Some(())
    }

    /// Whether a virtual CPU has been released from the spin table: where it is to enter, and its r3.
    pub fn released(&mut self, vcpu: u32) -> Option<(GuestPhys, u32)> {
        let at = self.spin_table.get() + u64::from(vcpu) * guest_tree::SPIN_ENTRY_LEN;
        let mut ram = Ram(self.windows);
        let mut memory = GuestMemory { map: &self.map, physical: &mut ram };
        let mut low = [0; 4];
        memory.read(GuestPhys(at + SPIN_ADDR_LOW), &mut low).ok()?;
        if u32::from_be_bytes(low) & 1 != 0 {
            return None;
        }
        // The lower half is written last, so the rest is there.
        cpu::sync();
        let mut bytes = [0; 4 * SPIN_WORDS];
        memory.read(GuestPhys(at), &mut bytes).ok()?;
        let word = |index: usize| bytes.as_chunks::<4>().0.get(index).map_or(0, |word| u32::from_be_bytes(*word));
        let entry = GuestPhys(u64::from(word(0)) << 32 | u64::from(word(1)));
        (entry.get() & 1 == 0).then_some((entry, word(3)))
    }
}

impl Cpu for Hardware {
    fn identification(&self) -> Identification {
        Identification {
            pvr: cpu::mfspr::<{ spr::PVR }>(),
            svr: cpu::mfspr::<{ spr::SVR }>(),
            l1cfg0: cpu::mfspr::<{ spr::L1CFG0 }>(),
            l1cfg1: cpu::mfspr::<{ spr::L1CFG1 }>(),
        }
    }

    fn timebase(&mut self) -> u64 {
        cpu::timebase()
    }

    fn dec(&mut self) -> u32 {
        cpu::mfspr::<{ spr::DEC }>()
    }

    fn set_dec(&mut self, value: u32) {
        // SAFETY: the timers are the guest's; their interrupts are taken by it, or in `citrine_wait`.
        unsafe { cpu::mtspr::<{ spr::DEC }>(value) };
    }

    fn set_decar(&mut self, value: u32) {
        // SAFETY: as above.
        unsafe { cpu::mtspr::<{ spr::DECAR }>(value) };
    }

    fn set_tcr(&mut self, value: u32) {
        // SAFETY: as above; `citrine_core` lets no reset through (WRC).
        unsafe { cpu::mtspr::<{ spr::TCR }>(value) };
    }

    fn tsr(&mut self) -> u32 {
        cpu::mfspr::<{ spr::TSR }>()
    }

    fn clear_tsr(&mut self, bits: u32) {
        // SAFETY: as above.
        unsafe { cpu::mtspr::<{ spr::TSR }>(bits) };
    }

    fn set_sprg(&mut self, index: u32, value: u32) {
        // SAFETY: the hypervisor uses SPRG0 to SPRG2 only.
        unsafe {
            match index {
                3 => cpu::mtspr::<{ spr::SPRG3 }>(value),
                4 => cpu::mtspr::<{ spr::SPRG4 }>(value),
                5 => cpu::mtspr::<{ spr::SPRG5 }>(value),
                6 => cpu::mtspr::<{ spr::SPRG6 }>(value),
                7 => cpu::mtspr::<{ spr::SPRG7 }>(value),
                _ => {}
            }
        }
    }

    fn fetch(&mut self, at: GuestPhys) -> Option<u32> {
        let page = u32::try_from(at.get() >> PAGE_BITS).ok()?;
        let offset = at.get() as u32 & PAGE_OFFSET & !3;
        if self.code.page != page || self.code.changes != self.windows.changes() {
            self.find_code(page)?;
        }
        // SAFETY: the window shows the page: none was replaced since it was found there.
        Some(unsafe { word(self.code.ea + offset) })
    }

    fn shadow(&mut self, change: &mmu::Change) {
        self.shadow.change(&mut self.tlbs, change);
    }

    fn context(&mut self, pid: u32, msr: u32) {
        self.shadow.context(&mut self.tlbs, pid, msr);
    }

    fn install(&mut self, entry: &mmu::Entry, ea: u32, user: bool, access: Access) -> bool {
        self.shadow.install(&mut self.tlbs, entry, ea, user, access, &self.map).is_ok()
    }

    fn doorbell(&mut self, message: u32) {
        let mut shared = SHARED.lock();
        shared.hypervisor.doorbell(self.who, message);
        self.has_mail |= kick(&mut shared.hypervisor, self.cpu);
    }
}
