//! Demanding a fence of other processes: `membarrier(2)`, global and expedited.
//!
//! A waiter that leaves `Streaming` ([`crate::wake`]) demands a fence of every registered process.
//! The registration is the process's own and is the only state here; a fork resets it.
//!
//! * Linux 4.16 has the call. Without it, or where seccomp refuses it, nobody streams, and ringers
//!   fence after every change.
//! * Registering takes 8 to 19 ms in a process with threads (the kernel waits for a grace period),
//!   so it is worth it only for a ringer that has met `Streaming` many times.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use rustix::thread::{MembarrierCommand, MembarrierQuery, membarrier, membarrier_query};

/// How often a process's ringers have to meet an unheeded `Streaming` before it registers.
const REGISTER_AFTER: u32 = 1 << 16;

const UNKNOWN: u8 = 0;
const YES: u8 = 1;
const NO: u8 = 2;

// Relaxed throughout this file: each word is a fact of its own about this process, true from the
// moment that the kernel has answered; nothing else is published through it.
static DEMANDABLE: AtomicU8 = AtomicU8::new(UNKNOWN);
static REGISTERED: AtomicU8 = AtomicU8::new(UNKNOWN);
static UNHEEDED: AtomicU32 = AtomicU32::new(0);

/// Whether this process can demand barriers, as far as is known: else it must not stream.
pub(crate) fn is_demandable() -> bool {
    match DEMANDABLE.load(Ordering::Relaxed) {
        YES => true,
        NO => false,
        _ => {
            let known = membarrier_query().contains(MembarrierQuery::GLOBAL_EXPEDITED);
            DEMANDABLE.store(if known { YES } else { NO }, Ordering::Relaxed);
            known
        }
    }
}

/// Runs a full fence on every processor that now runs a registered process. False if the kernel
/// refuses (a seccomp filter may come at any time); then this process never streams again, and the
/// caller must let a millisecond pass instead.
#[must_use]
pub(crate) fn demand() -> bool {
    let done = membarrier(MembarrierCommand::GlobalExpedited).is_ok();
    if !done {
        DEMANDABLE.store(NO, Ordering::Relaxed);
    }
    done
}

/// Whether other processes' barriers reach this one.
#[inline]
pub(crate) fn is_registered() -> bool {
    REGISTERED.load(Ordering::Relaxed) == YES
}

/// Notes that a ringer met `Streaming` and had to fence all the same; registers once it pays.
#[cold]
pub(crate) fn unheeded() {
    if UNHEEDED.fetch_add(1, Ordering::Relaxed) != REGISTER_AFTER {
        return;
    }
    let done = membarrier(MembarrierCommand::RegisterGlobalExpedited).is_ok();
    REGISTERED.store(if done { YES } else { NO }, Ordering::Relaxed);
}

/// A forked child is a process of its own and has to find out again.
pub(crate) fn after_fork() {
    DEMANDABLE.store(UNKNOWN, Ordering::Relaxed);
    REGISTERED.store(UNKNOWN, Ordering::Relaxed);
    UNHEEDED.store(0, Ordering::Relaxed);
}
