//! What a sender and a receiver have in common: a share of the endpoint, the line, a way of waiting.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Instant;

use crate::barrier;
use crate::error::CloseReason;
use crate::halves::Half;
use crate::line::{Heard, Line, Rung};
use crate::sync::{AtomicU32, Ordering};
use crate::wake;

use super::arm::Watch;
use super::endpoint::Endpoint;
use super::wait::{Look, Place, WaitStrategy, Waits};

/// One half's hold on a port. The fields are dropped in this order, after `drop`: the epoch says closed
/// before the line hangs up.
#[derive(Debug)]
pub(super) struct Hold {
    pub(super) endpoint: Arc<Endpoint>,
    line: RefCell<Option<Arc<Line>>>,
    pub(super) waits: Waits,
    pub(super) watch: Watch,
}

impl Hold {
    pub(super) fn new(
        half: Half,
        endpoint: Arc<Endpoint>,
        line: Arc<Line>,
        strategy: WaitStrategy,
    ) -> Self {
        let waits = Waits::new(half, strategy, word_of(&endpoint, half));
        Self { endpoint, line: RefCell::new(Some(line)), waits, watch: Watch::default() }
    }

    /// What this half waits on.
    pub(super) fn word(&self) -> &AtomicU32 {
        word_of(&self.endpoint, self.waits.half())
    }

    /// The line, unless the end of the channel was reported.
    pub(super) fn line(&self) -> Option<Arc<Line>> {
        self.line.borrow().clone()
    }

    /// Lets the line go: nothing more will come of it, whatever the other side says later.
    pub(super) fn let_go(&self) {
        self.endpoint.note_hang_up();
        if let Some(line) = self.line.take() {
            self.watch.forget(&line);
        }
    }

    /// The line, for who gives the port away.
    pub(super) fn take_line(&self) -> Option<Arc<Line>> {
        self.line.take()
    }

    /// Closes this end because the other side broke the protocol.
    #[cold]
    pub(super) fn violated(&self) -> CloseReason {
        self.endpoint.close(true);
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

    /// Whether [`notify`](Self::notify) would do nothing.
    #[inline(always)]
    pub(super) fn need_not_notify(&self, word: &AtomicU32) -> bool {
        wake::is_streaming(word, barrier::is_registered())
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
        let mut found = None;
        self.waits.glance(|| {
            found = look(Look::Quick);
            found.is_some()
        });
        found.or_else(|| self.wait_longer(word, deadline, look))
    }

    /// As [`wait`](Self::wait), for who has glanced.
    #[cold]
    pub(super) fn wait_longer<T>(
        &self,
        word: &AtomicU32,
        deadline: Option<Instant>,
        look: impl FnMut(Look) -> Option<T>,
    ) -> Option<T> {
        let line = self.line()?;
        self.waits.wait(Place { endpoint: &self.endpoint, line: &line, word }, deadline, look)
    }

    /// Takes whatever lies on the line; a bell may have been for the other half.
    pub(super) fn clear_line(&self, line: &Line) -> Heard {
        let heard = line.clear();
        if heard == Heard::HungUp {
            self.endpoint.note_hang_up();
        }
        if let Some(other) = self.endpoint.asleep().must_kick(self.waits.half()) {
            self.endpoint.kick(other);
        }
        heard
    }

    /// For callers that poll instead of waiting: learns of a death about once a millisecond.
    #[cold]
    pub(super) fn look_at_line(&self) {
        if let Some(line) = self.line.borrow().as_ref() {
            self.waits.look_at_line(&self.endpoint, line);
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // Or the other half would go on to kick this one.
        self.disarm();
        self.endpoint.let_half_go();
    }
}

fn word_of(endpoint: &Endpoint, half: Half) -> &AtomicU32 {
    match half {
        Half::Sender => &endpoint.own().room_wake,
        Half::Receiver => &endpoint.own().message_wake,
    }
}

#[inline]
fn note_unheeded(word: &AtomicU32) {
    // Relaxed: a statistic.
    if word.load(Ordering::Relaxed) == wake::STREAMING {
        barrier::unheeded();
    }
}
