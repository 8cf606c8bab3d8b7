//! [`Vcpu`]: all state of one virtual CPU, and nothing else of the guest.
//!
//! It has no references and a fixed layout, since the assembler around guest entry and the fast trap paths
//! use it by offset. [`Shared`] is the part that those paths touch most; its layout is that of Linux's
//! `struct kvm_vcpu_arch_shared`, so that the page may one day be shown to a guest that knows it.

use crate::mmu::Mmu;
pub use crate::shared::{Double, Shared};

/// Bits of the machine state register (Power ISA 2.06 III-E §4.2.1).
pub mod msr {
    /// User-mode cache locking.
    pub const UCLE: u32 = 1 << 26;
    /// Wait state (e500v2), not on e500mc.
    pub const WE: u32 = 1 << 18;
    /// Critical interrupts.
    pub const CE: u32 = 1 << 17;
    /// External, decrementer, fixed-interval timer and doorbell interrupts.
    pub const EE: u32 = 1 << 15;
    /// Problem state.
    pub const PR: u32 = 1 << 14;
    /// Floating point.
    pub const FP: u32 = 1 << 13;
    /// Machine checks.
    pub const ME: u32 = 1 << 12;
    /// Floating-point exception mode 0.
    pub const FE0: u32 = 1 << 11;
    /// Debug interrupts.
    pub const DE: u32 = 1 << 9;
    /// Floating-point exception mode 1.
    pub const FE1: u32 = 1 << 8;
    /// Address space of instructions.
    pub const IS: u32 = 1 << 5;
    /// Address space of data.
    pub const DS: u32 = 1 << 4;
    /// Performance monitor mark.
    pub const PMM: u32 = 1 << 2;
    /// Recoverable interrupt; no meaning on Book-E, but guests keep it.
    pub const RI: u32 = 1 << 1;
    /// What a guest can change: the others read as zero.
    pub const GUEST: u32 = CE | EE | PR | FP | ME | FE0 | DE | FE1 | IS | DS | PMM | RI;
}

/// Special purpose registers by number (EREF §2.2.1, e500mc reference manual §2.2.1).
pub mod spr {
    #![expect(missing_docs, reason = "the names are the manuals'")]
    pub const DEC: u32 = 22;
    pub const SRR0: u32 = 26;
    pub const SRR1: u32 = 27;
    pub const PID: u32 = 48;
    pub const DECAR: u32 = 54;
    pub const CSRR0: u32 = 58;
    pub const CSRR1: u32 = 59;
    pub const DEAR: u32 = 61;
    pub const ESR: u32 = 62;
    pub const IVPR: u32 = 63;
    pub const USPRG0: u32 = 256;
    pub const SPRG3_USER: u32 = 259;
    pub const SPRG7_USER: u32 = 263;
    pub const TBL_USER: u32 = 268;
    pub const TBU_USER: u32 = 269;
    pub const SPRG0: u32 = 272;
    pub const SPRG7: u32 = 279;
    pub const TBL: u32 = 284;
    pub const TBU: u32 = 285;
    pub const PIR: u32 = 286;
    pub const PVR: u32 = 287;
    pub const DBSR: u32 = 304;
    pub const DBCR0: u32 = 308;
    pub const DBCR1: u32 = 309;
    pub const DBCR2: u32 = 310;
    pub const IAC1: u32 = 312;
    pub const IAC2: u32 = 313;
    pub const DAC1: u32 = 316;
    pub const DAC2: u32 = 317;
    pub const TSR: u32 = 336;
    pub const TCR: u32 = 340;
    pub const MAS7_MAS3: u32 = 372;
    pub const IVOR0: u32 = 400;
    pub const IVOR15: u32 = 415;
    pub const IVOR38: u32 = 432;
    pub const IVOR42: u32 = 436;
    pub const L1CFG0: u32 = 515;
    pub const L1CFG1: u32 = 516;
    pub const NPIDR: u32 = 517;
    pub const L2CFG0: u32 = 519;
    pub const IVOR35: u32 = 531;
    pub const IVOR36: u32 = 532;
    pub const IVOR37: u32 = 533;
    pub const MCARU: u32 = 569;
    pub const MCSRR0: u32 = 570;
    pub const MCSRR1: u32 = 571;
    pub const MCSR: u32 = 572;
    pub const MCAR: u32 = 573;
    pub const DSRR0: u32 = 574;
    pub const DSRR1: u32 = 575;
    pub const DDAM: u32 = 576;
    pub const SPRG8: u32 = 604;
    pub const SPRG9: u32 = 605;
    pub const L1CSR2: u32 = 606;
    pub const MAS0: u32 = 624;
    pub const MAS1: u32 = 625;
    pub const MAS2: u32 = 626;
    pub const MAS3: u32 = 627;
    pub const MAS4: u32 = 628;
    pub const MAS6: u32 = 630;
    pub const PID1: u32 = 633;
    pub const PID2: u32 = 634;
    pub const TLB0CFG: u32 = 688;
    pub const TLB1CFG: u32 = 689;
    pub const CDCSR0: u32 = 696;
    pub const EPR: u32 = 702;
    pub const L2ERRDIS: u32 = 725;
    pub const MAS7: u32 = 944;
    pub const EPLC: u32 = 947;
    pub const EPSC: u32 = 948;
    pub const HID0: u32 = 1008;
    pub const L1CSR0: u32 = 1010;
    pub const L1CSR1: u32 = 1011;
    pub const MMUCSR0: u32 = 1012;
    pub const BUCSR: u32 = 1013;
    pub const MMUCFG: u32 = 1015;
    pub const L2CSR0: u32 = 1017;
    pub const L2CSR1: u32 = 1018;
    pub const SVR: u32 = 1023;
}

/// What the assembler saves when the guest stops and loads when it goes on.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Frame {
    /// General purpose registers.
    pub gpr: [u32; 32],
    /// Condition register.
    pub cr: u32,
    /// Link register.
    pub lr: u32,
    /// Count register.
    pub ctr: u32,
    /// Fixed-point exception register.
    pub xer: u32,
    /// Where the guest was stopped, or goes on (the real SRR0).
    pub pc: u32,
    /// The real machine state in which it was stopped (the real SRR1); not the guest's [`Shared::msr`].
    pub real_msr: u32,
    /// The real exception syndrome; only with program, storage and data TLB interrupts is it of this exit.
    pub esr: u32,
    /// The real exception address; only with data storage, data TLB and alignment interrupts.
    pub dear: u32,
    /// Number of the vector (its interrupt vector offset register) by which it was left.
    pub vector: u32,
}

/// Registers of the guest that no fast path needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Registers {
    /// PID.
    pub pid: u32,
    /// IVPR.
    pub ivpr: u32,
    /// IVOR0 to IVOR15, then IVOR35 to IVOR41 at 35 to 41: index is the number.
    pub ivor: [u32; 42],
    /// Critical save/restore registers.
    pub csrr: [u32; 2],
    /// Debug save/restore registers.
    pub dsrr: [u32; 2],
    /// Machine check save/restore registers.
    pub mcsrr: [u32; 2],
    /// Machine check syndrome.
    pub mcsr: u32,
    /// Machine check address.
    pub mcar: u32,
    /// Machine check address, upper half.
    pub mcaru: u32,
    /// SPRG8 and SPRG9.
    pub sprg8: [u32; 2],
    /// Timer control.
    pub tcr: u32,
    /// Timer status.
    pub tsr: u32,
    /// Decrementer auto-reload.
    pub decar: u32,
    /// External proxy: the last vector.
    pub epr: u32,
    /// Debug control and status: kept for the guest, without effect.
    pub dbcr: [u32; 3],
    /// Debug status.
    pub dbsr: u32,
    /// Instruction and data address compare: kept for the guest, without effect.
    pub compare: [u32; 4],
    /// Cache control: kept for the guest, without effect.
    pub cache: Cache,
}

/// Cache and branch unit control as the guest has written them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cache {
    /// HID0.
    pub hid0: u32,
    /// L1CSR0: data cache.
    pub l1csr0: u32,
    /// L1CSR1: instruction cache.
    pub l1csr1: u32,
    /// L2CSR0.
    pub l2csr0: u32,
}

/// Asynchronous interrupts that wait for their enable bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Pending {
    /// The interrupt controller may have something for this CPU.
    pub external: bool,
    /// A doorbell has been rung.
    pub doorbell: bool,
    /// A critical doorbell has been rung.
    pub critical_doorbell: bool,
}

/// What the fast paths ([`crate::fast`]) keep beside [`Shared`].
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fast {
    /// The guest's r28 to r31 while a fast path uses them.
    pub saved: [u32; 4],
    /// What the real IVPR is when the guest goes on.
    pub vectors: u32,
    /// What the real IVPR is while the guest's kernel, or one of its programs, runs with fast paths.
    pub pages: [u32; 2],
    /// The real machine state in which an `rfi` to the guest's kernel, or to a program, goes on.
    pub real_msr: [u32; 2],
    /// The real machine state in which the guest takes an interrupt.
    pub interrupt_msr: u32,
    /// The guest's machine state, but for EE and PR, to which an `rfi` returns when it is fast.
    pub returns_to: u32,
    /// The guest's vectors for system calls, data TLB and instruction TLB misses.
    pub guest_vectors: [u32; 3],
    /// r26 to r31 while a fast path for TLB misses uses them: another one may have caused the miss.
    pub missed: [u32; 6],
    /// The instruction that has stopped the guest, when it was left by [`PROGRAM_READ`].
    pub word: u32,
    /// The next instruction is not to take a fast path: it could not be read there.
    pub again: bool,
}

/// Instead of the vector for program interrupts (6): the instruction is in [`Fast::word`] already.
pub const PROGRAM_READ: u32 = 65;
/// Number of a vector that no CPU has: the instruction could not be read, and is to run again without fast paths.
pub const AGAIN: u32 = 64;

impl Fast {
    /// Before the first [`reset`](Self::reset).
    const NONE: Self = Self {
        saved: [0; 4],
        vectors: 0,
        pages: [0; 2],
        real_msr: [0; 2],
        interrupt_msr: 0,
        returns_to: 0,
        guest_vectors: [0; 3],
        missed: [0; 6],
        word: 0,
        again: false,
    };

    /// As after reset of the guest; where the vectors are stays.
    pub const fn reset(&mut self) {
        *self = Self { vectors: self.vectors, pages: self.pages, interrupt_msr: real_msr(0), ..Self::NONE };
        self.learn(0);
    }

    /// The guest has executed an `rfi` with this in SRR1: the next one will most often be like it.
    pub const fn learn(&mut self, state: u32) {
        if state & !(msr::GUEST & !(msr::IS | msr::DS)) == 0 {
            self.returns_to = state & !(msr::EE | msr::PR);
            self.real_msr = [real_msr(state & !msr::PR), real_msr(state | msr::PR)];
        }
    }
}

/// The machine state in which the guest really runs when it believes to run in `state`: in problem state, its
/// kernel in address space 1, with the hypervisor's interrupts enabled whatever the guest thinks of its own.
pub const fn real_msr(state: u32) -> u32 {
    let spaces = if state & msr::PR != 0 { 0 } else { msr::IS | msr::DS };
    msr::PR | msr::ME | msr::EE | spaces | state & (msr::FP | msr::FE0 | msr::FE1)
}

/// One virtual CPU.
#[repr(C)]
#[derive(Debug)]
pub struct Vcpu {
    /// What entry and exit exchange.
    pub frame: Frame,
    /// The guest's registers that the fast paths use.
    pub shared: Shared,
    /// What else they use.
    pub fast: Fast,
    /// The other registers.
    pub registers: Registers,
    /// Interrupts that wait.
    pub pending: Pending,
    /// The virtual MMU.
    pub mmu: Mmu,
}

impl Vcpu {
    /// The state after reset of the virtual CPU with this number (PIR).
    pub const fn new(number: u32) -> Self {
        Self {
            frame: Frame { gpr: [0; 32], cr: 0, lr: 0, ctr: 0, xer: 0, pc: 0, real_msr: 0, esr: 0, dear: 0, vector: 0 },
            shared: Shared::new(number),
            fast: Fast::NONE,
            registers: Registers {
                pid: 0,
                ivpr: 0,
                ivor: [0; 42],
                csrr: [0; 2],
                dsrr: [0; 2],
                mcsrr: [0; 2],
                mcsr: 0,
                mcar: 0,
                mcaru: 0,
                sprg8: [0; 2],
                tcr: 0,
                tsr: 0,
                decar: 0,
                epr: 0,
                dbcr: [0; 3],
                dbsr: 0,
                compare: [0; 4],
                cache: Cache { hid0: 0, l1csr0: 0, l1csr1: 0, l2csr0: 0 },
            },
            pending: Pending { external: false, doorbell: false, critical_doorbell: false },
            mmu: Mmu::new(),
        }
    }

    /// The guest's machine state register.
    pub const fn msr(&self) -> u32 {
        self.shared.msr.low
    }

    /// Sets the guest's machine state register; bits that a guest does not have are dropped.
    pub const fn set_msr(&mut self, value: u32) {
        self.shared.msr.low = value & msr::GUEST;
    }

    /// The guest's vector for an interrupt: IVPR and the vector offset register of this number.
    pub fn vector(&self, number: usize) -> u32 {
        let offset = self.registers.ivor.get(number).copied().unwrap_or(0);
        self.registers.ivpr & 0xffff_0000 | offset & 0xfff0
    }

    /// To be told when IVPR or an IVOR has changed.
    pub fn vectors_changed(&mut self) {
        self.fast.guest_vectors = [8, 13, 14].map(|number| self.vector(number));
    }

    /// Whether the guest is in problem state.
    pub const fn is_user(&self) -> bool {
        self.msr() & msr::PR != 0
    }

    /// A general purpose register; the number is that of an instruction's field, below 32.
    pub fn gpr(&self, number: u32) -> u32 {
        self.frame.gpr.get(number as usize).copied().unwrap_or(0)
    }

    /// Sets a general purpose register.
    pub fn set_gpr(&mut self, number: u32, value: u32) {
        if let Some(register) = self.frame.gpr.get_mut(number as usize) {
            *register = value;
        }
    }
}
