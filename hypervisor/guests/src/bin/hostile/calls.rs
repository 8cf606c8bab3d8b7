//! Hypercalls: every number of every vendor with arguments of every kind, and the same from user programs, whom
//! the hypervisor must not hear.

use citrine_guests::hypercall;
use citrine_guests::interrupts::vector;
use citrine_guests::probe::{Outcome, Probe};
use citrine_guests::tree::Tree;

use super::log::{Log, Said};
use super::{USER, attempt};

/// `sc 1`
const HYPERCALL: u32 = 0x4400_0022;
/// The vendors that there are (ePAPR 1.1 §7.4.1), and one that there is not.
const VENDORS: [u32; 8] = [0, 1, 2, 3, 4, 5, 42, 127];
/// Numbers of each.
const NUMBERS: u32 = 65;
/// Handles of nobody, of others, of everybody; -1 is the caller itself.
const HANDLES: [u32; 12] = [0, 1, 2, 3, 63, 64, 65, 66, 1023, 1024, 0x8000_0000, u32::MAX];
/// What is in the other arguments.
const ARGUMENTS: [u32; 4] = [0, 1, 0xf000_0000, u32::MAX];

/// Tries all.
pub fn run(tree: &Tree<'_>, log: &mut Log) {
    let own = tree.own_handle();
    let console = tree.console().map(|channel| channel.handle);
    for (vendor, number) in VENDORS.iter().flat_map(|vendor| (0..NUMBERS).map(move |number| (*vendor, number))) {
        let token = vendor << 16 | number;
        for (handle, argument) in HANDLES.iter().flat_map(|handle| ARGUMENTS.map(|argument| (*handle, argument))) {
            if is_left_out(vendor, number, handle, argument, own, console) {
                continue;
            }
            log.announce("hypercall", token);
            let status = hypercall::call([handle, argument, argument, argument, argument, argument, 0, 0, token])[0];
            log.note("hypercall", token, Said::Status(status), is_breach(vendor, number, handle, status, own));
        }
        user(log, token);
    }
}

/// What would only end or silence the guest itself, or fill its own console with nothing.
fn is_left_out(vendor: u32, number: u32, handle: u32, argument: u32, own: Option<u32>, console: Option<u32>) -> bool {
    const SEND: u32 = 1;
    const RECEIVE: u32 = 2;
    // FH_PARTITION_RESTART, _START, _STOP; FH_SYSTEM_RESET; FH_ENTER_NAP.
    const ENDS: [u32; 4] = [4, 6, 7, 15];
    let oneself = handle == u32::MAX || Some(handle) == own;
    match (vendor, number) {
        (0 | 1, SEND) => Some(handle) == console && argument == 1,
        (0 | 1, RECEIVE) => Some(handle) == console,
        _ => vendor > 1 && oneself && ENDS.contains(&number),
    }
}

/// Whether a call did to another partition what only its manager may.
fn is_breach(vendor: u32, number: u32, handle: u32, status: u32, own: Option<u32>) -> bool {
    // FH_PARTITION_GET_DTPROP to FH_PARTITION_STOP, and FH_SYSTEM_RESET.
    let manages = vendor == 2 && (2..=7).contains(&number);
    let another = handle != u32::MAX && Some(handle) != own;
    status == hypercall::OK && (manages && another || (vendor, number) == (2, 13))
}

/// From a user program: a program interrupt for the guest's kernel, and no register changed.
fn user(log: &mut Log, token: u32) {
    log.announce("hypercall, user", token);
    let mut probe = Probe::new(HYPERCALL, 0x0000_0041, USER);
    let [_, _, _, _, count, _, _, _, _, _, _, register, ..] = &mut probe.gpr;
    (*count, *register) = (1, token);
    let seen = attempt(&probe);
    let refused = matches!(seen.outcome, Outcome::Interrupted(vector::PROGRAM, _)) && seen.gpr == probe.gpr;
    log.note("hypercall, user", token, Said::Ended(seen.outcome), !refused);
}
