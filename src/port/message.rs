//! A received message: a view of its payload, and the room that goes back when it is dropped.

use std::fmt;

use bytemuck::AnyBitPattern;

use crate::error::DecodeError;
use crate::ring::Record;
use crate::tag::{Tagged, plain_data_tag};

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
    record: Record,
    /// What it has beside the ring, which is little or nothing: a message is mostly made and unmade in
    /// registers.
    aside: Option<Box<Aside>>,
}

/// What a message has that does not lie in the ring.
#[derive(Debug, Default)]
pub(super) struct Aside {
    /// Whether the payload was copied here.
    is_copy: bool,
    /// The payload of a message on an untrusted port, in memory that nobody else can write.
    words: Vec<u64>,
    /// Words before the payload, so that it starts at a multiple of 16 bytes.
    skip: usize,
    len: usize,
    ports: Option<Parcel>,
}

/// Larger memory is not kept for the next message: whoever has sent one such message would hold it.
const MAX_SPARE: usize = 64 << 10;

impl Aside {
    pub(super) fn is_small(&self) -> bool {
        8 * self.words.capacity() <= MAX_SPARE
    }

    /// Has the words of a payload of `len` bytes filled in.
    pub(super) fn copy(&mut self, len: u32, fill: impl FnOnce(&mut [u64])) {
        self.is_copy = true;
        self.len = len as usize;
        let words = self.len.div_ceil(8);
        self.words.clear();
        self.words.resize(words + 1, 0);
        self.skip = usize::from(!self.words.as_ptr().addr().is_multiple_of(16));
        if let Some(into) = self.words.get_mut(self.skip..self.skip + words) {
            fill(into);
        }
    }

    pub(super) fn set_ports(&mut self, ports: Parcel) {
        self.ports = Some(ports);
    }

    pub(super) fn is_copy(&self) -> bool {
        self.is_copy
    }

    /// Makes it fit for another message; gives the ports of this one.
    pub(super) fn take_ports(&mut self) -> Option<Parcel> {
        self.is_copy = false;
        self.ports.take()
    }

    #[inline(always)]
    fn bytes(&self) -> &[u8] {
        let start = 8 * self.skip;
        bytemuck::cast_slice(&self.words).get(start..start + self.len).unwrap_or_default()
    }
}

impl<'p> Message<'p> {
    #[inline(always)]
    pub(super) fn new(receiver: &'p Receiver, record: Record, aside: Option<Box<Aside>>) -> Self {
        Self { receiver, record, aside }
    }

    pub(super) fn receiver(&self) -> &'p Receiver {
        self.receiver
    }

    pub(super) fn ports(&self) -> Option<&Parcel> {
        self.aside.as_ref()?.ports.as_ref()
    }

    /// The payload, whatever its type.
    #[inline(always)]
    pub fn bytes(&self) -> &[u8] {
        match &self.aside {
            Some(aside) if aside.is_copy => aside.bytes(),
            _ => self.receiver.payload(self.record.payload_offset, self.record.payload_len),
        }
    }

    /// The type tag: 0 for bytes, else what [`tag_of_name`](crate::tag_of_name) or
    /// [`tag_of_plain_data`](crate::tag_of_plain_data) gives for the poster's type.
    pub fn tag(&self) -> u32 {
        self.record.tag
    }

    /// Whether the message is tagged as plain data of this type: for programs that receive several
    /// types on one port.
    pub fn is_pod<T: Tagged>(&self) -> bool {
        self.record.tag == plain_data_tag::<T>()
    }

    /// The payload as one value of plain data, in place.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the message carries another type or not exactly one value.
    #[inline]
    pub fn pod<T: Tagged + AnyBitPattern>(&self) -> Result<&T, DecodeError> {
        match self.pod_slice()? {
            [value] => Ok(value),
            _ => Err(self.wrong_length::<T>()),
        }
    }

    /// The payload as a slice of plain data, in place.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the message carries another type or not a whole number of values.
    #[inline]
    pub fn pod_slice<T: Tagged + AnyBitPattern>(&self) -> Result<&[T], DecodeError> {
        const {
            assert!(align_of::<T>() <= 16, "payloads are aligned to 16 bytes");
            assert!(size_of::<T>() > 0, "a value without bytes cannot be counted");
        }
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
        self.record.tag == crate::tag::value_tag::<T>()
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
        match self.record.tag {
            found if found == expected => Ok(()),
            found => Err(DecodeError::WrongType { expected, found }),
        }
    }

    #[cold]
    fn wrong_length<T>(&self) -> DecodeError {
        DecodeError::Length { len: self.bytes().len(), unit: size_of::<T>() }
    }
}

impl Drop for Message<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        match self.aside.take() {
            None => self.receiver.release(self.record.from, self.record.to),
            Some(aside) => self.receiver.let_go_aside(self.record, aside),
        }
    }
}

impl fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tag, len) = (self.tag(), self.bytes().len());
        f.debug_struct("Message").field("tag", &tag).field("len", &len).finish_non_exhaustive()
    }
}
