//! The poster's half: reserve → (write) → publish. Mirror of [`super::consumer`].

use std::cell::Cell;

use super::{Cursor, Memory};
use crate::record::{HEADER_LEN, detail, filler_head, message_head, record_len};
use crate::sync::Ordering;

/// Room in the ring that nobody else writes, until it is published or dropped.
///
/// Dropping it publishes nothing and costs nothing: `next` moves at publish only.
#[derive(Debug)]
#[must_use = "a reservation that is not published sends nothing"]
pub(crate) struct Reservation {
    next: u64,
    start: u64,
    payload_len: u64,
    cursor: Cursor,
}

impl Reservation {
    /// The place of the payload in the ring.
    pub(crate) const fn payload_offset(&self) -> u64 {
        self.cursor.offset(self.start) + HEADER_LEN
    }

    /// Bytes of payload that fit.
    pub(crate) const fn payload_len(&self) -> u64 {
        self.payload_len
    }
}

/// What a record says of its payload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Content {
    /// Bytes of payload.
    pub(crate) len: u32,
    /// The type tag; 0 is "untagged".
    pub(crate) tag: u32,
    /// Ports that came over the lane before.
    pub(crate) ports: u16,
}

impl Content {
    /// A message without ports.
    #[inline(always)]
    pub(crate) const fn plain(len: usize, tag: u32) -> Self {
        Self { len: len as u32, tag, ports: 0 }
    }
}

/// Why there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Not now: the reader has to give room back first.
    Full,
    /// Never: longer than the longest record.
    TooLarge { max: u64 },
    /// The reader's released position is impossible.
    Broken,
}

/// The posting half of a ring.
#[derive(Debug)]
pub(crate) struct Producer<M> {
    memory: M,
    cursor: Cursor,
    /// Where the next record (or filler) starts.
    next: Cell<u64>,
    /// The reader's released position when last asked: at most the true one.
    released: Cell<u64>,
    /// The first head of a batch, withheld so that all of it appears at once.
    withheld: Cell<Option<(u64, u64)>>,
}

impl<M: Memory> Producer<M> {
    /// Stands at `next`, the end of all that was ever published here.
    pub(crate) fn new(memory: M, next: u64) -> Self {
        let cursor = Cursor::new(memory.capacity());
        Self {
            memory,
            cursor,
            next: Cell::new(next),
            // Less cannot have been given back; the first look at the word tells more.
            released: Cell::new(next.saturating_sub(cursor.capacity())),
            withheld: Cell::new(None),
        }
    }

    /// Where the next record goes.
    pub(crate) fn position(&self) -> u64 {
        self.next.get()
    }

    pub(crate) fn memory(&self) -> &M {
        &self.memory
    }

    pub(crate) fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// Claims room for a payload of exactly `payload_len` bytes.
    #[inline(always)]
    pub(crate) fn reserve(&self, payload_len: u64) -> Result<Reservation, Refusal> {
        if payload_len > self.cursor.max_payload() {
            return Err(Refusal::TooLarge { max: self.cursor.max_payload() });
        }
        let next = self.next.get();
        let start = self.cursor.start(next, payload_len);
        let end = start + record_len(payload_len);
        if !self.cursor.is_free(end, self.released.get()) {
            self.refresh()?;
            if !self.cursor.is_free(end, self.released.get()) {
                return Err(Refusal::Full);
            }
        }
        Ok(Reservation { next, start, payload_len, cursor: self.cursor })
    }

    /// Claims what is free in one piece where the poster stands, without looking at the other side:
    /// for a payload whose length is known only once it is written. May be too little.
    #[cfg_attr(not(feature = "rkyv"), allow(dead_code))]
    #[inline]
    pub(crate) fn reserve_rest(&self) -> Option<Reservation> {
        let next = self.next.get();
        let free = self.released.get() + self.cursor.capacity() - next;
        let payload_len = self
            .cursor
            .to_end(next)
            .min(free.saturating_sub(HEADER_LEN))
            .checked_sub(HEADER_LEN)?
            .min(self.cursor.max_payload());
        Some(Reservation { next, start: next, payload_len, cursor: self.cursor })
    }

    /// Makes the first bytes of a reservation a message, visible at once.
    #[inline(always)]
    pub(crate) fn publish(&self, reservation: Reservation, what: Content) {
        let (offset, head) = self.write_headers(&reservation, what);
        // PUBLISH: pairs with the Acquire in `Consumer::peek`; the reader that sees this word sees
        // the payload, the rest of the header and the zeroed word after the record.
        self.memory.word(offset).store(head, Ordering::Release);
    }

    /// As [`publish`](Self::publish), but visible only at [`flush`](Self::flush).
    pub(crate) fn stage(&self, reservation: Reservation, what: Content) {
        let (offset, head) = self.write_headers(&reservation, what);
        if self.withheld.get().is_none() {
            self.withheld.set(Some((offset, head)));
        } else {
            // Relaxed: nobody can read past the withheld head, whose Release covers this one.
            self.memory.word(offset).store(head, Ordering::Relaxed);
        }
    }

    /// Makes everything that was staged visible at once. Says whether there was anything.
    pub(crate) fn flush(&self) -> bool {
        let Some((offset, head)) = self.withheld.take() else { return false };
        // PUBLISH: as in `publish`, for all staged records.
        self.memory.word(offset).store(head, Ordering::Release);
        true
    }

    /// Writes all of a record's headers but the one that publishes it, which is returned.
    #[inline(always)]
    fn write_headers(&self, reservation: &Reservation, what: Content) -> (u64, u64) {
        let Content { len, tag, ports } = what;
        debug_assert_eq!(reservation.next, self.next.get(), "R5");
        debug_assert!(u64::from(len) <= reservation.payload_len);
        let Reservation { next, start, .. } = *reservation;
        let end = start + record_len(u64::from(len));
        self.next.set(end);
        // Relaxed, all three: the Release that publishes the record comes later and covers them.
        self.memory.word(end).store(0, Ordering::Relaxed);
        self.memory.word(start + 8).store(detail(tag), Ordering::Relaxed);
        if start == next {
            return (next, message_head(len, ports));
        }
        self.memory.word(start).store(message_head(len, ports), Ordering::Relaxed);
        (next, filler_head())
    }

    /// Reads how far the reader has given room back, and checks it.
    fn refresh(&self) -> Result<(), Refusal> {
        // RELEASE: pairs with the Release in `Consumer::give_back`; what the reader has read there
        // happened before we write over it.
        let released = self.memory.released().load(Ordering::Acquire);
        let known = self.released.get();
        if released < known || released > self.next.get() || !released.is_multiple_of(HEADER_LEN) {
            return Err(Refusal::Broken);
        }
        self.released.set(released);
        Ok(())
    }
}
