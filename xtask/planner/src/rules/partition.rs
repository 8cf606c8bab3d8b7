//! What a profile says about CPUs, beyond what the hypervisor itself checks.

use crate::diag::{Code, Diagnostic};
use crate::plan::LoadPlan;

/// A CPU is listed as unused and has an owner all the same, or does not exist.
pub const UNUSED_CPU: Code = Code::new('P', 102);

/// Judges `unused-cpus`.
pub fn check(plan: &LoadPlan) -> Vec<Diagnostic> {
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
