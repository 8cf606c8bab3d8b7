//! `verify`: is this bundle whole, and signed by somebody whom the user trusts?

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use citrine_formats::addr::Size;
use citrine_planner::diag::{self, Code, Diagnostic};
use citrine_planner::verify::{Verified, verify};
use serde_json::{Value, json};

use crate::cli::Verify;
use crate::report::{CmdResult, Ui};
use crate::sign;

/// A bundle that cannot be read.
pub const CANNOT_READ: Code = Code::new('O', 102);

/// Runs `verify`.
pub fn run(args: &Verify, ui: &Ui) -> CmdResult {
    let (keys_file, keys) = sign::trusted_keys(args.keys.as_deref(), ui)?;
    let (shown, input) = open(&args.bundle)?;
    let verified = verify(input, &keys, &mut |_, _| Ok(())).map_err(|error| match error.diagnostic(&shown) {
        Some(diagnostic) => diagnostic,
        None => unreadable(&shown, &error.to_string()),
    })?;
    if let Some(board) = &args.board {
        verified.for_board(board, &shown)?;
    }
    if ui.is_json() {
        ui.object(&to_json(&verified, &shown, &keys_file));
    } else {
        ui.product(&to_text(&verified, &shown, &keys_file));
    }
    Ok(())
}

/// Opens a bundle, or standard input for `-`; the first value is how messages name it.
fn open(path: &Path) -> diag::Result<(String, Box<dyn Read>)> {
    if path == Path::new("-") {
        return Ok(("standard input".to_owned(), Box::new(io::stdin().lock())));
    }
    let shown = path.display().to_string();
    match File::open(path) {
        Ok(file) => Ok((shown, Box::new(file))),
        Err(error) => Err(unreadable(&shown, &format!("it cannot be read: {error}")).into()),
    }
}

/// A bundle that could not be read to its end.
pub fn unreadable(file: &str, why: &str) -> Diagnostic {
    Diagnostic::error(CANNOT_READ, format!("{file} is not verified: {why}"))
        .fact("file", file)
        .help("name the .tar file of a bundle that this user can read")
}

fn to_text(verified: &Verified, shown: &str, keys_file: &Path) -> String {
    let manifest = &verified.manifest;
    let mut text = format!("{shown} is whole and signed\n");
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "  {name:9} {value}");
    };
    line("identity", &verified.identity.to_string());
    line("board", &format!("{} ({}, {})", manifest.board, manifest.soc, manifest.core));
    line("profile", &manifest.profile);
    line("epoch", &manifest.epoch.to_string());
    for signer in &verified.signers {
        line("signer", &format!("{} {}", signer.principal, signer.fingerprint));
        let kind = if signer.dev { " (development key of this machine)" } else { "" };
        line("", &format!("trusted by {}{kind}", keys_file.display()));
    }
    for stranger in &verified.strangers {
        line("also", &format!("{stranger}, which is not trusted"));
    }
    let width = manifest.parts.iter().map(|part| part.name.len()).max().unwrap_or(0);
    for part in &manifest.parts {
        let places: Vec<_> = part.slots.iter().map(|slot| format!("{} {}", slot.media, slot.load)).collect();
        let size = Size(part.size).to_string();
        let row = format!("  {:width$}  {:13}  {size:>10}  {}", part.name, part.role, places.join(", "));
        let _ = writeln!(text, "{}", row.trim_end());
    }
    text
}

fn to_json(verified: &Verified, shown: &str, keys_file: &Path) -> Value {
    let manifest = &verified.manifest;
    json!({
        "type": "verified",
        "bundle": shown,
        "identity": verified.identity,
        "board": manifest.board,
        "soc": manifest.soc,
        "core": manifest.core,
        "profile": manifest.profile,
        "epoch": manifest.epoch,
        "keys": keys_file.display().to_string(),
        "signers": verified.signers.iter().map(|signer| json!({
            "principal": signer.principal,
            "fingerprint": signer.fingerprint,
            "development": signer.dev,
        })).collect::<Vec<_>>(),
        "strangers": verified.strangers,
        "parts": manifest.parts,
    })
}
