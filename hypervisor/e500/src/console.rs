//! The serial line after the start: interrupts of it go to one CPU; bytes for it come from all.

use core::fmt;

use arrayvec::ArrayString;
use citrine_core::guest_tree;
use citrine_core::shell::Request;
use citrine_formats::fdt::print;

use crate::mpic::Mpic;
use crate::serial::Line;
use crate::system::{GUEST_TREE_LEN, SHARED, Shared, System, WORKSHOP, kick};
use crate::tlb::Windows;

/// Maps the serial line on this CPU, and what interrupts from it need on the CPU that gets them.
pub fn attach(cpu: u32, system: &System) {
    let Some(mut line) = Line::attach() else { return };
    if cpu != system.console_cpu {
        return;
    }
    if let (Some(mut mpic), Some(source)) = (system.mpic.and_then(Mpic::attach), system.serial_source) {
        mpic.reset();
        mpic.enable(source, cpu);
    }
    line.interrupt(false);
}

/// Serves interrupts of the serial line, on the CPU that gets them; whether there may be mail for this CPU now.
pub fn serve(cpu: u32, system: &'static System, windows: &mut Windows) -> bool {
    if cpu != system.console_cpu {
        return false;
    }
    // Acknowledged before the line is looked at: what comes later interrupts again.
    let mpic = system.mpic.map(|_| Mpic::attached());
    let taken = mpic.and_then(|mut mpic| mpic.acknowledge(cpu).map(|_| mpic));
    let mail = {
        let mut shared = SHARED.lock();
        if let Some(mut line) = Line::attached() {
            while let Some(byte) = line.receive() {
                shared.hypervisor.receive(byte);
            }
        }
        converse(&mut shared, system, windows);
        pump(&mut shared);
        kick(&mut shared.hypervisor, cpu)
    };
    if let Some(mut mpic) = taken {
        mpic.end(cpu);
    }
    mail
}

/// Lets the shell go on, and does what it asks for.
fn converse(shared: &mut Shared, system: &'static System, windows: &mut Windows) {
    let Shared { hypervisor, shell } = shared;
    while let Some(request) = shell.poll(hypervisor) {
        match request {
            Request::GuestMemory { partition, at, len } => {
                let mut bytes = [0; 256];
                let (map, _) = system.map(partition);
                let mut ram = crate::physical::Ram(windows);
                let mut memory = citrine_core::memory::GuestMemory { map: &map, physical: &mut ram };
                let wanted = bytes.get_mut(..len);
                let read = wanted.and_then(|bytes| memory.read(at, bytes).ok().map(|()| &*bytes));
                shell.guest_memory(hypervisor, read);
            }
            Request::GuestTree { partition } => shell.guest_tree(hypervisor, |out| show_tree(system, partition, out)),
        }
        pump_line(hypervisor);
    }
}

/// Prints the tree that a partition gets.
fn show_tree(system: &'static System, partition: usize, out: &mut dyn fmt::Write) -> fmt::Result {
    // A CPU that loads holds this and wants what this CPU holds: so no waiting here.
    let Some(mut workshop) = WORKSHOP.try_lock() else {
        return out.write_str("A partition is being loaded; try again.\n");
    };
    let workshop = &mut *workshop;
    let runtime = guest_tree::Runtime { initrd: None, spin_table: system.map(partition).1, stopped: None };
    let flat = &mut workshop.flat[..GUEST_TREE_LEN];
    match guest_tree::build(&system.tree_input(partition), &runtime, &mut workshop.arena, flat) {
        Ok(len) => print::dts(&flat[..len], out),
        Err(why) => writeln!(out, "{why}"),
    }
}

/// Sends what there is to send, and asks for an interrupt when the line takes no more.
pub fn pump(shared: &mut Shared) {
    pump_line(&mut shared.hypervisor);
}

fn pump_line(hypervisor: &mut citrine_core::hypervisor::Hypervisor<'static>) {
    if let Some(mut line) = Line::attached().filter(|_| hypervisor.has_output()) {
        let all = line.transmit(|into| hypervisor.transmit_into(into));
        line.interrupt(!all);
    }
}

/// The hypervisor's log, for a CPU that does not hold [`SHARED`]: whole lines.
#[derive(Debug, Default)]
pub struct Log(ArrayString<256>);

impl fmt::Write for Log {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for piece in text.split_inclusive('\n') {
            if self.0.try_push_str(piece).is_err() {
                self.flush();
                SHARED.lock().hypervisor.log().write_str(piece)?;
            }
            if self.0.ends_with('\n') {
                self.flush();
            }
        }
        Ok(())
    }
}

impl Log {
    /// Writes what has been collected.
    fn flush(&mut self) {
        let mut shared = SHARED.lock();
        let _ = fmt::Write::write_str(&mut shared.hypervisor.log(), &self.0);
        pump(&mut shared);
        self.0.clear();
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if !self.0.is_empty() {
            self.flush();
        }
    }
}
