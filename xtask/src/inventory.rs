//! `boards/devices/*.toml`: that the committed inventories are what the real hardware trees say.

use citrine_planner::board::HardwareTree;
use citrine_planner::inventory::Inventory;

use crate::artifacts;
use crate::blessed::{compare, root};
use crate::build::Context;
use crate::build::lock::Lock;
use crate::cache::Cache;
use crate::emulator;
use crate::progress::Progress;
use crate::project::Project;
use crate::report::Ui;
use crate::smoke::stand_in::machine;

#[test]
fn inventories_are_what_the_hardware_trees_say() {
    let ui = Ui::new(true);
    let project = Project::find().unwrap_or_else(|failure| panic!("{failure:?}"));
    let progress = Progress::hidden(|_| {});
    // Offline: what has not been built here is compared where it has.
    let cache = Cache::open(Cache::default_root().unwrap(), true).unwrap();
    let lock = Lock::read(project.root()).unwrap();
    let context = Context::new(project.root(), &cache, &lock, false, &progress);
    let mut complaints = Vec::new();
    let mut boards: Vec<String> = std::fs::read_dir(root().join("boards"))
        .unwrap()
        .filter_map(|entry| Some(entry.unwrap().file_name().to_str()?.strip_suffix(".toml")?.to_owned()))
        .collect();
    boards.sort();
    for name in boards {
        // The board's own file alone: its inventory may be what is wrong.
        let text = std::fs::read_to_string(root().join(format!("boards/{name}.toml"))).unwrap();
        let (board, found) = citrine_planner::input::board::parse(&name, &text);
        let board = board.unwrap_or_else(|| panic!("{found:?}"));
        let tree = match &board.hardware_tree {
            HardwareTree::Emulator => emulator::tree::hardware_tree(&machine(&board).unwrap()).unwrap(),
            HardwareTree::Kernel(_) | HardwareTree::Given(_) => {
                let built = context.as_ref().ok().and_then(|context| artifacts::hardware_tree(context, &board).ok());
                let Some(made) = built else { continue };
                made.bytes
            }
        };
        let inventory = Inventory::from_tree(&tree).unwrap();
        complaints.extend(compare(&format!("boards/devices/{name}.toml"), &inventory.to_text()));
        let board = project.board(&name, &ui).unwrap_or_else(|failure| panic!("{failure:?}"));
        assert_eq!(board.inventory.as_ref(), Some(&inventory), "what is written is what is read");
    }
    assert!(complaints.is_empty(), "{}\n", complaints.join("\n"));
}
