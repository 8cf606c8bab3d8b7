//! Any bytes as a bundle: as they come, behind a manifest that a trusted key has signed, or as changes to a good one.
//!
//! What is accepted is what was signed, whole and once; a bundle of which any byte was changed is refused.

use std::sync::LazyLock;

use citrine_formats::manifest::{FILE_NAME, Manifest, NAMESPACE, Role, signature_name};
use citrine_planner::pack::{self, Content, PartSource, Subject};
use citrine_planner::verify::keys::TrustedKeys;
use citrine_planner::verify::{Verified, verify};
use ssh_key::private::Ed25519Keypair;
use ssh_key::{HashAlg, LineEnding, PrivateKey};

use crate::input::Input;

static KEY: LazyLock<PrivateKey> = LazyLock::new(|| PrivateKey::from(Ed25519Keypair::from_seed(&[1; 32])));
static KEYS: LazyLock<TrustedKeys> = LazyLock::new(|| {
    let public = KEY.public_key().to_openssh().expect("a key has a text");
    TrustedKeys::parse(&format!("fuzz {public}\n")).expect("the line is right")
});
/// The time of every file.
const TIME: u32 = 1_700_000_000;

/// Runs the target: 1 for a manifest that is signed, 2 for a bundle that is accepted, or refused for its changes.
pub(crate) fn run(data: &[u8]) -> usize {
    let mut input = Input::new(data);
    match input.byte().map(|form| form % 3) {
        Some(0) => 2 * usize::from(accepted(input.rest()).is_some()),
        Some(1) => behind_a_signature(&mut input),
        Some(_) => changed(&mut input),
        None => 0,
    }
}

/// What `verify` says; what it hands out is what the manifest promises.
fn accepted(archive: &[u8]) -> Option<Verified> {
    let mut parts: Vec<(String, Vec<u8>)> = Vec::new();
    let verified = verify(archive, &KEYS, &mut |part, bytes| {
        match parts.last_mut() {
            Some((name, all)) if *name == part.name => all.extend_from_slice(bytes),
            _ => parts.push((part.name.clone(), bytes.to_vec())),
        }
        Ok(())
    });
    let verified = verified.ok()?;
    assert_eq!(parts.len(), verified.manifest.parts.len());
    for (part, (name, bytes)) in verified.manifest.parts.iter().zip(&parts) {
        let found = pack::sha256(bytes);
        // A signature has no hash in the manifest.
        assert_eq!((&part.name, part.size, part.sha256.unwrap_or(found)), (name, bytes.len() as u64, found));
    }
    let canonical = verified.manifest.to_canonical().expect("a manifest that was read can be written");
    assert_eq!(verified.identity, pack::sha256(&canonical));
    Some(verified)
}

/// Signs the first bytes, whatever they are; the rest is the archive behind the signature.
fn behind_a_signature(input: &mut Input<'_>) -> usize {
    let (Some(high), Some(low)) = (input.byte(), input.byte()) else { return 0 };
    let manifest = input.bytes(usize::from(high) << 8 | usize::from(low));
    let signature = KEY.sign(NAMESPACE, HashAlg::Sha512, manifest).expect("the key can sign");
    let signature = signature.to_pem(LineEnding::LF).expect("a signature has a text");
    let mut archive = Vec::new();
    file(&mut archive, FILE_NAME, manifest);
    file(&mut archive, &signature_name(0), signature.as_bytes());
    archive.extend_from_slice(input.bytes(usize::MAX));
    let read = Manifest::parse(manifest);
    match accepted(&archive) {
        Some(verified) => {
            assert_eq!(read.as_ref(), Ok(&verified.manifest));
            2
        }
        None => usize::from(read.is_ok()),
    }
}

/// A good bundle of parts that the input chooses, with bytes that it changes, adds or leaves out.
fn changed(input: &mut Input<'_>) -> usize {
    let parts = (0..1 + input.below(4).unwrap_or(0)).map(|index| {
        let len = usize::from(input.byte().unwrap_or(0)) * 5;
        PartSource {
            name: format!("part{index}"),
            role: Role::Kernel,
            slots: Vec::new(),
            entry: None,
            uncompressed: None,
            content: Content::plain(input.bytes(len)),
        }
    });
    let parts = parts.collect();
    let names = ["p4080ds", "e500mc", "hello", "p4080"].map(str::to_owned);
    let [board, core, profile, soc] = names;
    let (inputs, plan_sha256) = (Vec::new(), pack::sha256(b"plan"));
    let subject = Subject { board, core, epoch: 0, inputs, plan_sha256, profile, soc, source_date_epoch: TIME };
    let bundle = pack::assemble(subject, parts).expect("the parts are good");
    let signatures = pack::sign(&bundle, std::slice::from_ref(&*KEY)).expect("the key can sign");
    let mut good = Vec::new();
    pack::write_tar(&mut good, &bundle, &signatures).expect("memory can be written");
    assert!(accepted(&good).is_some(), "a good bundle is refused");
    let mut archive = good.clone();
    while let (Some(how), Some(at), Some(by)) = (input.byte(), input.raw(), input.byte()) {
        let at = at as usize % (archive.len() + 1);
        match how % 4 {
            0 => archive.truncate(at),
            1 => archive.insert(at, by),
            2 => drop(archive.splice(at..(at + 512).min(archive.len()), [])),
            _ => archive.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= by),
        }
    }
    assert_eq!(accepted(&archive).is_some(), archive == good, "a change is accepted");
    2
}

/// Adds a file with a right header.
fn file(archive: &mut Vec<u8>, name: &str, data: &[u8]) {
    let mut header = [0; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..124].copy_from_slice(b"0000644\x000000000\x000000000\0");
    header[124..136].copy_from_slice(format!("{:011o}\0", data.len()).as_bytes());
    header[136..148].copy_from_slice(format!("{TIME:011o}\0").as_bytes());
    header[148..157].copy_from_slice(b"        0");
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:07o}\0").as_bytes());
    archive.extend_from_slice(&header);
    archive.extend_from_slice(data);
    archive.resize(archive.len().next_multiple_of(512), 0);
}
