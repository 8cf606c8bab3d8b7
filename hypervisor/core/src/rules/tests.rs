//! One test per rule: a good configuration, changed until the rule objects.

extern crate std;
use std::format;
use std::string::String;
use std::vec::Vec;

use super::*;
use crate::config::{Area, Channel, Console, CpuRange, ImageRow, Mapping};
use citrine_formats::addr::{GuestPhys, TruePhys};
use proptest::prelude::*;

const MIB: u64 = 1 << 20;

fn span(base: u64, len: u64) -> Span<TruePhys> {
    Span::new(TruePhys(base), len).unwrap()
}

fn mux(name: &str, channel: u32) -> Channel<'_> {
    Channel { name, end: ChannelEnd::Mux { device: "serial0", channel } }
}

/// Two partitions on eight CPUs with 2 GiB, to which no rule objects.
fn good() -> (Config<'static>, Machine) {
    let row =
        |source, dest, window| Some(ImageRow { source: TruePhys(source), dest: GuestPhys(dest), window, digest: None });
    let partition = |name, first, count, area| Partition {
        name,
        cpus: [CpuRange { first, count }].into_iter().collect(),
        memory: [
            Mapping { area, guest: GuestPhys(0), dma_only: false },
            Mapping { area: 2, guest: GuestPhys(0x8000_0000), dma_only: false },
        ]
        .into_iter()
        .collect(),
        dtb_window: Span::new(GuestPhys(16 * MIB), 128 << 10).unwrap(),
        guest_image: row(0x7802_0000, 0, 7 * MIB),
        rootfs: row(0x7930_0000, 19 * MIB, 40 * MIB),
        images: Default::default(),
        channels: [mux("con", first + 1)].into_iter().collect(),
        managed: Default::default(),
        devices: 0,
        starts: true,
        slow_traps: false,
    };
    let config = Config {
        areas: [
            Area { name: "p1", span: span(0, 1024 * MIB) },
            Area { name: "p2", span: span(1024 * MIB, 512 * MIB) },
            Area { name: "shared", span: span(0x7c00_0000, 16 * MIB) },
            Area { name: "hv", span: span(0x7f00_0000, 16 * MIB) },
        ]
        .into_iter()
        .collect(),
        hypervisor: crate::config::Hypervisor {
            memory: [3].into_iter().collect(),
            console: Some(Console { device: "serial0", mux_channel: Some(0) }),
        },
        partitions: [partition("p1", 0, 7, 0), partition("p2", 7, 1, 1)].into_iter().collect(),
    };
    let machine = Machine { cpus: CpuSet::first(8), ram: [span(0, 2048 * MIB)].into_iter().collect() };
    (config, machine)
}

fn findings(config: &Config<'_>, machine: &Machine) -> Vec<String> {
    let mut found = Vec::new();
    check(config, machine, &mut |finding| {
        found.push(format!("{} {}: {finding}", finding.code(), finding.severity()));
    });
    found
}

/// What the rules say after `change` was made to the good configuration.
fn after(change: impl FnOnce(&mut Config<'static>, &mut Machine)) -> Vec<String> {
    let (mut config, mut machine) = good();
    change(&mut config, &mut machine);
    findings(&config, &machine)
}

#[test]
fn no_rule_objects_to_the_good_configuration() {
    let (config, machine) = good();
    assert_eq!(findings(&config, &machine), [""; 0]);
}

#[test]
fn h101_cpu_twice() {
    let found = after(|config, _| config.partitions[1].cpus[0] = CpuRange { first: 6, count: 2 });
    assert_eq!(found, ["H101 error: CPU 6 belongs to both partition p1 and partition p2"]);
    let found = after(|config, _| config.partitions[1].cpus.push(CpuRange { first: 7, count: 1 }));
    assert_eq!(found, ["H101 error: CPU 7 is listed twice by partition p2"]);
}

#[test]
fn h102_cpu_missing() {
    let found = after(|config, _| config.partitions[1].cpus[0].count = u32::MAX);
    assert_eq!(found, ["H102 error: partition p2 lists CPU 8, but the machine has CPUs 0-7"]);
    let found = after(|config, _| config.partitions[1].cpus.push(CpuRange { first: u32::MAX, count: u32::MAX }));
    assert_eq!(found, ["H102 error: partition p2 lists CPU 4294967295, but the machine has CPUs 0-7"]);
}

#[test]
fn h103_cpus_idle() {
    let found = after(|config, _| config.partitions[0].cpus[0].count = 5);
    assert_eq!(found, ["H103 warning: no partition owns CPUs 5-6"]);
}

#[test]
fn h104_area_size() {
    let found = after(|config, _| config.areas[2].span = span(0x7c00_0000, 6 * MIB));
    assert_eq!(found, ["H104 error: the size of area shared, 0x600000, is no power of two"]);
}

#[test]
fn h105_area_unaligned() {
    let found = after(|config, _| config.areas[2].span = span(0x7c80_0000, 16 * MIB));
    assert_eq!(found, ["H105 error: area shared begins at 0x7c800000, which is no multiple of its size 0x1000000"]);
}

#[test]
fn h106_areas_overlap() {
    let found = after(|config, _| config.areas[2].span = span(0x5c00_0000, 16 * MIB));
    assert_eq!(found, ["H106 error: areas p2 and shared both hold 0x5c000000..0x5d000000"]);
}

#[test]
fn h107_area_outside_ram() {
    let found = after(|_, machine| machine.ram[0] = span(0, 2032 * MIB));
    assert_eq!(found, ["H107 error: area hv at 0x7f000000..0x80000000 is not completely RAM"]);
    let found = after(|_, machine| {
        machine.ram[0] = span(256 * MIB, 1792 * MIB);
        machine.ram.push(span(0, 256 * MIB));
    });
    assert_eq!(found, [""; 0], "two banks of RAM side by side");
}

#[test]
fn h108_hypervisor_mapped() {
    let found = after(|config, _| config.partitions[0].memory[1].area = 3);
    assert_eq!(found, ["H108 error: partition p1 maps area hv, which is the hypervisor's own memory"]);
}

#[test]
fn h109_mappings_overlap() {
    let found = after(|config, _| config.partitions[0].memory[1].guest = GuestPhys(0x3000_0000));
    assert_eq!(
        found,
        ["H109 error: partition p1 has areas p1 and shared both at guest-physical 0x30000000..0x31000000"]
    );
}

#[test]
fn h110_guest_unaligned() {
    let found = after(|config, _| config.partitions[0].memory[1].guest = GuestPhys(0x8080_0000));
    let text = "H110 error: partition p1 has area shared at guest-physical 0x80800000, \
                which is no multiple of its size 0x1000000";
    assert_eq!(found, [text]);
}

#[test]
fn h111_channel_twice() {
    let found = after(|config, _| config.partitions[1].channels[0] = mux("con", 0));
    assert_eq!(found, ["H111 error: mux channel 0 is used by both the hypervisor and p2"]);
    let found = after(|config, _| {
        config.partitions[1].channels[0].end = ChannelEnd::Mux { device: "serial1", channel: 0 };
    });
    assert_eq!(found, [""; 0], "another serial line has its own channels");
}

#[test]
fn h112_channel_too_large() {
    let found = after(|config, _| config.partitions[1].channels[0] = mux("con", 256));
    assert_eq!(found, ["H112 error: p2 uses mux channel 256; the last one is 31"]);
}

#[test]
fn h113_dtb_outside() {
    let text = "H113 error: the device tree of partition p1 at 0x1000000..0x1020000 is outside its memory";
    let found = after(|config, _| config.partitions[0].memory[0].dma_only = true);
    assert_eq!(found[0], text);
    let found = after(|config, _| config.partitions[0].dtb_window = Span::new(GuestPhys(0), 0).unwrap());
    assert!(found[0].starts_with("H113"), "an empty window: {found:?}");
}

#[test]
fn h114_image_outside() {
    let found = after(|config, _| {
        config.partitions[1].rootfs.as_mut().unwrap().dest = GuestPhys(500 * MIB);
    });
    let text = "H114 error: the rootfs of partition p2 goes to 0x1f400000..0x21c00000, which is outside its memory";
    assert_eq!(found, [text]);
    let found = after(|config, _| config.partitions[1].guest_image.as_mut().unwrap().dest = GuestPhys(u64::MAX));
    assert!(found[0].starts_with("H114"), "a window that would wrap: {found:?}");
}

#[test]
fn h115_destinations_overlap() {
    let found = after(|config, _| config.partitions[0].guest_image.as_mut().unwrap().window = 20 * MIB);
    assert_eq!(
        found,
        [
            "H115 warning: the windows of rootfs and kernel of partition p1 both hold 0x1300000..0x1400000",
            "H115 warning: the windows of kernel and device tree of partition p1 both hold 0x1000000..0x1020000",
        ]
    );
}

#[test]
fn h116_source_owned() {
    let found = after(|config, _| config.partitions[1].guest_image.as_mut().unwrap().source = TruePhys(0x7ec0_0000));
    let text = "H116 warning: the kernel of partition p2 is read from 0x7ec00000..0x7f300000, \
                which overlaps area hv that is in use";
    assert_eq!(found, [text], "the real bytes may still fit");
    let found = after(|config, _| config.partitions[1].guest_image.as_mut().unwrap().source = TruePhys(0x7f40_0000));
    assert!(found[0].starts_with("H116 error"), "it begins there: {found:?}");
    let found = after(|config, _| {
        config.areas.push(Area { name: "images", span: span(0x7800_0000, 64 * MIB) });
    });
    assert_eq!(found, [""; 0], "an area that nobody uses");
}

#[test]
fn h117_hypervisor_memory() {
    let found = after(|config, _| config.hypervisor.memory.clear());
    assert_eq!(found, ["H117 error: the hypervisor has no memory"]);
    let found = after(|config, _| config.areas[3].span = span(0x7f00_0000, 8 * MIB));
    assert_eq!(found, ["H117 error: the hypervisor's largest area has 8 MiB; it needs 16 MiB"]);
}

#[test]
fn h119_dtb_too_high() {
    let window = Span::new(GuestPhys(64 * MIB - 4096), 128 << 10).unwrap();
    let found = after(|config, _| config.partitions[0].dtb_window = window);
    let text = "the device tree of partition p1 at 0x3fff000..0x401f000 ends above 0x4000000, \
                where Linux cannot read it";
    assert_eq!(found, [format!("H119 error: {text}")]);
    let found = after(|config, _| {
        config.partitions[0].dtb_window = window;
        config.partitions[0].rootfs = None;
    });
    assert_eq!(found, [format!("H119 warning: {text}")]);
}

#[test]
fn h120_rootfs_too_high() {
    let place = |dest| after(move |config, _| config.partitions[0].rootfs.as_mut().unwrap().dest = GuestPhys(dest));
    let found = place(760 * MIB);
    let text = "H120 warning: the rootfs of partition p1 at 0x2f800000..0x32000000 ends above 0x30000000, \
                where Linux cannot reach it";
    assert_eq!(found, [text]);
    assert!(place(768 * MIB)[0].starts_with("H120 error"));
}

#[test]
fn h122_devices_ignored() {
    let found = after(|config, _| config.partitions[0].devices = 2);
    assert_eq!(
        found,
        ["H122 warning: partition p1 is assigned 2 devices, but this hypervisor assigns none: it starts without"]
    );
}

#[test]
fn h121_no_cpu() {
    let found = after(|config, _| config.partitions[1].cpus.clear());
    assert_eq!(found, ["H121 error: partition p2 has no CPU", "H103 warning: no partition owns CPU 7"]);
}

proptest! {
    #[test]
    fn no_numbers_panic(first: u32, count: u32, base: u64, len: u64, guest: u64, channel: u32, index: usize) {
        let (mut config, machine) = good();
        if let Ok(span) = Span::new(TruePhys(base), len) {
            config.areas[2].span = span;
        }
        let partition = &mut config.partitions[1];
        partition.cpus[0] = CpuRange { first, count };
        partition.memory[0] = Mapping { area: index, guest: GuestPhys(guest), dma_only: false };
        partition.memory[1].guest = GuestPhys(guest);
        partition.guest_image = Some(ImageRow { source: TruePhys(base), dest: GuestPhys(guest), window: len, digest: None });
        partition.channels[0] = mux("con", channel);
        config.hypervisor.memory[0] = index;
        findings(&config, &machine);
    }

    #[test]
    fn covered_agrees_with_the_definition(base in 0u64..32, len in 0u64..32, pieces in proptest::collection::vec((0u64..64, 0u64..16), 0..5)) {
        let span = |(base, len)| Span::new(TruePhys(base), len).unwrap();
        let whole = span((base, len));
        let expected = (base..base + len).all(|at| pieces.iter().any(|piece| span(*piece).contains(TruePhys(at))));
        prop_assert_eq!(is_covered(whole, || pieces.iter().map(|piece| span(*piece))), expected);
    }
}
