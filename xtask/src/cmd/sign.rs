//! `sign`: another signature for a bundle that is there, and those over its configuration trees that the same key is to
//! make for the firmware; nothing else of it changes.
//!
//! The bundle is read twice: once to know that it is good, before anybody is asked to sign it, and once more, verified
//! again, while it is written. So nothing is held in memory, and nothing is written that was not verified.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use citrine_formats::manifest::{MAX_SIGNATURES, NAMESPACE, Part, Role};
use citrine_planner::diag::{self, Diagnostic};
use citrine_planner::pack::Rewriter;
use citrine_planner::verify::keys::{self, TrustedKeys};
use citrine_planner::verify::{self, Error, SIGNATURE, Verified};
use serde_json::json;

use super::verify::{refused, unreadable};
use crate::cli::Sign;
use crate::output::{self, cannot_write, place_of};
use crate::progress::watch_signals;
use crate::report::{CmdResult, Ui};
use crate::sign::configuration::{self, Blob};
use crate::sign::{self, Signer};

/// Runs `sign`.
pub fn run(args: &Sign, ui: &Ui) -> CmdResult {
    watch_signals()?;
    let shown = args.bundle.display().to_string();
    let (_, trusted) = sign::trusted_keys(args.keys.as_deref(), ui)?;
    let mut file =
        File::open(&args.bundle).map_err(|error| unreadable(&shown, &format!("it cannot be read: {error}")))?;
    let opened = verify::open(&file, &trusted).map_err(|error| refused(&error, &shown))?;
    let (message, before) = (opened.manifest_bytes.clone(), opened.signatures.clone());
    let mut small: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let verified = opened
        .parts(&mut |part, bytes| {
            if matches!(part.role, Role::Configuration | Role::Signature) {
                small.entry(part.name.clone()).or_default().extend_from_slice(bytes);
            }
            Ok(())
        })
        .map_err(|error| refused(&error, &shown))?;

    let signer = sign::signer(Some(&args.key))?;
    // A good one stays: tokens make another each time.
    let own = match before.iter().find(|text| signer.has_signed(NAMESPACE, &message, text)) {
        Some(text) => text.clone(),
        None => signer.sign(NAMESPACE, &message)?,
    };
    let others = if args.replace { &[][..] } else { &before[..] };
    let after = in_order(&message, others.iter().chain([&own]), &shown)?;
    // A link stays a link: what it leads to is replaced.
    let target = match &args.output {
        Some(output) => output.clone(),
        None => std::fs::canonicalize(&args.bundle).unwrap_or_else(|_| args.bundle.clone()),
    };
    let blobs = configurations(&verified, &signer, &small)?;
    let unsigned: Vec<String> = verified.unsigned.iter().filter(|name| !blobs.contains_key(*name)).cloned().collect();
    ui.diagnostics(configuration::notice(&unsigned, &shown).as_slice());
    let unchanged = after == before && blobs.is_empty() && args.output.is_none();
    if !unchanged {
        file.rewind().map_err(|error| unreadable(&shown, &error.to_string()))?;
        rewrite(&file, &shown, &trusted, (&message, &after, &blobs), &target)?;
    }
    if ui.is_json() {
        ui.object(&json!({
            "type": "signed",
            "bundle": target.display().to_string(),
            "identity": verified.identity,
            "fingerprint": signer.fingerprint(),
            "development": signer.is_development(),
            "signatures": after.len(),
            "configurations": blobs.keys().collect::<Vec<_>>(),
            "unsigned": unsigned,
            "unchanged": unchanged,
        }));
    } else {
        let names: Vec<&str> = blobs.keys().map(String::as_str).collect();
        let made = if names.is_empty() { String::new() } else { format!("  firmware  {}\n", names.join(", ")) };
        let state = if unchanged { "has that signature already" } else { "is signed" };
        ui.product(&format!(
            "{} {state}\n  identity  {}\n  key       {}\n  in all    {} signature{}\n{made}",
            target.display(),
            verified.identity,
            signer.fingerprint(),
            after.len(),
            if after.len() == 1 { "" } else { "s" },
        ));
    }
    Ok(())
}

/// The signatures over configuration trees that are `signer`'s to make and not there yet, by name. `small` holds the bytes
/// of both by name.
fn configurations(
    verified: &Verified,
    signer: &Signer,
    small: &BTreeMap<String, Vec<u8>>,
) -> diag::Result<BTreeMap<String, Blob>> {
    let mut made = BTreeMap::new();
    for part in verified.manifest.parts.iter().filter(|part| verified.unsigned.contains(&part.name)) {
        let tree = part.signs().and_then(|name| small.get(name));
        if let (Some(key), Some(tree)) = (&part.key, tree)
            && configuration::is_by(signer, key)
        {
            made.insert(part.name.clone(), configuration::sign(signer, tree)?);
        }
    }
    Ok(made)
}

/// The signature files in the order of their keys, one each.
fn in_order<'t>(message: &[u8], texts: impl Iterator<Item = &'t String>, shown: &str) -> diag::Result<Vec<String>> {
    let checked = texts.filter_map(|text| {
        let checked = keys::check(NAMESPACE, message, text.as_bytes()).ok()?;
        Some((checked.fingerprint, text.clone()))
    });
    let texts: Vec<String> = checked.collect::<BTreeMap<_, _>>().into_values().collect();
    if texts.len() <= MAX_SIGNATURES {
        return Ok(texts);
    }
    let message = format!("{shown} has {MAX_SIGNATURES} signatures, which is the most that a bundle takes");
    Err(Diagnostic::error(SIGNATURE, message).fact("file", shown).help("take the others away with --replace").into())
}

/// Writes the bundle with `signatures`, and `blobs` in place of the parts of these names, to `target`, in one step.
fn rewrite(
    file: &File,
    shown: &str,
    trusted: &TrustedKeys,
    (message, signatures, blobs): (&[u8], &[String], &BTreeMap<String, Blob>),
    target: &PathBuf,
) -> diag::Result<()> {
    let cannot = |error| cannot_write(target, &error);
    let opened = verify::open(file, trusted).map_err(|error| refused(&error, shown))?;
    if opened.manifest_bytes != message {
        return Err(unreadable(shown, "it was replaced while it was read").into());
    }
    let (dir, name) = place_of(target);
    output::sweep_unclaimed(dir, &name);
    let new = output::temporary(dir, &name).map_err(cannot)?;
    let _claim = output::claim(new.path()).map_err(cannot)?;
    let mut to = BufWriter::with_capacity(128 << 10, new.as_file());
    let mut rewriter =
        Rewriter::new(&mut to, message, signatures, opened.manifest.source_date_epoch).map_err(cannot)?;
    let mut replaced = Replaced { blobs, at: 0 };
    opened.parts(&mut |part, bytes| rewriter.piece(part, replaced.piece(part, bytes))).map_err(
        |error| match error {
            Error::Visit(error) => cannot_write(target, &error),
            error => refused(&error, shown),
        },
    )?;
    rewriter.finish().and_then(|()| to.flush()).map_err(cannot)?;
    drop(to);
    crate::progress::check_interrupted()?;
    output::put(new, Path::new(target)).map_err(cannot)?;
    Ok(())
}

/// Puts signatures where empty ones were.
struct Replaced<'b> {
    blobs: &'b BTreeMap<String, Blob>,
    /// Bytes of the current one that are written.
    at: usize,
}

impl Replaced<'_> {
    /// What takes the place of the next bytes of a part.
    fn piece<'p>(&'p mut self, part: &Part, bytes: &'p [u8]) -> &'p [u8] {
        let Some(blob) = self.blobs.get(&part.name) else { return bytes };
        let from = self.at;
        self.at = (from + bytes.len()) % blob.len();
        // A part that was verified has as many bytes as a signature.
        blob.get(from..from + bytes.len()).unwrap_or(bytes)
    }
}
