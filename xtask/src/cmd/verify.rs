//! `verify`: is this bundle whole, and signed by somebody whom the user trusts?

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use citrine_formats::addr::Size;
use citrine_formats::manifest::Media;
use citrine_planner::diag::{self, Code, Diagnostic};
use citrine_planner::verify::policy::Policy;
use citrine_planner::verify::{self, Opened, Verified};
use serde_json::{Value, json};

use crate::cli::{Demands, Medium, Verify};
use crate::release::check::{Keys, check};
use crate::report::{CmdResult, Failure, Ui};
use crate::sign;

/// A bundle that cannot be read.
pub const CANNOT_READ: Code = Code::new('O', 102);

/// Runs `verify`.
pub fn run(args: &Verify, ui: &Ui) -> CmdResult {
    if args.bundle.is_dir() {
        return release(args, ui);
    }
    let judged = open_judged(&args.bundle, &args.demands, ui)?;
    let Judged { shown, keys_file, opened } = judged;
    let verified = opened.parts(&mut |_, _| Ok(())).map_err(|error| refused(&error, &shown))?;
    policy_of(&args.demands).judge_whole(&verified, &shown)?;
    if ui.is_json() {
        ui.object(&to_json("verified", &verified, &shown, &keys_file));
    } else {
        ui.product(&to_text(&verified, &shown, &keys_file));
    }
    Ok(())
}

/// Checks a whole release.
fn release(args: &Verify, ui: &Ui) -> CmdResult {
    let checked = check(&args.bundle, &Keys::read(args.demands.keys.as_deref(), ui)?, &policy_of(&args.demands))?;
    let (index, shown) = (&checked.index, args.bundle.display().to_string());
    if ui.is_json() {
        ui.object(&json!({
            "type": "verified-release",
            "release": shown,
            "version": index.version,
            "signer": { "principal": checked.signer.principal, "fingerprint": checked.signer.fingerprint },
            "bundles": index.bundles,
            "files": index.files.len(),
        }));
        return Ok(());
    }
    let mut text = format!("{shown} is release {}, whole and signed\n", index.version);
    let _ = writeln!(text, "  signer    {} {}", checked.signer.principal, checked.signer.fingerprint);
    let _ = writeln!(text, "  files     {}", index.files.len());
    for bundle in &index.bundles {
        let _ = writeln!(text, "  {:32} epoch {}  {}", bundle.file, bundle.epoch, bundle.identity);
    }
    ui.product(&text);
    Ok(())
}

/// A bundle whose manifest is signed and as demanded; its parts are not read yet.
pub(super) struct Judged {
    /// How messages name it.
    pub(super) shown: String,
    /// Where the trusted keys are from.
    pub(super) keys_file: PathBuf,
    /// The bundle.
    pub(super) opened: Opened<Box<dyn Read>>,
}

/// Opens a bundle, or standard input for `-`, and judges its manifest.
///
/// # Errors
/// Whatever is wrong with it (`B1xx`), `O102`.
pub(super) fn open_judged(bundle: &Path, demands: &Demands, ui: &Ui) -> Result<Judged, Failure> {
    let (keys_file, keys) = sign::trusted_keys(demands.keys.as_deref(), ui)?;
    let (shown, input) = input_of(bundle)?;
    let opened = verify::open(input, &keys).map_err(|error| refused(&error, &shown))?;
    policy_of(demands).judge(&opened.manifest, &opened.signers, &keys, &shown)?;
    Ok(Judged { shown, keys_file, opened })
}

pub(super) fn policy_of(demands: &Demands) -> Policy {
    Policy {
        board: demands.board.clone(),
        profile: demands.profile.clone(),
        media: demands.media.map(|medium| match medium {
            Medium::Ram => Media::Ram,
            Medium::Nor => Media::Nor,
        }),
        min_epoch: demands.min_epoch,
        threshold: usize::from(demands.threshold),
        production: demands.production,
    }
}

/// The first value is how messages name it.
fn input_of(path: &Path) -> diag::Result<(String, Box<dyn Read>)> {
    if path == Path::new("-") {
        return Ok(("standard input".to_owned(), Box::new(io::stdin().lock())));
    }
    let shown = path.display().to_string();
    match File::open(path) {
        Ok(file) => Ok((shown, Box::new(file))),
        Err(error) => Err(unreadable(&shown, &format!("it cannot be read: {error}")).into()),
    }
}

/// Why the bundle `file` was not verified.
pub fn refused(error: &verify::Error, file: &str) -> Diagnostic {
    error.diagnostic(file).unwrap_or_else(|| unreadable(file, &error.to_string()))
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
    if !verified.unsigned.is_empty() {
        line("unsigned", &format!("{}: the firmware refuses it until it is signed", verified.unsigned.join(", ")));
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

/// What is known of a verified bundle, as an object of this type.
pub(super) fn to_json(kind: &str, verified: &Verified, shown: &str, keys_file: &Path) -> Value {
    let manifest = &verified.manifest;
    json!({
        "type": kind,
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
        "unsigned": verified.unsigned,
        "parts": manifest.parts,
    })
}
