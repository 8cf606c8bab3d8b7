//! `labgrid`: the environment of a board in a lab, and its strategy.

use citrine_planner::diag::has_errors;
use citrine_planner::render::{Bench, labgrid_environment};
use citrine_planner::{place, rules};
use serde_json::json;

use crate::artifacts;
use crate::bundle::out_dir;
use crate::cli::Labgrid;
use crate::output::{cannot_write, write_file};
use crate::project::{Project, template};
use crate::report::{CmdResult, Ui};

/// The strategy's file name, in `templates/` and where it is written; the environment imports it by this name.
pub const STRATEGY: &str = "citrine_strategy.py";
/// The template of the environment.
pub const ENVIRONMENT: &str = "labgrid.yaml.j2";

/// Runs `labgrid`.
pub fn run(args: &Labgrid, ui: &Ui) -> CmdResult {
    let project = Project::find()?;
    let (board, profile) = project.target_of(&args.target, ui)?;
    let plan = place::place(&board, &profile, &artifacts::cached(&project, &board, Some(&profile)))?;
    let found = rules::check(&plan);
    if has_errors(&found) {
        return Err(found.into());
    }
    ui.diagnostics(&found);
    let bench = Bench { board: args.board_address, server: args.server_address, port: args.port };
    let environment = labgrid_environment(&plan, bench, &template(&project.template(ENVIRONMENT, ui)?))?;
    let (_, strategy) = project.template(STRATEGY, ui)?;
    let name = format!("{}-{}", board.name, profile.name);
    let dir = args.output.clone().unwrap_or_else(|| out_dir(&project).join(format!("{name}-labgrid")));
    fs_err::create_dir_all(&dir).map_err(|error| cannot_write(&dir, &error))?;
    // The environment is last: where it is, what it imports is there, too.
    let files = [(dir.join(STRATEGY), strategy), (dir.join(format!("{name}.yaml")), environment)];
    for (file, text) in &files {
        write_file(file, text.as_bytes())?;
    }
    let [strategy, environment] = files.map(|(file, _)| file.display().to_string());
    if ui.is_json() {
        ui.object(&json!({ "type": "labgrid", "environment": environment, "strategy": strategy }));
    } else {
        ui.product(&format!("{environment}\n{strategy}\n"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What U-Boot prints comes before any selection, whatever the hypervisor's own channel is.
    #[test]
    fn uboot_is_on_channel_0_and_the_hypervisor_where_the_profile_says() {
        let ui = Ui::new(true);
        let project = Project::find().unwrap();
        let (board, mut profile) = project.target("p4080ds", "two-linux", &ui).unwrap();
        profile.hypervisor.console = 4;
        let plan = place::place(&board, &profile, &artifacts::known(None)).unwrap();
        let bench = Bench { board: "10.1.1.2".parse().unwrap(), server: "10.1.1.1".parse().unwrap(), port: 7000 };
        let text = labgrid_environment(&plan, bench, &template(&project.template(ENVIRONMENT, &ui).unwrap())).unwrap();
        for line in [
            "#   cargo xtask serve artifacts/out/p4080ds-two-linux.tar --listen 10.1.1.1:69",
            "#   cargo xtask console --board p4080ds LINE 7000 7001 7002 7003 7004",
            "          name: uboot\n          bindings:\n            console: channel-0",
            "            - 'setenv ipaddr 10.1.1.2'",
            "          name: channel-4\n          host: 127.0.0.1\n          port: 7004",
            "          hypervisor: channel-4",
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line}: {text}");
        }
        assert!(!text.contains("channel-3"), "nobody uses it: {text}");
    }
}
