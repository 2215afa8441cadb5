//! The account of one direction: bytes outside the first ring (grown rings, large payloads, buffers) that
//! were sent and not let go. There is a limit to them, on which both sides agree.
//!
//! The poster counts what it has sent, the reader what it has received and let go; that last count is the
//! one word that travels back. A poster sends no more than the limit allows, but for one large message into
//! an empty queue. It counts what the reader has not received yet, and may learn late of what was let go:
//! so the reader, who knows better, finds an honest poster within the limit at each receipt.

use std::cell::Cell;

use crate::sync::{AtomicU64, Ordering};

/// What the poster knows.
#[derive(Debug)]
pub(crate) struct Sent {
    limit: u64,
    total: Cell<u64>,
    /// What the reader had let go when last asked.
    let_go: Cell<u64>,
}

impl Sent {
    /// For who takes over after so many bytes.
    pub(crate) fn new(limit: u64, total: u64) -> Self {
        Self { limit, total: Cell::new(total), let_go: Cell::new(0) }
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// All bytes that were ever sent.
    pub(crate) fn total(&self) -> u64 {
        self.total.get()
    }

    /// Bytes that the reader has not let go. `None`: what the reader says is impossible.
    pub(crate) fn outstanding(&self, word: &AtomicU64) -> Option<u64> {
        // Relaxed: a count; what was let go is not used again on the strength of it.
        let let_go = word.load(Ordering::Relaxed);
        if let_go < self.let_go.get() {
            return None;
        }
        let outstanding = self.total.get().checked_sub(let_go)?;
        self.let_go.set(let_go);
        Some(outstanding)
    }

    /// Counts what was sent. The total stays far below 2^64: no machine has sent so much.
    pub(crate) fn add(&self, bytes: u64) {
        self.total.set(self.total.get().saturating_add(bytes));
    }
}

/// What the reader knows.
#[derive(Debug)]
pub(crate) struct Received {
    limit: u64,
    total: Cell<u64>,
    let_go: Cell<u64>,
}

impl Received {
    /// For who takes over: so many bytes were received, and so many of them let go.
    pub(crate) fn new(limit: u64, total: u64, let_go: u64) -> Self {
        Self { limit, total: Cell::new(total), let_go: Cell::new(let_go) }
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// All bytes that were ever received.
    pub(crate) fn total(&self) -> u64 {
        self.total.get()
    }

    /// Bytes that were received and not let go.
    pub(crate) fn outstanding(&self) -> u64 {
        self.total.get() - self.let_go.get()
    }

    /// Whether a poster that keeps the limit can have sent so much more.
    pub(crate) fn may_come(&self, bytes: u64) -> bool {
        let outstanding = self.outstanding();
        let all = outstanding.checked_add(bytes);
        bytes == 0 || outstanding == 0 || all.is_some_and(|all| all <= self.limit)
    }

    /// Counts what was received, and is allowed.
    pub(crate) fn add(&self, bytes: u64) {
        self.total.set(self.total.get().saturating_add(bytes));
    }

    /// Says that bytes were let go.
    pub(crate) fn let_go(&self, bytes: u64, word: &AtomicU64) {
        let let_go = self.let_go.get().saturating_add(bytes).min(self.total.get());
        self.let_go.set(let_go);
        // Relaxed: as in `outstanding`. A poster that waits for it is woken as for room.
        word.store(let_go, Ordering::Relaxed);
    }
}
