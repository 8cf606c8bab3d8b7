//! Numbers by which a guest names things in hypercalls and interrupts; the guest tree tells it which.
//!
//! A guest must take them from its tree. They are fixed here so that tree and hypercalls agree.

/// Handles are below this; so are the interrupt numbers that Linux accepts (`NR_EHV_PIC_INTS`).
pub const LIMIT: u32 = 1024;
/// The first handle that means something else in each partition.
const LOCAL: u32 = 64;
/// Handles of one byte channel: itself, its receive and its transmit interrupt.
const PER_CHANNEL: u32 = 3;
/// The caller's own partition.
pub const SELF: u32 = u32::MAX;

/// The handle of a partition by its place in the configuration; also its `guest-id`.
pub const fn partition(index: u32) -> u32 {
    index + 1
}

/// The partition with this handle, as its place in the configuration.
pub const fn partition_index(handle: u32) -> Option<u32> {
    handle.checked_sub(1)
}

/// What a local handle is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Local {
    /// A byte channel, by its place in the partition's configuration.
    Channel(usize),
    /// Its interrupt for data to read.
    Receive(usize),
    /// Its interrupt for room to write.
    Transmit(usize),
}

impl Local {
    /// The number.
    pub const fn number(self) -> u32 {
        match self {
            Self::Channel(index) => LOCAL + PER_CHANNEL * index as u32,
            Self::Receive(index) => LOCAL + PER_CHANNEL * index as u32 + 1,
            Self::Transmit(index) => LOCAL + PER_CHANNEL * index as u32 + 2,
        }
    }

    /// What a number means in a partition with this many byte channels.
    pub const fn from_number(number: u32, channels: usize) -> Option<Self> {
        let Some(offset) = number.checked_sub(LOCAL) else { return None };
        let index = (offset / PER_CHANNEL) as usize;
        if index >= channels {
            return None;
        }
        Some(match offset % PER_CHANNEL {
            0 => Self::Channel(index),
            1 => Self::Receive(index),
            _ => Self::Transmit(index),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lead_back() {
        for index in 0..8 {
            for local in [Local::Channel(index), Local::Receive(index), Local::Transmit(index)] {
                assert_eq!(Local::from_number(local.number(), 8), Some(local));
                assert_eq!(Local::from_number(local.number(), index), None);
                assert!(local.number() < LIMIT);
            }
        }
        assert_eq!((Local::from_number(63, 8), Local::from_number(u32::MAX, 8)), (None, None));
        assert_eq!((partition_index(partition(3)), partition_index(0)), (Some(3), None));
    }
}
