//! The life cycle of one partition: what was asked for, what its CPUs still have to do, and who stopped it.
//!
//! A CPU learns what to do as an [`Order`], does it, and answers. A partition that is to stop has stopped when
//! the last of its CPUs has answered; only then can it be started again.

use core::fmt;

use citrine_formats::addr::GuestPhys;

use crate::machine::MAX_CPUS;

/// The state of a partition; the number is that of `FH_PARTITION_GET_STATUS`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// No CPU executes it.
    Stopped = 0,
    /// Its virtual CPU 0 has been entered.
    Running = 1,
    /// Its virtual CPU 0 loads it.
    Starting = 2,
    /// Some of its CPUs have not left it yet.
    Stopping = 3,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Stopped => "stopped",
            Self::Running => "running",
            Self::Starting => "starting",
            Self::Stopping => "stopping",
        })
    }
}

/// What a virtual CPU is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// To virtual CPU 0 only: prepare the guest's memory, answer [`super::Hypervisor::loaded`], and enter the
    /// guest if that says so.
    Load(Start),
    /// To the others: the partition runs; wait for the guest's release in the spin table.
    Release,
    /// Leave the guest, forget its state, answer [`super::Hypervisor::stopped`].
    Stop,
}

/// How a partition begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// Its images are loaded, and the kernel is entered.
    Images,
    /// Its images are loaded, and it stays stopped until its manager starts it.
    LoadOnly,
    /// It is entered here, with its memory as it is.
    Entry(GuestPhys),
}

/// Who asked for a stop or restart; shown as the value of `fsl,hv-stopped-by`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Requester {
    /// Someone at the hypervisor's shell.
    Shell,
    /// Another partition.
    Manager,
    /// The partition itself.
    Own,
    /// A watchdog of the partition.
    Watchdog {
        /// The virtual CPU whose watchdog it was.
        vcpu: usize,
    },
}

impl fmt::Display for Requester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shell => "shell",
            Self::Manager => "manager",
            Self::Own => "self",
            Self::Watchdog { .. } => "watchdog",
        })
    }
}

/// Why a partition stopped; shown as the value of `fsl,hv-reason-stopped`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// It was to stop.
    Stop,
    /// It was to begin anew.
    Restart,
    /// This virtual CPU did not serve its watchdog.
    Vcpu(usize),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stop => f.write_str("stop"),
            Self::Restart => f.write_str("restart"),
            Self::Vcpu(vcpu) => write!(f, "vcpu-{vcpu}"),
        }
    }
}

/// The last time that a partition was stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LastStop {
    /// Who asked for it.
    pub by: Requester,
    /// Why.
    pub reason: Reason,
}

/// The partition is in a state in which this cannot be asked of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InvalidState;

/// A partition could not be loaded; why has been said in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LoadFailed;

/// What a CPU's answer to [`Order::Stop`] brought about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    /// It was not asked, or others have not answered yet.
    Waiting,
    /// The partition has stopped; it may be starting again.
    Stopped,
}

/// The life cycle of one partition.
#[derive(Debug)]
pub(super) struct Life {
    state: State,
    vcpus: usize,
    /// All its CPUs are there.
    usable: bool,
    /// Bit for bit the virtual CPUs that have not answered.
    awaited: u32,
    restarts: bool,
    /// How it begins, as long as it is starting.
    start: Start,
    /// Where it was entered last, or was to be.
    entry: Option<GuestPhys>,
    last_stop: Option<LastStop>,
    orders: [Option<Order>; MAX_CPUS as usize],
}

impl Life {
    /// A stopped partition; it can be started only when it is usable.
    pub(super) const fn new(vcpus: usize, usable: bool) -> Self {
        Self {
            state: State::Stopped,
            vcpus,
            usable: usable && vcpus > 0 && vcpus <= MAX_CPUS as usize,
            awaited: 0,
            restarts: false,
            start: Start::Images,
            entry: None,
            last_stop: None,
            orders: [None; MAX_CPUS as usize],
        }
    }

    pub(super) const fn state(&self) -> State {
        self.state
    }

    pub(super) const fn last_stop(&self) -> Option<LastStop> {
        self.last_stop
    }

    /// How to enter it where it was entered last; with its images, when it has never been entered.
    pub(super) fn again(&self) -> Start {
        self.entry.map_or(Start::Images, Start::Entry)
    }

    /// The order that a virtual CPU has not taken yet.
    pub(super) fn take_order(&mut self, vcpu: usize) -> Option<Order> {
        self.orders.get_mut(vcpu)?.take()
    }

    pub(super) fn start(&mut self, start: Start) -> Result<(), InvalidState> {
        if self.state != State::Stopped || !self.usable {
            return Err(InvalidState);
        }
        self.begin(start);
        Ok(())
    }

    fn begin(&mut self, start: Start) {
        self.state = State::Starting;
        self.start = start;
        self.orders = [None; MAX_CPUS as usize];
        self.orders[0] = Some(Order::Load(start));
    }

    /// The answer to [`Order::Load`]; whether the guest is to be entered.
    pub(super) fn loaded(&mut self, vcpu: usize, entry: Result<GuestPhys, LoadFailed>) -> bool {
        if self.state != State::Starting || vcpu != 0 {
            return false;
        }
        self.entry = entry.ok().or(self.entry);
        if entry.is_err() || self.start == Start::LoadOnly {
            self.state = State::Stopped;
            return false;
        }
        self.state = State::Running;
        self.order_all(Order::Release);
        self.orders[0] = None;
        true
    }

    fn order_all(&mut self, order: Order) {
        self.orders.iter_mut().take(self.vcpus).for_each(|slot| *slot = Some(order));
    }

    pub(super) fn stop(&mut self, by: Requester, restarts: bool) -> Result<(), InvalidState> {
        if self.state != State::Running {
            return Err(InvalidState);
        }
        let reason = match (by, restarts) {
            (Requester::Watchdog { vcpu }, _) => Reason::Vcpu(vcpu),
            (_, true) => Reason::Restart,
            (_, false) => Reason::Stop,
        };
        self.last_stop = Some(LastStop { by, reason });
        self.state = State::Stopping;
        self.restarts = restarts;
        self.awaited = u32::MAX.unbounded_shr(MAX_CPUS.saturating_sub(self.vcpus as u32));
        self.order_all(Order::Stop);
        Ok(())
    }

    /// The answer to [`Order::Stop`].
    pub(super) fn stopped(&mut self, vcpu: usize) -> Answer {
        let bit = 1u32.unbounded_shl(vcpu as u32);
        // Only a CPU that has seen the order can have followed it.
        let ordered = self.orders.get(vcpu).is_some_and(Option::is_some);
        if self.state != State::Stopping || self.awaited & bit == 0 || ordered {
            return Answer::Waiting;
        }
        self.awaited &= !bit;
        if self.awaited != 0 {
            return Answer::Waiting;
        }
        self.state = State::Stopped;
        if self.restarts {
            self.begin(Start::Images);
        }
        Answer::Stopped
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::format;

    const ENTRY: GuestPhys = GuestPhys(0x40);

    fn running(vcpus: usize) -> Life {
        let mut life = Life::new(vcpus, true);
        assert_eq!(life.start(Start::Images), Ok(()));
        assert_eq!(life.state(), State::Starting);
        assert_eq!((life.take_order(0), life.take_order(0)), (Some(Order::Load(Start::Images)), None));
        assert!(life.loaded(0, Ok(ENTRY)));
        (1..vcpus).for_each(|vcpu| assert_eq!(life.take_order(vcpu), Some(Order::Release)));
        assert_eq!((life.take_order(0), life.take_order(vcpus)), (None, None));
        life
    }

    #[test]
    fn a_stop_is_complete_when_the_last_cpu_has_answered() {
        let mut life = running(3);
        assert_eq!(life.stop(Requester::Manager, false), Ok(()));
        assert_eq!(life.stop(Requester::Shell, true), Err(InvalidState));
        // A CPU that has not seen the order cannot answer it, and none answers twice.
        assert_eq!(life.stopped(1), Answer::Waiting);
        (0..3).for_each(|vcpu| assert_eq!(life.take_order(vcpu), Some(Order::Stop)));
        for vcpu in [1, 1, 0, 0, 7, 40] {
            assert_eq!((life.stopped(vcpu), life.state()), (Answer::Waiting, State::Stopping));
        }
        assert_eq!((life.stopped(2), life.state()), (Answer::Stopped, State::Stopped));
        assert_eq!(life.last_stop().map(|stop| format!("{} {}", stop.by, stop.reason)), Some("manager stop".into()));
        assert_eq!(life.stopped(2), Answer::Waiting);
    }

    #[test]
    fn a_restart_loads_again_when_all_have_stopped() {
        let mut life = running(2);
        assert_eq!(life.stop(Requester::Own, true), Ok(()));
        (0..2).for_each(|vcpu| assert_eq!(life.take_order(vcpu), Some(Order::Stop)));
        assert_eq!((life.stopped(1), life.stopped(0)), (Answer::Waiting, Answer::Stopped));
        assert_eq!((life.state(), life.take_order(1)), (State::Starting, None));
        assert_eq!(life.take_order(0), Some(Order::Load(Start::Images)));
        assert_eq!(life.last_stop().map(|stop| format!("{} {}", stop.by, stop.reason)), Some("self restart".into()));
        assert!(life.loaded(0, Ok(ENTRY)));
        life.stop(Requester::Watchdog { vcpu: 1 }, true).unwrap();
        assert_eq!(life.last_stop().map(|stop| format!("{} {}", stop.by, stop.reason)), Some("watchdog vcpu-1".into()));
    }

    #[test]
    fn what_cannot_be_loaded_stays_stopped_and_can_be_entered_by_its_manager() {
        let mut life = Life::new(2, true);
        life.start(Start::Images).unwrap();
        assert!(!life.loaded(1, Ok(ENTRY)));
        assert!(!life.loaded(0, Err(LoadFailed)));
        assert_eq!((life.state(), life.again()), (State::Stopped, Start::Images));
        life.start(Start::LoadOnly).unwrap();
        assert!(!life.loaded(0, Ok(ENTRY)));
        assert_eq!((life.state(), life.again(), life.take_order(1)), (State::Stopped, Start::Entry(ENTRY), None));
        life.start(Start::Entry(GuestPhys(8))).unwrap();
        assert_eq!(life.take_order(0), Some(Order::Load(Start::Entry(GuestPhys(8)))));
        assert!(life.loaded(0, Ok(GuestPhys(8))));
        assert!(!life.loaded(0, Ok(ENTRY)));
        assert_eq!(life.start(Start::Images), Err(InvalidState));
    }

    #[test]
    fn a_partition_without_all_its_cpus_does_not_start() {
        assert_eq!(Life::new(2, false).start(Start::Images), Err(InvalidState));
        assert_eq!(Life::new(0, true).start(Start::Images), Err(InvalidState));
        assert_eq!(Life::new(33, true).start(Start::Images), Err(InvalidState));
        assert_eq!(Life::new(1, true).stop(Requester::Shell, false), Err(InvalidState));
        let mut life = running(32);
        life.stop(Requester::Shell, false).unwrap();
        (0..32).for_each(|vcpu| assert_eq!(life.take_order(vcpu), Some(Order::Stop)));
        assert!((0..31).all(|vcpu| life.stopped(vcpu) == Answer::Waiting));
        assert_eq!(life.stopped(31), Answer::Stopped);
    }
}
