//! What may not be in the firmware, whatever the compiler thinks: instructions that its cores have not or
//! that would need registers that belong to guests, bytes outside its place, work left to a loader.

use citrine_formats::addr::Size;
use citrine_planner::diag::{Code, Diagnostic, Result};
use object::read::elf::{ElfFile, ElfFile32, FileHeader as _};
use object::{BigEndian, Object as _, ObjectSection, ObjectSegment as _, ObjectSymbol as _, SectionFlags, elf};

/// An instruction that the firmware may not use.
pub const FOREIGN_OPCODE: Code = Code::new('F', 103);
/// Something lies outside the 4 MiB that one TLB entry maps.
pub const OUTSIDE: Code = Code::new('F', 104);
/// Something that only a loader could finish.
pub const UNFINISHED: Code = Code::new('F', 105);

/// What a program must be.
#[derive(Debug)]
pub struct Form {
    /// What it is, for a sentence: `the firmware`.
    what: &'static str,
    /// Where it is linked; its linker script says the same.
    base: u64,
    /// Size in bytes that its image may have, with its stacks.
    len: u64,
    /// Its linker script.
    script: &'static str,
    /// Whether it calls a hypervisor.
    calls: bool,
}

/// The hypervisor: one TLB entry of 4 MiB maps it.
pub const FIRMWARE: Form =
    Form { what: "the firmware", base: 0xf000_0000, len: 4 << 20, script: "hypervisor/firmware/link.ld", calls: false };
/// A guest: a CPU that is started by a spin table finds 1 MiB mapped.
pub const GUEST: Form =
    Form { what: "the guest", base: 0, len: 1 << 20, script: "hypervisor/guests/link.ld", calls: true };

/// `sc 1`, the hypercall (ePAPR 1.1 §7.4).
const HYPERCALL: u32 = 0x4400_0022;
/// The sections of the linker scripts.
const SECTIONS: &[&str] =
    &["", ".head", ".vectors", ".text", ".rodata", ".data", ".bss", ".stubs", ".symtab", ".strtab", ".shstrtab"];

/// Checks a linked program, and returns it as flat bytes: from the first that is loaded to the last that
/// is not zero by definition.
///
/// # Errors
/// The first [`FOREIGN_OPCODE`], [`OUTSIDE`] or [`UNFINISHED`]; it names address and symbol.
pub fn audit(bytes: &[u8], form: &Form) -> Result<Vec<u8>> {
    let file = ElfFile32::<BigEndian>::parse(bytes)
        .map_err(|error| unfinished(format!("{} is no 32-bit ELF file: {error}", form.what)))?;
    header(&file, form)?;
    sections(&file, form)?;
    let image = image(&file, form)?;
    for section in file.sections() {
        if has(&section, elf::SHF_EXECINSTR) {
            let data = section.data().map_err(|error| unfinished(format!("a section cannot be read: {error}")))?;
            instructions(data, section.address(), form, |address| symbol(&file, form, address))?;
        }
    }
    Ok(image)
}

type File<'a> = ElfFile<'a, elf::FileHeader32<BigEndian>>;

/// Whether a section has a flag.
fn has<'a>(section: &impl ObjectSection<'a>, flag: elf::SectionFlags) -> bool {
    matches!(section.flags(), SectionFlags::Elf { sh_flags, .. } if sh_flags & flag == flag)
}

fn header(file: &File<'_>, form: &Form) -> Result<()> {
    let header = file.elf_header();
    let is = (header.e_type(BigEndian), header.e_machine(BigEndian));
    if is != (elf::ET_EXEC, elf::EM_PPC) {
        return Err(unfinished(format!(
            "{} is no PowerPC program at a fixed address (type {}, machine {})",
            form.what, is.0, is.1
        )));
    }
    if file.entry() != form.base {
        let (what, entry, base) = (form.what, file.entry(), form.base);
        return Err(outside(form, format!("{what} is entered at {entry:#010x} instead of {base:#010x}")));
    }
    Ok(())
}

fn sections(file: &File<'_>, form: &Form) -> Result<()> {
    for section in file.sections() {
        let name = section.name().unwrap_or("?");
        if !SECTIONS.contains(&name) {
            return Err(unfinished(format!("the section {} is left over", name.escape_debug()))
                .help(format!("give it a place in {}, or discard it there", form.script))
                .into());
        }
        let (from, len) = (section.address(), section.size());
        let loaded = has(&section, elf::SHF_ALLOC);
        if loaded && (from < form.base || from.saturating_add(len) > form.base + form.len) {
            let end = from.saturating_add(len);
            return Err(outside(form, format!("the section {name} at {from:#010x}..{end:#010x} is outside the image")));
        }
    }
    if file.dynamic_symbols().next().is_some() {
        return Err(unfinished(format!("{} is linked dynamically", form.what)));
    }
    let undefined =
        file.symbols().find(|symbol| symbol.is_undefined() && symbol.name().is_ok_and(|name| !name.is_empty()));
    match undefined {
        Some(symbol) => Err(unfinished(format!("the symbol {} is not defined", symbol.name().unwrap_or("?")))),
        None => Ok(()),
    }
}

/// The bytes of the one segment that is loaded.
fn image(file: &File<'_>, form: &Form) -> Result<Vec<u8>> {
    let mut segments = file.segments();
    let (Some(segment), None) = (segments.next(), segments.next()) else {
        return Err(unfinished(format!("{} has not exactly one segment to load", form.what)));
    };
    if segment.address() != form.base || segment.size() > form.len {
        let (from, len) = (segment.address(), segment.size());
        return Err(outside(form, format!("the segment at {from:#010x} with {len:#x} bytes is not the image")));
    }
    let data = segment.data().map_err(|error| unfinished(format!("the segment cannot be read: {error}")))?;
    Ok(data.to_vec())
}

/// The name of what holds an address.
fn symbol(file: &File<'_>, form: &Form, address: u64) -> String {
    let before =
        file.symbols().filter(|symbol| symbol.is_definition() && (form.base..=address).contains(&symbol.address()));
    let nearest = before.max_by_key(|symbol| symbol.address());
    nearest.and_then(|symbol| symbol.name().ok().map(str::to_owned)).unwrap_or_else(|| "no symbol".into())
}

/// Checks every word of a section.
fn instructions(code: &[u8], base: u64, form: &Form, symbol: impl Fn(u64) -> String) -> Result<()> {
    let (words, rest) = code.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(unfinished(format!("the code at {base:#010x} is no multiple of 4 bytes")));
    }
    for (index, word) in words.iter().enumerate() {
        let (word, address) = (u32::from_be_bytes(*word), base + index as u64 * 4);
        if form.calls && word == HYPERCALL {
            continue;
        }
        if let Err(why) = instruction(word) {
            let symbol = symbol(address);
            let message = format!("{word:#010x} at {address:#010x} in {symbol} is {why}");
            return Err(Diagnostic::error(FOREIGN_OPCODE, message)
                .fact("address", format!("{address:#x}"))
                .fact("symbol", symbol)
                .help("floating point in the firmware? Otherwise, if e500mc has the instruction, add it to xtask/src/build/audit.rs")
                .into());
        }
    }
    Ok(())
}

/// Whether the firmware may use an instruction; if not, what it is (Power ISA 2.06 appendix "opcode maps").
fn instruction(word: u32) -> std::result::Result<(), &'static str> {
    let extended = word >> 1 & 0x3ff;
    match word >> 26 {
        4 => Err("an AltiVec or SPE instruction"),
        48..=55 | 59 | 63 => Err("a floating-point instruction"),
        17 => Err("a system call"),
        // Immediate arithmetic and logic, branches, rotates, integer loads and stores.
        3 | 7 | 8 | 10..=16 | 18 | 20 | 21 | 23..=29 | 32..=47 => Ok(()),
        19 if BRANCH_AND_CONDITION.contains(&extended) => Ok(()),
        // isel has a 5-bit extended opcode; the rest is a register.
        31 if extended & 0x1f == 15 || INTEGER.contains(&extended) => Ok(()),
        _ => Err("no instruction that the firmware may use"),
    }
}

/// Extended opcodes of primary opcode 19: mcrf, bclr, crnor, rfmci, rfdi, rfi, rfci, crandc, isync, crxor,
/// crnand, crand, creqv, crorc, cror, bcctr.
const BRANCH_AND_CONDITION: &[u32] = &[0, 16, 33, 38, 39, 50, 51, 129, 150, 193, 225, 257, 289, 417, 449, 528];

/// Extended opcodes of primary opcode 31 that e500mc has (e500mc reference manual, table 3-1), without
/// floating point, string loads, and the hypervisor category that QEMU lacks.
const INTEGER: &[u32] = &[
    // cmp, cmpl, tw; compare and trap
    0, 32, 4, // addc, adde, addze, addme, add; subfc, subf, subfe, subfze, subfme, neg
    10, 138, 202, 234, 266, 8, 40, 136, 200, 232, 104, // mulhwu, mulhw, mullw, divwu, divw
    11, 75, 235, 459, 491, // and, andc, nor, eqv, xor, orc, or, nand; extsh, extsb; cntlzw, popcntb, popcntw
    28, 60, 124, 284, 316, 412, 444, 476, 922, 954, 26, 122, 378, // slw, srw, sraw, srawi
    24, 536, 792, 824, // lwzx, lwzux, lbzx, lbzux, lhzx, lhzux, lhax, lhaux, lwbrx, lhbrx
    23, 55, 87, 119, 279, 311, 343, 375, 534, 790, // stwx, stwux, stbx, stbux, sthx, sthux, stwbrx, sthbrx
    151, 183, 215, 247, 407, 439, 662, 918, // lwarx, stwcx.
    20, 150, // mfcr, mtcrf, mfspr, mtspr, mftb, mfmsr, mtmsr, wrtee, wrteei
    19, 144, 339, 467, 371, 83, 146, 131, 163, // dcbst, dcbf, dcbt, dcbtst, dcbi, dcbz, icbi; sync, mbar, wait
    54, 86, 278, 246, 470, 1014, 982, 598, 854, 62,
    // tlbilx, tlbsync, tlbivax, tlbsx, tlbre, tlbwe; msgsnd, msgclr
    18, 566, 786, 914, 946, 978, 206, 238,
];

fn outside(form: &Form, message: String) -> Box<Diagnostic> {
    Diagnostic::error(OUTSIDE, message)
        .fact("base", format!("{:#x}", form.base))
        .help(format!("{} places everything; the image with its stacks has {}", form.script, Size(form.len)))
        .into()
}

fn unfinished(message: String) -> Box<Diagnostic> {
    Diagnostic::error(UNFINISHED, message)
        .help("it is entered as it is: nobody relocates, binds or loads it piecewise")
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(words: &[u32]) -> Result<()> {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        instructions(&bytes, FIRMWARE.base, &FIRMWARE, |_| "f".into())
    }

    #[test]
    fn what_the_firmware_uses_is_allowed() {
        // mflr, tlbwe, msync, isync, wait, isel, lwarx, stmw, bdnz, rfi, trap, lwsync
        let words = [
            0x7c08_02a6,
            0x7c00_07a4,
            0x7c00_04ac,
            0x4c00_012c,
            0x7c00_007c,
            0x7c64_281e,
            0x7c60_2028,
            0xbc61_0010,
            0x4200_fffc,
            0x4c00_0064,
            0x7fe0_0008,
            0x7c20_04ac,
        ];
        check(&words).unwrap();
    }

    #[test]
    fn foreign_instructions_are_named() {
        let cases = [
            (0xc821_0008, "a floating-point instruction"),             // lfd
            (0xfc01_102a, "a floating-point instruction"),             // fadd
            (0x7c00_1ca6, "no instruction that the firmware may use"), // mfvsrd-like, 64-bit
            (0x1000_04c4, "an AltiVec or SPE instruction"),            // vxor
            (0x4400_0002, "a system call"),
            (0xe861_0008, "no instruction that the firmware may use"), // ld
            (0x0000_0000, "no instruction that the firmware may use"),
            (0x7c00_04aa, "no instruction that the firmware may use"), // lswi
            (0x4c00_00cc, "no instruction that the firmware may use"), // rfgi
        ];
        for (word, why) in cases {
            let error = check(&[0x6000_0000, word]).unwrap_err();
            assert_eq!(error.message, format!("{word:#010x} at 0xf0000004 in f is {why}"));
        }
    }

    #[test]
    fn only_a_guest_may_call_a_hypervisor() {
        let call = HYPERCALL.to_be_bytes();
        assert_eq!(instructions(&call, 0, &GUEST, |_| String::new()), Ok(()));
        assert!(instructions(&call, 0, &FIRMWARE, |_| String::new()).is_err());
        // `sc` without a level is another's.
        assert!(instructions(&[0x44, 0, 0, 2], 0, &GUEST, |_| String::new()).is_err());
    }

    #[test]
    fn code_is_made_of_words() {
        assert_eq!(instructions(&[0x60, 0, 0, 0, 1], 0, &GUEST, |_| String::new()).unwrap_err().code, UNFINISHED);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), magic: bool) {
            let mut bytes = bytes;
            if magic && bytes.len() > 20 {
                bytes[..7].copy_from_slice(b"\x7fELF\x01\x02\x01");
            }
            prop_assert!(audit(&bytes, &FIRMWARE).is_err() && audit(&bytes, &GUEST).is_err());
        }
    }
}
