//! The thread that uses a place all the time enters it without an atomic step of reading and writing: such a step waits
//! until all that the thread has stored is seen, a message just posted too, and so costs a stream of them most of its speed.
//!
//! ```text
//!   owner:  inside = place        another:  owner = nobody
//!           (compiler fence)                membarrier(2)
//!           owner == me ?                   inside == place ?
//! ```
//!
//! Invariant B1: whichever of both comes first is seen by the other, for the barrier runs a fence on the owner's processor.
//! Each owner says by itself where it is: who was stopped between its look and its word, and is the owner no more, talks
//! over nobody. A process without barriers has no owners.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, AtomicUsize, Ordering, compiler_fence};
use std::sync::{Mutex, PoisonError};

/// A thread that has made a place busy so often in a row becomes its owner: that is worth a barrier when another one comes.
/// (A fuzzer would not come so far.)
pub(crate) const STREAK: u32 = if cfg!(fuzzing) { 2 } else { 1 << 12 };

/// Which thread owns a place.
#[derive(Debug)]
pub(crate) struct Bias {
    /// Changed by who has made the place busy.
    owner: AtomicPtr<Owner>,
    /// Of who has made the place busy: which thread came last, and how often in a row. Relaxed: who makes a place busy sees
    /// what was done by who did so before.
    last: AtomicUsize,
    times: AtomicU32,
}

/// A thread that owns places.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Owner {
    /// See [`this_thread`]; 0 once it has ended. Written by that thread only.
    thread: AtomicUsize,
    /// The places in which it is: a member, and its set.
    inside: [Inside; 2],
}

/// A place in which an owner is, or null.
pub(crate) type Inside = AtomicPtr<Bias>;

static NOBODY: Owner =
    Owner { thread: AtomicUsize::new(0), inside: [const { AtomicPtr::new(ptr::null_mut()) }; 2] };

impl Bias {
    pub(crate) const fn new() -> Self {
        let owner = AtomicPtr::new(ptr::from_ref(&NOBODY).cast_mut());
        Self { owner, last: AtomicUsize::new(0), times: AtomicU32::new(0) }
    }

    fn address(&self) -> *mut Self {
        ptr::from_ref(self).cast_mut()
    }

    #[inline(always)]
    fn owner(&self) -> &'static Owner {
        // Acquire: partner of the Release in `set_owner`.
        let owner = self.owner.load(Ordering::Acquire);
        // SAFETY: owners stay for ever.
        unsafe { &*owner }
    }

    fn set_owner(&self, owner: &'static Owner) {
        // Release: partner of the Acquire in `owner`: who looks there finds an owner.
        self.owner.store(ptr::from_ref(owner).cast_mut(), Ordering::Release);
    }

    /// This thread, if it owns the place.
    #[inline(always)]
    fn me(&self) -> Option<&'static Owner> {
        Some(self.owner()).filter(|owner| owner.is_this_thread())
    }

    /// Says that this thread is in the place, if it owns that, and is not there yet.
    #[inline(always)]
    pub(crate) fn enter(&self) -> Option<&'static Inside> {
        let me = self.me()?;
        let (place, [first, second]) = (self.address(), &me.inside);
        // Relaxed: this thread alone writes there.
        match [first.load(Ordering::Relaxed), second.load(Ordering::Relaxed)] {
            [one, other] if one.is_null() && other != place => self.enter_as(me, first),
            [one, other] if other.is_null() && one != place => self.enter_as(me, second),
            // No place left; or it is there already, and nobody is twice.
            _ => None,
        }
    }

    /// As [`enter`](Self::enter), by a thread that is nowhere else.
    #[inline(always)]
    pub(crate) fn enter_alone(&self) -> Option<&'static Inside> {
        let me = self.me()?;
        // Relaxed: as there.
        let [first, second] = me.inside.each_ref().map(|inside| inside.load(Ordering::Relaxed));
        if first.addr() | second.addr() != 0 {
            return None;
        }
        self.enter_as(me, &me.inside[0])
    }

    #[inline(always)]
    fn enter_as(&self, me: &'static Owner, inside: &'static Inside) -> Option<&'static Inside> {
        // B1. Relaxed: the other thread's barrier has it seen.
        inside.store(self.address(), Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        // Relaxed: B1 has ordered it.
        if ptr::eq(self.owner.load(Ordering::Relaxed), me) {
            return Some(inside);
        }
        leave(inside);
        None
    }

    /// Takes the place from its owner, unless that is inside. For who has made it busy.
    pub(crate) fn disown(&self) -> bool {
        let owner = self.owner();
        if ptr::eq(owner, &NOBODY) {
            return true;
        }
        self.forget();
        // B1.
        let may_enter = (owner.is_this_thread() || demand()) && !owner.is_in(self.address());
        if !may_enter {
            self.set_owner(owner);
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
        self.times.store(times, Ordering::Relaxed);
        if times >= STREAK
            && let Some(me) = become_owner()
        {
            // It has to be here as long to become the owner again.
            self.times.store(0, Ordering::Relaxed);
            self.set_owner(me);
        }
    }

    /// Nobody owns the place any more. For who has made it busy.
    pub(crate) fn forget(&self) {
        self.set_owner(&NOBODY);
    }
}

impl Owner {
    #[inline(always)]
    fn is_this_thread(&self) -> bool {
        // Relaxed: only this thread writes there that it is this one.
        self.thread.load(Ordering::Relaxed) == this_thread()
    }

    /// Whether it is in a place that was taken from it, on its own thread or after [`demand`].
    fn is_in(&self, place: *mut Bias) -> bool {
        // Acquire: partner of the Release in `leave`.
        self.inside.iter().any(|inside| inside.load(Ordering::Acquire) == place)
    }
}

#[inline(always)]
pub(crate) fn leave(inside: &Inside) {
    // Release: partner of the Acquire in `is_in`.
    inside.store(ptr::null_mut(), Ordering::Release);
}

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

/// This thread, if it may own places.
#[cold]
fn become_owner() -> Option<&'static Owner> {
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

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    /// One thread is stopped between its look at the owner and its word that it is inside; meanwhile another one becomes the
    /// owner, and goes in.
    #[test]
    fn who_is_late_talks_over_nobody() {
        let place = Bias::new();
        let late = become_owner().unwrap();
        place.set_owner(late);
        let stopped_at = place.me().unwrap();
        let [is_inside, may_leave] = [Barrier::new(2), Barrier::new(2)];
        std::thread::scope(|scope| {
            scope.spawn(|| {
                assert!(place.disown());
                place.set_owner(become_owner().unwrap());
                let inside = place.enter().unwrap();
                is_inside.wait();
                may_leave.wait();
                leave(inside);
            });
            is_inside.wait();
            assert!(place.enter_as(stopped_at, &stopped_at.inside[0]).is_none());
            assert!(!place.disown(), "the owner is still inside");
            may_leave.wait();
        });
        assert!(place.disown());
    }
}
