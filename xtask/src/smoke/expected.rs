//! The report that the firmware must print, computed on the host by the firmware's own start path.
//!
//! The host plays the board: the parts lie in memory where U-Boot puts them, the hardware tree has what U-Boot
//! adds to it, and every CPU starts. So the smoke boot compares the real thing with the same rules' own
//! words, line by line, and there is no second copy of the report's format.

use std::fmt;

use citrine_core::image::Memory;
use citrine_core::machine::CpuSet;
use citrine_core::report::Core;
use citrine_core::start::{self, EPAPR_MAGIC, Entry, IMAGE_LEN, Platform, WhichTree};
use citrine_formats::addr::{Address as _, Span, TruePhys};
use citrine_formats::fdt;
use citrine_planner::diag::{Diagnostic, Result};
use dtoolkit::fdt::Fdt;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};

use super::stand_in::NO_STAND_IN;

/// Processor version register of QEMU's e500mc (revision 2.0), which is that of the P4080.
const E500MC: u32 = 0x8023_0020;

/// A piece of memory with its address.
pub type Loaded<'t> = (TruePhys, &'t [u8]);

/// The lines that the firmware prints when `loaded` lies in memory and it is entered with `tree`.
pub fn report(loaded: &[Loaded<'_>], tree: &[u8]) -> Vec<String> {
    let at = TruePhys(0x03f0_0000);
    let mut host = Host { loaded, tree, image: Span::between(TruePhys(0), TruePhys(IMAGE_LEN)), text: String::new() };
    let entry = Entry { tree: at, magic: EPAPR_MAGIC, core: Core::new(E500MC), svr: 0, cpu: 0 };
    start::run(&mut host, entry);
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
    image: Span<TruePhys>,
    text: String,
}

impl fmt::Write for Host<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.text.push_str(text);
        Ok(())
    }
}

impl Memory for Host<'_> {
    fn view(&mut self, at: TruePhys, max: usize) -> Option<&[u8]> {
        const ZEROS: &[u8] = &[0; 4096];
        let found = self.loaded.iter().find_map(|(base, bytes)| {
            let offset = usize::try_from(at.get().checked_sub(base.get())?).ok()?;
            bytes.get(offset..).filter(|rest| !rest.is_empty())
        });
        // Memory that nobody has loaded anything to.
        let bytes = found.unwrap_or_else(|| {
            let next = self.loaded.iter().map(|(base, _)| *base).filter(|base| *base > at).min();
            let gap = next.map_or(usize::MAX, |next| usize::try_from(next.get() - at.get()).unwrap_or(usize::MAX));
            &ZEROS[..ZEROS.len().min(gap)]
        });
        Some(&bytes[..bytes.len().min(max)])
    }
}

impl<'t> Platform<'t> for Host<'t> {
    fn use_serial(&mut self, _: TruePhys) {}

    fn map_tree(&mut self, which: WhichTree, at: TruePhys) -> Option<&'t [u8]> {
        let bytes = match which {
            WhichTree::Hardware => self.tree,
            WhichTree::Config => self.loaded.iter().find(|(base, _)| *base == at)?.1,
        };
        Some(&bytes[..bytes.len().min(fdt::MAX_LEN as usize)])
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
