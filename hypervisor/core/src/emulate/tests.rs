//! Every instruction and every register, case by case; then random ones.
extern crate std;
use std::boxed::Box;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::{ILLEGAL, INSTRUCTIONS, Operation, PRIVILEGED, emulate};
use crate::cpu::fake::{Fake, Told};
use crate::cpu::is_reachable;
use crate::interrupts::{Interrupt, esr, tcr, tsr};
use crate::mmu::{Access, Change, Entry, Mmu};
use crate::vcpu::{Frame, Pending, Registers, Shared, Vcpu, msr, spr};

mod registers;

const PC: u32 = 0xc000_1000;

fn kernel() -> Box<Vcpu> {
    let mut vcpu = Box::new(Vcpu::new(5));
    vcpu.frame.pc = PC;
    vcpu
}

fn user() -> Box<Vcpu> {
    let mut vcpu = kernel();
    vcpu.set_msr(msr::PR);
    vcpu
}

/// Everything of a virtual CPU, to compare.
fn state(vcpu: &Vcpu) -> (Frame, Shared, Registers, Pending, Mmu) {
    (vcpu.frame, vcpu.shared, vcpu.registers, vcpu.pending, vcpu.mmu.clone())
}

/// One instruction in the guest's kernel: its word as the assembler makes it, what it finds, what it leaves, what
/// it says to the real CPU. The program counter goes on by 4 unless `after` says something else.
struct Case {
    text: &'static str,
    word: u32,
    before: fn(&mut Vcpu),
    after: fn(&mut Vcpu),
    told: &'static [Told],
}

const NOTHING: fn(&mut Vcpu) = |_| ();

const fn case(text: &'static str, word: u32, before: fn(&mut Vcpu), after: fn(&mut Vcpu)) -> Case {
    Case { text, word, before, after, told: &[] }
}

const fn tells(text: &'static str, word: u32, before: fn(&mut Vcpu), told: &'static [Told]) -> Case {
    Case { text, word, before, after: NOTHING, told }
}

fn enabled(vcpu: &mut Vcpu) {
    vcpu.set_msr(msr::EE | msr::ME);
}

#[rustfmt::skip]
const CASES: &[Case] = &[
    case("mfmsr r5", 0x7ca0_00a6, |v| v.set_msr(msr::EE | msr::ME | msr::RI), |v| v.set_gpr(5, 0x9002)),
    case("mtmsr r6", 0x7cc0_0124, |v| v.set_gpr(6, msr::EE | msr::FP), |v| v.set_msr(msr::EE | msr::FP)),
    Case { text: "mtmsr r6, another context", word: 0x7cc0_0124,
        before: |v| { v.registers.pid = 7; v.set_gpr(6, msr::DS); }, after: |v| v.set_msr(msr::DS),
        told: &[Told::Context(7, msr::DS)] },
    Case { text: "mtmsr r6, bits that no guest has", word: 0x7cc0_0124, before: |v| v.set_gpr(6, !0),
        after: |v| v.set_msr(msr::GUEST), told: &[Told::Context(0, msr::GUEST)] },
    case("wrtee r7, 1", 0x7ce0_0106, |v| { v.set_gpr(7, !0); v.set_msr(msr::ME); }, enabled),
    case("wrtee r7, 0", 0x7ce0_0106, |v| { v.set_gpr(7, !msr::EE); enabled(v); }, |v| v.set_msr(msr::ME)),
    case("wrteei 1", 0x7c00_8146, |v| v.set_msr(msr::ME), enabled),
    case("wrteei 0", 0x7c00_0146, enabled, |v| v.set_msr(msr::ME)),
    case("rfi", 0x4c00_0064,
        |v| { v.shared.srr0.low = 0x1003; v.shared.srr1.low = msr::EE | 1 << 17 | 1 << 31; },
        |v| { v.frame.pc = 0x1000; v.set_msr(msr::EE | msr::CE); }),
    Case { text: "rfi to user", word: 0x4c00_0064, before: |v| v.shared.srr1.low = msr::PR,
        after: |v| { v.frame.pc = 0; v.set_msr(msr::PR); }, told: &[Told::Context(0, msr::PR)] },
    case("rfci", 0x4c00_0066, |v| v.registers.csrr = [0x2000, msr::CE], |v| { v.frame.pc = 0x2000; v.set_msr(msr::CE); }),
    case("rfdi", 0x4c00_004e, |v| v.registers.dsrr = [0x3000, msr::DE], |v| { v.frame.pc = 0x3000; v.set_msr(msr::DE); }),
    case("rfmci", 0x4c00_004c, |v| v.registers.mcsrr = [0x4000, msr::ME], |v| { v.frame.pc = 0x4000; v.set_msr(msr::ME); }),
    case("mtspr SPRG0, r3", 0x7c70_43a6, |v| v.set_gpr(3, 9), |v| v.shared.sprg0[0].low = 9),
    case("mfspr r3, SPRG0", 0x7c70_42a6, |v| v.shared.sprg0[0].low = 9, |v| v.set_gpr(3, 9)),
    case("mfspr r3, PVR", 0x7c7f_42a6, NOTHING, |v| v.set_gpr(3, 0x8023_0020)),
    case("mtspr BUCSR, r3", 0x7c75_fba6, |v| v.set_gpr(3, 0x201), NOTHING),
    case("mfpmr r9, PMGC0", 0x7d30_629c, |v| v.set_gpr(9, 1), |v| v.set_gpr(9, 0)),
    case("mtpmr PMGC0, r9", 0x7d30_639c, |v| v.set_gpr(9, 1), NOTHING),
    case("mfpmr r9, UPMGC0", 0x7d20_629c, |v| v.set_gpr(9, 1), |v| v.set_gpr(9, 0)),
    case("tlbsync", 0x7c00_046c, NOTHING, NOTHING),
    case("dcbi r4, r5", 0x7c04_2bac, NOTHING, NOTHING),
    case("dcbtls 0, r4, r5", 0x7c04_294c, NOTHING, NOTHING),
    case("dcbtstls 0, r4, r5", 0x7c04_290c, NOTHING, NOTHING),
    case("dcblc 0, r4, r5", 0x7c04_2b0c, NOTHING, NOTHING),
    case("icbtls 0, r4, r5", 0x7c04_2bcc, NOTHING, NOTHING),
    case("icblc 0, r4, r5", 0x7c04_29cc, NOTHING, NOTHING),
    tells("msgsnd r8", 0x7c00_419c, |v| v.set_gpr(8, 0x0400_0003), &[Told::Doorbell(0x0400_0003)]),
    case("msgclr r8, normal", 0x7c00_41dc, |v| v.pending = Pending { doorbell: true, critical_doorbell: true, external: true },
        |v| v.pending.doorbell = false),
    case("msgclr r8, critical", 0x7c00_41dc, |v| { v.pending.critical_doorbell = true; v.set_gpr(8, 1 << 27); },
        |v| v.pending.critical_doorbell = false),
    case("msgclr r8, guest doorbells", 0x7c00_41dc, |v| { v.pending.doorbell = true; v.set_gpr(8, 2 << 27); }, NOTHING),
];

#[test]
fn instructions_do_what_they_do() {
    for Case { text, word, before, after, told } in CASES {
        let (mut vcpu, mut expected, mut cpu) = (kernel(), kernel(), Fake::default());
        before(&mut vcpu);
        before(&mut expected);
        expected.frame.pc = PC + 4;
        after(&mut expected);
        assert_eq!(emulate(&mut vcpu, *word, &mut cpu), Ok(()), "{text}");
        assert_eq!(state(&vcpu), state(&expected), "{text}");
        assert_eq!(cpu.told, *told, "{text}");
    }
}

#[test]
fn the_table_is_in_order_and_each_row_has_a_case() {
    assert!(INSTRUCTIONS.is_sorted_by(|first, second| first.key < second.key));
    let tested_elsewhere =
        [Operation::Tlbwe, Operation::Tlbre, Operation::Tlbsx, Operation::Tlbilx, Operation::Tlbivax];
    for row in INSTRUCTIONS {
        let has_case = CASES.iter().any(|case| super::Word(case.word).key() == row.key);
        assert!(has_case || tested_elsewhere.contains(&row.operation), "{row:?}");
    }
}

#[test]
fn user_programs_get_no_further_than_the_privilege_check() {
    let privileged = [
        0x7ca0_00a6,
        0x7cc0_0124,
        0x7ce0_0106,
        0x7c00_8146,
        0x4c00_0064,
        0x4c00_0066,
        0x4c00_004e,
        0x4c00_004c,
        0x7c70_43a6,
        0x7c70_42a6,
        0x7c7f_42a6,
        0x7d30_629c,
        0x7d30_639c,
        0x7c00_046c,
        0x7c04_2bac,
        0x7c00_419c,
        0x7c00_41dc,
        0x7c00_07a4,
        0x7c00_0764,
        0x7c00_1f24,
        0x7c00_0024,
        0x7c20_0024,
        0x7c64_2824,
        0x7c04_2e24,
    ]; // one of each privileged case above, then tlbwe, tlbre, tlbsx, tlbilx three times, tlbivax
    let lock = |esr| Interrupt::DataStorage { dear: 0x1010, esr };
    let others = [
        (0x7c04_294c, lock(esr::DLK)),
        (0x7c04_290c, lock(esr::DLK)),
        (0x7c04_2b0c, lock(esr::DLK)),
        (0x7c04_2bcc, lock(esr::ILK)),
        (0x7c04_29cc, lock(esr::ILK)),
        (0x7d20_639c, ILLEGAL), // mtpmr UPMGC0, r9
        (0x7c63_43a6, ILLEGAL), // mtspr 259, r3
        (0x7c61_42a6, ILLEGAL), // mfspr r3, 257
    ];
    for (word, expected) in privileged.map(|word| (word, PRIVILEGED)).into_iter().chain(others) {
        let (mut vcpu, mut cpu) = (user(), Fake::default());
        (vcpu.frame.gpr[4], vcpu.frame.gpr[5]) = (0x1000, 0x10);
        let before = state(&vcpu);
        assert_eq!(emulate(&mut vcpu, word, &mut cpu), Err(expected), "{word:#x}");
        assert_eq!(state(&vcpu), before, "{word:#x}");
        assert_eq!(cpu.told, []);
    }
}

#[test]
fn what_the_virtual_cpu_has_not_got_is_illegal() {
    let words = [
        (0x0000_0000, "zero"),
        (0x7c64_283e, "lwepx"),
        (0x7c64_293e, "stwepx"),
        (0x7c64_28be, "lbepx"),
        (0x7c65_0286, "mfdcr"),
        (0x4c00_00cc, "rfgi"),
        (0x7c00_021c, "ehpriv"),
        (0x7c40_0024, "tlbilx with T=2"),
        (0x7c00_038c, "dci"),
        (0x7c00_078c, "ici"),
        (0x4400_0022, "sc 1"),
        (0x7c00_0124 ^ 0x0000_0400, "mtmsr with another extended opcode"),
        (0x7c00_0764 & 0x03ff_ffff | 30 << 26, "tlbre with another primary opcode"),
    ];
    for (word, text) in words {
        let (mut vcpu, mut cpu) = (kernel(), Fake::default());
        vcpu.frame.gpr = [0x55; 32];
        let before = state(&vcpu);
        assert_eq!(emulate(&mut vcpu, word, &mut cpu), Err(ILLEGAL), "{text}");
        assert_eq!((state(&vcpu), &*cpu.told), (before, &[][..]), "{text}");
    }
}

#[test]
fn register_0_is_no_base() {
    let (mut vcpu, mut cpu) = (user(), Fake::default());
    (vcpu.frame.gpr[0], vcpu.frame.gpr[5]) = (0x1000, 0x10);
    let refused = emulate(&mut vcpu, 0x7c00_294c, &mut cpu); // dcbtls 0, 0, r5
    assert_eq!(refused, Err(Interrupt::DataStorage { dear: 0x10, esr: esr::DLK }));
}

#[test]
fn reserved_bits_do_not_matter() {
    let (mut vcpu, mut cpu) = (kernel(), Fake::default());
    vcpu.set_gpr(6, msr::EE);
    assert_eq!(emulate(&mut vcpu, 0x7cc0_0124 | 0x001f_f801, &mut cpu), Ok(()));
    assert_eq!(vcpu.msr(), msr::EE);
}

/// V, IPROT, TID 3, TS 0, 4 KiB at 0x1000, all permissions; from guest-physical 0x5000.
const PAGE: Entry = Entry { mas1: 0xc003_0100, mas2: 0x1004, mas3: 0x503f, mas7: 0 };

fn load_mas(vcpu: &mut Vcpu, mas0: u32, entry: Entry) {
    vcpu.shared.mas0 = mas0;
    vcpu.shared.mas1 = entry.mas1;
    vcpu.shared.mas2.low = entry.mas2;
    vcpu.shared.mas7_mas3.low = entry.mas3;
    vcpu.shared.mas7_mas3.high = entry.mas7;
}

fn run(vcpu: &mut Vcpu, cpu: &mut Fake, word: u32) -> Vec<Told> {
    assert_eq!(emulate(vcpu, word, cpu), Ok(()), "{word:#x}");
    cpu.told()
}

#[test]
fn tlb_instructions_reach_the_virtual_tlbs_and_the_shadow() {
    let (mut vcpu, mut cpu) = (kernel(), Fake::default());
    load_mas(&mut vcpu, 0x1003_0000, PAGE);
    let told = run(&mut vcpu, &mut cpu, 0x7c00_07a4);
    assert!(matches!(told[..], [Told::Shadow(_)]), "{told:?}");
    assert_eq!(vcpu.mmu.lookup(false, 3, 0x1abc), Some(&PAGE));

    load_mas(&mut vcpu, 0x1003_0000, Entry::default());
    assert_eq!(run(&mut vcpu, &mut cpu, 0x7c00_0764), []);
    let shared = &vcpu.shared;
    assert_eq!((shared.mas1, shared.mas2.low, shared.mas7_mas3.low), (PAGE.mas1, PAGE.mas2, PAGE.mas3));

    // tlbsx 0, r3: MAS6 says TID 3.
    vcpu.shared.mas1 = 0;
    vcpu.shared.mas6 = 3 << 16;
    vcpu.set_gpr(3, 0x1abc);
    assert_eq!(run(&mut vcpu, &mut cpu, 0x7c00_1f24), []);
    assert_eq!((vcpu.shared.mas1 & 0x8000_0000, vcpu.shared.mas0 >> 16 & 0xfff), (0x8000_0000, 3));

    // The invalidations, each of which the shadow must hear of when there was something.
    vcpu.set_gpr(4, 0x1000);
    for word in [0x7c00_0024, 0x7c20_0024, 0x7c64_2824] {
        let page = Entry { mas1: PAGE.mas1 & !0x4000_0000, ..PAGE };
        load_mas(&mut vcpu, 0x1003_0000, page);
        run(&mut vcpu, &mut cpu, 0x7c00_07a4);
        let told = run(&mut vcpu, &mut cpu, word);
        assert!(matches!(told[..], [Told::Shadow(change)] if change != Change::None), "{word:#x} {told:?}");
        assert_eq!(vcpu.mmu.lookup(false, 3, 0x1abc), None, "{word:#x}");
    }
    // tlbivax r4, r5, all of TLB1 without IPROT.
    let page = Entry { mas1: PAGE.mas1 & !0x4000_0000, ..PAGE };
    load_mas(&mut vcpu, 0x1003_0000, page);
    run(&mut vcpu, &mut cpu, 0x7c00_07a4);
    vcpu.set_gpr(4, 0xc);
    let told = run(&mut vcpu, &mut cpu, 0x7c04_2e24);
    assert!(matches!(told[..], [Told::Shadow(change)] if change != Change::None), "{told:?}");
    assert_eq!(vcpu.mmu.lookup(false, 3, 0x1abc), None);
}

#[test]
fn a_page_for_what_missed_it_is_made_real_at_once() {
    let user = msr::PR;
    let (read, execute) = (Some(Access::Read), Some(Access::Execute));
    let cases = [
        // SRR1, MAS0 (TLBSEL), page number, permissions, valid
        (0, 0, 0x1000, 0x3f, true, read),
        (user, 0, 0x1000, 0x3f, true, read),
        (0, 0, 0x1000, 0x10, true, execute),
        (user, 0, 0x1000, 0x15, true, None),
        (user, 0, 0xbfff_f000, 0x3f, true, read),
        (user, 0, 0xc000_0000, 0x3f, true, None),
        (0, 0, 0xc000_0000, 0x3f, true, read),
        (0, 0x1000_0000, 0x1000, 0x3f, true, None),
        (0, 0, 0x1000, 0x3f, false, None),
    ];
    for (srr1, mas0, ea, permissions, valid, expected) in cases {
        let (mut vcpu, mut cpu) = (kernel(), Fake::default());
        let mas1 = if valid { 0x8000_0100 } else { 0x100 };
        load_mas(&mut vcpu, mas0, Entry { mas1, mas2: ea | 4, mas3: 0x5000 | permissions, mas7: 0 });
        vcpu.shared.srr1.low = srr1;
        let told = run(&mut vcpu, &mut cpu, 0x7c00_07a4);
        let early = expected.map(|access| Told::Install { ea, user: srr1 == user, access });
        assert_eq!(told.get(1).copied(), early, "{srr1:#x} {mas0:#x} {ea:#x} {permissions:#x} {valid}");
        assert!(matches!(told[0], Told::Shadow(_)));
    }
}

/// Words that are in the table most of the time, with every field random.
fn words() -> impl Strategy<Value = Vec<u32>> {
    let known = (0..INSTRUCTIONS.len(), any::<u32>()).prop_map(|(row, rest)| {
        (INSTRUCTIONS[row].key >> 10) << 26 | (INSTRUCTIONS[row].key & 0x3ff) << 1 | rest & 0x03ff_f801
    });
    let register = (0..super::spr::REGISTERS.len(), any::<bool>(), 0..32_u32).prop_map(|(row, is_write, target)| {
        let number = super::spr::REGISTERS[row].first;
        31 << 26 | target << 21 | registers::field(number) | if is_write { 467 } else { 339 } << 1
    });
    proptest::collection::vec(prop_oneof![4 => known, 4 => register, 1 => any::<u32>()], 1..64)
}

proptest! {
    #[test]
    fn whatever_the_guest_executes_it_stays_a_guest(
        words in words(),
        gpr in proptest::array::uniform32(any::<u32>()),
        user in any::<bool>(),
        real_tsr in any::<u32>(),
    ) {
        let (mut vcpu, mut cpu) = (kernel(), Fake { tsr: real_tsr, ..Fake::default() });
        for word in words {
            vcpu.frame.gpr = gpr;
            vcpu.set_msr(if user { msr::PR } else { 0 });
            vcpu.frame.pc = PC;
            let before = state(&vcpu);
            let result = emulate(&mut vcpu, word, &mut cpu);
            let after = state(&vcpu);
            prop_assert_eq!(vcpu.msr() & !msr::GUEST, 0);
            prop_assert_eq!((after.1.pir, vcpu.frame.pc & 3), (5, 0));
            prop_assert!(vcpu.registers.pid <= 0x3fff);
            prop_assert!(vcpu.registers.ivor.iter().all(|offset| offset & !0xfff0 == 0));
            let told = cpu.told();
            for told in &told {
                match *told {
                    Told::Tcr(value) => prop_assert_eq!(value & tcr::WRC, 0),
                    Told::ClearTsr(bits) => prop_assert_eq!(bits & !(tsr::ENW | tsr::WIS | tsr::DIS | tsr::FIS), 0),
                    Told::Sprg(index, _) => prop_assert!((3..=7).contains(&index)),
                    Told::Context(pid, state) => prop_assert_eq!((pid, state), (vcpu.registers.pid, vcpu.msr())),
                    Told::Install { ea, user, .. } => prop_assert!(is_reachable(user, ea)),
                    Told::Dec(_) | Told::Decar(_) | Told::Shadow(_) | Told::Doorbell(_) => {}
                }
            }
            if result.is_err() {
                prop_assert_eq!((&after, &told), (&before, &vec![]));
            } else if user {
                // At most one register is read.
                prop_assert_eq!(told, vec![]);
                prop_assert_eq!((after.1, after.2, after.3, &after.4), (before.1, before.2, before.3, &before.4));
                prop_assert!(after.0.gpr.iter().zip(gpr).filter(|(now, then)| *now != then).count() <= 1);
                prop_assert_eq!(Frame { gpr, ..after.0 }, Frame { gpr, pc: PC + 4, ..before.0 });
            }
        }
    }
}
