//! What leads from one partition to another: byte channels between them, and who controls whom.
//!
//! A reference may lead to a partition further down in the tree, so this is done when all have been read.

use citrine_formats::hvconfig::{self, End, Error, Problem, Stdout, Tree};

use super::{ChannelEnd, ChannelId, Config, Managed, push};

/// The owner of one end of a connection between byte channels.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    Hypervisor,
    Partition(ChannelId),
}

impl Owner {
    /// The end of a channel that leads to this owner.
    const fn as_end(self) -> ChannelEnd<'static> {
        match self {
            Self::Hypervisor => ChannelEnd::Console,
            Self::Partition(id) => ChannelEnd::Peer(id),
        }
    }
}

/// Connects byte channels of which one names the other.
pub(super) fn channels<'a>(config: &mut Config<'a>, tree: Tree<'a>) -> Result<(), Error<'a>> {
    let stdout = match tree.hypervisor()?.stdout()? {
        Some(Stdout::Channel(channel)) => Some(channel),
        Some(Stdout::Device(_)) | None => None,
    };
    // Not a part of `config`: to the hypervisor it makes no difference who listens.
    let mut console = match stdout.map(hvconfig::Channel::end).transpose()? {
        Some(End::Mux { .. } | End::Device(_)) => ChannelEnd::Device(""),
        Some(End::Channel(_) | End::Open) | None => ChannelEnd::Open,
    };
    let all = || {
        let theirs = tree.partitions().enumerate().flat_map(|(partition, node)| {
            let id = move |channel| Owner::Partition(ChannelId { partition, channel });
            node.channels().enumerate().map(move |(channel, node)| (id(channel), node))
        });
        theirs.chain(stdout.map(|node| (Owner::Hypervisor, node)))
    };
    for (owner, node) in all() {
        let End::Channel(path) = node.end()? else { continue };
        // A channel that belongs to nobody is an end that nobody reads.
        let Some((other, _)) = all().find(|(_, node)| node.path() == path) else { continue };
        let mut join = |from: Owner, to: Owner| {
            let end = match from {
                Owner::Hypervisor => Some(&mut console),
                Owner::Partition(id) => end(config, id),
            };
            let end = end.filter(|end| owner != other && (**end == ChannelEnd::Open || **end == to.as_end()));
            end.map(|end| *end = to.as_end()).is_some()
        };
        if !join(other, owner) || !join(owner, other) {
            let want = "a byte-channel that leads back here or nowhere";
            let problem = Problem::WrongTarget { target: path, want };
            return Err(Error { path: node.path(), property: "endpoint", problem });
        }
    }
    Ok(())
}

fn end<'c, 'a>(config: &'c mut Config<'a>, id: ChannelId) -> Option<&'c mut ChannelEnd<'a>> {
    Some(&mut config.partitions.get_mut(id.partition)?.channels.get_mut(id.channel)?.end)
}

/// Resolves which partitions a partition may control.
pub(super) fn managers<'a>(config: &mut Config<'a>, tree: Tree<'a>) -> Result<(), Error<'a>> {
    for (manager, node) in config.partitions.iter_mut().zip(tree.partitions()) {
        for managed in node.managed() {
            let (name, path) = managed?;
            // It is a partition node, so it is among them.
            if let Some(partition) = tree.partitions().position(|partition| partition.path() == path) {
                push(&mut manager.managed, Managed { name, partition }, node.path(), "managed-partition")?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use citrine_formats::fdt;
    use citrine_formats::testing::Builder;
    use std::format;
    use std::string::String;
    use std::vec::Vec;

    /// Partitions with byte channels, each with a phandle and perhaps an endpoint; the hypervisor's stdout is
    /// channel 1, below hv-config, with the given endpoint.
    fn tree(stdout: u32, partitions: &[&[(u32, u32)]]) -> Vec<u8> {
        let mut t = Builder::default();
        let channel = |t: &mut Builder, phandle: u32, endpoint: u32| {
            t.begin(&format!("bc{phandle}")).text("compatible", "byte-channel").cells("phandle", &[phandle]);
            if endpoint != 0 {
                t.cells("endpoint", &[endpoint]).cells("mux-channel", &[phandle]);
            }
            t.end();
        };
        t.begin("");
        t.begin("hv").text("compatible", "hv-config").cells("stdout", &[1]);
        t.begin("uart").text("device", "serial0").cells("phandle", &[90]).end();
        channel(&mut t, 1, stdout);
        t.end();
        t.begin("mux").text("compatible", "byte-channel-mux").cells("endpoint", &[90]).cells("phandle", &[91]).end();
        for (index, channels) in partitions.iter().enumerate() {
            t.begin(&format!("p{index}")).text("compatible", "partition").cells("dtb-window", &[0; 4]);
            t.cells("phandle", &[100 + index as u32]);
            channels.iter().for_each(|&(phandle, endpoint)| channel(&mut t, phandle, endpoint));
            let managed = 100 + (index as u32 + 1) % partitions.len() as u32;
            t.begin("next").text("compatible", "managed-partition").cells("partition", &[managed]).end().end();
        }
        t.end();
        t.finish()
    }

    /// The ends of all channels, or what is wrong.
    fn ends(stdout: u32, partitions: &[&[(u32, u32)]]) -> String {
        let bytes = tree(stdout, partitions);
        let config = Config::from_tree(Tree::new(fdt::open(&bytes).unwrap()).unwrap());
        config.map_or_else(
            |error| format!("{error}"),
            |config| {
                let ends = config.partitions.iter().flat_map(|partition| &partition.channels);
                let ends = ends.map(|channel| match channel.end {
                    ChannelEnd::Mux { channel, .. } => format!("mux{channel} "),
                    ChannelEnd::Device(device) => format!("{device} "),
                    ChannelEnd::Peer(id) => format!("{}.{} ", id.partition, id.channel),
                    ChannelEnd::Console => "console ".into(),
                    ChannelEnd::Open => "open ".into(),
                });
                ends.collect()
            },
        )
    }

    #[test]
    fn channels_that_name_each_other_are_connected_and_one_name_is_enough() {
        assert_eq!(ends(91, &[&[(10, 91), (11, 20)], &[(20, 11), (21, 0)]]), "mux10 1.0 0.1 open ");
        assert_eq!(ends(91, &[&[(10, 0), (11, 0)], &[(20, 10)]]), "1.0 open 0.0 ");
        assert_eq!(ends(91, &[&[(10, 11), (11, 0)]]), "0.1 0.0 ");
        assert_eq!(ends(91, &[&[(10, 90)]]), "serial0 ");
    }

    #[test]
    fn the_console_can_be_a_channel_of_a_partition() {
        assert_eq!(ends(10, &[&[(10, 0)]]), "console ");
        assert_eq!(ends(0, &[&[(10, 1)]]), "console ");
    }

    #[test]
    fn a_channel_has_one_other_end() {
        let refused = |text: &str, at: &str, to: &str| {
            assert_eq!(
                text,
                format!("{at}: endpoint: refers to {to}, which is not a byte-channel that leads back here or nowhere")
            );
        };
        refused(&ends(91, &[&[(10, 20)], &[(20, 21), (21, 0)]]), "/p1/bc20", "/p1/bc21");
        refused(&ends(91, &[&[(10, 20), (11, 20)], &[(20, 0)]]), "/p0/bc11", "/p1/bc20");
        refused(&ends(91, &[&[(10, 20)], &[(20, 91)]]), "/p0/bc10", "/p1/bc20");
        refused(&ends(91, &[&[(10, 1)]]), "/p0/bc10", "/hv/bc1");
        refused(&ends(91, &[&[(10, 10)]]), "/p0/bc10", "/p0/bc10");
    }

    #[test]
    fn a_manager_knows_its_partitions_by_index() {
        let bytes = tree(91, &[&[], &[], &[]]);
        let config = Config::from_tree(Tree::new(fdt::open(&bytes).unwrap()).unwrap()).unwrap();
        let managed: Vec<_> = config.partitions.iter().flat_map(|partition| &partition.managed).collect();
        assert_eq!(managed.iter().map(|managed| managed.partition).collect::<Vec<_>>(), [1, 2, 0]);
        assert_eq!(managed[0].name, "next");
    }
}
