//! What can be wrong with a named message, and why there is no reply.

use std::str::Utf8Error;

use crate::error::{CloseReason, RecvError, TakeError};

/// Why a message is not taken for a named one. It costs that message only; ports that came with it are closed.
///
/// ```
/// use zeroport::{MessageChannel, NamedError, NamedMessage, tag_of_name};
///
/// let MessageChannel { port1, port2 } = MessageChannel::new()?;
/// port1.post_bytes(b"without a name")?;
/// let refused = NamedMessage::open(port2.recv()?);
/// assert!(matches!(refused, Err(NamedError::NotNamed { tag: 0 })));
///
/// let loan = port1.reserve(3)?;
/// loan.publish_tagged(3, tag_of_name("zeroport.named"))?;
/// let refused = NamedMessage::open(port2.recv()?);
/// assert!(matches!(refused, Err(NamedError::TooShort { len: 3, needed: 16 })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum NamedError {
    /// It is an ordinary message.
    #[error(
        "the message is tagged {tag:#010x}: it has no name, and was not posted by `post_message`"
    )]
    NotNamed {
        /// Its tag; 0 is "untagged".
        tag: u32,
    },
    /// It ends before its value begins.
    #[error("the message has {len} bytes, and its envelope would need {needed}")]
    TooShort {
        /// Bytes of the payload.
        len: usize,
        /// Bytes that header and name would need.
        needed: usize,
    },
    /// It is neither a message nor a request.
    #[error(
        "the message is of kind {kind}, which this version does not know: bring both programs to one version"
    )]
    UnknownKind {
        /// The kind that it says.
        kind: u8,
    },
    /// What is kept for later versions is in use.
    #[error(
        "the envelope uses what this version does not know: bring both programs to one version"
    )]
    NotZero,
    /// The name is too long.
    #[error("the message has a name of {len} bytes, and at most {max} are legal")]
    NameTooLong {
        /// Bytes of the name, as the envelope says.
        len: usize,
        /// The most that a name may have.
        max: usize,
    },
    /// The name is not text.
    #[error("the name of the message is not UTF-8: {0}")]
    NameNotUtf8(#[source] Utf8Error),
    /// A request without a port for the reply.
    #[error("the request brings no port for its reply")]
    NoReplyPort,
    /// The port for the reply cannot be taken, so the request was not passed to who replies to it.
    #[error("the port for the reply cannot be taken: {0}")]
    ReplyPort(#[source] TakeError),
}

/// Why there is no reply.
///
/// ```
/// use zeroport::{MessageChannel, NamedMessage, ReplyError, transfer};
///
/// let MessageChannel { port1, port2 } = MessageChannel::new()?;
/// let replies = [(); 3].map(|()| port1.invoke("divide", &[1u8, 0][..], transfer![]));
/// let [not_yet, never, failed] = replies;
/// assert!(matches!(not_yet?.try_recv(), Err(ReplyError::Empty)));
///
/// drop(port2.recv()?);
/// drop(NamedMessage::open(port2.recv()?)?.responder()?); // taken, and let go
/// assert!(matches!(never?.recv(), Err(ReplyError::NeverSent)));
///
/// let request = NamedMessage::open(port2.recv()?)?;
/// request.responder()?.expect("a request").fail("nobody divides by 0")?;
/// assert!(matches!(failed?.recv(), Err(ReplyError::Failed(why)) if why == "nobody divides by 0"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// There is none now, and the call does not wait (any longer).
    #[error("no reply yet")]
    Empty,
    /// There never will be: the other side has let go of the request.
    #[error("the reply was never sent: the other side has let go of the request")]
    NeverSent,
    /// The other side could not do what was asked for, and says why.
    #[error("the other side says: {0}")]
    Failed(String),
    /// There will be no other reply, or none at all: the channel of the replies has ended otherwise, as when the
    /// process that had the request died.
    #[error("no more replies: {0}")]
    Closed(CloseReason),
    /// A reply cannot be received now.
    #[error("cannot receive a reply: {0}")]
    Recv(#[source] RecvError),
}
