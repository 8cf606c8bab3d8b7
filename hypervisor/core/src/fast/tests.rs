//! Each fast path beside its slow twin, on random states and words.
extern crate std;
mod interpreter;

use std::boxed::Box;
use std::vec::Vec;

use super::assembler::{RFI, mfmsr, mfspr, mtmsr, mtspr, wrtee, wrteei};
use super::{Places, stubs};
use crate::cpu::fake::{Fake, Told};
use crate::emulate::emulate;
use crate::exits::{Next, handle};
use crate::interrupts::{Interrupt, deliver, esr};
use crate::mmu::mas;
use crate::vcpu::{Vcpu, msr, real_msr, spr};
use interpreter::{End, Real, WORDS, Written};

const PLACES: Places = Places {
    vcpu: 0xffff_8010,
    image: 0xf000_0000,
    program: 0x2600,
    system_call: 0x2800,
    data_tlb: 0x2d00,
    instruction_tlb: 0x2e00,
    program_read: 0x3000,
    pages: 0xf020_0000,
    stubs: 0xf010_0000,
};
const PC: u32 = 0xc000_1234;
const USER_PC: u32 = 0x1000_0100;
/// The real state of a guest that is stopped; stands for whatever SRR1 holds.
const STOPPED: u32 = 0x5a00_0000 | spr::SRR1;

/// A generator of which the values do not matter (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as u32
    }

    fn below(&mut self, end: u32) -> u32 {
        self.next() % end
    }

    fn of<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u32) as usize]
    }
}

/// A virtual CPU in which everything is arbitrary that may be.
fn vcpu(random: &mut Random, state: u32) -> Box<Vcpu> {
    let mut vcpu = Box::new(Vcpu::new(3));
    for place in &WORDS[..20] {
        *place(&mut vcpu) = random.next();
    }
    vcpu.set_msr(state);
    vcpu.frame.gpr = [(); 32].map(|()| random.next());
    (vcpu.frame.cr, vcpu.frame.ctr, vcpu.frame.pc) = (random.next(), random.next(), PC);
    vcpu.registers.ivpr = random.next();
    vcpu.registers.ivor = [(); 42].map(|()| random.next());
    PLACES.tell(&mut vcpu);
    vcpu.fast.reset();
    vcpu.vectors_changed();
    if random.below(8) > 0 {
        // Of what is not an ordinary state nothing is learnt.
        let ordinary = if random.below(4) == 0 { u32::MAX } else { msr::GUEST & !(msr::IS | msr::DS) };
        vcpu.fast.learn(random.next() & ordinary);
    }
    // Mostly what `rfi` expects, or nearly.
    match random.below(4) {
        0 => vcpu.shared.srr1.low = vcpu.fast.returns_to ^ 1 << random.below(32),
        1 => {}
        _ => vcpu.shared.srr1.low = vcpu.fast.returns_to | random.next() & (msr::EE | msr::PR),
    }
    vcpu
}

/// A machine state of the guest's kernel in which there are fast paths.
fn kernel_state(random: &mut Random) -> u32 {
    random.next() & msr::GUEST & !(msr::PR | msr::IS | msr::DS)
}

fn copy(vcpu: &Vcpu) -> Box<Vcpu> {
    let mut copy = Box::new(Vcpu::new(3));
    (copy.frame, copy.shared, copy.fast) = (vcpu.frame, vcpu.shared, vcpu.fast);
    copy.registers = vcpu.registers;
    copy
}

/// All words that have a stub.
fn stubbed() -> Vec<u32> {
    let numbers = [26, 27, 61, 62, 272, 273, 274, 275, 276, 277, 278, 279, 286];
    let numbers = numbers.into_iter().chain([624, 625, 626, 627, 628, 630, 944, 1013]);
    let registers = |word: fn(u32) -> u32| (0..32).map(word);
    let mut words: Vec<u32> = registers(mfmsr).chain(registers(wrtee).skip(1)).collect();
    words.extend(registers(mtmsr).skip(1));
    words.extend([RFI, wrteei(false), wrteei(true)]);
    for number in numbers {
        words.extend((0..32).flat_map(|register| [mfspr(register, number), mtspr(number, register)]));
    }
    words
}

/// The guest's kernel is stopped by a program interrupt at `word`.
fn run<'a>(code: &'a Written, vcpu: Box<Vcpu>, word: Option<u32>) -> (End, Real<'a>) {
    let mut real = Real::new(PLACES, code, vcpu, PC);
    *real.spr(spr::IVPR) = PLACES.pages;
    real.word = word;
    let end = real.run(PLACES.pages + PLACES.program);
    (end, real)
}

fn is_mtmsr(word: u32) -> bool {
    word & !0x03e0_0000 == mtmsr(0)
}

/// Whether the path ended in the image, with the right instruction if it gave one.
fn is_slow(end: End, real: &Real<'_>, word: u32) -> bool {
    let read = end == End::Image(PLACES.image + PLACES.program_read);
    assert!(!read || real.vcpu.fast.word == word, "{word:#010x}");
    read || end == End::Image(PLACES.image + PLACES.program)
}

/// Nothing has happened but that the guest is stopped, as it is without fast paths.
fn assert_untouched(real: &mut Real<'_>, before: &Vcpu, pc: u32) {
    assert_eq!((real.gpr, real.cr, real.ctr), (before.frame.gpr, before.frame.cr, before.frame.ctr));
    assert_eq!(real.vcpu.shared, before.shared);
    let crate::vcpu::Fast { saved, word, .. } = real.vcpu.fast;
    assert_eq!(real.vcpu.fast, crate::vcpu::Fast { saved, word, ..before.fast });
    assert_eq!((*real.spr(spr::SRR0), *real.spr(spr::SRR1)), (pc, STOPPED));
    assert!((275..280).all(|number| *real.spr(number) == 0x5a00_0000 | number));
}

#[test]
fn a_fast_path_does_what_emulation_does_or_nothing() {
    let mut random = Random(0x1234_5678_9abc_def1);
    let code = Written::new(&PLACES, &mut Vcpu::new(0));
    let stubbed = stubbed();
    let (mut fast, mut returns, mut states) = (0, 0, 0);
    for _ in 0..400_000 {
        let state = kernel_state(&mut random);
        let mut before = vcpu(&mut random, state);
        let exact = if random.below(16) == 0 { RFI } else { random.of(&stubbed) };
        if is_mtmsr(exact) && random.below(2) == 0 {
            let differs = random.of(&[msr::EE, msr::RI, msr::EE | msr::RI, 0, msr::ME, msr::PR, 1 << 31]);
            before.frame.gpr[(exact >> 21 & 31) as usize] = before.msr() ^ differs;
        }
        let word = match random.below(4) {
            0 => exact ^ 1 << random.below(32),
            1 => exact ^ 1 << random.below(32) ^ 1 << random.below(32),
            _ => exact,
        };
        let (end, mut real) = run(&code, copy(&before), Some(word));
        if is_slow(end, &real, word) {
            assert!(word != exact || word == RFI || is_mtmsr(word), "{word:#010x} is slow");
            assert_untouched(&mut real, &before, PC);
            continue;
        }
        assert_eq!(end, End::Guest, "{word:#010x}");
        fast += 1;
        returns += u32::from(word == RFI);
        states += u32::from(is_mtmsr(word));

        let (mut slow, mut cpu) = (copy(&before), Fake::default());
        assert_eq!(emulate(&mut slow, word, &mut cpu), Ok(()), "{word:#010x} is fast");
        let told = cpu.told();
        assert_eq!(real.vcpu.shared, slow.shared, "{word:#010x}");
        assert_eq!(real.gpr, slow.frame.gpr, "{word:#010x}");
        assert_eq!((real.cr, real.ctr), (slow.frame.cr, slow.frame.ctr), "{word:#010x}");
        assert_eq!(*real.spr(spr::SRR0) & !3, slow.frame.pc, "{word:#010x}");
        if word == RFI {
            assert_eq!(*real.spr(spr::SRR1), real_msr(slow.msr()));
            assert_eq!(slow.msr() & (msr::IS | msr::DS), 0);
            // What a change of context would change is excluded by `plain`.
            assert!(told.iter().all(|told| matches!(told, Told::Context(..))));
        } else {
            assert_eq!(*real.spr(spr::SRR1), STOPPED);
            for number in 3..8 {
                let copied = told.contains(&Told::Sprg(number, *real.spr(272 + number)));
                assert!(copied || *real.spr(272 + number) == 0x5a00_0000 | (272 + number));
                assert!(copied || !told.iter().any(|told| matches!(told, Told::Sprg(n, _) if *n == number)));
            }
        }
        assert_eq!(*real.spr(spr::IVPR), PLACES.vectors(&mut slow, true), "{word:#010x}");
    }
    assert!(fast > 150_000 && returns > 5_000 && states > 500, "{fast} with {returns} rfi and {states} mtmsr");
}

#[test]
fn every_word_is_either_itself_or_slow() {
    let code = Written::new(&PLACES, &mut Vcpu::new(0));
    let mut random = Random(77);
    let mut stubbed = stubbed();
    stubbed.sort_unstable();
    for _ in 0..300_000 {
        let before = vcpu(&mut random, 0);
        // Words whose place in the table is that of another.
        let word = random.of(&stubbed) & !0x3e7f | random.next() & 0x3e7f;
        let (end, mut real) = run(&code, copy(&before), Some(word));
        if stubbed.binary_search(&word).is_err() {
            assert!(is_slow(end, &real, word), "{word:#010x}");
            assert_untouched(&mut real, &before, PC);
        }
    }
    stubbed.retain(|word| !is_mtmsr(*word));
    let mut places: Vec<_> = stubbed.iter().map(|word| stubs::index(*word)).collect();
    places.sort_unstable();
    places.dedup();
    assert_eq!(places.len(), stubbed.len(), "no two words have the same stub");
}

#[test]
fn a_system_call_does_what_the_interrupt_does_or_nothing() {
    let mut random = Random(0xfeed_0000_cafe);
    let code = Written::new(&PLACES, &mut Vcpu::new(0));
    for round in 0..20_000 {
        let state = kernel_state(&mut random) | msr::PR;
        let mut before = vcpu(&mut random, state);
        before.frame.pc = USER_PC;
        let mut real = Real::new(PLACES, &code, copy(&before), USER_PC);
        let level = random.of(&[0, 0, 1]);
        real.word = Some(0x4400_0002 | level << 5);
        let end = real.run(PLACES.pages + 0x1_0000 + PLACES.system_call);
        if level != 0 {
            assert_eq!(end, End::Image(PLACES.image + PLACES.system_call));
            assert_untouched(&mut real, &before, USER_PC);
            continue;
        }
        assert_eq!((end, real.count), (End::Guest, 22), "round {round}");
        assert_eq!(deliver(&mut before, &mut Fake::default(), Interrupt::SystemCall), Ok(()));
        assert_eq!(real.vcpu.shared, before.shared);
        assert_eq!((real.gpr, real.cr, real.ctr), (before.frame.gpr, before.frame.cr, before.frame.ctr));
        assert_eq!((*real.spr(spr::SRR0), *real.spr(spr::SRR1)), (before.frame.pc, real_msr(before.msr())));
        assert_eq!(*real.spr(spr::IVPR), PLACES.vectors(&mut before, true));
    }
}

/// A virtual MMU with entries at few addresses, so that some hit.
fn fill(random: &mut Random, vcpu: &mut Vcpu) {
    let regions = random.next() & 0xf;
    for _ in 0..random.below(200) {
        let [mas0, mas1, mas2, mas3] = [(); 4].map(|()| random.next());
        let tlb1 = random.below(16) == 0;
        vcpu.shared.mas0 = mas0 & !mas::TLBSEL | if tlb1 { mas::TLBSEL } else { 0 };
        // Few processes, small sizes, few pages.
        vcpu.shared.mas1 = mas1 & 0xe003_1900;
        vcpu.shared.mas2.low = (mas2 & 0x8003_f000 | regions << 28) ^ mas2 & 0x7f;
        vcpu.shared.mas7_mas3.low = mas3;
        _ = vcpu.mmu.write(&vcpu.shared.clone());
    }
}

#[test]
fn a_tlb_miss_does_what_the_slow_way_does_or_nothing() {
    let mut random = Random(0x600d_beef_1234);
    let code = Written::new(&PLACES, &mut Vcpu::new(0));
    let mut fast = 0;
    for _ in 0..40_000 {
        let (user, data) = (random.below(2) * msr::PR, random.below(2) == 0);
        let state = kernel_state(&mut random) | user;
        let mut before = vcpu(&mut random, state);
        fill(&mut random, &mut before);
        before.registers.pid = random.below(4) | random.below(2) << 13;
        for place in &WORDS[..20] {
            *place(&mut before) = random.next();
        }
        let ea = random.next() & 0xf003_fffc | if random.below(8) == 0 { random.next() } else { 0 };
        let pc = if data { PC } else { ea };
        before.frame.pc = pc;
        (before.frame.vector, before.frame.esr, before.frame.dear) =
            (if data { 13 } else { 14 }, random.next() & !(esr::BO | esr::DLK | esr::ILK), ea);

        let mut after = copy(&before);
        after.mmu = before.mmu.clone();
        let mut real = Real::new(PLACES, &code, after, pc);
        let page = PLACES.pages + if user == 0 { 0 } else { 0x1_0000 };
        *real.spr(spr::IVPR) = page;
        *real.spr(spr::SRR1) = msr::PR;
        *real.spr(spr::ESR) = before.frame.esr;
        *real.spr(spr::DEAR) = ea;
        let vector = if data { PLACES.data_tlb } else { PLACES.instruction_tlb };
        let end = real.run(page + vector);
        if end != End::Guest {
            assert_eq!(end, End::Image(PLACES.image + vector));
            *real.spr(spr::SRR1) = STOPPED;
            real.vcpu.fast.missed = before.fast.missed;
            assert_untouched(&mut real, &before, pc);
            continue;
        }
        fast += 1;
        assert!(real.count <= 100, "{}", real.count);
        let mut cpu = Fake { memory_end: 1 << 36, ..Fake::default() };
        assert_eq!(handle(&mut before, &mut cpu), Next::Resume);
        assert!(!cpu.told().iter().any(|told| matches!(told, Told::Install { .. })));
        assert_eq!(real.vcpu.shared, before.shared, "{ea:#x} {data}");
        assert_eq!((real.gpr, real.cr, real.ctr), (before.frame.gpr, before.frame.cr, before.frame.ctr));
        assert_eq!((*real.spr(spr::SRR0), *real.spr(spr::SRR1)), (before.frame.pc, real_msr(before.msr())));
        assert_eq!(*real.spr(spr::IVPR), PLACES.vectors(&mut before, true));
    }
    assert!(fast > 10_000, "{fast}");

    // One that a fast path has caused: its registers and those that it saved stay.
    let before = vcpu(&mut random, 0);
    let mut real = Real::new(PLACES, &code, copy(&before), PLACES.faults().kernel);
    *real.spr(spr::SRR1) = msr::ME;
    assert_eq!(real.run(PLACES.pages + PLACES.data_tlb), End::Image(PLACES.image + PLACES.data_tlb));
    assert_eq!((real.gpr, real.cr, real.ctr), (before.frame.gpr, before.frame.cr, before.frame.ctr));
    assert_eq!((real.vcpu.fast.saved, real.vcpu.shared), (before.fast.saved, before.shared));
}

#[test]
fn what_cannot_be_read_runs_again() {
    let mut random = Random(99);
    let code = Written::new(&PLACES, &mut Vcpu::new(0));
    let faults = PLACES.faults();

    let mut before = vcpu(&mut random, 0);
    let (end, real) = run(&code, copy(&before), None);
    assert_eq!(end, End::Fault(faults.kernel));
    // What `e500` does then: it takes the address from r29 and the rest from where it was saved.
    assert_eq!((real.gpr[29], real.ctr, real.cr), (PC, before.frame.ctr, before.frame.cr));
    assert_eq!(real.vcpu.fast.saved, before.frame.gpr[28..]);
    assert_eq!((&real.gpr[..28], real.vcpu.shared), (&before.frame.gpr[..28], before.shared));

    let mut real = Real::new(PLACES, &code, copy(&before), USER_PC);
    assert_eq!(real.run(PLACES.pages + 0x1_0000 + PLACES.system_call), End::Fault(faults.program));
    assert_eq!((real.gpr[29], real.ctr, real.cr), (USER_PC, before.frame.ctr, before.frame.cr));
    assert_eq!((real.vcpu.fast.saved, real.vcpu.shared), (before.frame.gpr[28..].try_into().unwrap(), before.shared));

    assert_eq!(PLACES.vectors(&mut before, true), PLACES.pages);
    before.fast.again = true;
    assert_eq!(PLACES.vectors(&mut before, true), PLACES.image);
    assert_eq!(PLACES.vectors(&mut before, true), PLACES.pages, "only once");
}

#[test]
fn what_is_unusual_has_no_fast_path() {
    use crate::interrupts::{tcr, tsr};
    let mut random = Random(5);
    let mut vcpu = vcpu(&mut random, msr::PR);
    assert_eq!(PLACES.vectors(&mut vcpu, true), PLACES.pages + 0x1_0000);
    assert_eq!(PLACES.vectors(&mut vcpu, false), PLACES.image);
    vcpu.pending.external = true;
    assert_eq!(PLACES.vectors(&mut vcpu, true), PLACES.image);
    vcpu.pending.external = false;
    vcpu.registers.tsr = tsr::DIS;
    assert_eq!(PLACES.vectors(&mut vcpu, true), PLACES.pages + 0x1_0000);
    vcpu.registers.tcr = tcr::DIE;
    assert_eq!(PLACES.vectors(&mut vcpu, true), PLACES.image);
}

#[test]
fn other_vectors_lead_to_the_images() {
    let code = Written::new(&PLACES, &mut Vcpu::new(0));
    for page in [PLACES.pages, PLACES.pages + 0x1_0000] {
        for offset in (0..0x8000).step_by(4).filter(|offset| offset % 0x100 == 0) {
            let is_fast = offset == PLACES.program && page == PLACES.pages
                || offset == PLACES.system_call && page != PLACES.pages
                || [PLACES.data_tlb, PLACES.instruction_tlb].contains(&offset);
            let mut real = Real::new(PLACES, &code, Box::new(Vcpu::new(0)), PC);
            if !is_fast {
                assert_eq!((real.run(page + offset), real.count), (End::Image(PLACES.image + offset), 1));
            }
        }
    }
}

#[test]
fn the_frequent_ones_are_short() {
    let code = Written::new(&PLACES, &mut Vcpu::new(0));
    let mut random = Random(1);
    let mut before = vcpu(&mut random, 0);
    before.shared.srr1.low = before.fast.returns_to | msr::EE | msr::PR;
    let count = |word| run(&code, copy(&before), Some(word)).1.count;
    let counts =
        [mfmsr(9), wrteei(false), wrteei(true), wrtee(9), wrtee(31), mfspr(9, 26), mtspr(26, 9), mtspr(275, 9)];
    assert_eq!(counts.map(count), [19, 21, 21, 21, 22, 19, 19, 20]);
    assert_eq!(count(RFI), 34);
    before.frame.gpr[9] = before.msr() ^ msr::EE;
    assert_eq!(run(&code, before, Some(mtmsr(9))).1.count, 30);
}
