//! Where a channel is offered: a TCP port for one client at a time, and a pseudo-terminal.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use citrine_planner::diag::{Code, Diagnostic, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use super::line::now;
use super::queue::Queue;
use crate::output::cannot_write;

/// A port is in use, or is not this user's to use.
pub const PORT: Code = Code::new('W', 108);

/// A TCP port.
#[derive(Debug)]
pub struct Port {
    listener: TcpListener,
    /// The next one waits until this one has gone.
    pub client: Option<Client>,
}

impl Port {
    /// Listens; port 0 is one that the system chooses.
    ///
    /// # Errors
    /// [`PORT`].
    pub fn listen(address: IpAddr, port: u16) -> Result<Self> {
        let listen = || {
            let listener = TcpListener::bind((address, port))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let listener = listen().map_err(|error: io::Error| {
            let wanted = SocketAddr::new(address, port);
            Diagnostic::error(PORT, format!("port {wanted} cannot be offered: {error}")).help(format!(
                "end the program that has it (`ss -ltnp sport = :{port}` names it), or choose another port above 1023"
            ))
        })?;
        Ok(Self { listener, client: None })
    }

    /// Where it is.
    pub fn address(&self) -> String {
        self.listener.local_addr().map_or_else(|_| "?".to_owned(), |address| address.to_string())
    }

    /// What becomes readable when a client comes.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Takes the client that waits.
    pub fn accept(&mut self) -> Option<SocketAddr> {
        let (stream, peer) = self.listener.accept().ok()?;
        // A client that went while it waited is none.
        stream.set_nonblocking(true).and_then(|()| stream.set_nodelay(true)).ok()?;
        rustix::net::sockopt::set_socket_keepalive(&stream, true).ok()?;
        self.client = Some(Client { stream, peer, queue: Queue::default() });
        Some(peer)
    }
}

/// A program that is connected to a channel's port.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    /// Where it is.
    pub peer: SocketAddr,
    /// What it has not read yet.
    pub queue: Queue,
}

impl Client {
    /// What becomes readable when it has sent something.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Reads what is there; `None` when that is nothing.
    ///
    /// # Errors
    /// When it has gone.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match self.stream.read(buffer) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            other => now(other),
        }
    }

    /// Writes what it takes of what waits.
    ///
    /// # Errors
    /// When it has gone.
    pub fn pump(&mut self) -> io::Result<()> {
        write_out(&mut self.queue, |bytes| self.stream.write(bytes))
    }
}

fn write_out(queue: &mut Queue, mut write: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<()> {
    while !queue.is_empty() {
        match now(write(queue.next()))? {
            Some(len @ 1..) => queue.written(len),
            _ => break,
        }
    }
    Ok(())
}

/// A pseudo-terminal, raw until its user changes that. The link to it goes when this is dropped.
#[derive(Debug)]
pub struct Pty {
    controller: File,
    /// `/dev/pts/N`.
    pub name: PathBuf,
    /// What leads to it.
    pub link: PathBuf,
    /// Whether a program has it open.
    pub open: bool,
    /// What that has not read yet.
    pub queue: Queue,
}

impl Pty {
    /// Makes one, and a link to it. A link to a pseudo-terminal that is there already is replaced.
    ///
    /// # Errors
    /// `O101`.
    pub fn create(link: &Path) -> Result<Self> {
        let failed = |error: Errno| cannot_write(link, &error.into());
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let controller = openpt(flags).map_err(failed)?;
        grantpt(&controller).and_then(|()| unlockpt(&controller)).map_err(failed)?;
        let name = ptsname(&controller, Vec::new()).map_err(failed)?;
        let name = PathBuf::from(std::ffi::OsString::from_vec(name.into_bytes()));
        let mut mode = tcgetattr(&controller).map_err(failed)?;
        mode.make_raw();
        tcsetattr(&controller, OptionalActions::Now, &mode).map_err(failed)?;
        // Opened and closed once: until then the system does not say that nobody has it open.
        drop(ioctl_tiocgptpeer(&controller, flags).map_err(failed)?);
        ioctl_fionbio(&controller, true).map_err(failed)?;
        if std::fs::read_link(link).is_ok_and(|target| target.starts_with("/dev/pts")) {
            let _ = std::fs::remove_file(link);
        }
        std::os::unix::fs::symlink(&name, link).map_err(|error| cannot_write(link, &error))?;
        let (controller, link) = (File::from(controller), link.to_path_buf());
        Ok(Self { controller, name, link, open: false, queue: Queue::default() })
    }

    /// What becomes readable when its user has typed something.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.controller.as_fd()
    }

    /// Looks whether a program has opened it. What waited for one that has closed it is forgotten.
    pub fn look(&mut self) {
        let mut fds = [PollFd::new(&self.controller, PollFlags::IN)];
        let looked = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        self.open = looked.is_ok() && fds.iter().all(|fd| !fd.revents().contains(PollFlags::HUP));
        if !self.open {
            self.queue = Queue::default();
        }
    }

    /// Reads what is there; `None` when that is nothing.
    ///
    /// # Errors
    /// When its user has closed it.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        now(self.controller.read(buffer))
    }

    /// Writes what its user takes of what waits.
    ///
    /// # Errors
    /// When its user has closed it.
    pub fn pump(&mut self) -> io::Result<()> {
        write_out(&mut self.queue, |bytes| self.controller.write(bytes))
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        // Another process may have put its own there.
        if std::fs::read_link(&self.link).is_ok_and(|target| target == self.name) {
            let _ = std::fs::remove_file(&self.link);
        }
    }
}

/// How often somebody looks whether a pseudo-terminal has been opened: the system tells nobody.
pub const LOOK: Duration = Duration::from_millis(50);
