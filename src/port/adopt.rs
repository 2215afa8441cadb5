//! Taking ports that somebody else has given away: verify → map → adopt.

use std::sync::Arc;

use crate::SealedBuffer;
use crate::epoch;
use crate::error::{AttachError, TakeError};
use crate::fork::ForkSafeFd;
use crate::lane::{Arrival, Attaching, Incoming, NotHere, Outgoing, PortArrival};
use crate::layout::Side;
use crate::line::Line;
use crate::segment::Segment;
use crate::steps::{Step, reach};
use crate::ticket::{Place, Standing};
use crate::warm::Reading;

use super::parts::{Lanes, PortParts, Trusts, check_limits};
use super::{Message, MessagePort, Trust, WaitStrategy};

impl Message<'_> {
    /// How many ports came with the message and were not taken yet.
    #[inline]
    pub fn port_count(&self) -> usize {
        self.parcel().map_or(0, |parcel| parcel.left()[0])
    }

    /// How many ports were taken from the message.
    pub(crate) fn ports_taken(&self) -> usize {
        self.parcel().map_or(0, |parcel| parcel.taken()[0])
    }

    /// How many buffers came with the message and were not taken yet.
    #[inline]
    pub fn buffer_count(&self) -> usize {
        self.parcel().map_or(0, |parcel| parcel.left()[1])
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
        let Some(parcel) = self.parcel() else { return Ok(None) };
        let receiver = self.receiver();
        if !receiver.is_original() {
            return Err(TakeError::Detached);
        }
        let [index, _] = parcel.taken();
        match receiver.take_from(parcel, true) {
            Ok(Some(Arrival::Port(arrival))) => adopt(*arrival, receiver.hold().endpoint.trusts())
                .map(Some)
                .map_err(|source| TakeError::Attach { index, source }),
            Ok(_) => Ok(None),
            Err(error) => Err(self.not_here(error)),
        }
    }

    /// Takes the next buffer that came with the message; `None` after the last. They come in the order in
    /// which they were listed, apart from the ports. What is not taken goes with the message.
    ///
    /// ```
    /// use zeroport::{Buffer, MessageChannel, transfer};
    ///
    /// let MessageChannel { port1, port2 } = MessageChannel::new()?;
    /// let mut frame = Buffer::new(1 << 20)?;
    /// frame.fill(7);
    /// port1.post_bytes_with(b"a frame", transfer![frame])?;
    ///
    /// let message = port2.recv()?;
    /// assert_eq!(message.buffer_count(), 1);
    /// while let Some(frame) = message.take_buffer()? {
    ///     assert!(frame.iter().all(|byte| *byte == 7)); // the very memory that was filled
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`TakeError::Os`]: nothing was taken, try again. [`TakeError::Violated`]: what came is not sealed
    /// memory of the length that was told; the channel was closed.
    pub fn take_buffer(&self) -> Result<Option<SealedBuffer>, TakeError> {
        let Some(parcel) = self.parcel() else { return Ok(None) };
        if !self.receiver().is_original() {
            return Err(TakeError::Detached);
        }
        match self.receiver().take_from(parcel, false) {
            Ok(Some(Arrival::Buffer(arrival))) => {
                let buffer = arrival.open().map(SealedBuffer::from_sealed);
                buffer.map(Some).ok_or_else(|| self.not_here(NotHere::Broken))
            }
            Ok(_) => Ok(None),
            Err(error) => Err(self.not_here(error)),
        }
    }

    /// Takes the buffers of the message, exactly so many. See [`take_buffer`](Self::take_buffer).
    ///
    /// ```
    /// use zeroport::{Buffer, MessageChannel, transfer};
    ///
    /// let MessageChannel { port1, port2 } = MessageChannel::new()?;
    /// let MessageChannel { port1: port3, port2: port4 } = MessageChannel::new()?;
    /// port1.post_bytes_with(b"", transfer![Buffer::from_slice(b"text")?, port3])?;
    ///
    /// let message = port2.recv()?;
    /// let [text] = message.take_buffers()?;
    /// let [port3] = message.take_ports()?;
    /// port3.post_bytes_with(b"", transfer![text])?; // forwarded: nothing is copied
    /// let [text] = port4.recv()?.take_buffers()?;
    /// assert_eq!(&*text, b"text");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`TakeError::Count`] if there are more or fewer, and as [`take_buffer`](Self::take_buffer).
    pub fn take_buffers<const N: usize>(&self) -> Result<[SealedBuffer; N], TakeError> {
        let found = self.buffer_count();
        let count = TakeError::Count { expected: N, found };
        if found != N {
            return Err(count);
        }
        if let Some(parcel) = self.parcel() {
            // All of them before the first is taken: who runs out of memory has taken none.
            self.receiver().map_all(parcel, false).map_err(|error| self.not_here(error))?;
        }
        let mut buffers = Vec::with_capacity(N);
        while let Some(buffer) = self.take_buffer()? {
            buffers.push(buffer);
        }
        buffers.try_into().map_err(|_| count)
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
        if let Some(parcel) = self.parcel() {
            // All of them before the first is adopted: who runs out of memory has taken none.
            self.receiver().map_all(parcel, true).map_err(|error| self.not_here(error))?;
        }
        let mut ports = Vec::with_capacity(self.port_count());
        while let Some(port) = self.take_port()? {
            ports.push(port);
        }
        Ok(ports)
    }
}

/// Makes a port of what arrived on a carrier: the one who comes first is its holder.
pub(super) fn adopt(arrival: PortArrival, carrier: Trusts) -> Result<MessagePort, AttachError> {
    let PortArrival { ticket, segment, line, grown, incoming, outgoing, kept } = arrival;
    let standing = ticket.standing().ok_or(AttachError::NotAPort)?;
    let said = ticket.trust();
    let trust = |is_trusted| if is_trusted { Trust::Trusted } else { Trust::Untrusted };
    let trusts = Trusts {
        port: trust(carrier.port == Trust::Trusted && !said.is_untrusted),
        channel: trust(said.is_of_trusted_channel),
        accepts: carrier.accepts,
    };
    let segment = Arc::new(segment.attach()?);
    if trusts.port == Trust::Untrusted {
        check_limits(&segment, carrier.accepts)?;
    }
    let ([posts_to, reads], side) = (grown, standing.side);
    let limit = |side: Side| *side.of(&segment.shape().limit);
    let grown = [
        posts_to.map(|ring| attach_grown(ring, standing.next, limit(side))).transpose()?,
        reads.map(|ring| attach_grown(ring, standing.read, limit(side.other()))).transpose()?,
    ];
    let kept = kept.into_iter().filter_map(ForkSafeFd::into_owned).map(Reading::new);
    let kept: Option<Vec<_>> = kept.collect::<Result<_, _>>().map_err(AttachError::os)?;
    let kept = kept.ok_or(AttachError::NotAPort)?;
    reach(Step::Mapped);
    let word = &standing.side.of(&segment.header().sides).epoch;
    let epoch = epoch::adopt(word, standing.epoch).ok_or(AttachError::Detached)?;
    reach(Step::Adopted);
    // Not before: what is refused may be a copy of somebody else's line, which must not be hung up.
    let line = Line::hold(line);
    let incoming = incoming.into_iter().map(Incoming::new).collect();
    let lanes =
        Lanes { incoming, outgoing: outgoing.map(Outgoing::new), described: ticket.lanes() };
    let parts = PortParts { segment, line, lanes, grown, kept };
    let strategy = WaitStrategy::default();
    Ok(MessagePort::assemble(Standing { epoch, ..standing }, parts, trusts, strategy))
}

/// A grown ring in which a port stands at `place`. None is larger than the limit.
fn attach_grown(ring: Attaching, place: Place, limit: u64) -> Result<Segment, AttachError> {
    let segment = ring.attach()?;
    let [capacity, _] = segment.shape().capacity;
    if capacity > limit {
        return Err(AttachError::Limit { found: capacity, accepts: limit });
    }
    let is_inside = place.grown.is_some_and(|at| at < capacity);
    if is_inside { Ok(segment) } else { Err(AttachError::NotAPort) }
}
