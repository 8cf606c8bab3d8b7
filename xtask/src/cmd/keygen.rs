//! `keygen`: a new key, made by `ssh-keygen`, with the line that makes others trust it.

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};

use citrine_planner::diag::{self, Code, Diagnostic};
use citrine_planner::verify::keys::is_principals;
use serde_json::json;
use ssh_key::{HashAlg, PublicKey};
use xshell::cmd;

use crate::cli::Keygen;
use crate::output::{self, cannot_write, place_of};
use crate::progress::watch_signals;
use crate::report::{CmdResult, Ui};
use crate::{sign, tools};

/// A key that cannot be made.
pub const NO_KEY: Code = Code::new('B', 121);

/// Runs `keygen`.
pub fn run(args: &Keygen, ui: &Ui) -> CmdResult {
    watch_signals()?;
    let file = &args.file;
    let public_file = with_pub(file);
    for path in [file, &public_file] {
        if std::fs::symlink_metadata(path).is_ok() {
            return Err(there_already(path).into());
        }
    }
    let (dir, file_name) = place_of(file);
    let name = args.name.clone().unwrap_or_else(|| file_name.clone());
    if !is_principals(&name) || name.contains(',') {
        return Err(impossible("the file's name is no principal", "say who signs with it: `--name NAME`").into());
    }
    if !args.no_passphrase && !io::stdin().is_terminal() {
        let help = "run it on a terminal; or make a key without one: `--no-passphrase`";
        return Err(impossible("there is no terminal to ask for a passphrase", help).into());
    }
    output::sweep_unclaimed(dir, &file_name);
    let work = output::temporary_dir(dir, &file_name).map_err(|error| cannot_write(file, &error))?;
    let _claim = output::claim(work.path()).map_err(|error| cannot_write(file, &error))?;
    let made = work.path().join("key");
    make(&made, &name, args.no_passphrase)?;

    let key = PublicKey::read_openssh_file(&with_pub(&made))
        .map_err(|error| impossible(&format!("ssh-keygen made none that is readable: {error}"), "see ssh-keygen(1)"))?;
    // Links, not renaming: they never replace what has come there in the meantime. The public half first.
    link(&with_pub(&made), &public_file)?;
    if let Err(error) = link(&made, file) {
        let _ = std::fs::remove_file(&public_file);
        return Err(error.into());
    }
    let line = sign::trusted_line(&name, &key);
    if ui.is_json() {
        ui.object(&json!({
            "type": "key",
            "private": file.display().to_string(),
            "public": public_file.display().to_string(),
            "fingerprint": key.fingerprint(HashAlg::Sha256).to_string(),
            "principal": name,
            "allowed_signers": line,
        }));
        return Ok(());
    }
    ui.product(&format!("{line}\n"));
    let (file, public) = (file.display(), public_file.display());
    ui.say(&format!("{file} is the private key; nobody else needs it, and a copy of it belongs in a safe place."));
    ui.say("Whoever shall believe it enters the line above in a file of trusted keys (`verify --keys FILE`).");
    ui.say(&if args.no_passphrase {
        format!("Sign with it: cargo xtask sign BUNDLE --key {file}")
    } else {
        format!("Sign with it: ssh-add {file}, then cargo xtask sign BUNDLE --key {public}")
    });
    Ok(())
}

/// The file of the public half.
fn with_pub(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".pub");
    name.into()
}

fn make(file: &Path, name: &str, no_passphrase: bool) -> diag::Result<()> {
    let shell = tools::shell_in(Path::new("."))?;
    let command = cmd!(shell, "ssh-keygen -q -t ed25519 -C {name} -f {file}");
    if no_passphrase {
        return tools::capture(tools::clean(command).args(["-N", ""])).map(drop);
    }
    // It asks on the terminal by itself.
    let asked = command.quiet().run();
    asked
        .map_err(|error| impossible(&format!("ssh-keygen made none: {error}"), "give the same passphrase twice").into())
}

fn link(from: &Path, to: &Path) -> diag::Result<()> {
    std::fs::hard_link(from, to).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => there_already(to).into(),
        _ => cannot_write(to, &error).into(),
    })
}

fn there_already(path: &Path) -> Diagnostic {
    let shown = path.display().to_string();
    impossible(&format!("{shown} is there already; no key is ever overwritten"), "name another file")
        .fact("file", shown)
}

fn impossible(why: &str, help: &str) -> Diagnostic {
    Diagnostic::error(NO_KEY, format!("no key is made: {why}")).help(help)
}
