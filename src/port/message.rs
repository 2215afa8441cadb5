//! A received message: a view of its payload, and the room that goes back when it is dropped.

use bytemuck::AnyBitPattern;

use crate::error::DecodeError;
use crate::ring::Record;
use crate::tag::{Tagged, plain_data_tag};

use super::receive::Receiver;

/// A received message.
///
/// On a trusted port the payload lies where it was posted, in shared memory; its room goes back to
/// the poster when the message is dropped. Several messages may be held at once, and dropped in any
/// order; room goes back in the order in which they were posted. A message that is never dropped
/// (`std::mem::forget`) keeps its room, and all room after it, for ever.
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
#[derive(Debug)]
pub struct Message<'p> {
    receiver: &'p Receiver,
    from: u64,
    to: u64,
    tag: u32,
    payload: Payload<'p>,
}

/// Where the bytes of a message are.
#[derive(Debug)]
pub(super) enum Payload<'p> {
    InPlace(&'p [u8]),
    /// A private copy: `len` bytes that start `skip` words into the vector.
    Copied {
        words: Vec<u64>,
        skip: usize,
        len: usize,
    },
}

impl Payload<'_> {
    /// Has the words of a payload filled in, at a multiple of 16 bytes.
    pub(super) fn copied(mut words: Vec<u64>, len: usize, fill: impl FnOnce(&mut [u64])) -> Self {
        let skip = usize::from(!words.as_ptr().addr().is_multiple_of(16));
        if let Some(into) = words.get_mut(skip..skip + len.div_ceil(8)) {
            fill(into);
        }
        Self::Copied { words, skip, len }
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        match self {
            Self::InPlace(bytes) => bytes,
            Self::Copied { words, skip, len } => {
                bytemuck::cast_slice(words).get(8 * skip..8 * skip + len).unwrap_or_default()
            }
        }
    }
}

impl<'p> Message<'p> {
    #[inline]
    pub(super) fn new(receiver: &'p Receiver, record: Record, payload: Payload<'p>) -> Self {
        let Record { from, to, tag, .. } = record;
        Self { receiver, from, to, tag, payload }
    }

    /// The payload, whatever its type.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        self.payload.bytes()
    }

    /// The type tag: 0 for bytes, else what [`tag_of_name`](crate::tag_of_name) or
    /// [`tag_of_plain_data`](crate::tag_of_plain_data) gives for the poster's type.
    pub fn tag(&self) -> u32 {
        self.tag
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
        if self.tag != expected {
            return Err(DecodeError::WrongType { expected, found: self.tag });
        }
        Ok(())
    }

    #[cold]
    fn wrong_length<T>(&self) -> DecodeError {
        DecodeError::Length { len: self.bytes().len(), unit: size_of::<T>() }
    }
}

impl Drop for Message<'_> {
    #[inline]
    fn drop(&mut self) {
        self.receiver.release(self.from, self.to);
        if let Payload::Copied { words, .. } = &mut self.payload {
            self.receiver.reuse(std::mem::take(words));
        }
    }
}
