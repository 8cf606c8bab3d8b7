//! The loop: what the line brings goes to its channel's readers, what they type goes to the line.
//!
//! Nothing here waits but `poll`. The line is read whenever it has something. A client is read only while little
//! waits for the line, so that a paste on one channel does not delay the keys of another by more than [`ROOM`] bytes.

mod keys;
mod wait;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant, SystemTime};

use citrine_formats::mux::{MAX_CHANNELS, RESET_REQUEST};
use citrine_planner::diag::{Result, Severity};

use super::client::{Port, Pty};
use super::event::Event;
use super::framing::Framing;
use super::line::{Line, REFUSED, Target};
use super::log::Log;
use super::screen::Screen;
use super::sink::Sink;
use super::stream::Stream;
use super::tail::Tail;
use crate::output::cannot_write;
use wait::Ready;

/// While this many bytes wait for the line, nobody's keys are read: 90 ms at 115200 baud.
const ROOM: usize = 1024;
/// Keys of one client that are taken in a turn, as the hypervisor does it in the other direction.
const TURN: usize = 64;
/// Bytes of a channel that can be shown again.
const HISTORY: usize = 256 << 10;
/// How often a line that has gone is looked for.
const RETRY: Duration = Duration::from_millis(500);
/// An end that multiplexes has answered the request for a selection by then, if it sends anything at all.
const ANSWER: Duration = Duration::from_secs(1);
/// The longest wait, after which signals are looked at.
const TICK: Duration = Duration::from_millis(200);

/// What is offered, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The line.
    pub target: Target,
    /// Whether the other end is asked for a selection when the line has been opened.
    pub request: bool,
    /// What is done with which channel.
    pub streams: Vec<(u8, Stream)>,
    /// Where ports are offered.
    pub listen: IpAddr,
    /// Directory for links to pseudo-terminals, by the channels' numbers.
    pub ptys: Option<PathBuf>,
    /// Directory for transcripts.
    pub transcripts: Option<PathBuf>,
    /// Whether the bytes on the line are reported.
    pub debug: bool,
}

/// The line and all its clients.
pub struct Server<'a> {
    settings: Settings,
    state: State,
    /// The line has been open, so it is waited for when it cannot be opened.
    was_open: bool,
    framing: Framing,
    /// What came is from an end that does not multiplex: a boot loader.
    plain: bool,
    to_line: VecDeque<u8>,
    channels: BTreeMap<u8, Channel>,
    nobodys: BTreeSet<u8>,
    stdin: Option<(u8, BorrowedFd<'a>)>,
    screen: Option<Screen<'a>>,
    report: &'a mut dyn FnMut(&Event),
}

/// Where the line is in its life.
enum State {
    /// Until then nobody looks for it.
    Gone(Instant),
    /// A thread opens it, since that may wait for a name server.
    Opening(Receiver<Result<Line>>),
    Open {
        line: Line,
        since: Instant,
    },
}

/// A channel and its readers.
struct Channel {
    port: Option<Port>,
    pty: Option<Pty>,
    printed: Option<Sink>,
    log: Option<Log>,
    history: Tail,
    /// Bytes that came while the screen showed another one.
    unseen: u64,
}

impl<'a> Server<'a> {
    /// Offers the channels; the line is opened by [`Server::run`]. `stdin` is for the stream of that name.
    ///
    /// # Errors
    /// `W108` for a port, `O101` for a link or a transcript.
    pub fn new(
        settings: Settings,
        stdin: BorrowedFd<'a>,
        screen: Option<Screen<'a>>,
        report: &'a mut dyn FnMut(&Event),
    ) -> Result<Self> {
        let mut server = Self {
            state: State::Gone(Instant::now()),
            was_open: false,
            framing: Framing::new(0),
            plain: false,
            to_line: VecDeque::new(),
            channels: BTreeMap::new(),
            nobodys: BTreeSet::new(),
            stdin: None,
            screen,
            report,
            settings,
        };
        for dir in [&server.settings.ptys, &server.settings.transcripts].into_iter().flatten() {
            std::fs::create_dir_all(dir).map_err(|error| cannot_write(dir, &error))?;
        }
        for (number, stream) in server.settings.streams.clone() {
            let mut channel = server.channel(number)?;
            match stream {
                Stream::Port(port) => {
                    let port = Port::listen(server.settings.listen, port)?;
                    (server.report)(&Event::Listening { channel: number, address: port.address() });
                    channel.port = Some(port);
                }
                Stream::Stdout => channel.printed = Some(Sink::new(std::io::stdout())),
                Stream::Stderr => channel.printed = Some(Sink::new(std::io::stderr())),
                Stream::Stdin => server.stdin = Some((number, stdin)),
                Stream::Skip => {}
            }
            server.channels.insert(number, channel);
        }
        if let Some(shown) = server.screen.as_ref().map(|screen| screen.channel)
            && !server.channels.contains_key(&shown)
        {
            let channel = server.channel(shown)?;
            server.channels.insert(shown, channel);
        }
        Ok(server)
    }

    /// A channel with what every channel has.
    fn channel(&mut self, number: u8) -> Result<Channel> {
        let pty = self.settings.ptys.as_ref().map(|dir| Pty::create(&dir.join(number.to_string()))).transpose()?;
        if let Some(pty) = &pty {
            (self.report)(&Event::Pty { channel: number, name: pty.name.clone(), link: pty.link.clone() });
        }
        let log = match &self.settings.transcripts {
            Some(dir) => {
                let path = dir.join(format!("channel-{number}.log"));
                let log = Log::open(&path, &self.settings.target.name(), SystemTime::now());
                Some(log.map_err(|error| cannot_write(&path, &error))?)
            }
            None => None,
        };
        Ok(Channel { port: None, pty, printed: None, log, history: Tail::new(HISTORY), unseen: 0 })
    }

    /// Works until `ended` says so, or the person at the screen leaves, or the screen goes.
    ///
    /// # Errors
    /// Why the line cannot be opened at all, `W107` when its command has ended.
    pub fn run(&mut self, ended: &dyn Fn() -> bool) -> Result<()> {
        while !ended() {
            self.open()?;
            for ready in self.poll() {
                match ready {
                    Ready::Input => self.receive()?,
                    // Everything that can be written is written below.
                    Ready::Output => {}
                    Ready::Caller(number) => self.accept(number),
                    Ready::Client(number) => self.read_client(number),
                    Ready::Pty(number) => self.read_pty(number),
                    Ready::Stdin => self.read_stdin(),
                    Ready::Screen => {
                        if self.read_screen() {
                            return Ok(());
                        }
                    }
                }
            }
            self.pump()?;
            if self.unseen() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Gets on with opening the line.
    fn open(&mut self) -> Result<()> {
        match &self.state {
            State::Gone(until) if Instant::now() >= *until => {
                let (sender, opened) = channel();
                let target = self.settings.target.clone();
                // If we end first, nobody wants the answer.
                std::thread::spawn(move || drop(sender.send(target.open())));
                self.state = State::Opening(opened);
            }
            State::Opening(opened) => match opened.try_recv() {
                Ok(Ok(line)) => {
                    (self.report)(&Event::Connected(self.settings.target.name()));
                    self.framing = Framing::new(0);
                    self.plain = false;
                    self.was_open = true;
                    if self.settings.request {
                        self.to_line.extend(RESET_REQUEST);
                    }
                    self.state = State::Open { line, since: Instant::now() };
                }
                Ok(Err(_)) if self.was_open => self.state = State::Gone(Instant::now() + RETRY),
                // Like `mux_server`: a terminal server or an emulator may be started later.
                Ok(Err(mut error)) if error.code == REFUSED => {
                    error.severity = Severity::Warning;
                    (self.report)(&Event::Waiting(error));
                    self.was_open = true;
                    self.state = State::Gone(Instant::now() + RETRY);
                }
                Ok(Err(error)) => return Err(error),
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => self.state = State::Gone(Instant::now() + RETRY),
            },
            State::Gone(_) | State::Open { .. } => {}
        }
        Ok(())
    }

    /// Reads the line.
    fn receive(&mut self) -> Result<()> {
        let State::Open { line, since } = &mut self.state else { return Ok(()) };
        let mut buffer = [0; 4096];
        let bytes = match line.read(&mut buffer) {
            Ok(Some(len)) => &buffer[..len],
            Ok(None) => return Ok(()),
            Err(error) => return self.lost(&error),
        };
        if self.settings.debug {
            (self.report)(&Event::Bytes(true, bytes.to_vec()));
        }
        let in_time = self.settings.request && since.elapsed() < ANSWER;
        let pieces = self.framing.receive(bytes);
        self.plain = !self.framing.has_escaped() && (self.plain || !in_time);
        for (number, bytes) in pieces {
            self.deliver(number, &bytes);
        }
        Ok(())
    }

    /// The line has gone. Keys on their way are forgotten: a board that starts again must not get them.
    fn lost(&mut self, error: &std::io::Error) -> Result<()> {
        if let State::Open { line, .. } = &mut self.state
            && !self.settings.target.returns()
        {
            return line.ended().map_or(Ok(()), |ended| Err(ended.into()));
        }
        self.state = State::Gone(Instant::now());
        self.to_line.clear();
        (self.report)(&Event::Lost(error.to_string()));
        let now = SystemTime::now();
        for log in self.channels.values_mut().filter_map(|channel| channel.log.as_mut()) {
            // If it cannot be written, the next line says so.
            let _ = log.note("the line has gone", now);
        }
        Ok(())
    }

    /// Gives a channel's readers what came for it.
    fn deliver(&mut self, number: u8, bytes: &[u8]) {
        let wanted = self.screen.is_some() || self.settings.ptys.is_some() || self.settings.transcripts.is_some();
        if wanted && number < MAX_CHANNELS && !self.channels.contains_key(&number) {
            match self.channel(number) {
                Ok(channel) => drop(self.channels.insert(number, channel)),
                Err(error) if self.nobodys.insert(number) => (self.report)(&Event::NoTranscript(error)),
                Err(_) => return,
            }
        }
        let Some(channel) = self.channels.get_mut(&number) else {
            if self.nobodys.insert(number) {
                (self.report)(&Event::Nobody(number));
            }
            return;
        };
        channel.history.push(bytes);
        let written = channel.log.as_mut().map_or(Ok(()), |log| log.write(bytes, SystemTime::now()));
        if let Err(error) = written {
            self.transcript_failed(number, &error);
        }
        self.show(number, bytes);
    }

    /// Gives those who look at a channel what came for it.
    fn show(&mut self, number: u8, bytes: &[u8]) {
        let Some(channel) = self.channels.get_mut(&number) else { return };
        if let Some(client) = channel.port.as_mut().and_then(|port| port.client.as_mut()) {
            client.queue.push(bytes);
        }
        if let Some(pty) = channel.pty.as_mut().filter(|pty| pty.open) {
            pty.queue.push(bytes);
        }
        if let Some(printed) = &mut channel.printed {
            printed.push(bytes);
        }
        match &mut self.screen {
            Some(screen) if screen.channel == number => screen.show(bytes),
            Some(_) => channel.unseen += bytes.len() as u64,
            None => {}
        }
    }

    fn transcript_failed(&mut self, number: u8, error: &std::io::Error) {
        if let Some(channel) = self.channels.get_mut(&number) {
            channel.log = None;
        }
        let dir = self.settings.transcripts.clone().unwrap_or_default();
        let mut failed = cannot_write(&dir.join(format!("channel-{number}.log")), error);
        failed.severity = Severity::Warning;
        (self.report)(&Event::NoTranscript(failed.into()));
    }

    /// Sends what was typed on a channel.
    fn send(&mut self, number: u8, bytes: &[u8]) {
        match (&self.state, self.plain) {
            (State::Open { .. }, false) => self.to_line.extend(self.framing.frame(number, bytes)),
            // A boot loader knows nothing of frames, and is on channel 0.
            (State::Open { .. }, true) if number == 0 => self.to_line.extend(bytes),
            _ => {}
        }
    }

    fn accept(&mut self, number: u8) {
        let port = self.channels.get_mut(&number).and_then(|channel| channel.port.as_mut());
        if let Some(peer) = port.and_then(Port::accept) {
            (self.report)(&Event::Came { channel: number, peer });
        }
    }

    fn read_client(&mut self, number: u8) {
        if self.to_line.len() >= ROOM {
            // It has room for output again, or has gone, which writing tells.
            return;
        }
        let Some(port) = self.channels.get_mut(&number).and_then(|channel| channel.port.as_mut()) else { return };
        let Some(client) = &mut port.client else { return };
        let mut buffer = [0; TURN];
        match client.read(&mut buffer) {
            Ok(Some(len)) => self.send(number, &buffer[..len]),
            Ok(None) => {}
            Err(_) => {
                // One that will send no more may still read.
                let _ = client.pump();
                let left = Event::Left { channel: number, peer: client.peer, dropped: client.queue.dropped() };
                port.client = None;
                (self.report)(&left);
            }
        }
    }

    fn read_pty(&mut self, number: u8) {
        let Some(pty) = self.channels.get_mut(&number).and_then(|channel| channel.pty.as_mut()) else { return };
        let mut buffer = [0; TURN];
        match pty.read(&mut buffer) {
            Ok(Some(len)) => self.send(number, &buffer[..len]),
            Ok(None) => {}
            Err(_) => pty.look(),
        }
    }

    fn read_stdin(&mut self) {
        let Some((number, stdin)) = self.stdin else { return };
        let mut buffer = [0; TURN];
        match rustix::io::read(stdin, &mut buffer) {
            Ok(len @ 1..) => self.send(number, &buffer[..len]),
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Ok(_) | Err(_) => self.stdin = None,
        }
    }

    /// Writes whatever is taken.
    fn pump(&mut self) -> Result<()> {
        if let State::Open { line, .. } = &mut self.state {
            let (next, _) = self.to_line.as_slices();
            let written = if next.is_empty() { Ok(None) } else { line.write(next) };
            match written {
                Ok(None) => {}
                Ok(Some(len)) => {
                    let sent: Vec<u8> = self.to_line.drain(..len).collect();
                    if self.settings.debug {
                        (self.report)(&Event::Bytes(false, sent));
                    }
                }
                Err(error) => self.lost(&error)?,
            }
        }
        let mut failed = Vec::new();
        for (&number, channel) in &mut self.channels {
            if let Some(port) = &mut channel.port
                && let Some(client) = &mut port.client
                && client.pump().is_err()
            {
                let left = Event::Left { channel: number, peer: client.peer, dropped: client.queue.dropped() };
                port.client = None;
                (self.report)(&left);
            }
            if let Some(pty) = &mut channel.pty
                && (!pty.open || pty.pump().is_err())
            {
                pty.look();
            }
            if let Some(printed) = &mut channel.printed {
                printed.pump();
            }
            if let Some(Err(error)) = channel.log.as_mut().map(Log::flush) {
                failed.push((number, error));
            }
        }
        for (number, error) in failed {
            self.transcript_failed(number, &error);
        }
        Ok(())
    }

    /// Whether the person's terminal has gone.
    fn unseen(&mut self) -> bool {
        self.screen.as_mut().is_some_and(|screen| !screen.sink.pump())
    }
}
