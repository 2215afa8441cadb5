//! Where C meets Rust: pointers in, statuses out, no panic across.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char};
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::status::{Failure, Status};

/// Runs the body of a function that C calls.
#[inline(always)]
pub(crate) fn call(body: impl FnOnce() -> Result<(), Failure>) -> Status {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => Status::Ok,
        Ok(Err(failure)) => told(failure),
        Err(panic) => {
            // Its drop could panic again.
            std::mem::forget(panic);
            Status::Internal
        }
    }
}

#[cold]
pub(crate) fn told(failure: Failure) -> Status {
    tell_errno(failure);
    failure.status
}

/// Has errno say why, if it was the system.
pub(crate) fn tell_errno(failure: Failure) {
    if let Some(errno) = failure.errno() {
        // SAFETY: it is always this thread's.
        let place = unsafe { libc::__errno_location() };
        // SAFETY: as above.
        unsafe { *place = errno };
    }
}

/// A place of the caller's that is to be written.
///
/// # Safety
///
/// A1: null, or a place for a `T`, nobody else's during the call.
#[inline(always)]
pub(crate) unsafe fn place<'a, T>(pointer: *mut T) -> Result<&'a mut MaybeUninit<T>, Failure> {
    // SAFETY: A1, passed on.
    let places = unsafe { places(pointer, 1) }?;
    places.first_mut().ok_or_else(|| Status::BadArgument.into())
}

/// Places of the caller's that are to be written.
///
/// # Safety
///
/// A1: null, or places for `count` of `T`, nobody else's during the call.
#[inline(always)]
pub(crate) unsafe fn places<'a, T>(
    pointer: *mut T,
    count: usize,
) -> Result<&'a mut [MaybeUninit<T>], Failure> {
    if count == 0 {
        return Ok(&mut []);
    }
    check(pointer, count)?;
    // SAFETY: A1; it is neither null nor misaligned, and not larger than any memory.
    Ok(unsafe { std::slice::from_raw_parts_mut(pointer.cast(), count) })
}

/// What the caller has somewhere.
///
/// # Safety
///
/// A1: null, or `count` of `T`, which nobody changes during the call.
#[inline(always)]
pub(crate) unsafe fn items<'a, T>(pointer: *const T, count: usize) -> Result<&'a [T], Failure> {
    if count == 0 {
        return Ok(&[]);
    }
    check(pointer, count)?;
    // SAFETY: A1; it is neither null nor misaligned, and not larger than any memory.
    Ok(unsafe { std::slice::from_raw_parts(pointer, count) })
}

/// What the caller has somewhere, to be changed.
///
/// # Safety
///
/// A1: null, or `count` of `T`, nobody else's during the call.
pub(crate) unsafe fn items_mut<'a, T>(
    pointer: *mut T,
    count: usize,
) -> Result<&'a mut [T], Failure> {
    if count == 0 {
        return Ok(&mut []);
    }
    check(pointer, count)?;
    // SAFETY: A1; it is neither null nor misaligned, and not larger than any memory.
    Ok(unsafe { std::slice::from_raw_parts_mut(pointer, count) })
}

/// One thing that the caller has.
///
/// # Safety
///
/// A1: null, or a `T` that nobody changes during the call.
pub(crate) unsafe fn item<'a, T>(pointer: *const T) -> Result<&'a T, Failure> {
    // SAFETY: A1, passed on.
    let items = unsafe { items(pointer, 1) }?;
    items.first().ok_or_else(|| Status::BadArgument.into())
}

/// A text of the caller's, without its zero.
///
/// # Safety
///
/// A1: null, or a text that ends with a zero and that nobody changes during the call.
pub(crate) unsafe fn text<'a>(pointer: *const c_char) -> Result<&'a CStr, Failure> {
    if pointer.is_null() {
        return Err(Status::BadArgument.into());
    }
    // SAFETY: A1.
    Ok(unsafe { CStr::from_ptr(pointer) })
}

#[inline(always)]
fn check<T>(pointer: *const T, count: usize) -> Result<(), Failure> {
    let fits =
        count.checked_mul(size_of::<T>()).is_some_and(|bytes| isize::try_from(bytes).is_ok());
    if fits && !pointer.is_null() && pointer.is_aligned() {
        Ok(())
    } else {
        Err(Status::BadArgument.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_does_not_cross() {
        assert_eq!(call(|| panic!("a bug")), Status::Internal);
        assert_eq!(call(|| Ok(())), Status::Ok);
    }

    #[test]
    fn errno_says_what_the_system_said() {
        let refused = std::io::Error::from_raw_os_error(libc::EMFILE);
        assert_eq!(call(|| Err(Failure::system(&refused))), Status::System);
        assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EMFILE));
    }
}
