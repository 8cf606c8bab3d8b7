//! One file per verb: read, call the planner, do, print.

mod bench;
pub mod bundle;
mod cache;
pub mod check;
mod check_time;
mod console;
mod coverage;
mod diff;
mod explain;
mod extract;
mod fuzz;
mod guest_tree;
mod import;
mod inner_loop;
mod keygen;
pub mod labgrid;
mod lock;
pub mod perf;
mod plan;
mod promises;
pub mod qemu;
mod release;
mod render;
mod reproduce;
mod serve;
pub(crate) mod sign;
mod test;
pub mod verify;

use crate::cli::Command;
use crate::report::{CmdResult, Ui};

/// Runs a command.
pub fn run(command: Command, ui: &Ui) -> CmdResult {
    match command {
        Command::Bundle(args) => bundle::run(&args, ui),
        Command::Check(args) => check::run(&args, ui),
        Command::Plan(args) => plan::run(&args, ui),
        Command::Release(args) => release::run(&args, ui),
        Command::Render(args) => render::run(&args, ui),
        Command::Import(args) => import::run(&args, ui),
        Command::GuestTree(args) => guest_tree::run(&args, ui),
        Command::Diff(args) => diff::run(&args, ui),
        Command::Verify(args) => verify::run(&args, ui),
        Command::Extract(args) => extract::run(&args, ui),
        Command::Sign(args) => sign::run(&args, ui),
        Command::Keygen(args) => keygen::run(&args, ui),
        Command::Reproduce(args) => reproduce::run(&args, ui),
        Command::Bench(args) => bench::run(&args, ui),
        Command::Perf(args) => perf::run(&args, ui),
        Command::Explain(args) => explain::run(&args, ui),
        Command::Qemu(args) => qemu::run(&args, ui),
        Command::Serve(args) => serve::run(&args, ui),
        Command::Labgrid(args) => labgrid::run(&args, ui),
        Command::Console(args) => console::run(&args, ui),
        Command::Lock(args) => lock::run(&args, ui),
        Command::Cache(args) => cache::run(&args, ui),
        Command::Test(args) => test::run(&args, ui),
        Command::Promises(args) => promises::run(&args, ui),
        Command::Fuzz(args) => fuzz::run(&args, ui),
        Command::Coverage(args) => coverage::run(&args, ui),
    }
}
