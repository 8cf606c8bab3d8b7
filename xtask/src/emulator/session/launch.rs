//! How a [`Session`] starts: the command line, the sockets, the control tree and the transcript's head.

use std::ffi::OsString;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use citrine_planner::diag::{Diagnostic, Result};

use super::Session;
use crate::emulator::console::{UARTS, harmless, reader};
use crate::emulator::consoles::Consoles;
use crate::emulator::machine::{CANNOT_START, option};
use crate::emulator::process::Process;
use crate::emulator::qmp::Qmp;
use crate::emulator::transcript::Transcript;
use crate::emulator::{Boot, memory, tree, unusable};

/// Chunks in flight between the readers and the session.
const CHUNKS_IN_FLIGHT: usize = 64;

impl Session {
    /// Starts the machine with every console connected, so that no byte is lost.
    ///
    /// # Errors
    /// `Q101`, `Q102`, `Q106` or `Q107`.
    pub fn start(boot: &Boot<'_>) -> Result<Self> {
        let qemu = boot.machine.locate()?;
        memory::check(&boot.machine, &boot.preloads)?;
        let control_tree = tree::control_tree(&boot.machine, boot.bootcmd.as_deref())?;
        let scratch =
            tempfile::tempdir().map_err(|error| unusable(&std::env::temp_dir(), "the temporary directory", &error))?;
        let tree_file = scratch.path().join("control.dtb");
        fs_err::write(&tree_file, control_tree)
            .map_err(|error| unusable(&tree_file, "U-Boot's control tree", &error))?;

        let mut args = arguments(boot, tree_file);
        // Both ends of a connected pair: nothing to name, to race for, or to remove afterwards.
        let mut inherited: Vec<OwnedFd> = Vec::new();
        let mut socket = |name: &str, args: &mut Vec<OsString>| -> Result<UnixStream> {
            let (ours, theirs) = UnixStream::pair().map_err(|error| no_socket(&error))?;
            args.extend(["-chardev".into(), format!("socket,id={name},fd={}", theirs.as_raw_fd()).into()]);
            inherited.push(theirs.into());
            Ok(ours)
        };
        let mut uarts = Vec::new();
        for uart in 0..UARTS {
            uarts.push(socket(&format!("uart{uart}"), &mut args)?);
            args.extend(["-serial".into(), format!("chardev:uart{uart}").into()]);
        }
        let monitor = socket("monitor", &mut args)?;
        args.extend(["-mon".into(), "chardev=monitor,mode=control".into()]);

        let (sender, chunks) = sync_channel(CHUNKS_IN_FLIGHT);
        let mut process = Process::spawn(&qemu, &args, inherited)?;
        let started = Instant::now();
        let mut readers = Vec::new();
        for (uart, socket) in (0..UARTS).zip(&uarts) {
            let socket = socket.try_clone().map_err(|error| no_socket(&error))?;
            readers.push(reader(uart, socket, started, sender.clone()));
        }
        let qmp = Qmp::connect(monitor).map_err(|error| did_not_start(&mut process, error))?;

        let mut head = vec![
            "Citrine boots a machine".to_owned(),
            format!("qemu     {}", qmp.version()),
            format!("firmware {}", boot.machine.firmware.display()),
            format!("bootcmd  {}", boot.bootcmd.as_deref().unwrap_or("(none)")),
            format!("command  {}", command_line(&qemu, &args)),
        ];
        head.extend(
            boot.preloads
                .iter()
                .map(|preload| format!("preload  {} {} {}", preload.addr, preload.name, preload.path.display())),
        );
        head.extend(boot.notes.iter().cloned());
        let consoles =
            Consoles::new(boot.channels.as_ref(), |names| Transcript::create(boot.transcript, &head, names))?;
        Ok(Self {
            process,
            uarts,
            chunks: Some(chunks),
            readers,
            qmp,
            consoles,
            scratch,
            reached: Vec::new(),
            interrupted: boot.interrupted,
        })
    }
}

/// The machine with what lies in its memory; its serial lines are for the caller.
pub(in crate::emulator) fn arguments(boot: &Boot<'_>, tree_file: PathBuf) -> Vec<OsString> {
    let mut args = boot.machine.arguments(OsString::new());
    args.extend(["-dtb".into(), tree_file.into()]);
    for preload in &boot.preloads {
        let place = format!(",addr={:#x},force-raw=on", preload.addr.0);
        args.extend(["-device".into(), option("loader,file=", &preload.path, &place)]);
    }
    args
}

/// QEMU that ends before it greets says why on its standard error.
fn did_not_start(process: &mut Process, error: Box<Diagnostic>) -> Box<Diagnostic> {
    let deadline = Instant::now() + Duration::from_secs(5);
    while Instant::now() < deadline {
        if let Some(ended) = process.ended() {
            return Diagnostic::error(CANNOT_START, format!("QEMU did not start: {ended}"))
                .help("QEMU's own message names the option or the file; see docs/diagnostics/Q101.md")
                .into();
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    error
}

fn no_socket(error: &std::io::Error) -> Box<Diagnostic> {
    Diagnostic::error(CANNOT_START, format!("there is no socket for QEMU: {error}"))
        .help("raise the limit of open files: `ulimit -n 1024`")
        .into()
}

/// The command as a shell would take it, for the transcript.
fn command_line(qemu: &Path, args: &[OsString]) -> String {
    let quote = |word: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_=,.:/+@".contains(c);
        if !word.is_empty() && word.chars().all(plain) {
            word.to_owned()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    };
    std::iter::once(qemu.as_os_str())
        .chain(args.iter().map(OsString::as_os_str))
        .map(|word| quote(&harmless(word.as_encoded_bytes())))
        .collect::<Vec<_>>()
        .join(" ")
}
