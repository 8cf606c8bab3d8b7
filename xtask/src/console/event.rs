//! What happens to the line and its clients, for people and for machines.

use std::net::SocketAddr;
use std::path::PathBuf;

use citrine_planner::diag::Diagnostic;
use serde_json::{Value, json};

/// Something that has happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A channel is offered on this address.
    Listening {
        /// The channel.
        channel: u8,
        /// Address and port.
        address: String,
    },
    /// A channel is offered as a pseudo-terminal.
    Pty {
        /// The channel.
        channel: u8,
        /// `/dev/pts/N`.
        name: PathBuf,
        /// What leads to it.
        link: PathBuf,
    },
    /// The line is open.
    Connected(String),
    /// The line cannot be opened yet.
    Waiting(Box<Diagnostic>),
    /// The line has gone, and why.
    Lost(String),
    /// A client has come.
    Came {
        /// The channel.
        channel: u8,
        /// The client.
        peer: SocketAddr,
    },
    /// A client has gone.
    Left {
        /// The channel.
        channel: u8,
        /// The client.
        peer: SocketAddr,
        /// Bytes that it did not read in time.
        dropped: u64,
    },
    /// The board sends data for a channel that has no stream; they are discarded.
    Nobody(u8),
    /// A transcript cannot be written any more.
    NoTranscript(Box<Diagnostic>),
    /// Bytes on the line, for `-debug`; true for those from the board.
    Bytes(bool, Vec<u8>),
}

impl Event {
    /// For people; a diagnostic is printed as such.
    ///
    /// # Errors
    /// The diagnostic.
    pub fn text(&self) -> Result<String, Box<Diagnostic>> {
        Ok(match self {
            Self::Listening { channel, address } => format!("channel {channel}: {address}"),
            Self::Pty { channel, name, link } => format!("channel {channel}: {} -> {}", link.display(), name.display()),
            Self::Connected(name) => format!("connected to {name}"),
            Self::Lost(why) => format!("the line has gone: {why}; waiting for it to come back"),
            Self::Came { channel, peer } => format!("channel {channel}: {peer} has come"),
            Self::Left { channel, peer, dropped: 0 } => format!("channel {channel}: {peer} has gone"),
            Self::Left { channel, peer, dropped } => {
                format!("channel {channel}: {peer} has gone; {dropped} bytes were dropped, since it did not read")
            }
            Self::Nobody(channel) => {
                format!("channel {channel} has no stream: what the board sends there is discarded")
            }
            Self::Waiting(diagnostic) | Self::NoTranscript(diagnostic) => return Err(diagnostic.clone()),
            Self::Bytes(from_board, bytes) => {
                let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("{} {}", if *from_board { "board>" } else { "board<" }, hex.join(" "))
            }
        })
    }

    /// For machines; a diagnostic is printed as such.
    ///
    /// # Errors
    /// The diagnostic.
    pub fn json(&self) -> Result<Value, Box<Diagnostic>> {
        let (event, mut value) = match self {
            Self::Listening { channel, address } => ("listening", json!({ "channel": channel, "address": address })),
            Self::Pty { channel, name, link } => (
                "pty",
                json!({ "channel": channel, "name": name.display().to_string(), "link": link.display().to_string() }),
            ),
            Self::Connected(name) => ("connected", json!({ "line": name })),
            Self::Lost(why) => ("lost", json!({ "why": why })),
            Self::Came { channel, peer } => ("came", json!({ "channel": channel, "peer": peer.to_string() })),
            Self::Left { channel, peer, dropped } => {
                ("left", json!({ "channel": channel, "peer": peer.to_string(), "dropped": dropped }))
            }
            Self::Nobody(channel) => ("nobody", json!({ "channel": channel })),
            Self::Waiting(diagnostic) | Self::NoTranscript(diagnostic) => return Err(diagnostic.clone()),
            Self::Bytes(from_board, bytes) => ("bytes", json!({ "from_board": from_board, "bytes": bytes })),
        };
        value["type"] = "console".into();
        value["event"] = event.into();
        Ok(value)
    }
}
