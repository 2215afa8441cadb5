//! The sending way: post → reserve → serialise → publish → wake.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{CloseReason, PostError};
use crate::halves::Half;
use crate::line::Line;
use crate::queue::Poster;
use crate::record::OUTSIDE_LEN;
use crate::ring::{Content, Reservation};
use crate::segment::{Place, Region};

use super::endpoint::Endpoint;
use super::grow::Growth;
use super::headed::Heading;
use super::hold::Hold;
use super::large::{Large, Store};
use super::loan::Loan;
use super::out_lanes::OutLanes;
use super::transfer_list::TransferList;
use super::wait::WaitStrategy;
use super::{Closer, PeerState, Trust};

/// The tag of bytes.
pub(super) const UNTAGGED: u32 = 0;

/// A queue that may become so many times as long as its first ring is not held to what that ring has room for.
const ELASTIC: u64 = 16;

/// Bytes of a lap after which it may end early: one page, and enough messages that the question whether the
/// reader has caught up, which takes a line from it, costs each of them little.
const TURN_AFTER: u64 = 4096;
/// And at least one in so many of its bytes: positions do not grow faster than that.
const MAX_SKIP: u64 = 16;
/// How far apart messages lie then: so far that a whole cache line between them stays idle.
const APART: u64 = 128;

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
    pub(super) batching: Cell<bool>,
    /// Between [`find_place`](Self::find_place) and [`publish_found`](Self::publish_found).
    found: RefCell<Option<Room>>,
    /// What descriptors are sent on.
    lanes: OutLanes,
    /// What is known of the rings beyond the first, and of all that counts.
    growth: Growth,
    /// Memory for large payloads.
    store: Store,
}

/// Room that was found for a payload that is about to be written.
#[derive(Debug)]
enum Room {
    Ring(Reservation),
    Large(Large),
}

/// How long a post may wait for room.
#[derive(Clone, Copy, Debug)]
pub enum Patience {
    None,
    Until(Option<Instant>),
}

impl Patience {
    pub(crate) const FOR_EVER: Self = Self::Until(None);

    pub(crate) fn at_most(timeout: Duration) -> Self {
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
        let first = queue.first();
        let capacity = first.cursor().capacity();
        let turn_after = TURN_AFTER.max(capacity / MAX_SKIP);
        if limit >= ELASTIC * capacity && sent == 0 && turn_after < capacity {
            first.turn_early(turn_after, APART);
        }
        Self {
            growth: Growth::new(limit, sent, &queue),
            queue,
            hold: Hold::new(Half::Sender, endpoint, line, strategy),
            loaned: Cell::new(false),
            batching: Cell::new(false),
            found: RefCell::default(),
            lanes,
            store: Store::new(is_warm),
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

    /// Posts bytes.
    #[inline(always)]
    pub(super) fn post_raw(
        &self,
        bytes: &[u8],
        tag: u32,
        patience: Patience,
    ) -> Result<(), PostError> {
        self.post_raw_headed(Heading::none(tag), bytes, patience)
    }

    /// Posts bytes with a head before them: in the first ring if there is room and nothing else is in the way,
    /// which is the usual case and must cost little; else by the longer way.
    ///
    /// There is one write for both: so a value that is in registers goes from there to the ring.
    #[inline(always)]
    pub(super) fn post_raw_headed(
        &self,
        Heading { head, tag }: Heading<'_>,
        bytes: &[u8],
        patience: Patience,
    ) -> Result<(), PostError> {
        let (first, len) = (self.queue.first(), head.len() + bytes.len());
        let next = if self.is_ready() { first.reserve_next(len as u64) } else { None };
        let place = match &next {
            Some(reservation) => first.memory().place(reservation),
            None => self.find_place(len, patience)?,
        };
        place.write(head);
        place.behind(head.len()).write(bytes);
        match next {
            Some(reservation) => self.publish_next(reservation, len, tag),
            None => self.publish_found(len, tag, patience),
        }
    }

    /// Finds a place for a payload where it is not as usual.
    #[cold]
    #[inline(never)]
    fn find_place(&self, len: usize, patience: Patience) -> Result<Place<'_>, PostError> {
        self.check()?;
        self.check_loan()?;
        if len > self.max_in_ring() {
            let mut large = self.make_large(len as u64, patience)?;
            let place = Place::of(large.bytes_mut());
            self.found.replace(Some(Room::Large(large)));
            return Ok(place);
        }
        let reservation = self.reserve_room(len as u64, patience)?;
        let place = self.place_of(&reservation);
        self.found.replace(Some(Room::Ring(reservation)));
        Ok(place)
    }

    fn place_of(&self, reservation: &Reservation) -> Place<'_> {
        match self.queue.grown() {
            Some((memory, _)) if reservation.is_grown() => memory.place(reservation).held(),
            _ => self.queue.first().memory().place(reservation),
        }
    }

    /// Posts what was written to the place that [`find_place`](Self::find_place) has found.
    #[cold]
    #[inline(never)]
    fn publish_found(&self, len: usize, tag: u32, patience: Patience) -> Result<(), PostError> {
        match self.found.take() {
            Some(Room::Ring(reservation)) => self.publish(reservation, len, tag),
            Some(Room::Large(large)) => {
                let posted = self.post_filled(large, len, tag, patience, TransferList::new());
                posted.map_err(|refused| refused.source)
            }
            // Not reached: nothing comes between.
            None => Err(PostError::Busy),
        }
    }

    /// Whether a message may be posted, and no room is lent out.
    #[inline(always)]
    pub(super) fn is_ready(&self) -> bool {
        self.hold.endpoint.may_post() && !self.loaned.get()
    }

    /// As [`publish`](Self::publish), for room in the first ring.
    #[inline(always)]
    pub(super) fn publish_next(
        &self,
        reservation: Reservation,
        len: usize,
        tag: u32,
    ) -> Result<(), PostError> {
        self.hold.waits.succeeded(&self.hold.endpoint.own().room_wake);
        let (first, content) = (self.queue.first(), Content::plain(len, tag));
        if self.batching.get() {
            first.stage(reservation, content);
            return Ok(());
        }
        first.publish(reservation, content);
        self.hold.notify(&self.hold.endpoint.peer().message_wake);
        if self.hold.endpoint.is_own_open() { Ok(()) } else { self.own_end() }
    }

    fn lend(&self, len: usize, patience: Patience) -> Result<Loan<'_>, PostError> {
        self.check()?;
        self.check_loan()?;
        // Room for what buffers that go with it need.
        let with_buffers = (len as u64).saturating_add(OUTSIDE_LEN.into());
        if with_buffers > self.max_in_ring() as u64 {
            return Ok(Loan::large(self, self.make_large(len as u64, patience)?));
        }
        Ok(Loan::new(self, self.reserve_room(with_buffers, patience)?, len))
    }

    /// What forbids to post at all.
    #[inline]
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

    /// Refuses while room is lent out: there is one who writes into free room (R5).
    #[inline]
    pub(super) fn check_loan(&self) -> Result<(), PostError> {
        if self.loaned.get() { Err(PostError::Busy) } else { Ok(()) }
    }

    pub(super) fn set_loaned(&self, loaned: bool) {
        self.loaned.set(loaned);
    }

    /// Claims room for exactly `len` bytes, which fit in a ring; finds some if need be.
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

    fn found_room(&self, reservation: Reservation) -> Reservation {
        self.hold.waits.succeeded(&self.hold.endpoint.own().room_wake);
        reservation
    }

    /// Makes a message of a reservation and wakes the reader.
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

    fn publish_now(&self, reservation: Reservation, content: Content) {
        self.queue.publish(reservation, content);
        self.hold.notify(&self.hold.endpoint.peer().message_wake);
    }

    /// Whether this end was closed before what was published is certain to be seen.
    #[cold]
    pub(super) fn own_end(&self) -> Result<(), PostError> {
        match self.hold.endpoint.own_end() {
            None => Ok(()),
            Some(reason) => Err(self.at_end(reason)),
        }
    }

    #[cold]
    pub(super) fn at_end(&self, reason: CloseReason) -> PostError {
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
