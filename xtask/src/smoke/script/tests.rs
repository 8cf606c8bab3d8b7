//! The conversation with a made-up machine: two guests and a hypervisor that answer over the real framing.

use std::collections::{BTreeMap, VecDeque};

use citrine_formats::addr::TruePhys;
use citrine_formats::manifest::Role;
use citrine_formats::mux::{Decoder, Encoder, Event, RESET_REQUEST};
use citrine_planner::pack::sha256;
use tempfile::TempDir;

use super::*;
use crate::emulator::console::Chunk;
use crate::emulator::consoles::Consoles;
use crate::emulator::session::TIMEOUT;
use crate::emulator::transcript::Transcript;
use crate::smoke::system::GuestImage;

/// What the made-up machine gets wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    None,
    /// The second guest has lost a CPU.
    LostCpu,
    /// The first guest sees the other's command line.
    OthersCommandLine,
    /// A checksum differs.
    Checksum,
    /// The hypervisor has loaded other bytes at the second start.
    OtherBytes,
    /// The hypervisor does not say that it has loaded a guest.
    SaysLess,
    /// `stop` stops nothing.
    Unstoppable,
    /// A stop of the second guest stops the first as well.
    StopsBoth,
    /// The second guest does not come back.
    StaysDown,
    /// The second guest crashes when it is asked.
    Panics,
}

fn system() -> System {
    let image = |role, load, part: &str| GuestImage {
        role,
        load: TruePhys(load),
        part: part.to_owned(),
        sha256: sha256(part.as_bytes()),
    };
    let guest = |name: &str, channel, cpus| Guest {
        name: name.to_owned(),
        label: format!("{name}-linux"),
        channel,
        cpus,
        bootargs: format!("console=ttyEHV0 name={name}"),
        images: vec![image(Role::Rootfs, 0x7930_0000, "rootfs"), image(Role::Kernel, 0x7802_0000, "kernel")],
        has_shell: true,
    };
    System { channel: 0, guests: vec![guest("p1", 1, 7), guest("p2", 2, 1)] }
}

/// The machine, with the tool's own consoles in front of it.
struct Fake {
    consoles: Consoles,
    system: System,
    fault: Fault,
    running: Vec<bool>,
    starts: u32,
    /// What it has received.
    decoder: Decoder,
    typed: BTreeMap<u8, String>,
    /// What it sends.
    encoder: Encoder,
    pending: VecDeque<u8>,
    clock: Duration,
    found: Vec<String>,
    _dir: TempDir,
}

impl Fake {
    fn new(fault: Fault) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let system = system();
        let path = dir.path().join("boot.log");
        let consoles = Consoles::new(Some(&system.channels()), |names| Transcript::create(&path, &[], names)).unwrap();
        let mut fake = Self {
            consoles,
            running: vec![true; system.guests.len()],
            system,
            fault,
            starts: 0,
            decoder: Decoder::new(0),
            typed: BTreeMap::new(),
            encoder: Encoder::new(),
            pending: VecDeque::new(),
            clock: Duration::ZERO,
            found: Vec::new(),
            _dir: dir,
        };
        fake.pending.extend(b"citrine: ready, 2 partitions, 0 errors\r\n");
        fake.pending.extend(RESET_REQUEST.repeat(3));
        fake.print(0, "\x1b[5nHV> ");
        (0..fake.system.guests.len()).for_each(|index| fake.load(index));
        fake
    }

    fn print(&mut self, channel: u8, text: &str) {
        for byte in text.bytes() {
            self.pending.extend(self.encoder.encode(channel, byte));
        }
    }

    /// Loads a guest's images and boots it.
    fn load(&mut self, index: usize) {
        self.starts += 1;
        let guest = self.system.guests[index].clone();
        for image in &guest.images {
            let other = self.fault == Fault::OtherBytes && self.starts > 2;
            let hash = if other { sha256(b"other") } else { image.sha256 };
            let line = format!("{}: {} at {}: uImage, CRC ok, sha256 {hash}\r\n", guest.label, image.role, image.load);
            self.print(0, &line);
        }
        if self.fault != Fault::SaysLess {
            self.print(0, &format!("{}: loaded, entry 0x0\r\n", guest.label));
        }
        if self.fault == Fault::StaysDown && self.starts > 2 {
            return;
        }
        let cpus = guest.cpus - usize::from(self.fault == Fault::LostCpu && index == 1);
        let host = guest.host_name();
        self.print(guest.channel, &format!("[    0.000000] Linux\r\n{READY}{host} {cpus} cpus\r\n{host}:/# "));
    }

    fn hypervisor(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["info"] => {
                self.print(0, "Partition   Name        State         Vcpus\r\n");
                for (index, guest) in self.system.guests.clone().iter().enumerate() {
                    let state = if self.running[index] { "running" } else { "stopped" };
                    self.print(0, &format!("{:<11} {}\t{state}{:>10}\r\n", index + 1, guest.label, guest.cpus));
                }
            }
            ["stop", "p2-linux"] => {
                self.running[1] = self.fault == Fault::Unstoppable;
                self.running[0] = self.fault != Fault::StopsBoth;
            }
            ["start", "load", "p2-linux"] => {
                self.running[1] = true;
                self.load(1);
            }
            other => self.print(0, &format!("Unknown command '{}'.\r\n", other[0])),
        }
        self.print(0, PROMPT);
    }

    /// A shell: its echo, and what the commands that are typed would print.
    fn shell(&mut self, index: usize, line: &str) {
        if !self.running[index] {
            return;
        }
        let guest = self.system.guests[index].clone();
        let mut out = format!("{line}\r\n");
        for command in line.split("; ") {
            if command.starts_with("echo ") {
                let text = command.trim_start_matches("echo ").replace("$((6*7))", "42");
                out.push_str(&format!("{text}\r\n"));
            } else if command == QUESTIONS[0].command {
                out.push_str(&"processor\t: 0\r\ncpu\t: e500mc\r\n".repeat(guest.cpus));
                if self.fault == Fault::Panics && index == 1 {
                    out.push_str("Kernel panic - not syncing: Attempted to kill init!\r\n");
                }
            } else if command == QUESTIONS[1].command {
                let shown = if self.fault == Fault::OthersCommandLine { 1 } else { index };
                out.push_str(&format!("{}\r\n", self.system.guests[shown].bootargs));
            } else if command == QUESTIONS[2].command {
                let len = (8 << 20) - usize::from(self.fault == Fault::Checksum);
                out.push_str(&format!("{}  -\r\n", sha256(&vec![0; len])));
            }
        }
        out.push_str(&format!("{}:/# ", guest.host_name()));
        self.print(guest.channel, &out);
    }
}

impl Machine for Fake {
    fn wait_for(&mut self, expect: &Expect<'_>) -> Result<Seen> {
        let mut markers: Vec<Marker> = expect.failures.iter().map(|text| Marker::Text((*text).to_owned())).collect();
        markers.push(expect.marker.clone());
        self.consoles.rewind();
        loop {
            if let Some((source, found)) = self.consoles.find(expect.source, &markers) {
                if found.marker + 1 < markers.len() {
                    return Err(Diagnostic::error(crate::emulator::session::BOOT_FAILED, expect.name).into());
                }
                let (bytes, at) = self.consoles.take(source, found.end);
                self.found.push(expect.name.to_owned());
                return Ok(Seen { bytes, at });
            }
            // A few bytes at a time: no marker may depend on how they are cut.
            let bytes: Vec<u8> = self.pending.drain(..self.pending.len().min(7)).collect();
            if bytes.is_empty() {
                return Err(Diagnostic::error(TIMEOUT, expect.name).into());
            }
            self.clock += Duration::from_millis(10);
            self.consoles.accept(&Chunk { uart: 0, at: self.clock, bytes }, &mut |_| {})?;
        }
    }

    fn send(&mut self, to: Source, text: &str) -> Result<()> {
        let (uart, bytes) = self.consoles.frame(to, text.as_bytes()).unwrap();
        assert_eq!(uart, 0);
        for byte in bytes {
            if let Some(Event::Data { channel, byte }) = self.decoder.push(byte) {
                if byte != b'\r' {
                    self.typed.entry(channel).or_default().push(char::from(byte));
                    continue;
                }
                let line = self.typed.remove(&channel).unwrap_or_default();
                match channel {
                    0 => self.hypervisor(&line),
                    guest => self.shell(usize::from(guest) - 1, &line),
                }
            }
        }
        Ok(())
    }

    fn pause(&mut self, time: Duration) -> Result<()> {
        self.clock += time;
        Ok(())
    }

    fn found_out(&mut self, what: String, _: Duration) {
        self.found.push(what);
    }

    fn refuse(&mut self, _: &str, _: Source, error: Diagnostic) -> Box<Diagnostic> {
        error.into()
    }
}

/// The conversation after the report, and what has been found out.
fn converse(fault: Fault) -> (Result<Vec<(String, Duration)>>, Vec<String>) {
    let mut fake = Fake::new(fault);
    let ready = Expect {
        name: "the report",
        source: Source::Channel(0),
        marker: Marker::Line("citrine: ready, 2 partitions, 0 errors".to_owned()),
        timeout: ANSWERS,
        failures: &[],
    };
    let report = fake.wait_for(&ready).unwrap().bytes;
    let system = fake.system.clone();
    let loads = system.guests.iter().map(|guest| format!("{}: loaded, entry 0x0", guest.label)).collect::<Vec<_>>();
    let result = run(&mut fake, &system, &Steps::default(), &loads, report);
    (result, fake.found)
}

#[test]
fn a_system_that_works_passes() {
    let (prompts, found) = converse(Fault::None);
    let prompts = prompts.unwrap();
    assert_eq!(prompts.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["p1", "p2"]);
    assert!(prompts.iter().all(|(_, at)| *at > Duration::ZERO));
    let count = |text: &str| found.iter().filter(|line| line.contains(text)).count();
    assert_eq!(count("has the manifest's hash: "), 6, "two images of two guests, and of one again: {found:#?}");
    assert_eq!(count("p2-linux is at its prompt, CPUs: 1"), 2, "{found:#?}");
    assert_eq!(count("p2-linux is stopped, all others run"), 1, "{found:#?}");
    assert_eq!(count("p1-linux is right about its CPUs"), 3, "{found:#?}");
    assert_eq!(count("p2-linux is right about the checksum"), 1, "{found:#?}");
}

#[test]
fn every_fault_is_found() {
    for (fault, code, words) in [
        (Fault::LostCpu, "Q203", "p2-linux 1 cpus is right, not p2-linux 0 cpus"),
        (Fault::OthersCommandLine, "Q203", "name=p1 is right, not console=ttyEHV0 name=p2"),
        (Fault::Checksum, "Q203", "the checksum"),
        (Fault::OtherBytes, "Q203", "SHA-256 of rootfs at 0x79300000"),
        (Fault::SaysLess, "Q203", "it has not said `p1-linux: loaded, entry 0x0`"),
        (Fault::Unstoppable, "Q203", "stopped is right, not running"),
        (Fault::StopsBoth, "Q203", "p1-linux: the state: running is right, not stopped"),
        (Fault::StaysDown, "Q104", "p2-linux greets"),
        (Fault::Panics, "Q103", "answers about its CPUs"),
    ] {
        let error = converse(fault).0.unwrap_err();
        assert_eq!(error.code.to_string(), code, "{fault:?}: {error:?}");
        assert!(error.message.contains(words), "{fault:?}: {}", error.message);
    }
}

#[test]
fn no_marker_stands_in_what_is_typed() {
    for question in &QUESTIONS {
        let typed = format!("echo from-$((6*7))-1; {}; echo to-$((6*7))-1\r", question.command);
        for text in FAILURES.iter().chain(REFUSALS).copied().chain(["from-42-1", "to-42-1", PROMPT, READY]) {
            assert!(!typed.contains(text), "{text} stands in {typed}");
        }
    }
}
