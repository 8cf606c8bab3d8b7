//! Any bytes as a flattened device tree.
//!
//! It is refused, or every part of it can be read; what is written again from what was read is the same tree.

use citrine_formats::fdt::writer::{Full, Writer};
use citrine_formats::fdt::{MAX_DEPTH, Place, Property as _, announced_len, cut, open, print, used_len};
use citrine_planner::dts::from_blob;

/// Runs the target: how many nodes were read.
pub(crate) fn run(data: &[u8]) -> usize {
    let announced = announced_len(data);
    if let Some(used) = used_len(data) {
        assert!(announced.is_ok_and(|len| used <= len as usize));
    }
    let mut shorter = data.to_vec();
    cut(&mut shorter);
    assert_eq!(from_blob(data).is_ok(), open(data).is_ok());
    let text = printed(data);
    let Ok(tree) = open(data) else { return 0 };
    assert!(announced.is_ok_and(|len| len as usize <= data.len()));
    assert!(open(&shorter).is_ok(), "what is cut off was not used");
    let root = Place::root(tree);
    let mut nodes = 0;
    for place in root.walk() {
        assert!(place.path().to_string().matches('/').count() <= MAX_DEPTH);
        nodes += 1;
    }
    let mut buffer = vec![0; 2 * data.len() + 256];
    let mut writer = Writer::new(&mut buffer).expect("there is room");
    copy(root, &mut writer).expect("there is room");
    let len = writer.finish(0).expect("there is room");
    assert_eq!(printed(&buffer[..len]), text, "it is another tree when it is written again");
    nodes
}

fn printed(tree: &[u8]) -> String {
    let mut text = String::new();
    print::dts(tree, &mut text).expect("a string takes everything");
    text
}

fn copy(place: Place<'_>, writer: &mut Writer<'_>) -> Result<(), Full> {
    writer.begin(place.name())?;
    for property in place.properties() {
        writer.property(property.name(), &[property.value_as::<&[u8]>().unwrap_or(&[])])?;
    }
    place.children().try_for_each(|child| copy(child, writer))?;
    writer.end()
}
