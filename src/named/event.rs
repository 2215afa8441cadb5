//! What a handler is called with.

use std::cell::Cell;
use std::fmt;
use std::ops::Deref;

use crate::port::{EventLoop, Sender};

use super::handlers::{HandlerId, Handlers};
use super::message::NamedMessage;

/// What is to be done with a loop.
pub(super) type Work<'h> = Box<dyn FnOnce(&mut EventLoop<'h>) + 'h>;
/// Has it done when no handler runs.
pub(super) type Later<'e, 'h> = dyn Fn(Work<'h>) + 'e;

/// What a [handler](Handlers) is called with: the [message](NamedMessage), to which it dereferences, on what it came, and
/// from whom.
///
/// A message itself names no sender. The identity is what the program that called
/// [`dispatch`](Handlers::dispatch) knows of the other end: the [`Credentials`](crate::Credentials) with which a caller
/// came to its server, the child that it has spawned.
///
/// ```
/// use zeroport::{Handlers, MessageChannel, NamedMessage, transfer};
///
/// let MessageChannel { port1, port2 } = MessageChannel::new()?;
/// let mut handlers = Handlers::<&str>::new();
/// handlers.on("request-worker-channel", |event| {
///     if *event.identity() == "the main window" {
///         let MessageChannel { port1: _worker, port2: client } = MessageChannel::new().unwrap();
///         event.sender().post_message("provide-worker-channel", [].as_slice(), client).unwrap();
///     }
/// });
///
/// for identity in ["somebody else", "the main window"] {
///     port1.post_message("request-worker-channel", [].as_slice(), transfer![])?;
///     handlers.dispatch(port2.sender(), &identity, &port2.recv()?);
/// }
/// let message = NamedMessage::open(port1.recv()?)?;
/// assert_eq!((message.name(), message.port_count()), ("provide-worker-channel", 1));
/// assert!(port1.try_recv().is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct NamedEvent<'e, 'h, S> {
    pub(super) message: &'e NamedMessage<'e>,
    pub(super) sender: &'e Sender,
    pub(super) identity: &'e S,
    pub(super) handlers: &'e Handlers<'h, S>,
    /// The handler that is called now.
    pub(super) current: Cell<Option<HandlerId>>,
    pub(super) later: Option<&'e Later<'e, 'h>>,
}

impl<'e, 'h, S> NamedEvent<'e, 'h, S> {
    /// The sending half of the port on which the message came.
    pub fn sender(&self) -> &'e Sender {
        self.sender
    }

    /// Whose port that is, as [`dispatch`](Handlers::dispatch) was told.
    pub fn identity(&self) -> &'e S {
        self.identity
    }

    /// All handlers, of which some may be added and removed from inside of one. What is added is called from the next
    /// message on; what is removed is not called any more, be it that its turn with this message had come.
    pub fn handlers(&self) -> &'e Handlers<'h, S> {
        self.handlers
    }

    /// Removes the handler that is called now.
    ///
    /// ```
    /// use zeroport::{Handlers, MessageChannel, transfer};
    ///
    /// let MessageChannel { port1, port2 } = MessageChannel::new()?;
    /// let mut count = 0;
    /// let mut handlers = Handlers::new();
    /// handlers.on("tick", |event| {
    ///     count += 1;
    ///     if count == 2 {
    ///         event.off();
    ///     }
    /// });
    /// for _ in 0..3 {
    ///     port1.post_message("tick", [].as_slice(), transfer![])?;
    ///     handlers.dispatch(port2.sender(), &(), &port2.recv()?);
    /// }
    /// assert_eq!(handlers.unhandled(), 1);
    /// drop(handlers);
    /// assert_eq!(count, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn off(&self) {
        if let Some(current) = self.current.get() {
            self.handlers.off(current);
        }
    }

    /// Does something with the loop that has told of the message, when its handlers have returned and before the next
    /// one: takes in a port that came with it, say. See [`Turn::later`](crate::Turn::later), and
    /// [`dispatch_in`](Handlers::dispatch_in) for an example.
    ///
    /// False if there is no loop, because the message was given to [`dispatch`](Handlers::dispatch) or
    /// [`serve`](Handlers::serve). Then it is not done, and is dropped.
    pub fn later(&self, work: impl FnOnce(&mut EventLoop<'h>) + 'h) -> bool {
        let Some(later) = self.later else { return false };
        later(Box::new(work));
        true
    }
}

impl<'e, S> Deref for NamedEvent<'e, '_, S> {
    type Target = NamedMessage<'e>;

    fn deref(&self) -> &NamedMessage<'e> {
        self.message
    }
}

impl<S: fmt::Debug> fmt::Debug for NamedEvent<'_, '_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NamedEvent")
            .field("message", self.message)
            .field("identity", self.identity)
            .finish_non_exhaustive()
    }
}
