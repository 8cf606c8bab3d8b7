//! The report that the firmware must print, computed on the host by the firmware's own start path.
//!
//! The host plays the board: the parts lie in memory where U-Boot puts them, the hardware tree has what U-Boot
//! adds to it, and every CPU starts. So the smoke boot compares the real thing with the same rules' own
//! words, line by line, and there is no second copy of the report's format.

use std::fmt;

use citrine_core::config::Partition;
use citrine_core::loader::Scratch;
use citrine_core::machine::CpuSet;
use citrine_core::memory::{GuestMap, GuestMemory, Physical};
use citrine_core::report::Core;
use citrine_core::start::{self, EPAPR_MAGIC, Entry, IMAGE_LEN, Platform, WhichTree};
use citrine_formats::addr::{Address as _, Span, TruePhys};
use citrine_formats::fdt;
use citrine_formats::signature::Key;
use citrine_planner::diag::{Diagnostic, Result};
use dtoolkit::fdt::Fdt;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};

use super::stand_in::NO_STAND_IN;

/// Processor version register of QEMU's e500mc (revision 2.0), which is that of the P4080.
const E500MC: u32 = 0x8023_0020;
/// Those of other cores in QEMU (`target/ppc/cpu-models.h`).
const OTHERS: [(&str, u32); 2] = [("e5500", 0x8024_0020), ("e6500", 0x8040_0020)];

/// A piece of memory with its address.
pub type Loaded<'t> = (TruePhys, &'t [u8]);

/// The lines that the firmware prints on a core of QEMU's when `loaded` lies in memory and it is entered with
/// `tree`: those of the start, then those of each partition that is loaded. Partitions may load at once, so only the
/// lines of one of them have an order.
pub fn report_on(cpu: &str, loaded: &[Loaded<'_>], tree: &[u8], trust: Option<Key>) -> Vec<String> {
    let pvr = OTHERS.iter().find(|(name, _)| *name == cpu).map_or(E500MC, |(_, pvr)| *pvr);
    let at = TruePhys(0x03f0_0000);
    let image = Span::between(TruePhys(0), TruePhys(IMAGE_LEN));
    let mut host = Host { loaded, tree, trust, image, text: String::new() };
    let entry = Entry { tree: at, magic: EPAPR_MAGIC, core: Core::new(pvr), svr: 0, cpu: 0 };
    if let Some(ready) = start::run(&mut host, entry) {
        let mut scratch = Scratch::new();
        let starting = |partition: &&Partition<'_>| ready.can_run(partition);
        for partition in ready.config.partitions.iter().filter(starting) {
            let map = GuestMap::new(&partition.memory, &ready.config.areas);
            let mut text = String::new();
            let mut memory = GuestMemory { map: &map, physical: &mut host };
            // What it says is all that counts here.
            let _ = start::load_images(&mut text, partition, &mut memory, &mut scratch);
            host.text += &text;
        }
    }
    host.text.lines().map(str::to_owned).collect()
}

/// `tree` as U-Boot hands it over: with the boot arguments in `/chosen`.
///
/// # Errors
/// [`NO_STAND_IN`] when it is no device tree.
pub fn with_bootargs(tree: &[u8], bootargs: &str) -> Result<Vec<u8>> {
    let invalid = |why: &dyn fmt::Display| {
        Diagnostic::error(NO_STAND_IN, format!("the hardware tree is no device tree: {why}"))
            .help("the tree comes from QEMU or from the kernel's sources; build it again")
    };
    let fdt = Fdt::new(tree).map_err(|why| invalid(&why))?;
    let mut tree = DeviceTree::from_fdt(&fdt);
    let bootargs = DeviceTreeProperty::new_unchecked("bootargs", bootargs);
    match tree.find_node_mut("/chosen") {
        Some(chosen) => {
            chosen.add_property(bootargs);
        }
        None => {
            let mut chosen = DeviceTreeNode::new_unchecked("chosen");
            chosen.add_property(bootargs);
            tree.root.add_child(chosen);
        }
    }
    Ok(tree.to_dtb())
}

/// The host as a board on which everything works.
struct Host<'t> {
    loaded: &'t [Loaded<'t>],
    tree: &'t [u8],
    trust: Option<Key>,
    image: Span<TruePhys>,
    text: String,
}

impl fmt::Write for Host<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.text.push_str(text);
        Ok(())
    }
}

impl Physical for Host<'_> {
    /// The parts, and zeros where nobody has loaded anything.
    fn read(&mut self, at: TruePhys, into: &mut [u8]) -> bool {
        let Ok(wanted) = Span::new(at, into.len() as u64) else { return false };
        into.fill(0);
        for (base, bytes) in self.loaded {
            let have = Span::between(*base, TruePhys(base.get().saturating_add(bytes.len() as u64)));
            if let Some(common) = have.intersection(&wanted) {
                let range = |start: u64| {
                    let from = (common.base().get() - start) as usize;
                    from..from + common.len() as usize
                };
                into[range(at.get())].copy_from_slice(&bytes[range(base.get())]);
            }
        }
        true
    }

    /// Nobody looks at what a guest has got.
    fn write(&mut self, _: TruePhys, _: &[u8]) -> bool {
        true
    }
}

impl<'t> Platform<'t> for Host<'t> {
    fn trust(&self) -> Option<Key> {
        self.trust
    }

    fn use_serial(&mut self, _: TruePhys) {}

    fn map_tree(&mut self, which: WhichTree, at: TruePhys) -> Option<&'t [u8]> {
        let bytes = match which {
            WhichTree::Hardware => self.tree,
            WhichTree::Config | WhichTree::SignedConfig => self.loaded.iter().find(|(base, _)| *base == at)?.1,
        };
        Some(&bytes[..bytes.len().min(fdt::MAX_LEN as usize)])
    }

    fn read(&mut self, at: TruePhys, into: &mut [u8]) -> bool {
        Physical::read(self, at, into)
    }

    fn start_cpus(&mut self, cpus: &[(u32, TruePhys)], _: u32) -> CpuSet {
        cpus.iter().map(|(cpu, _)| *cpu).collect()
    }

    fn image(&self) -> Span<TruePhys> {
        self.image
    }

    fn move_to(&mut self, to: TruePhys) {
        self.image = Span::between(to, TruePhys(to.get() + IMAGE_LEN));
    }
}

#[cfg(test)]
mod tests {
    use dtoolkit::Node as _;

    use super::*;
    use crate::blessed;
    use crate::report::{Width, to_text};

    #[test]
    fn a_hardware_tree_that_is_none_is_refused() {
        let case = "tests/bad/Q201-no-stand-in";
        let tree = std::fs::read(blessed::root().join(case).join("hardware.txt")).unwrap();
        let error = with_bootargs(&tree, "config-addr=0x78900000").unwrap_err();
        let text = format!("{}\n", to_text(&error, &Default::default(), Width::Plain));
        assert_eq!(blessed::compare(&format!("{case}/expected.txt"), &text), None);
    }

    #[test]
    fn the_hosts_memory_is_the_parts_and_zeros() {
        let loaded: [Loaded<'_>; 2] = [(TruePhys(0x1002), &[1, 2, 3]), (TruePhys(0x1005), &[4])];
        let image = Span::between(TruePhys(0), TruePhys(IMAGE_LEN));
        let mut host = Host { loaded: &loaded, tree: &[], trust: None, image, text: String::new() };
        let mut read = |at, len: usize| {
            let mut into = vec![9; len];
            Physical::read(&mut host, TruePhys(at), &mut into).then_some(into)
        };
        assert_eq!(read(0x1000, 8), Some(vec![0, 0, 1, 2, 3, 4, 0, 0]));
        assert_eq!(read(0x1003, 2), Some(vec![2, 3]));
        assert_eq!(read(u64::MAX, 1), None);
    }

    #[test]
    fn boot_arguments_replace_those_of_the_tree() {
        let mut tree = DeviceTree::new();
        let mut chosen = DeviceTreeNode::new_unchecked("chosen");
        chosen.add_property(DeviceTreeProperty::new_unchecked("bootargs", "old"));
        tree.root.add_child(chosen);
        let bytes = with_bootargs(&tree.to_dtb(), "new").unwrap();
        let fdt = Fdt::new(&bytes).unwrap();
        let read = DeviceTree::from_fdt(&fdt);
        let bootargs = read.find_node("/chosen").unwrap().property("bootargs").unwrap();
        assert_eq!(*bootargs, DeviceTreeProperty::new_unchecked("bootargs", "new"));
    }
}
