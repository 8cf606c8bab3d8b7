//! The shipped board and profile, for tests that change them.

use std::collections::BTreeMap;
use std::path::Path;

use citrine_formats::manifest::Role;
use citrine_planner::board::Board;
use citrine_planner::input;
use citrine_planner::place::Artifacts;
use citrine_planner::profile::Profile;

/// The text of a file of the project, by its path from the root.
pub fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A shipped board, with its devices.
pub fn board(name: &str) -> Board {
    let file = format!("boards/{name}.toml");
    let (board, found) = input::board::parse(&file, &read(&file));
    let mut board = board.unwrap_or_else(|| panic!("{found:#?}"));
    let file = format!("boards/devices/{name}.toml");
    let found = input::inventory::attach(&mut board, &file, &read(&file));
    assert!(found.is_empty(), "{found:#?}");
    board
}

/// A shipped profile.
pub fn profile(name: &str) -> Profile {
    let file = format!("profiles/{name}.toml");
    let (profile, found) = input::profile::parse(&file, &read(&file));
    profile.unwrap_or_else(|| panic!("{found:#?}"))
}

/// The artifacts that the shipped profiles name, not yet built.
pub fn artifacts() -> Artifacts {
    BTreeMap::from([("linux".to_owned(), (Role::Kernel, None)), ("busybox".to_owned(), (Role::Rootfs, None))])
}

/// The names of all shipped profiles.
#[allow(dead_code, reason = "not every test asks for all of them")]
pub fn profiles() -> [&'static str; 10] {
    ["two-linux", "two-linux-sdk", "one-linux", "hello", "echo", "hostile", "ipi", "manager", "timer", "twin"]
}

/// All artifacts that the shipped profiles name, not yet built.
#[allow(dead_code, reason = "not every test asks for all of them")]
pub fn all_artifacts() -> Artifacts {
    let kernels = ["echo", "hello", "hostile", "ipi", "manager", "sentinel", "timer", "twin"];
    let kernels = kernels.map(|name| (name.to_owned(), (Role::Kernel, None)));
    artifacts().into_iter().chain(kernels).collect()
}
