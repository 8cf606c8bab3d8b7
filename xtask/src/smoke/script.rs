//! The conversation of a smoke boot, once the hypervisor has reported: with every guest's shell and with the
//! hypervisor's.
//!
//! What is expected of the other side:
//!
//! * A guest with the built root file system prints `citrine-guest-42-ready: <host> <n> cpus` and then its
//!   prompt, `<host>:/# `.
//! * The hypervisor reports each image that it loads, with the hash of the bytes that it read
//!   (`<label>: kernel at <address>: ..., sha256 <hash>`), on its console, and has a shell there with the prompt
//!   `HV> ` and the commands `info`, `stop` and `start load`.
//!
//! Markers are computed where they are printed, so that no echo of what is typed can be taken for an answer.

use std::time::Duration;

use citrine_planner::diag::{Diagnostic, Result};
use citrine_planner::plan::shell_prompt;

use super::answers::{self, QUESTIONS, Question};
use super::steps::{Step, Steps};
use super::system::{Guest, System};
use crate::emulator::session::Seen;
use crate::emulator::{Expect, Marker, Progress, Session, Source};

/// A guest that boots, eight CPUs of it on a busy host with two: many times what it needs.
const BOOTS: Duration = Duration::from_secs(240);
/// A command of a shell.
const ANSWERS: Duration = Duration::from_secs(300);
/// How often the overview may show another state than the one that is awaited, and the time between.
const LOOKS: (u32, Duration) = (240, Duration::from_millis(500));

/// How the greeting of a guest begins. The number is computed, so the words stand in no image.
const READY: &str = "citrine-guest-42-ready: ";
/// The prompt of the hypervisor's shell.
const PROMPT: &str = "HV> ";

/// What ends the conversation whenever a console prints it: words of the firmware for a CPU that stops and for
/// an image that it refuses, and of Linux.
const FAILURES: &[&str] =
    &["(vector ", "panicked:", "NOT STARTED: ", "Kernel panic - not syncing", "Oops: ", "kernel BUG at"];
/// What the hypervisor's shell says when it does not do what it is told.
const REFUSALS: &[&str] = &["Unknown command", "Couldn't ", "does not exist."];

/// A machine that one can talk to.
pub trait Machine {
    /// Waits for a marker.
    ///
    /// # Errors
    /// See [`Session::wait_for`].
    fn wait_for(&mut self, expect: &Expect<'_>) -> Result<Seen>;
    /// Types on a console.
    ///
    /// # Errors
    /// See [`Session::send`].
    fn send(&mut self, to: Source, text: &str) -> Result<()>;
    /// Lets it run for a while.
    ///
    /// # Errors
    /// See [`Session::pause`].
    fn pause(&mut self, time: Duration) -> Result<()>;
    /// Notes something that has been found out.
    fn found_out(&mut self, what: String, at: Duration);
    /// Ends the machine because of a wrong answer.
    fn refuse(&mut self, step: &str, source: Source, error: Diagnostic) -> Box<Diagnostic>;
}

/// The real machine, with somebody who watches.
pub struct Live<'s> {
    /// The machine.
    pub session: &'s mut Session,
    /// Gets what happens.
    pub show: &'s mut dyn FnMut(Progress<'_>),
}

impl Machine for Live<'_> {
    fn wait_for(&mut self, expect: &Expect<'_>) -> Result<Seen> {
        // Of the many steps people see the one that is waited for, and then what has been found out.
        self.session.wait_for(expect, &mut |event| {
            if !matches!(event, Progress::Reached(..)) {
                (self.show)(event);
            }
        })
    }

    fn send(&mut self, to: Source, text: &str) -> Result<()> {
        self.session.send(to, text.as_bytes())
    }

    fn pause(&mut self, time: Duration) -> Result<()> {
        self.session.pause(time, self.show)
    }

    fn found_out(&mut self, what: String, at: Duration) {
        (self.show)(Progress::Reached(&what, at));
        self.session.found_out(what, at);
    }

    fn refuse(&mut self, step: &str, source: Source, error: Diagnostic) -> Box<Diagnostic> {
        self.session.refuse(step, source, error)
    }
}

/// Talks to every guest and to the hypervisor. `said` is what the hypervisor's console has said so far, `loads` what it
/// must say while it loads the guests. The times from power-on to the first prompt of each guest, by its name.
///
/// # Errors
/// [`answers::WRONG_ANSWER`]; `Q103` to `Q105`.
pub fn run(
    machine: &mut impl Machine,
    system: &System,
    steps: &Steps,
    loads: &[String],
    said: Vec<u8>,
) -> Result<Vec<(String, Duration)>> {
    let mut script = Script { machine, system, steps, said, asked: 0, now: Duration::ZERO };
    let everyone: Vec<&Guest> = system.guests.iter().collect();
    let shells: Vec<&Guest> = everyone.iter().copied().filter(|guest| guest.has_shell).collect();
    let mut prompts = Vec::new();
    for guest in &shells {
        prompts.push((guest.name.clone(), script.comes_up(guest)?));
    }
    for question in &QUESTIONS {
        script.ask_all(&shells, question)?;
    }
    for step in &steps.steps {
        script.perform(step)?;
    }
    script.hypervisor_expects("the hypervisor's prompt")?;
    script.overview(&everyone, None)?;
    script.images(&everyone, loads)?;
    if let Some(last) = shells.last().or(everyone.last()) {
        script.stops_and_starts(last, &everyone)?;
    }
    Ok(prompts)
}

struct Script<'a, M> {
    machine: &'a mut M,
    system: &'a System,
    steps: &'a Steps,
    /// What the hypervisor has said since the images were last judged.
    said: Vec<u8>,
    /// Questions so far: each has markers of its own.
    asked: u32,
    /// When the last marker came.
    now: Duration,
}

impl<M: Machine> Script<'_, M> {
    fn wait(&mut self, name: &str, source: Source, marker: Marker, timeout: Duration) -> Result<String> {
        let own = source == self.system.hypervisor();
        let failures: Vec<&str> = FAILURES.iter().chain(REFUSALS.iter().filter(|_| own)).copied().collect();
        let failures: Vec<&str> = failures.into_iter().chain(self.steps.never.iter().map(String::as_str)).collect();
        let seen = self.machine.wait_for(&Expect { name, source, marker, timeout, failures: &failures })?;
        self.now = seen.at;
        if own {
            self.said.extend_from_slice(&seen.bytes);
        }
        Ok(String::from_utf8_lossy(&seen.bytes).into_owned())
    }

    fn judge(&mut self, step: &str, who: &str, source: Source, verdict: std::result::Result<(), String>) -> Result<()> {
        verdict.map_err(|why| self.machine.refuse(step, source, answers::wrong(who, &why)))
    }

    /// Waits for a guest's greeting and prompt, and silences its kernel, which would talk into answers. The
    /// time of the prompt.
    fn comes_up(&mut self, guest: &Guest) -> Result<Duration> {
        let (label, source) = (&guest.label, guest.console());
        let name = format!("{label} is ready");
        self.wait(&format!("{label} greets"), source, Marker::LineStart(READY.to_owned()), BOOTS)?;
        let greeting = self.wait(&name, source, Marker::Text("\n".to_owned()), ANSWERS)?;
        self.judge(&name, label, source, answers::greeting(guest, &greeting))?;
        self.prompts(guest)?;
        let prompted = self.now;
        self.machine.found_out(format!("{label} is at its prompt, CPUs: {}", guest.cpus), prompted);
        let asked = self.ask(guest, "dmesg -n 1")?;
        self.answer(guest, "its shell", &asked)?;
        Ok(prompted)
    }

    /// Waits for the prompt: what is typed before the shell reads might be echoed twice.
    fn prompts(&mut self, guest: &Guest) -> Result<String> {
        let prompt = Marker::LineStart(shell_prompt(&guest.label));
        self.wait(&format!("the prompt of {}", guest.label), guest.console(), prompt, ANSWERS)
    }

    /// Types a command between two markers; what [`Self::answer`] needs to know of them.
    fn ask(&mut self, guest: &Guest, command: &str) -> Result<(String, String)> {
        self.asked += 1;
        let asked = self.asked;
        let typed = format!("echo from-$((6*7))-{asked}; {command}; echo to-$((6*7))-{asked}\r");
        self.machine.send(guest.console(), &typed)?;
        Ok((format!("from-42-{asked}"), format!("to-42-{asked}")))
    }

    /// Waits for the end of an answer, and returns what stands between its markers.
    fn answer(&mut self, guest: &Guest, about: &str, (from, to): &(String, String)) -> Result<String> {
        let name = format!("{} answers about {about}", guest.label);
        let text = self.wait(&name, guest.console(), Marker::Line(to.clone()), ANSWERS)?;
        self.prompts(guest)?;
        let text = text.split_once(from.as_str()).map_or("", |(_, rest)| rest);
        let text = text.trim_start_matches(['\r', '\n']);
        Ok(text.strip_suffix(to.as_str()).unwrap_or(text).replace('\r', ""))
    }

    /// Asks all at once, so that all compute at the same time.
    fn ask_all(&mut self, guests: &[&Guest], question: &Question) -> Result<()> {
        let mut markers = Vec::new();
        for guest in guests {
            markers.push(self.ask(guest, question.command)?);
        }
        for (guest, markers) in guests.iter().zip(&markers) {
            let text = self.answer(guest, question.about, markers)?;
            self.judge(question.about, &guest.label, guest.console(), (question.judge)(guest, &text))?;
            self.machine.found_out(format!("{} is right about {}", guest.label, question.about), self.now);
        }
        Ok(())
    }

    /// Awaits what the profile's file of expectations says.
    fn perform(&mut self, step: &Step) -> Result<()> {
        let Some(guest) = self.system.guests.iter().find(|guest| guest.name == step.console) else { return Ok(()) };
        let (marker, begun) = (step.marker(), self.now);
        let name = format!("{} says {marker}", guest.label);
        if let Some(typed) = &step.typed {
            self.machine.send(guest.console(), &format!("{typed}\r"))?;
        }
        loop {
            self.wait(&name, guest.console(), marker.clone(), step.timeout())?;
            if !step.fresh || self.now > begun {
                break;
            }
        }
        self.machine.found_out(name, self.now);
        Ok(())
    }

    /// Asks for the CPUs, or awaits a sign of life: whether a guest is alive.
    fn answer_still(&mut self, guests: &[&Guest]) -> Result<()> {
        let signs = self.steps.steps.iter().filter(|step| step.fresh);
        for step in signs.filter(|step| guests.iter().any(|guest| guest.name == step.console)) {
            self.perform(step)?;
        }
        let shells: Vec<&Guest> = guests.iter().copied().filter(|guest| guest.has_shell).collect();
        self.ask_all(&shells, &QUESTIONS[0])
    }

    /// Waits for the hypervisor's prompt. Escape sequences may stand before it, and lines of its log.
    fn hypervisor_expects(&mut self, name: &str) -> Result<String> {
        self.wait(name, self.system.hypervisor(), Marker::Text(PROMPT.to_owned()), ANSWERS)
    }

    /// Types a command for the hypervisor's shell; its output.
    fn command(&mut self, command: &str) -> Result<String> {
        self.machine.send(self.system.hypervisor(), &format!("{command}\r"))?;
        self.hypervisor_expects(&format!("the hypervisor has done `{command}`"))
    }

    /// Looks at the overview until every guest runs, but for the one that is stopped.
    fn overview(&mut self, guests: &[&Guest], stopped: Option<&Guest>) -> Result<()> {
        let state = |guest: &Guest| if stopped == Some(guest) { "stopped" } else { "running" };
        let what = match stopped {
            Some(guest) => format!("{} is stopped, all others run", guest.label),
            None => "all partitions run".to_owned(),
        };
        let (looks, pause) = LOOKS;
        for look in 1.. {
            let text = self.command("info")?;
            match answers::overview(&text, guests.iter().map(|guest| (*guest, state(guest)))) {
                Ok(()) => break,
                Err(why) if look == looks => {
                    self.judge(&what, "the hypervisor", self.system.hypervisor(), Err(why))?;
                }
                Err(_) => self.machine.pause(pause)?,
            }
        }
        self.machine.found_out(format!("the hypervisor's overview: {what}"), self.now);
        Ok(())
    }

    /// Compares what the hypervisor has loaded with the manifest, and what it said with its own code's words.
    fn images(&mut self, guests: &[&Guest], loads: &[String]) -> Result<()> {
        let said = String::from_utf8_lossy(&std::mem::take(&mut self.said)).into_owned();
        self.judge(
            "the loading of the images",
            "the hypervisor",
            self.system.hypervisor(),
            answers::said(loads, &said),
        )?;
        for guest in guests {
            for image in &guest.images {
                let verdict = answers::loaded(guest, image, &said);
                self.judge("the hashes of the images", "the hypervisor", self.system.hypervisor(), verdict)?;
                let what = format!(
                    "{}: {} at {} has the manifest's hash: {} {}",
                    guest.label, image.role, image.load, image.part, image.sha256
                );
                self.machine.found_out(what, self.now);
            }
        }
        Ok(())
    }

    /// Stops a guest and starts it from its images; the others go on.
    fn stops_and_starts(&mut self, guest: &Guest, everyone: &[&Guest]) -> Result<()> {
        let others: Vec<&Guest> = everyone.iter().copied().filter(|other| *other != guest).collect();
        let name = if guest.label.contains(' ') { format!("\"{}\"", guest.label) } else { guest.label.clone() };
        self.command(&format!("stop {name}"))?;
        self.overview(everyone, Some(guest))?;
        self.answer_still(&others)?;
        self.command(&format!("start load {name}"))?;
        if guest.has_shell {
            self.comes_up(guest)?;
        }
        if self.steps.again {
            for step in self.steps.steps.iter().filter(|step| step.console == guest.name) {
                self.perform(step)?;
            }
        }
        self.overview(everyone, None)?;
        self.images(&[guest], &[])?;
        self.answer_still(everyone)
    }
}

#[cfg(test)]
mod tests;
