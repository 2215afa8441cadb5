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

use std::cell::{Cell, RefCell};
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU8, Ordering, compiler_fence};
use std::sync::{Mutex, PoisonError};

/// A thread that owns places.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Owner {
    /// The places in which it is: a member, and its set.
    inside: [Inside; 2],
}

/// A place in which an owner is, or null.
pub(crate) type Inside = AtomicPtr<()>;

/// Those of threads that have ended.
static SPARE: Mutex<Vec<&'static Owner>> = Mutex::new(Vec::new());

thread_local! {
    static ME: Cell<Option<&'static Owner>> = const { Cell::new(None) };
    static GOES: RefCell<Goes> = const { RefCell::new(Goes(None)) };
}

/// Gives back what a thread has had that ends.
struct Goes(Option<&'static Owner>);

impl Drop for Goes {
    fn drop(&mut self) {
        ME.set(None);
        SPARE.lock().unwrap_or_else(PoisonError::into_inner).extend(self.0);
    }
}

/// This thread, if it has owned a place.
#[inline(always)]
pub(crate) fn me() -> Option<&'static Owner> {
    ME.get()
}

/// This thread, if it may own places.
#[cold]
pub(crate) fn become_owner() -> Option<&'static Owner> {
    if !may_demand() {
        return None;
    }
    if let Some(owner) = ME.get() {
        return Some(owner);
    }
    let spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let owner = spare.unwrap_or_else(|| Box::leak(Box::default()));
    // Fails in a thread that ends, which need not be fast.
    GOES.try_with(|goes| goes.borrow_mut().0 = Some(owner)).ok()?;
    ME.set(Some(owner));
    Some(owner)
}

/// In a forked child: its parent's places are nobody's here, whichever thread they belonged to.
pub(crate) fn disinherit() {
    ME.set(None);
    if let Ok(mut spare) = SPARE.try_lock() {
        spare.clear();
    }
}

impl Owner {
    /// Says that this thread is in a place, if it owns that: `owns` looks.
    #[inline(always)]
    pub(crate) fn enter(&self, place: *mut (), owns: impl FnOnce() -> bool) -> Option<&Inside> {
        let [first, second] = &self.inside;
        let at = [first.load(Ordering::Relaxed), second.load(Ordering::Relaxed)];
        let inside = match at {
            [one, other] if one.is_null() && other != place => first,
            [one, other] if other.is_null() && one != place => second,
            // No place left; or it is there already, and nobody is twice.
            _ => return None,
        };
        inside.store(place, Ordering::Relaxed);
        // B1.
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

/// Whether this process has barriers. Registering for them takes some milliseconds in a process with threads.
fn may_demand() -> bool {
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
