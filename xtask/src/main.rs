//! `cargo xtask`: arguments → command → exit code, nothing else.
#![forbid(unsafe_code)]

mod artifacts;
mod bench;
mod build;
mod bundle;
mod cache;
mod cli;
mod cmd;
mod console;
mod dtc;
#[cfg_attr(not(test), expect(dead_code, reason = "tests also look into memory and ask the monitor"))]
mod emulator;
mod explain;
mod guest_tree;
mod nor;
mod output;
mod progress;
mod project;
mod release;
mod report;
mod serve;
mod setup;
mod sign;
mod smoke;
mod tools;

#[cfg(test)]
mod bad_inputs;
#[cfg(test)]
mod bad_machines;
#[cfg(test)]
mod blessed;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod hw_dtb;
#[cfg(test)]
mod inventory;

use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = cli::Cli::of(cli::console::words(std::env::args_os()));
    let ui = report::Ui::new(cli.json);
    match cmd::run(cli.command, &ui) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            ui.failure(&failure);
            ExitCode::FAILURE
        }
    }
}
