//! Runs the processes that build the bundles, within a number of jobs and an amount of memory.
//!
//! A bundle takes little memory of its own; compiling Linux takes much, and uses every CPU by itself. So one bundle at
//! a time may compile it, which the others find in the cache afterwards.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use citrine_planner::diag::{Diagnostic, Label};
use citrine_planner::release::CELL;
use citrine_planner::release::recipe::Cell;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

use super::show::Show;
use crate::cli::release::Release;
use crate::progress::{check_interrupted, interrupted};
use crate::report::{Failure, Ui};

/// Memory that is set aside for a bundle whose stages are in the cache, in bytes: more than three times what one takes.
const LIGHT: u64 = 64 << 20;
/// Memory that is set aside for a bundle that compiles Linux, in bytes.
const HEAVY: u64 = 1 << 30;
/// How often the lines are written anew.
const REFRESH: Duration = Duration::from_millis(200);
/// How long a process may take to end after it was asked to.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the processes may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budget {
    /// Processes at once.
    pub jobs: usize,
    /// Bytes of memory together. One process always runs, whatever it takes.
    pub memory: u64,
}

impl Budget {
    /// What the user asked for, else as many processes as there are CPUs in half of the memory that is free.
    pub fn of(args: &Release) -> Self {
        let cpus = || std::thread::available_parallelism().map_or(1, usize::from);
        let meminfo = || std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let free = || {
            let text = meminfo();
            let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).unwrap_or_default();
            line.split_whitespace().next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(1 << 20) << 10
        };
        Self { jobs: args.jobs.map_or_else(cpus, usize::from), memory: args.memory.unwrap_or_else(|| free() / 2) }
    }
}

/// A bundle that is to be built.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Job {
    /// The board and profile.
    pub cell: Cell,
    /// Whether it compiles Linux, which is not in the cache.
    pub heavy: bool,
}

/// What has come of the jobs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// How many bundles were written; the others were there.
    pub written: usize,
    /// The most memory that one process took, in bytes, without its compilers.
    pub peak: u64,
}

/// The next job that fits beside those at work: the first that is light, or heavy if none such is at work.
fn next(waiting: &mut VecDeque<Job>, at_work: &[bool], budget: Budget, linux_is_there: bool) -> Option<(Job, bool)> {
    if at_work.len() >= budget.jobs {
        return None;
    }
    let cost = |heavy: bool| if heavy { HEAVY } else { LIGHT };
    let used: u64 = at_work.iter().map(|heavy| cost(*heavy)).sum();
    let is_heavy = |job: &Job| job.heavy && !linux_is_there;
    let fits = |job: &Job| {
        let alone = at_work.is_empty();
        let turn = !(is_heavy(job) && at_work.contains(&true));
        turn && (alone || used + cost(is_heavy(job)) <= budget.memory)
    };
    let at = waiting.iter().position(fits)?;
    let job = waiting.remove(at)?;
    let heavy = is_heavy(&job);
    Some((job, heavy))
}

struct Running {
    child: Child,
    heavy: bool,
}

/// A line of a process, or its end.
enum Event {
    Line(String),
    End,
}

/// Builds all bundles of `jobs` into `out`.
///
/// # Errors
/// `E106` for each that fails, after the others at work have ended; `T601`.
pub fn run(jobs: Vec<Job>, args: &Release, out: &Path, budget: Budget, ui: &Ui) -> Result<Outcome, Failure> {
    let mut show = Show::new(ui, jobs.len());
    // Heavy ones first: everything else fits beside them.
    let (heavy, light): (Vec<Job>, Vec<Job>) = jobs.into_iter().partition(|job| job.heavy);
    let mut waiting: VecDeque<Job> = heavy.into_iter().chain(light).collect();
    let mut running: BTreeMap<String, Running> = BTreeMap::new();
    let (sender, events) = channel();
    let (mut outcome, mut failed, mut linux_is_there) = (Outcome::default(), Vec::new(), false);
    let mut said: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    loop {
        while failed.is_empty() && !interrupted() {
            let at_work: Vec<bool> = running.values().map(|running| running.heavy).collect();
            let Some((job, heavy)) = next(&mut waiting, &at_work, budget, linux_is_there) else { break };
            let name = format!("{}/{}", job.cell.board, job.cell.profile);
            match start(&name, args, out, &sender) {
                Ok(child) => drop(running.insert(name.clone(), Running { child, heavy })),
                Err(error) => {
                    failed.push(failure(&name, &[], &format!("its process cannot be started: {error}")));
                    break;
                }
            }
            show.started(&name);
        }
        if running.is_empty() {
            break;
        }
        if interrupted() {
            end(&mut running, &events);
            break;
        }
        show.refresh();
        match events.recv_timeout(REFRESH) {
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
            Ok((name, Event::Line(line))) => {
                said.entry(name).or_default().extend(serde_json::from_str::<Value>(&line).ok());
            }
            Ok((name, Event::End)) => {
                let Some(mut ended) = running.remove(&name) else { continue };
                let lines = said.remove(&name).unwrap_or_default();
                let status = ended.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
                match lines.iter().find(|line| line["type"] == "cell") {
                    Some(result) => {
                        linux_is_there |= ended.heavy;
                        let state = result["state"].as_str().unwrap_or_default();
                        outcome.written += usize::from(state == "written");
                        outcome.peak = outcome.peak.max(result["peak"].as_u64().unwrap_or(0));
                        show.ended(&name, state);
                    }
                    None => {
                        show.ended(&name, "failed");
                        failed.push(failure(&name, &lines, &format!("its process ended with {status}")));
                    }
                }
                pass_on(&name, &lines, ui);
            }
        }
    }
    drop(show);
    check_interrupted()?;
    if failed.is_empty() { Ok(outcome) } else { Err(failed.into()) }
}

fn start(name: &str, args: &Release, out: &Path, events: &Sender<(String, Event)>) -> std::io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--json", "release"]).arg(&args.file).arg("--key").arg(&args.key);
    command.arg("--output").arg(out).args(["--cell", name]);
    if args.offline {
        command.arg("--offline");
    }
    if let Some(address) = &args.remote_cache {
        command.arg("--remote-cache").arg(address);
    }
    // A group of its own: Ctrl-C reaches this process alone, which then asks each to end.
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
    let mut child = command.spawn()?;
    let (name, events, stdout) = (name.to_owned(), events.clone(), child.stdout.take());
    std::thread::spawn(move || {
        let lines = stdout.into_iter().flat_map(|pipe| BufReader::new(pipe).lines());
        for line in lines.map_while(Result::ok) {
            let _ = events.send((name.clone(), Event::Line(line)));
        }
        let _ = events.send((name, Event::End));
    });
    Ok(child)
}

/// Asks every process to end, and makes those end that do not.
fn end(running: &mut BTreeMap<String, Running>, events: &Receiver<(String, Event)>) {
    let signal = |running: &BTreeMap<String, Running>, signal: Signal| {
        for process in running.values() {
            let _ = kill_process_group(Pid::from_child(&process.child), signal);
        }
    };
    signal(running, Signal::TERM);
    let deadline = Instant::now() + PATIENCE;
    while !running.is_empty() && Instant::now() < deadline {
        if let Ok((name, Event::End)) = events.recv_timeout(REFRESH)
            && let Some(mut ended) = running.remove(&name)
        {
            let _ = ended.child.wait();
        }
    }
    signal(running, Signal::KILL);
    for process in running.values_mut() {
        let _ = process.child.wait();
    }
    running.clear();
}

/// What a process found and was no reason to fail, with the bundle that it is about.
fn pass_on(name: &str, lines: &[Value], ui: &Ui) {
    for line in lines.iter().filter(|line| line["type"] == "diagnostic") {
        if ui.is_json() {
            let mut line = line.clone();
            line["cell"] = name.into();
            ui.object(&line);
        } else if line["severity"] == "warning" {
            let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
            ui.say(&format!("{name}: warning {}: {}", text("code"), text("message")));
        }
    }
}

pub(super) fn failure(name: &str, lines: &[Value], otherwise: &str) -> Diagnostic {
    let mut errors = lines.iter().filter(|line| line["severity"] == "error");
    let (board, profile) = name.split_once('/').unwrap_or((name, ""));
    let first = errors.next();
    let text = |key: &str| first.and_then(|error| error[key].as_str());
    let why = match (text("code"), text("message")) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        _ => otherwise.to_owned(),
    };
    let mut diagnostic = Diagnostic::error(CELL, format!("{profile} for {board} cannot be built: {why}"))
        .fact("cell", name)
        .help(format!(
            "see all of it with `cargo xtask bundle --board {board} --profile {profile} --media all --locked` and the same --key; \
             what is built stays, and the release goes on from there when it is started again"
        ));
    if let Some(file) = first.and_then(|error| error["primary"]["file"].as_str()) {
        diagnostic = diagnostic.primary(Label::file(file, "here"));
    }
    diagnostic
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(profile: &str, heavy: bool) -> Job {
        Job { cell: Cell { board: "b".into(), profile: profile.into() }, heavy }
    }

    fn taken(jobs: &[Job], at_work: &[bool], budget: Budget, there: bool) -> Option<(String, bool)> {
        let mut waiting = jobs.iter().cloned().collect();
        next(&mut waiting, at_work, budget, there).map(|(job, heavy)| (job.cell.profile, heavy))
    }

    #[test]
    fn the_budget_is_kept() {
        let jobs = [job("linux", true), job("two", true), job("hello", false)];
        let two = Budget { jobs: 2, memory: 2 << 30 };
        let some = |name: &str, heavy| Some((name.to_owned(), heavy));
        assert_eq!(taken(&jobs, &[], two, false), some("linux", true));
        // While Linux is compiled, only what does not need it.
        assert_eq!(taken(&jobs, &[true], two, false), some("hello", false));
        assert_eq!(taken(&jobs, &[true, false], two, false), None);
        assert_eq!(taken(&jobs, &[false], two, true), some("linux", false));
        // Too little memory for two: one after the other, and never none.
        let small = Budget { jobs: 2, memory: 1 };
        assert_eq!(taken(&jobs, &[], small, false), some("linux", true));
        assert_eq!(taken(&jobs, &[false], small, false), None);
    }

    #[test]
    fn a_failure_says_why() {
        let lines =
            [serde_json::json!({"severity": "error", "code": "L101", "message": "m", "primary": {"file": "f"}})];
        let said = failure("b/p", &lines, "x");
        assert_eq!(said.message, "p for b cannot be built: L101: m");
        assert_eq!(failure("b/p", &[], "killed").message, "p for b cannot be built: killed");
    }
}
