//! What guests and hypervisor answer, and what they must: texts in, verdicts out.

use std::sync::LazyLock;

use citrine_formats::manifest::Sha256;
use citrine_planner::diag::{Code, Diagnostic};
use citrine_planner::pack::sha256;

use super::system::{Guest, GuestImage};

/// A console's answer is not what the bundle says.
pub const WRONG_ANSWER: Code = Code::new('Q', 203);

/// A command for a guest's shell, and what its output must be.
#[derive(Debug)]
pub struct Question {
    /// What it finds out, for people.
    pub about: &'static str,
    /// The command.
    pub command: &'static str,
    /// Why the output is wrong, if it is.
    pub judge: fn(&Guest, &str) -> Result<(), String>,
}

/// What every guest with a shell is asked.
pub const QUESTIONS: [Question; 3] = [
    Question { about: "its CPUs", command: "cat /proc/cpuinfo", judge: processors },
    Question { about: "its command line", command: "cat /proc/cmdline", judge: command_line },
    Question {
        about: "the checksum of 8 MiB",
        command: "dd if=/dev/zero bs=1M count=8 2>/dev/null | sha256sum",
        judge: checksum,
    },
];

/// What `sha256sum` must find in 8 MiB of zeros.
static CHECKSUM: LazyLock<Sha256> = LazyLock::new(|| sha256(&vec![0; 8 << 20]));

fn processors(guest: &Guest, text: &str) -> Result<(), String> {
    let count = text.lines().filter(|line| line.starts_with("processor")).count();
    equal("processors", count, guest.cpus)
}

fn command_line(guest: &Guest, text: &str) -> Result<(), String> {
    equal("the command line", text.trim(), guest.bootargs.trim())
}

fn checksum(_: &Guest, text: &str) -> Result<(), String> {
    let found = text.split_whitespace().next().unwrap_or_default();
    equal("the checksum", found, CHECKSUM.to_string().as_str())
}

/// What a guest of ours says of itself when it is ready, behind the words that are awaited.
///
/// # Errors
/// What differs.
pub fn greeting(guest: &Guest, text: &str) -> Result<(), String> {
    equal("the greeting", text.trim(), format!("{} {} cpus", guest.host_name(), guest.cpus).as_str())
}

fn equal<T: PartialEq + std::fmt::Display>(what: &str, found: T, wanted: T) -> Result<(), String> {
    if found == wanted { Ok(()) } else { Err(format!("{what}: {wanted} is right, not {found}")) }
}

/// A row of the hypervisor's overview of partitions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// `running`, `stopped`, ...
    pub state: String,
    /// Number of its CPUs.
    pub vcpus: usize,
}

/// The row of a guest in the output of the hypervisor's `info`: number, label, state, CPUs.
pub fn row(guest: &Guest, text: &str) -> Option<Row> {
    text.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [number, name @ .., state, vcpus] = words.as_slice() else {
            return None;
        };
        number.parse::<u32>().ok()?;
        let named = name.join(" ") == guest.label.split_whitespace().collect::<Vec<_>>().join(" ");
        named.then_some(Row { state: (*state).to_owned(), vcpus: vcpus.parse().ok()? })
    })
}

/// Compares the overview with the states that the guests must have.
///
/// # Errors
/// The first that differs.
pub fn overview<'g>(text: &str, wanted: impl IntoIterator<Item = (&'g Guest, &'static str)>) -> Result<(), String> {
    wanted.into_iter().try_for_each(|(guest, state)| {
        let row = row(guest, text).ok_or_else(|| format!("{} is not in the hypervisor's overview", guest.label))?;
        equal(&format!("{}: the state", guest.label), row.state.as_str(), state)?;
        equal(&format!("{}: CPUs", guest.label), row.vcpus, guest.cpus)
    })
}

/// Looks for every line that loading the partitions must print, in whatever order and behind whatever prompt.
///
/// # Errors
/// The first that is missing.
pub fn said(lines: &[String], text: &str) -> Result<(), String> {
    let there: Vec<&str> = text.lines().map(str::trim_end).collect();
    let missing = lines.iter().find(|line| !there.iter().any(|said| said.ends_with(line.as_str())));
    missing.map_or(Ok(()), |line| Err(format!("it has not said `{line}`")))
}

/// Compares the hash that the hypervisor has computed of an image's bytes in memory with that of the manifest:
/// in every line that reports its loading, and in at least one.
///
/// # Errors
/// What differs, or is missing.
pub fn loaded(guest: &Guest, image: &GuestImage, text: &str) -> Result<(), String> {
    let head = format!("{}: {} at {}: ", guest.label, image.role, image.load);
    let mut reports = text.lines().filter_map(|line| Some(line.split_once(&head)?.1)).peekable();
    if reports.peek().is_none() {
        return Err(format!("the hypervisor has not reported that it loaded `{}...`", head.trim_end()));
    }
    reports.try_for_each(|report| {
        let hash = report.split_once("sha256 ").map_or("", |(_, rest)| rest);
        let hash = hash.split(|c: char| !c.is_ascii_hexdigit()).next().unwrap_or_default();
        let what = format!("{}: SHA-256 of {} at {}", guest.label, image.part, image.load);
        equal(&what, hash, image.sha256.to_string().as_str())
    })
}

/// The diagnostic for what `who` got wrong.
pub fn wrong(who: &str, why: &str) -> Diagnostic {
    Diagnostic::error(WRONG_ANSWER, format!("{who} gives a wrong answer: {why}"))
        .help("the transcript of its console has the whole answer; what is right follows from the bundle's profile and manifest")
}

#[cfg(test)]
mod tests {
    use citrine_formats::addr::TruePhys;
    use citrine_formats::manifest::Role;

    use super::*;
    use crate::blessed;
    use crate::report::{Width, to_text};

    fn guest() -> Guest {
        Guest {
            name: "p1".to_owned(),
            label: "p1-linux".to_owned(),
            channel: 1,
            cpus: 7,
            bootargs: "console=ttyEHV0 root=/dev/ram0 rw".to_owned(),
            images: Vec::new(),
            has_shell: true,
        }
    }

    #[test]
    fn a_guest_with_a_cpu_too_few_is_a_diagnostic() {
        let case = "tests/bad/Q203-six-of-seven-cpus";
        let text = std::fs::read_to_string(blessed::root().join(case).join("cpuinfo.txt")).unwrap();
        let why = processors(&guest(), &text).unwrap_err();
        let error = wrong("p1-linux", &why);
        let told = format!("{}\n", to_text(&error, &Default::default(), Width::Plain));
        assert_eq!(blessed::compare(&format!("{case}/expected.txt"), &told), None);
        assert_eq!(processors(&Guest { cpus: 6, ..guest() }, &text), Ok(()));
    }

    #[test]
    fn answers_are_compared_whole() {
        assert_eq!(command_line(&guest(), "console=ttyEHV0 root=/dev/ram0 rw\r\n"), Ok(()));
        assert!(command_line(&guest(), "console=ttyEHV0 root=/dev/ram0 rw quiet\r\n").is_err());
        // Computed by another program: head -c 8388608 /dev/zero | sha256sum
        let right = "2daeb1f36095b44b318410b3f4e8b5d989dcc7bb023d1426c492dab0a3053e74  -\r\n";
        assert_eq!(checksum(&guest(), right), Ok(()));
        assert!(checksum(&guest(), &right.replacen('2', "3", 1)).is_err());
        assert!(checksum(&guest(), "").is_err());
        assert_eq!(greeting(&guest(), "p1-linux 7 cpus\r\n"), Ok(()));
        assert!(greeting(&guest(), "p1-linux 6 cpus\r\n").unwrap_err().contains("7 cpus is right"));
        assert!(greeting(&guest(), "p2-linux 7 cpus\r\n").is_err());
    }

    #[test]
    fn the_overview_has_every_partition_with_its_state() {
        let text = "info\r\nPartition   Name        State         Vcpus\r\n\
            -------------------------------------------\r\n\
            1           p1-linux\trunning         7\r\n2           p2 linux\tstopped         1\r\n\r\n";
        let second = Guest { label: "p2 linux".to_owned(), cpus: 1, ..guest() };
        assert_eq!(row(&second, text), Some(Row { state: "stopped".to_owned(), vcpus: 1 }));
        assert_eq!(overview(text, [(&guest(), "running"), (&second, "stopped")]), Ok(()));
        assert!(overview(text, [(&second, "running")]).unwrap_err().contains("running is right, not stopped"));
        assert!(overview(text, [(&Guest { cpus: 6, ..guest() }, "running")]).unwrap_err().contains("CPUs"));
        let third = Guest { label: "p3".to_owned(), ..guest() };
        assert!(overview(text, [(&third, "running")]).unwrap_err().contains("not in the hypervisor's overview"));
    }

    #[test]
    fn lines_are_looked_for_in_any_order() {
        let lines = ["p1: loaded, entry 0x0".to_owned(), "p2: loaded, entry 0x0".to_owned()];
        assert_eq!(said(&lines, "HV> p2: loaded, entry 0x0\r\np1: loaded, entry 0x0\r\n"), Ok(()));
        assert!(
            said(&lines, "p1: loaded, entry 0x0\r\np2: loaded, entry 0x00\r\n").unwrap_err().contains("p2: loaded")
        );
    }

    #[test]
    fn every_report_of_loading_must_have_the_manifests_hash() {
        let image = GuestImage {
            role: Role::Kernel,
            load: TruePhys(0x7802_0000),
            part: "kernel.uImage".to_owned(),
            sha256: sha256(b"kernel"),
        };
        let line = |hash: Sha256| {
            format!(
                "HV> p1-linux: kernel at 0x78020000: uImage kernel gzip, 6 bytes, CRC ok, sha256 {hash}, digest ok\r\n"
            )
        };
        let right = line(image.sha256);
        assert_eq!(loaded(&guest(), &image, &right), Ok(()));
        assert_eq!(loaded(&guest(), &image, &[&right[..], &right].concat()), Ok(()));
        assert!(loaded(&guest(), &image, "").unwrap_err().contains("not reported"));
        assert!(loaded(&guest(), &image, &right.replace("kernel at", "rootfs at")).is_err());
        assert!(loaded(&guest(), &image, &right.replace("sha256 ", "")).is_err());
        let wrong = [right, line(sha256(b"other"))].concat();
        assert!(loaded(&guest(), &image, &wrong).unwrap_err().contains("is right, not"));
    }
}
