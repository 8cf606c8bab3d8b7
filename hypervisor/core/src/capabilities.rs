//! [`Capabilities`]: what a hypervisor can do for its partitions. A bundle may carry ours or another that takes the
//! same configuration tree, and what one of them lacks must be known before anything boots.

/// What a hypervisor can do for its partitions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capabilities {
    /// Its name.
    pub name: &'static str,
    /// Whether it gives devices of the board to partitions: their registers, their interrupts and, through the
    /// PAMU, their DMA.
    pub devices: bool,
}

impl Capabilities {
    /// This hypervisor.
    pub const CITRINE: Self = Self { name: "Citrine's hypervisor", devices: false };
    /// Freescale's Embedded Hypervisor, whose configuration tree this is.
    pub const TOPAZ: Self = Self { name: "Freescale's hypervisor", devices: true };
}
