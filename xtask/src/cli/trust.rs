//! The command line of what asks whose bundle it is: `verify`, `extract`, `sign`, `keygen`.

use std::ffi::OsString;
use std::path::PathBuf;

use citrine_formats::manifest::MAX_SIGNATURES;
use citrine_planner::verify::keys::is_principals;
use clap::{Args, Parser, Subcommand};

use super::{Cli, Command, Medium};

/// The command line of those who only receive bundles: the help of twenty other verbs would be a good part of the memory
/// that `verify` needs.
#[derive(Parser, Debug)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, propagate_version = true)]
struct Receiver {
    /// Print results and diagnostics for machines: one JSON object per line on standard output
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Received,
}

#[derive(Subcommand, Debug)]
enum Received {
    Verify(Verify),
    Extract(Extract),
}

impl Cli {
    /// Reads the words of a command line; ends the process where they are wrong or ask for help.
    pub fn of(words: Vec<OsString>) -> Self {
        if !words.get(1).is_some_and(|verb| verb == "verify" || verb == "extract") {
            return Self::parse_from(words);
        }
        let Receiver { json, command } = Receiver::parse_from(words);
        let command = match command {
            Received::Verify(verify) => Command::Verify(verify),
            Received::Extract(extract) => Command::Extract(extract),
        };
        Self { json, command }
    }
}

/// What is demanded of a bundle besides that it is whole.
#[derive(Args, Debug, Clone, Default)]
pub struct Demands {
    /// Trusted keys, in the allowed_signers format of ssh-keygen(1)
    #[arg(long, value_name = "FILE")]
    pub keys: Option<PathBuf>,
    /// Refuse a bundle for another board than this
    #[arg(long, value_name = "BOARD")]
    pub board: Option<String>,
    /// Refuse a bundle of another profile than this
    #[arg(long, value_name = "PROFILE")]
    pub profile: Option<String>,
    /// Refuse a bundle that has no part for this medium
    #[arg(long, value_name = "MEDIUM")]
    pub media: Option<Medium>,
    /// Refuse a bundle of a smaller epoch than this
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub min_epoch: u32,
    /// Refuse a bundle that fewer than N different trusted keys have signed
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=MAX_SIGNATURES as i64))]
    pub threshold: u8,
    /// Refuse a bundle that a development key has signed
    #[arg(long)]
    pub production: bool,
}

/// Check that a bundle is whole and signed by somebody whom you trust.
///
/// Reads the bundle once, and believes nothing in it before the signature holds. Without --keys, the keys in
/// allowed_signers in your configuration directory are trusted (~/.config/citrine, or below XDG_CONFIG_HOME);
/// this machine's own development key is among them once it has signed a bundle.
///
/// Example: cargo xtask verify artifacts/out/p4080ds-two-linux.tar --board p4080ds
#[derive(Args, Debug)]
pub struct Verify {
    /// The bundle: a .tar file, or - for standard input
    #[arg(value_name = "BUNDLE")]
    pub bundle: PathBuf,
    #[command(flatten)]
    pub demands: Demands,
}

/// Verify a bundle and unpack it, from the same bytes in the same pass.
///
/// The directory appears when everything in it has been verified, and not before.
///
/// Example: cargo xtask extract p4080ds-two-linux.tar -o /srv/tftp/p4080ds --board p4080ds
#[derive(Args, Debug)]
pub struct Extract {
    /// The bundle: a .tar file, or - for standard input
    #[arg(value_name = "BUNDLE")]
    pub bundle: PathBuf,
    /// The directory to make; nothing may be there
    #[arg(long, short, value_name = "DIR")]
    pub output: PathBuf,
    #[command(flatten)]
    pub demands: Demands,
}

/// Sign a bundle that is there already: no other byte of it changes, and its identity stays.
///
/// Verifies it first. Adds a signature to those that it has, or replaces them, such as a development key's.
///
/// Example: cargo xtask sign p4080ds-two-linux.tar --key production.pub --replace
#[derive(Args, Debug)]
pub struct Sign {
    /// The bundle: a .tar file
    #[arg(value_name = "BUNDLE")]
    pub bundle: PathBuf,
    /// OpenSSH private key; or public key: then the ssh-agent signs, which may use a token
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// Take the signatures of all other keys away
    #[arg(long)]
    pub replace: bool,
    /// Write the signed bundle here instead of in its place
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Trusted keys for the signatures that it has, in the allowed_signers format of ssh-keygen(1)
    #[arg(long, value_name = "FILE")]
    pub keys: Option<PathBuf>,
}

/// Make a key that signs bundles, releases and configurations.
///
/// ssh-keygen makes it (ed25519) and asks for its passphrase. Prints the line for the files of trusted keys of all who
/// shall believe its signatures. Never overwrites anything.
///
/// Example: cargo xtask keygen ~/keys/release --name release@example.org
#[derive(Args, Debug)]
pub struct Keygen {
    /// The private key's file; the public key goes to FILE.pub
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Who signs with it, as `verify` shall say [default: the file's name]
    #[arg(long, value_name = "PRINCIPAL", value_parser = principal)]
    pub name: Option<String>,
    /// Do not protect the key: whoever reads the file can sign
    #[arg(long)]
    pub no_passphrase: bool,
}

fn principal(text: &str) -> Result<String, String> {
    if is_principals(text) && !text.contains(',') {
        Ok(text.to_owned())
    } else {
        Err("a principal holds A-Z a-z 0-9 @ . _ + - only".to_owned())
    }
}
