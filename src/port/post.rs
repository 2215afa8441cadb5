//! The sending way: post → reserve → serialise → publish → wake.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{BatchError, CloseReason, PostError};
use crate::halves::Half;
use crate::line::Line;
use crate::queue::Poster;
use crate::record::OUTSIDE_LEN;
use crate::ring::{Content, Reservation};
use crate::segment::Region;

#[cfg(feature = "rkyv")]
use super::encode::Serialisers;
use super::endpoint::Endpoint;
use super::grow::Growth;
use super::hold::Hold;
use super::large::Store;
use super::loan::Loan;
use super::out_lanes::OutLanes;
use super::wait::WaitStrategy;
use super::{Closer, PeerState, Trust};

/// The tag of bytes.
pub(super) const UNTAGGED: u32 = 0;

/// The longest payload of all.
pub(super) const MAX_PAYLOAD: u64 = 4 << 30;

/// The sending half of a [`MessagePort`](crate::MessagePort), for a thread of its own.
///
/// Made by [`MessagePort::split`](crate::MessagePort::split). The port closes when both halves are
/// gone, or when either is closed explicitly.
///
/// ```
/// use zeroport::{MessageChannel, MessagePort};
///
/// let MessageChannel { port1, port2 } = MessageChannel::new()?;
/// let (sender, receiver) = port1.split();
/// let posting = std::thread::spawn(move || sender.post_bytes(b"from there").map(|()| sender));
/// port2.post_bytes(b"to here")?;
/// assert_eq!(receiver.recv()?.bytes(), b"to here");
/// assert_eq!(port2.recv()?.bytes(), b"from there");
///
/// let sender = posting.join().unwrap()?;
/// let port1 = MessagePort::join(sender, receiver).expect("they are of one port");
/// port1.close();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Sender {
    queue: Poster<Region>,
    hold: Hold,
    /// Whether room is lent out: then nothing else may be posted (ring invariant R5).
    loaned: Cell<bool>,
    /// Whether records are staged, to appear at once.
    batching: Cell<bool>,
    /// What descriptors are sent on.
    lanes: OutLanes,
    /// What is known of the rings beyond the first, and of all that counts.
    growth: Growth,
    /// Memory for large payloads.
    store: Store,
    /// Serialisers at work: one may write into the ring, those that it interrupted do not (R5).
    #[cfg(feature = "rkyv")]
    pub(super) serialisers: Serialisers,
}

/// How long a post may wait for room.
#[derive(Clone, Copy, Debug)]
pub(super) enum Patience {
    None,
    Until(Option<Instant>),
}

impl Patience {
    pub(super) const FOR_EVER: Self = Self::Until(None);

    pub(super) fn at_most(timeout: Duration) -> Self {
        Self::Until(Instant::now().checked_add(timeout))
    }
}

impl Sender {
    pub(super) fn new(
        endpoint: Arc<Endpoint>,
        line: Arc<Line>,
        queue: Poster<Region>,
        sent: u64,
        lanes: OutLanes,
        strategy: WaitStrategy,
    ) -> Self {
        let shape = endpoint.segment().shape();
        let limit = *endpoint.side().of(&shape.limit);
        let is_warm = shape.reuse && endpoint.trust() == Trust::Trusted;
        Self {
            growth: Growth::new(limit, sent, &queue),
            queue,
            hold: Hold::new(Half::Sender, endpoint, line, strategy),
            loaned: Cell::new(false),
            batching: Cell::new(false),
            lanes,
            store: Store::new(is_warm),
            #[cfg(feature = "rkyv")]
            serialisers: Serialisers::default(),
        }
    }

    pub(super) fn hold(&self) -> &Hold {
        &self.hold
    }

    /// Lends room for a message of up to `len` bytes. See
    /// [`MessagePort::reserve`](crate::MessagePort::reserve).
    pub fn reserve(&self, len: usize) -> Result<Loan<'_>, PostError> {
        self.lend(len, Patience::FOR_EVER)
    }

    /// As [`reserve`](Self::reserve), without waiting.
    pub fn try_reserve(&self, len: usize) -> Result<Loan<'_>, PostError> {
        self.lend(len, Patience::None)
    }

    /// As [`reserve`](Self::reserve), waiting at most so long.
    pub fn reserve_timeout(&self, len: usize, timeout: Duration) -> Result<Loan<'_>, PostError> {
        self.lend(len, Patience::at_most(timeout))
    }

    /// How the other end is. See [`MessagePort::peer_state`](crate::MessagePort::peer_state).
    pub fn peer_state(&self) -> PeerState {
        super::peer_state(&self.hold)
    }

    /// Chooses how this half waits for room.
    pub fn set_wait_strategy(&self, strategy: WaitStrategy) {
        self.hold.waits.set_strategy(strategy);
    }

    /// How often this half has slept in the kernel: a figure for benchmarks and tests.
    pub fn sleeps(&self) -> u64 {
        self.hold.waits.sleeps()
    }

    /// The longest payload, in bytes. See
    /// [`MessagePort::max_payload`](crate::MessagePort::max_payload).
    pub fn max_payload(&self) -> usize {
        MAX_PAYLOAD as usize
    }

    /// The longest payload that travels in the ring, in bytes. See
    /// [`MessagePort::max_in_ring`](crate::MessagePort::max_in_ring).
    pub fn max_in_ring(&self) -> usize {
        self.queue.first().cursor().max_payload() as usize
    }

    /// Closes the whole port, as [`Closer::close`] does: the receiving half too.
    pub fn close(self) {
        self.closer().close();
    }

    /// A handle that closes the port from any thread.
    pub fn closer(&self) -> Closer {
        Closer::new(&self.hold)
    }

    pub(super) fn queue(&self) -> &Poster<Region> {
        &self.queue
    }

    pub(super) fn lanes(&self) -> &OutLanes {
        &self.lanes
    }

    pub(super) fn growth(&self) -> &Growth {
        &self.growth
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// Lets go of line, lane and all memory but the segment: nothing more will come of them.
    pub(super) fn let_go(&self) {
        self.hold.let_go();
        self.lanes.let_go();
        self.queue.let_go();
        self.store.let_go();
    }

    /// Copies bytes into room in the first ring or, if `is_grown`, in the grown one. False if they would
    /// leave it.
    #[inline(always)]
    pub(super) fn write(&self, is_grown: bool, offset: u64, bytes: &[u8]) -> bool {
        let written = self.queue.with_memory(is_grown, |memory| memory.write(offset, bytes));
        written.unwrap_or(false)
    }

    /// False for the copy that a fork makes.
    #[inline(always)]
    pub(super) fn is_original(&self) -> bool {
        self.hold.endpoint.is_original()
    }

    pub(super) fn is_trusted(&self) -> bool {
        self.hold.endpoint.trust() == Trust::Trusted
    }

    #[inline(always)]
    pub(super) fn post_raw(
        &self,
        bytes: &[u8],
        tag: u32,
        patience: Patience,
    ) -> Result<(), PostError> {
        self.check()?;
        self.take_turn()?;
        let len = bytes.len() as u64;
        let reservation = match self.queue.first().reserve(len) {
            Ok(reservation) => self.found_room(reservation),
            Err(_) if len > self.max_in_ring() as u64 => {
                return self.post_large(bytes, tag, patience);
            }
            Err(_) => self.find_room(len, patience)?,
        };
        self.write(reservation.is_grown(), reservation.payload_offset(), bytes);
        self.publish(reservation, bytes.len(), tag)
    }

    fn lend(&self, len: usize, patience: Patience) -> Result<Loan<'_>, PostError> {
        self.check()?;
        self.take_turn()?;
        // Room for what buffers that go with it need.
        let with_buffers = (len as u64).saturating_add(OUTSIDE_LEN.into());
        if with_buffers > self.max_in_ring() as u64 {
            return Ok(Loan::large(self, self.make_large(len as u64, patience)?));
        }
        Ok(Loan::new(self, self.reserve_room(with_buffers, patience)?, len))
    }

    /// What forbids to post at all.
    #[inline(always)]
    pub(super) fn check(&self) -> Result<(), PostError> {
        let endpoint = &self.hold.endpoint;
        if !endpoint.is_original() {
            return Err(PostError::Detached);
        }
        match endpoint.end() {
            None => Ok(()),
            Some(reason) => Err(self.at_end(reason)),
        }
    }

    /// Makes the caller the one who writes into free room.
    #[inline(always)]
    pub(super) fn take_turn(&self) -> Result<(), PostError> {
        if self.loaned.get() {
            return Err(PostError::Busy);
        }
        #[cfg(feature = "rkyv")]
        self.serialisers.interrupt(&self.queue);
        Ok(())
    }

    pub(super) fn set_loaned(&self, loaned: bool) {
        self.loaned.set(loaned);
    }

    /// Claims room for exactly `len` bytes, which fit in a ring; finds some if need be.
    #[inline(always)]
    pub(super) fn reserve_room(
        &self,
        len: u64,
        patience: Patience,
    ) -> Result<Reservation, PostError> {
        match self.queue.first().reserve(len) {
            Ok(reservation) => Ok(self.found_room(reservation)),
            Err(_) => self.find_room(len, patience),
        }
    }

    #[inline(always)]
    fn found_room(&self, reservation: Reservation) -> Reservation {
        self.hold.waits.succeeded(&self.hold.endpoint.own().room_wake);
        reservation
    }

    /// Claims whatever is free in one piece.
    #[cfg(feature = "rkyv")]
    #[inline]
    pub(super) fn reserve_rest(&self) -> Option<Reservation> {
        self.hold.waits.succeeded(&self.hold.endpoint.own().room_wake);
        self.queue.first().reserve_rest()
    }

    /// Makes a message of a reservation and wakes the reader.
    #[inline(always)]
    pub(super) fn publish(
        &self,
        reservation: Reservation,
        len: usize,
        tag: u32,
    ) -> Result<(), PostError> {
        let content = Content::plain(len, tag);
        if self.batching.get() {
            self.queue.stage(reservation, content);
            return Ok(());
        }
        self.publish_now(reservation, content);
        self.own_end()
    }

    /// As [`publish`](Self::publish), for who knows that this end is not being closed.
    pub(super) fn publish_content(&self, reservation: Reservation, content: Content) {
        if self.batching.get() {
            self.queue.stage(reservation, content);
        } else {
            self.publish_now(reservation, content);
        }
    }

    #[inline(always)]
    fn publish_now(&self, reservation: Reservation, content: Content) {
        self.queue.publish(reservation, content);
        self.hold.notify(&self.hold.endpoint.peer().message_wake);
    }

    /// Whether this end was closed before what was published is certain to be seen.
    #[inline(always)]
    fn own_end(&self) -> Result<(), PostError> {
        match self.hold.endpoint.own_end() {
            None => Ok(()),
            Some(reason) => Err(self.at_end(reason)),
        }
    }

    pub(super) fn flush(&self) {
        // A fork may have come from inside the caller's iterator.
        if self.is_original() && self.queue.flush() {
            self.hold.notify(&self.hold.endpoint.peer().message_wake);
        }
    }

    /// Posts all, visible at once as far as the room allows.
    pub(super) fn post_each<I: IntoIterator>(
        &self,
        messages: I,
        post: impl Fn(I::Item) -> Result<(), PostError>,
    ) -> Result<usize, BatchError> {
        let batch = Batch { sender: self, outermost: !self.batching.replace(true) };
        let mut posted = 0;
        let mut refused = None;
        for message in messages {
            refused = post(message).err();
            if refused.is_some() {
                break;
            }
            posted += 1;
        }
        drop(batch);
        // As after every publish: a port that was closed meanwhile makes no promise.
        self.own_end().map_err(|source| BatchError { posted: 0, source })?;
        refused.map_or(Ok(posted), |source| Err(BatchError { posted, source }))
    }

    #[cold]
    fn at_end(&self, reason: CloseReason) -> PostError {
        if reason == CloseReason::Violated {
            self.hold.violated();
        }
        self.let_go();
        PostError::Closed(reason)
    }

    #[cold]
    pub(super) fn violated(&self) -> PostError {
        self.at_end(CloseReason::Violated)
    }
}

/// Publishes what was staged, also when the caller's iterator panics.
struct Batch<'p> {
    sender: &'p Sender,
    outermost: bool,
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        if self.outermost {
            self.sender.batching.set(false);
            self.sender.flush();
        }
    }
}
