//! What signs: a private key in a file, or the `ssh-agent`, which may keep the key in a PKCS#11 token.
//!
//! OpenSSH's own `ssh-keygen` speaks with the agent. Whatever signed, the result is checked before it is used.

use std::path::{Path, PathBuf};

use citrine_planner::diag::{self, Code, Diagnostic};
use citrine_planner::verify::keys::{self, DEV_PRINCIPAL, TrustedKeys};
use ssh_key::{HashAlg, LineEnding, PrivateKey, PublicKey};
use xshell::cmd;

use super::{ALLOWED_SIGNERS, SIGNING_KEY, config_dir, development_key, usable_private};
use crate::tools;

/// A key that the agent does not sign with.
pub const AGENT: Code = Code::new('B', 118);

/// Signs, with one key.
#[derive(Debug)]
pub struct Signer {
    public: PublicKey,
    with: With,
    /// Whether it is this machine's development key that was made just now.
    pub is_new: bool,
}

/// Where the private key is.
#[derive(Debug)]
enum With {
    /// Here.
    Private(Box<PrivateKey>),
    /// In the agent; the file of the public key says which it is.
    Agent(PathBuf),
}

/// The signer with the key in `file`, a private key or a public key whose private half the agent has; without a file,
/// with this machine's development key, which is made if need be.
///
/// # Errors
/// `B112` if the key cannot be used; without a file, what [`development_key`] returns.
pub fn signer(file: Option<&Path>) -> diag::Result<Signer> {
    let private = |key: PrivateKey, is_new| Signer {
        public: key.public_key().clone(),
        with: With::Private(Box::new(key)),
        is_new,
    };
    let Some(file) = file else {
        let (key, is_new) = development_key(&config_dir()?)?;
        return Ok(private(key, is_new));
    };
    let text = super::read_key(file)?;
    // Certificates have the same form; only the key types that are supported get through.
    if let Ok(public) = PublicKey::from_openssh(text.trim()) {
        super::check_type(file, &public.algorithm())?;
        return Ok(Signer { public, with: With::Agent(file.to_owned()), is_new: false });
    }
    Ok(private(usable_private(file, &text)?, false))
}

impl Signer {
    /// The public half of its key.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Its fingerprint as `ssh-keygen -l` prints it.
    pub fn fingerprint(&self) -> String {
        self.public.fingerprint(HashAlg::Sha256).to_string()
    }

    /// A signature file over `message`, made for `namespace`; it has been checked.
    ///
    /// # Errors
    /// `B118` if the agent does not sign; `B112` if the private key does not; `T103` without `ssh-keygen`.
    pub fn sign(&self, namespace: &str, message: &[u8]) -> diag::Result<String> {
        let text = match &self.with {
            With::Private(key) => key
                .sign(namespace, HashAlg::Sha512, message)
                .and_then(|signature| signature.to_pem(LineEnding::LF))
                .map_err(|error| {
                    Diagnostic::error(SIGNING_KEY, format!("the key {} cannot sign: {error}", self.fingerprint()))
                        .help("use an unencrypted Ed25519 key in OpenSSH's format")
                })?,
            With::Agent(file) => self.by_agent(file, namespace, message)?,
        };
        if self.has_signed(namespace, message, &text) {
            return Ok(text);
        }
        let message = format!("what signs with the key {} made no signature by that key", self.fingerprint());
        Err(Diagnostic::error(AGENT, message).help("check the agent and the token: what it made is not used").into())
    }

    /// Whether `text` is a good signature file of this key over `message`.
    pub fn has_signed(&self, namespace: &str, message: &[u8], text: &str) -> bool {
        keys::check(namespace, message, text.as_bytes())
            .is_ok_and(|checked| checked.key.key_data() == self.public.key_data())
    }

    /// [`is_development`] of its key.
    pub fn is_development(&self) -> bool {
        is_development(&self.public)
    }

    fn by_agent(&self, file: &Path, namespace: &str, message: &[u8]) -> diag::Result<String> {
        let no = |why: &str| {
            Diagnostic::error(AGENT, format!("the ssh-agent does not sign with {}: {why}", file.display()))
                .fact("file", file.display())
                .fact("fingerprint", self.fingerprint())
                .help(
                    "start an agent (`eval $(ssh-agent)`) and add the key: `ssh-add FILE`, or `ssh-add -s MODULE` for a \
                     token; `ssh-add -l` lists what it has. Or name the private key's file",
                )
        };
        let socket = std::env::var_os("SSH_AUTH_SOCK").filter(|socket| !socket.is_empty());
        let socket = socket.ok_or_else(|| no("SSH_AUTH_SOCK names none"))?;
        let shell = tools::shell_in(Path::new("."))?;
        // -U: by the agent or not at all. Otherwise ssh-keygen would look for a private key beside the public one.
        let command = cmd!(shell, "ssh-keygen -Y sign -U -q -n {namespace} -f {file}");
        let signed = tools::filter(tools::clean(command).env("SSH_AUTH_SOCK", socket), message);
        signed.map_err(|error| {
            if error.code == tools::CANNOT_START {
                return error;
            }
            no(error.message.as_str()).into()
        })
    }
}

/// Whether a key is for development: its comment says so, or the user's own `allowed_signers` does.
pub fn is_development(key: &PublicKey) -> bool {
    let listed = || {
        let text = std::fs::read_to_string(config_dir().ok()?.join(ALLOWED_SIGNERS)).ok()?;
        Some(keys::NAMESPACES.into_iter().any(|namespace| {
            let keys = TrustedKeys::parse_for(namespace, &text).ok();
            keys.and_then(|keys| keys.signer(key)).is_some_and(|signer| signer.dev)
        }))
    };
    key.comment() == DEV_PRINCIPAL || listed().unwrap_or(false)
}

/// A public key's line in a file of trusted keys, for everything that the tool signs.
pub fn trusted_line(principal: &str, key: &PublicKey) -> String {
    let text = key.to_openssh().unwrap_or_default();
    let mut words = text.split(' ');
    let (kind, value) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    format!("{principal} namespaces=\"{}\" {kind} {value}", keys::NAMESPACES.join(","))
}

#[cfg(test)]
mod tests;
