//! A loan: room for a message that is filled in place.

use std::fmt;
use std::ops::{Deref, DerefMut};

use crate::error::PostError;
use crate::ring::Reservation;

use super::post::{Sender, UNTAGGED};

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
    /// # Errors
    ///
    /// As [`publish`](Self::publish).
    pub fn publish_tagged(mut self, len: usize, tag: u32) -> Result<(), PostError> {
        if len > self.len() {
            return Err(PostError::TooLarge { len: len as u64, max: self.len() as u64 });
        }
        self.sender.check()?;
        let reservation = match std::mem::replace(&mut self.room, Room::Gone) {
            Room::Ring(reservation) => reservation,
            Room::Private(reservation, private) => {
                let filled = private.get(..len).unwrap_or_default();
                self.sender.memory().write(reservation.payload_offset(), filled);
                reservation
            }
            Room::Gone => return Ok(()),
        };
        self.sender.publish(reservation, len, tag)
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
