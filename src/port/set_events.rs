//! What a set tells, and its members as far as they are told of.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::epoll;
use slab::Slab;

use crate::error::{CloseReason, RecvError};
use crate::line::Line;

use super::message::Message;
use super::message_port::MessagePort;
use super::post::Sender;

/// Where a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It may have something; in the queue.
    Ready,
    /// It had nothing when last looked at, and does not sleep yet.
    Warm,
    /// Its line will tell.
    Asleep,
    /// It is paused, and has something: nobody looks before it is resumed.
    Stalled,
    /// It has ended, and leaves.
    Over,
}

#[derive(Debug)]
pub(super) struct Member<K> {
    pub(super) key: K,
    pub(super) port: MessagePort,
    pub(super) state: Cell<State>,
    pub(super) is_paused: Cell<bool>,
    /// The number of the wait after which a message last came.
    pub(super) active_at: Cell<u64>,
    /// Whether it stands in the list of those that are warm, or were, and in that of those that have memory to let go.
    pub(super) in_warm: Cell<bool>,
    pub(super) in_cooling: Cell<bool>,
    /// What the kernel watches, as long as it does: the port may let it go earlier, and that need not close it. Dropped
    /// after the port, so that the epoch says closed before the line hangs up.
    line: RefCell<Option<Arc<Line>>>,
}

impl<K> Member<K> {
    /// Has the kernel watch the line of a port, and tell of it under this number.
    pub(super) fn watch(
        epoll: &OwnedFd,
        key: K,
        port: MessagePort,
        index: usize,
    ) -> Result<Self, InsertError> {
        // What has no line any more has ended, which the first look tells.
        let line = port.receiver.hold().line();
        let watched = line.as_ref().map_or(Ok(()), |line| {
            let data = epoll::EventData::new_u64(index as u64);
            Ok(epoll::add(epoll, line.as_fd()?, data, WATCHED)?)
        });
        match watched {
            Err(refused) => Err(InsertError::new(port, InsertRefusal::Os(refused))),
            Ok(()) => Ok(Self {
                key,
                port,
                state: Cell::new(State::Ready),
                is_paused: Cell::new(false),
                active_at: Cell::new(0),
                in_warm: Cell::new(false),
                in_cooling: Cell::new(false),
                line: RefCell::new(line),
            }),
        }
    }

    /// Has the kernel tell other things of the line than before.
    pub(super) fn watch_for(&self, epoll: &OwnedFd, index: usize, flags: epoll::EventFlags) {
        if let Some(line) = &*self.line.borrow()
            && let Ok(fd) = line.as_fd()
        {
            // It needs no memory, and the line is watched.
            let _ = epoll::modify(epoll, fd, epoll::EventData::new_u64(index as u64), flags);
        }
    }

    /// Takes back what [`watch`](Self::watch) has done.
    pub(super) fn forget(&self, epoll: &OwnedFd) {
        self.port.endpoint().listen(None);
        if let Some(line) = self.line.take()
            && let Ok(fd) = line.as_fd()
        {
            // Without this, a copy of the descriptor elsewhere would have the line told of for ever.
            let _ = epoll::delete(epoll, fd);
        }
    }

    pub(super) fn is(&self, state: State) -> bool {
        self.state.get() == state
    }

    /// It had nothing to tell: from now on it is looked at, unless it is stalled.
    pub(super) fn keep_warm(&self, index: usize, warm: &mut Vec<usize>) {
        if self.is(State::Stalled) {
            return;
        }
        self.state.set(State::Warm);
        if !self.in_warm.replace(true) {
            warm.push(index);
        }
    }
}

/// What the kernel is to tell of a line.
pub(super) const WATCHED: epoll::EventFlags = epoll::EventFlags::IN.union(epoll::EventFlags::RDHUP);

/// All members, by their places.
pub(super) type Members<K> = Slab<Box<Member<K>>>;

/// All members, to be asked by their keys.
#[derive(Debug)]
pub(super) struct Lookup<'s, K> {
    pub(super) members: &'s Members<K>,
    pub(super) places: &'s HashMap<K, usize>,
}

impl<K> Clone for Lookup<'_, K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for Lookup<'_, K> {}

impl<'s, K: Eq + Hash> Lookup<'s, K> {
    /// One whose end was not told.
    pub(super) fn get(self, key: &K) -> Option<&'s Member<K>> {
        self.find(key).filter(|member| !member.is(State::Over))
    }

    pub(super) fn find(self, key: &K) -> Option<&'s Member<K>> {
        self.members.get(*self.places.get(key)?).map(|member| &**member)
    }
}

/// What a [`PortSet`](crate::PortSet) tells of one of its ports.
#[non_exhaustive]
#[derive(Debug)]
pub enum Event<'s> {
    /// A message, and the sending half of the port on which it came.
    Message(&'s Sender, Message<'s>),
    /// The channel has ended, after its last message. The port has left the set.
    Closed(CloseReason),
    /// The next message cannot be had now ([`RecvError::Os`]). Nothing is lost, and it is told again at the next wait,
    /// which it ends at once: so free a descriptor or memory, take the port out, or pause.
    Failed(&'s Sender, RecvError),
    /// The port that was [taken out](crate::SetHandle::remove) by a handle.
    Removed(Box<MessagePort>),
    /// The port that was to be [taken in](crate::SetHandle::insert) by a handle, and why it was not.
    Refused(InsertError),
}

/// What comes of what a handle has asked for.
#[derive(Debug)]
pub(super) enum Answer {
    Removed(Box<MessagePort>),
    Refused(InsertError),
}

impl From<Answer> for Event<'_> {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Removed(port) => Self::Removed(port),
            Answer::Refused(refused) => Self::Refused(refused),
        }
    }
}

/// A port was not taken into a set.
#[derive(Debug, thiserror::Error)]
#[error("a port was not taken into the set: {source}")]
pub struct InsertError {
    /// The lock is never waited for. It makes the error `Sync`, which a port is not.
    port: Box<Mutex<MessagePort>>,
    /// Why it was not.
    #[source]
    pub source: InsertRefusal,
}

impl InsertError {
    pub(super) fn new(port: MessagePort, source: InsertRefusal) -> Self {
        Self { port: Box::new(Mutex::new(port)), source }
    }

    /// The port, as it was.
    pub fn into_port(self) -> MessagePort {
        self.port.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a port was not taken into a set.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum InsertRefusal {
    /// Another port has that key.
    #[error("another port of the set has that key; choose another one, or remove that port first")]
    Taken,
    /// The kernel cannot watch one more.
    #[error("the kernel cannot watch it; free memory, or raise fs.epoll.max_user_watches")]
    Os(#[source] io::Error),
    /// The set is a copy that a fork has made.
    #[error("the set is a copy that a fork has made; make a set in this process")]
    Detached,
}

/// What there is to tell after a wait: first what came first, from each port at most a
/// [batch](crate::PortSet::set_batch).
///
/// What is not taken is told at the next wait.
#[derive(Debug)]
pub struct Events<'s, K> {
    pub(super) lookup: Lookup<'s, K>,
    pub(super) ready: &'s mut VecDeque<usize>,
    pub(super) warm: &'s mut Vec<usize>,
    pub(super) over: &'s mut Vec<usize>,
    pub(super) answers: &'s mut VecDeque<(K, Answer)>,
    pub(super) epoll: &'s OwnedFd,
    pub(super) progress: Progress,
    pub(super) batch: usize,
    /// The number of this wait.
    pub(super) now: u64,
}

/// How far what there is to tell was told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    /// Members that have not had their turn.
    pub(super) turn: usize,
    /// Messages that the first of them may still have.
    pub(super) left: usize,
}

impl<'s, K> Events<'s, K> {
    /// The first member that has its turn.
    pub(super) fn first(&mut self) -> Option<(usize, &'s Member<K>)> {
        while self.progress.turn > 0 {
            let index = *self.ready.front()?;
            if let Some(member) = self.lookup.members.get(index) {
                return Some((index, member));
            }
            self.next_member();
        }
        None
    }

    /// The first member has given a message.
    pub(super) fn note_message(&mut self, member: &Member<K>) {
        member.active_at.set(self.now);
        self.progress.left -= 1;
        if self.progress.left == 0 {
            self.next_member_for_now();
        }
    }

    /// The first member has given none. What there is to tell instead.
    pub(super) fn note_failure(
        &mut self,
        index: usize,
        member: &'s Member<K>,
        failed: RecvError,
    ) -> Option<Event<'s>> {
        match failed {
            RecvError::Empty => {
                self.next_member();
                member.keep_warm(index, self.warm);
                None
            }
            RecvError::Closed(reason) => {
                self.next_member();
                member.state.set(State::Over);
                member.forget(self.epoll);
                self.over.push(index);
                Some(Event::Closed(reason))
            }
            failed => {
                self.next_member_for_now();
                Some(Event::Failed(&member.port.sender, failed))
            }
        }
    }

    /// Ends the turn of the first member.
    fn next_member(&mut self) -> Option<usize> {
        self.progress = Progress { turn: self.progress.turn - 1, left: self.batch };
        self.ready.pop_front()
    }

    /// As [`next_member`](Self::next_member), for one that may have more.
    fn next_member_for_now(&mut self) {
        let first = self.next_member();
        self.ready.extend(first);
    }
}

impl<'s, K: Clone> Iterator for Events<'s, K> {
    type Item = (K, Event<'s>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if let Some((key, answer)) = self.answers.pop_front() {
            return Some((key, answer.into()));
        }
        while let Some((index, member)) = self.first() {
            let key = || member.key.clone();
            match member.try_next(self.epoll, index) {
                Ok(message) => {
                    self.note_message(member);
                    return Some((key(), Event::Message(&member.port.sender, message)));
                }
                Err(failed) => {
                    if let Some(event) = self.note_failure(index, member, failed) {
                        return Some((key(), event));
                    }
                }
            }
        }
        None
    }
}
