//! Any bytes as a compiled tree, of another's making: a configuration tree, or a board's hardware tree.
//!
//! The tool judges it or refuses it, and what it says of it is the same twice.

use std::sync::LazyLock;

use citrine_planner::board::Board;
use citrine_planner::{diff, input, inventory::Inventory, rules};

static BOARD: LazyLock<Board> = LazyLock::new(|| {
    let (board, found) = input::board::parse("p4080ds.toml", include_str!("../../../boards/p4080ds.toml"));
    board.unwrap_or_else(|| panic!("{found:?}"))
});

/// Runs the target.
pub fn run(data: &[u8]) -> usize {
    let judged = rules::tree::check("hv.dtb", data, &BOARD);
    assert_eq!(judged, rules::tree::check("hv.dtb", data, &BOARD));
    let mut effects = 0;
    if let Ok(system) = diff::tree::describe("hv.dtb", data) {
        assert!(judged.iter().all(|d| d.code.to_string() != "H100"), "{judged:?}");
        let found = diff::compare(&system, &system.clone());
        assert_eq!(found, []);
        effects += 1 + system.things.len();
    } else {
        assert!(!judged.is_empty());
    }
    let mut board = BOARD.clone();
    let said = input::inventory::attach_tree(&mut board, "hardware.dtb", data);
    if let Ok(inventory) = Inventory::from_tree(data) {
        assert_eq!(board.inventory.as_ref(), Some(&inventory));
        effects += inventory.devices.len();
    } else {
        assert!(!said.is_empty());
    }
    effects
}
