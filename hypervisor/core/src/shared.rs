//! [`Shared`]: the registers of a virtual CPU that its guest might one day read and write by itself.

/// A 64-bit register of which a 32-bit guest has the lower half.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Double {
    /// Upper half.
    pub high: u32,
    /// Lower half.
    pub low: u32,
}

/// The guest's registers, in the layout of `struct kvm_vcpu_arch_shared` (Linux `uapi/asm/kvm_para.h`).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Shared {
    scratch: [Double; 3],
    critical: Double,
    /// SPRG0 to SPRG3.
    pub sprg0: [Double; 4],
    /// Save/restore register 0.
    pub srr0: Double,
    /// Save/restore register 1.
    pub srr1: Double,
    /// DEAR.
    pub dear: Double,
    /// The guest's machine state: `low` holds bits of [`msr::GUEST`] only.
    pub msr: Double,
    dsisr: u32,
    int_pending: u32,
    segments: [u32; 16],
    /// MAS0.
    pub mas0: u32,
    /// MAS1.
    pub mas1: u32,
    /// MAS7 (`high`) and MAS3 (`low`).
    pub mas7_mas3: Double,
    /// MAS2.
    pub mas2: Double,
    /// MAS4.
    pub mas4: u32,
    /// MAS6.
    pub mas6: u32,
    /// ESR.
    pub esr: u32,
    /// PIR: the number of the virtual CPU in its partition.
    pub pir: u32,
    /// SPRG4 to SPRG7.
    pub sprg4: [Double; 4],
}

const _: () = assert!(core::mem::offset_of!(Shared, msr) == 88 && core::mem::offset_of!(Shared, mas0) == 168);
const _: () = assert!(core::mem::offset_of!(Shared, pir) == 204 && core::mem::size_of::<Shared>() == 240);

impl Shared {
    /// The state after reset of the virtual CPU with this number (PIR).
    pub const fn new(pir: u32) -> Self {
        const ZERO: Double = Double { high: 0, low: 0 };
        Self {
            scratch: [ZERO; 3],
            critical: ZERO,
            sprg0: [ZERO; 4],
            srr0: ZERO,
            srr1: ZERO,
            dear: ZERO,
            msr: ZERO,
            dsisr: 0,
            int_pending: 0,
            segments: [0; 16],
            mas0: 0,
            mas1: 0,
            mas7_mas3: ZERO,
            mas2: ZERO,
            mas4: 0,
            mas6: 0,
            esr: 0,
            pir,
            sprg4: [ZERO; 4],
        }
    }
}
