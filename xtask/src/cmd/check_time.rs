//! How long `check` takes in the process: what an editor that runs it at every change waits for.
//!
//! Beside the time stands a ratio that means the same on every machine: how many KiB the same processor hashes meanwhile.
//! Hashing is what a check does most, since the facts of images count only with the images' own bytes. What counts is the
//! time that the process has had a processor, so that a busy machine changes nothing.

use std::hint::black_box;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use citrine_planner::pack::sha256;
use serde_json::json;

use super::check::{judge, summary};
use crate::cli::{Check, Target};
use crate::project::Project;
use crate::report::{Failure, Ui};

/// Where Linux tells how many nanoseconds this thread has run: the first word.
const RUN_TIME: &str = "/proc/thread-self/schedstat";

/// Milliseconds that a check may take on an idle machine of today; printed, never judged.
const GOAL: f64 = 20.0;
/// Bytes that are hashed for comparison.
const HASHED: usize = 16 << 20;

/// Checks `two-linux` on the P4080DS and hashes, `runs` times in turn, and prints the means (the kernel counts in steps); `baseline` is the ratio
/// when somebody last looked.
///
/// # Errors
/// What is wrong with the shipped files.
pub fn measure(project: &Project, runs: u32, baseline: f64, ui: &Ui) -> Result<(), Failure> {
    let target = Target { board: "p4080ds".to_owned(), profile: "two-linux".to_owned(), hw_dtb: None };
    let args = Check { target, hypervisor: None };
    let bytes = vec![0x5a; HASHED];
    let (mut checks, mut hashes) = (Duration::ZERO, Duration::ZERO);
    // The first of each warms the caches.
    for run in 0..=runs {
        let (check, result) = timed(|| judge(project, &args, ui).map(|(plan, found)| summary(&plan, &found)));
        black_box(result?);
        let (hash, digest) = timed(|| sha256(black_box(&bytes)));
        black_box(digest);
        if run > 0 {
            checks += check;
            hashes += hash;
        }
    }
    let milliseconds = checks.as_secs_f64() * 1e3 / f64::from(runs);
    let hashed = checks.as_secs_f64() / hashes.as_secs_f64().max(1e-9) * (HASHED >> 10) as f64;
    if ui.is_json() {
        ui.object(&json!({
            "type": "check-time", "milliseconds": milliseconds, "goal": GOAL, "hashed_kib": hashed, "baseline": baseline,
        }));
    } else {
        ui.product(&format!(
            "check   {milliseconds:.1} ms in the process (goal on an idle machine: {GOAL} ms), \
             in which it hashes {hashed:.0} KiB (baseline {baseline:.0})\n"
        ));
    }
    Ok(())
}

fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = run_time();
    let result = work();
    (run_time().saturating_sub(start), result)
}

/// How long this thread has run; or, where the kernel does not tell, what the clock shows.
fn run_time() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let text = std::fs::read_to_string(RUN_TIME).unwrap_or_default();
    let nanoseconds = text.split(' ').next().and_then(|word| word.parse().ok());
    nanoseconds.map_or_else(|| START.elapsed(), Duration::from_nanos)
}
