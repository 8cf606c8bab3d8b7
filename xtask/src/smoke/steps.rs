//! `tests/smoke/PROFILE.toml`: what the consoles of a profile's guests must say, for guests that have no shell to ask.

use std::path::Path;
use std::time::Duration;

use citrine_planner::diag::{Diagnostic, Label, Result};
use citrine_planner::input::{SYNTAX, UNKNOWN_NAME};
use serde::Deserialize;

use super::system::System;
use crate::emulator::Marker;

/// What is expected of a profile's guests.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Steps {
    /// Texts that no console may print.
    #[serde(default)]
    pub never: Vec<String>,
    /// Whether a guest that is stopped and started says the same again.
    #[serde(default)]
    pub again: bool,
    /// What is awaited, in turn.
    #[serde(default, rename = "step")]
    pub steps: Vec<Step>,
}

/// One thing that is awaited.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Step {
    /// Name of the partition on whose console it comes.
    pub console: String,
    /// What is typed before.
    #[serde(default, rename = "type")]
    pub typed: Option<String>,
    /// A line, or how one begins.
    #[serde(flatten)]
    pub awaited: Awaited,
    /// A sign of life that comes again and again: one that is newer than all before is awaited, and another
    /// whenever something has happened to other partitions.
    #[serde(default)]
    pub fresh: bool,
    /// Seconds that it may take.
    #[serde(default = "patience")]
    pub seconds: u64,
}

/// What comes.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Awaited {
    /// A whole line.
    Line(String),
    /// How a line begins.
    Begins(String),
}

/// A busy host with two CPUs: many times what a step needs.
const fn patience() -> u64 {
    300
}

impl Step {
    /// What is awaited, as the emulator sees it.
    pub fn marker(&self) -> Marker {
        match &self.awaited {
            Awaited::Line(text) => Marker::Line(text.clone()),
            Awaited::Begins(text) => Marker::LineStart(text.clone()),
        }
    }

    /// How long it may take.
    pub const fn timeout(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

impl Steps {
    /// What is expected of the profile of this name; nothing if it has no such file.
    ///
    /// # Errors
    /// `C101` for a file that cannot be understood, `C107` for a partition that there is not.
    pub fn of(root: &Path, profile: &str, system: &System) -> Result<Self> {
        let name = format!("tests/smoke/{profile}.toml");
        let Ok(text) = fs_err::read_to_string(root.join(&name)) else { return Ok(Self::default()) };
        Self::parse(&name, &text, system)
    }

    fn parse(name: &str, text: &str, system: &System) -> Result<Self> {
        let steps: Self = toml::from_str(text).map_err(|error| {
            let label = Label { file: name.to_owned(), range: error.span(), text: "here".to_owned() };
            Diagnostic::error(SYNTAX, format!("{name}: {}", error.message()))
                .primary(label)
                .help("docs/adding-a-profile.md has an example")
        })?;
        let known = |step: &&Step| system.guests.iter().any(|guest| guest.name == step.console);
        match steps.steps.iter().find(|step| !known(step)) {
            Some(step) => Err(Diagnostic::error(UNKNOWN_NAME, format!("no partition is called `{}`", step.console))
                .primary(Label::file(name, "a step of this file awaits it"))
                .help("a step's console is the name of one of the profile's partitions")
                .into()),
            None => Ok(steps),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blessed::root;
    use crate::project::Project;
    use crate::report::Ui;
    use crate::smoke::system::Guest;

    fn system(names: &[&str]) -> System {
        let guest = |name: &&str| Guest {
            name: (*name).to_owned(),
            label: (*name).to_owned(),
            channel: 1,
            cpus: 1,
            bootargs: String::new(),
            images: Vec::new(),
            has_shell: false,
        };
        System { channel: 0, guests: names.iter().map(guest).collect() }
    }

    #[test]
    fn a_file_that_is_wrong_is_refused() {
        let system = system(&["p1"]);
        let parse = |text: &str| Steps::parse("x.toml", text, &system);
        let good = "[[step]]\nconsole = \"p1\"\nline = \"done\"\n";
        assert_eq!(parse(good).unwrap().steps[0].marker(), Marker::Line("done".to_owned()));
        let begins = good.replace("line", "begins");
        assert_eq!(parse(&begins).unwrap().steps[0].marker(), Marker::LineStart("done".to_owned()));
        for (from, to, code) in [
            ("p1", "p2", UNKNOWN_NAME),
            ("line = \"done\"", "", SYNTAX),
            ("line", "lines", SYNTAX),
            ("[[step]]", "[[steps]]", SYNTAX),
        ] {
            assert_eq!(parse(&good.replace(from, to)).unwrap_err().code, code, "{to}");
        }
    }

    /// Every shipped file of expectations belongs to a shipped profile and names its partitions.
    #[test]
    fn every_shipped_expectation_is_understood() {
        let project = Project::find().unwrap();
        let mut count = 0;
        for entry in std::fs::read_dir(root().join("tests/smoke")).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let Some(name) = name.strip_suffix(".toml") else { continue };
            let profile = project.profile(name, &Ui::new(true)).unwrap_or_else(|failure| panic!("{failure:?}"));
            let names: Vec<&str> = profile.partitions.iter().map(|partition| partition.name.as_str()).collect();
            let steps = Steps::of(project.root(), name, &system(&names)).unwrap();
            assert!(!steps.steps.is_empty(), "{name}");
            count += 1;
        }
        assert!(count >= 5, "{count}");
    }
}
