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

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use slab::Slab;

use super::endpoint::UNFENCED_DELAY;
use super::message_port::MessagePort;
use super::set_events::{Events, InsertError, InsertRefusal, Member, Members, State};
use super::set_handle::{Order, SetHandle, Shared};
use super::set_wait::{forget, watch};
use super::spin::Spin;
use super::wait::{WaitStrategy, is_past};

/// Messages that one member may have in a turn, unless another number is asked for.
const BATCH: usize = 64;
/// Turns that may go by, while there is always something to do, before those that sleep are asked about.
const TURNS: u32 = 64;
/// The bell of the set itself, among the lines of its members.
pub(super) const BELL: u64 = u64::MAX;

/// Many ports that one thread waits on, however many there are: what a wait costs depends on those that are
/// active.
///
/// Each port has a key of the user's. A wait gives [`Events`]: messages, and the end of ports, which then have left.
/// From other threads, a [`SetHandle`] brings ports in, takes them out, and ends a wait.
///
/// A set is `Send` and not `Sync`, like its ports.
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
///             Event::Message(port, message) => {
///                 assert_eq!((key, message.bytes()), (1, &b"hello"[..]));
///                 port.post_bytes(b"and to you")?;
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
    places: HashMap<K, usize>,
    pub(super) ready: VecDeque<usize>,
    pub(super) warm: Vec<usize>,
    /// Those of the sleeping that have memory to let go after a while.
    pub(super) cooling: Vec<usize>,
    over: Vec<usize>,
    /// Ports that were taken out by a handle, and are to be handed over.
    removed: VecDeque<(K, Box<MessagePort>)>,
    pub(super) epoll: OwnedFd,
    pub(super) shared: Arc<Shared<K>>,
    pub(super) spin: Spin,
    batch: usize,
    /// Whether a handle has woken the set.
    is_woken: bool,
    /// Waits so far.
    pub(super) waits: u64,
    /// Turns since the kernel was last asked.
    pub(super) turns: u32,
    pub(super) sleeps: u64,
}

impl<K: Clone + Eq + Hash> PortSet<K> {
    /// Makes an empty set.
    ///
    /// # Errors
    ///
    /// What the kernel says if it has no descriptors left: a set takes two.
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
            removed: VecDeque::new(),
            epoll,
            shared,
            spin: Spin::new(WaitStrategy::default()),
            batch: BATCH,
            is_woken: false,
            waits: 0,
            turns: 0,
            sleeps: 0,
        })
    }

    /// Takes a port in. What waits in it already is told at the next wait.
    ///
    /// # Errors
    ///
    /// [`InsertError`], with the port.
    pub fn insert(&mut self, key: K, port: MessagePort) -> Result<(), InsertError> {
        if self.places.contains_key(&key) {
            return Err(InsertError::new(port, InsertRefusal::Taken));
        }
        let entry = self.members.vacant_entry();
        let index = entry.key();
        if let Err(source) = watch(&self.epoll, &port, index) {
            return Err(InsertError::new(port, InsertRefusal::Os(source)));
        }
        port.endpoint().listen(Some((self.shared.listener(), index)));
        self.places.insert(key.clone(), index);
        entry.insert(Box::new(Member {
            key,
            port,
            state: Cell::new(State::Ready),
            active_at: Cell::new(0),
        }));
        self.ready.push_back(index);
        Ok(())
    }

    /// Takes a port out, with what waits in it.
    pub fn remove(&mut self, key: &K) -> Option<MessagePort> {
        let index = self.places.remove(key)?;
        self.ready.retain(|ready| *ready != index);
        self.warm.retain(|warm| *warm != index);
        self.over.retain(|over| *over != index);
        self.cooling.retain(|cooling| *cooling != index);
        let member = *self.members.try_remove(index)?;
        if member.state.get() == State::Asleep {
            member.port.receiver.get_up(false);
        }
        forget(&self.epoll, &member.port);
        Some(member.port)
    }

    /// The port with this key.
    pub fn get(&self, key: &K) -> Option<&MessagePort> {
        let member = self.members.get(*self.places.get(key)?)?;
        (member.state.get() != State::Over).then_some(&member.port)
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
    /// nothing. Signals do not end the wait.
    ///
    /// # Errors
    ///
    /// What the kernel says of its epoll, which is nothing in a process that leaves the set's descriptors alone.
    pub fn wait(&mut self) -> io::Result<Events<'_, K>> {
        self.wait_until(None)
    }

    /// As [`wait`](Self::wait), at most so long: then there is nothing to tell, not before the time is up.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    pub fn wait_timeout(&mut self, timeout: Duration) -> io::Result<Events<'_, K>> {
        self.wait_until(Some(Instant::now().checked_add(timeout)).flatten())
    }

    /// What there is to tell now.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    pub fn poll(&mut self) -> io::Result<Events<'_, K>> {
        self.begin_turn();
        self.ask(Some(Duration::ZERO))?;
        self.look_at_warm();
        Ok(self.events())
    }

    /// Has all ports lie down, for loops of other kinds: from then on the [descriptor](AsFd::as_fd) of the set is
    /// readable when there is something to tell. False if there is already: then [`poll`](Self::poll) at once.
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
        self.begin_turn();
        if self.has_news() {
            return Ok(false);
        }
        if !self.demand(u64::MAX) {
            // Longer than what posters have stored may stay unseen.
            std::thread::sleep(UNFENCED_DELAY);
        }
        self.lie_down(u64::MAX);
        Ok(!self.has_news())
    }

    fn wait_until(&mut self, deadline: Option<Instant>) -> io::Result<Events<'_, K>> {
        self.begin_turn();
        self.waits += 1;
        self.turns += 1;
        if self.turns > TURNS {
            self.ask(Some(Duration::ZERO))?;
        }
        self.settle();
        while !self.has_news() && !self.spin(deadline)? && !self.sleep(deadline)? {
            if is_past(deadline) {
                break;
            }
        }
        Ok(self.events())
    }

    /// Lets go of what has left.
    fn begin_turn(&mut self) {
        while let Some(index) = self.over.pop() {
            if let Some(member) = self.members.try_remove(index) {
                self.places.remove(&member.key);
                self.cooling.retain(|cooling| *cooling != index);
                forget(&self.epoll, &member.port);
            }
        }
    }

    pub(super) fn has_news(&mut self) -> bool {
        self.obey();
        self.is_woken || !self.removed.is_empty() || self.has_ready()
    }

    /// Whether there is a member with something. Lines also speak when there is nothing: those are warm then.
    fn has_ready(&mut self) -> bool {
        while let Some(index) = self.ready.front() {
            if let Some(member) = self.members.get(*index) {
                if member.port.receiver.has_next_or_end() {
                    return true;
                }
                member.state.set(State::Warm);
                self.warm.push(*index);
            }
            self.ready.pop_front();
        }
        false
    }

    /// Does what handles have asked for.
    fn obey(&mut self) {
        if !self.shared.has_orders() {
            return;
        }
        let (orders, is_woken) = self.shared.take_orders();
        self.is_woken |= is_woken;
        for order in orders {
            match order {
                Order::Insert(key, port) => {
                    // What is not taken in comes back to who waits here.
                    if let Err(refused) = self.insert(key.clone(), *port) {
                        self.removed.push_back((key, Box::new(refused.into_port())));
                    }
                }
                Order::Remove(key) => {
                    if let Some(port) = self.remove(&key) {
                        self.removed.push_back((key, Box::new(port)));
                    }
                }
            }
        }
    }

    fn events(&mut self) -> Events<'_, K> {
        self.is_woken = false;
        Events {
            members: &self.members,
            turn: self.ready.len(),
            left: self.batch,
            batch: self.batch,
            now: self.waits,
            ready: &mut self.ready,
            warm: &mut self.warm,
            over: &mut self.over,
            removed: &mut self.removed,
        }
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
        self.shared.end();
    }
}
