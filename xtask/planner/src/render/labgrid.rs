//! What `labgrid.yaml.j2` may use: the consoles and what is typed at U-Boot's prompt, as text.

use core::net::Ipv4Addr;

use citrine_formats::manifest::Role;
use serde::Serialize;

use super::typed;
use crate::plan::{LoadPlan, shell_prompt};

/// What the bench adds to a plan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bench {
    /// The board's own address.
    pub board: Ipv4Addr,
    /// Where its parts are served.
    pub server: Ipv4Addr,
    /// TCP port of channel 0 of the console; the other channels follow it.
    pub port: u16,
}

/// The channel that U-Boot is on: what comes before the first selection belongs to it.
const UBOOT: u32 = 0;

/// Context of `labgrid.yaml.j2`.
#[derive(Serialize)]
pub struct Labgrid {
    board: String,
    profile: String,
    directory: String,
    server: String,
    /// A port for every channel up to the last one that is used, as `console` takes them.
    ports: String,
    consoles: Vec<Console>,
    uboot: u32,
    hypervisor: u32,
    before: Vec<String>,
    boot: String,
    partitions: usize,
    shells: Vec<Shell>,
}

#[derive(Serialize)]
struct Console {
    channel: u32,
    port: u32,
}

#[derive(Serialize)]
struct Shell {
    name: String,
    channel: u32,
    prompt: String,
}

impl Labgrid {
    /// The context of `plan` on `bench`.
    pub fn of(plan: &LoadPlan, bench: Bench) -> Self {
        let directory = format!("{}-{}", plan.board.name, plan.profile.name);
        let hypervisor = plan.profile.hypervisor.console;
        let mut channels: Vec<u32> = plan.partitions.iter().map(|partition| partition.console).collect();
        channels.extend([UBOOT, hypervisor]);
        channels.sort_unstable();
        channels.dedup();
        let port = |channel: u32| u32::from(bench.port) + channel;
        let ports = (0..=channels.last().copied().unwrap_or(UBOOT)).map(|channel| port(channel).to_string());
        // Only the built root file system has a shell on the console without a password.
        let shells = plan.partitions.iter().filter(|partition| partition.rootfs.is_some()).map(|partition| Shell {
            name: partition.name.clone(),
            channel: partition.console,
            prompt: shell_prompt(&partition.label),
        });
        let script = plan.part(Role::Script);
        Self {
            board: plan.board.name.clone(),
            profile: plan.profile.name.clone(),
            server: bench.server.to_string(),
            ports: ports.collect::<Vec<_>>().join(" "),
            consoles: channels.iter().map(|&channel| Console { channel, port: port(channel) }).collect(),
            uboot: UBOOT,
            hypervisor,
            before: typed::before(&bench.board.to_string(), &bench.server.to_string(), Some(&plan.board)),
            boot: script.map_or(String::new(), |part| typed::run_script(&directory, &part.file, part.load)),
            partitions: plan.partitions.len(),
            shells: shells.collect(),
            directory,
        }
    }
}
