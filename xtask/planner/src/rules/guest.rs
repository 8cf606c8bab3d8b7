//! What lies where inside a partition: unpacked kernel, guest tree, root file system.

use citrine_formats::addr::{Address as _, GuestPhys, Size, Span};
use citrine_formats::uimage::HEADER_LEN;

use crate::diag::{Code, Diagnostic, Label};
use crate::plan::{GuestImage, LoadPlan, PartitionPlan};

/// Real bytes overlap in a partition's guest-physical space.
pub const GUEST_OVERLAP: Code = Code::new('L', 104);
/// Real bytes lie outside the partition's memory.
pub const OUTSIDE_MEMORY: Code = Code::new('L', 107);
/// The root file system ends above what Linux can reach as an initrd.
pub const INITRD_TOO_HIGH: Code = Code::new('L', 108);
/// A kernel is entered outside what is mapped for it at first.
pub const ENTRY_NOT_MAPPED: Code = Code::new('L', 109);
/// The root file system unpacks to more than the kernel's RAM disk holds.
pub const RAMDISK_TOO_SMALL: Code = Code::new('I', 104);

/// End of the memory that 32-bit Linux maps permanently; an initrd must lie below (`CONFIG_LOWMEM_SIZE`).
pub(crate) const LOWMEM: u64 = 768 << 20;
/// What is mapped for a partition's first CPU when it enters its kernel: the first GiB (Topaz `init-map-size`).
const FIRST_MAPPING: u64 = 1 << 30;
/// The kernel's RAM disk in KiB unless `ramdisk_size=` says otherwise (`CONFIG_BLK_DEV_RAM_SIZE`).
const DEFAULT_RAMDISK_KIB: u64 = 65536;

/// Judges what lies where in every partition.
pub fn memory(plan: &LoadPlan) -> Vec<Diagnostic> {
    plan.partitions.iter().flat_map(|partition| memory_of(plan, partition)).collect()
}

/// Judges where the kernels are entered: an image is entered in its first bytes.
pub fn entry(plan: &LoadPlan) -> Vec<Diagnostic> {
    let too_high = plan.partitions.iter().filter(|partition| partition.kernel.guest.get() >= FIRST_MAPPING);
    let judged = too_high.map(|partition| {
        let at = partition.kernel.guest;
        let path = format!("partition/{}/kernel/guest-address", partition.name);
        let message = format!("the kernel of {} is entered at {at}, above the first GiB", partition.name);
        Diagnostic::error(ENTRY_NOT_MAPPED, message)
            .primary(plan.profile.places.label(&path, "its address in the partition"))
            .fact("partition", &partition.name)
            .fact("image", "kernel")
            .help("only the first GiB is mapped when a kernel is entered; leave guest-address out, and it is at 0")
    });
    judged.collect()
}

/// Judges how high the root file systems lie.
pub fn initrd(plan: &LoadPlan) -> Vec<Diagnostic> {
    plan.partitions.iter().filter_map(|partition| initrd_of(plan, partition)).collect()
}

/// Judges how large the root file systems become.
pub fn ramdisk(plan: &LoadPlan) -> Vec<Diagnostic> {
    plan.partitions.iter().filter_map(|partition| ramdisk_of(plan, partition)).collect()
}

/// Something that lies in a partition.
pub(crate) struct Piece<'p> {
    /// What it is, for a sentence.
    pub(crate) name: &'static str,
    /// Whose bytes; `None` for the guest tree's window, whose place is the hypervisor's own rule (H113).
    pub(crate) image: Option<&'static str>,
    /// The part that it is made from.
    part: Option<&'p str>,
    /// The key that moves it.
    key: &'static str,
    /// Where.
    pub(crate) span: Span<GuestPhys>,
    label: Label,
}

fn memory_of(plan: &LoadPlan, partition: &PartitionPlan) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let pieces = pieces(plan, partition);
    for (index, a) in pieces.iter().enumerate() {
        found.extend(pieces[index + 1..].iter().filter_map(|b| overlap(partition, a, b)));
        found.extend(outside(plan, partition, a));
    }
    found
}

fn overlap(partition: &PartitionPlan, a: &Piece<'_>, b: &Piece<'_>) -> Option<Diagnostic> {
    let common = a.span.intersection(&b.span)?;
    let message =
        format!("in partition {}, {} and {} are both in guest-physical {common}", partition.name, a.name, b.name);
    let diagnostic = [("first", a.part), ("second", b.part)]
        .into_iter()
        .filter_map(|(key, part)| Some((key, part?)))
        .fold(Diagnostic::error(GUEST_OVERLAP, message), |diagnostic, (key, part)| diagnostic.fact(key, part));
    Some(
        diagnostic
            .primary(b.label.clone())
            .related(a.label.clone())
            .fact("bytes", common.len())
            .fact("partition", &partition.name)
            .help(format!("move {}: `{} = {}` or higher", b.name, b.key.replace('/', "."), round_up(a.span.end()))),
    )
}

/// Real bytes that no mapping of the partition holds.
fn outside(plan: &LoadPlan, partition: &PartitionPlan, piece: &Piece<'_>) -> Option<Diagnostic> {
    let image = piece.image?;
    let own = (partition.memory, GuestPhys(0));
    let mapped = |(area, guest): (usize, GuestPhys)| Span::new(guest, plan.areas[area].span.len()).ok();
    let mut mappings = std::iter::once(own).chain(partition.shared.iter().copied()).filter_map(mapped);
    if mappings.any(|mapping| mapping.covers(&piece.span)) {
        return None;
    }
    let memory = &plan.areas[partition.memory];
    let size = Size(memory.span.len());
    let message = format!(
        "in partition {}, {} ends at {}, outside its {size} of memory",
        partition.name,
        piece.name,
        piece.span.end()
    );
    Some(
        Diagnostic::error(OUTSIDE_MEMORY, message)
            .primary(piece.label.clone())
            .related(plan.area_label(memory, "the partition's memory"))
            .fact("partition", &partition.name)
            .fact("image", image)
            .fact("first", piece.part.unwrap_or_default())
            .fact("end", piece.span.end())
            .help("give the partition more memory, or the image a lower guest-address"),
    )
}

/// The pieces whose real size is known, with the guest tree's window.
pub(crate) fn pieces<'p>(plan: &'p LoadPlan, partition: &PartitionPlan) -> Vec<Piece<'p>> {
    let mut pieces = Vec::new();
    let file = |image: &GuestImage| plan.parts[image.part].file.as_str();
    let mut push = |name, image: Option<(&'static str, &'p str)>, at: GuestPhys, len: u64, key| {
        if let Ok(span) = Span::new(at, len) {
            let path = format!("partition/{}/{key}", partition.name);
            let label = plan.profile.places.label(&path, format!("{name} is at {span}"));
            let (image, part) = image.unzip();
            pieces.push(Piece { name, image, part, key, span, label });
        }
    };
    if let Some(facts) = plan.facts.get(&plan.parts[partition.kernel.part].file) {
        let (at, len) = (partition.kernel.guest, facts.in_memory());
        push("the unpacked kernel", Some(("kernel", file(&partition.kernel))), at, len, "kernel/guest-address");
    }
    push("the guest tree's window", None, partition.dtb.base(), partition.dtb.len(), "dtb-address");
    if let Some(rootfs) = &partition.rootfs
        && let Some(payload) = payload_len(plan, rootfs)
    {
        push("the root file system", Some(("rootfs", file(rootfs))), rootfs.guest, payload, "rootfs/guest-address");
    }
    pieces
}

/// Bytes that the hypervisor copies of a RAM disk: the payload, as it is.
fn payload_len(plan: &LoadPlan, image: &GuestImage) -> Option<u64> {
    let facts = plan.facts.get(&plan.parts[image.part].file)?;
    Some(facts.size.saturating_sub(HEADER_LEN as u64))
}

fn initrd_of(plan: &LoadPlan, partition: &PartitionPlan) -> Option<Diagnostic> {
    let rootfs = partition.rootfs.as_ref()?;
    let end = payload_len(plan, rootfs).unwrap_or(0).saturating_add(rootfs.guest.get());
    let path = format!("partition/{}/rootfs/guest-address", partition.name);
    (end > LOWMEM).then(|| {
        Diagnostic::error(
            INITRD_TOO_HIGH,
            format!("the root file system of {} ends at {}, above 768 MiB", partition.name, GuestPhys(end)),
        )
        .primary(plan.profile.places.label(&path, "its address in the partition"))
        .fact("partition", &partition.name)
        .fact("image", "rootfs")
        .help("32-bit Linux reads an initrd only in its first 768 MiB; choose a lower guest address")
    })
}

fn ramdisk_of(plan: &LoadPlan, partition: &PartitionPlan) -> Option<Diagnostic> {
    let rootfs = partition.rootfs.as_ref()?;
    let facts = plan.facts.get(&plan.parts[rootfs.part].file)?;
    let path = |key: &str| format!("partition/{}/{key}", partition.name);
    let ramdisk = ramdisk_kib(&partition.bootargs).saturating_mul(1024);
    // An initramfs (no `root=/dev/ram0`) is unpacked into memory and knows no such limit.
    (is_ramdisk_root(&partition.bootargs) && facts.unpacked > ramdisk).then(|| {
        Diagnostic::error(
            RAMDISK_TOO_SMALL,
            format!(
                "the root file system of {} unpacks to {} bytes, {} more than the kernel's RAM disk holds ({})",
                partition.name,
                facts.unpacked,
                facts.unpacked - ramdisk,
                Size(ramdisk)
            ),
        )
        .primary(plan.profile.places.label(&path("bootargs"), "the kernel's arguments"))
        .related(plan.profile.places.label(&path("rootfs/image"), "the root file system"))
        .fact("unpacked", facts.unpacked)
        .fact("ramdisk", ramdisk)
        .help(format!("add `ramdisk_size={}` to bootargs", facts.unpacked.div_ceil(1024)))
    })
}

/// Whether the root file system is the RAM disk itself (`root=/dev/ram0`, or its short form `/dev/ram`).
fn is_ramdisk_root(bootargs: &str) -> bool {
    let root = bootargs.split_whitespace().filter_map(|word| word.strip_prefix("root=")).next_back();
    root.is_some_and(|root| root.starts_with("/dev/ram"))
}

/// The last `ramdisk_size=` of a kernel command line, in KiB.
fn ramdisk_kib(bootargs: &str) -> u64 {
    bootargs
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("ramdisk_size="))
        .filter_map(|value| value.parse().ok())
        .next_back()
        .unwrap_or(DEFAULT_RAMDISK_KIB)
}

/// The next multiple of 1 MiB: an address that a person would choose.
fn round_up(address: GuestPhys) -> GuestPhys {
    GuestPhys(address.get().checked_next_multiple_of(1 << 20).unwrap_or(address.get()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_root_counts() {
        assert!(is_ramdisk_root("root=/dev/sda1 rw root=/dev/ram0"));
        assert!(!is_ramdisk_root("rdinit=/init") && !is_ramdisk_root("root=/dev/ram0 root=/dev/sda1"));
    }

    #[test]
    fn the_last_ramdisk_size_counts() {
        assert_eq!(ramdisk_kib("root=/dev/ram0 rw"), 65536);
        assert_eq!(ramdisk_kib("ramdisk_size=1 ramdisk_size=131072"), 131072);
        assert_eq!(ramdisk_kib("ramdisk_size=lots"), 65536);
    }
}
