//! The 16550 that the boot loader has set up: text goes out, polled. Every CPU may write; the characters of
//! one call stay together unless a CPU dies in the middle of one.

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use citrine_formats::addr::TruePhys;

use crate::tlb::{Entry, PageSize, SERIAL, What, page};

/// Receive buffer and transmit holding register.
const THR: u32 = 0;
/// Interrupt enable register.
const IER: u32 = 1;
/// Interrupt identification register: both bits are set when the FIFOs, of 16 bytes, are in use.
const IIR: u32 = 2;
const IIR_FIFO: u8 = 0xc0;
const FIFO_LEN: usize = 16;
/// Interrupt enable: received data, transmit holding register empty.
const IER_RECEIVE: u8 = 0x01;
const IER_TRANSMIT: u8 = 0x02;
/// Line status register.
const LSR: u32 = 5;
/// Line status: data ready.
const LSR_DR: u8 = 0x01;
/// Line status: the transmit holding register is empty.
const LSR_THRE: u8 = 0x20;
/// How often to ask before a character is given up: a broken line must not stop the hypervisor.
const PATIENCE: u32 = 1_000_000;

/// True-physical address of the registers, for CPUs that come later; and where this is mapped, 0 for nowhere.
static HIGH: AtomicU32 = AtomicU32::new(0);
static LOW: AtomicU32 = AtomicU32::new(0);
static MAPPED: AtomicU32 = AtomicU32::new(0);
static LOCK: AtomicBool = AtomicBool::new(false);

/// Text for the serial line; to nowhere until [`open`].
#[derive(Clone, Copy, Debug)]
pub struct Serial;

/// Maps the registers at a true-physical address for this CPU and sends text there from now on.
pub fn open(registers: TruePhys) {
    HIGH.store((registers.0 >> 32) as u32, Ordering::Relaxed);
    LOW.store(registers.0 as u32, Ordering::Relaxed);
    attach();
}

/// Opens `guess` when no line is in use yet: a report that is lost helps nobody.
pub fn open_any(guess: Option<TruePhys>) {
    if let (0, Some(registers)) = (MAPPED.load(Ordering::Acquire), guess) {
        open(registers);
    }
}

/// Maps the line that is in use for this CPU too.
pub fn attach() {
    let (high, low) = (HIGH.load(Ordering::Relaxed), LOW.load(Ordering::Relaxed));
    let registers = TruePhys(u64::from(high) << 32 | u64::from(low));
    if registers == TruePhys(0) {
        return;
    }
    let (pa, offset) = page(registers, PageSize::K4);
    let entry = Entry { slot: 2, ea: SERIAL, pa, size: PageSize::K4, what: What::Device };
    let Some(mas) = entry.mas() else { return };
    // SAFETY: slot 2 and its effective address are the serial line's alone, and nobody keeps references to it.
    unsafe { crate::cpu::tlbwe(&mas) };
    MAPPED.store(SERIAL + offset, Ordering::Release);
}

impl Serial {
    fn put(self, base: u32, byte: u8) {
        let register = |index: u32| (base + index) as usize as *mut u8;
        for _ in 0..PATIENCE {
            // SAFETY: `base` is not zero, so its page is mapped, as device registers, for this CPU. Should
            // the registers straddle a page, the access ends in the exception report.
            let status = unsafe { register(LSR).read_volatile() };
            if status & LSR_THRE != 0 {
                break;
            }
        }
        // SAFETY: as above.
        unsafe { register(THR).write_volatile(byte) };
    }
}

/// The line, used byte by byte: by whoever holds the lock of what is shared, after the start.
#[derive(Debug)]
pub struct Line {
    base: u32,
}

impl Line {
    /// Maps the line in use on this CPU.
    pub fn attach() -> Option<Self> {
        attach();
        Self::attached()
    }

    /// The line in use, on a CPU that has mapped it; `None` when there is none.
    pub fn attached() -> Option<Self> {
        let base = MAPPED.load(Ordering::Acquire);
        (base != 0 && cfg!(target_arch = "powerpc")).then_some(Self { base })
    }

    fn register(&self, index: u32) -> *mut u8 {
        (self.base + index) as usize as *mut u8
    }

    fn status(&self) -> u8 {
        // SAFETY: mapped on this CPU since `attach`, as device registers.
        unsafe { self.register(LSR).read_volatile() }
    }

    /// A byte that has arrived.
    pub fn receive(&mut self) -> Option<u8> {
        // SAFETY: as in `status`.
        (self.status() & LSR_DR != 0).then(|| unsafe { self.register(THR).read_volatile() })
    }

    /// Sends what `next` gives for as long as the line takes it; whether that is all. `next` fills what it is given, or
    /// less when there is no more.
    pub fn transmit(&mut self, mut next: impl FnMut(&mut [u8]) -> usize) -> bool {
        while self.status() & LSR_THRE != 0 {
            // SAFETY: as in `status`. Reading clears the interrupt for room, which is being served.
            let has_fifo = unsafe { self.register(IIR).read_volatile() } & IIR_FIFO == IIR_FIFO;
            let mut bytes = [0; FIFO_LEN];
            let room = if has_fifo { FIFO_LEN } else { 1 };
            let count = next(&mut bytes[..room]);
            for byte in bytes.iter().take(count) {
                // SAFETY: as in `status`.
                unsafe { self.register(THR).write_volatile(*byte) };
            }
            if count < room {
                return true;
            }
        }
        false
    }

    /// Which events interrupt: received data always, room to send if `room`.
    pub fn interrupt(&mut self, room: bool) {
        let enable = if room { IER_RECEIVE | IER_TRANSMIT } else { IER_RECEIVE };
        // SAFETY: as in `status`.
        unsafe { self.register(IER).write_volatile(enable) };
    }
}

impl fmt::Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let base = MAPPED.load(Ordering::Acquire);
        if base == 0 || cfg!(not(target_arch = "powerpc")) {
            return Ok(());
        }
        let free = |_: &u32| LOCK.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok();
        let locked = (0..PATIENCE).find(free).is_some();
        for byte in text.bytes() {
            if byte == b'\n' {
                self.put(base, b'\r');
            }
            self.put(base, byte);
        }
        if locked {
            LOCK.store(false, Ordering::Release);
        }
        Ok(())
    }
}
