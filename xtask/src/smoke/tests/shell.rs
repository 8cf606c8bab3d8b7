//! A guest's shell, for tests that work in one.

use std::time::Duration;

use crate::emulator::{Expect, Marker, Session};
use crate::smoke::system::Guest;

/// What no console may print: complaints of Linux, of the hypervisor, and of our own guests.
const FAILURES: &[&str] = &[
    "Oops: ",
    "Kernel panic",
    "BUG: ",
    "Machine check",
    "detected stall",
    "Segmentation fault",
    "Killed",
    "(vector ",
    "BREACH",
    "FAILED",
];

/// Waits for a marker on a guest's console; what came before it, and it.
pub fn wait(session: &mut Session, guest: &Guest, name: &str, marker: Marker) -> String {
    let timeout = Duration::from_secs(1800);
    let expect = Expect { name, source: guest.console(), marker, timeout, failures: FAILURES };
    let seen = session.wait_for(&expect, &mut |_| {}).unwrap_or_else(|error| panic!("{error:#?}"));
    String::from_utf8_lossy(&seen.bytes).replace('\r', "")
}

/// Waits for a guest's first prompt.
pub fn comes_up(session: &mut Session, guest: &Guest) {
    wait(session, guest, "the guest is at its prompt", Marker::LineStart(prompt(guest)));
}

/// Runs a command in a guest's shell; its output, behind the echo.
pub fn shell(session: &mut Session, guest: &Guest, command: &str) -> String {
    session.send(guest.console(), format!("{command}; echo end-$((6*7))\r").as_bytes()).unwrap();
    let text = wait(session, guest, "the shell's answer", Marker::Line("end-42".to_owned()));
    wait(session, guest, "the shell's next prompt", Marker::LineStart(prompt(guest)));
    text
}

fn prompt(guest: &Guest) -> String {
    format!("{}:/# ", guest.host_name())
}
