//! Giving ports away: check → reserve → detach → send → close the own copies → publish.
//!
//! A refused post has changed nothing. Until the descriptors were sent, a [`Departing`] port goes back
//! to its holder when it is dropped; after that nothing can fail any more.
//!
//! The own copies are closed *before* the record is published: whoever sees the record is the only
//! holder of what came with it, so its death hangs up the lines that it was given.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use rustix::io::Errno;

use crate::epoch::Epoch;
use crate::error::{PostError, Untransferable};
use crate::lane::{Incoming, NotHere, Outgoing};
use crate::line::Line;
use crate::record::{MAX_PORTS, OUTSIDE, Outside};
use crate::ring::{Content, Reservation};
use crate::segment::{Region, SegmentId};
use crate::steps::{Step, reach};
use crate::tenure::Held;
use crate::ticket::{Place, Standing, Ticket, TicketLanes, TicketTrust};
use crate::warm::Reading;

use super::endpoint::Endpoint;
use super::large::Finished;
use super::post::{Patience, Sender};
use super::receive::Receiver;
use super::transfer_list::{TransferError, TransferList, Transferable};
use super::{MessagePort, Trust};

impl Sender {
    /// Refuses what this port can never carry: itself, and its other end, however that came here.
    pub(super) fn check_carrier(&self, list: &mut TransferList) -> Result<(), PostError> {
        let (count, max) = (list.items().len(), usize::from(MAX_PORTS));
        if count > max {
            return Err(PostError::TooManyPorts { count, max });
        }
        if count == 0 {
            // What follows takes a system call.
            return Ok(());
        }
        let id = |endpoint: &Endpoint| endpoint.segment().id().map_err(PostError::Os);
        let carrier = &self.hold().endpoint;
        let carrier_id: SegmentId = id(carrier)?;
        for (index, item) in list.items().iter().enumerate() {
            let Transferable::Port(port) = item else { continue };
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

    /// Posts a message that was written already, with what the list holds and, if it has one, its payload
    /// in a memory of its own. Whatever has memory outside the ring has left room for an [`Outside`] before
    /// its payload, and was admitted.
    pub(super) fn give_away(
        &self,
        room: Reservation,
        content: Content,
        patience: Patience,
        mut list: TransferList,
        large: Option<Finished>,
    ) -> Result<(), TransferError> {
        let [ports, buffers] = list.counts();
        let kept = large.as_ref().filter(|_| list.is_empty()).and_then(Finished::kept);
        let outside = Outside {
            large: large.as_ref().map_or(0, Finished::len),
            buffers: list.bytes(),
            kept: kept.unwrap_or(0),
            reserved: 0,
        };
        let bytes = outside.bytes().unwrap_or(u64::MAX);
        let len = if large.is_some() { outside.large } else { content.len.into() };
        let sent = list.seal().and_then(|()| match kept {
            Some(_) => self.keep_open().map(|tenure| (tenure, 0)),
            None => self.dispatch(&mut list, large.as_ref(), len, patience),
        });
        let (tenure, mut flags) = match sent {
            Ok(sent) => sent,
            Err(source) => return Err(TransferError::new(list, source)),
        };
        // Unmaps the segments, and closes what is still open of them.
        drop(list);
        reach(Step::Closed);
        if buffers > 0 || large.is_some() {
            let bytes = bytemuck::bytes_of(&outside);
            self.write(room.is_grown(), room.payload_offset(), bytes);
            flags |= OUTSIDE;
        }
        self.growth().sent.add(bytes);
        if bytes > 0 {
            // Less is left for larger rings: so all of the first one is needed.
            self.queue().first().turn_late();
        }
        if let Some(large) = large {
            self.sent_large(large);
        }
        let (ports, buffers) = (ports as u16, buffers as u16);
        self.publish_content(room, Content { ports, buffers, flags, ..content });
        reach(Step::Published);
        drop(tenure);
        Ok(())
    }

    /// Nobody can close this port as long as what this returns is held.
    fn keep_open(&self) -> Result<Held<'_>, PostError> {
        let tenure = self.hold().endpoint.tenure();
        match self.hold().endpoint.end() {
            None => Ok(tenure),
            Some(reason) => {
                // Who finds the protocol broken closes this port.
                drop(tenure);
                Err(self.at_end(reason))
            }
        }
    }

    /// Sends the descriptors of a whole list and a payload, or changes nothing. Nobody can close this port
    /// as long as what it returns is held: a message whose ports have gone must be published.
    fn dispatch(
        &self,
        list: &mut TransferList,
        large: Option<&Finished>,
        len: u64,
        patience: Patience,
    ) -> Result<(Held<'_>, u8), PostError> {
        self.send(len, patience, &mut |lane| {
            let tenure = self.hold().endpoint.tenure();
            let is_open = self.hold().endpoint.end().is_none();
            let sent = if is_open { self.send_all(list, large, lane)? } else { Err(Errno::PIPE) };
            // Dropped where it is refused: who finds the protocol broken closes this port.
            Ok(sent.map(|()| tenure))
        })
    }

    fn send_all(
        &self,
        list: &mut TransferList,
        large: Option<&Finished>,
        lane: &Outgoing,
    ) -> Result<Result<(), Errno>, PostError> {
        let mut departing = Vec::with_capacity(list.len());
        for (index, item) in list.items().iter().enumerate() {
            departing.push(Leaving::new(index, item, self.hold().endpoint.trust())?);
        }
        reach(Step::Detached);
        let tickets: Vec<Ticket> = departing.iter().map(Leaving::ticket).collect();
        let mut fds = Vec::with_capacity(2 * departing.len());
        for leaving in &departing {
            leaving.add_fds(&mut fds).map_err(PostError::Os)?;
        }
        let sent = lane.send(large.map(Finished::on_lane), &tickets, &fds);
        if sent.is_ok() {
            reach(Step::Sent);
            drop(fds);
            departing.into_iter().for_each(Leaving::gone);
        }
        Ok(sent)
    }
}

/// One thing of a list on its way out.
enum Leaving<'p> {
    Port(Box<Departing<'p>>),
    Buffer(&'p crate::SealedBuffer),
}

impl<'p> Leaving<'p> {
    fn new(index: usize, item: &'p Transferable, carrier: Trust) -> Result<Self, PostError> {
        match item {
            Transferable::Port(port) => {
                Ok(Self::Port(Box::new(Departing::new(index, port, carrier)?)))
            }
            Transferable::SealedBuffer(buffer) => Ok(Self::Buffer(buffer)),
            // Not reached: the list was sealed.
            Transferable::Buffer(_) => {
                let reason = Untransferable::Detached;
                Err(PostError::Untransferable { index, reason })
            }
        }
    }

    fn ticket(&self) -> Ticket {
        match self {
            Self::Port(departing) => departing.ticket,
            Self::Buffer(buffer) => Ticket::buffer(buffer.len() as u64),
        }
    }

    fn add_fds<'a>(&'a self, fds: &mut Vec<BorrowedFd<'a>>) -> std::io::Result<()> {
        match self {
            Self::Port(departing) => {
                for fd in departing.fds() {
                    fds.push(fd?);
                }
            }
            Self::Buffer(buffer) => fds.push(buffer.memfd()),
        }
        Ok(())
    }

    fn gone(self) {
        if let Self::Port(departing) = self {
            departing.gone();
        }
    }
}

impl Receiver {
    /// Prepares the port for its next holder: all that was received is let go. Lanes' ends that still lie
    /// on the line travel with the line. Fails if a forgotten message has its ports on a lane that cannot
    /// be taken up.
    fn settle(&self) -> Result<(), Errno> {
        self.queue().release_all();
        self.leave_rings();
        if self.parcels().is_behind() {
            // What was never sent, whoever adopts the port finds out.
            if let Err(NotHere::Refused(errno)) = self.parcels().let_all_go(&|| self.find_lanes()) {
                return Err(errno);
            }
            self.tell_of_lanes();
        }
        if let Some(line) = self.hold().line() {
            self.take_up_lanes(&line);
        }
        self.give_back();
        self.account_for(self.beyond().forgotten(self.queue()));
        // What is not needed need not go along.
        self.beyond().kept().trim();
        Ok(())
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
    /// The grown rings that it posts to and reads.
    grown: [Option<Region>; 2],
    incoming: Vec<Arc<Incoming>>,
    outgoing: Option<Arc<Outgoing>>,
    /// The blocks that its reader has kept.
    kept: Vec<Arc<Reading>>,
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
        receiver.settle().map_err(|errno| PostError::Os(errno.into()))?;
        let in_transit = tenure.let_go(&endpoint.own().epoch);
        let in_transit = in_transit.ok_or(refused(Untransferable::Detached))?;
        let (at_lane, incoming) = receiver.parcels().lanes();
        let lanes = TicketLanes {
            is_at_first: at_lane.is_some(),
            incoming: incoming.len() + usize::from(at_lane.is_some()),
            ..sender.lanes().describe()
        };
        let incoming = at_lane.into_iter().chain(incoming).collect();
        let (posts_to, reads) = (sender.queue().grown(), receiver.queue().grown());
        let place = |first, grown: &Option<(Region, u64)>| Place {
            first,
            grown: grown.as_ref().map(|(_, at)| *at),
        };
        let standing = Standing {
            side: endpoint.side(),
            epoch: in_transit,
            next: place(sender.queue().first().position(), &posts_to),
            read: place(receiver.queue().first().position(), &reads),
            sent: sender.growth().sent.total(),
            received: receiver.received().total(),
        };
        let grown = [posts_to, reads].map(|ring| ring.map(|(memory, _)| memory));
        let trust = TicketTrust {
            is_untrusted: endpoint.trust() == Trust::Untrusted,
            is_of_trusted_channel: endpoint.trust_of_channel() == Trust::Trusted,
        };
        let kept = receiver.beyond().kept().all();
        let ticket = Ticket::port(standing, lanes, kept.len(), trust);
        let (in_transit, outgoing) = (Some(in_transit), sender.lanes().current());
        Ok(Self { port, tenure, in_transit, ticket, line, grown, incoming, outgoing, kept })
    }

    /// Its descriptors, in the order that the ticket tells.
    pub(super) fn fds(&self) -> impl Iterator<Item = std::io::Result<BorrowedFd<'_>>> {
        let segment = self.port.endpoint().segment().memfd();
        let grown = self.grown.iter().flatten().map(|ring| Ok(ring.segment().memfd()));
        let incoming = self.incoming.iter().map(|lane| lane.as_fd());
        let outgoing = self.outgoing.iter().map(|lane| lane.as_fd());
        let kept = self.kept.iter().map(|block| Ok(block.memfd()));
        let first = [Ok(segment), self.line.as_fd()];
        first.into_iter().chain(grown).chain(incoming).chain(outgoing).chain(kept)
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
