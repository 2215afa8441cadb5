//! What a port is made of, and how it is put together.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crate::epoch::Epoch;
use crate::lane::{Incoming, Outgoing};
use crate::layout::Side;
use crate::line::Line;
use crate::segment::Segment;
use crate::ticket::Standing;

use super::endpoint::Endpoint;
use super::{ChannelOptions, MessagePort, Receiver, Sender, Trust, WaitStrategy};

/// What a port is made of.
pub(super) struct PortParts {
    pub(super) segment: Arc<Segment>,
    pub(super) line: Line,
    pub(super) lanes: Lanes,
}

/// How far a port may be trusted, and trusts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trusts {
    /// Whether it trusts what comes from the other side.
    pub(super) port: Trust,
    /// What the channel is. If it is trusted, the other end may trust this one, whatever this one does.
    pub(super) channel: Trust,
}

/// The lanes of a port, as far as it has them.
#[derive(Default)]
pub(super) struct Lanes {
    pub(super) incoming: Option<Incoming>,
    pub(super) outgoing: Option<Outgoing>,
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
        let parts = PortParts { segment, line, lanes: Lanes::default() };
        let trusts = Trusts { port: options.trust_of_ports(), channel: options.trust_of_channel() };
        Self::assemble(standing, parts, trusts, options.strategy_of_ports())
    }

    /// A port that stands where a former holder has left it.
    pub(super) fn assemble(
        standing: Standing,
        parts: PortParts,
        trusts: Trusts,
        strategy: WaitStrategy,
    ) -> Self {
        let PortParts { segment, line, lanes: Lanes { incoming, outgoing } } = parts;
        let Standing { side, epoch, next, read } = standing;
        let (mark, line) = (line.mark(), Arc::new(line));
        let endpoint = Arc::new(Endpoint::new(segment, side, epoch, mark, trusts, &line));
        Self {
            sender: Sender::new(Arc::clone(&endpoint), Arc::clone(&line), next, outgoing, strategy),
            receiver: Receiver::new(endpoint, line, read, incoming, strategy),
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
