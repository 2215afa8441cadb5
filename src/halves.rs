//! The two halves of one port share one line. Which of them sleep on it, and who wakes whom.
//!
//! A bell carries no address, so either half may take one that was meant for the other. Who takes a
//! bell therefore kicks the other half if that one sleeps: a bell is never lost between them.
//!
//! # Why no bell is eaten
//!
//! A half says that it sleeps ([`Asleep::set`]), then arms ([`crate::wake`]), then looks once more.
//! Who rings for it has read `Asleep` after a fence (`WAKE`). If that fence came before the one in
//! `arm`, the second look sees the change, and the bell is not needed. Else all that came before `arm`
//! is seen by the ringer after its fence, and so by whoever takes the bell that it rang.

use crate::sync::{AtomicBool, Ordering};

/// One of the two halves of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Half {
    Sender,
    Receiver,
}

impl Half {
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Sender => Self::Receiver,
            Self::Receiver => Self::Sender,
        }
    }

    pub(crate) const fn of<T>(self, pair: &[T; 2]) -> &T {
        let [sender, receiver] = pair;
        match self {
            Self::Sender => sender,
            Self::Receiver => receiver,
        }
    }
}

/// Which halves of one port sleep on its line.
#[derive(Debug, Default)]
pub(crate) struct Asleep([AtomicBool; 2]);

impl Asleep {
    /// Says that this half sleeps (before it arms), or no longer does.
    pub(crate) fn set(&self, half: Half, asleep: bool) {
        // Relaxed: the fence in `Waiter::arm` orders it, as told above.
        half.of(&self.0).store(asleep, Ordering::Relaxed);
    }

    /// Asked by the half that took a bell off the line: whom it has to kick, if anybody.
    pub(crate) fn must_kick(&self, taker: Half) -> Option<Half> {
        let other = taker.other();
        // Relaxed: the bell has brought what its ringer had seen, as told above.
        other.of(&self.0).load(Ordering::Relaxed).then_some(other)
    }
}
