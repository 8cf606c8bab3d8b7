//! The ways into memory: what the boot script does when it fetches the parts itself, and U-Boot as a client of `serve`.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::TempDir;

use super::*;
use crate::emulator::Boot;
use crate::serve::Listening;
use crate::serve::files::Files;
use crate::serve::transfers::{Event, State};
use crate::smoke::boot::{Expected, prepared_by};
use crate::smoke::load::Load;
use crate::smoke::stand_in::StandIn;

/// The directory that the boot script asks for.
const DIRECTORY: &str = "p4080ds-hello";

/// A small bundle, and what it needs to boot.
fn hello() -> (Project, Parts, StandIn, Expected) {
    let ui = Ui::new(true);
    let project = Project::find().unwrap();
    let bundle = build(&project, &arguments("hello"), &[Need::Bundle, Need::Qemu], &ui).unwrap();
    let parts = Parts::read(&bundle.published.tar, None, &ui).unwrap();
    let stand_in = prepare(&project, &parts, &Hardware::default(), &ui).unwrap();
    let expected = expected(&parts, &stand_in).unwrap();
    (project, parts, stand_in, expected)
}

/// What U-Boot and the script have said.
fn transcript(file: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(file).unwrap()).into_owned()
}

#[test]
fn a_script_that_fetches_its_parts_stops_at_the_first_that_is_wrong() {
    let (_, parts, stand_in, expected) = hello();
    let scratch = tempfile::tempdir().unwrap();
    let log = scratch.path().join("log");
    let boot = |spoil: &dyn Fn(&Path)| {
        let dir: TempDir = tempfile::tempdir().unwrap();
        let boot: Boot<'_> = prepared_by(Load::Tftp, &parts, &stand_in, &log, dir.path()).unwrap();
        spoil(dir.path());
        let outcome = start(&boot, &expected.report, &mut |_| {}).map(drop);
        (outcome, transcript(&log))
    };

    // One that is missing, and one that is damaged on its way.
    let kernel = format!("{DIRECTORY}/kernel.uImage");
    let (missing, said) = boot(&|dir| std::fs::remove_file(dir.join(&kernel)).unwrap());
    let error = missing.unwrap_err();
    assert!(error.code.to_string() == "Q103" && error.message.contains("TFTP error"), "{error:?}");
    assert!(said.contains("citrine: loading from p4080ds-hello") && !said.contains("checking the parts"), "{said}");
    let (damaged, said) = boot(&|dir| {
        let mut bytes = std::fs::read(dir.join(&kernel)).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(dir.join(&kernel), bytes).unwrap();
    });
    let error = damaged.unwrap_err();
    assert!(error.code.to_string() == "Q103" && error.message.contains("Bad Data CRC"), "{error:?}");
    assert!(said.contains("citrine: checking the parts") && !said.contains("starting hv.uImage"), "{said}");
    // A script that U-Boot does not get is not run.
    let (none, said) = boot(&|dir| std::fs::remove_file(dir.join(DIRECTORY).join("boot.scr")).unwrap());
    assert_eq!(none.unwrap_err().code.to_string(), "Q103");
    assert!(!said.contains("citrine: "), "{said}");
}

#[test]
fn the_directory_may_have_another_name() {
    let (_, parts, stand_in, expected) = hello();
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let mut boot = prepared_by(Load::Tftp, &parts, &stand_in, &log, dir.path()).unwrap();
    std::fs::rename(dir.path().join(DIRECTORY), dir.path().join("elsewhere")).unwrap();
    let fetch = boot.bootcmd.unwrap().replace(DIRECTORY, "elsewhere");
    boot.bootcmd = Some(format!("setenv citrine_dir elsewhere; {fetch}"));
    start(&boot, &expected.report, &mut |_| {}).unwrap();
    assert!(transcript(&log).contains("citrine: loading from elsewhere"));
}

/// U-Boot asks no other port than 69, which only root may have.
#[test]
fn uboot_boots_what_serve_serves_by_the_commands_that_it_prints() {
    static ENDED: AtomicBool = AtomicBool::new(false);
    // An address of this process's own: others may run the same test.
    let id = std::process::id().to_be_bytes();
    let address = SocketAddr::from(([127, id[2], id[3], 9], 69));
    let cure = "run the tests as root, or allow the port: sysctl net.ipv4.ip_unprivileged_port_start=69";
    let listening = Listening::at(address).unwrap_or_else(|error| panic!("{error:?}\n{cure}"));
    let (project, mut parts, stand_in, expected) = hello();
    for substitute in &stand_in.substitutes {
        parts.bytes.insert(substitute.name.clone(), substitute.bytes.clone());
    }
    let manifest = &parts.verified.manifest;
    let board = project.board(&manifest.board, &Ui::new(true)).unwrap();
    let files = Files::new(manifest, parts.bytes.clone(), Some(&board));
    let commands = files.commands(manifest, Some(&board), address);
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let mut boot = prepared(&parts, &stand_in, &log, dir.path()).unwrap();
    boot.preloads.clear();
    boot.machine.host = true;

    let sent = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let server = scope.spawn(|| {
            listening.serve(files, || ENDED.load(Ordering::Relaxed), &mut |event| {
                if let Event::Transfer { state: State::Sent, file, .. } = event {
                    sent.lock().unwrap().push(file);
                }
            })
        });
        // QEMU's network passes on what is not for itself.
        let network = "setenv netmask 255.255.255.0; setenv gatewayip 10.0.2.2";
        let before = commands.before.join("; ").replace("ADDRESS-OF-THE-BOARD", "10.0.2.15");
        for way in [commands.parts.as_ref(), commands.image.as_ref()] {
            boot.bootcmd = Some(format!("{network}; {before}; {}", way.unwrap()));
            start(&boot, &expected.report, &mut |_| {}).unwrap();
        }
        ENDED.store(true, Ordering::Relaxed);
        server.join().unwrap().unwrap();
    });
    let sent = sent.into_inner().unwrap();
    let fetched: Vec<&str> = sent.iter().map(String::as_str).collect();
    let all = ["boot.scr", "kernel.uImage", "hv.uImage", "p4080ds.dtb", "hv.dtb", "p4080ds-hello.ram.img"];
    assert_eq!(fetched.len(), all.len(), "{fetched:?}");
    assert!(all.iter().all(|name| fetched.contains(name)), "{fetched:?}");
}
