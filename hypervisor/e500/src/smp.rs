//! The other CPUs: out of the boot loader's spin table, into a waiting loop, and over to the moved image.
//!
//! Nothing is taken for granted of a CPU that does not come: it may come later. [`CLOSED`] turns it away.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use citrine_core::machine::CpuSet;
use citrine_formats::addr::TruePhys;

use crate::cpu::{self, spr};
use crate::tlb::{Entry, PageSize, SPIN, What, page};
use crate::{exceptions, serial};

/// A spin table's words: release address, r3, reserved, PIR (ePAPR 1.1 §5.5.2.1).
const ADDR_HIGH: usize = 0;
const ADDR_LOW: usize = 1;
const R3_HIGH: usize = 2;
const R3_LOW: usize = 3;
const TABLE_LEN: u32 = 24;
/// Lower word of the release address of a CPU that is to stay.
const STAY: u32 = 1;

/// CPUs that run our code, one bit each; then those that run the moved image.
static ARRIVED: AtomicU32 = AtomicU32::new(0);
static MOVED: AtomicU32 = AtomicU32::new(0);
/// Who arrives now is too late.
static CLOSED: AtomicBool = AtomicBool::new(false);
/// Where the image is going, upper and lower half; and, when the copy is complete, not zero.
static TARGET: [AtomicU32; 2] = [const { AtomicU32::new(0) }; 2];
static GO: AtomicU32 = AtomicU32::new(0);

#[cfg(target_arch = "powerpc")]
unsafe extern "C" {
    static _secondary: u8;
    fn citrine_relocate(to: *mut u32, high: u32, low: u32, go: *const AtomicU32);
    fn citrine_follow(go: *const AtomicU32, target: *const [AtomicU32; 2]);
}

/// Where secondary CPUs enter the image, as an offset.
fn entry_offset() -> u32 {
    #[cfg(target_arch = "powerpc")]
    {
        core::ptr::addr_of!(_secondary) as u32 - crate::tlb::IMAGE
    }
    #[cfg(not(target_arch = "powerpc"))]
    0
}

/// Waits until `done`, or until `progress` has not changed for `ticks`.
fn wait(ticks: u64, progress: &AtomicU32, done: u32) {
    let mut last = progress.load(Ordering::SeqCst);
    let mut since = cpu::timebase();
    while last != done && cpu::timebase().wrapping_sub(since) < ticks {
        let now = progress.load(Ordering::SeqCst);
        if now != last {
            (last, since) = (now, cpu::timebase());
        }
        core::hint::spin_loop();
    }
}

/// The table's first word, mapped; `None` when it is at an impossible place.
fn map_table(at: TruePhys) -> Option<*mut u32> {
    let (pa, offset) = page(at, PageSize::K4);
    if offset % 8 != 0 || offset + TABLE_LEN > PageSize::K4.bytes() {
        return None;
    }
    // Cached, as ePAPR 1.1 §5.5.2.1 asks for.
    let mas = Entry { slot: 5, ea: SPIN, pa, size: PageSize::K4, what: What::Memory }.mas()?;
    // SAFETY: slot 5 and its effective address are this function's alone; no pointer from an earlier call is
    // used after this one.
    unsafe { cpu::tlbwe(&mas) };
    Some((SPIN + offset) as usize as *mut u32)
}

/// See `Platform::start_cpus`. `image` is where the image is now.
pub fn start(cpus: &[(u32, TruePhys)], ticks_per_second: u32, image: TruePhys) -> CpuSet {
    let entry = image.0 + u64::from(entry_offset());
    let mut released = CpuSet::EMPTY;
    for &(number, at) in cpus {
        let Some(table) = map_table(at) else { continue };
        // SAFETY: the boot loader's spin table for this CPU: 6 words, mapped just now. Only that CPU and this
        // one look at it, and volatile accesses go to it in this order.
        unsafe {
            cpu::flush(table);
            if table.add(ADDR_LOW).read_volatile() != STAY {
                continue;
            }
            table.add(R3_HIGH).write_volatile(0);
            table.add(R3_LOW).write_volatile(number);
            table.add(ADDR_HIGH).write_volatile((entry >> 32) as u32);
            cpu::sync();
            table.add(ADDR_LOW).write_volatile(entry as u32);
            cpu::flush(table);
        }
        released.insert(number);
    }
    let all = released.iter().fold(0, |bits, cpu| bits | 1 << cpu);
    wait(u64::from(ticks_per_second), &ARRIVED, all);
    CLOSED.store(true, Ordering::SeqCst);
    let arrived = ARRIVED.load(Ordering::SeqCst);
    let started = released.iter().filter(|cpu| arrived & 1 << cpu != 0).collect::<CpuSet>();
    for &(_, at) in cpus.iter().filter(|(number, _)| released.without(started).contains(*number)) {
        if let Some(table) = map_table(at) {
            // SAFETY: as above.
            unsafe {
                table.add(ADDR_LOW).write_volatile(STAY);
                cpu::flush(table);
            }
        }
    }
    started
}

/// Copies the image to `to` (mapped, true-physical `target`) and moves this CPU and all that have arrived.
/// Returns false when one of them does not follow.
///
/// # Safety
/// `to` must be mapped for as long as an image is, and nobody else may use the memory.
pub unsafe fn move_image(to: *mut u32, target: TruePhys, ticks_per_second: u32) -> bool {
    TARGET[0].store((target.0 >> 32) as u32, Ordering::Relaxed);
    TARGET[1].store(target.0 as u32, Ordering::Relaxed);
    let arrived = ARRIVED.load(Ordering::SeqCst);
    #[cfg(target_arch = "powerpc")]
    // SAFETY: the other CPUs are in `citrine_follow` or in front of it and write nothing that lasts; the
    // copy is this image, so that everything is where it was when the function returns.
    unsafe {
        citrine_relocate(to, (target.0 >> 32) as u32, target.0 as u32, &GO);
    }
    #[cfg(not(target_arch = "powerpc"))]
    let _ = (to, &GO);
    wait(u64::from(ticks_per_second), &MOVED, arrived);
    MOVED.load(Ordering::SeqCst) == arrived
}

/// Entered by `entry.s` on every CPU but the first, on a stack of its own.
#[unsafe(no_mangle)]
extern "C" fn citrine_secondary(number: u32) -> ! {
    exceptions::install(number);
    serial::attach();
    if cpu::mfspr::<{ spr::PIR }>() != number {
        cpu::stop();
    }
    ARRIVED.fetch_or(1 << number, Ordering::SeqCst);
    if CLOSED.load(Ordering::SeqCst) {
        cpu::stop();
    }
    #[cfg(target_arch = "powerpc")]
    // SAFETY: waits in the old image without writing, then moves to a copy in which everything is where it was.
    unsafe {
        citrine_follow(&GO, &TARGET);
    }
    MOVED.fetch_or(1 << number, Ordering::SeqCst);
    crate::run::run(number)
}
