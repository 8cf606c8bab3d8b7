//! The second verifier, `verify.py`: Python, `ssh-keygen`, and this project's `docs/formats.md`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// What it says of each bundle in `dir`, trusting `keys`: `ok IDENTITY` or `refused: WHY`.
pub fn verdicts(dir: &Path, keys: &str, names: &[&str]) -> BTreeMap<String, String> {
    std::fs::write(dir.join("keys"), keys).unwrap();
    let mut python = Command::new("python3");
    python.arg(crate::cases::project().join("tests/forge/verify.py")).arg("keys").args(names).current_dir(dir);
    let output = python.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    let verdicts: BTreeMap<String, String> = lines.map(|(name, said)| (name.to_owned(), said.to_owned())).collect();
    assert_eq!(verdicts.len(), names.len(), "{text}");
    verdicts
}
