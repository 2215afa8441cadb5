//! Finding room: where a ring is full, the queue goes on in a larger one ([`crate::queue`]).

use std::cell::Cell;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::account::Sent;
use crate::error::PostError;
use crate::layout::{MIN_CAPACITY, RingWords, Shape, Side};
use crate::queue::Poster;
use crate::record::{HEADER_LEN, record_len};
use crate::ring::{Cursor, Refusal, Reservation};
use crate::segment::{Region, Segment};
use crate::steps::{Step, reach};
use crate::sync::{Ordering, spin_loop};
use crate::ticket::Ticket;
use crate::wake;

use super::post::{Patience, Sender};
use super::wait::{Look, is_past};

/// The largest grown ring, unless the first one is larger.
const MAX_STEP: u64 = 16 << 20;
/// Memory of a grown ring is allocated in such pieces: what is over at the end of a burst is little.
const CHUNK: u64 = 128 << 10;
/// A call that must not wait watches the reader about as long as making a ring takes.
const PAUSE: Pause = Pause { idle: IDLE, busy: Duration::from_micros(100) };
const IDLE: Duration = Duration::from_micros(30);
/// Any other as long as a reader may have to wait for its processor.
const LONG_PAUSE: Pause = Pause { idle: Duration::from_millis(1), busy: Duration::from_millis(5) };
pub(super) const QUICK_LOOKS: u32 = 64;

/// How long a poster watches a reader that is awake before it grows: one that does not get on, and one
/// that does.
struct Pause {
    idle: Duration,
    busy: Duration,
}

/// What a sender knows of the rings beyond the first, and of all that counts toward the limit.
#[derive(Debug)]
pub(super) struct Growth {
    pub(super) sent: Sent,
    /// Up to where the grown ring was allocated.
    allocated: Cell<u64>,
}

impl Growth {
    pub(super) fn new(limit: u64, sent: u64, queue: &Poster<Region>) -> Self {
        // What a former holder has allocated does not matter: to do it again costs little.
        let allocated = queue.grown().map_or(0, |(_, next)| next);
        Self { sent: Sent::new(limit, sent), allocated: Cell::new(allocated) }
    }
}

impl Sender {
    /// The words of the ring that this port posts to.
    pub(super) fn ring_words(&self) -> &RingWords {
        let endpoint = &self.hold().endpoint;
        endpoint.side().of(&endpoint.segment().header().rings)
    }

    /// Room that the first ring does not have.
    #[cold]
    #[inline(never)]
    pub(super) fn find_room(&self, len: u64, patience: Patience) -> Result<Reservation, PostError> {
        if let Some(room) = self.try_room(len)? {
            return Ok(room);
        }
        // What was staged must be visible, or the reader would never make room; nor could a link follow.
        self.flush();
        if let Some(room) = self.watch_reader(len, patience)? {
            return Ok(room);
        }
        if let Some(room) = self.grow_for(len, patience)? {
            return Ok(room);
        }
        match patience {
            Patience::None => {
                self.hold().look_at_line();
                self.check()?;
                Err(PostError::Full { len })
            }
            Patience::Until(deadline) => self.wait_for_room(len, deadline),
        }
    }

    fn wait_for_room(&self, len: u64, deadline: Option<Instant>) -> Result<Reservation, PostError> {
        let word = &self.hold().endpoint.own().room_wake;
        let found = self.hold().wait(word, deadline, |how| match self.try_room(len) {
            Ok(None) if how == Look::Quick => None,
            Ok(None) => match self.check().and_then(|()| self.grow_for(len, Patience::None)) {
                Ok(room) => room.map(Ok),
                Err(refused) => Some(Err(refused)),
            },
            Ok(Some(room)) => Some(Ok(room)),
            Err(refused) => Some(Err(refused)),
        });
        found.unwrap_or_else(|| self.check().and(Err(PostError::Full { len })))
    }

    /// Room in the ring that is posted to, with memory behind it.
    fn try_room(&self, len: u64) -> Result<Option<Reservation>, PostError> {
        match self.queue().reserve(len) {
            Ok(room) if !room.is_grown() => Ok(Some(room)),
            Ok(room) => self.back_with_memory(room, len),
            // Too large is it only for a grown ring that is smaller than the first one.
            Err(Refusal::Full | Refusal::Linked | Refusal::TooLarge { .. }) => Ok(None),
            Err(Refusal::Broken) => Err(self.violated()),
        }
    }

    /// Sees to it that there is memory for room in a grown ring. Where more has to be allocated is the
    /// place to ask whether the reader has caught up, so that it need not be asked at each post.
    fn back_with_memory(
        &self,
        room: Reservation,
        len: u64,
    ) -> Result<Option<Reservation>, PostError> {
        let allocated = self.growth().allocated.get();
        let end = room.end();
        if end <= allocated {
            return Ok(Some(room));
        }
        self.go_back()?;
        let Some((ring, _)) = self.queue().grown() else { return self.try_room(len) };
        let to = end.next_multiple_of(CHUNK).min(self.queue().capacity());
        ring.segment().allocate(allocated, to).map_err(|error| PostError::Os(error.into()))?;
        self.growth().allocated.set(to);
        Ok(Some(room))
    }

    pub(super) fn go_back(&self) -> Result<bool, PostError> {
        // What is staged stands before the link.
        self.flush();
        match self.queue().go_back() {
            Ok(true) => {
                self.growth().allocated.set(0);
                // Who sleeps there would keep the ring until the next message.
                self.notify_reader();
                Ok(true)
            }
            Ok(false) => Ok(false),
            Err(_) => Err(self.violated()),
        }
    }

    /// A reader that is awake and at work makes room sooner than a larger ring is made, and in a ring that
    /// is warm.
    fn watch_reader(&self, len: u64, patience: Patience) -> Result<Option<Reservation>, PostError> {
        if self.hold().waits.sleeps_at_once() || self.next_capacity(len)?.is_none() {
            return Ok(None);
        }
        let (Pause { idle, busy }, deadline) = match patience {
            Patience::None => (PAUSE, None),
            Patience::Until(deadline) => (LONG_PAUSE, deadline),
        };
        let start = Instant::now();
        let (mut seen, mut since) = (self.progress(), start);
        loop {
            for _ in 0..QUICK_LOOKS {
                let is_awake = self.is_reader_awake();
                // After that: a reader that has made room may be asleep by now.
                if let Some(room) = self.try_room(len)? {
                    return Ok(Some(room));
                }
                if !is_awake {
                    return Ok(None);
                }
                spin_loop();
            }
            self.go_back()?;
            let (progress, now) = (self.progress(), Instant::now());
            if progress != seen {
                (seen, since) = (progress, now);
            }
            let is_over = now.duration_since(since) > idle || now.duration_since(start) > busy;
            if is_over || is_past(deadline) {
                return Ok(None);
            }
            if now.duration_since(since) > IDLE {
                // The reader may wait for this processor.
                std::thread::yield_now();
            }
        }
    }

    pub(super) fn is_reader_awake(&self) -> bool {
        // Relaxed: only decides whether to wait for it.
        self.hold().endpoint.peer().message_wake.load(Ordering::Relaxed) != wake::ASLEEP
    }

    /// Changes when the reader gets on.
    fn progress(&self) -> u64 {
        // Relaxed, both: only tell whether the reader is at work.
        let let_go = self.ring_words().let_go.load(Ordering::Relaxed);
        let_go.wrapping_add(self.queue().released())
    }

    /// Goes on in another ring and finds room there. `None`: there must be none, or not now.
    fn grow_for(&self, len: u64, patience: Patience) -> Result<Option<Reservation>, PostError> {
        if self.growth().sent.limit() == 0 {
            return Ok(None);
        }
        self.go_back()?;
        if let Some(room) = self.try_room(len)? {
            return Ok(Some(room));
        }
        if !self.grow(len, patience)? {
            return Ok(None);
        }
        self.try_room(len)
    }

    fn grow(&self, len: u64, patience: Patience) -> Result<bool, PostError> {
        let next = self.next_capacity(len)?;
        // Who needs more than its ring had better use all of it, also where it may not grow.
        self.queue().first().turn_late();
        let Some(capacity) = next else { return Ok(false) };
        let os = |error: rustix::io::Errno| PostError::Os(error.into());
        let segment = Segment::create(Shape::grown(capacity)).map_err(os)?;
        let chunk = CHUNK.max(2 * record_len(len)).min(capacity);
        segment.allocate(0, chunk).map_err(os)?;
        reach(Step::RingMade);
        let ticket = Ticket::ring(capacity);
        let sent = self.try_send(len, patience, &mut |lane| {
            Ok(lane.send(Some((ticket, segment.memfd().as_fd())), &[], &[]))
        })?;
        let Some(((), flags)) = sent else { return Ok(false) };
        reach(Step::RingSent);
        self.growth().sent.add(capacity);
        self.growth().allocated.set(chunk);
        let region = Region::new(Arc::new(segment), Side::First);
        self.queue().grow(region, capacity.trailing_zeros(), flags);
        reach(Step::Linked);
        self.notify_reader();
        Ok(true)
    }

    /// How large the next ring is: twice this one, as far as the limits allow.
    fn next_capacity(&self, len: u64) -> Result<Option<u64>, PostError> {
        let queue = self.queue();
        let needed = 2 * (record_len(len) + HEADER_LEN);
        let step = MAX_STEP.max(queue.first().cursor().capacity());
        let mut capacity = (2 * queue.capacity()).min(step).max(needed.next_power_of_two());
        let left = self.growth().sent.limit().saturating_sub(self.outstanding()?);
        let fits =
            |capacity| capacity >= MIN_CAPACITY && Cursor::new(capacity).max_payload() >= len;
        while capacity > left && fits(capacity / 2) {
            capacity /= 2;
        }
        let is_enough = capacity <= left && fits(capacity);
        Ok(is_enough.then_some(capacity))
    }

    /// Bytes outside the first ring that the reader has not let go.
    fn outstanding(&self) -> Result<u64, PostError> {
        let outstanding = self.growth().sent.outstanding(&self.ring_words().let_go);
        outstanding.ok_or_else(|| self.violated())
    }

    /// Claims room in a ring for a message of `len` bytes that has `outside` bytes beyond it, and waits until
    /// these may be sent.
    pub(super) fn reserve_with(
        &self,
        in_ring: u64,
        outside: u64,
        len: u64,
        patience: Patience,
    ) -> Result<Reservation, PostError> {
        loop {
            self.admit(outside, len, patience)?;
            let room = self.reserve_room(in_ring, patience)?;
            // The ring may have grown by as much as was left.
            if outside == 0 || self.may_send(outside)? {
                return Ok(room);
            }
        }
    }

    /// Waits until so many more bytes may be sent outside the ring. No room may be claimed: the queue may go
    /// back to its first ring.
    pub(super) fn admit(
        &self,
        outside: u64,
        len: u64,
        patience: Patience,
    ) -> Result<(), PostError> {
        self.wait_to_send(len, patience, || {
            if outside == 0 || self.may_send(outside)? {
                return Ok(true);
            }
            // As long as it is in a grown ring, it cannot be empty.
            Ok(self.go_back()? && self.may_send(outside)?)
        })
    }

    /// As [`admit`](Self::admit), for who has claimed room already. What can never pass as long as that
    /// room is held is refused.
    pub(super) fn admit_in(
        &self,
        room: &Reservation,
        outside: u64,
        len: u64,
        patience: Patience,
    ) -> Result<(), PostError> {
        let grown = if room.is_grown() { self.queue().capacity() } else { 0 };
        let passes = grown == 0 || grown.saturating_add(outside) <= self.growth().sent.limit();
        let patience = if passes { patience } else { Patience::None };
        self.wait_to_send(len, patience, || Ok(outside == 0 || self.may_send(outside)?))
    }

    fn wait_to_send(
        &self,
        len: u64,
        patience: Patience,
        may_send: impl Fn() -> Result<bool, PostError>,
    ) -> Result<(), PostError> {
        if may_send()? {
            return Ok(());
        }
        self.flush();
        let Patience::Until(deadline) = patience else {
            self.hold().look_at_line();
            self.check()?;
            return Err(PostError::Full { len });
        };
        let word = &self.hold().endpoint.own().room_wake;
        let found = self.hold().wait(word, deadline, |how| match how {
            Look::Quick => None,
            Look::Thorough => match self.check().and_then(|()| may_send()) {
                Ok(may) => may.then_some(Ok(())),
                Err(refused) => Some(Err(refused)),
            },
        });
        found.unwrap_or_else(|| self.check().and(Err(PostError::Full { len })))
    }

    /// Whether so many more bytes may be sent outside the ring: within the limit, or into an empty queue.
    fn may_send(&self, outside: u64) -> Result<bool, PostError> {
        let outstanding = self.outstanding()?;
        if outstanding.saturating_add(outside) <= self.growth().sent.limit() {
            return Ok(true);
        }
        let is_drained = self.queue().is_drained().map_err(|_| self.violated())?;
        Ok(is_drained && outstanding == 0)
    }

    pub(super) fn notify_reader(&self) {
        self.hold().notify(&self.hold().endpoint.peer().message_wake);
    }
}
