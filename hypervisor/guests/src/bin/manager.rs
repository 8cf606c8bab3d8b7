//! Stops and starts another partition in every way that there is, and tries what must be refused.
//!
//! Each time before it stops the other one it waits for a line on its console: whoever types it has seen what the
//! other one says. It leaves the other one running.
#![cfg_attr(target_arch = "powerpc", no_std, no_main)]

use citrine_guests::hypercall::{self, INVALID, INVALID_STATE, OK, state};
use citrine_guests::interrupts::Frame;
use citrine_guests::patience::{self, Patience};
use citrine_guests::tree::Managed;
use citrine_guests::{Guest, guest, say};

guest!(run, interrupt);

/// Seconds after which the other partition is taken not to follow, and nobody to type.
const PATIENCE: u32 = 600;
/// Handles of nobody: of no partition, of one that this one does not manage, of a byte channel, of all kinds.
const FOREIGN: [u32; 7] = [0, 3, 24, 25, 64, 1024, u32::MAX - 1];
/// An address that the other partition has not. To be entered there is an interrupt for it, whose vector is 0 before
/// it says another; its image begins there.
const NOWHERE: u32 = 0xf000_0000;

/// What did not end as it should.
struct Failed;

fn run(guest: &Guest) {
    let Some(other) = guest.tree.managed().next() else {
        say!("manager: FAILED: the tree has no partition to manage");
        return;
    };
    let Some(console) = guest.tree.console() else { return };
    let manager = Manager { other, console: console.handle, patience: Patience::seconds(&guest.tree, PATIENCE) };
    if manager.run().is_ok() {
        say!("manager: ok");
    }
}

struct Manager {
    other: Managed<'static>,
    console: u32,
    patience: Patience,
}

impl Manager {
    fn run(&self) -> Result<(), Failed> {
        let handle = self.other.handle;
        self.becomes(state::RUNNING)?;
        self.expect("start while it runs", hypercall::start_partition(handle, None), INVALID_STATE)?;
        self.foreign()?;

        self.stops()?;
        self.expect("stop while it is stopped", hypercall::stop_partition(handle), INVALID_STATE)?;
        self.expect("restart while it is stopped", hypercall::restart_partition(handle), INVALID_STATE)?;
        self.expect("start", hypercall::start_partition(handle, None), OK)?;
        self.becomes(state::RUNNING)?;

        self.is_told()?;
        self.expect("restart", hypercall::restart_partition(handle), OK)?;
        self.becomes(state::RUNNING)?;

        self.stops()?;
        self.expect("start with its memory as it is", hypercall::start_partition(handle, Some(0)), OK)?;
        self.becomes(state::RUNNING)?;

        self.stops()?;
        self.expect("start where it has no memory", hypercall::start_partition(handle, Some(NOWHERE)), OK)?;
        self.becomes(state::RUNNING)?;
        self.stops()?;
        self.expect("start", hypercall::start_partition(handle, None), OK)?;
        self.becomes(state::RUNNING)
    }

    /// Every call with a handle that is not the other partition's.
    fn foreign(&self) -> Result<(), Failed> {
        for handle in FOREIGN.into_iter().filter(|handle| *handle != self.other.handle) {
            let state = hypercall::partition_state(handle).map_or_else(|status| status, |_| OK);
            let calls = [
                state,
                hypercall::start_partition(handle, None),
                hypercall::start_partition(handle, Some(0)),
                hypercall::stop_partition(handle),
                hypercall::restart_partition(handle),
            ];
            if let Some(status) = calls.iter().find(|status| **status != INVALID) {
                say!("manager: FAILED: handle {handle:#x}: status {status}");
                return Err(Failed);
            }
        }
        say!("manager: handles of others: refused");
        Ok(())
    }

    /// Waits for a line on the console.
    fn is_told(&self) -> Result<(), Failed> {
        let typed = || {
            let mut bytes = [0; hypercall::MOST];
            let count = hypercall::receive(self.console, &mut bytes).unwrap_or(0);
            bytes.iter().take(count).any(|byte| *byte == b'\r')
        };
        if self.patience.until(typed) {
            return Ok(());
        }
        say!("manager: FAILED: nobody types a line");
        Err(Failed)
    }

    fn stops(&self) -> Result<(), Failed> {
        self.is_told()?;
        self.expect("stop", hypercall::stop_partition(self.other.handle), OK)?;
        self.becomes(state::STOPPED)
    }

    fn expect(&self, what: &str, status: u32, wanted: u32) -> Result<(), Failed> {
        if status != wanted {
            say!("manager: FAILED: {what}: status {status}, not {wanted}");
            return Err(Failed);
        }
        say!("manager: {what}: status {status}");
        Ok(())
    }

    /// Waits until the other partition is in a state.
    fn becomes(&self, wanted: u32) -> Result<(), Failed> {
        let state = || hypercall::partition_state(self.other.handle);
        if !self.patience.until(|| state() == Ok(wanted)) {
            say!("manager: FAILED: {} stays in state {:?}, not {wanted}", self.other.label, state());
            return Err(Failed);
        }
        say!("manager: {} is {}", self.other.label, if wanted == state::RUNNING { "running" } else { "stopped" });
        Ok(())
    }
}

fn interrupt(frame: &mut Frame) -> bool {
    patience::beat(frame)
}
