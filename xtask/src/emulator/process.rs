//! A child process that cannot outlive the tool.
//!
//! It leads its own process group, so that Ctrl-C reaches the tool alone and one kill reaches the whole
//! group; dropping a [`Process`] kills it. `setpriv --pdeathsig` covers what no destructor can: the tool
//! itself being killed. The kernel sends that signal when the *thread* that started the child ends, so a
//! process is started and ended by one thread.

use std::ffi::OsString;
use std::fmt;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use citrine_planner::diag::{Diagnostic, Result};
use process_wrap::std::{ChildWrapper, CommandWrap, ProcessGroup};
use rustix::io::{FdFlags, fcntl_setfd};

use super::console::Tail;
use super::machine::CANNOT_START;

/// Part of util-linux, which every Debian has.
const SETPRIV: &str = "setpriv";
/// The end of standard error that is kept, in bytes.
const STDERR_KEPT: usize = 16 << 10;
/// For a process that only writes a file and ends.
const SHORT_RUN: Duration = Duration::from_secs(120);

/// Held while descriptors are inheritable, so that no other child of this module gets them.
static SPAWNING: Mutex<()> = Mutex::new(());

/// A running child.
#[derive(Debug)]
pub struct Process {
    child: Box<dyn ChildWrapper>,
    stderr: Arc<Mutex<Tail>>,
    reader: Option<JoinHandle<()>>,
    ended: Option<ExitStatus>,
}

/// How a child ended, and the end of what it said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ended {
    /// Exit code or signal.
    pub status: ExitStatus,
    /// Harmless to show.
    pub stderr: String,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        let said = self.stderr.trim();
        if said.is_empty() { Ok(()) } else { write!(f, ", saying: {said}") }
    }
}

impl Process {
    /// Starts `program`; it gets the descriptors `inherited` under the numbers that they have now, and
    /// they are closed here.
    ///
    /// # Errors
    /// [`CANNOT_START`].
    pub fn spawn(program: &Path, args: &[OsString], inherited: Vec<OwnedFd>) -> Result<Self> {
        let failed = |error: std::io::Error| {
            Diagnostic::error(CANNOT_START, format!("{} cannot be started: {error}", program.display()))
                .help(format!("check that `{SETPRIV}` (package util-linux) and the program work by themselves"))
        };
        let mut command = Command::new(SETPRIV);
        command.args(["--pdeathsig", "KILL", "--"]).arg(program).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = {
            let _alone = SPAWNING.lock().unwrap_or_else(PoisonError::into_inner);
            for fd in &inherited {
                fcntl_setfd(fd, FdFlags::empty()).map_err(|error| failed(error.into()))?;
            }
            let spawned = CommandWrap::from(command).wrap(ProcessGroup::leader()).spawn();
            drop(inherited);
            spawned.map_err(failed)?
        };
        let stderr = Arc::new(Mutex::new(Tail::new(STDERR_KEPT)));
        let reader = child.stderr().take().map(|mut pipe| {
            let kept = Arc::clone(&stderr);
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(len @ 1..) = pipe.read(&mut buffer) {
                    kept.lock().unwrap_or_else(PoisonError::into_inner).push(&buffer[..len]);
                }
            })
        });
        Ok(Self { child, stderr, reader, ended: None })
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<Ended> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        let status = self.ended?;
        Some(Ended { status, stderr: self.stderr() })
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// [`CANNOT_START`] when it takes minutes.
    pub fn wait(mut self) -> Result<Ended> {
        let deadline = Instant::now() + SHORT_RUN;
        loop {
            if let Some(ended) = self.ended() {
                return Ok(ended);
            }
            if Instant::now() > deadline {
                return Err(Diagnostic::error(CANNOT_START, format!("QEMU hangs; it said: {}", self.stderr()))
                    .help("run it by hand; see docs/diagnostics/Q101.md")
                    .into());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Ends the whole group at once and collects it.
    pub fn kill(&mut self) {
        if self.ended.is_none() {
            // A group that is gone already is as good as killed.
            let _ = self.child.start_kill();
            self.ended = self.child.wait().ok();
        }
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }

    /// Its process id, which is also its group's.
    #[cfg(test)]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    fn stderr(&mut self) -> String {
        // Everything that an ended process wrote is in the pipe; let the reader finish.
        if self.ended.is_some()
            && let Some(reader) = self.reader.take()
        {
            let _ = reader.join();
        }
        self.stderr.lock().unwrap_or_else(PoisonError::into_inner).text()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
