//! The state in which a virtual CPU begins (ePAPR 1.1 §5.4, §5.5).

use citrine_formats::addr::GuestPhys;

use crate::cpu::Cpu;
use crate::mmu::{self, Change, Entry, Mmu, mas};
use crate::vcpu::{Frame, Registers, Shared, Vcpu};

#[cfg(test)]
mod tests;

/// What r6 holds on the first virtual CPU: "EPAP".
const MAGIC: u32 = 0x4550_4150;
/// What r1 holds: no stack.
const NO_STACK: u32 = 0xdead_beef;
/// The initial mapping of virtual CPUs other than the first. Topaz has 1 MiB, as ePAPR 1.1 §5.5.3 asks at least;
/// but Linux 6.12's `__early_start` reads a variable 3.7 MiB further on before it maps anything.
const SECONDARY_MAPPING: u64 = 64 << 20;
/// L1CSR0, L1CSR1: the cache is on and checks parity.
const CACHE_ON: u32 = 0x1_0001;
/// All bits of TSR that can be set.
const ALL_TIMERS: u32 = 0xfc00_0000;
/// The largest page of a TLB1, 4 GiB.
const LARGEST: u32 = 11;

/// The first virtual CPU of a partition enters its image at `entry`. The device tree is at `dtb`; guest-physical
/// bytes from 0 to `ima_size` are mapped at the same effective addresses.
pub fn start_primary(vcpu: &mut Vcpu, cpu: &mut impl Cpu, entry: GuestPhys, dtb: GuestPhys, ima_size: u64) {
    reset(vcpu, cpu);
    let mut at = 0;
    for number in 0..mmu::ENTRIES {
        let Some(size) = largest(at, ima_size) else { break };
        vcpu.mmu.preset(number, mapping(at, at, size));
        at += page(size);
    }
    vcpu.frame.pc = entry.0 as u32;
    set(vcpu, [(3, dtb.0 as u32), (6, MAGIC), (7, u32::try_from(ima_size).unwrap_or(u32::MAX))]);
}

/// Another virtual CPU enters at `entry`, with this in r3: what the partition has written into its spin table.
pub fn start_secondary(vcpu: &mut Vcpu, cpu: &mut impl Cpu, entry: GuestPhys, r3: u32) {
    reset(vcpu, cpu);
    let offset = entry.0 % SECONDARY_MAPPING;
    if let Some(size) = largest(0, SECONDARY_MAPPING) {
        vcpu.mmu.preset(0, mapping(0, entry.0 - offset, size));
    }
    vcpu.frame.pc = offset as u32;
    set(vcpu, [(3, r3), (6, 0), (7, SECONDARY_MAPPING as u32)]);
}

fn set(vcpu: &mut Vcpu, registers: [(u32, u32); 3]) {
    vcpu.set_gpr(1, NO_STACK);
    for (number, value) in registers {
        vcpu.set_gpr(number, value);
    }
}

/// Everything as after reset, caches on, nothing translated; the number of the virtual CPU stays. Field by field:
/// all of a virtual CPU at once is too much for the stack.
pub fn reset(vcpu: &mut Vcpu, cpu: &mut impl Cpu) {
    const REGISTERS: Registers = Vcpu::new(0).registers;
    vcpu.frame = Frame::default();
    let pir = vcpu.shared.pir;
    vcpu.shared = Shared::default();
    vcpu.shared.pir = pir;
    vcpu.fast.reset();
    vcpu.registers = REGISTERS;
    vcpu.registers.cache.l1csr0 = CACHE_ON;
    vcpu.registers.cache.l1csr1 = CACHE_ON;
    vcpu.pending = Default::default();
    vcpu.mmu = Mmu::new();
    cpu.set_tcr(0);
    cpu.clear_tsr(ALL_TIMERS);
    for index in 3..=7 {
        cpu.set_sprg(index, 0);
    }
    cpu.shadow(&Change::All);
    cpu.context(0, 0);
}

/// Bytes of a page of this TSIZE.
const fn page(size: u32) -> u64 {
    1 << (10 + 2 * size)
}

/// TSIZE of the largest page that begins at `at` and ends at `end` or before. What comes before are pages of this
/// size or larger, so it is aligned.
fn largest(at: u64, end: u64) -> Option<u32> {
    let room = end.min(1 << 32).checked_sub(at)?;
    (1..=LARGEST).rev().find(|size| page(*size) <= room)
}

fn mapping(ea: u64, physical: u64, size: u32) -> Entry {
    Entry {
        mas1: mas::V | mas::IPROT | size << mas::TSIZE_SHIFT,
        mas2: ea as u32 | mas::M,
        mas3: physical as u32 & mas::PAGE | mas::SX | mas::SW | mas::SR,
        mas7: (physical >> 32) as u32,
    }
}
