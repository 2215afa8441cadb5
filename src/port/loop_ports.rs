//! The ports of an event loop, who listens to each, and what is to be done once no handler runs.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use slab::Slab;

use crate::error::{CloseReason, DecodeError};

use super::event_loop::EventLoop;
use super::listeners::MessageError;
use super::loop_turn::Turn;
use super::message::Message;

/// How many ports and listeners there have been in this process: so none is taken for one of another loop.
static NUMBERS: AtomicU64 = AtomicU64::new(0);

/// Another one than any before.
fn next_number() -> u64 {
    // Relaxed: only that each is another one.
    NUMBERS.fetch_add(1, Ordering::Relaxed)
}

/// Who listens from now on has a number from this one on.
pub(super) fn numbers_so_far() -> u64 {
    // Relaxed: a thread sees the numbers that it has taken itself.
    NUMBERS.load(Ordering::Relaxed)
}

/// A port of an [`EventLoop`](crate::EventLoop). No other port of that loop has it, now or later; to another loop it
/// means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortId {
    place: usize,
    number: u64,
}

/// One listener of a port, to be [removed](crate::Listeners::remove).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId(u64);

impl ListenerId {
    pub(super) fn next() -> Self {
        Self(next_number())
    }
}

pub(super) type Hear<'h> =
    Box<dyn FnMut(&mut Turn<'_, 'h>, &Message<'_>) -> Result<(), DecodeError> + 'h>;
pub(super) type HearError<'h> = Box<dyn FnMut(&mut Turn<'_, 'h>, MessageError) + 'h>;
pub(super) type HearEnd<'h> = Box<dyn FnOnce(&mut EventLoop<'h>, CloseReason) + 'h>;
pub(super) type HearPanic<'h> = Box<dyn FnMut(Box<dyn Any + Send>) + 'h>;
/// What is to be done when no handler runs.
pub(super) type Later<'h> = Box<dyn FnOnce(&mut EventLoop<'h>) + 'h>;

pub(super) struct Listener<'h> {
    id: ListenerId,
    is_once: bool,
    /// `None` while it runs. What replaces it meanwhile stays.
    pub(super) hear: Option<Hear<'h>>,
}

/// What is known of one port.
pub(super) struct Entry<'h> {
    id: PortId,
    /// In the order in which they came, so by their numbers.
    listeners: Vec<Listener<'h>>,
    /// Which of them is the one handler.
    pub(super) handler: Option<ListenerId>,
    /// As in [`Listener`], if there is one.
    pub(super) on_error: Option<Option<HearError<'h>>>,
    pub(super) on_close: Option<HearEnd<'h>>,
    pub(super) is_started: bool,
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

    /// Adds one behind the others.
    pub(super) fn push(&mut self, id: ListenerId, is_once: bool, hear: Hear<'h>) {
        self.listeners.push(Listener { id, is_once, hear: Some(hear) });
    }

    pub(super) fn find(&mut self, id: ListenerId) -> Option<&mut Listener<'h>> {
        self.listeners.iter_mut().find(|listener| listener.id == id)
    }

    pub(super) fn remove(&mut self, id: ListenerId) -> Option<Listener<'h>> {
        let at = self.listeners.iter().position(|listener| listener.id == id)?;
        Some(self.listeners.remove(at))
    }
}

/// All ports of a loop, and what handlers have asked for.
#[derive(Default)]
pub(super) struct Ports<'h> {
    entries: Slab<Entry<'h>>,
    pub(super) changed: Vec<PortId>,
    pub(super) later: VecDeque<Later<'h>>,
    pub(super) is_stopped: bool,
    pub(super) undecoded: u64,
    pub(super) on_panic: Option<HearPanic<'h>>,
}

impl<'h> Ports<'h> {
    pub(super) fn insert(&mut self) -> PortId {
        let entry = self.entries.vacant_entry();
        let id = PortId { place: entry.key(), number: next_number() };
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
    pub(super) fn change(&mut self, id: PortId) -> Option<&mut Entry<'h>> {
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
        let entry = self.find(port);
        match entry.and_then(|entry| entry.find(ListenerId(id))) {
            Some(listener) if listener.hear.is_none() => listener.hear = Some(hear),
            _ => self.let_go(hear),
        }
    }

    pub(super) fn take_error_handler(&mut self, port: PortId) -> Option<HearError<'h>> {
        self.get(port)?.on_error.as_mut()?.take()
    }

    pub(super) fn put_error_handler_back(&mut self, port: PortId, hear: HearError<'h>) {
        match self.find(port).and_then(|entry| entry.on_error.as_mut()) {
            Some(handler) if handler.is_none() => *handler = Some(hear),
            _ => self.let_go(hear),
        }
    }

    /// Drops what a user has given. What it holds may panic then: as if its handler did.
    pub(super) fn let_go<T>(&mut self, given: T) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(given))) {
            self.tell_panic(panic);
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
