//! The virtual interrupt controller of one partition (ePAPR 1.1 §7.5): its sources are the interrupts of the
//! partition's byte channels.
//!
//! A source has a line, which is a condition: there is data to read, there is room to write. Level sense
//! follows the line. Edge sense latches what happens to it; since drivers read only what they have counted,
//! data that is left at the end of an interrupt counts as having arrived again, whatever the sense.

use arrayvec::ArrayVec;

use super::hypercall::Status;
use crate::config::MAX_CHANNELS;
use crate::handles::Local;

/// The vector when no interrupt is pending.
pub const SPURIOUS: u32 = 0xffff;
/// In a source's configuration: active high, which for a virtual line means nothing.
const HIGH: u32 = 1;
/// In a source's configuration: level sense.
const LEVEL: u32 = 2;

/// Whose interrupt a source is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// Data to read in a byte channel, by its place in the partition's configuration.
    Receive(usize),
    /// Room to write in a byte channel.
    Transmit(usize),
}

impl Source {
    /// The source with this handle, in a partition with this many byte channels.
    pub const fn from_handle(handle: u32, channels: usize) -> Option<Self> {
        match Local::from_number(handle, channels) {
            Some(Local::Receive(channel)) => Some(Self::Receive(channel)),
            Some(Local::Transmit(channel)) => Some(Self::Transmit(channel)),
            Some(Local::Channel(_)) | None => None,
        }
    }

    /// Its handle, which is also its vector.
    pub const fn handle(self) -> u32 {
        match self {
            Self::Receive(channel) => Local::Receive(channel).number(),
            Self::Transmit(channel) => Local::Transmit(channel).number(),
        }
    }

    const fn index(self) -> usize {
        match self {
            Self::Receive(channel) => 2 * channel,
            Self::Transmit(channel) => 2 * channel + 1,
        }
    }

    const fn from_index(index: usize) -> Self {
        if index.is_multiple_of(2) { Self::Receive(index / 2) } else { Self::Transmit(index / 2) }
    }
}

/// What a guest sets of a source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Bit 0: active high; bit 1: level sense.
    pub config: u32,
    /// Higher goes first.
    pub priority: u32,
    /// The virtual CPU that gets the interrupt.
    pub vcpu: usize,
}

#[derive(Clone, Debug)]
struct Input {
    settings: Settings,
    masked: bool,
    /// The condition holds.
    line: bool,
    /// For edge sense: something has happened since the last acknowledge.
    latched: bool,
    /// Between acknowledge and end of interrupt.
    active: bool,
}

impl Input {
    const RESET: Self = Self {
        settings: Settings { config: LEVEL | HIGH, priority: 8, vcpu: 0 },
        masked: true,
        line: false,
        latched: false,
        active: false,
    };

    const fn is_pending(&self) -> bool {
        let raised = if self.settings.config & LEVEL != 0 { self.line } else { self.latched };
        raised && !self.masked && !self.active
    }
}

/// A partition's interrupt controller.
///
/// What may make an interrupt pending returns the virtual CPU that is to be told of it.
#[derive(Clone, Debug)]
pub struct Pic {
    inputs: ArrayVec<Input, { 2 * MAX_CHANNELS }>,
    vcpus: usize,
    external_proxy: bool,
}

impl Pic {
    /// All sources are masked. With `external_proxy`, taking the interrupt acknowledges it and EPR tells the
    /// vector (Power ISA 2.06 III-E §7.9); otherwise the guest acknowledges by hypercall.
    pub fn new(channels: usize, vcpus: usize, external_proxy: bool) -> Self {
        let inputs = core::iter::repeat_n(Input::RESET, 2 * channels.min(MAX_CHANNELS)).collect();
        Self { inputs, vcpus, external_proxy }
    }

    /// How interrupts are acknowledged; see [`Pic::new`].
    pub const fn has_external_proxy(&self) -> bool {
        self.external_proxy
    }

    /// Back to the state after [`Pic::new`], but for the lines: data that waits for a guest survives its restart.
    pub fn reset(&mut self) {
        for input in &mut self.inputs {
            *input = Input { line: input.line, latched: input.line, ..Input::RESET };
        }
    }

    fn input(&self, source: Source) -> Result<&Input, Status> {
        self.inputs.get(source.index()).ok_or(Status::Invalid)
    }

    /// Changes a source; returns the virtual CPU to which it is pending since then.
    fn change<T>(
        &mut self,
        source: Source,
        change: impl FnOnce(&mut Input) -> Result<T, Status>,
    ) -> Result<Option<usize>, Status> {
        let input = self.inputs.get_mut(source.index()).ok_or(Status::Invalid)?;
        let before = input.is_pending().then_some(input.settings.vcpu);
        change(input)?;
        let after = input.is_pending().then_some(input.settings.vcpu);
        Ok(after.filter(|_| after != before))
    }

    /// Whether the condition of a source holds.
    pub fn set_line(&mut self, source: Source, holds: bool) -> Option<usize> {
        let changed = self.change(source, |input| {
            input.latched |= holds && !input.line;
            input.line = holds;
            Ok(())
        });
        changed.unwrap_or(None)
    }

    /// `EV_INT_SET_CONFIG`.
    ///
    /// # Errors
    /// [`Status::Invalid`] for a source or a virtual CPU that does not exist.
    pub fn set(&mut self, source: Source, settings: Settings) -> Result<Option<usize>, Status> {
        if settings.vcpu >= self.vcpus {
            return Err(Status::Invalid);
        }
        self.change(source, |input| {
            input.settings = Settings { config: settings.config & (LEVEL | HIGH), ..settings };
            // What level sense would have shown must not get lost.
            input.latched |= input.line;
            Ok(())
        })
    }

    /// `EV_INT_GET_CONFIG`.
    ///
    /// # Errors
    /// [`Status::Invalid`] for a source that does not exist; so for the others.
    pub fn settings(&self, source: Source) -> Result<Settings, Status> {
        self.input(source).map(|input| input.settings)
    }

    /// `EV_INT_SET_MASK`.
    ///
    /// # Errors
    /// See [`Pic::settings`].
    pub fn set_mask(&mut self, source: Source, masked: bool) -> Result<Option<usize>, Status> {
        self.change(source, |input| {
            input.masked = masked;
            Ok(())
        })
    }

    /// `EV_INT_GET_MASK`.
    ///
    /// # Errors
    /// See [`Pic::settings`].
    pub fn is_masked(&self, source: Source) -> Result<bool, Status> {
        self.input(source).map(|input| input.masked)
    }

    /// The pending source that goes first.
    fn next(&self, vcpu: usize) -> Option<usize> {
        let pending = |input: &Input| input.is_pending() && input.settings.vcpu == vcpu;
        let all = self.inputs.iter().enumerate().rev().filter(|(_, input)| pending(input));
        // Of equals the last one wins, which is the one with the lowest number.
        all.max_by_key(|(_, input)| input.settings.priority).map(|(index, _)| index)
    }

    /// Whether an interrupt is pending to a virtual CPU.
    pub fn is_pending(&self, vcpu: usize) -> bool {
        self.next(vcpu).is_some()
    }

    /// Acknowledges the interrupt that goes first.
    pub fn acknowledge(&mut self, vcpu: usize) -> Option<Source> {
        let index = self.next(vcpu)?;
        let input = self.inputs.get_mut(index)?;
        input.active = true;
        input.latched = false;
        Some(Source::from_index(index))
    }

    /// `EV_INT_EOI`.
    ///
    /// # Errors
    /// [`Status::InvalidState`] when the source has not been acknowledged.
    pub fn end(&mut self, source: Source) -> Result<Option<usize>, Status> {
        self.change(source, |input| {
            if !input.active {
                return Err(Status::InvalidState);
            }
            input.active = false;
            input.latched |= input.line && matches!(source, Source::Receive(_));
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RX: Source = Source::Receive(0);
    const TX: Source = Source::Transmit(0);

    fn pic(config: u32) -> Pic {
        let mut pic = Pic::new(2, 2, true);
        for source in [RX, TX, Source::Receive(1)] {
            assert_eq!(pic.set(source, Settings { config, priority: 8, vcpu: 1 }), Ok(None));
            assert_eq!(pic.set_mask(source, false), Ok(None));
        }
        pic
    }

    #[test]
    fn a_level_source_is_raised_again_as_long_as_its_line_holds() {
        let mut pic = pic(LEVEL);
        assert_eq!(pic.set_line(RX, true), Some(1));
        assert_eq!(pic.set_line(RX, true), None);
        assert_eq!((pic.acknowledge(0), pic.acknowledge(1), pic.acknowledge(1)), (None, Some(RX), None));
        assert_eq!(pic.end(RX), Ok(Some(1)));
        assert_eq!(pic.acknowledge(1), Some(RX));
        assert_eq!(pic.set_line(RX, false), None);
        assert_eq!(pic.end(RX), Ok(None));
        assert!(!pic.is_pending(1));
        assert_eq!(pic.end(RX), Err(Status::InvalidState));
    }

    #[test]
    fn an_edge_source_comes_once_but_data_that_is_left_comes_again() {
        let mut pic = pic(0);
        assert_eq!(pic.set_line(TX, true), Some(1));
        assert_eq!(pic.acknowledge(1), Some(TX));
        assert_eq!(pic.end(TX), Ok(None));
        assert_eq!(pic.set_line(TX, true), None);
        assert_eq!((pic.set_line(TX, false), pic.set_line(TX, true)), (None, Some(1)));
        assert_eq!(pic.acknowledge(1), Some(TX));

        assert_eq!(pic.set_line(RX, true), Some(1));
        assert_eq!(pic.acknowledge(1), Some(RX));
        assert_eq!(pic.end(RX), Ok(Some(1)));
        assert_eq!(pic.acknowledge(1), Some(RX));
        assert_eq!(pic.set_line(RX, false), None);
        assert_eq!(pic.end(RX), Ok(None));
    }

    #[test]
    fn an_edge_while_masked_or_active_is_kept() {
        let mut pic = pic(0);
        assert_eq!(pic.set_mask(TX, true), Ok(None));
        assert_eq!(pic.set_line(TX, true), None);
        assert_eq!((pic.is_masked(TX), pic.set_mask(TX, false)), (Ok(true), Ok(Some(1))));
        assert_eq!(pic.acknowledge(1), Some(TX));
        assert_eq!((pic.set_line(TX, false), pic.set_line(TX, true)), (None, None));
        assert_eq!(pic.end(TX), Ok(Some(1)));
    }

    #[test]
    fn the_highest_priority_goes_first_then_the_lowest_number() {
        let mut pic = pic(LEVEL);
        for source in [Source::Receive(1), TX, RX] {
            pic.set_line(source, true);
        }
        pic.set(Source::Receive(1), Settings { config: LEVEL, priority: 9, vcpu: 1 }).unwrap();
        let order = [pic.acknowledge(1), pic.acknowledge(1), pic.acknowledge(1), pic.acknowledge(1)];
        assert_eq!(order, [Some(Source::Receive(1)), Some(RX), Some(TX), None]);
    }

    #[test]
    fn a_pending_interrupt_moves_to_another_cpu() {
        let mut pic = pic(LEVEL);
        pic.set_line(RX, true);
        assert_eq!(pic.set(RX, Settings { config: LEVEL, priority: 1, vcpu: 0 }), Ok(Some(0)));
        assert!(pic.is_pending(0) && !pic.is_pending(1));
        assert_eq!(pic.set(RX, Settings { config: LEVEL, priority: 1, vcpu: 2 }), Err(Status::Invalid));
        assert_eq!(pic.settings(RX), Ok(Settings { config: LEVEL, priority: 1, vcpu: 0 }));
        assert_eq!(pic.settings(Source::Receive(2)), Err(Status::Invalid));
    }

    #[test]
    fn a_sense_that_changes_does_not_lose_what_waits() {
        let mut pic = Pic::new(1, 1, true);
        pic.set_line(RX, true);
        pic.reset();
        assert_eq!(pic.set(RX, Settings { config: 0, priority: 8, vcpu: 0 }), Ok(None));
        assert_eq!(pic.set_mask(RX, false), Ok(Some(0)));
        assert_eq!(Source::from_handle(RX.handle(), 1), Some(RX));
        assert_eq!(Source::from_handle(TX.handle(), 1), Some(TX));
        assert_eq!(Source::from_handle(Local::Channel(0).number(), 1), None);
    }
}
