//! `zp_handlers`: who listens to a port of a loop.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::boundary::{item, items, tell_errno};
use crate::message::CMessage;
use crate::port::CPort;
use crate::status::{Failure, Status};

/// `on_message`.
pub type OnMessage = unsafe extern "C" fn(*mut c_void, CPort, *mut CMessage);
/// `on_close` and `on_error`.
pub type OnStatus = unsafe extern "C" fn(*mut c_void, CPort, Status);
/// `removed`.
pub type Removed = unsafe extern "C" fn(*mut c_void);

/// `zp_handlers`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CHandlers {
    /// Bytes of the caller's struct.
    pub size: usize,
    /// A message has come.
    pub on_message: Option<OnMessage>,
    /// The channel has ended.
    pub on_close: Option<OnStatus>,
    /// The next message cannot be had.
    pub on_error: Option<OnStatus>,
    /// Nothing more comes.
    pub removed: Option<Removed>,
}

/// Handlers, and what they are called with. When the last one is done with it, the program is told that it is removed.
#[derive(Debug)]
pub(crate) struct Listener {
    handlers: CHandlers,
    /// An address of the program's.
    user: usize,
    /// Whether the last thing that was told is that a message cannot be had.
    is_failing: AtomicBool,
}

/// What a program has given as handlers.
///
/// # Safety
///
/// A1: `handlers` is null, or has as many bytes as it says; a null function is none, and others are to be called with
/// `user`.
pub(crate) unsafe fn listener(
    handlers: *const CHandlers,
    user: *mut c_void,
) -> Result<Listener, Failure> {
    // SAFETY: A1: it begins with its size.
    let size = *unsafe { item(handlers.cast::<usize>()) }?;
    let known = size_of::<CHandlers>();
    if size < known {
        return Err(Status::BadArgument.into());
    }
    // SAFETY: A1.
    let bytes = unsafe { items(handlers.cast::<u8>(), size) }?;
    // What a later version has added, this one can do without only if it is not used.
    if bytes.iter().skip(known).any(|byte| *byte != 0) {
        return Err(Status::BadArgument.into());
    }
    // SAFETY: A1: it is as large as we know it.
    let handlers = *unsafe { item(handlers) }?;
    let (user, is_failing) = (user.expose_provenance(), AtomicBool::new(false));
    Ok(Listener { handlers, user, is_failing })
}

impl Listener {
    fn user(&self) -> *mut c_void {
        ptr::with_exposed_provenance_mut(self.user)
    }

    pub(crate) fn hears_messages(&self) -> bool {
        self.handlers.on_message.is_some()
    }

    pub(crate) fn on_message(&self, port: u64, message: &mut CMessage) {
        if let Some(on_message) = self.handlers.on_message {
            // SAFETY: A1: that is what the program has given it for.
            unsafe { on_message(self.user(), CPort { id: port }, message) };
        }
    }

    pub(crate) fn on_close(&self, port: u64, reason: Status) {
        if let Some(on_close) = self.handlers.on_close {
            // SAFETY: A1, as above.
            unsafe { on_close(self.user(), CPort { id: port }, reason) };
        }
    }

    pub(crate) fn on_error(&self, port: u64, failure: Failure) {
        if let Some(on_error) = self.handlers.on_error {
            tell_errno(failure);
            // SAFETY: A1, as above.
            unsafe { on_error(self.user(), CPort { id: port }, failure.status) };
        }
    }

    /// Notes whether a message cannot be had; gives what was noted before.
    pub(crate) fn is_failing(&self, is_failing: bool) -> bool {
        // Relaxed: the loop's thread asks.
        self.is_failing.swap(is_failing, Ordering::Relaxed)
    }

    /// Goes without a word: it was never taken.
    pub(crate) fn forget(self) {
        std::mem::forget(self);
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(removed) = self.handlers.removed {
            // SAFETY: A1: that is what the program has given it for; nothing is called with the user after that.
            unsafe { removed(self.user()) };
        }
    }
}
