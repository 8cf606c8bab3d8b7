//! How a configuration becomes partitions and connections.

use arrayvec::ArrayVec;

use super::channel::Plug;
use super::partition::{Life, Start};
use super::pic::Pic;
use super::{Hypervisor, Partition};
use crate::config::{ChannelEnd, ChannelId, Config, CpuRange};
use crate::machine::{CpuSet, MAX_CPUS};

impl<'a> Hypervisor<'a> {
    /// Takes over a configuration that the rules have judged; once. `started` are the CPUs that there are: a
    /// partition that lacks one cannot be started. With `external_proxy` the guests' interrupts are acknowledged
    /// when they are taken; see [`Pic::new`].
    pub fn init(&mut self, config: &Config<'a>, started: CpuSet, external_proxy: bool) {
        for partition in &config.partitions {
            let cpus: ArrayVec<u32, { MAX_CPUS as usize }> =
                partition.cpus.iter().flat_map(CpuRange::numbers).take(MAX_CPUS as usize).collect();
            let usable = cpus.iter().all(|cpu| started.contains(*cpu));
            let added = Partition {
                name: partition.name,
                starts: partition.starts,
                managed: partition.managed.iter().map(|managed| managed.partition).collect(),
                channels: partition.channels.iter().map(|_| None).collect(),
                pic: Pic::new(partition.channels.len(), cpus.len(), external_proxy),
                life: Life::new(cpus.len(), usable),
                cpus,
                doorbells: 0,
                critical_doorbells: 0,
            };
            // The configuration has no more partitions than this has room for.
            if self.partitions.try_push(added).is_err() {
                break;
            }
        }
        self.connect(config);
    }

    /// Connects byte channels, and the console first: it has the line until someone selects a channel.
    fn connect(&mut self, config: &Config<'a>) {
        let line = config.hypervisor.console;
        let shared = |end: ChannelEnd<'a>| match end {
            ChannelEnd::Mux { device, .. } => Some(device),
            _ => None,
        };
        let ends = || config.partitions.iter().flat_map(|partition| &partition.channels).map(|channel| channel.end);
        let device = line.map(|console| console.device).or_else(|| ends().find_map(shared));
        if let Some(console) = line
            && let Some((own, far)) = self.channels.connect(None, None)
        {
            self.console = Some(own);
            match console.mux_channel {
                Some(channel) => _ = self.mux.attach(channel, far),
                None => self.mux.attach_alone(far),
            }
        }
        for (partition, configured) in config.partitions.iter().enumerate() {
            for (channel, configured) in configured.channels.iter().enumerate() {
                let id = ChannelId { partition, channel };
                let connected = match configured.end {
                    ChannelEnd::Mux { device: on, channel } if Some(on) == device => self.connect_mux(id, channel),
                    ChannelEnd::Peer(peer) => self.plug(id).is_some() || self.connect_peer(id, peer),
                    ChannelEnd::Console => self.connect_console(id),
                    ChannelEnd::Open => true,
                    ChannelEnd::Mux { .. } | ChannelEnd::Device(_) => false,
                };
                if !connected {
                    let owner = self.partitions.get(partition).map_or("", |partition| partition.name);
                    let text = format_args!("{owner}: byte channel {} leads nowhere", configured.name);
                    self.say(0, text);
                }
                self.refresh(id);
            }
        }
    }

    fn connect_mux(&mut self, id: ChannelId, channel: u32) -> bool {
        let Some((own, far)) = self.channels.connect(Some(id), None) else { return false };
        let attached = self.mux.attach(channel, far);
        if attached {
            self.set_plug(id, own);
        }
        attached
    }

    fn connect_peer(&mut self, id: ChannelId, peer: ChannelId) -> bool {
        let Some((own, far)) = self.channels.connect(Some(id), Some(peer)) else { return false };
        self.set_plug(id, own);
        self.set_plug(peer, far);
        true
    }

    fn connect_console(&mut self, id: ChannelId) -> bool {
        let Some((own, far)) = self.channels.connect(Some(id), None) else { return false };
        self.set_plug(id, own);
        self.console = Some(far);
        true
    }

    fn set_plug(&mut self, id: ChannelId, plug: Plug) {
        let slot = self.partitions.get_mut(id.partition).and_then(|owner| owner.channels.get_mut(id.channel));
        if let Some(slot) = slot {
            *slot = Some(plug);
        }
    }

    /// Starts every partition that has its CPUs; one that waits for its manager is only loaded.
    pub fn start_all(&mut self) {
        for partition in 0..self.partitions.len() {
            let starts = self.partitions.get(partition).is_some_and(|partition| partition.starts);
            // One that lacks a CPU has been reported before this.
            _ = self.start(partition, if starts { Start::Images } else { Start::LoadOnly });
        }
    }
}
