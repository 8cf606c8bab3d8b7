//! [`Writer`]: a flattened device tree, written from front to back into a buffer of the caller's.
//!
//! The structure block grows from the front of the buffer and the names of properties from its end, each
//! name once; [`Writer::finish`] moves them together. Layout: Devicetree Specification 0.4 §5.

use core::fmt;

use super::{HEADER_LEN, MAGIC};

/// The structure block begins behind the header and an empty list of reserved memory.
const STRUCTURE: usize = HEADER_LEN + 16;
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const END: u32 = 9;

/// The tree does not fit into the buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the device tree does not fit into its buffer")
    }
}

impl core::error::Error for Full {}

/// A flattened tree in the making. Calls must nest as nodes do, properties before children; names are
/// written as they are.
#[derive(Debug)]
pub struct Writer<'b> {
    buffer: &'b mut [u8],
    /// Where the structure goes on.
    at: usize,
    /// Where the names begin.
    names: usize,
}

impl<'b> Writer<'b> {
    /// Begins an empty tree; what the buffer holds is overwritten.
    ///
    /// # Errors
    /// [`Full`] when not even an empty tree fits, or the tree could become longer than its header can say.
    pub fn new(buffer: &'b mut [u8]) -> Result<Self, Full> {
        let names = buffer.len();
        if u32::try_from(names).is_err() {
            return Err(Full);
        }
        buffer.get_mut(..STRUCTURE).ok_or(Full)?.fill(0);
        Ok(Self { buffer, at: STRUCTURE, names })
    }

    /// Begins a node; the first is the root, whose name is empty.
    ///
    /// # Errors
    /// [`Full`].
    pub fn begin(&mut self, name: &str) -> Result<(), Full> {
        self.word(BEGIN_NODE)?;
        self.bytes(name.as_bytes())?;
        self.bytes(&[0])?;
        self.pad()
    }

    /// Adds a property, whose value is given in pieces, to the node that was begun last.
    ///
    /// # Errors
    /// [`Full`].
    pub fn property(&mut self, name: &str, value: &[&[u8]]) -> Result<(), Full> {
        let len = value.iter().try_fold(0usize, |len, piece| len.checked_add(piece.len())).ok_or(Full)?;
        let name = self.name(name)?;
        self.word(PROPERTY)?;
        self.word(u32::try_from(len).map_err(|_| Full)?)?;
        self.word(name)?;
        value.iter().try_for_each(|piece| self.bytes(piece))?;
        self.pad()
    }

    /// Ends the node that was begun last.
    ///
    /// # Errors
    /// [`Full`].
    pub fn end(&mut self) -> Result<(), Full> {
        self.word(END_NODE)
    }

    /// Ends the tree; its length in bytes. `boot_cpu` is the `reg` of the CPU that is entered.
    ///
    /// # Errors
    /// [`Full`].
    pub fn finish(mut self, boot_cpu: u32) -> Result<usize, Full> {
        self.word(END)?;
        let names_len = self.buffer.len() - self.names;
        self.settle_names(names_len as u32);
        self.buffer.copy_within(self.names.., self.at);
        let total = self.at + names_len;
        let header = [
            MAGIC,
            total as u32,
            STRUCTURE as u32,
            self.at as u32,
            HEADER_LEN as u32,
            17,
            16,
            boot_cpu,
            names_len as u32,
            (self.at - STRUCTURE) as u32,
        ];
        for (slot, word) in self.buffer.chunks_exact_mut(4).zip(header) {
            slot.copy_from_slice(&word.to_be_bytes());
        }
        Ok(total)
    }

    /// Turns each property's distance of its name from the buffer's end, which is all that is known while
    /// names are added in front, into the offset from the first name.
    fn settle_names(&mut self, names_len: u32) {
        let mut at = STRUCTURE;
        while let Some(token) = self.read(at) {
            at = match token {
                BEGIN_NODE => {
                    let name = self.buffer.get(at + 4..).unwrap_or_default();
                    let len = name.iter().position(|byte| *byte == 0).unwrap_or(0);
                    (at + 4 + len + 1).next_multiple_of(4)
                }
                PROPERTY => {
                    let (len, distance) = (self.read(at + 4).unwrap_or(0), self.read(at + 8).unwrap_or(0));
                    if let Some(slot) = self.buffer.get_mut(at + 8..at + 12) {
                        slot.copy_from_slice(&names_len.wrapping_sub(distance).to_be_bytes());
                    }
                    (at + 12 + len as usize).next_multiple_of(4)
                }
                END_NODE => at + 4,
                _ => return,
            };
        }
    }

    fn read(&self, at: usize) -> Option<u32> {
        super::word(self.buffer.get(..self.at)?, at)
    }

    /// The distance of a name from the buffer's end; it is added when no name, and no name's tail, is the same.
    fn name(&mut self, name: &str) -> Result<u32, Full> {
        let wanted = name.len() + 1;
        let names = self.buffer.get(self.names..).unwrap_or_default();
        let found = names
            .windows(wanted)
            .position(|window| window.split_last().is_some_and(|(last, text)| *last == 0 && text == name.as_bytes()));
        let at = match found {
            Some(offset) => self.names + offset,
            None => {
                let at = self.names.checked_sub(wanted).filter(|at| *at >= self.at).ok_or(Full)?;
                let slot = self.buffer.get_mut(at..self.names).ok_or(Full)?;
                let (text, zero) = slot.split_at_mut(name.len());
                text.copy_from_slice(name.as_bytes());
                zero.fill(0);
                self.names = at;
                at
            }
        };
        // The buffer is no longer than a word can say.
        Ok((self.buffer.len() - at) as u32)
    }

    fn word(&mut self, word: u32) -> Result<(), Full> {
        self.bytes(&word.to_be_bytes())
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), Full> {
        let end = self.at.checked_add(bytes.len()).filter(|end| *end <= self.names).ok_or(Full)?;
        self.buffer.get_mut(self.at..end).ok_or(Full)?.copy_from_slice(bytes);
        self.at = end;
        Ok(())
    }

    fn pad(&mut self) -> Result<(), Full> {
        let zeros = self.at.next_multiple_of(4) - self.at;
        self.bytes([0; 4].get(..zeros).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::fdt::{Place, Property as _, find, open};
    use std::vec;
    use std::vec::Vec;

    fn write(buffer: &mut [u8]) -> Result<usize, Full> {
        let mut tree = Writer::new(buffer)?;
        tree.begin("")?;
        tree.property("compatible", &[b"a\0", b"bc\0"])?;
        tree.property("reg", &[])?;
        tree.begin("cpus")?;
        tree.begin("cpu@0")?;
        tree.property("reg", &[&[1, 2, 3, 4]])?;
        tree.property("linux,phandle", &[&[0, 0, 0, 9]])?;
        tree.property("phandle", &[&[0, 0, 0, 9]])?;
        tree.end()?;
        tree.end()?;
        tree.begin("chosen")?;
        tree.end()?;
        tree.end()?;
        tree.finish(7)
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut buffer = vec![0xff; 1000];
        let len = write(&mut buffer).unwrap();
        buffer.truncate(len);
        let tree = open(&buffer).unwrap();
        assert_eq!(buffer[28..32], [0, 0, 0, 7]);
        let cpu = find(tree, "/cpus/cpu").unwrap();
        assert_eq!((cpu.value("reg"), cpu.phandle()), (Some(&[1, 2, 3, 4][..]), Some(9)));
        assert_eq!(Place::root(tree).value("compatible"), Some(&b"a\0bc\0"[..]));
        assert_eq!(Place::root(tree).value("reg"), Some(&[][..]));
        let names: Vec<_> = Place::root(tree).walk().map(|place| place.name()).collect();
        assert_eq!(names, ["", "cpus", "cpu@0", "chosen"]);
        let properties: Vec<_> = cpu.properties().map(|property| std::string::String::from(property.name())).collect();
        assert_eq!(properties, ["reg", "linux,phandle", "phandle"]);
    }

    #[test]
    fn each_name_is_there_once() {
        let mut buffer = vec![0; 1000];
        let len = write(&mut buffer).unwrap();
        let (strings, strings_len) = (crate::fdt::word(&buffer, 12).unwrap(), crate::fdt::word(&buffer, 32).unwrap());
        assert_eq!((strings + strings_len) as usize, len);
        // `phandle` is the end of `linux,phandle`.
        assert_eq!(&buffer[strings as usize..len], b"linux,phandle\0reg\0compatible\0");
    }

    #[test]
    fn a_buffer_that_is_too_small_is_an_error_at_every_length() {
        let need = write(&mut vec![0; 1000]).unwrap();
        for len in 0..need {
            assert_eq!(write(&mut vec![0; len]), Err(Full), "{len} bytes");
        }
        assert_eq!(write(&mut vec![0; need]), Ok(need));
    }
}
