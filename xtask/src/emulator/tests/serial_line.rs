//! A bundle whose serial line is a socket, with `console` at the other end, as a board's would be.

use std::io::Write as _;
use std::path::Path;

use clap::Parser as _;

use crate::cli::{Cli, Command};
use crate::cmd::bundle::build;
use crate::console::line::Target;
use crate::console::server::Settings;
use crate::console::tests::{Running, read_until, settings};
use crate::emulator::process::Process;
use crate::emulator::session::launch::arguments;
use crate::emulator::{Boot, tree};
use crate::project::Project;
use crate::report::Ui;
use crate::setup::Need;
use crate::smoke::boot::prepared;
use crate::smoke::bundle::Parts;
use crate::smoke::stand_in::{Hardware, prepare};

/// The machine, waiting for somebody to take its line; what it sends is kept in `record`.
fn machine(boot: &Boot<'_>, socket: &Path, record: &Path) -> Process {
    let tree_file = socket.with_extension("dtb");
    std::fs::write(&tree_file, tree::control_tree(&boot.machine, boot.bootcmd.as_deref()).unwrap()).unwrap();
    let mut args = arguments(boot, tree_file);
    let (path, log) = (socket.display(), record.display());
    let line = format!("socket,id=uart0,path={path},server=on,wait=on,logfile={log}");
    args.extend(["-chardev", &line, "-serial", "chardev:uart0"].map(Into::into));
    Process::spawn(&boot.machine.locate().unwrap(), &args, Vec::new()).unwrap()
}

#[test]
fn the_hypervisor_and_its_guest_are_at_their_ports() {
    let words = ["xtask", "bundle", "--board", "p4080ds", "--profile", "hello", "--yes"];
    let Command::Bundle(words) = Cli::try_parse_from(words).unwrap().command else { panic!("this is the verb") };
    let (ui, project) = (Ui::new(true), Project::find().unwrap());
    let bundle = build(&project, &words, &[Need::Bundle, Need::Qemu], &ui).unwrap();
    let parts = Parts::read(&bundle.published.tar, None, &ui).unwrap();
    let stand_in = prepare(&project, &parts, &Hardware::default(), &ui).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (transcript, socket, record) = (dir.path().join("log"), dir.path().join("uart0"), dir.path().join("record"));
    let boot = prepared(&parts, &stand_in, &transcript, dir.path()).unwrap();

    // U-Boot would take the request for a key.
    let wanted = Settings { request: false, ..settings(Target::Unix(socket.clone()), 2) };
    let running = Running::start(wanted, None);
    let mut machine = machine(&boot, &socket, &record);
    let (mut hv, mut guest) = (running.client(0), running.client(1));
    let said = String::from_utf8(read_until(&mut hv, b"HV> ")).unwrap();
    assert!(said.contains("U-Boot 20") && said.contains("citrine: "), "{said}");
    let said = String::from_utf8(read_until(&mut guest, b"hello: done\r\n")).unwrap();
    assert!(said.contains("hello from p1-hello"), "{said}");
    assert!(!said.contains("U-Boot") && !said.contains("HV>"), "{said}");
    guest.write_all(b"through the port\r").unwrap();
    read_until(&mut guest, b"hello: you said through the port\r\n");
    hv.write_all(b"info\r").unwrap();
    read_until(&mut hv, b"running");
    read_until(&mut hv, b"HV> ");
    machine.kill();
    running.end().unwrap();
    if std::env::var_os("CITRINE_BLESS").is_some_and(|value| value == "1") {
        std::fs::copy(record, super::tests_dir().join("console/hello.mux")).unwrap();
    }
}
