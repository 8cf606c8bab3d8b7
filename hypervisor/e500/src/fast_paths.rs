//! Memory for the code that [`citrine_core::fast`] writes.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use citrine_core::fast::{EPLC, PAGE_LEN, Places, STUBS_LEN};
use citrine_core::vcpu::Vcpu;

use crate::cpu::{self, spr};
use crate::percpu;
use crate::tlb::IMAGE;

/// Bytes of a cache line on all cores of the family (e500mc reference manual §5.1).
const LINE: u32 = 64;

/// The pages of vectors.
#[repr(C, align(0x10000))]
struct Pages(UnsafeCell<[u32; 2 * PAGE_LEN / 4]>);

/// The stubs.
#[repr(C, align(0x100000))]
struct Stubs(UnsafeCell<[u32; STUBS_LEN / 4]>);

// SAFETY: written by one CPU before any other uses them ([`ready`]), and never again.
unsafe impl Sync for Pages {}
// SAFETY: as above.
unsafe impl Sync for Stubs {}

static PAGES: Pages = Pages(UnsafeCell::new([0; 2 * PAGE_LEN / 4]));
// Nobody clears this section (`link.ld`): it holds anything before it is written.
#[cfg_attr(target_arch = "powerpc", unsafe(link_section = ".stubs"))]
static STUBS: Stubs = Stubs(UnsafeCell::new([0; STUBS_LEN / 4]));
/// Both are written.
static READY: AtomicBool = AtomicBool::new(false);
/// [`citrine_core::fast::Faults`], for `guest.s`. No instruction is at 0.
#[unsafe(export_name = "citrine_faults")]
static FAULTS: [AtomicU32; 2] = [const { AtomicU32::new(0) }; 2];

#[cfg(target_arch = "powerpc")]
unsafe extern "C" {
    static guest_vector_6: u8;
    static guest_vector_8: u8;
    static guest_vector_13: u8;
    static guest_vector_14: u8;
    static guest_vector_65: u8;
}

/// Where a symbol is, from the image's first byte.
#[cfg(target_arch = "powerpc")]
fn offset(symbol: *const u8) -> u32 {
    symbol as u32 - IMAGE
}

/// Where everything is.
fn places() -> Places {
    #[cfg(target_arch = "powerpc")]
    let [program, system_call, data_tlb, instruction_tlb, program_read] = [
        &raw const guest_vector_6,
        &raw const guest_vector_8,
        &raw const guest_vector_13,
        &raw const guest_vector_14,
        &raw const guest_vector_65,
    ]
    .map(offset);
    #[cfg(not(target_arch = "powerpc"))]
    let [program, system_call, data_tlb, instruction_tlb, program_read] = [0x600, 0x800, 0xd00, 0xe00, 0x1000];
    Places {
        vcpu: percpu::VCPU,
        image: IMAGE,
        program,
        system_call,
        data_tlb,
        instruction_tlb,
        program_read,
        pages: PAGES.0.get() as usize as u32,
        stubs: STUBS.0.get() as usize as u32,
    }
}

/// Writes the fast paths (`first`: one CPU does, and the others wait for it), and prepares this CPU for them.
pub fn ready(first: bool, vcpu: &mut Vcpu) -> Places {
    let places = places();
    if first {
        // SAFETY: the other CPUs wait below, and no guest runs on this one yet.
        let (pages, stubs) = unsafe { (&mut *PAGES.0.get(), &mut *STUBS.0.get()) };
        places.write(vcpu, pages, stubs);
        cpu::make_executable(places.pages, 2 * PAGE_LEN as u32, LINE);
        cpu::make_executable(places.stubs, STUBS_LEN as u32, LINE);
        let faults = places.faults();
        FAULTS[0].store(faults.kernel, Ordering::Relaxed);
        FAULTS[1].store(faults.program, Ordering::Relaxed);
        READY.store(true, Ordering::Release);
    }
    while !READY.load(Ordering::Acquire) {
        core::hint::spin_loop();
    }
    // SAFETY: external loads are made by fast paths only; entering the guest synchronises.
    unsafe { cpu::mtspr::<{ spr::EPLC }>(EPLC) };
    places.tell(vcpu);
    places
}
