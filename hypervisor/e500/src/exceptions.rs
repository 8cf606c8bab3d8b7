//! Where exceptions go: into a report on the serial line, after which the CPU stops. The hypervisor expects
//! none while it starts.

use core::cell::UnsafeCell;
use core::fmt::Write as _;
use core::sync::atomic::{AtomicU32, Ordering};

use citrine_core::config::MAX_CPUS;
use citrine_core::hardware;
use citrine_core::report::{self, Registers};

use crate::cpu::{self, spr};
use crate::serial::{self, Serial};

const STACK_LEN: usize = 4096;

/// One CPU's area for exceptions; its address is in SPRG0. `entry.s` knows the places of the first two.
#[repr(C, align(64))]
struct Area {
    registers: UnsafeCell<Registers>,
    stack_end: AtomicU32,
    depth: AtomicU32,
    stack: UnsafeCell<[u8; STACK_LEN]>,
}

// SAFETY: each area is used by one CPU only, the one whose SPRG0 leads to it.
unsafe impl Sync for Area {}

// The offset that `save` in entry.s uses.
const _: () = assert!(core::mem::offset_of!(Area, stack_end) == 196);

static AREAS: [Area; MAX_CPUS as usize] = [const {
    Area {
        registers: UnsafeCell::new(Registers {
            gpr: [0; 32],
            cr: 0,
            lr: 0,
            ctr: 0,
            xer: 0,
            srr: [[0; 2]; 4],
            esr: 0,
            dear: 0,
            mcsr: 0,
            mcar: 0,
            vector: 0,
        }),
        stack_end: AtomicU32::new(0),
        depth: AtomicU32::new(0),
        stack: UnsafeCell::new([0; STACK_LEN]),
    }
}; MAX_CPUS as usize];

#[cfg(target_arch = "powerpc")]
unsafe extern "C" {
    /// Points IVPR and each IVOR to its vector.
    fn citrine_set_vectors();
    /// Lets exceptions of the guest end `citrine_enter_guest`.
    fn citrine_set_guest_vectors();
    /// Sets the machine state register.
    fn citrine_set_msr(msr: u32);
}

/// Sends this CPU's exceptions to the report, machine checks included. `cpu` is its number.
pub fn install(cpu: u32) {
    let Some(area) = AREAS.get(cpu as usize) else { cpu::stop() };
    let end = area.stack.get() as usize + STACK_LEN;
    area.stack_end.store(end as u32 & !0xf, Ordering::Relaxed);
    let area = core::ptr::from_ref(area) as usize as u32;
    // SAFETY: the vectors use SPRG0 as the address of an `Area`, and areas live for ever.
    unsafe { cpu::mtspr::<{ spr::SPRG0 }>(area) };
    #[cfg(target_arch = "powerpc")]
    // SAFETY: SPRG0 is set; the new MSR keeps address spaces and privilege, and interrupts stay disabled.
    unsafe {
        citrine_set_vectors();
        citrine_set_msr(cpu::MSR_ME);
    }
}

/// From now on exceptions of the guest are its own; the report stays for those of the hypervisor.
pub fn expect_guests() {
    #[cfg(target_arch = "powerpc")]
    // SAFETY: this CPU's page is attached, which those vectors write to.
    unsafe {
        citrine_set_guest_vectors();
    }
}

/// Called by the vectors when all registers are in this CPU's area.
#[unsafe(no_mangle)]
extern "C" fn citrine_exception(area: &'static Area) -> ! {
    let number = cpu::mfspr::<{ spr::PIR }>();
    // SAFETY: the area is this CPU's, and the vectors have finished writing to it.
    let registers = unsafe { &*area.registers.get() };
    serial::open_any(hardware::serial_without_tree(cpu::mfspr::<{ spr::SVR }>()));
    // An exception in here would come back for ever.
    match area.depth.fetch_add(1, Ordering::Relaxed) {
        0 => drop(report::exception(&mut Serial, number, registers)),
        1 => drop(writeln!(Serial, "\nCPU {number} stopped in its own report, vector {}", registers.vector)),
        _ => {}
    }
    cpu::stop()
}
