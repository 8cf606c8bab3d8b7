//! [`inspect`]: what the planner must know of an image's real bytes, read as a hostile input.

use std::io::{self, Read};

use citrine_formats::addr::Size;
use citrine_formats::manifest::Role;
use citrine_formats::uimage::{self, Arch, Compression, HEADER_LEN, Image, Kind};
use serde::{Deserialize, Serialize};

use crate::diag::{Code, Diagnostic, Label, Result};

/// Damaged: too short, or a CRC that does not hold.
pub const DAMAGED: Code = Code::new('I', 101);
/// For another architecture, operating system or purpose.
pub const WRONG_KIND: Code = Code::new('I', 102);
/// Compressed in a way that nobody on the way unpacks.
pub const WRONG_COMPRESSION: Code = Code::new('I', 103);

/// No image unpacks to more than this; a stream that does is an attack or a mistake.
pub const MAX_UNPACKED: u64 = 1 << 30;

/// What is known of a part's real bytes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageFacts {
    /// Bytes as stored, header included.
    pub size: u64,
    /// Bytes after unpacking, without a header: what lies in memory.
    pub unpacked: u64,
    /// Bytes in memory with zeroed data, where the builder knows them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
}

impl ImageFacts {
    /// Facts of a file that is loaded and used as it is.
    pub fn plain(size: u64) -> Self {
        Self { size, unpacked: size, memory: None }
    }

    /// Bytes of memory that the running image needs at least.
    pub fn in_memory(&self) -> u64 {
        self.memory.unwrap_or(0).max(self.unpacked)
    }
}

/// Checks `bytes` of `file` as an image of `role`, and measures it.
///
/// Kernels, root file systems and hypervisors are U-Boot images for PowerPC; both CRCs are checked and a
/// gzip payload is unpacked once, without keeping it, to learn its size.
///
/// # Errors
/// [`DAMAGED`], [`WRONG_KIND`] or [`WRONG_COMPRESSION`].
pub fn inspect(file: &str, role: Role, bytes: &[u8]) -> Result<ImageFacts> {
    let wanted = match role {
        Role::Kernel | Role::Hypervisor => Kind::Kernel,
        Role::Rootfs => Kind::Ramdisk,
        _ => return Ok(ImageFacts::plain(bytes.len() as u64)),
    };
    let image = Image::verify(bytes).map_err(|error| damaged(file, wanted, error))?;
    let header = image.header;
    if bytes.len() as u64 != header.total_len() {
        return Err(Box::new(
            Diagnostic::error(
                DAMAGED,
                format!(
                    "{file} goes on behind its payload; bytes too many: {}",
                    bytes.len() as u64 - header.total_len()
                ),
            )
            .primary(Label::file(file, "this image"))
            .help("copy or build it again; nothing may follow the payload"),
        ));
    }
    if header.arch != Arch::PowerPc || header.kind != wanted {
        return Err(Box::new(
            Diagnostic::error(
                WRONG_KIND,
                format!("{file} is marked as `{} {}`, not as `powerpc {wanted}`", header.arch, header.kind),
            )
            .primary(Label::file(file, "this image"))
            .help(format!("give the image that was built for the board: `mkimage -A ppc -T {wanted} ...`")),
        ));
    }
    let unpacked = match (header.compression, wanted) {
        (Compression::None, _) => u64::from(header.size),
        (Compression::Gzip, _) => unpacked_size(file, image.payload)?,
        (other, _) => {
            return Err(Box::new(
                Diagnostic::error(WRONG_COMPRESSION, format!("{file} is compressed with {other}"))
                    .primary(Label::file(file, "this image"))
                    .help(
                        "compress it with gzip, or not at all: neither U-Boot nor the hypervisor unpacks anything else",
                    ),
            ));
        }
    };
    Ok(ImageFacts { size: bytes.len() as u64, unpacked, memory: None })
}

fn damaged(file: &str, wanted: Kind, error: uimage::Error) -> Box<Diagnostic> {
    let help = match error {
        uimage::Error::NotUimage { .. } => {
            format!("wrap it first: `mkimage -A ppc -O linux -T {wanted} -C gzip -d FILE {wanted}.uImage`")
        }
        _ => "copy or build it again".to_owned(),
    };
    let wrong = matches!(error, uimage::Error::NotUimage { .. });
    let code = if wrong { WRONG_KIND } else { DAMAGED };
    Box::new(Diagnostic::error(code, format!("{file}: {error}")).primary(Label::file(file, "this image")).help(help))
}

/// Unpacks one gzip member to nowhere and counts; trailing bytes and a wrong CRC are errors.
fn unpacked_size(file: &str, payload: &[u8]) -> Result<u64> {
    let mut decoder = flate2::bufread::GzDecoder::new(payload);
    let copied = io::copy(&mut decoder.by_ref().take(MAX_UNPACKED + 1), &mut io::sink());
    let complaint = match copied {
        Err(error) => format!("{file}: its gzip payload is damaged: {error}"),
        Ok(count) if count > MAX_UNPACKED => {
            format!("{file} unpacks to more than {}", Size(MAX_UNPACKED))
        }
        Ok(count) => {
            let rest = decoder.into_inner();
            if rest.is_empty() {
                return Ok(count);
            }
            format!("{file}: {} bytes follow its first gzip member; U-Boot and the hypervisor stop there", rest.len())
        }
    };
    Err(Box::new(
        Diagnostic::error(DAMAGED, complaint)
            .primary(Label::file(file, "this image"))
            .fact("payload-at", HEADER_LEN)
            .help("copy or build it again, with one gzip member"),
    ))
}
