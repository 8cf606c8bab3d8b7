//! Every target over the inputs that are kept, and over some that nobody has chosen.

use std::path::{Path, PathBuf};

use citrine_fuzz::TARGETS;

/// Longest input that is kept, and bytes of all of a target's.
const MAX_LEN: usize = 8 << 10;
const MAX_CORPUS: usize = 128 << 10;

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let entries = std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("the directory can be read").path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read(path).expect("the file can be read"))).collect()
}

#[test]
fn the_kept_inputs_break_no_promise_and_have_effects() {
    for (name, body) in TARGETS {
        let inputs = corpus(name);
        let lens = inputs.iter().map(|(_, data)| data.len());
        assert!(lens.clone().all(|len| len <= MAX_LEN) && lens.sum::<usize>() <= MAX_CORPUS, "{name}: too large");
        let effects: Vec<usize> = inputs.iter().map(|(_, data)| body(data)).collect();
        // An input format that has changed makes the inputs meaningless.
        let useful = effects.iter().filter(|effect| **effect > 0).count();
        assert!(useful >= 8, "{name}: {useful} of {} inputs have an effect", effects.len());
    }
}

#[test]
fn no_directory_is_without_its_target() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    let mut targets = TARGETS.map(|(name, _)| name.to_owned());
    targets.sort();
    assert_eq!(names, targets);
}

#[test]
fn damaged_and_arbitrary_inputs_break_no_promise() {
    let mut state = 0x1234_5678_9abc_def1_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as usize
    };
    for (name, body) in TARGETS {
        let inputs = corpus(name);
        for round in 0..150 {
            let mut data = if round % 3 == 0 {
                (0..next() % 600).map(|_| next() as u8).collect()
            } else {
                inputs[next() % inputs.len()].1.clone()
            };
            for _ in 0..next() % 8 {
                let len = data.len().max(1);
                if let Some(byte) = data.get_mut(next() % len) {
                    *byte = next() as u8;
                }
            }
            body(&data);
        }
    }
}
