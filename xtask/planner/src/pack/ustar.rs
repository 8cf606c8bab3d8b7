//! Writes the archive: the few ustar fields that `docs/formats.md` allows.
//!
//! The headers are the `tar` crate's. The bytes go past it, since its `append` copies through a small buffer
//! what here lies in memory already.

use std::borrow::Cow;
use std::io::{self, Write};

use citrine_formats::manifest::{FILE_NAME, Part, signature_name};

use super::Assembled;

/// Length of a block of the archive in bytes.
const BLOCK: usize = 512;
/// What follows the last file.
const END: usize = 2 * BLOCK;

/// Streams the bundle into `to`: the manifest, `signatures` (the text of each signature file, in order),
/// the parts, and two blocks of zeros.
///
/// # Errors
/// What writing returns.
pub fn write_tar(to: &mut dyn Write, bundle: &Assembled<'_>, signatures: &[String]) -> io::Result<()> {
    write_files(to, bundle, bundle.files(signatures))?;
    to.write_all(&[0; END])
}

/// The beginning of what [`write_tar`] writes, up to the first part: it is different for every bundle.
pub fn tar_head(bundle: &Assembled<'_>, signatures: &[String]) -> Vec<u8> {
    let mut head = Vec::new();
    let files = bundle.files(signatures).take(1 + signatures.len());
    write_files(&mut head, bundle, files).expect("a vector takes all, and the names fit a header");
    head
}

/// How many bytes [`write_tar`] writes.
pub fn tar_len(bundle: &Assembled<'_>, signatures: &[String]) -> u64 {
    let len = |pieces: [&[u8]; 2]| (pieces[0].len() + pieces[1].len()) as u64;
    let files = bundle.files(signatures);
    files.map(|(_, pieces)| BLOCK as u64 + len(pieces).next_multiple_of(BLOCK as u64)).sum::<u64>() + END as u64
}

fn write_files<'f>(
    to: &mut dyn Write,
    bundle: &Assembled<'_>,
    files: impl Iterator<Item = (Cow<'f, str>, [&'f [u8]; 2])>,
) -> io::Result<()> {
    for (name, pieces) in files {
        let len: usize = pieces.iter().map(|piece| piece.len()).sum();
        to.write_all(header(&name, len as u64, bundle.manifest.source_date_epoch)?.as_bytes())?;
        for piece in pieces {
            to.write_all(piece)?;
        }
        to.write_all(&[0; BLOCK][..len.next_multiple_of(BLOCK) - len])?;
    }
    Ok(())
}

/// Writes a bundle with other signatures from the parts of the one that is being read.
pub struct Rewriter<'w> {
    to: &'w mut dyn Write,
    time: u32,
    /// Bytes of the current part that are still to come.
    left: u64,
}

impl<'w> Rewriter<'w> {
    /// Writes the manifest and the signatures.
    ///
    /// # Errors
    /// What writing returns.
    pub fn new(to: &'w mut dyn Write, manifest: &[u8], signatures: &[String], time: u32) -> io::Result<Self> {
        let texts = signatures.iter().enumerate().map(|(index, text)| (signature_name(index), text.as_bytes()));
        for (name, bytes) in std::iter::once((FILE_NAME.to_owned(), manifest)).chain(texts) {
            to.write_all(header(&name, bytes.len() as u64, time)?.as_bytes())?;
            to.write_all(bytes)?;
            to.write_all(padding(bytes.len() as u64))?;
        }
        Ok(Self { to, time, left: 0 })
    }

    /// Takes the next bytes of a part, as [`crate::verify::Visit`] brings them.
    ///
    /// # Errors
    /// What writing returns.
    pub fn piece(&mut self, part: &Part, bytes: &[u8]) -> io::Result<()> {
        if self.left == 0 {
            self.to.write_all(header(&part.name, part.size, self.time)?.as_bytes())?;
            self.left = part.size;
        }
        self.to.write_all(bytes)?;
        self.left = self.left.saturating_sub(bytes.len() as u64);
        if self.left == 0 { self.to.write_all(padding(part.size)) } else { Ok(()) }
    }

    /// Writes the archive's end.
    ///
    /// # Errors
    /// What writing returns.
    pub fn finish(self) -> io::Result<()> {
        self.to.write_all(&[0; END])
    }
}

/// What fills up the last block of a file of this length.
fn padding(len: u64) -> &'static [u8] {
    let used = (len % BLOCK as u64) as usize;
    if used == 0 { &[] } else { &[0; BLOCK][used..] }
}

/// A header with every field set: `HeaderMode` would bring a time of its own.
fn header(name: &str, size: u64, time: u32) -> io::Result<tar::Header> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name)?;
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header.set_mtime(u64::from(time));
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    Ok(header)
}
