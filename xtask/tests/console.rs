//! `cargo xtask console` as a process: what it leaves behind when a signal ends it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

/// A terminal: the end that plays the person or the board, and the name of the other.
fn terminal() -> (File, PathBuf) {
    let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&controller).unwrap();
    unlockpt(&controller).unwrap();
    let name = ptsname(&controller, Vec::new()).unwrap();
    (File::from(controller), PathBuf::from(std::ffi::OsString::from_vec(name.into_bytes())))
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn ended(child: &mut Child) -> bool {
    child.try_wait().unwrap().is_some()
}

#[test]
fn a_signal_restores_the_terminal_and_removes_the_links() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let (mut board, line) = terminal();
        let (_person, screen) = terminal();
        let screen = File::options().read(true).write(true).open(screen).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let is_cooked = || tcgetattr(&screen).unwrap().local_modes.contains(LocalModes::ICANON | LocalModes::ECHO);
        assert!(is_cooked());
        let mut child = Command::new(env!("CARGO_BIN_EXE_xtask"))
            .args(["console", "--terminal", "1", "--pty"])
            .arg(dir.path())
            .arg(&line)
            .stdin(Stdio::from(screen.try_clone().unwrap()))
            .stdout(Stdio::from(screen.try_clone().unwrap()))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // The request: everything is in place.
        let mut request = [0; 2];
        board.read_exact(&mut request).unwrap();
        assert_eq!(request, *b"\x18\x01");
        let link = dir.path().join("1");
        until("there is a link", || std::fs::read_link(&link).is_ok_and(|target| target.starts_with("/dev/pts")));
        assert!(!is_cooked());
        kill_process(Pid::from_child(&child), signal).unwrap();
        until("it ends", || ended(&mut child));
        assert!(child.wait().unwrap().success());
        assert!(is_cooked());
        assert!(std::fs::symlink_metadata(&link).is_err());
    }
}

#[test]
fn events_are_objects_of_one_line() {
    let (_board, line) = terminal();
    let mut child = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["--json", "console"])
        .arg(&line)
        .arg("0")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut text = String::new();
    until("it is connected", || {
        let mut buffer = [0; 512];
        let len = stdout.read(&mut buffer).unwrap();
        text.push_str(std::str::from_utf8(&buffer[..len]).unwrap());
        text.contains("connected") && text.ends_with('\n')
    });
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
    let events: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(events.iter().all(|event| event["type"] == "console"), "{text}");
    assert_eq!(events[0]["event"], "listening");
    assert!(events[0]["address"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert_eq!(events[1]["event"], "connected");
}
