//! The receiving way: peek → validate → hand out → release.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{CloseReason, RecvError};
use crate::halves::Half;
use crate::line::Line;
use crate::ring::{Consumer, Record};
use crate::segment::Region;
use crate::sync::Ordering;
use crate::wake;

use super::endpoint::Endpoint;
use super::hold::Hold;
use super::message::{Message, Payload};
use super::wait::{Look, WaitStrategy};
use super::{Closer, PeerState, Trust};

/// The receiving half of a [`MessagePort`](crate::MessagePort), for a thread of its own.
///
/// Made by [`MessagePort::split`](crate::MessagePort::split). The port closes when both halves are
/// gone, or when either is closed explicitly.
#[derive(Debug)]
pub struct Receiver {
    ring: Consumer<Region>,
    hold: Hold,
    /// What the end of the channel was reported as; it never changes any more.
    reported: Cell<Option<CloseReason>>,
    /// Whether room goes back in one piece at the end of a [`Drain`].
    draining: Cell<bool>,
    /// Private memory for the next message of an untrusted port.
    spare: RefCell<Vec<u64>>,
}

impl Receiver {
    pub(super) fn new(
        endpoint: Arc<Endpoint>,
        line: Arc<Line>,
        read: u64,
        strategy: WaitStrategy,
    ) -> Self {
        let region = Region::new(Arc::clone(endpoint.segment()), endpoint.side().other());
        Self {
            ring: Consumer::new(region, read),
            hold: Hold::new(Half::Receiver, endpoint, line, strategy),
            reported: Cell::new(None),
            draining: Cell::new(false),
            spare: RefCell::default(),
        }
    }

    pub(super) fn hold(&self) -> &Hold {
        &self.hold
    }

    /// Waits for the next message. See [`MessagePort::recv`](crate::MessagePort::recv).
    #[inline]
    pub fn recv(&self) -> Result<Message<'_>, RecvError> {
        self.receive(None)
    }

    /// Takes the next message if there is one. See
    /// [`MessagePort::try_recv`](crate::MessagePort::try_recv).
    #[inline]
    pub fn try_recv(&self) -> Result<Message<'_>, RecvError> {
        self.check()?;
        match self.peek() {
            Some(found) => self.hand_out(found?),
            None => self.try_recv_thoroughly(),
        }
    }

    /// Waits at most so long. See
    /// [`MessagePort::recv_timeout`](crate::MessagePort::recv_timeout).
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Message<'_>, RecvError> {
        self.receive(Instant::now().checked_add(timeout))
    }

    /// The messages that are there now. See [`MessagePort::drain`](crate::MessagePort::drain).
    pub fn drain(&self) -> Drain<'_> {
        self.draining.set(true);
        Drain { receiver: self, end: self.ring.position() + self.ring.capacity() }
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

    #[inline]
    fn receive(&self, deadline: Option<Instant>) -> Result<Message<'_>, RecvError> {
        self.check()?;
        match self.peek() {
            Some(found) => self.hand_out(found?),
            None => self.wait(deadline),
        }
    }

    /// What forbids even to look: this handle is a copy, or this end is closed.
    #[inline]
    fn check(&self) -> Result<(), RecvError> {
        if !self.hold.endpoint.is_original() {
            return Err(RecvError::Detached);
        }
        if let Some(reason) = self.reported.get() {
            return Err(RecvError::Closed(reason));
        }
        match self.hold.endpoint.own_end() {
            None => Ok(()),
            Some(reason) => Err(self.report(reason)),
        }
    }

    #[inline]
    fn peek(&self) -> Option<Result<Record, RecvError>> {
        match self.ring.peek() {
            Ok(Some(record)) => Some(Ok(record)),
            Ok(None) => None,
            Err(_) => Some(Err(self.violated())),
        }
    }

    /// As [`peek`](Self::peek), and tells the end of the channel: only after the last message.
    fn look(&self, how: Look) -> Option<Result<Record, RecvError>> {
        let found = self.peek();
        if found.is_some() || how == Look::Quick {
            return found;
        }
        if let Err(end) = self.check() {
            return Some(Err(end));
        }
        let reason = self.hold.endpoint.peer_end()?;
        // All that the other side published, it published before it was gone.
        Some(self.peek().unwrap_or_else(|| Err(self.report(reason))))
    }

    #[cold]
    fn try_recv_thoroughly(&self) -> Result<Message<'_>, RecvError> {
        self.hold.look_at_line();
        match self.look(Look::Thorough) {
            Some(found) => self.hand_out(found?),
            None => Err(RecvError::Empty),
        }
    }

    #[cold]
    fn wait(&self, deadline: Option<Instant>) -> Result<Message<'_>, RecvError> {
        let word = &self.hold.endpoint.own().message_wake;
        match self.hold.wait(word, deadline, |how| self.look(how)) {
            Some(found) => self.hand_out(found?),
            None => Err(RecvError::Empty),
        }
    }

    #[inline]
    fn hand_out(&self, record: Record) -> Result<Message<'_>, RecvError> {
        self.ring.take(&record);
        self.hold.waits.succeeded(&self.hold.endpoint.own().message_wake);
        let payload = match self.hold.endpoint.trust() {
            Trust::Trusted => Payload::InPlace(
                self.ring.memory().published(record.payload_offset, record.payload_len),
            ),
            Trust::Untrusted => self.copy_out(&record),
        };
        Ok(Message::new(self, record, payload))
    }

    #[cold]
    fn copy_out(&self, record: &Record) -> Payload<'_> {
        let len = record.payload_len as usize;
        let mut words = self.spare.take();
        words.clear();
        // Two spare words let the payload start 16-aligned wherever the vector lies.
        words.resize(len.div_ceil(8) + 1, 0);
        Payload::copied(words, len, |into| {
            self.ring.memory().copy_out(record.payload_offset, into);
        })
    }

    /// Gives a message's room back, now or with a later one.
    #[inline]
    pub(super) fn release(&self, from: u64, to: u64) {
        self.ring.release(from, to);
        let owed = self.ring.owed();
        if owed == 0 || !self.hold.endpoint.is_original() {
            return;
        }
        let word = &self.hold.endpoint.peer().room_wake;
        // Relaxed: only decides when; a poster that is about to sleep looks again itself.
        if owed >= self.ring.batch()
            || !self.draining.get()
                && (word.load(Ordering::Relaxed) != wake::STREAMING || self.ring.is_empty())
        {
            self.ring.give_back();
            self.hold.notify(word);
        }
    }

    /// Takes back the private memory of a message.
    pub(super) fn reuse(&self, words: Vec<u64>) {
        self.spare.replace(words);
    }

    fn stop_draining(&self) {
        self.draining.set(false);
        if self.ring.owed() > 0 && self.hold.endpoint.is_original() {
            self.ring.give_back();
            self.hold.notify(&self.hold.endpoint.peer().room_wake);
        }
    }

    #[cold]
    fn violated(&self) -> RecvError {
        let reason = self.hold.violated();
        self.report(reason)
    }

    /// Reports the end: the first reason is the one that stays.
    #[cold]
    fn report(&self, reason: CloseReason) -> RecvError {
        let reason = self.reported.get().unwrap_or(reason);
        self.reported.set(Some(reason));
        self.hold.let_go();
        RecvError::Closed(reason)
    }
}

/// The messages that are there now, without waiting; see
/// [`MessagePort::drain`](crate::MessagePort::drain).
#[derive(Debug)]
pub struct Drain<'p> {
    receiver: &'p Receiver,
    /// No message that was there at the beginning lies beyond.
    end: u64,
}

impl<'p> Iterator for Drain<'p> {
    type Item = Message<'p>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.receiver.ring.position() >= self.end {
            return None;
        }
        self.receiver.try_recv().ok()
    }
}

impl Drop for Drain<'_> {
    fn drop(&mut self) {
        self.receiver.stop_draining();
    }
}
