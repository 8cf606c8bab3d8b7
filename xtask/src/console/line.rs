//! The line to the board: a serial device, a terminal server, an emulator's socket, or a command's input and output.
//!
//! Whatever it is, it is open in both directions, never blocks, and ends with an error that says how.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use citrine_planner::diag::{Code, Diagnostic, Label, Result};
use process_wrap::std::{ChildWrapper, CommandWrap, ProcessGroup};
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::termios::{self, ControlModes, OptionalActions, SpecialCodeIndex};

/// The device is not there, or cannot be opened.
pub const NO_DEVICE: Code = Code::new('W', 101);
/// The device is no terminal line.
pub const NOT_SERIAL: Code = Code::new('W', 102);
/// This user may not open it.
pub const NOT_ALLOWED: Code = Code::new('W', 103);
/// Another process has it.
pub const IN_USE: Code = Code::new('W', 104);
/// It does not do this speed.
pub const BAUD: Code = Code::new('W', 105);
/// Nobody answers at that address.
pub const REFUSED: Code = Code::new('W', 106);
/// The command cannot be started, or has ended.
pub const COMMAND: Code = Code::new('W', 107);

/// For a command that has closed its output to end.
const LAST_BREATH: Duration = Duration::from_millis(200);

/// Where the line is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// A serial device.
    Serial {
        /// Its path, such as `/dev/ttyUSB0`.
        path: PathBuf,
        /// Characters go at this rate: 8 bits, no parity, one stop bit.
        baud: u32,
        /// RTS and CTS stop the sender.
        hand_shake: bool,
    },
    /// A terminal server, or an emulator: `HOST:PORT`.
    Tcp(String),
    /// A Unix-domain socket.
    Unix(PathBuf),
    /// A command for the shell.
    Command(String),
}

impl Target {
    /// Reads the word that names it, as `mux_server` does: with a colon it is a host and a port, else a file. A file
    /// that is there wins, since names below `/dev/serial/` have colons.
    pub fn parse(word: &str, baud: u32, hand_shake: bool) -> Self {
        match std::fs::metadata(word) {
            Ok(file) if file.file_type().is_socket() => Self::Unix(word.into()),
            Err(_) if word.contains(':') && !word.starts_with('/') => Self::Tcp(word.to_owned()),
            _ => Self::Serial { path: word.into(), baud, hand_shake },
        }
    }

    /// What messages call it.
    pub fn name(&self) -> String {
        match self {
            Self::Serial { path, .. } | Self::Unix(path) => path.display().to_string(),
            Self::Tcp(address) => address.clone(),
            Self::Command(command) => format!("`{}`", command.escape_debug()),
        }
    }

    /// Whether it can come back when it has gone: a command that has ended has done its work.
    pub fn returns(&self) -> bool {
        !matches!(self, Self::Command(_))
    }

    /// Opens it. This may wait for a name server or a far host.
    ///
    /// # Errors
    /// [`NO_DEVICE`], [`NOT_SERIAL`], [`NOT_ALLOWED`], [`IN_USE`], [`BAUD`], [`REFUSED`], [`COMMAND`].
    pub fn open(&self) -> Result<Line> {
        match self {
            Self::Serial { path, baud, hand_shake } => serial(path, *baud, *hand_shake),
            Self::Tcp(address) => {
                let refused = |error: io::Error| self.refused(&error);
                let stream = TcpStream::connect(address.as_str()).map_err(refused)?;
                stream.set_nodelay(true).and_then(|()| stream.set_nonblocking(true)).map_err(refused)?;
                // A terminal server that has lost its power says nothing.
                rustix::net::sockopt::set_socket_keepalive(&stream, true).map_err(|error| refused(error.into()))?;
                Ok(Line::both(OwnedFd::from(stream)))
            }
            Self::Unix(path) => {
                let refused = |error: io::Error| self.refused(&error);
                let stream = UnixStream::connect(path).map_err(refused)?;
                stream.set_nonblocking(true).map_err(refused)?;
                Ok(Line::both(OwnedFd::from(stream)))
            }
            Self::Command(command) => run(command),
        }
    }

    fn refused(&self, error: &io::Error) -> Diagnostic {
        Diagnostic::error(REFUSED, format!("nobody answers at {}: {error}", self.name()))
            .help("start the terminal server or the emulator, and check host and port; only one program can be connected at a time")
    }
}

/// A line that is open. Dropping it closes it; a command ends with all that it has started.
#[derive(Debug)]
pub struct Line {
    input: File,
    /// `None` when both directions are `input`.
    output: Option<File>,
    child: Option<Box<dyn ChildWrapper>>,
    exclusive: bool,
}

impl Line {
    fn both(fd: OwnedFd) -> Self {
        Self { input: File::from(fd), output: None, child: None, exclusive: false }
    }

    /// What becomes readable when the board has sent something.
    pub fn input(&self) -> BorrowedFd<'_> {
        self.input.as_fd()
    }

    /// What becomes writable when the board can be sent something.
    pub fn output(&self) -> BorrowedFd<'_> {
        self.output.as_ref().unwrap_or(&self.input).as_fd()
    }

    /// Reads what is there; `None` when that is nothing.
    ///
    /// # Errors
    /// How the line has ended.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match (&self.input).read(buffer) {
            Ok(0) => Err(io::Error::new(ErrorKind::UnexpectedEof, "the other end has closed it")),
            other => now(other),
        }
    }

    /// Writes what there is room for; `None` when that is nothing.
    ///
    /// # Errors
    /// How the line has ended.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        now(self.output.as_ref().unwrap_or(&self.input).write(bytes))
    }

    /// How the command has ended, if this is one that has.
    pub fn ended(&mut self) -> Option<Diagnostic> {
        let child = self.child.as_mut()?;
        // Its output may have ended a little before it.
        let deadline = Instant::now() + LAST_BREATH;
        while child.try_wait().is_ok_and(|status| status.is_none()) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        let status = match child.try_wait() {
            Ok(Some(status)) => status.to_string(),
            _ => "it has closed its output".to_owned(),
        };
        let help = "correct the command; what it printed on standard error stands above";
        Some(Diagnostic::error(COMMAND, format!("the command has ended: {status}")).help(help))
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.exclusive {
            // A device outlives its last descriptor.
            let _ = termios::ioctl_tiocnxcl(&self.input);
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.start_kill();
            let _ = child.wait();
        }
    }
}

/// `None` for a descriptor that would have to wait.
pub fn now(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(len) => Ok(Some(len)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
        Err(error) => Err(error),
    }
}

fn serial(path: &Path, baud: u32, hand_shake: bool) -> Result<Line> {
    let flags = OFlags::NOCTTY | OFlags::NONBLOCK;
    let opened = File::options().read(true).write(true).custom_flags(flags.bits().cast_signed()).open(path);
    let file = opened.map_err(|error| cannot_open(path, &error))?;
    if !termios::isatty(&file) {
        return Err(at(path, NOT_SERIAL, format!("{} is no serial line", path.display()))
            .help("name a serial device such as /dev/ttyUSB0, a socket, or HOST:PORT")
            .into());
    }
    // The lock is for programs that ask, such as this one; the other keeps out those that do not.
    flock(&file, FlockOperation::NonBlockingLockExclusive)
        .and_then(|()| termios::ioctl_tiocexcl(&file))
        .map_err(|error| cannot_open(path, &error.into()))?;
    let line = Line { input: file, output: None, child: None, exclusive: true };
    let refused = |error: Errno| cannot_open(path, &error.into());
    let mut mode = termios::tcgetattr(&line.input).map_err(refused)?;
    mode.make_raw();
    mode.control_modes |= ControlModes::CLOCAL | ControlModes::CREAD;
    mode.control_modes &= !(ControlModes::PARENB | ControlModes::CSTOPB);
    mode.control_modes.set(ControlModes::CRTSCTS, hand_shake);
    mode.special_codes[SpecialCodeIndex::VMIN] = 1;
    mode.special_codes[SpecialCodeIndex::VTIME] = 0;
    let set = || -> rustix::io::Result<u32> {
        mode.set_speed(baud)?;
        termios::tcsetattr(&line.input, OptionalActions::Now, &mode)?;
        Ok(termios::tcgetattr(&line.input)?.output_speed())
    };
    let granted = { set }().unwrap_or_default();
    // A divisor hits most speeds only nearly; two per cent are heard without an error.
    if baud == 0 || granted.abs_diff(baud) > baud / 50 {
        let said = if granted == 0 { String::new() } else { format!("; it would take {granted}") };
        return Err(at(path, BAUD, format!("{} does not do {baud} baud{said}", path.display()))
            .help("the board's boot loader prints its speed, mostly 115200; give it with --baud")
            .into());
    }
    Ok(line)
}

/// Why a device cannot be opened.
pub fn cannot_open(path: &Path, error: &io::Error) -> Diagnostic {
    let shown = path.display();
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    match (error.kind(), errno) {
        (ErrorKind::PermissionDenied, _) => at(path, NOT_ALLOWED, format!("{shown} cannot be opened: {error}"))
            .help("become a member of the group that owns it, mostly `sudo adduser $USER dialout`, and log in again"),
        (ErrorKind::WouldBlock | ErrorKind::ResourceBusy, _) | (_, Some(Errno::BUSY)) => {
            at(path, IN_USE, format!("{shown} is in use by another process"))
                .help(format!("end the other program first; `fuser -v {shown}` names it"))
        }
        _ => at(path, NO_DEVICE, format!("{shown} cannot be opened: {error}"))
            .help("plug the adapter in, and look for its name with `ls /dev/serial/by-id /dev/ttyUSB* /dev/ttyS*`"),
    }
}

fn at(path: &Path, code: Code, message: String) -> Diagnostic {
    Diagnostic::error(code, message).primary(Label::file(path.display().to_string(), "the line to the board"))
}

fn run(command: &str) -> Result<Line> {
    let failed = |error: io::Error| {
        Diagnostic::error(COMMAND, format!("the command cannot be started: {error}"))
            .help("it is run by `sh -c`; try it by hand")
    };
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = CommandWrap::from(shell).wrap(ProcessGroup::leader()).spawn().map_err(failed)?;
    let (stdin, stdout) = (child.stdin().take(), child.stdout().take());
    let (Some(stdin), Some(stdout)) = (stdin, stdout) else {
        return Err(failed(io::Error::other("it has no pipes")).into());
    };
    let (input, output) = (File::from(OwnedFd::from(stdout)), File::from(OwnedFd::from(stdin)));
    let line = Line { input, output: Some(output), child: Some(child), exclusive: false };
    for fd in [line.input(), line.output()] {
        ioctl_fionbio(fd, true).map_err(|error| failed(error.into()))?;
    }
    Ok(line)
}
