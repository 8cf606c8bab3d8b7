//! What the loop waits for.

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{ROOM, Server, State, TICK};
use crate::console::client::{LOOK, Port};
use crate::console::sink::Sink;

/// What `poll` has woken us for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ready {
    Input,
    Output,
    Caller(u8),
    Client(u8),
    Pty(u8),
    Stdin,
    Screen,
}

impl Server<'_> {
    /// Waits until something can be done, and says what.
    pub(super) fn poll(&self) -> Vec<Ready> {
        let mut fds: Vec<(Ready, PollFd<'_>)> = Vec::new();
        // One of whom nothing is wanted would wake us for ever after it has gone.
        let mut add = |ready, fd, flags: PollFlags| {
            if !flags.is_empty() {
                fds.push((ready, PollFd::from_borrowed_fd(fd, flags)));
            }
        };
        let mut patience = TICK;
        let is_open = if let State::Open { line, .. } = &self.state {
            add(Ready::Input, line.input(), PollFlags::IN);
            if !self.to_line.is_empty() {
                add(Ready::Output, line.output(), PollFlags::OUT);
            }
            true
        } else {
            patience = LOOK;
            false
        };
        // Keys for a line that has gone are read, and discarded.
        let takes = if self.to_line.len() < ROOM { PollFlags::IN } else { PollFlags::empty() };
        let both = |waits: bool| if waits { takes | PollFlags::OUT } else { takes };
        for (&number, channel) in &self.channels {
            match &channel.port {
                Some(Port { client: Some(client), .. }) => {
                    add(Ready::Client(number), client.fd(), both(!client.queue.is_empty()));
                }
                Some(port) => add(Ready::Caller(number), port.fd(), PollFlags::IN),
                None => {}
            }
            match &channel.pty {
                Some(pty) if pty.open => add(Ready::Pty(number), pty.fd(), both(!pty.queue.is_empty())),
                Some(_) => patience = LOOK,
                None => {}
            }
            if channel.printed.as_ref().is_some_and(Sink::waits) {
                patience = LOOK;
            }
        }
        // A file is not read before there is a line for it.
        if let Some((_, stdin)) = self.stdin.filter(|_| is_open) {
            add(Ready::Stdin, stdin, takes);
        }
        if let Some(screen) = &self.screen {
            if let Some(input) = screen.input {
                add(Ready::Screen, input, takes);
            }
            if screen.sink.waits() {
                patience = LOOK;
            }
        }
        let (tokens, mut fds): (Vec<Ready>, Vec<PollFd<'_>>) = fds.into_iter().unzip();
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(patience.subsec_nanos()) };
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) => tokens
                .into_iter()
                .zip(&fds)
                .filter(|(_, fd)| !fd.revents().is_empty())
                .map(|(token, _)| token)
                .collect(),
            // A signal: the caller asks what it was.
            Err(_) => Vec::new(),
        }
    }
}
