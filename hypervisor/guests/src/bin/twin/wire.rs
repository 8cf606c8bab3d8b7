//! Words over the byte channel between the twins.

use citrine_guests::{cpu, hypercall};

/// The channel has failed, or the other one is silent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Silence;

/// One end of the channel.
#[derive(Debug)]
pub struct Wire {
    handle: u32,
    /// Ticks of the timebase after which the other one is taken to be dead.
    patience: u64,
    buffer: [u8; hypercall::MOST],
    /// Of the buffer: what is still to be read, and where that ends.
    from: usize,
    end: usize,
}

impl Wire {
    /// The channel with this handle.
    pub const fn new(handle: u32, patience: u64) -> Self {
        Self { handle, patience, buffer: [0; hypercall::MOST], from: 0, end: 0 }
    }

    /// Sends words.
    ///
    /// # Errors
    /// Nobody takes them.
    pub fn send(&self, words: impl Iterator<Item = u32>) -> Result<(), Silence> {
        let mut bytes = [0; hypercall::MOST];
        let mut used = 0;
        for word in words {
            if let Some(room) = bytes.get_mut(used..used + 4) {
                room.copy_from_slice(&word.to_be_bytes());
            }
            used += 4;
            if used == bytes.len() {
                self.send_bytes(&bytes)?;
                used = 0;
            }
        }
        self.send_bytes(bytes.get(..used).unwrap_or_default())
    }

    fn send_bytes(&self, mut rest: &[u8]) -> Result<(), Silence> {
        let begun = cpu::timebase();
        while !rest.is_empty() {
            let taken = hypercall::send(self.handle, rest).map_err(|_| Silence)?;
            rest = rest.get(taken..).unwrap_or_default();
            if taken == 0 && cpu::timebase() - begun > self.patience {
                return Err(Silence);
            }
        }
        Ok(())
    }

    /// The next word.
    ///
    /// # Errors
    /// None comes.
    pub fn receive(&mut self) -> Result<u32, Silence> {
        let mut word = [0; 4];
        for byte in &mut word {
            *byte = self.byte()?;
        }
        Ok(u32::from_be_bytes(word))
    }

    fn byte(&mut self) -> Result<u8, Silence> {
        if self.from == self.end {
            let begun = cpu::timebase();
            self.from = 0;
            self.end = 0;
            while self.end == 0 {
                self.end = hypercall::receive(self.handle, &mut self.buffer).map_err(|_| Silence)?;
                if cpu::timebase() - begun > self.patience {
                    return Err(Silence);
                }
            }
        }
        let byte = self.buffer.get(self.from).copied().unwrap_or(0);
        self.from += 1;
        Ok(byte)
    }
}
