//! A process's right to a port: from when it was made or adopted here until it is closed or given away.
//!
//! Three can end it, and they may come at once: a closer on any thread, the second of the two halves
//! when it is dropped, and the holder who gives the port away. Whoever closes or gives away holds the
//! lock: no closer may hang up the line of somebody else, and none may find a port half given away.

use std::sync::PoisonError;

use crate::ends::Ends;
use crate::epoch::{self, Epoch};
use crate::sync::{AtomicU32, AtomicU64, Mutex, MutexGuard, Ordering};

/// Shared by the halves of a port and its closers. `word`, below, is the epoch of the port's side.
#[derive(Debug)]
pub(crate) struct Tenure {
    /// The epoch since which the port is ours; `None` once it was given away.
    since: Mutex<Option<Epoch>>,
    halves: AtomicU32,
}

impl Tenure {
    /// For who holds the port since `epoch`, in two halves.
    pub(crate) fn new(epoch: Epoch) -> Self {
        Self { since: Mutex::new(Some(epoch)), halves: AtomicU32::new(2) }
    }

    /// Locks out closers. Never while code of the user runs, and never for long.
    pub(crate) fn hold(&self) -> Held<'_> {
        Held(self.since.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Closes the port if it is ours, as [`Ends::close`]; `hang_up` comes after that, or it would look
    /// like a death.
    pub(crate) fn close(
        &self,
        ends: &Ends,
        word: &AtomicU64,
        violated: bool,
        barrier: impl FnOnce(),
        hang_up: impl FnOnce(),
    ) {
        let held = self.hold();
        let Some(since) = *held.0 else { return };
        ends.close(word, since, violated, barrier);
        hang_up();
    }

    /// Called by each half when it is dropped, before it lets go of the line: the second closes.
    pub(crate) fn let_half_go(&self, word: &AtomicU64) {
        // HALVES: AcqRel pairs with itself in the other half: what that one has published comes before
        // the close.
        if self.halves.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(since) = *self.hold().0
        {
            epoch::close(word, since);
        }
    }
}

/// The lock on a [`Tenure`]: nobody closes the port meanwhile.
#[derive(Debug)]
pub(crate) struct Held<'t>(MutexGuard<'t, Option<Epoch>>);

impl Held<'_> {
    /// Whether the port is ours still.
    pub(crate) fn is_ours(&self) -> bool {
        self.0.is_some()
    }

    /// Lets go of the port; gives what the next holder has to find. `None` if it is not ours.
    pub(crate) fn let_go(&mut self, word: &AtomicU64) -> Option<Epoch> {
        let in_transit = epoch::let_go(word, (*self.0)?)?;
        *self.0 = None;
        Some(in_transit)
    }

    /// For who let go and could not give it away: it is ours again, at a new generation, so that a
    /// descriptor that may have leaked meanwhile cannot be adopted.
    pub(crate) fn take_back(&mut self, word: &AtomicU64, in_transit: Epoch) {
        *self.0 = epoch::adopt(word, in_transit);
    }
}
