//! A hostile guest beside a Linux that compresses and checks data on three CPUs for a minute: no sum is ever wrong,
//! and its kernel has nothing to say.

use super::shell::{self, shell};
use super::*;
use crate::smoke::boot::Reported;
use crate::smoke::system::System;

/// Seconds of work.
const SECONDS: u32 = 60;
/// Workers: as many as CPUs, but for one that has the rest.
const WORKERS: u32 = 3;

/// The worker, a script in pieces that a line of the shell's editor has room for. It is given the right sum, its
/// number, and for how long to work.
const WORKER: [&str; 5] = [
    "rounds=0; wrong=0; end=$(($(date +%s) + $3))",
    "while [ $(date +%s) -lt $end ]; do",
    "sum=$(gzip -1 < /tmp/data | gunzip | sha256sum)",
    "[ \"$sum\" = \"$1\" ] || wrong=$((wrong + 1)); rounds=$((rounds + 1)); done",
    "echo \"worker $2: $rounds rounds, $wrong wrong\"",
];

/// Rounds of each worker that has reported, and how many of them were wrong.
fn reports(text: &str) -> Vec<(u32, u32)> {
    let report = |line: &str| {
        let (_, said) = line.strip_prefix("worker ")?.split_once(": ")?;
        let (rounds, wrong) = said.strip_suffix(" wrong")?.split_once(" rounds, ")?;
        Some((rounds.parse().ok()?, wrong.parse().ok()?))
    };
    text.lines().filter_map(report).collect()
}

#[test]
fn a_hostile_guest_has_no_effect_on_a_linux_that_works() {
    let ui = Ui::new(true);
    let project = Project::find().unwrap();
    let profile = project.root().join("tests/systems/linux-and-hostile.toml");
    let bundle = build(&project, &arguments(profile.to_str().unwrap()), &[Need::Bundle, Need::Qemu], &ui).unwrap();
    let parts = Parts::read(&bundle.published.tar, None, &ui).unwrap();
    let stand_in = prepare(&project, &parts, &Hardware::default(), &ui).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let transcript = dir.path().join("transcript");
    let boot = prepared(&parts, &stand_in, &transcript, dir.path()).unwrap();
    let report = expected(&parts, &stand_in).unwrap().report;
    let Reported { mut session, .. } = start(&boot, &report, &mut |_| {}).unwrap();
    let system = System::of(&parts.verified.manifest, &stand_in.plan);
    let [linux, hostile] = system.guests.as_slice() else { panic!("{system:?}") };
    shell::comes_up(&mut session, linux);

    // Half of it cannot be compressed.
    shell(&mut session, linux, "(dd if=/dev/urandom bs=64k count=16; seq 150000) > /tmp/data 2>/dev/null");
    for line in WORKER {
        shell(&mut session, linux, &format!("echo '{line}' >> /tmp/worker"));
    }
    shell(&mut session, linux, "sum=$(sha256sum < /tmp/data); wc -c /tmp/data");

    // A worker notices what is wrong.
    let control = reports(&shell(&mut session, linux, "sh /tmp/worker other 0 1"));
    assert!(matches!(control[..], [(rounds, wrong)] if rounds == wrong && wrong > 0), "{control:?}");

    // One whole attack before the work; the next ends while it is done, or afterwards.
    let attack = |session: &mut Session| {
        let survived = Marker::LineStart("hostile: survived ".to_owned());
        shell::wait(session, hostile, "the hostile guest has tried everything", survived);
    };
    attack(&mut session);
    let before = shell(&mut session, linux, "dmesg | wc -l");
    let one = |number: u32| format!("sh /tmp/worker \"$sum\" {number} {SECONDS} & ");
    let all: String = (1..=WORKERS).map(one).collect();
    let text = shell(&mut session, linux, &format!("({all}wait)"));
    let found = reports(&text);
    assert_eq!(found.len(), WORKERS as usize, "{text}");
    assert!(found.iter().all(|(rounds, wrong)| *rounds > 0 && *wrong == 0), "{found:?}");
    // Nothing that its kernel noticed, either.
    let after = shell(&mut session, linux, "dmesg | wc -l");
    assert_eq!(count(&before), count(&after), "{}", shell(&mut session, linux, "dmesg | tail"));

    attack(&mut session);
    shell(&mut session, linux, "uptime");
    session.passed();
    let attacks = std::fs::read_to_string(dir.path().join("transcript.p2.log")).unwrap();
    let attacks = attacks.matches("hostile: survived ").count();
    println!("rounds of the workers, and how many were wrong: {found:?}; whole attacks from power-on: {attacks}");
}

/// What `wc` has counted.
fn count(text: &str) -> u32 {
    text.lines().find_map(|line| line.trim().parse().ok()).unwrap_or_else(|| panic!("{text}"))
}
