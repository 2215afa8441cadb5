//! Who listens to a port of an event loop: set, replaced and removed.

use std::fmt;

use bytemuck::AnyBitPattern;

use crate::error::{CloseReason, DecodeError, RecvError};
use crate::tag::Tagged;

use super::event_loop::EventLoop;
use super::loop_ports::{Hear, ListenerId, PortId, Ports};
use super::loop_turn::Turn;
use super::message::Message;

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

/// Who listens to one port of an [`EventLoop`](crate::EventLoop).
///
/// Listeners are called in the order in which they came; each hears every message. While nobody listens, messages wait.
/// While a message is told: who is added hears the next one; who is removed hears nothing more; a handler that is set in
/// the place of another hears what that one has not heard yet.
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
        let id = ListenerId::next();
        if let Some(entry) = self.ports.change(self.port) {
            entry.push(id, is_once, hear);
        }
        id
    }
}

impl fmt::Debug for Listeners<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listeners").field("port", &self.port).finish_non_exhaustive()
    }
}
