//! The hardware behind [`citrine_core::start`]: memory through windows, the serial line, the other CPUs.

use core::fmt;

use citrine_core::image::Memory;
use citrine_core::machine::CpuSet;
use citrine_core::start::{IMAGE_LEN, Platform, WhichTree};
use citrine_formats::addr::{Span, TruePhys};
use citrine_formats::fdt;

use crate::cpu;
use crate::serial::{self, Serial};
use crate::smp;
use crate::tlb::{Entry, PageSize, TREES, What, Windows, page};

/// This board. There is one, made by [`crate::boot`].
#[derive(Debug)]
pub struct Board {
    image: TruePhys,
    windows: Windows,
    ticks_per_second: u32,
}

impl Board {
    /// # Safety
    /// Only once, on the CPU that was entered; `image` is where the image is.
    pub unsafe fn new(image: TruePhys) -> Self {
        Self { image, windows: Windows::default(), ticks_per_second: 1 }
    }

    /// Makes true-physical memory visible; returns its effective address and how much of it is in one piece.
    fn reach(&mut self, at: TruePhys) -> Option<(u32, u32)> {
        if at.0 >> crate::tlb::PHYSICAL_BITS != 0 {
            return None;
        }
        let (ea, entry) = self.windows.reach(at);
        if let Some(entry) = entry {
            // SAFETY: the windows are this board's, and a slice of one borrows the board, so there is none now.
            unsafe { cpu::tlbwe(&entry.mas()?) };
        }
        let (_, offset) = page(at, PageSize::M256);
        Some((ea, PageSize::M256.bytes() - offset))
    }
}

impl Memory for Board {
    fn view(&mut self, at: TruePhys, max: usize) -> Option<&[u8]> {
        let (ea, room) = self.reach(at)?;
        let len = max.min(room as usize);
        // SAFETY: mapped for as long as the board stays borrowed. What lies there belongs to no guest that
        // runs and to no CPU that writes.
        Some(unsafe { core::slice::from_raw_parts(ea as usize as *const u8, len) })
    }
}

impl fmt::Write for Board {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        Serial.write_str(text)
    }
}

impl Platform<'static> for Board {
    fn use_serial(&mut self, registers: TruePhys) {
        serial::open(registers);
    }

    fn map_tree(&mut self, which: WhichTree, at: TruePhys) -> Option<&'static [u8]> {
        let (slot, ea) = match which {
            WhichTree::Hardware => (4, TREES[0]),
            WhichTree::Config => (6, TREES[1]),
        };
        let (pa, offset) = page(at, PageSize::M16);
        let bytes = PageSize::M16.bytes();
        let len = fdt::MAX_LEN.min(2 * bytes - offset);
        // The second page only for a tree that may reach into it: there may be nothing behind the first.
        for index in 0..1 + u8::from(offset + len > bytes) {
            let pa = TruePhys(pa.0 + u64::from(index) * u64::from(bytes));
            let ea = ea + u32::from(index) * bytes;
            let entry = Entry { slot: slot + index, ea, pa, size: PageSize::M16, what: What::Memory };
            // SAFETY: these slots and addresses are this tree's alone, and `core::start` maps each tree once.
            unsafe { cpu::tlbwe(&entry.mas()?) };
        }
        // SAFETY: mapped for ever. The tree is the boot loader's, which does not run any more.
        Some(unsafe { core::slice::from_raw_parts((ea + offset) as usize as *const u8, len as usize) })
    }

    fn start_cpus(&mut self, cpus: &[(u32, TruePhys)], timebase_hz: u32) -> CpuSet {
        self.ticks_per_second = timebase_hz;
        smp::start(cpus, timebase_hz, self.image)
    }

    fn image(&self) -> Span<TruePhys> {
        Span::between(self.image, TruePhys(self.image.0 + IMAGE_LEN))
    }

    fn move_to(&mut self, to: TruePhys) {
        let Some((ea, room)) = self.reach(to) else {
            return;
        };
        assert!(u64::from(room) >= IMAGE_LEN, "a multiple of the image's size has room for it in a window");
        self.image = to;
        // SAFETY: mapped by the window; `core::start` gives a place in the hypervisor's own memory that
        // nobody uses.
        let all = unsafe { smp::move_image(ea as usize as *mut u32, to, self.ticks_per_second) };
        assert!(all, "every CPU that waits in the old image follows to the new one");
    }
}
