//! Boots of the real U-Boot on the real QEMU, and the failures of which each has its directory.

mod serial_line;

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use citrine_formats::uimage::{Compression, Header, Kind, script_prefix};
use serde::Deserialize;

use super::*;

/// Where cases load their script.
const SCRIPT: u64 = 0x78a0_0000;
/// Far more than any step needs, even on a busy host.
const AMPLE: Duration = Duration::from_secs(300);
const PROMPT: &str = "=> ";

fn tests_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests").canonicalize().unwrap()
}

/// A script as U-Boot's `source` takes it.
fn script_image(text: &str) -> Vec<u8> {
    let payload = [&script_prefix(text).unwrap()[..], text.as_bytes()].concat();
    let header = Header::for_payload(Kind::Script, Compression::None, "boot", 0, &payload).unwrap();
    [&header.to_bytes()[..], &payload].concat()
}

fn boot<'a>(transcript: &'a Path, bootcmd: Option<&str>) -> Boot<'a> {
    Boot {
        machine: Machine::new("e500mc", 2, 2048),
        preloads: Vec::new(),
        bootcmd: bootcmd.map(str::to_owned),
        channels: None,
        transcript,
        notes: vec!["a note of the caller".to_owned()],
        interrupted: || Ok(()),
    }
}

fn expect<'a>(name: &'a str, marker: &str) -> Expect<'a> {
    Expect {
        name,
        source: Source::Uart(0),
        marker: Marker::Text(marker.to_owned()),
        timeout: AMPLE,
        failures: UBOOT_FAILURES,
    }
}

fn prompt() -> Expect<'static> {
    Expect { marker: Marker::LineStart(PROMPT.to_owned()), ..expect("U-Boot's prompt", PROMPT) }
}

/// Whether any process of the group runs; one that has ended and waits to be collected does not.
fn group_runs(group: u32) -> bool {
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else {
            return false;
        };
        // After the name in parentheses: state, parent, group.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        fields.get(2) == Some(&group.to_string().as_str()) && fields[0] != "Z"
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Case {
    bootcmd: String,
    #[serde(default)]
    expect: Vec<String>,
    /// Seconds; only for the case that is about it.
    timeout: Option<f32>,
    cpus: Option<u32>,
    cpu: Option<String>,
    /// Relative to the case, if it has a slash.
    qemu: Option<String>,
    firmware: Option<PathBuf>,
    /// The case's own directory is served.
    #[serde(default)]
    tftp: bool,
    /// The script lies in flash instead of memory.
    #[serde(default)]
    script_in_flash: bool,
    #[serde(default)]
    preload: Vec<CasePreload>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CasePreload {
    name: String,
    addr: u64,
    /// A file of the case; else `size` bytes are made.
    file: Option<PathBuf>,
    size: Option<u64>,
}

/// Boots a case's directory: `case.toml`, and `boot.cmd` if there is one.
fn run_case(dir: &Path, scratch: &Path) -> Result<Outcome> {
    let case: Case = toml::from_str(&fs_err::read_to_string(dir.join("case.toml")).unwrap()).unwrap();
    let transcript = scratch.join("boot.log");
    let mut boot = boot(&transcript, Some(&case.bootcmd));
    if let Ok(text) = fs_err::read_to_string(dir.join("boot.cmd")) {
        let mut image = script_image(&text);
        let path = scratch.join("boot.scr");
        if case.script_in_flash {
            image.resize(1 << 20, 0xff);
            boot.machine.flash = Some(path.clone());
        } else {
            boot.preloads.push(Preload { name: "boot.scr".into(), path: path.clone(), addr: TruePhys(SCRIPT) });
        }
        fs_err::write(path, image).unwrap();
    }
    for preload in case.preload {
        let path = preload.file.map_or_else(|| scratch.join(&preload.name), |file| dir.join(file));
        if let Some(size) = preload.size {
            fs_err::File::create(&path).unwrap().set_len(size).unwrap();
        }
        boot.preloads.push(Preload { name: preload.name, path, addr: TruePhys(preload.addr) });
    }
    boot.machine.cpus = case.cpus.unwrap_or(boot.machine.cpus);
    boot.machine.cpu = case.cpu.unwrap_or(boot.machine.cpu);
    boot.machine.tftp = case.tftp.then(|| dir.to_path_buf());
    if let Some(firmware) = case.firmware {
        boot.machine.firmware = firmware;
    }
    if let Some(qemu) = case.qemu {
        boot.machine.qemu = if qemu.contains('/') { dir.join(qemu) } else { qemu.into() };
    }
    let mut script: Vec<Expect<'_>> = case.expect.iter().map(|marker| expect("the script's marker", marker)).collect();
    if let Some(seconds) = case.timeout {
        script.iter_mut().for_each(|expect| expect.timeout = Duration::from_secs_f32(seconds));
    }
    run(&boot, &script, &mut |_| {})
}

fn cases(under: &str, prefix: &str) -> Vec<PathBuf> {
    let mut dirs: Vec<PathBuf> = std::fs::read_dir(tests_dir().join(under))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir() && path.file_name().unwrap().to_str().unwrap().starts_with(prefix))
        .collect();
    dirs.sort();
    assert!(!dirs.is_empty(), "there are no cases in {under}");
    dirs
}

#[test]
fn every_smoke_case_boots_hands_free() {
    for dir in cases("smoke", "") {
        let scratch = tempfile::tempdir().unwrap();
        let outcome = run_case(&dir, scratch.path()).unwrap_or_else(|error| panic!("{}: {error:#?}", dir.display()));
        assert!(!outcome.reached.is_empty(), "{} expects nothing", dir.display());
        let text = String::from_utf8_lossy(&fs_err::read(&outcome.transcript).unwrap()).into_owned();
        for part in [
            &outcome.qemu,
            "a note of the caller",
            "qemu-system-ppc64 -M ppce500 ",
            "U-Boot 20",
            "---- end ----\npassed in",
        ] {
            assert!(text.contains(part), "{}: no {part:?} in\n{text}", dir.display());
        }
    }
}

#[test]
fn every_bad_case_is_diagnosed() {
    let mut differ = String::new();
    for dir in cases("bad", "Q1") {
        let scratch = tempfile::tempdir().unwrap();
        let error = run_case(&dir, scratch.path()).expect_err(&dir.display().to_string());
        let name = dir.file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with(&format!("{}-", error.code)), "{name}: {error:#?}");
        let told = format!("{}: {}\nhelp: {}\n", error.code, error.message, error.help.as_deref().unwrap_or("none"));
        let told = told.replace(scratch.path().to_str().unwrap(), "SCRATCH").replace(dir.to_str().unwrap(), "CASE");
        let expected = fs_err::read_to_string(dir.join("expected.txt")).unwrap_or_default();
        if told != expected {
            differ.push_str(&format!("{name}\n--- expected\n{expected}--- told\n{told}\n"));
        }
    }
    assert!(differ.is_empty(), "{differ}");
}

#[test]
fn every_code_is_explained_and_has_a_case() {
    let codes = [
        machine::CANNOT_START,
        memory::DOES_NOT_FIT,
        session::BOOT_FAILED,
        session::TIMEOUT,
        session::ENDED,
        FILE,
        qmp::NO_ANSWER,
    ];
    for code in codes {
        cases("bad", &format!("{code}-"));
        let page = tests_dir().join(format!("../docs/diagnostics/{code}.md"));
        assert!(fs_err::read_to_string(page).unwrap().starts_with(&format!("# {code}: ")));
    }
}

#[test]
fn a_session_types_reads_memory_and_asks_the_monitor() {
    let scratch = tempfile::tempdir().unwrap();
    let transcript = scratch.path().join("boot.log");
    let image = scratch.path().join("image, with a comma");
    fs_err::write(&image, b"loaded beforehand").unwrap();
    let mut boot = boot(&transcript, None);
    boot.machine.cpus = 8;
    boot.preloads = vec![Preload { name: "image".into(), path: image, addr: TruePhys(SCRIPT) }];
    let mut lines = Vec::new();
    let mut show = |progress: Progress<'_>| {
        if let Progress::Line(Source::Uart(0), line) = progress {
            lines.push(line.to_owned());
        }
    };

    let mut session = Session::start(&boot).unwrap();
    let id = session.id();
    assert!(group_runs(id));
    session.wait_for(&prompt(), &mut show).unwrap();
    // What is typed is echoed, and must not be taken for its effect.
    let echo = Expect { failures: &["marker-2a"], ..prompt() };
    session.send(Source::Uart(0), b"setexpr x 6 * 7; false && echo marker-$x\n").unwrap();
    session.wait_for(&echo, &mut show).unwrap();
    session.send(Source::Uart(0), b"echo marker-$x and more\n").unwrap();
    session.wait_for(&expect("the product", "marker-2a"), &mut show).unwrap();
    let rest = session.wait_for(&expect("the rest of the line", "\n"), &mut show).unwrap();
    assert_eq!(rest.bytes, b" and more\r\n");
    session.wait_for(&prompt(), &mut show).unwrap();

    session.send(Source::Uart(0), b"mw.l 1000000 12345678; mw.b e0004600 58\n").unwrap();
    let other = Expect { source: Source::Uart(1), ..expect("a byte on the other UART", "X") };
    session.wait_for(&other, &mut show).unwrap();
    assert_eq!(session.read_memory(TruePhys(0x100_0000), 4).unwrap(), [0x12, 0x34, 0x56, 0x78]);
    assert_eq!(session.read_memory(TruePhys(SCRIPT), 17).unwrap(), b"loaded beforehand");
    assert!(session.monitor("info tlb").unwrap().contains("TLB1"));
    assert_eq!(session.send(Source::Uart(2), b"x").unwrap_err().code, session::ENDED);
    assert_eq!(session.read_memory(TruePhys(0), 1 << 40).unwrap_err().code, FILE);

    let outcome = session.passed();
    assert!(!group_runs(id));
    assert_eq!(outcome.reached.len(), 6);
    assert!(lines.iter().any(|line| line == "marker-2a and more"), "{lines:?}");
    assert_eq!(outcome.consoles.keys().collect::<Vec<_>>(), ["uart1"]);
    let other = fs_err::read_to_string(scratch.path().join("boot.uart1.log")).unwrap();
    assert!(other.starts_with('[') && other.ends_with("] X"), "{other}");
}

#[test]
fn a_killed_emulator_is_a_failure() {
    let scratch = tempfile::tempdir().unwrap();
    let transcript = scratch.path().join("boot.log");
    let mut session = Session::start(&boot(&transcript, None)).unwrap();
    session.wait_for(&prompt(), &mut |_| {}).unwrap();
    // The shell's own `kill`: the program is in a package that nothing else needs.
    let kill = format!("kill -KILL {}", session.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    let error = session.wait_for(&expect("what never comes", "never"), &mut |_| {}).unwrap_err();
    assert_eq!(error.code, session::ENDED);
    assert!(error.message.contains("signal: 9"), "{error:#?}");
    assert_eq!(error.facts["reached"], "U-Boot's prompt");
    assert_eq!(session.monitor("info tlb").unwrap_err().code, qmp::NO_ANSWER);
    drop(session);
    assert!(String::from_utf8_lossy(&fs_err::read(&transcript).unwrap()).contains("---- end ----\nfailed: QEMU ended"));
}

#[test]
fn a_failure_and_a_drop_leave_no_process() {
    let scratch = tempfile::tempdir().unwrap();
    let transcript = scratch.path().join("boot.log");
    let mut session = Session::start(&boot(&transcript, Some("echo oops-${ver}ERROR: x"))).unwrap();
    let id = session.id();
    let error = session.wait_for(&expect("what never comes", "never"), &mut |_| {}).unwrap_err();
    assert_eq!(error.code, session::BOOT_FAILED);
    assert!(!group_runs(id), "the failure itself ends the machine");
    drop(session);

    let session = Session::start(&boot(&transcript, None)).unwrap();
    let id = session.id();
    drop(session);
    assert!(!group_runs(id));
}

/// What a destructor cannot do, the kernel does: here the thread that started QEMU ends without one.
#[test]
fn the_emulator_does_not_outlive_whoever_started_it() {
    let scratch = tempfile::tempdir().unwrap();
    let transcript = scratch.path().join("boot.log");
    let start = || Session::start(&boot(&transcript, None)).unwrap();
    let mut session = std::thread::scope(|scope| scope.spawn(start).join().unwrap());
    let error = session.wait_for(&expect("what never comes", "never"), &mut |_| {}).unwrap_err();
    assert_eq!(error.code, session::ENDED);
    assert!(error.message.contains("signal: 9"), "{error:#?}");
    assert!(!group_runs(session.id()));
}

#[test]
fn a_signal_ends_a_wait() {
    static SIGNALLED: AtomicBool = AtomicBool::new(false);
    let scratch = tempfile::tempdir().unwrap();
    let transcript = scratch.path().join("boot.log");
    let boot = Boot {
        interrupted: || match SIGNALLED.load(Ordering::Relaxed) {
            true => Err(Diagnostic::error(Code::new('T', 999), "interrupted").into()),
            false => Ok(()),
        },
        ..boot(&transcript, None)
    };
    let mut session = Session::start(&boot).unwrap();
    let id = session.id();
    session.wait_for(&prompt(), &mut |_| {}).unwrap();
    SIGNALLED.store(true, Ordering::Relaxed);
    let error = session.wait_for(&expect("what never comes", "never"), &mut |_| {}).unwrap_err();
    assert_eq!(error.message, "interrupted");
    drop(session);
    assert!(!group_runs(id));
    assert!(String::from_utf8_lossy(&fs_err::read(&transcript).unwrap()).ends_with("---- end ----\ninterrupted\n"));
}

/// A console that never stops neither fills memory nor hides the timeout.
#[test]
fn a_flood_ends_with_the_timeout() {
    let scratch = tempfile::tempdir().unwrap();
    let transcript = scratch.path().join("boot.log");
    let flood = "while true; do echo 0123456789012345678901234567890123456789012345678901234567890123; done";
    let mut session = Session::start(&boot(&transcript, Some(flood))).unwrap();
    session.wait_for(&expect("the flood", "890123\r\n012345"), &mut |_| {}).unwrap();
    let brief = Expect { timeout: Duration::from_secs(3), ..expect("what never comes", "never") };
    let error = session.wait_for(&brief, &mut |_| {}).unwrap_err();
    assert_eq!(error.code, session::TIMEOUT);
    assert!(error.primary.unwrap().text.len() < 4096);
}

#[test]
fn channels_of_a_multiplexer_are_sources() {
    let scratch = tempfile::tempdir().unwrap();
    let transcript = scratch.path().join("boot.log");
    let names = [(0, "hv"), (1, "p1"), (2, "p2")].map(|(channel, name)| (channel, name.to_owned()));
    let boot = Boot { channels: Some(Channels { first: 0, names: names.into() }), ..boot(&transcript, None) };
    let channel = |number, text| Expect { source: Source::Channel(number), ..expect("a channel", text) };
    let mut session = Session::start(&boot).unwrap();
    // U-Boot speaks plainly, and so it is spoken to.
    session.wait_for(&Expect { source: Source::Channel(0), ..prompt() }, &mut |_| {}).unwrap();
    assert!(!session.takes_keys(Source::Channel(1)));
    assert_eq!(session.send(Source::Channel(1), b"x").unwrap_err().code, session::ENDED);
    // The bytes 18 '1' a 18 '2' b into the UART's register.
    let write = |bytes: &[u8]| bytes.iter().map(|byte| format!("mw.b e0004500 {byte:x};")).collect::<String>();
    session.send(Source::Channel(0), format!("{}\n", write(b"\x181a\x182b")).as_bytes()).unwrap();
    session.wait_for(&channel(1, "a"), &mut |_| {}).unwrap();
    // U-Boot's prompt comes after, on the channel that was selected last.
    let second = session.wait_for(&channel(2, "=> "), &mut |_| {}).unwrap();
    assert!(second.bytes.starts_with(b"b"));
    assert!(session.takes_keys(Source::Channel(1)));
    let files = session.passed().consoles;
    assert_eq!(files.keys().collect::<Vec<_>>(), ["hv", "p1", "p2"]);
    assert!(fs_err::read_to_string(&files["p1"]).unwrap().ends_with("] a"));
}

#[test]
fn a_person_types_sees_and_leaves() {
    use std::os::unix::net::UnixStream;
    let scratch = tempfile::tempdir().unwrap();
    let transcript = scratch.path().join("boot.log");
    let mut session = Session::start(&boot(&transcript, None)).unwrap();
    session.wait_for(&prompt(), &mut |_| {}).unwrap();
    let (mut keys, input) = UnixStream::pair().unwrap();
    let (mut screen, output) = UnixStream::pair().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            keys.write_all(b"setexpr x 6 * 7; echo seen-$x\n").unwrap();
            let mut seen = Vec::new();
            while !seen.ends_with(b"seen-2a\r\n=> ") {
                let mut byte = [0];
                screen.read_exact(&mut byte).unwrap();
                seen.push(byte[0]);
            }
            keys.write_all(b"\x01x").unwrap();
        });
        terminal::attach(&mut session, Source::Uart(0), &input, &output).unwrap();
    });
    let id = session.id();
    session.passed();
    assert!(!group_runs(id));
}

#[test]
fn the_hardware_tree_is_small_whole_and_always_the_same() {
    let machine = Machine::new("e500mc", 8, 2048);
    let tree = tree::hardware_tree(&machine).unwrap();
    assert_eq!(tree, tree::hardware_tree(&machine).unwrap());
    assert!(tree.len() < 64 << 10);
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("tree.dtb");
    fs_err::write(&file, &tree).unwrap();
    // Another program's reading of it.
    let text = Command::new("dtc").args(["-q", "-I", "dtb", "-O", "dts"]).arg(&file).output().unwrap();
    assert!(text.status.success());
    let text = String::from_utf8(text.stdout).unwrap();
    assert_eq!(text.matches("PowerPC,8544@").count(), 8);
    assert!(text.contains("serial@4500") && text.contains("serial@4600"));
    assert!(!text.contains("rng-seed") && !text.contains("bootcmd"));
}
