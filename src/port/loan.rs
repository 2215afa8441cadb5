//! A loan: room for a message that is filled in place.

use std::fmt;
use std::ops::{Deref, DerefMut};

use crate::error::PostError;
use crate::ring::{Content, Reservation};

use super::post::{Patience, Sender, UNTAGGED};
use super::transfer_list::{TransferError, TransferList};

/// Room for one message, to be filled in place and then published.
///
/// It dereferences to its bytes; what stands there at first is unspecified. On a trusted port it lies
/// in the ring, on an untrusted one in private memory that is copied when it is published. Dropping a
/// loan publishes nothing. While it exists, other posts on the port are refused with
/// [`PostError::Busy`]; one that is never dropped (`std::mem::forget`) keeps it so. In a forked child
/// it has no bytes.
///
/// ```
/// use zeroport::MessageChannel;
///
/// let MessageChannel { port1, port2 } = MessageChannel::new()?;
/// let mut loan = port1.reserve(4096)?;
/// loan[..5].copy_from_slice(b"hello");
/// loan.publish(5)?;
/// assert_eq!(port2.recv()?.bytes(), b"hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a loan that is not published sends nothing"]
pub struct Loan<'p> {
    sender: &'p Sender,
    room: Room,
}

enum Room {
    /// In the ring.
    Ring(Reservation),
    /// In private memory: the other side of an untrusted port could change it while it is filled.
    Private(Reservation, Box<[u8]>),
    /// Published.
    Gone,
}

impl<'p> Loan<'p> {
    pub(super) fn new(sender: &'p Sender, reservation: Reservation) -> Self {
        sender.set_loaned(true);
        let room = if sender.is_trusted() {
            Room::Ring(reservation)
        } else {
            let private = vec![0; reservation.payload_len() as usize];
            Room::Private(reservation, private.into_boxed_slice())
        };
        Self { sender, room }
    }

    /// Posts the first `len` bytes as one message, untagged.
    ///
    /// # Errors
    ///
    /// [`PostError::TooLarge`] if `len` is more than was reserved, [`PostError::Closed`] if the
    /// channel ended meanwhile. Nothing is posted then.
    pub fn publish(self, len: usize) -> Result<(), PostError> {
        self.publish_tagged(len, UNTAGGED)
    }

    /// As [`publish`](Self::publish), with a type tag, for bytes that were laid out by hand as some
    /// type: see [`tag_of_name`](crate::tag_of_name) and
    /// [`tag_of_plain_data`](crate::tag_of_plain_data).
    ///
    /// ```
    /// use zeroport::{MessageChannel, tag_of_plain_data};
    ///
    /// let MessageChannel { port1, port2 } = MessageChannel::new()?;
    /// let mut loan = port1.reserve(4)?;
    /// loan.copy_from_slice(&7u32.to_le_bytes());
    /// loan.publish_tagged(4, tag_of_plain_data("u32", 4, 4))?;
    /// assert_eq!(port2.recv()?.pod::<u32>()?, &7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish).
    pub fn publish_tagged(mut self, len: usize, tag: u32) -> Result<(), PostError> {
        let reservation = self.fill(len)?;
        self.sender.publish(reservation, len, tag)
    }

    /// As [`publish_tagged`](Self::publish_tagged), and gives ports away with the message; waits until
    /// they can be sent.
    ///
    /// ```
    /// use zeroport::{MessageChannel, transfer};
    ///
    /// let MessageChannel { port1, port2 } = MessageChannel::new()?;
    /// let MessageChannel { port1: port3, port2: port4 } = MessageChannel::new()?;
    /// let mut loan = port1.reserve(5)?;
    /// loan.copy_from_slice(b"hello");
    /// loan.publish_with(5, 0, transfer![port3])?;
    /// let [_port3] = port2.recv()?.take_ports()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`TransferError`] with the list, and as its source what [`publish`](Self::publish) says or
    /// [`PostError::Untransferable`], [`PostError::TooManyPorts`], [`PostError::Os`].
    pub fn publish_with(
        mut self,
        len: usize,
        tag: u32,
        list: impl Into<TransferList>,
    ) -> Result<(), TransferError> {
        let (mut list, sender) = (list.into(), self.sender);
        match sender.check_carrier(&mut list).and_then(|()| self.fill(len)) {
            Err(source) => Err(TransferError::new(list, source)),
            Ok(reservation) if list.is_empty() => sender
                .publish(reservation, len, tag)
                .map_err(|source| TransferError::new(list, source)),
            Ok(reservation) => {
                let content = Content::plain(len, tag);
                sender.give_away(reservation, content, Patience::FOR_EVER, list)
            }
        }
    }

    /// The reservation, with the message in it.
    fn fill(&mut self, len: usize) -> Result<Reservation, PostError> {
        if len > self.len() {
            return Err(PostError::TooLarge { len: len as u64, max: self.len() as u64 });
        }
        self.sender.check()?;
        match std::mem::replace(&mut self.room, Room::Gone) {
            Room::Ring(reservation) => Ok(reservation),
            Room::Private(reservation, private) => {
                let filled = private.get(..len).unwrap_or_default();
                self.sender.memory().write(reservation.payload_offset(), filled);
                Ok(reservation)
            }
            // Not reached: who publishes has consumed the loan.
            Room::Gone => Err(PostError::Busy),
        }
    }
}

impl Deref for Loan<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.room {
            Room::Ring(reservation) if self.sender.is_original() => {
                self.sender.memory().room_so_far(reservation)
            }
            Room::Private(_, private) => private,
            Room::Ring(_) | Room::Gone => &[],
        }
    }
}

impl DerefMut for Loan<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.room {
            Room::Ring(reservation) if self.sender.is_original() => {
                self.sender.memory().room(reservation)
            }
            Room::Private(_, private) => private,
            Room::Ring(_) | Room::Gone => &mut [],
        }
    }
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        self.sender.set_loaned(false);
    }
}

impl fmt::Debug for Loan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loan").field("len", &self.len()).finish_non_exhaustive()
    }
}
