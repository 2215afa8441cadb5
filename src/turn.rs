//! Whose turn it is with memory that is used again: one word in it, which both sides use.
//!
//! ```text
//!              send            the message is dropped          claim (compare-exchange)
//!  POSTERS ───────────▶ SENT ────────────────────────▶ FREE ───────────────────────────▶ POSTERS
//!                                                        │ trim (compare-exchange)          ▲
//!                                                        ▼               claim, warm up     │
//!                                                     TRIMMING ──────▶ COLD ────────────────┘
//! ```
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

/// Gives the poster the turn, if the reader has let go. What is cold is warmed up first; if that fails,
/// it stays cold.
pub(crate) fn claim(word: &AtomicU32, warm_up: impl FnOnce() -> bool) -> bool {
    if take(word, FREE, POSTERS) {
        return true;
    }
    if !take(word, COLD, POSTERS) {
        return false;
    }
    let is_warm = warm_up();
    if !is_warm {
        hand_over(word, COLD);
    }
    is_warm
}

/// Whether the reader has let go.
pub(crate) fn is_free(word: &AtomicU32) -> bool {
    // Relaxed: only says which memory is better kept.
    matches!(word.load(Ordering::Relaxed), FREE | COLD)
}

/// Gives the memory back to the kernel, if the poster has not claimed it.
pub(crate) fn trim(word: &AtomicU32, give_back: impl FnOnce()) {
    if take(word, FREE, TRIMMING) {
        give_back();
        hand_over(word, COLD);
    }
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
