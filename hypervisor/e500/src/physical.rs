//! True-physical memory through this CPU's windows.

use citrine_core::memory::Physical;
use citrine_formats::addr::TruePhys;

use crate::cpu;
use crate::tlb::{PHYSICAL_BITS, PageSize, Windows, page};

/// Bytes of a cache line on all cores of the family (e500mc reference manual §5.1).
const LINE: u32 = 64;

#[cfg(target_arch = "powerpc")]
unsafe extern "C" {
    /// `memmove` under a name that the compiler knows nothing of: guests change their memory at any moment.
    fn citrine_copy(to: *mut u8, from: *const u8, len: usize);
}

/// Copies bytes of which one side is memory that others may be changing.
///
/// # Safety
/// Both ranges must be mapped; what is written must be nobody's in Rust.
unsafe fn copy(to: *mut u8, from: *const u8, len: usize) {
    #[cfg(target_arch = "powerpc")]
    // SAFETY: the caller's promise.
    unsafe {
        citrine_copy(to, from, len);
    }
    #[cfg(not(target_arch = "powerpc"))]
    let _ = (to, from, len);
}

/// Makes true-physical memory visible: its effective address, and how much from there on is in one piece.
pub fn reach(windows: &mut Windows, at: TruePhys) -> Option<(u32, u32)> {
    if at.0 >> PHYSICAL_BITS != 0 {
        return None;
    }
    let (ea, entry) = windows.reach(at);
    if let Some(entry) = entry {
        // SAFETY: the windows are this CPU's, and references into them live shorter than the next call.
        unsafe { cpu::tlbwe(&entry.mas()?) };
    }
    let (_, offset) = page(at, PageSize::M256);
    Some((ea, PageSize::M256.bytes() - offset))
}

/// A word of memory that others may be changing.
///
/// # Safety
/// It must be mapped, and `ea` a multiple of 4.
pub unsafe fn word(ea: u32) -> u32 {
    #[cfg(target_arch = "powerpc")]
    {
        let word;
        // SAFETY: the caller's promise.
        unsafe { core::arch::asm!("lwz {}, 0({})", out(reg) word, in(reg_nonzero) ea, options(nostack, readonly)) };
        word
    }
    #[cfg(not(target_arch = "powerpc"))]
    {
        let _ = ea;
        0
    }
}

/// Memory as this CPU's windows show it.
#[derive(Debug)]
pub struct Ram<'a>(pub &'a mut Windows);

impl Physical for Ram<'_> {
    fn read(&mut self, mut at: TruePhys, mut into: &mut [u8]) -> bool {
        while !into.is_empty() {
            let Some((ea, room)) = reach(self.0, at) else { return false };
            let (now, rest) = into.split_at_mut(into.len().min(room as usize));
            // SAFETY: mapped by `reach`; the target is a slice.
            unsafe { copy(now.as_mut_ptr(), ea as usize as *const u8, now.len()) };
            at = TruePhys(at.0 + now.len() as u64);
            into = rest;
        }
        true
    }

    fn write(&mut self, mut at: TruePhys, mut from: &[u8]) -> bool {
        while !from.is_empty() {
            let Some((ea, room)) = reach(self.0, at) else { return false };
            let (now, rest) = from.split_at(from.len().min(room as usize));
            // SAFETY: mapped by `reach`. The callers write to guests' memory only, as the configuration has it.
            unsafe { copy(ea as usize as *mut u8, now.as_ptr(), now.len()) };
            cpu::make_executable(ea, now.len() as u32, LINE);
            at = TruePhys(at.0 + now.len() as u64);
            from = rest;
        }
        true
    }
}
