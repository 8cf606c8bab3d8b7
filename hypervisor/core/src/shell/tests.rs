//! Conversations at the hypervisor's console.

extern crate std;
use std::boxed::Box;
use std::string::String;
use std::vec::Vec;
use std::{format, vec};

use citrine_formats::addr::Span;
use proptest::prelude::*;

use super::*;
use crate::config::{Config, Console, CpuRange, Partition};
use crate::hypervisor::Who;
use crate::hypervisor::partition::{Order, Start};
use crate::machine::CpuSet;

/// A shell, two guests that run, and a serial line that is the console's alone.
struct Table {
    hv: Box<Hypervisor<'static>>,
    shell: Shell,
    /// What partition 0 has at 0x1000.
    memory: Vec<u8>,
    tree: String,
}

impl Table {
    fn new() -> Self {
        let partition = |name, first, count| Partition {
            name,
            cpus: [CpuRange { first, count }].into_iter().collect(),
            memory: Default::default(),
            dtb_window: Span::new(GuestPhys(0), 1).unwrap(),
            guest_image: None,
            rootfs: None,
            images: Default::default(),
            channels: Default::default(),
            managed: Default::default(),
            devices: 0,
            starts: true,
            slow_traps: false,
        };
        let config = Config {
            areas: Default::default(),
            hypervisor: crate::config::Hypervisor {
                memory: Default::default(),
                console: Some(Console { device: "serial0", mux_channel: None }),
            },
            partitions: [partition("p1-linux", 0, 7), partition("p2-linux", 7, 1)].into_iter().collect(),
        };
        let mut hv = Box::new(Hypervisor::new());
        hv.init(&config, CpuSet::first(8), true);
        hv.start_all();
        for partition in 0..2 {
            hv.mail(hv.cpu(Who { partition, vcpu: 0 }).unwrap());
            assert!(hv.loaded(Who { partition, vcpu: 0 }, Ok(GuestPhys(0))));
        }
        let memory = (0..=255).chain(*b"behind it").collect();
        Self { hv, shell: Shell::new(), memory, tree: String::from("/ {\n};\n") }
    }

    /// Lets the shell work, and the line carry away what it prints, until both are quiet.
    fn settle(&mut self) -> String {
        let mut sent = Vec::new();
        loop {
            while let Some(request) = self.shell.poll(&mut self.hv) {
                match request {
                    Request::GuestMemory { partition, at, len } => {
                        assert!(partition == 0 && len <= 256);
                        let bytes = at
                            .get()
                            .checked_sub(0x1000)
                            .and_then(|offset| self.memory.get(offset as usize..)?.get(..len));
                        self.shell.guest_memory(&mut self.hv, bytes);
                    }
                    Request::GuestTree { partition } => {
                        assert_eq!(partition, 1);
                        self.shell.guest_tree(&mut self.hv, |out| out.write_str(&self.tree));
                    }
                }
            }
            if !self.hv.has_output() {
                return String::from_utf8(sent).unwrap();
            }
            // A real line is slow: the shell goes on before all has been carried away.
            sent.extend((0..100).map_while(|_| self.hv.transmit()));
        }
    }

    /// What is printed between the echo of a line and the next prompt.
    fn say(&mut self, line: &str) -> String {
        self.settle();
        line.bytes().chain([b'\r']).for_each(|byte| self.hv.receive(byte));
        let text = self.settle();
        let text = text.strip_prefix(line).unwrap_or_else(|| panic!("no echo: {text}"));
        let text = text.strip_prefix("\r\n").and_then(|text| text.strip_suffix("HV> "));
        text.unwrap_or_else(|| panic!("no prompt after {line}")).into()
    }
}

#[test]
fn info_prints_the_table_that_people_know() {
    let mut table = Table::new();
    assert_eq!(table.settle(), "HV> ");
    table.hv.stop(1, crate::hypervisor::partition::Requester::Shell).unwrap();
    let want = "Partition   Name        State         Vcpus\r\n\
                -------------------------------------------\r\n\
                1           p1-linux\trunning         7\r\n\
                2           p2-linux\tstopping         1\r\n";
    assert_eq!(table.say("info"), want);
}

#[test]
fn a_partition_is_started_and_stopped() {
    let mut table = Table::new();
    assert_eq!(table.say("start p2-linux"), "Couldn't start partition.\r\n");
    assert_eq!(table.say("stop 2"), "");
    assert_eq!(table.say("stop 2"), "Couldn't stop partition.\r\n");
    assert_eq!(table.say("restart 2"), "Couldn't restart partition.\r\n");
    assert_eq!(table.hv.mail(7).order, Some(Order::Stop));
    table.hv.stopped(Who { partition: 1, vcpu: 0 });
    assert_eq!(table.settle(), "[7] guest p2-linux stopped: stop (shell)\r\n");
    assert_eq!(table.say("start 0x2"), "");
    assert_eq!(table.hv.mail(7).order, Some(Order::Load(Start::Entry(GuestPhys(0)))));
    assert!(table.hv.loaded(Who { partition: 1, vcpu: 0 }, Ok(GuestPhys(0))));
    assert_eq!(table.say("restart \"p2-linux\""), "");
    assert_eq!(table.hv.mail(7).order, Some(Order::Stop));
    table.hv.stopped(Who { partition: 1, vcpu: 0 });
    assert_eq!(table.hv.mail(7).order, Some(Order::Load(Start::Images)));
    assert!(!table.hv.loaded(Who { partition: 1, vcpu: 0 }, Err(crate::hypervisor::partition::LoadFailed)));
    table.settle();
    assert_eq!(table.say("start load p2-linux"), "");
    assert_eq!(table.hv.mail(7).order, Some(Order::Load(Start::Images)));
    assert_eq!(table.say("stop p3"), "Partition 'p3' does not exist.\r\n");
    assert_eq!(table.say("stop 0"), "Partition '0' does not exist.\r\n");
    assert_eq!(table.say("start 1 2"), "Usage: start [load] <partition-spec>\r\n");
    assert_eq!(table.say("stop"), "Usage: stop <partition-spec>\r\n");
}

#[test]
fn help_and_mistakes() {
    let mut table = Table::new();
    assert_eq!(table.say(""), "");
    assert_eq!(table.say("halt now"), "Unknown command 'halt'.\r\n");
    assert_eq!(table.say("stop \"p2"), "Missing end quote\r\n");
    let help = table.say("help");
    assert!(help.starts_with("Commands:\r\n  gdt - Guest device tree operations\r\n  guestmem (gm) - "), "{help}");
    assert_eq!(table.say("?"), help);
    assert_eq!(table.say("help start"), "start - Start a stopped partition\r\nstart [load] <partition-spec>\r\n");
    assert_eq!(table.say("help halt"), "help: unknown command 'halt'.\r\n");
    assert_eq!(table.say("  version "), format!("Citrine hypervisor version {}\r\n", crate::report::VERSION));
}

#[test]
fn guest_memory_is_dumped_in_lines_of_16() {
    let mut table = Table::new();
    let first = "00001000: 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f   |  ................\r\n";
    assert_eq!(table.say("gm 1 0x1000 16"), first);
    let last = "00001100: 62 65 68 69 6e 64 20 69 74                        |  behind it\r\n";
    let dump = table.say("guestmem p1-linux 4096 265");
    assert!(dump.starts_with(first) && dump.ends_with(last), "{dump}");
    assert_eq!(dump.lines().count(), 17);
    let dump = table.say("gm 1 0x1000");
    assert!(dump.ends_with("  |  ................\r\n") && dump.lines().count() == 16);
    let dump = table.say("gm 1 0x1000 0x100000");
    assert!(dump.ends_with("00001100: not in the memory of the guest\r\n"), "{dump}");
    assert_eq!(table.say("gm 3 0"), "Invalid guest specified\r\n");
    for length in ["0", "0x100001", "x", "08"] {
        assert_eq!(table.say(&format!("gm 1 0 {length}")), "Invalid length\r\n");
    }
    assert_eq!(table.say("gm 1"), "Usage: guestmem <partition-spec> <addr> [len]\r\n");
    assert_eq!(table.say("gm 1 0xfffffffff 1"), "fffffffff: not in the memory of the guest\r\n");
}

#[test]
fn a_long_tree_comes_in_pages_and_is_complete() {
    let mut table = Table::new();
    assert_eq!(table.say("gdt print 2"), "Partition 2: p2-linux\r\n/ {\r\n};\r\n");
    for len in [1023, 1024, 1025, 2048, 30_000] {
        table.tree =
            (0..).map(|n| format!("line {n}\n")).flat_map(|line| line.into_bytes()).map(char::from).take(len).collect();
        let want = format!("Partition 2: p2-linux\r\n{}", table.tree.replace('\n', "\r\n"));
        assert_eq!(table.say("gdt print p2-linux"), want);
    }
    assert_eq!(table.say("gdt dump 2"), "Usage: gdt print <partition-spec>\r\n");
}

#[test]
fn the_log_is_printed_again() {
    let mut table = Table::new();
    for number in 0..1000 {
        writeln!(table.hv.log(), "[0] line {number}").unwrap();
        while table.hv.transmit().is_some() {}
    }
    let log = table.say("log");
    assert!(log.ends_with("[0] line 998\r\n[0] line 999\r\n"));
    assert_eq!(log.replace("\r\n", "\n").len(), 8192);
}

#[test]
fn numbers_are_those_of_c() {
    use command::number;
    let good = [("10", 10), ("0x1F", 31), ("0X1f", 31), ("010", 8), ("0b101", 5), ("0", 0)];
    assert!(good.into_iter().all(|(text, value)| number(text) == Some(value)));
    assert!(
        ["", "08", "0x", "x1", "+1", "0x+1", "-1", "0x10000000000000000"]
            .into_iter()
            .all(|text| number(text).is_none())
    );
}

proptest! {
    #[test]
    fn no_input_panics_and_the_prompt_comes_back(
        lines in prop::collection::vec("((gdt|gm|guestmem|help|info|log|start|stop|print|load) ?|[ -~]|\u{1b}\\[[A-D]|\u{8}|\"|1|2 |0x1000 ){0,12}", 1..8),
        bytes in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut table = Table::new();
        table.memory = vec![0; 0x20_0000];
        bytes.iter().for_each(|byte| table.hv.receive(*byte));
        for line in lines {
            line.bytes().chain([b'\r']).for_each(|byte| table.hv.receive(byte));
            // A tree or memory of the other partition is asked for as well.
            let mut requests = 0;
            while let Some(request) = table.shell.poll(&mut table.hv) {
                match request {
                    Request::GuestMemory { len, .. } => table.shell.guest_memory(&mut table.hv, table.memory.get(..len)),
                    Request::GuestTree { .. } => table.shell.guest_tree(&mut table.hv, |out| out.write_str("/")),
                }
                while table.hv.transmit().is_some() {}
                requests += 1;
                prop_assert!(requests <= 8 * 4097);
            }
        }
        table.hv.receive(b'\r');
        loop {
            while table.hv.transmit().is_some() {}
            match table.shell.poll(&mut table.hv) {
                Some(Request::GuestMemory { .. }) => table.shell.guest_memory(&mut table.hv, None),
                Some(Request::GuestTree { .. }) => table.shell.guest_tree(&mut table.hv, |_| Ok(())),
                None if table.hv.has_output() => {}
                None => break,
            }
        }
        prop_assert_eq!(table.say("stop"), "Usage: stop <partition-spec>\r\n");
    }
}
