//! Handles in a forked child: they are its parent's, and the child can only give back its copies.
#![allow(unsafe_code)]

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::status::Failure;

/// Forks on the way from the process that was started to this one. Relaxed: changes only by a fork, which orders
/// everything.
static FORKS: AtomicU32 = AtomicU32::new(0);

#[inline(always)]
pub(crate) fn count() -> u32 {
    FORKS.load(Ordering::Relaxed)
}

/// Has forks counted from now on.
pub(crate) fn watch() -> Result<(), Failure> {
    static REFUSED: OnceLock<i32> = OnceLock::new();
    // SAFETY: a plain function that lives as long as the library.
    match REFUSED.get_or_init(|| unsafe { libc::pthread_atfork(None, None, Some(child)) }) {
        0 => Ok(()),
        refused => Err(Failure::system(&io::Error::from_raw_os_error(*refused))),
    }
}

extern "C" fn child() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}
