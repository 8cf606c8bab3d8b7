//! What a profile says about CPUs and consoles, beyond what the hypervisor itself checks.

use crate::diag::{Code, Diagnostic};
use crate::plan::{LoadPlan, PartitionPlan};

/// A CPU is listed as unused and has an owner all the same, or does not exist.
pub const UNUSED_CPU: Code = Code::new('P', 102);

/// A Linux says nothing on the console that it has.
pub const SILENT: Code = Code::new('P', 104);

/// What Linux calls the byte channels of a hypervisor.
const CONSOLES: [&str; 2] = ["ttyEHV", "hvc"];

/// Judges each partition's console.
pub fn silent(plan: &LoadPlan) -> Vec<Diagnostic> {
    plan.partitions.iter().filter_map(|partition| silent_partition(plan, partition)).collect()
}

/// A partition with a root file system is a Linux; what speaks on a serial line of its own is not silent.
fn silent_partition(plan: &LoadPlan, partition: &PartitionPlan) -> Option<Diagnostic> {
    let consoles: Vec<&str> =
        partition.bootargs.split_whitespace().filter_map(|word| word.strip_prefix("console=")).collect();
    let speaks = consoles.iter().any(|name| CONSOLES.iter().any(|known| name.starts_with(known)));
    if partition.rootfs.is_none() || speaks || !partition.devices.is_empty() {
        return None;
    }
    let message = match consoles.last() {
        Some(other) => format!("the Linux of partition {} writes to `{other}`, which it does not have", partition.name),
        None => format!("the Linux of partition {} is told no console", partition.name),
    };
    let place = |key: &str, text: &str| plan.profile.places.label(&format!("partition/{}/{key}", partition.name), text);
    Some(
        Diagnostic::warning(SILENT, message)
            .primary(place("bootargs", "the kernel's arguments"))
            .related(place("console", "nobody will write here"))
            .fact("partition", &partition.name)
            .help("add `console=ttyEHV0` to bootargs: that is the byte channel which the hypervisor gives it"),
    )
}

/// Judges `unused-cpus`.
pub fn unused_cpus(plan: &LoadPlan) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for cpu in &plan.profile.unused_cpus {
        let place = plan.profile.places.label("unused-cpus", format!("CPU {cpu} shall stay unused"));
        if let Some(owner) = plan.partitions.iter().find(|p| p.cpus.contains(cpu)) {
            found.push(
                Diagnostic::error(
                    UNUSED_CPU,
                    format!("CPU {cpu} is listed as unused, but partition {} has it", owner.name),
                )
                .primary(place)
                .related(plan.profile.places.label(&format!("partition/{}/cpus", owner.name), "owned here"))
                .help("take it from one of the two lists"),
            );
        } else if *cpu >= plan.board.cpus {
            found.push(
                Diagnostic::warning(
                    UNUSED_CPU,
                    format!("CPU {cpu} is listed as unused, but {} has only {}", plan.board.name, plan.board.cpus),
                )
                .primary(place)
                .related(plan.board.places.label("cpus", "CPUs of the board"))
                .help("take it from the list"),
            );
        }
    }
    found
}
