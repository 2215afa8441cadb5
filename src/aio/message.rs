//! A received message that may go from thread to thread with its task.
//!
//! # Invariants
//!
//! * **E1** An [`AsyncMessage`] is made of an exclusive borrow of its receiving half, which lasts as long as the
//!   message. So nobody else has that half meanwhile: who sends the message to another thread, sends the half
//!   there, and a [`Receiver`] is `Send`.
//! * **E2** What a message has beside its half is `Send` (`port/message.rs` has the compiler check it).
#![allow(unsafe_code)]

use std::fmt;
use std::ops::Deref;

use crate::Message;
use crate::Receiver;
use crate::error::RecvError;

/// A [`Message`] that was received by a future. It is `Send`, other than those of a port in a thread, and so may be
/// held while its task waits for something else.
///
/// It borrows the receiving half: there is one at a time.
pub struct AsyncMessage<'r>(Message<'r>);

// SAFETY: E1 and E2: it goes together with the half that it borrows, and all of it may go. (It is not `Sync`: a
// shared message would be a shared half.)
unsafe impl Send for AsyncMessage<'_> {}

impl<'r> AsyncMessage<'r> {
    /// Takes the next message off a half.
    pub(super) fn take(receiver: &'r mut Receiver) -> Result<Self, RecvError> {
        receiver.try_next().map(Self)
    }
}

impl<'r> Deref for AsyncMessage<'r> {
    type Target = Message<'r>;

    fn deref(&self) -> &Message<'r> {
        &self.0
    }
}

impl fmt::Debug for AsyncMessage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
