//! The server between boards that are played by the tests and real clients.

use std::cell::Cell;
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use citrine_planner::diag::Result;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use super::event::Event;
use super::line::Target;
use super::queue::mark;
use super::screen::Screen;
use super::server::{Server, Settings};
use super::stream::Stream;

/// Far longer than anything takes.
const AMPLE: Duration = Duration::from_secs(60);
const REQUEST: &[u8] = b"\x18\x01";

/// A server that runs beside the test.
pub struct Running {
    events: Receiver<Event>,
    /// Ports by their order.
    pub ports: Vec<u16>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

pub fn settings(target: Target, ports: usize) -> Settings {
    Settings {
        target,
        request: true,
        streams: (0..ports).map(|channel| (u8::try_from(channel).unwrap(), Stream::Port(0))).collect(),
        listen: IpAddr::V4(Ipv4Addr::LOCALHOST),
        ptys: None,
        transcripts: None,
        debug: false,
    }
}

impl Running {
    pub fn start(settings: Settings, screen: Option<(UnixStream, UnixStream, u8)>) -> Self {
        let (sender, events) = channel();
        let end = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&end);
        let wanted = settings.streams.len();
        let thread = std::thread::spawn(move || {
            let nothing = File::open("/dev/null").unwrap();
            let mut report = |event: &Event| drop(sender.send(event.clone()));
            let (keys, output, channel) = screen.map_or((None, None, 0), |(k, o, c)| (Some(k), Some(o), c));
            let screen = keys.as_ref().zip(output).map(|(keys, output)| Screen::new(keys.as_fd(), output, channel));
            let mut server = Server::new(settings, nothing.as_fd(), screen, &mut report)?;
            server.run(&|| flag.load(Ordering::Relaxed))
        });
        let mut running = Self { events, ports: Vec::new(), end, thread: Some(thread) };
        for _ in 0..wanted {
            let port = running.until(|event| match event {
                Event::Listening { address, .. } => Some(address.rsplit(':').next()?.parse().unwrap()),
                _ => None,
            });
            running.ports.push(port);
        }
        running
    }

    fn until<T>(&self, found: impl Fn(&Event) -> Option<T>) -> T {
        loop {
            let event = self.events.recv_timeout(AMPLE).expect("the event comes");
            if let Some(found) = found(&event) {
                return found;
            }
        }
    }

    fn connected(&self) {
        self.until(|event| matches!(event, Event::Connected(_)).then_some(()));
    }

    /// A client of the n-th port, once the server has it.
    pub fn client(&self, number: usize) -> TcpStream {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.ports[number])).unwrap();
        stream.set_read_timeout(Some(AMPLE)).unwrap();
        let ours = stream.local_addr().unwrap();
        self.until(|event| matches!(event, Event::Came { peer, .. } if *peer == ours).then_some(()));
        stream
    }

    pub fn end(mut self) -> Result<()> {
        self.end.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }

    fn ends(mut self) -> Result<()> {
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
    }
}

/// Reads exactly these bytes.
pub fn expect(from: &mut impl Read, wanted: &[u8]) {
    let mut seen = vec![0; wanted.len()];
    from.read_exact(&mut seen).unwrap();
    assert_eq!(String::from_utf8_lossy(&seen), String::from_utf8_lossy(wanted));
}

/// Reads up to and with these bytes.
pub fn read_until(from: &mut impl Read, last: &[u8]) -> Vec<u8> {
    let (mut seen, mut byte) = (Vec::new(), [0]);
    while !seen.ends_with(last) {
        from.read_exact(&mut byte).unwrap_or_else(|error| panic!("{error} after {}", String::from_utf8_lossy(&seen)));
        seen.push(byte[0]);
    }
    seen
}

/// A pair that stands for a serial line: the board's end, and the name of ours.
pub fn serial_pair() -> (File, PathBuf) {
    let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&controller).unwrap();
    unlockpt(&controller).unwrap();
    let name = ptsname(&controller, Vec::new()).unwrap();
    (File::from(controller), PathBuf::from(std::ffi::OsString::from_vec(name.into_bytes())))
}

fn serial(path: &Path) -> Target {
    Target::Serial { path: path.to_path_buf(), baud: 115_200, hand_shake: false }
}

/// A socket that stands for the emulator's.
fn socket(dir: &Path) -> (UnixListener, Target) {
    let path = dir.join("uart");
    let listener = UnixListener::bind(&path).unwrap();
    (listener, Target::parse(path.to_str().unwrap(), 1, false))
}

/// The board's end, once the server has asked it for a selection.
fn board(listener: &UnixListener) -> UnixStream {
    let (mut board, _) = listener.accept().unwrap();
    board.set_read_timeout(Some(AMPLE)).unwrap();
    expect(&mut board, REQUEST);
    board
}

#[test]
fn a_serial_line_has_a_port_for_every_channel() {
    let (mut board, path) = serial_pair();
    let running = Running::start(settings(serial(&path), 2), None);
    running.connected();
    expect(&mut board, REQUEST);
    let (mut hv, mut p1) = (running.client(0), running.client(1));
    board.write_all(b"\x18\x01\x180HV> \x181a\x18\x18\r\nb\xff\x00\x11\x13\x182nobody's\x180!").unwrap();
    expect(&mut hv, b"HV> !");
    expect(&mut p1, b"a\x18\r\nb\xff\x00\x11\x13");
    running.until(|event| matches!(event, Event::Nobody(2)).then_some(()));
    p1.write_all(b"x\x18\r\x03").unwrap();
    expect(&mut board, b"\x181x\x18\x18\r\x03");
    hv.write_all(b"y").unwrap();
    expect(&mut board, b"\x180y");
    hv.write_all(b"z").unwrap();
    expect(&mut board, b"z");
    // The other end has forgotten the selection.
    board.write_all(REQUEST).unwrap();
    board.write_all(b"\x180;").unwrap();
    expect(&mut hv, b";");
    hv.write_all(b"w").unwrap();
    expect(&mut board, b"\x180w");
    // The next client waits until the first has gone.
    let mut second = TcpStream::connect((Ipv4Addr::LOCALHOST, running.ports[0])).unwrap();
    drop(hv);
    running.until(|event| matches!(event, Event::Left { channel: 0, dropped: 0, .. }).then_some(()));
    running.until(|event| matches!(event, Event::Came { channel: 0, .. }).then_some(()));
    board.write_all(b"for the second").unwrap();
    expect(&mut second, b"for the second");
    running.end().unwrap();
}

#[test]
fn a_recorded_machine_passes_in_pieces_of_any_size() {
    let recorded = include_bytes!("../../../tests/console/hello.mux");
    let dir = tempfile::tempdir().unwrap();
    let (listener, target) = socket(dir.path());
    let running = Running::start(settings(target, 2), None);
    let mut board = board(&listener);
    let mut clients = [running.client(0), running.client(1)];
    let whole = crate::console::framing::Framing::new(0).receive(recorded);
    for size in [1, 2, 3, 7, 64, 4096] {
        for piece in recorded.chunks(size) {
            board.write_all(piece).unwrap();
        }
        board.write_all(b"\x180").unwrap();
        for (number, client) in (0u8..).zip(&mut clients) {
            let pieces = whole.iter().filter(|(channel, _)| *channel == number);
            let wanted: Vec<u8> = pieces.flat_map(|(_, bytes)| bytes.clone()).collect();
            assert!(!wanted.is_empty());
            expect(client, &wanted);
        }
    }
    running.end().unwrap();
}

#[test]
fn a_client_that_stalls_costs_itself_alone() {
    const FLOOD: usize = 32 << 20;
    let dir = tempfile::tempdir().unwrap();
    let (listener, target) = socket(dir.path());
    let running = Running::start(settings(target, 2), None);
    let mut board = board(&listener);
    board.set_write_timeout(Some(AMPLE)).unwrap();
    let (mut stalled, mut live) = (running.client(0), running.client(1));
    // More than all buffers of the system between here and there.
    let piece = [b"\x180".to_vec(), vec![b'x'; 1 << 20], b"\x181tick\n".to_vec()].concat();
    for _ in 0..FLOOD >> 20 {
        board.write_all(&piece).unwrap();
        expect(&mut live, b"tick\n");
    }
    // Its keys are read all the while.
    stalled.write_all(b"q").unwrap();
    expect(&mut board, b"\x180q");
    board.write_all(b"\x180the end").unwrap();
    let seen = String::from_utf8(read_until(&mut BufReader::new(&stalled), b"the end")).unwrap();
    // Every byte has come, or a mark counts it.
    let mut pieces = seen.split("\r\n[citrine: ");
    let mut come = pieces.next().unwrap().len();
    let mut dropped = 0;
    for piece in pieces {
        let count: u64 = piece.split(' ').next().unwrap().parse().unwrap();
        come += piece.strip_prefix(mark(count).trim_start_matches("\r\n[citrine: ")).expect("a whole mark").len();
        dropped += count;
    }
    assert!(dropped > 0);
    assert_eq!(come as u64 + dropped, FLOOD as u64 + 7);
    let ours = stalled.local_addr().unwrap();
    drop(stalled);
    let said = running.until(|event| match event {
        Event::Left { peer, dropped, .. } if *peer == ours => Some(*dropped),
        _ => None,
    });
    assert_eq!(said, dropped);
    running.end().unwrap();
}

#[test]
fn a_line_that_goes_is_waited_for_and_clients_stay() {
    let dir = tempfile::tempdir().unwrap();
    let (listener, target) = socket(dir.path());
    let running = Running::start(settings(target, 2), None);
    let mut first = board(&listener);
    let mut p1 = running.client(1);
    first.write_all(b"\x181before\x18").unwrap();
    expect(&mut p1, b"before");
    drop((first, listener));
    running.until(|event| matches!(event, Event::Lost(_)).then_some(()));
    p1.write_all(b"for nobody").unwrap();
    std::thread::sleep(Duration::from_secs(1));
    std::fs::remove_file(dir.path().join("uart")).unwrap();
    let (listener, _) = socket(dir.path());
    let mut second = board(&listener);
    // The escape that the first line had begun is not continued, and no old key is sent.
    second.write_all(b"\x181after").unwrap();
    expect(&mut p1, b"after");
    p1.write_all(b"new").unwrap();
    expect(&mut second, b"\x181new");
    running.end().unwrap();
}

#[test]
fn a_serial_device_that_is_plugged_in_again_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("ttyUSB0");
    let (mut first, path) = serial_pair();
    std::os::unix::fs::symlink(path, &link).unwrap();
    let running = Running::start(settings(serial(&link), 1), None);
    expect(&mut first, REQUEST);
    let mut client = running.client(0);
    drop(first);
    running.until(|event| matches!(event, Event::Lost(_)).then_some(()));
    let (mut second, path) = serial_pair();
    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(path, &link).unwrap();
    expect(&mut second, REQUEST);
    second.write_all(b"\x180again").unwrap();
    expect(&mut client, b"again");
    running.end().unwrap();
}

#[test]
fn a_boot_loader_gets_keys_without_frames() {
    let dir = tempfile::tempdir().unwrap();
    let (listener, target) = socket(dir.path());
    let running = Running::start(Settings { request: false, ..settings(target, 2) }, None);
    let (mut board, _) = listener.accept().unwrap();
    board.set_read_timeout(Some(AMPLE)).unwrap();
    let (mut hv, mut p1) = (running.client(0), running.client(1));
    board.write_all(b"=> ").unwrap();
    expect(&mut hv, b"=> ");
    p1.write_all(b"for nobody").unwrap();
    hv.write_all(b"boot\r").unwrap();
    expect(&mut board, b"boot\r");
    board.write_all(b"\x18\x01\x180HV> ").unwrap();
    expect(&mut hv, b"HV> ");
    hv.write_all(b"info\r").unwrap();
    expect(&mut board, b"\x180info\r");
    running.end().unwrap();
}

#[test]
fn a_channel_is_a_pseudo_terminal_and_a_transcript() {
    let dir = tempfile::tempdir().unwrap();
    let (listener, target) = socket(dir.path());
    let (ptys, transcripts) = (dir.path().join("ptys"), dir.path().join("transcripts"));
    let with = Settings { ptys: Some(ptys.clone()), transcripts: Some(transcripts.clone()), ..settings(target, 1) };
    let running = Running::start(with, None);
    let mut board = board(&listener);
    board.write_all(b"\x182before anybody\r\n").unwrap();
    running.until(|event| matches!(event, Event::Pty { channel: 2, .. }).then_some(()));
    let link = ptys.join("2");
    for round in 0..2 {
        let mut user = File::options().read(true).write(true).open(&link).unwrap();
        // What the program types arrives even before the server has seen it come.
        user.write_all(b"typed\r\x04").unwrap();
        expect(&mut board, if round == 0 { b"\x182typed\r\x04" } else { b"typed\r\x04" });
        board.write_all(b"seen\n\x00").unwrap();
        expect(&mut user, b"seen\n\x00");
        drop(user);
        std::thread::sleep(Duration::from_millis(200));
    }
    let text = std::fs::read_to_string(transcripts.join("channel-2.log")).unwrap();
    assert!(text.contains("Z] before anybody\n") && text.contains("Z] seen\n"), "{text}");
    assert!(std::fs::read_to_string(transcripts.join("channel-0.log")).is_ok());
    running.end().unwrap();
    assert!(std::fs::symlink_metadata(link).is_err(), "the link goes with the server");
}

#[test]
fn a_person_switches_scrolls_back_and_leaves() {
    let dir = tempfile::tempdir().unwrap();
    let (listener, target) = socket(dir.path());
    let (mut keys, input) = UnixStream::pair().unwrap();
    let (mut screen, output) = UnixStream::pair().unwrap();
    screen.set_read_timeout(Some(AMPLE)).unwrap();
    let running = Running::start(settings(target, 0), Some((input, output, 0)));
    let mut board = board(&listener);
    board.write_all(b"\x181quiet\x1b]0;title\x07\x180HV> ").unwrap();
    read_until(&mut screen, b"HV> ");
    keys.write_all(b"a\x011").unwrap();
    expect(&mut board, b"\x180a");
    let seen = read_until(&mut screen, b"quiet");
    assert!(!String::from_utf8_lossy(&seen).contains('\x1b'));
    keys.write_all(b"b\x01n\x01l").unwrap();
    expect(&mut board, b"\x181b");
    read_until(&mut screen, b"0: shown | 1: 0 bytes not seen]");
    board.write_all(b"\x181unseen\x180.").unwrap();
    read_until(&mut screen, b".");
    keys.write_all(b"\x01l\x01p\x01h\x01?").unwrap();
    read_until(&mut screen, b"1: 6 bytes not seen]");
    read_until(&mut screen, b"[channel 1]\r\nquietunseen");
    read_until(&mut screen, b"has brought]\r\nquietunseen");
    read_until(&mut screen, b"x leave");
    keys.write_all(b"\x01x").unwrap();
    running.ends().unwrap();
}

#[test]
fn a_screen_that_goes_is_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let (listener, target) = socket(dir.path());
    let (_keys, input) = UnixStream::pair().unwrap();
    let (screen, output) = UnixStream::pair().unwrap();
    let running = Running::start(settings(target, 0), Some((input, output, 0)));
    let mut board = board(&listener);
    drop(screen);
    // It is noticed when there is something to show, if the server has not gone before that.
    while board.write_all(b"\x180more").is_ok() {
        std::thread::sleep(Duration::from_millis(10));
    }
    running.ends().unwrap();
}

#[test]
fn a_command_is_a_line() {
    let running = Running::start(settings(Target::Command("cat".to_owned()), 2), None);
    running.connected();
    let (mut hv, mut p1) = (running.client(0), running.client(1));
    p1.write_all(b"back\x18").unwrap();
    expect(&mut p1, b"back\x18");
    hv.write_all(b"and here").unwrap();
    expect(&mut hv, b"and here");
    running.end().unwrap();
}

#[test]
fn socat_is_a_client() {
    let (mut board, path) = serial_pair();
    let running = Running::start(settings(serial(&path), 2), None);
    expect(&mut board, REQUEST);
    for (round, host) in ["0", "localhost"].into_iter().enumerate() {
        // It wants a terminal, to make it raw.
        let (mut person, terminal) = serial_pair();
        let terminal = File::options().read(true).write(true).open(terminal).unwrap();
        let mut socat = Command::new("socat")
            .args(["-,raw,echo=0", &format!("tcp:{host}:{}", running.ports[1])])
            .stdin(Stdio::from(terminal.try_clone().unwrap()))
            .stdout(Stdio::from(terminal))
            .spawn()
            .expect("Debian's socat is installed");
        running.until(|event| matches!(event, Event::Came { channel: 1, .. }).then_some(()));
        board.write_all(b"\x181login: \r\n\x1b[0m").unwrap();
        expect(&mut person, b"login: \r\n\x1b[0m");
        person.write_all(b"root\r\x03").unwrap();
        expect(&mut board, if round == 0 { b"\x181root\r\x03" } else { b"root\r\x03" });
        socat.kill().unwrap();
        socat.wait().unwrap();
    }
    running.end().unwrap();
}

#[test]
fn ports_are_on_loopback_only_unless_told() {
    let (_board, path) = serial_pair();
    let running = Running::start(settings(serial(&path), 1), None);
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let port = format!(":{:04X} 00000000:0000 0A", running.ports[0]);
    let line = table.lines().find(|line| line.contains(&port)).expect("it listens");
    assert!(line.contains(" 0100007F:"), "{line}");
    running.end().unwrap();
}

#[test]
fn any_bytes_can_come_on_the_line() {
    let dir = tempfile::tempdir().unwrap();
    let (listener, target) = socket(dir.path());
    let transcripts = Some(dir.path().join("transcripts"));
    let running = Running::start(Settings { transcripts, ..settings(target, 1) }, None);
    let board = board(&listener);
    let client = running.client(0);
    let bytes = proptest::collection::vec(prop_oneof![Just(0x18), Just(0x01), 0x30..0x35u8, any::<u8>()], 0..3000);
    let number = Cell::new(0);
    let mut runner = TestRunner::new(Config::with_cases(48));
    let result = runner.run(&bytes, |bytes| {
        number.set(number.get() + 1);
        let stop = format!("<stop {}>", number.get());
        // An escape may be open: the first byte ends it, whatever it is.
        let sent = [&bytes, &b"\x01\x180"[..], stop.as_bytes()].concat();
        (&board).write_all(&sent).unwrap();
        read_until(&mut &client, stop.as_bytes());
        Ok(())
    });
    result.unwrap();
    running.end().unwrap();
}

#[test]
fn nobody_answers_yet_and_then_somebody_does() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("uart");
    let running = Running::start(settings(Target::Unix(path.clone()), 1), None);
    let said = running.until(|event| match event {
        Event::Waiting(diagnostic) => Some(diagnostic.code.to_string()),
        _ => None,
    });
    assert_eq!(said, "W106");
    let listener = UnixListener::bind(&path).unwrap();
    board(&listener);
    running.end().unwrap();
}

#[test]
fn an_end_takes_no_time() {
    let (board, path) = serial_pair();
    let running = Running::start(settings(serial(&path), 1), None);
    running.connected();
    let begun = Instant::now();
    running.end().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10));
    // The line is free again: the next one may have it.
    let running = Running::start(settings(serial(&path), 1), None);
    running.connected();
    running.end().unwrap();
    drop(board);
}
