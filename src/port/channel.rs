//! Making channels.

use std::process::{Child, Command};
use std::sync::Arc;

use crate::epoch::{self, Epoch};
use crate::error::{OpenError, SpawnError};
use crate::fork::ForkSafeFd;
use crate::layout::{
    DEFAULT_CAPACITY, DEFAULT_LIMIT, MAX_CAPACITY, MAX_LIMIT, MIN_CAPACITY, Shape, Side,
};
use crate::line::Line;
use crate::packet;
use crate::segment::{Segment, is_legal_capacity};
use crate::spares;

use super::{MessagePort, Trust, WaitStrategy};

/// Two entangled ports: what is posted on one is received on the other.
///
/// ```
/// use zeroport::MessageChannel;
///
/// let MessageChannel { port1, port2 } = MessageChannel::new()?;
/// port1.post_bytes(b"hello")?;
/// assert_eq!(port2.recv()?.bytes(), b"hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct MessageChannel {
    /// One end.
    pub port1: MessagePort,
    /// The other end.
    pub port2: MessagePort,
}

impl MessageChannel {
    /// Makes a channel whose ends do not trust each other: for ports that strangers get. See
    /// [`Trust`](crate::Trust).
    ///
    /// ```
    /// use zeroport::{MessageChannel, Trust};
    ///
    /// let MessageChannel { port1, port2: _for_a_stranger } = MessageChannel::untrusted()?;
    /// assert_eq!(port1.trust(), Trust::Untrusted);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn untrusted() -> Result<Self, OpenError> {
        ChannelOptions::new().trust(Trust::Untrusted).open()
    }

    /// Makes a channel with the default options.
    ///
    /// # Errors
    ///
    /// [`OpenError::Os`] if the process has no descriptors or memory left.
    pub fn new() -> Result<Self, OpenError> {
        ChannelOptions::new().open()
    }
}

/// How a channel is made.
///
/// ```
/// use zeroport::{ChannelOptions, MessageChannel, WaitStrategy};
///
/// let MessageChannel { port1, port2 } =
///     ChannelOptions::new().capacity(1 << 20).wait_strategy(WaitStrategy::Sleep).open()?;
/// assert_eq!(port1.max_in_ring(), (1 << 19) - 32);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use = "options make nothing until they are opened"]
pub struct ChannelOptions {
    capacity: [u64; 2],
    limit: [u64; 2],
    warm: bool,
    trust: Option<Trust>,
    /// Whether the other end trusts ours, if that is another matter.
    channel: Option<Trust>,
    strategy: WaitStrategy,
}

impl Default for ChannelOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// The parts of a fresh channel, before anybody holds its ends.
pub(crate) struct Parts {
    pub(crate) segment: Arc<Segment>,
    pub(crate) lines: [ForkSafeFd; 2],
    /// Of both ends.
    pub(crate) epoch: Epoch,
}

impl ChannelOptions {
    /// The defaults: for each direction a ring of 64 KiB and 256 MiB that may wait beyond it; adaptive
    /// waiting; memory for large payloads that is used again; and trust by where the other side comes from
    /// (see [`trust`](Self::trust)).
    pub const fn new() -> Self {
        Self {
            capacity: [DEFAULT_CAPACITY; 2],
            limit: [DEFAULT_LIMIT; 2],
            warm: true,
            trust: None,
            channel: None,
            strategy: WaitStrategy::Adaptive,
        }
    }

    /// Bytes of the ring in each direction: a power of two from 4 KiB to 1 GiB, checked when the
    /// channel is opened. Memory is taken as it is first used. Payloads of up to half the capacity less
    /// 32 bytes travel in the ring, longer ones in a memory of their own.
    ///
    /// A channel that is used one message at a time stays in a sixteenth of its ring, at least a page, if its
    /// queue may become sixteen times as long as the ring: the first burst of more than that then waits in a
    /// larger one.
    pub const fn capacity(mut self, bytes: u64) -> Self {
        self.capacity = [bytes; 2];
        self
    }

    /// As [`capacity`](Self::capacity), apart for each direction: what `port1` posts (or the parent,
    /// when spawning), and what `port2` (or the child) posts.
    ///
    /// ```
    /// use zeroport::{ChannelOptions, MessageChannel, OpenError};
    ///
    /// let MessageChannel { port1, port2 } =
    ///     ChannelOptions::new().capacities(1 << 20, 4 << 10).open()?;
    /// assert!(port1.max_in_ring() > port2.max_in_ring());
    ///
    /// let error = ChannelOptions::new().capacities(1 << 20, 5000).open().unwrap_err();
    /// assert!(matches!(error, OpenError::Capacity { requested: 5000, .. }));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub const fn capacities(mut self, first: u64, second: u64) -> Self {
        self.capacity = [first, second];
        self
    }

    /// How many bytes may wait in each direction beyond the ring: in rings by which the queue grows, in
    /// large payloads and in buffers. Checked when the channel is opened; at most 64 TiB.
    ///
    /// Memory counts in whole pages, a ring with its capacity, until the reader has let it go: a ring that was
    /// read to its end, when the reader next looks for a message.
    ///
    /// While they may, a post does not wait. Above, `post` waits and `try_post` is
    /// [`Full`](crate::PostError::Full). One message that is larger by itself may pass when nothing else
    /// waits. With 0 the queue never grows; a serialiser that posts on the very port that posts its value may
    /// then wait for ever, if the value is too large for the ring and the reader is this thread.
    ///
    /// ```
    /// use zeroport::{ChannelOptions, MessageChannel, PostError};
    ///
    /// let MessageChannel { port1, port2 } = ChannelOptions::new().limit(0).open()?;
    /// while port1.try_post_pod(&7u64).is_ok() {} // until the ring is full
    /// assert!(matches!(port1.try_post_pod(&7u64), Err(PostError::Full { .. })));
    /// # drop(port2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub const fn limit(mut self, bytes: u64) -> Self {
        self.limit = [bytes; 2];
        self
    }

    /// As [`limit`](Self::limit), apart for each direction: what `port1` posts (or the parent, when
    /// spawning), and what `port2` (or the child) posts.
    pub const fn limits(mut self, first: u64, second: u64) -> Self {
        self.limit = [first, second];
        self
    }

    /// Whether memory is used again, if both sides trust each other: that of large payloads, and that of the
    /// channel itself once it has ended. It is much faster: page faults are most of what a large payload or
    /// a fresh channel costs. Both ends of a direction keep at most 32 MiB for payloads, in at most 16 pieces
    /// with a descriptor each, until it is quiet for a tenth of a second and its reader waits; a process keeps the memory of at most four channels, until it calls
    /// [`trim`](crate::trim).
    pub const fn warm(mut self, is_warm: bool) -> Self {
        self.warm = is_warm;
        self
    }

    /// Whether the holders of the channel trust each other. See [`Trust`]. Unless it is said here,
    /// channels that are opened and children that are spawned are trusted; callers that a
    /// [`Server`](crate::Server) admits, and servers that are connected to, are not.
    pub const fn trust(mut self, trust: Trust) -> Self {
        self.trust = Some(trust);
        self
    }

    /// How the ports wait, until they are told otherwise.
    pub const fn wait_strategy(mut self, strategy: WaitStrategy) -> Self {
        self.strategy = strategy;
        self
    }

    /// Makes the channel.
    ///
    /// # Errors
    ///
    /// [`OpenError::Capacity`] if a capacity is not legal, [`OpenError::Limit`] if a limit is too high,
    /// [`OpenError::Os`] if the process has no descriptors or memory left.
    pub fn open(self) -> Result<MessageChannel, OpenError> {
        let Parts { segment, lines: [line1, line2], epoch } = self.make()?;
        let port = |side, line| {
            let line = Line::hold(line);
            MessagePort::new(Arc::clone(&segment), side, epoch, line, self)
        };
        Ok(MessageChannel { port1: port(Side::First, line1), port2: port(Side::Second, line2) })
    }

    /// Starts a child process with a port, as [`spawn`](crate::spawn) does, with these options.
    ///
    /// # Errors
    ///
    /// As [`spawn`](crate::spawn).
    pub fn spawn(self, command: Command) -> Result<(MessagePort, Child), SpawnError> {
        crate::spawn::spawn_with(self, command)
    }

    /// Both ends are ours, or a child's, who trusts us.
    pub(crate) fn make(self) -> Result<Parts, OpenError> {
        let reuse = self.warm && self.trust_of_ports() == Trust::Trusted;
        let (segment, epoch) = self.make_segment(reuse)?;
        let lines = packet::pair().map_err(OpenError::Os)?;
        Ok(Parts { segment, lines, epoch })
    }

    /// The memory alone, for a line that is there already.
    pub(crate) fn make_segment(self, reuse: bool) -> Result<(Arc<Segment>, Epoch), OpenError> {
        for requested in self.limit {
            if requested > MAX_LIMIT {
                return Err(OpenError::Limit { requested, max: MAX_LIMIT });
            }
        }
        for requested in self.capacity {
            if !is_legal_capacity(requested) {
                let (min, max) = (MIN_CAPACITY, MAX_CAPACITY);
                return Err(OpenError::Capacity { requested, min, max });
            }
        }
        let shape = Shape { capacity: self.capacity, limit: self.limit, reuse };
        let spare = if reuse { spares::take(shape) } else { None };
        let (segment, epoch) = match spare {
            Some(spare) => spare,
            None => {
                let fresh = Segment::create(shape).map_err(|error| OpenError::Os(error.into()))?;
                (Arc::new(fresh), Epoch::FIRST)
            }
        };
        for side in &segment.header().sides {
            epoch::set(&side.epoch, epoch);
        }
        Ok((segment, epoch))
    }

    /// For channels between strangers: untrusted, unless somebody has said otherwise.
    pub(crate) fn for_strangers(self) -> Self {
        Self { trust: self.trust.or(Some(Trust::Untrusted)), ..self }
    }

    /// For the channel to a child, who trusts us whatever we think of it.
    pub(crate) fn for_child(self) -> Self {
        Self { channel: Some(Trust::Trusted), ..self }
    }

    /// Bytes that may wait in one direction, as far as these options go.
    pub(crate) fn accepts(self) -> u64 {
        self.capacity.into_iter().chain(self.limit).max().unwrap_or(0)
    }

    pub(super) fn trust_of_channel(self) -> Trust {
        self.channel.unwrap_or(self.trust_of_ports())
    }

    pub(super) fn trust_of_ports(self) -> Trust {
        self.trust.unwrap_or_default()
    }

    pub(super) fn strategy_of_ports(self) -> WaitStrategy {
        self.strategy
    }
}
