//! Whom to believe: a file in OpenSSH's `allowed_signers` format, and signatures in its SSHSIG format.
//!
//! Read more strictly than `ssh-keygen` does (ssh-keygen(1), ALLOWED SIGNERS): what this code does not know it
//! refuses, and nothing depends on the clock. A line whose `namespaces` do not hold the one that is asked for is
//! passed over, so that one file can serve git as well.

use citrine_formats::manifest::NAMESPACE;
use ssh_key::public::KeyData;
use ssh_key::{Algorithm, EcdsaCurve, HashAlg, LineEnding, PublicKey, SshSig};

/// The principal under which the tool enters a machine's own development key.
pub const DEV_PRINCIPAL: &str = "citrine-dev";

/// What a signature on the index of a release is made for.
pub const RELEASE_NAMESPACE: &str = "citrine-release";
/// What a signature on a configuration tree, which the hypervisor checks, is made for.
pub const CONFIG_NAMESPACE: &str = "citrine-config";
/// What a signature on a stage that machines share is made for.
pub const CACHE_NAMESPACE: &str = "citrine-cache";
/// Everything that the tool signs.
pub const NAMESPACES: [&str; 4] = [NAMESPACE, RELEASE_NAMESPACE, CONFIG_NAMESPACE, CACHE_NAMESPACE];

/// A key that may sign.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TrustedKey {
    /// Who signs with it, as the file says.
    pub principal: String,
    key: PublicKey,
}

/// The keys of one file that may sign for one namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TrustedKeys {
    namespace: &'static str,
    keys: Vec<TrustedKey>,
}

/// Why a file of trusted keys is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeysError {
    /// Byte range of the line; `None` if it is about the whole file.
    pub range: Option<std::ops::Range<usize>>,
    /// What is wrong.
    pub why: String,
}

/// Who signed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Signer {
    /// Who that is, as the file of trusted keys says.
    pub principal: String,
    /// The key's fingerprint, as `ssh-keygen -l` prints it: `SHA256:...`.
    pub fingerprint: String,
    /// Whether it is a development key: whether its principal is [`DEV_PRINCIPAL`].
    pub dev: bool,
}

impl TrustedKeys {
    /// Reads a file of trusted keys: those for bundles.
    ///
    /// # Errors
    /// As for [`Self::parse_for`].
    pub fn parse(text: &str) -> Result<Self, KeysError> {
        Self::parse_for(NAMESPACE, text)
    }

    /// Reads a file of trusted keys: those that may sign for `namespace`.
    ///
    /// # Errors
    /// The first line that is not understood, or that no key for the namespace is in it.
    pub fn parse_for(namespace: &'static str, text: &str) -> Result<Self, KeysError> {
        let mut keys = Vec::new();
        let mut start = 0;
        for line in text.split_inclusive('\n') {
            let trimmed = line.trim();
            let range = start..start + line.trim_end().len();
            start += line.len();
            if trimmed.is_empty() || trimmed.starts_with('#') {
                continue;
            }
            match parse_line(namespace, trimmed) {
                Ok(key) => keys.extend(key),
                Err(why) => {
                    return Err(KeysError { range: Some(range), why });
                }
            }
        }
        if keys.is_empty() {
            let why = format!("no key in it may sign for the namespace {namespace}");
            return Err(KeysError { range: None, why });
        }
        Ok(Self { namespace, keys })
    }

    /// How many different keys there are; [`Self::parse`] returns no file without one.
    pub fn count(&self) -> usize {
        self.different().count()
    }

    /// How many different keys there are that are not for development.
    pub fn count_in_production(&self) -> usize {
        self.different().filter(|key| self.signer(key).is_some_and(|signer| !signer.dev)).count()
    }

    /// Each key once.
    fn different(&self) -> impl Iterator<Item = &PublicKey> {
        let first = |at: usize, key: &TrustedKey| {
            !self.keys.iter().take(at).any(|before| before.key.key_data() == key.key.key_data())
        };
        self.keys.iter().enumerate().filter(move |(at, key)| first(*at, key)).map(|(_, line)| &line.key)
    }

    /// The lines for this key; what is in a signature only chooses among them.
    fn lines<'a>(&'a self, key: &'a KeyData) -> impl Iterator<Item = &'a TrustedKey> {
        self.keys.iter().filter(move |trusted| trusted.key.key_data() == key)
    }

    /// Who signs with `key`, if it is a trusted one. A key that is entered as a development key at all is one.
    pub fn signer(&self, key: &PublicKey) -> Option<Signer> {
        let trusted = self.lines(key.key_data()).next()?;
        Some(Signer {
            principal: trusted.principal.clone(),
            fingerprint: trusted.key.fingerprint(HashAlg::Sha256).to_string(),
            dev: self.lines(key.key_data()).any(|line| line.principal.split(',').any(|name| name == DEV_PRINCIPAL)),
        })
    }
}

/// A line of the file; `None` if it is for other namespaces.
fn parse_line(namespace: &str, line: &str) -> Result<Option<TrustedKey>, String> {
    let (principal, rest) = line.split_once([' ', '\t']).ok_or("a principal and a key are expected")?;
    if !is_principals(principal) {
        return Err("a principal may hold A-Z a-z 0-9 @ . _ + - only, no patterns".to_owned());
    }
    let mut rest = rest.trim_start();
    let mut ours = true;
    if !rest.starts_with("ssh-") && !rest.starts_with("ecdsa-") && !rest.starts_with("sk-") {
        let (options, key) = split_options(rest)?;
        ours = is_for(namespace, options)?;
        rest = key.trim_start();
    }
    if !ours {
        return Ok(None);
    }
    let key = PublicKey::from_openssh(rest).map_err(|error| format!("the key is not readable: {error}"))?;
    if !is_supported(&key.algorithm()) {
        return Err(format!(
            "keys of type {} are not supported: use ssh-ed25519 or ecdsa-sha2-nistp256",
            key.algorithm()
        ));
    }
    Ok(Some(TrustedKey { principal: principal.to_owned(), key }))
}

/// Whether `text` is a principal, or several with commas between them.
pub fn is_principals(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"@._+-,".contains(&byte))
}

/// The options in front of a key, and the key: blanks between quotes do not end the options.
fn split_options(text: &str) -> Result<(&str, &str), String> {
    let mut quoted = false;
    let end = text.find(|c| {
        quoted ^= c == '"';
        !quoted && (c == ' ' || c == '\t')
    });
    end.map(|end| text.split_at(end)).ok_or_else(|| "the key is missing".to_owned())
}

/// Whether the options let the key sign for `namespace`.
fn is_for(namespace: &str, options: &str) -> Result<bool, String> {
    let lower = options.to_ascii_lowercase();
    let Some(value) = lower.strip_prefix("namespaces=\"").and_then(|rest| rest.strip_suffix('"')) else {
        return Err(format!("the only option that is supported is namespaces=\"{namespace}\""));
    };
    if value.contains(['"', '*', '?', '!', ' ']) {
        return Err("namespaces must be names with commas between them, no patterns".to_owned());
    }
    Ok(options[12..options.len() - 1].split(',').any(|name| name == namespace))
}

/// The key types that may sign.
pub fn is_supported(algorithm: &Algorithm) -> bool {
    matches!(algorithm, Algorithm::Ed25519 | Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 })
}

/// One signature file whose signature holds for its own key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checked {
    /// The key that made it; who that is must be asked of the trusted keys.
    pub key: PublicKey,
    /// Its fingerprint: orders the signature files of a bundle.
    pub fingerprint: [u8; 32],
}

/// Checks the signature file `file` over `message` for `namespace`. Nothing is said about whose key it is:
/// ask [`TrustedKeys::signer`], or compare.
///
/// # Errors
/// What is wrong with the signature.
pub fn check(namespace: &str, message: &[u8], file: &[u8]) -> Result<Checked, String> {
    let signature = SshSig::from_pem(file).map_err(|error| format!("it is not an SSH signature: {error}"))?;
    // Version and armour are not covered by the signature itself; one spelling leaves nothing to change.
    if signature.version() != SshSig::VERSION || !spelled_as_openssh(&signature, file) {
        return Err("it is not spelled as ssh-keygen spells a signature".to_owned());
    }
    let key = PublicKey::from(signature.public_key().clone());
    if !is_supported(&key.algorithm()) {
        return Err(format!("it is made with a key of type {}, which is not supported", key.algorithm()));
    }
    if signature.namespace() != namespace {
        return Err(format!("it is made for another purpose than {namespace}"));
    }
    key.verify(namespace, message, &signature).map_err(|_| "it does not match the bytes".to_owned())?;
    let fingerprint = key.fingerprint(HashAlg::Sha256).sha256().expect("a SHA-256 fingerprint was asked for");
    Ok(Checked { key, fingerprint })
}

fn spelled_as_openssh(signature: &SshSig, file: &[u8]) -> bool {
    signature.to_pem(LineEnding::LF).is_ok_and(|text| text.as_bytes() == file)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";

    fn refused(text: &str) -> String {
        TrustedKeys::parse(text).unwrap_err().why
    }

    #[test]
    fn lines_that_are_read() {
        for line in [
            format!("a@example.org {KEY}"),
            format!("# comment\n\n a,b {KEY} a comment\n"),
            format!("a namespaces=\"citrine-bundle\" {KEY}"),
            format!("a\tNamespaces=\"git,citrine-bundle\"\t{KEY}"),
        ] {
            assert_eq!(TrustedKeys::parse(&line).map(|keys| keys.count()), Ok(1), "{line}");
        }
    }

    #[test]
    fn a_line_for_others_is_passed_over() {
        let text = format!("a namespaces=\"git\" ssh-rsa AAAA\nb {KEY}\n");
        assert_eq!(TrustedKeys::parse(&text).unwrap().keys[0].principal, "b");
        assert!(refused("a namespaces=\"git\" ssh-rsa AAAA\n").contains("citrine-bundle"));
    }

    #[test]
    fn lines_that_are_refused() {
        for (line, why) in [
            (format!("* {KEY}"), "principal"),
            (format!("\"a b\" {KEY}"), "principal"),
            (format!("!a {KEY}"), "principal"),
            ("a".to_owned(), "expected"),
            (KEY.to_owned(), "missing"),
            (format!("a cert-authority {KEY}"), "option"),
            (format!("a valid-before=\"20300101\" {KEY}"), "option"),
            (format!("a namespaces=\"citrine-bundle\",cert-authority {KEY}"), "option"),
            (format!("a namespaces=\"*\" {KEY}"), "patterns"),
            (format!("a namespaces=\"citrine-bundle, git\" {KEY}"), "patterns"),
            ("a namespaces=\"citrine-bundle\"".to_owned(), "missing"),
            ("a ssh-ed25519 AAAA".to_owned(), "readable"),
            ("a ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAABQEAAAAB".to_owned(), "ssh-rsa"),
        ] {
            assert!(refused(&line).contains(why), "{line}: {}", refused(&line));
        }
        assert_eq!(TrustedKeys::parse("\n* x\n").unwrap_err().range, Some(1..4));
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,80}") {
            let _ = TrustedKeys::parse(&text);
            let _ = parse_line(NAMESPACE, &format!("a namespaces=\"{text}\" {KEY}"));
        }

        #[test]
        fn no_signature_panics(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            proptest::prop_assert!(check(NAMESPACE, b"", &bytes).is_err());
        }
    }
}
