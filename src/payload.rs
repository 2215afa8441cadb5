//! rkyv at the edge: archiving into whatever takes bytes, and validated access to bytes.

use std::cell::Cell;
use std::fmt;
use std::num::NonZeroUsize;

use rkyv::api::access_with_context;
use rkyv::api::high::{HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::{self, Source, Trace};
use rkyv::ser::allocator::{Arena, ArenaHandle};
use rkyv::ser::{Positional, Writer};
use rkyv::validation::Validator;
use rkyv::validation::archive::ArchiveValidator;
use rkyv::validation::shared::SharedValidator;
use rkyv::{Archive, Portable, Serialize};

use crate::error::DecodeError;
use crate::tag::Tagged;

/// A value that can be posted: its type declares a name and can be serialised by rkyv.
///
/// Implemented for every [`Tagged`] type with `#[derive(rkyv::Archive, rkyv::Serialize)]`. For
/// functions that post what they are given:
///
/// ```
/// use zeroport::{MessageChannel, MessagePort, PostError, Postable};
///
/// fn post_twice<T: Postable>(port: &MessagePort, value: &T) -> Result<(), PostError> {
///     port.post(value)?;
///     port.post(value)
/// }
///
/// let MessageChannel { port1, port2 } = MessageChannel::new()?;
/// post_twice(&port1, &"echo".to_string())?;
/// assert_eq!(port2.drain().count(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Postable: Tagged + for<'a> Serialize<Encoder<'a>> {}

impl<T: Tagged + for<'a> Serialize<Encoder<'a>>> Postable for T {}

/// A value that can be read in place: its type declares a name, and its archived form can be
/// validated.
///
/// Implemented for every [`Tagged`] type with `#[derive(rkyv::Archive)]`. A value of a recursive type
/// may be nested up to 256 levels deep; what is deeper is refused, so that no one can overflow the
/// reader's stack.
pub trait Readable:
    Tagged + Archive<Archived: Portable + for<'a> CheckBytes<HighValidator<'a, rancor::Error>>>
{
}

impl<T> Readable for T where
    T: Tagged + Archive<Archived: Portable + for<'a> CheckBytes<HighValidator<'a, rancor::Error>>>
{
}

/// The rkyv serialiser that writes into a ring.
pub type Encoder<'a> = HighSerializer<EncodeWriter<'a>, ArenaHandle<'a>, EncodeError>;

/// Takes the bytes of a payload as they come.
pub(crate) trait Sink {
    /// Takes more bytes. `None` if there is no room for them.
    fn put(&self, bytes: &[u8]) -> Option<()>;
}

/// The writer behind [`Encoder`].
pub struct EncodeWriter<'a> {
    sink: &'a dyn Sink,
    len: usize,
}

impl fmt::Debug for EncodeWriter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncodeWriter").field("len", &self.len).finish_non_exhaustive()
    }
}

impl Positional for EncodeWriter<'_> {
    #[inline]
    fn pos(&self) -> usize {
        self.len
    }
}

impl Writer<EncodeError> for EncodeWriter<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.sink.put(bytes).ok_or(EncodeError(None))?;
        self.len += bytes.len();
        Ok(())
    }
}

/// The error of [`Encoder`].
#[derive(Debug)]
pub struct EncodeError(Option<rancor::Error>);

impl EncodeError {
    /// What the value's serialiser said; `None` if the sink had no more room.
    pub(crate) fn into_source(self) -> Option<Box<dyn std::error::Error + Send + Sync>> {
        self.0.map(Into::into)
    }
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(error) => error.fmt(f),
            None => f.write_str("no room for the value"),
        }
    }
}

impl std::error::Error for EncodeError {}

impl Trace for EncodeError {
    fn trace<R: fmt::Debug + fmt::Display + Send + Sync + 'static>(self, trace: R) -> Self {
        Self(self.0.map(|error| error.trace(trace)))
    }
}

impl Source for EncodeError {
    fn new<T: std::error::Error + Send + Sync + 'static>(source: T) -> Self {
        Self(Some(Source::new(source)))
    }
}

/// Archives a value into a sink; gives the length of the archive.
pub(crate) fn encode<T: Postable>(value: &T, sink: &dyn Sink) -> Result<usize, EncodeError> {
    with_scratch(|scratch| {
        let writer = EncodeWriter { sink, len: 0 };
        let writer = rkyv::api::high::to_bytes_in_with_alloc(value, writer, scratch.acquire())?;
        Ok(writer.len)
    })
}

/// Lends the scratch arena of this thread. As [`rkyv::util::with_arena`], but a thread may post until
/// its very end, from the destructors of its thread-locals.
#[inline]
fn with_scratch<T>(work: impl FnOnce(&mut Arena) -> T) -> T {
    thread_local!(static SCRATCH: Cell<Option<Arena>> = const { Cell::new(None) });
    // A serialiser that posts finds the place empty and works in an arena of its own.
    let mut scratch = SCRATCH.try_with(Cell::take).ok().flatten().unwrap_or_default();
    let done = work(&mut scratch);
    scratch.shrink();
    // Fails only when the thread is ending.
    let _ = SCRATCH.try_with(|place| place.set(Some(scratch)));
    done
}

/// The longest archive: rkyv's pointers are relative, and 32 bits wide.
pub(crate) const MAX_VALUE: u64 = i32::MAX as u64;

/// A sink that only counts, as far as an archive can reach. (Beyond, rkyv panics.)
#[derive(Default)]
pub(crate) struct Count(Cell<u64>);

impl Count {
    pub(crate) fn len(&self) -> u64 {
        self.0.get()
    }
}

impl Sink for Count {
    fn put(&self, bytes: &[u8]) -> Option<()> {
        let len = self.0.get() + bytes.len() as u64;
        self.0.set(len);
        (len <= MAX_VALUE).then_some(())
    }
}

/// How many levels deep a value may be nested.
///
/// The validator follows them by recursion: without a limit, a recursive type and eight bytes for
/// each level would let the other side overflow the reader's stack.
const MAX_LEVELS: usize = 256;

/// [`MAX_LEVELS`] as rkyv counts: from the archive itself down to zero.
const MAX_DEPTH: Option<NonZeroUsize> = NonZeroUsize::new(MAX_LEVELS + 2);

/// Validates bytes as the archive of a `T`. The bytes start at a multiple of 16.
#[inline]
pub(crate) fn access<T: Readable>(bytes: &[u8]) -> Result<&T::Archived, DecodeError> {
    const { assert!(align_of::<T::Archived>() <= 16, "payloads are aligned to 16 bytes") };
    let archive = ArchiveValidator::with_max_depth(bytes, MAX_DEPTH);
    let mut validator = Validator::new(archive, SharedValidator::new());
    access_with_context::<T::Archived, _, rancor::Error>(bytes, &mut validator)
        .map_err(|error| DecodeError::Invalid(error.into()))
}

#[cfg(test)]
mod tests {
    use rkyv::util::AlignedVec;
    use rkyv::validation::ArchiveContext;

    use super::*;

    #[derive(Archive)]
    #[rkyv(bytecheck(bounds(__C: ArchiveContext, __C::Error: Source)))]
    struct Tree {
        #[rkyv(omit_bounds)]
        _branches: Vec<Tree>,
    }

    impl Tagged for Tree {
        const NAME: &'static str = "test.Tree";
    }

    /// A tree without forks, by hand: each level is the offset of its one branch, and their number.
    fn tree(depth: usize) -> AlignedVec {
        let mut bytes = AlignedVec::new();
        bytes.extend_from_slice(&[0; 8]);
        for _ in 1..depth {
            bytes.extend_from_slice(&(-8i32).to_le_bytes());
            bytes.extend_from_slice(&1u32.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn a_value_may_be_nested_deeply_but_not_without_end() {
        for depth in [1, 2, MAX_LEVELS] {
            assert!(access::<Tree>(&tree(depth)).is_ok(), "{depth} deep");
        }
        for depth in [MAX_LEVELS + 1, 1 << 20] {
            let bytes = tree(depth);
            let refused = access::<Tree>(&bytes);
            assert!(matches!(refused, Err(DecodeError::Invalid(_))), "{depth} deep");
        }
    }
}
