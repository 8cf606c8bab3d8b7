//! `perf`: how many times faster the tool packs and verifies than a shell script that does the same work.
//!
//! The inputs are those of a P4080 with two Linux partitions, made from a seed; the script is
//! `tests/perf/shell.sh`. Both sides are whole processes and run in turn, so that a busy machine hurts both.
//! Only ratios mean the same tomorrow; [`check_time`] adds how long a check takes in the process, and [`inner_loop`]
//! the times of the two commands that people repeat.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use citrine_formats::manifest::Role;
use citrine_formats::uimage::{Compression, Kind};
use citrine_planner::diag::{self, Code, Diagnostic};
use citrine_planner::pack::image::{Fields, script, wrap};
use citrine_planner::pack::{self, Content, PartSource, Subject, assemble, sha256};
use serde::Deserialize;
use serde_json::json;

use crate::cli::Perf;
use crate::cmd::{check_time, inner_loop};
use crate::output::cannot_write;
use crate::project::Project;
use crate::report::{CmdResult, Ui};
use crate::{output, sign};

/// One side of a measurement did not do its work.
pub const FAILED: Code = Code::new('O', 103);

/// The one time in what is packed.
const EPOCH: u32 = 1_700_000_000;
/// Name of the bundle that is packed.
const NAME: &str = "perf-two-linux";

/// What was measured when somebody last looked: `tests/perf/baseline.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Baseline {
    pack: f64,
    verify: f64,
    check: f64,
}

/// Runs `perf`.
pub fn run(args: &Perf, ui: &Ui) -> CmdResult {
    if let Some(dir) = &args.pack {
        return Ok(pack(dir)?);
    }
    let project = Project::find()?;
    let perf = project.root().join("tests/perf");
    let baseline = std::fs::read_to_string(perf.join("baseline.toml"))
        .ok()
        .and_then(|text| toml::from_str::<Baseline>(&text).ok())
        .ok_or_else(|| failed("reading tests/perf/baseline.toml", "it is not three ratios"))?;
    let dir = tempfile::Builder::new()
        .prefix("citrine-perf-")
        .tempdir()
        .map_err(|e| cannot_write(&std::env::temp_dir(), &e))?;
    ui.say("making the inputs");
    write_inputs(dir.path()).map_err(|error| cannot_write(dir.path(), &error))?;

    let ours = std::env::current_exe().map_err(|error| failed("the tool", &error.to_string()))?;
    let tool = |arguments: &[&str]| {
        let mut command = Command::new(&ours);
        command.args(arguments).current_dir(dir.path());
        command
    };
    let shell = |work: &str| {
        let mut command = Command::new("bash");
        command.arg(perf.join("shell.sh")).arg(work).current_dir(dir.path());
        command
    };
    let tar = format!("out/{NAME}.tar");
    let verify = ["verify", &tar, "--keys", "allowed_signers", "--board", "perf"];
    for (work, target, baseline, shell, tool) in [
        ("pack", 4.0, baseline.pack, shell("pack"), tool(&["perf", "--pack", "."])),
        ("verify", 3.0, baseline.verify, shell("verify"), tool(&verify)),
    ] {
        ui.say(&format!("measuring {work}, {} times each", args.runs));
        let ratio = compare(args.runs, shell, tool)?;
        if ui.is_json() {
            ui.object(&json!({
                "type": "ratio", "work": work, "median": ratio.median, "p90": ratio.p90,
                "baseline": baseline, "target": target,
            }));
        } else {
            ui.product(&format!(
                "{work:6}  {:.1} times as fast as the script (slowest tenth: {:.1}; baseline {baseline:.1}, target {target:.1})\n",
                ratio.median, ratio.p90,
            ));
        }
    }
    ui.say(&format!("measuring check, {} times", args.runs));
    check_time::measure(&project, args.runs, baseline.check, ui)?;
    ui.say(&format!("measuring the inner loop, {} times", args.runs));
    Ok(inner_loop::measure(&project, args.runs, ui)?)
}

/// Script time by tool time.
struct Ratio {
    median: f64,
    p90: f64,
}

/// Runs both sides `runs` times in turn, after one run each to warm the caches.
fn compare(runs: u32, mut shell: Command, mut tool: Command) -> diag::Result<Ratio> {
    time(&mut shell, "the script")?;
    time(&mut tool, "the tool")?;
    let (mut shells, mut tools) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        shells.push(time(&mut shell, "the script")?);
        tools.push(time(&mut tool, "the tool")?);
    }
    shells.sort();
    tools.sort();
    let ratio = |percent: usize| {
        // The nearest rank; `runs` is at least 1.
        let rank = (shells.len() * percent).div_ceil(100) - 1;
        shells[rank].as_secs_f64() / tools[rank].as_secs_f64()
    };
    Ok(Ratio { median: ratio(50), p90: ratio(90) })
}

/// How long one run takes, from the start of its process to its end.
fn time(command: &mut Command, who: &str) -> diag::Result<Duration> {
    let start = Instant::now();
    let output = command.stdin(Stdio::null()).output().map_err(|error| failed(who, &error.to_string()))?;
    let taken = start.elapsed();
    if output.status.success() {
        return Ok(taken);
    }
    Err(failed(who, String::from_utf8_lossy(&output.stderr).trim()).into())
}

/// Nothing was measured: what failed, and why.
pub fn failed(who: &str, why: &str) -> Diagnostic {
    Diagnostic::error(FAILED, format!("nothing was measured, since {who} failed: {why}"))
        .help("`cargo xtask perf` needs the packages that `cargo xtask test` needs")
}

/// The bytes of a run: seeded, and as hard to compress as those they stand for.
fn write_inputs(dir: &Path) -> std::io::Result<()> {
    let mut state = 0x5eed_0fc1_7412_3e01u64;
    let mut noise = |len: usize| -> Vec<u8> {
        let words = std::iter::repeat_with(|| {
            // xorshift64: any generator that is the same everywhere will do.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        });
        words.take(len.div_ceil(8)).flatten().take(len).collect()
    };
    std::fs::write(dir.join("kernel.gz"), noise(4 << 20))?;
    std::fs::write(dir.join("rootfs.gz"), noise(26_100_000))?;
    std::fs::write(dir.join("hv.bin"), noise(600_000))?;
    let nodes: String = (0..250)
        .map(|n| format!("\tnode@{n:x} {{\n\t\treg = <{n:#x} 0x1000>;\n\t\tlabel = \"node {n}\";\n\t}};\n"))
        .collect();
    let tree = format!("/dts-v1/;\n/ {{\n\t#address-cells = <1>;\n\t#size-cells = <1>;\n{nodes}}};\n");
    std::fs::write(dir.join("hv.dts"), tree)?;
    std::fs::write(dir.join("boot.cmd"), "bootm 0x78700000 - 0x78800000\n")?;
    let key = ssh_key::PrivateKey::from(ssh_key::private::Ed25519Keypair::from_seed(&[7; 32]));
    let text = key.to_openssh(ssh_key::LineEnding::LF).expect("a key that was just made has a text");
    let public = key.public_key().to_openssh().expect("a key that was just made has a text");
    std::fs::write(dir.join("allowed_signers"), format!("perf {public}\n"))?;
    let path = dir.join("key");
    std::fs::write(&path, text.as_bytes())?;
    // ssh-keygen signs with no key that others can read.
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
}

/// One run of the tool: from input files to a published bundle, through the code that `bundle` uses.
fn pack(dir: &Path) -> diag::Result<()> {
    let key = sign::key_from(&dir.join("key"))?;
    let read = |name: &str| -> diag::Result<Vec<u8>> {
        Ok(std::fs::read(dir.join(name)).map_err(|error| failed(&format!("reading {name}"), &error.to_string()))?)
    };
    let tree = std::thread::scope(|scope| -> diag::Result<_> {
        // dtc works while the large files are read.
        let tree = scope.spawn(|| Command::new("dtc").args(["-q", "-O", "dtb", "hv.dts"]).current_dir(dir).output());
        let files = (read("kernel.gz")?, read("rootfs.gz")?, read("hv.bin")?, read("boot.cmd")?);
        let tree = tree.join().expect("starting a program does not panic");
        let tree = tree.map_err(|error| failed("dtc", &error.to_string()))?.stdout;
        Ok((files, tree))
    })?;
    let ((kernel, rootfs, hypervisor, commands), tree) = tree;
    let image = |kind, compression, name, payload| {
        let fields = Fields { kind, compression, name, load: 0, entry: 0, time: EPOCH };
        wrap(fields, payload).expect("an input of this size fits a header")
    };
    let commands = String::from_utf8_lossy(&commands);
    let part = |name: &str, role, content| PartSource {
        name: name.to_owned(),
        role,
        slots: Vec::new(),
        entry: None,
        uncompressed: None,
        content,
    };
    let parts = vec![
        part("uImage", Role::Kernel, image(Kind::Kernel, Compression::Gzip, "linux", kernel)),
        part("rootfs.uboot", Role::Rootfs, image(Kind::Ramdisk, Compression::Gzip, "rootfs", rootfs)),
        part("hv.uImage", Role::Hypervisor, image(Kind::Kernel, Compression::None, "hv", hypervisor)),
        part("hv.dtb", Role::Configuration, Content::plain(tree)),
        part("boot.scr", Role::Script, script("boot", EPOCH, &commands).expect("a short text fits")),
    ];
    let subject = Subject {
        board: "perf".to_owned(),
        core: "e500mc".to_owned(),
        epoch: 0,
        inputs: Vec::new(),
        plan_sha256: sha256(b""),
        profile: "two-linux".to_owned(),
        soc: "perf".to_owned(),
        source_date_epoch: EPOCH,
    };
    let bundle = assemble(subject, parts)?;
    let signatures = pack::sign(&bundle, &[key]).map_err(|error| failed("the key", &error.to_string()))?;
    output::publish(&dir.join("out"), NAME, &bundle, &signatures, None)?;
    Ok(())
}
