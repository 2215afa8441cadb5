//! For bindings to other languages, which know types by their tags only. Not part of the interface that Rust programs
//! are promised.

use std::time::Duration;

use crate::error::{BatchError, PostError};
use crate::ring::Content;

use super::headed::Heading;
use super::post::{Patience, Sender, UNTAGGED};
use super::transfer_list::{TransferError, TransferList};
use super::{Message, MessagePort, Receiver, Trust};

/// `None` is for ever, and no time at all does not wait.
#[inline(always)]
pub(crate) fn patience(timeout: Option<Duration>) -> Patience {
    match timeout {
        None => Patience::FOR_EVER,
        Some(Duration::ZERO) => Patience::None,
        Some(timeout) => Patience::at_most(timeout),
    }
}

/// How far a post has come.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub enum AtOnce {
    Posted,
    /// The other side can see it: [`Sender::finish_post`] must follow.
    Published {
        last: u64,
    },
    NotPosted,
}

impl MessagePort {
    #[doc(hidden)]
    #[inline]
    pub fn as_sender(&self) -> &Sender {
        self.halves().0
    }

    /// As [`Receiver::sees_soon`].
    #[doc(hidden)]
    pub fn sees_soon(&self) -> bool {
        let (sender, receiver) = self.halves();
        sender.queue().first().will_wait();
        receiver.sees_soon()
    }

    #[doc(hidden)]
    #[inline]
    pub fn as_receiver(&self) -> &Receiver {
        self.halves().1
    }
}

impl Receiver {
    /// Waits a moment for a message, as a wait begins.
    #[doc(hidden)]
    pub fn sees_soon(&self) -> bool {
        self.glance()
    }

    /// The next message, if it is there, and as most are.
    #[doc(hidden)]
    #[inline(always)]
    pub fn recv_at_once(&self) -> Option<Message<'_>> {
        self.peek_in_place().map(|record| self.hand_out_in_place(record))
    }

    #[doc(hidden)]
    pub fn trust(&self) -> Trust {
        self.hold().endpoint.trust()
    }
}

impl Sender {
    #[doc(hidden)]
    pub fn trust(&self) -> Trust {
        self.hold().endpoint.trust()
    }

    /// Of fewer bytes [`post_at_once`](Self::post_at_once) calls nothing to copy them.
    #[doc(hidden)]
    pub const FEW: usize = crate::segment::FEW;

    /// Posts if there is room in the first ring, and nothing else is in the way.
    ///
    /// Written so that nothing is called on the way: what is saved for a call is stored, and stores wait for the ring's.
    /// (So closures, which may not be inlined, are none here either.)
    #[doc(hidden)]
    #[inline(always)]
    pub fn post_at_once(&self, bytes: &[u8]) -> AtOnce {
        let (first, hold) = (self.queue().first(), self.hold());
        if !self.is_ready() || self.batching.get() {
            return AtOnce::NotPosted;
        }
        let Some(next) = first.reserve_here(bytes.len() as u64) else {
            return AtOnce::NotPosted;
        };
        first.memory().place(&next).write(bytes);
        let last = first.position();
        let is_due = first.publish_only(next, Content::plain(bytes.len(), UNTAGGED));
        let endpoint = &hold.endpoint;
        let is_done = hold.need_not_notify(&endpoint.peer().message_wake)
            && endpoint.is_own_open()
            && hold.waits.has_succeeded_for_long()
            && !is_due;
        if is_done { AtOnce::Posted } else { AtOnce::Published { last } }
    }

    /// The rest of a post of which [`post_at_once`](Self::post_at_once) has done the most.
    #[doc(hidden)]
    #[cold]
    #[inline(never)]
    pub fn finish_post(&self, last: u64) -> Result<(), PostError> {
        let (first, hold) = (self.queue().first(), self.hold());
        hold.waits.succeeded(&hold.endpoint.own().room_wake);
        if first.is_at_turn() {
            first.look_back(last);
        }
        hold.notify(&hold.endpoint.peer().message_wake);
        self.own_end()
    }

    /// As [`post_at_once`](Self::post_at_once), for a message of a batch.
    #[inline(always)]
    fn stage_at_once(&self, bytes: &[u8], tag: u32) -> bool {
        let first = self.queue().first();
        if !self.is_ready() || !self.hold().waits.has_succeeded_for_long() {
            return false;
        }
        let Some(next) = first.reserve_here(bytes.len() as u64) else { return false };
        first.memory().place(&next).write(bytes);
        first.stage(next, Content::plain(bytes.len(), tag));
        true
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

    /// Posts all, visible at once as far as the room allows: what `of` makes of them, bytes and tag.
    #[doc(hidden)]
    #[inline]
    pub fn post_all_foreign<'m, M>(
        &self,
        messages: &'m [M],
        of: impl Fn(&'m M) -> (&'m [u8], u32),
        timeout: Option<Duration>,
    ) -> Result<usize, BatchError> {
        let patience = patience(timeout);
        let batch = self.begin_batch();
        let (mut posted, mut refused) = (0, None);
        while refused.is_none() {
            posted += self.stage_some(messages.get(posted..).unwrap_or_default(), &of);
            let Some((bytes, tag)) = messages.get(posted).map(&of) else { break };
            match self.post_raw(bytes, tag, patience) {
                Ok(()) => posted += 1,
                Err(error) => refused = Some(error),
            }
        }
        self.end_batch(batch, posted, refused)
    }

    /// Stages messages, as long as each has room in the first ring and nothing else is in the way. (One function with nothing
    /// else in it, which calls nothing, as [`post_at_once`](Self::post_at_once).)
    #[inline(never)]
    fn stage_some<'m, M>(
        &self,
        messages: &'m [M],
        of: &impl Fn(&'m M) -> (&'m [u8], u32),
    ) -> usize {
        let is_staged = |message: &&'m M| {
            let (bytes, tag) = of(message);
            bytes.len() < Self::FEW && self.stage_at_once(bytes, tag)
        };
        messages.iter().take_while(is_staged).count()
    }
}
