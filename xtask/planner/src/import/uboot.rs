//! U-Boot commands as people type or print them: where each part is loaded, and what the hypervisor is told.
//!
//! Lines that are no such command are passed over: a log and a document have many.

use std::ops::Range;

use citrine_formats::addr::Hex;

use super::judge::partitions;
use crate::diag::{Code, Diagnostic, Label};
use crate::dts::{Property, Tree};
use crate::rules::loader::{BOOTARGS_TOO_LONG, MAX_BOOTARGS};

/// The boot arguments do not say where the configuration tree is, or say it wrong.
pub const CONFIG_ADDR: Code = Code::new('S', 131);
/// A boot argument is torn by a blank.
pub const TORN_ARGUMENT: Code = Code::new('S', 132);
/// Something is read from an address where nothing is loaded.
pub const NOT_LOADED: Code = Code::new('S', 133);

/// Something that is loaded.
#[derive(Clone, Debug)]
pub(super) struct Loaded {
    /// What it is called.
    pub(super) name: String,
    /// Where it is.
    pub(super) at: u64,
    /// The place that says so.
    pub(super) label: Option<Label>,
}

/// What the commands do.
#[derive(Default)]
pub(super) struct Commands {
    /// The files that are loaded.
    pub(super) loaded: Vec<Loaded>,
    /// `bootargs`, with its place.
    pub(super) bootargs: Option<(String, Range<usize>)>,
    /// The addresses that `bootm` is given, with their place: hypervisor and hardware tree.
    bootm: Option<(Vec<Option<u64>>, Range<usize>)>,
}

impl Commands {
    /// Reads the text of `file`.
    pub(super) fn read(file: &str, text: &str) -> Self {
        let mut commands = Self::default();
        let mut start = 0;
        for line in text.split_inclusive('\n') {
            let at = start;
            start += line.len();
            let command = line.trim_end();
            let command = command.trim_start();
            let indent = line.trim_end().len() - command.len();
            let typed = command.strip_prefix("=>").or_else(|| command.strip_prefix("U-Boot>")).unwrap_or(command);
            let range = at + indent..at + indent + command.len();
            // Several commands may share a line, but `;` may also stand in what `setenv` is given.
            for part in typed.split(';') {
                commands.line(file, part.trim(), &range);
            }
        }
        commands
    }

    fn line(&mut self, file: &str, line: &str, range: &Range<usize>) {
        let (verb, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        let rest = rest.trim();
        match verb {
            "tftp" | "tftpboot" => {
                let mut words = rest.split_whitespace();
                let (Some(at), Some(name)) = (words.next().and_then(address), words.next()) else { return };
                let label = Some(Label::at(file, range.clone(), "loaded here"));
                self.loaded.push(Loaded { name: name.to_owned(), at, label });
            }
            "setenv" => {
                if let Some(arguments) = rest.strip_prefix("bootargs") {
                    let arguments = arguments.trim().trim_matches(['\'', '"']);
                    self.bootargs = Some((arguments.to_owned(), range.clone()));
                }
            }
            "bootm" => self.bootm = Some((rest.split_whitespace().take(3).map(address).collect(), range.clone())),
            _ => {}
        }
    }

    /// What follows `config-addr=` among the boot arguments.
    pub(super) fn other_bootargs(&self) -> Option<String> {
        let (arguments, _) = self.bootargs.as_ref()?;
        let others = arguments.split_whitespace().filter(|word| !word.starts_with("config-addr="));
        Some(others.collect::<Vec<_>>().join(" ").replace("= ", "="))
    }

    /// What is wrong with the commands alone, and with the tree that they load images for.
    pub(super) fn judge(&self, file: &str, tree: (&str, &Tree)) -> Vec<Diagnostic> {
        let mut found = Vec::new();
        self.bootargs(file, &mut found);
        let whole = Label::file(file, "these commands");
        if let Some((addresses, range)) = &self.bootm {
            for (index, what) in [(0, "the hypervisor"), (2, "the hardware tree")] {
                let Some(Some(at)) = addresses.get(index) else { continue };
                if !self.is_loaded(*at) {
                    let message = format!("`bootm` takes {what} from {}, where nothing is loaded", Hex(*at));
                    let label = Label::at(file, range.clone(), "taken from there");
                    found.push(Diagnostic::error(NOT_LOADED, message).primary(label).help(self.help()));
                }
            }
        }
        let (tree_file, tree) = tree;
        let mut said = Vec::new();
        for node in partitions(&tree.root) {
            for property in ["guest-image", "linux-rootfs"].iter().filter_map(|name| node.property(name)) {
                let Some(&[high, low, ..]) = property.numbers().as_deref().filter(|cells| cells.len() == 6) else {
                    continue;
                };
                let at = u64::from(high) << 32 | u64::from(low);
                if !self.is_loaded(at) && !self.loaded.is_empty() && !said.contains(&at) {
                    said.push(at);
                    found.push(not_loaded(tree_file, property, at).related(whole.clone()).help(self.help()));
                }
            }
        }
        found
    }

    fn is_loaded(&self, at: u64) -> bool {
        self.loaded.iter().any(|part| part.at == at)
    }

    fn help(&self) -> String {
        let parts: Vec<String> = self.loaded.iter().map(|part| format!("{} at {}", part.name, Hex(part.at))).collect();
        format!("loaded: {}", parts.join(", "))
    }

    fn bootargs(&self, file: &str, found: &mut Vec<Diagnostic>) {
        let Some((arguments, range)) = &self.bootargs else {
            if self.bootm.is_some() {
                let message = "the hypervisor is not told where its configuration tree is";
                let diagnostic = Diagnostic::error(CONFIG_ADDR, message).primary(Label::file(file, "these commands"));
                found.push(diagnostic.help("setenv bootargs config-addr=ADDRESS, with the address of hv.dtb"));
            }
            return;
        };
        let label = |text: &str| Label::at(file, range.clone(), text);
        let mut words = arguments.split_whitespace().peekable();
        while let Some(word) = words.next() {
            if let (Some(name), Some(next)) = (word.strip_suffix('='), words.peek()) {
                let message = format!("`{name}=` is followed by a blank: `{next}` is an argument of its own");
                let diagnostic =
                    Diagnostic::error(TORN_ARGUMENT, message.escape_debug().to_string()).primary(label("this blank"));
                found.push(diagnostic.help(format!("write {name}={next}").escape_debug().to_string()));
            }
        }
        if arguments.len() > MAX_BOOTARGS {
            let message = format!("the hypervisor's boot arguments have {} characters", arguments.len());
            let diagnostic = Diagnostic::error(BOOTARGS_TOO_LONG, message).primary(label("these arguments"));
            found.push(diagnostic.help(format!("at most {MAX_BOOTARGS} fit")));
        }
        let given = arguments.split_whitespace().find_map(|word| word.strip_prefix("config-addr="));
        match given.map(number) {
            None => {
                let message = "the boot arguments do not say where the configuration tree is";
                let diagnostic = Diagnostic::error(CONFIG_ADDR, message).primary(label("`config-addr=` is missing"));
                found.push(diagnostic.help("add config-addr=ADDRESS, with the address of hv.dtb"));
            }
            Some(None) => {
                let message = "`config-addr` is no number";
                let diagnostic = Diagnostic::error(CONFIG_ADDR, message).primary(label("here"));
                found.push(diagnostic.help("the hypervisor reads it as C does: hexadecimal numbers begin with 0x"));
            }
            Some(Some(at)) if !self.is_loaded(at) && !self.loaded.is_empty() => {
                let message = format!("`config-addr` is {}, where nothing is loaded", Hex(at));
                let diagnostic = Diagnostic::error(CONFIG_ADDR, message).primary(label("read from there"));
                found.push(diagnostic.help(self.help()));
            }
            Some(Some(_)) => {}
        }
    }
}

fn not_loaded(file: &str, property: &Property, at: u64) -> Diagnostic {
    let message = format!("`{}` is read from {}, where nothing is loaded", property.name, Hex(at));
    let label = match property.range.is_empty() {
        true => Label::file(file, "read from there"),
        false => Label::at(file, property.range.clone(), "read from there"),
    };
    Diagnostic::error(NOT_LOADED, message).primary(label)
}

/// A number of U-Boot's: hexadecimal, with or without a prefix.
fn address(word: &str) -> Option<u64> {
    u64::from_str_radix(word.strip_prefix("0x").unwrap_or(word), 16).ok()
}

/// A number of the hypervisor's: as in C.
fn number(word: &str) -> Option<u64> {
    match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => word.parse().ok(),
    }
}
