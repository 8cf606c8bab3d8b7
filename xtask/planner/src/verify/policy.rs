//! What a user demands of a bundle besides that it is whole and signed: for whom it is, how old, and signed by how many.
//!
//! Judged on the signed manifest, before any part is read.

use citrine_formats::diag::Code;
use citrine_formats::manifest::{Manifest, Media};

use super::Verified;
use super::keys::{Signer, TrustedKeys};
use crate::diag::{self, Diagnostic};

/// A bundle for another board.
pub const BOARD: Code = Code::new('B', 110);
/// A bundle of another profile.
pub const PROFILE: Code = Code::new('B', 113);
/// A bundle for another medium.
pub const MEDIA: Code = Code::new('B', 114);
/// A bundle that is too old.
pub const EPOCH: Code = Code::new('B', 115);
/// A bundle that too few keys have signed.
pub const THRESHOLD: Code = Code::new('B', 116);
/// A bundle that a development key has signed.
pub const DEVELOPMENT: Code = Code::new('B', 117);

/// A configuration that nobody has signed yet, though the firmware demands it.
pub const UNSIGNED: Code = Code::new('K', 105);

/// The demands; nothing is demanded that is not there.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Policy {
    /// The board that it is for.
    pub board: Option<String>,
    /// The profile that it is made of.
    pub profile: Option<String>,
    /// The medium that it can be started from.
    pub media: Option<Media>,
    /// The smallest epoch.
    pub min_epoch: u32,
    /// How many different trusted keys must have signed; one has in any case.
    pub threshold: usize,
    /// Whether no development key may have signed.
    pub production: bool,
}

impl Policy {
    /// Judges the bundle `file` that `signers` among `keys` have signed.
    ///
    /// # Errors
    /// The first demand that is not met: `B110` or `B113` to `B117`.
    pub fn judge(&self, manifest: &Manifest, signers: &[Signer], keys: &TrustedKeys, file: &str) -> diag::Result<()> {
        if let Some(board) = &self.board {
            for_board(manifest, board, file)?;
        }
        self.subject(manifest, file)?;
        if self.production
            && let Some(signer) = signers.iter().find(|signer| signer.dev)
        {
            let message = format!("{file} is signed by the development key {}", signer.fingerprint);
            let help =
                "replace its signatures by that of a production key: `cargo xtask sign BUNDLE --replace --key FILE`";
            return Err(Diagnostic::error(DEVELOPMENT, message).fact("file", file).help(help).into());
        }
        // One signature for each key: the order of the files makes them different.
        if signers.len() < self.threshold {
            let known = if self.production { keys.count_in_production() } else { keys.count() };
            let message = format!(
                "{file} is signed by {} of the {known} trusted keys, {} are demanded",
                signers.len(),
                self.threshold
            );
            let help = if known < self.threshold {
                "enter the keys of the other signers in the file of trusted keys"
            } else {
                "let the others sign, too: `cargo xtask sign BUNDLE --key FILE`"
            };
            return Err(Diagnostic::error(THRESHOLD, message).fact("file", file).help(help).into());
        }
        Ok(())
    }

    /// Judges what only the whole bundle `file` shows.
    ///
    /// # Errors
    /// `K105`.
    pub fn judge_whole(&self, verified: &Verified, file: &str) -> diag::Result<()> {
        match unsigned_configuration(&verified.unsigned, file) {
            Some(diagnostic) if self.production => Err(diagnostic.into()),
            _ => Ok(()),
        }
    }

    /// What it is for, but for the board.
    fn subject(&self, manifest: &Manifest, file: &str) -> diag::Result<()> {
        let refuse = |code, message: String, help: &str| {
            Err(Diagnostic::error(code, message).fact("file", file).help(help).into())
        };
        if let Some(profile) = self.profile.as_ref().filter(|profile| **profile != manifest.profile) {
            let message = format!("{file} is a bundle of the profile {}, not {profile}", manifest.profile);
            return refuse(PROFILE, message, "get the bundle of that profile, or name the one that you want");
        }
        if let Some(media) = self.media
            && !manifest.parts.iter().any(|part| part.slot(media).is_some())
        {
            let message = format!("{file} has no part for the medium {media}");
            return refuse(MEDIA, message, "build one with that medium: `cargo xtask bundle --media all`");
        }
        if manifest.epoch < self.min_epoch {
            let message = format!("{file} is of epoch {}, at least {} is demanded", manifest.epoch, self.min_epoch);
            return refuse(EPOCH, message, "use a newer bundle: this one was withdrawn when the epoch was raised");
        }
        Ok(())
    }
}

/// That these signatures over configurations of the bundle `file` are still to be made, if there are any.
pub fn unsigned_configuration(names: &[String], file: &str) -> Option<Diagnostic> {
    let first = names.first()?;
    let message = format!("{file} does not start yet: its firmware wants a signature in {}", names.join(" and "));
    let help = "sign it with the key of the profile's `[trust]`: `cargo xtask sign BUNDLE --key FILE`";
    Some(Diagnostic::error(UNSIGNED, message).fact("file", file).fact("part", first).help(help))
}

/// Requires the bundle `file` to be for `board`.
///
/// # Errors
/// `B110`.
pub fn for_board(manifest: &Manifest, board: &str, file: &str) -> diag::Result<()> {
    if manifest.board == board {
        return Ok(());
    }
    let message = format!("{file} is a bundle for the board {}, not {board}", manifest.board);
    Err(Box::new(
        Diagnostic::error(BOARD, message)
            .fact("file", file)
            .fact("board", &manifest.board)
            .help(format!("build one with `--board {board}`, or name the board that you have")),
    ))
}

#[cfg(test)]
mod tests;
