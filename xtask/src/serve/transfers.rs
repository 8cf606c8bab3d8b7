//! The handler behind the protocol: who gets which file, and what is told of it.
//!
//! `async-tftp` asks for a reader, reads it to its end while the client acknowledges, and drops it; it never says how a
//! transfer went. So the reader sees to the account of it.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_tftp::packet;
use async_tftp::server::Handler;
use futures_lite::AsyncRead;
use futures_lite::io::Sink;

use super::files::{Bytes, Files};
use super::{RETRIES, TIMEOUT};

/// Transfers at once. A client is known by its port, so that a flood of requests would be a flood of sockets.
pub const MOST: usize = 64;
/// How often a transfer that goes on is told of.
const EVERY: Duration = Duration::from_secs(1);
/// Characters of a name that nobody has which are repeated.
const SHOWN: usize = 100;

/// What happens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A transfer begins, goes on, or has ended.
    Transfer {
        /// How far it is.
        state: State,
        /// Who gets it.
        client: SocketAddr,
        /// The file's own name.
        file: String,
        /// Its length in bytes.
        size: usize,
        /// Bytes that have gone out.
        sent: usize,
        /// Since when.
        time: Duration,
    },
    /// A request was refused.
    Refused {
        /// Whose.
        client: SocketAddr,
        /// What it asked for; harmless to show.
        asked: String,
        /// Why.
        why: &'static str,
    },
    /// The server cannot go on.
    Stopped(String),
}

/// How far a transfer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// It begins.
    Started,
    /// It goes on.
    Running,
    /// The client has all of it.
    Sent,
    /// The client went silent.
    GivenUp,
}

/// Who gets what.
#[derive(Debug)]
pub struct Server {
    files: Arc<Files>,
    events: SyncSender<Event>,
    /// One more than there are transfers.
    running: Arc<()>,
}

impl Server {
    /// A server of these files, which tells what happens. An account that nobody takes loses events; transfers go on.
    pub fn new(files: Arc<Files>, events: SyncSender<Event>) -> Self {
        Self { files, events, running: Arc::new(()) }
    }

    fn refuse(&self, client: &SocketAddr, asked: &Path, why: &'static str) {
        let asked = asked.to_string_lossy().chars().take(SHOWN).collect::<String>().escape_default().to_string();
        let _ = self.events.try_send(Event::Refused { client: *client, asked, why });
    }
}

impl Handler for Server {
    type Reader = Transfer;
    type Writer = Sink;

    async fn read_req_open(
        &mut self,
        client: &SocketAddr,
        path: &Path,
    ) -> Result<(Transfer, Option<u64>), packet::Error> {
        let Some((name, bytes)) = path.to_str().and_then(|asked| self.files.find(asked)) else {
            self.refuse(client, path, "the bundle has no such file");
            return Err(packet::Error::FileNotFound);
        };
        if Arc::strong_count(&self.running) > MOST {
            self.refuse(client, path, "too many transfers at once");
            // U-Boot tries again after any error but "not found" and "denied".
            return Err(packet::Error::Msg("too many transfers".to_owned()));
        }
        let now = Instant::now();
        let transfer = Transfer {
            client: *client,
            file: name.to_owned(),
            bytes: Arc::clone(bytes),
            sent: 0,
            started: now,
            told: now,
            read: now,
            events: self.events.clone(),
            _running: Arc::clone(&self.running),
        };
        transfer.tell(State::Started);
        let size = bytes.len() as u64;
        Ok((transfer, Some(size)))
    }

    async fn write_req_open(
        &mut self,
        client: &SocketAddr,
        path: &Path,
        _size: Option<u64>,
    ) -> Result<Sink, packet::Error> {
        self.refuse(client, path, "nothing can be written");
        Err(packet::Error::PermissionDenied)
    }
}

/// One transfer: the reader that the protocol drains.
#[derive(Debug)]
pub struct Transfer {
    client: SocketAddr,
    file: String,
    bytes: Bytes,
    sent: usize,
    started: Instant,
    /// When it was last told of.
    told: Instant,
    /// When it was last read.
    read: Instant,
    events: SyncSender<Event>,
    _running: Arc<()>,
}

impl Transfer {
    fn tell(&self, state: State) {
        let _ = self.events.try_send(Event::Transfer {
            state,
            client: self.client,
            file: self.file.clone(),
            size: self.bytes.len(),
            sent: self.sent,
            time: self.started.elapsed(),
        });
    }
}

impl AsyncRead for Transfer {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let rest = self.bytes.get(self.sent..).unwrap_or_default();
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        self.sent += len;
        self.read = Instant::now();
        if self.told.elapsed() >= EVERY {
            self.told = self.read;
            self.tell(State::Running);
        }
        Poll::Ready(Ok(len))
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        // The last block is read before it is acknowledged: a client that went silent at the end took all the retries.
        let silent = self.read.elapsed() >= TIMEOUT * RETRIES;
        self.tell(if self.sent == self.bytes.len() && !silent { State::Sent } else { State::GivenUp });
    }
}
