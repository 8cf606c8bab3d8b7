//! Reads the archive: a header is the one that we would have written for that name, size and time, or it is
//! refused. So there are no links, directories, extensions, prefixes or second ways to write a number.

use std::io::{self, Read};

use super::Error;

/// Length of a block of the archive in bytes.
pub(super) const BLOCK: usize = 512;
/// What follows the last file: two blocks of zeros, then nothing.
const END: usize = 2 * BLOCK;

/// One file's header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) size: u64,
    pub(super) time: u32,
}

/// An archive being read from its beginning to its end.
pub(super) struct Archive<R> {
    input: R,
    /// Bytes read so far.
    at: u64,
    /// Bytes of the current file that are not read yet.
    left: u64,
    /// Zeros that must follow the current file.
    padding: usize,
    /// The time of every file: that of the first.
    time: Option<u32>,
}

impl<R: Read> Archive<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, at: 0, left: 0, padding: 0, time: None }
    }

    /// The header of the next file; the current one must have been read. `None` at the end of the archive,
    /// when nothing follows it.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, Error> {
        debug_assert_eq!(self.left, 0, "the current file is read first");
        let mut block = [0; BLOCK];
        let padding = std::mem::take(&mut self.padding);
        self.fill(&mut block[..padding])?;
        if block[..padding].iter().any(|&byte| byte != 0) {
            return Err(Error::Header { at: self.at, why: "the bytes that fill up the last block are not zero" });
        }
        let start = self.at;
        self.fill(&mut block)?;
        if block == [0; BLOCK] {
            self.fill(&mut block[..END - BLOCK])?;
            if block != [0; BLOCK] {
                return Err(Error::End { at: start + BLOCK as u64, why: "one block of zeros must follow another" });
            }
            return match self.read(&mut block)? {
                0 => Ok(None),
                _ => Err(Error::End { at: start + END as u64, why: "bytes follow the end of the archive" }),
            };
        }
        if start == 0 && block[257..263] != *b"ustar\0" {
            return Err(Error::NotABundle { why: "it is not a ustar archive" });
        }
        let entry = parse(&block).map_err(|why| Error::Header { at: start, why })?;
        if *self.time.get_or_insert(entry.time) != entry.time {
            return Err(Error::Header { at: start, why: "the time is not that of the first file" });
        }
        self.left = entry.size;
        // The rest of the last block.
        self.padding = (BLOCK - (entry.size % BLOCK as u64) as usize) % BLOCK;
        Ok(Some(entry))
    }

    /// The next bytes of the current file; 0 only at its end.
    pub(super) fn chunk(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if most == 0 {
            return Ok(0);
        }
        let len = self.read(&mut buffer[..most])?;
        if len == 0 {
            return Err(Error::End { at: self.at, why: "the file is cut short" });
        }
        self.left -= len as u64;
        Ok(len)
    }

    /// All bytes of the current file, which must not have more than `most`.
    pub(super) fn whole(&mut self, most: usize) -> Result<Option<Vec<u8>>, Error> {
        match usize::try_from(self.left) {
            Ok(len) if len <= most => {
                let mut bytes = vec![0; len];
                self.fill(&mut bytes)?;
                self.left = 0;
                Ok(Some(bytes))
            }
            _ => Ok(None),
        }
    }

    fn fill(&mut self, mut buffer: &mut [u8]) -> Result<(), Error> {
        while !buffer.is_empty() {
            match self.read(buffer)? {
                0 => {
                    return Err(Error::End { at: self.at, why: "the file is cut short" });
                }
                len => buffer = &mut buffer[len..],
            }
        }
        Ok(())
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        loop {
            match self.input.read(buffer) {
                Ok(len) => {
                    self.at += len as u64;
                    return Ok(len);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::Read(error)),
            }
        }
    }
}

/// Reads the three fields that may vary, and compares the block with what they make.
fn parse(block: &[u8; BLOCK]) -> Result<Entry, &'static str> {
    let name = block[..100].split(|&byte| byte == 0).next().unwrap_or_default();
    let name = std::str::from_utf8(name).map_err(|_| "the name is not ASCII")?;
    let size = octal(&block[124..135]).ok_or("the size is not eleven octal digits")?;
    let time = octal(&block[136..147])
        .and_then(|time| u32::try_from(time).ok())
        .ok_or("the time is not eleven octal digits that make 32 bits")?;
    let entry = Entry { name: name.to_owned(), size, time };
    if *block == render(&entry) {
        Ok(entry)
    } else {
        Err("a field is not as a bundle's are (regular file, mode 0644, owner 0, no name of an owner, right checksum)")
    }
}

fn octal(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |value, digit| match digit {
        b'0'..=b'7' => Some(value * 8 + u64::from(digit - b'0')),
        _ => None,
    })
}

/// The one header of a file (POSIX.1-1988, `ustar`): written here a second time, apart from the packer, so
/// that the two must agree.
fn render(entry: &Entry) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let name = entry.name.as_bytes();
    block[..name.len()].copy_from_slice(name);
    block[100..124].copy_from_slice(b"0000644\x000000000\x000000000\0");
    block[124..136].copy_from_slice(format!("{:011o}\0", entry.size).as_bytes());
    block[136..148].copy_from_slice(format!("{:011o}\0", entry.time).as_bytes());
    // The checksum is taken with its own field blank.
    block[148..156].fill(b' ');
    block[156] = b'0';
    block[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:07o}\0").as_bytes());
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader that fails first with each of these.
    struct Failing(Vec<io::ErrorKind>);

    impl Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.0.pop() {
                Some(kind) => Err(kind.into()),
                None => Ok(io::repeat(0).read(buffer).unwrap_or(0)),
            }
        }
    }

    #[test]
    fn a_read_that_a_signal_interrupted_is_repeated_and_another_failure_is_not() {
        let read = |errors: &[io::ErrorKind]| Archive::new(Failing(errors.to_vec())).read(&mut [0; 3]);
        assert!(matches!(read(&[io::ErrorKind::Interrupted; 2]), Ok(3)));
        assert!(matches!(read(&[io::ErrorKind::PermissionDenied]), Err(Error::Read(_))));
    }
}
