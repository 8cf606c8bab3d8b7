//! Hypercalls: which there are, what they take and give, and what each partition may ask for
//! (ePAPR 1.1 §7.4, Topaz's `fsl_hcalls.h`).

use super::partition::{Requester, Start};
use super::pic::{SPURIOUS, Settings, Source};
use super::{Hypervisor, Who};
use crate::handles::{self, Local};
use citrine_formats::addr::GuestPhys;

/// What a hypercall returns in r3; success is 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// Nothing could be done now.
    Again = 4,
    /// An argument is wrong.
    Invalid = 8,
    /// The hypervisor contradicts itself.
    Internal = 9,
    /// The object is in another state.
    InvalidState = 11,
    /// There is no such hypercall.
    Unimplemented = 12,
}

/// Most bytes that one hypercall moves between a guest's registers and a byte channel.
const MAX_BYTES: usize = 16;

/// The general purpose registers of the caller.
type Registers = [u32; 32];
type Done = Result<(), Status>;

/// Tokens of vendor 1, ePAPR.
mod epapr {
    pub const BYTE_CHANNEL_SEND: u32 = 1;
    pub const BYTE_CHANNEL_RECEIVE: u32 = 2;
    pub const BYTE_CHANNEL_POLL: u32 = 3;
    pub const INT_SET_CONFIG: u32 = 4;
    pub const INT_GET_CONFIG: u32 = 5;
    pub const INT_SET_MASK: u32 = 6;
    pub const INT_GET_MASK: u32 = 7;
    pub const INT_IACK: u32 = 9;
    pub const INT_EOI: u32 = 10;
}

/// Tokens of vendor 2, Freescale.
mod fsl {
    pub const PARTITION_RESTART: u32 = 4;
    pub const PARTITION_GET_STATUS: u32 = 5;
    pub const PARTITION_START: u32 = 6;
    pub const PARTITION_STOP: u32 = 7;
}

impl Hypervisor<'_> {
    /// Serves a hypercall: the token is in r11, arguments from r3 on; r3 becomes the status and r4 and the
    /// following the results. Nothing else changes.
    ///
    /// Only for `sc 1` of a guest's kernel. What its user programs do with `sc 1` is a program interrupt.
    pub fn hypercall(&mut self, who: Who, gpr: &mut Registers) {
        let status = self.dispatch(who, gpr);
        gpr[3] = status.map_or_else(|status| status as u32, |()| 0);
    }

    fn dispatch(&mut self, who: Who, gpr: &mut Registers) -> Done {
        // The top bit of the vendor is not looked at, and vendor 0 is ePAPR as well.
        let (vendor, number) = (gpr[11] >> 16 & 0x7fff, gpr[11] & 0xffff);
        match (vendor, number) {
            (0 | 1, epapr::BYTE_CHANNEL_SEND) => self.channel_send(who, gpr),
            (0 | 1, epapr::BYTE_CHANNEL_RECEIVE) => self.channel_receive(who, gpr),
            (0 | 1, epapr::BYTE_CHANNEL_POLL) => self.channel_poll(who, gpr),
            (0 | 1, epapr::INT_SET_CONFIG) => self.int_set_config(who, gpr),
            (0 | 1, epapr::INT_GET_CONFIG) => self.int_get_config(who, gpr),
            (0 | 1, epapr::INT_SET_MASK) => self.int_set_mask(who, gpr),
            (0 | 1, epapr::INT_GET_MASK) => self.int_get_mask(who, gpr),
            (0 | 1, epapr::INT_IACK) => self.int_iack(who, gpr),
            (0 | 1, epapr::INT_EOI) => self.int_eoi(who, gpr),
            (0 | 1, _) => Err(Status::Unimplemented),
            // Topaz takes every other vendor for its own.
            (_, fsl::PARTITION_RESTART) => self.partition_restart(who, gpr),
            (_, fsl::PARTITION_GET_STATUS) => self.partition_get_status(who, gpr),
            (_, fsl::PARTITION_START) => self.partition_start(who, gpr),
            (_, fsl::PARTITION_STOP) => self.partition_stop(who, gpr),
            _ => Err(Status::Unimplemented),
        }
    }

    /// The place of a byte channel in the caller's configuration.
    fn channel(&self, who: Who, handle: u32) -> Result<usize, Status> {
        match Local::from_number(handle, self.channel_count(who.partition)) {
            Some(Local::Channel(channel)) => Ok(channel),
            _ => Err(Status::Invalid),
        }
    }

    fn source(&self, who: Who, handle: u32) -> Result<Source, Status> {
        Source::from_handle(handle, self.channel_count(who.partition)).ok_or(Status::Invalid)
    }

    /// The partition that the caller may control by this handle: itself, or one that it manages.
    fn target(&self, who: Who, handle: u32) -> Result<usize, Status> {
        let own = handle == handles::SELF || handle == handles::partition(who.partition as u32);
        if own {
            return Ok(who.partition);
        }
        let index = handles::partition_index(handle).and_then(|index| usize::try_from(index).ok());
        index.filter(|index| self.manages(who.partition, *index)).ok_or(Status::Invalid)
    }

    fn channel_send(&mut self, who: Who, gpr: &mut Registers) -> Done {
        let count = usize::try_from(gpr[4]).unwrap_or(usize::MAX);
        let channel = self.channel(who, gpr[3])?;
        let mut bytes = [0; MAX_BYTES];
        for (four, register) in bytes.as_chunks_mut().0.iter_mut().zip([gpr[5], gpr[6], gpr[7], gpr[8]]) {
            *four = register.to_be_bytes();
        }
        let bytes = bytes.get(..count).ok_or(Status::Invalid)?;
        let sent = self.send(who.partition, channel, bytes);
        gpr[4] = sent as u32;
        if sent == 0 && count != 0 { Err(Status::Again) } else { Ok(()) }
    }

    fn channel_receive(&mut self, who: Who, gpr: &mut Registers) -> Done {
        let count = usize::try_from(gpr[4]).unwrap_or(usize::MAX).min(MAX_BYTES);
        let channel = self.channel(who, gpr[3])?;
        let mut bytes = [0; MAX_BYTES];
        let received = self.receive_from(who.partition, channel, bytes.get_mut(..count).unwrap_or(&mut []));
        gpr[4] = received as u32;
        for (register, four) in gpr.iter_mut().skip(5).zip(bytes.as_chunks().0) {
            *register = u32::from_be_bytes(*four);
        }
        Ok(())
    }

    fn channel_poll(&mut self, who: Who, gpr: &mut Registers) -> Done {
        let channel = self.channel(who, gpr[3])?;
        let (available, room) = self.poll(who.partition, channel);
        (gpr[4], gpr[5]) = (available as u32, room as u32);
        Ok(())
    }

    fn int_set_config(&mut self, who: Who, gpr: &mut Registers) -> Done {
        let source = self.source(who, gpr[3])?;
        let vcpu = usize::try_from(gpr[6]).unwrap_or(usize::MAX);
        let settings = Settings { config: gpr[4], priority: gpr[5], vcpu };
        self.with_pic(who.partition, |pic| pic.set(source, settings))
    }

    fn int_get_config(&mut self, who: Who, gpr: &mut Registers) -> Done {
        let source = self.source(who, gpr[3])?;
        let settings = self.pic(who.partition)?.settings(source)?;
        (gpr[4], gpr[5], gpr[6]) = (settings.config, settings.priority, settings.vcpu as u32);
        Ok(())
    }

    fn int_set_mask(&mut self, who: Who, gpr: &mut Registers) -> Done {
        let (source, masked) = (self.source(who, gpr[3])?, gpr[4] != 0);
        self.with_pic(who.partition, |pic| pic.set_mask(source, masked))
    }

    fn int_get_mask(&mut self, who: Who, gpr: &mut Registers) -> Done {
        let source = self.source(who, gpr[3])?;
        gpr[4] = u32::from(self.pic(who.partition)?.is_masked(source)?);
        Ok(())
    }

    fn int_iack(&mut self, who: Who, gpr: &mut Registers) -> Done {
        if gpr[3] != 0 {
            return Err(Status::Invalid);
        }
        if self.pic(who.partition)?.has_external_proxy() {
            return Err(Status::InvalidState);
        }
        let source = self.acknowledge(who);
        gpr[4] = source.map_or(SPURIOUS, Source::handle);
        Ok(())
    }

    fn int_eoi(&mut self, who: Who, gpr: &mut Registers) -> Done {
        let source = self.source(who, gpr[3])?;
        self.with_pic(who.partition, |pic| pic.end(source))
    }

    fn partition_get_status(&mut self, who: Who, gpr: &mut Registers) -> Done {
        let target = self.target(who, gpr[3])?;
        gpr[4] = self.state(target).ok_or(Status::Internal)? as u32;
        Ok(())
    }

    fn partition_start(&mut self, who: Who, gpr: &mut Registers) -> Done {
        let target = self.target(who, gpr[3])?;
        let start = if gpr[5] == 0 { Start::Entry(GuestPhys(u64::from(gpr[4]))) } else { Start::Images };
        self.start(target, start).map_err(|_| Status::InvalidState)
    }

    fn partition_stop(&mut self, who: Who, gpr: &mut Registers) -> Done {
        let target = self.target(who, gpr[3])?;
        self.stop(target, requester(who, target)).map_err(|_| Status::InvalidState)
    }

    fn partition_restart(&mut self, who: Who, gpr: &mut Registers) -> Done {
        let target = self.target(who, gpr[3])?;
        self.restart(target, requester(who, target)).map_err(|_| Status::InvalidState)
    }
}

const fn requester(who: Who, target: usize) -> Requester {
    if who.partition == target { Requester::Own } else { Requester::Manager }
}
