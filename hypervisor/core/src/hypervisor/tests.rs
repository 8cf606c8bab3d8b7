//! Three partitions on one serial line: two of them talk to each other, and the first one manages the second.

extern crate std;
use core::fmt::Write as _;
use std::boxed::Box;
use std::string::String;
use std::vec::Vec;

use citrine_formats::addr::Span;
use citrine_formats::mux;

use super::*;
use crate::config::{
    Channel, ChannelEnd, ChannelId, Config, Console as ConsoleConfig, CpuRange, Managed, Partition as PartitionConfig,
};
use crate::handles::{self, Local};

mod hypercalls;
mod lines;

const LINUX1: usize = 0;
const LINUX2: usize = 1;
const THIRD: usize = 2;
/// The boot CPUs of the partitions: 0 and 1 are the first one's.
const CPUS: [u32; 3] = [0, 2, 3];

const SEND: u32 = 0x1_0001;
const RECEIVE: u32 = 0x1_0002;
const POLL: u32 = 0x1_0003;
const SET_CONFIG: u32 = 0x1_0004;
const GET_CONFIG: u32 = 0x1_0005;
const SET_MASK: u32 = 0x1_0006;
const GET_MASK: u32 = 0x1_0007;
const IACK: u32 = 0x1_0009;
const EOI: u32 = 0x1_000a;
const RESTART: u32 = 0x2_0004;
const GET_STATUS: u32 = 0x2_0005;
const START: u32 = 0x2_0006;
const STOP: u32 = 0x2_0007;

const CHANNEL: u32 = Local::Channel(0).number();
const RX: u32 = Local::Receive(0).number();
const TX: u32 = Local::Transmit(0).number();
const PEER: u32 = Local::Channel(1).number();
const PEER_RX: u32 = Local::Receive(1).number();
const PEER_TX: u32 = Local::Transmit(1).number();

fn partition(name: &'static str, first: u32, count: u32, ends: &[ChannelEnd<'static>]) -> PartitionConfig<'static> {
    PartitionConfig {
        name,
        cpus: [CpuRange { first, count }].into_iter().collect(),
        memory: Default::default(),
        dtb_window: Span::new(GuestPhys(0x100_0000), 0x20000).unwrap(),
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

fn config() -> Config<'static> {
    let mux = |channel| ChannelEnd::Mux { device: "serial0", channel };
    let peer = |partition| ChannelEnd::Peer(ChannelId { partition, channel: 1 });
    let mut first = partition("linux1", 0, 2, &[mux(1), peer(LINUX2)]);
    first.managed.push(Managed { name: "second", partition: LINUX2 });
    let second = partition("linux2", 2, 1, &[mux(2), peer(LINUX1)]);
    let third = partition("third", 3, 1, &[mux(31), ChannelEnd::Open]);
    Config {
        areas: Default::default(),
        hypervisor: crate::config::Hypervisor {
            memory: Default::default(),
            console: Some(ConsoleConfig { device: "serial0", mux_channel: Some(0) }),
        },
        partitions: [first, second, third].into_iter().collect(),
    }
}

fn hypervisor(config: &Config<'static>, external_proxy: bool) -> Box<Hypervisor<'static>> {
    let mut hv = Box::new(Hypervisor::new());
    hv.init(config, CpuSet::first(4), external_proxy);
    hv
}

/// All partitions have been started, and the head of the serial line has been read.
fn running(external_proxy: bool) -> Box<Hypervisor<'static>> {
    let mut hv = hypervisor(&config(), external_proxy);
    hv.start_all();
    for cpu in CPUS {
        assert_eq!(hv.mail(cpu).order, Some(Order::Load(Start::Images)));
        let who = hv.who(cpu).unwrap();
        assert!(hv.loaded(who, Ok(GuestPhys(0))));
    }
    assert_eq!(hv.mail(1), Mail { order: Some(Order::Release), ..Mail::default() });
    line(&mut hv);
    hv.kicks();
    hv
}

fn boot(partition: usize) -> Who {
    Who { partition, vcpu: 0 }
}

/// A hypercall of a partition's virtual CPU 0: the status, and r4 to r8.
fn call(hv: &mut Hypervisor<'_>, partition: usize, token: u32, arguments: &[u32]) -> (u32, [u32; 5]) {
    let mut gpr = [0xdead_0000; 32];
    gpr[11] = token;
    gpr[3..3 + arguments.len()].copy_from_slice(arguments);
    let before = gpr;
    hv.hypercall(boot(partition), &mut gpr);
    assert_eq!((&gpr[..3], &gpr[9..]), (&before[..3], &before[9..]), "{token:#x} changes more than its results");
    (gpr[3], [gpr[4], gpr[5], gpr[6], gpr[7], gpr[8]])
}

/// Sends up to 16 bytes: the status, and how many were taken.
fn send(hv: &mut Hypervisor<'_>, partition: usize, channel: u32, bytes: &[u8]) -> (u32, u32) {
    let mut padded = [0; 16];
    padded[..bytes.len()].copy_from_slice(bytes);
    let words: Vec<u32> = padded.chunks(4).map(|word| u32::from_be_bytes(word.try_into().unwrap())).collect();
    let count = bytes.len() as u32;
    let (status, [taken, ..]) = call(hv, partition, SEND, &[channel, count, words[0], words[1], words[2], words[3]]);
    (status, taken)
}

/// Receives up to 16 bytes.
fn receive(hv: &mut Hypervisor<'_>, partition: usize, channel: u32) -> Vec<u8> {
    let (status, [count, words @ ..]) = call(hv, partition, RECEIVE, &[channel, 99]);
    assert_eq!(status, 0);
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
    assert!(bytes[count as usize..].iter().all(|byte| *byte == 0));
    bytes[..count as usize].to_vec()
}

/// What the serial line carries until it is quiet.
fn line(hv: &mut Hypervisor<'_>) -> Vec<u8> {
    let mut sent = Vec::new();
    while hv.has_output() {
        sent.push(hv.transmit().unwrap());
    }
    assert_eq!(hv.transmit(), None);
    sent
}

fn type_in(hv: &mut Hypervisor<'_>, bytes: &[u8]) {
    bytes.iter().for_each(|byte| hv.receive(*byte));
}

#[test]
fn it_is_small_enough() {
    assert!(size_of::<Hypervisor<'_>>() < 512 << 10);
}

#[test]
fn partitions_start_when_their_cpus_are_there() {
    let mut config = config();
    config.partitions[THIRD].starts = false;
    let mut hv = Box::new(Hypervisor::new());
    hv.init(&config, [0, 2, 3].into_iter().collect(), true);
    hv.start_all();
    let states: Vec<State> = hv.partitions().map(|partition| partition.state).collect();
    assert_eq!(states, [State::Stopped, State::Starting, State::Starting]);
    assert_eq!(hv.kicks(), [2, 3].into_iter().collect());
    assert_eq!(hv.mail(0), Mail::default());
    assert_eq!(hv.mail(3).order, Some(Order::Load(Start::LoadOnly)));
    assert!(!hv.loaded(boot(THIRD), Ok(GuestPhys(0x40))));
    assert_eq!(hv.start_again(THIRD), Ok(()));
    assert_eq!(hv.mail(3).order, Some(Order::Load(Start::Entry(GuestPhys(0x40)))));
    assert_eq!((hv.who(1), hv.who(4)), (Some(Who { partition: LINUX1, vcpu: 1 }), None));
    assert_eq!((hv.cpu(boot(LINUX2)), hv.cpu(boot(9))), (Some(2), None));
}

#[test]
fn a_restart_takes_all_cpus_and_resets_the_interrupts() {
    let mut hv = running(true);
    assert_eq!(call(&mut hv, LINUX1, SET_MASK, &[TX, 0]).0, 0);
    assert!(hv.is_external_pending(boot(LINUX1)));
    hv.doorbell(boot(LINUX1), 1 << 26);
    hv.kicks();
    assert_eq!(call(&mut hv, LINUX1, RESTART, &[handles::SELF]).0, 0);
    assert_eq!((hv.state(LINUX1), hv.kicks()), (Some(State::Stopping), CpuSet::first(2)));
    assert_eq!(hv.mail(1).order, Some(Order::Stop));
    hv.stopped(Who { partition: LINUX1, vcpu: 1 });
    assert_eq!(hv.state(LINUX1), Some(State::Stopping));
    assert_eq!(hv.mail(0).order, Some(Order::Stop));
    hv.doorbell(boot(LINUX1), 1 << 26);
    hv.stopped(boot(LINUX1));
    assert_eq!(hv.state(LINUX1), Some(State::Starting));
    assert!(hv.kicks().contains(0));
    // Neither the doorbell nor the unmasked interrupt of the life before.
    assert_eq!(hv.mail(0), Mail { order: Some(Order::Load(Start::Images)), ..Mail::default() });
    let stop = hv.last_stop(LINUX1).unwrap();
    assert_eq!(std::format!("{} {}", stop.by, stop.reason), "self restart");
    assert_eq!(hv.last_stop(LINUX2), None);
    assert!(String::from_utf8(line(&mut hv)).unwrap().contains("[0] guest linux1 stopped: restart (self)\r\n"));
}

#[test]
fn doorbells_stay_in_the_partition() {
    let mut hv = running(true);
    hv.doorbell(boot(LINUX1), 1);
    assert_eq!(hv.kicks(), [1].into_iter().collect());
    assert_eq!(hv.mail(1), Mail { doorbell: true, ..Mail::default() });
    assert_eq!(hv.mail(1), Mail::default());
    hv.doorbell(boot(LINUX1), 1 << 27 | 1 << 26);
    for cpu in [0, 1] {
        assert_eq!(hv.mail(cpu), Mail { critical_doorbell: true, ..Mail::default() });
    }
    // No such virtual CPU; types for guests of a hypervisor.
    for message in [2, 2 << 27 | 1 << 26, 31 << 27 | 1 << 26] {
        hv.kicks();
        hv.doorbell(boot(LINUX1), message);
        assert!(hv.kicks().is_empty());
    }
    assert!((0..4).all(|cpu| hv.mail(cpu) == Mail::default()));
}

#[test]
fn two_partitions_talk() {
    let mut hv = running(true);
    assert_eq!(call(&mut hv, LINUX2, SET_MASK, &[PEER_RX, 0]).0, 0);
    assert_eq!(send(&mut hv, LINUX1, PEER, b"over to you"), (0, 11));
    assert_eq!(hv.kicks(), [2].into_iter().collect());
    assert!(hv.mail(2).external);
    assert_eq!(hv.external(boot(LINUX2)), Some(PEER_RX));
    assert_eq!(receive(&mut hv, LINUX2, PEER), b"over to you");
    assert_eq!(call(&mut hv, LINUX2, EOI, &[PEER_RX]).0, 0);
    assert!(!hv.is_external_pending(boot(LINUX2)));
    // The other way there is room all the time, and again when a full ring is read.
    while send(&mut hv, LINUX2, PEER, &[1; 16]).0 == 0 {}
    assert_eq!(call(&mut hv, LINUX2, SET_MASK, &[PEER_TX, 0]).0, 0);
    assert!(!hv.is_external_pending(boot(LINUX2)));
    assert_eq!(call(&mut hv, LINUX1, RECEIVE, &[PEER, 1]).1[..2], [1, 0x0100_0000]);
    assert_eq!(hv.external(boot(LINUX2)), Some(PEER_TX));
}

#[test]
fn the_console_can_be_a_partitions_channel() {
    let mut config = config();
    config.hypervisor.console = None;
    config.partitions[THIRD].channels[1].end = ChannelEnd::Console;
    let mut hv = hypervisor(&config, true);
    writeln!(hv.console(), "hello").unwrap();
    assert_eq!(receive(&mut hv, THIRD, PEER), b"hello\r\n");
    assert_eq!(send(&mut hv, THIRD, PEER, b"info"), (0, 4));
    assert_eq!((hv.console_read(), hv.console_read()), (Some(b'i'), Some(b'n')));
    // The line of the others is the one that they name.
    assert_eq!(send(&mut hv, LINUX1, CHANNEL, b"x"), (0, 1));
    assert_eq!(line(&mut hv), b"\x18\x01\x18\x01\x18\x01\x181x");
}

#[test]
fn the_log_keeps_its_end() {
    let mut hv = hypervisor(&config(), true);
    for number in 0..2000 {
        writeln!(hv.log(), "[0] line {number}").unwrap();
    }
    let kept: Vec<u8> = (hv.log_first()..hv.log_end()).map(|position| hv.log_at(position).unwrap()).collect();
    assert_eq!(kept.len(), 8192);
    assert!(kept.ends_with(b"[0] line 1998\n[0] line 1999\n"));
    assert_eq!((hv.log_at(hv.log_first() - 1), hv.log_at(hv.log_end())), (None, None));
}
