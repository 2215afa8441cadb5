//! The verbs that post under a name.

use std::iter::once;
use std::time::Duration;

use crate::error::PostError;
use crate::port::{
    Heading, MessageChannel, MessagePort, Patience, Sender, TransferError, TransferList,
    Transferable,
};

use super::NAMED;
use super::envelope::{Kind, Room};
use super::payload::Payload;
use super::reply::Reply;

/// Posts under a name, and requests. See [`MessagePort::post_message`].
impl Sender {
    /// Posts a message with a name. See [`MessagePort::post_message`].
    pub fn post_message<P: Payload + ?Sized>(
        &self,
        name: &str,
        payload: &P,
        list: impl Into<TransferList>,
    ) -> Result<(), TransferError> {
        self.post_named((Kind::Message, name), payload, Patience::FOR_EVER, list.into())
    }

    /// As [`post_message`](Self::post_message), without waiting.
    pub fn try_post_message<P: Payload + ?Sized>(
        &self,
        name: &str,
        payload: &P,
        list: impl Into<TransferList>,
    ) -> Result<(), TransferError> {
        self.post_named((Kind::Message, name), payload, Patience::None, list.into())
    }

    /// As [`post_message`](Self::post_message), waiting at most so long.
    pub fn post_message_timeout<P: Payload + ?Sized>(
        &self,
        name: &str,
        payload: &P,
        list: impl Into<TransferList>,
        timeout: Duration,
    ) -> Result<(), TransferError> {
        let patience = Patience::at_most(timeout);
        self.post_named((Kind::Message, name), payload, patience, list.into())
    }

    /// Posts a request. See [`MessagePort::invoke`].
    pub fn invoke<P: Payload + ?Sized>(
        &self,
        name: &str,
        payload: &P,
        list: impl Into<TransferList>,
    ) -> Result<Reply, TransferError> {
        self.request(name, payload, Patience::FOR_EVER, list.into())
    }

    /// As [`invoke`](Self::invoke), without waiting for room.
    pub fn try_invoke<P: Payload + ?Sized>(
        &self,
        name: &str,
        payload: &P,
        list: impl Into<TransferList>,
    ) -> Result<Reply, TransferError> {
        self.request(name, payload, Patience::None, list.into())
    }

    /// As [`invoke`](Self::invoke), waiting for room at most so long.
    pub fn invoke_timeout<P: Payload + ?Sized>(
        &self,
        name: &str,
        payload: &P,
        list: impl Into<TransferList>,
        timeout: Duration,
    ) -> Result<Reply, TransferError> {
        self.request(name, payload, Patience::at_most(timeout), list.into())
    }

    pub(super) fn post_named<P: Payload + ?Sized>(
        &self,
        (kind, name): (Kind, &str),
        payload: &P,
        patience: Patience,
        list: TransferList,
    ) -> Result<(), TransferError> {
        match Room::new().write(kind, name, payload.tag()) {
            Ok(head) => payload.post(self, Heading { head, tag: NAMED }, patience, list),
            Err(source) => Err(TransferError::new(list, source)),
        }
    }

    pub(super) fn request<P: Payload + ?Sized>(
        &self,
        name: &str,
        payload: &P,
        patience: Patience,
        list: TransferList,
    ) -> Result<Reply, TransferError> {
        let MessageChannel { port1: replies, port2 } = match self.reply_channel() {
            Ok(channel) => channel,
            Err(source) => return Err(TransferError::new(list, source)),
        };
        let list = once(Transferable::from(port2)).chain(list).collect();
        match self.post_named((Kind::Request, name), payload, patience, list) {
            Ok(()) => Ok(Reply::new(replies)),
            Err(refused) => Err(without_reply_port(refused)),
        }
    }
}

/// The list as it was handed in, and the error in its terms.
fn without_reply_port(refused: TransferError) -> TransferError {
    let TransferError { list, source } = refused;
    let source = match source {
        PostError::Untransferable { index, reason } => {
            PostError::Untransferable { index: index.saturating_sub(1), reason }
        }
        PostError::TooManyPorts { count, max } => {
            PostError::TooManyPorts { count: count.saturating_sub(1), max: max.saturating_sub(1) }
        }
        other => other,
    };
    TransferError::new(list.into_iter().skip(1).collect(), source)
}

/// Messages with names, and requests with their replies.
///
/// What `ipcRenderer.postMessage` and `webContents.postMessage` are to Electron. Each message has a name of up to 255
/// bytes, a [payload](Payload), and the ports and buffers of a list. Whoever receives it [opens](crate::NamedMessage)
/// it, or has [`Handlers`](crate::Handlers) called for it. Named messages and others are of one order.
impl MessagePort {
    /// Posts a message with a name, and gives ports and buffers away with it. Without any, the list is
    /// `transfer![]`.
    ///
    /// ```
    /// use zeroport::{MessageChannel, NamedMessage, transfer};
    ///
    /// let MessageChannel { port1, port2 } = MessageChannel::new()?;
    /// let MessageChannel { port1: ours, port2: theirs } = MessageChannel::new()?;
    /// port1.post_message("new-client", b"from here".as_slice(), transfer![theirs])?;
    ///
    /// let message = NamedMessage::open(port2.recv()?)?;
    /// assert_eq!((message.name(), message.bytes()), ("new-client", b"from here".as_slice()));
    /// let [theirs] = message.take_ports()?;
    /// theirs.post_bytes(b"welcome")?;
    /// assert_eq!(ours.recv()?.bytes(), b"welcome");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`TransferError`] with the list and a [`PostError`]: [`NameTooLong`](PostError::NameTooLong), and those of
    /// [`post_bytes_with`](Self::post_bytes_with) and, for a value, `post`. Nothing was posted then.
    pub fn post_message<P: Payload + ?Sized>(
        &self,
        name: &str,
        payload: &P,
        list: impl Into<TransferList>,
    ) -> Result<(), TransferError> {
        self.sender().post_message(name, payload, list)
    }

    /// As [`post_message`](Self::post_message), without waiting: for who serves many, of whom one may not read.
    ///
    /// # Errors
    ///
    /// As [`post_message`](Self::post_message), and [`Full`](PostError::Full).
    pub fn try_post_message<P: Payload + ?Sized>(
        &self,
        name: &str,
        payload: &P,
        list: impl Into<TransferList>,
    ) -> Result<(), TransferError> {
        self.sender().try_post_message(name, payload, list)
    }

    /// As [`post_message`](Self::post_message), waiting for room at most so long.
    ///
    /// # Errors
    ///
    /// As [`post_message`](Self::post_message), and [`Full`](PostError::Full), not before the time is up.
    pub fn post_message_timeout<P: Payload + ?Sized>(
        &self,
        name: &str,
        payload: &P,
        list: impl Into<TransferList>,
        timeout: Duration,
    ) -> Result<(), TransferError> {
        self.sender().post_message_timeout(name, payload, list, timeout)
    }

    /// Posts a request, and gives what its replies come on. It does not wait for them; only for room, as every post.
    ///
    /// A fresh channel is made for each request, with the trust, and at most the limits and capacities, of this port's
    /// own. One end of it goes ahead of the list, and
    /// [`responder`](crate::NamedMessage::responder) is what the receiver has of it.
    ///
    /// ```
    /// use zeroport::{AsPod, MessageChannel, NamedMessage, transfer};
    ///
    /// let MessageChannel { port1, port2 } = MessageChannel::new()?;
    /// let reply = port1.invoke("double", &AsPod(21u32), transfer![])?;
    ///
    /// let request = NamedMessage::open(port2.recv()?)?;
    /// let responder = request.responder()?.expect("a request");
    /// responder.reply(&AsPod(2 * request.pod::<u32>()?))?;
    ///
    /// assert_eq!(reply.recv()?.pod::<u32>()?, &42);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`post_message`](Self::post_message), and [`Os`](PostError::Os) if the channel cannot be made. The list holds
    /// at most 1023 here.
    pub fn invoke<P: Payload + ?Sized>(
        &self,
        name: &str,
        payload: &P,
        list: impl Into<TransferList>,
    ) -> Result<Reply, TransferError> {
        self.sender().invoke(name, payload, list)
    }

    /// As [`invoke`](Self::invoke), without waiting for room.
    ///
    /// # Errors
    ///
    /// As [`invoke`](Self::invoke), and [`Full`](PostError::Full).
    pub fn try_invoke<P: Payload + ?Sized>(
        &self,
        name: &str,
        payload: &P,
        list: impl Into<TransferList>,
    ) -> Result<Reply, TransferError> {
        self.sender().try_invoke(name, payload, list)
    }

    /// As [`invoke`](Self::invoke), waiting for room at most so long. (For a reply, wait with
    /// [`Reply::recv_timeout`].)
    ///
    /// # Errors
    ///
    /// As [`invoke`](Self::invoke), and [`Full`](PostError::Full), not before the time is up.
    pub fn invoke_timeout<P: Payload + ?Sized>(
        &self,
        name: &str,
        payload: &P,
        list: impl Into<TransferList>,
        timeout: Duration,
    ) -> Result<Reply, TransferError> {
        self.sender().invoke_timeout(name, payload, list, timeout)
    }
}
