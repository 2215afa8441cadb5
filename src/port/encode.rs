//! Typed posts: the value's serialiser, which is the user's code, writes to private memory; the bytes then
//! are posted like any others.
//!
//! Not into the ring itself. A serialiser stores and loads small pieces. Each store into the ring waits until
//! its line has come from the reader's cache, and each load that has to wait for an earlier store waits with
//! it: to write in private memory and to copy that takes less time (`benches/NOTES.md`). Nor does a serialiser
//! so hold room in the ring while it runs; it may post on the same port. Only what is too long for the ring is
//! written where it will be read.

use std::time::Duration;

use rkyv::ser::allocator::Arena;

use crate::error::{BatchError, PostError};
use crate::payload::{EncodeError, MAX_VALUE, Postable, Room, Scratch, encode};
use crate::tag::value_tag;

use super::headed::{Heading, after_head};
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
        if !self.hold().endpoint.may_post() {
            // Or the serialiser would run for nothing.
            self.check()?;
        }
        let mut scratch = Scratch::take();
        let Scratch { bytes, arena } = &mut *scratch;
        let posted = match encode(value, Room::Scratch(bytes, self.max_in_ring()), arena) {
            Ok(len) if len <= bytes.len() => {
                let bytes = bytes.get(..len).unwrap_or_default();
                self.post_raw(bytes, value_tag::<T>(), patience)
            }
            Ok(len) => self.post_large_value(value, len, arena, patience),
            Err(error) => Err(refused(error)),
        };
        scratch.put_back();
        posted
    }

    /// Posts a value, and gives away with it what the list holds.
    pub(super) fn post_value_with<T: Postable>(
        &self,
        value: &T,
        patience: Patience,
        list: TransferList,
    ) -> Result<(), TransferError> {
        self.post_value_headed(Heading::none(value_tag::<T>()), value, patience, list)
    }

    /// Posts a value with a head before it: serialised to private memory if it then fits in the ring, else once
    /// more where it will be read.
    pub(crate) fn post_value_headed<T: Postable>(
        &self,
        heading: Heading<'_>,
        value: &T,
        patience: Patience,
        mut list: TransferList,
    ) -> Result<(), TransferError> {
        if let Err(source) = self.check().and_then(|()| self.check_carrier(&mut list)) {
            return Err(TransferError::new(list, source));
        }
        let mut scratch = Scratch::take();
        let Scratch { bytes, arena } = &mut *scratch;
        let encoded = encode(value, Room::Scratch(bytes, self.max_in_ring()), arena);
        // A fork, or the end of the channel, may have come from inside the serialiser.
        let posted = match encoded.map_err(refused).and_then(|len| self.check().map(|()| len)) {
            Ok(len) if len <= bytes.len() => {
                let bytes = bytes.get(..len).unwrap_or_default();
                self.post_checked_headed(heading, bytes, patience, list)
            }
            Ok(len) => self.post_large_headed_value(heading, value, (len, arena), patience, list),
            Err(source) => Err(TransferError::new(list, source)),
        };
        scratch.put_back();
        posted
    }

    /// Serialises once more, into a memory of its own, and posts that.
    #[cold]
    #[inline(never)]
    fn post_large_value<T: Postable>(
        &self,
        value: &T,
        len: usize,
        arena: &mut Arena,
        patience: Patience,
    ) -> Result<(), PostError> {
        let (heading, list) = (Heading::none(value_tag::<T>()), TransferList::new());
        let posted = self.post_large_headed_value(heading, value, (len, arena), patience, list);
        posted.map_err(|refused| refused.source)
    }

    fn post_large_headed_value<T: Postable>(
        &self,
        heading: Heading<'_>,
        value: &T,
        (len, arena): (usize, &mut Arena),
        patience: Patience,
        list: TransferList,
    ) -> Result<(), TransferError> {
        let whole = heading.head.len() + len;
        let written = self
            .check()
            .and_then(|()| self.check_loan())
            .and_then(|()| self.make_large(whole as u64, patience))
            .and_then(|mut large| {
                let room = after_head(large.bytes_mut(), heading.head).unwrap_or_default();
                let found = encode(value, Room::Fixed(room), arena).map_err(refused)?;
                self.check()?;
                Ok((large, found))
            });
        match written {
            Ok((large, found)) if found <= len => {
                let found = heading.head.len() + found;
                self.post_filled(large, found, heading.tag, patience, list)
            }
            Ok(_) => Err(TransferError::new(list, PostError::Encode(Fickle.into()))),
            Err(source) => Err(TransferError::new(list, source)),
        }
    }
}

/// A value that serialises to more bytes the second time.
#[derive(Debug, thiserror::Error)]
#[error("it serialised to more bytes the second time")]
struct Fickle;

/// Why a value could not be serialised.
fn refused(error: EncodeError) -> PostError {
    match error.into_source() {
        Some(source) => PostError::Encode(source),
        None => PostError::TooLarge { len: MAX_VALUE + 1, max: MAX_VALUE },
    }
}
