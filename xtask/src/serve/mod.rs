//! A TFTP server for one bundle: [`files`] says what there is, [`transfers`] who gets it, `async-tftp` speaks the
//! protocol (RFC 1350, 2347 to 2349, 7440).
//!
//! What is served is the copy in memory that was verified. Nothing is read from the disk again, so that whatever
//! becomes of the file, every byte that goes out is a signed one.

pub mod files;
pub mod transfers;

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use async_tftp::server::TftpServerBuilder;
use citrine_planner::diag::{Code, Diagnostic, Result};

use files::{Files, STANDARD_PORT};
use transfers::{Event, Server};

/// The TFTP server cannot listen.
pub const CANNOT_LISTEN: Code = Code::new('O', 105);

/// How long a block waits for its acknowledgement. A client's own wish is not heeded: it could be minutes.
pub const TIMEOUT: Duration = Duration::from_secs(1);
/// How often a block is sent again before the client is given up.
pub const RETRIES: u32 = 10;
/// Blocks that may be under way at once, if the client wants more than one.
const WINDOW: u16 = 16;
/// Events that wait for whoever shows them.
const EVENTS: usize = 1024;
/// How often signals are looked at.
const TICK: Duration = Duration::from_millis(50);
/// Ports below this are the system's own.
const UNPRIVILEGED: u16 = 1024;

/// A server that listens.
#[derive(Debug)]
pub struct Listening {
    socket: UdpSocket,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Listening {
    /// Listens at an address of this machine.
    ///
    /// # Errors
    /// [`CANNOT_LISTEN`], with what to do about it.
    pub fn at(address: SocketAddr) -> Result<Self> {
        let socket = UdpSocket::bind(address).map_err(|error| cannot_listen(address, &error))?;
        let address = socket.local_addr().map_err(|error| cannot_listen(address, &error))?;
        Ok(Self { socket, address })
    }

    /// Serves `files` until `ended` says so, and shows what happens.
    ///
    /// # Errors
    /// [`CANNOT_LISTEN`] when the socket fails.
    pub fn serve(self, files: Files, ended: fn() -> bool, show: &mut dyn FnMut(Event)) -> Result<()> {
        let Self { socket, address } = self;
        let (events, happened) = sync_channel(EVENTS);
        let failed = events.clone();
        let server = TftpServerBuilder::with_handler(Server::new(Arc::new(files), events))
            .timeout(TIMEOUT)
            .ignore_client_timeout()
            .max_send_retries(RETRIES)
            .window_size_limit(WINDOW);
        // It ends with the process: it owns nothing but sockets.
        std::thread::spawn(move || {
            let ended =
                futures_lite::future::block_on(async { server.std_socket(socket)?.build().await?.serve().await });
            if let Err(error) = ended {
                let _ = failed.send(Event::Stopped(error.to_string()));
            }
        });
        while !ended() {
            match happened.recv_timeout(TICK) {
                Ok(Event::Stopped(why)) => return Err(stopped(address, &why).into()),
                Ok(event) => show(event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(stopped(address, "its thread has ended").into()),
            }
        }
        happened.try_iter().for_each(show);
        Ok(())
    }
}

fn cannot_listen(address: SocketAddr, error: &std::io::Error) -> Box<Diagnostic> {
    let help = match error.kind() {
        ErrorKind::PermissionDenied if address.port() < UNPRIVILEGED => format!(
            "ports below {UNPRIVILEGED} need root: run this as root, with `--keys` and your own allowed_signers; or \
             `--listen {}` for a U-Boot that knows tftpdstp",
            SocketAddr::new(address.ip(), 6900 + address.port())
        ),
        ErrorKind::AddrInUse => {
            "another server has that port (`ss -lunp` says which): stop it, or choose another address".to_owned()
        }
        ErrorKind::AddrNotAvailable => format!(
            "give one of this machine's own addresses (`ip -brief address`), the one that the board can reach: \
             `--listen 192.168.1.1:{STANDARD_PORT}`"
        ),
        _ => format!("give an address of this machine and a port: `--listen 192.168.1.1:{STANDARD_PORT}`"),
    };
    Diagnostic::error(CANNOT_LISTEN, format!("nothing can be served on {address}: {error}"))
        .fact("address", address)
        .help(help)
        .into()
}

fn stopped(address: SocketAddr, why: &str) -> Diagnostic {
    Diagnostic::error(CANNOT_LISTEN, format!("nothing is served on {address} any more: {why}"))
        .fact("address", address)
        .help("start it again; if it ends again, raise the limit of open files: `ulimit -n 1024`")
}
