//! What a set tells, and its members as far as they are told of.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::sync::{Mutex, PoisonError};

use slab::Slab;

use crate::error::{CloseReason, RecvError};

use super::message::Message;
use super::message_port::MessagePort;

/// Where a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It may have something; in the queue.
    Ready,
    /// It had nothing when last looked at, and does not sleep yet.
    Warm,
    /// Its line will tell.
    Asleep,
    /// It has ended, and leaves.
    Over,
}

#[derive(Debug)]
pub(super) struct Member<K> {
    pub(super) key: K,
    pub(super) port: MessagePort,
    pub(super) state: Cell<State>,
    /// The number of the wait after which a message last came.
    pub(super) active_at: Cell<u64>,
}

impl<K> Member<K> {
    pub(super) fn is(&self, state: State) -> bool {
        self.state.get() == state
    }
}

/// All members, by their places.
pub(super) type Members<K> = Slab<Box<Member<K>>>;

/// What a [`PortSet`](crate::PortSet) tells of one of its ports.
#[non_exhaustive]
#[derive(Debug)]
pub enum Event<'s> {
    /// A message, and the port on which it came.
    Message(&'s MessagePort, Message<'s>),
    /// The channel has ended, after its last message. The port has left the set.
    Closed(CloseReason),
    /// The next message cannot be had now ([`RecvError::Os`]); nothing is lost, and it is told again at the next
    /// turn.
    Failed(&'s MessagePort, RecvError),
    /// The port that was [taken out](crate::SetHandle::remove) by a handle.
    Removed(Box<MessagePort>),
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
}

/// What there is to tell after a wait: first what came first, from each port at most a
/// [batch](crate::PortSet::set_batch).
///
/// What is not taken is told at the next wait.
#[derive(Debug)]
pub struct Events<'s, K> {
    pub(super) members: &'s Members<K>,
    pub(super) ready: &'s mut VecDeque<usize>,
    pub(super) warm: &'s mut Vec<usize>,
    pub(super) over: &'s mut Vec<usize>,
    pub(super) removed: &'s mut VecDeque<(K, Box<MessagePort>)>,
    /// Members that have not had their turn.
    pub(super) turn: usize,
    /// Messages that the first of them may still have.
    pub(super) left: usize,
    pub(super) batch: usize,
    /// The number of this wait.
    pub(super) now: u64,
}

impl<K> Events<'_, K> {
    /// Ends the turn of the first member.
    fn next_member(&mut self) -> Option<usize> {
        self.turn -= 1;
        self.left = self.batch;
        self.ready.pop_front()
    }
}

impl<'s, K: Clone> Iterator for Events<'s, K> {
    type Item = (K, Event<'s>);

    fn next(&mut self) -> Option<Self::Item> {
        if let Some((key, port)) = self.removed.pop_front() {
            return Some((key, Event::Removed(port)));
        }
        while self.turn > 0 {
            let index = *self.ready.front()?;
            let Some(member) = self.members.get(index) else {
                self.next_member();
                continue;
            };
            let key = || member.key.clone();
            match member.port.try_next() {
                Ok(message) => {
                    member.active_at.set(self.now);
                    self.left -= 1;
                    if self.left == 0 {
                        let first = self.next_member();
                        self.ready.extend(first);
                    }
                    return Some((key(), Event::Message(&member.port, message)));
                }
                Err(RecvError::Empty) => {
                    self.next_member();
                    member.state.set(State::Warm);
                    self.warm.push(index);
                }
                Err(RecvError::Closed(reason)) => {
                    self.next_member();
                    member.state.set(State::Over);
                    self.over.push(index);
                    return Some((key(), Event::Closed(reason)));
                }
                Err(failed) => {
                    let first = self.next_member();
                    self.ready.extend(first);
                    return Some((key(), Event::Failed(&member.port, failed)));
                }
            }
        }
        None
    }
}
