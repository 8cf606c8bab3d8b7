//! Waiting for something that an interrupt brings about, but not for ever.

use crate::cpu::{self, timer};
use crate::interrupts::{Frame, vector};
use crate::tree::Tree;

/// How long a guest waits for another.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Ticks of the timebase.
    ticks: u64,
    /// Ticks between two looks, when no interrupt comes.
    beat: u32,
}

impl Patience {
    /// So many seconds.
    pub fn seconds(tree: &Tree<'_>, seconds: u32) -> Self {
        let frequency = tree.timebase_frequency().unwrap_or(1 << 28);
        Self { ticks: u64::from(frequency) * u64::from(seconds), beat: frequency / 4 }
    }

    /// Rests until `happens`; false when it does not in time. Interrupts are off before and after, and taken
    /// meanwhile; the handler must know of [`beat`].
    pub fn until(&self, happens: impl Fn() -> bool) -> bool {
        let begun = cpu::timebase();
        cpu::clear_timer_status(timer::TSR_DIS);
        cpu::set_timer_control(timer::TCR_DIE);
        loop {
            if happens() {
                cpu::set_timer_control(0);
                return true;
            }
            if cpu::timebase() - begun > self.ticks {
                cpu::set_timer_control(0);
                return false;
            }
            cpu::set_decrementer(self.beat);
            cpu::rest();
        }
    }
}

/// For a guest's handler: takes the decrementer interrupt that ends a rest. False for any other.
pub fn beat(frame: &Frame) -> bool {
    let is = frame.vector == vector::DECREMENTER;
    if is {
        cpu::clear_timer_status(timer::TSR_DIS);
    }
    is
}
