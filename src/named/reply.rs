//! Replies: what the requester waits on, and what the receiver replies with.

use std::cell::Cell;
use std::time::Duration;

use crate::error::{CloseReason, PostError, RecvError};
use crate::port::{Heading, Message, MessagePort, Patience, TransferError, TransferList};

use super::FAILED;
use super::error::ReplyError;
use super::payload::Payload;

/// How much is read of what the other side says about a failure, in bytes.
const MAX_TEXT: usize = 4096;

/// What the replies to a [request](MessagePort::invoke) come on: one, or as many as the other side sends.
///
/// Dropping it tells whoever replies later that nobody waits for it.
///
/// ```
/// use std::time::Duration;
/// use zeroport::{MessageChannel, NamedMessage, RecvError, ReplyError, transfer};
///
/// let MessageChannel { port1, port2 } = MessageChannel::new()?;
/// let reply = port1.invoke("give-me-a-stream", [].as_slice(), transfer![])?;
/// assert_eq!(reply.recv_timeout(Duration::from_millis(1)).unwrap_err(), ReplyError::Empty);
///
/// let request = NamedMessage::open(port2.recv()?)?;
/// let stream = request.responder()?.expect("a request").into_port();
/// stream.post_all_bytes(["one", "two", "three"])?;
/// stream.close();
///
/// assert_eq!(reply.recv()?.bytes(), b"one");
/// let port = reply.into_port(); // for a set of ports, say
/// assert_eq!(port.drain().count(), 2);
/// assert!(matches!(port.recv(), Err(RecvError::Closed(_)))); // the end of the stream
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "a reply that is dropped is not waited for"]
pub struct Reply {
    port: MessagePort,
    /// Whether something has come.
    has_come: Cell<bool>,
}

impl Reply {
    pub(super) fn new(port: MessagePort) -> Self {
        Self { port, has_come: Cell::new(false) }
    }

    /// Waits for the next reply: for ever, if the other side keeps the request and says nothing.
    ///
    /// # Errors
    ///
    /// [`ReplyError::NeverSent`] if the other side has let go of the request, [`ReplyError::Failed`] if it has told of a
    /// failure, [`ReplyError::Closed`] after the last reply, or if the process that had the request died;
    /// [`ReplyError::Recv`].
    pub fn recv(&self) -> Result<Message<'_>, ReplyError> {
        self.read(self.port.recv())
    }

    /// As [`recv`](Self::recv), without waiting.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv), and [`ReplyError::Empty`].
    pub fn try_recv(&self) -> Result<Message<'_>, ReplyError> {
        self.read(self.port.try_recv())
    }

    /// As [`recv`](Self::recv), waiting at most so long.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv), and [`ReplyError::Empty`], not before the time is up.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Message<'_>, ReplyError> {
        self.read(self.port.recv_timeout(timeout))
    }

    /// The port that the replies come on. A failure comes on it as a message, see [`Message::failure`].
    pub fn into_port(self) -> MessagePort {
        self.port
    }

    fn read<'r>(
        &'r self,
        received: Result<Message<'r>, RecvError>,
    ) -> Result<Message<'r>, ReplyError> {
        match received {
            Ok(message) => {
                self.has_come.set(true);
                message.failure().map_or(Ok(message), |why| Err(ReplyError::Failed(why)))
            }
            Err(RecvError::Empty) => Err(ReplyError::Empty),
            Err(RecvError::Closed(CloseReason::Closed | CloseReason::Lost))
                if !self.has_come.get() =>
            {
                Err(ReplyError::NeverSent)
            }
            Err(RecvError::Closed(reason)) => Err(ReplyError::Closed(reason)),
            Err(error) => Err(ReplyError::Recv(error)),
        }
    }
}

impl Message<'_> {
    /// What went wrong, if this is the reply of somebody who could not do what was asked for
    /// ([`Responder::fail`]). Only the first 4096 bytes of what was said are read.
    pub fn failure(&self) -> Option<String> {
        let text = (self.tag() == FAILED).then(|| self.bytes())?;
        let text = text.get(..MAX_TEXT).unwrap_or(text);
        Some(String::from_utf8_lossy(text).into_owned())
    }
}

/// What a request is replied with. Dropping it unused tells the requester that there will be no reply
/// ([`ReplyError::NeverSent`]). It can be kept, and used later or by another thread.
///
/// A reply does not wait: a fresh channel has room for it. A channel that has none is one on which the requester has
/// played tricks ([`PostError::Full`]).
///
/// ```
/// use zeroport::{Handlers, MessageChannel, transfer};
///
/// let MessageChannel { port1, port2 } = MessageChannel::new()?;
/// let mut waiting = Vec::new();
/// let mut handlers = Handlers::new();
/// handlers.on("wait", |event| waiting.extend(event.responder().ok().flatten()));
///
/// let reply = port1.invoke("wait", [].as_slice(), transfer![])?;
/// handlers.dispatch(port2.sender(), &(), &port2.recv()?);
/// drop(handlers);
/// for responder in waiting {
///     responder.reply(b"now".as_slice())?;
/// }
/// assert_eq!(reply.recv()?.bytes(), b"now");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "a responder that is dropped tells the requester that there will be no reply"]
pub struct Responder {
    port: MessagePort,
}

impl Responder {
    pub(super) fn new(port: MessagePort) -> Self {
        Self { port }
    }

    /// Replies, as the only reply. What cannot be posted is told to the requester as a
    /// [failure](ReplyError::Failed), if it can be reached.
    ///
    /// # Errors
    ///
    /// [`PostError::Closed`] if nobody waits any more; as `post`, and [`PostError::Full`].
    pub fn reply<P: Payload + ?Sized>(self, payload: &P) -> Result<(), PostError> {
        self.reply_with(payload, TransferList::new()).map_err(|refused| refused.source)
    }

    /// As [`reply`](Self::reply), and gives ports and buffers away with the reply.
    ///
    /// # Errors
    ///
    /// [`TransferError`] with the list, and as its source what [`reply`](Self::reply) says, or
    /// [`PostError::Untransferable`], [`PostError::TooManyPorts`].
    pub fn reply_with<P: Payload + ?Sized>(
        self,
        payload: &P,
        list: impl Into<TransferList>,
    ) -> Result<(), TransferError> {
        let heading = Heading::none(payload.tag());
        let posted = payload.post(self.port.sender(), heading, Patience::None, list.into());
        posted.inspect_err(|refused| {
            // Who has gone needs not be told.
            let _ = self.tell(&refused.source.to_string());
        })
    }

    /// Tells the requester that it could not be done, and why.
    ///
    /// # Errors
    ///
    /// As [`reply`](Self::reply).
    pub fn fail(self, why: &str) -> Result<(), PostError> {
        self.tell(why)
    }

    fn tell(&self, why: &str) -> Result<(), PostError> {
        let (heading, list) = (Heading::none(FAILED), TransferList::new());
        let text = why.as_bytes();
        let posted = self.port.sender().post_headed(heading, text, Patience::None, list);
        posted.map_err(|refused| refused.source)
    }

    /// The port to the requester, for a stream of replies. Closing it ends the stream. As on every port, a post waits when
    /// more waits there than the limit allows; for a requester that may not read, use `try_post` and its like.
    pub fn into_port(self) -> MessagePort {
        self.port
    }
}
