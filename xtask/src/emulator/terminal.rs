//! A person at a console of the machine.

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use citrine_planner::diag::Result;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::console::Source;
use super::session::Session;
use crate::console::terminal::{Filter, Keys, RawMode, Typed};

/// How long a key waits at most before it is sent.
const KEY_DELAY: Duration = Duration::from_millis(10);

/// Connects `input` and `output`, normally standard input and output, to a console until Ctrl-A x, the end
/// of the machine or a signal. Ctrl-A Ctrl-A is sent as one Ctrl-A. Keys that nothing takes yet are lost.
/// After the end of `input` it goes on showing.
///
/// # Errors
/// `Q105` when the machine ends; what [`super::Boot::interrupted`] says.
pub fn attach(session: &mut Session, source: Source, input: impl AsFd, mut output: impl Write) -> Result<()> {
    let _raw = RawMode::enter(input.as_fd());
    let mut keys = Keys::new(b"x");
    let mut filter = Filter::default();
    let mut open = true;
    loop {
        let printed = filter.pass(&session.read(source, KEY_DELAY)?);
        if output.write_all(&printed).and_then(|()| output.flush()).is_err() {
            return Ok(());
        }
        if open && readable(input.as_fd()) {
            let mut buffer = [0; 256];
            // Not through a buffer of the library, which would hide keys from `readable`.
            match rustix::io::read(&input, &mut buffer) {
                Ok(0) | Err(_) => open = false,
                Ok(len) => {
                    for typed in keys.typed(&buffer[..len]) {
                        match typed {
                            Typed::Command(_) => return Ok(()),
                            Typed::Bytes(bytes) if session.takes_keys(source) => session.send(source, &bytes)?,
                            Typed::Bytes(_) => {}
                        }
                    }
                }
            }
        }
    }
}

fn readable(input: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(input, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
}
