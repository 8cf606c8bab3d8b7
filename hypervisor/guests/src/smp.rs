//! Other CPUs: each waits at its entry of the spin table until it is given an address (ePAPR 1.1 §5.5.2).

use core::sync::atomic::{AtomicU32, Ordering};

use crate::tree::Cpu;
use crate::{cpu, tlb};

/// Most CPUs of a guest: `link.ld` has as many stacks.
pub const MAX_CPUS: usize = 16;

/// What the others are to do, as the address of an `extern "C" fn(u32)`.
static WORK: AtomicU32 = AtomicU32::new(0);
/// Bit for bit, who has arrived.
static ARRIVED: AtomicU32 = AtomicU32::new(0);

/// Where the page of the spin table is mapped while it is written to, and in which entry of TLB1.
const TABLE_EA: u32 = 0x4fff_e000;
const TABLE_SLOT: u32 = 14;

/// An entry of the spin table.
#[repr(C)]
struct Entry {
    address: [u32; 2],
    r3: [u32; 2],
    reserved: u32,
    pir: u32,
}

/// Starts a CPU: it calls `work` with its number and then rests. Returns at once; see [`arrived`].
pub fn start(other: Cpu, work: extern "C" fn(u32)) {
    let Some(release) = other.release else { return };
    WORK.store(work as *const () as usize as u32, Ordering::Release);
    let page = tlb::Entry::kernel(TABLE_EA, release & !0xfff, tlb::SIZE_4K, tlb::COHERENT);
    let entry = (TABLE_EA + (release as u32 & 0xfff)) as usize as *mut Entry;
    #[cfg(target_arch = "powerpc")]
    let code = {
        unsafe extern "C" {
            fn citrine_guest_secondary();
        }
        citrine_guest_secondary as *const () as usize as u32
    };
    #[cfg(not(target_arch = "powerpc"))]
    let code = 0;
    // SAFETY: the page was not mapped before, and holds the table; the release comes last.
    unsafe {
        tlb::write(tlb::Slot::Large(TABLE_SLOT), &page);
        (&raw mut (*entry).pir).write_volatile(other.number);
        (&raw mut (*entry).r3).write_volatile([0, other.number]);
        cpu::sync();
        (&raw mut (*entry).address[0]).write_volatile(0);
        cpu::sync();
        (&raw mut (*entry).address[1]).write_volatile(code);
        cpu::sync();
        tlb::clear(tlb::Slot::Large(TABLE_SLOT), &page);
    }
}

/// The CPUs that have begun to work, bit for bit.
pub fn arrived() -> u32 {
    ARRIVED.load(Ordering::Acquire)
}

/// What a CPU does that was started.
#[cfg(target_arch = "powerpc")]
pub(crate) fn enter(number: u32) -> ! {
    let work = WORK.load(Ordering::Acquire);
    ARRIVED.fetch_or(1 << (number & 31), Ordering::AcqRel);
    if work != 0 {
        // SAFETY: `start` has stored a function of this type.
        let work: extern "C" fn(u32) = unsafe { core::mem::transmute(work as usize) };
        work(number);
    }
    loop {
        cpu::rest();
    }
}
