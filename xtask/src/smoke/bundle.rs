//! A bundle's bytes, in memory, once its signature and every hash hold.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use citrine_formats::manifest::{Part, Role};
use citrine_planner::pack::parts::PROFILE;
use citrine_planner::profile::Profile;
use citrine_planner::verify::{MANIFEST, Verified, verify};

use crate::cmd::verify::unreadable;
use crate::report::{Failure, Ui};
use crate::sign;
use citrine_planner::diag::Diagnostic;

/// Reads and verifies the bundle in `file`, trusting the user's keys: what it proved to be, and its parts' bytes by
/// name.
///
/// # Errors
/// Whatever is wrong with it (`B1xx`, `O102`).
pub fn read(file: &Path, keys: Option<&Path>, ui: &Ui) -> Result<(Verified, BTreeMap<String, Vec<u8>>), Failure> {
    let shown = file.display().to_string();
    let (_, keys) = sign::trusted_keys(keys, ui)?;
    let input = File::open(file).map_err(|error| unreadable(&shown, &format!("it cannot be read: {error}")))?;
    let mut bytes: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let verified = verify(input, &keys, &mut |part, piece| {
        // Sizes are signed and bounded, so what is collected is too.
        bytes.entry(part.name.clone()).or_default().extend_from_slice(piece);
        Ok(())
    })
    .map_err(|error| match error.diagnostic(&shown) {
        Some(diagnostic) => diagnostic,
        None => unreadable(&shown, &error.to_string()),
    })?;
    Ok((verified, bytes))
}

/// A verified bundle and its parts' bytes by name.
#[derive(Debug)]
pub struct Parts {
    /// What was verified.
    pub verified: Verified,
    /// The bytes.
    pub bytes: BTreeMap<String, Vec<u8>>,
    /// The profile that the bundle carries.
    pub profile: Profile,
}

impl Parts {
    /// Reads and verifies the bundle in `file`, trusting the user's keys.
    ///
    /// # Errors
    /// Whatever is wrong with it (`B1xx`).
    pub fn read(file: &Path, keys: Option<&Path>, ui: &Ui) -> Result<Self, Failure> {
        Self::of(read(file, keys, ui)?, file)
    }

    /// The parts of a bundle that [`read`] has read from `file`.
    ///
    /// # Errors
    /// `B105` if it carries no profile that this version reads.
    pub fn of((verified, bytes): (Verified, BTreeMap<String, Vec<u8>>), file: &Path) -> Result<Self, Failure> {
        let profile = bytes.get(PROFILE).and_then(|json| serde_json::from_slice(json).ok());
        let Some(profile) = profile else {
            return Err(Diagnostic::error(
                MANIFEST,
                format!("{} has no {PROFILE} that this version reads", file.display()),
            )
            .help("build the bundle anew with this version")
            .into());
        };
        Ok(Self { verified, bytes, profile })
    }

    /// The part with this role that comes first.
    pub fn part(&self, role: Role) -> Option<&Part> {
        self.verified.manifest.parts.iter().find(|part| part.role == role)
    }
}
