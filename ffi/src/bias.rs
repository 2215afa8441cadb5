//! The thread that uses a place all the time enters it without an atomic step of reading and writing: such a step waits
//! until all that the thread has stored is seen, a message just posted too, and so costs a stream of them most of its speed.
//!
//! ```text
//!   owner:  inside = place        another:  owner = none
//!           (compiler fence)                membarrier(2)
//!           owner == me ?                   inside == place ?
//! ```
//!
//! Invariant B1: whichever of both comes first is seen by the other, for the barrier runs a fence on the owner's processor.
//! A process without barriers has no owners.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicUsize, Ordering, compiler_fence};
use std::sync::{Mutex, PoisonError};

/// A thread that owns places.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Owner {
    /// See [`this_thread`]; 0 once it has ended. Written by that thread only.
    thread: AtomicUsize,
    /// The places in which it is: a member, and its set.
    inside: [Inside; 2],
}

/// A place in which an owner is, or null.
pub(crate) type Inside = AtomicPtr<()>;

/// Those of threads that have ended.
static SPARE: Mutex<Vec<&'static Owner>> = Mutex::new(Vec::new());

thread_local! {
    static MINE: RefCell<Mine> = const { RefCell::new(Mine(None)) };
}

/// Gives back what a thread has had that ends.
struct Mine(Option<&'static Owner>);

impl Drop for Mine {
    fn drop(&mut self) {
        if let Some(owner) = self.0 {
            // Relaxed: read by this thread only, until another one has taken it out of the mutex.
            owner.thread.store(0, Ordering::Relaxed);
            SPARE.lock().unwrap_or_else(PoisonError::into_inner).push(owner);
        }
    }
}

/// Tells this thread from all others that live, and is never 0. (A thread-local in a shared library would cost a call.)
#[inline(always)]
pub(crate) fn this_thread() -> usize {
    #[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
    {
        let thread: usize;
        // SAFETY: reads one word, in which the ABI has each thread find the address of its own block.
        unsafe {
            std::arch::asm!("mov {}, fs:0", out(reg) thread, options(pure, readonly, nostack, preserves_flags));
        }
        thread
    }
    #[cfg(not(all(target_arch = "x86_64", target_pointer_width = "64")))]
    {
        // SAFETY: always succeeds.
        unsafe { libc::pthread_self() as usize }
    }
}

/// This thread, if it may own places.
#[cold]
pub(crate) fn become_owner() -> Option<&'static Owner> {
    if !may_demand() {
        return None;
    }
    // Fails in a thread that ends, which need not be fast.
    MINE.try_with(|mine| {
        *mine.borrow_mut().0.get_or_insert_with(|| {
            let spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let owner = spare.unwrap_or_else(|| Box::leak(Box::default()));
            // Relaxed: as above.
            owner.thread.store(this_thread(), Ordering::Relaxed);
            owner
        })
    })
    .ok()
}

/// In a forked child: its parent's places are nobody's here, whichever thread they belonged to.
pub(crate) fn disinherit() {
    let _ = MINE.try_with(|mine| {
        if let Some(owner) = mine.try_borrow_mut().ok().and_then(|mut mine| mine.0.take()) {
            // Relaxed: as above.
            owner.thread.store(0, Ordering::Relaxed);
        }
    });
    if let Ok(mut spare) = SPARE.try_lock() {
        spare.clear();
    }
}

impl Owner {
    #[inline(always)]
    pub(crate) fn is_this_thread(&self) -> bool {
        // Relaxed: only this thread writes there that it is this one.
        self.thread.load(Ordering::Relaxed) == this_thread()
    }

    /// Says that this thread is in a place, if it owns that: `owns` looks.
    #[inline(always)]
    pub(crate) fn enter(&self, place: *mut (), owns: impl FnOnce() -> bool) -> Option<&Inside> {
        let [first, second] = &self.inside;
        // Relaxed: this thread alone writes there.
        let at = [first.load(Ordering::Relaxed), second.load(Ordering::Relaxed)];
        let inside = match at {
            [one, other] if one.is_null() && other != place => first,
            [one, other] if other.is_null() && one != place => second,
            // No place left; or it is there already, and nobody is twice.
            _ => return None,
        };
        // B1. Relaxed: the other thread's barrier has it seen.
        inside.store(place, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        if owns() {
            return Some(inside);
        }
        leave(inside);
        None
    }

    /// Whether it is in a place that was taken from it, on its own thread or after [`demand`].
    pub(crate) fn is_in(&self, place: *mut ()) -> bool {
        // Acquire: partner of the Release in `leave`.
        self.inside.iter().any(|inside| inside.load(Ordering::Acquire) == place)
    }
}

#[inline(always)]
pub(crate) fn leave(inside: &Inside) {
    // Release: partner of the Acquire in `is_in`.
    inside.store(ptr::null_mut(), Ordering::Release);
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
