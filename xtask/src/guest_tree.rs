//! What a guest will be given as its device tree: made on the host by the hypervisor's own code, and printed.

use citrine_core::config::Config;
use citrine_core::guest_tree::{Arena, Input, Runtime, build, spin_table};
use citrine_core::memory::GuestMap;
use citrine_formats::addr::Span;
use citrine_formats::{fdt, hvconfig};
use citrine_planner::diag::{Code, Diagnostic, Label, Result};

/// A guest's device tree cannot be made.
pub const NO_GUEST_TREE: Code = Code::new('G', 101);

/// The trees that a guest's is made of, each with the name that it has for people.
#[derive(Clone, Copy, Debug)]
pub struct Trees<'t> {
    /// The hardware tree.
    pub hardware: (&'t str, &'t [u8]),
    /// The configuration tree.
    pub configuration: (&'t str, &'t [u8]),
}

/// The flattened tree of the partition with this place in the configuration tree, at its first start.
/// `initrd_len` is the length of its unpacked RAM disk.
///
/// # Errors
/// [`NO_GUEST_TREE`].
pub fn flatten(trees: Trees<'_>, partition: usize, initrd_len: Option<u64>) -> Result<Vec<u8>> {
    let (name, bytes) = trees.hardware;
    let hardware = fdt::open(bytes).map_err(|why| no_guest_tree(name, &why))?;
    let (name, bytes) = trees.configuration;
    let tree = fdt::open(bytes).map_err(|why| no_guest_tree(name, &why))?;
    let tree = hvconfig::Tree::new(tree).map_err(|why| no_guest_tree(name, &why))?;
    let config = Config::from_tree(tree).map_err(|why| no_guest_tree(name, &why))?;
    let Some(owner) = config.partitions.get(partition) else {
        return Err(no_guest_tree(name, &format_args!("there is no partition {partition} in it")));
    };
    let initrd = owner.rootfs.zip(initrd_len).and_then(|(row, len)| Span::new(row.dest, len).ok());
    let spin_table = spin_table(&GuestMap::new(&owner.memory, &config.areas));
    // No tree is longer than the reader takes, whatever the window says.
    let room = owner.dtb_window.len().min(u64::from(fdt::MAX_LEN)) as usize;
    let mut flat = vec![0; room];
    let input = Input { hardware, tree, config: &config, partition };
    let runtime = Runtime { initrd, spin_table, stopped: None };
    let len =
        build(&input, &runtime, &mut Box::new(Arena::new()), &mut flat).map_err(|why| no_guest_tree(name, &why))?;
    flat.truncate(len);
    Ok(flat)
}

fn no_guest_tree(file: &str, why: &dyn std::fmt::Display) -> Box<Diagnostic> {
    Box::new(
        Diagnostic::error(NO_GUEST_TREE, why.to_string())
            .primary(Label::file(file, "from this tree"))
            .fact("file", file)
            .help("correct the partition's node-update or CPUs; `cargo xtask render` prints the configuration tree"),
    )
}

#[cfg(test)]
mod tests {
    use citrine_planner::diag::Severity;
    use citrine_planner::{place, rules};

    use super::*;
    use crate::artifacts;
    use crate::blessed::{compare, directories, root};
    use crate::bundle::configuration;
    use crate::dtc::{self, Source};
    use crate::emulator;
    use crate::project::Project;
    use crate::report::{Ui, Width, to_text};
    use crate::smoke::stand_in::machine;

    /// The RAM disk of the golden trees; how long the real one is, is not their business.
    const INITRD: u64 = 0x12_3400;

    fn compiled(file: &str) -> Vec<u8> {
        let text = std::fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        let marked = format!("# 1 \"{file}\"\n{text}");
        dtc::compile(&marked, Source { file, text: &text }).unwrap_or_else(|found| panic!("{found:#?}"))
    }

    /// The hardware tree of a golden board: a file for one that no emulator has.
    fn hardware(board: &citrine_planner::board::Board) -> Vec<u8> {
        let file = format!("tests/golden/{}/hardware.dts", board.name);
        match root().join(&file).is_file() {
            true => compiled(&file),
            false => emulator::tree::hardware_tree(&machine(board).unwrap()).unwrap(),
        }
    }

    #[test]
    fn every_guest_of_the_golden_boards_gets_the_golden_tree() {
        let ui = Ui::new(true);
        let project = Project::find().unwrap_or_else(|failure| panic!("{failure:?}"));
        let mut complaints = Vec::new();
        for board in directories("tests/golden") {
            for profile in directories(&format!("tests/golden/{board}")) {
                let (board, profile) = project.target(&board, &profile, &ui).unwrap_or_else(|f| panic!("{f:?}"));
                let plan = place::place(&board, &profile, &artifacts::known(None)).unwrap_or_else(|f| panic!("{f:?}"));
                assert!(rules::check(&plan).iter().all(|said| said.severity == Severity::Notice));
                let configuration =
                    configuration(&project, &plan, &Default::default(), &ui).unwrap_or_else(|f| panic!("{f:?}"));
                let hardware = hardware(&board);
                let trees = Trees { hardware: ("hardware", &hardware), configuration: ("hv.dtb", &configuration) };
                for (index, partition) in plan.partitions.iter().enumerate() {
                    let flat = flatten(trees, index, Some(INITRD)).unwrap_or_else(|error| panic!("{error:?}"));
                    assert!((flat.len() as u64) < partition.dtb.len() / 4, "{} bytes", flat.len());
                    let text = dtc::decompile(&flat).unwrap_or_else(|error| panic!("{error:?}"));
                    let file = format!("tests/golden/{}/{}/{}.dts", board.name, profile.name, partition.name);
                    complaints.extend(compare(&file, &text));
                }
            }
        }
        assert!(complaints.is_empty(), "{}\n", complaints.join("\n"));
    }

    #[test]
    fn a_tree_that_cannot_be_made_is_refused() {
        let case = "tests/bad/G101-no-guest-tree";
        let hardware = compiled("tests/golden/p4080ds/hardware.dts");
        let configuration = compiled(&format!("{case}/hv.dts"));
        let trees = Trees { hardware: ("p4080ds.dtb", &hardware), configuration: ("hv.dtb", &configuration) };
        let error = flatten(trees, 0, None).unwrap_err();
        let text = format!("{}\n", to_text(&error, &Default::default(), Width::Plain));
        assert_eq!(compare(&format!("{case}/expected.txt"), &text), None);
        assert!(flatten(trees, 1, None).unwrap_err().message.contains("no partition 1"));
        let broken = Trees { hardware: ("x", &hardware[..99]), ..trees };
        assert_eq!(flatten(broken, 0, None).unwrap_err().code, NO_GUEST_TREE);
    }
}
