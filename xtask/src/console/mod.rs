//! The board's consoles: one line that carries many channels, offered as many.
//!
//! [`server::Server`] is the whole of it: one thread, one `poll`, nothing that waits. It reads the line whatever its
//! clients do; a client that does not read costs itself alone ([`queue`]).
//!
//! * `line` — the line to the board, and why it cannot be opened
//! * `framing` — the multiplexer's framing, for one end
//! * `client`, `sink`, `queue` — who reads a channel, and what waits for them
//! * `screen`, `terminal` — a person who looks at one channel after the other
//! * `log`, `tail` — what is kept
//! * `event` — what happens to the line and its clients, for people and for machines
//! * `stream` — the words of `mux_server`'s command line

pub mod client;
pub mod event;
pub mod framing;
pub mod line;
pub mod log;
pub mod queue;
pub mod screen;
pub mod server;
pub mod sink;
pub mod stream;
pub mod tail;
pub mod terminal;

#[cfg(test)]
mod bad_lines;
#[cfg(test)]
pub mod tests;
