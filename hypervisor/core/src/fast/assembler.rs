//! The instructions that fast paths consist of, as words (Power ISA 2.06 I, III-E).
//!
//! Displacements and immediates are as wide as the instruction has room for; what does not fit is cut off, and the
//! tests that run the code notice.

/// CTR, as an SPR.
pub(super) const CTR: u32 = 9;

const fn d_form(primary: u32, t: u32, a: u32, immediate: i32) -> u32 {
    primary << 26 | t << 21 | a << 16 | immediate as u32 & 0xffff
}

const fn x_form(primary: u32, t: u32, a: u32, b: u32, extended: u32) -> u32 {
    primary << 26 | t << 21 | a << 16 | b << 11 | extended << 1
}

const fn m_form(primary: u32, a: u32, s: u32, shift: u32, begin: u32, end: u32) -> u32 {
    primary << 26 | s << 21 | a << 16 | shift << 11 | begin << 6 | end << 1
}

pub(super) const fn addi(t: u32, a: u32, immediate: i32) -> u32 {
    d_form(14, t, a, immediate)
}

/// `lis`: the upper half of `value`.
pub(super) const fn lis(t: u32, value: u32) -> u32 {
    d_form(15, t, 0, (value >> 16) as i32)
}

pub(super) const fn li(t: u32, immediate: i32) -> u32 {
    addi(t, 0, immediate)
}

pub(super) const fn ori(a: u32, s: u32, immediate: u32) -> u32 {
    d_form(24, s, a, immediate as i32)
}

pub(super) const fn xoris(a: u32, s: u32, immediate: u32) -> u32 {
    d_form(27, s, a, immediate as i32)
}

/// The upper half of `value`.
pub(super) const fn oris(a: u32, s: u32, value: u32) -> u32 {
    d_form(25, s, a, (value >> 16) as i32)
}

/// `andi.`: sets CR0.
pub(super) const fn andi_(a: u32, s: u32, immediate: u32) -> u32 {
    d_form(28, s, a, immediate as i32)
}

pub(super) const fn lwz(t: u32, a: u32, displacement: i32) -> u32 {
    d_form(32, t, a, displacement)
}

pub(super) const fn stw(s: u32, a: u32, displacement: i32) -> u32 {
    d_form(36, s, a, displacement)
}

pub(super) const fn lbz(t: u32, a: u32, displacement: i32) -> u32 {
    d_form(34, t, a, displacement)
}

/// Loads registers `t` to 31.
pub(super) const fn lmw(t: u32, a: u32, displacement: i32) -> u32 {
    d_form(46, t, a, displacement)
}

/// Stores registers `s` to 31.
pub(super) const fn stmw(s: u32, a: u32, displacement: i32) -> u32 {
    d_form(47, s, a, displacement)
}

pub(super) const fn xor(a: u32, s: u32, b: u32) -> u32 {
    x_form(31, s, a, b, 316)
}

pub(super) const fn and(a: u32, s: u32, b: u32) -> u32 {
    x_form(31, s, a, b, 28)
}

pub(super) const fn rlwimi(a: u32, s: u32, shift: u32, begin: u32, end: u32) -> u32 {
    m_form(20, a, s, shift, begin, end)
}

/// `rlwnm.`: sets CR0.
pub(super) const fn rlwnm_(a: u32, s: u32, b: u32, begin: u32, end: u32) -> u32 {
    m_form(23, a, s, b, begin, end) | 1
}

/// `rlwinm.`: sets CR0.
pub(super) const fn rlwinm_(a: u32, s: u32, shift: u32, begin: u32, end: u32) -> u32 {
    rlwinm(a, s, shift, begin, end) | 1
}

pub(super) const fn rlwinm(a: u32, s: u32, shift: u32, begin: u32, end: u32) -> u32 {
    m_form(21, a, s, shift, begin, end)
}

/// The two halves of an SPR's number are swapped in the instruction.
const fn spr_field(number: u32) -> u32 {
    (number & 0x1f) << 16 | (number >> 5) << 11
}

pub(super) const fn mfspr(t: u32, number: u32) -> u32 {
    x_form(31, t, 0, 0, 339) | spr_field(number)
}

pub(super) const fn mtspr(number: u32, s: u32) -> u32 {
    x_form(31, s, 0, 0, 467) | spr_field(number)
}

pub(super) const fn mfcr(t: u32) -> u32 {
    x_form(31, t, 0, 0, 19)
}

/// `mtcrf 0x80`: CR0 only.
pub(super) const fn mtcr0(s: u32) -> u32 {
    x_form(31, s, 0, 0, 144) | 0x80 << 12
}

/// Loads a word in the address space, and with the rights, that EPLC names (EREF, lwepx).
pub(super) const fn lwepx(t: u32, a: u32, b: u32) -> u32 {
    x_form(31, t, a, b, 31)
}

pub(super) const fn mfmsr(t: u32) -> u32 {
    x_form(31, t, 0, 0, 83)
}

pub(super) const fn mtmsr(s: u32) -> u32 {
    x_form(31, s, 0, 0, 146)
}

pub(super) const fn wrtee(s: u32) -> u32 {
    x_form(31, s, 0, 0, 131)
}

pub(super) const fn wrteei(enable: bool) -> u32 {
    x_form(31, 0, 0, 0, 163) | (enable as u32) << 15
}

pub(super) const RFI: u32 = x_form(19, 0, 0, 0, 50);

/// `bctr`.
pub(super) const BCTR: u32 = x_form(19, 20, 0, 0, 528);

/// `b`, by `offset` bytes.
pub(super) const fn b(offset: i32) -> u32 {
    18 << 26 | offset as u32 & 0x03ff_fffc
}

/// `bdnz`, by `offset` bytes: decrements CTR, and branches unless it is zero.
pub(super) const fn bdnz(offset: i32) -> u32 {
    16 << 26 | 16 << 21 | offset as u32 & 0xfffc
}

/// `bne`, by `offset` bytes, on CR0.
pub(super) const fn bne(offset: i32) -> u32 {
    16 << 26 | 4 << 21 | 2 << 16 | offset as u32 & 0xfffc
}

/// `beq`, by `offset` bytes, on CR0.
pub(super) const fn beq(offset: i32) -> u32 {
    16 << 26 | 12 << 21 | 2 << 16 | offset as u32 & 0xfffc
}
