//! A received message: a view of its payload, and the room that goes back when it is dropped.

use std::collections::TryReserveError;
use std::fmt;
use std::mem::ManuallyDrop;

use bytemuck::AnyBitPattern;

use crate::error::DecodeError;
use crate::ring::Record;
use crate::segment::Region;
use crate::tag::{Tagged, plain_data_tag};

use super::outside::Payload;
use super::parcels::Parcel;
use super::receive::Receiver;

/// A received message.
///
/// On a trusted port the payload lies where it was posted, in shared memory; its room goes back to
/// the poster when the message is dropped. Several messages may be held at once, and dropped in any
/// order; room goes back in the order in which they were posted. A message that is never dropped
/// (`std::mem::forget`) keeps its room, and all room after it, for ever. On an untrusted port the
/// payload is a private copy, and its room has gone back already.
///
/// A large payload lies in a memory of its own, and is read there on any port: on an untrusted one nobody can
/// change it any more. Until the message is dropped it counts toward the
/// [limit](crate::ChannelOptions::limit), as do the buffers that came with it.
///
/// The payload starts at a multiple of 16 bytes.
///
/// ```
/// use zeroport::MessageChannel;
///
/// let MessageChannel { port1, port2 } = MessageChannel::new()?;
/// port1.post_bytes(b"ping")?;
/// let message = port2.recv()?;
/// port2.post_bytes(b"pong")?; // replying while the message is held
/// assert_eq!(message.bytes(), b"ping");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Message<'p> {
    receiver: &'p Receiver,
    /// Its place in the first ring, if it is read there.
    from: u64,
    to: u64,
    /// Bytes of its payload there, and its type tag: one word, which is moved at once.
    what: u64,
    /// What it has beside the ring, which is little or nothing: a message is mostly made and unmade in
    /// registers.
    /// (Its drop below leaves nothing there, which the compiler would look for once more.)
    aside: ManuallyDrop<Option<Box<Aside>>>,
}

/// What a message has that most do not have.
#[derive(Debug, Default)]
pub(super) struct Aside {
    place: Where,
    record: Record,
    /// Whether its room in the ring went back already.
    is_over: bool,
    /// Bytes outside the first ring, which count until the message goes.
    outside: u64,
    /// The payload of a message on an untrusted port, in memory that nobody else can write.
    words: Vec<u64>,
    parcel: Option<Parcel>,
}

/// Where a payload lies.
#[derive(Debug)]
pub(super) enum Where {
    /// In the first ring.
    First { offset: u64, len: u32 },
    /// In a grown ring, which stays as long as the message.
    Grown { memory: Region, offset: u64, len: u32 },
    /// In private memory, after so many words: so it starts at a multiple of 16 bytes.
    Copy { skip: usize, len: usize },
    /// In a memory of its own.
    Large(Payload),
}

impl Default for Where {
    fn default() -> Self {
        Self::Copy { skip: 0, len: 0 }
    }
}

// A task takes what it holds from thread to thread (E2 in `aio/message.rs`).
const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<Option<Box<Aside>>>();
};

/// Larger memory is not kept for the next message: whoever has sent one such message would hold it.
const MAX_SPARE: usize = 64 << 10;

impl Aside {
    pub(super) fn is_small(&self) -> bool {
        8 * self.words.capacity() <= MAX_SPARE
    }

    /// Has the words of a payload of `len` bytes filled in.
    pub(super) fn copy<E>(
        &mut self,
        len: usize,
        fill: impl FnOnce(&mut [u64]) -> Result<(), E>,
    ) -> Result<Result<(), E>, TryReserveError> {
        let words = len.div_ceil(8);
        self.words.clear();
        // The other side has said how much.
        self.words.try_reserve(words + 1)?;
        self.words.resize(words + 1, 0);
        let skip = usize::from(!self.words.as_ptr().addr().is_multiple_of(16));
        self.place = Where::Copy { skip, len };
        Ok(self.words.get_mut(skip..skip + words).map_or(Ok(()), fill))
    }

    pub(super) fn place(&self) -> &Where {
        &self.place
    }

    pub(super) fn set_place(&mut self, place: Where) {
        self.place = place;
    }

    pub(super) fn set_outside(&mut self, bytes: u64) {
        self.outside = bytes;
    }

    pub(super) fn take_outside(&mut self) -> u64 {
        std::mem::take(&mut self.outside)
    }

    pub(super) fn set_record(&mut self, record: Record) {
        self.record = record;
    }

    pub(super) fn record(&self) -> &Record {
        &self.record
    }

    pub(super) fn set_over(&mut self, is_over: bool) {
        self.is_over = is_over;
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    pub(super) fn set_parcel(&mut self, parcel: Parcel) {
        self.parcel = Some(parcel);
    }

    /// Makes it fit for another message; gives what this one leaves behind.
    pub(super) fn clear(&mut self) -> (Option<Parcel>, Option<Payload>) {
        let payload = match std::mem::take(&mut self.place) {
            Where::Large(payload) => Some(payload),
            Where::First { .. } | Where::Grown { .. } | Where::Copy { .. } => None,
        };
        (self.parcel.take(), payload)
    }

    fn bytes<'a>(&'a self, receiver: &'a Receiver) -> &'a [u8] {
        match &self.place {
            Where::First { offset, len } => {
                receiver.queue().first().memory().published(*offset, *len)
            }
            Where::Grown { memory, offset, len } => memory.published(*offset, *len),
            Where::Copy { skip, len } => {
                let bytes: &[u8] = bytemuck::cast_slice(&self.words);
                bytes.get(8 * skip..8 * skip + len).unwrap_or_default()
            }
            Where::Large(payload) => payload.bytes(),
        }
    }
}

impl<'p> Message<'p> {
    /// A message that is read where its record is, in the first ring of a trusted port.
    #[inline(always)]
    pub(super) fn in_place(receiver: &'p Receiver, record: Record) -> Self {
        let Record { from, to, .. } = record;
        Self { receiver, from, to, what: what(&record), aside: ManuallyDrop::new(None) }
    }

    /// Any other.
    #[inline(always)]
    pub(super) fn aside(receiver: &'p Receiver, aside: Box<Aside>) -> Self {
        let what = what(&aside.record);
        Self { receiver, from: 0, to: 0, what, aside: ManuallyDrop::new(Some(aside)) }
    }

    pub(super) fn receiver(&self) -> &'p Receiver {
        self.receiver
    }

    /// Where it starts and ends in the first ring, if it has nothing else.
    #[inline(always)]
    pub(super) fn parts(&self) -> Option<(u64, u64)> {
        self.aside.is_none().then_some((self.from, self.to))
    }

    pub(super) fn parcel(&self) -> Option<&Parcel> {
        self.aside.as_ref()?.parcel.as_ref()
    }

    /// Bytes that it takes in its queue.
    pub(super) fn room(&self) -> u64 {
        match &*self.aside {
            None => self.to - self.from,
            Some(aside) => (aside.record.to - aside.record.from).saturating_add(aside.outside),
        }
    }

    /// The payload, whatever its type.
    #[inline(always)]
    pub fn bytes(&self) -> &[u8] {
        match &*self.aside {
            None => self.receiver.payload(self.from, self.what as u32),
            Some(aside) => aside.bytes(self.receiver),
        }
    }

    /// The type tag: 0 for bytes, else what [`tag_of_name`](crate::tag_of_name) or
    /// [`tag_of_plain_data`](crate::tag_of_plain_data) gives for the poster's type.
    #[inline]
    pub fn tag(&self) -> u32 {
        (self.what >> 32) as u32
    }

    /// Whether the message is tagged as plain data of this type: for programs that receive several
    /// types on one port.
    pub fn is_pod<T: Tagged>(&self) -> bool {
        self.tag() == plain_data_tag::<T>()
    }

    /// The payload as one value of plain data, in place.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the message carries another type or not exactly one value.
    #[inline]
    pub fn pod<T: Tagged + AnyBitPattern>(&self) -> Result<&T, DecodeError> {
        self.expect_tag(plain_data_tag::<T>())?;
        const { assert_countable::<T>() };
        bytemuck::try_from_bytes(self.bytes()).map_err(|_| self.wrong_length::<T>())
    }

    /// The payload as a slice of plain data, in place.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the message carries another type or not a whole number of values.
    #[inline]
    pub fn pod_slice<T: Tagged + AnyBitPattern>(&self) -> Result<&[T], DecodeError> {
        const { assert_countable::<T>() };
        self.expect_tag(plain_data_tag::<T>())?;
        bytemuck::try_cast_slice(self.bytes()).map_err(|_| self.wrong_length::<T>())
    }

    /// Whether the message is tagged as a value of this type: for programs that receive several types
    /// on one port.
    ///
    /// ```
    /// use zeroport::MessageChannel;
    ///
    /// let MessageChannel { port1, port2 } = MessageChannel::new()?;
    /// port1.post(&"text".to_string())?;
    /// port1.post_pod(&1u32)?;
    /// assert!(port2.recv()?.is::<String>());
    /// assert!(port2.recv()?.is_pod::<u32>());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg(feature = "rkyv")]
    pub fn is<T: Tagged>(&self) -> bool {
        self.tag() == crate::tag::value_tag::<T>()
    }

    /// The payload as an archived value, validated and read in place.
    ///
    /// Each call validates anew, so keep the reference rather than asking twice.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the message carries another type, or bytes that are not a valid value.
    #[cfg(feature = "rkyv")]
    #[inline]
    pub fn get<T: crate::Readable>(&self) -> Result<&T::Archived, DecodeError> {
        self.expect_tag(crate::tag::value_tag::<T>())?;
        crate::payload::access::<T>(self.bytes())
    }

    #[inline]
    fn expect_tag(&self, expected: u32) -> Result<(), DecodeError> {
        match self.tag() {
            found if found == expected => Ok(()),
            found => Err(DecodeError::WrongType { expected, found }),
        }
    }

    #[cold]
    fn wrong_length<T>(&self) -> DecodeError {
        DecodeError::Length { len: self.bytes().len(), unit: size_of::<T>() }
    }
}

#[inline(always)]
fn what(record: &Record) -> u64 {
    u64::from(record.payload_len) | u64::from(record.tag) << 32
}

pub(crate) const fn assert_countable<T>() {
    assert!(align_of::<T>() <= 16, "payloads are aligned to 16 bytes");
    assert!(size_of::<T>() > 0, "a value without bytes cannot be counted");
}

impl Drop for Message<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        match self.aside.take() {
            None => self.receiver.release(self.from, self.to),
            Some(aside) => self.receiver.let_go_aside(aside),
        }
    }
}

impl fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tag, len) = (self.tag(), self.bytes().len());
        f.debug_struct("Message").field("tag", &tag).field("len", &len).finish_non_exhaustive()
    }
}
