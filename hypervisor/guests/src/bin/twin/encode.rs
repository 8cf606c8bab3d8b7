//! Instructions as words (Power ISA 2.06 I, III-E).

/// `nop`.
pub const NOP: u32 = 0x6000_0000;
/// `sc`.
pub const SC: u32 = 0x4400_0002;
/// `sc 1`.
pub const SC_1: u32 = 0x4400_0022;
/// `rfi`, `rfci`, `rfdi`, `rfmci`.
pub const RFI: u32 = 0x4c00_0064;
pub const RFCI: u32 = 0x4c00_0066;
pub const RFDI: u32 = 0x4c00_004e;
pub const RFMCI: u32 = 0x4c00_004c;
/// `tlbre`, `tlbwe`, `tlbsync`.
pub const TLBRE: u32 = 0x7c00_0764;
pub const TLBWE: u32 = 0x7c00_07a4;
pub const TLBSYNC: u32 = 0x7c00_046c;
/// `tlbsx`, `tlbilx` with T=0, `tlbivax`, `msgsnd`, `msgclr`, `dcbi`, `dcbtls`: registers are added.
pub const TLBSX: u32 = 0x7c00_0724;
pub const TLBILX: u32 = 0x7c00_0024;
pub const TLBIVAX: u32 = 0x7c00_0624;
pub const MSGSND: u32 = 0x7c00_019c;
pub const MSGCLR: u32 = 0x7c00_01dc;
pub const DCBI: u32 = 0x7c00_03ac;
pub const DCBTLS: u32 = 0x7c00_014c;
/// `fmr 1,2`.
pub const FMR: u32 = 0xfc20_1090;
/// `tw 31,0,0`.
pub const TRAP: u32 = 0x7fe0_0008;
/// `bctrl`.
pub const BCTRL: u32 = 0x4e80_0421;

/// An instruction of primary opcode 31 and three registers.
pub const fn x(extended: u32, rt: u32, ra: u32, rb: u32) -> u32 {
    31 << 26 | rt << 21 | ra << 16 | rb << 11 | extended << 1
}

/// An instruction with an immediate value.
pub const fn d(primary: u32, rt: u32, ra: u32, immediate: u32) -> u32 {
    primary << 26 | rt << 21 | ra << 16 | immediate & 0xffff
}

/// A special purpose register's number, its halves exchanged.
const fn field(number: u32) -> u32 {
    (number & 0x1f) << 16 | (number >> 5 & 0x1f) << 11
}

/// `mfspr`.
pub const fn mfspr(rt: u32, number: u32) -> u32 {
    x(339, rt, 0, 0) | field(number)
}

/// `mtspr`.
pub const fn mtspr(number: u32, rs: u32) -> u32 {
    x(467, rs, 0, 0) | field(number)
}

/// `mfmsr`.
pub const fn mfmsr(rt: u32) -> u32 {
    x(83, rt, 0, 0)
}

/// `mtmsr`.
pub const fn mtmsr(rs: u32) -> u32 {
    x(146, rs, 0, 0)
}

/// `wrtee`.
pub const fn wrtee(rs: u32) -> u32 {
    x(131, rs, 0, 0)
}

/// `wrteei`.
pub const fn wrteei(enable: bool) -> u32 {
    x(163, 0, 0, 0) | (enable as u32) << 15
}

/// A register becomes `value`: `lis`, `ori`.
pub const fn load(register: u32, value: u32) -> [u32; 2] {
    [d(15, register, 0, value >> 16), d(24, register, register, value)]
}

/// `ba`: a branch to an address in the first 32 MiB.
pub const fn branch_to(address: u32) -> u32 {
    18 << 26 | address & 0x03ff_fffc | 2
}

/// `stw` to an address in the first 32 KiB.
pub const fn store_at(register: u32, address: u32) -> u32 {
    d(36, register, 0, address)
}
