//! Keys: whose key signs, and whose signatures are believed.
//!
//! Both are files of OpenSSH in the user's configuration directory (`$XDG_CONFIG_HOME/citrine`, else
//! `~/.config/citrine`): `dev-key`, made on first use, and `allowed_signers`, in which its public half is
//! entered as `citrine-dev` at the same moment. Lines that are there are never touched.

use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use citrine_formats::manifest::NAMESPACE;
use citrine_planner::diag::{self, Code, Diagnostic};
use citrine_planner::verify::keys::{DEV_PRINCIPAL, TrustedKeys, is_supported};
use ssh_key::private::{Ed25519Keypair, KeypairData};
use ssh_key::rand_core::OsRng;
use ssh_key::{Algorithm, LineEnding, PrivateKey};

pub use self::signer::{Signer, is_development, signer, trusted_line};
use crate::output;
use crate::report::Ui;

pub mod configuration;
mod signer;

/// A file of trusted keys that cannot be used.
pub const TRUSTED_KEYS: Code = Code::new('B', 111);
/// A signing key that cannot be used.
pub const SIGNING_KEY: Code = Code::new('B', 112);

/// The development key's file in the configuration directory.
const DEV_KEY: &str = "dev-key";
/// The file of trusted keys in the configuration directory.
const ALLOWED_SIGNERS: &str = "allowed_signers";

/// The tool's directory among the user's configuration.
///
/// # Errors
/// `B112` if the environment names no such place.
pub fn config_dir() -> diag::Result<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let dir = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")));
    dir.map(|dir| dir.join("citrine")).ok_or_else(|| {
        let message = "there is no place for keys: neither XDG_CONFIG_HOME nor HOME is an absolute path";
        Diagnostic::error(SIGNING_KEY, message).help("set HOME, or name files with `--key` and `--keys`").into()
    })
}

/// The private key in `file`.
///
/// # Errors
/// `B112` if it is not a private key in OpenSSH's format, is encrypted, or of another type than bundles take.
pub fn key_from(file: &Path) -> diag::Result<PrivateKey> {
    usable_private(file, &read_key(file)?)
}

const MAKE_ONE: &str = "make one with `cargo xtask keygen FILE`";

fn unusable(file: &Path, why: &str, help: &str) -> Box<Diagnostic> {
    let shown = file.display().to_string();
    Diagnostic::error(SIGNING_KEY, format!("{shown} cannot sign: {why}")).fact("file", shown).help(help).into()
}

fn read_key(file: &Path) -> diag::Result<String> {
    std::fs::read_to_string(file)
        .map_err(|error| unusable(file, &format!("it cannot be read: {error}"), "check its path and permissions"))
}

fn check_type(file: &Path, algorithm: &Algorithm) -> diag::Result<()> {
    if is_supported(algorithm) {
        return Ok(());
    }
    let why = format!("it is of type {algorithm}, not ssh-ed25519 or ecdsa-sha2-nistp256");
    Err(unusable(file, &why, MAKE_ONE))
}

/// The private key that is the text of `file`.
fn usable_private(file: &Path, text: &str) -> diag::Result<PrivateKey> {
    let key = PrivateKey::from_openssh(text)
        .map_err(|error| unusable(file, &format!("it is no key in OpenSSH's format: {error}"), MAKE_ONE))?;
    if key.is_encrypted() {
        let help = "let the ssh-agent sign: `ssh-add FILE` asks for the passphrase, then name the public key, FILE.pub";
        return Err(unusable(file, "it is protected by a passphrase", help));
    }
    check_type(file, &key.algorithm())?;
    Ok(key)
}

/// This machine's development key in the configuration directory `config`; the second value says whether it
/// was made just now.
///
/// # Errors
/// `B112` if the file there cannot be used, `B111` if `allowed_signers` is there but not understood, `O101`
/// if nothing can be written.
pub fn development_key(config: &Path) -> diag::Result<(PrivateKey, bool)> {
    let file = config.join(DEV_KEY);
    if file.exists() {
        return Ok((key_from(&file)?, false));
    }
    let cannot = |error| output::cannot_write(config, &error);
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(config).map_err(cannot)?;
    // Two first builds at once make one key; the lock ends with the process.
    let _lock = output::lock(config)?;
    if file.exists() {
        return Ok((key_from(&file)?, false));
    }
    output::sweep(config, DEV_KEY, None);
    let key = KeypairData::from(Ed25519Keypair::random(&mut OsRng));
    let key = PrivateKey::new(key, DEV_PRINCIPAL).expect("a new key is not encrypted");
    // Its public half first: whoever finds the key may sign with it at once.
    enter(config, &key)?;
    let text = key.to_openssh(LineEnding::LF).expect("a key that was just made has a text");
    let mut temporary = output::temporary(config, DEV_KEY).map_err(cannot)?;
    temporary
        .write_all(text.as_bytes())
        .and_then(|()| temporary.as_file().set_permissions(std::fs::Permissions::from_mode(0o600)))
        .and_then(|()| temporary.as_file().sync_all())
        .map_err(cannot)?;
    // Never over a file that is there.
    temporary.persist_noclobber(&file).map_err(|error| cannot(error.error))?;
    Ok((key, true))
}

/// Adds the line for a new development key to `allowed_signers`.
fn enter(config: &Path, key: &PrivateKey) -> diag::Result<()> {
    let path = config.join(ALLOWED_SIGNERS);
    let line = format!("{}\n", trusted_line(DEV_PRINCIPAL, key.public_key()));
    let before = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            "# Whose bundles this user believes: allowed_signers of ssh-keygen(1).\n".to_owned()
        }
        Err(error) => return Err(output::cannot_write(&path, &error).into()),
    };
    let gap = if before.is_empty() || before.ends_with('\n') { "" } else { "\n" };
    let all = format!("{before}{gap}{line}");
    // Refused before it is written, rather than by the next `verify`.
    parse(NAMESPACE, &all, &path)?;
    let cannot = |error| output::cannot_write(&path, &error);
    let mut temporary = output::temporary(config, DEV_KEY).map_err(cannot)?;
    temporary
        .write_all(all.as_bytes())
        .and_then(|()| temporary.as_file().set_permissions(std::fs::Permissions::from_mode(0o644)))
        .map_err(cannot)?;
    temporary.persist(&path).map(drop).map_err(|error| cannot(error.error).into())
}

/// The keys to believe of bundles, and the file they are from: `file`, or `allowed_signers` in the configuration
/// directory.
///
/// # Errors
/// As for [`trusted_keys_for`].
pub fn trusted_keys(file: Option<&Path>, ui: &Ui) -> diag::Result<(PathBuf, TrustedKeys)> {
    trusted_keys_for(NAMESPACE, file, ui)
}

/// The keys to believe of what is signed for `namespace`, and the file they are from.
///
/// # Errors
/// `B111`, and `B112` if there is no configuration directory.
pub fn trusted_keys_for(namespace: &'static str, file: Option<&Path>, ui: &Ui) -> diag::Result<(PathBuf, TrustedKeys)> {
    let path = match file {
        Some(file) => file.to_owned(),
        None => config_dir()?.join(ALLOWED_SIGNERS),
    };
    let text = std::fs::read_to_string(&path).map_err(|error| {
        let shown = path.display().to_string();
        let help = match (file, error.kind()) {
            (None, ErrorKind::NotFound) => {
                "this user trusts nobody yet: the first `cargo xtask bundle` enters this machine's own key; \
                 for another's, name a file of keys with `--keys FILE`"
            }
            _ => "check its path and permissions",
        };
        Diagnostic::error(TRUSTED_KEYS, format!("{shown} cannot be read: {}", error.kind()))
            .fact("file", shown)
            .help(help)
    })?;
    ui.add_source(&path.display().to_string(), &text);
    let keys = parse(namespace, &text, &path)?;
    Ok((path, keys))
}

fn parse(namespace: &'static str, text: &str, path: &Path) -> diag::Result<TrustedKeys> {
    TrustedKeys::parse_for(namespace, text).map_err(|error| {
        let shown = path.display().to_string();
        let line = error.range.as_ref().map(|range| text[..range.start].matches('\n').count() + 1);
        let place = line.map_or_else(|| shown.clone(), |line| format!("{shown}:{line}"));
        let label = diag::Label { file: shown, range: error.range, text: "not understood".to_owned() };
        Diagnostic::error(TRUSTED_KEYS, format!("{place} names no trusted key: {}", error.why))
            .primary(label)
            .help(format!("write a line such as: alice@example.org namespaces=\"{namespace}\" ssh-ed25519 AAAA..."))
            .into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_first_use_makes_a_key_and_trusts_it() {
        let home = tempfile::tempdir().unwrap();
        let config = home.path().join("new/citrine");
        let (first, made) = development_key(&config).unwrap();
        let (second, again) = development_key(&config).unwrap();
        assert_eq!((made, again), (true, false));
        assert_eq!(first.public_key().key_data(), second.public_key().key_data());
        assert_eq!((mode(&config.join(DEV_KEY)), mode(&config)), (0o600, 0o700));
        assert_eq!(trusted_keys(Some(&config.join(ALLOWED_SIGNERS)), &Ui::new(false)).unwrap().1.count(), 1);
        let left: Vec<_> = std::fs::read_dir(&config).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left.len(), 3, "{left:?}");
    }

    #[test]
    fn lines_of_the_user_stay() {
        let config = tempfile::tempdir().unwrap();
        let path = config.path().join(ALLOWED_SIGNERS);
        let theirs = "# mine\nme namespaces=\"git\" ssh-rsa AAAA";
        std::fs::write(&path, theirs).unwrap();
        development_key(config.path()).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with(&format!("{theirs}\ncitrine-dev namespaces=")), "{text}");
        // A user who takes the line out does not get it back.
        std::fs::write(&path, theirs).unwrap();
        development_key(config.path()).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), theirs);
    }

    #[test]
    fn a_file_of_keys_that_is_not_understood_stays_and_makes_no_key() {
        let config = tempfile::tempdir().unwrap();
        std::fs::write(config.path().join(ALLOWED_SIGNERS), "\n* nonsense\n").unwrap();
        let error = development_key(config.path()).unwrap_err();
        assert_eq!(error.code, TRUSTED_KEYS);
        assert!(error.message.contains("allowed_signers:2"), "{}", error.message);
        assert!(!config.path().join(DEV_KEY).exists());
    }

    #[test]
    fn many_first_uses_at_once_make_one_key() {
        let config = tempfile::tempdir().unwrap();
        let keys: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| development_key(config.path()).unwrap().0)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(keys.windows(2).all(|pair| pair[0].public_key().key_data() == pair[1].public_key().key_data()));
        assert_eq!(trusted_keys(Some(&config.path().join(ALLOWED_SIGNERS)), &Ui::new(false)).unwrap().1.count(), 1);
    }
}
