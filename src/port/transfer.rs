//! Giving ports away: check → reserve → detach → send → close the own copies → publish.
//!
//! A refused post has changed nothing. Until the descriptors were sent, a [`Departing`] port goes back
//! to its holder when it is dropped; after that nothing can fail any more.
//!
//! The own copies are closed *before* the record is published: whoever sees the record is the only
//! holder of what came with it, so its death hangs up the lines that it was given.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Instant;

use rustix::io::Errno;

use crate::epoch::Epoch;
use crate::error::{PostError, Untransferable};
use crate::lane::{Incoming, Outgoing};
use crate::line::Line;
use crate::packet;
use crate::record::MAX_PORTS;
use crate::ring::{Content, Reservation};
use crate::segment::SegmentId;
use crate::steps::{Step, reach};
use crate::tenure::Held;
use crate::ticket::{Standing, Ticket, TicketTrust};

use super::endpoint::Endpoint;
use super::post::{Patience, Sender};
use super::transfer_list::{TransferError, TransferList};
use super::wait::{Look, is_past};
use super::{MessagePort, Trust};

impl Sender {
    /// Posts bytes with a tag and whatever the list holds.
    pub(super) fn post_raw_with(
        &self,
        bytes: &[u8],
        tag: u32,
        patience: Patience,
        mut list: TransferList,
    ) -> Result<(), TransferError> {
        match self.check().and_then(|()| self.check_carrier(&mut list)) {
            Ok(()) => self.post_checked_with(bytes, tag, patience, list),
            Err(source) => Err(TransferError::new(list, source)),
        }
    }

    /// As [`post_raw_with`](Self::post_raw_with), for a list that this port can carry.
    pub(super) fn post_checked_with(
        &self,
        bytes: &[u8],
        tag: u32,
        patience: Patience,
        list: TransferList,
    ) -> Result<(), TransferError> {
        if list.is_empty() {
            let posted = self.post_raw(bytes, tag, patience);
            return posted.map_err(|source| TransferError::new(list, source));
        }
        let room = self.take_turn().and_then(|()| self.reserve_room(bytes.len() as u64, patience));
        match room {
            Ok(room) => {
                self.memory().write(room.payload_offset(), bytes);
                self.give_away(room, Content::plain(bytes.len(), tag), patience, list)
            }
            Err(source) => Err(TransferError::new(list, source)),
        }
    }

    /// Refuses what this port can never carry: itself, and its other end, however that came here.
    pub(super) fn check_carrier(&self, list: &mut TransferList) -> Result<(), PostError> {
        let (count, max) = (list.len(), usize::from(MAX_PORTS));
        if count > max {
            return Err(PostError::TooManyPorts { count, max });
        }
        let id = |endpoint: &Endpoint| endpoint.segment().id().map_err(PostError::Os);
        let carrier = &self.hold().endpoint;
        let carrier_id: SegmentId = id(carrier)?;
        for (index, port) in list.ports().enumerate() {
            let endpoint = port.endpoint();
            if id(endpoint)? == carrier_id {
                let is_itself = endpoint.side() == carrier.side();
                let reason =
                    if is_itself { Untransferable::Carrier } else { Untransferable::OtherEnd };
                return Err(PostError::Untransferable { index, reason });
            }
        }
        Ok(())
    }

    /// Posts a message that was written already, with a list that is not empty.
    pub(super) fn give_away(
        &self,
        room: Reservation,
        content: Content,
        patience: Patience,
        mut list: TransferList,
    ) -> Result<(), TransferError> {
        let tenure = match self.dispatch(&mut list, content.len, patience) {
            Ok(tenure) => tenure,
            Err(source) => return Err(TransferError::new(list, source)),
        };
        let ports = list.len() as u16;
        // Unmaps the segments, and closes what is still open of them.
        drop(list);
        reach(Step::Closed);
        self.publish_content(room, Content { ports, ..content });
        reach(Step::Published);
        drop(tenure);
        Ok(())
    }

    /// Sends the descriptors of a whole list, or changes nothing. Nobody can close this port as long as
    /// what it returns is held: a message whose ports have gone must be published.
    fn dispatch(
        &self,
        list: &mut TransferList,
        len: u32,
        patience: Patience,
    ) -> Result<Held<'_>, PostError> {
        let lane = self.make_lane(len, patience)?;
        match (self.try_dispatch(list, &lane, len, patience)?, patience) {
            (Some(tenure), _) => Ok(tenure),
            (None, Patience::Until(deadline)) => self.dispatch_until(list, &lane, len, deadline),
            (None, Patience::None) => Err(PostError::Full { len: len.into() }),
        }
    }

    /// Waits for room on the lane, as for room in the ring: the reader tells of either.
    fn dispatch_until(
        &self,
        list: &mut TransferList,
        lane: &Outgoing,
        len: u32,
        deadline: Option<Instant>,
    ) -> Result<Held<'_>, PostError> {
        // What was staged must be visible, or the reader would never make room.
        self.flush();
        let (word, patience) = (&self.hold().endpoint.own().room_wake, Patience::Until(deadline));
        let found = self.hold().wait(word, deadline, |how| match how {
            Look::Quick => None,
            Look::Thorough => self.try_dispatch(list, lane, len, patience).transpose(),
        });
        found.unwrap_or_else(|| self.check().and(Err(PostError::Full { len: len.into() })))
    }

    /// `None`: the lane is full.
    fn try_dispatch(
        &self,
        list: &mut TransferList,
        lane: &Outgoing,
        len: u32,
        patience: Patience,
    ) -> Result<Option<Held<'_>>, PostError> {
        let tenure = self.hold().endpoint.tenure();
        let is_open = self.hold().endpoint.end().is_none();
        match if is_open { self.send_all(list, lane)? } else { Err(Errno::PIPE) } {
            Ok(()) => Ok(Some(tenure)),
            Err(Errno::AGAIN) => Ok(None),
            Err(refused) => {
                // First of all: who finds the protocol broken closes this port.
                drop(tenure);
                Err(self.refusal(refused, len, patience))
            }
        }
    }

    fn send_all(
        &self,
        list: &mut TransferList,
        lane: &Outgoing,
    ) -> Result<Result<(), Errno>, PostError> {
        let mut departing = Vec::with_capacity(list.len());
        for (index, port) in list.ports().enumerate() {
            departing.push(Departing::new(index, port, self.hold().endpoint.trust())?);
        }
        reach(Step::Detached);
        let tickets: Vec<Ticket> = departing.iter().map(|port| port.ticket).collect();
        let fds = departing.iter().flat_map(Departing::fds).collect::<Result<Vec<_>, _>>();
        let sent = lane.send(&tickets, &fds.map_err(PostError::Os)?);
        if sent.is_ok() {
            reach(Step::Sent);
            departing.into_iter().for_each(Departing::gone);
        }
        Ok(sent)
    }

    /// The lane; made, and its other end sent over the line, at the first need.
    fn make_lane(&self, len: u32, patience: Patience) -> Result<Arc<Outgoing>, PostError> {
        if let Some(lane) = self.lane() {
            return Ok(lane);
        }
        let [ours, theirs] = packet::pair().map_err(PostError::Os)?;
        loop {
            self.check()?;
            let line = self.hold().line().ok_or(PostError::Detached)?;
            match line.send_lane(theirs.as_fd().map_err(PostError::Os)?) {
                Ok(()) => return Ok(self.set_lane(Outgoing::new(ours))),
                Err(Errno::AGAIN) => self.wait_for_line(&line, len, patience)?,
                Err(refused) => return Err(self.refusal(refused, len, patience)),
            }
        }
    }

    /// Waits for room on the line, which holds little more than bells.
    fn wait_for_line(&self, line: &Line, len: u32, patience: Patience) -> Result<(), PostError> {
        match patience {
            Patience::Until(deadline) if !is_past(deadline) => {
                // A reader that is to empty the line must have something to read.
                self.flush();
                line.wait_for_room(deadline);
                if line.is_hung_up() {
                    self.hold().endpoint.note_hang_up();
                }
                Ok(())
            }
            _ => Err(PostError::Full { len: len.into() }),
        }
    }

    /// Why the kernel has refused a packet, for other reasons than want of room. (Where that takes a
    /// moment to show, and the caller has none, there is no room now.)
    fn refusal(&self, refused: Errno, len: u32, patience: Patience) -> PostError {
        let is_gone = matches!(refused, Errno::PIPE | Errno::CONNREFUSED | Errno::NOTCONN);
        let hangs_up = |line: Arc<Line>| match patience {
            Patience::None => line.is_hung_up(),
            Patience::Until(_) => line.hangs_up_soon(),
        };
        let closed = self.check().err().or_else(|| {
            if is_gone && self.hold().line().is_none_or(hangs_up) {
                self.hold().endpoint.note_hang_up();
            }
            self.check().err()
        });
        closed.unwrap_or(match patience {
            Patience::None if is_gone => PostError::Full { len: len.into() },
            _ => PostError::Os(refused.into()),
        })
    }
}

/// A port that is about to be given away: in transit, and its holder's again when this is dropped.
pub(super) struct Departing<'p> {
    port: &'p MessagePort,
    /// Keeps closers out.
    tenure: Held<'p>,
    in_transit: Option<Epoch>,
    pub(super) ticket: Ticket,
    line: Arc<Line>,
    incoming: Option<Arc<Incoming>>,
    outgoing: Option<Arc<Outgoing>>,
}

impl<'p> Departing<'p> {
    /// For the port at `index` of a list.
    pub(super) fn new(
        index: usize,
        port: &'p MessagePort,
        carrier: Trust,
    ) -> Result<Self, PostError> {
        let refused = |reason| PostError::Untransferable { index, reason };
        let (sender, receiver) = port.halves();
        let endpoint = port.endpoint();
        if !endpoint.is_original() {
            return Err(refused(Untransferable::Detached));
        }
        let mut tenure = endpoint.tenure();
        if let Some(reason) = endpoint.own_end() {
            return Err(refused(Untransferable::Closed(reason)));
        }
        if carrier == Trust::Untrusted && endpoint.trust_of_channel() == Trust::Trusted {
            return Err(refused(Untransferable::Trusted));
        }
        let line = receiver.hold().line().filter(|_| tenure.is_ours());
        let line = line.ok_or(refused(Untransferable::Detached))?;
        let read = receiver.settle().map_err(|errno| PostError::Os(errno.into()))?;
        let in_transit = tenure.let_go(&endpoint.own().epoch);
        let in_transit = in_transit.ok_or(refused(Untransferable::Detached))?;
        let (incoming, outgoing) = (receiver.parcels().lane(), sender.lane());
        let standing =
            Standing { side: endpoint.side(), epoch: in_transit, next: sender.position(), read };
        let lanes = [incoming.is_some(), outgoing.is_some()];
        let trust = TicketTrust {
            is_untrusted: endpoint.trust() == Trust::Untrusted,
            is_of_trusted_channel: endpoint.trust_of_channel() == Trust::Trusted,
        };
        let ticket = Ticket::new(standing, lanes, trust);
        let in_transit = Some(in_transit);
        Ok(Self { port, tenure, in_transit, ticket, line, incoming, outgoing })
    }

    /// Its descriptors, in the order that the ticket tells.
    pub(super) fn fds(&self) -> impl Iterator<Item = std::io::Result<BorrowedFd<'_>>> {
        let segment = self.port.endpoint().segment().memfd();
        let incoming = self.incoming.as_ref().map(|lane| lane.as_fd());
        let outgoing = self.outgoing.as_ref().map(|lane| lane.as_fd());
        [Some(Ok(segment)), Some(self.line.as_fd()), incoming, outgoing].into_iter().flatten()
    }

    /// Somebody else has it now: closes the own copy of the line, without hanging up.
    pub(super) fn gone(mut self) {
        self.in_transit = None;
        let (sender, receiver) = self.port.halves();
        drop((sender.hold().take_line(), receiver.hold().take_line()));
        let line = Arc::clone(&self.line);
        drop(self);
        // Only closers borrow the line beside the halves, and they were kept out.
        if let Ok(line) = Arc::try_unwrap(line) {
            line.give_away();
        }
    }
}

impl Drop for Departing<'_> {
    fn drop(&mut self) {
        let Some(in_transit) = self.in_transit else { return };
        self.tenure.take_back(&self.port.endpoint().own().epoch, in_transit);
    }
}
