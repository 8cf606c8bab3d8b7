//! The commands: their names, what they take, and what they do.

use citrine_formats::addr::GuestPhys;

use super::{Job, print};
use crate::handles;
use crate::hypervisor::Hypervisor;
use crate::hypervisor::partition::{Requester, Start};
use crate::report::VERSION;

/// Bytes that `guestmem` prints when it is not told how many, and at most.
const DUMP_LEN: u64 = 256;
const MAX_DUMP_LEN: u64 = 1 << 20;

/// A command.
struct Command {
    name: &'static str,
    alias: Option<&'static str>,
    short: &'static str,
    /// How it is used.
    usage: &'static str,
    run: Run,
}

/// `None` when it was not used as it should.
type Run = fn(&mut Hypervisor<'_>, &mut Words<'_>) -> Option<Job>;

const fn command(
    name: &'static str,
    alias: Option<&'static str>,
    short: &'static str,
    usage: &'static str,
    run: Run,
) -> Command {
    Command { name, alias, short, usage, run }
}

const COMMANDS: &[Command] = &[
    command("gdt", None, "Guest device tree operations", "gdt print <partition-spec>", gdt),
    command("guestmem", Some("gm"), "Dump guest memory", "guestmem <partition-spec> <addr> [len]", guestmem),
    command("help", Some("?"), "Print command usage information", "help [command]", help),
    command("info", None, "List partitions and show their status", "info", info),
    command("log", None, "Print what the hypervisor has reported", "log", log),
    command("restart", None, "Re-start a running partition", "restart <partition-spec>", restart),
    command("start", None, "Start a stopped partition", "start [load] <partition-spec>", start),
    command("stop", None, "Stop a running partition", "stop <partition-spec>", stop),
    command("version", None, "Print the hypervisor version", "version", version),
];

impl Command {
    fn find(name: &str) -> Option<&'static Self> {
        COMMANDS.iter().find(|command| command.name == name || command.alias == Some(name))
    }
}

/// Runs a line, and returns what is left to do.
pub(super) fn run(line: &str, hv: &mut Hypervisor<'_>) -> Job {
    if !line.matches('"').count().is_multiple_of(2) {
        print(hv, format_args!("Missing end quote\n"));
        return Job::Prompt;
    }
    let mut words = Words(line);
    let Some(name) = words.next() else { return Job::Prompt };
    let Some(command) = Command::find(name) else {
        print(hv, format_args!("Unknown command '{name}'.\n"));
        return Job::Prompt;
    };
    (command.run)(hv, &mut words).unwrap_or_else(|| {
        print(hv, format_args!("Usage: {}\n", command.usage));
        Job::Prompt
    })
}

/// The words of a line; a word in double quotes can have blanks. Quotes come in pairs.
struct Words<'l>(&'l str);

impl<'l> Iterator for Words<'l> {
    type Item = &'l str;

    fn next(&mut self) -> Option<&'l str> {
        let line = self.0.trim_start_matches(' ');
        let (word, rest) = match line.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None if line.is_empty() => return None,
            None => line.split_once(' ').unwrap_or((line, "")),
        };
        self.0 = rest;
        Some(word)
    }
}

/// A number as C writes it, or with 0b in binary.
pub(super) fn number(text: &str) -> Option<u64> {
    let prefixes = [(["0x", "0X"], 16), (["0b", "0B"], 2)];
    let prefixed = prefixes.into_iter().find_map(|([lower, upper], radix)| {
        let digits = text.strip_prefix(lower).or_else(|| text.strip_prefix(upper))?;
        Some((digits, radix))
    });
    let (digits, radix) = prefixed.unwrap_or((text, if text.starts_with('0') { 8 } else { 10 }));
    u64::from_str_radix(digits, radix).ok().filter(|_| !digits.starts_with('+'))
}

/// The partition with this number, as `info` prints it, or with this label.
fn find(hv: &Hypervisor<'_>, spec: &str) -> Option<usize> {
    let count = hv.partitions().count();
    let by_number = number(spec).and_then(|number| handles::partition_index(u32::try_from(number).ok()?));
    let by_number = by_number.and_then(|index| usize::try_from(index).ok()).filter(|index| *index < count);
    by_number.or_else(|| hv.partitions().position(|partition| partition.name == spec))
}

/// The partition that the next word names; says so when it does not exist.
fn partition(hv: &mut Hypervisor<'_>, spec: &str) -> Option<usize> {
    let found = find(hv, spec);
    if found.is_none() {
        print(hv, format_args!("Partition '{spec}' does not exist.\n"));
    }
    found
}

fn help(hv: &mut Hypervisor<'_>, words: &mut Words<'_>) -> Option<Job> {
    if let Some(name) = words.next() {
        match Command::find(name) {
            Some(Command { name, short, usage, .. }) => print(hv, format_args!("{name} - {short}\n{usage}\n")),
            None => print(hv, format_args!("help: unknown command '{name}'.\n")),
        }
        return Some(Job::Prompt);
    }
    print(hv, format_args!("Commands:\n"));
    for Command { name, alias, short, .. } in COMMANDS {
        match alias {
            Some(alias) => print(hv, format_args!("  {name} ({alias}) - {short}\n")),
            None => print(hv, format_args!("  {name} - {short}\n")),
        }
    }
    Some(Job::Prompt)
}

fn version(hv: &mut Hypervisor<'_>, _: &mut Words<'_>) -> Option<Job> {
    print(hv, format_args!("Citrine hypervisor version {VERSION}\n"));
    Some(Job::Prompt)
}

fn info(hv: &mut Hypervisor<'_>, _: &mut Words<'_>) -> Option<Job> {
    print(hv, format_args!("Partition   Name        State         Vcpus\n{:-<43}\n", ""));
    for index in 0..hv.partitions().count() {
        let Some(partition) = hv.partitions().nth(index) else { break };
        let number = handles::partition(index as u32);
        print(hv, format_args!("{number:<11} {}\t{}{:>10}\n", partition.name, partition.state, partition.vcpus));
    }
    Some(Job::Prompt)
}

fn log(hv: &mut Hypervisor<'_>, _: &mut Words<'_>) -> Option<Job> {
    Some(Job::Log { at: hv.log_first(), end: hv.log_end() })
}

fn start(hv: &mut Hypervisor<'_>, words: &mut Words<'_>) -> Option<Job> {
    let first = words.next()?;
    // A partition may be called "load".
    let (load, spec) = match words.next() {
        Some(second) if first == "load" => (true, second),
        Some(_) => return None,
        None => (false, first),
    };
    if let Some(partition) = partition(hv, spec) {
        let done = if load { hv.start(partition, Start::Images) } else { hv.start_again(partition) };
        if done.is_err() {
            print(hv, format_args!("Couldn't start partition.\n"));
        }
    }
    Some(Job::Prompt)
}

fn stop(hv: &mut Hypervisor<'_>, words: &mut Words<'_>) -> Option<Job> {
    if let Some(partition) = partition(hv, words.next()?)
        && hv.stop(partition, Requester::Shell).is_err()
    {
        print(hv, format_args!("Couldn't stop partition.\n"));
    }
    Some(Job::Prompt)
}

fn restart(hv: &mut Hypervisor<'_>, words: &mut Words<'_>) -> Option<Job> {
    if let Some(partition) = partition(hv, words.next()?)
        && hv.restart(partition, Requester::Shell).is_err()
    {
        print(hv, format_args!("Couldn't restart partition.\n"));
    }
    Some(Job::Prompt)
}

fn gdt(hv: &mut Hypervisor<'_>, words: &mut Words<'_>) -> Option<Job> {
    if words.next()? != "print" {
        return None;
    }
    let Some(partition) = partition(hv, words.next()?) else { return Some(Job::Prompt) };
    let name = hv.partitions().nth(partition).map_or("", |partition| partition.name);
    print(hv, format_args!("Partition {}: {name}\n", handles::partition(partition as u32)));
    Some(Job::Tree { partition, done: 0 })
}

fn guestmem(hv: &mut Hypervisor<'_>, words: &mut Words<'_>) -> Option<Job> {
    let (spec, at, len) = (words.next()?, words.next()?, words.next());
    let at = number(at)?;
    let Some(partition) = find(hv, spec) else {
        print(hv, format_args!("Invalid guest specified\n"));
        return Some(Job::Prompt);
    };
    let len = len.map_or(Some(DUMP_LEN), number).filter(|len| (1..=MAX_DUMP_LEN).contains(len));
    let Some(len) = len.and_then(|len| usize::try_from(len).ok()) else {
        print(hv, format_args!("Invalid length\n"));
        return Some(Job::Prompt);
    };
    Some(Job::Memory { partition, at: GuestPhys(at), len })
}
