//! A received message whose envelope was found good.

use std::cell::Cell;
use std::fmt;
use std::ops::Deref;

use bytemuck::AnyBitPattern;

use crate::SealedBuffer;
use crate::error::{DecodeError, TakeError};
use crate::port::{Message, MessagePort};
use crate::tag::{Tagged, plain_data_tag};

use super::NAMED;
use super::envelope::{Envelope, Kind};
use super::error::NamedError;
use super::reply::Responder;

/// A received message with a name: what [`post_message`](MessagePort::post_message) and
/// [`invoke`](MessagePort::invoke) have posted.
///
/// It is read where the [`Message`] is, which is kept until this is dropped, or [lent](Self::of).
///
/// ```
/// use zeroport::{MessageChannel, NamedMessage, transfer};
///
/// let MessageChannel { port1, port2 } = MessageChannel::new()?;
/// port1.post_message("greet", b"world".as_slice(), transfer![])?;
/// port1.post_bytes(b"something else")?;
///
/// let message = port2.recv()?;
/// assert!(message.is_named());
/// let message = NamedMessage::open(message)?;
/// assert_eq!((message.name(), message.bytes()), ("greet", b"world".as_slice()));
/// assert!(message.responder()?.is_none(), "it is no request");
/// assert!(!port2.recv()?.is_named());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct NamedMessage<'p> {
    message: Held<'p>,
    envelope: Envelope,
    reply_port: Cell<ReplyPort>,
}

enum Held<'p> {
    Own(Message<'p>),
    Lent(&'p Message<'p>),
}

impl<'p> Deref for Held<'p> {
    type Target = Message<'p>;

    fn deref(&self) -> &Message<'p> {
        match self {
            Self::Own(message) => message,
            Self::Lent(message) => message,
        }
    }
}

/// The first port of a request.
#[derive(Default)]
enum ReplyPort {
    /// There is none, or it has gone.
    #[default]
    None,
    /// In the message still.
    Inside,
    /// Taken, for the sake of those behind it.
    Taken(Box<Responder>),
}

impl Message<'_> {
    /// Whether the message is tagged as one with a name: for programs that receive others, too, on one port.
    pub fn is_named(&self) -> bool {
        self.tag() == NAMED
    }
}

impl<'p> NamedMessage<'p> {
    /// Looks at the envelope of a message.
    ///
    /// # Errors
    ///
    /// [`NamedError`] if the message is none with a name (see [`Message::is_named`]), or its envelope is broken. Then the
    /// message is dropped.
    pub fn open(message: Message<'p>) -> Result<Self, NamedError> {
        Self::read(Held::Own(message))
    }

    /// As [`open`](Self::open), for a message that is lent, and stays what it was.
    ///
    /// Where one is looked at several times, only the first who asks has the [`responder`](Self::responder); and whoever
    /// takes ports has asked.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn of(message: &'p Message<'p>) -> Result<Self, NamedError> {
        Self::read(Held::Lent(message))
    }

    fn read(message: Held<'p>) -> Result<Self, NamedError> {
        if !message.is_named() {
            return Err(NamedError::NotNamed { tag: message.tag() });
        }
        let envelope = Envelope::parse(message.bytes())?;
        let reply_port = match (envelope.kind, message.ports_taken(), message.port_count()) {
            (Kind::Request, 0, 0) => return Err(NamedError::NoReplyPort),
            (Kind::Request, 0, _) => ReplyPort::Inside,
            (Kind::Request | Kind::Message, ..) => ReplyPort::None,
        };
        Ok(Self { message, envelope, reply_port: Cell::new(reply_port) })
    }

    /// The name.
    pub fn name(&self) -> &str {
        self.envelope.name(self.message.bytes())
    }

    pub(super) fn name_bytes(&self) -> &[u8] {
        self.envelope.name_bytes(self.message.bytes())
    }

    /// Whether a reply is waited for.
    pub fn is_request(&self) -> bool {
        self.envelope.kind == Kind::Request
    }

    /// The tag of the payload; see [`Message::tag`].
    pub fn tag(&self) -> u32 {
        self.envelope.tag
    }

    /// The payload, whatever its type. It starts at a multiple of 16 bytes.
    pub fn bytes(&self) -> &[u8] {
        self.envelope.value(self.message.bytes())
    }

    /// Whether the payload is tagged as plain data of this type.
    pub fn is_pod<T: Tagged>(&self) -> bool {
        self.tag() == plain_data_tag::<T>()
    }

    /// The payload as one value of plain data, in place. See [`Message::pod`].
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if it is of another type or not exactly one value.
    pub fn pod<T: Tagged + AnyBitPattern>(&self) -> Result<&T, DecodeError> {
        const { crate::port::assert_countable::<T>() };
        self.expect_tag(plain_data_tag::<T>())?;
        bytemuck::try_from_bytes(self.bytes()).map_err(|_| self.wrong_length::<T>())
    }

    /// The payload as a slice of plain data, in place. See [`Message::pod_slice`].
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if it is of another type or not a whole number of values.
    pub fn pod_slice<T: Tagged + AnyBitPattern>(&self) -> Result<&[T], DecodeError> {
        const { crate::port::assert_countable::<T>() };
        self.expect_tag(plain_data_tag::<T>())?;
        bytemuck::try_cast_slice(self.bytes()).map_err(|_| self.wrong_length::<T>())
    }

    /// Whether the payload is tagged as a value of this type.
    #[cfg(feature = "rkyv")]
    pub fn is<T: Tagged>(&self) -> bool {
        self.tag() == crate::tag::value_tag::<T>()
    }

    /// The payload as an archived value, validated and read in place. See [`Message::get`].
    ///
    /// ```
    /// use zeroport::{MessageChannel, NamedMessage, transfer};
    ///
    /// let MessageChannel { port1, port2 } = MessageChannel::new()?;
    /// port1.post_message("greet", &"world".to_string(), transfer![])?;
    /// assert_eq!(NamedMessage::open(port2.recv()?)?.get::<String>()?, "world");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if it is of another type, or not a valid value.
    #[cfg(feature = "rkyv")]
    pub fn get<T: crate::Readable>(&self) -> Result<&T::Archived, DecodeError> {
        self.expect_tag(crate::tag::value_tag::<T>())?;
        crate::payload::access::<T>(self.bytes())
    }

    /// What a request is replied with: once, and `None` ever after, and for a message that is no request.
    ///
    /// Whoever does not take it has not replied: the requester is told so
    /// ([`ReplyError::NeverSent`](crate::ReplyError::NeverSent)) when this message is dropped.
    ///
    /// # Errors
    ///
    /// As [`Message::take_port`].
    pub fn responder(&self) -> Result<Option<Responder>, TakeError> {
        self.settle()?;
        match self.reply_port.take() {
            ReplyPort::Taken(responder) => Ok(Some(*responder)),
            ReplyPort::Inside | ReplyPort::None => Ok(None),
        }
    }

    /// Takes the port for the reply out of the way of the others.
    fn settle(&self) -> Result<(), TakeError> {
        let settled = match self.reply_port.take() {
            ReplyPort::Inside => match self.message.take_port() {
                Ok(Some(port)) => ReplyPort::Taken(Box::new(Responder::new(port))),
                Ok(None) => ReplyPort::None,
                // It is none, and has gone.
                Err(error @ TakeError::Attach { .. }) => return Err(error),
                Err(error) => {
                    self.reply_port.set(ReplyPort::Inside);
                    return Err(error);
                }
            },
            settled => settled,
        };
        self.reply_port.set(settled);
        Ok(())
    }

    /// As [`settle`](Self::settle), for who asks for the others: they are good, also if that one is not.
    fn pass_reply_port(&self) -> Result<(), TakeError> {
        match self.settle() {
            Err(TakeError::Attach { .. }) => Ok(()),
            settled => settled,
        }
    }

    /// How many ports of the list were not taken yet. That for the reply is not among them.
    pub fn port_count(&self) -> usize {
        let reply_port = self.reply_port.take();
        let before = usize::from(matches!(reply_port, ReplyPort::Inside));
        self.reply_port.set(reply_port);
        self.message.port_count().saturating_sub(before)
    }

    /// Takes the next port of the list; `None` after the last. See [`Message::take_port`].
    ///
    /// # Errors
    ///
    /// As [`Message::take_port`].
    pub fn take_port(&self) -> Result<Option<MessagePort>, TakeError> {
        self.pass_reply_port()?;
        self.message.take_port().map_err(|error| self.of_list(error))
    }

    /// Takes the ports of the list, exactly so many. See [`Message::take_ports`].
    ///
    /// # Errors
    ///
    /// As [`Message::take_ports`].
    pub fn take_ports<const N: usize>(&self) -> Result<[MessagePort; N], TakeError> {
        self.pass_reply_port()?;
        self.message.take_ports().map_err(|error| self.of_list(error))
    }

    /// Takes all ports that are left of the list. See [`Message::take_all_ports`].
    ///
    /// # Errors
    ///
    /// As [`Message::take_all_ports`].
    pub fn take_all_ports(&self) -> Result<Vec<MessagePort>, TakeError> {
        self.pass_reply_port()?;
        self.message.take_all_ports().map_err(|error| self.of_list(error))
    }

    /// How many buffers of the list were not taken yet.
    pub fn buffer_count(&self) -> usize {
        self.message.buffer_count()
    }

    /// Takes the next buffer of the list; `None` after the last. See [`Message::take_buffer`].
    ///
    /// # Errors
    ///
    /// As [`Message::take_buffer`].
    pub fn take_buffer(&self) -> Result<Option<SealedBuffer>, TakeError> {
        self.message.take_buffer()
    }

    /// Takes the buffers of the list, exactly so many. See [`Message::take_buffers`].
    ///
    /// # Errors
    ///
    /// As [`Message::take_buffers`].
    pub fn take_buffers<const N: usize>(&self) -> Result<[SealedBuffer; N], TakeError> {
        self.message.take_buffers()
    }

    /// In terms of the list that the poster gave.
    fn of_list(&self, error: TakeError) -> TakeError {
        match error {
            TakeError::Attach { index, source } if self.is_request() => {
                TakeError::Attach { index: index.saturating_sub(1), source }
            }
            other => other,
        }
    }

    fn expect_tag(&self, expected: u32) -> Result<(), DecodeError> {
        match self.tag() {
            found if found == expected => Ok(()),
            found => Err(DecodeError::WrongType { expected, found }),
        }
    }

    fn wrong_length<T>(&self) -> DecodeError {
        DecodeError::Length { len: self.bytes().len(), unit: size_of::<T>() }
    }
}

impl fmt::Debug for NamedMessage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NamedMessage")
            .field("name", &self.name())
            .field("is_request", &self.is_request())
            .field("tag", &self.tag())
            .field("len", &self.bytes().len())
            .finish_non_exhaustive()
    }
}
