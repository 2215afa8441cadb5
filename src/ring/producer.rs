//! The poster's half: reserve → (write) → publish. Mirror of [`super::consumer`].

use std::cell::Cell;

use super::{Cursor, Memory};
use crate::record::{HEADER_LEN, detail, filler_head, link_head, message_head, record_len};
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
    is_grown: bool,
}

impl Reservation {
    /// The place of the payload in the ring.
    pub(crate) const fn payload_offset(&self) -> u64 {
        self.cursor.offset(self.start) + HEADER_LEN
    }

    /// Where the room ends, with the header behind it.
    pub(crate) const fn end(&self) -> u64 {
        self.start + record_len(self.payload_len) + HEADER_LEN
    }

    /// Whether the room is in a grown ring.
    #[inline(always)]
    pub(crate) const fn is_grown(&self) -> bool {
        self.is_grown
    }

    /// Bytes of payload that fit.
    pub(crate) const fn payload_len(&self) -> u64 {
        self.payload_len
    }
}

/// What a record says of its payload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Content {
    /// Bytes of payload in the ring.
    pub(crate) len: u32,
    /// The type tag; 0 is "untagged".
    pub(crate) tag: u32,
    /// Ports that came over the lane before.
    pub(crate) ports: u16,
    /// Buffers that came over the lane before.
    pub(crate) buffers: u16,
    /// The flags of the head.
    pub(crate) flags: u8,
}

impl Content {
    /// A message without ports.
    #[inline(always)]
    pub(crate) const fn plain(len: usize, tag: u32) -> Self {
        Self { len: len as u32, tag, ports: 0, buffers: 0, flags: 0 }
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
    /// The ring has ended with a link.
    Linked,
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
    /// A grown ring: for one lap only, so room that was given back is not used again.
    is_grown: bool,
    /// Where the link stands that has ended this ring. `next` is then where nothing is free.
    linked: Cell<Option<u64>>,
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
            is_grown: false,
            linked: Cell::new(None),
            withheld: Cell::new(None),
        }
    }

    /// For a grown ring: from `next` on, at most one lap.
    pub(crate) fn grown(memory: M, next: u64) -> Self {
        Self { is_grown: true, released: Cell::new(0), ..Self::new(memory, next) }
    }

    /// For a ring that a link at `at` has ended.
    pub(crate) fn linked(memory: M, at: u64) -> Self {
        let producer = Self::new(memory, at);
        producer.end_at(at);
        producer
    }

    /// Where the next record goes, or the link stands.
    pub(crate) fn position(&self) -> u64 {
        self.linked.get().unwrap_or(self.next.get())
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
        Ok(Reservation { next, start, payload_len, cursor: self.cursor, is_grown: self.is_grown })
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
        let (cursor, is_grown) = (self.cursor, self.is_grown);
        Some(Reservation { next, start: next, payload_len, cursor, is_grown })
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

    /// Ends the ring: the queue goes on in one of `order` (see [`super::Link`]). There is always room for
    /// that (R1). What was staged must have been flushed.
    pub(crate) fn link(&self, order: u32, flags: u8) {
        let at = self.next.get();
        // Relaxed: the Release below covers it.
        self.memory.word(at + 8).store(detail(order, 0), Ordering::Relaxed);
        // PUBLISH: as in `publish`; who sees the link sees all that was prepared in the other ring.
        self.memory.word(at).store(link_head(flags), Ordering::Release);
        self.end_at(at);
    }

    fn end_at(&self, at: u64) {
        self.linked.set(Some(at));
        // No record has room there, so that `reserve` need not ask whether the ring was ended.
        self.next.set(self.released.get() + self.cursor.capacity());
    }

    /// Goes on behind the link if there is room again: half of the ring. The other ring's link back,
    /// published after this, tells the reader.
    pub(crate) fn resume(&self) -> Result<bool, Refusal> {
        let Some(at) = self.linked.get() else { return Ok(true) };
        let next = at + HEADER_LEN;
        let released = self.load_released()?;
        if next - released > self.cursor.capacity() / 2 {
            return Ok(false);
        }
        // Relaxed: the Release of the link that leads back covers it (R1).
        self.memory.word(next).store(0, Ordering::Relaxed);
        self.released.set(released);
        self.next.set(next);
        self.linked.set(None);
        Ok(true)
    }

    /// Bytes that were published here and not given back.
    pub(crate) fn unread(&self) -> Result<u64, Refusal> {
        Ok(self.position() - self.load_released()?)
    }

    /// Writes all of a record's headers but the one that publishes it, which is returned.
    #[inline(always)]
    fn write_headers(&self, reservation: &Reservation, what: Content) -> (u64, u64) {
        let Content { len, tag, ports, buffers, flags } = what;
        debug_assert_eq!(reservation.next, self.next.get(), "R5");
        debug_assert!(u64::from(len) <= reservation.payload_len);
        let Reservation { next, start, .. } = *reservation;
        let end = start + record_len(u64::from(len));
        self.next.set(end);
        // Relaxed, all three: the Release that publishes the record comes later and covers them.
        self.memory.word(end).store(0, Ordering::Relaxed);
        self.memory.word(start + 8).store(detail(tag, buffers), Ordering::Relaxed);
        if start == next {
            return (next, message_head(len, flags, ports));
        }
        self.memory.word(start).store(message_head(len, flags, ports), Ordering::Relaxed);
        (next, filler_head())
    }

    /// Reads how far the reader has given room back, and checks it.
    fn refresh(&self) -> Result<(), Refusal> {
        if self.linked.get().is_some() {
            return Err(Refusal::Linked);
        }
        if !self.is_grown {
            self.released.set(self.load_released()?);
        }
        Ok(())
    }

    fn load_released(&self) -> Result<u64, Refusal> {
        // RELEASE: pairs with the Release in `Consumer::give_back`; what the reader has read there
        // happened before we write over it.
        let released = self.memory.released().load(Ordering::Acquire);
        let (known, end) = (self.released.get(), self.position());
        if released < known || released > end || !released.is_multiple_of(HEADER_LEN) {
            return Err(Refusal::Broken);
        }
        Ok(released)
    }
}
