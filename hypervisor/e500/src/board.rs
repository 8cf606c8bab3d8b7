//! The hardware behind [`citrine_core::start`]: memory through windows, the serial line, the other CPUs.

use core::cell::UnsafeCell;
use core::fmt;

use citrine_core::machine::CpuSet;
use citrine_core::memory::Physical as _;
use citrine_core::start::{IMAGE_LEN, Platform, WhichTree};
use citrine_core::trust;
use citrine_formats::addr::{Span, TruePhys};
use citrine_formats::fdt;
use citrine_formats::signature::Key;

use crate::TRUST;
use crate::physical::{Ram, reach};
use crate::serial::{self, Serial};
use crate::smp;
use crate::tlb::Windows;

/// Bytes that each of the two trees may have: a board's tree has about 60 KiB.
const KEPT_LEN: usize = 192 << 10;

/// A copy of a tree: where the boot loader put it, there will be guests.
struct Kept(UnsafeCell<[u8; KEPT_LEN]>);

// SAFETY: written once, by `map_tree` on the first CPU, before anybody else looks.
unsafe impl Sync for Kept {}

static KEPT: [Kept; 2] = [const { Kept(UnsafeCell::new([0; KEPT_LEN])) }; 2];

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

    /// Memory through this CPU's windows.
    fn ram(&mut self) -> Ram<'_> {
        Ram(&mut self.windows)
    }
}

impl fmt::Write for Board {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        Serial.write_str(text)
    }
}

impl Platform<'static> for Board {
    #[inline(always)]
    fn trust(&self) -> Option<Key> {
        TRUST
    }

    fn use_serial(&mut self, registers: TruePhys) {
        serial::open(registers);
    }

    fn map_tree(&mut self, which: WhichTree, at: TruePhys) -> Option<&'static [u8]> {
        let kept = &KEPT[usize::from(which != WhichTree::Hardware)];
        // SAFETY: `core::start` asks for each tree once, so nobody else has this buffer.
        let kept: &'static mut [u8; KEPT_LEN] = unsafe { &mut *kept.0.get() };
        let (header, _) = kept.split_at_mut(fdt::HEADER_LEN);
        if !self.ram().read(at, header) {
            return None;
        }
        // What is no tree, or too long for this: the header alone, and whoever opens it says so.
        // Of a signed tree, all that was signed, with nothing changed in it.
        let len = match which {
            WhichTree::SignedConfig => trust::signed_len(header).filter(|len| *len >= fdt::HEADER_LEN),
            WhichTree::Hardware | WhichTree::Config => fdt::used_len(header),
        };
        let len = len.filter(|len| *len <= KEPT_LEN).unwrap_or(fdt::HEADER_LEN);
        if !self.ram().read(at, &mut kept[..len]) {
            return None;
        }
        if which != WhichTree::SignedConfig {
            fdt::cut(&mut kept[..len]);
        }
        Some(&kept[..len])
    }

    fn read(&mut self, at: TruePhys, into: &mut [u8]) -> bool {
        self.ram().read(at, into)
    }

    fn start_cpus(&mut self, cpus: &[(u32, TruePhys)], timebase_hz: u32) -> CpuSet {
        self.ticks_per_second = timebase_hz;
        smp::start(cpus, timebase_hz, self.image)
    }

    fn image(&self) -> Span<TruePhys> {
        Span::between(self.image, TruePhys(self.image.0 + IMAGE_LEN))
    }

    fn move_to(&mut self, to: TruePhys) {
        let Some((ea, room)) = reach(&mut self.windows, to) else {
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
