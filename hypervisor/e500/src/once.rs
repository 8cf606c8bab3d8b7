//! A value that one CPU sets when it starts, and all read afterwards.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU8, Ordering};

/// A cell that is written once.
#[derive(Debug)]
pub struct Once<T> {
    state: AtomicU8,
    value: UnsafeCell<Option<T>>,
}

const EMPTY: u8 = 0;
const TAKEN: u8 = 1;
const READY: u8 = 2;

// SAFETY: the value is written by the one CPU that gets from `EMPTY` to `TAKEN`, and read after `READY` only.
unsafe impl<T: Send + Sync> Sync for Once<T> {}

impl<T> Default for Once<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Once<T> {
    /// Nothing yet.
    pub const fn new() -> Self {
        Self { state: AtomicU8::new(EMPTY), value: UnsafeCell::new(None) }
    }

    /// Sets the value; a second one is dropped.
    pub fn set(&self, value: T) {
        if self.state.compare_exchange(EMPTY, TAKEN, Ordering::Acquire, Ordering::Relaxed).is_ok() {
            // SAFETY: this CPU alone is here, and nobody reads before `READY`.
            unsafe { *self.value.get() = Some(value) };
            self.state.store(READY, Ordering::Release);
        }
    }

    /// The value, when it has been set.
    pub fn get(&self) -> Option<&T> {
        if self.state.load(Ordering::Acquire) != READY {
            return None;
        }
        // SAFETY: written, and not written again.
        unsafe { (*self.value.get()).as_ref() }
    }
}
