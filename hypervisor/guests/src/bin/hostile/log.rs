//! What was tried and what came of it: attempts of one kind that end alike share a line.

use core::fmt;

use citrine_guests::interrupts::{name, vector};
use citrine_guests::probe::Outcome;
use citrine_guests::say;

/// What is said of an attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Said {
    /// How an experiment ended.
    Ended(Outcome),
    /// The status of a hypercall.
    Status(u32),
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Ended(Outcome::Completed) => f.write_str("completed"),
            Self::Ended(Outcome::Interrupted(vector::DECREMENTER, _)) => f.write_str("no end, interrupted"),
            Self::Ended(Outcome::Interrupted(number, 0)) => f.write_str(name(number)),
            Self::Ended(Outcome::Interrupted(number, syndrome)) => write!(f, "{} {syndrome:#010x}", name(number)),
            Self::Status(status) => write!(f, "status {status}"),
        }
    }
}

/// Attempts of one kind, one after the other, that ended alike.
#[derive(Clone, Copy, Debug)]
struct Run {
    kind: &'static str,
    said: Said,
    first: u32,
    last: u32,
    count: u32,
}

/// Runs that are open at once.
const OPEN: usize = 32;

/// All attempts.
#[derive(Debug)]
pub struct Log {
    attempts: u32,
    breaches: u32,
    open: [Option<Run>; OPEN],
    verbose: bool,
}

impl Log {
    /// Nothing yet. `verbose` announces every attempt, so that the last one is known if nothing follows.
    pub const fn new(verbose: bool) -> Self {
        Self { attempts: 0, breaches: 0, open: [None; OPEN], verbose }
    }

    /// How many attempts there were.
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }

    /// How many of them reached what is not the guest's.
    pub const fn breaches(&self) -> u32 {
        self.breaches
    }

    /// Announces an attempt: `case` is the number or address that distinguishes it from others of its kind.
    pub fn announce(&self, kind: &'static str, case: u32) {
        if self.verbose {
            say!("hostile: trying {kind} {case:#x}");
        }
    }

    /// An attempt, what came of it, and whether that is a breach. One that ended as the last of its kind shares
    /// its line.
    pub fn note(&mut self, kind: &'static str, case: u32, said: Said, breach: bool) {
        self.add(Run { kind, said, first: case, last: case, count: 1 }, breach, |run| run.kind == kind);
    }

    /// The same for kinds of which every other one ends differently: all that ended alike share a line.
    pub fn tally(&mut self, kind: &'static str, case: u32, said: Said, breach: bool) {
        let is = |run: &Run| (run.kind, run.said) == (kind, said);
        self.add(Run { kind, said, first: case, last: case, count: 1 }, breach, is);
    }

    fn add(&mut self, new: Run, breach: bool, is: impl Fn(&Run) -> bool) {
        self.attempts += 1;
        if breach {
            self.breaches += 1;
            say!("hostile: BREACH: {} {:#x}: {}", new.kind, new.first, new.said);
            return;
        }
        let found = self.open.iter().position(|run| run.as_ref().is_some_and(&is));
        let free = || self.open.iter().position(Option::is_none);
        let Some(slot) = found.or_else(free).and_then(|index| self.open.get_mut(index)) else {
            self.end();
            self.open[0] = Some(new);
            return;
        };
        match slot {
            Some(run) if run.said == new.said => {
                run.last = new.last;
                run.count += 1;
            }
            _ => {
                print(slot);
                *slot = Some(new);
            }
        }
    }

    /// Prints what is not printed yet.
    pub fn end(&mut self) {
        self.open.iter_mut().for_each(print);
    }
}

fn print(run: &mut Option<Run>) {
    match run.take() {
        Some(Run { kind, said, first, count: 1, .. }) => say!("hostile: {kind} {first:#x}: {said}"),
        Some(Run { kind, said, first, last, count }) => {
            say!("hostile: {kind} {first:#x} to {last:#x}, {count} times: {said}");
        }
        None => {}
    }
}
