//! Whom to believe: a file in OpenSSH's `allowed_signers` format, and signatures in its SSHSIG format.
//!
//! Read more strictly than `ssh-keygen` does (ssh-keygen(1), ALLOWED SIGNERS): what this code does not know it
//! refuses, and nothing depends on the clock. A line whose `namespaces` do not hold `citrine-bundle` is passed
//! over, so that one file can serve git as well.

use citrine_formats::manifest::NAMESPACE;
use ssh_key::{Algorithm, EcdsaCurve, HashAlg, LineEnding, PublicKey, SshSig};

/// The principal under which the tool enters a machine's own development key.
pub const DEV_PRINCIPAL: &str = "citrine-dev";

/// A key that may sign bundles.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TrustedKey {
    /// Who signs with it, as the file says.
    pub principal: String,
    key: PublicKey,
}

/// The keys of one file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TrustedKeys(Vec<TrustedKey>);

/// Why a file of trusted keys is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeysError {
    /// Byte range of the line; `None` if it is about the whole file.
    pub range: Option<std::ops::Range<usize>>,
    /// What is wrong.
    pub why: String,
}

/// Who signed a bundle.
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
    /// Reads a file of trusted keys.
    ///
    /// # Errors
    /// The first line that is not understood, or that no key for bundles is in it.
    pub fn parse(text: &str) -> Result<Self, KeysError> {
        let mut keys = Vec::new();
        let mut start = 0;
        for line in text.split_inclusive('\n') {
            let trimmed = line.trim();
            let range = start..start + line.trim_end().len();
            start += line.len();
            if trimmed.is_empty() || trimmed.starts_with('#') {
                continue;
            }
            match parse_line(trimmed) {
                Ok(key) => keys.extend(key),
                Err(why) => {
                    return Err(KeysError { range: Some(range), why });
                }
            }
        }
        if keys.is_empty() {
            let why = format!("no key in it may sign for the namespace {NAMESPACE}");
            return Err(KeysError { range: None, why });
        }
        Ok(Self(keys))
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none; [`Self::parse`] returns no such file.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The signer whose key made `signature`, if it is a trusted one. The key in the signature only chooses
    /// among the trusted keys; type and value come from the file.
    fn find(&self, signature: &SshSig) -> Option<&TrustedKey> {
        self.0.iter().find(|trusted| trusted.key.key_data() == signature.public_key())
    }
}

/// A line of the file; `None` if it is for other namespaces.
fn parse_line(line: &str) -> Result<Option<TrustedKey>, String> {
    let (principal, rest) = line.split_once([' ', '\t']).ok_or("a principal and a key are expected")?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"@._+-,".contains(&byte);
    if !principal.bytes().all(plain) {
        return Err("a principal may hold A-Z a-z 0-9 @ . _ + - only, no patterns".to_owned());
    }
    let mut rest = rest.trim_start();
    let mut ours = true;
    if !rest.starts_with("ssh-") && !rest.starts_with("ecdsa-") && !rest.starts_with("sk-") {
        let (options, key) = split_options(rest)?;
        ours = for_bundles(options)?;
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

/// The options in front of a key, and the key: blanks between quotes do not end the options.
fn split_options(text: &str) -> Result<(&str, &str), String> {
    let mut quoted = false;
    let end = text.find(|c| {
        quoted ^= c == '"';
        !quoted && (c == ' ' || c == '\t')
    });
    end.map(|end| text.split_at(end)).ok_or_else(|| "the key is missing".to_owned())
}

/// Whether the options let the key sign bundles.
fn for_bundles(options: &str) -> Result<bool, String> {
    let lower = options.to_ascii_lowercase();
    let Some(value) = lower.strip_prefix("namespaces=\"").and_then(|rest| rest.strip_suffix('"')) else {
        return Err(format!("the only option that is supported is namespaces=\"{NAMESPACE}\""));
    };
    if value.contains(['"', '*', '?', '!', ' ']) {
        return Err("namespaces must be names with commas between them, no patterns".to_owned());
    }
    Ok(options[12..options.len() - 1].split(',').any(|namespace| namespace == NAMESPACE))
}

/// The key types that may sign.
pub fn is_supported(algorithm: &Algorithm) -> bool {
    matches!(algorithm, Algorithm::Ed25519 | Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 })
}

/// One signature file whose signature holds for its own key.
pub(super) struct Checked {
    /// Orders the signature files of a bundle.
    pub(super) fingerprint: [u8; 32],
    /// Its text.
    pub(super) fingerprint_text: String,
    /// The signer, if the key is a trusted one.
    pub(super) signer: Option<Signer>,
}

/// Checks one signature file over `message`.
pub(super) fn check(message: &[u8], file: &[u8], keys: &TrustedKeys) -> Result<Checked, String> {
    let signature = SshSig::from_pem(file).map_err(|error| format!("it is not an SSH signature: {error}"))?;
    // Version and armour are not covered by the signature itself; one spelling leaves nothing to change.
    if signature.version() != SshSig::VERSION || !spelled_as_openssh(&signature, file) {
        return Err("it is not spelled as ssh-keygen spells a signature".to_owned());
    }
    let key = PublicKey::from(signature.public_key().clone());
    if !is_supported(&key.algorithm()) {
        return Err(format!("it is made with a key of type {}, which is not supported", key.algorithm()));
    }
    if signature.namespace() != NAMESPACE {
        return Err(format!("it is made for another purpose than {NAMESPACE}"));
    }
    let trusted = keys.find(&signature);
    trusted
        .map_or(&key, |trusted| &trusted.key)
        .verify(NAMESPACE, message, &signature)
        .map_err(|_| "it does not match the manifest".to_owned())?;
    let fingerprint = key.fingerprint(HashAlg::Sha256);
    let fingerprint_text = fingerprint.to_string();
    Ok(Checked {
        fingerprint: fingerprint.sha256().expect("a SHA-256 fingerprint was asked for"),
        signer: trusted.map(|trusted| Signer {
            principal: trusted.principal.clone(),
            fingerprint: fingerprint_text.clone(),
            dev: trusted.principal == DEV_PRINCIPAL,
        }),
        fingerprint_text,
    })
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
            assert_eq!(TrustedKeys::parse(&line).map(|keys| keys.len()), Ok(1), "{line}");
        }
    }

    #[test]
    fn a_line_for_others_is_passed_over() {
        let text = format!("a namespaces=\"git\" ssh-rsa AAAA\nb {KEY}\n");
        assert_eq!(TrustedKeys::parse(&text).unwrap().0[0].principal, "b");
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
            let _ = parse_line(&format!("a namespaces=\"{text}\" {KEY}"));
        }

        #[test]
        fn no_signature_panics(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            let keys = TrustedKeys::parse(&format!("a {KEY}")).unwrap();
            proptest::prop_assert!(check(b"", &bytes, &keys).is_err());
        }
    }
}
