//! The plan as JSON: for machines (`check --json`), and as what the manifest's plan hash is taken of.

use citrine_formats::addr::Address as _;
use citrine_formats::manifest::Media;
use serde_json::{Value, json};

use crate::plan::{AreaOwner, LoadPlan};

/// Areas, partitions and parts with every address, keys in order, integers only.
pub fn plan(plan: &LoadPlan) -> Value {
    let areas: Vec<Value> = plan
        .areas
        .iter()
        .map(|area| {
            let owner = match area.owner {
                AreaOwner::Hypervisor => "hypervisor",
                AreaOwner::Partition(_) => "partition",
                AreaOwner::Shared(_) => "shared",
            };
            json!({ "name": area.name, "owner": owner, "address": area.span.base(), "size": area.span.len() })
        })
        .collect();
    let partitions: Vec<Value> = plan
        .partitions
        .iter()
        .map(|partition| {
            let image = |image: &crate::plan::GuestImage| json!({ "part": plan.parts[image.part].file, "guest_address": image.guest });
            json!({
                "name": partition.name,
                "label": partition.label,
                "cpus": partition.cpus,
                "memory": plan.areas[partition.memory].name,
                "shared": partition.shared.iter().map(|(area, guest)| json!({
                    "area": plan.areas[*area].name,
                    "guest_address": guest,
                })).collect::<Vec<_>>(),
                "kernel": image(&partition.kernel),
                "rootfs": partition.rootfs.as_ref().map(image),
                "dtb": { "guest_address": partition.dtb.base(), "size": partition.dtb.len() },
                "console": partition.console,
                "channels": partition.channels.iter().map(|end| json!({
                    "name": end.node,
                    "partition": plan.partitions[end.peer].name,
                })).collect::<Vec<_>>(),
                "manages": partition.manages.iter().map(|managed| json!({
                    "name": managed.node,
                    "partition": plan.partitions[managed.partition].name,
                })).collect::<Vec<_>>(),
                "bootargs": partition.bootargs,
            })
        })
        .collect();
    let parts: Vec<Value> = plan
        .parts
        .iter()
        .map(|part| json!({ "name": part.file, "role": part.role, "load": part.load.get(), "window": part.window }))
        .collect();
    let mut object = json!({
        "board": plan.board.name,
        "profile": plan.profile.name,
        "hypervisor_bootargs": plan.hv_bootargs,
        "areas": areas,
        "partitions": partitions,
        "parts": parts,
    });
    if plan.media == Media::Nor {
        object["media"] = json!(plan.media);
    }
    object
}
