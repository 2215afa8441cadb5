//! `zp_buffer_…`: memory of its own that is filled, sealed and given away.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ptr;

use zeroport::{Buffer, SealedBuffer, Transferable};

use crate::boundary::{call, place};
use crate::status::{Failure, Status};
use crate::table::{Gone, Table};

/// `zp_buffer`: a handle; 0 is none.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CBuffer {
    /// A number that means something to this library only.
    pub id: u64,
}

/// All buffers of this program.
pub(crate) static BUFFERS: Table<Bytes> = Table::new(2);

/// A buffer that a C program holds.
#[derive(Debug)]
pub(crate) enum Bytes {
    Open(Buffer),
    Sealed(SealedBuffer),
    /// It is being given away.
    Away,
}

impl From<Buffer> for Bytes {
    fn from(buffer: Buffer) -> Self {
        Self::Open(buffer)
    }
}

impl From<SealedBuffer> for Bytes {
    fn from(buffer: SealedBuffer) -> Self {
        Self::Sealed(buffer)
    }
}

/// Gives a buffer a handle. Frees it if there are too many.
pub(crate) fn hold(bytes: Bytes) -> Result<u64, Failure> {
    BUFFERS.insert(bytes, ())
}

impl Bytes {
    pub(crate) fn may_leave(&self) -> Result<(), Failure> {
        if matches!(self, Self::Away) { Err(Status::Internal.into()) } else { Ok(()) }
    }

    pub(crate) fn take(&mut self) -> Result<Transferable, Failure> {
        match std::mem::replace(self, Self::Away) {
            Self::Open(buffer) => Ok(buffer.into()),
            Self::Sealed(buffer) => Ok(buffer.into()),
            Self::Away => Err(Status::Internal.into()),
        }
    }

    pub(crate) fn put_back(&mut self, thing: Transferable) {
        match thing {
            Transferable::Buffer(buffer) => *self = Self::Open(buffer),
            Transferable::SealedBuffer(buffer) => *self = Self::Sealed(buffer),
            // Not reached: they come back in their order.
            _ => {}
        }
    }

    fn read(&self) -> Result<&[u8], Failure> {
        match self {
            Self::Open(buffer) => Ok(buffer),
            Self::Sealed(buffer) => Ok(buffer),
            Self::Away => Err(Status::Internal.into()),
        }
    }
}

/// # Safety
///
/// A1: `buffer` is null or a place for one.
unsafe fn give(
    buffer: *mut CBuffer,
    make: impl FnOnce() -> Result<Bytes, Failure>,
) -> Result<(), Failure> {
    // SAFETY: A1.
    let place = unsafe { place(buffer) }?.write(CBuffer { id: 0 });
    place.id = hold(make()?)?;
    Ok(())
}

/// Makes a buffer of zeros.
///
/// # Safety
///
/// A1: `buffer` is null or a place for one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_buffer_new(len: usize, buffer: *mut CBuffer) -> Status {
    // SAFETY: A1, passed on.
    call(|| unsafe { give(buffer, || Ok(Buffer::new(len)?.into())) })
}

/// Makes a buffer that can be written, with what another one holds.
///
/// # Safety
///
/// A1: `copy` is null or a place for one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_buffer_copy(buffer: CBuffer, copy: *mut CBuffer) -> Status {
    let make = || {
        let visit = BUFFERS.enter(buffer.id)?;
        Ok(Buffer::from_slice(visit.read()?)?.into())
    };
    // SAFETY: A1, passed on.
    call(|| unsafe { give(copy, make) })
}

/// Where the bytes are, to be written.
///
/// # Safety
///
/// A1: `data` and `len` are null or places.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_buffer_write(
    buffer: CBuffer,
    data: *mut *mut c_void,
    len: *mut usize,
) -> Status {
    call(|| {
        // SAFETY: A1.
        let data = unsafe { place(data) }.map(|data| data.write(ptr::null_mut()));
        // SAFETY: A1.
        let len = unsafe { place(len) }.map(|len| len.write(0));
        let (data, len) = (data?, len?);
        match &mut *BUFFERS.enter(buffer.id)? {
            Bytes::Open(buffer) => {
                *len = buffer.len();
                *data = buffer.as_mut_ptr().cast();
                Ok(())
            }
            Bytes::Sealed(_) => Err(Status::Sealed.into()),
            Bytes::Away => Err(Status::Internal.into()),
        }
    })
}

/// Where the bytes are, to be read.
///
/// # Safety
///
/// A1: `data` and `len` are null or places.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zp_buffer_read(
    buffer: CBuffer,
    data: *mut *const c_void,
    len: *mut usize,
) -> Status {
    call(|| {
        // SAFETY: A1.
        let data = unsafe { place(data) }.map(|data| data.write(ptr::null()));
        // SAFETY: A1.
        let len = unsafe { place(len) }.map(|len| len.write(0));
        let (data, len) = (data?, len?);
        let visit = BUFFERS.enter(buffer.id)?;
        let bytes = visit.read()?;
        *len = bytes.len();
        *data = bytes.as_ptr().cast();
        Ok(())
    })
}

/// Ends all writing.
#[unsafe(no_mangle)]
pub extern "C" fn zp_buffer_seal(buffer: CBuffer) -> Status {
    call(|| {
        let mut visit = BUFFERS.enter(buffer.id)?;
        if !matches!(*visit, Bytes::Open(_)) {
            return visit.may_leave();
        }
        let Transferable::Buffer(open) = visit.take()? else {
            return Err(Status::Internal.into());
        };
        match open.seal() {
            Ok(sealed) => *visit = sealed.into(),
            // It is gone.
            Err(refused) => {
                drop(visit.leave(Gone::Closed));
                return Err(refused.into());
            }
        }
        Ok(())
    })
}

/// Frees a buffer; the handle is spent.
#[unsafe(no_mangle)]
pub extern "C" fn zp_buffer_free(buffer: CBuffer) -> Status {
    call(|| {
        drop(BUFFERS.enter_to_give_back(buffer.id)?.leave(Gone::Closed));
        Ok(())
    })
}
