//! A guest that does anything on its virtual CPU, over the real shadow translations and a model of the real TLBs.
//!
//! After each step: the machine state has no bit that a guest has not got; what is real is a part of what the guest's
//! own entries give, in its own memory; user programs have changed nothing but by an interrupt; an instruction that
//! was refused has done nothing.

use citrine_core::cpu::{Cpu, Identification};
use citrine_core::emulate::emulate;
use citrine_core::entry;
use citrine_core::exits::{self, Next, Reason};
use citrine_core::interrupts::{deliver, deliver_pending, tcr};
use citrine_core::memory::GuestMap;
use citrine_core::mmu::{Access, Change, Entry, mas};
use citrine_core::shadow::Shadow;
use citrine_core::vcpu::{Vcpu, msr, spr};
use citrine_formats::addr::{Address as _, GuestPhys, Span, TruePhys};

use crate::input::Input;
use crate::real_tlb::RealTlbs;

/// The guest's memory: guest-physical base, length, true-physical base. Two pieces are no neighbours in both.
const PIECES: [(u64, u64, u64); 3] =
    [(0, 1 << 28, 0x1000_0000), (0x8000_0000, 8 << 20, 0x6000_3000), (0x1_0000_0000, 1 << 28, 0x2_4000_0000)];
/// Effective addresses that meet each other in sets, regions and large pages, and the ends of what programs have.
const ADDRESSES: [u32; 12] = [
    0,
    0x1000,
    0x1ffc,
    0x8_0000,
    0x3fff_f000,
    0x4000_0000,
    0x4000_1000,
    0x4001_0000,
    0xbfff_f000,
    0xc000_0000,
    0xc008_0000,
    0xffff_fffc,
];
/// Real page numbers: in each piece, at the ends of pieces, and nowhere.
const FRAMES: [u64; 9] =
    [0, 0x5000, 0x40_0000, 0x0fff_f000, 0x1000_0000, 0x8000_0000, 0x807f_f000, 0x1_0000_0000, 0xf_ffff_f000];
const STATES: [u32; 9] = [
    0,
    msr::ME,
    msr::ME | msr::EE | msr::CE,
    msr::ME | msr::PR,
    msr::ME | msr::PR | msr::IS | msr::DS,
    msr::ME | msr::IS,
    msr::ME | msr::DS,
    msr::PR | msr::DS,
    !0,
];
const WORDS: [u32; 8] = [0, 1, 2, 0x100, 0x3fff, 0x7fff_ffff, 0x8000_0000, !0];
/// Extended opcodes of primary opcodes 19 and 31 that the emulator knows.
const OPCODES: [(u32, u32); 26] = [
    (19, 38),
    (19, 39),
    (19, 50),
    (19, 51),
    (31, 18),
    (31, 83),
    (31, 131),
    (31, 134),
    (31, 146),
    (31, 163),
    (31, 166),
    (31, 206),
    (31, 230),
    (31, 238),
    (31, 334),
    (31, 339),
    (31, 390),
    (31, 462),
    (31, 467),
    (31, 470),
    (31, 486),
    (31, 566),
    (31, 786),
    (31, 914),
    (31, 946),
    (31, 978),
];
const MFSPR: u32 = 339;
const MTSPR: u32 = 467;
const TLBWE: u32 = 978;
const MTMSR: u32 = 146;
const RFI: u32 = 50;
/// Registers with a meaning of their own.
const REGISTERS: [u32; 20] = [
    spr::PID,
    spr::MAS0,
    spr::MAS1,
    spr::MAS2,
    spr::MAS3,
    spr::MAS4,
    spr::MAS6,
    spr::MAS7,
    spr::SRR1,
    spr::CSRR1,
    spr::DSRR1,
    spr::MCSRR1,
    spr::TCR,
    spr::TSR,
    spr::DBCR0,
    spr::MMUCSR0,
    spr::IVPR,
    spr::IVOR0,
    spr::SPRG3_USER,
    spr::TBL_USER,
];
/// Steps of one input.
const MAX_STEPS: usize = 512;

/// The real CPU: the shadow translations are the hypervisor's own, the rest remembers nothing.
struct Fake {
    shadow: Shadow,
    tlbs: RealTlbs,
    map: GuestMap,
    /// Whatever instruction is fetched.
    word: u32,
    tsr: u32,
    pid: u32,
    /// MSR\[IS, DS\] that the kernel and programs had last.
    spaces: [u32; 2],
    /// The last translation that was made real: address, user, access.
    installed: Option<(u32, bool, Access)>,
}

impl Fake {
    fn new() -> Self {
        let mut map = GuestMap::default();
        for (guest, len, base) in PIECES {
            let guest = Span::new(GuestPhys(guest), len).expect("a piece does not wrap around");
            assert!(map.add(guest, TruePhys(base)), "pieces do not overlap");
        }
        let mut fake = Self {
            shadow: Shadow::new(),
            tlbs: RealTlbs::new(),
            map,
            word: 0,
            tsr: 0,
            pid: 0,
            spaces: [0; 2],
            installed: None,
        };
        fake.shadow(&Change::All);
        fake.context(0, 0);
        fake
    }
}

impl Cpu for Fake {
    fn identification(&self) -> Identification {
        Identification { pvr: 0x8023_0020, svr: 0x8208_0020, l1cfg0: 0x10, l1cfg1: 0x11 }
    }
    fn timebase(&mut self) -> u64 {
        0x1234_5678_9abc
    }
    fn dec(&mut self) -> u32 {
        0x4321
    }
    fn set_dec(&mut self, _: u32) {}
    fn set_decar(&mut self, _: u32) {}
    fn set_tcr(&mut self, value: u32) {
        assert_eq!(value & tcr::WRC, 0, "the real watchdog would reset the machine");
    }
    fn tsr(&mut self) -> u32 {
        self.tsr
    }
    fn clear_tsr(&mut self, bits: u32) {
        self.tsr &= !bits;
    }
    fn set_sprg(&mut self, index: u32, _: u32) {
        assert!((3..=7).contains(&index), "SPRG{index} is the hypervisor's");
    }
    fn fetch(&mut self, at: GuestPhys) -> Option<u32> {
        self.map.translate(at).map(|_| self.word)
    }
    fn shadow(&mut self, change: &Change) {
        self.shadow.change(&mut self.tlbs, change);
    }
    fn context(&mut self, pid: u32, state: u32) {
        self.pid = pid;
        self.spaces[usize::from(state & msr::PR != 0)] = state & (msr::IS | msr::DS);
        self.shadow.context(&mut self.tlbs, pid, state);
    }
    fn install(&mut self, entry: &Entry, ea: u32, user: bool, access: Access) -> bool {
        let done = self.shadow.install(&mut self.tlbs, entry, ea, user, access, &self.map).is_ok();
        assert_eq!(done, self.map.translate(entry.physical(ea)).is_some(), "{entry:x?} at {ea:#x}");
        self.installed = done.then_some((ea, user, access));
        done
    }
    fn doorbell(&mut self, _: u32) {}
}

struct World {
    vcpu: Box<Vcpu>,
    cpu: Fake,
    done: usize,
}

/// Runs the target.
pub fn run(data: &[u8]) -> usize {
    let mut world = World { vcpu: Box::new(Vcpu::new(0)), cpu: Fake::new(), done: 0 };
    world.start();
    let mut input = Input::new(data);
    for _ in 0..MAX_STEPS {
        if world.step(&mut input).is_none() {
            break;
        }
        world.check();
    }
    world.done
}

impl World {
    /// As the hypervisor enters a partition.
    fn start(&mut self) {
        entry::start_primary(&mut self.vcpu, &mut self.cpu, GuestPhys(0), GuestPhys(0x80_0000), 1 << 28);
    }

    fn step(&mut self, input: &mut Input<'_>) -> Option<()> {
        match input.byte()? % 10 {
            0 => {
                let (number, value) = (input.byte()? & 31, input.word(&WORDS)?);
                self.vcpu.set_gpr(number.into(), value);
            }
            1 => {
                let (primary, extended) = input.one_of(&OPCODES)?;
                let fields = input.raw()? & 0x03ff_f801;
                self.emulate(primary << 26 | extended << 1 | fields);
            }
            2 => {
                let register = input.one_of(&REGISTERS)?;
                let value = input.word(&ADDRESSES)?;
                self.vcpu.set_gpr(4, value);
                let operation = if input.byte()? & 1 == 0 { MTSPR } else { MFSPR };
                self.emulate(31 << 26 | 4 << 21 | (register & 31) << 16 | (register >> 5) << 11 | operation << 1);
            }
            3 => {
                let word = input.raw()?;
                self.emulate(word);
            }
            4 => {
                let (vector, esr, dear) = (input.byte()? % 45, input.raw()?, input.word(&ADDRESSES)?);
                self.cpu.word = input.raw()?;
                self.exit(vector.into(), esr, dear);
            }
            5 => {
                let ea = input.word(&ADDRESSES)?.wrapping_add(u32::from(input.byte()?) << 6);
                let (vector, esr) = input.one_of(&[(13, 0), (13, 1 << 23), (2, 0), (2, 1 << 23), (14, 0), (3, 0)])?;
                if matches!(vector, 3 | 14) {
                    self.vcpu.frame.pc = ea & !3;
                }
                self.exit(vector, esr, ea);
            }
            6 => {
                let (which, vector) = (input.byte()?, input.byte()?);
                let pending = &mut self.vcpu.pending;
                pending.external |= which & 1 != 0;
                pending.doorbell |= which & 2 != 0;
                pending.critical_doorbell |= which & 4 != 0;
                self.cpu.tsr |= u32::from(which) << 24;
                deliver_pending(&mut self.vcpu, &mut self.cpu, || (vector & 1 != 0).then(|| vector.into()));
                let left = citrine_core::interrupts::next(&self.vcpu);
                assert_eq!(left, None, "the guest would be entered with an interrupt that it has enabled");
            }
            7 => self.write_entry(input)?,
            8 => {
                let state = input.word(&STATES)?;
                self.vcpu.set_gpr(4, state);
                self.emulate(31 << 26 | 4 << 21 | MTMSR << 1);
            }
            _ => {
                let (at, state) = (input.word(&ADDRESSES)?, input.word(&STATES)?);
                if !self.vcpu.is_user() {
                    (self.vcpu.shared.srr0.low, self.vcpu.shared.srr1.low) = (at, state);
                }
                self.emulate(19 << 26 | RFI << 1);
            }
        }
        Some(())
    }

    /// The guest writes an entry of its TLBs, if it is its kernel.
    fn write_entry(&mut self, input: &mut Input<'_>) -> Option<()> {
        let [place, flags, tid, size, permissions] = *input.bytes(5).first_chunk()?;
        let (ea, frame) = (input.word(&ADDRESSES)?, input.one_of(&FRAMES)?);
        let bit = |n: u8| u32::from(flags >> n & 1);
        if !self.vcpu.is_user() {
            let mas = &mut self.vcpu.shared;
            mas.mas0 = u32::from(place >> 7) << 28 | u32::from(place & 63) << mas::ESEL_SHIFT;
            mas.mas1 = (1 - bit(0) * bit(1)) << 31 | bit(2) << 30 | u32::from(tid & 3) << 16 | bit(3) << 12;
            mas.mas1 |= u32::from(size & 15) << 8;
            mas.mas2.low = ea & mas::PAGE | u32::from(flags >> 3);
            mas.mas7_mas3.low = frame as u32 | u32::from(permissions & 0x3f);
            mas.mas7_mas3.high = (frame >> 32) as u32;
        }
        self.emulate(31 << 26 | TLBWE << 1);
        Some(())
    }

    /// The guest executes an instruction that its real CPU refuses.
    fn emulate(&mut self, word: u32) {
        let vcpu = &mut self.vcpu;
        let before = (vcpu.frame, vcpu.shared, vcpu.registers, vcpu.pending, vcpu.mmu.clone());
        let (state, user) = (vcpu.msr(), vcpu.is_user());
        let result = emulate(vcpu, word, &mut self.cpu);
        match result {
            Ok(()) => {
                self.done += 1;
                assert!(!user || vcpu.msr() == state && vcpu.registers.pid == before.2.pid, "{word:#x} by a program");
                assert!(!user || vcpu.mmu == before.4, "{word:#x} by a program");
            }
            Err(interrupt) => {
                let after = (vcpu.frame, vcpu.shared, vcpu.registers, vcpu.pending, vcpu.mmu.clone());
                assert!(before == after, "{word:#x} has been refused, and has changed something");
                if deliver(vcpu, &mut self.cpu, interrupt).is_err() {
                    self.start();
                }
            }
        }
    }

    /// The guest stops.
    fn exit(&mut self, vector: u32, esr: u32, dear: u32) {
        let vcpu = &mut self.vcpu;
        (vcpu.frame.vector, vcpu.frame.esr, vcpu.frame.dear) = (vector, esr, dear);
        let user = vcpu.is_user();
        self.cpu.installed = None;
        match exits::handle(vcpu, &mut self.cpu) {
            Next::Resume => {
                if let (2 | 3 | 13 | 14, Some((ea, user, access))) = (vector, self.cpu.installed) {
                    let real = self.cpu.tlbs.lookup(!user, ea);
                    assert!(
                        real.is_some_and(|real| real.permits(true, access)),
                        "the guest would try {ea:#x} again for ever"
                    );
                    self.done += 1;
                }
            }
            Next::Hypercall => assert!(!user && vector == 8, "a program has made a hypercall"),
            Next::External => assert_eq!(vector, 4),
            Next::Doorbell => assert!(matches!(vector, 36 | 37), "vector {vector}"),
            Next::Watchdog => assert_eq!(vector, 12),
            Next::Stop(reason) => {
                if let Reason::Unexpected { vector } = reason {
                    let possible = matches!(vector, 2..=14 | 32..=34 | 36 | 37);
                    assert!(!possible, "a guest can stop its partition by vector {vector}");
                }
                self.start();
            }
        }
    }

    fn check(&self) {
        let (vcpu, cpu) = (&self.vcpu, &self.cpu);
        assert_eq!(vcpu.msr() & !msr::GUEST, 0, "the machine state");
        assert_eq!((cpu.pid, cpu.spaces[usize::from(vcpu.is_user())]), (vcpu.registers.pid, self.spaces()));
        let guests: Vec<&Entry> = vcpu.mmu.entries().filter(|entry| entry.is_valid()).collect();
        for real in cpu.tlbs.valid() {
            let (base, end) = (real.physical(real.base()).get(), real.physical(real.base()).get() + real.size());
            let own = PIECES.iter().any(|(_, len, piece)| base >= *piece && end <= piece + len);
            assert!(own, "{real:x?} is not the guest's memory");
            // Under another PID it gives nothing now.
            if real.tid() != 0 && real.tid() != u32::from(cpu.tlbs.pid) {
                continue;
            }
            assert!(guests.iter().any(|guest| self.gives(guest, real)), "{real:x?} stands for nothing");
        }
    }

    fn spaces(&self) -> u32 {
        self.vcpu.msr() & (msr::IS | msr::DS)
    }

    /// Whether an entry of the guest gives at least what a real one does.
    fn gives(&self, guest: &Entry, real: &Entry) -> bool {
        let kernel = real.space();
        let spaces = self.cpu.spaces[usize::from(!kernel)];
        let of_process = guest.tid() == 0 || real.tid() != 0 && guest.tid() == self.cpu.pid;
        let within = guest.contains(real.base()) && guest.size() >= real.size();
        let permitted = [Access::Read, Access::Write, Access::Execute].into_iter().all(|access| {
            let bit = if access == Access::Execute { msr::IS } else { msr::DS };
            let space = guest.space() == (spaces & bit != 0);
            !real.permits(true, access) || space && guest.permits(!kernel, access)
        });
        let at = self.cpu.map.translate(guest.physical(real.base()));
        let same = at.is_some_and(|(at, room)| at.get() == real.physical(real.base()).get() && room >= real.size());
        of_process && within && permitted && same && guest.attributes() | mas::M == real.attributes()
    }
}
