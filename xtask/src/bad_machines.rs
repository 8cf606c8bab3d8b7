//! `tests/bad/T*`: the smallest machine, cache, pin or recipe that breaks each rule of the T family, and
//! exactly what the tool says of it.
//!
//! A directory holds what the rule reads: `status` (of dpkg), `command.txt` (for the shell), `lock.toml`,
//! `sources.list`, a cache entry, a configuration, a kernel, a skeleton. `expected.txt` is the answer.

use std::path::{Path, PathBuf};
use std::time::Duration;

use citrine_planner::diag::{Diagnostic, Result};
use citrine_planner::verify::keys::TrustedKeys;
use xshell::cmd;

use crate::build::lock::Lock;
use crate::build::{debian, image, kconfig, other_versions, skeleton};
use crate::cache::remote::Remote;
use crate::cache::{Cache, StageId};
use crate::progress::Progress;
use crate::tools::{self, Installed, capture, shell_in};
use crate::{progress, setup};

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn text(dir: &Path, file: &str) -> String {
    std::fs::read_to_string(dir.join(file)).unwrap_or_else(|error| panic!("{}: {file}: {error}", dir.display()))
}

/// What the tool says of the case in `dir`; `scratch` is an empty directory.
fn say(code: &str, dir: &Path, scratch: &Path) -> Result<()> {
    let lock = Lock::read(&project()).unwrap();
    let quiet = Progress::hidden(|_| {});
    let shell = shell_in(scratch).unwrap();
    let id = StageId::new("test", 1, &[]);
    let entry_dir = |cache: &Cache| {
        let entry = cache.stage(&id, "test", Duration::ZERO, &quiet, |_, _| Ok(())).unwrap();
        entry.dir
    };
    match code {
        "T101" => {
            setup::check(&[setup::Need::Bundle, setup::Need::Sources], &Installed::parse(&text(dir, "status")), scratch)
        }
        "T102" => {
            let script = text(dir, "command.txt");
            capture(cmd!(shell, "sh -c {script}")).map_err(setup::failed).map(drop)
        }
        "T103" => {
            let program = text(dir, "command.txt");
            let program = program.trim();
            capture(cmd!(shell, "{program}")).map(drop)
        }
        "T201" => Cache::open(dir.join("cache"), false).map(drop),
        "T202" | "T501" => {
            let script = text(dir, "command.txt");
            tools::run(tools::clean(cmd!(shell, "sh -c {script}")), &scratch.join("stage.log"))
        }
        "T203" => {
            let cache = Cache::open(scratch.into(), false).unwrap();
            let entry = entry_dir(&cache);
            for file in ["entry.json", "file"] {
                std::fs::copy(dir.join(file), entry.join(file)).unwrap();
            }
            let said = std::cell::RefCell::new(Ok(()));
            let listener = Progress::hidden(|notice| *said.borrow_mut() = Err(notice.clone().into()));
            assert!(cache.find(&id, &listener).unwrap().is_none());
            drop(listener);
            said.into_inner()
        }
        "T204" => {
            let cache = Cache::open(scratch.into(), text(dir, "arguments.txt").trim() == "--offline").unwrap();
            cache.stage(&id, "linux kernel", Duration::ZERO, &quiet, |_, _| Ok(())).map(drop)
        }
        "T205" | "T206" => {
            let keys = std::fs::read_to_string(dir.join("allowed_signers"));
            let keys = keys.unwrap_or_else(|_| text(&project().join("tests/bad/T206-unsigned"), "allowed_signers"));
            let keys = TrustedKeys::parse_for("citrine-cache", &keys).unwrap();
            let address = std::fs::read_to_string(dir.join("address.txt"));
            let address = address.unwrap_or_else(|_| "registry.example/cache".to_owned());
            let remote = Remote::new(address.trim(), keys, Box::new(|_| Ok(String::new())))?;
            remote.believed(text(dir, "manifest.json").as_bytes(), "linux-0123").map(drop)
        }
        "T301" => Lock::parse(&text(dir, "lock.toml")).map(drop),
        "T302" => {
            let found = other_versions(&lock, &Installed::parse(&text(dir, "status")), true);
            found
                .into_iter()
                .find(|diagnostic| !diagnostic.message.starts_with("rustc"))
                .map_or(Ok(()), |d| Err(d.into()))
        }
        "T401" => {
            let configured = [("sources.list".to_string(), text(dir, "sources.list"))];
            debian::archives(&configured, "bookworm").map(drop)
        }
        "T402" => {
            let mut pin = lock.source("busybox").unwrap().clone();
            pin.files.retain(|file| dir.join(&file.name).exists());
            let mut files = debian::files_of(dir).unwrap();
            files.retain(|file| file.name != "expected.txt");
            debian::same_bytes(&pin, &files)
        }
        "T502" => kconfig::check("fragment.config", &text(dir, "fragment.config"), &dir.join("dot.config")),
        "T503" => image::flatten("vmlinux", text(dir, "vmlinux").as_bytes()).map(drop),
        "T504" => skeleton(dir).map(drop),
        "T601" => progress::check(text(dir, "signal.txt").trim() == "SIGINT"),
        other => panic!("no one knows how to run {other}"),
    }
}

fn printed(diagnostic: &Diagnostic, dir: &Path, scratch: &Path) -> String {
    let mut lines = vec![format!("{}: {}: {}", diagnostic.severity, diagnostic.code, diagnostic.message)];
    let places = diagnostic.primary.iter().chain(&diagnostic.related);
    lines.extend(places.map(|label| format!("{}: {}", label.file, label.text)));
    lines.extend(diagnostic.help.iter().map(|help| format!("help: {help}")));
    let text = lines.join("\n") + "\n";
    text.replace(&dir.display().to_string(), "CASE").replace(&scratch.display().to_string(), "SCRATCH")
}

#[test]
fn every_bad_machine_says_what_is_expected() {
    let mut seen = 0;
    for entry in std::fs::read_dir(project().join("tests/bad")).unwrap() {
        let dir = entry.unwrap().path();
        let name = dir.file_name().unwrap().to_str().unwrap().to_string();
        let Some((code, _)) = name.split_once('-').filter(|(code, _)| code.starts_with('T')) else { continue };
        let scratch = tempfile::tempdir().unwrap();
        let diagnostic = say(code, &dir, scratch.path()).expect_err(&name);
        assert_eq!(diagnostic.code.to_string(), code, "{name}: {diagnostic:?}");
        let said = printed(&diagnostic, &dir, scratch.path());
        let expected = dir.join("expected.txt");
        if std::env::var_os("CITRINE_BLESS").is_some() {
            std::fs::write(&expected, &said).unwrap();
        }
        assert_eq!(said, text(&dir, "expected.txt"), "{name}");
        let page = project().join(format!("docs/diagnostics/{code}.md"));
        assert!(text(&project(), page.to_str().unwrap()).starts_with(&format!("# {code}: ")), "{name}");
        seen += 1;
    }
    assert!(seen >= 16, "{seen} cases");
}
