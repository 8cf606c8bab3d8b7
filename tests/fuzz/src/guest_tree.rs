//! A guest's tree from any configuration and hardware trees: two blobs as they are, or a partition's node that a
//! small program adds to, so that edits and references are reached.
//!
//! Whatever they hold, there is an error or a well-formed tree that fits into its room; from a sane board also one whose
//! nodes, properties and phandles can be told apart.

use std::fmt::Debug;

use citrine_core::config::Config;
use citrine_core::guest_tree::{Arena, Input as TreeInput, Runtime, build};
use citrine_formats::addr::GuestPhys;
use citrine_formats::fdt::{Place, Property as _};
use citrine_formats::testing::Builder;
use citrine_formats::{fdt, hvconfig};

use crate::input::Input;

/// Room for the guest's tree: with less than the program can ask for.
const ROOM: usize = 0x2000;
/// Deepest node of the program's own.
const MAX_DEPTH: usize = 12;

const NODES: [&str; 20] = [
    "node-update",
    "node-update@1",
    "node-update-phandle",
    "node-update-phandle@1",
    "cpus",
    "cpu",
    "cpu@0",
    "cpu@7",
    "memory",
    "memory@0",
    "hypervisor",
    "handles",
    "console",
    "aliases",
    "chosen",
    "mine",
    "",
    "l2-cache",
    "byte-channel",
    "managed",
];
const PROPERTIES: [&str; 18] = [
    "delete-prop",
    "delete-node",
    "delete-subnodes",
    "prepend-stringlist",
    "phandle",
    "linux,phandle",
    "compatible",
    "reg",
    "label",
    "links",
    "device_type",
    "#address-cells",
    "stdout",
    "partition",
    "dtb-window",
    "phys-mem",
    "status",
    "x",
];
const TEXTS: [&[u8]; 12] = [
    b"compatible\0",
    b"reg\0label\0",
    b"compatible\0a\0compatible\0b\0",
    b"cpu\0",
    b"cpu@0\0memory\0",
    b"byte-channel\0",
    b"managed-partition\0",
    b"guest-phys-mem-area\0",
    b"phandle\0",
    b"\0",
    b"no end",
    b"",
];
const CELLS: [u32; 12] = [0, 1, 2, 3, 10, 11, 12, 13, 0x20, 0x21, 0x564d_5043, !0];

/// Runs the target.
pub fn run(data: &[u8]) -> usize {
    let mut input = Input::new(data);
    match input.byte() {
        None => 0,
        Some(0) => {
            let Some(len) = input.raw() else { return 0 };
            let tree = input.bytes(len as usize & 0xffff);
            try_build(input.rest(), tree, false)
        }
        Some(1) => try_build(&hardware(), input.rest(), true),
        Some(_) => try_build(&hardware(), &configuration(&mut input), true),
    }
}

/// Builds what can be built, from a hardware tree that makes sense or not; how many trees there are.
fn try_build(hardware: &[u8], config: &[u8], is_sane: bool) -> usize {
    let trees = (fdt::open(hardware), fdt::open(config));
    let (Ok(hardware), Ok(config)) = trees else { return 0 };
    let Ok(tree) = hvconfig::Tree::new(config) else { return 0 };
    let Ok(config) = Config::from_tree(tree) else { return 0 };
    let (mut arena, mut buffer, mut built) = (Box::new(Arena::new()), vec![0xa5; ROOM + 64], 0);
    for partition in 0..=config.partitions.len() {
        let input = TreeInput { hardware, tree, config: &config, partition };
        let runtime = Runtime { initrd: None, spin_table: GuestPhys(0xffff_f000), stopped: None };
        let result = build(&input, &runtime, &mut arena, &mut buffer[..ROOM]);
        let Ok(len) = result else { continue };
        assert!(partition < config.partitions.len(), "a tree for no partition");
        let tree = fdt::open(&buffer[..len]).unwrap_or_else(|error| panic!("the guest cannot read it: {error}"));
        assert!(fdt::open(&buffer[..len - 1]).is_err(), "it is longer than it need be");
        if is_sane {
            check(Place::root(tree));
        }
        built += 1;
    }
    assert!(buffer[ROOM..].iter().all(|byte| *byte == 0xa5), "written beyond its room");
    built
}

/// No two nodes and no two properties are told apart by nothing; a phandle is one node's.
fn check(root: Place<'_>) {
    let mut phandles = Vec::new();
    for place in root.walk() {
        let mut names: Vec<&str> = place.children().map(|child| child.name()).collect();
        unique(&mut names);
        let mut names: Vec<String> = place.properties().map(|property| property.name().to_owned()).collect();
        unique(&mut names);
        phandles.extend(place.phandle());
    }
    unique(&mut phandles);
}

fn unique<T: Ord + Debug>(list: &mut [T]) {
    list.sort();
    let twice = list.windows(2).find(|pair| pair[0] == pair[1]);
    assert!(twice.is_none(), "{twice:?} in {list:?}");
}

/// A board of two CPUs.
fn hardware() -> Vec<u8> {
    let mut t = Builder::default();
    t.begin("").cells("#address-cells", &[2]).cells("#size-cells", &[2]).text("compatible", "fsl,P4080DS");
    t.begin("cpus").cells("#address-cells", &[1]).cells("#size-cells", &[0]);
    for (name, number) in [("cpu@0", 0), ("cpu@1", 1)] {
        t.begin(name).text("device_type", "cpu").cells("reg", &[number]).cells("phandle", &[0x20 + 2 * number]);
        t.cells("timebase-frequency", &[40]).cells("clock-frequency", &[80]);
        t.begin("l2-cache").cells("phandle", &[0x21 + 2 * number]).end().end();
    }
    t.end().end();
    t.finish()
}

/// A configuration of two partitions, whose second has what the program adds to it and its parts.
fn configuration(input: &mut Input<'_>) -> Vec<u8> {
    let mut t = Builder::default();
    t.begin("");
    t.begin("ram").text("compatible", "phys-mem-area").cells("addr", &[0, 0x1000_0000]);
    t.cells("size", &[0, 0x1000_0000]).cells("phandle", &[1]).end();
    t.begin("hv").text("compatible", "hv-config").end();
    t.begin("p0").text("compatible", "partition").text("label", "first").cells("cpus", &[0, 1]);
    t.cells("dtb-window", &[0, 0, 0, 0x1000]).cells("phandle", &[3]).end();
    t.begin("p1").text("compatible", "partition").text("label", "guest").cells("cpus", &[0, 2]);
    t.cells("dtb-window", &[0, 0x100_0000, 0, 0x4_0000]).cells("phandle", &[12]);
    t.begin("memory").text("compatible", "guest-phys-mem-area").cells("phys-mem", &[1]);
    t.cells("guest-addr", &[0, 0]).cells("phandle", &[10]);
    program(&mut t, input);
    t.end();
    t.begin("console").text("compatible", "byte-channel").cells("phandle", &[11]);
    program(&mut t, input);
    t.end();
    t.begin("second").text("compatible", "managed-partition").cells("partition", &[3]).cells("phandle", &[13]);
    program(&mut t, input);
    t.end();
    program(&mut t, input);
    t.end().end();
    t.finish()
}

/// Adds nodes and properties until the program says that it is done, and ends every node that it has begun.
fn program(t: &mut Builder, input: &mut Input<'_>) {
    let mut depth = 0;
    while let Some(step) = input.byte() {
        match step % 6 {
            0 | 1 if depth < MAX_DEPTH => {
                let Some(name) = input.one_of(&NODES) else { break };
                t.begin(name);
                depth += 1;
            }
            2 if depth > 0 => {
                t.end();
                depth -= 1;
            }
            3 => {
                let Some((name, value)) = input.one_of(&PROPERTIES).zip(input.one_of(&TEXTS)) else { break };
                t.prop(name, value);
            }
            4 => {
                let Some((name, count)) = input.one_of(&PROPERTIES).zip(input.below(5)) else { break };
                let cells: Vec<u32> = (0..count).map_while(|_| input.word(&CELLS)).collect();
                t.cells(name, &cells);
            }
            5 => break,
            _ => {}
        }
    }
    (0..depth).for_each(|_| {
        t.end();
    });
}
