//! Typed posts: the value's serialiser, which is the user's code, writes into the ring.
//!
//! The length is known only afterwards. So the first try takes whatever is free in one piece; where
//! that is too little, the value is measured, room is claimed for exactly that, and it is serialised
//! again. A serialiser may therefore run up to three times for one post.
//!
//! A serialiser may post on the same port. What is posted inside is posted first: it takes the room,
//! and the interrupted serialiser goes on in private memory, to be copied when it is done.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use crate::error::{BatchError, PostError};
use crate::payload::{Count, EncodeError, MAX_VALUE, Postable, Sink, encode};
use crate::queue::Poster;
use crate::ring::Reservation;
use crate::segment::Region;
use crate::tag::value_tag;

use super::large::Large;
use super::post::{Patience, Sender};
use super::transfer_list::{TransferError, TransferList};

impl Sender {
    /// Posts a value. See [`MessagePort::post`](crate::MessagePort::post).
    #[inline]
    pub fn post<T: Postable>(&self, value: &T) -> Result<(), PostError> {
        self.post_value(value, Patience::FOR_EVER)
    }

    /// As [`post`](Self::post), without waiting.
    #[inline]
    pub fn try_post<T: Postable>(&self, value: &T) -> Result<(), PostError> {
        self.post_value(value, Patience::None)
    }

    /// As [`post`](Self::post), waiting at most so long.
    ///
    /// ```
    /// use std::time::Duration;
    /// use zeroport::MessageChannel;
    ///
    /// let MessageChannel { port1, port2 } = MessageChannel::new()?;
    /// port1.post_timeout(&"text".to_string(), Duration::from_secs(1))?;
    /// assert_eq!(port2.recv()?.get::<String>()?, "text");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn post_timeout<T: Postable>(&self, value: &T, timeout: Duration) -> Result<(), PostError> {
        self.post_value(value, Patience::at_most(timeout))
    }

    /// Posts many values that appear at once. See
    /// [`MessagePort::post_all`](crate::MessagePort::post_all).
    ///
    /// ```
    /// use zeroport::MessageChannel;
    ///
    /// let MessageChannel { port1, port2 } = MessageChannel::new()?;
    /// assert_eq!(port1.post_all(&["a".to_string(), "b".to_string()])?, 2);
    /// assert_eq!(port2.recv()?.get::<String>()?, "a");
    /// assert_eq!(port2.recv()?.get::<String>()?, "b");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn post_all<'v, T: Postable + 'v>(
        &self,
        values: impl IntoIterator<Item = &'v T>,
    ) -> Result<usize, BatchError> {
        self.post_each(values, |value| self.post(value))
    }

    #[inline]
    fn post_value<T: Postable>(&self, value: &T, patience: Patience) -> Result<(), PostError> {
        self.check()?;
        self.take_turn()?;
        if let Some(reservation) = self.reserve_rest()
            && let Some(posted) = self.serialise(value, reservation, patience)
        {
            return posted;
        }
        self.post_measured(value, patience)
    }

    /// Serialises into a reservation and publishes. `None` if there was not room enough.
    #[inline]
    fn serialise<T: Postable>(
        &self,
        value: &T,
        reservation: Reservation,
        patience: Patience,
    ) -> Option<Result<(), PostError>> {
        let work = Work::begin(self, &reservation);
        match encode(value, &work) {
            Ok(_) if !self.is_original() => Some(Err(PostError::Detached)),
            Ok(len) => match work.finish() {
                None => Some(self.publish(reservation, len, value_tag::<T>())),
                Some(bytes) => Some(self.post_raw(&bytes, value_tag::<T>(), patience)),
            },
            Err(error) => Some(Err(PostError::Encode(error.into_source()?))),
        }
    }

    /// Serialises to private memory, as what gives ports away takes its time anyway; then posts that.
    pub(super) fn post_value_with<T: Postable>(
        &self,
        value: &T,
        patience: Patience,
        mut list: TransferList,
    ) -> Result<(), TransferError> {
        let encoded = self.check().and_then(|()| self.check_carrier(&mut list)).and_then(|()| {
            let bytes = RefCell::<Vec<u8>>::default();
            encode(value, &bytes).map_err(|error| refused(error, bytes.borrow().len() as u64))?;
            // A fork, or the end of the channel, may have come from inside the serialiser.
            self.check().map(|()| bytes.into_inner())
        });
        match encoded {
            Ok(bytes) => self.post_checked_with(&bytes, value_tag::<T>(), patience, list),
            Err(source) => Err(TransferError::new(list, source)),
        }
    }

    #[cold]
    fn post_measured<T: Postable>(&self, value: &T, patience: Patience) -> Result<(), PostError> {
        let count = Count::default();
        let len = encode(value, &count).map_err(|error| refused(error, count.len()))?;
        self.check()?;
        if len > self.max_in_ring() {
            return self.post_large_value(value, len, patience);
        }
        self.take_turn()?;
        let reservation = self.reserve_room(len as u64, patience)?;
        self.serialise(value, reservation, patience)
            .unwrap_or_else(|| Err(PostError::Encode(fickle())))
    }

    /// Serialises into a memory of its own, and posts that.
    fn post_large_value<T: Postable>(
        &self,
        value: &T,
        len: usize,
        patience: Patience,
    ) -> Result<(), PostError> {
        let sink = Filling {
            large: RefCell::new(self.make_large(len as u64, patience)?),
            len: Cell::default(),
        };
        let encoded = encode(value, &sink);
        let len = encoded
            .map_err(|error| PostError::Encode(error.into_source().unwrap_or_else(fickle)))?;
        self.check()?;
        let (large, list) = (sink.large.into_inner(), TransferList::new());
        let posted = self.post_filled(large, len, value_tag::<T>(), patience, list);
        posted.map_err(|refused| refused.source)
    }
}

/// Why a value could not be serialised to a sink that takes whatever is not too large.
fn refused(error: EncodeError, len: u64) -> PostError {
    match error.into_source() {
        Some(source) => PostError::Encode(source),
        None => PostError::TooLarge { len, max: MAX_VALUE },
    }
}

/// Large memory as it is filled.
struct Filling {
    large: RefCell<Large>,
    len: Cell<usize>,
}

impl Sink for Filling {
    fn put(&self, bytes: &[u8]) -> Option<()> {
        let from = self.len.get();
        let to = from + bytes.len();
        self.large.borrow_mut().bytes_mut().get_mut(from..to)?.copy_from_slice(bytes);
        self.len.set(to);
        Some(())
    }
}

impl Sink for RefCell<Vec<u8>> {
    fn put(&self, bytes: &[u8]) -> Option<()> {
        let mut all = self.borrow_mut();
        all.extend_from_slice(bytes);
        (all.len() as u64 <= MAX_VALUE).then_some(())
    }
}

fn fickle() -> Box<dyn std::error::Error + Send + Sync> {
    "it serialised to more bytes the second time".into()
}

/// The serialisers at work on one sender, one inside the other.
#[derive(Debug, Default)]
pub(super) struct Serialisers {
    /// The innermost, if it still writes into the ring.
    open: Cell<Option<Open>>,
    /// What interrupted ones had written, until they notice.
    interrupted: RefCell<Vec<(u64, Vec<u8>)>>,
    last: Cell<u64>,
}

/// A serialiser that writes into the ring.
#[derive(Clone, Copy, Debug)]
struct Open {
    number: u64,
    is_grown: bool,
    offset: u64,
    len: u64,
}

impl Serialisers {
    /// Takes the room from whoever writes into the ring now; saves what it has written.
    #[inline]
    pub(super) fn interrupt(&self, queue: &Poster<Region>) {
        if let Some(open) = self.open.take() {
            self.save(open, queue);
        }
    }

    #[cold]
    fn save(&self, open: Open, queue: &Poster<Region>) {
        let mut words = vec![0u64; open.len.div_ceil(8) as usize];
        queue.with_memory(open.is_grown, |memory| memory.copy_out(open.offset, &mut words));
        let mut bytes = bytemuck::cast_slice(&words).to_vec();
        bytes.truncate(open.len as usize);
        self.interrupted.borrow_mut().push((open.number, bytes));
    }

    fn take_saved(&self, number: u64) -> Vec<u8> {
        let mut interrupted = self.interrupted.borrow_mut();
        let place = interrupted.iter().position(|(owner, _)| *owner == number);
        place.map(|place| interrupted.swap_remove(place).1).unwrap_or_default()
    }
}

/// One serialiser's work; dropping it unfinished (also by a panic) leaves nothing behind.
struct Work<'p> {
    sender: &'p Sender,
    number: u64,
    room: u64,
    /// What was written, once the room was taken by an inner post.
    private: RefCell<Option<Vec<u8>>>,
}

impl<'p> Work<'p> {
    #[inline]
    fn begin(sender: &'p Sender, reservation: &Reservation) -> Self {
        let serialisers = &sender.serialisers;
        let number = serialisers.last.get() + 1;
        serialisers.last.set(number);
        let (is_grown, offset) = (reservation.is_grown(), reservation.payload_offset());
        serialisers.open.set(Some(Open { number, is_grown, offset, len: 0 }));
        Self { sender, number, room: reservation.payload_len(), private: RefCell::default() }
    }

    /// The state of this serialiser in the ring, unless an inner post has taken the room.
    #[inline]
    fn open(&self) -> Option<Open> {
        self.sender.serialisers.open.get().filter(|open| open.number == self.number)
    }

    /// Ends the work; gives the bytes if they are not in the ring.
    #[inline]
    fn finish(self) -> Option<Vec<u8>> {
        if self.open().is_some() {
            return None;
        }
        Some(self.private.take().unwrap_or_else(|| self.saved()))
    }

    #[cold]
    fn saved(&self) -> Vec<u8> {
        self.sender.serialisers.take_saved(self.number)
    }
}

impl Sink for Work<'_> {
    #[inline]
    fn put(&self, bytes: &[u8]) -> Option<()> {
        let Some(open) = self.open() else {
            self.private.borrow_mut().get_or_insert_with(|| self.saved()).extend_from_slice(bytes);
            return Some(());
        };
        let len = open.len + bytes.len() as u64;
        // A fork may have come from inside the serialiser.
        if !self.sender.is_original()
            || len > self.room
            || !self.sender.write(open.is_grown, open.offset + open.len, bytes)
        {
            return None;
        }
        self.sender.serialisers.open.set(Some(Open { len, ..open }));
        Some(())
    }
}

impl Drop for Work<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.open().is_some() {
            self.sender.serialisers.open.set(None);
        } else {
            self.saved();
        }
    }
}
