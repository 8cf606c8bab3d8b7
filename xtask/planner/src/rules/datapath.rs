//! DMA windows and the numbers of the data path: what partitions may reach and use besides memory and registers.

use citrine_formats::addr::{Address as _, Size};

use crate::diag::{Code, Diagnostic, Severity};
use crate::input::UNKNOWN_NAME;
use crate::input::reader::nearest;
use crate::plan::{DmaPlan, LoadPlan, PartitionPlan};
use crate::profile::Dma;

/// Optional devices are left out.
pub const LEFT_OUT: Code = Code::new('D', 115);
/// A DMA window that the PAMU cannot have.
pub const BAD_WINDOW: Code = Code::new('D', 116);
/// Two partitions may use one number of a resource.
pub const SHARED_NUMBERS: Code = Code::new('D', 117);

/// The PAMU of the first QorIQ parts, which divides a window into fewer slots.
const FIRST_PAMU: &[&str] = &["fsl,pamu-v1.0", "fsl,p4080-pamu"];
/// Most slots of a window there.
const FIRST_SLOTS: u32 = 16;
/// Most slots of a window elsewhere.
const MAX_SLOTS: u32 = 256;
/// Smallest window and sub-window in bytes.
const SMALLEST: u64 = 4096;

/// Says which optional devices are left out, and why.
pub fn left_out(plan: &LoadPlan) -> Vec<Diagnostic> {
    let mut left: Vec<(&PartitionPlan, Vec<&str>)> = Vec::new();
    for partition in &plan.partitions {
        let optional = partition.devices.iter().filter(|device| device.optional);
        let out = optional.filter(|device| !plan.hypervisor.devices || !device.known);
        let out: Vec<&str> = out.map(|device| device.device.as_str()).collect();
        if !out.is_empty() {
            left.push((partition, out));
        }
    }
    let Some((first, _)) = left.first() else { return Vec::new() };
    let who: Vec<&str> = left.iter().map(|(partition, _)| partition.name.as_str()).collect();
    let devices: Vec<&str> = left.iter().flat_map(|(_, out)| out.iter().copied()).collect();
    let why = match plan.hypervisor.devices {
        true => format!("{} does not have {}", plan.board.name, devices.join(", ")),
        false => format!("{} assigns none", plan.hypervisor.name),
    };
    let (goes, s) = if who.len() == 1 { ("goes", "") } else { ("go", "s") };
    let count = devices.len();
    let what = if count == 1 { "one optional device".to_owned() } else { format!("{count} optional devices") };
    let message = format!("partition{s} {} {goes} without {what}: {why}", who.join(" and "));
    let path = format!("partition/{}/optional-devices", first.name);
    vec![
        Diagnostic::new(LEFT_OUT, Severity::Notice, message)
            .primary(plan.profile.places.label(&path, "these"))
            .fact("devices", devices.join(" ")),
    ]
}

/// Judges the windows through which devices reach memory (Topaz `dma-window`).
pub fn windows(plan: &LoadPlan) -> Vec<Diagnostic> {
    let pamu = plan.board.inventory.iter().flat_map(|inventory| &inventory.devices).any(|d| d.is(FIRST_PAMU));
    let most = if pamu { FIRST_SLOTS } else { MAX_SLOTS };
    let windows = plan.partitions.iter().filter_map(|partition| Some((partition, partition.dma.as_ref()?)));
    windows.flat_map(|(partition, window)| judge(plan, partition, window, most)).collect()
}

fn judge(plan: &LoadPlan, partition: &PartitionPlan, window: &DmaPlan, most: u32) -> Vec<Diagnostic> {
    let path = format!("partition/{}/dma", partition.name);
    let mut found = Vec::new();
    let mut say = |key: &str, message: String, help: String| {
        found.push(
            Diagnostic::error(BAD_WINDOW, format!("the DMA window of {}: {message}", partition.name))
                .primary(plan.profile.places.label(&format!("{path}/{key}"), "of this window"))
                .fact("partition", &partition.name)
                .help(help),
        );
    };
    if !window.size.is_power_of_two() || window.size < SMALLEST {
        let size = window.size.max(SMALLEST).next_power_of_two();
        say("size", format!("{} is no power of two", Size(window.size)), format!("size = \"{}\"", Size(size)));
        return found;
    }
    let Some(slots) = window.slots else { return found };
    if !slots.is_power_of_two() || !(2..=most).contains(&slots) {
        let message = format!("it is divided into {slots}");
        say("subwindows", message, format!("a power of two from 2 to {most}: so many the PAMU of this board knows"));
        return found;
    }
    let slot = window.size / u64::from(slots);
    let mut taken: Vec<(u64, &str)> = Vec::new();
    for (index, sub) in window.subwindows.iter().enumerate() {
        let (base, len) = (sub.span.base().get(), sub.span.len());
        let key = format!("reach/{index}");
        let reach = &sub.reach;
        if sub.span.end().get() > window.size {
            let size = Size(sub.span.end().get().next_power_of_two());
            say(&key, format!("{reach}, {}, lies beyond its end", sub.span), format!("size = \"{size}\""));
        } else if base % slot != 0 || len > slot || !len.is_power_of_two() || len < SMALLEST {
            let help = format!(
                "a sub-window begins at a multiple of a slot, {}, and is a power of two no larger: change `subwindows`, \
                 or the address of {reach}",
                Size(slot)
            );
            say(&key, format!("{reach}, {}, fits no slot of {}", sub.span, Size(slot)), help);
        } else if let Some((_, other)) = taken.iter().find(|(at, _)| *at == base) {
            let help = "use more `subwindows`, or another address".to_owned();
            say(&key, format!("{reach} and {other} lie in one slot of {}", Size(slot)), help);
        } else {
            // A multiple of a slot: where the slot begins.
            taken.push((base, reach));
        }
    }
    found.extend(unknown(plan, partition));
    found
}

/// What a window is to reach must be there.
fn unknown(plan: &LoadPlan, partition: &PartitionPlan) -> Vec<Diagnostic> {
    let shared = plan.profile.shared.iter().filter(|area| area.partitions.contains(&partition.name));
    let known: Vec<&str> = ["memory", "msi"].into_iter().chain(shared.map(|area| area.name.as_str())).collect();
    let own = plan.profile.partitions.iter().find(|own| own.name == partition.name);
    let Some(Dma::Window(window)) = own.and_then(|own| own.dma.as_ref()) else { return Vec::new() };
    let unknown = window.reach.iter().enumerate().filter(|(_, reach)| !known.contains(&reach.as_str()));
    let said = unknown.map(|(index, reach)| {
        let path = format!("partition/{}/dma/reach/{index}", partition.name);
        let message =
            format!("partition {} has no `{}` that devices could reach", partition.name, reach.escape_debug());
        Diagnostic::error(UNKNOWN_NAME, message).primary(plan.profile.places.label(&path, "named here")).help(
            match nearest(reach, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("it has {}", known.join(", ")),
            },
        )
    });
    said.collect()
}

/// Judges whether each number of the data path has one user.
pub fn numbers(plan: &LoadPlan) -> Vec<Diagnostic> {
    let mut users = Vec::new();
    for partition in &plan.profile.partitions {
        for kind in partition.data_path.kinds() {
            users.extend(kind.ranges.iter().map(|range| (kind.key, *range, &partition.name)));
        }
    }
    let mut found = Vec::new();
    for (index, (key, (first, last), name)) in users.iter().enumerate() {
        for (_, (other_first, other_last), other) in users[..index].iter().filter(|other| other.0 == *key) {
            let (from, to) = (first.max(other_first), last.min(other_last));
            if from > to {
                continue;
            }
            let label =
                |name: &str, text: &str| plan.profile.places.label(&format!("partition/{name}/data-path/{key}"), text);
            found.push(
                Diagnostic::error(SHARED_NUMBERS, format!("{other} and {name} may both use {key} {from} to {to}"))
                    .primary(label(name, "these"))
                    .related(label(other, "and these"))
                    .fact("first", from)
                    .fact("last", to)
                    .help("guests keep to these ranges by themselves, and nothing stops them: give each number to one"),
            );
        }
    }
    found
}
