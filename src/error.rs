//! One small enum for each verb. Each says what happened, with the number and the limit, and what to
//! do about it. All are `Error + Send + Sync + 'static`.

use std::io;

use crate::layout::{MAX_CAPACITY, MIN_CAPACITY};

/// Why a port is at its end: what [`recv`](crate::MessagePort::recv) reports after the last message,
/// and [`peer_state`](crate::MessagePort::peer_state) at once.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum CloseReason {
    /// One of the two ports was closed or dropped.
    #[error("closed")]
    Closed,
    /// The process that held the other port ended without closing it.
    #[error("the process at the other end died")]
    PeerDied,
    /// The other port was given away and nobody ever took it.
    #[error("the other port was lost on its way to a new holder")]
    Lost,
    /// The other side broke the protocol of the shared memory. The channel was closed.
    #[error("the other side broke the protocol")]
    Violated,
}

/// Why a channel could not be made.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The capacity is not legal.
    #[error(
        "a capacity of {requested} bytes is not legal: ask for a power of two from {min} to {max}"
    )]
    Capacity {
        /// Bytes asked for.
        requested: u64,
        /// The smallest legal capacity in bytes.
        min: u64,
        /// The largest legal capacity in bytes.
        max: u64,
    },
    /// The limit is too high.
    #[error("a limit of {requested} bytes is too high: ask for at most {max}")]
    Limit {
        /// Bytes asked for.
        requested: u64,
        /// The highest limit in bytes.
        max: u64,
    },
    /// The operating system refused: memory or descriptors have run out.
    #[error("cannot make a channel ({0}): free descriptors or memory, or raise RLIMIT_NOFILE")]
    Os(#[source] io::Error),
}

/// Why a segment that came from somewhere else was refused.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// It is not a memfd that is sealed against shrinking and growing.
    #[error(
        "not a sealed memfd: only descriptors that a zeroport channel gave out can be attached"
    )]
    NotSealed,
    /// It is sealed memory, but does not begin like a segment.
    #[error("not a zeroport segment: it does not begin with the magic bytes")]
    NotASegment,
    /// What came with it is not what comes with a port: its line is none, or it stands where no port
    /// can stand.
    #[error("not a port: what describes it, or its line, is not what a zeroport program sends")]
    NotAPort,
    /// It is of another version of the shared format.
    #[error(
        "the segment has format version {theirs}, this build reads version {ours}: \
         bring both programs to one version of zeroport"
    )]
    Version {
        /// The version that this build reads.
        ours: u32,
        /// The version that the segment says.
        theirs: u32,
    },
    /// It uses features that this build does not have, or rkyv with another archive format.
    #[error(
        "the segment has features {theirs:#x}, this build has {ours:#x}: \
         build both programs with the same features of zeroport and rkyv"
    )]
    Features {
        /// The features of this build.
        ours: u64,
        /// The features that the segment says.
        theirs: u64,
    },
    /// Its ring capacities are not legal.
    #[error(
        "the segment says capacities of {} and {} bytes, not powers of two from {MIN_CAPACITY} to \
         {MAX_CAPACITY}: whoever made it is no zeroport program",
        found[0], found[1]
    )]
    Capacity {
        /// Bytes of the two rings, as the segment says.
        found: [u64; 2],
    },
    /// A stranger has made it so that more bytes could wait in it, for this process or from it, than it accepts.
    #[error(
        "{found} bytes could wait on this port, and only {accepts} are accepted from strangers: raise the \
         limit of the port that it comes over"
    )]
    Limit {
        /// Bytes that could wait.
        found: u64,
        /// Bytes that are accepted.
        accepts: u64,
    },
    /// Its size is not the one that its capacities ask for.
    #[error(
        "the segment is {found} bytes long, not {}: whoever made it is no zeroport program",
        expected.map_or("one header and two rings".into(), |bytes| bytes.to_string())
    )]
    Size {
        /// Bytes of the file.
        found: u64,
        /// Bytes that its header asks for, if it got so far.
        expected: Option<u64>,
    },
    /// Somebody else holds this end already, or it was closed: an end can be adopted once.
    #[error("this end was adopted or closed before: ask for a new port")]
    Detached,
    /// The operating system refused.
    #[error("cannot attach the segment: {0}")]
    Os(#[source] io::Error),
}

impl AttachError {
    pub(crate) fn os(error: impl Into<io::Error>) -> Self {
        Self::Os(error.into())
    }
}

/// Why nothing was posted. Whatever was to be posted was borrowed and is still the caller's.
///
/// ```
/// use zeroport::{ChannelOptions, MessageChannel, PostError};
///
/// let MessageChannel { port1, port2 } = ChannelOptions::new().limit(1 << 20).open()?;
/// let half = vec![0; port1.max_in_ring()];
/// while port1.try_post_bytes(&half).is_ok() {}
/// assert!(matches!(port1.try_post_bytes(&half), Err(PostError::Full { .. })));
/// port2.drain().for_each(drop); // makes room
/// port1.try_post_bytes(&half)?;
///
/// let too_large = port1.reserve(port1.max_payload() + 1);
/// assert!(matches!(too_large, Err(PostError::TooLarge { max: 0x1_0000_0000, .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    /// There is no room, and the call does not wait (any longer): as many bytes wait as the limit allows, or
    /// too many messages with ports were not received yet.
    #[error(
        "no room now for a message of {len} bytes: wait with `post`, or let the other side receive"
    )]
    Full {
        /// Bytes of the payload.
        len: u64,
    },
    /// The payload is longer than a message can ever be.
    #[error("a payload of {len} bytes is too large, at most {max} go here: post it in parts")]
    TooLarge {
        /// Bytes of the payload.
        len: u64,
        /// The most that this port can post, in bytes.
        max: u64,
    },
    /// The name of a [named message](crate::NamedMessage) is too long.
    #[error(
        "a name of {len} bytes is too long: name it with at most {max}, and put the rest in the value"
    )]
    NameTooLong {
        /// Bytes of the name.
        len: usize,
        /// The most that a name may have.
        max: usize,
    },
    /// The channel is at its end; nobody would read the message.
    #[error("cannot post: {0}")]
    Closed(CloseReason),
    /// Room is reserved already: publish or drop the loan (or finish the batch) first.
    #[error("room is reserved on this port already: publish or drop it first")]
    Busy,
    /// This handle is a copy in a forked process; the port belongs to the parent.
    #[error("this port belongs to the process that this one was forked from")]
    Detached,
    /// The value could not be serialised.
    #[error("cannot serialise the value: {0}")]
    Encode(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// One of the ports cannot be given away on this port.
    #[error("port {index} of the list cannot be transferred: {reason}")]
    Untransferable {
        /// Its place in the list, from 0.
        index: usize,
        /// Why not.
        reason: Untransferable,
    },
    /// The list is too long for one message.
    #[error("a list of {count} ports is too long: send at most {max} with one message")]
    TooManyPorts {
        /// Ports in the list.
        count: usize,
        /// The most that one message carries.
        max: usize,
    },
    /// The operating system refused memory or descriptors: for a larger ring, for a large payload, or for
    /// what is given away. This process has too many descriptors, or this user has too many on their way
    /// (`ETOOMANYREFS`), or memory has run out.
    #[error(
        "cannot make or send what the message needs ({0}): free descriptors or memory, let earlier \
         messages be received, or raise RLIMIT_NOFILE"
    )]
    Os(#[source] io::Error),
}

/// Why a port cannot be given away.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Untransferable {
    /// It is the port on which the message is posted.
    #[error("it is the port that should carry it")]
    Carrier,
    /// It is the other end of the port on which the message is posted: nobody could receive it.
    #[error("it is the other end of the port that should carry it, so nobody could receive it")]
    OtherEnd,
    /// It was closed, or has reported the end of its channel.
    #[error("it is at its end: {0}")]
    Closed(CloseReason),
    /// It is not this process's: a copy in a forked process, or somebody else has adopted it.
    #[error("it belongs to somebody else")]
    Detached,
    /// It is of a trusted channel, and the carrier leads to somebody who is not trusted. That it is
    /// untrusted at this end does not help: its other end may trust it.
    #[error("its channel is trusted and the carrier is not: make the channel untrusted")]
    Trusted,
}

/// A batch that ended early: the first `posted` messages were posted, the next one was refused.
///
/// ```
/// use zeroport::{BatchError, MessageChannel, PostError};
///
/// let MessageChannel { port1, port2 } = MessageChannel::new()?;
/// let end_after_two = (0..).map(|n: u32| {
///     if n == 2 {
///         port2.closer().close();
///     }
///     n.to_le_bytes()
/// });
/// let BatchError { posted, source, .. } = port1.post_all_bytes(end_after_two).unwrap_err();
/// assert_eq!(posted, 2);
/// assert!(matches!(source, PostError::Closed(_)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
#[error("{posted} messages of the batch were posted, then: {source}")]
pub struct BatchError {
    /// Messages that were certainly posted; 0 if this end was closed before that could be told.
    pub posted: usize,
    /// Why the next one was not.
    pub source: PostError,
}

/// Why the ports of a message cannot be taken. They are all still there, but the one that
/// [`Attach`](Self::Attach) names.
///
/// ```
/// use zeroport::{MessageChannel, TakeError, transfer};
///
/// let MessageChannel { port1, port2 } = MessageChannel::new()?;
/// let MessageChannel { port1: port3, port2: port4 } = MessageChannel::new()?;
/// port1.post_bytes_with(b"two", transfer![port3, port4])?;
/// let message = port2.recv()?;
/// let refused = message.take_ports::<1>();
/// assert!(matches!(refused, Err(TakeError::Count { expected: 1, found: 2, .. })));
/// let [_port3, _port4] = message.take_ports()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// The message holds another number of ports, or buffers; they are still there.
    #[error("the message holds {found} of them, not {expected}")]
    Count {
        /// How many were asked for.
        expected: usize,
        /// How many were not taken yet.
        found: usize,
    },
    /// The operating system refused descriptors or memory. The ports and buffers are still there: close
    /// some descriptors, or raise `RLIMIT_NOFILE`, and ask again.
    #[error(
        "cannot take what came with the message ({0}): close descriptors, or raise RLIMIT_NOFILE, and \
         try again"
    )]
    Os(#[source] io::Error),
    /// This port is none, or not ours to take; it is gone. Those after it can be taken.
    #[error("port {index} of the message cannot be taken: {source}")]
    Attach {
        /// Its place in the message, from 0.
        index: usize,
        /// What is wrong with it.
        source: AttachError,
    },
    /// The other side has not sent what it has announced. The channel was closed.
    #[error("the other side has not sent what it has announced, and the channel was closed")]
    Violated,
    /// This handle is a copy in a forked process; the message belongs to the parent.
    #[error("this message belongs to the process that this one was forked from")]
    Detached,
}

/// Why there is no message.
///
/// ```
/// use std::time::Duration;
/// use zeroport::{CloseReason, MessageChannel, RecvError};
///
/// let MessageChannel { port1, port2 } = MessageChannel::new()?;
/// assert_eq!(port2.try_recv().unwrap_err(), RecvError::Empty);
/// assert_eq!(port2.recv_timeout(Duration::from_millis(1)).unwrap_err(), RecvError::Empty);
/// drop(port1);
/// assert_eq!(port2.recv().unwrap_err(), RecvError::Closed(CloseReason::Closed));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecvError {
    /// There is none now, and the call does not wait (any longer).
    #[error("no message yet")]
    Empty,
    /// All messages were received, and there will never be another.
    #[error("no more messages: {0}")]
    Closed(CloseReason),
    /// This handle is a copy in a forked process; the port belongs to the parent.
    #[error("this port belongs to the process that this one was forked from")]
    Detached,
    /// The operating system refused a descriptor or memory for the next message, which is large or lies in
    /// a ring that the queue has grown by. It was not lost: free some, and call again.
    #[error(
        "no descriptor or memory for the next message ({}): free some, or raise RLIMIT_NOFILE, and try \
         again", io::Error::from_raw_os_error(*errno)
    )]
    Os {
        /// The number of the error, as `errno(3)` has it.
        errno: i32,
    },
}

/// Why a message cannot be read as the type that was asked for. It costs that message only.
///
/// ```
/// use zeroport::{DecodeError, MessageChannel};
///
/// let MessageChannel { port1, port2 } = MessageChannel::new()?;
/// port1.post_pod(&1_u32)?;
/// let message = port2.recv()?;
/// assert!(matches!(message.pod::<f32>(), Err(DecodeError::WrongType { .. })));
/// assert_eq!(message.pod::<u32>()?, &1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The message carries another type, or none.
    #[error("the message is tagged {found:#010x}, not {expected:#010x}: it holds another type")]
    WrongType {
        /// The tag of the type that was asked for.
        expected: u32,
        /// The tag of the message; 0 is "untagged".
        found: u32,
    },
    /// The payload has a length that the type cannot have.
    #[error(
        "the payload has {len} bytes and a value {unit}: `pod` reads exactly one, `pod_slice` a whole \
         number of them"
    )]
    Length {
        /// Bytes of the payload.
        len: usize,
        /// Bytes of one value.
        unit: usize,
    },
    /// The bytes are not a valid value of the type.
    #[error("the payload is not a valid value: {0}")]
    Invalid(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Why a child process could not be started with a port.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The channel could not be made.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The program could not be started.
    #[error("cannot start {program}: {source}")]
    Start {
        /// The program, as the command named it.
        program: String,
        /// What the operating system said.
        source: io::Error,
    },
}

/// The environment variable that names the child's end of the line: `spawn` sets it, `parent_port`
/// reads it.
pub(crate) const PARENT_VARIABLE: &str = "ZEROPORT_PARENT";

/// Why there is no port to the parent.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum ParentPortError {
    /// The process was not started by `zeroport::spawn`.
    #[error(
        "the parent process gave no port ({variable} is not set): start this program with \
         `zeroport::spawn`",
        variable = PARENT_VARIABLE
    )]
    NoParent,
    /// The variable is there, but what it names is no line with a port: it may be inherited from a
    /// process further up, or the port was taken before.
    #[error(
        "the port that {variable}={value} names is not there: it belongs to another process, or \
         `parent_port` was called before",
        variable = PARENT_VARIABLE
    )]
    Gone {
        /// The value of the variable.
        value: String,
    },
    /// The parent speaks another version of the protocol, or something else altogether.
    #[error("cannot take the port that the parent gave: {0}")]
    Attach(#[from] AttachError),
}
