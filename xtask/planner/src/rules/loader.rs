//! What U-Boot can do with the parts.

use citrine_formats::addr::{Address as _, Hex, Size};
use citrine_formats::manifest::{Media, Role};

use crate::diag::{Code, Diagnostic};
use crate::plan::LoadPlan;
use crate::stages::HV_LOW_SIZE;

/// The hypervisor's boot arguments are too long.
pub const BOOTARGS_TOO_LONG: Code = Code::new('U', 101);
/// The hypervisor unpacks to more than `bootm` and the hypervisor's first mapping allow.
pub const HYPERVISOR_TOO_LARGE: Code = Code::new('U', 102);
/// A part lies where U-Boot's commands do not reach.
pub const NOT_ADDRESSABLE: Code = Code::new('U', 104);

/// Longest boot argument string: 64 bytes with its NUL (Topaz `COMMAND_LINE_SIZE`).
pub const MAX_BOOTARGS: usize = 63;

/// U-Boot on e500 maps this much RAM, 1:1 from 0, however much there is (`CONFIG_MAX_MEM_MAPPED`). What lies
/// behind it are windows of other devices, and beyond 32 bits its commands wrap around to 0.
const MAPPED: u64 = 2 << 30;

/// Judges the hypervisor's boot arguments.
pub fn bootargs(plan: &LoadPlan) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let length = plan.hv_bootargs.len();
    if length > MAX_BOOTARGS {
        found.push(
            Diagnostic::error(
                BOOTARGS_TOO_LONG,
                format!("the hypervisor's boot arguments have {length} characters, {} too many", length - MAX_BOOTARGS),
            )
            .primary(plan.profile.places.label("hypervisor/bootargs", format!("makes `{}`", plan.hv_bootargs)))
            .fact("length", length)
            .help(format!("at most {MAX_BOOTARGS} characters fit; `config-addr=` is added by the tool and counts")),
        );
    }
    found
}

/// Judges whether U-Boot reaches where the parts are loaded.
pub fn reach(plan: &LoadPlan) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    // All of the flash has an address below 4 GiB: the board's file says which.
    for part in plan.parts.iter().filter(|_| plan.media == Media::Ram) {
        let size = plan.size_of(part);
        let end = part.load.get().saturating_add(size.unwrap_or(1));
        if end > MAPPED {
            let what = match size {
                Some(_) => format!("{} ends at {}", part.file, Hex(end)),
                None => format!("{} is loaded at {}", part.file, part.load),
            };
            found.push(
                Diagnostic::error(NOT_ADDRESSABLE, format!("{what}, above the 2 GiB of memory that U-Boot maps"))
                    .primary(plan.label(&part.decided, format!("loaded at {}", part.load)))
                    .fact("part", &part.file)
                    .help("U-Boot's commands reach 0x0 to 0x7fffffff; choose an address there"),
            );
        }
    }
    found
}

/// Judges the hypervisor's image as `bootm` unpacks it to 0, and as it lies there until it moves.
pub fn hypervisor(plan: &LoadPlan) -> Vec<Diagnostic> {
    too_large(plan).into_iter().collect()
}

fn too_large(plan: &LoadPlan) -> Option<Diagnostic> {
    let part = plan.part(Role::Hypervisor)?;
    let facts = plan.facts.get(&part.file)?;
    let bootm_len = plan.board.uboot.bootm_len;
    let (message, label, help) = if facts.unpacked > bootm_len {
        (
            format!(
                "{} unpacks to {} bytes, {} more than `bootm` allows ({})",
                part.file,
                facts.unpacked,
                facts.unpacked - bootm_len,
                Size(bootm_len)
            ),
            plan.board.places.label("uboot/bootm-len", "`bootm` unpacks no more than this"),
            "use a smaller image, or a U-Boot with a larger CONFIG_SYS_BOOTM_LEN",
        )
    } else if facts.in_memory() > HV_LOW_SIZE {
        (
            format!(
                "{} needs {} bytes of memory, {} more than it has before it moves ({})",
                part.file,
                facts.in_memory(),
                facts.in_memory() - HV_LOW_SIZE,
                Size(HV_LOW_SIZE)
            ),
            plan.label(&part.decided, "`bootm` unpacks it from here to 0"),
            "use a smaller image: a hypervisor is entered with the first 4 MiB mapped and no more",
        )
    } else {
        return None;
    };
    Some(
        Diagnostic::error(HYPERVISOR_TOO_LARGE, message)
            .primary(label)
            .fact("unpacked", facts.unpacked)
            .fact("memory", facts.in_memory())
            .help(help),
    )
}
