//! What a port is made of, and how it is put together.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crate::epoch::Epoch;
use crate::error::AttachError;
use crate::lane::{Incoming, Outgoing};
use crate::layout::{DEFAULT_LIMIT, Side};
use crate::line::Line;
use crate::queue::{Poster, Reader};
use crate::segment::{Region, Segment};
use crate::ticket::{Standing, TicketLanes};
use crate::warm::Reading;

use super::endpoint::Endpoint;
use super::kept::Kept;
use super::out_lanes::OutLanes;
use super::outside::Beyond;
use super::parcels::Parcels;
use super::{ChannelOptions, MessagePort, Receiver, Sender, Trust, WaitStrategy};

/// What a port is made of.
pub(super) struct PortParts {
    pub(super) segment: Arc<Segment>,
    pub(super) line: Line,
    pub(super) lanes: Lanes,
    /// The grown rings that it posts to and reads.
    pub(super) grown: [Option<Segment>; 2],
    /// The blocks that its reader has kept.
    pub(super) kept: Vec<Reading>,
}

/// How far a port may be trusted, and trusts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trusts {
    /// Whether it trusts what comes from the other side.
    pub(super) port: Trust,
    /// What the channel is. If it is trusted, the other end may trust this one, whatever this one does.
    pub(super) channel: Trust,
    /// Bytes that may wait here on a port which comes over this one from a stranger.
    pub(super) accepts: u64,
}

impl Trusts {
    /// Who trusts a port accepts over it what may wait on it.
    fn raised_by(self, segment: &Segment) -> Self {
        if self.port == Trust::Untrusted {
            return self;
        }
        let shape = segment.shape();
        let own = shape.capacity.into_iter().chain(shape.limit);
        Self { accepts: own.fold(self.accepts, u64::max), ..self }
    }
}

/// The lanes of a port, as far as it has them.
#[derive(Default)]
pub(super) struct Lanes {
    pub(super) incoming: Vec<Incoming>,
    pub(super) outgoing: Option<Outgoing>,
    pub(super) described: TicketLanes,
}

impl MessagePort {
    /// The end of a fresh channel.
    pub(crate) fn new(
        segment: Arc<Segment>,
        side: Side,
        epoch: Epoch,
        line: Line,
        options: ChannelOptions,
    ) -> Self {
        let standing = Standing::fresh(side, epoch);
        let parts = PortParts {
            segment,
            line,
            lanes: Lanes::default(),
            grown: [None, None],
            kept: Vec::new(),
        };
        let trusts = Trusts {
            port: options.trust_of_ports(),
            channel: options.trust_of_channel(),
            accepts: options.accepts().max(DEFAULT_LIMIT),
        };
        Self::assemble(standing, parts, trusts, options.strategy_of_ports())
    }

    /// A port that stands where a former holder has left it.
    pub(super) fn assemble(
        standing: Standing,
        parts: PortParts,
        trusts: Trusts,
        strategy: WaitStrategy,
    ) -> Self {
        let PortParts { segment, line, lanes, grown, kept } = parts;
        let trusts = trusts.raised_by(&segment);
        let Standing { side, epoch, next, read, sent, received } = standing;
        let Lanes { incoming, outgoing, described } = lanes;
        let limit = *side.other().of(&segment.shape().limit);
        let (mark, line) = (line.mark(), Arc::new(line));
        let rings = [side, side.other()].map(|ring| Region::new(Arc::clone(&segment), ring));
        let [posts_to, reads] = rings;
        let grown = grown.map(|ring| ring.map(|ring| Region::new(Arc::new(ring), Side::First)));
        let [posts_to_grown, reads_grown] = grown;
        let poster = match posts_to_grown.zip(next.grown) {
            None => Poster::new(posts_to, next.first),
            Some((ring, at)) => Poster::in_grown(posts_to, next.first, ring, at),
        };
        let reader = match reads_grown.zip(read.grown) {
            None => Reader::new(reads, read.first),
            Some((ring, at)) => Reader::in_grown(reads, read.first, ring, at),
        };
        let kept = Kept::new(trusts.port, kept);
        let beyond = Beyond::new(limit, received, &reader, kept);
        let endpoint = Arc::new(Endpoint::new(segment, side, epoch, mark, trusts, &line));
        let out_lanes = OutLanes::new(outgoing, described);
        let parcels = Parcels::new(incoming, described.is_at_first);
        let (line_too, endpoint_too) = (Arc::clone(&line), Arc::clone(&endpoint));
        Self {
            sender: Sender::new(endpoint_too, line_too, poster, sent, out_lanes, strategy),
            receiver: Receiver::new(endpoint, line, reader, beyond, parcels, strategy),
        }
    }

    /// Has something put on the line before anything else: first contact.
    pub(crate) fn send_welcome(
        &self,
        send: impl FnOnce(BorrowedFd<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        self.sender.hold().line().map_or(Ok(()), |line| send(line.as_fd()?))
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.receiver.hold().endpoint
    }

    /// Both halves, for who gives the port away.
    pub(super) fn halves(&self) -> (&Sender, &Receiver) {
        (&self.sender, &self.receiver)
    }
}

/// Refuses a channel that a stranger has made so that more could wait in it than is accepted: for us, or from
/// us, which is our memory too if nobody reads it.
pub(super) fn check_limits(segment: &Segment, accepts: u64) -> Result<(), AttachError> {
    let shape = segment.shape();
    let found = shape.capacity.into_iter().chain(shape.limit).fold(0, u64::max);
    if found > accepts { Err(AttachError::Limit { found, accepts }) } else { Ok(()) }
}
