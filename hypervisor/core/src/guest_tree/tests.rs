//! The guest's tree against a small board and configuration, rule by rule.

extern crate std;

use std::boxed::Box;
use std::format;
use std::string::{String, ToString as _};
use std::vec;
use std::vec::Vec;

use citrine_formats::addr::TruePhys;
use citrine_formats::fdt::{self, find};
use citrine_formats::testing::Builder;
use proptest::prelude::*;

use super::*;
use crate::hypervisor::partition::{Reason, Requester};

/// A board of two CPUs, the second of which was parked by the boot loader.
fn hardware() -> Vec<u8> {
    let mut t = Builder::default();
    t.begin("").cells("#address-cells", &[2]).cells("#size-cells", &[2]).text("model", "board");
    t.prop("compatible", b"fsl,P4080DS\0fsl,other\0");
    t.begin("cpus").cells("#address-cells", &[1]).cells("#size-cells", &[0]).text("mmu-type", "power-embedded");
    t.prop("power-isa-e.hv", &[]).prop("power-isa-e.ed", &[]).prop("power-isa-ecl", &[]);
    t.begin("cpu@0").text("device_type", "cpu").cells("reg", &[0]).cells("phandle", &[0x20]);
    t.cells("timebase-frequency", &[40]).cells("clock-frequency", &[80]).text("status", "okay");
    t.begin("l2-cache").cells("phandle", &[0x21]).prop("power-isa-e.hv", &[]).end().end();
    t.begin("cpu@1").text("device_type", "cpu").cells("reg", &[1, 9]).text("status", "disabled");
    t.cells("timebase-frequency", &[40]).cells("clock-frequency", &[80]);
    t.text("enable-method", "spin-table").cells("cpu-release-addr", &[0xf, 0xef00_0020]).end();
    t.end();
    t.begin("soc@fe0000000").text("device_type", "soc").cells("bus-frequency", &[600]).end();
    t.end();
    t.finish()
}

/// Adds to a node in the making.
type Add = fn(&mut Builder) -> &mut Builder;

/// A configuration of one partition; the closures add to its byte channel, its memory and itself.
struct Made {
    cpus: [u32; 2],
    flags: &'static [&'static str],
    ranges: &'static [u32],
    channel: Add,
    memory: Add,
    partition: Add,
}

const PLAIN: Made = Made { cpus: [0, 2], flags: &[], ranges: &[], channel: |t| t, memory: |t| t, partition: |t| t };

impl Made {
    fn bytes(&self) -> Vec<u8> {
        let mut t = Builder::default();
        t.begin("");
        t.begin("ram").text("compatible", "phys-mem-area").cells("addr", &[0, 0x1000_0000]);
        t.cells("size", &[0, 0x1000_0000]).cells("phandle", &[1]).end();
        t.begin("hv").text("compatible", "hv-config").end();
        t.begin("stranger").text("compatible", "byte-channel").cells("phandle", &[2]).end();
        t.begin("p0").text("compatible", "partition").text("label", "first").cells("cpus", &[0, 1]);
        t.cells("dtb-window", &[0, 0, 0, 0x1000]).cells("phandle", &[3]).end();
        t.begin("p1").text("compatible", "partition").text("label", "guest").cells("cpus", &self.cpus);
        t.cells("dtb-window", &[0, 0x100_0000, 0, 0x4_0000]);
        if !self.ranges.is_empty() {
            t.cells("device-ranges", self.ranges);
        }
        for flag in self.flags {
            t.prop(flag, &[]);
        }
        t.begin("memory").text("compatible", "guest-phys-mem-area").cells("phys-mem", &[1]);
        t.cells("guest-addr", &[0, 0]).cells("phandle", &[10]);
        (self.memory)(&mut t);
        t.end();
        t.begin("console").text("compatible", "byte-channel").cells("phandle", &[11]);
        (self.channel)(&mut t);
        t.end();
        (self.partition)(&mut t);
        t.end().end();
        t.finish()
    }

    /// What `build` says, with this much room.
    fn build(&self, runtime: &Runtime, room: usize) -> Result<Vec<u8>, String> {
        try_build(&hardware(), &self.bytes(), 1, runtime, room)
    }

    /// The tree as text, and its bytes.
    fn tree(&self) -> (Vec<u8>, String) {
        let bytes = self.build(&RUNTIME, 0x4_0000).unwrap();
        let text = fdt::open(&bytes).unwrap().root().to_string();
        (bytes, text)
    }

    fn error(&self) -> String {
        self.build(&RUNTIME, 0x4_0000).unwrap_err()
    }
}

const RUNTIME: Runtime = Runtime { initrd: None, spin_table: GuestPhys(0xffff_f000), stopped: None };

fn try_build(
    hardware: &[u8],
    config: &[u8],
    partition: usize,
    runtime: &Runtime,
    room: usize,
) -> Result<Vec<u8>, String> {
    let hardware = fdt::open(hardware).map_err(|error| error.to_string())?;
    let tree = fdt::open(config).map_err(|error| error.to_string())?;
    let tree = hvconfig::Tree::new(tree).map_err(|error| error.to_string())?;
    let config = Config::from_tree(tree).map_err(|error| error.to_string())?;
    let mut buffer = vec![0; room];
    let input = Input { hardware, tree, config: &config, partition };
    let len = build(&input, runtime, &mut Box::new(Arena::new()), &mut buffer).map_err(|error| error.to_string())?;
    buffer.truncate(len);
    Ok(buffer)
}

#[test]
fn a_plain_partition_has_what_topaz_gives_it() {
    let made = Made { partition: |t| t.begin("aliases").cells("stdout", &[11]).end(), ..PLAIN };
    let expected = r#"/ {
    label = "guest";
    #address-cells = <0x02>;
    #size-cells = <0x02>;
    compatible = "fsl,P4080DS-hv", "fsl,other-hv";
    epapr-version = "ePAPR-1.0";

    hypervisor {
        compatible = "fsl,embedded-hypervisor-v1.3", "epapr,hypervisor-1";
        guest-id = <0x02>;
        guest-name = "guest";
        fsl,hv-version = <0x01 0x03 0x03 0x02>;
        hcall-instructions = <0x44000022>;

        handles {
            #address-cells = <0x01>;
            #size-cells = <0x00>;
            interrupt-parent = <0x564d5043>;

            console {
                compatible = "epapr,hv-byte-channel";
                reg = <0x40>;
                hv-handle = <0x40>;
                interrupts = <0x41 0x00 0x42 0x00>;
            };
        };
    };

    cpus {
        #address-cells = <0x01>;
        #size-cells = <0x00>;
        mmu-type = "power-embedded";
        power-isa-e.ed;
        power-isa-ecl;

        cpu@0 {
            device_type = "cpu";
            reg = <0x00>;
            phandle = <0x20>;
            timebase-frequency = <0x28>;
            clock-frequency = <0x50>;
            status = "okay";

            l2-cache {
                phandle = <0x21>;
                power-isa-e.hv;
            };
        };

        cpu@1 {
            device_type = "cpu";
            reg = <0x01>;
            status = "disabled";
            timebase-frequency = <0x28>;
            clock-frequency = <0x50>;
            enable-method = "spin-table";
            cpu-release-addr = <0x00 0xfffff040>;
        };
    };

    memory@0 {
        device_type = "memory";
        reg = <0x00 0x00 0x00 0x10000000>;
    };

    devices {
        compatible = "simple-bus";
        ranges;
        #address-cells = <0x02>;
        #size-cells = <0x02>;
        device_type = "soc";
        bus-frequency = <0x258>;

        vmpic {
            compatible = "epapr,hv-pic";
            #interrupt-cells = <0x02>;
            #address-cells = <0x00>;
            interrupt-controller;
            has-external-proxy;
            no-priority;
            phandle = <0x564d5043>;
            linux,phandle = <0x564d5043>;
        };
    };

    aliases {
        stdout = "/hypervisor/handles/console";
    };
};
"#;
    let (bytes, text) = made.tree();
    assert_eq!(text, expected);
    assert_eq!(bytes[28..32], [0; 4], "virtual CPU 0 is entered");
}

#[test]
fn a_secondary_cpu_of_the_hardware_may_be_the_first_of_a_guest() {
    // 9 is the second number of a threaded core.
    for cpu in [1, 9] {
        let (bytes, _) = Made { cpus: [cpu, 1], ..PLAIN }.tree();
        let cpu = find(fdt::open(&bytes).unwrap(), "/cpus/cpu@0").unwrap();
        assert_eq!((cpu.u32("reg"), cpu.string("status")), (Some(0), Some("okay")));
        assert_eq!((cpu.value("enable-method"), cpu.value("cpu-release-addr")), (None, None));
    }
    let error = Made { cpus: [1, 2], ..PLAIN }.error();
    assert_eq!(error, "guest tree: the hardware tree has no CPU 2, which is to be virtual CPU 1");
}

#[test]
fn flags_of_the_partition_show() {
    let (bytes, text) = Made { flags: &["guest-cache-lock-disable"], ..PLAIN }.tree();
    let tree = fdt::open(&bytes).unwrap();
    assert!(!text.contains("power-isa-ecl") && text.contains("power-isa-e.ed"));
    assert!(find(tree, "/hypervisor").unwrap().value("fsl,hv-guest-cache-lock-disable").is_some());
    let (bytes, text) = Made { flags: &["guest-debug-disable"], ..PLAIN }.tree();
    let tree = fdt::open(&bytes).unwrap();
    assert!(text.contains("power-isa-ecl") && !text.contains("power-isa-e.ed"));
    assert!(find(tree, "/hypervisor").unwrap().value("fsl,hv-guest-debug-disable").is_some());
}

#[test]
fn the_running_system_shows() {
    let show = |runtime: Runtime| {
        let bytes = PLAIN.build(&runtime, 0x4_0000).unwrap();
        fdt::open(&bytes).unwrap().root().to_string()
    };
    let initrd = Some(Span::new(GuestPhys(0x130_0000), 0x12_3456).unwrap());
    let text = show(Runtime { initrd, ..RUNTIME });
    assert!(text.contains("linux,initrd-start = <0x00 0x1300000>;"), "{text}");
    assert!(text.contains("linux,initrd-end = <0x00 0x1423456>;"), "{text}");
    assert!(!show(RUNTIME).contains("chosen") && !show(RUNTIME).contains("stopped"));
    let text = show(Runtime { stopped: Some(LastStop { by: Requester::Own, reason: Reason::Restart }), ..RUNTIME });
    assert!(text.contains("fsl,hv-stopped-by = \"self\";\n        fsl,hv-reason-stopped = \"restart\";"), "{text}");
    let text = show(Runtime {
        stopped: Some(LastStop { by: Requester::Watchdog { vcpu: 3 }, reason: Reason::Vcpu(3) }),
        ..RUNTIME
    });
    assert!(text.contains("fsl,hv-stopped-by = \"watchdog\";\n        fsl,hv-reason-stopped = \"vcpu-3\";"), "{text}");
    let text = show(Runtime { spin_table: GuestPhys(0x1_2345_6000), ..RUNTIME });
    assert!(text.contains("cpu-release-addr = <0x01 0x23456040>;"), "{text}");
}

#[test]
fn an_edit_deletes_then_copies_then_prepends() {
    let (bytes, text) = Made {
        memory: |t| {
            t.begin("node-update").text("delete-prop", "device_type").text("kind", "shared").end();
            // A second edit sees what the first has done; a copied property replaces.
            t.begin("node-update@2").text("kind", "mailbox").prop("delete-prop", b"reg\0label\0").text("reg", "x").end()
        },
        channel: |t| t.begin("node-update").cells("phandle", &[40]).text("label", "c").end(),
        partition: |t| {
            t.begin("node-update").text("model", "m").text("compatible", "mine");
            t.prop("prepend-stringlist", b"compatible\0a\0compatible\0b\0new\0c\0");
            t.begin("chosen").text("bootargs", "quiet").end();
            t.begin("cpus").prop("delete-subnodes", &[]).begin("cpu@7").end().end();
            // The name without unit address selects the first that has it.
            t.begin("memory").text("note", "here").end();
            t.end()
        },
        ..PLAIN
    }
    .tree();
    let tree = fdt::open(&bytes).unwrap();
    let memory = find(tree, "/memory@0").unwrap();
    assert_eq!((memory.value("device_type"), memory.string("kind")), (None, Some("mailbox")));
    assert_eq!((memory.string("reg"), memory.string("note")), (Some("x"), Some("here")));
    assert_eq!(Place::root(tree).value("compatible"), Some(&b"b\0a\0mine\0"[..]));
    assert_eq!((Place::root(tree).string("new"), Place::root(tree).string("model")), (Some("c"), Some("m")));
    assert_eq!(find(tree, "/chosen").unwrap().string("bootargs"), Some("quiet"));
    let cpus: Vec<_> = find(tree, "/cpus").unwrap().children().map(|child| child.name()).collect();
    assert_eq!(cpus, ["cpu@7"]);
    let channel = find(tree, "/hypervisor/handles/console").unwrap();
    assert_eq!((channel.string("label"), channel.phandle()), (Some("c"), None));
    assert!(!text.contains("node-update") && !text.contains("delete-") && !text.contains("prepend"), "{text}");
}

#[test]
fn a_deleted_name_without_unit_address_means_all_that_have_it() {
    let with = |list: Add| {
        let (bytes, _) = Made { partition: list, ..PLAIN }.tree();
        let tree = fdt::open(&bytes).unwrap();
        find(tree, "/cpus").unwrap().children().map(|child| child.name().to_string()).collect::<Vec<_>>()
    };
    fn edit<'t>(t: &'t mut Builder, names: &[u8]) -> &'t mut Builder {
        t.begin("node-update").begin("cpus").prop("delete-node", names).end().end()
    }
    assert_eq!(with(|t| edit(t, b"cpu@0\0nothing\0")), ["cpu@1"]);
    assert_eq!(with(|t| edit(t, b"cpu\0")), [""; 0]);
}

#[test]
fn references_lead_to_the_nodes_that_stand_for_the_configurations() {
    let (bytes, _) = Made {
        partition: |t| {
            t.begin("node-update").begin("mine").cells("phandle", &[50]).end().end();
            t.begin("node-update-phandle@1").begin("mine").cells("links", &[11, 50, 10, 11]).end().end();
            t.begin("aliases").cells("mine", &[50]).cells("ram", &[10]).end()
        },
        channel: |t| t.begin("node-update-phandle").cells("peer", &[50]).end(),
        ..PLAIN
    }
    .tree();
    let tree = fdt::open(&bytes).unwrap();
    let phandle = |path| find(tree, path).unwrap().phandle().unwrap();
    let (channel, mine) = (phandle("/hypervisor/handles/console"), phandle("/mine"));
    let all = [channel, mine, phandle("/memory@0"), channel].map(u32::to_be_bytes).concat();
    assert_eq!(find(tree, "/mine").unwrap().value("links"), Some(&all[..]));
    assert_eq!(find(tree, "/hypervisor/handles/console").unwrap().u32("peer"), Some(mine));
    // Above the hardware tree's largest, in the order in which they were needed.
    assert_eq!([mine, channel, phandle("/memory@0")], [0x22, 0x23, 0x24]);
    assert_eq!(find(tree, "/mine").unwrap().u32("linux,phandle"), Some(mine));
    let aliases = find(tree, "/aliases").unwrap();
    assert_eq!((aliases.string("mine"), aliases.string("ram")), (Some("/mine"), Some("/memory@0")));
}

#[test]
fn what_an_edit_cannot_mean_is_an_error() {
    let error = |partition: Add| Made { partition, ..PLAIN }.error();
    let at = "guest tree: /p1/node-update";
    assert_eq!(
        error(|t| t.begin("node-update").text("prepend-stringlist", "compatible").end()),
        format!("{at}: prepend-stringlist: has 11 bytes instead of pairs of strings (property, string)")
    );
    assert!(error(|t| t.begin("node-update").prop("prepend-stringlist", b"a b\0c\0").end()).contains("pairs of"));
    assert_eq!(
        error(|t| t.begin("node-update").prop("delete-node", b"cut").end()),
        format!("{at}: delete-node: has 3 bytes instead of a list of strings")
    );
    assert_eq!(
        error(|t| t.begin("node-update-phandle").cells("x", &[77]).end()),
        format!("{at}-phandle: phandles: no node has the phandle 0x4d")
    );
    // Not the partition's own.
    assert!(error(|t| t.begin("node-update-phandle").cells("x", &[2]).end()).ends_with("the phandle 0x2"));
    assert!(error(|t| t.begin("node-update-phandle").prop("x", &[]).end()).contains("has 0 bytes instead of"));
    assert!(error(|t| t.begin("node-update-phandle").prop("x", &[0; 6]).end()).contains("has 6 bytes instead of"));
    assert!(error(|t| t.begin("node-update-phandle").cells("x", &[10; 33]).end()).ends_with("more than 32"));
    let lost: Add = |t| {
        t.begin("node-update").begin("hypervisor").text("delete-node", "handles").end().end();
        t.begin("aliases").cells("stdout", &[11]).end()
    };
    let error = Made { partition: lost, ..PLAIN }.error();
    assert_eq!(error, "guest tree: /p1/aliases: alias: refers to /p1/console, which is not in the guest's tree");
}

#[test]
fn two_nodes_that_would_become_one_are_refused() {
    let second: Add = |t| t.begin("group").begin("console").text("compatible", "byte-channel").end().end();
    let error = Made { partition: second, ..PLAIN }.error();
    assert_eq!(error, "guest tree: two nodes of the partition are called console");
}

#[test]
fn a_manager_is_told_whom_it_may_control() {
    let made = Made {
        partition: |t| {
            t.begin("child").text("compatible", "managed-partition").cells("partition", &[3]).cells("phandle", &[60]);
            t.end().begin("aliases").cells("child", &[60]).end()
        },
        ..PLAIN
    };
    let (bytes, _) = made.tree();
    let tree = fdt::open(&bytes).unwrap();
    let child = find(tree, "/hypervisor/handles/child").unwrap();
    assert!(child.is_compatible("fsl,hv-partition-handle"));
    assert_eq!((child.u32("reg"), child.u32("hv-handle"), child.string("label")), (Some(1), Some(1), Some("first")));
    assert_eq!(find(tree, "/aliases").unwrap().string("child"), Some("/hypervisor/handles/child"));
}

#[test]
fn memory_for_devices_alone_is_not_shown() {
    let (_, text) = Made { memory: |t| t.prop("dma-only", &[]), ..PLAIN }.tree();
    assert!(!text.contains("memory"), "{text}");
}

#[test]
fn device_ranges_are_passed_on() {
    let (bytes, _) = Made { ranges: &[0, 1, 0, 2, 0, 3], ..PLAIN }.tree();
    let ranges = find(fdt::open(&bytes).unwrap(), "/devices").unwrap().value("ranges").unwrap();
    assert_eq!(ranges, [0, 1, 0, 2, 0, 3].map(u32::to_be_bytes).concat());
    let error = Made { ranges: &[0, 1], ..PLAIN }.error();
    assert!(error.contains("device-ranges: has 8 bytes instead of rows of 6 cells"), "{error}");
}

#[test]
fn room_that_is_too_small_is_an_error_at_every_length() {
    let need = PLAIN.build(&RUNTIME, 0x4_0000).unwrap().len();
    for room in (0..need).step_by(7).chain([need - 1]) {
        let said = PLAIN.build(&RUNTIME, room).unwrap_err();
        assert_eq!(said, format!("guest tree: it does not fit into {room} bytes; dtb-window is too small"));
    }
    assert_eq!(PLAIN.build(&RUNTIME, need).unwrap().len(), need);
}

#[test]
fn a_tree_without_end_is_an_error() {
    let many: Add = |t| {
        t.begin("node-update");
        for index in 0..600 {
            t.begin(&format!("n{index}")).end();
        }
        t.end()
    };
    assert_eq!(Made { partition: many, ..PLAIN }.error(), "guest tree: more than 512 nodes");
    let large: Add = |t| t.begin("node-update").prop("x", &[0; 100 << 10]).end();
    let error = Made { partition: large, ..PLAIN }.error();
    assert_eq!(error, "guest tree: more than 98304 bytes of names and values");
}

#[test]
fn the_spin_table_is_behind_the_memory() {
    let span = |base, len| Span::new(GuestPhys(base), len).unwrap();
    let mut map = GuestMap::default();
    assert_eq!(spin_table(&map), GuestPhys(0xffff_f000));
    map.add(span(0, 0x1000_0000), TruePhys(0));
    assert_eq!(spin_table(&map), GuestPhys(0xffff_f000));
    map.add(span(0x1_0000_0000, 0x1_0000_0000), TruePhys(0x1_0000_0000));
    assert_eq!(spin_table(&map), GuestPhys(0x2_0000_0000));
    map.add(span(0x3_0000_0000, 0x10), TruePhys(0x3_0000_0000));
    assert_eq!(spin_table(&map), GuestPhys(0x3_0000_1000));
    let mut words = [0; 16];
    words[1] = 1;
    (words[3], words[5]) = (5, 5);
    assert_eq!(spin_entry(5).to_vec(), words.map(u32::to_be_bytes).concat());
}

/// A partition with every kind of edit, for damage.
const EDITED: Made = Made {
    memory: |t| t.begin("node-update").text("delete-prop", "device_type").end(),
    channel: |t| t.begin("node-update-phandle").cells("peer", &[10]).end(),
    partition: |t| {
        t.begin("aliases").cells("stdout", &[11]).end();
        t.begin("node-update").prop("prepend-stringlist", b"compatible\0a\0compatible\0b\0");
        t.begin("cpus").prop("delete-node", b"cpu@1\0").begin("cpu").text("a", "b").end().end();
        t.begin("chosen").prop("delete-subnodes", &[]).text("bootargs", "quiet").end().end()
    },
    ..PLAIN
};

proptest! {
    #[test]
    fn no_damage_panics_and_whatever_comes_out_is_a_tree(
        damage in prop::collection::vec((any::<bool>(), any::<usize>(), any::<u8>()), 1..6),
        room in 0usize..0x2000,
    ) {
        let mut trees = [hardware(), EDITED.bytes()];
        for (which, at, byte) in damage {
            let tree = &mut trees[usize::from(which)];
            let at = at % tree.len();
            tree[at] = byte;
        }
        for partition in 0..3 {
            if let Ok(bytes) = try_build(&trees[0], &trees[1], partition, &RUNTIME, room) {
                let tree = fdt::open(&bytes);
                prop_assert!(tree.is_ok(), "{:?}", tree.err());
            }
        }
    }
}
