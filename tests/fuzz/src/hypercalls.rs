//! Three guests and someone at the serial line who ask the hypervisor for anything, in any order.
//!
//! A hypercall changes its results and nothing else in the registers; no partition's state changes but by itself or
//! its manager; doorbells stay at home; bytes arrive once, in order, and only at the other end of their channel.

use std::collections::VecDeque;

use citrine_core::config::{
    Channel, ChannelEnd, ChannelId, Config, Console, CpuRange, Hypervisor as HypervisorConfig, Managed, Partition,
};
use citrine_core::handles::{self, Local};
use citrine_core::hypervisor::{Hypervisor, LoadFailed, Order, Requester, Start, State, Who};
use citrine_core::machine::CpuSet;
use citrine_core::shell::{Request, Shell};
use citrine_formats::addr::{GuestPhys, Span};
use citrine_formats::mux::{Decoder, Event};

use crate::input::Input;

const PARTITIONS: usize = 3;
const LINUX1: usize = 0;
const LINUX2: usize = 1;
/// What each CPU is.
const VCPUS: [Who; 4] = [
    Who { partition: LINUX1, vcpu: 0 },
    Who { partition: LINUX1, vcpu: 1 },
    Who { partition: LINUX2, vcpu: 0 },
    Who { partition: 2, vcpu: 0 },
];
/// The channels of the serial line: the console's, then each partition's.
pub const CHANNELS: [u8; 4] = [0, 1, 2, 31];

/// Of each vendor what there is, the numbers around it, and vendors that there are not.
const TOKENS: [u32; 18] = [
    0x1_0001,
    0x1_0002,
    0x1_0003,
    0x1_0004,
    0x1_0005,
    0x1_0006,
    0x1_0007,
    0x1_0009,
    0x1_000a,
    0x2_0004,
    0x2_0005,
    0x2_0006,
    0x2_0007,
    0x1_0008,
    0x2_0001,
    0x8001_0001,
    0,
    0xffff_0003,
];
const SEND: u32 = 0x1_0001;
const RECEIVE: u32 = 0x1_0002;
/// Handles of everything, their neighbours, and counts.
const ARGUMENTS: [u32; 20] = [
    0,
    1,
    2,
    15,
    16,
    17,
    !0,
    Local::Channel(0).number(),
    Local::Channel(1).number(),
    Local::Channel(2).number(),
    Local::Receive(0).number(),
    Local::Receive(1).number(),
    Local::Transmit(0).number(),
    Local::Transmit(1).number(),
    handles::partition(0),
    handles::partition(1),
    handles::partition(2),
    handles::partition(3),
    handles::LIMIT,
    0x100,
];
/// Longest run of bytes typed in one step.
const MAX_TYPED: usize = 32;

fn partition(name: &'static str, first: u32, count: u32, ends: &[ChannelEnd<'static>]) -> Partition<'static> {
    Partition {
        name,
        cpus: [CpuRange { first, count }].into_iter().collect(),
        memory: Default::default(),
        dtb_window: Span::new(GuestPhys(0x100_0000), 0x2_0000).expect("it does not wrap around"),
        guest_image: None,
        rootfs: None,
        images: Default::default(),
        channels: ends.iter().map(|end| Channel { name: "bc", end: *end }).collect(),
        managed: Default::default(),
        devices: 0,
        starts: true,
        slow_traps: false,
    }
}

/// The first two partitions talk to each other, and the first manages the second; the third is alone.
pub fn config() -> Config<'static> {
    let mux = |channel| ChannelEnd::Mux { device: "serial0", channel };
    let peer = |partition| ChannelEnd::Peer(ChannelId { partition, channel: 1 });
    let mut first = partition("linux1", 0, 2, &[mux(1), peer(LINUX2)]);
    first.managed.push(Managed { name: "second", partition: LINUX2 });
    let second = partition("linux2", 2, 1, &[mux(2), peer(LINUX1)]);
    let third = partition("third", 3, 1, &[mux(31), ChannelEnd::Open]);
    Config {
        areas: Default::default(),
        hypervisor: HypervisorConfig {
            memory: Default::default(),
            console: Some(Console { device: "serial0", mux_channel: Some(0) }),
        },
        partitions: [first, second, third].into_iter().collect(),
    }
}

/// The hypervisor after its start.
pub fn hypervisor(config: &Config<'static>) -> Box<Hypervisor<'static>> {
    let mut hv = Box::new(Hypervisor::new());
    hv.init(config, CpuSet::first(4), true);
    hv
}

struct World {
    hv: Box<Hypervisor<'static>>,
    shell: Shell,
    /// Which CPUs execute their guest.
    inside: [bool; 4],
    /// What the hypervisor takes from the line, and sends on it.
    line_in: Decoder,
    line_out: Decoder,
    /// Bytes on their way, by partition: typed for it, sent by it to the line, sent to it by its peer.
    typed: [VecDeque<u8>; PARTITIONS],
    sent: [VecDeque<u8>; PARTITIONS],
    peer: [VecDeque<u8>; PARTITIONS],
    done: usize,
}

/// Runs the target.
pub fn run(data: &[u8]) -> usize {
    let mut hv = hypervisor(&config());
    hv.start_all();
    let mut world = World {
        hv,
        shell: Shell::new(),
        inside: [false; 4],
        line_in: Decoder::new(0),
        line_out: Decoder::new(0),
        typed: Default::default(),
        sent: Default::default(),
        peer: Default::default(),
        done: 0,
    };
    // The line begins in a known state.
    world.type_in(&[0x18, b'0']);
    (0..4).for_each(|cpu| world.mail(cpu, true));
    let mut input = Input::new(data);
    while world.step(&mut input).is_some() {}
    world.drain(usize::MAX);
    world.done
}

impl World {
    fn states(&self) -> [Option<State>; PARTITIONS] {
        [0, 1, 2].map(|partition| self.hv.state(partition))
    }

    fn step(&mut self, input: &mut Input<'_>) -> Option<()> {
        let step = input.byte()?;
        let cpu = usize::from(step >> 4 & 3);
        let who = VCPUS[cpu];
        match step % 12 {
            0..=4 => self.hypercall(input, cpu)?,
            5 => {
                let len = input.below(MAX_TYPED)?;
                let bytes = input.bytes(len);
                self.type_in(bytes);
            }
            6 => {
                let most = input.byte()?.into();
                self.drain(most);
            }
            7 => {
                let message = u32::from(input.byte()?) << 24 | u32::from(input.byte()?);
                self.hv.kicks();
                if self.inside[cpu] {
                    self.hv.doorbell(who, message);
                }
                let told = self.hv.kicks();
                let foreign = (0..4).find(|cpu| told.contains(*cpu as u32) && VCPUS[*cpu].partition != who.partition);
                assert_eq!(foreign, None, "{message:#x} by {who:?}");
            }
            8 => {
                let loads = input.byte()? & 7 != 0;
                self.mail(cpu, loads);
            }
            9 => {
                let taken = self.hv.external(who);
                assert!(taken.is_some() || !self.hv.is_external_pending(who), "{who:?}");
            }
            10 => self.poll_shell(input)?,
            _ => {
                let before = self.states();
                _ = match input.byte()? % 5 {
                    0 => self.hv.stop(who.partition, Requester::Watchdog { vcpu: who.vcpu }),
                    1 => self.hv.restart(who.partition, Requester::Shell),
                    2 => self.hv.start(who.partition, Start::Images),
                    3 => self.hv.start_again(who.partition),
                    _ => self.hv.stop(who.partition + 9, Requester::Own),
                };
                self.only(&[who.partition], before);
            }
        }
        Some(())
    }

    /// No other partition's state has changed.
    fn only(&self, may: &[usize], before: [Option<State>; PARTITIONS]) {
        let after = self.states();
        let changed = (0..PARTITIONS).find(|index| !may.contains(index) && before[*index] != after[*index]);
        assert_eq!(changed, None, "{before:?} became {after:?}");
    }

    fn hypercall(&mut self, input: &mut Input<'_>, cpu: usize) -> Option<()> {
        let who = VCPUS[cpu];
        let mut gpr = [0xdead_0000; 32];
        gpr[11] = input.word(&TOKENS)?;
        let count = input.below(7)?;
        for register in gpr.iter_mut().skip(3).take(count) {
            *register = input.word(&ARGUMENTS)?;
        }
        if !self.inside[cpu] {
            return Some(());
        }
        let (before, states) = (gpr, self.states());
        self.hv.hypercall(who, &mut gpr);
        assert_eq!((&gpr[..3], &gpr[9..]), (&before[..3], &before[9..]), "{:#x}", before[11]);
        assert!(matches!(gpr[3], 0 | 4 | 8 | 11 | 12), "{:#x} returns {}", before[11], gpr[3]);
        self.only(if who.partition == LINUX1 { &[LINUX1, LINUX2] } else { &VCPU_OWN[who.partition] }, states);
        if gpr[3] == 0 {
            self.done += 1;
            // Vendor 0 is ePAPR's as well.
            match before[11] & 0x7fff_ffff | 0x1_0000 {
                SEND if before[11] >> 16 & 0x7ffe == 0 => self.has_sent(who.partition, &before, gpr[4]),
                RECEIVE if before[11] >> 16 & 0x7ffe == 0 => self.has_received(who.partition, &before, &gpr),
                _ => {}
            }
        }
        Some(())
    }

    fn has_sent(&mut self, partition: usize, arguments: &[u32; 32], taken: u32) {
        assert!(taken <= arguments[4].min(16), "{taken} of {}", arguments[4]);
        let bytes = arguments[5..9].iter().flat_map(|word| word.to_be_bytes()).take(taken as usize);
        match (arguments[3] == Local::Channel(0).number(), partition) {
            (true, _) => self.sent[partition].extend(bytes),
            (false, LINUX1) => self.peer[LINUX2].extend(bytes),
            (false, LINUX2) => self.peer[LINUX1].extend(bytes),
            (false, _) => {}
        }
    }

    fn has_received(&mut self, partition: usize, arguments: &[u32; 32], results: &[u32; 32]) {
        let count = results[4];
        assert!(count <= arguments[4].min(16), "{count} of {}", arguments[4]);
        let first = arguments[3] == Local::Channel(0).number();
        let queue = if first { &mut self.typed[partition] } else { &mut self.peer[partition] };
        for byte in results[5..9].iter().flat_map(|word| word.to_be_bytes()).take(count as usize) {
            assert_eq!(queue.pop_front(), Some(byte), "partition {partition}");
        }
    }

    fn type_in(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let before = self.hv.discarded();
            self.hv.receive(*byte);
            let Some(Event::Data { channel, byte }) = self.line_in.push(*byte) else { continue };
            let index = CHANNELS.iter().position(|known| *known == channel);
            assert!(index.is_some() || self.hv.discarded() > before, "channel {channel} is nobody's");
            if let (Some(partition), true) = (index.and_then(|i| i.checked_sub(1)), self.hv.discarded() == before) {
                self.typed[partition].push_back(byte);
            }
        }
    }

    /// What the line carries, at most so many bytes.
    fn drain(&mut self, most: usize) {
        for _ in 0..most {
            let Some(byte) = self.hv.transmit() else { break };
            match self.line_out.push(byte) {
                Some(Event::Data { channel, byte }) => match CHANNELS.iter().position(|known| *known == channel) {
                    Some(0) => {}
                    Some(index) => assert_eq!(self.sent[index - 1].pop_front(), Some(byte), "channel {channel}"),
                    None => panic!("channel {channel} is not attached"),
                },
                Some(Event::Error(byte)) => panic!("bad framing: {byte:#x}"),
                Some(Event::Reset) | None => {}
            }
        }
    }

    /// A CPU looks for its mail, and does what it says; loading fails or not.
    fn mail(&mut self, cpu: usize, loads: bool) {
        let who = VCPUS[cpu];
        match self.hv.mail(cpu as u32).order {
            Some(Order::Load(_)) => {
                assert_eq!(who.vcpu, 0, "only virtual CPU 0 loads");
                assert!(!self.inside[cpu], "loaded while it runs");
                let entry = if loads { Ok(GuestPhys(0x40)) } else { Err(LoadFailed) };
                self.inside[cpu] = self.hv.loaded(who, entry);
            }
            Some(Order::Release) => {
                assert!(!self.inside[cpu], "released while it runs");
                self.inside[cpu] = true;
            }
            Some(Order::Stop) => {
                self.inside[cpu] = false;
                self.hv.stopped(who);
            }
            None => {}
        }
        let stopped = |partition| self.hv.state(partition) == Some(State::Stopped);
        assert!(!self.inside[cpu] || !stopped(who.partition), "{who:?} runs in a stopped partition");
    }

    /// The shell goes on; what it asks for is there or not.
    fn poll_shell(&mut self, input: &mut Input<'_>) -> Option<()> {
        match self.shell.poll(&mut self.hv) {
            Some(Request::GuestMemory { partition, len, .. }) => {
                assert!(partition < PARTITIONS && len <= 256, "partition {partition}, {len} bytes");
                let bytes = [0x41; 256];
                let some = input.byte()? & 3 != 0;
                self.shell.guest_memory(&mut self.hv, some.then_some(&bytes[..len]));
            }
            Some(Request::GuestTree { partition }) => {
                assert!(partition < PARTITIONS, "partition {partition}");
                let lines = usize::from(input.byte()?) * 8;
                self.shell.guest_tree(&mut self.hv, |out| (0..lines).try_for_each(|_| out.write_str("    node;\n")));
            }
            None => {}
        }
        Some(())
    }
}

/// Each partition by itself.
const VCPU_OWN: [[usize; 1]; PARTITIONS] = [[0], [1], [2]];
