//! Device trees for tests, written by hand so that damaged ones can be made as well (feature `testing`).

extern crate std;

use std::vec::Vec;

use crate::fdt::{HEADER_LEN, MAGIC};

/// A flattened tree in the making.
#[derive(Default, Debug)]
pub struct Builder {
    structure: Vec<u8>,
    strings: Vec<u8>,
}

impl Builder {
    /// Begins a node.
    pub fn begin(&mut self, name: &str) -> &mut Self {
        self.structure.extend(1u32.to_be_bytes());
        self.structure.extend(name.bytes());
        self.structure.push(0);
        self.pad()
    }

    /// Ends the node begun last.
    pub fn end(&mut self) -> &mut Self {
        self.structure.extend(2u32.to_be_bytes());
        self
    }

    /// Adds a property to the node begun last.
    pub fn prop(&mut self, name: &str, value: &[u8]) -> &mut Self {
        let words = [3, value.len() as u32, self.strings.len() as u32];
        words.iter().for_each(|word| self.structure.extend(word.to_be_bytes()));
        self.structure.extend(value);
        self.strings.extend(name.bytes());
        self.strings.push(0);
        self.pad()
    }

    /// Adds a property of 32-bit cells.
    pub fn cells(&mut self, name: &str, cells: &[u32]) -> &mut Self {
        let value: Vec<u8> = cells.iter().flat_map(|cell| cell.to_be_bytes()).collect();
        self.prop(name, &value)
    }

    /// Adds a property that is one string.
    pub fn text(&mut self, name: &str, text: &str) -> &mut Self {
        self.prop(name, &[text.as_bytes(), b"\0"].concat())
    }

    fn pad(&mut self) -> &mut Self {
        self.structure.resize(self.structure.len().next_multiple_of(4), 0);
        self
    }

    /// The tree as bytes.
    pub fn finish(&self) -> Vec<u8> {
        let structure_at = HEADER_LEN as u32 + 16;
        let strings_at = structure_at + self.structure.len() as u32 + 4;
        let total = strings_at + self.strings.len() as u32;
        let header = [
            MAGIC,
            total,
            structure_at,
            strings_at,
            HEADER_LEN as u32,
            17,
            16,
            0,
            self.strings.len() as u32,
            self.structure.len() as u32 + 4,
        ];
        let mut bytes: Vec<u8> = header.iter().flat_map(|word| word.to_be_bytes()).collect();
        bytes.extend([0; 16]);
        bytes.extend(&self.structure);
        bytes.extend(9u32.to_be_bytes());
        bytes.extend(&self.strings);
        bytes
    }
}
