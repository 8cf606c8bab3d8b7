//! `serve`: a verified bundle over TFTP, for U-Boot.

use std::time::Duration;

use citrine_formats::addr::Size;
use serde_json::{Value, json};

use crate::cli::Serve;
use crate::progress::{interrupted, watch_signals};
use crate::project::Project;
use crate::report::{CmdResult, Ui};
use crate::serve::Listening;
use crate::serve::files::{Commands, Files};
use crate::serve::transfers::{Event, State};
use crate::smoke::bundle::read;

/// Runs `serve`.
pub fn run(args: &Serve, ui: &Ui) -> CmdResult {
    watch_signals()?;
    let (verified, parts) = read(&args.bundle, args.keys.as_deref(), ui)?;
    let manifest = &verified.manifest;
    // A bundle from elsewhere may be for a board that this checkout does not know.
    let board = Project::find().and_then(|project| project.board(&manifest.board, ui)).ok();
    let files = Files::new(manifest, parts, board.as_ref());
    let listening = Listening::at(args.listen)?;
    let commands = files.commands(manifest, board.as_ref(), listening.address);
    if ui.is_json() {
        ui.object(&json!({
            "type": "serving",
            "identity": verified.identity,
            "address": listening.address.to_string(),
            "files": files.list().map(|(name, size)| json!({ "name": name, "size": size })).collect::<Vec<_>>(),
            "commands": { "before": commands.before, "parts": commands.parts, "image": commands.image, "flash": commands.flash },
        }));
    } else {
        let who: Vec<&str> = verified.signers.iter().map(|signer| signer.principal.as_str()).collect();
        let (bundle, at) = (args.bundle.display(), listening.address);
        ui.product(&format!(
            "serving {bundle}, signed by {}, on {at}; Ctrl-C ends it. At U-Boot's prompt:\n\n{}\n",
            who.join(", "),
            to_type(&commands)
        ));
        if listening.address.ip().is_loopback() {
            ui.say("only programs of this machine reach that address; for a board: --listen ADDRESS:69");
        }
    }
    let mut sent = 0;
    listening.serve(files, interrupted, &mut |event| {
        sent += usize::from(matches!(event, Event::Transfer { state: State::Sent, .. }));
        if ui.is_json() { ui.object(&to_json(&event)) } else { ui.say(&to_text(&event)) }
    })?;
    if ui.is_json() {
        ui.object(&json!({ "type": "served", "sent": sent }));
    } else {
        ui.say(&format!("ended; {sent} files were sent"));
    }
    Ok(())
}

/// The commands, each on a line of its own.
fn to_type(commands: &Commands) -> String {
    let line = |command: &String| format!("    {command}\n");
    let mut text: String = commands.before.iter().chain(&commands.parts).map(line).collect();
    if let Some(image) = &commands.image {
        text.push_str(&format!("\nor, instead of the last line, all parts at once:\n\n{}", line(image)));
    }
    if !commands.flash.is_empty() {
        text.push_str("\nor, to write the flash, and once to start from it:\n\n");
        text.extend(commands.flash.iter().map(line));
    }
    text
}

/// Bytes in a second; a time too short to be measured counts as a microsecond.
fn rate(bytes: usize, time: Duration) -> u64 {
    let per_second = bytes as u128 * 1_000_000 / time.as_micros().max(1);
    u64::try_from(per_second).unwrap_or(u64::MAX)
}

fn to_json(event: &Event) -> Value {
    match event {
        Event::Transfer { state, client, file, size, sent, time } => json!({
            "type": "transfer",
            "state": word(*state),
            "client": client.to_string(),
            "file": file,
            "size": size,
            "sent": sent,
            "seconds": time.as_secs_f64(),
            "bytes_per_second": rate(*sent, *time),
        }),
        Event::Refused { client, asked, why } => {
            json!({ "type": "refused", "client": client.to_string(), "asked": asked, "why": why })
        }
        Event::Stopped(why) => json!({ "type": "stopped", "why": why }),
    }
}

fn to_text(event: &Event) -> String {
    match event {
        Event::Transfer { state, client, file, size, sent, time } => {
            let all = Size(*size as u64);
            let speed = format!("in {:.1} s, {}/s", time.as_secs_f64(), Size(rate(*sent, *time)));
            let so_far = Size(*sent as u64);
            match state {
                State::Started => format!("{client}  {file}: {all}"),
                State::Running => format!("{client}  {file}: {so_far} of {all} {speed}"),
                State::Sent => format!("{client}  {file}: sent {speed}"),
                State::GivenUp => format!("{client}  {file}: given up after {so_far} of {all}: the client is silent"),
            }
        }
        Event::Refused { client, asked, why } => format!("{client}  refused `{asked}`: {why}"),
        Event::Stopped(why) => why.clone(),
    }
}

fn word(state: State) -> &'static str {
    match state {
        State::Started => "started",
        State::Running => "running",
        State::Sent => "sent",
        State::GivenUp => "given-up",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_is_told_with_its_rate() {
        let at = |state, sent, millis| Event::Transfer {
            state,
            client: "192.168.1.2:2049".parse().unwrap(),
            file: "kernel.uImage".to_owned(),
            size: 3 << 20,
            sent,
            time: Duration::from_millis(millis),
        };
        for (event, told) in [
            (at(State::Started, 0, 0), "192.168.1.2:2049  kernel.uImage: 3 MiB"),
            (at(State::Running, 1 << 20, 1000), "192.168.1.2:2049  kernel.uImage: 1 MiB of 3 MiB in 1.0 s, 1 MiB/s"),
            (at(State::Sent, 3 << 20, 1500), "192.168.1.2:2049  kernel.uImage: sent in 1.5 s, 2 MiB/s"),
            (
                at(State::GivenUp, 512, 12_000),
                "192.168.1.2:2049  kernel.uImage: given up after 512 bytes of 3 MiB: the client is silent",
            ),
        ] {
            assert_eq!(to_text(&event), told);
        }
        assert_eq!(to_json(&at(State::Sent, 3 << 20, 1500))["bytes_per_second"], 2 << 20);
        assert_eq!(rate(usize::MAX, Duration::ZERO), u64::MAX);
    }

    #[test]
    fn the_ways_to_boot_are_alternatives() {
        let commands = Commands {
            before: vec!["a".to_owned()],
            parts: Some("b".to_owned()),
            image: Some("c".to_owned()),
            flash: Vec::new(),
        };
        assert_eq!(to_type(&commands), "    a\n    b\n\nor, instead of the last line, all parts at once:\n\n    c\n");
        let flash = Commands { image: None, flash: vec!["d".to_owned(), "e".to_owned()], ..commands.clone() };
        let written = "    a\n    b\n\nor, to write the flash, and once to start from it:\n\n    d\n    e\n";
        assert_eq!(to_type(&flash), written);
        assert_eq!(to_type(&Commands { image: None, ..commands }), "    a\n    b\n");
    }
}
