//! The command line of `console`, which takes that of `mux_server`, too.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use clap::Args;

use crate::console::stream::Stream;

/// The flags of `mux_server` that are whole words behind one dash.
const WORDS: [&str; 4] = ["-exec", "-verbose", "-debug", "-hw"];

/// Offer each console of a board on a TCP port, as a pseudo-terminal, or on this terminal.
///
/// Takes the board's serial line and the byte channels that Topaz or our hypervisor
/// multiplex on it, with the command line of mux_server: the n-th stream is for channel n.
/// Without streams this terminal shows the channels; Ctrl-A ? shows the keys. The line is
/// waited for when it goes; no client ever delays another.
///
/// Examples:
///
///   cargo xtask console /dev/ttyUSB0                       this terminal
///   cargo xtask console /dev/ttyS0 18900 18901 18902       then: socat -,raw,echo=0 tcp:0:18901
///   cargo xtask console --pty consoles lab-server:7001     then: screen consoles/1
///   cargo xtask console -exec "ssh lab picocom -q /dev/ttyS0" 18900 18901
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Console {
    /// Serial device, HOST:PORT of a terminal server or an emulator, Unix-domain socket, or command with --exec
    #[arg(value_name = "LINE")]
    pub line: String,
    /// What is done with channel 0, 1, ...: a TCP port, `stdout`, `stderr`, `stdin`, or `:` for the next multiple of 8
    #[arg(value_name = "STREAM")]
    pub streams: Vec<Stream>,
    /// Speed of a serial device, 8N1 [default: the board's, else 115200]
    #[arg(long, short = 's', visible_alias = "speed", value_name = "BAUD")]
    pub baud: Option<u32>,
    /// Board whose speed is the default: a name from boards/, or the path of a .toml file
    #[arg(long, value_name = "BOARD")]
    pub board: Option<String>,
    /// The line is the input and output of a shell command, which is LINE; also -exec
    #[arg(long, conflicts_with_all = ["baud", "board", "hw"])]
    pub exec: bool,
    /// RTS and CTS of a serial device stop the sender; also -hw
    #[arg(long)]
    pub hw: bool,
    /// Show this channel on this terminal; Ctrl-A ? shows the keys
    #[arg(long, short, value_name = "CHANNEL", num_args = 0..=1, default_missing_value = "0", conflicts_with = "json", value_parser = clap::value_parser!(u8).range(..95))]
    pub terminal: Option<u8>,
    /// Put a link to a pseudo-terminal for every channel into this directory, by its number
    #[arg(long, value_name = "DIR")]
    pub pty: Option<PathBuf>,
    /// Add what every channel says to DIR/channel-N.log, with the time of each line in UTC
    #[arg(long, value_name = "DIR")]
    pub transcripts: Option<PathBuf>,
    /// Offer the ports on this address: whoever reaches it has the board's consoles, without a password
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub listen: IpAddr,
    /// Send nothing when the line has been opened: a boot loader takes what is sent for a key and stops
    #[arg(long)]
    pub no_request: bool,
    /// Say when clients come and go; also -verbose
    #[arg(long, short)]
    pub verbose: bool,
    /// Print all bytes on the line in hexadecimal; also -debug
    #[arg(long)]
    pub debug: bool,
}

/// The words of a command line, with the flags of `mux_server` behind two dashes.
pub fn words(words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut words: Vec<OsString> = words.into_iter().collect();
    let verb = words.iter().skip(1).position(|word| !word.as_encoded_bytes().starts_with(b"-"));
    if let Some(verb) = verb.map(|at| at + 1).filter(|&at| words[at] == "console") {
        for word in words.iter_mut().skip(verb).filter(|word| WORDS.iter().any(|flag| word == flag)) {
            let mut long = OsString::from("-");
            long.push(&*word);
            *word = long;
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser as _;

    fn console(line: &[&str]) -> Option<Console> {
        let all = ["xtask", "console"].iter().chain(line).map(OsString::from);
        match Cli::try_parse_from(words(all)).ok()?.command {
            Command::Console(args) => Some(args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_command_line_is_that_of_mux_server() {
        let args = console(&["/dev/ttyS0", "18900", "18901", ":", "stdout"]).unwrap();
        assert_eq!(args.streams, [Stream::Port(18900), Stream::Port(18901), Stream::Skip, Stream::Stdout]);
        assert_eq!((args.line.as_str(), args.listen.is_loopback(), args.exec), ("/dev/ttyS0", true, false));
        let args = console(&["-verbose", "-exec", "cat -v", "1"]).unwrap();
        assert!(args.exec && args.verbose && args.line == "cat -v");
        let args = console(&["-s", "9600", "-hw", "-debug", "host:1", "0"]).unwrap();
        assert!(args.baud == Some(9600) && args.hw && args.debug);
        assert_eq!(console(&["x", "--terminal"]).unwrap().terminal, Some(0));
        assert_eq!(console(&["--terminal", "2", "x"]).unwrap().terminal, Some(2));
        for wrong in [&[][..], &["x", "y"], &["x", "65536"], &["-t", "95", "x"], &["--json", "--terminal", "1", "x"]] {
            assert!(console(wrong).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn other_commands_keep_their_words() {
        let words_of = |text: &str| words(text.split(' ').map(OsString::from)).join(" ".as_ref());
        assert_eq!(words_of("xtask qemu -verbose"), "xtask qemu -verbose");
        assert_eq!(words_of("xtask --json console -exec x"), "xtask --json console --exec x");
        assert_eq!(words_of("xtask"), "xtask");
    }

    #[test]
    fn the_help_has_an_example() {
        let help = Cli::try_parse_from(["xtask", "console", "--help"]).unwrap_err().to_string();
        assert!(help.contains("cargo xtask console /dev/ttyS0 18900 18901 18902"), "{help}");
    }
}
