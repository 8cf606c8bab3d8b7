//! Bytes on their way: between the rings, the serial line, the console and the interrupts that tell of them.

use core::fmt::Write as _;

use super::Hypervisor;
use super::channel::{Plug, RING_ROOM};
use super::log::{Console, Log};
use super::pic::Source;
use super::uart_mux::{BATCH, Received};
use crate::config::ChannelId;

impl<'a> Hypervisor<'a> {
    pub(super) fn plug(&self, id: ChannelId) -> Option<Plug> {
        *self.partitions.get(id.partition)?.channels.get(id.channel)?
    }

    /// Sends from a partition's channel; returns how many bytes were taken. A channel that leads nowhere takes
    /// all: a guest whose console is not connected must not wait for it.
    pub(super) fn send(&mut self, partition: usize, channel: usize, bytes: &[u8]) -> usize {
        let plug = self.plug(ChannelId { partition, channel });
        plug.map_or(bytes.len(), |plug| self.send_plug(plug, bytes))
    }

    /// Receives at a partition's channel; returns how many bytes there were.
    pub(super) fn receive_from(&mut self, partition: usize, channel: usize, into: &mut [u8]) -> usize {
        let plug = self.plug(ChannelId { partition, channel });
        plug.map_or(0, |plug| self.receive_plug(plug, into))
    }

    /// Bytes that a partition's channel can receive, and those that it can send.
    pub(super) fn poll(&self, partition: usize, channel: usize) -> (usize, usize) {
        let plug = self.plug(ChannelId { partition, channel });
        plug.map_or((0, RING_ROOM), |plug| (self.channels.available(plug), self.channels.room(plug)))
    }

    fn send_plug(&mut self, plug: Plug, bytes: &[u8]) -> usize {
        let was_empty = self.channels.available(plug.other()) == 0;
        let sent = self.channels.send(plug, bytes);
        if was_empty || self.channels.room(plug) == 0 {
            self.refresh_ends(plug);
        }
        sent
    }

    fn receive_plug(&mut self, plug: Plug, into: &mut [u8]) -> usize {
        let was_full = self.channels.room(plug.other()) == 0;
        let received = self.channels.receive(plug, into);
        if was_full || self.channels.available(plug) == 0 {
            self.refresh_ends(plug);
        }
        received
    }

    /// The interrupts at both ends follow what is in the rings: whether one is empty or full.
    fn refresh_ends(&mut self, plug: Plug) {
        for id in [plug, plug.other()].map(|plug| self.channels.owner(plug)).into_iter().flatten() {
            self.refresh(id);
        }
    }

    pub(super) fn refresh(&mut self, id: ChannelId) {
        let ChannelId { partition, channel } = id;
        let (available, room) = self.poll(partition, channel);
        for (source, count) in [(Source::Receive(channel), available), (Source::Transmit(channel), room)] {
            // The partition exists, and a line always can be set.
            _ = self.with_pic(partition, |pic| Ok(pic.set_line(source, count > 0)));
        }
    }

    /// Takes a byte from the serial line.
    pub fn receive(&mut self, byte: u8) {
        match self.mux.receive(byte) {
            Received::Nothing => {}
            Received::Data(plug, byte) => {
                if self.send_plug(plug, &[byte]) == 0 {
                    self.mux.discard();
                }
            }
            Received::BadCommand(command) => self.say(0, format_args!("bad command {command} on the serial line")),
        }
    }

    /// The next bytes for the serial line; returns how many. Less than there is room for: these are all.
    pub fn transmit_into(&mut self, into: &mut [u8]) -> usize {
        let mut count = 0;
        while let Some(rest) = into.get_mut(count..).filter(|rest| !rest.is_empty()) {
            let framed = self.mux.framed(rest);
            count += framed;
            if framed > 0 {
                continue;
            }
            let Some(plug) = self.mux.next(|plug| self.channels.available(plug) > 0) else { break };
            let mut bytes = [0; BATCH];
            let received = self.receive_plug(plug, &mut bytes);
            self.mux.take(bytes, received);
        }
        count
    }

    /// The next byte for the serial line.
    pub fn transmit(&mut self) -> Option<u8> {
        let mut byte = [0];
        (self.transmit_into(&mut byte) == 1).then_some(byte[0])
    }

    /// Whether there is a byte for the serial line.
    pub fn has_output(&self) -> bool {
        self.mux.has_output(|plug| self.channels.available(plug) > 0)
    }

    /// Bytes from the serial line that could not be delivered.
    pub const fn discarded(&self) -> u32 {
        self.mux.discarded()
    }

    /// The console without the log, for the shell.
    pub const fn console(&mut self) -> Console<'_, 'a> {
        Console(self)
    }

    /// The log; a line in it begins with the CPU's number in brackets.
    pub const fn log(&mut self) -> Log<'_, 'a> {
        Log(self)
    }

    pub(super) fn say(&mut self, cpu: u32, what: core::fmt::Arguments<'_>) {
        // Writing to the log cannot fail.
        _ = writeln!(self.log(), "[{cpu}] {what}");
    }

    pub(super) fn write_console(&mut self, bytes: &[u8]) {
        if let Some(plug) = self.console {
            self.send_plug(plug, bytes);
        }
    }

    /// Bytes that the console has room for.
    pub fn console_room(&self) -> usize {
        self.console.map_or(0, |plug| self.channels.room(plug))
    }

    /// A byte that has been typed at the console.
    pub fn console_read(&mut self) -> Option<u8> {
        let mut byte = [0];
        let count = self.receive_plug(self.console?, &mut byte);
        (count > 0).then_some(byte[0])
    }

    /// Position of the oldest byte of the log that is kept.
    pub const fn log_first(&self) -> u64 {
        self.log.first()
    }

    /// Position behind the newest byte of the log.
    pub const fn log_end(&self) -> u64 {
        self.log.end()
    }

    /// A byte of the log; positions count all bytes that have ever been written.
    pub fn log_at(&self, position: u64) -> Option<u8> {
        self.log.at(position)
    }
}
