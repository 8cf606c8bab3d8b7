//! The two pages of vectors.

use core::mem::offset_of;

use arrayvec::ArrayVec;

use super::assembler::{
    BCTR, CTR, RFI, addi, and, andi_, b, bdnz, beq, bne, lbz, li, lis, lmw, lwepx, lwz, mfcr, mfspr, mtcr0, mtspr, ori,
    oris, rlwimi, rlwinm, rlwinm_, rlwnm_, stmw, stw, xor,
};
use super::{Code, Faults, PAGE_LEN, Places, Tails};
use crate::interrupts::esr;
use crate::mmu::{mas, places as mmu_places};
use crate::vcpu::{Fast, Registers, Shared, Vcpu, msr, spr};

/// Where on the page of the kernel the code is that is no vector: IVORs lead to the image's first 32 KiB.
const TAILS: u32 = 0x8000;
/// The instruction of the program vector that reads the guest's, and that of the system call vector.
const LWEPX: u32 = 3;
const LOAD: u32 = 2;

/// See [`Places::faults`].
pub(super) const fn faults(places: &Places) -> Faults {
    Faults {
        kernel: places.pages.wrapping_add(places.program + 4 * LWEPX),
        program: places.pages.wrapping_add(PAGE_LEN as u32 + places.system_call + 4 * LOAD),
    }
}

/// Writes both pages.
pub(super) fn write(places: &Places, kernel: &mut [u32], program: &mut [u32]) -> Tails {
    let (at_kernel, at_program) = (places.pages, places.pages.wrapping_add(PAGE_LEN as u32));
    kernel.fill(b(places.image.wrapping_sub(at_kernel) as i32));
    program.fill(b(places.image.wrapping_sub(at_program) as i32));

    emulate(places, &mut Code::new(kernel, at_kernel, at_kernel.wrapping_add(places.program)));
    let mut code = Code::new(kernel, at_kernel, at_kernel.wrapping_add(TAILS));
    let read = code.here();
    code.push(stw(31, 0, places.fast(offset_of!(Fast, word))));
    slow(places, &mut code, places.program_read);
    let slow_at = code.here();
    slow(places, &mut code, places.program);
    let tails = Tails { slow: slow_at, read, rfi: code.here() };
    rfi(places, &mut code, tails.slow);
    for (data, vector, number) in [(true, places.data_tlb, 1), (false, places.instruction_tlb, 2)] {
        for (page, at, switch) in [(None, at_kernel, false), (Some(&mut *program), at_program, true)] {
            let here = code.here();
            miss(places, &mut code, &Miss { data, vector, number, switch });
            let at_vector = at.wrapping_add(vector);
            match page {
                None => Code::new(code.words, at_kernel, at_vector).branch(here),
                Some(page) => Code::new(page, at_program, at_vector).branch(here),
            }
        }
    }
    system_call(places, &mut Code::new(program, at_program, at_program.wrapping_add(places.system_call)));
    tails
}

/// Program interrupts of the guest's kernel: to the stub for the instruction, with r29 behind it, r31 the instruction,
/// r28 CTR, and all of them saved.
fn emulate(places: &Places, code: &mut Code<'_>) {
    code.extend([
        stmw(28, 0, places.saved(28)),
        mfspr(28, CTR),
        mfspr(29, spr::SRR0),
        lwepx(31, 0, 29),
        addi(29, 29, 4),
        mtspr(spr::SRR0, 29),
        lis(30, places.stubs),
        // `stubs::index`.
        rlwimi(30, 31, 26, 12, 23),
        rlwimi(30, 31, 31, 24, 25),
        mtspr(CTR, 30),
        BCTR,
    ]);
}

/// As if the path did not exist. ESR and SRR1 are still those of the interrupt.
fn slow(places: &Places, code: &mut Code<'_>, to: u32) {
    code.extend([addi(29, 29, -4), mtspr(spr::SRR0, 29), mtspr(CTR, 28), lmw(28, 0, places.saved(28))]);
    code.branch(places.image.wrapping_add(to));
}

/// `rfi`, to the kernel or to a program, when nothing but EE and PR differs from what `Fast` has prepared.
fn rfi(places: &Places, code: &mut Code<'_>, slow: u32) {
    let msr = offset_of!(Shared, msr.low);
    code.extend([
        lwz(31, 0, places.shared(offset_of!(Shared, srr1.low))),
        lwz(30, 0, places.fast(offset_of!(Fast, returns_to))),
        xor(30, 30, 31),
        // Without EE and PR.
        rlwinm(30, 30, 0, 18, 15),
        addi(30, 30, 1),
        mtspr(CTR, 30),
        bdnz(4 * 12),
        stw(31, 0, places.shared(msr)),
        // PR, as the place in an array of words.
        rlwinm(30, 31, 20, 29, 29),
        lwz(31, 30, places.fast(offset_of!(Fast, real_msr))),
        mtspr(spr::SRR1, 31),
        lwz(30, 30, places.fast(offset_of!(Fast, pages))),
        mtspr(spr::IVPR, 30),
        lwz(30, 0, places.shared(offset_of!(Shared, srr0.low))),
        mtspr(spr::SRR0, 30),
    ]);
    leave(places, code);
    code.branch(slow);
}

/// `sc` of a program: to the guest's kernel. Another level is left to the slow path.
fn system_call(places: &Places, code: &mut Code<'_>) {
    const LEVEL: u32 = 0x20;
    code.extend([
        stmw(28, 0, places.saved(28)),
        mfspr(29, spr::SRR0),
        lwz(31, 29, -4),
        mfcr(28),
        andi_(31, 31, LEVEL),
        bne(4 * 17),
        mtcr0(28),
    ]);
    interrupt(places, code, 0, true);
    code.extend([lmw(28, 0, places.saved(28)), RFI]);
    // Nothing has been changed but CR0.
    code.extend([mtcr0(28), lmw(28, 0, places.saved(28))]);
    code.branch(places.image.wrapping_add(places.system_call));
}

/// The guest takes an interrupt with this of [`Fast::guest_vectors`], at r29. Needs r30 and r31. `switch`: it was on
/// the page of programs.
fn interrupt(places: &Places, code: &mut Code<'_>, vector: usize, switch: bool) {
    const KEPT: u32 = msr::CE | msr::ME | msr::DE;
    code.extend([
        lwz(30, 0, places.shared(offset_of!(Shared, msr.low))),
        stw(29, 0, places.shared(offset_of!(Shared, srr0.low))),
        stw(30, 0, places.shared(offset_of!(Shared, srr1.low))),
        lis(31, KEPT),
        ori(31, 31, KEPT & 0xffff),
        and(30, 30, 31),
        stw(30, 0, places.shared(offset_of!(Shared, msr.low))),
        lwz(30, 0, places.fast(offset_of!(Fast, guest_vectors) + 4 * vector)),
        mtspr(spr::SRR0, 30),
        lwz(31, 0, places.fast(offset_of!(Fast, interrupt_msr))),
        mtspr(spr::SRR1, 31),
    ]);
    if switch {
        code.extend([lis(30, places.pages), mtspr(spr::IVPR, 30)]);
    }
}

/// Back to the guest, at the real SRR0.
pub(super) fn leave(places: &Places, code: &mut Code<'_>) {
    code.extend([mtspr(CTR, 28), lmw(28, 0, places.saved(28)), RFI]);
}

/// Which TLB miss.
struct Miss {
    data: bool,
    /// Where its vector is on each page.
    vector: u32,
    /// Its place in [`Fast::guest_vectors`].
    number: usize,
    /// It was a program's.
    switch: bool,
}

/// A TLB miss that is the guest's own: TLB0 has nothing for the page and the process, in whatever space, and TLB1
/// nothing in that part of the address space.
fn miss(places: &Places, code: &mut Code<'_>, miss: &Miss) {
    let mmu = |offset| places.at(offset_of!(Vcpu, mmu) + offset);
    let saved = places.fast(offset_of!(Fast, missed));
    let shared = |offset| places.shared(offset);
    let mut branches = ArrayVec::<usize, 10>::new();
    let slow = |code: &mut Code<'_>, branch: fn(i32) -> u32, branches: &mut ArrayVec<usize, 10>| {
        branches.push(code.next);
        code.push(branch(0));
    };
    code.extend([stmw(26, 0, saved), mfcr(28), mfspr(31, spr::SRR1), andi_(31, 31, msr::PR)]);
    slow(code, beq, &mut branches);
    code.extend([
        mfspr(29, if miss.data { spr::DEAR } else { spr::SRR0 }),
        // The set, as a displacement.
        rlwinm(30, 29, 26, 19, 25),
        // PID, where MAS1 has it.
        lwz(26, 0, places.at(offset_of!(Vcpu, registers) + offset_of!(Registers, pid))),
        rlwinm(26, 26, 16, 2, 15),
    ]);
    for way in 0..mmu_places::SET_LEN / mmu_places::WAY_LEN {
        let entry = mmu_places::TLB0 + way * mmu_places::WAY_LEN;
        code.extend([lwz(31, 30, mmu(entry + mmu_places::MAS2)), xor(31, 31, 29), rlwinm_(31, 31, 0, 0, 19)]);
        code.push(bne(4 * 9));
        code.extend([lwz(31, 30, mmu(entry + mmu_places::MAS1)), rlwinm_(27, 31, 0, 0, 0)]);
        code.push(beq(4 * 6));
        code.push(rlwinm_(27, 31, 0, 2, 15));
        slow(code, beq, &mut branches);
        code.extend([xor(31, 31, 26), rlwinm_(31, 31, 0, 2, 15)]);
        slow(code, beq, &mut branches);
    }
    code.extend([rlwinm(30, 29, 4, 28, 31), lwz(31, 0, mmu(mmu_places::COVERED)), rlwnm_(31, 31, 30, 0, 0)]);
    slow(code, bne, &mut branches);
    // `Mmu::load_miss`.
    code.extend([
        rlwinm(30, 29, 20, 25, 31),
        lbz(30, 30, mmu(mmu_places::NEXT_VICTIM)),
        lwz(31, 0, shared(offset_of!(Shared, mas4))),
        addi(27, 30, 1),
        rlwinm(27, 27, 0, 30, 31),
        rlwimi(27, 30, 16, 14, 15),
        rlwimi(27, 31, 0, 3, 3),
        stw(27, 0, shared(offset_of!(Shared, mas0))),
        stw(26, 0, shared(offset_of!(Shared, mas6))),
        oris(26, 26, mas::V),
        rlwimi(26, 31, 0, 20, 23),
        stw(26, 0, shared(offset_of!(Shared, mas1))),
        rlwinm(31, 31, 0, 25, 31),
        rlwimi(31, 29, 0, 0, 19),
        stw(31, 0, shared(offset_of!(Shared, mas2.low))),
        li(31, 0),
        stw(31, 0, shared(offset_of!(Shared, mas7_mas3.low))),
        stw(31, 0, shared(offset_of!(Shared, mas7_mas3.high))),
    ]);
    if miss.data {
        code.extend([
            stw(29, 0, shared(offset_of!(Shared, dear.low))),
            mfspr(30, spr::ESR),
            lis(31, esr::ST | esr::FP | esr::BO),
            and(30, 30, 31),
            stw(30, 0, shared(offset_of!(Shared, esr))),
            mfspr(29, spr::SRR0),
        ]);
    } else {
        code.push(stw(31, 0, shared(offset_of!(Shared, esr))));
    }
    interrupt(places, code, miss.number, miss.switch);
    code.extend([mtcr0(28), lmw(26, 0, saved), RFI]);
    let end = code.next;
    for branch in branches {
        if let Some(word) = code.words.get_mut(branch) {
            *word |= 4 * (end - branch) as u32;
        }
    }
    code.extend([mtcr0(28), lmw(26, 0, saved)]);
    code.branch(places.image.wrapping_add(miss.vector));
}
