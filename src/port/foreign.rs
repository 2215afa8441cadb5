//! For bindings to other languages, which know types by their tags only. Not part of the interface that Rust programs
//! are promised.

use std::time::Duration;

use crate::error::{BatchError, PostError};
use crate::ring::{Content, Found, Rare};

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
    pub fn sees_soon(&self, waits: bool) -> bool {
        let (sender, receiver) = self.halves();
        receiver.sees(waits, || sender.queue().first().will_wait())
    }

    #[doc(hidden)]
    #[inline]
    pub fn as_receiver(&self) -> &Receiver {
        self.halves().1
    }
}

impl<'p> Message<'p> {
    /// Whether nothing but room in the ring goes back when it is dropped.
    #[doc(hidden)]
    #[inline(always)]
    pub fn is_in_place(&self) -> bool {
        self.parts().is_some()
    }

    /// As the drop of what is held, if that is as most are, and the oldest; calls nothing.
    #[doc(hidden)]
    #[inline(always)]
    pub fn let_go_at_once(held: &mut Option<Self>) -> LetGo<'p> {
        let Some((receiver, from, to)) = held.as_ref().and_then(Self::oldest_in_place) else {
            return LetGo::No;
        };
        std::mem::forget(held.take());
        receiver.queue().first().release_oldest(to);
        if receiver.must_give_back(from) { LetGo::Owing(receiver) } else { LetGo::Yes }
    }

    #[inline(always)]
    fn oldest_in_place(&self) -> Option<(&'p Receiver, u64, u64)> {
        let (receiver, (from, to)) = (self.receiver(), self.parts()?);
        receiver.queue().first().is_oldest(from).then_some((receiver, from, to))
    }
}

/// What came of a message that was to be let go at once.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub enum LetGo<'p> {
    Yes,
    /// The receiver must still [give room back](Receiver::give_back_at_once).
    Owing(&'p Receiver),
    No,
}

/// A receiver on which messages come as most do: a trusted one, and open when that was looked at.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Usual<'p>(&'p Receiver);

impl<'p> Usual<'p> {
    /// The next message, if it is there, and as most are; calls nothing.
    #[doc(hidden)]
    #[inline(always)]
    pub fn recv(self) -> Option<Message<'p>> {
        let ring = self.0.queue().first();
        let record = ring.peek_usual()?;
        ring.take(record.to);
        Some(Message::in_place(self.0, record))
    }

    /// Notes that a message was received so, if that means something yet.
    #[doc(hidden)]
    #[inline(always)]
    pub fn note(self) {
        if !self.0.hold().waits.has_succeeded_for_long() {
            self.0.note_success();
        }
    }
}

impl Receiver {
    /// False if the poster must still be [told](Self::tell_of_room).
    #[doc(hidden)]
    #[inline(always)]
    pub fn give_back_at_once(&self) -> bool {
        self.queue().first().give_back();
        self.hold().need_not_notify(&self.hold().endpoint.peer().room_wake)
    }

    #[doc(hidden)]
    #[cold]
    #[inline(never)]
    pub fn tell_of_room(&self) {
        self.notify_of_room();
    }

    /// If messages may be taken from it as most are.
    #[doc(hidden)]
    #[inline(always)]
    pub fn usual(&self) -> Option<Usual<'_>> {
        let hold = self.hold();
        let is_usual = hold.endpoint.may_receive() && hold.endpoint.trust() == Trust::Trusted;
        is_usual.then_some(Usual(self))
    }

    /// Whether [`Usual::recv`] should be tried again: after a moment's waiting, if the caller `waits`.
    #[doc(hidden)]
    pub fn sees_soon(&self, waits: bool) -> bool {
        self.sees(waits, || ())
    }

    /// As [`sees_soon`](Self::sees_soon). Where a wait begins, `before` is called.
    #[inline(always)]
    fn sees(&self, waits: bool, before: impl FnOnce()) -> bool {
        if !self.queue().first().is_empty() {
            return self.clears_the_way();
        }
        if waits {
            before();
        }
        waits && self.glance()
    }

    #[cold]
    #[inline(never)]
    fn note_success(&self) {
        self.hold().waits.succeeded(&self.hold().endpoint.own().message_wake);
    }

    /// Whether [`Usual::recv`] takes the next message if it is tried again, now that the end of a lap or a length that is
    /// not usual was dealt with.
    #[doc(hidden)]
    #[inline(never)]
    pub fn clears_the_way(&self) -> bool {
        self.hold().endpoint.may_receive()
            && matches!(self.queue().first().peek(), Found::Record(record) if record.rare == Rare::NOTHING)
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

    /// As [`post_at_once`](Self::post_at_once), where a lap begins, or room was given back. `None`: not posted.
    #[doc(hidden)]
    pub fn post_next(&self, bytes: &[u8]) -> Option<Result<(), PostError>> {
        if !self.is_ready() || self.batching.get() {
            return None;
        }
        let next = self.queue().first().reserve(bytes.len() as u64).ok()?;
        self.queue().first().memory().place(&next).write(bytes);
        Some(self.publish_next(next, bytes.len(), UNTAGGED))
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
