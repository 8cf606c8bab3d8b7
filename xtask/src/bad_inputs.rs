//! `tests/bad/`: the smallest input that breaks each rule, and exactly what the tool says of it.
//!
//! A directory `<CODE>-<slug>` holds what differs from the good input: any of `board.toml`, `devices.toml`, `profile.toml`,
//! `images.toml` (facts of images by artifact or part name), `kernel.uImage`, `rootfs.uImage`,
//! `hv.uImage` (real bytes), the templates, or `hv.dts` (a tree of another's making, compiled and judged
//! alone), or `tree.dts` (a tree that is imported, with the U-Boot commands of `uboot.txt`), or `hardware.dtb` (a hardware
//! tree of the user's own). `topaz.txt` and `citrine.txt` stand for a bundle with this hypervisor, `no-devices.txt` for
//! a board without inventory.
//! With `flash.txt` the parts lie in the flash; its lines are the parts of an installed bundle: name, address, size.
//! `arguments.txt` names a board and a profile that are looked up; `dtc.txt` a device tree compiler.

use std::collections::BTreeMap;
use std::path::PathBuf;

use citrine_core::capabilities::Capabilities;
use citrine_formats::addr::TruePhys;
use citrine_formats::manifest::Role;
use citrine_planner::board::Board;
use citrine_planner::diag::{Diagnostic, Severity, has_errors};
use citrine_planner::flash::{Placed, is_in_second};
use citrine_planner::image::{ImageFacts, inspect};
use citrine_planner::import::{self, For, UBoot};
use citrine_planner::pack::sha256;
use citrine_planner::place::{Artifacts, Second, place, place_in_flash};
use citrine_planner::plan::LoadPlan;
use citrine_planner::render::{Digests, Template, boot_cmd, hv_dts};
use citrine_planner::rules::{RULES, check_with};
use citrine_planner::{input, rules};

use crate::blessed::{compare, directories, root};
use crate::dtc::{Source, compile_with};
use crate::project::Project;
use crate::report::{Ui, Width, to_json, to_text};

/// The families of codes whose cases are run here; the others' cases stand beside their own code.
const FAMILIES: [&str; 13] = ["C", "D", "H", "I", "K102", "K103", "K107", "L", "N", "P", "R", "S", "U"];

/// One directory of `tests/bad/`, and the texts that were read for it.
struct Case {
    name: String,
    sources: BTreeMap<String, String>,
}

impl Case {
    fn path(&self, file: &str) -> PathBuf {
        root().join("tests/bad").join(&self.name).join(file)
    }

    fn has(&self, file: &str) -> bool {
        self.path(file).is_file()
    }

    /// The case's own `file`, or else `default`: its name from the root, and its text.
    fn text(&mut self, file: &str, default: &str) -> (String, String) {
        let name = if self.has(file) { format!("tests/bad/{}/{file}", self.name) } else { default.to_owned() };
        let text = std::fs::read_to_string(root().join(&name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        self.sources.insert(name.clone(), text.clone());
        (name, text)
    }

    /// Everything that the tool finds, as `check`, `render` and the build would find it one after the other.
    fn run(&mut self) -> Vec<Diagnostic> {
        let (plan, mut found) = match self.plan() {
            Ok(planned) => planned,
            Err(refused) => return refused,
        };
        found.extend(self.beside_installed(&plan));
        found.extend(rules::check(&plan));

        let (file, text) = self.text("boot.cmd.j2", "templates/boot.cmd.j2");
        found.extend(boot_cmd(&plan, &Template { file: &file, text: &text }).err().map(|error| *error));
        let (file, text) = self.text("hv.dts.j2", "templates/hv.dts.j2");
        match hv_dts(&plan, &Digests::new(), &Template { file: &file, text: &text }) {
            Err(error) => found.push(*error),
            // What `check` accepts, the hypervisor accepts: its warnings the rules have said already.
            Ok(dts) if !has_errors(&found) => {
                let said = self.compile(&file, &text, &dts, &plan.board);
                found.extend(said.into_iter().filter(|d| d.severity == Severity::Error));
            }
            Ok(_) => {}
        }
        found
    }

    /// The plan that the rules judge, with what was found before; or else everything that is wrong.
    fn plan(&mut self) -> Result<(LoadPlan, Vec<Diagnostic>), Vec<Diagnostic>> {
        if self.has("arguments.txt") {
            return Err(self.look_up());
        }
        let (file, text) = self.text("board.toml", "boards/p4080ds.toml");
        let (mut board, mut found) = input::board::parse(&file, &text);
        if let (Some(board), false) = (&mut board, self.has("no-devices.txt")) {
            let (file, text) = self.text("devices.toml", "boards/devices/p4080ds.toml");
            found.extend(input::inventory::attach(board, &file, &text));
        }
        if let (Some(board), true) = (&mut board, self.has("hardware.dtb")) {
            let file = format!("tests/bad/{}/hardware.dtb", self.name);
            let bytes = std::fs::read(self.path("hardware.dtb")).expect("the file can be read");
            found.extend(input::inventory::attach_tree(board, &file, &bytes));
        }
        if let (Some(board), true) = (&board, self.has("hv.dts")) {
            let (file, text) = self.text("hv.dts", "");
            found.extend(self.compile(&file, &text, &format!("# 1 \"{file}\"\n{text}"), board));
            return Err(found);
        }
        if let (Some(board), true) = (&board, self.has("tree.dts")) {
            found.extend(self.import(board));
            return Err(found);
        }
        let (file, text) = self.text("profile.toml", "profiles/two-linux.toml");
        let (mut profile, more) = input::profile::parse(&file, &text);
        found.extend(more);
        if let Some(profile) = profile.as_mut().filter(|profile| profile.trust_file.is_some()) {
            let key = std::fs::read_to_string(self.path(profile.trust_file.as_deref().unwrap_or_default()));
            found.extend(input::trust::attach(profile, key.map_err(|error| error.to_string()), &|_| false));
        }
        let (artifacts, facts) = self.images(&mut found);
        let (Some(board), Some(profile), true) = (board, profile, found.is_empty()) else {
            return Err(found);
        };
        let mut plan = match self.has("flash.txt") {
            true => place_in_flash(&board, &profile, &artifacts, &Second::new())?,
            false => place(&board, &profile, &artifacts)?,
        };
        plan.facts.extend(facts);
        if self.has("citrine.txt") {
            plan.hypervisor = Capabilities::CITRINE;
        }
        if self.has("topaz.txt") {
            plan.hypervisor = Capabilities::TOPAZ;
        }
        Ok((plan, found))
    }

    /// Looks for a slot for every part whose size is known beside those of `flash.txt`.
    fn beside_installed(&self, plan: &LoadPlan) -> Vec<Diagnostic> {
        let text = std::fs::read_to_string(self.path("flash.txt")).unwrap_or_default();
        let placed = |name: &str, bytes: &[u8], role, at, size| Placed {
            name: name.to_owned(),
            role,
            at,
            size,
            sha256: sha256(bytes),
            crc32: Some(0),
        };
        let number = |text: &str| u64::from_str_radix(text, 16).expect("hexadecimal");
        let installed = text.lines().map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
            [name, at, size] => placed(name, b"old", Role::Kernel, TruePhys(number(at)), number(size)),
            _ => panic!("{}: flash.txt: name, address, size", self.name),
        });
        let installed: Vec<Placed> = installed.collect();
        let Some(nor) = plan.board.nor.as_ref().filter(|_| !installed.is_empty()) else { return Vec::new() };
        let slots = nor.slots.as_ref().expect("placement needs them, too");
        let parts = plan
            .parts
            .iter()
            .filter_map(|part| Some(placed(&part.file, b"new", part.role, part.load, plan.size_of(part)?)));
        parts.filter_map(|part| is_in_second(nor, slots, &installed, &part).err().map(|error| *error)).collect()
    }

    /// Compiles a tree and lets the hypervisor judge it.
    fn compile(&self, file: &str, text: &str, dts: &str, board: &Board) -> Vec<Diagnostic> {
        let program = std::fs::read_to_string(self.path("dtc.txt")).unwrap_or_else(|_| "dtc".to_owned());
        match compile_with(program.trim(), dts, Source { file, text }) {
            Err(found) => found,
            Ok(blob) => rules::tree::check(file, &blob, board),
        }
    }

    /// Everything that `import` finds.
    fn import(&mut self, board: &Board) -> Vec<Diagnostic> {
        let (file, text) = self.text("tree.dts", "");
        let commands = self.has("uboot.txt").then(|| self.text("uboot.txt", ""));
        let uboot = commands.as_ref().map(|(file, text)| UBoot { file, text });
        let read = import::read(&file, text.as_bytes());
        let mut found = read.found.clone();
        found.extend(import::judge(&read, board, uboot));
        let (file, text) = self.text("hv.dts.j2", "templates/hv.dts.j2");
        let template = Template { file: &file, text: &text };
        let artifacts = self.images(&mut found).0;
        let target = For { board, template: &template, artifacts: &artifacts };
        found.extend(import::profile(&read, target, uboot, "imported").1);
        found
    }

    /// The artifacts with what is known of them, and facts of other parts.
    fn images(&mut self, found: &mut Vec<Diagnostic>) -> (Artifacts, BTreeMap<String, ImageFacts>) {
        let mut facts: BTreeMap<String, ImageFacts> = BTreeMap::new();
        if self.has("images.toml") {
            let text = std::fs::read_to_string(self.path("images.toml")).expect("images.toml is text");
            facts = toml::from_str(&text).unwrap_or_else(|error| panic!("{}: images.toml: {error}", self.name));
        }
        for (file, role) in
            [("kernel.uImage", Role::Kernel), ("rootfs.uImage", Role::Rootfs), ("hv.uImage", Role::Hypervisor)]
        {
            let Ok(bytes) = std::fs::read(self.path(file)) else { continue };
            match inspect(&format!("tests/bad/{}/{file}", self.name), role, &bytes) {
                Ok(measured) => drop(facts.insert(file.to_owned(), measured)),
                Err(error) => found.push(*error),
            }
        }
        // The shipped artifacts, and a second of each kind for layouts that need one.
        let roles = [
            ("busybox", Role::Rootfs),
            ("busybox-b", Role::Rootfs),
            ("linux", Role::Kernel),
            ("linux-b", Role::Kernel),
        ];
        let artifacts = roles.map(|(name, role)| (name.to_owned(), (role, facts.remove(name))));
        (artifacts.into_iter().collect(), facts)
    }

    /// Looks up the board and the profile that `arguments.txt` names.
    fn look_up(&self) -> Vec<Diagnostic> {
        let arguments = std::fs::read_to_string(self.path("arguments.txt")).expect("arguments.txt is text");
        let (board, profile) = arguments.trim().split_once(' ').expect("a board and a profile");
        let project = Project::find().unwrap_or_else(|failure| panic!("{failure:?}"));
        match project.target(board, profile, &Ui::new(true)) {
            Ok(_) => Vec::new(),
            Err(failure) => failure.0,
        }
    }
}

fn is_run_here(name: &str) -> bool {
    FAMILIES.iter().any(|family| name.starts_with(family))
}

#[test]
fn every_bad_input_says_what_is_expected() {
    let mut complaints = Vec::new();
    let names = directories("tests/bad");
    for name in names.into_iter().filter(|name| is_run_here(name)) {
        let mut case = Case { name, sources: BTreeMap::new() };
        let found = case.run();
        let (code, slug) = case.name.split_once('-').expect("a directory is called CODE-slug");
        let is_own = |d: &&Diagnostic| d.code.to_string() == code;
        if !found.iter().any(|d| is_own(&d)) {
            complaints.push(format!("tests/bad/{}: nothing says {code}", case.name));
        }
        // The smallest input breaks one rule; the overview's own numbers break what they break.
        if !slug.contains("seed") && found.iter().any(|d| d.severity == Severity::Error && !is_own(&d)) {
            complaints.push(format!("tests/bad/{}: errors besides {code}", case.name));
        }
        let text: Vec<String> = found.iter().map(|d| to_text(d, &case.sources, Width::Plain) + "\n").collect();
        let json: Vec<String> = found.iter().map(|d| to_json(d, &case.sources).to_string() + "\n").collect();
        complaints.extend(compare(&format!("tests/bad/{}/expected.txt", case.name), &text.join("\n")));
        complaints.extend(compare(&format!("tests/bad/{}/expected.json", case.name), &json.concat()));
    }
    assert!(complaints.is_empty(), "{}\n", complaints.join("\n"));
}

#[test]
fn no_rule_can_be_left_out() {
    let names = directories("tests/bad").into_iter().filter(|name| is_run_here(name));
    let plans: Vec<LoadPlan> =
        names.filter_map(|name| Some(Case { name, sources: BTreeMap::new() }.plan().ok()?.0)).collect();
    let whole: Vec<Vec<Diagnostic>> = plans.iter().map(rules::check).collect();
    for (left_out, _) in &RULES {
        let rest = || RULES.iter().filter(|(name, _)| name != left_out).map(|(_, rule)| *rule);
        let differs = plans.iter().zip(&whole).any(|(plan, whole)| check_with(plan, rest()) != *whole);
        assert!(differs, "no bad input notices that the rule of {left_out} is gone");
    }
}
