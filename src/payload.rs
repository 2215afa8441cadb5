//! rkyv at the edge: archiving into whatever takes bytes, and validated access to bytes.

use std::cell::Cell;
use std::fmt;

use rkyv::api::high::{HighSerializer, HighValidator, access as rkyv_access};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::{self, Source, Trace};
use rkyv::ser::allocator::{Arena, ArenaHandle};
use rkyv::ser::{Positional, Writer};
use rkyv::{Archive, Portable, Serialize};

use crate::error::DecodeError;
use crate::tag::Tagged;

/// A value that can be posted: its type declares a name and can be serialised by rkyv.
///
/// Implemented for every [`Tagged`] type with `#[derive(rkyv::Archive, rkyv::Serialize)]`.
pub trait Postable: Tagged + for<'a> Serialize<Encoder<'a>> {}

impl<T: Tagged + for<'a> Serialize<Encoder<'a>>> Postable for T {}

/// A value that can be read in place: its type declares a name, and its archived form can be
/// validated.
///
/// Implemented for every [`Tagged`] type with `#[derive(rkyv::Archive)]`.
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

/// A sink that only counts.
pub(crate) struct Count;

impl Sink for Count {
    fn put(&self, _: &[u8]) -> Option<()> {
        Some(())
    }
}

/// Validates bytes as the archive of a `T`. The bytes start at a multiple of 16.
#[inline]
pub(crate) fn access<T: Readable>(bytes: &[u8]) -> Result<&T::Archived, DecodeError> {
    const { assert!(align_of::<T::Archived>() <= 16, "payloads are aligned to 16 bytes") };
    rkyv_access::<T::Archived, rancor::Error>(bytes)
        .map_err(|error| DecodeError::Invalid(error.into()))
}
