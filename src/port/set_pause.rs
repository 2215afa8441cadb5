//! Members of a set that are not listened to for a while.
//!
//! A paused member that has a message is *stalled*: it is in no list, its wake word says that nobody sleeps, and the
//! kernel does not tell of its line any more. So it costs nothing, however much waits there.

use std::hash::Hash;
use std::os::fd::OwnedFd;

use rustix::event::epoll;

use crate::error::RecvError;

use super::message::Message;
use super::set::PortSet;
use super::set_events::{Member, State, WATCHED};

impl<K: Clone + Eq + Hash> PortSet<K> {
    /// Stops listening to a port, until it is [resumed](Self::resume): its messages wait, in their order, and nothing is
    /// told of them. False if there is no such port. Never waits.
    ///
    /// Its end is told all the same where no message waits before it, and so is a [`Closer`](crate::Closer)'s close, which
    /// drops what waits. A paused port costs no processor time, also while messages wait and after its other end has hung
    /// up.
    ///
    /// ```
    /// use zeroport::{Event, MessageChannel, PortSet};
    ///
    /// let mut set = PortSet::new()?;
    /// let MessageChannel { port1, port2 } = MessageChannel::new()?;
    /// set.insert("busy", port2)?;
    /// port1.post_bytes(b"work")?;
    /// assert!(set.pause(&"busy"));
    /// assert!(set.poll()?.next().is_none());
    ///
    /// assert!(set.resume(&"busy"));
    /// let event = set.poll()?.next();
    /// assert!(matches!(event, Some(("busy", Event::Message(_, message))) if message.bytes() == b"work"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn pause(&mut self, key: &K) -> bool {
        self.lookup().get(key).map(|member| member.is_paused.set(true)).is_some()
    }

    /// Listens to a paused port again: what waits in it is told at the next wait. False if there is no such port. Never
    /// waits.
    pub fn resume(&mut self, key: &K) -> bool {
        let Some(index) = self.places.get(key).copied() else { return false };
        let Some(member) = self.members.get(index) else { return false };
        member.is_paused.set(false);
        if member.is(State::Stalled) {
            if self.shared.is_original() {
                member.watch_for(&self.epoll, index, WATCHED);
            }
            member.state.set(State::Ready);
            self.ready.push_back(index);
        }
        let is_there = !member.is(State::Over);
        self.speak_up();
        is_there
    }
}

impl<K> Member<K> {
    /// The next message, or the end; of one that is paused only the end, where nothing waits before it.
    #[inline(always)]
    pub(super) fn try_next(&self, epoll: &OwnedFd, index: usize) -> Result<Message<'_>, RecvError> {
        if !self.is_paused.get() {
            return self.port.try_next();
        }
        match self.port.try_end() {
            Some(reason) => Err(RecvError::Closed(reason)),
            None => {
                self.stall_if_it_waits(epoll, index);
                Err(RecvError::Empty)
            }
        }
    }

    /// Whether there is something to tell.
    pub(super) fn has_news(&self, epoll: &OwnedFd, index: usize) -> bool {
        if !self.is_paused.get() {
            return self.port.receiver.has_next_or_end();
        }
        self.port.try_end().is_some() || {
            self.stall_if_it_waits(epoll, index);
            false
        }
    }

    fn stall_if_it_waits(&self, epoll: &OwnedFd, index: usize) {
        if self.port.receiver.has_next() {
            self.stall(epoll, index);
        }
    }

    /// Has nobody look at it before it is resumed.
    pub(super) fn stall(&self, epoll: &OwnedFd, index: usize) {
        self.port.receiver.give_back();
        self.state.set(State::Stalled);
        // The kernel cannot be told to keep a hang-up to itself, but to tell of it once.
        self.watch_for(epoll, index, epoll::EventFlags::ONESHOT);
    }
}
