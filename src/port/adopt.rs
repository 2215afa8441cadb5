//! Taking ports that somebody else has given away: verify → map → adopt.

use std::sync::Arc;

use crate::epoch;
use crate::error::{AttachError, TakeError};
use crate::lane::{Arrival, Incoming, NotHere, Outgoing};
use crate::line::Line;
use crate::segment::Segment;
use crate::steps::{Step, reach};
use crate::ticket::Standing;

use super::parts::{Lanes, PortParts, Trusts};
use super::{Message, MessagePort, Trust, WaitStrategy};

impl Message<'_> {
    /// How many ports came with the message and were not taken yet.
    pub fn port_count(&self) -> usize {
        self.ports().map_or(0, |ports| ports.left())
    }

    /// Takes the next port that came with the message; `None` after the last. They come in the order
    /// in which they were listed, with all that waits in them. They have the default
    /// [`WaitStrategy`], and are untrusted if they were so where they come from or if this message came
    /// over an untrusted port. What is not taken is closed with the message: its other end sees
    /// [`Lost`](crate::CloseReason::Lost).
    ///
    /// ```
    /// use zeroport::{MessageChannel, transfer};
    ///
    /// let MessageChannel { port1, port2 } = MessageChannel::new()?;
    /// let MessageChannel { port1: port3, port2: port4 } = MessageChannel::new()?;
    /// port3.post_bytes(b"waits in port4")?;
    /// port1.post_bytes_with(b"", transfer![port4])?;
    ///
    /// let message = port2.recv()?;
    /// assert_eq!(message.port_count(), 1);
    /// while let Some(port) = message.take_port()? {
    ///     assert_eq!(port.recv()?.bytes(), b"waits in port4");
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`TakeError::Os`]: nothing was taken, try again.
    /// [`TakeError::Attach`]: this one is none or somebody else's, go on with the next.
    pub fn take_port(&self) -> Result<Option<MessagePort>, TakeError> {
        let Some(parcel) = self.ports() else { return Ok(None) };
        let receiver = self.receiver();
        let endpoint = &receiver.hold().endpoint;
        if !endpoint.is_original() {
            return Err(TakeError::Detached);
        }
        let index = parcel.taken();
        match receiver.take_port(parcel) {
            Ok(None) => Ok(None),
            Ok(Some(arrival)) => adopt(arrival, endpoint.trust())
                .map(Some)
                .map_err(|source| TakeError::Attach { index, source }),
            Err(error) => Err(self.not_here(error)),
        }
    }

    fn not_here(&self, error: NotHere) -> TakeError {
        match error {
            NotHere::Refused(errno) => TakeError::Os(errno.into()),
            NotHere::Broken => {
                self.receiver().hold().violated();
                TakeError::Violated
            }
        }
    }

    /// Takes the ports of the message, exactly so many. See [`take_port`](Self::take_port).
    ///
    /// ```
    /// use zeroport::{MessageChannel, transfer};
    ///
    /// let MessageChannel { port1, port2 } = MessageChannel::new()?;
    /// let MessageChannel { port1: left, port2: right } = MessageChannel::new()?;
    /// port1.post_bytes_with(b"both ends", transfer![left, right])?;
    /// let [left, right] = port2.recv()?.take_ports()?;
    /// left.post_bytes(b"hello")?;
    /// assert_eq!(right.recv()?.bytes(), b"hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`TakeError::Count`] if there are more or fewer, and as [`take_port`](Self::take_port). Ports
    /// that were taken before a [`TakeError::Attach`] are closed.
    pub fn take_ports<const N: usize>(&self) -> Result<[MessagePort; N], TakeError> {
        let found = self.port_count();
        let count = TakeError::Count { expected: N, found };
        if found != N {
            return Err(count);
        }
        self.take_all_ports()?.try_into().map_err(|_| count)
    }

    /// Takes all ports that are left in the message. See [`take_port`](Self::take_port).
    ///
    /// ```
    /// use zeroport::{MessageChannel, transfer};
    ///
    /// let MessageChannel { port1, port2 } = MessageChannel::new()?;
    /// let MessageChannel { port1: left, port2: right } = MessageChannel::new()?;
    /// port1.post_bytes_with(b"however many there are", transfer![left, right])?;
    /// assert_eq!(port2.recv()?.take_all_ports()?.len(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`take_port`](Self::take_port). Ports that were taken before a [`TakeError::Attach`] are
    /// closed.
    pub fn take_all_ports(&self) -> Result<Vec<MessagePort>, TakeError> {
        if let Some(parcel) = self.ports() {
            // All of them before the first is adopted: who runs out of memory has taken none.
            self.receiver().map_ports(parcel).map_err(|error| self.not_here(error))?;
        }
        let mut ports = Vec::with_capacity(self.port_count());
        while let Some(port) = self.take_port()? {
            ports.push(port);
        }
        Ok(ports)
    }
}

/// Makes a port of what arrived on a carrier: the one who comes first is its holder.
pub(super) fn adopt(arrival: Arrival, carrier: Trust) -> Result<MessagePort, AttachError> {
    let Arrival { ticket, segment, mapping, line, incoming, outgoing } = arrival;
    let standing = ticket.standing().ok_or(AttachError::NotAPort)?;
    let memfd = segment.into_owned().ok_or(AttachError::Detached)?;
    let segment = Arc::new(match mapping {
        Some(mapping) => mapping.held_by(memfd),
        None => Segment::attach(memfd)?,
    });
    reach(Step::Mapped);
    let word = &standing.side.of(&segment.header().sides).epoch;
    let epoch = epoch::adopt(word, standing.epoch).ok_or(AttachError::Detached)?;
    reach(Step::Adopted);
    // Not before: what is refused may be a copy of somebody else's line, which must not be hung up.
    let line = Line::hold(line);
    let said = ticket.trust();
    let trust = |is_trusted| if is_trusted { Trust::Trusted } else { Trust::Untrusted };
    let trusts = Trusts {
        port: trust(carrier == Trust::Trusted && !said.is_untrusted),
        channel: trust(said.is_of_trusted_channel),
    };
    let incoming = incoming.map(Incoming::new);
    let outgoing = outgoing.map(Outgoing::new);
    let parts = PortParts { segment, line, lanes: Lanes { incoming, outgoing } };
    let strategy = WaitStrategy::default();
    Ok(MessagePort::assemble(Standing { epoch, ..standing }, parts, trusts, strategy))
}
