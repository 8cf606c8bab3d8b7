//! The rules between a configuration and a machine (codes `H1xx`): who owns which CPU, which byte, which channel.
//!
//! Firmware and tool call the same [`check`]. What needs real bytes (does the kernel unpack into the device
//! tree?) is checked by loader and tool; here a window stands for the bytes it may hold.

use citrine_formats::addr::{Address, Span};

use crate::capabilities::Capabilities;
use crate::config::{ChannelEnd, Config, Partition, Role};
use crate::machine::{CpuSet, Machine};

mod finding;

pub use finding::{
    DESTINATIONS_OVERLAP, Finding, IMAGE_OUTSIDE, LINUX_FIRST_MAP, LINUX_LOW_MEMORY, MIN_HYPERVISOR_MEMORY,
    MUX_CHANNELS, ROOTFS_TOO_HIGH, TREE,
};

/// Who reports findings.
type Report<'r, 'a> = &'r mut dyn FnMut(Finding<'a>);

/// Asks every rule about `config` on `machine`; each objection goes to `report`, in a fixed order.
pub fn check<'a>(config: &Config<'a>, machine: &Machine, report: Report<'_, 'a>) {
    cpus(config, machine, report);
    areas(config, machine, report);
    hypervisor(config, report);
    channels(config, report);
    for partition in &config.partitions {
        mappings(config, partition, report);
        destinations(config, partition, report);
        sources(config, partition, report);
        if partition.devices > 0 && !Capabilities::CITRINE.devices {
            report(Finding::DevicesIgnored { partition: partition.name, count: partition.devices });
        }
    }
}

fn cpus<'a>(config: &Config<'a>, machine: &Machine, report: Report<'_, 'a>) {
    let mut owned = CpuSet::EMPTY;
    for (index, partition) in config.partitions.iter().enumerate() {
        let mut own = CpuSet::EMPTY;
        for range in &partition.cpus {
            // One missing CPU per range says enough.
            if let Some(cpu) = range.numbers().find(|cpu| !machine.cpus.contains(*cpu)) {
                report(Finding::CpuMissing { partition: partition.name, cpu, machine: machine.cpus });
            }
            for cpu in range.numbers().filter(|cpu| machine.cpus.contains(*cpu)) {
                if own.contains(cpu) {
                    report(Finding::CpuTwice { cpu, first: partition.name, second: partition.name });
                } else if owned.contains(cpu) {
                    let lists =
                        |other: &&Partition<'_>| other.cpus.iter().any(|range| range.numbers().any(|n| n == cpu));
                    let first = config.partitions[..index].iter().find(lists).map_or("", |other| other.name);
                    report(Finding::CpuTwice { cpu, first, second: partition.name });
                }
                own.insert(cpu);
            }
        }
        if partition.cpus.iter().all(|range| range.count == 0) {
            report(Finding::NoCpu { partition: partition.name });
        }
        owned = owned.union(own);
    }
    let idle = machine.cpus.without(owned);
    if !idle.is_empty() {
        report(Finding::CpusIdle { cpus: idle });
    }
}

/// The pairs of a list, each once.
fn pairs<T>(list: &[T]) -> impl Iterator<Item = (&T, &T)> {
    let rest = |index: usize| list.get(index + 1..).unwrap_or(&[]);
    list.iter().enumerate().flat_map(move |(index, first)| rest(index).iter().map(move |second| (first, second)))
}

fn areas<'a>(config: &Config<'a>, machine: &Machine, report: Report<'_, 'a>) {
    for area in &config.areas {
        let (area, span) = (area.name, area.span);
        if !span.len().is_power_of_two() {
            report(Finding::AreaSize { area, size: span.len() });
        } else if !span.is_naturally_aligned() {
            report(Finding::AreaUnaligned { area, span });
        }
        if !is_covered(span, || machine.ram.iter().copied()) {
            report(Finding::AreaOutsideRam { area, span });
        }
    }
    for (first, second) in pairs(&config.areas) {
        if let Some(common) = first.span.intersection(&second.span) {
            report(Finding::AreasOverlap { first: first.name, second: second.name, common });
        }
    }
}

/// Whether the pieces together hold every byte of `span`. They may be in any order, and overlap.
fn is_covered<A: Address, I: Iterator<Item = Span<A>>>(span: Span<A>, pieces: impl Fn() -> I) -> bool {
    let mut at = span.base();
    while at < span.end() {
        let reach = pieces().filter(|piece| piece.contains(at)).map(|piece| piece.end()).max();
        match reach {
            Some(end) => at = end,
            None => return false,
        }
    }
    true
}

fn hypervisor<'a>(config: &Config<'a>, report: Report<'_, 'a>) {
    let own = || config.hypervisor.memory.iter().filter_map(|&index| Some((index, config.areas.get(index)?)));
    let largest = own().map(|(_, area)| area.span.len()).max().unwrap_or(0);
    if largest < MIN_HYPERVISOR_MEMORY {
        report(Finding::HypervisorMemory { largest });
    }
    for (index, area) in own() {
        for partition in &config.partitions {
            if partition.memory.iter().any(|mapping| mapping.area == index) {
                report(Finding::HypervisorMapped { area: area.name, partition: partition.name });
            }
        }
    }
}

fn channels<'a>(config: &Config<'a>, report: Report<'_, 'a>) {
    let own = config.hypervisor.console;
    let own = own.and_then(|console| Some(("the hypervisor", console.device, console.mux_channel?)));
    let theirs = config.partitions.iter().flat_map(|partition| {
        partition.channels.iter().filter_map(|channel| match channel.end {
            ChannelEnd::Mux { device, channel } => Some((partition.name, device, channel)),
            ChannelEnd::Device(_) | ChannelEnd::Peer(_) | ChannelEnd::Console | ChannelEnd::Open => None,
        })
    });
    let all = own.into_iter().chain(theirs);
    for (index, (owner, device, channel)) in all.clone().enumerate() {
        if channel >= MUX_CHANNELS {
            report(Finding::ChannelTooLarge { owner, channel });
        }
        let before = all.clone().take(index).find(|(_, other, number)| (*other, *number) == (device, channel));
        if let Some((first, ..)) = before {
            report(Finding::ChannelTwice { channel, first, second: owner });
        }
    }
}

fn mappings<'a>(config: &Config<'a>, partition: &Partition<'a>, report: Report<'_, 'a>) {
    let name = |index: usize| config.areas.get(index).map_or("", |area| area.name);
    for mapping in &partition.memory {
        let size = mapping.guest_span(&config.areas).len();
        let len = config.areas.get(mapping.area).map_or(0, |area| area.span.len());
        if len.is_power_of_two() && (!mapping.guest.get().is_multiple_of(len) || size != len) {
            let (partition, area) = (partition.name, name(mapping.area));
            report(Finding::GuestUnaligned { partition, area, guest: mapping.guest, size: len });
        }
    }
    for (first, second) in pairs(&partition.memory) {
        let common = first.guest_span(&config.areas).intersection(&second.guest_span(&config.areas));
        if let Some(common) = common {
            let (partition, first, second) = (partition.name, name(first.area), name(second.area));
            report(Finding::MappingsOverlap { partition, first, second, common });
        }
    }
}

fn destinations<'a>(config: &Config<'a>, partition: &Partition<'a>, report: Report<'_, 'a>) {
    let name = partition.name;
    let own = || {
        let reachable = partition.memory.iter().filter(|mapping| !mapping.dma_only);
        reachable.map(|mapping| mapping.guest_span(&config.areas))
    };
    let dtb = partition.dtb_window;
    if dtb.is_empty() || !is_covered(dtb, own) {
        report(Finding::DtbOutside { partition: name, window: dtb });
    }
    if dtb.end() > LINUX_FIRST_MAP {
        let linux = partition.rootfs.is_some();
        report(Finding::DtbTooHigh { partition: name, window: dtb, linux });
    }
    for (index, (role, row)) in partition.rows().enumerate() {
        let window = row.dest_span();
        if window.is_empty() || window.len() != row.window || !is_covered(window, own) {
            report(Finding::ImageOutside { partition: name, role, window });
        }
        if role == Role::Rootfs && window.end() > LINUX_LOW_MEMORY {
            report(Finding::RootfsTooHigh { partition: name, window });
        }
        for (other, second) in partition.rows().skip(index + 1) {
            if let Some(common) = window.intersection(&second.dest_span()) {
                report(Finding::DestinationsOverlap { partition: name, first: role, second: Some(other), common });
            }
        }
        if let Some(common) = window.intersection(&dtb) {
            report(Finding::DestinationsOverlap { partition: name, first: role, second: None, common });
        }
    }
}

fn sources<'a>(config: &Config<'a>, partition: &Partition<'a>, report: Report<'_, 'a>) {
    let is_used = |index: &usize| {
        config.hypervisor.memory.contains(index)
            || config.partitions.iter().any(|owner| owner.memory.iter().any(|mapping| mapping.area == *index))
    };
    for (role, row) in partition.rows() {
        let window = row.source_span();
        let used = || (0..config.areas.len()).filter(is_used).map(|index| &config.areas[index]);
        let hit = used().find(|area| area.span.contains(window.base()));
        if let Some(area) = hit.or_else(|| used().find(|area| area.span.overlaps(&window))) {
            let (area, span) = (area.name, area.span);
            report(Finding::SourceOwned { partition: partition.name, role, window, area, span });
        }
    }
}

#[cfg(test)]
mod tests;
