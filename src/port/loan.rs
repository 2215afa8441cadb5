//! A loan: room for a message that is filled in place.

use std::fmt;
use std::ops::{Deref, DerefMut};

use crate::error::PostError;
use crate::record::OUTSIDE_LEN;
use crate::ring::{Content, Reservation};
use crate::segment::Region;

use super::large::Large;
use super::post::{Patience, Sender, UNTAGGED};
use super::transfer_list::{TransferError, TransferList};

/// Room for one message, to be filled in place and then published.
///
/// It dereferences to its bytes; what stands there at first is unspecified. On a trusted port it lies
/// in the ring, on an untrusted one in private memory that is copied when it is published. What is too large
/// for the ring lies in a memory of its own, on either, and is not copied. Dropping a loan publishes nothing.
/// While it exists, other posts on the port are refused with [`PostError::Busy`]; one that is never dropped
/// (`std::mem::forget`) keeps it so. In a forked child it has no bytes.
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
    len: usize,
}

enum Room {
    /// In the first ring.
    Ring(Reservation),
    /// In a grown ring.
    Grown(Reservation, Region),
    /// In private memory: the other side of an untrusted port could change it while it is filled.
    Private(Reservation, Box<[u8]>),
    /// In a memory of its own.
    Large(Large),
    /// Published.
    Gone,
}

impl<'p> Loan<'p> {
    /// A loan of `len` bytes in a reservation that is longer by an [`Outside`](crate::record::Outside).
    pub(super) fn new(sender: &'p Sender, reservation: Reservation, len: usize) -> Self {
        sender.set_loaned(true);
        let room = if !sender.is_trusted() {
            Room::Private(reservation, vec![0; len].into_boxed_slice())
        } else {
            match sender.queue().grown() {
                Some((memory, _)) if reservation.is_grown() => Room::Grown(reservation, memory),
                _ => Room::Ring(reservation),
            }
        };
        Self { sender, room, len }
    }

    /// A loan in a memory of its own.
    pub(super) fn large(sender: &'p Sender, large: Large) -> Self {
        sender.set_loaned(true);
        let len = large.bytes().len();
        Self { sender, room: Room::Large(large), len }
    }

    /// Posts the first `len` bytes as one message, untagged.
    ///
    /// # Errors
    ///
    /// [`PostError::TooLarge`] if `len` is more than was reserved, [`PostError::Closed`] if the
    /// channel ended meanwhile. Nothing is posted then. Room that is a memory of its own has to be sent, too:
    /// that waits, however the loan was asked for, and can be [`PostError::Os`].
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
    pub fn publish_tagged(self, len: usize, tag: u32) -> Result<(), PostError> {
        let posted = self.publish_list(len, tag, TransferList::new());
        posted.map_err(|refused| refused.source)
    }

    /// As [`publish_tagged`](Self::publish_tagged), and gives ports and buffers away with the message; waits
    /// until they can be sent.
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
    /// [`PostError::Untransferable`], [`PostError::TooManyPorts`], [`PostError::Os`]; [`PostError::Full`] for
    /// buffers that are beyond the limit together with the ring in which the loan lies.
    pub fn publish_with(
        self,
        len: usize,
        tag: u32,
        list: impl Into<TransferList>,
    ) -> Result<(), TransferError> {
        self.publish_list(len, tag, list.into())
    }

    fn publish_list(
        mut self,
        len: usize,
        tag: u32,
        mut list: TransferList,
    ) -> Result<(), TransferError> {
        let sender = self.sender;
        if let Err(source) = sender.check_carrier(&mut list).and_then(|()| self.check(len)) {
            return Err(TransferError::new(list, source));
        }
        let room = std::mem::replace(&mut self.room, Room::Gone);
        if let Room::Large(large) = room {
            // What is posted from now on is not refused for its sake.
            drop(self);
            return sender.post_filled(large, len, tag, Patience::FOR_EVER, list);
        }
        // Buffers need room before the payload.
        let before = if list.counts()[1] == 0 { 0 } else { OUTSIDE_LEN as usize };
        let Some(reservation) = self.settle(room, len, before) else {
            // Not reached: who publishes has consumed the loan.
            return Err(TransferError::new(list, PostError::Busy));
        };
        if list.is_empty() {
            let posted = sender.publish(reservation, len, tag);
            return posted.map_err(|source| TransferError::new(list, source));
        }
        let patience = Patience::FOR_EVER;
        let admitted = sender.admit_in(&reservation, list.bytes(), len as u64, patience);
        if let Err(source) = admitted {
            return Err(TransferError::new(list, source));
        }
        let content = Content::plain(before + len, tag);
        sender.give_away(reservation, content, Patience::FOR_EVER, list, None)
    }

    fn check(&self, len: usize) -> Result<(), PostError> {
        if len > self.len {
            return Err(PostError::TooLarge { len: len as u64, max: self.len as u64 });
        }
        self.sender.check()
    }

    /// The reservation, with the message in it, `before` bytes from its beginning.
    fn settle(&self, room: Room, len: usize, before: usize) -> Option<Reservation> {
        match room {
            Room::Ring(mut reservation) => {
                let first = self.sender.queue().first().memory();
                shift(first.room(&mut reservation), len, before);
                Some(reservation)
            }
            Room::Grown(mut reservation, memory) => {
                shift(memory.room(&mut reservation), len, before);
                Some(reservation)
            }
            Room::Private(reservation, private) => {
                let filled = private.get(..len).unwrap_or_default();
                let offset = reservation.payload_offset() + before as u64;
                self.sender.write(reservation.is_grown(), offset, filled);
                Some(reservation)
            }
            Room::Large(_) | Room::Gone => None,
        }
    }
}

/// Moves the first `len` bytes back.
fn shift(room: &mut [u8], len: usize, by: usize) {
    if by > 0 && len + by <= room.len() {
        room.copy_within(..len, by);
    }
}

impl Deref for Loan<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let bytes: &[u8] = match &self.room {
            Room::Private(_, private) => private,
            _ if !self.sender.is_original() => &[],
            Room::Ring(room) => self.sender.queue().first().memory().room_so_far(room),
            Room::Grown(room, memory) => memory.room_so_far(room),
            Room::Large(large) => large.bytes(),
            Room::Gone => &[],
        };
        bytes.get(..self.len).unwrap_or_default()
    }
}

impl DerefMut for Loan<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        let bytes: &mut [u8] = match &mut self.room {
            Room::Private(_, private) => private,
            _ if !self.sender.is_original() => &mut [],
            Room::Ring(room) => self.sender.queue().first().memory().room(room),
            Room::Grown(room, memory) => memory.room(room),
            Room::Large(large) => large.bytes_mut(),
            Room::Gone => &mut [],
        };
        bytes.get_mut(..self.len).unwrap_or_default()
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
