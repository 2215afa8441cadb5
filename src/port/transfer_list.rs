//! What is given away with a message, and comes back if the post is refused.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use super::MessagePort;
use crate::Buffer;
use crate::BufferError;
use crate::SealedBuffer;
use crate::block::file_len;
use crate::error::PostError;

/// Something that a message can carry to whoever receives it.
#[non_exhaustive]
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // ports are what is carried most
pub enum Transferable {
    /// A port, with all that waits in it.
    Port(MessagePort),
    /// A buffer, which is sealed when it is sent.
    Buffer(Buffer),
    /// A buffer that came in a message or was sealed before. Nothing of it is copied.
    SealedBuffer(SealedBuffer),
}

impl From<MessagePort> for Transferable {
    fn from(port: MessagePort) -> Self {
        Self::Port(port)
    }
}

impl From<Buffer> for Transferable {
    fn from(buffer: Buffer) -> Self {
        Self::Buffer(buffer)
    }
}

impl From<SealedBuffer> for Transferable {
    fn from(buffer: SealedBuffer) -> Self {
        Self::SealedBuffer(buffer)
    }
}

/// What a message carries: the list that [`post_bytes_with`](MessagePort::post_bytes_with) and its like
/// take, and that comes back in the error if the post is refused. The receiver finds the ports in this order,
/// and the buffers too.
///
/// Made by [`transfer!`](crate::transfer), or from one port or buffer, from an array, a vector or an iterator
/// of ports.
///
/// ```
/// use zeroport::{MessageChannel, TransferList, transfer};
///
/// let MessageChannel { port1, port2 } = MessageChannel::new()?;
/// let list = transfer![port1, port2];
/// assert_eq!(list.len(), 2);
/// let ports = list.into_ports();
/// let mut list = TransferList::new();
/// assert!(list.is_empty()); // a post with it is a plain post
/// ports.into_iter().for_each(|port| list.push(port));
/// assert_eq!(list.into_iter().count(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
// The lock is never waited for. It makes the list `Sync`, which its ports are not, and so its error one
// that every error type of a program can hold.
#[derive(Default)]
pub struct TransferList(Mutex<Vec<Transferable>>);

/// Makes a [`TransferList`](crate::TransferList) of ports and [buffers](crate::Buffer).
///
/// ```
/// use zeroport::{MessageChannel, transfer};
///
/// let MessageChannel { port1, port2 } = MessageChannel::new()?;
/// let MessageChannel { port1: port3, port2: port4 } = MessageChannel::new()?;
/// port1.post_bytes_with(b"yours", transfer![port3])?;
///
/// let [port3] = port2.recv()?.take_ports()?;
/// port4.post_bytes(b"hello")?;
/// assert_eq!(port3.recv()?.bytes(), b"hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[macro_export]
macro_rules! transfer {
    ($($item:expr),* $(,)?) => {
        <$crate::TransferList as ::core::iter::FromIterator<$crate::Transferable>>::from_iter(
            [$($crate::Transferable::from($item)),*],
        )
    };
}

impl TransferList {
    /// An empty list: a post with it is a plain post.
    pub const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// Appends something.
    pub fn push(&mut self, item: impl Into<Transferable>) {
        self.items().push(item.into());
    }

    /// How many things there are.
    pub fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The ports of the list, in its order; what else is there is dropped.
    pub fn into_ports(self) -> Vec<MessagePort> {
        let ports = self.into_iter().map(|item| match item {
            Transferable::Port(port) => Some(port),
            Transferable::Buffer(_) | Transferable::SealedBuffer(_) => None,
        });
        ports.flatten().collect()
    }

    pub(super) fn items(&mut self) -> &mut Vec<Transferable> {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many ports and buffers there are.
    pub(super) fn counts(&mut self) -> [usize; 2] {
        let all = self.items().len();
        let is_port = |item: &&Transferable| matches!(item, Transferable::Port(_));
        let ports = self.items().iter().filter(is_port).count();
        [ports, all - ports]
    }

    /// Bytes of memory of all buffers.
    pub(super) fn bytes(&mut self) -> u64 {
        let len = |item: &Transferable| match item {
            Transferable::Port(_) => 0,
            Transferable::Buffer(buffer) => file_len(buffer.len() as u64),
            Transferable::SealedBuffer(buffer) => file_len(buffer.len() as u64),
        };
        self.items().iter().map(len).sum()
    }

    /// Seals all buffers, so that they can be sent. Those that are handed back later stay sealed.
    pub(super) fn seal(&mut self) -> Result<(), PostError> {
        let mut refused = None;
        let items = std::mem::take(self.items());
        let seal = |item| match item {
            Transferable::Buffer(buffer) if refused.is_none() => seal_buffer(buffer, &mut refused),
            item => Some(item),
        };
        *self.items() = items.into_iter().filter_map(seal).collect();
        refused.map_or(Ok(()), Err)
    }
}

/// The buffer sealed, or as it was and why.
fn seal_buffer(buffer: Buffer, refused: &mut Option<PostError>) -> Option<Transferable> {
    match buffer.into_sealed_memory() {
        Ok(sealed) => Some(Transferable::SealedBuffer(SealedBuffer::from_sealed(sealed))),
        Err((buffer, error)) => {
            *refused = Some(match error {
                BufferError::Os { source, .. } | BufferError::Seal { source, .. } => {
                    PostError::Os(source)
                }
                BufferError::Detached => PostError::Detached,
            });
            buffer.map(Transferable::Buffer)
        }
    }
}

impl fmt::Debug for TransferList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransferList").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl FromIterator<Transferable> for TransferList {
    fn from_iter<I: IntoIterator<Item = Transferable>>(items: I) -> Self {
        Self(Mutex::new(items.into_iter().collect()))
    }
}

impl FromIterator<MessagePort> for TransferList {
    fn from_iter<I: IntoIterator<Item = MessagePort>>(ports: I) -> Self {
        ports.into_iter().map(Transferable::from).collect()
    }
}

impl IntoIterator for TransferList {
    type Item = Transferable;
    type IntoIter = std::vec::IntoIter<Transferable>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter()
    }
}

impl From<Buffer> for TransferList {
    fn from(buffer: Buffer) -> Self {
        Self(Mutex::new(vec![buffer.into()]))
    }
}

impl From<SealedBuffer> for TransferList {
    fn from(buffer: SealedBuffer) -> Self {
        Self(Mutex::new(vec![buffer.into()]))
    }
}

impl From<MessagePort> for TransferList {
    fn from(port: MessagePort) -> Self {
        Self(Mutex::new(vec![port.into()]))
    }
}

impl From<Vec<MessagePort>> for TransferList {
    fn from(ports: Vec<MessagePort>) -> Self {
        ports.into_iter().collect()
    }
}

impl<const N: usize> From<[MessagePort; N]> for TransferList {
    fn from(ports: [MessagePort; N]) -> Self {
        ports.into_iter().collect()
    }
}

/// A post with ports or buffers that was refused. Nothing was posted, nothing has changed, and the list is
/// here. (A [`Buffer`] that was sealed by then comes back as the [`SealedBuffer`] that it has become.)
///
/// ```
/// use zeroport::{MessageChannel, PostError, TransferError, Untransferable, transfer};
///
/// let MessageChannel { port1, port2 } = MessageChannel::new()?;
/// let TransferError { list, source, .. } =
///     port1.post_bytes_with(b"", transfer![port2]).unwrap_err();
/// let reason = Untransferable::OtherEnd; // nobody would be left to receive it
/// assert!(matches!(source, PostError::Untransferable { index: 0, reason: found } if found == reason));
/// let port2 = list.into_ports().remove(0); // as it was
/// port1.post_bytes(b"hello")?;
/// assert_eq!(port2.recv()?.bytes(), b"hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
#[error("a message and the {} things with it were not sent: {source}", list.len())]
pub struct TransferError {
    /// All that was to be given away, in the order in which it was listed.
    pub list: TransferList,
    /// Why it was not.
    #[source]
    pub source: PostError,
}

impl TransferError {
    pub(crate) fn new(list: TransferList, source: PostError) -> Self {
        Self { list, source }
    }
}
