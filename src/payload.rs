//! rkyv at the edge: archiving into whatever takes bytes, and validated access to bytes.

use std::cell::Cell;
use std::fmt;
use std::num::NonZeroUsize;

use rkyv::api::high::{HighSerializer, HighValidator};
use rkyv::api::{access_with_context, serialize_using};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::{self, Source, Trace};
use rkyv::ser::allocator::{Arena, ArenaHandle};
use rkyv::ser::sharing::Share;
use rkyv::ser::{Positional, Serializer, Writer};
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

/// The rkyv serialiser of a value that is posted.
pub type Encoder<'a> = HighSerializer<EncodeWriter<'a>, ArenaHandle<'a>, EncodeError>;

/// Where an archive goes.
pub(crate) enum Room<'a> {
    /// Memory that is made longer if need be, up to so many bytes.
    Scratch(&'a mut Vec<u8>, usize),
    /// Memory that is as long as it is.
    Fixed(&'a mut [u8]),
}

/// The writer behind [`Encoder`]: it writes what there is room for, and counts everything.
pub struct EncodeWriter<'a> {
    room: Room<'a>,
    len: usize,
}

impl EncodeWriter<'_> {
    #[inline(always)]
    fn room(&mut self, to: usize) -> Option<&mut [u8]> {
        let room = match &mut self.room {
            Room::Scratch(bytes, _) => bytes.as_mut_slice(),
            Room::Fixed(bytes) => bytes,
        };
        room.get_mut(self.len..to)
    }

    /// Makes room up to `to`; false if there must not be so much.
    #[cold]
    #[inline(never)]
    fn grow(&mut self, to: usize) -> bool {
        let Room::Scratch(bytes, limit) = &mut self.room else { return false };
        let is_allowed = to <= *limit;
        if is_allowed {
            let step = to.next_power_of_two().clamp(MIN_SCRATCH, MAX_STEP);
            bytes.resize(to.next_multiple_of(step), 0);
        }
        is_allowed
    }
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
        let to = self.len + bytes.len();
        if let Some(room) = self.room(to) {
            room.copy_from_slice(bytes);
        } else if self.grow(to) {
            return self.write(bytes);
        } else if to as u64 > MAX_VALUE {
            // Beyond, rkyv panics.
            return Err(EncodeError(None));
        }
        self.len = to;
        Ok(())
    }
}

/// The error of [`Encoder`].
#[derive(Debug)]
pub struct EncodeError(Option<rancor::Error>);

impl EncodeError {
    /// What the value's serialiser said; `None` if no archive is so long.
    pub(crate) fn into_source(self) -> Option<Box<dyn std::error::Error + Send + Sync>> {
        self.0.map(Into::into)
    }
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(error) => error.fmt(f),
            None => write!(f, "more than {MAX_VALUE} bytes"),
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

/// Archives a value into `room`; gives the length of the archive, which may be more than there is room for.
#[inline(always)] // a copy of `room` would wait for the message before
pub(crate) fn encode<T: Postable>(
    value: &T,
    room: Room<'_>,
    arena: &mut Arena,
) -> Result<usize, EncodeError> {
    let writer = EncodeWriter { room, len: 0 };
    let mut serializer = Serializer::new(writer, arena.acquire(), Share::new());
    serialize_using(value, &mut serializer)?;
    Ok(serializer.writer.len)
}

/// What a serialiser needs: memory that each thread keeps for the next one.
#[derive(Default)]
pub(crate) struct Scratch {
    pub(crate) bytes: Vec<u8>,
    pub(crate) arena: Arena,
}

const MIN_SCRATCH: usize = 512;
/// Twice as much as is needed, but not when it is much.
const MAX_STEP: usize = 1 << 20;
/// More is not kept: whoever has posted one long value would hold it.
const MAX_SCRATCH: usize = 64 << 10;

thread_local!(static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) });

impl Scratch {
    /// That of this thread, until it is [put back](Self::put_back). As [`rkyv::util::with_arena`], but a thread
    /// may post until its very end, from the destructors of its thread-locals. A serialiser that posts
    /// finds the place empty, and works with a scratch of its own.
    #[inline]
    pub(crate) fn take() -> Box<Self> {
        SCRATCH.try_with(Cell::take).ok().flatten().unwrap_or_default()
    }

    #[inline]
    pub(crate) fn put_back(mut self: Box<Self>) {
        if self.bytes.len() > MAX_SCRATCH || self.arena.shrink() > MAX_SCRATCH {
            *self = Self::default();
        }
        // Fails only when the thread is ending.
        let _ = SCRATCH.try_with(|place| place.set(Some(self)));
    }
}

/// The longest archive: rkyv's pointers are relative, and 32 bits wide.
pub(crate) const MAX_VALUE: u64 = i32::MAX as u64;

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
