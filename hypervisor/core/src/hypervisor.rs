//! [`Hypervisor`]: everything that the CPUs share, behind one lock of its owner.
//!
//! * [`partition`] — life cycle, and what each CPU is ordered to do
//! * [`pic`] — the virtual interrupt controllers
//! * `setup` — how a configuration becomes all this
//! * `channel`, `uart_mux`, `io` — byte channels, and the serial line to which many lead
//! * [`hypercall`] — what guests can ask for
//! * [`log`] — the log and the console
//!
//! What changes for a CPU is kept for it as [`Mail`]; [`Hypervisor::kicks`] says which CPUs are to be interrupted
//! so that they look. Nothing a guest does reaches another partition but by a byte channel between the two or
//! by the right of a manager.

use arrayvec::ArrayVec;
use citrine_formats::addr::GuestPhys;

use crate::config::{MAX_CHANNELS, MAX_MANAGED, MAX_PARTITIONS};
use crate::machine::{CpuSet, MAX_CPUS};

mod channel;
pub mod hypercall;
mod io;
pub mod log;
pub mod partition;
pub mod pic;
mod setup;
mod uart_mux;

use channel::{Channels, Plug};
use hypercall::Status;
use partition::{Answer, Life};
pub use partition::{InvalidState, LastStop, LoadFailed, Order, Requester, Start, State};
use pic::{Pic, SPURIOUS, Source};
use uart_mux::UartMux;

/// A virtual CPU of a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Who {
    /// Index into the configuration's partitions.
    pub partition: usize,
    /// Its number in the partition, which its PIR reads.
    pub vcpu: usize,
}

/// What a CPU finds when it looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Mail {
    /// Its doorbell has been rung since it looked last.
    pub doorbell: bool,
    /// Its critical doorbell has been rung since it looked last.
    pub critical_doorbell: bool,
    /// An interrupt is pending to it now.
    pub external: bool,
    /// What it is to do.
    pub order: Option<Order>,
}

/// A partition as the shell shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Info<'a> {
    /// Its label.
    pub name: &'a str,
    /// What it does.
    pub state: State,
    /// How many CPUs it has.
    pub vcpus: usize,
}

#[derive(Debug)]
struct Partition<'a> {
    name: &'a str,
    /// The CPUs behind its virtual CPUs.
    cpus: ArrayVec<u32, { MAX_CPUS as usize }>,
    starts: bool,
    managed: ArrayVec<usize, MAX_MANAGED>,
    /// Its byte channels; `None` leads nowhere.
    channels: ArrayVec<Option<Plug>, MAX_CHANNELS>,
    pic: Pic,
    life: Life,
    /// Bit for bit the virtual CPUs whose doorbell has been rung.
    doorbells: u32,
    critical_doorbells: u32,
}

/// What the CPUs share. Less than 512 KiB, all of them zero until [`Hypervisor::init`].
#[derive(Debug)]
pub struct Hypervisor<'a> {
    partitions: ArrayVec<Partition<'a>, MAX_PARTITIONS>,
    channels: Channels,
    mux: UartMux,
    console: Option<Plug>,
    log: log::Ring,
    kicks: CpuSet,
}

impl<'a> Hypervisor<'a> {
    /// No partitions, and nothing on the serial line.
    pub const fn new() -> Self {
        Self {
            partitions: ArrayVec::new_const(),
            channels: Channels::new(),
            mux: UartMux::new(),
            console: None,
            log: log::Ring::new(),
            kicks: CpuSet::EMPTY,
        }
    }

    /// The virtual CPU that a CPU is.
    pub fn who(&self, cpu: u32) -> Option<Who> {
        self.partitions.iter().enumerate().find_map(|(partition, owner)| {
            let vcpu = owner.cpus.iter().position(|own| *own == cpu)?;
            Some(Who { partition, vcpu })
        })
    }

    /// The CPU behind a virtual CPU.
    pub fn cpu(&self, who: Who) -> Option<u32> {
        self.partitions.get(who.partition)?.cpus.get(who.vcpu).copied()
    }

    /// The partitions in the order of the configuration.
    pub fn partitions(&self) -> impl Iterator<Item = Info<'a>> {
        self.partitions.iter().map(|partition| Info {
            name: partition.name,
            state: partition.life.state(),
            vcpus: partition.cpus.len(),
        })
    }

    /// What a partition does.
    pub fn state(&self, partition: usize) -> Option<State> {
        self.partitions.get(partition).map(|partition| partition.life.state())
    }

    /// Who stopped a partition last; `None` after a clean first start.
    pub fn last_stop(&self, partition: usize) -> Option<LastStop> {
        self.partitions.get(partition)?.life.last_stop()
    }

    /// Starts a stopped partition.
    ///
    /// # Errors
    /// It is not stopped, or one of its CPUs is missing.
    pub fn start(&mut self, partition: usize, start: Start) -> Result<(), InvalidState> {
        self.change(partition, |life| life.start(start))
    }

    /// Starts a stopped partition where it was entered last, with its memory as it is.
    ///
    /// # Errors
    /// See [`Hypervisor::start`].
    pub fn start_again(&mut self, partition: usize) -> Result<(), InvalidState> {
        self.change(partition, |life| life.start(life.again()))
    }

    /// Stops a running partition. It is stopping until each of its CPUs has answered.
    ///
    /// # Errors
    /// It does not run.
    pub fn stop(&mut self, partition: usize, by: Requester) -> Result<(), InvalidState> {
        self.change(partition, |life| life.stop(by, false))
    }

    /// Stops a running partition, and starts it again with its images.
    ///
    /// # Errors
    /// It does not run.
    pub fn restart(&mut self, partition: usize, by: Requester) -> Result<(), InvalidState> {
        self.change(partition, |life| life.stop(by, true))
    }

    /// Changes the life of a partition, after which its CPUs may have orders.
    fn change<T>(
        &mut self,
        partition: usize,
        change: impl FnOnce(&mut Life) -> Result<T, InvalidState>,
    ) -> Result<T, InvalidState> {
        let Some(partition) = self.partitions.get_mut(partition) else { return Err(InvalidState) };
        let done = change(&mut partition.life)?;
        self.kicks = self.kicks.union(partition.cpus.iter().copied().collect());
        Ok(done)
    }

    /// The answer of virtual CPU 0 to [`Order::Load`]: where the guest is to be entered. True when it is to be
    /// entered now; otherwise the CPU has nothing to do.
    pub fn loaded(&mut self, who: Who, entry: Result<GuestPhys, LoadFailed>) -> bool {
        self.change(who.partition, |life| Ok(life.loaded(who.vcpu, entry))).unwrap_or(false)
    }

    /// The answer of each virtual CPU to [`Order::Stop`], when nothing of the guest is left on it.
    pub fn stopped(&mut self, who: Who) {
        let answer = self.change(who.partition, |life| Ok(life.stopped(who.vcpu)));
        if answer == Ok(Answer::Stopped)
            && let Some(partition) = self.partitions.get_mut(who.partition)
        {
            partition.pic.reset();
            (partition.doorbells, partition.critical_doorbells) = (0, 0);
            let (name, stop) = (partition.name, partition.life.last_stop());
            if let Some(LastStop { by, reason }) = stop {
                let cpu = self.cpu(who).unwrap_or(0);
                self.say(cpu, format_args!("guest {name} stopped: {reason} ({by})"));
            }
        }
    }

    /// What there is for a CPU. Doorbells and orders are handed over: they are not in its next mail.
    pub fn mail(&mut self, cpu: u32) -> Mail {
        let Some(who) = self.who(cpu) else { return Mail::default() };
        let Some(partition) = self.partitions.get_mut(who.partition) else { return Mail::default() };
        let bit = 1u32.unbounded_shl(who.vcpu as u32);
        let mail = Mail {
            doorbell: partition.doorbells & bit != 0,
            critical_doorbell: partition.critical_doorbells & bit != 0,
            external: partition.pic.is_pending(who.vcpu),
            order: partition.life.take_order(who.vcpu),
        };
        partition.doorbells &= !bit;
        partition.critical_doorbells &= !bit;
        mail
    }

    /// The CPUs for which there may be new mail since the last call; the caller's own may be among them.
    pub fn kicks(&mut self) -> CpuSet {
        core::mem::take(&mut self.kicks)
    }

    fn kick(&mut self, who: Who) {
        if let Some(cpu) = self.cpu(who) {
            self.kicks.insert(cpu);
        }
    }

    /// A guest's `msgsnd` with this message (e500mc reference manual §2.10): a doorbell for one or all of its own
    /// virtual CPUs.
    pub fn doorbell(&mut self, from: Who, message: u32) {
        const BROADCAST: u32 = 1 << 26;
        const TAG: u32 = 0x3fff;
        let Some(partition) = self.partitions.get_mut(from.partition) else { return };
        let rung = match message >> 27 {
            0 => &mut partition.doorbells,
            1 => &mut partition.critical_doorbells,
            _ => return,
        };
        for (vcpu, cpu) in partition.cpus.iter().enumerate() {
            if message & BROADCAST != 0 || message & TAG == vcpu as u32 {
                *rung |= 1u32.unbounded_shl(vcpu as u32);
                self.kicks.insert(*cpu);
            }
        }
    }

    fn pic(&self, partition: usize) -> Result<&Pic, Status> {
        self.partitions.get(partition).map(|partition| &partition.pic).ok_or(Status::Internal)
    }

    /// Changes an interrupt controller, which may tell a virtual CPU.
    fn with_pic(
        &mut self,
        partition: usize,
        change: impl FnOnce(&mut Pic) -> Result<Option<usize>, Status>,
    ) -> Result<(), Status> {
        let owner = self.partitions.get_mut(partition).ok_or(Status::Internal)?;
        if let Some(vcpu) = change(&mut owner.pic)? {
            self.kick(Who { partition, vcpu });
        }
        Ok(())
    }

    fn acknowledge(&mut self, who: Who) -> Option<Source> {
        self.partitions.get_mut(who.partition)?.pic.acknowledge(who.vcpu)
    }

    /// Whether an interrupt is pending to a virtual CPU.
    pub fn is_external_pending(&self, who: Who) -> bool {
        self.pic(who.partition).is_ok_and(|pic| pic.is_pending(who.vcpu))
    }

    /// Takes the external interrupt of a virtual CPU: with external proxy it is acknowledged, and this is what EPR
    /// then reads; otherwise [`SPURIOUS`], and the guest asks for the vector. `None` when none is pending.
    pub fn external(&mut self, who: Who) -> Option<u32> {
        if self.pic(who.partition).is_ok_and(Pic::has_external_proxy) {
            self.acknowledge(who).map(Source::handle)
        } else {
            self.is_external_pending(who).then_some(SPURIOUS)
        }
    }

    fn channel_count(&self, partition: usize) -> usize {
        self.partitions.get(partition).map_or(0, |partition| partition.channels.len())
    }

    fn manages(&self, manager: usize, partition: usize) -> bool {
        self.partitions.get(manager).is_some_and(|manager| manager.managed.contains(&partition))
    }
}

impl Default for Hypervisor<'_> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
