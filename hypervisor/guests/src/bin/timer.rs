//! Counts decrementer interrupts at 100 Hz for two seconds by the timebase, then waits for the fixed-interval
//! timer once.
//!
//! The next tick is set to a point of the timebase, not to a distance from now: a late tick makes none of the
//! others late. A tick before its time was doubled, one that does not come within [`MARGIN`] was lost.
#![cfg_attr(target_arch = "powerpc", no_std, no_main)]

use core::sync::atomic::{AtomicU32, Ordering};

use citrine_guests::cpu::timer;
use citrine_guests::interrupts::{Frame, vector};
use citrine_guests::{Guest, cpu, guest, say};

guest!(run, interrupt);

/// Ticks in a second.
const RATE: u32 = 100;
/// All ticks.
const TICKS: u32 = 2 * RATE;
/// How late a tick may be before it counts as lost, in periods. The machine below may be busy.
const MARGIN: u32 = 100;

/// Timebase (its lower half) of the next tick, and of the distance between two.
static NEXT: AtomicU32 = AtomicU32::new(0);
static PERIOD: AtomicU32 = AtomicU32::new(0);
static COUNT: AtomicU32 = AtomicU32::new(0);
static EARLY: AtomicU32 = AtomicU32::new(0);
static LATEST: AtomicU32 = AtomicU32::new(0);
/// Timebase (its lower half) when the fixed-interval timer fired; it is on while this is 0.
static FIXED: AtomicU32 = AtomicU32::new(0);

fn run(guest: &Guest) {
    let Some(frequency) = guest.tree.timebase_frequency().filter(|frequency| *frequency >= 1000 * RATE) else {
        say!("timer: FAILED: the tree has no usable timebase-frequency");
        return;
    };
    let period = frequency / RATE;
    PERIOD.store(period, Ordering::Relaxed);
    say!("timer: {RATE} Hz, {frequency} ticks of the timebase a second");

    let start = cpu::timebase();
    NEXT.store(start as u32, Ordering::Relaxed);
    schedule();
    cpu::clear_timer_status(timer::TSR_DIS);
    cpu::set_timer_control(timer::TCR_DIE);
    while COUNT.load(Ordering::Relaxed) < TICKS {
        rest();
        let overdue = (cpu::timebase() as u32).wrapping_sub(NEXT.load(Ordering::Relaxed));
        if (overdue as i32) > (MARGIN * period) as i32 {
            say!("timer: FAILED: tick {} lost", COUNT.load(Ordering::Relaxed) + 1);
            return;
        }
    }
    cpu::set_timer_control(0);
    let taken = cpu::timebase() - start;
    let microseconds = |ticks: u64| ticks * 1000 / u64::from(frequency / 1000);
    let (early, latest) = (EARLY.load(Ordering::Relaxed), LATEST.load(Ordering::Relaxed));
    let count = COUNT.load(Ordering::Relaxed);
    say!("timer: {count} ticks in {} ms, {early} early", microseconds(taken) / 1000);
    say!("timer: the latest came {} us late", microseconds(latest.into()));
    if count != TICKS || early != 0 || taken < u64::from(period) * u64::from(TICKS) {
        say!("timer: FAILED");
        return;
    }
    match fixed_interval(frequency) {
        // QEMU 7.2 arms it only while it is pending, that is never (hw/ppc/ppc_booke.c).
        None => say!("timer: the fixed-interval timer does not fire here"),
        Some(ticks) if ticks >= 0 => say!("timer: fixed interval: once, {ticks} ticks of the timebase late"),
        Some(_) => {
            say!("timer: FAILED: the fixed-interval timer fired before its time");
            return;
        }
    }
    say!("timer: ok");
}

/// Waits for the fixed-interval timer once, which fires when the chosen bit of the timebase becomes 1. How late it
/// was; `None` when it does not come.
fn fixed_interval(frequency: u32) -> Option<i32> {
    // The bit that becomes 1 about every 10 ms.
    let bit = (frequency / RATE).ilog2();
    let begun = cpu::timebase() as u32;
    cpu::clear_timer_status(timer::TSR_FIS);
    cpu::set_timer_control(timer::TCR_FIE | timer::fixed_interval(bit));
    while FIXED.load(Ordering::Relaxed) == 0 {
        rest();
        if (cpu::timebase() as u32).wrapping_sub(begun) > MARGIN << bit {
            cpu::set_timer_control(0);
            return None;
        }
    }
    // The next time that the bit is 1 and all below it are 0.
    let edge = (begun >> bit).wrapping_add(1) | 1;
    Some(FIXED.load(Ordering::Relaxed).wrapping_sub(edge << bit) as i32)
}

fn rest() {
    cpu::set_interrupts(true);
    // Looks again from time to time instead of `wait`: a timer that never comes must be seen.
    for _ in 0..1000 {
        core::hint::spin_loop();
    }
    cpu::set_interrupts(false);
}

/// Sets the decrementer to the next tick.
fn schedule() {
    let next = NEXT.load(Ordering::Relaxed).wrapping_add(PERIOD.load(Ordering::Relaxed));
    NEXT.store(next, Ordering::Relaxed);
    let ahead = next.wrapping_sub(cpu::timebase() as u32) as i32;
    // A tick whose time is over is due at once, and a decrementer of 0 would never fire.
    cpu::set_decrementer(ahead.max(1) as u32);
}

fn interrupt(frame: &mut Frame) -> bool {
    let now = cpu::timebase() as u32;
    match frame.vector {
        vector::DECREMENTER => {
            // First the status, then the decrementer: the other way round a short one could be lost.
            cpu::clear_timer_status(timer::TSR_DIS);
            let late = now.wrapping_sub(NEXT.load(Ordering::Relaxed)) as i32;
            if late < 0 {
                EARLY.fetch_add(1, Ordering::Relaxed);
            }
            LATEST.fetch_max(late.max(0) as u32, Ordering::Relaxed);
            if COUNT.fetch_add(1, Ordering::Relaxed) + 1 < TICKS {
                schedule();
            }
            true
        }
        vector::FIXED_INTERVAL => {
            cpu::set_timer_control(0);
            cpu::clear_timer_status(timer::TSR_FIS);
            FIXED.store(now.max(1), Ordering::Relaxed);
            true
        }
        _ => false,
    }
}
