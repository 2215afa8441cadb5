//! The ring: a single-producer single-consumer queue of records in memory that both sides map.
//!
//! ```text
//!   released            read                      next
//!      │ held by messages │ published, unread       │ room
//! ─────┴──────────────────┴─────────────────────────┴───────────────▶ positions (only ever grow)
//!
//!  record = 16-byte header, payload, padding to 16, gap      filler = a header that ends the lap
//! ```
//!
//! A position is a count of bytes since the ring was made; `position & (capacity - 1)` is its place in
//! memory. The poster alone knows `next`, the reader alone knows `read`; the one word that travels
//! back is `released`.
//!
//! # Invariants
//!
//! * **R1** A header word that is zero means "nothing here yet". The word at `next` is zero whenever
//!   a reader may look at it: memory starts zeroed, and every publish zeroes the next one first.
//! * **R2** Bytes in `[released, next)` belong to the reader, all others to the poster. A payload is
//!   only written outside, and only read inside that range.
//! * **R3** A record is contiguous. Where it does not fit before the end, a filler ends the lap; a
//!   filler is never at offset 0, and no filler follows a filler. A lap may also end early, and a gap lie
//!   behind a record: see [`Producer::turn_early`].
//! * **R4** Every header starts at a multiple of 16 and so never wraps.
//! * **R6** A link is the last record of a ring, at `next`, in the room of the zeroed header (R1): so
//!   there is always room for it.
//! * **R5** At most one [`Reservation`] of a ring is in use at a time (the port's `Sender` sees to it).
//!
//! # Orderings
//!
//! | store | load | what travels |
//! |---|---|---|
//! | `PUBLISH` header word, Release ([`Producer::publish`], `flush`, `link`) | Acquire ([`Consumer::peek`], `plain`) | the record, the next zeroed header, and all of a batch |
//! | `RELEASE` released position, Release ([`Consumer::give_back`]) | Acquire ([`Producer::refresh`]) | that the reader is done with the bytes |
//!
//! # A hostile other side
//!
//! Each word that the other side writes is loaded once, the copy is checked, and only the copy is
//! used. [`Memory::word`] masks its offset, so no value, however wrong, leads out of the ring.

mod consumer;
mod cursor;
mod producer;
#[cfg(test)]
#[cfg(not(loom))]
pub(crate) mod tests;

pub(crate) use consumer::{Consumer, Found, Link, Rare, Record};
pub(crate) use cursor::Cursor;
pub(crate) use producer::{Content, Producer, Refusal, Reservation};

use crate::sync::AtomicU64;

/// Fewer bytes are a payload for which every ring of a channel is long enough.
pub(crate) const FEW: u64 = 128;

/// Where a ring lives: its header words and its `released` word.
///
/// The capacity is a power of two and never changes; `word(offset)` is the same atomic for the same
/// `offset & (capacity - 1) & !7` as long as the memory lives, and starts zeroed; `released` is one
/// atomic. The ring itself needs no `unsafe`: a memory that breaks this loses messages, not safety.
pub(crate) trait Memory {
    /// Bytes in the ring.
    fn capacity(&self) -> u64;
    /// The 8-byte word at `offset`, taken modulo the capacity and rounded down to 8.
    fn word(&self, offset: u64) -> &AtomicU64;
    /// A hint that the cache line at `offset`, modulo the capacity, will be read soon.
    fn prefetch(&self, _offset: u64) {}
    /// The position up to which the reader has given room back.
    fn released(&self) -> &AtomicU64;
}
