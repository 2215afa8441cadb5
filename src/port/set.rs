//! Many ports, one wait: an epoll over their lines.
//!
//! ```text
//!            a message, or the end                 nothing there
//!   READY ◀──────────────────────────── WARM ◀──────────────────── READY
//!     ▲                                   │ lie down, look once more
//!     │ a bell, a hang-up, a kick         ▼
//!     └──────────────────────────────── ASLEEP
//! ```
//!
//! Only what has been active is looked at: a member that sleeps costs nothing until its line says something. A turn
//! takes a bounded number of messages from each ready member, so none starves another.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use slab::Slab;

use super::message_port::MessagePort;
use super::post::Sender;
use super::set_events::{
    Answer, Events, InsertError, InsertRefusal, Lookup, Member, Members, Progress, State,
};
use super::set_handle::{Order, SetHandle, Shared};
use super::spin::Spin;
use super::wait::WaitStrategy;

/// Messages that one member may have in a turn, unless another number is asked for.
const BATCH: usize = 64;
/// The bell of the set itself, among the lines of its members.
pub(super) const BELL: u64 = u64::MAX;

/// Many ports that one thread waits on, however many there are: what a wait costs depends on those that are
/// active.
///
/// Each port has a key of the user's. A wait gives [`Events`]: messages, and the end of ports, which then have left.
/// From other threads, a [`SetHandle`] brings ports in, takes them out, and ends a wait.
///
/// A set is `Send` and not `Sync`, like its ports. In a process that was forked it is a copy, in which nothing can be
/// done: a wait is an error (`EBADF`) there, and so is an insert.
///
/// ```
/// use zeroport::{CloseReason, Event, MessageChannel, PortSet};
///
/// let mut set = PortSet::new()?;
/// let mut clients = Vec::new();
/// for number in 0..3u64 {
///     let MessageChannel { port1, port2 } = MessageChannel::new()?;
///     set.insert(number, port2)?;
///     clients.push(port1);
/// }
/// clients[1].post_bytes(b"hello")?;
/// clients.remove(2).close();
///
/// let mut closed = None;
/// while closed.is_none() {
///     for (key, event) in set.wait()? {
///         match event {
///             Event::Message(sender, message) => {
///                 assert_eq!((key, message.bytes()), (1, &b"hello"[..]));
///                 sender.post_bytes(b"and to you")?;
///             }
///             Event::Closed(reason) => closed = Some((key, reason)),
///             other => panic!("{other:?}"),
///         }
///     }
/// }
/// assert_eq!(closed, Some((2, CloseReason::Closed)));
/// assert_eq!(clients[1].recv()?.bytes(), b"and to you");
/// assert_eq!(set.len(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct PortSet<K> {
    pub(super) members: Members<K>,
    pub(super) places: HashMap<K, usize>,
    pub(super) ready: VecDeque<usize>,
    pub(super) warm: Vec<usize>,
    /// Those of the sleeping that have memory to let go after a while.
    pub(super) cooling: Vec<usize>,
    over: Vec<usize>,
    /// What is to be told of what handles have asked for.
    answers: VecDeque<(K, Answer)>,
    pub(super) epoll: OwnedFd,
    pub(super) shared: Arc<Shared<K>>,
    pub(super) spin: Spin,
    batch: usize,
    /// Whether a handle has woken the set.
    is_woken: bool,
    /// Whether somebody sleeps on the descriptor.
    pub(super) is_armed: bool,
    /// Waits so far.
    pub(super) waits: u64,
    /// Turns since the kernel was last asked, and when that was.
    pub(super) turns: u32,
    pub(super) asked_at: Instant,
    /// Whether it spoke of a line with something that cannot be taken: it will do so again at once.
    pub(super) is_blocked: bool,
    pub(super) sleeps: u64,
}

impl<K: Clone + Eq + Hash> PortSet<K> {
    /// Makes an empty set.
    ///
    /// # Errors
    ///
    /// What the kernel says if it has no descriptors or memory left: a set takes two descriptors.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let shared = Shared::new()?;
        epoll::add(&epoll, shared.bell(), epoll::EventData::new_u64(BELL), epoll::EventFlags::IN)?;
        Ok(Self {
            members: Slab::new(),
            places: HashMap::new(),
            ready: VecDeque::new(),
            warm: Vec::new(),
            cooling: Vec::new(),
            over: Vec::new(),
            answers: VecDeque::new(),
            epoll,
            shared,
            spin: Spin::new(WaitStrategy::default()),
            batch: BATCH,
            is_woken: false,
            is_armed: false,
            waits: 0,
            turns: 0,
            asked_at: Instant::now(),
            is_blocked: false,
            sleeps: 0,
        })
    }

    /// Takes a port in. What waits in it already is told at the next wait. Never waits.
    ///
    /// # Errors
    ///
    /// [`InsertError`], with the port. (The key of a port whose end was told is free.)
    pub fn insert(&mut self, key: K, port: MessagePort) -> Result<(), InsertError> {
        if !self.shared.is_original() {
            return Err(InsertError::new(port, InsertRefusal::Detached));
        }
        self.let_ended_go();
        if self.places.contains_key(&key) {
            return Err(InsertError::new(port, InsertRefusal::Taken));
        }
        let entry = self.members.vacant_entry();
        let index = entry.key();
        let member = Member::watch(&self.epoll, key.clone(), port, index)?;
        member.port.endpoint().listen(Some((self.shared.listener(), index)));
        entry.insert(Box::new(member));
        self.places.insert(key, index);
        self.ready.push_back(index);
        self.speak_up();
        Ok(())
    }

    /// Takes a port out, with what waits in it. One whose end was told is not there any more. Never waits.
    pub fn remove(&mut self, key: &K) -> Option<MessagePort> {
        self.let_ended_go();
        let index = self.places.remove(key)?;
        let member = self.members.try_remove(index)?;
        if member.is(State::Ready) {
            self.ready.retain(|ready| *ready != index);
        }
        self.unlist(&member, index);
        if self.shared.is_original() {
            if member.is(State::Asleep) {
                member.port.receiver.get_up(false);
            }
            member.forget(&self.epoll);
        }
        Some(member.port)
    }

    /// The sending half of the port with this key. The receiving half is the set's alone:
    ///
    /// ```compile_fail,E0599
    /// use zeroport::{MessageChannel, PortSet};
    ///
    /// let mut set = PortSet::new().unwrap();
    /// set.insert("one", MessageChannel::new().unwrap().port2).unwrap();
    /// set.get(&"one").unwrap().recv().unwrap(); // who sleeps in a set would not be woken again
    /// ```
    pub fn get(&self, key: &K) -> Option<&Sender> {
        self.lookup().get(key).map(|member| &member.port.sender)
    }

    /// Whether there is a port with this key.
    pub fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// The keys of all ports, in no order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// All ports, in no order: their keys and sending halves.
    ///
    /// ```
    /// use zeroport::{MessageChannel, PortSet};
    ///
    /// let mut set = PortSet::new()?;
    /// let MessageChannel { port1, port2 } = MessageChannel::new()?;
    /// set.insert("one", port2)?;
    /// assert!(set.keys().eq(&["one"]) && set.contains_key(&"one"));
    ///
    /// for (key, sender) in set.iter() {
    ///     sender.post_bytes(key.as_bytes())?;
    /// }
    /// assert_eq!(port1.recv()?.bytes(), b"one");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = (&K, &Sender)> {
        let members = self.members.iter().filter(|(_, member)| !member.is(State::Over));
        members.map(|(_, member)| (&member.key, &member.port.sender))
    }

    /// How many ports there are.
    pub fn len(&self) -> usize {
        self.places.len() - self.over.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A way in for other threads.
    pub fn handle(&self) -> SetHandle<K> {
        SetHandle::new(&self.shared)
    }

    /// Chooses how the set waits. (How its ports wait for room stays as it is.)
    ///
    /// It spins only over ports that were active in the last few waits and are not
    /// [paused](Self::pause). When there is none it sleeps, also if it was told to [spin](WaitStrategy::Spin).
    pub fn set_wait_strategy(&self, strategy: WaitStrategy) {
        self.spin.set_strategy(strategy);
    }

    /// The most messages that one port may have in a turn: 64 unless another number is asked for, and at least 1.
    pub fn set_batch(&mut self, messages: usize) {
        self.batch = messages.max(1);
    }

    /// How often the set has slept in the kernel: a figure for benchmarks and tests.
    pub fn sleeps(&self) -> u64 {
        self.sleeps
    }

    /// Waits until there is something to tell, or until a handle [wakes](SetHandle::wake) the set: then there may be
    /// nothing. Signals do not end the wait. A set without ports waits for its handles; without those, for ever.
    ///
    /// # Errors
    ///
    /// What the kernel says of its epoll, which is nothing in a process that leaves the set's descriptors alone. In the
    /// copy that a fork has made: `EBADF`.
    pub fn wait(&mut self) -> io::Result<Events<'_, K>> {
        self.wait_for_news(None)?;
        Ok(self.events())
    }

    /// As [`wait`](Self::wait), at most so long: then there is nothing to tell, not before the time is up.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    pub fn wait_timeout(&mut self, timeout: Duration) -> io::Result<Events<'_, K>> {
        self.wait_for_news(Instant::now().checked_add(timeout))?;
        Ok(self.events())
    }

    /// What there is to tell now, without waiting.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    pub fn poll(&mut self) -> io::Result<Events<'_, K>> {
        self.look_for_news()?;
        Ok(self.events())
    }

    /// Has all ports lie down, for loops of other kinds: from then on the [descriptor](AsFd::as_fd) of the set is
    /// readable when there is something to tell, or when a handle wants something. False if there is something already:
    /// then [`poll`](Self::poll) at once. A set without ports can be armed for its handles. What joins later, or is
    /// resumed, makes the descriptor readable, too.
    ///
    /// Takes at most some milliseconds: one where the kernel refuses `membarrier(2)`, and one while a port holds
    /// something for which this process has no descriptor.
    ///
    /// ```
    /// use rustix::event::{PollFd, PollFlags, poll};
    /// use zeroport::{Event, MessageChannel, PortSet};
    ///
    /// let mut set = PortSet::new()?;
    /// let MessageChannel { port1, port2 } = MessageChannel::new()?;
    /// set.insert("one", port2)?;
    /// assert!(set.poll()?.next().is_none());
    /// assert!(set.arm()?, "nothing to tell");
    ///
    /// port1.post_bytes(b"wake up")?;
    /// poll(&mut [PollFd::new(&set, PollFlags::IN)], None)?;
    /// let event = set.poll()?.next();
    /// assert!(matches!(event, Some(("one", Event::Message(_, message))) if message.bytes() == b"wake up"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    pub fn arm(&mut self) -> io::Result<bool> {
        self.begin_wait()?;
        self.is_armed = !self.has_news() && self.try_rest();
        Ok(self.is_armed)
    }

    /// Called when there may be something to tell that did not come by a line or by a handle.
    pub(super) fn speak_up(&mut self) {
        if std::mem::take(&mut self.is_armed) {
            self.shared.ring_bell();
        }
    }

    /// Lets go of those whose end was told.
    pub(super) fn let_ended_go(&mut self) {
        while let Some(index) = self.over.pop() {
            if let Some(member) = self.members.try_remove(index) {
                self.places.remove(&member.key);
                self.unlist(&member, index);
            }
        }
    }

    /// Another member may come to have this place.
    fn unlist(&mut self, member: &Member<K>, index: usize) {
        if member.in_warm.get() {
            self.warm.retain(|warm| *warm != index);
        }
        if member.in_cooling.get() {
            self.cooling.retain(|cooling| *cooling != index);
        }
    }

    pub(super) fn has_news(&mut self) -> bool {
        self.obey();
        self.is_woken || !self.answers.is_empty() || self.has_ready()
    }

    /// Whether there is a member with something. Lines also speak when there is nothing: those are warm then.
    fn has_ready(&mut self) -> bool {
        while let Some(index) = self.ready.front().copied() {
            if let Some(member) = self.members.get(index) {
                if member.has_news(&self.epoll, index) {
                    return true;
                }
                member.keep_warm(index, &mut self.warm);
            }
            self.ready.pop_front();
        }
        false
    }

    /// Does what handles have asked for.
    pub(super) fn obey(&mut self) {
        if !self.shared.has_orders() {
            return;
        }
        let (orders, is_woken) = self.shared.take_orders();
        self.is_woken |= is_woken;
        for order in orders {
            let (key, answer) = match order {
                Order::Insert(key, port) => {
                    let refused = self.insert(key.clone(), *port).err();
                    (key, refused.map(Answer::Refused))
                }
                Order::Remove(key) => {
                    let port = self.remove(&key);
                    (key, port.map(|port| Answer::Removed(Box::new(port))))
                }
                Order::Pause(key) => {
                    self.pause(&key);
                    (key, None)
                }
                Order::Resume(key) => {
                    self.resume(&key);
                    (key, None)
                }
            };
            self.answers.extend(answer.map(|answer| (key, answer)));
        }
    }

    fn events(&mut self) -> Events<'_, K> {
        let progress = self.begin_turn();
        self.events_from(progress)
    }

    /// Begins to tell what there is.
    pub(super) fn begin_turn(&mut self) -> Progress {
        self.is_woken = false;
        Progress { turn: self.ready.len(), left: self.batch }
    }

    pub(super) fn events_from(&mut self, progress: Progress) -> Events<'_, K> {
        Events {
            lookup: Lookup { members: &self.members, places: &self.places },
            progress,
            batch: self.batch,
            now: self.waits,
            ready: &mut self.ready,
            warm: &mut self.warm,
            over: &mut self.over,
            answers: &mut self.answers,
            epoll: &self.epoll,
        }
    }

    pub(super) fn lookup(&self) -> Lookup<'_, K> {
        Lookup { members: &self.members, places: &self.places }
    }
}

/// The descriptor is readable when a port that sleeps, or a handle, has something to tell; for loops of other
/// kinds. Ports sleep only after a wait: see [`PortSet::arm`].
impl<K> AsFd for PortSet<K> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl<K> Drop for PortSet<K> {
    fn drop(&mut self) {
        if self.shared.is_original() {
            self.shared.end();
        }
    }
}
