//! Inventories of a small tree, and of damaged ones.

use citrine_formats::testing::Builder;
use proptest::prelude::*;

use super::*;
use crate::input::inventory::parse;

/// Two serial lines and a device of two parts on a bus, a bus below a bus, and something on I2C.
fn tree() -> Vec<u8> {
    let mut t = Builder::default();
    t.begin("").cells("#address-cells", &[2]).cells("#size-cells", &[2]);
    t.text("compatible", "fsl,test").cells("interrupt-parent", &[1]);
    t.begin("aliases").text("serial0", "/soc@fe0000000/serial@4500").text("mac0", "/soc@fe0000000/fm@8000/mac@0").end();
    t.begin("memory").text("device_type", "memory").cells("reg", &[0, 0, 0, 0x1000]).end();
    t.begin("cpus").cells("#address-cells", &[1]).cells("#size-cells", &[0]);
    for cpu in 0..2 {
        t.begin(&format!("cpu@{cpu}")).text("device_type", "cpu").cells("reg", &[cpu]).end();
    }
    t.end();
    t.begin("soc@fe0000000").text("compatible", "simple-bus").cells("#address-cells", &[1]).cells("#size-cells", &[1]);
    t.cells("ranges", &[0, 0xf, 0xe000_0000, 0x10_0000]);
    t.begin("pic@40000").text("compatible", "fsl,mpic").cells("reg", &[0x40000, 0x40000]);
    t.cells("#interrupt-cells", &[4]).cells("phandle", &[1]).end();
    t.begin("law@0").text("compatible", "law").cells("fsl,num-laws", &[12]).end();
    t.begin("serial@4500").text("compatible", "ns16550").cells("reg", &[0x4500, 0x100]);
    t.cells("interrupts", &[42, 2, 0, 0]).end();
    t.begin("fm@8000").text("compatible", "fm").cells("reg", &[0x8000, 0x1000]);
    t.cells("#address-cells", &[1]).cells("#size-cells", &[1]).cells("ranges", &[0, 0x8000, 0x4000]);
    t.cells("interrupts", &[96, 2, 0, 0, 16, 2, 1, 5, 0, 0, 3, 0]);
    t.begin("mac@0").cells("reg", &[0x2000, 0x10]).cells("fsl,liodn", &[7]).end();
    t.begin("part@100").cells("reg", &[0x100, 0x10]).cells("interrupts", &[96, 2, 0, 0]).end();
    t.end();
    t.begin("i2c@6000").text("compatible", "i2c").cells("reg", &[0x6000, 0x100]);
    t.cells("#address-cells", &[1]).cells("#size-cells", &[0]);
    t.begin("rtc@68").cells("reg", &[0x68]).cells("interrupt-parent", &[9]).cells("interrupts", &[5, 0, 0, 0]).end();
    t.end();
    t.begin("bus@90000").text("compatible", "simple-bus").cells("ranges", &[]);
    t.cells("#address-cells", &[1]).cells("#size-cells", &[1]);
    t.begin("leds@90000").text("compatible", "leds").cells("reg", &[0x9_0000, 8]).end();
    t.end().end().end();
    t.finish()
}

#[test]
fn a_device_has_what_is_below_it() {
    let inventory = Inventory::from_tree(&tree()).unwrap();
    assert_eq!((inventory.compatible.as_str(), inventory.cpus, inventory.laws), ("fsl,test", 2, Some(12)));
    let Found::Device(fm) = inventory.find("/soc/fm") else { panic!("{inventory:?}") };
    let span = |base, len| Span::new(TruePhys(base), len).unwrap();
    assert_eq!(fm.reg, [span(0xf_e000_8000, 0x1000), span(0xf_e000_a000, 0x10)]);
    assert_eq!(fm.interrupts, ["96", "16.5"], "once each, behind the error interrupt, and no timer");
    assert!(fm.dma && !fm.bus);
    let Found::Device(i2c) = inventory.find("/soc/i2c") else { panic!("{inventory:?}") };
    assert_eq!((i2c.reg.len(), i2c.interrupts.len(), i2c.dma), (1, 0, false), "what is on I2C has no address here");
}

#[test]
fn paths_and_aliases_lead_to_devices() {
    let inventory = Inventory::from_tree(&tree()).unwrap();
    let path = |name: &str| match inventory.find(name) {
        Found::Device(device) => device.path.clone(),
        Found::Below(device) => format!("below {}", device.path),
        Found::Nothing => "nothing".to_owned(),
    };
    for same in ["serial0", "/soc/serial", "/soc@fe0000000/serial@4500", "/soc/serial@4500"] {
        assert_eq!(path(same), "/soc@fe0000000/serial@4500", "{same}");
    }
    assert_eq!(path("/soc/bus/leds"), "/soc@fe0000000/bus@90000/leds@90000");
    assert_eq!(path("mac0"), "below /soc@fe0000000/fm@8000");
    for nothing in ["serial9", "/soc/serial@4600", "/cpus", "/memory", "/soc/bus/nothing", "soc", "/", ""] {
        assert_eq!(path(nothing), "nothing", "{nothing}");
    }
}

#[test]
fn what_is_written_is_what_is_read() {
    let inventory = Inventory::from_tree(&tree()).unwrap();
    assert_eq!(parse("x.toml", &inventory.to_text()), (Some(inventory), Vec::new()));
}

proptest! {
    #[test]
    fn no_tree_and_no_text_panics(at: usize, bits in 1u8.., number: u64) {
        let mut bytes = tree();
        let text = Inventory::from_tree(&bytes).unwrap().to_text();
        let at_byte = at % bytes.len();
        bytes[at_byte] ^= bits;
        if let Ok(inventory) = Inventory::from_tree(&bytes) {
            // Whatever a tree says, the file that is made of it can be read, or is refused with a reason.
            let (read, found) = parse("x.toml", &inventory.to_text());
            prop_assert!(!found.is_empty() || read == Some(inventory));
        }
        let digits: Vec<usize> = text.match_indices(|c: char| c.is_ascii_digit()).map(|(at, _)| at).collect();
        let cut = digits[at % digits.len()];
        let _ = parse("x.toml", &format!("{}{number}{}", &text[..cut], &text[cut + 1..]));
    }
}
