//! labgrid, from the Python package index, brings the emulated board to its prompts by the environment that the tool writes for a board.
//! Between the two are our `console` and U-Boot's own prompt.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use citrine_planner::place;
use citrine_planner::render::{Bench, labgrid_environment};

use super::*;
use crate::cache::Cache;
use crate::cmd::labgrid::{ENVIRONMENT, STRATEGY};
use crate::console::line::Target;
use crate::console::server::Settings;
use crate::console::stream::Stream;
use crate::console::tests::{Running, settings};
use crate::emulator::Source;
use crate::project::template;
use crate::smoke::boot::prepared_by;
use crate::smoke::load::Load;

/// All of it, on a busy machine.
const ENOUGH: Duration = Duration::from_secs(900);
/// The port of channel 0.
const PORT: u16 = 18900;

/// Python with labgrid, as tests/labgrid/requirements.txt pins it; made once per version of that file.
fn python(root: &Path) -> PathBuf {
    let requirements = root.join("tests/labgrid/requirements.txt");
    let pins = std::fs::read(&requirements).unwrap();
    let id = citrine_planner::pack::sha256(&pins).to_string();
    let venv = Cache::default_root().unwrap().join(format!("labgrid-{}", &id[..16]));
    let python = venv.join("bin/python");
    let whole = venv.join("whole");
    if !whole.is_file() {
        let run = |program: &Path, words: &[&str], last: &Path| {
            let done = Command::new(program).args(words).arg(last).status();
            assert!(
                done.is_ok_and(|status| status.success()),
                "python3-venv and a way to the Python package index are needed"
            );
        };
        run(Path::new("python3"), &["-m", "venv", "--clear"], &venv);
        run(&python, &["-m", "pip", "install", "--quiet", "--no-deps", "-r"], &requirements);
        File::create(whole).unwrap();
    }
    python
}

/// The environment as `cargo xtask labgrid` writes it, for the network that QEMU makes; consoles are on `host`.
fn environment(project: &Project, dir: &Path, host: Ipv4Addr) -> PathBuf {
    let ui = Ui::new(true);
    let (board, profile) = project.target("p4080ds", "two-linux", &ui).unwrap();
    let plan = place::place(&board, &profile, &crate::artifacts::cached(project, &board, Some(&profile))).unwrap();
    let bench = Bench { board: "10.0.2.15".parse().unwrap(), server: "10.0.2.2".parse().unwrap(), port: PORT };
    let read = project.template(ENVIRONMENT, &ui).unwrap();
    let text = labgrid_environment(&plan, bench, &template(&read)).unwrap();
    let loopback = "host: 127.0.0.1\n";
    assert_eq!(text.matches(loopback).count(), 3, "{text}");
    let file = dir.join("environment.yaml");
    std::fs::write(&file, text.replace(loopback, &format!("host: {host}\n"))).unwrap();
    std::fs::write(dir.join(STRATEGY), project.template(STRATEGY, &ui).unwrap().1).unwrap();
    file
}

/// A child that does not outlive the test.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn labgrid_comes_to_both_prompts() {
    let ui = Ui::new(true);
    let project = Project::find().unwrap();
    let python = python(project.root());
    let bundle = build(&project, &arguments("two-linux"), &[Need::Bundle, Need::Qemu], &ui).unwrap();
    let parts = Parts::read(&bundle.published.tar, None, &ui).unwrap();
    let stand_in = prepare(&project, &parts, &Hardware::default(), &ui).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (log, served) = (dir.path().join("log"), dir.path().join("served"));
    std::fs::create_dir(&served).unwrap();
    let mut boot = prepared_by(Load::Tftp, &parts, &stand_in, &log, &served).unwrap();
    // U-Boot waits for what labgrid types, and the line is for `console` alone.
    (boot.bootcmd, boot.channels) = (None, None);

    // An address of this process's own: others may run the same test.
    let id = std::process::id().to_be_bytes();
    let host = Ipv4Addr::new(127, id[2], id[3], 9);
    let line = dir.path().join("line");
    let listener = UnixListener::bind(&line).unwrap();
    let streams = (0..3).map(|channel| (channel, Stream::Port(PORT + u16::from(channel)))).collect();
    let consoles =
        Running::start(Settings { streams, listen: IpAddr::V4(host), ..settings(Target::Unix(line), 3) }, None);
    let (mut line, _) = listener.accept().unwrap();
    line.set_nonblocking(true).unwrap();

    let (said, complained) = (dir.path().join("said"), dir.path().join("complained"));
    let mut labgrid = Command::new(python)
        .arg(project.root().join("tests/labgrid/prompts.py"))
        .arg(environment(&project, dir.path(), host))
        .stdin(Stdio::piped())
        .stdout(File::create(&said).unwrap())
        .stderr(File::create(&complained).unwrap())
        .spawn()
        .map(Ends)
        .unwrap();
    // It asks a person to switch off, on, and at the end off.
    labgrid.0.stdin.take().unwrap().write_all(b"\n\n\n").unwrap();

    let uart = Source::Uart(0);
    let mut session = Session::start(&boot).unwrap();
    let deadline = Instant::now() + ENOUGH;
    let status = loop {
        let mut rest = session.read(uart, Duration::from_millis(5)).unwrap();
        while !rest.is_empty() {
            match line.write(&rest) {
                Ok(len) => drop(rest.drain(..len)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(1)),
                Err(error) => panic!("{error}"),
            }
        }
        let mut typed = [0; 256];
        if let Ok(len @ 1..) = line.read(&mut typed) {
            session.send(uart, &typed[..len]).unwrap();
        }
        if let Some(status) = labgrid.0.try_wait().unwrap() {
            break Some(status);
        }
        if Instant::now() > deadline {
            break None;
        }
    };
    let read = |file: &Path| String::from_utf8_lossy(&std::fs::read(file).unwrap()).into_owned();
    let text = read(&said);
    let all = format!("{text}\n{}\n{}", read(&complained), read(&log));
    assert!(status.is_some_and(|status| status.success()), "{all}");
    for line in [
        "state uboot",
        "state hypervisor",
        "state partitions",
        "shell-p1: echo $((6*7))x: ['42x']",
        "shell-p1: hostname: ['p1-linux']",
        "shell-p1: nproc: ['7']",
        "shell-p2: echo $((6*7))x: ['42x']",
        "shell-p2: hostname: ['p2-linux']",
        "shell-p2: nproc: ['1']",
        "state off",
    ] {
        assert!(text.lines().any(|said| said.ends_with(line)), "{line}: {all}");
    }
    consoles.end().unwrap();
}
