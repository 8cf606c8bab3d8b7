//! Hypercalls: every status, every right, and whatever a hostile guest may send.

use super::*;
use proptest::prelude::*;
use std::format;

#[test]
fn every_mistake_has_its_status() {
    let mut hv = running(true);
    let own = handles::SELF;
    let cases: &[(u32, &[u32], u32)] = &[
        // Byte channels: a handle of another kind, of no kind, a count too large.
        (SEND, &[RX, 1], 8),
        (SEND, &[0, 1], 8),
        (SEND, &[Local::Channel(2).number(), 1], 8),
        (SEND, &[CHANNEL, 17], 8),
        (SEND, &[CHANNEL, u32::MAX], 8),
        (SEND, &[CHANNEL, 0], 0),
        (RECEIVE, &[TX, 1], 8),
        (RECEIVE, &[CHANNEL, u32::MAX], 0),
        (POLL, &[u32::MAX], 8),
        // Interrupts: a handle that is none, a virtual CPU that does not exist, an end without a beginning.
        (SET_CONFIG, &[CHANNEL, 0, 8, 0], 8),
        (SET_CONFIG, &[RX, 0, 8, 2], 8),
        (SET_CONFIG, &[RX, u32::MAX, u32::MAX, 1], 0),
        (GET_CONFIG, &[63], 8),
        (SET_MASK, &[1023, 0], 8),
        (GET_MASK, &[1024], 8),
        (EOI, &[RX], 11),
        (EOI, &[CHANNEL], 8),
        // Interrupts are acknowledged when they are taken; and the argument must be 0.
        (IACK, &[0], 11),
        (IACK, &[1], 8),
        // Partitions: the running one cannot be started; 0 and 3 are not managed, 2 is.
        (START, &[own, 0, 1], 11),
        (START, &[1, 0, 0], 11),
        (GET_STATUS, &[0], 8),
        (GET_STATUS, &[3], 8),
        (GET_STATUS, &[25], 8),
        (STOP, &[3], 8),
        (RESTART, &[u32::MAX - 1], 8),
        (START, &[2, 0, 0], 11),
    ];
    for (token, arguments, status) in cases {
        assert_eq!(call(&mut hv, LINUX1, *token, arguments).0, *status, "{token:#x} {arguments:x?}");
    }
    let none: Vec<u32> = [0, 8, 11, 12, 13, 14, 15, 16, 17, 0xffff].into_iter().collect();
    for number in none {
        assert_eq!(call(&mut hv, LINUX1, 0x1_0000 | number, &[0]).0, 12);
    }
    for number in [0, 1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 0xffff] {
        assert_eq!(call(&mut hv, LINUX1, 0x2_0000 | number, &[own]).0, 12);
    }
}

#[test]
fn vendors_are_taken_as_topaz_takes_them() {
    let mut hv = running(true);
    // Vendor 0 is ePAPR's, the top bit is not looked at, every other vendor is Freescale's.
    for vendor in [0, 1, 0x8000, 0x8001] {
        assert_eq!(call(&mut hv, LINUX1, vendor << 16 | 3, &[CHANNEL]).1[..2], [0, 4095]);
    }
    for vendor in [2, 3, 42, 0x7fff, 0x8002] {
        assert_eq!(
            call(&mut hv, LINUX1, vendor << 16 | 5, &[handles::SELF]),
            (0, [1, 0xdead_0000, 0xdead_0000, 0xdead_0000, 0xdead_0000])
        );
    }
}

#[test]
fn what_is_set_is_read_back() {
    let mut hv = running(true);
    assert_eq!(call(&mut hv, LINUX1, GET_CONFIG, &[RX]).1[..3], [3, 8, 0]);
    assert_eq!(call(&mut hv, LINUX1, SET_CONFIG, &[RX, 2, 5, 1]).0, 0);
    assert_eq!(call(&mut hv, LINUX1, GET_CONFIG, &[RX]).1[..3], [2, 5, 1]);
    assert_eq!(call(&mut hv, LINUX1, GET_CONFIG, &[TX]).1[..3], [3, 8, 0]);
    assert_eq!(call(&mut hv, LINUX1, GET_MASK, &[RX]).1[0], 1);
    assert_eq!(call(&mut hv, LINUX1, SET_MASK, &[RX, 0]).0, 0);
    assert_eq!(call(&mut hv, LINUX1, GET_MASK, &[RX]).1[0], 0);
    assert_eq!(call(&mut hv, LINUX2, GET_MASK, &[RX]).1[0], 1);
}

#[test]
fn a_partial_send_succeeds_and_a_full_channel_says_again() {
    let mut hv = running(true);
    for _ in 0..255 {
        assert_eq!(send(&mut hv, LINUX1, CHANNEL, &[7; 16]), (0, 16));
    }
    assert_eq!(send(&mut hv, LINUX1, CHANNEL, &[7; 16]), (0, 15));
    assert_eq!(send(&mut hv, LINUX1, CHANNEL, &[7; 16]), (4, 0));
    assert_eq!(send(&mut hv, LINUX1, CHANNEL, &[]), (0, 0));
    assert_eq!(call(&mut hv, LINUX1, POLL, &[CHANNEL]).1[..2], [0, 0]);
}

#[test]
fn without_external_proxy_the_guest_acknowledges() {
    let mut hv = running(false);
    assert_eq!(call(&mut hv, LINUX1, IACK, &[0]).1[0], 0xffff);
    assert_eq!((hv.external(boot(LINUX1)), call(&mut hv, LINUX1, IACK, &[7]).0), (None, 8));
    assert_eq!(call(&mut hv, LINUX1, SET_MASK, &[TX, 0]).0, 0);
    // Taking the interrupt acknowledges nothing.
    assert_eq!((hv.external(boot(LINUX1)), hv.external(boot(LINUX1))), (Some(0xffff), Some(0xffff)));
    assert_eq!(call(&mut hv, LINUX1, IACK, &[0]), (0, [TX, 0xdead_0000, 0xdead_0000, 0xdead_0000, 0xdead_0000]));
    assert_eq!((hv.external(boot(LINUX1)), call(&mut hv, LINUX1, IACK, &[0]).1[0]), (None, 0xffff));
    assert_eq!(call(&mut hv, LINUX1, EOI, &[TX]).0, 0);
    assert!(hv.is_external_pending(boot(LINUX1)));
}

#[test]
fn a_manager_controls_its_partition_and_nobody_else_does() {
    let mut hv = running(true);
    let second = handles::partition(LINUX2 as u32);
    assert_eq!(call(&mut hv, THIRD, STOP, &[second]).0, 8);
    assert_eq!(call(&mut hv, LINUX2, STOP, &[handles::partition(LINUX1 as u32)]).0, 8);
    assert_eq!(call(&mut hv, LINUX1, STOP, &[second]).0, 0);
    assert_eq!(call(&mut hv, LINUX1, GET_STATUS, &[second]).1[0], 3);
    assert_eq!(call(&mut hv, LINUX1, STOP, &[second]).0, 11);
    assert_eq!(hv.mail(2).order, Some(Order::Stop));
    hv.stopped(boot(LINUX2));
    assert_eq!(call(&mut hv, LINUX1, GET_STATUS, &[second]).1[0], 0);
    assert_eq!(call(&mut hv, LINUX1, RESTART, &[second]).0, 11);
    assert_eq!(call(&mut hv, LINUX1, START, &[second, 0x1234, 0]).0, 0);
    assert_eq!(call(&mut hv, LINUX1, GET_STATUS, &[second]).1[0], 2);
    assert_eq!(hv.mail(2).order, Some(Order::Load(Start::Entry(GuestPhys(0x1234)))));
    assert!(hv.loaded(boot(LINUX2), Ok(GuestPhys(0x1234))));
    assert_eq!(call(&mut hv, LINUX1, GET_STATUS, &[second]).1[0], 1);
    let stop = hv.last_stop(LINUX2).unwrap();
    assert_eq!(format!("{} {}", stop.by, stop.reason), "manager stop");
    // A start that is refused changes nothing.
    assert_eq!(call(&mut hv, LINUX1, START, &[second, 0x666, 0]).0, 11);
    hv.stop(LINUX2, Requester::Shell).unwrap();
    assert_eq!(hv.mail(2).order, Some(Order::Stop));
    hv.stopped(boot(LINUX2));
    assert_eq!(hv.start_again(LINUX2), Ok(()));
    assert_eq!(hv.mail(2).order, Some(Order::Load(Start::Entry(GuestPhys(0x1234)))));
}

/// What happens to the hypervisor.
#[derive(Clone, Debug)]
enum Step {
    Call { partition: usize, vcpu: usize, token: u32, arguments: [u32; 8] },
    Type(u8),
    Transmit(u8),
    Mail(u32),
    External { partition: usize, vcpu: usize },
    Doorbell { partition: usize, vcpu: usize, message: u32 },
    Stopped { partition: usize, vcpu: usize },
    Loaded { partition: usize, vcpu: usize, good: bool },
}

fn argument() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 60u32..75, 3 => 0u32..20, 1 => Just(u32::MAX), 1 => any::<u32>()]
}

fn step() -> impl Strategy<Value = Step> {
    let token = prop_oneof![
        5 => (1u32..11).prop_map(|number| 1 << 16 | number),
        2 => (3u32..8).prop_map(|number| 2 << 16 | number),
        1 => any::<u32>(),
    ];
    let who = || (0..4usize, 0..3usize);
    prop_oneof![
        10 => (who(), token, prop::array::uniform8(argument())).prop_map(|((partition, vcpu), token, arguments)| {
            Step::Call { partition, vcpu, token, arguments }
        }),
        2 => any::<u8>().prop_map(Step::Type),
        1 => any::<u8>().prop_map(Step::Transmit),
        2 => (0u32..6).prop_map(Step::Mail),
        2 => who().prop_map(|(partition, vcpu)| Step::External { partition, vcpu }),
        1 => (who(), any::<u32>()).prop_map(|((partition, vcpu), message)| Step::Doorbell { partition, vcpu, message }),
        2 => who().prop_map(|(partition, vcpu)| Step::Stopped { partition, vcpu }),
        2 => (who(), any::<bool>()).prop_map(|((partition, vcpu), good)| Step::Loaded { partition, vcpu, good }),
    ]
}

/// What a guest can see of itself: its life; its interrupts and channels; those of the channel to a peer.
fn view(hv: &Hypervisor<'_>, partition: usize) -> [String; 3] {
    let own = &hv.partitions[partition];
    let life = format!("{:?} {:?} {:?}", own.life, own.doorbells, own.critical_doorbells);
    let channel = |channel: usize| {
        let sources = [Source::Receive(channel), Source::Transmit(channel)];
        let settings = sources.map(|source| (own.pic.settings(source), own.pic.is_masked(source)));
        format!("{:?} {settings:?}", hv.poll(partition, channel))
    };
    [life, channel(0), channel(1)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Nothing panics, and a guest reaches others only by a right or by a channel of which it has the other end.
    #[test]
    fn a_hostile_guest_stays_in_its_partition(steps in prop::collection::vec(step(), 1..120), proxy: bool) {
        let mut hv = running(proxy);
        for step in steps {
            let before: Vec<_> = (0..3).map(|partition| view(&hv, partition)).collect();
            let actor = match step {
                Step::Call { partition, vcpu, token, arguments } => {
                    let mut gpr = [0; 32];
                    gpr[3..11].copy_from_slice(&arguments);
                    gpr[11] = token;
                    hv.hypercall(Who { partition, vcpu }, &mut gpr);
                    prop_assert!([0, 4, 8, 9, 11, 12].contains(&gpr[3]), "status {}", gpr[3]);
                    Some(partition)
                }
                Step::External { partition, vcpu } => {
                    hv.external(Who { partition, vcpu });
                    Some(partition)
                }
                Step::Doorbell { partition, vcpu, message } => {
                    hv.doorbell(Who { partition, vcpu }, message);
                    Some(partition)
                }
                Step::Type(byte) => {
                    hv.receive(byte);
                    None
                }
                Step::Transmit(count) => {
                    (0..count).for_each(|_| _ = hv.transmit());
                    None
                }
                Step::Mail(cpu) => {
                    hv.mail(cpu);
                    None
                }
                Step::Stopped { partition, vcpu } => {
                    hv.stopped(Who { partition, vcpu });
                    None
                }
                Step::Loaded { partition, vcpu, good } => {
                    hv.loaded(Who { partition, vcpu }, if good { Ok(GuestPhys(0)) } else { Err(LoadFailed) });
                    None
                }
            };
            let Some(actor) = actor else { continue };
            for (other, before) in before.iter().enumerate().filter(|(other, _)| *other != actor) {
                let [life, console, channel] = view(&hv, other);
                prop_assert!(life == before[0] || (actor, other) == (LINUX1, LINUX2), "{actor} changes the life of {other}");
                prop_assert_eq!(&console, &before[1]);
                let connected = [(LINUX1, LINUX2), (LINUX2, LINUX1)].contains(&(actor, other));
                prop_assert!(channel == before[2] || connected, "{actor} changes a channel of {other}");
            }
        }
    }
}
