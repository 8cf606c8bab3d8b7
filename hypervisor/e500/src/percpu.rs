//! One 64 KiB page for each CPU, at the same effective address on all of them: the top of the address space,
//! where assembler reaches it without a base register.
//!
//! | offset | what |
//! |---|---|
//! | 0x0000 | the spin table of the partition whose first CPU this is; the guest sees this 4 KiB frame |
//! | 0x1000 | this CPU's stack |
//! | 0x8000 | [`Top`] |

use core::cell::UnsafeCell;

use citrine_core::shadow::Shadow;
use citrine_core::vcpu::Vcpu;
use citrine_formats::addr::TruePhys;

use crate::cpu;
use crate::tlb::{Entry, IMAGE, PERCPU, PageSize, What, Windows};

/// Length in bytes of a spin table's page.
pub const SPIN_LEN: usize = 0x1000;
/// End of the stack in the page: `entry.s` knows it.
const STACK_END: usize = 0x8000;

/// The upper half of the page.
#[repr(C)]
#[derive(Debug)]
pub struct Top {
    /// The stack pointer while the guest runs.
    hv_stack: u32,
    _pad: [u32; 3],
    /// The virtual CPU.
    pub vcpu: Vcpu,
    /// Which real translations stand for the guest's.
    pub shadow: Shadow,
    /// What this CPU's windows show.
    pub windows: Windows,
}

/// Effective address of the virtual CPU on every CPU.
pub const VCPU: u32 = PERCPU + (STACK_END + core::mem::offset_of!(Top, vcpu)) as u32;

/// The page.
#[repr(C, align(0x10000))]
struct Page {
    spin: UnsafeCell<[u8; SPIN_LEN]>,
    stack: UnsafeCell<[u8; STACK_END - SPIN_LEN]>,
    top: UnsafeCell<Top>,
}

// SAFETY: each page is used by one CPU; its spin table is touched as a guest's memory only.
unsafe impl Sync for Page {}

// What guest.s and entry.s know.
const _: () = {
    use core::mem::{offset_of, size_of};
    assert!(offset_of!(Page, top) == STACK_END && size_of::<Page>() == 0x10000);
    assert!(offset_of!(Top, hv_stack) == 0 && offset_of!(Top, vcpu) == 16);
    assert!(offset_of!(Vcpu, frame) == 0);
    assert!(offset_of!(citrine_core::vcpu::Frame, vector) == 160);
    assert!(offset_of!(Vcpu, fast.saved) == 404 && offset_of!(Vcpu, fast.vectors) == 420);
    assert!(citrine_core::vcpu::AGAIN == 64 && citrine_core::vcpu::PROGRAM_READ == 65);
};

/// How many CPUs can run the hypervisor: no SoC with e500mc or e5500 cores has more. `entry.s` knows it.
pub const COUNT: usize = 8;

/// The pages; `entry.s` finds a CPU's stack in its page.
#[unsafe(export_name = "citrine_pages")]
static PAGES: [Page; COUNT] = [const {
    Page {
        spin: UnsafeCell::new([0; SPIN_LEN]),
        stack: UnsafeCell::new([0; STACK_END - SPIN_LEN]),
        top: UnsafeCell::new(Top {
            hv_stack: 0,
            _pad: [0; 3],
            vcpu: Vcpu::new(0),
            shadow: Shadow::new(),
            windows: Windows::new(),
        }),
    }
}; COUNT];

/// True-physical address of a CPU's page.
fn page_of(cpu: u32, image: TruePhys) -> Option<TruePhys> {
    let page = core::ptr::from_ref(PAGES.get(cpu as usize)?) as usize as u32;
    Some(TruePhys(image.0 + u64::from(page.wrapping_sub(IMAGE))))
}

/// True-physical address of the spin table's page of the partition whose first CPU this is.
pub fn spin_table(cpu: u32, image: TruePhys) -> Option<TruePhys> {
    page_of(cpu, image)
}

/// Maps this CPU's page at the top of the address space, and gives its state away.
///
/// # Safety
/// Once on each CPU, with its own number, when the image is where it stays.
pub unsafe fn attach(cpu: u32, image: TruePhys) -> Option<&'static mut Top> {
    let pa = page_of(cpu, image)?;
    let mas = Entry { slot: 3, ea: PERCPU, pa, size: PageSize::K64, what: What::Memory }.mas()?;
    // SAFETY: slot 3 and this effective address are the page's alone.
    unsafe { cpu::tlbwe(&mas) };
    let top = if cfg!(target_arch = "powerpc") {
        (PERCPU as usize + STACK_END) as *mut Top
    } else {
        PAGES.get(cpu as usize)?.top.get()
    };
    // SAFETY: mapped just now, initialised by the image, and given away only here, by the caller's promise.
    Some(unsafe { &mut *top })
}
