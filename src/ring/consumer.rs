//! The reader's half: peek → (read) → release. Mirror of [`super::producer`].

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;

use super::{Cursor, Memory};
use crate::record::{
    HEADER_LEN, Head, MAX_PORTS, OUTSIDE, buffers_of, gap_of, parse_head, plain_len, record_len,
    tag_of,
};
use crate::sync::Ordering;

/// The part of the capacity that a reader may owe a streaming poster: one in so many.
pub(crate) const BATCH_SHARE: u64 = 8;

const CACHE_LINE: u64 = 64;

/// In place of the room of a record that no poster makes so long: more than any ring has.
const TOO_LONG: u64 = 1 << 62;

/// What the room of a record depends on: its payload and gap.
#[inline(always)]
fn shape(payload_len: u32, detail: u64) -> u64 {
    u64::from(payload_len) | gap_of(detail) << 32
}

/// A published record, found and checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    /// Where it starts.
    pub(crate) from: u64,
    /// Where the next record starts.
    pub(crate) to: u64,
    /// The place of the payload in the ring.
    pub(crate) payload_offset: u64,
    /// Bytes of payload.
    pub(crate) payload_len: u32,
    /// The type tag; 0 is "untagged".
    pub(crate) tag: u32,
    /// What few records have.
    pub(crate) rare: Rare,
}

/// What few records have: in one word, so that one comparison tells.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Rare(u64);

impl Rare {
    /// What most records have.
    pub(crate) const NOTHING: Self = Self(0);

    const fn new(flags: u8, ports: u16, buffers: u16) -> Self {
        Self(flags as u64 | (ports as u64) << 8 | (buffers as u64) << 20)
    }

    /// The same, in another ring than the first. There are not as many rings as this can count.
    pub(crate) const fn in_ring(self, number: u32) -> Self {
        Self(self.0 & 0xffff_ffff | (number as u64) << 32)
    }

    /// The flags of the head.
    pub(crate) const fn flags(self) -> u8 {
        self.0 as u8
    }

    /// Ports that came over the lane.
    pub(crate) const fn ports(self) -> u16 {
        (self.0 >> 8) as u16 & 0xfff
    }

    /// Buffers that came over the lane.
    pub(crate) const fn buffers(self) -> u16 {
        (self.0 >> 20) as u16 & 0xfff
    }

    /// Which ring of the queue it is in: 0 is the first ([`crate::queue`]).
    pub(crate) const fn ring(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

impl fmt::Debug for Rare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (flags, ring) = (self.flags(), self.ring());
        write!(f, "flags {flags}, {} ports, {} buffers, ring {ring}", self.ports(), self.buffers())
    }
}

const _: () = assert!(MAX_PORTS <= 0xfff, "a count fits in its bits");

/// The end of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// Where it stands.
    pub(crate) at: u64,
    /// The base-2 logarithm of the next ring's capacity; 0: the first ring of all.
    pub(crate) order: u32,
    /// The flags of its head.
    pub(crate) flags: u8,
}

/// What a look at the ring finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing is published yet.
    Nothing,
    /// The next record.
    Record(Record),
    /// The queue goes on in another ring.
    Link(Link),
    /// The other side broke the ring's protocol.
    Broken,
}

/// The reading half of a ring.
#[derive(Debug)]
pub(crate) struct Consumer<M> {
    memory: M,
    cursor: Cursor,
    /// Where the next record will be.
    read: Cell<u64>,
    /// The start of the oldest record that is still held; `read` if none is.
    held: Cell<u64>,
    /// The payload and gap of the last record as its header tells them, and the room of such a record.
    usual: Cell<(u64, u64)>,
    /// What the poster was told last.
    released: Cell<u64>,
    /// How far a record may reach: to the end of the lap, or of what is the poster's to write.
    limit: Cell<u64>,
    /// Records that were let go before an older one: their start and end; and whether there are any.
    early: RefCell<BinaryHeap<Reverse<(u64, u64)>>>,
    has_early: Cell<bool>,
}

impl<M: Memory> Consumer<M> {
    /// Stands at `read`, with nothing held.
    pub(crate) fn new(memory: M, read: u64) -> Self {
        let cursor = Cursor::new(memory.capacity());
        Self {
            memory,
            cursor,
            read: Cell::new(read),
            held: Cell::new(read),
            usual: Cell::new((0, record_len(0))),
            released: Cell::new(read),
            // The first record is looked at more closely.
            limit: Cell::new(0),
            early: RefCell::default(),
            has_early: Cell::new(false),
        }
    }

    pub(crate) fn memory(&self) -> &M {
        &self.memory
    }

    /// Where the next record will be.
    pub(crate) fn position(&self) -> u64 {
        self.read.get()
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.cursor.capacity()
    }

    /// The next record, if it is one as most are. Takes nothing. What is not found here, [`peek`](Self::peek)
    /// finds.
    #[inline(always)]
    pub(crate) fn peek_plain(&self) -> Option<Record> {
        let from = self.read.get();
        let (len, detail) = self.plain(from)?;
        let to = from + self.room(len, detail);
        (to <= self.limit.get()).then(|| self.record(from, to, len, detail))
    }

    /// As [`peek_plain`](Self::peek_plain), if it has the usual length, too; calls nothing.
    #[inline(always)]
    pub(crate) fn peek_usual(&self) -> Option<Record> {
        let from = self.read.get();
        let (len, detail) = self.plain(from)?;
        let (usual, room) = self.usual.get();
        let to = from + room;
        let is_usual = shape(len, detail) == usual && to <= self.limit.get();
        is_usual.then(|| self.record(from, to, len, detail))
    }

    #[inline(always)]
    fn plain(&self, from: u64) -> Option<(u32, u64)> {
        // PUBLISH: as in `peek`.
        let len = plain_len(self.memory.word(from).load(Ordering::Acquire))?;
        Some((len, self.detail(from)))
    }

    /// The next record, if one is published. Takes nothing but the rest of a lap before it.
    #[inline(always)]
    pub(crate) fn peek(&self) -> Found {
        let from = self.read.get();
        // PUBLISH: pairs with the Release in `Producer::publish` and `flush`.
        match parse_head(self.memory.word(from).load(Ordering::Acquire)) {
            Head::Empty => Found::Nothing,
            Head::Plain { len } => self.check(from, len, self.detail(from)),
            Head::Message { len, flags, ports } => self.check_rare(from, len, flags, ports),
            Head::Filler => self.next_lap(from),
            Head::Link { flags } => self.link(from, flags),
            Head::Broken => Found::Broken,
        }
    }

    /// The place of the payload of a record that starts at `from`.
    #[inline(always)]
    pub(crate) fn payload_offset(&self, from: u64) -> u64 {
        self.cursor.offset(from) + HEADER_LEN
    }

    /// For a reader that polls: has the line behind the next header fetched together with it. A small
    /// message then costs one transfer's time, not two.
    #[inline(always)]
    pub(crate) fn prefetch(&self) {
        self.memory.prefetch(self.read.get() + CACHE_LINE);
    }

    /// The room of the last record.
    pub(crate) fn usual_room(&self) -> u64 {
        self.usual.get().1
    }

    /// Moves past a record that [`peek`](Self::peek) found, to its end; its bytes stay until it is
    /// released.
    #[inline(always)]
    pub(crate) fn take(&self, to: u64) {
        self.read.set(to);
    }

    /// Lets a taken record go, in any order; room goes back in the order of the ring.
    #[inline(always)]
    pub(crate) fn release(&self, from: u64, to: u64) {
        if self.held.get() != from {
            self.release_early(from, to);
            return;
        }
        self.held.set(to);
        if self.has_early.get() {
            self.collect_early();
        }
    }

    /// Whether [`release_oldest`](Self::release_oldest) is enough to let a record go.
    #[inline(always)]
    pub(crate) fn is_oldest(&self, from: u64) -> bool {
        self.held.get() == from && !self.has_early.get()
    }

    /// As [`release`](Self::release), which calls nothing.
    #[inline(always)]
    pub(crate) fn release_oldest(&self, to: u64) {
        self.held.set(to);
    }

    /// Whether the next record is not published yet.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        // Relaxed: only decides when to give room back; nothing is read on the strength of it.
        self.memory.word(self.read.get()).load(Ordering::Relaxed) == 0
    }

    /// Bytes that the poster could have back.
    #[inline]
    pub(crate) fn owed(&self) -> u64 {
        self.held.get() - self.released.get()
    }

    /// As much as may be owed without hurting a poster.
    #[inline]
    pub(crate) fn batch(&self) -> u64 {
        self.cursor.capacity() / BATCH_SHARE
    }

    /// Gives back all that is owed.
    #[inline]
    pub(crate) fn give_back(&self) {
        let held = self.held.get();
        self.released.set(held);
        self.set_limit();
        // RELEASE: pairs with the Acquire in `Producer::refresh`; our reads of those bytes are done
        // before the poster may write over them.
        self.memory.released().store(held, Ordering::Release);
    }

    /// Goes on behind a link, which is let go at once.
    pub(crate) fn pass(&self, link: Link) {
        let behind = link.at + HEADER_LEN;
        self.take(behind);
        self.release(link.at, behind);
    }

    /// Whether no record is held.
    pub(crate) fn is_idle(&self) -> bool {
        self.held.get() == self.read.get()
    }

    /// The place up to which no record is held.
    pub(crate) fn held(&self) -> u64 {
        self.held.get()
    }

    /// Lets all taken records go, those that were forgotten too: nobody reads them any more.
    pub(crate) fn release_all(&self) {
        self.early.borrow_mut().clear();
        self.has_early.set(false);
        self.held.set(self.read.get());
    }

    #[cold]
    fn release_early(&self, from: u64, to: u64) {
        self.early.borrow_mut().push(Reverse((from, to)));
        self.has_early.set(true);
    }

    #[cold]
    fn collect_early(&self) {
        let mut early = self.early.borrow_mut();
        while let Some(&Reverse((from, to))) = early.peek() {
            if from != self.held.get() {
                return;
            }
            self.held.set(to);
            early.pop();
        }
        self.has_early.set(false);
    }

    /// Passes the rest of a lap, of which the filler at `from` says that it is unused; the record at the
    /// beginning of the next one was published with it (R3).
    #[cold]
    #[inline(never)]
    fn next_lap(&self, from: u64) -> Found {
        let to_end = self.cursor.to_end(from);
        let lap = from + to_end;
        if to_end == self.cursor.capacity() || !self.cursor.is_free(lap, self.released.get()) {
            return Found::Broken;
        }
        // Relaxed: written before the filler, whose Acquire has brought it.
        match parse_head(self.memory.word(lap).load(Ordering::Relaxed)) {
            Head::Plain { .. } | Head::Message { .. } => {}
            Head::Empty | Head::Filler | Head::Link { .. } | Head::Broken => return Found::Broken,
        }
        self.take(lap);
        self.release(from, lap);
        self.peek()
    }

    #[cold]
    fn link(&self, at: u64, flags: u8) -> Found {
        Found::Link(Link { at, order: tag_of(self.detail(at)), flags })
    }

    /// The room of a record, with the gap behind it. In a stream of records of one length the next header's place must not
    /// wait for this header to arrive: a branch on the usual length lets the processor go ahead and
    /// fetch several headers at once.
    #[inline(always)]
    fn room(&self, payload_len: u32, detail: u64) -> u64 {
        let (usual, room) = self.usual.get();
        let found = shape(payload_len, detail);
        if found == usual { room } else { self.unusual(found) }
    }

    #[cold]
    #[inline(never)]
    fn unusual(&self, found: u64) -> u64 {
        let (payload_len, gap) = (found & u64::from(u32::MAX), found >> 32);
        if payload_len > self.cursor.max_payload() {
            return TOO_LONG;
        }
        let room = record_len(payload_len) + gap;
        self.usual.set((found, room));
        room
    }

    fn set_limit(&self) {
        let read = self.read.get();
        let free = self.released.get() + self.cursor.capacity() - HEADER_LEN;
        self.limit.set(free.min(read + self.cursor.to_end(read)));
    }

    #[inline(always)]
    fn record(&self, from: u64, to: u64, payload_len: u32, detail: u64) -> Record {
        let payload_offset = self.payload_offset(from);
        Record { from, to, payload_offset, payload_len, tag: tag_of(detail), rare: Rare::NOTHING }
    }

    /// Checks a record's place: its length, that it ends with its lap at the latest (R3), and that the
    /// poster had that room: else it has written over what the reader holds (R2).
    fn check(&self, from: u64, payload_len: u32, detail: u64) -> Found {
        self.set_limit();
        let to = from + self.room(payload_len, detail);
        if to > self.limit.get() {
            return Found::Broken;
        }
        Found::Record(self.record(from, to, payload_len, detail))
    }

    /// As [`check`](Self::check), for a record that has more than most.
    #[cold]
    #[inline(never)]
    fn check_rare(&self, from: u64, len: u32, flags: u8, ports: u16) -> Found {
        let detail = self.detail(from);
        let Found::Record(record) = self.check(from, len, detail) else {
            return Found::Broken;
        };
        let buffers = if flags & OUTSIDE == 0 { 0 } else { buffers_of(detail) };
        if buffers > MAX_PORTS - ports {
            return Found::Broken;
        }
        Found::Record(Record { rare: Rare::new(flags, ports, buffers), ..record })
    }

    fn detail(&self, start: u64) -> u64 {
        // Relaxed: written before the head, whose Acquire has brought it.
        self.memory.word(start + 8).load(Ordering::Relaxed)
    }
}
