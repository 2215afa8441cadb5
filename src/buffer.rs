//! Buffers: memory of their own that is filled by one process and then given away, without a copy.

use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::BorrowedFd;

use bytemuck::{AnyBitPattern, NoUninit};
use rustix::io::Errno;

use crate::block::{Block, Sealed, Unsealed};
use crate::error::DecodeError;

/// Bytes in shared memory of their own, to be filled in place and then given away.
///
/// A buffer is a slice of bytes, all zero at first. It is nobody else's as long as it is a `Buffer`. To be
/// given away it is sealed: the kernel refuses all writing from then on, to everybody and for ever. So
/// whoever gets it, as a [`SealedBuffer`], reads it where it lies; no byte is copied on the way.
///
/// ```
/// use zeroport::{Buffer, SealedBuffer};
///
/// let mut buffer = Buffer::new(3 * 4)?;
/// buffer.as_pod_slice_mut::<f32>()?.copy_from_slice(&[0.5, 1.5, 2.5]);
/// buffer[11] = 0; // also a slice of bytes
///
/// let sealed: SealedBuffer = buffer.seal()?;
/// assert_eq!(sealed.pod_slice::<f32>()?[..2], [0.5, 1.5]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// After that there is no buffer that could be written:
///
/// ```compile_fail,E0382
/// # let mut buffer = zeroport::Buffer::new(1)?;
/// let sealed = buffer.seal()?;
/// buffer[0] = 1; // error: borrow of moved value
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// It starts at a multiple of 4096 bytes, takes a whole number of such pages, and one descriptor
/// (`RLIMIT_NOFILE`). All its memory is taken when it is made. It is freed when the last process that has
/// it has dropped it, or ended.
///
/// # After a fork
///
/// A buffer belongs to the process that has made it. In a child that was forked without `exec`, the copy is
/// empty (its length is 0), and [`seal`](Self::seal) is refused with [`BufferError::Detached`]. A slice of
/// it that was borrowed *before* the fork leads to no memory in the child, which ends with `SIGSEGV` if it
/// uses it. Dropping the copy does no harm. The memory is freed once the child has dropped its copy too,
/// has called `exec`, or has ended.
///
/// # See also
///
/// memfd_create(2), "File sealing" in fcntl(2), and `MADV_DONTFORK` in madvise(2).
pub struct Buffer {
    block: Block,
}

impl Buffer {
    /// Makes a buffer of `len` bytes, all zero. A buffer of no bytes is a buffer, too.
    ///
    /// # Errors
    ///
    /// [`BufferError::Os`] if memory or descriptors have run out. Where the kernel promises more memory
    /// than there is, its out-of-memory killer may come first; only what the machine could never hold is
    /// refused at once.
    ///
    /// ```
    /// use zeroport::{Buffer, BufferError};
    ///
    /// let buffer = Buffer::new(5000)?;
    /// assert_eq!(buffer[..], [0; 5000]);
    /// assert!(matches!(Buffer::new(usize::MAX), Err(BufferError::Os { len: usize::MAX, .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(len: usize) -> Result<Self, BufferError> {
        match Block::create(len as u64) {
            Ok(block) => Ok(Self { block }),
            Err(errno) => Err(BufferError::Os { len, source: errno.into() }),
        }
    }

    /// Makes a buffer with a copy of these bytes.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    ///
    /// ```
    /// use zeroport::Buffer;
    ///
    /// let mut buffer = Buffer::from_slice(b"copied")?;
    /// buffer.make_ascii_uppercase();
    /// assert_eq!(buffer[..], *b"COPIED");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn from_slice(bytes: &[u8]) -> Result<Self, BufferError> {
        let mut buffer = Self::new(bytes.len())?;
        buffer.copy_from_slice(bytes);
        Ok(buffer)
    }

    /// The buffer as a slice of plain data, in place.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Length`] if it is not a whole number of values long.
    pub fn as_pod_slice<T: AnyBitPattern>(&self) -> Result<&[T], DecodeError> {
        pods(self)
    }

    /// The buffer as a slice of plain data, to be filled in place.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Length`] if it is not a whole number of values long.
    ///
    /// ```
    /// use zeroport::{Buffer, DecodeError};
    ///
    /// let mut buffer = Buffer::new(16)?;
    /// buffer.as_pod_slice_mut()?.copy_from_slice(&[1u64, 2]);
    /// assert_eq!(buffer.as_pod_slice::<u64>()?, [1, 2]);
    ///
    /// let refused = buffer.as_pod_slice::<[u8; 3]>();
    /// assert!(matches!(refused, Err(DecodeError::Length { len: 16, unit: 3 })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn as_pod_slice_mut<T: AnyBitPattern + NoUninit>(
        &mut self,
    ) -> Result<&mut [T], DecodeError> {
        const { assert_countable::<T>() };
        let len = self.len();
        if len == 0 {
            return Ok(&mut []);
        }
        bytemuck::try_cast_slice_mut(self).map_err(|_| wrong_length::<T>(len))
    }

    /// Ends all writing: from now on the buffer can only be read, here and wherever it goes.
    ///
    /// A buffer that is given away with a message need not be sealed before.
    ///
    /// # Errors
    ///
    /// [`BufferError::Seal`] if the kernel refuses, [`BufferError::Detached`] in a forked child. The
    /// buffer is gone then.
    ///
    /// ```
    /// use zeroport::Buffer;
    ///
    /// let mut buffer = Buffer::new(2)?;
    /// buffer.copy_from_slice(b"ok");
    /// assert_eq!(buffer.seal()?[..], *b"ok");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn seal(self) -> Result<SealedBuffer, BufferError> {
        let sealed = self.into_sealed_memory().map_err(|(_, error)| error)?;
        Ok(SealedBuffer::from_sealed(sealed))
    }

    /// What can be sent. If that fails the buffer comes back, but for the rare case that it could not even
    /// be mapped again.
    pub(crate) fn into_sealed_memory(self) -> Result<Sealed, (Option<Self>, BufferError)> {
        if !self.block.is_original() {
            return Err((Some(self), BufferError::Detached));
        }
        let len = self.len();
        self.block.seal().map_err(|Unsealed { block, errno }| {
            (block.map(|block| Self { block }), BufferError::seal(len, errno))
        })
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.block.as_slice()
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.block.as_mut_slice()
    }
}

impl TryFrom<&[u8]> for Buffer {
    type Error = BufferError;

    fn try_from(bytes: &[u8]) -> Result<Self, BufferError> {
        Self::from_slice(bytes)
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// Bytes in shared memory that can be read, and never again be written, whoever has made them.
///
/// What a [`Buffer`] becomes when it is sealed, and how it arrives. The kernel holds the promise, and it was
/// verified when the buffer came: so the bytes lie still also if a stranger has sent them. They are *that
/// stranger's* bytes all the same, to be checked as any input; but a check holds for good.
///
/// It can be given away again, without a copy. For bytes to write there is [`to_buffer`](Self::to_buffer).
///
/// ```
/// use zeroport::Buffer;
///
/// let sealed = Buffer::from_slice(b"for all")?.seal()?;
/// assert_eq!(&sealed[..3], b"for");
///
/// let mut copy = sealed.to_buffer()?;
/// copy[4..].copy_from_slice(b"one");
/// assert_eq!(copy[..], *b"for one");
/// assert_eq!(sealed[..], *b"for all");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// It starts at a multiple of 4096 bytes and takes one descriptor. A forked child has a copy that can be
/// used and dropped as the parent's; the memory is freed when all are dropped.
pub struct SealedBuffer {
    sealed: Sealed,
}

impl SealedBuffer {
    pub(crate) fn from_sealed(sealed: Sealed) -> Self {
        Self { sealed }
    }

    /// To be sent, with the length.
    pub(crate) fn memfd(&self) -> BorrowedFd<'_> {
        self.sealed.memfd()
    }

    /// The bytes as a slice of plain data, in place. They carry no tag: what they are is for the message to
    /// say.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Length`] if they are not a whole number of values.
    ///
    /// ```
    /// use zeroport::{Buffer, DecodeError};
    ///
    /// let sealed = Buffer::from_slice(&[1, 0, 2, 0])?.seal()?;
    /// assert_eq!(sealed.pod_slice::<u16>()?, [1, 2]);
    ///
    /// let refused = sealed.pod_slice::<[u8; 3]>();
    /// assert!(matches!(refused, Err(DecodeError::Length { len: 4, unit: 3 })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn pod_slice<T: AnyBitPattern>(&self) -> Result<&[T], DecodeError> {
        pods(self)
    }

    /// A copy of one's own, which can be written.
    ///
    /// # Errors
    ///
    /// As [`Buffer::new`].
    pub fn to_buffer(&self) -> Result<Buffer, BufferError> {
        Buffer::from_slice(self)
    }
}

impl Deref for SealedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.sealed.as_slice()
    }
}

impl fmt::Debug for SealedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedBuffer").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// Why there is no buffer.
///
/// ```
/// use zeroport::Buffer;
///
/// let error = Buffer::new(1 << 60).unwrap_err();
/// assert!(error.to_string().starts_with("cannot make a buffer of 1152921504606846976 bytes"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum BufferError {
    /// The operating system refused: memory or descriptors have run out.
    #[error(
        "cannot make a buffer of {len} bytes ({source}): free descriptors or memory, or raise \
         RLIMIT_NOFILE"
    )]
    Os {
        /// Bytes asked for.
        len: usize,
        /// What the operating system said.
        source: io::Error,
    },
    /// The kernel did not make it read-only: something outside this library still maps or uses its memory
    /// (`EBUSY`, after some two seconds), or memory has run out.
    #[error(
        "cannot seal a buffer of {len} bytes ({source}): end whatever else uses its memory, or free \
         memory"
    )]
    Seal {
        /// Bytes of the buffer.
        len: usize,
        /// What the operating system said.
        source: io::Error,
    },
    /// This handle is a copy in a forked process; the buffer belongs to the parent.
    #[error("this buffer belongs to the process that this one was forked from")]
    Detached,
}

impl BufferError {
    fn seal(len: usize, errno: Errno) -> Self {
        Self::Seal { len, source: errno.into() }
    }
}

fn pods<T: AnyBitPattern>(bytes: &[u8]) -> Result<&[T], DecodeError> {
    const { assert_countable::<T>() };
    // No bytes are zero values, also in a forked child, where they lie nowhere and so are not aligned.
    if bytes.is_empty() {
        return Ok(&[]);
    }
    bytemuck::try_cast_slice(bytes).map_err(|_| wrong_length::<T>(bytes.len()))
}

const fn assert_countable<T>() {
    assert!(align_of::<T>() <= 4096, "buffers are aligned to 4096 bytes");
    assert!(size_of::<T>() > 0, "a value without bytes cannot be counted");
}

#[cold]
fn wrong_length<T>(len: usize) -> DecodeError {
    DecodeError::Length { len, unit: size_of::<T>() }
}
