//! For bindings to other languages, which know types by their tags only. Not part of the interface that Rust programs
//! are promised.

use std::time::Duration;

use crate::error::{BatchError, PostError};

use super::headed::Heading;
use super::post::{Patience, Sender};
use super::transfer_list::{TransferError, TransferList};
use super::{Message, MessagePort, Trust};

/// `None` is for ever, and no time at all does not wait.
#[inline(always)]
pub(crate) fn patience(timeout: Option<Duration>) -> Patience {
    match timeout {
        None => Patience::FOR_EVER,
        Some(Duration::ZERO) => Patience::None,
        Some(timeout) => Patience::at_most(timeout),
    }
}

impl MessagePort {
    #[doc(hidden)]
    #[inline]
    pub fn as_sender(&self) -> &Sender {
        self.halves().0
    }

    /// The next message, if it is there, and as most are.
    #[doc(hidden)]
    #[inline(always)]
    pub fn recv_at_once(&self) -> Option<Message<'_>> {
        let receiver = self.halves().1;
        receiver.peek_in_place().map(|record| receiver.hand_out_in_place(record))
    }
}

impl Sender {
    #[doc(hidden)]
    pub fn trust(&self) -> Trust {
        self.hold().endpoint.trust()
    }

    /// Posts if there is room in the first ring, and nothing else is in the way. Where it does not, a post may follow: if
    /// something was published, this end is closed by now.
    #[doc(hidden)]
    #[inline(always)]
    pub fn post_at_once(&self, bytes: &[u8], tag: u32) -> bool {
        let (first, len) = (self.queue().first(), bytes.len());
        let next = if self.is_ready() { first.reserve_next(len as u64) } else { None };
        next.is_some_and(|reservation| {
            first.memory().place(&reservation).write(bytes);
            self.publish_next(reservation, len, tag).is_ok()
        })
    }

    #[doc(hidden)]
    #[inline]
    pub fn post_foreign(
        &self,
        bytes: &[u8],
        tag: u32,
        timeout: Option<Duration>,
    ) -> Result<(), PostError> {
        self.post_raw(bytes, tag, patience(timeout))
    }

    #[doc(hidden)]
    pub fn post_foreign_with(
        &self,
        bytes: &[u8],
        tag: u32,
        list: TransferList,
        timeout: Option<Duration>,
    ) -> Result<(), TransferError> {
        self.post_headed(Heading::none(tag), bytes, patience(timeout), list)
    }

    #[doc(hidden)]
    #[inline]
    pub fn post_all_foreign<'m>(
        &self,
        messages: impl IntoIterator<Item = (&'m [u8], u32)>,
        timeout: Option<Duration>,
    ) -> Result<usize, BatchError> {
        let patience = patience(timeout);
        self.post_each(messages, |(bytes, tag)| self.post_raw(bytes, tag, patience))
    }
}
