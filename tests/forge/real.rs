//! A real bundle, with our own firmware in it: every bit of what says what it is, many bits of what it carries, and every
//! length that it could be cut to.

use std::sync::LazyLock;

use citrine_planner::verify::keys::TrustedKeys;
use citrine_planner::verify::verify;

use crate::bundle::{BLOCK, Forge};
use crate::common::Checkout;
use crate::figures::figure;
use crate::python;

/// Bits of the parts' bytes that are flipped.
const RANDOM: usize = 20_000;

/// The bundle of the profile `hello`, which needs no package's sources, and the keys that are trusted. It is built once.
static HELLO: LazyLock<(Vec<u8>, String)> = LazyLock::new(|| {
    let checkout = Checkout::new();
    checkout.run(&["bundle", "--board", "p4080ds", "--profile", "hello", "--yes"]).result();
    let bundle = std::fs::read(checkout.root().join("artifacts/out/p4080ds-hello.tar")).unwrap();
    (bundle, std::fs::read_to_string(checkout.keys().join("allowed_signers")).unwrap())
});

fn accepted(bytes: &[u8], keys: &TrustedKeys) -> bool {
    verify(bytes, keys, &mut |_, _| Ok(())).is_ok()
}

/// Two machine words of a generator (xorshift64*), for bits that are the same in every run.
fn random(state: &mut u64) -> usize {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) as usize
}

/// Flips each of `bits` alone, on all processors; those with which the bundle is still accepted.
fn still_accepted(bytes: &[u8], keys: &TrustedKeys, bits: &[usize]) -> Vec<usize> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let share = |share: usize| {
            let mut bytes = bytes.to_vec();
            move || {
                let mut bad = Vec::new();
                // Every worker has of all kinds of bits as many as the others.
                for &bit in bits.iter().skip(share).step_by(workers) {
                    bytes[bit / 8] ^= 1 << (bit % 8);
                    if accepted(&bytes, keys) {
                        bad.push(bit);
                    }
                    bytes[bit / 8] ^= 1 << (bit % 8);
                }
                bad
            }
        };
        let handles: Vec<_> = (0..workers).map(|worker| scope.spawn(share(worker))).collect();
        handles.into_iter().flat_map(|handle| handle.join().unwrap()).collect()
    })
}

#[test]
fn no_flipped_bit_of_a_real_bundle_is_accepted() {
    let (bytes, keys) = &*HELLO;
    let keys = TrustedKeys::parse(keys).unwrap();
    assert!(accepted(bytes, &keys));
    let (mut first, mut payload) = (Vec::new(), Vec::new());
    let mut at = 0;
    for (index, member) in Forge::of(bytes).members.iter().enumerate() {
        let data = at + BLOCK;
        let end = data + member.data.len() + member.padding.len();
        // The manifest and its signatures besides all headers.
        let says = index == 0 || member.name().ends_with(".sig");
        first.extend(at * 8..if says { end } else { data } * 8);
        if !says {
            payload.extend(data..end);
        }
        at = end;
    }
    first.extend(at * 8..bytes.len() * 8);
    assert!(payload.len() > 400_000 && first.len() > 50_000, "{} and {}", payload.len(), first.len());
    let mut state = 0x1234_5678_9abc_def1;
    let random: Vec<usize> =
        (0..RANDOM).map(|_| payload[random(&mut state) % payload.len()] * 8 + random(&mut state) % 8).collect();
    for (bits, of) in [(first, "headers, manifest, signature and end"), (random, "payload")] {
        let bad = still_accepted(bytes, &keys, &bits);
        assert!(bad.is_empty(), "bits with which it is accepted: {bad:?}");
        figure(&format!("{0} of {0} flipped bits refused ({of})", bits.len()));
    }
}

#[test]
fn no_part_of_a_real_bundle_is_accepted_as_a_whole() {
    let (bytes, keys) = &*HELLO;
    let keys = TrustedKeys::parse(keys).unwrap();
    let lengths: Vec<usize> = (0..bytes.len()).step_by(BLOCK).collect();
    for &len in &lengths {
        assert!(!accepted(&bytes[..len], &keys), "cut to {len}");
    }
    figure(&format!("{0} of {0} truncations refused", lengths.len()));
}

#[test]
fn the_second_verifier_accepts_a_real_bundle() {
    let (bytes, keys) = &*HELLO;
    let identity = verify(&bytes[..], &TrustedKeys::parse(keys).unwrap(), &mut |_, _| Ok(())).unwrap().identity;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("real"), bytes).unwrap();
    let mut damaged = bytes.clone();
    damaged[bytes.len() / 2] ^= 1;
    std::fs::write(dir.path().join("damaged"), damaged).unwrap();
    let said = python::verdicts(dir.path(), keys, &["real", "damaged"]);
    assert_eq!(said["real"], format!("ok {identity}"));
    assert!(said["damaged"].starts_with("refused: "), "{said:?}");
}
