//! Who listens to the ports of an event loop, and what they are to be told.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;

use bytemuck::AnyBitPattern;
use slab::Slab;

use crate::error::{CloseReason, DecodeError, RecvError};
use crate::tag::Tagged;

use super::event_loop::EventLoop;
use super::loop_turn::Turn;
use super::message::Message;

/// A port of an [`EventLoop`](crate::EventLoop). No other port of that loop has it, now or later; to another loop it
/// means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortId {
    place: usize,
    number: u64,
}

/// One listener of a port, to be [removed](Listeners::remove).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId(u64);

/// What becomes of a message that the handlers of a port cannot have.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// It is not of the type that `on_value` or [`on_pod`](Listeners::on_pod) expects; it was dropped, with the ports in
    /// it.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// It cannot be had now ([`RecvError::Os`]). It is not lost: the loop tries again once a millisecond, and tells once.
    #[error(transparent)]
    Receive(#[from] RecvError),
}

pub(super) type Hear<'h> =
    Box<dyn FnMut(&mut Turn<'_, 'h>, &Message<'_>) -> Result<(), DecodeError> + 'h>;
pub(super) type HearError<'h> = Box<dyn FnMut(&mut Turn<'_, 'h>, MessageError) + 'h>;
pub(super) type HearEnd<'h> = Box<dyn FnOnce(&mut EventLoop<'h>, CloseReason) + 'h>;
pub(super) type HearPanic<'h> = Box<dyn FnMut(Box<dyn Any + Send>) + 'h>;
/// What is to be done when no handler runs.
pub(super) type Later<'h> = Box<dyn FnOnce(&mut EventLoop<'h>) + 'h>;

struct Listener<'h> {
    id: ListenerId,
    is_once: bool,
    /// `None` while it runs. What replaces it meanwhile stays.
    hear: Option<Hear<'h>>,
}

/// What is known of one port.
pub(super) struct Entry<'h> {
    id: PortId,
    /// In the order in which they came, so by their numbers.
    listeners: Vec<Listener<'h>>,
    /// Which of them is the one handler.
    handler: Option<ListenerId>,
    /// As in [`Listener`], if there is one.
    on_error: Option<Option<HearError<'h>>>,
    pub(super) on_close: Option<HearEnd<'h>>,
    is_started: bool,
    /// Whether it stands in the list of those that changed.
    pub(super) is_changed: bool,
    /// Whether a handler has closed it: it leaves once that has returned.
    is_closed: bool,
    /// Whether it was told that the next message cannot be had.
    is_failing: bool,
    /// The end that nobody has heard of.
    pub(super) ended: Option<CloseReason>,
}

impl<'h> Entry<'h> {
    fn new(id: PortId) -> Self {
        Self {
            id,
            listeners: Vec::new(),
            handler: None,
            on_error: None,
            on_close: None,
            is_started: false,
            is_changed: false,
            is_closed: false,
            is_failing: false,
            ended: None,
        }
    }

    /// Whether somebody is there for its messages. Else they wait.
    pub(super) fn listens(&self) -> bool {
        self.is_started && !self.listeners.is_empty()
    }

    fn find(&mut self, id: ListenerId) -> Option<&mut Listener<'h>> {
        self.listeners.iter_mut().find(|listener| listener.id == id)
    }

    fn remove(&mut self, id: ListenerId) -> Option<Listener<'h>> {
        let at = self.listeners.iter().position(|listener| listener.id == id)?;
        Some(self.listeners.remove(at))
    }
}

/// All ports of a loop, and what handlers have asked for.
#[derive(Default)]
pub(super) struct Ports<'h> {
    entries: Slab<Entry<'h>>,
    ports_so_far: u64,
    listeners_so_far: u64,
    pub(super) changed: Vec<PortId>,
    pub(super) later: VecDeque<Later<'h>>,
    pub(super) is_stopped: bool,
    pub(super) undecoded: u64,
    pub(super) on_panic: Option<HearPanic<'h>>,
}

impl<'h> Ports<'h> {
    pub(super) fn insert(&mut self) -> PortId {
        let entry = self.entries.vacant_entry();
        let id = PortId { place: entry.key(), number: self.ports_so_far };
        self.ports_so_far += 1;
        entry.insert(Entry::new(id));
        self.change(id);
        id
    }

    pub(super) fn remove(&mut self, id: PortId) -> Option<Entry<'h>> {
        self.find(id)?;
        self.entries.try_remove(id.place)
    }

    /// One that was not closed.
    pub(super) fn get(&mut self, id: PortId) -> Option<&mut Entry<'h>> {
        self.find(id).filter(|entry| !entry.is_closed)
    }

    fn find(&mut self, id: PortId) -> Option<&mut Entry<'h>> {
        self.entries.get_mut(id.place).filter(|entry| entry.id == id)
    }

    /// As [`get`](Self::get), for who changes something about it.
    fn change(&mut self, id: PortId) -> Option<&mut Entry<'h>> {
        // Not through `get`: the list is borrowed beside it.
        let entry = self.entries.get_mut(id.place)?;
        if entry.id != id || entry.is_closed {
            return None;
        }
        if !entry.is_changed {
            entry.is_changed = true;
            self.changed.push(id);
        }
        Some(entry)
    }

    /// From now on nothing of it reaches a handler.
    pub(super) fn mark_closed(&mut self, id: PortId) {
        if let Some(entry) = self.get(id) {
            entry.is_closed = true;
            self.later.push_back(Box::new(move |events| events.close(id)));
        }
    }

    /// Whoever listens from now on has not heard the message that is told.
    pub(super) fn listeners_so_far(&self) -> u64 {
        self.listeners_so_far
    }

    /// The first listener among these, to be run and [put back](Self::put_back).
    pub(super) fn take_listener(
        &mut self,
        port: PortId,
        among: std::ops::Range<u64>,
    ) -> Option<(u64, Hear<'h>)> {
        let entry = self.get(port)?;
        let listener =
            entry.listeners.iter_mut().find(|listener| among.contains(&listener.id.0))?;
        let (id, is_once, hear) = (listener.id, listener.is_once, listener.hear.take()?);
        if is_once && let Some(entry) = self.change(port) {
            entry.remove(id);
        }
        Some((id.0, hear))
    }

    /// Unless it was removed or replaced meanwhile.
    pub(super) fn put_back(&mut self, port: PortId, id: u64, hear: Hear<'h>) {
        if let Some(entry) = self.find(port)
            && let Some(listener) = entry.find(ListenerId(id))
        {
            listener.hear.get_or_insert(hear);
        }
    }

    pub(super) fn take_error_handler(&mut self, port: PortId) -> Option<HearError<'h>> {
        self.get(port)?.on_error.as_mut()?.take()
    }

    pub(super) fn put_error_handler_back(&mut self, port: PortId, hear: HearError<'h>) {
        if let Some(entry) = self.find(port)
            && let Some(handler) = &mut entry.on_error
        {
            handler.get_or_insert(hear);
        }
    }

    /// Notes whether the next message of a port can be had. True if that has changed.
    pub(super) fn set_failing(&mut self, port: PortId, is_failing: bool) -> bool {
        self.find(port)
            .is_some_and(|entry| std::mem::replace(&mut entry.is_failing, is_failing) != is_failing)
    }

    pub(super) fn tell_panic(&mut self, payload: Box<dyn Any + Send>) {
        if let Some(hear) = &mut self.on_panic {
            hear(payload);
        }
    }
}

/// Who listens to one port of an [`EventLoop`](crate::EventLoop).
///
/// What is said of it here holds from the next message on, also for a handler that changes itself. Listeners are called
/// in the order in which they came; each hears every message. While nobody listens, messages wait.
///
/// Of a port that was closed, has ended or was removed, nothing is left to listen to: then none of this does anything.
///
/// ```
/// use zeroport::{CloseReason, EventLoop, MessageChannel};
///
/// let MessageChannel { port1, port2 } = MessageChannel::new()?;
/// (1..=3u32).try_for_each(|number| port1.post_pod(&number))?;
/// port1.close();
///
/// let (mut first, mut sum, mut end) = (0, 0, None);
/// let mut events = EventLoop::new()?;
/// let port = events.insert(port2)?;
/// events.listeners_of(port).once(|_, message| first = *message.pod::<u32>().unwrap());
/// events
///     .listeners_of(port)
///     .on_pod::<u32>(|_, number, _| sum += number)
///     .on_close(|_, reason| end = Some(reason));
/// events.run()?;
/// drop(events);
/// assert_eq!((first, sum, end), (1, 6, Some(CloseReason::Closed)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Listeners<'l, 'h> {
    port: PortId,
    ports: &'l mut Ports<'h>,
}

impl<'l, 'h> Listeners<'l, 'h> {
    pub(super) fn new(port: PortId, ports: &'l mut Ports<'h>) -> Self {
        Self { port, ports }
    }

    /// Sets the one handler for messages, in the place of the one before, and starts the port.
    pub fn on_message(
        &mut self,
        mut hear: impl FnMut(&mut Turn<'_, 'h>, &Message<'_>) + 'h,
    ) -> &mut Self {
        self.set_handler(Box::new(move |turn, message| {
            hear(turn, message);
            Ok(())
        }))
    }

    /// As [`on_message`](Self::on_message), for values of one type, which are validated and read in place. What is
    /// none goes to [`on_message_error`](Self::on_message_error), and costs that message only.
    ///
    /// ```
    /// use zeroport::{EventLoop, MessageChannel};
    ///
    /// let MessageChannel { port1, port2 } = MessageChannel::new()?;
    /// port1.post(&"good".to_string())?;
    /// port1.post_bytes(b"bad")?;
    /// port1.post(&"good again".to_string())?;
    /// port1.close();
    ///
    /// let heard = std::cell::RefCell::new(Vec::new());
    /// let mut events = EventLoop::new()?;
    /// let port = events.insert(port2)?;
    /// events
    ///     .listeners_of(port)
    ///     .on_value::<String>(|_, text, _| heard.borrow_mut().push(text.to_string()))
    ///     .on_message_error(|_, _| heard.borrow_mut().push("?".to_string()));
    /// events.run()?;
    /// assert_eq!(*heard.borrow(), ["good", "?", "good again"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg(feature = "rkyv")]
    pub fn on_value<T: crate::Readable + 'h>(
        &mut self,
        mut hear: impl FnMut(&mut Turn<'_, 'h>, &T::Archived, &Message<'_>) + 'h,
    ) -> &mut Self {
        self.set_handler(Box::new(move |turn, message| {
            hear(turn, message.get::<T>()?, message);
            Ok(())
        }))
    }

    /// As [`on_message`](Self::on_message), for plain data of one type. What is none goes to
    /// [`on_message_error`](Self::on_message_error), and costs that message only.
    pub fn on_pod<T: Tagged + AnyBitPattern + 'h>(
        &mut self,
        mut hear: impl FnMut(&mut Turn<'_, 'h>, &T, &Message<'_>) + 'h,
    ) -> &mut Self {
        self.set_handler(Box::new(move |turn, message| {
            hear(turn, message.pod::<T>()?, message);
            Ok(())
        }))
    }

    /// Removes the one handler for messages. The port stays started; if nobody else listens, its messages wait.
    pub fn remove_on_message(&mut self) -> &mut Self {
        if let Some(entry) = self.ports.change(self.port)
            && let Some(handler) = entry.handler.take()
        {
            entry.remove(handler);
        }
        self
    }

    /// Adds a listener. It does not start the port: see [`start`](Self::start).
    pub fn add(
        &mut self,
        mut hear: impl FnMut(&mut Turn<'_, 'h>, &Message<'_>) + 'h,
    ) -> ListenerId {
        self.push(
            false,
            Box::new(move |turn, message| {
                hear(turn, message);
                Ok(())
            }),
        )
    }

    /// Adds a listener for one message: the next one. What comes after it waits, if nobody else listens. It does not
    /// start the port: see [`start`](Self::start).
    pub fn once(&mut self, hear: impl FnOnce(&mut Turn<'_, 'h>, &Message<'_>) + 'h) -> ListenerId {
        let mut hear = Some(hear);
        self.push(
            true,
            Box::new(move |turn, message| {
                if let Some(hear) = hear.take() {
                    hear(turn, message);
                }
                Ok(())
            }),
        )
    }

    /// Removes a listener. If nobody else listens, messages wait.
    pub fn remove(&mut self, listener: ListenerId) -> &mut Self {
        if let Some(entry) = self.ports.change(self.port) {
            entry.remove(listener);
            if entry.handler == Some(listener) {
                entry.handler = None;
            }
        }
        self
    }

    /// Starts the port: what waits, and what comes, goes to those who listen. Without any, it waits for them. A second
    /// start does nothing.
    pub fn start(&mut self) -> &mut Self {
        self.set_started(true)
    }

    /// Has messages wait until the next [`start`](Self::start), or [`on_message`](Self::on_message), whoever listens.
    pub fn pause(&mut self) -> &mut Self {
        self.set_started(false)
    }

    /// Sets the handler for the end of the channel, in the place of the one before. It is told once, after the last
    /// message, and only when the other end has gone: not when this one was closed, removed or given away. A port that is
    /// not started, or that nobody listens to, is told when no message waits in it.
    ///
    /// By then the port has left the loop. If the end came before, when nobody had listened yet, it is told now: in a turn
    /// of its own, as always.
    pub fn on_close(
        &mut self,
        hear: impl FnOnce(&mut EventLoop<'h>, CloseReason) + 'h,
    ) -> &mut Self {
        if let Some(entry) = self.ports.change(self.port) {
            entry.on_close = Some(Box::new(hear));
        }
        self
    }

    /// Removes the handler for the end.
    pub fn remove_on_close(&mut self) -> &mut Self {
        if let Some(entry) = self.ports.change(self.port) {
            entry.on_close = None;
        }
        self
    }

    /// Sets the handler for messages that cannot be had, in the place of the one before. Without one, those that are
    /// undecodable are [counted](crate::EventLoop::undecoded), and no more.
    pub fn on_message_error(
        &mut self,
        hear: impl FnMut(&mut Turn<'_, 'h>, MessageError) + 'h,
    ) -> &mut Self {
        if let Some(entry) = self.ports.get(self.port) {
            entry.on_error = Some(Some(Box::new(hear)));
        }
        self
    }

    /// Removes the handler for messages that cannot be had.
    pub fn remove_on_message_error(&mut self) -> &mut Self {
        if let Some(entry) = self.ports.get(self.port) {
            entry.on_error = None;
        }
        self
    }

    fn set_handler(&mut self, hear: Hear<'h>) -> &mut Self {
        self.set_started(true);
        let handler = self.ports.get(self.port).and_then(|entry| entry.find(entry.handler?));
        match handler {
            Some(handler) => handler.hear = Some(hear),
            None => {
                let id = self.push(false, hear);
                if let Some(entry) = self.ports.get(self.port) {
                    entry.handler = Some(id);
                }
            }
        }
        self
    }

    fn set_started(&mut self, is_started: bool) -> &mut Self {
        if let Some(entry) = self.ports.change(self.port) {
            entry.is_started = is_started;
        }
        self
    }

    fn push(&mut self, is_once: bool, hear: Hear<'h>) -> ListenerId {
        let id = ListenerId(self.ports.listeners_so_far);
        self.ports.listeners_so_far += 1;
        if let Some(entry) = self.ports.change(self.port) {
            entry.listeners.push(Listener { id, is_once, hear: Some(hear) });
        }
        id
    }
}

impl fmt::Debug for Listeners<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listeners").field("port", &self.port).finish_non_exhaustive()
    }
}
