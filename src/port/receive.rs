//! The receiving way: peek → validate → hand out → release. Where there is nothing yet, see [`super::look`].

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{CloseReason, RecvError};
use crate::halves::Half;
use crate::layout::RingWords;
use crate::line::Line;
use crate::queue::Reader;
use crate::ring::{Found, Rare, Record};
use crate::segment::Region;
use crate::sync::Ordering;
use crate::wake;

use super::endpoint::Endpoint;
use super::hold::Hold;
use super::message::{Aside, Message};
use super::outside::Beyond;
use super::parcels::Parcels;
use super::wait::WaitStrategy;
use super::{Closer, PeerState, Trust};

/// What was found for who wants the next message. It fits in two registers: a [`Message`] would be copied.
enum Next {
    /// A record as most are: [`Receiver::peek_in_place`] finds it.
    InPlace,
    /// Something else, which was taken.
    Aside(Box<Aside>),
    Empty,
    Refused(Box<RecvError>),
}

/// The receiving half of a [`MessagePort`](crate::MessagePort), for a thread of its own.
///
/// Made by [`MessagePort::split`](crate::MessagePort::split). The port closes when both halves are
/// gone, or when either is closed explicitly.
#[derive(Debug)]
pub struct Receiver {
    queue: Reader<Region>,
    hold: Hold,
    /// Whether room goes back in one piece at the end of a [`Drain`](super::Drain).
    pub(super) draining: Cell<bool>,
    /// Where it stood when it last had to wait.
    pub(super) waited_at: Cell<u64>,
    /// Private memory for the next message of an untrusted port.
    spare: RefCell<Option<Box<Aside>>>,
    parcels: Parcels,
    beyond: Beyond,
}

impl Receiver {
    pub(super) fn new(
        endpoint: Arc<Endpoint>,
        line: Arc<Line>,
        queue: Reader<Region>,
        beyond: Beyond,
        parcels: Parcels,
        strategy: WaitStrategy,
    ) -> Self {
        Self {
            waited_at: Cell::new(queue.first().position()),
            queue,
            hold: Hold::new(Half::Receiver, endpoint, line, strategy),
            draining: Cell::new(false),
            spare: RefCell::default(),
            parcels,
            beyond,
        }
    }

    pub(super) fn queue(&self) -> &Reader<Region> {
        &self.queue
    }

    pub(super) fn beyond(&self) -> &Beyond {
        &self.beyond
    }

    pub(super) fn received(&self) -> &crate::account::Received {
        &self.beyond.received
    }

    /// The words of the ring that this port reads.
    pub(super) fn ring_words(&self) -> &RingWords {
        let endpoint = &self.hold.endpoint;
        endpoint.side().other().of(&endpoint.segment().header().rings)
    }

    pub(super) fn hold(&self) -> &Hold {
        &self.hold
    }

    /// Waits for the next message. See [`MessagePort::recv`](crate::MessagePort::recv).
    #[inline(always)]
    pub fn recv(&self) -> Result<Message<'_>, RecvError> {
        self.recv_until(None, || ())
    }

    /// Takes the next message if there is one. See
    /// [`MessagePort::try_recv`](crate::MessagePort::try_recv).
    #[inline(always)]
    pub fn try_recv(&self) -> Result<Message<'_>, RecvError> {
        self.receive(|_| false, Self::look_once)
    }

    /// Waits at most so long. See
    /// [`MessagePort::recv_timeout`](crate::MessagePort::recv_timeout).
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Message<'_>, RecvError> {
        let deadline = Instant::now().checked_add(timeout);
        self.recv_until(deadline, || ())
    }

    /// Waits until then, for ever if there is no such time. Where a wait begins, `before` is called.
    #[inline(always)]
    pub(super) fn recv_until(
        &self,
        deadline: Option<Instant>,
        before: impl FnOnce(),
    ) -> Result<Message<'_>, RecvError> {
        let soon = |receiver: &Self| {
            before();
            receiver.glance()
        };
        self.receive(soon, |receiver| receiver.wait(deadline))
    }

    /// How the other end is. See [`MessagePort::peer_state`](crate::MessagePort::peer_state).
    pub fn peer_state(&self) -> PeerState {
        super::peer_state(&self.hold)
    }

    /// Chooses how this half waits for messages.
    pub fn set_wait_strategy(&self, strategy: WaitStrategy) {
        self.hold.waits.set_strategy(strategy);
    }

    /// How often this half has slept in the kernel: a figure for benchmarks and tests.
    pub fn sleeps(&self) -> u64 {
        self.hold.waits.sleeps()
    }

    /// Closes the whole port, as [`Closer::close`] does: the sending half too.
    pub fn close(self) {
        self.closer().close();
    }

    /// A handle that closes the port from any thread.
    pub fn closer(&self) -> Closer {
        Closer::new(&self.hold)
    }

    /// Hands out the next message; where there is none yet, the one that `soon` sees come, or for which
    /// `otherwise` waits.
    #[inline(always)]
    pub(super) fn receive(
        &self,
        soon: impl FnOnce(&Self) -> bool,
        otherwise: impl FnOnce(&Self) -> Result<(), RecvError>,
    ) -> Result<Message<'_>, RecvError> {
        if let Some(record) = self.peek_in_place() {
            return Ok(self.hand_out_in_place(record));
        }
        if soon(self)
            && let Some(record) = self.peek_in_place()
        {
            return Ok(self.hand_out_in_place(record));
        }
        match self.find_next(otherwise) {
            Next::InPlace => match self.peek_in_place() {
                Some(record) => Ok(self.hand_out_in_place(record)),
                None => Err(self.vanished()),
            },
            Next::Aside(aside) => Ok(Message::aside(self, aside)),
            Next::Empty => Err(RecvError::Empty),
            Next::Refused(refused) => Err(*refused),
        }
    }

    /// The next record, if it is one as most are, to be read where it is.
    #[inline(always)]
    pub(super) fn peek_in_place(&self) -> Option<Record> {
        let (ring, endpoint) = (self.queue.first(), &self.hold.endpoint);
        let is_usual = endpoint.may_receive() && endpoint.trust() == Trust::Trusted;
        if is_usual { ring.peek_plain() } else { None }
    }

    #[inline(always)]
    pub(super) fn hand_out_in_place(&self, record: Record) -> Message<'_> {
        self.hold.waits.succeeded(&self.hold.endpoint.own().message_wake);
        self.queue.first().take(record.to);
        Message::in_place(self, record)
    }

    /// Finds the next message where it is not as most are, or waits for it.
    #[inline(never)]
    fn find_next(&self, otherwise: impl FnOnce(&Self) -> Result<(), RecvError>) -> Next {
        let found = self.check().and_then(|()| self.found().unwrap_or_else(|| otherwise(self)));
        match found.and_then(|()| self.take_aside()) {
            Ok(None) => Next::InPlace,
            Ok(Some(aside)) => Next::Aside(aside),
            Err(RecvError::Empty) => Next::Empty,
            Err(refused) => Next::Refused(Box::new(refused)),
        }
    }

    /// What was there is gone: this end was closed meanwhile, or the other side has written there.
    #[cold]
    fn vanished(&self) -> RecvError {
        self.check().err().unwrap_or_else(|| self.violated())
    }

    /// Takes the record that was found, unless it can be read in place.
    fn take_aside(&self) -> Result<Option<Box<Aside>>, RecvError> {
        let Found::Record(record) = self.queue.peek() else { return Err(self.vanished()) };
        if record.rare == Rare::NOTHING && self.hold.endpoint.trust() == Trust::Trusted {
            return Ok(None);
        }
        self.hold.waits.succeeded(&self.hold.endpoint.own().message_wake);
        self.set_aside(record).map(Some)
    }

    /// What forbids even to look: this handle is a copy, or our end was closed or the end reported.
    #[inline(always)]
    pub(super) fn check(&self) -> Result<(), RecvError> {
        if !self.hold.endpoint.is_original() {
            return Err(RecvError::Detached);
        }
        match self.hold.endpoint.own_end() {
            None => Ok(()),
            Some(reason) => Err(self.report(reason)),
        }
    }

    /// What a message has beside the first ring, on an untrusted port also its payload.
    #[cold]
    #[inline(never)]
    fn set_aside(&self, record: Record) -> Result<Box<Aside>, RecvError> {
        let mut aside = self.spare.take().unwrap_or_default();
        aside.set_record(record);
        match self.fill_aside(&mut aside, record) {
            Ok(()) => Ok(aside),
            Err(refused) => {
                aside.clear();
                self.spare.replace(Some(aside));
                Err(refused)
            }
        }
    }

    pub(super) fn is_original(&self) -> bool {
        self.hold.endpoint.is_original()
    }

    pub(super) fn parcels(&self) -> &Parcels {
        &self.parcels
    }

    /// The payload of a record that is held, on a trusted port.
    #[inline(always)]
    pub(super) fn payload(&self, from: u64, len: u32) -> &[u8] {
        let ring = self.queue.first();
        ring.memory().published(ring.payload_offset(from), len)
    }

    /// Gives a message's room in the first ring back, now or with a later one.
    #[inline(always)]
    pub(super) fn release(&self, from: u64, to: u64) {
        self.queue.first().release(from, to);
        if self.must_give_back(from) {
            self.give_back();
        }
    }

    /// Whether room goes back now that a message was let go which starts at `from`.
    #[inline(always)]
    pub(super) fn must_give_back(&self, from: u64) -> bool {
        let ring = self.queue.first();
        self.is_original()
            && (ring.owed() >= ring.batch() || !self.draining.get() && self.may_be_missed(from))
    }

    /// Whether the poster may come to need room before more is given back than a message that starts at `from`.
    /// After one that was waited for it is not asked whether there is another one: that would wait for its line.
    #[inline(always)]
    fn may_be_missed(&self, from: u64) -> bool {
        // Relaxed: only decides when; a poster that is about to sleep looks again itself.
        let word = self.hold.endpoint.peer().room_wake.load(Ordering::Relaxed);
        from == self.waited_at.get() || word != wake::STREAMING || self.queue.first().is_empty()
    }

    /// As [`release`](Self::release), for a record of any ring.
    pub(super) fn release_record(&self, record: &Record) {
        match record.rare.ring() {
            0 => self.release(record.from, record.to),
            ring if self.is_original() => {
                self.queue.release(ring, record.from, record.to);
                self.leave_rings();
                // A poster at its limit waits until it can go back to the first ring.
                self.notify_of_room();
            }
            _ => {}
        }
    }

    /// Lets go of what a message has beside the ring; keeps the memory for the next one.
    #[cold]
    #[inline(never)]
    pub(super) fn let_go_aside(&self, mut aside: Box<Aside>) {
        if !aside.is_over() {
            self.release_record(aside.record());
        }
        let (parcel, outside) = aside.clear();
        if self.is_original() {
            if let Some(outside) = outside {
                outside.let_go();
            }
            if let Some(parcel) = parcel {
                self.let_parcel_go(&parcel);
            }
            self.account_for(aside.take_outside());
        }
        if aside.is_small() {
            self.spare.replace(Some(aside));
        }
    }

    /// Gives back all that is owed.
    #[inline(never)]
    pub(super) fn give_back(&self) {
        if self.queue.first().owed() > 0 {
            self.queue.first().give_back();
            self.notify_of_room();
        }
    }

    #[cold]
    pub(super) fn violated(&self) -> RecvError {
        self.report(CloseReason::Violated)
    }

    /// Reports the end: the first reason is the one that stays.
    #[cold]
    pub(super) fn report(&self, reason: CloseReason) -> RecvError {
        if reason == CloseReason::Violated {
            self.hold.violated();
        }
        let reason = self.hold.endpoint.report(reason);
        // Messages that are still there may need the lane, whose end may still lie on the line.
        if !self.parcels.is_behind() || self.find_lanes().is_ok() {
            self.let_go();
        }
        RecvError::Closed(reason)
    }

    /// Lets go of line and lane: nothing more will come of them.
    pub(super) fn let_go(&self) {
        self.hold.let_go();
        self.parcels.close();
        self.beyond.let_go();
        self.queue.end();
        self.leave_rings();
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // The other half may live on: what is posted to this port then waits unread, ports too.
        if let Some(line) = self.hold.line() {
            line.keep_lanes(self.parcels.take_lanes());
        }
    }
}
