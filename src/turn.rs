//! Whose turn it is with memory that is used again: one word in it, which both sides use.
//!
//! ```text
//!              send            the message is dropped          claim (compare-exchange)
//!  POSTERS ───────────▶ SENT ────────────────────────▶ FREE ───────────────────────────▶ POSTERS
//!                         │                              │ trim (compare-exchange)          ▲
//!                         │                              ▼               claim, warm up     │
//!                         └─────────── forget ──────▶ TRIMMING ────▶ COLD ──────────────────┘
//! ```
//!
//! What is FREE the reader has kept, and goes on keeping it if the poster claims it: so the poster need not
//! send it again, but names it.
//!
//! Who has the turn hands it over by a store, and touches the memory no more. Where either side may take it
//! next, only one does. That a payload was sent, its reader learns from the record, not from here.
//!
//! Any value that the other side may write is an answer: no turn is taken then.

use crate::sync::{AtomicU32, Ordering};

/// The poster's; so memory begins.
const POSTERS: u32 = 0;
/// The reader's, since the record is published.
const SENT: u32 = 1;
/// Whose comes first, as it is.
const FREE: u32 = 2;
/// The reader's, to give the memory back to the kernel.
const TRIMMING: u32 = 3;
/// The poster's to take, without memory.
const COLD: u32 = 4;

/// Ends the poster's turn.
pub(crate) fn send(word: &AtomicU32) {
    hand_over(word, SENT);
}

/// Ends the reader's turn.
pub(crate) fn let_go(word: &AtomicU32) {
    hand_over(word, FREE);
}

/// As [`let_go`], by a reader that does not keep the memory, and gives it back to the kernel.
pub(crate) fn forget(word: &AtomicU32, give_back: impl FnOnce()) {
    give_back();
    hand_over(word, COLD);
}

/// What the poster has claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claimed {
    /// The reader keeps it.
    Kept,
    /// The reader has forgotten it.
    Forgotten,
}

/// Gives the poster the turn, if the reader has let go. What is cold is warmed up first; if that fails,
/// it stays cold.
pub(crate) fn claim(word: &AtomicU32, warm_up: impl FnOnce() -> bool) -> Option<Claimed> {
    if take(word, FREE, POSTERS) {
        return Some(Claimed::Kept);
    }
    if !take(word, COLD, POSTERS) {
        return None;
    }
    if !warm_up() {
        hand_over(word, COLD);
        return None;
    }
    Some(Claimed::Forgotten)
}

/// Ends a turn of the poster in which nothing was sent.
pub(crate) fn give_up(word: &AtomicU32) {
    // Relaxed: in its turn only the poster writes.
    if word.load(Ordering::Relaxed) == POSTERS {
        hand_over(word, FREE);
    }
}

/// Whether the reader has let go.
pub(crate) fn is_free(word: &AtomicU32) -> bool {
    // Relaxed: only says which memory is better kept.
    matches!(word.load(Ordering::Relaxed), FREE | COLD)
}

/// Gives the memory back to the kernel, and forgets it, if the poster has not claimed it.
pub(crate) fn trim(word: &AtomicU32, give_back: impl FnOnce()) -> bool {
    let is_free = take(word, FREE, TRIMMING);
    if is_free {
        forget(word, give_back);
    }
    is_free
}

fn take(word: &AtomicU32, from: u32, to: u32) -> bool {
    // REUSE: Acquire pairs with the Release in `hand_over`: the other side is done with the memory.
    // Relaxed on failure: nothing is touched.
    word.compare_exchange(from, to, Ordering::Acquire, Ordering::Relaxed).is_ok()
}

fn hand_over(word: &AtomicU32, to: u32) {
    // REUSE: pairs with the Acquire in `take`.
    word.store(to, Ordering::Release);
}
