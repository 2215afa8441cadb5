//! The poster's half: reserve → (write) → publish. Mirror of [`super::consumer`].

use std::cell::Cell;

use super::{Cursor, FEW, Memory};
use crate::record::{
    HEADER_LEN, MAX_GAP, detail, filler_head, link_head, message_head, record_len,
};
use crate::sync::Ordering;

/// How much sooner the reader is asked than the known room ends: one in so many of the bytes after which a lap may
/// end.
const SOONER: u64 = 4;

/// Room in the ring that nobody else writes, until it is published or dropped.
///
/// Dropping it publishes nothing and costs nothing: `next` moves at publish only.
#[derive(Debug)]
#[must_use = "a reservation that is not published sends nothing"]
pub(crate) struct Reservation {
    next: u64,
    start: u64,
    payload_len: u64,
    /// Bytes that stay free behind the record.
    gap: u64,
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
        self.start + record_len(self.payload_len) + self.gap + HEADER_LEN
    }

    /// Bytes that stay free behind the record.
    #[cfg(test)]
    pub(crate) const fn gap(&self) -> u64 {
        self.gap
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
    /// Where the reader looks next.
    next: Cell<u64>,
    /// How far behind that the next record starts: there a filler is to come first. 0 but for early turns.
    skip: Cell<u64>,
    /// Bytes that stay free between records: `apart` where the reader answers, else 0.
    gap: Cell<u64>,
    apart: Cell<u64>,
    /// Whether an answer was waited for since the reader was last asked.
    has_waited: Cell<bool>,
    /// The reader's released position when last asked: at most the true one.
    released: Cell<u64>,
    /// How far a record may reach without a look at anything else: the end of the lap, or of what is known
    /// to be free. 0 if a link has ended this ring.
    limit: Cell<u64>,
    /// Where to ask next whether the reader has caught up, and how far into a lap it may end early.
    turn: Cell<u64>,
    turn_after: Cell<u64>,
    /// A grown ring: for one lap only, so room that was given back is not used again.
    is_grown: bool,
    /// Whether a link, at `next`, has ended this ring.
    is_linked: Cell<bool>,
    /// The first head of a batch, withheld so that all of it appears at once.
    withheld: Cell<Option<(u64, u64)>>,
}

impl<M: Memory> Producer<M> {
    /// Stands at `next`, the end of all that was ever published here.
    pub(crate) fn new(memory: M, next: u64) -> Self {
        let cursor = Cursor::new(memory.capacity());
        let producer = Self {
            memory,
            cursor,
            next: Cell::new(next),
            skip: Cell::new(0),
            gap: Cell::new(0),
            apart: Cell::new(0),
            has_waited: Cell::new(false),
            // Less cannot have been given back; the first look at the word tells more.
            released: Cell::new(next.saturating_sub(cursor.capacity())),
            limit: Cell::new(0),
            turn: Cell::new(u64::MAX),
            turn_after: Cell::new(u64::MAX),
            is_grown: false,
            is_linked: Cell::new(false),
            withheld: Cell::new(None),
        };
        producer.set_limit(next);
        producer
    }

    /// For a grown ring: from `next` on, at most one lap.
    pub(crate) fn grown(memory: M, next: u64) -> Self {
        let producer = Self { is_grown: true, released: Cell::new(0), ..Self::new(memory, next) };
        producer.set_limit(next);
        producer
    }

    /// For a ring that a link at `at` has ended.
    pub(crate) fn linked(memory: M, at: u64) -> Self {
        let producer = Self::new(memory, at);
        producer.end();
        producer
    }

    /// Has laps end early where the reader keeps up, once so many bytes of one were used, and records lie so
    /// many bytes apart if it also [answers](Self::will_wait): see [`look_back`](Self::look_back). Until the
    /// reader comes along, that is all that the ring then holds: so only for a queue that can grow.
    pub(crate) fn turn_early(&self, after: u64, apart: u64) {
        debug_assert!(apart.is_multiple_of(HEADER_LEN) && apart < MAX_GAP, "a header can tell it");
        self.turn_after.set(after);
        self.apart.set(apart);
        self.turn.set(self.next.get() + after);
    }

    /// The poster is about to wait for an answer.
    pub(crate) fn will_wait(&self) {
        self.has_waited.set(true);
    }

    /// Has no lap end early any more.
    pub(crate) fn turn_late(&self) {
        self.turn_after.set(u64::MAX);
        self.turn.set(u64::MAX);
        self.apart.set(0);
        self.gap.set(0);
    }

    /// Where the next record goes, or the link stands.
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
        self.reserve_next(payload_len).map_or_else(|| self.find(payload_len), Ok)
    }

    /// As [`reserve`](Self::reserve), as far as there is room behind the last record, of which we know.
    #[inline(always)]
    pub(crate) fn reserve_next(&self, payload_len: u64) -> Option<Reservation> {
        let start = self.start();
        let fits = payload_len <= self.cursor.max_payload()
            && start + record_len(payload_len) + self.gap.get() <= self.limit.get();
        fits.then(|| self.reservation(start, payload_len))
    }

    /// As [`reserve_next`](Self::reserve_next), where no lap ends before the record.
    #[inline(always)]
    pub(crate) fn reserve_here(&self, payload_len: u64) -> Option<Reservation> {
        debug_assert!(FEW <= self.cursor.max_payload(), "no ring of a channel is shorter");
        let next = self.next.get();
        let fits = self.skip.get() == 0
            && (payload_len < FEW || payload_len <= self.cursor.max_payload())
            && next + record_len(payload_len) + self.gap.get() <= self.limit.get();
        fits.then(|| self.reservation(next, payload_len))
    }

    #[inline(always)]
    fn start(&self) -> u64 {
        self.next.get() + self.skip.get()
    }

    #[inline(always)]
    fn reservation(&self, start: u64, payload_len: u64) -> Reservation {
        let (next, cursor, is_grown) = (self.next.get(), self.cursor, self.is_grown);
        Reservation { next, start, payload_len, gap: self.gap.get(), cursor, is_grown }
    }

    /// As [`reserve`](Self::reserve), beyond the limit: in what was given back meanwhile, or on the next lap.
    #[cold]
    #[inline(never)]
    fn find(&self, payload_len: u64) -> Result<Reservation, Refusal> {
        if payload_len > self.cursor.max_payload() {
            return Err(Refusal::TooLarge { max: self.cursor.max_payload() });
        }
        if self.is_linked.get() {
            return Err(Refusal::Linked);
        }
        // Where even an early turn gives no room, there is none to be made.
        self.skip.set(0);
        self.set_limit(self.next.get());
        let start = self.cursor.start(self.next.get(), payload_len);
        let end = start + record_len(payload_len);
        if !self.is_free(end + self.gap.get()) {
            self.refresh()?;
            if !self.is_free(end + self.gap.get()) {
                self.gap.set(0);
            }
            if !self.is_free(end) {
                return Err(Refusal::Full);
            }
        }
        self.set_limit(self.start());
        let gap = self.gap.get().min(self.cursor.to_end(start) - record_len(payload_len));
        Ok(Reservation { gap, ..self.reservation(start, payload_len) })
    }

    fn is_free(&self, end: u64) -> bool {
        self.cursor.is_free(end, self.released.get())
    }

    fn set_limit(&self, start: u64) {
        // The header behind the record has to be free, too (R1).
        let free = self.released.get() + self.cursor.capacity() - HEADER_LEN;
        self.limit.set(free.min(start + self.cursor.to_end(start)));
    }

    /// Makes the first bytes of a reservation a message, visible at once.
    #[inline(always)]
    pub(crate) fn publish(&self, reservation: Reservation, what: Content) {
        let last = reservation.next;
        if self.publish_only(reservation, what) {
            self.look_back(last);
        }
    }

    /// As [`publish`](Self::publish); true if a [`look_back`](Self::look_back) is due.
    #[inline(always)]
    pub(crate) fn publish_only(&self, reservation: Reservation, what: Content) -> bool {
        let (offset, head, end) = self.write_headers(&reservation, what);
        // PUBLISH: pairs with the Acquire in `Consumer::peek`; the reader that sees this word sees
        // the payload, the rest of the header and the zeroed word after the record.
        self.memory.word(offset).store(head, Ordering::Release);
        self.next.set(end);
        self.is_at_turn()
    }

    #[inline(always)]
    pub(crate) fn is_at_turn(&self) -> bool {
        self.next.get() >= self.turn.get()
    }

    /// Ends the lap early if the reader has caught up with all but the record at `last`: the next one then
    /// goes to the beginning of the ring, whose lines are warm in the caches of both sides.
    ///
    /// A channel that is used one message at a time so lives in a few lines of one page. A reader that lags
    /// behind keeps the poster away: then it is asked twice as far on, and a stream is not disturbed.
    ///
    /// What is answered one by one lies apart: between two messages a line stays idle. The reader polls for the
    /// next header, and what its processor fetches beside that line is not what is written meanwhile. A
    /// stream stays packed.
    #[cold]
    #[inline(never)]
    pub(crate) fn look_back(&self, last: u64) {
        let (next, after) = (self.next.get(), self.turn_after.get());
        let offset = self.cursor.offset(next);
        self.turn.set(next.saturating_add(offset.max(after)));
        // What is broken, the next reservation finds.
        let Ok(released) = self.load_released() else { return };
        self.released.set(released);
        let keeps_up = released >= last;
        let answers = self.has_waited.replace(false);
        self.gap.set(if keeps_up && answers { self.apart.get() } else { 0 });
        if keeps_up && offset >= after {
            self.skip.set(self.cursor.to_end(next));
        } else if keeps_up {
            self.turn.set((next - offset).saturating_add(after));
        }
        self.set_limit(self.start());
    }

    /// As [`publish`](Self::publish), but visible only at [`flush`](Self::flush).
    ///
    /// (A call would have the reservation put into memory before it is known whether there is a batch.)
    #[inline(always)]
    pub(crate) fn stage(&self, reservation: Reservation, what: Content) {
        let (offset, head, end) = self.write_headers(&reservation, what);
        self.next.set(end);
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
        self.memory.word(at + 8).store(detail(order, 0, 0), Ordering::Relaxed);
        // PUBLISH: as in `publish`; who sees the link sees all that was prepared in the other ring.
        self.memory.word(at).store(link_head(flags), Ordering::Release);
        self.end();
    }

    fn end(&self) {
        self.is_linked.set(true);
        // No record fits, so that `reserve` need not ask.
        self.limit.set(0);
    }

    /// Goes on behind the link if there is room again: half of the ring. The other ring's link back,
    /// published after this, tells the reader.
    pub(crate) fn resume(&self) -> Result<bool, Refusal> {
        if !self.is_linked.get() {
            return Ok(true);
        }
        let next = self.next.get() + HEADER_LEN;
        let released = self.load_released()?;
        if next - released > self.cursor.capacity() / 2 {
            return Ok(false);
        }
        // Relaxed: the Release of the link that leads back covers it (R1).
        self.memory.word(next).store(0, Ordering::Relaxed);
        self.released.set(released);
        self.next.set(next);
        self.is_linked.set(false);
        self.set_limit(self.start());
        Ok(true)
    }

    /// Bytes that were published here and not given back.
    pub(crate) fn unread(&self) -> Result<u64, Refusal> {
        Ok(self.position() - self.load_released()?)
    }

    /// Writes all of a record's headers but the one that publishes it, which is returned: its place, its
    /// value, and the end of the record.
    ///
    /// A store waits until its line has come from the reader's cache, and the next one waits behind it. So
    /// what goes to one line is stored together, and our own words are changed before or after.
    #[inline(always)]
    fn write_headers(&self, reservation: &Reservation, what: Content) -> (u64, u64, u64) {
        let Content { len, tag, ports, buffers, flags } = what;
        debug_assert_eq!(reservation.next, self.next.get(), "R5");
        debug_assert!(u64::from(len) <= reservation.payload_len);
        let Reservation { next, start, gap, .. } = *reservation;
        let end = start + record_len(u64::from(len)) + gap;
        // Relaxed, all three: the Release that publishes the record comes later and covers them.
        self.memory.word(end).store(0, Ordering::Relaxed);
        self.memory.word(start + 8).store(detail(tag, buffers, gap), Ordering::Relaxed);
        if start == next {
            return (next, message_head(len, flags, ports), end);
        }
        self.memory.word(start).store(message_head(len, flags, ports), Ordering::Relaxed);
        self.begin_lap(start);
        (next, filler_head(), end)
    }

    #[cold]
    #[inline(never)]
    fn begin_lap(&self, start: u64) {
        self.skip.set(0);
        self.set_limit(start);
        let after = self.turn_after.get();
        if after < u64::MAX {
            // Where the known room ends before that, the reader is asked a little sooner: after a message, in
            // place of before one that finds no room.
            let soon = self.limit.get().saturating_sub(after / SOONER);
            self.turn.set((start + after).min(soon.max(start)));
        }
    }

    /// Reads how far the reader has given room back, and checks it.
    fn refresh(&self) -> Result<(), Refusal> {
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
