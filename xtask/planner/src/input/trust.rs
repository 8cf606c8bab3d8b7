//! The file that a profile's `[trust] key` names: an OpenSSH public key.

use citrine_core::trust::is_usable;
use citrine_formats::signature::Key;
use ssh_key::{HashAlg, PublicKey};

use crate::diag::{Code, Diagnostic};
use crate::pack::configuration_key;
use crate::profile::Profile;
use crate::verify::keys::DEV_PRINCIPAL;

/// The file is none of a key that the firmware can believe.
pub const NO_KEY: Code = Code::new('K', 102);
/// The key is for development.
pub const DEVELOPMENT_KEY: Code = Code::new('K', 103);

/// Where the key's file stands in the profile.
const PLACE: &str = "trust/key";

/// Gives a profile the key in `text`, which is that of the file that it names, or why this cannot be read.
/// `is_development` says whether this machine knows a key as one for development.
pub fn attach(
    profile: &mut Profile,
    text: Result<String, String>,
    is_development: &dyn Fn(&PublicKey) -> bool,
) -> Option<Diagnostic> {
    let found = text.and_then(|text| key_of(&text));
    let (public, key) = match found {
        Ok(found) => found,
        Err(why) => return Some(no_key(profile, &why)),
    };
    profile.trust = Some(key);
    if public.comment() != DEV_PRINCIPAL && !is_development(&public) {
        return None;
    }
    let message = format!("the firmware shall not believe the development key {}", public.fingerprint(HashAlg::Sha256));
    let help = "make a key for this with `cargo xtask keygen FILE`, and keep its private half where no build runs";
    Some(Diagnostic::error(DEVELOPMENT_KEY, message).primary(profile.places.label(PLACE, "named here")).help(help))
}

/// That a profile names a file without a usable key.
pub fn no_key(profile: &Profile, why: &str) -> Diagnostic {
    let file = profile.trust_file.as_deref().unwrap_or_default().escape_debug().to_string();
    Diagnostic::error(NO_KEY, format!("{file} is no key for the firmware: {why}"))
        .primary(profile.places.label(PLACE, "named here"))
        .fact("file", file)
        .help("name the public key of an Ed25519 key pair, from the profile's directory: `cargo xtask keygen FILE` makes FILE.pub")
}

fn key_of(text: &str) -> Result<(PublicKey, Key), String> {
    let public = PublicKey::from_openssh(text.trim())
        .map_err(|error| format!("it is not a public key in OpenSSH's format: {error}"))?;
    let key = configuration_key(&public)
        .ok_or_else(|| format!("it is of type {}; the firmware knows ssh-ed25519 only", public.algorithm()))?;
    if is_usable(&key) { Ok((public, key)) } else { Err("its 32 bytes are no Ed25519 key, or a weak one".to_owned()) }
}
