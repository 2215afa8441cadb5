//! The thread that uses a place all the time enters it without an atomic step of reading and writing: such a step waits
//! until all that the thread has stored is seen, a message just posted too, and so costs a stream of them most of its speed.
//!
//! ```text
//!   owner:  inside = true         another:  owner = nobody
//!           (compiler fence)                membarrier(2)
//!           owner == me ?                   inside ?
//! ```
//!
//! Invariant B1: whichever of both comes first is seen by the other, for the barrier runs a fence on the owner's processor.
//! A process without barriers has no owners.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering, compiler_fence};

/// A thread that has made a place busy so often in a row becomes its owner: that is worth a barrier when another one comes.
pub(crate) const STREAK: u32 = 1 << 12;

const NOBODY: usize = 0;

/// Who owns a place.
#[derive(Debug, Default)]
pub(crate) struct Bias {
    /// See [`this_thread`], or `NOBODY`. Changed by who has made the place busy.
    owner: AtomicUsize,
    /// Whether the owner is in the place. Written by that thread only.
    inside: AtomicBool,
    /// Of who has made the place busy: which thread came last, and how often in a row. Relaxed: who makes a place busy sees
    /// what was done by who did so before.
    last: AtomicUsize,
    times: AtomicU32,
}

impl Bias {
    /// Says that this thread is in the place, if it owns that, and is not there yet.
    #[inline(always)]
    pub(crate) fn enter(&self) -> bool {
        // Relaxed: only this thread writes there that it is this one, and says so of itself below.
        let owns = || self.owner.load(Ordering::Relaxed) == this_thread();
        if !owns() || self.inside.load(Ordering::Relaxed) {
            return false;
        }
        // B1. Relaxed: the other thread's barrier has it seen.
        self.inside.store(true, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        if owns() {
            return true;
        }
        self.leave();
        false
    }

    #[inline(always)]
    pub(crate) fn leave(&self) {
        // Release: partner of the Acquire in `disown`.
        self.inside.store(false, Ordering::Release);
    }

    /// Takes the place from its owner, unless that is inside. For who has made it busy.
    pub(crate) fn disown(&self) -> bool {
        // Relaxed, also below: only who has made the place busy changes it, and B1 orders it for its owner.
        let owner = self.owner.load(Ordering::Relaxed);
        if owner == NOBODY {
            return true;
        }
        self.forget();
        // B1. Acquire: partner of the Release in `leave`.
        let may_enter =
            (owner == this_thread() || demand()) && !self.inside.load(Ordering::Acquire);
        if !may_enter {
            self.owner.store(owner, Ordering::Relaxed);
        }
        may_enter
    }

    /// Makes this thread the owner, if it has been here all the time. For who has made the place busy.
    pub(crate) fn own(&self) {
        let me = this_thread();
        let times = match self.last.load(Ordering::Relaxed) == me {
            true => self.times.load(Ordering::Relaxed).saturating_add(1),
            false => 0,
        };
        self.last.store(me, Ordering::Relaxed);
        let is_worth_it = times >= STREAK && may_demand();
        self.times.store(if is_worth_it { 0 } else { times }, Ordering::Relaxed);
        if is_worth_it {
            // Relaxed: of all threads, this one alone finds itself there.
            self.owner.store(me, Ordering::Relaxed);
        }
    }

    /// Nobody owns the place any more. For who has made it busy.
    pub(crate) fn forget(&self) {
        // Relaxed: B1; and the owner looks at the word of the place, too, which is stored after this.
        self.owner.store(NOBODY, Ordering::Relaxed);
    }
}

/// Tells this thread from all others that live, and is never 0. (A thread-local in a shared library would cost a call.) A
/// thread that comes when another one has ended may be taken for that one, which does no harm: it has its block from it, and
/// so sees all that it did.
#[inline(always)]
fn this_thread() -> usize {
    #[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
    {
        let thread: usize;
        // SAFETY: reads one word, in which the ABI has each thread find the address of its own block, and nobody writes.
        unsafe {
            std::arch::asm!("mov {}, fs:0", out(reg) thread, options(pure, nomem, nostack, preserves_flags));
        }
        thread
    }
    #[cfg(not(all(target_arch = "x86_64", target_pointer_width = "64")))]
    {
        // SAFETY: always succeeds.
        unsafe { libc::pthread_self() as usize }
    }
}

const UNKNOWN: u8 = 0;
const YES: u8 = 1;
const NO: u8 = 2;
// Relaxed: a fact of its own about this process.
static DEMANDABLE: AtomicU8 = AtomicU8::new(UNKNOWN);

/// Whether this process has barriers. Registering for them takes some milliseconds in a process with threads: so it comes with
/// the first port, and not in the middle of a stream, whose poster would find the ring full.
pub(crate) fn may_demand() -> bool {
    match DEMANDABLE.load(Ordering::Relaxed) {
        YES => true,
        NO => false,
        _ => {
            let is_registered = membarrier(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED);
            DEMANDABLE.store(if is_registered { YES } else { NO }, Ordering::Relaxed);
            is_registered
        }
    }
}

/// Runs a fence on every processor that now runs a thread of this process. False if the kernel refuses.
#[must_use]
pub(crate) fn demand() -> bool {
    membarrier(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED)
        // A copy that a fork has made may have to register anew.
        || membarrier(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED)
            && membarrier(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED)
}

fn membarrier(command: libc::c_int) -> bool {
    // SAFETY: takes three integers, and touches no memory.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
}
