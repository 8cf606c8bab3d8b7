//! Forged bundles: each is refused, with the code that its mistake has, by the tool and by a verifier that
//! shares no line with it; and what the tool makes is good for the programs that people have.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod bundle;
#[allow(dead_code, reason = "the tool's own test uses all of it")]
mod cases;
#[path = "../figures.rs"]
mod figures;
mod interop;
mod mutations;
mod python;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::Command;

use bundle::{BLOCK, Forge, allowed_signers, archive, assembled, check, crew, good, stranger, trusted};
use cases::{CLASSES, cases, elsewhere, project};
use figures::figure;
use mutations::{MUTATIONS, forged};
use proptest::prelude::*;
use ssh_key::{HashAlg, PrivateKey};

/// Whether the signature with `a` comes before that with `b`.
fn ordered(a: &PrivateKey, b: &PrivateKey) -> bool {
    a.fingerprint(HashAlg::Sha256).sha256() < b.fingerprint(HashAlg::Sha256).sha256()
}

#[test]
fn the_good_bundle_is_good() {
    let verified = check(&good()[..]).unwrap();
    assert_eq!(verified.identity, assembled("p4080ds", "two-linux", 0xa5).identity);
    assert_eq!(Forge::good().to_bytes(), good());
}

#[test]
fn every_forgery_is_refused_with_its_code() {
    let (mut wrong, mut refused) = (Vec::new(), 0);
    // What else the tool is asked to refuse is no forgery by itself.
    for case in cases().iter().filter(|case| case.call().is_none()) {
        let Some(bytes) = case.bundle() else { continue };
        let Err(error) = check(&bytes[..]) else {
            wrong.push(format!("{} is accepted", case.name));
            continue;
        };
        let said = error.diagnostic("bundle.tar").unwrap();
        let (head, help) = (format!("error[{}]: {}\n", said.code, said.message), said.help.unwrap());
        let expected = case.expected();
        if error.code() == Some(said.code) && expected.starts_with(&head) && expected.contains(&help) {
            refused += 1;
        } else {
            wrong.push(format!("{}: {head}{help}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    figure(&format!("{refused} forged bundles refused of {refused}, each with its code"));
}

#[test]
fn every_class_has_cases_and_no_two_are_the_same() {
    let (cases, elsewhere) = (cases(), elsewhere());
    let names: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    let (mut forgeries, mut archives) = (BTreeSet::new(), BTreeSet::new());
    for mutation in MUTATIONS {
        assert!(names.contains(mutation.name), "no tests/forge/{}: `cargo xtask test --bless`", mutation.name);
        assert!(forgeries.insert(mutation.name), "{}", mutation.name);
        assert!(archives.insert(forged(mutation.name).unwrap()), "{} forges what another does", mutation.name);
    }
    for name in elsewhere.values().flatten() {
        assert!(project().join("tests/bad").join(name).join("expected.txt").is_file(), "no tests/bad/{name}");
    }
    let mut counts = Vec::new();
    for class in CLASSES.chars() {
        let here = cases.iter().filter(|case| case.class() == class);
        let numbers: Vec<&str> = here.map(|case| &case.name[2..4]).collect();
        let count = numbers.len() + elsewhere.get(&class).map_or(0, Vec::len);
        assert!(count >= 3, "class {class}: {count}");
        let expected: Vec<String> = (1..=numbers.len()).map(|number| format!("{number:02}")).collect();
        assert_eq!(numbers, expected, "the numbers of class {class}");
        counts.push(format!("{class} {count}"));
    }
    let all = cases.len() + elsewhere.values().map(Vec::len).sum::<usize>();
    assert!(all >= 60, "{all}");
    assert!(
        elsewhere
            .keys()
            .chain(&cases.iter().map(cases::Case::class).collect::<BTreeSet<_>>())
            .all(|class| CLASSES.contains(*class))
    );
    figure(&format!("attacks of each class: {}", counts.join(", ")));
}

/// The second verifier: Python, `ssh-keygen`, and this project's `docs/formats.md`.
#[test]
fn another_verifier_agrees_on_every_forgery() {
    let dir = tempfile::tempdir().unwrap();
    let names: Vec<&str> = std::iter::once("none").chain(MUTATIONS.iter().map(|mutation| mutation.name)).collect();
    for name in &names {
        std::fs::write(dir.path().join(name), forged(name).unwrap()).unwrap();
    }
    let two = archive(&assembled("p4080ds", "two-linux", 1), &[stranger(), trusted()]);
    std::fs::write(dir.path().join("two-signers"), two).unwrap();
    let sixteen: Vec<_> = crew().collect();
    std::fs::write(dir.path().join("sixteen-signers"), archive(&assembled("p4080ds", "two-linux", 1), &sixteen))
        .unwrap();
    let names = [&names[..], &["two-signers", "sixteen-signers"]].concat();
    let verdicts = python::verdicts(dir.path(), &allowed_signers(), &names);
    for (name, verdict) in &verdicts {
        let ours = check(std::fs::File::open(dir.path().join(name)).unwrap());
        match ours {
            Ok(verified) => assert_eq!(*verdict, format!("ok {}", verified.identity), "{name}"),
            Err(error) => assert!(verdict.starts_with("refused: "), "{name}: {verdict}, but {error}"),
        }
    }
    figure(&format!("two verifiers agree on {0} of {0} bundles", verdicts.len()));
}

/// Every bit of the headers, the manifest and its signature; one bit of every other byte, since there all bits
/// of a byte go the same way through a hash.
#[test]
fn every_flipped_bit_is_refused() {
    let (bytes, forge) = (good(), Forge::good());
    let mut bits = Vec::new();
    let mut at = 0;
    for (index, member) in forge.members.iter().enumerate() {
        let all = at + BLOCK + if index < 2 { member.data.len() } else { 0 };
        let end = at + BLOCK + member.data.len() + member.padding.len();
        bits.extend((at * 8..all * 8).chain((all..end).map(|byte| byte * 8 + byte % 8)));
        at = end;
    }
    bits.extend((at..bytes.len()).map(|byte| byte * 8 + byte % 8));
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for share in bits.chunks(bits.len().div_ceil(workers)) {
            let mut bytes = bytes.clone();
            scope.spawn(move || {
                for bit in share {
                    bytes[bit / 8] ^= 1 << (bit % 8);
                    assert!(check(&bytes[..]).is_err(), "bit {} of byte {}", bit % 8, bit / 8);
                    bytes[bit / 8] ^= 1 << (bit % 8);
                }
            });
        }
    });
}

#[test]
fn every_truncation_is_refused() {
    let bytes = good();
    for len in 0..bytes.len() {
        assert!(check(&bytes[..len]).is_err(), "cut to {len}");
    }
}

#[test]
fn every_block_left_out_or_doubled_is_refused() {
    let bytes = good();
    for block in 0..bytes.len() / BLOCK {
        let (before, rest) = bytes.split_at(block * BLOCK);
        assert!(check(&[before, &rest[BLOCK..]].concat()[..]).is_err(), "without block {block}");
        assert!(check(&[before, &rest[..BLOCK], rest].concat()[..]).is_err(), "block {block} twice");
    }
}

#[test]
fn no_file_of_a_bundle_takes_the_place_of_another() {
    let ours = Forge::good();
    // The same bytes for another board, and other bytes for the same board and profile.
    for (board, profile, fill) in
        [("t2080rdb", "two-linux", 0xa5), ("p4080ds", "two-linux", 0x5a), ("p4080ds", "one-linux", 0xa5)]
    {
        let theirs = Forge::of(&archive(&assembled(board, profile, fill), &[trusted()]));
        let mut refused = 0;
        for to in 0..ours.members.len() {
            for from in ours.members.iter().chain(&theirs.members) {
                for renamed in [false, true] {
                    let mut forge = ours.clone();
                    let mut member = from.clone();
                    if renamed {
                        member.rename(&ours.members[to].name());
                    }
                    forge.members[to] = member;
                    if forge != ours {
                        assert!(check(&forge.to_bytes()[..]).is_err(), "{} at {to}", from.name());
                        refused += 1;
                    }
                }
            }
        }
        assert!(refused > 100, "{refused}");
    }
}

#[test]
fn an_endless_input_ends() {
    for byte in [0, b'x'] {
        assert!(check(std::io::repeat(byte)).is_err());
    }
    let start = good();
    assert!(check(std::io::Read::chain(&start[..], std::io::repeat(0))).is_err());
    // A part that announces 8 GiB is refused at its header.
    let huge = forged("archive-size-huge").unwrap();
    assert!(check(std::io::Read::chain(&huge[..], std::io::repeat(0))).is_err());
}

#[test]
fn nothing_of_the_machine_is_in_a_bundle() {
    let bytes = good();
    let secret = trusted().to_openssh(ssh_key::LineEnding::LF).unwrap();
    let key_line = secret.lines().nth(3).unwrap().to_owned();
    let home = std::env::var("HOME").unwrap();
    for text in [key_line.as_str(), home.as_str(), env!("CARGO_MANIFEST_DIR")] {
        assert!(text.len() > 3 && !bytes.windows(text.len()).any(|window| window == text.as_bytes()), "{text}");
    }
}

proptest! {
    #[test]
    fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(check(&bytes[..]).is_err());
    }

    #[test]
    fn no_change_is_accepted(at in 0usize..10_000, cut in 0usize..600, new in proptest::collection::vec(any::<u8>(), 0..600)) {
        let bytes = good();
        let at = at % bytes.len();
        let end = (at + cut).min(bytes.len());
        let changed = [&bytes[..at], &new, &bytes[end..]].concat();
        prop_assume!(changed != bytes);
        prop_assert!(check(&changed[..]).is_err());
    }
}

/// Writes `bytes` to the standard input of `command` and returns whether it succeeded, with its output.
fn feed(command: &mut Command, bytes: &[u8]) -> (bool, String) {
    use std::process::Stdio;
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}
