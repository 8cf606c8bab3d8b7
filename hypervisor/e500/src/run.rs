//! What each CPU does after the start, for ever: it runs its guest until the guest stops, decides with
//! `citrine_core` what that means, and does what its mail says.

use core::fmt::Write as _;

use citrine_core::exits::{self, Next};
use citrine_core::fast::Places;
use citrine_core::guest_tree::{self, Runtime};
use citrine_core::hypervisor::{LoadFailed, Order, Requester, Start, Who};
use citrine_core::memory::GuestMemory;
use citrine_core::start;
use citrine_core::vcpu::{self, Vcpu};
use citrine_core::{entry, interrupts};
use citrine_formats::addr::{Address as _, GuestPhys};

use crate::hardware::Hardware;
use crate::system::{GUEST_TREE_LEN, SHARED, SYSTEM, System, WORKSHOP, kick};
use crate::{console, cpu, exceptions, fast_paths, percpu};

/// How often a CPU that waits for its release looks, in a second.
const LOOKS_PER_SECOND: u32 = 1000;
/// Size of the initial mapping of a partition's first CPU (Topaz, `init-map-size`).
const INITIAL_MAP: u64 = 1 << 30;

/// What a CPU is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Activity {
    /// Nothing, until there is an order.
    Idle,
    /// It waits to be released from the partition's spin table.
    Held,
    /// It runs the guest.
    Guest,
}

/// One CPU and its virtual CPU.
struct Runner {
    cpu: u32,
    who: Who,
    system: &'static System,
    vcpu: &'static mut Vcpu,
    hardware: Hardware,
    /// The fast paths, if the partition may use them.
    places: Option<Places>,
    activity: Activity,
}

/// Entered by each CPU after the image's move.
pub fn run(cpu: u32) -> ! {
    let system = loop {
        if let Some(system) = SYSTEM.get() {
            break system;
        }
        core::hint::spin_loop();
    };
    // SAFETY: each CPU comes here once, and the image does not move any more.
    let Some(top) = (unsafe { percpu::attach(cpu, system.image) }) else { cpu::stop() };
    exceptions::expect_guests();
    let places = fast_paths::ready(cpu == system.console_cpu, &mut top.vcpu);
    console::attach(cpu, system);
    let who = SHARED.lock().hypervisor.who(cpu);
    let Some(who) = who else {
        loop {
            console::serve(cpu, system, &mut top.windows);
            cpu::wait();
        }
    };
    let map = system.map(who.partition);
    let hardware = Hardware::new(cpu, who, map, &mut top.shadow, &mut top.windows);
    let places = (!system.has_slow_traps(who.partition)).then_some(places);
    Runner { cpu, who, system, vcpu: &mut top.vcpu, hardware, places, activity: Activity::Idle }.run()
}

impl Runner {
    fn run(mut self) -> ! {
        self.reset();
        self.read_mail();
        // The shell greets before anybody types.
        self.hardware.has_mail |= console::serve(self.cpu, self.system, self.hardware.windows());
        loop {
            match self.activity {
                Activity::Idle => cpu::wait(),
                Activity::Held => cpu::wait_at_most(self.system.ticks_per_second / LOOKS_PER_SECOND),
                Activity::Guest => self.run_guest(),
            }
            if self.activity != Activity::Guest {
                self.hardware.has_mail |= console::serve(self.cpu, self.system, self.hardware.windows());
                self.read_mail();
                self.look();
            }
            while core::mem::take(&mut self.hardware.has_mail) {
                self.read_mail();
            }
        }
    }

    /// Takes what other CPUs, or this one, have left for this one.
    fn read_mail(&mut self) {
        let mail = {
            let mut shared = SHARED.lock();
            let mail = shared.hypervisor.mail(self.cpu);
            self.hardware.has_mail |= kick(&mut shared.hypervisor, self.cpu);
            mail
        };
        let pending = &mut self.vcpu.pending;
        pending.external = mail.external;
        pending.doorbell |= mail.doorbell;
        pending.critical_doorbell |= mail.critical_doorbell;
        match mail.order {
            Some(Order::Load(start)) => self.load(start),
            Some(Order::Release) => {
                self.reset();
                self.activity = Activity::Held;
            }
            Some(Order::Stop) => {
                self.reset();
                self.activity = Activity::Idle;
                let mut shared = SHARED.lock();
                shared.hypervisor.stopped(self.who);
                self.hardware.has_mail |= kick(&mut shared.hypervisor, self.cpu);
                console::pump(&mut shared);
            }
            None => {}
        }
    }

    /// The virtual CPU as after power-on: no translations, no timers.
    fn reset(&mut self) {
        self.vcpu.shared.pir = self.who.vcpu as u32;
        entry::reset(self.vcpu, &mut self.hardware);
    }

    /// Loads the partition, and enters it when that is what was asked for.
    fn load(&mut self, start: Start) {
        self.reset();
        self.activity = Activity::Idle;
        let entry = self.prepare(start);
        let enter = {
            let mut shared = SHARED.lock();
            let enter = shared.hypervisor.loaded(self.who, entry.ok_or(LoadFailed));
            self.hardware.has_mail |= kick(&mut shared.hypervisor, self.cpu);
            console::pump(&mut shared);
            enter
        };
        if let (true, Some(at), Some(partition)) = (enter, entry, self.system.partition(self.who.partition)) {
            entry::start_primary(self.vcpu, &mut self.hardware, at, partition.dtb_window.base(), INITIAL_MAP);
            self.activity = Activity::Guest;
        }
    }

    /// Images, spin table, tree; the address to enter, or `None` after a line that says why not.
    fn prepare(&mut self, start: Start) -> Option<GuestPhys> {
        let partition = self.system.partition(self.who.partition)?;
        let last_stop = SHARED.lock().hypervisor.last_stop(self.who.partition);
        let mut workshop = WORKSHOP.lock();
        let workshop = &mut *workshop;
        let mut out = console::Log::default();
        let spin_table = self.system.map(self.who.partition).1;
        let (map, mut ram) = self.hardware.memory();
        let mut memory = GuestMemory { map, physical: &mut ram };
        let (entry, rootfs) = match start {
            Start::Entry(entry) => (Some(entry), None),
            Start::Images | Start::LoadOnly => {
                let images = start::load_images(&mut out, partition, &mut memory, &mut workshop.scratch)?;
                (images.entry, images.rootfs)
            }
        };
        for vcpu in 0..partition.cpu_set().len() {
            let at = GuestPhys(spin_table.get() + u64::from(vcpu) * guest_tree::SPIN_ENTRY_LEN);
            memory.write(at, &guest_tree::spin_entry(vcpu)).ok()?;
        }
        let runtime = Runtime { initrd: rootfs, spin_table, stopped: last_stop };
        let room = partition.dtb_window.len().min(GUEST_TREE_LEN as u64) as usize;
        let flat = workshop.flat.get_mut(..room)?;
        let input = self.system.tree_input(self.who.partition);
        let built = guest_tree::build(&input, &runtime, &mut workshop.arena, flat);
        let written = match built {
            Ok(len) => memory.write(partition.dtb_window.base(), flat.get(..len)?).is_ok(),
            Err(why) => {
                let _ = writeln!(out, "{}: NOT STARTED: guest tree: {why}", partition.name);
                return None;
            }
        };
        if !written {
            let _ = writeln!(out, "{}: NOT STARTED: its dtb-window is not in its memory", partition.name);
            return None;
        }
        entry
    }

    /// Enters the guest when this CPU has been released from the spin table.
    fn look(&mut self) {
        if self.activity != Activity::Held {
            return;
        }
        if let Some((at, r3)) = self.hardware.released(self.who.vcpu as u32) {
            entry::start_secondary(self.vcpu, &mut self.hardware, at, r3);
            self.activity = Activity::Guest;
        }
    }

    /// Runs the guest until there is mail for this CPU.
    fn run_guest(&mut self) {
        while !self.hardware.has_mail {
            let who = self.who;
            interrupts::deliver_pending(self.vcpu, &mut self.hardware, || SHARED.lock().hypervisor.external(who));
            self.vcpu.frame.real_msr = vcpu::real_msr(self.vcpu.msr());
            if let Some(places) = &self.places {
                self.vcpu.fast.vectors = places.vectors(self.vcpu, self.hardware.is_plain());
            }
            cpu::enter_guest();
            match exits::handle(self.vcpu, &mut self.hardware) {
                Next::Resume => {}
                Next::Hypercall => self.hypercall(),
                Next::External => {
                    self.hardware.has_mail |= console::serve(self.cpu, self.system, self.hardware.windows());
                }
                Next::Doorbell => self.hardware.has_mail = true,
                Next::Watchdog => {
                    self.stop(Requester::Watchdog { vcpu: who.vcpu }, format_args!("its watchdog expired"))
                }
                Next::Stop(reason) => self.stop(Requester::Own, format_args!("{reason}")),
            }
        }
    }

    fn hypercall(&mut self) {
        let mut shared = SHARED.lock();
        shared.hypervisor.hypercall(self.who, &mut self.vcpu.frame.gpr);
        self.vcpu.pending.external = shared.hypervisor.is_external_pending(self.who);
        self.hardware.has_mail |= kick(&mut shared.hypervisor, self.cpu);
        console::pump(&mut shared);
    }

    /// Stops the partition: its guest cannot go on.
    fn stop(&mut self, by: Requester, why: core::fmt::Arguments<'_>) {
        let name = self.system.partition(self.who.partition).map_or("?", |partition| partition.name);
        let mut shared = SHARED.lock();
        let pc = self.vcpu.frame.pc;
        let _ = writeln!(shared.hypervisor.log(), "{name}: stopped: vCPU {} at {pc:#010x}: {why}", self.who.vcpu);
        // Whoever stops it at the same time has the same in mind.
        let _ = shared.hypervisor.stop(self.who.partition, by);
        kick(&mut shared.hypervisor, self.cpu);
        console::pump(&mut shared);
        self.hardware.has_mail = true;
    }
}
