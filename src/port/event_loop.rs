//! Handlers for the messages of many ports, on one thread: a [`PortSet`], and who listens to its members.
//!
//! ```text
//!  wait ──▶ next message ──▶ its listeners ──▶ what they asked for ──▶ next message … ──▶ wait
//!            at most a batch    one by one       close, remove, later,
//!            from each port     (`loop_turn`)    start and pause
//! ```
//!
//! A handler has its message in the memory of a member of the set, so nothing can be done to the set meanwhile. What
//! handlers ask for is done once they have returned, before the next message: so nothing of a port that was closed,
//! removed or paused comes after that.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use crate::error::CloseReason;
use crate::line::BLOCKED_WAIT;

use super::WaitStrategy;
use super::listeners::Listeners;
use super::loop_handle::{LoopHandle, LoopShared};
use super::loop_ports::{PortId, Ports};
use super::loop_turn::Turn;
use super::message_port::MessagePort;
use super::post::Sender;
use super::set::PortSet;
use super::set_events::{Event, InsertError, Progress};

/// Many ports whose messages go to handlers, one after the other, on the thread that runs the loop.
///
/// A port that was taken in waits until its [`Listeners`](Self::listeners_of) are set. Handlers may be set, replaced and
/// removed at any time, also from inside; what waits meanwhile is never lost. They may borrow what lives longer than the
/// loop (`'h`). There is no hidden thread: nothing is told but while one of the `run` verbs is called.
///
/// A handler that panics costs its message only: the other listeners are called, and the run goes on. With
/// `panic = "abort"` the process ends, as ever.
///
/// In a process that was forked the loop is a copy, in which nothing can be done: a run is an error (`EBADF`) there.
///
/// ```
/// use zeroport::{CloseReason, EventLoop, MessageChannel};
///
/// let MessageChannel { port1, port2 } = MessageChannel::new()?;
/// let client = std::thread::spawn(move || {
///     port1.post_bytes(b"hello").unwrap();
///     port1.recv().unwrap().bytes().to_vec()
/// });
///
/// let mut end = None;
/// let mut events = EventLoop::new()?;
/// let port = events.insert(port2)?;
/// events
///     .listeners_of(port)
///     .on_message(|turn, message| {
///         turn.sender().post_bytes(&message.bytes().to_ascii_uppercase()).unwrap();
///     })
///     .on_close(|_, reason| end = Some(reason));
/// events.run()?; // until no port is left
/// drop(events);
///
/// assert_eq!(client.join().unwrap(), b"HELLO");
/// assert_eq!(end, Some(CloseReason::Closed));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct EventLoop<'h> {
    set: PortSet<PortId>,
    ports: Ports<'h>,
    /// Ports whose end came before anybody was there to hear of it.
    late: VecDeque<PortId>,
    shared: Arc<LoopShared>,
    keeps_running: bool,
}

/// What was told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    /// A message, or an end.
    Something,
    /// That the next message cannot be had.
    Failure,
}

impl<'h> EventLoop<'h> {
    /// Makes a loop without ports.
    ///
    /// # Errors
    ///
    /// What the kernel says if it has no descriptors or memory left: a loop takes two descriptors.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            set: PortSet::new()?,
            ports: Ports::default(),
            late: VecDeque::new(),
            shared: LoopShared::new(),
            keeps_running: false,
        })
    }

    /// Takes a port in, not started: what waits in it waits on. Never waits.
    ///
    /// If it ends before anybody has listened, its end is kept, which takes little, until it is told or the port is
    /// [closed](Self::close).
    ///
    /// # Errors
    ///
    /// [`InsertError`], with the port: the kernel cannot watch it.
    pub fn insert(&mut self, port: MessagePort) -> Result<PortId, InsertError> {
        let id = self.ports.insert();
        let inserted = self.set.insert(id, port);
        if inserted.is_err() {
            self.ports.remove(id);
        }
        self.set.pause(&id);
        inserted.map(|()| id)
    }

    /// Takes a port out, with what waits in it, and drops its handlers. It is not there if it was closed or has ended.
    /// Never waits.
    pub fn remove(&mut self, port: PortId) -> Option<MessagePort> {
        let handlers = self.ports.remove(port);
        let removed = self.set.remove(&port);
        // What they hold may do something when it is dropped.
        drop(handlers);
        removed
    }

    /// Closes a port: its messages are dropped, and so are its handlers. Its own [`on_close`](Listeners::on_close) is not
    /// told. Closing what is gone does nothing. Never waits.
    pub fn close(&mut self, port: PortId) {
        drop(self.remove(port));
    }

    /// Who listens to a port.
    pub fn listeners_of(&mut self, port: PortId) -> Listeners<'_, 'h> {
        // They may be set, or started, by who has armed the loop.
        self.set.speak_up();
        Listeners::new(port, &mut self.ports)
    }

    /// The sending half of a port, if it is there.
    pub fn sender_of(&self, port: PortId) -> Option<&Sender> {
        self.set.get(&port)
    }

    /// How many ports there are.
    pub fn len(&self) -> usize {
        self.set.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
    }

    /// A way in for other threads.
    pub fn handle(&self) -> LoopHandle {
        LoopHandle::new(&self.shared, self.set.handle())
    }

    /// Chooses how the loop waits; see [`PortSet::set_wait_strategy`].
    pub fn set_wait_strategy(&self, strategy: WaitStrategy) {
        self.set.set_wait_strategy(strategy);
    }

    /// The most messages that one port may have in a turn: 64 unless another number is asked for, and at least 1.
    pub fn set_batch(&mut self, messages: usize) {
        self.set.set_batch(messages);
    }

    /// Whether a run goes on while there is no port, for [handles](Self::handle) that bring some. It does not, unless it
    /// is told to.
    pub fn keep_running(&mut self, keeps_running: bool) {
        self.keeps_running = keeps_running;
    }

    /// Has somebody told of handlers that panic, with what they panicked with. Without it they have cost their message,
    /// and no more. What panics here leaves the run; the loop can be run again.
    pub fn on_panic(&mut self, hear: impl FnMut(Box<dyn Any + Send>) + 'h) {
        self.ports.on_panic = Some(Box::new(hear));
    }

    /// How many undecodable messages came to ports without [`on_message_error`](Listeners::on_message_error).
    pub fn undecoded(&self) -> u64 {
        self.ports.undecoded
    }

    /// How often the loop has slept in the kernel: a figure for benchmarks and tests.
    pub fn sleeps(&self) -> u64 {
        self.set.sleeps()
    }

    /// Tells messages and ends as they come, until it is [stopped](Self::stop) or no port is left. Signals do not end it.
    ///
    /// A port that nobody listens to is left, too, until its other end goes: close it.
    ///
    /// # Errors
    ///
    /// What the kernel says of its epoll, which is nothing in a process that leaves the loop's descriptors alone. In the
    /// copy that a fork has made: `EBADF`.
    pub fn run(&mut self) -> io::Result<()> {
        while self.turn(|set| set.wait_for_news(None))? {}
        Ok(())
    }

    /// As [`run`](Self::run), at most until then, which is looked at between two turns. False if it would not have gone
    /// on: it was stopped, or no port is left.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub fn run_until(&mut self, deadline: Instant) -> io::Result<bool> {
        loop {
            let goes_on = self.turn(|set| set.wait_for_news(Some(deadline)))?;
            if !goes_on || Instant::now() >= deadline {
                return Ok(goes_on);
            }
        }
    }

    /// One wait, and one turn: at most a [batch](Self::set_batch) of messages from each port. It ends without any if a
    /// handle has [woken](LoopHandle::wake) it. False if there is no other one: it was stopped, or no port is left.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub fn run_once(&mut self) -> io::Result<bool> {
        self.turn(|set| set.wait_for_news(None))
    }

    /// One turn with what there is now, without waiting. The result is as in [`run_once`](Self::run_once).
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub fn run_ready(&mut self) -> io::Result<bool> {
        self.turn(PortSet::look_for_news)
    }

    /// For loops of other kinds: from now on the [descriptor](Self::as_fd) is readable when there is something to tell, or
    /// when a handle wants something. False if there is something already: then [`run_ready`](Self::run_ready) at once.
    /// It stays readable until then, and becomes so when a port joins or [listeners](Self::listeners_of) are asked for.
    /// After each `run_ready` the loop is to be armed anew, or what comes may not be told. See [`PortSet::arm`], also for how
    /// long this takes.
    ///
    /// ```
    /// use rustix::event::{PollFd, PollFlags, poll};
    /// use zeroport::{EventLoop, MessageChannel};
    ///
    /// let MessageChannel { port1, port2 } = MessageChannel::new()?;
    /// let mut events = EventLoop::new()?;
    /// let port = events.insert(port2)?;
    /// events.listeners_of(port).on_message(|turn, _| turn.close(turn.port()));
    /// port1.post_bytes(b"enough")?;
    /// while events.run_ready()? {
    ///     if events.arm()? {
    ///         poll(&mut [PollFd::new(&events, PollFlags::IN)], None)?;
    ///     }
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub fn arm(&mut self) -> io::Result<bool> {
        self.settle();
        let has_more = self.is_stopped() || self.shared.has_orders() || !self.late.is_empty();
        Ok(!has_more && self.set.arm()?)
    }

    /// Ends the run from which this is called (the innermost, if runs are nested); if there is none, the next one ends at
    /// once.
    pub fn stop(&mut self) {
        self.ports.is_stopped = true;
    }

    /// Does what was asked for, waits, and tells what there is. Whether there is something to go on for.
    fn turn(
        &mut self,
        wait: impl FnOnce(&mut PortSet<PortId>) -> io::Result<()>,
    ) -> io::Result<bool> {
        if self.shared.has_orders() && self.set.shared.is_original() {
            self.ports.later.extend(self.shared.take_orders().into_iter().map(|order| order as _));
        }
        self.settle();
        if !self.is_stopped() && self.has_more() {
            if self.late.is_empty() {
                wait(&mut self.set)?
            } else {
                self.set.look_for_news()?
            }
            self.tell_late_ends();
            self.tell_all();
            // There may be no other wait.
            self.set.let_ended_go();
        }
        let is_stopped = std::mem::take(&mut self.ports.is_stopped) | self.shared.take_stop();
        Ok(!is_stopped && self.has_more())
    }

    fn has_more(&self) -> bool {
        self.keeps_running
            || !self.set.is_empty()
            || !self.late.is_empty()
            || self.shared.has_orders()
    }

    fn is_stopped(&self) -> bool {
        self.ports.is_stopped || self.shared.is_stopped()
    }

    fn tell_all(&mut self) {
        let (mut progress, mut told) = (self.set.begin_turn(), None);
        while !self.is_stopped() {
            let Some(next) = self.tell_next(&mut progress) else { break };
            told = told.filter(|told| *told == Told::Something).or(Some(next));
            self.settle();
        }
        if told == Some(Told::Failure) {
            // Else it would be told again and again, until this process has a descriptor to spare.
            std::thread::sleep(BLOCKED_WAIT);
        }
    }

    /// Tells one thing. (A message is told where it was found: to move one takes longer than to find it.)
    fn tell_next(&mut self, progress: &mut Progress) -> Option<Told> {
        let mut events = self.set.events_from(*progress);
        let (port, reason, is_closed_here) = loop {
            let (index, member) = events.first()?;
            let (port, sender) = (member.key, &member.port.sender);
            let event = match member.try_next(events.epoll, index) {
                Ok(ref message) => {
                    events.note_message(member);
                    *progress = events.progress;
                    Turn::new(port, sender, events.lookup, &mut self.ports).tell(message);
                    return Some(Told::Something);
                }
                Err(failed) => events.note_failure(index, member, failed),
            };
            *progress = events.progress;
            match event {
                Some(Event::Failed(sender, failed)) => {
                    Turn::new(port, sender, events.lookup, &mut self.ports).tell_failure(failed);
                    return Some(Told::Failure);
                }
                Some(Event::Closed(reason)) => {
                    break (port, reason, member.port.endpoint().is_closed_here());
                }
                _ => {}
            }
        };
        // Who broke the protocol was not closed by us, though we closed this end.
        self.end(port, reason, is_closed_here && reason == CloseReason::Closed);
        Some(Told::Something)
    }

    /// A port has ended. Who has not listened yet is told when it does.
    fn end(&mut self, port: PortId, reason: CloseReason, is_closed_here: bool) {
        let Some(entry) = self.ports.get(port) else { return };
        if entry.on_close.is_some() || entry.listens() || is_closed_here {
            let on_close = entry.on_close.take();
            let entry = self.ports.remove(port);
            self.ports.let_go(entry);
            match on_close {
                Some(on_close) if !is_closed_here => self.guard(|events| on_close(events, reason)),
                untold => self.ports.let_go(untold),
            }
        } else {
            entry.ended = Some(reason);
        }
    }

    fn tell_late_ends(&mut self) {
        for _ in 0..self.late.len() {
            let Some(port) = self.late.pop_front() else { return };
            if let Some(reason) = self.ports.get(port).and_then(|entry| entry.ended) {
                self.end(port, reason, false);
                self.settle();
            }
        }
    }

    /// Does what handlers have asked for, and starts or pauses the ports that they have changed.
    fn settle(&mut self) {
        // What these ask for in their turn has no other way than a handle, so this ends.
        while let Some(work) = self.ports.later.pop_front() {
            self.guard(work);
        }
        while let Some(port) = self.ports.changed.pop() {
            let Some(entry) = self.ports.get(port) else { continue };
            entry.is_changed = false;
            if entry.ended.is_some() {
                if entry.on_close.is_some() {
                    self.late.push_back(port);
                }
            } else if entry.listens() {
                self.set.resume(&port);
            } else {
                self.set.pause(&port);
            }
        }
    }

    /// Runs what a user has given. If it panics, that is all.
    fn guard(&mut self, work: impl FnOnce(&mut Self)) {
        // It may run the loop: what is to end this run is not for that one.
        let is_stopped = std::mem::take(&mut self.ports.is_stopped);
        let done = catch_unwind(AssertUnwindSafe(|| work(self)));
        self.ports.is_stopped |= is_stopped;
        if let Err(panic) = done {
            self.ports.tell_panic(panic);
        }
    }
}

/// Readable when there is something to tell, once the loop was [armed](EventLoop::arm).
impl AsFd for EventLoop<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.set.as_fd()
    }
}

impl fmt::Debug for EventLoop<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventLoop").field("set", &self.set).finish_non_exhaustive()
    }
}

impl Drop for EventLoop<'_> {
    fn drop(&mut self) {
        // In a copy that a fork has made, another thread may have held the lock.
        if self.set.shared.is_original() {
            self.shared.end();
        }
    }
}
