//! `tests/bad/W*`: the smallest line or port that cannot be used, and exactly what the tool says of it.
//!
//! `arguments.txt` is the command line of `console`. In it `CASE` is the case's directory, `PTY` a terminal, `LOCKED`
//! one that another process has, `PORT` a port that somebody else has. In `error.txt` is the number of an error of the
//! system instead, for what cannot happen to root.

use std::path::Path;

use citrine_planner::diag::{Diagnostic, Result};

use super::line::{Target, cannot_open};
use super::server::{Server, Settings};
use super::stream::channels;
use super::tests::{serial_pair, settings};
use crate::blessed::{compare, directories, root};
use crate::cli::{Cli, Command, console::words};
use crate::report::{Width, to_text};

fn say(dir: &Path) -> (Result<()>, Vec<(String, &'static str)>) {
    if let Ok(number) = std::fs::read_to_string(dir.join("error.txt")) {
        let error = std::io::Error::from_raw_os_error(number.trim().parse().unwrap());
        return (Err(cannot_open(Path::new("/dev/ttyUSB0"), &error).into()), Vec::new());
    }
    let (_board, free) = serial_pair();
    let (_other, locked) = serial_pair();
    let target = Target::Serial { path: locked.clone(), baud: 9600, hand_shake: false };
    let _held = target.open().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let shown = [free.display().to_string(), locked.display().to_string(), dir.display().to_string()];
    let replaced: Vec<(String, &str)> =
        shown.into_iter().chain([port]).zip(["PTY", "LOCKED", "CASE", "PORT"]).collect();
    let mut line = std::fs::read_to_string(dir.join("arguments.txt")).unwrap();
    for (real, name) in &replaced {
        line = line.replace(name, real);
    }
    let all = ["xtask", "console"].into_iter().chain(line.trim().split('|')).map(Into::into);
    let args = match <Cli as clap::Parser>::parse_from(words(all)).command {
        Command::Console(args) => args,
        other => panic!("{other:?}"),
    };
    let target = match args.exec {
        true => Target::Command(args.line),
        false => Target::parse(&args.line, args.baud.unwrap_or(115_200), args.hw),
    };
    let wanted = Settings { streams: channels(&args.streams).unwrap(), ..settings(target, 0) };
    let nothing = std::fs::File::open("/dev/null").unwrap();
    let mut waiting = None;
    let mut report = |event: &super::event::Event| {
        if let super::event::Event::Waiting(diagnostic) = event {
            waiting = Some(diagnostic.clone());
        }
    };
    let begun = std::time::Instant::now();
    // A line that is waited for has said so by then.
    let enough = || begun.elapsed().as_secs() >= 2;
    let server = Server::new(wanted, std::os::fd::AsFd::as_fd(&nothing), None, &mut report);
    let said = server.and_then(|mut server| server.run(&enough));
    (said.and(waiting.map_or(Ok(()), Err)), replaced)
}

fn text(diagnostic: &Diagnostic, replaced: &[(String, &'static str)]) -> String {
    let mut text = to_text(diagnostic, &Default::default(), Width::Plain) + "\n";
    for (real, name) in replaced {
        text = text.replace(real, name);
    }
    text
}

#[test]
fn every_bad_line_says_what_is_expected() {
    let cases: Vec<String> = directories("tests/bad").into_iter().filter(|name| name.starts_with('W')).collect();
    assert!(cases.len() >= 8, "{cases:?}");
    let mut complaints = Vec::new();
    for name in cases {
        let (said, replaced) = say(&root().join("tests/bad").join(&name));
        let diagnostic = said.expect_err(&name);
        assert!(name.starts_with(&diagnostic.code.to_string()), "{name}: {diagnostic:?}");
        complaints.extend(compare(&format!("tests/bad/{name}/expected.txt"), &text(&diagnostic, &replaced)));
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}
