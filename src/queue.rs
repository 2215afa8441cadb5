//! The queue: the rings of one direction in a row, as far as one ring is not enough.
//!
//! ```text
//!  first ring   ──link──▶ grown ring ──link──▶ grown ring ──link (0)──▶ first ring again
//!  (of the channel,       larger and larger, each for one lap;           behind its own link
//!   always kept)          gone when it was read
//! ```
//!
//! A poster without room makes a larger ring, sends it to the reader, and ends the one it is in with a
//! *link*, for which there is always room. The reader follows the link and lets go of what it has left.
//! Once it has caught up, the poster goes back to the first ring, which both have kept: for that nothing
//! has to be sent.
//!
//! A grown ring is written from its beginning to its end once. So what was read of it is never written
//! again, and the reader may give its memory back to the kernel at any time, without asking a poster
//! that may not come back for long.
//!
//! Who is in a grown ring pays more for a message; who is in the first one pays nothing for the possibility
//! of another: a linked ring looks full to its poster, and holds a link for its reader.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use crate::ring::{Consumer, Content, Found, Link, Memory, Producer, Record, Refusal, Reservation};

use crate::sync::Ordering;

#[cfg(test)]
#[cfg(not(loom))]
mod tests;

/// The poster's end of a queue. Mirror of [`Reader`].
#[derive(Debug)]
pub(crate) struct Poster<M> {
    first: Producer<M>,
    /// The grown ring that is posted to, if the first one is linked.
    grown: RefCell<Option<Producer<M>>>,
}

impl<M: Memory + Clone> Poster<M> {
    /// Stands at `next` in the first ring.
    pub(crate) fn new(first: M, next: u64) -> Self {
        Self { first: Producer::new(first, next), grown: RefCell::default() }
    }

    /// Stands at `next` in a grown ring; the first one has a link at `at`.
    pub(crate) fn in_grown(first: M, at: u64, grown: M, next: u64) -> Self {
        let grown = RefCell::new(Some(Producer::grown(grown, next)));
        Self { first: Producer::linked(first, at), grown }
    }

    /// The ring that every channel has.
    #[inline(always)]
    pub(crate) fn first(&self) -> &Producer<M> {
        &self.first
    }

    /// The memory of the grown ring that is posted to, and where the next record goes there.
    pub(crate) fn grown(&self) -> Option<(M, u64)> {
        let grown = self.grown.borrow();
        grown.as_ref().map(|ring| (ring.memory().clone(), ring.position()))
    }

    /// Bytes of the ring that is posted to.
    pub(crate) fn capacity(&self) -> u64 {
        let grown = self.grown.borrow();
        grown.as_ref().unwrap_or(&self.first).cursor().capacity()
    }

    /// Claims room for a payload of exactly `payload_len` bytes.
    #[inline(always)]
    pub(crate) fn reserve(&self, payload_len: u64) -> Result<Reservation, Refusal> {
        match self.first.reserve(payload_len) {
            Err(Refusal::Linked) => {
                let grown = self.grown.borrow();
                grown.as_ref().map_or(Err(Refusal::Full), |ring| ring.reserve(payload_len))
            }
            reserved => reserved,
        }
    }

    /// Runs `work` on the memory of the first ring or, if `is_grown`, of the grown one.
    #[inline(always)]
    pub(crate) fn with_memory<T>(&self, is_grown: bool, work: impl FnOnce(&M) -> T) -> Option<T> {
        if !is_grown {
            return Some(work(self.first.memory()));
        }
        self.grown.borrow().as_ref().map(|ring| work(ring.memory()))
    }

    /// Makes the first bytes of a reservation a message, visible at once.
    #[inline(always)]
    pub(crate) fn publish(&self, reservation: Reservation, what: Content) {
        if !reservation.is_grown() {
            return self.first.publish(reservation, what);
        }
        self.in_grown_ring(|ring| ring.publish(reservation, what));
    }

    /// As [`publish`](Self::publish), but visible only at [`flush`](Self::flush).
    pub(crate) fn stage(&self, reservation: Reservation, what: Content) {
        if !reservation.is_grown() {
            return self.first.stage(reservation, what);
        }
        self.in_grown_ring(|ring| ring.stage(reservation, what));
    }

    #[cold]
    fn in_grown_ring(&self, work: impl FnOnce(&Producer<M>)) {
        if let Some(ring) = self.grown.borrow().as_ref() {
            work(ring);
        }
    }

    /// Makes everything that was staged visible at once. Says whether there was anything.
    pub(crate) fn flush(&self) -> bool {
        self.first.flush() || self.grown.borrow().as_ref().is_some_and(Producer::flush)
    }

    /// Goes on in a larger ring, which the reader can have already. What was staged was flushed.
    pub(crate) fn grow(&self, memory: M, order: u32, flags: u8) {
        let mut grown = self.grown.borrow_mut();
        grown.as_ref().unwrap_or(&self.first).link(order, flags);
        *grown = Some(Producer::grown(memory, 0));
    }

    /// Goes back to the first ring, if the reader has caught up with all but a few bytes of what was
    /// published since, and if there is room there. What was staged was flushed. False where it is there.
    pub(crate) fn go_back(&self) -> Result<bool, Refusal> {
        let mut grown = self.grown.borrow_mut();
        let Some(ring) = grown.as_ref() else { return Ok(false) };
        let few = self.first.cursor().capacity() / 2;
        // Who has given back anything here has left all rings before.
        let unread = ring.unread()?;
        let has_caught_up = unread <= few && (unread < ring.position() || unread == 0);
        if !has_caught_up || !self.first.resume()? {
            return Ok(false);
        }
        ring.link(0, 0);
        *grown = None;
        Ok(true)
    }

    /// How far the reader has come in the ring that is posted to.
    pub(crate) fn released(&self) -> u64 {
        let grown = self.grown.borrow();
        let ring = grown.as_ref().unwrap_or(&self.first);
        // Relaxed: only tells whether the reader is at work.
        ring.memory().released().load(Ordering::Relaxed)
    }

    /// Whether the reader has given back all that was published in the ring that is posted to.
    pub(crate) fn is_drained(&self) -> Result<bool, Refusal> {
        let grown = self.grown.borrow();
        Ok(grown.as_ref().unwrap_or(&self.first).unread()? == 0)
    }

    /// Lets go of a grown ring: nobody reads any more.
    pub(crate) fn let_go(&self) {
        // A batch may be at work.
        if let Ok(mut grown) = self.grown.try_borrow_mut() {
            grown.take();
        }
    }
}

/// A grown ring as its reader has it.
#[derive(Debug)]
struct Grown<M> {
    number: u32,
    ring: Consumer<M>,
}

/// The reader's end of a queue. Mirror of [`Poster`].
#[derive(Debug)]
pub(crate) struct Reader<M> {
    first: Consumer<M>,
    /// The grown ring that is read now, if any, and before it those of which records are still held.
    grown: RefCell<VecDeque<Grown<M>>>,
    /// Whether the last of those is the one that is read.
    is_away: Cell<bool>,
    /// Grown rings that were come to, ever.
    count: Cell<u32>,
    /// Whether it went back to the first ring since that was asked.
    has_gone_back: Cell<bool>,
    /// Whether nothing more will be read.
    has_ended: Cell<bool>,
}

impl<M: Memory + Clone> Reader<M> {
    /// Stands at `read` in the first ring, with nothing held.
    pub(crate) fn new(first: M, read: u64) -> Self {
        Self {
            first: Consumer::new(first, read),
            grown: RefCell::default(),
            is_away: Cell::new(false),
            count: Cell::new(0),
            has_gone_back: Cell::new(false),
            has_ended: Cell::new(false),
        }
    }

    /// Stands at `read` in a grown ring; the first one has a link at `at`.
    pub(crate) fn in_grown(first: M, at: u64, grown: M, read: u64) -> Self {
        let reader = Self::new(first, at);
        reader.come_to(grown, read);
        reader
    }

    /// The ring that every channel has.
    #[inline(always)]
    pub(crate) fn first(&self) -> &Consumer<M> {
        &self.first
    }

    /// The memory of the grown ring that is read, and where the next record will be there.
    pub(crate) fn grown(&self) -> Option<(M, u64)> {
        self.with_current(|ring| (ring.memory().clone(), ring.position()))
    }

    /// The next record, if one is published; or a link that has to be [followed](Self::follow). Takes
    /// nothing.
    #[inline(always)]
    pub(crate) fn peek(&self) -> Found {
        match self.first.peek() {
            Found::Link(link) => self.peek_beyond(link),
            found => found,
        }
    }

    #[cold]
    fn peek_beyond(&self, left: Link) -> Found {
        match self.with_current(Consumer::peek) {
            // Where the link leads to was left.
            None if self.has_ended.get() => Found::Nothing,
            None if left.order == 0 => Found::Broken,
            None => Found::Link(left),
            Some(Found::Record(record)) => {
                Found::Record(Record { rare: record.rare.in_ring(self.count.get()), ..record })
            }
            Some(Found::Link(back)) if back.order == 0 => self.go_back(left),
            Some(found) => found,
        }
    }

    /// Behind the link that stands in the first ring. What is there was prepared before the link that led
    /// back; another link leads on.
    fn go_back(&self, left: Link) -> Found {
        self.first.pass(left);
        self.is_away.set(false);
        self.has_gone_back.set(true);
        match self.first.peek() {
            Found::Link(link) if link.order == 0 => Found::Broken,
            found => found,
        }
    }

    /// Whether it went back to the first ring since this was last asked: there may be rings to
    /// [leave](Self::leave).
    #[inline(always)]
    pub(crate) fn has_gone_back(&self) -> bool {
        self.has_gone_back.get() && self.has_gone_back.replace(false)
    }

    /// Follows a link that [`peek`](Self::peek) has found.
    pub(crate) fn follow(&self, memory: M) {
        self.come_to(memory, 0);
    }

    fn come_to(&self, memory: M, read: u64) {
        let number = self.count.get() + 1;
        self.count.set(number);
        self.is_away.set(true);
        self.grown.borrow_mut().push_back(Grown { number, ring: Consumer::new(memory, read) });
    }

    /// Moves past a record that [`peek`](Self::peek) has found.
    #[inline(always)]
    pub(crate) fn take(&self, record: &Record) {
        match record.rare.ring() {
            0 => self.first.take(record.to),
            ring => self.in_ring(ring, |ring| ring.take(record.to)),
        }
    }

    /// Lets a taken record of a grown ring go, in any order.
    pub(crate) fn release(&self, ring: u32, from: u64, to: u64) {
        self.in_ring(ring, |ring| {
            ring.release(from, to);
            // Nobody waits for room here; but the poster wants to know who has caught up.
            ring.give_back();
        });
    }

    #[cold]
    fn in_ring(&self, number: u32, work: impl FnOnce(&Consumer<M>)) {
        if let Some(grown) = self.grown.borrow().iter().find(|grown| grown.number == number) {
            work(&grown.ring);
        }
    }

    /// The memory of a grown ring that is there.
    pub(crate) fn memory(&self, number: u32) -> Option<M> {
        let grown = self.grown.borrow();
        let grown = grown.iter().find(|grown| grown.number == number)?;
        Some(grown.ring.memory().clone())
    }

    /// Runs `work` on the ring that is read, if it is a grown one.
    pub(crate) fn with_current<T>(&self, work: impl FnOnce(&Consumer<M>) -> T) -> Option<T> {
        if !self.is_away.get() {
            return None;
        }
        self.grown.borrow().back().map(|grown| work(&grown.ring))
    }

    /// Lets go of a ring that was left and of which nothing is held; gives its capacity.
    pub(crate) fn leave(&self) -> Option<u64> {
        let mut grown = self.grown.borrow_mut();
        let is_current = self.is_away.get() && grown.len() == 1;
        let first = grown.front().filter(|first| !is_current && first.ring.is_idle())?;
        let capacity = first.ring.capacity();
        grown.pop_front();
        Some(capacity)
    }

    /// Nothing more will be read: the ring that is read can be [left](Self::leave) too.
    pub(crate) fn end(&self) {
        self.is_away.set(false);
        self.has_ended.set(true);
    }

    /// Lets all taken records go, those that were forgotten too.
    pub(crate) fn release_all(&self) {
        self.first.release_all();
        for grown in &*self.grown.borrow() {
            grown.ring.release_all();
            grown.ring.give_back();
        }
    }
}
