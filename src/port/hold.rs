//! What a sender and a receiver have in common: a share of the endpoint, the line, a way of waiting.

use std::cell::RefCell;
use std::sync::{Arc, Weak};
use std::time::Instant;

use crate::barrier;
use crate::error::CloseReason;
use crate::halves::Half;
use crate::line::{Line, Rung};
use crate::sync::{AtomicU32, Ordering};
use crate::wake;

use super::endpoint::Endpoint;
use super::wait::{Look, Place, WaitStrategy, Waits};

/// One half's hold on a port. The fields are dropped in this order: the epoch says closed before the
/// line hangs up.
#[derive(Debug)]
pub(super) struct Hold {
    pub(super) endpoint: Arc<Endpoint>,
    line: RefCell<Option<Arc<Line>>>,
    /// The same line, to end it: the other half may still wait on what this one has let go.
    shared: Weak<Line>,
    pub(super) waits: Waits,
}

impl Hold {
    pub(super) fn new(
        half: Half,
        endpoint: Arc<Endpoint>,
        line: Arc<Line>,
        strategy: WaitStrategy,
    ) -> Self {
        let shared = Arc::downgrade(&line);
        let (line, waits) = (RefCell::new(Some(line)), Waits::new(half, strategy));
        Self { endpoint, line, shared, waits }
    }

    /// The line, unless the end of the channel was reported.
    pub(super) fn line(&self) -> Option<Arc<Line>> {
        self.line.borrow().clone()
    }

    /// The line, for as long as either half holds it.
    pub(super) fn shared_line(&self) -> &Weak<Line> {
        &self.shared
    }

    /// Lets the line go: nothing more will come of it, whatever the other side says later.
    pub(super) fn let_go(&self) {
        self.endpoint.note_hang_up();
        self.line.take();
    }

    /// Closes this end because the other side broke the protocol.
    #[cold]
    pub(super) fn violated(&self) -> CloseReason {
        self.endpoint.close(true);
        if let Some(line) = self.shared.upgrade() {
            line.hang_up();
        }
        CloseReason::Violated
    }

    /// Called after a change that the other side may be waiting for. `word` is the other side's.
    #[inline(always)]
    pub(super) fn notify(&self, word: &AtomicU32) {
        let registered = barrier::is_registered();
        if wake::must_ring(word, registered) {
            self.ring(word);
        } else if !registered {
            note_unheeded(word);
        }
    }

    #[cold]
    fn ring(&self, word: &AtomicU32) {
        match self.line.borrow().as_ref().map_or(Rung::HungUp, |line| line.ring()) {
            Rung::Yes => {}
            Rung::HungUp => self.endpoint.note_hang_up(),
            Rung::No => wake::could_not_ring(word),
        }
    }

    /// Waits until `look` finds something. `None`: the time is up, or the line is gone.
    #[cold]
    pub(super) fn wait<T>(
        &self,
        word: &AtomicU32,
        deadline: Option<Instant>,
        mut look: impl FnMut(Look) -> Option<T>,
    ) -> Option<T> {
        if let Some(found) = self.waits.glance(&mut look) {
            return Some(found);
        }
        let line = self.line()?;
        self.waits.wait(Place { endpoint: &self.endpoint, line: &line, word }, deadline, look)
    }

    /// For callers that poll instead of waiting: learns of a death about once a millisecond.
    #[cold]
    pub(super) fn look_at_line(&self) {
        if let Some(line) = self.line.borrow().as_ref() {
            self.waits.look_at_line(&self.endpoint, line);
        }
    }
}

#[inline]
fn note_unheeded(word: &AtomicU32) {
    // Relaxed: a statistic.
    if word.load(Ordering::Relaxed) == wake::STREAMING {
        barrier::unheeded();
    }
}
