//! Configuration trees, good ones and each kind of bad one.

extern crate std;
use std::format;
use std::string::String;
use std::vec::Vec;

use super::*;
use crate::fdt;
use crate::sha256::Sha256;
use crate::testing::Builder;

/// A tree with one partition `a`; the closures add to the partition and to the root.
fn tree(partition: impl Fn(&mut Builder) -> &mut Builder, root: impl Fn(&mut Builder) -> &mut Builder) -> Vec<u8> {
    let mut t = Builder::default();
    t.begin("").text("compatible", "fsl,hv-config");
    t.begin("ram").text("compatible", "phys-mem-area").cells("phandle", &[1]);
    t.cells("addr", &[0, 0]).cells("size", &[0, 0x800_0000]).end();
    t.begin("hv").text("compatible", "hv-config").cells("stdout", &[4]);
    t.begin("uart").text("device", "serial0").cells("phandle", &[2]).end();
    t.begin("con").text("compatible", "byte-channel").cells("endpoint", &[3]).cells("mux-channel", &[0]);
    t.cells("phandle", &[4]).end();
    t.end();
    t.begin("mux").text("compatible", "byte-channel-mux").cells("endpoint", &[2]).cells("phandle", &[3]).end();
    t.begin("a").text("compatible", "partition");
    partition(&mut t);
    t.begin("gpma").text("compatible", "guest-phys-mem-area").cells("phys-mem", &[1]).end();
    t.end();
    root(&mut t);
    t.end();
    t.finish()
}

/// What is wrong with the tree, as text; the first partition is read completely.
fn problem(bytes: &[u8]) -> String {
    fn read<'a>(fdt: Fdt<'a>) -> Result<'a, ()> {
        let tree = Tree::new(fdt)?;
        tree.areas().try_for_each(|area| area.span().map(drop))?;
        let hypervisor = tree.hypervisor()?;
        if let Some(Stdout::Channel(channel)) = hypervisor.stdout()? {
            channel.end()?;
        }
        hypervisor.memory().try_for_each(|area| area.map(drop))?;
        hypervisor.devices().try_for_each(|device| device.map(drop))?;
        for partition in tree.partitions() {
            partition.label()?;
            partition.cpus()?.for_each(drop);
            partition.dtb_window()?;
            partition.guest_image()?;
            partition.rootfs()?;
            partition.images()?.try_for_each(|row| row.map(drop))?;
            partition.digests()?.for_each(drop);
            partition.memory().try_for_each(|mapping| mapping.map(drop))?;
            partition.channels().try_for_each(|channel| channel.end().map(drop))?;
            partition.managed().try_for_each(|managed| managed.map(drop))?;
            partition.aliases().try_for_each(|alias| alias.map(drop))?;
            partition.devices().try_for_each(|device| device.map(drop))?;
        }
        Ok(())
    }
    read(fdt::open(bytes).unwrap()).map_or_else(|error| format!("{error}"), |()| "none".into())
}

fn in_partition(partition: impl Fn(&mut Builder) -> &mut Builder) -> String {
    problem(&tree(
        |t| {
            t.cells("dtb-window", &[0, 0x100_0000, 0, 0x20000]);
            partition(t)
        },
        |t| t,
    ))
}

fn at_root(root: impl Fn(&mut Builder) -> &mut Builder) -> String {
    problem(&tree(|t| t.cells("dtb-window", &[0; 4]), root))
}

#[test]
fn a_good_tree_is_read() {
    let bytes = tree(
        |t| {
            t.cells("cpus", &[0, 2, 4, 1]).cells("dtb-window", &[0, 0x100_0000, 0, 0x20000]);
            t.cells("guest-image", &[0xf, 0xe802_0000, 0, 0, 0, 0x70_0000]);
            t.begin("bc").text("compatible", "byte-channel").cells("endpoint", &[3]).cells("mux-channel", &[7]);
            t.cells("phandle", &[9]).end();
            t.begin("aliases").cells("stdout", &[9]).end();
            t.begin("pci0").text("device", "pci0").prop("map-ranges", &[]).begin("node-update").end().end();
            t.begin("node-update@1").begin("chosen").text("bootargs", "x").end().end()
        },
        |t| t,
    );
    assert_eq!(problem(&bytes), "none");
    let tree = Tree::new(fdt::open(&bytes).unwrap()).unwrap();
    let a = tree.partitions().next().unwrap();
    assert_eq!(a.cpus().unwrap().collect::<Vec<_>>(), [(0, 2), (4, 1)]);
    let row = a.guest_image().unwrap().unwrap();
    assert_eq!(format!("{} {}", row.source, row.dest), "0xf_e8020000..0xf_e8720000 0x0..0x700000");
    let channel = a.channels().next().unwrap();
    assert_eq!(channel.name(), "bc");
    assert!(matches!(channel.end(), Ok(End::Mux { channel: 7, mux }) if mux.device() == Ok("serial0")));
    let memory = a.memory().next().unwrap().unwrap();
    assert_eq!((memory.area.name(), format!("{}", memory.guest)), ("ram", "0x0..0x8000000".into()));
    let Ok(Some(Stdout::Channel(stdout))) = tree.hypervisor().unwrap().stdout() else { panic!("no channel") };
    assert!(matches!(stdout.end(), Ok(End::Mux { channel: 0, .. })));
    assert_eq!(a.devices().next(), Some(Ok(("pci0", "pci0"))));
}

#[test]
fn a_row_with_a_cell_too_many_is_an_error() {
    let text = in_partition(|t| t.cells("linux-rootfs", &[0, 0xe900_0000, 0, 0, 0x0130_0000, 0, 0x0280_0000]));
    assert_eq!(
        text,
        "/a: linux-rootfs: has 28 bytes instead of rows of 6 cells (image, destination, window; two each)"
    );
    assert!(in_partition(|t| t.cells("guest-image", &[0, 1, 0, 0])).contains("guest-image: has 16 bytes"));
    assert!(in_partition(|t| t.cells("guest-image", &[0; 12])).contains("one row of 24"));
    assert!(in_partition(|t| t.cells("load-image-table", &[0; 7])).contains("load-image-table: has 28"));
    assert!(in_partition(|t| t.cells("cpus", &[0])).contains("cpus: has 4 bytes"));
    assert!(in_partition(|t| t.cells("cpus", &[])).contains("cpus: has 0 bytes"));
}

#[test]
fn every_image_has_a_digest_or_none_has() {
    let digest = |seed: u8| Digest { size: u64::from(seed) << 33 | 1, sha256: Sha256([seed; 32]) };
    let with = |rows: usize, tail: &[u8]| {
        let rows: Vec<u8> =
            (1..=rows as u8).flat_map(|seed| digest(seed).to_row()).chain(tail.iter().copied()).collect();
        tree(
            |t| {
                t.cells("dtb-window", &[0; 4]).cells("guest-image", &[0; 6]).cells("linux-rootfs", &[0; 6]);
                t.cells("load-image-table", &[0; 12]).prop(DIGESTS, &rows)
            },
            |t| t,
        )
    };
    let bytes = with(4, &[]);
    assert_eq!(problem(&bytes), "none");
    let partition = Tree::new(fdt::open(&bytes).unwrap()).unwrap().partitions().next().unwrap();
    assert_eq!(partition.digests().unwrap().collect::<Vec<_>>(), [1, 2, 3, 4].map(digest));
    for bytes in [with(3, &[]), with(5, &[]), with(4, &[0]), with(0, &[])] {
        assert!(problem(&bytes).starts_with("/a: citrine,sha256: has "), "{}", problem(&bytes));
    }
    let text = in_partition(|t| t.prop("citrine,sha265", &[]));
    assert_eq!(text, "/a: unknown property \"citrine,sha265\"");
}

#[test]
fn a_window_that_wraps_is_an_error() {
    let text = in_partition(|t| t.cells("guest-image", &[u32::MAX, u32::MAX, 0, 0, 0, 0x1000]));
    assert_eq!(text, "/a: guest-image: 0x1000 bytes from 0xffffffff_ffffffff reach beyond the address space");
}

#[test]
fn a_misspelt_name_is_an_error_with_a_suggestion() {
    let text = in_partition(|t| t.cells("cpu", &[0, 1]));
    assert_eq!(text, "/a: unknown property \"cpu\"; did you mean \"cpus\"?");
    let text = in_partition(|t| t.begin("pci0").text("Device", "pci0").end());
    assert_eq!(text, "/a/pci0: unknown property \"Device\"; did you mean \"device\"?");
    let text = in_partition(|t| t.prop("defer-loading", &[]));
    assert_eq!(text, "/a: unknown property \"defer-loading\"");
}

#[test]
fn a_node_without_its_kind_is_an_error() {
    let text = in_partition(|t| t.begin("bc").cells("mux-channel", &[1]).end());
    assert_eq!(
        text,
        "/a/bc: has the property \"mux-channel\", but no \"compatible\" that says what kind of node it is"
    );
}

#[test]
fn a_node_in_the_wrong_place_is_an_error() {
    let text = in_partition(|t| t.begin("node-update").begin("x").text("compatible", "byte-channel").end().end());
    assert_eq!(text, "/a/node-update/x: has no effect here; it belongs anywhere");
    let text = at_root(|t| t.begin("g").text("compatible", "guest-phys-mem-area").end());
    assert_eq!(text, "/g: has no effect here; it belongs below a partition");
}

#[test]
fn a_reference_must_lead_to_the_right_kind_of_node() {
    let gpma = |phandle| {
        in_partition(move |t| {
            t.begin("g").text("compatible", "guest-phys-mem-area").cells("phys-mem", &[phandle]).end()
        })
    };
    assert_eq!(gpma(77), "/a/g: phys-mem: no node has the phandle 0x4d");
    assert_eq!(gpma(3), "/a/g: phys-mem: refers to /mux, which is not a phys-mem-area");
    let text = in_partition(|t| t.begin("aliases").cells("stdout", &[3]).end());
    assert_eq!(text, "/a/aliases: alias: no node has the phandle 0x3");
}

#[test]
fn a_manager_names_partitions() {
    let manager = |phandle: u32| {
        move |t: &mut Builder| {
            t.begin("b").text("compatible", "partition").cells("dtb-window", &[0; 4]).cells("phandle", &[20]);
            t.begin("boss").text("compatible", "managed-partition").cells("partition", &[phandle]).end().end();
        }
    };
    let with = |phandle| {
        tree(
            |t| t.cells("dtb-window", &[0; 4]),
            |t| {
                manager(phandle)(t);
                t
            },
        )
    };
    let bytes = with(20);
    let tree = Tree::new(fdt::open(&bytes).unwrap()).unwrap();
    let b = tree.partitions().nth(1).unwrap();
    assert_eq!(b.managed().next(), Some(Ok(("boss", b.path()))));
    assert_eq!(problem(&with(1)), "/b/boss: partition: refers to /ram, which is not a partition");
    let text = in_partition(|t| t.begin("m").text("compatible", "managed-partition").end());
    assert_eq!(text, "/a/m: partition: missing");
}

#[test]
fn a_label_cannot_write_to_the_terminal() {
    for label in ["", "a\x1b[2J", "two\nlines"] {
        assert!(in_partition(|t| t.text("label", label)).contains("not one string"), "{label:?}");
    }
    assert!(in_partition(|t| t.prop("label", b"no end")).contains("not one string"));
}

#[test]
fn a_partition_is_asked_for_slow_traps_by_name() {
    let with = |name: &'static str| tree(|t| t.cells("dtb-window", &[0; 4]).prop(name, &[]), |t| t);
    for (name, slow) in [(SLOW_TRAPS, true), ("no-auto-start", false)] {
        let bytes = with(name);
        let tree = Tree::new(fdt::open(&bytes).unwrap()).unwrap();
        assert_eq!(tree.partitions().next().unwrap().has_slow_traps(), slow, "{name}");
    }
    assert!(
        problem(&with("citrine,slow-trap")).contains(SLOW_TRAPS),
        "the misspelt name is refused, and the right one said"
    );
}

#[test]
fn what_is_needed_must_be_there() {
    assert_eq!(problem(&tree(|t| t, |t| t)), "/a: dtb-window: missing");
    let text = at_root(|t| t.begin("area").text("compatible", "phys-mem-area").cells("addr", &[0, 0]).end());
    assert_eq!(text, "/area: size: missing");
    let mut empty = Builder::default();
    empty.begin("").end();
    assert_eq!(problem(&empty.finish()), "/: hv-config node: missing");
}

#[test]
fn there_is_one_hypervisor() {
    let text = at_root(|t| t.begin("hv2").text("compatible", "hv-config").end());
    assert_eq!(text, "/hv2: more than 1");
}
