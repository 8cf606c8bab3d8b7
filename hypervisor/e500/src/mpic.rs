//! The interrupt controller (MPIC; P4080 reference manual §11): the hypervisor's own. It has one source, the serial
//! line, which goes to one CPU; everything that guests see of a PIC is virtual.

use citrine_formats::addr::TruePhys;

use crate::cpu;
use crate::tlb::{Entry, MPIC, PageSize, What};

/// Global configuration.
const GCR: u32 = 0x1020;
/// Reset; reads one until it is over.
const GCR_RESET: u32 = 1 << 31;
/// Mixed mode: interrupts are delivered by this controller, not passed through.
const GCR_MIXED: u32 = 1 << 29;
/// Spurious vector.
const SVR: u32 = 0x10e0;
/// Internal and external sources: vector and priority, then at +0x10 the destination.
const SOURCES: u32 = 0x1_0000;
const SOURCE_LEN: u32 = 0x20;
const DESTINATION: u32 = 0x10;
/// Vector and priority register: level-sensitive.
const LEVEL: u32 = 1 << 22;
const PRIORITY: u32 = 8 << 16;
/// Registers of one CPU.
const CPUS: u32 = 0x2_0000;
const CPU_LEN: u32 = 0x1000;
/// Current task priority, interrupt acknowledge, end of interrupt.
const CTPR: u32 = 0x80;
const IACK: u32 = 0xa0;
const EOI: u32 = 0xb0;

/// Vector of nothing.
const SPURIOUS: u32 = 0xffff;
/// Sources that the register block has room for.
const SOURCE_COUNT: u32 = 256;

/// The controller, mapped on this CPU.
#[derive(Debug)]
pub struct Mpic(());

impl Mpic {
    /// The controller, on a CPU that has mapped it.
    pub const fn attached() -> Self {
        Self(())
    }

    /// Maps the controller on this CPU; `None` when it is at an impossible place.
    pub fn attach(at: TruePhys) -> Option<Self> {
        let mas = Entry { slot: 4, ea: MPIC, pa: at, size: PageSize::K256, what: What::Device }.mas()?;
        // SAFETY: slot 4 and its effective address are the controller's alone.
        unsafe { cpu::tlbwe(&mas) };
        Some(Self(()))
    }

    fn read(&self, register: u32) -> u32 {
        if cfg!(not(target_arch = "powerpc")) {
            return 0;
        }
        // SAFETY: mapped as device registers since `attach`; all offsets in this file lie in its 256 KiB.
        unsafe { ((MPIC + register) as usize as *const u32).read_volatile() }
    }

    fn write(&mut self, register: u32, value: u32) {
        if cfg!(target_arch = "powerpc") {
            // SAFETY: as in `read`. The controller interrupts, and changes no memory.
            unsafe { ((MPIC + register) as usize as *mut u32).write_volatile(value) };
        }
        cpu::sync();
    }

    /// Resets the controller: no source is enabled.
    pub fn reset(&mut self) {
        self.write(GCR, GCR_RESET);
        for _ in 0..1_000_000 {
            if self.read(GCR) & GCR_RESET == 0 {
                break;
            }
        }
        self.write(GCR, GCR_MIXED);
        self.write(SVR, SPURIOUS);
    }

    /// Sends a source to a CPU, with its number as vector.
    pub fn enable(&mut self, source: u32, cpu: u32) {
        if source >= SOURCE_COUNT {
            return;
        }
        let base = SOURCES + source * SOURCE_LEN;
        self.write(base + DESTINATION, 1 << cpu);
        self.write(base, LEVEL | PRIORITY | source);
        self.write(CPUS + cpu * CPU_LEN + CTPR, 0);
    }

    /// Takes the highest interrupt of a CPU: its source.
    pub fn acknowledge(&mut self, cpu: u32) -> Option<u32> {
        Some(self.read(CPUS + cpu * CPU_LEN + IACK) & 0xffff).filter(|vector| *vector != SPURIOUS)
    }

    /// The interrupt that was taken last is served.
    pub fn end(&mut self, cpu: u32) {
        self.write(CPUS + cpu * CPU_LEN + EOI, 0);
    }
}
