//! Sleeping and waking: one word for each waiter, and who has to ring for it.
//!
//! A waiter (a reader without messages, or a poster without room) looks at the ring, finds nothing,
//! and goes to sleep on the line. The other side, the ringer, changes the ring and then has to know
//! whether anybody sleeps. Both write one place and read the other, so each needs a fence between the
//! two, or both may miss. A fence in every post would cost more than the rest of the post; so the word
//! says who needs one.
//!
//! ```text
//!              STREAM_AFTER successes            barrier, then as below
//!   ┌────────┐ without a sleep       ┌───────────┐
//!   │ Fenced ├──────────────────────▶│ Streaming ├───┐
//!   └─┬────▲─┘                       └───────────┘   │ leave_streaming
//!     │    └──────────────────────────────────────────┘
//! arm │    ▲ disarm (the waiter), or the ringer, who then rings
//!     ▼    │
//!   ┌──────┴─┐
//!   │ Asleep │
//!   └────────┘
//! ```
//!
//! * `Fenced`: whoever changes the ring fences, reads the word again, and rings if it says `Asleep`.
//! * `Streaming`: the ringer does nothing. The waiter promises not to sleep before it has left this
//!   state *and* has put a barrier into every ringer ([`crate::barrier`]).
//! * `Asleep`: the waiter looks once more, then sleeps. The ringer exchanges it for `Fenced`; who
//!   exchanged, rings: at most one bell for each sleep, and no other state is ever overwritten.
//!
//! # Why no bell is lost
//!
//! * **W1** (`Fenced`, `Asleep`) The waiter stores `Asleep`, fences, looks. The ringer changes the
//!   ring, fences, loads the word. One of the two fences is first; so the waiter sees the change, or
//!   the ringer sees `Asleep`.
//! * **W2** (`Streaming`) The ringer loaded `Streaming` and did nothing. The waiter stores `Fenced`,
//!   then the barrier runs a fence in the ringer at some point of its program: what the ringer
//!   changed before that point the waiter now sees, and a load after that point finds `Fenced`.
//!   The race that looks bad, change, (barrier), load, is the second case; load, (barrier), next
//!   change is covered because the next change is followed by a load of its own.
//! * **W3** A ringer whose process is not registered for the barrier never trusts `Streaming`: it
//!   always fences and reads again, as in W1.
//!
//! A word with any other value (only a hostile side writes one) counts as `Fenced`.

use std::cell::Cell;

use crate::sync::{AtomicU32, Ordering, compiler_fence, fence};

/// Ringers fence and look again. The value of fresh memory.
pub(crate) const FENCED: u32 = 0;
/// Ringers do nothing.
pub(crate) const STREAMING: u32 = 1;
/// The waiter sleeps, or is about to.
pub(crate) const ASLEEP: u32 = 2;

/// Successes without a sleep after which a waiter streams.
pub(crate) const STREAM_AFTER: u32 = if cfg!(loom) { 1 } else { 64 };

/// A waiter's private knowledge of its own word.
#[derive(Debug)]
pub(crate) struct Waiter {
    streaming: Cell<bool>,
    successes: Cell<u32>,
}

impl Waiter {
    /// For whoever comes to wait on `word`: what a former holder has promised there holds on, as ringers
    /// may trust it still.
    pub(crate) fn new(word: &AtomicU32) -> Self {
        // Relaxed: the adoption of the port has brought what its former holder wrote.
        let streaming = word.load(Ordering::Relaxed) == STREAMING;
        Self { streaming: Cell::new(streaming), successes: Cell::default() }
    }

    /// Notes that there was no need to wait. True when it is time to [`stream`](Self::stream).
    #[inline]
    pub(crate) fn succeeded(&self) -> bool {
        let successes = self.successes.get();
        if successes > STREAM_AFTER {
            return false;
        }
        self.successes.set(successes + 1);
        successes == STREAM_AFTER
    }

    /// Whether [`succeeded`](Self::succeeded) would note nothing.
    #[inline(always)]
    pub(crate) fn has_succeeded_for_long(&self) -> bool {
        self.successes.get() > STREAM_AFTER
    }

    /// Promises not to sleep. Only for a process that can demand barriers.
    #[cold]
    pub(crate) fn stream(&self, word: &AtomicU32) {
        self.streaming.set(true);
        // Relaxed: a ringer that sees it late only fences once more than it has to.
        word.store(STREAMING, Ordering::Relaxed);
    }

    pub(crate) fn is_streaming(&self) -> bool {
        self.streaming.get()
    }

    /// Takes the promise back. The caller must [`barrier`](crate::barrier::demand) before it arms.
    pub(crate) fn leave_streaming(&self, word: &AtomicU32) {
        self.streaming.set(false);
        // Relaxed: the barrier that follows is what orders it (W2).
        word.store(FENCED, Ordering::Relaxed);
    }

    /// Takes the promise back although the waiter goes on spinning: a ringer that sees `Fenced` does at
    /// once what it may put off for a stream. It streams again after further successes.
    pub(crate) fn pause_streaming(&self, word: &AtomicU32, barrier: impl FnOnce() -> bool) {
        self.leave_streaming(word);
        self.successes.set(0);
        // Without the barrier the next sleep must still know that ringers may trust `Streaming`.
        self.streaming.set(!barrier());
    }

    /// Announces sleep. The caller looks at the ring once more before it really sleeps.
    pub(crate) fn arm(&self, word: &AtomicU32) {
        self.successes.set(0);
        // Relaxed: the fence orders it before the second look (W1).
        word.store(ASLEEP, Ordering::Relaxed);
        // WAKE: pairs with the fence in `must_ring`.
        fence(Ordering::SeqCst);
    }

    /// Takes the announcement back. True if the ringer was faster: its bell is on the way.
    pub(crate) fn disarm(&self, word: &AtomicU32) -> bool {
        // Relaxed: nothing travels with it; the ring itself is looked at with Acquire.
        let armed =
            word.compare_exchange(ASLEEP, FENCED, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        !armed
    }
}

/// Called after a change of the ring was made visible: whether the caller has to ring now.
///
/// `registered`: a waiter's barrier reaches this process (W3).
#[inline]
pub(crate) fn must_ring(word: &AtomicU32, registered: bool) -> bool {
    !is_streaming(word, registered) && must_ring_fenced(word)
}

/// The first step of [`must_ring`]: whether the caller is done.
#[inline(always)]
pub(crate) fn is_streaming(word: &AtomicU32, registered: bool) -> bool {
    // W2 needs this load to come after the change: the compiler must keep that order always, the
    // processor only where the waiter's barrier makes it.
    compiler_fence(Ordering::SeqCst);
    // Relaxed: no data travels through the word.
    registered && word.load(Ordering::Relaxed) == STREAMING
}

// Out of line: beside a fence a call costs nothing, and who streams does not come here.
#[inline(never)]
fn must_ring_fenced(word: &AtomicU32) -> bool {
    // WAKE: pairs with the fence in `Waiter::arm`.
    fence(Ordering::SeqCst);
    // Relaxed, all: the fence has ordered them after the change; no data travels through the word.
    word.load(Ordering::Relaxed) == ASLEEP
        && word.compare_exchange(ASLEEP, FENCED, Ordering::Relaxed, Ordering::Relaxed).is_ok()
}

/// Puts `Asleep` back after a bell that could not be rung, so that the next change rings again.
#[cold]
pub(crate) fn could_not_ring(word: &AtomicU32) {
    // Relaxed: as in `must_ring_fenced`. If the waiter has woken meanwhile, this costs one stray bell.
    let _ = word.compare_exchange(FENCED, ASLEEP, Ordering::Relaxed, Ordering::Relaxed);
}
