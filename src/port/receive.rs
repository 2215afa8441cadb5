//! The receiving way: peek → validate → hand out → release.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::error::{CloseReason, RecvError};
use crate::halves::Half;
use crate::lane::{Arrival, Incoming, NotHere, is_seqpacket};
use crate::line::{Heard, Line};
use crate::ring::{Consumer, Found, Record};
use crate::segment::Region;
use crate::sync::{Ordering, spin_loop};
use crate::wake;

use super::endpoint::Endpoint;
use super::hold::Hold;
use super::message::{Aside, Message};
use super::parcels::{Parcel, Parcels};
use super::wait::{Look, WaitStrategy};
use super::{Closer, PeerState, Trust};

/// Bytes read without a wait that make a burst, and how long to pause at its end.
const BURST: u64 = 512;
const BURST_PAUSES: u32 = 16;

/// The receiving half of a [`MessagePort`](crate::MessagePort), for a thread of its own.
///
/// Made by [`MessagePort::split`](crate::MessagePort::split). The port closes when both halves are
/// gone, or when either is closed explicitly.
#[derive(Debug)]
pub struct Receiver {
    ring: Consumer<Region>,
    hold: Hold,
    /// Whether room goes back in one piece at the end of a [`Drain`].
    draining: Cell<bool>,
    /// Where it stood when it last had to wait.
    waited_at: Cell<u64>,
    /// Private memory for the next message of an untrusted port.
    spare: RefCell<Option<Box<Aside>>>,
    parcels: Parcels,
}

impl Receiver {
    pub(super) fn new(
        endpoint: Arc<Endpoint>,
        line: Arc<Line>,
        read: u64,
        lane: Option<Incoming>,
        strategy: WaitStrategy,
    ) -> Self {
        let region = Region::new(Arc::clone(endpoint.segment()), endpoint.side().other());
        Self {
            ring: Consumer::new(region, read),
            hold: Hold::new(Half::Receiver, endpoint, line, strategy),
            draining: Cell::new(false),
            waited_at: Cell::new(read),
            spare: RefCell::default(),
            parcels: Parcels::new(lane),
        }
    }

    pub(super) fn hold(&self) -> &Hold {
        &self.hold
    }

    /// Waits for the next message. See [`MessagePort::recv`](crate::MessagePort::recv).
    #[inline(always)]
    pub fn recv(&self) -> Result<Message<'_>, RecvError> {
        self.receive(|receiver| receiver.wait(None))
    }

    /// Takes the next message if there is one. See
    /// [`MessagePort::try_recv`](crate::MessagePort::try_recv).
    #[inline(always)]
    pub fn try_recv(&self) -> Result<Message<'_>, RecvError> {
        self.receive(Self::look_once)
    }

    /// Waits at most so long. See
    /// [`MessagePort::recv_timeout`](crate::MessagePort::recv_timeout).
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Message<'_>, RecvError> {
        let deadline = Instant::now().checked_add(timeout);
        self.receive(|receiver| receiver.wait(deadline))
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

    /// Hands out the next message; where there is none yet, the one that `otherwise` gets.
    #[inline(always)]
    fn receive(
        &self,
        otherwise: impl FnOnce(&Self) -> Result<Record, RecvError>,
    ) -> Result<Message<'_>, RecvError> {
        self.check()?;
        let record = match self.ring.peek() {
            Found::Record(record) => record,
            Found::Nothing | Found::Broken => otherwise(self)?,
        };
        Ok(self.hand_out(record))
    }

    /// What forbids even to look: this handle is a copy, or our end was closed or the end reported.
    #[inline(always)]
    fn check(&self) -> Result<(), RecvError> {
        if !self.hold.endpoint.is_original() {
            return Err(RecvError::Detached);
        }
        match self.hold.endpoint.own_end() {
            None => Ok(()),
            Some(reason) => Err(self.report(reason)),
        }
    }

    /// Looks at the ring; a thorough look tells the end of the channel: only after the last message.
    fn look(&self, how: Look) -> Option<Result<Record, RecvError>> {
        let found = self.found();
        if found.is_some() || how == Look::Quick {
            self.ring.prefetch();
            return found;
        }
        // Our own end is asked last, as in `Ends::either`.
        let peer_end = self.hold.endpoint.peer_end();
        if let Err(end) = self.check() {
            return Some(Err(end));
        }
        let reason = peer_end?;
        // All that the other side published, it published before it was gone.
        Some(self.found().unwrap_or_else(|| Err(self.report(reason))))
    }

    fn found(&self) -> Option<Result<Record, RecvError>> {
        match self.ring.peek() {
            Found::Nothing => None,
            Found::Record(record) => Some(Ok(record)),
            Found::Broken => Some(Err(self.violated())),
        }
    }

    #[cold]
    fn look_once(&self) -> Result<Record, RecvError> {
        self.give_back();
        self.hold.look_at_line();
        self.look(Look::Thorough).unwrap_or(Err(RecvError::Empty))
    }

    /// At the end of a burst, leaves the poster alone for a moment: a reader that polls the very line
    /// that is being written takes it away from the poster at every store.
    fn let_poster_run_ahead(&self) {
        let read = self.ring.position();
        if read - self.waited_at.replace(read) > BURST {
            for _ in 0..BURST_PAUSES {
                spin_loop();
            }
        }
    }

    #[cold]
    fn wait(&self, deadline: Option<Instant>) -> Result<Record, RecvError> {
        // Nobody may wait for room that we owe while we wait for messages.
        self.give_back();
        self.let_poster_run_ahead();
        let word = &self.hold.endpoint.own().message_wake;
        self.hold.wait(word, deadline, |how| self.look(how)).unwrap_or(Err(RecvError::Empty))
    }

    #[inline(always)]
    fn hand_out(&self, record: Record) -> Message<'_> {
        self.ring.take(record.to);
        self.hold.waits.succeeded(&self.hold.endpoint.own().message_wake);
        let is_plain = record.ports == 0 && self.hold.endpoint.trust() == Trust::Trusted;
        // A message that passed through memory here would cost more than all the rest of a recv.
        let Record { from, to, payload_offset, payload_len, ports, .. } = record;
        let aside = if is_plain {
            None
        } else {
            Some(self.set_aside(from, to, payload_offset, payload_len, ports))
        };
        Message::new(self, record, aside)
    }

    /// What a message has beside the ring: on an untrusted port its payload, and the ports that came
    /// with it.
    #[cold]
    #[inline(never)]
    fn set_aside(&self, from: u64, to: u64, offset: u64, len: u32, ports: u16) -> Box<Aside> {
        let mut aside = self.spare.take().unwrap_or_default();
        if self.hold.endpoint.trust() == Trust::Untrusted {
            aside.copy(len, |into| self.ring.memory().copy_out(offset, into));
            self.release(from, to);
        }
        if ports != 0 {
            aside.set_ports(self.parcels.receive(ports));
        }
        aside
    }

    /// Takes the next port of a message; `None` after the last.
    pub(super) fn take_port(&self, parcel: &Parcel) -> Result<Option<Arrival>, NotHere> {
        if parcel.left() == 0 {
            return Ok(None);
        }
        self.fetch(parcel)?;
        self.parcels.take(parcel).map_err(NotHere::Refused)
    }

    /// Finds memory for all ports of a message.
    pub(super) fn map_ports(&self, parcel: &Parcel) -> Result<(), NotHere> {
        if parcel.left() == 0 || !self.is_original() {
            return Ok(());
        }
        self.fetch(parcel)?;
        self.parcels.map(parcel).map_err(NotHere::Refused)
    }

    fn is_original(&self) -> bool {
        self.hold.endpoint.is_original()
    }

    /// Takes the ports of a message off the lane, unless that was done.
    fn fetch(&self, parcel: &Parcel) -> Result<(), NotHere> {
        if self.parcels.is_on_lane(parcel) {
            let fetched = self.parcels.fetch(parcel, &*self.lane()?);
            self.notify_of_lane();
            fetched?;
        }
        Ok(())
    }

    /// A poster may wait for room on the lane, as for room in the ring.
    fn notify_of_lane(&self) {
        self.hold.notify(&self.hold.endpoint.peer().room_wake);
    }

    /// The lane. Its end was put on the line before the first record with ports was published.
    fn lane(&self) -> Result<Arc<Incoming>, NotHere> {
        if let Some(lane) = self.parcels.lane() {
            return Ok(lane);
        }
        let line = self.hold.line().ok_or(NotHere::Broken)?;
        let heard = self.hold.clear_line(&line);
        self.take_up_lane(&line);
        self.parcels.lane().ok_or(match heard {
            Heard::Blocked => NotHere::Refused(Errno::MFILE),
            Heard::Bell | Heard::Nothing | Heard::HungUp => NotHere::Broken,
        })
    }

    /// Takes up the lane's end that came off the line with the bells, if one did.
    fn take_up_lane(&self, line: &Line) {
        if let Some(end) = line.take_lane().filter(is_seqpacket) {
            self.parcels.set_lane(Incoming::new(end));
        }
    }

    pub(super) fn parcels(&self) -> &Parcels {
        &self.parcels
    }

    /// Where the next record will be, for the next holder: all that was received is let go. A lane's
    /// end that still lies on the line travels with the line. Fails if a forgotten message has its ports
    /// on a lane that cannot be taken up.
    pub(super) fn settle(&self) -> Result<u64, Errno> {
        self.ring.release_all();
        if self.parcels.is_behind() {
            match self.lane() {
                Ok(lane) => {
                    self.parcels.let_all_go(&lane);
                    self.notify_of_lane();
                }
                Err(NotHere::Refused(errno)) => return Err(errno),
                // It was never sent; whoever adopts the port finds out.
                Err(NotHere::Broken) => {}
            }
        }
        if let Some(line) = self.hold.line() {
            self.take_up_lane(&line);
        }
        self.give_back();
        Ok(self.ring.position())
    }

    /// The payload of a record that is held, on a trusted port.
    #[inline(always)]
    pub(super) fn payload(&self, offset: u64, len: u32) -> &[u8] {
        self.ring.memory().published(offset, len)
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

    /// Lets go of what a message has beside the ring; keeps the memory for the next one.
    #[cold]
    pub(super) fn let_go_aside(&self, record: Record, mut aside: Box<Aside>) {
        if !aside.is_copy() {
            self.release(record.from, record.to);
        }
        if let Some(parcel) = aside.take_ports()
            && self.hold.endpoint.is_original()
        {
            let lane = self.lane();
            self.parcels.let_go(&parcel, lane.as_deref().ok());
            self.notify_of_lane();
            if matches!(lane, Err(NotHere::Broken)) && self.hold.line().is_some() {
                // There never was a lane: who goes on like that has us keep parcels without end.
                self.hold.violated();
            }
            if self.hold.endpoint.own_end().is_some() && !self.parcels.is_behind() {
                self.let_go();
            }
        }
        if aside.is_small() {
            self.spare.replace(Some(aside));
        }
    }

    fn stop_draining(&self) {
        self.draining.set(false);
        if self.hold.endpoint.is_original() {
            self.give_back();
        }
    }

    /// Gives back all that is owed.
    fn give_back(&self) {
        if self.ring.owed() > 0 {
            self.ring.give_back();
            self.hold.notify(&self.hold.endpoint.peer().room_wake);
        }
    }

    #[cold]
    fn violated(&self) -> RecvError {
        self.report(CloseReason::Violated)
    }

    /// Reports the end: the first reason is the one that stays.
    #[cold]
    fn report(&self, reason: CloseReason) -> RecvError {
        if reason == CloseReason::Violated {
            self.hold.violated();
        }
        let reason = self.hold.endpoint.report(reason);
        // Messages that are still there may need the lane, whose end may still lie on the line.
        if !self.parcels.is_behind() || self.lane().is_ok() {
            self.let_go();
        }
        RecvError::Closed(reason)
    }

    /// Lets go of line and lane: nothing more will come of them.
    fn let_go(&self) {
        self.hold.let_go();
        self.parcels.close();
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // The other half may live on: what is posted to this port then waits unread, ports too.
        if let (Some(line), Some(lane)) = (self.hold.line(), self.parcels.take_lane()) {
            line.keep_lane(lane);
        }
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
