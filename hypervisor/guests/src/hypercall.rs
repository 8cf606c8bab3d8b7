//! Hypercalls (ePAPR 1.1 §7): a token in r11, arguments from r3, a status in r3.

/// ePAPR's own calls.
const EPAPR: u32 = 1 << 16;
/// EV_BYTE_CHANNEL_SEND.
const BYTE_CHANNEL_SEND: u32 = EPAPR | 1;
/// EV_BYTE_CHANNEL_RECEIVE.
const BYTE_CHANNEL_RECEIVE: u32 = EPAPR | 2;
/// EV_BYTE_CHANNEL_POLL.
const BYTE_CHANNEL_POLL: u32 = EPAPR | 3;
/// EV_INT_SET_CONFIG.
const INT_SET_CONFIG: u32 = EPAPR | 4;
/// EV_INT_SET_MASK.
const INT_SET_MASK: u32 = EPAPR | 6;
/// EV_INT_EOI.
const INT_EOI: u32 = EPAPR | 10;

/// Freescale's calls.
const FREESCALE: u32 = 2 << 16;
/// FH_PARTITION_RESTART.
const PARTITION_RESTART: u32 = FREESCALE | 4;
/// FH_PARTITION_GET_STATUS.
const PARTITION_GET_STATUS: u32 = FREESCALE | 5;
/// FH_PARTITION_START.
const PARTITION_START: u32 = FREESCALE | 6;
/// FH_PARTITION_STOP.
const PARTITION_STOP: u32 = FREESCALE | 7;

/// The status of a call that has done its work.
pub const OK: u32 = 0;
/// The status of a call that may work later: a full channel.
pub const AGAIN: u32 = 4;
/// The status of a call with a wrong argument.
pub const INVALID: u32 = 8;
/// The status of a call that its object is in no state for.
pub const INVALID_STATE: u32 = 11;

/// What a partition does, as its manager reads it.
pub mod state {
    /// No CPU executes it.
    pub const STOPPED: u32 = 0;
    /// It has been entered.
    pub const RUNNING: u32 = 1;
}
/// Most bytes that one call moves.
pub const MOST: usize = 16;

/// r3 to r11.
pub type Registers = [u32; 9];

#[cfg(target_arch = "powerpc")]
unsafe extern "C" {
    fn citrine_guest_hypercall(registers: *mut Registers);
}

/// Calls the hypervisor with these registers, and returns what they became.
pub fn call(mut registers: Registers) -> Registers {
    #[cfg(target_arch = "powerpc")]
    // SAFETY: the call reads and writes this array. No call of this guest names an address of memory that Rust
    // knows of.
    unsafe {
        citrine_guest_hypercall(&mut registers);
    }
    #[cfg(not(target_arch = "powerpc"))]
    {
        registers[0] = OK;
    }
    registers
}

fn simple(token: u32, arguments: [u32; 4]) -> Registers {
    let [a, b, c, d] = arguments;
    call([a, b, c, d, 0, 0, 0, 0, token])
}

/// Sends at most [`MOST`] bytes; returns how many were taken.
///
/// # Errors
/// The status, when it is neither [`OK`] nor [`AGAIN`].
pub fn send(handle: u32, bytes: &[u8]) -> Result<usize, u32> {
    let bytes = bytes.get(..MOST).unwrap_or(bytes);
    let mut data = [0; MOST];
    for (to, from) in data.iter_mut().zip(bytes) {
        *to = *from;
    }
    let [a, b, c, d] = words(&data);
    let result = call([handle, bytes.len() as u32, a, b, c, d, 0, 0, BYTE_CHANNEL_SEND]);
    match result[0] {
        OK => Ok((result[1] as usize).min(bytes.len())),
        AGAIN => Ok(0),
        status => Err(status),
    }
}

/// Receives what is there, at most [`MOST`] bytes; returns how many.
///
/// # Errors
/// The status, when it is not [`OK`].
pub fn receive(handle: u32, into: &mut [u8; MOST]) -> Result<usize, u32> {
    let result = simple(BYTE_CHANNEL_RECEIVE, [handle, MOST as u32, 0, 0]);
    if result[0] != OK {
        return Err(result[0]);
    }
    for (to, from) in into.as_chunks_mut::<4>().0.iter_mut().zip(&result[2..6]) {
        *to = from.to_be_bytes();
    }
    Ok((result[1] as usize).min(MOST))
}

/// Bytes to read, and room to write.
///
/// # Errors
/// The status, when it is not [`OK`].
pub fn poll(handle: u32) -> Result<(u32, u32), u32> {
    let result = simple(BYTE_CHANNEL_POLL, [handle, 0, 0, 0]);
    if result[0] == OK { Ok((result[1], result[2])) } else { Err(result[0]) }
}

/// Configures an interrupt for virtual CPU 0 and lets it through.
///
/// # Errors
/// The status, when it is not [`OK`].
pub fn enable_interrupt(handle: u32, config: u32) -> Result<(), u32> {
    const PRIORITY: u32 = 8;
    for result in [simple(INT_SET_CONFIG, [handle, config, PRIORITY, 0]), simple(INT_SET_MASK, [handle, 0, 0, 0])] {
        if result[0] != OK {
            return Err(result[0]);
        }
    }
    Ok(())
}

/// Ends an interrupt that was taken.
pub fn end_of_interrupt(handle: u32) {
    simple(INT_EOI, [handle, 0, 0, 0]);
}

/// What a partition does: see [`state`].
///
/// # Errors
/// The status, when it is not [`OK`].
pub fn partition_state(handle: u32) -> Result<u32, u32> {
    let result = simple(PARTITION_GET_STATUS, [handle, 0, 0, 0]);
    if result[0] == OK { Ok(result[1]) } else { Err(result[0]) }
}

/// Starts a partition that is stopped: from its images, or at an address of its own with its memory as it is. The
/// status.
pub fn start_partition(handle: u32, entry: Option<u32>) -> u32 {
    simple(PARTITION_START, [handle, entry.unwrap_or(0), u32::from(entry.is_none()), 0])[0]
}

/// Stops a partition that runs. The status.
pub fn stop_partition(handle: u32) -> u32 {
    simple(PARTITION_STOP, [handle, 0, 0, 0])[0]
}

/// Stops a partition that runs, and starts it from its images. The status.
pub fn restart_partition(handle: u32) -> u32 {
    simple(PARTITION_RESTART, [handle, 0, 0, 0])[0]
}

fn words(bytes: &[u8; MOST]) -> [u32; 4] {
    let mut words = [0; 4];
    for (word, chunk) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *word = u32::from_be_bytes(*chunk);
    }
    words
}
