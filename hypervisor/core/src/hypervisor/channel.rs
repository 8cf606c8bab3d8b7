//! Byte channels: rings of bytes between two ends, each of which is a partition, the serial line's multiplexer or
//! the hypervisor's console.

use crate::config::ChannelId;

/// Bytes of a ring; one of them stays free, so that the sizes are those that Topaz reports.
const RING_LEN: usize = 4096;
/// Bytes that a ring can hold.
pub const RING_ROOM: usize = RING_LEN - 1;
/// Connections, of two rings each, in all partitions together: a full multiplexer, and 16 between partitions.
pub const MAX_LINKS: usize = 48;

/// Bytes in the order in which they came.
#[derive(Debug)]
struct Ring {
    bytes: [u8; RING_LEN],
    /// The oldest; below [`RING_LEN`].
    first: usize,
    /// At most [`RING_ROOM`].
    len: usize,
}

impl Ring {
    const fn new() -> Self {
        Self { bytes: [0; RING_LEN], first: 0, len: 0 }
    }

    /// Returns how many have been taken.
    fn write(&mut self, from: &[u8]) -> usize {
        let count = from.len().min(RING_ROOM - self.len);
        let (before, behind) = self.bytes.split_at_mut((self.first + self.len) % RING_LEN);
        let end = count.min(behind.len());
        let (first, second) = from.split_at(end);
        behind[..end].copy_from_slice(first);
        before[..count - end].copy_from_slice(&second[..count - end]);
        self.len += count;
        count
    }

    /// Returns how many have been given.
    fn read(&mut self, into: &mut [u8]) -> usize {
        let count = into.len().min(self.len);
        let (before, behind) = self.bytes.split_at(self.first % RING_LEN);
        let end = count.min(behind.len());
        let (first, second) = into.split_at_mut(end);
        first.copy_from_slice(&behind[..end]);
        second[..count - end].copy_from_slice(&before[..count - end]);
        self.first = (self.first + count) % RING_LEN;
        self.len -= count;
        count
    }
}

/// Two rings, one in each direction.
#[derive(Debug)]
struct Link {
    /// Each carries what its end has sent.
    rings: [Ring; 2],
    /// The partitions' channels at the ends, which have interrupts.
    ends: [Option<ChannelId>; 2],
}

/// One end of a connection: twice the number of the link, and 1 for its second end. A plain number, so that
/// "none" is all zero bytes and the hypervisor's memory takes no room in its image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plug(u8);

impl Plug {
    /// The other end.
    pub const fn other(self) -> Self {
        Self(self.0 ^ 1)
    }

    const fn link(self) -> usize {
        (self.0 >> 1) as usize
    }

    const fn side(self) -> usize {
        (self.0 & 1) as usize
    }
}

/// All connections.
#[derive(Debug)]
pub struct Channels {
    links: [Link; MAX_LINKS],
    used: usize,
}

impl Channels {
    /// None.
    pub const fn new() -> Self {
        const LINK: Link = Link { rings: [const { Ring::new() }; 2], ends: [None; 2] };
        Self { links: [const { LINK }; MAX_LINKS], used: 0 }
    }

    /// Makes a connection, and returns its ends; `None` when there are [`MAX_LINKS`].
    pub fn connect(&mut self, first: Option<ChannelId>, second: Option<ChannelId>) -> Option<(Plug, Plug)> {
        let link = self.links.get_mut(self.used)?;
        link.ends = [first, second];
        let plug = Plug(u8::try_from(2 * self.used).ok()?);
        self.used += 1;
        Some((plug, plug.other()))
    }

    /// The partition's channel at this end.
    pub fn owner(&self, plug: Plug) -> Option<ChannelId> {
        self.links.get(plug.link()).and_then(|link| link.ends[plug.side()])
    }

    fn ring(&self, sender: Plug) -> Option<&Ring> {
        self.links.get(sender.link()).map(|link| &link.rings[sender.side()])
    }

    fn ring_mut(&mut self, sender: Plug) -> Option<&mut Ring> {
        self.links.get_mut(sender.link()).map(|link| &mut link.rings[sender.side()])
    }

    /// Sends from this end; returns how many bytes there was room for.
    pub fn send(&mut self, plug: Plug, from: &[u8]) -> usize {
        self.ring_mut(plug).map_or(0, |ring| ring.write(from))
    }

    /// Receives at this end; returns how many bytes there were.
    pub fn receive(&mut self, plug: Plug, into: &mut [u8]) -> usize {
        self.ring_mut(plug.other()).map_or(0, |ring| ring.read(into))
    }

    /// Bytes that can be received at this end.
    pub fn available(&self, plug: Plug) -> usize {
        self.ring(plug.other()).map_or(0, |ring| ring.len)
    }

    /// Bytes that can be sent from this end.
    pub fn room(&self, plug: Plug) -> usize {
        self.ring(plug).map_or(0, |ring| RING_ROOM - ring.len)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::boxed::Box;
    use std::collections::VecDeque;
    use std::vec;
    use std::vec::Vec;

    #[test]
    fn a_full_ring_takes_no_more_and_what_is_read_makes_room() {
        let mut channels = Box::new(Channels::new());
        let (a, b) = channels.connect(None, None).unwrap();
        assert_eq!((channels.room(a), channels.available(b)), (4095, 0));
        assert_eq!(channels.send(a, &[7; 5000]), 4095);
        assert_eq!((channels.send(a, b"x"), channels.room(a), channels.available(b)), (0, 0, 4095));
        assert_eq!(channels.receive(b, &mut [0; 16]), 16);
        assert_eq!((channels.room(a), channels.available(b), channels.available(a)), (16, 4079, 0));
    }

    #[test]
    fn connections_are_limited() {
        let mut channels = Box::new(Channels::new());
        let id = ChannelId { partition: 1, channel: 2 };
        for _ in 0..MAX_LINKS {
            let (a, b) = channels.connect(Some(id), None).unwrap();
            assert_eq!((channels.owner(a), channels.owner(b)), (Some(id), None));
        }
        assert_eq!(channels.connect(None, None), None);
    }

    proptest! {
        #[test]
        fn what_is_sent_is_received_in_order_and_on_its_own_link(
            steps in prop::collection::vec((0usize..4, any::<bool>(), 0usize..3000), 1..60)
        ) {
            let mut channels = Box::new(Channels::new());
            let (first, second) = (channels.connect(None, None).unwrap(), channels.connect(None, None).unwrap());
            let plugs = [first.0, first.1, second.0, second.1];
            // What each end has sent and the other has not received.
            let mut models = [const { VecDeque::new() }; 4];
            let mut next = 0u8;
            for (end, sends, count) in steps {
                let other = end ^ 1;
                if sends {
                    let bytes: Vec<u8> = (0..count).map(|_| { next = next.wrapping_add(1); next }).collect();
                    let taken = channels.send(plugs[end], &bytes);
                    prop_assert_eq!(taken, count.min(4095 - models[end].len()));
                    models[end].extend(&bytes[..taken]);
                } else {
                    let mut bytes = vec![0; count];
                    let given = channels.receive(plugs[end], &mut bytes);
                    let want: Vec<u8> = models[other].drain(..count.min(models[other].len())).collect();
                    prop_assert_eq!(&bytes[..given], &want);
                }
                prop_assert_eq!(channels.available(plugs[other]), models[end].len());
                prop_assert_eq!(channels.room(plugs[end]), 4095 - models[end].len());
            }
        }
    }
}
