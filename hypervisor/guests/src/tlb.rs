//! The MMU as a guest's kernel sees it: entries are written, read back and invalidated (EREF §6.5).

#[cfg(target_arch = "powerpc")]
use core::arch::asm;

use crate::cpu;

/// MAS3: whoever may do what.
pub mod permit {
    /// User may execute.
    pub const UX: u32 = 0x20;
    /// Supervisor may execute.
    pub const SX: u32 = 0x10;
    /// User may write.
    pub const UW: u32 = 0x08;
    /// Supervisor may write.
    pub const SW: u32 = 0x04;
    /// User may read.
    pub const UR: u32 = 0x02;
    /// Supervisor may read.
    pub const SR: u32 = 0x01;
    /// The kernel may do everything.
    pub const KERNEL: u32 = SX | SW | SR;
    /// Everyone may do everything.
    pub const ALL: u32 = 0x3f;
}

/// MAS2: caches are bypassed and accesses keep their order, for device registers.
pub const INHIBITED_GUARDED: u32 = 0x0a;
/// MAS2: memory that CPUs share.
pub const COHERENT: u32 = 0x04;

/// Where an entry is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Slot {
    /// TLB0, in this way; the set comes from the address.
    Page(u32),
    /// TLB1, this entry.
    Large(u32),
}

/// One translation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Effective address.
    pub ea: u32,
    /// Guest-physical address.
    pub gpa: u64,
    /// Size as MAS1[TSIZE]: 1 KiB to the power of two.
    pub tsize: u32,
    /// MAS1[TID]: the process, 0 for all.
    pub tid: u32,
    /// MAS1[TS]: the address space.
    pub space: bool,
    /// MAS1[IPROT]: invalidations leave it.
    pub protected: bool,
    /// MAS2: attributes.
    pub attributes: u32,
    /// MAS3: permissions.
    pub permissions: u32,
}

impl Entry {
    /// A protected entry for the kernel, of all processes, in address space 0.
    pub const fn kernel(ea: u32, gpa: u64, tsize: u32, attributes: u32) -> Self {
        Self { ea, gpa, tsize, tid: 0, space: false, protected: true, attributes, permissions: permit::KERNEL }
    }

    fn mas1(&self) -> u32 {
        1 << 31
            | u32::from(self.protected) << 30
            | (self.tid & 0x3fff) << 16
            | u32::from(self.space) << 12
            | (self.tsize & 0x1f) << 7
    }
}

/// MAS1[TSIZE] of 4 KiB.
pub const SIZE_4K: u32 = 2;
/// MAS1[TSIZE] of 1 GiB.
pub const SIZE_1G: u32 = 20;

/// Writes an entry.
///
/// # Safety
/// What Rust knows of must stay mapped one to one: the guest's image, and what it holds references to.
pub unsafe fn write(slot: Slot, entry: &Entry) {
    // SAFETY: the caller's promise.
    unsafe { write_raw(slot, entry.mas1(), entry) }
}

/// Maps the first GiB one to one for everyone, whatever of it the guest was entered with, and protects that.
pub fn map_low() {
    let entry = Entry { permissions: permit::ALL, ..Entry::kernel(0, 0, SIZE_1G, COHERENT) };
    // SAFETY: the entry that the guest was entered with (ePAPR 1.1 §5.4.2) is the first, and maps the same.
    unsafe { write(Slot::Large(0), &entry) }
}

/// Makes an entry of TLB1, or of TLB0 in its way, invalid.
///
/// # Safety
/// As [`write`].
pub unsafe fn clear(slot: Slot, entry: &Entry) {
    // SAFETY: the caller's promise.
    unsafe { write_raw(slot, 0, entry) }
}

/// MAS0 for a slot.
const fn select(slot: Slot) -> u32 {
    match slot {
        Slot::Page(way) => (way & 3) << 16,
        Slot::Large(index) => 1 << 28 | (index & 63) << 16,
    }
}

unsafe fn write_raw(slot: Slot, mas1: u32, entry: &Entry) {
    let mas0 = select(slot);
    let mas2 = entry.ea & 0xffff_f000 | entry.attributes;
    let mas3 = entry.gpa as u32 & 0xffff_f000 | entry.permissions;
    let mas7 = (entry.gpa >> 32) as u32;
    #[cfg(target_arch = "powerpc")]
    // SAFETY: the caller's promise. The barriers are those of EREF §6.5.3.
    unsafe {
        asm!(
            "mtspr 624, {0}", "mtspr 625, {1}", "mtspr 626, {2}", "mtspr 627, {3}", "mtspr 944, {4}",
            "isync", "tlbwe", "msync", "isync",
            in(reg) mas0, in(reg) mas1, in(reg) mas2, in(reg) mas3, in(reg) mas7, options(nostack)
        );
    }
    #[cfg(not(target_arch = "powerpc"))]
    let _ = (mas0, mas1, mas2, mas3, mas7);
}

/// Finishes a TLB miss: the hardware has chosen the slot and set all but the physical side (EREF §6.5.7.2).
///
/// # Safety
/// As [`write`].
pub unsafe fn fill(gpa: u64, permissions: u32) {
    let mas3 = gpa as u32 & 0xffff_f000 | permissions;
    let mas7 = (gpa >> 32) as u32;
    #[cfg(target_arch = "powerpc")]
    // SAFETY: the caller's promise.
    unsafe {
        asm!("mtspr 627, {0}", "mtspr 944, {1}", "isync", "tlbwe", "isync", in(reg) mas3, in(reg) mas7, options(nostack));
    }
    #[cfg(not(target_arch = "powerpc"))]
    let _ = (mas3, mas7);
}

/// What a TLB miss proposes (MAS4): an entry of 4 KiB in TLB0, memory that CPUs share.
pub fn set_defaults() {
    let mas4 = SIZE_4K << 7 | COHERENT;
    #[cfg(target_arch = "powerpc")]
    // SAFETY: used by the next miss only.
    unsafe {
        asm!("mtspr 628, {0}", "isync", in(reg) mas4, options(nostack));
    }
    #[cfg(not(target_arch = "powerpc"))]
    let _ = mas4;
}

/// Invalidates this CPU's translations of one page of address space 0 and process 0 (`tlbilx` T=3, EREF §6.5.4).
pub fn invalidate_page(ea: u32) {
    #[cfg(target_arch = "powerpc")]
    // SAFETY: protected entries stay, and with them what Rust knows of; MAS6 says whose page it is.
    unsafe {
        asm!("mtspr 630, {0}", "isync", ".long 0x7c602024", "msync", "isync",
            in(reg) 0u32, in("r4") ea, options(nostack));
    }
    #[cfg(not(target_arch = "powerpc"))]
    let _ = ea;
    cpu::sync();
}

/// MAS0, MAS1, MAS2, MAS3, MAS4, MAS6 and MAS7: what a miss, a search or a read has left.
pub fn assist() -> [u32; 7] {
    #[cfg(target_arch = "powerpc")]
    {
        let [mut mas0, mut mas1, mut mas2, mut mas3, mut mas4, mut mas6, mut mas7] = [0u32; 7];
        // SAFETY: reading these changes nothing.
        unsafe {
            asm!(
                "mfspr {0}, 624", "mfspr {1}, 625", "mfspr {2}, 626", "mfspr {3}, 627", "mfspr {4}, 628",
                "mfspr {5}, 630", "mfspr {6}, 944",
                out(reg) mas0, out(reg) mas1, out(reg) mas2, out(reg) mas3, out(reg) mas4, out(reg) mas6,
                out(reg) mas7, options(nomem, nostack)
            );
        }
        [mas0, mas1, mas2, mas3, mas4, mas6, mas7]
    }
    #[cfg(not(target_arch = "powerpc"))]
    [0; 7]
}

/// Reads what is written at a slot of TLB1, or in a way of the set of TLB0 that `ea` is in: [`assist`] afterwards.
pub fn read(slot: Slot, ea: u32) -> [u32; 7] {
    let (mas0, mas2) = (select(slot), ea & 0xffff_f000);
    #[cfg(target_arch = "powerpc")]
    // SAFETY: changes these registers only.
    unsafe {
        asm!("mtspr 624, {0}", "mtspr 626, {1}", "isync", "tlbre", "isync", in(reg) mas0, in(reg) mas2, options(nostack));
    }
    #[cfg(not(target_arch = "powerpc"))]
    let _ = (mas0, mas2);
    assist()
}

/// Invalidates all of this CPU's translations that are not protected (`tlbilx` T=0, EREF §6.5.4).
pub fn invalidate_all() {
    #[cfg(target_arch = "powerpc")]
    // SAFETY: protected entries stay, and with them what Rust knows of.
    unsafe {
        asm!(".long 0x7c000024", "msync", "isync", options(nostack));
    }
    cpu::sync();
}
