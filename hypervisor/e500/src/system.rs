//! What the CPUs share: the configuration, which nobody changes, and the state, which one of them at a time
//! does.

use citrine_core::config::{Config, Partition};
use citrine_core::guest_tree;
use citrine_core::hardware;
use citrine_core::hypervisor::Hypervisor;
use citrine_core::loader::Scratch;
use citrine_core::memory::GuestMap;
use citrine_core::shell::Shell;
use citrine_core::start::{Platform as _, Ready};
use citrine_formats::addr::{GuestPhys, Span, TruePhys};
use citrine_formats::fdt::Fdt;
use citrine_formats::hvconfig::Tree;

use crate::board::Board;
use crate::lock::Lock;
use crate::once::Once;
use crate::{cpu, percpu};

/// Bytes that a guest's tree may have.
pub const GUEST_TREE_LEN: usize = 128 << 10;

/// What was found at the start.
#[derive(Debug)]
pub struct System {
    /// The configuration, from `tree`.
    pub config: Config<'static>,
    /// The configuration tree.
    pub tree: Tree<'static>,
    /// The hardware tree.
    pub hw: Fdt<'static>,
    /// Where the image is, for good.
    pub image: TruePhys,
    /// Ticks of the timebase and the decrementer in a second.
    pub ticks_per_second: u32,
    /// The CPU that serves the serial line: the one that was entered first.
    pub console_cpu: u32,
    /// The interrupt controller.
    pub mpic: Option<TruePhys>,
    /// Its source for the serial line.
    pub serial_source: Option<u32>,
}

/// The state that CPUs share.
#[derive(Debug)]
pub struct Shared {
    /// Partitions, channels, interrupt controllers.
    pub hypervisor: Hypervisor<'static>,
    /// The shell on the hypervisor's console.
    pub shell: Shell,
}

/// What loading a partition needs: one partition at a time.
#[derive(Debug)]
pub struct Workshop {
    /// For the images.
    pub scratch: Scratch,
    /// For the guest's tree.
    pub arena: guest_tree::Arena,
    /// The tree itself.
    pub flat: [u8; GUEST_TREE_LEN],
}

/// Set by the first CPU; the others wait for it.
pub static SYSTEM: Once<System> = Once::new();
/// A CPU that has [`WORKSHOP`] may take this too, never the other way round.
pub static SHARED: Lock<Shared> = Lock::new(Shared { hypervisor: Hypervisor::new(), shell: Shell::new() });
/// See [`Workshop`].
pub static WORKSHOP: Lock<Workshop> =
    Lock::new(Workshop { scratch: Scratch::new(), arena: guest_tree::Arena::new(), flat: [0; GUEST_TREE_LEN] });

impl System {
    /// A partition by its number.
    pub fn partition(&self, index: usize) -> Option<&Partition<'static>> {
        self.config.partitions.get(index)
    }

    /// Whether a partition is to run without fast paths.
    pub fn has_slow_traps(&self, index: usize) -> bool {
        self.partition(index).is_some_and(|partition| partition.slow_traps)
    }

    /// The memory of a partition, and where in it the page of its spin table is.
    pub fn map(&self, index: usize) -> (GuestMap, GuestPhys) {
        let Some(partition) = self.partition(index) else { return (GuestMap::default(), GuestPhys(0)) };
        let mut map = GuestMap::new(&partition.memory, &self.config.areas);
        let spin_table = guest_tree::spin_table(&map);
        let first = partition.cpus.first().map(|range| range.first);
        let page = first.and_then(|cpu| percpu::spin_table(cpu, self.image));
        let at = Span::new(spin_table, guest_tree::SPIN_TABLE_LEN);
        if let (Some(page), Ok(at)) = (page, at) {
            map.add(at, page);
        }
        (map, spin_table)
    }

    /// What the builder of guest trees wants.
    pub fn tree_input(&'static self, partition: usize) -> guest_tree::Input<'static, 'static> {
        guest_tree::Input { hardware: self.hw, tree: self.tree, config: &self.config, partition }
    }
}

/// Rings the doorbells of CPUs for which there is something new; whether this one is among them.
pub fn kick(hypervisor: &mut Hypervisor<'_>, this: u32) -> bool {
    let cpus = hypervisor.kicks();
    cpus.iter().filter(|cpu| *cpu != this).for_each(cpu::ring);
    cpus.contains(this)
}

/// Gives the partitions that can run their orders, and makes the system known to all CPUs.
pub fn start(ready: Ready<'static>, board: Board, this: u32) {
    let image = board.image().base();
    let Ready { config, hw, tree, board: found, started, .. } = ready;
    {
        // Before any other CPU goes on and asks which virtual CPU it is.
        let mut shared = SHARED.lock();
        shared.hypervisor.init(&config, started, true);
        shared.hypervisor.start_all();
    }
    let serial = config.hypervisor.console.map_or("serial0", |console| console.device);
    SYSTEM.set(System {
        mpic: hardware::interrupt_controller(hw),
        serial_source: hardware::serial_interrupt(hw, serial),
        config,
        tree,
        hw,
        image,
        ticks_per_second: found.timebase_hz,
        console_cpu: this,
    });
}
