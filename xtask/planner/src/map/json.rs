//! The memory map for machines: one object, described in docs/formats.md.

use citrine_formats::addr::{Address, Span};
use serde_json::{Value, json};

use super::{MemoryMap, Region};
use crate::stages::Stage;

/// The map at `stages`. Addresses and sizes are integers.
pub fn render(map: &MemoryMap<'_>, stages: &[Stage]) -> Value {
    let plan = map.plan;
    let regions = map.regions.iter().filter(|region| region.is_at(stages));
    let free = stages.iter().flat_map(|stage| {
        map.gaps(&[*stage]).into_iter().map(|gap| {
            json!({
                "stage": stage.name(),
                "address": gap.span.base().get(),
                "size": gap.span.len(),
                "image_area": gap.reserved,
            })
        })
    });
    let conflicts = map.conflicts().into_iter().filter(|c| stages.iter().any(|stage| c.stages.contains(stage)));
    let name = |index: usize| map.regions.get(index).map(|region| region.name.as_str());
    json!({
        "type": "plan",
        "board": plan.board.name,
        "profile": plan.profile.name,
        "stages": stages.iter().map(|stage| stage.name()).collect::<Vec<_>>(),
        "memory": plan.board.ram.iter().map(span).collect::<Vec<_>>(),
        "image_area": span(&plan.board.image_area),
        "regions": regions.map(|found| region(map, found)).collect::<Vec<_>>(),
        "free": free.collect::<Vec<_>>(),
        "conflicts": conflicts.map(|conflict| json!({
            "address": conflict.span.base().get(),
            "size": conflict.span.len(),
            "stages": names(&conflict.stages),
            "regions": conflict.regions.map(name),
        })).collect::<Vec<_>>(),
        "flash": plan.board.nor.as_ref().map(|nor| json!({
            "address": nor.span.base().get(),
            "size": nor.span.len(),
            "window": nor.window,
            "sector": nor.sector,
        })),
        "registers": span(&plan.board.ccsr),
        "guests": plan.partitions.iter().zip(&map.guests).map(|(partition, seen)| json!({
            "name": partition.name,
            "label": partition.label,
            "cpus": partition.cpus,
            "console": partition.console,
            "regions": seen.iter().map(|seen| {
                let mut value = region(map, &seen.region);
                if let Some(members) = value.as_object_mut() {
                    members.remove("stages");
                    members.insert("true_address".to_owned(), json!(seen.at.map(Address::get)));
                }
                value
            }).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
    })
}

fn span<A: Address>(span: &Span<A>) -> Value {
    json!({ "address": span.base().get(), "size": span.len() })
}

fn names(stages: &std::ops::RangeInclusive<Stage>) -> Vec<&'static str> {
    Stage::ALL.into_iter().filter(|stage| stages.contains(stage)).map(Stage::name).collect()
}

fn region<A: Address>(map: &MemoryMap<'_>, region: &Region<A>) -> Value {
    json!({
        "name": region.name,
        "kind": region.kind.name(),
        "owner": region.owner.name(map.plan),
        "address": region.span.base().get(),
        "size": region.known.then(|| region.span.len()),
        "stages": names(&region.stages),
        "headroom": region.room.as_ref().map(|room| json!({
            "bytes": region.headroom(),
            "until": room.until,
        })),
    })
}
