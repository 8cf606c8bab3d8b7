//! `console`: the board's line, and each of its channels on a port, a pseudo-terminal or this terminal.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;

use citrine_planner::diag::Diagnostic;
use citrine_planner::input::IMPOSSIBLE_VALUE;

use crate::cli::console::Console;
use crate::console::event::Event;
use crate::console::line::Target;
use crate::console::screen::Screen;
use crate::console::server::{Server, Settings};
use crate::console::sink::Sink;
use crate::console::stream::{Stream, channels};
use crate::console::terminal::RawMode;
use crate::progress::{interrupted, watch_signals};
use crate::project::Project;
use crate::report::{CmdResult, Failure, Ui, to_json};

/// Without a flag and a board.
const BAUD: u32 = 115_200;

/// Runs `console`.
pub fn run(args: &Console, ui: &Ui) -> CmdResult {
    let settings = settings(args, ui)?;
    watch_signals()?;
    let nowhere_else = args.streams.is_empty() && args.pty.is_none() && !ui.is_json();
    let shown = args.terminal.or(nowhere_else.then_some(0));
    let stdin = std::io::stdin();
    // The first that goes is the server with its screen; then the terminal is as before.
    let _raw = shown.map(|_| RawMode::enter(stdin.as_fd()));
    let screen = shown.map(|channel| Screen::new(stdin.as_fd(), std::io::stdout(), channel));
    let mut objects = ui.is_json().then(|| Sink::new(std::io::stdout()));
    let mut report = |event: &Event| match &mut objects {
        Some(objects) => match event.json() {
            Ok(object) => objects.push(format!("{object}\n").as_bytes()),
            Err(diagnostic) => objects.push(format!("{}\n", to_json(&diagnostic, &BTreeMap::new())).as_bytes()),
        },
        None if matches!(event, Event::Came { .. } | Event::Left { .. }) && !args.verbose => {}
        None => match event.text() {
            Ok(text) => ui.say(&text),
            Err(diagnostic) => ui.diagnostics(&[*diagnostic]),
        },
    };
    let mut server = Server::new(settings, stdin.as_fd(), screen, &mut report)?;
    Ok(server.run(&interrupted)?)
}

fn settings(args: &Console, ui: &Ui) -> Result<Settings, Failure> {
    let streams = channels(&args.streams).map_err(|why| {
        Diagnostic::error(IMPOSSIBLE_VALUE, why).help("name fewer streams, or leave some out with `:`")
    })?;
    if ui.is_json() && args.streams.contains(&Stream::Stdout) {
        let message = "standard output has the events of --json, so no channel can be printed there";
        return Err(Diagnostic::error(IMPOSSIBLE_VALUE, message)
            .help("print the channel as `stderr`, or give it a port")
            .into());
    }
    let baud = match (args.baud, &args.board) {
        (Some(baud), _) => baud,
        (None, Some(board)) => Project::find()?.board(board, ui)?.baud(),
        (None, None) => BAUD,
    };
    let target = if args.exec { Target::Command(args.line.clone()) } else { Target::parse(&args.line, baud, args.hw) };
    Ok(Settings {
        target,
        request: !args.no_request,
        streams,
        listen: args.listen,
        ptys: args.pty.clone(),
        transcripts: args.transcripts.clone(),
        debug: args.debug,
    })
}
