//! Handlers by name.
//!
//! The list of a name is replaced, never changed: whoever goes through it is not disturbed by what is added and
//! removed meanwhile. No cell is borrowed while code of the user runs, but that of the very handler, which cannot be
//! called from inside itself: to dispatch takes the registry as a whole.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{CloseReason, RecvError};
use crate::port::{Message, MessagePort, Sender, Turn};

use super::error::NamedError;
use super::event::{Later, NamedEvent, Work};
use super::message::NamedMessage;
use super::payload::Payload;

type Function<'h, S> = Box<dyn FnMut(&NamedEvent<'_, 'h, S>) + 'h>;
type ErrorFunction<'h, S> = Box<dyn FnMut(&NamedError, &Sender, &S) + 'h>;
type List<'h, S> = Rc<[Rc<Handler<'h, S>>]>;
/// A function that may be replaced while it is called.
type Place<F> = RefCell<Option<Rc<RefCell<F>>>>;

/// Names a handler. To another registry than its own it means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HandlerId(u64);

impl HandlerId {
    /// Another one than any in this process.
    fn next() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        // Relaxed: only that each is another one.
        Self(COUNT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Which messages a handler is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum For {
    All,
    /// The next one.
    Once,
    Requests,
}

struct Handler<'h, S> {
    id: HandlerId,
    which: For,
    is_off: Cell<bool>,
    function: RefCell<Function<'h, S>>,
}

struct Table<'h, S> {
    /// By bytes: so a name that came needs not be text once more to be looked for.
    names: HashMap<Rc<[u8]>, List<'h, S>, BuildHasherDefault<NameHasher>>,
    name_of: HashMap<HandlerId, Rc<[u8]>>,
}

/// Eight bytes at a time. The names in a table are the program's own: nobody else can have them collide.
#[derive(Default)]
struct NameHasher(u64);

impl Hasher for NameHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let word = chunk.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
            // An odd number without a pattern: the golden ratio.
            self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }

    fn finish(&self) -> u64 {
        // The table takes the lowest bits, and the highest are the best mixed.
        self.0.rotate_left(32)
    }
}

/// Functions that are called for [named messages](NamedMessage): what `ipcMain` and `ipcRenderer` are to Electron.
///
/// `S` is what is known of whoever is at the other end of a port: [`Credentials`](crate::Credentials) in a server, for
/// example, or nothing (`()`). It is told with each message, and handlers find it in their [event](NamedEvent).
///
/// Handlers add and remove handlers, themselves too, through [`NamedEvent::handlers`] and [`NamedEvent::off`]. They are
/// called one after the other, in the order in which they were added. When one panics, the others are not called for that
/// message, and the registry is usable as before.
///
/// What handlers borrow has to be declared before the registry, for it is dropped after it.
///
/// In a child:
///
/// ```no_run
/// use zeroport::{AsPod, DecodeError, Handlers};
///
/// let mut handlers = Handlers::new();
/// handlers.on("greet", |event| println!("{}", event.bytes().escape_ascii()));
/// handlers.handle("double", |event| Ok::<_, DecodeError>(AsPod(2 * event.pod::<u32>()?)));
/// handlers.serve(&zeroport::parent_port()?, &())?; // until the parent closes
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// With many ports, in a [`PortSet`](crate::PortSet):
///
/// ```
/// use std::collections::HashMap;
/// use zeroport::{Event, Handlers, MessageChannel, PortSet, transfer};
///
/// let mut set = PortSet::new()?;
/// let mut names = HashMap::new();
/// let MessageChannel { port1, port2 } = MessageChannel::new()?;
/// set.insert(7, port2)?;
/// names.insert(7, "the seventh");
/// port1.post_message("greet", b"hello".as_slice(), transfer![])?;
/// port1.close();
///
/// let mut greetings = Vec::new();
/// let mut handlers = Handlers::<&str>::new();
/// handlers.on("greet", |event| greetings.push((*event.identity(), event.bytes().to_vec())));
/// while !set.is_empty() {
///     for (key, event) in set.wait()? {
///         match event {
///             Event::Message(sender, message) => handlers.dispatch(sender, &names[&key], &message),
///             other => println!("{key}: {other:?}"),
///         }
///     }
/// }
/// drop(handlers);
/// assert_eq!(greetings, [("the seventh", b"hello".to_vec())]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Handlers<'h, S = ()> {
    table: RefCell<Table<'h, S>>,
    on_unhandled: Place<Function<'h, S>>,
    on_message_error: Place<ErrorFunction<'h, S>>,
    unhandled: Cell<u64>,
    message_errors: Cell<u64>,
}

impl<'h, S> Handlers<'h, S> {
    /// No handlers.
    pub fn new() -> Self {
        let table = Table { names: HashMap::default(), name_of: HashMap::new() };
        Self {
            table: RefCell::new(table),
            on_unhandled: RefCell::default(),
            on_message_error: RefCell::default(),
            unhandled: Cell::new(0),
            message_errors: Cell::new(0),
        }
    }

    /// Has a function called for each message of this name, requests too.
    pub fn on(&self, name: &str, function: impl FnMut(&NamedEvent<'_, 'h, S>) + 'h) -> HandlerId {
        self.add(name, For::All, Box::new(function))
    }

    /// Has a function called for the next message of this name, and no other.
    ///
    /// ```
    /// use zeroport::{Handlers, MessageChannel, transfer};
    ///
    /// let MessageChannel { port1, port2 } = MessageChannel::new()?;
    /// let mut port = None;
    /// let mut handlers = Handlers::new();
    /// handlers.once("provide-worker-channel", |event| port = event.take_port().ok().flatten());
    ///
    /// let MessageChannel { port1: worker, port2: client } = MessageChannel::new()?;
    /// port1.post_message("provide-worker-channel", [].as_slice(), client)?;
    /// port1.post_message("provide-worker-channel", [].as_slice(), transfer![])?;
    /// port2.drain().for_each(|message| handlers.dispatch(port2.sender(), &(), &message));
    /// assert_eq!(handlers.unhandled(), 1);
    /// drop(handlers);
    /// port.expect("the port").post_bytes(b"21")?;
    /// assert_eq!(worker.recv()?.bytes(), b"21");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn once(&self, name: &str, function: impl FnMut(&NamedEvent<'_, 'h, S>) + 'h) -> HandlerId {
        self.add(name, For::Once, Box::new(function))
    }

    /// Has a function called for each request of this name; what it returns is the reply. An error is told to the
    /// requester as [`ReplyError::Failed`](crate::ReplyError::Failed). For replies later, with ports or in a stream, use
    /// [`on`](Self::on) and [`responder`](NamedMessage::responder).
    ///
    /// A request is replied to once, by the first who does; of two such functions for one name, the later is called
    /// only once the earlier is [off](Self::off).
    ///
    /// ```
    /// use zeroport::{AsPod, Handlers, MessageChannel, ReplyError, transfer};
    ///
    /// let MessageChannel { port1, port2 } = MessageChannel::new()?;
    /// let mut handlers = Handlers::new();
    /// handlers.handle("divide", |event| match event.pod::<[u32; 2]>() {
    ///     Ok([_, 0]) => Err("nobody divides by 0".to_string()),
    ///     Ok([n, by]) => Ok(AsPod(n / by)),
    ///     Err(error) => Err(error.to_string()),
    /// });
    ///
    /// let ask = |numbers: [u32; 2]| port1.invoke("divide", &AsPod(numbers), transfer![]);
    /// let (six, failed, mute) = (ask([42, 7])?, ask([42, 0])?, port1.invoke("multiply", &AsPod(1u32), transfer![])?);
    /// port2.drain().for_each(|message| handlers.dispatch(port2.sender(), &(), &message));
    /// assert_eq!(six.recv()?.pod::<u32>()?, &6);
    /// assert_eq!(failed.recv().unwrap_err(), ReplyError::Failed("nobody divides by 0".into()));
    /// assert_eq!(mute.recv().unwrap_err(), ReplyError::Failed("nobody handles \"multiply\"".into()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn handle<R: Payload, E: fmt::Display>(
        &self,
        name: &str,
        mut function: impl FnMut(&NamedEvent<'_, 'h, S>) -> Result<R, E> + 'h,
    ) -> HandlerId {
        let reply = move |event: &NamedEvent<'_, 'h, S>| {
            let responder = match event.responder() {
                Ok(Some(responder)) => responder,
                // Somebody has replied already.
                Ok(None) => return,
                Err(error) => {
                    let error = NamedError::ReplyPort(error);
                    return event.handlers.tell_error(&error, event.sender, event.identity);
                }
            };
            // The requester may have gone; who cannot be told needs not be told.
            let _ = match function(event) {
                Ok(reply) => responder.reply(&reply),
                Err(error) => responder.fail(&error.to_string()),
            };
        };
        self.add(name, For::Requests, Box::new(reply))
    }

    /// Removes a handler. False if it had been removed already, or was for one message that has come.
    pub fn off(&self, id: HandlerId) -> bool {
        // Dropped when nothing is borrowed any more: so may be what the function holds.
        let removed = self.remove(id);
        removed.is_some()
    }

    /// Has a function called for each message that nobody handles, instead of that which was set before. What it does
    /// not take of the message is dropped with it; the requester of a request is told that nobody handles it.
    pub fn on_unhandled(&self, function: impl FnMut(&NamedEvent<'_, 'h, S>) + 'h) {
        let function: Function<'h, S> = Box::new(function);
        drop(self.on_unhandled.replace(Some(Rc::new(RefCell::new(function)))));
    }

    /// How many messages came that nobody handles.
    pub fn unhandled(&self) -> u64 {
        self.unhandled.get()
    }

    /// Has a function called for each message that is none with a name, or has a broken envelope, instead of that which
    /// was set before. Nothing else is lost.
    pub fn on_message_error(&self, function: impl FnMut(&NamedError, &Sender, &S) + 'h) {
        let function: ErrorFunction<'h, S> = Box::new(function);
        drop(self.on_message_error.replace(Some(Rc::new(RefCell::new(function)))));
    }

    /// How many such messages came.
    pub fn message_errors(&self) -> u64 {
        self.message_errors.get()
    }

    /// Calls the handlers of a message, which came on the port of this sending half, from whoever this identity is
    /// of. It does not wait for anything (but what handlers wait for).
    pub fn dispatch(&mut self, sender: &Sender, identity: &S, message: &Message<'_>) {
        self.tell(sender, identity, message, None);
    }

    /// As [`dispatch`](Self::dispatch), for a message that came to a port of an [`EventLoop`](crate::EventLoop), which
    /// handlers then reach by [`NamedEvent::later`].
    ///
    /// What serves several ports is shared by their listeners. (A registry whose own handlers hold it is never dropped.)
    ///
    /// ```
    /// use std::cell::RefCell;
    /// use std::rc::Rc;
    /// use zeroport::{AsPod, EventLoop, Handlers, MessageChannel, transfer};
    ///
    /// let MessageChannel { port1: main, port2: parent } = MessageChannel::new()?;
    /// let MessageChannel { port1: client, port2: new_client } = MessageChannel::new()?;
    /// main.post_message("new-client", [].as_slice(), new_client)?;
    /// let doubled = client.invoke("double", &AsPod(21u32), transfer![])?;
    /// drop((main, client));
    ///
    /// let work = Handlers::new();
    /// work.handle("double", |event| event.pod::<u32>().map(|n| AsPod(2 * n)));
    /// let work = Rc::new(RefCell::new(work)); // for all clients
    /// let mut from_main = Handlers::new();
    /// from_main.on("new-client", move |event| {
    ///     let [client] = event.take_ports().expect("a port");
    ///     let work = Rc::clone(&work);
    ///     event.later(move |events| {
    ///         let client = events.insert(client).expect("the kernel can watch it");
    ///         events.listeners_of(client).on_message(move |turn, message| {
    ///             work.borrow_mut().dispatch_in(turn, &client, message);
    ///         });
    ///     });
    /// });
    ///
    /// let mut events = EventLoop::new()?;
    /// let parent = events.insert(parent)?;
    /// events.listeners_of(parent).on_message(move |turn, message| {
    ///     from_main.dispatch_in(turn, &parent, message);
    /// });
    /// events.run()?; // until all have gone
    /// assert_eq!(doubled.recv()?.pod::<u32>()?, &42);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn dispatch_in(&mut self, turn: &mut Turn<'_, 'h>, identity: &S, message: &Message<'_>) {
        let sender = turn.sender();
        let turn = RefCell::new(turn);
        let later = |work: Work<'h>| turn.borrow_mut().later(work);
        self.tell(sender, identity, message, Some(&later));
    }

    /// Receives messages from a port and [dispatches](Self::dispatch) them, until the channel has ended, and says why
    /// it has.
    ///
    /// # Errors
    ///
    /// [`RecvError::Detached`], and [`RecvError::Os`], after which it can be called again.
    pub fn serve(&mut self, port: &MessagePort, identity: &S) -> Result<CloseReason, RecvError> {
        loop {
            match port.recv() {
                Ok(message) => self.dispatch(port.sender(), identity, &message),
                Err(RecvError::Closed(reason)) => return Ok(reason),
                Err(error) => return Err(error),
            }
        }
    }

    fn tell(
        &mut self,
        sender: &Sender,
        identity: &S,
        message: &Message<'_>,
        later: Option<&Later<'_, 'h>>,
    ) {
        let message = match NamedMessage::of(message) {
            Ok(message) => message,
            Err(error) => return self.tell_error(&error, sender, identity),
        };
        let (handlers, current) = (&*self, Cell::new(None));
        let event = NamedEvent { message: &message, sender, identity, handlers, current, later };
        if !self.call_all(&event) {
            self.tell_unhandled(&event);
        }
    }

    fn add(&self, name: &str, which: For, function: Function<'h, S>) -> HandlerId {
        let mut table = self.table.borrow_mut();
        let id = HandlerId::next();
        let function = RefCell::new(function);
        let handler = Rc::new(Handler { id, which, is_off: Cell::new(false), function });
        let name = name.as_bytes();
        let name = table.names.get_key_value(name).map_or(name.into(), |(name, _)| Rc::clone(name));
        let before = table.names.get(&name).map(|list| list.to_vec());
        let list = before.into_iter().flatten().chain([handler]).collect();
        table.names.insert(Rc::clone(&name), list);
        table.name_of.insert(id, name);
        id
    }

    fn remove(&self, id: HandlerId) -> Option<List<'h, S>> {
        let mut table = self.table.borrow_mut();
        let name = table.name_of.remove(&id)?;
        let list = table.names.remove(&name)?;
        list.iter().filter(|handler| handler.id == id).for_each(|handler| handler.is_off.set(true));
        let rest: List<'h, S> = list.iter().filter(|handler| handler.id != id).cloned().collect();
        if !rest.is_empty() {
            table.names.insert(name, rest);
        }
        Some(list)
    }

    /// Whether there was one.
    fn call_all(&self, event: &NamedEvent<'_, 'h, S>) -> bool {
        let list = self.table.borrow().names.get(event.name_bytes()).cloned();
        let mut is_handled = false;
        for handler in list.iter().flat_map(|list| list.iter()) {
            let is_passed_by = handler.which == For::Requests && !event.is_request();
            if is_passed_by || handler.is_off.get() {
                continue;
            }
            if handler.which == For::Once {
                self.off(handler.id);
            }
            event.current.set(Some(handler.id));
            is_handled = true;
            (handler.function.borrow_mut())(event);
        }
        is_handled
    }

    fn tell_unhandled(&self, event: &NamedEvent<'_, 'h, S>) {
        self.unhandled.set(self.unhandled.get() + 1);
        event.current.set(None);
        let function = self.on_unhandled.borrow().clone();
        if let Some(function) = function {
            (function.borrow_mut())(event);
        }
        if event.is_request()
            && let Ok(Some(responder)) = event.responder()
        {
            // The requester may have gone.
            let _ = responder.fail(&format!("nobody handles {:?}", event.name()));
        }
    }

    fn tell_error(&self, error: &NamedError, sender: &Sender, identity: &S) {
        self.message_errors.set(self.message_errors.get() + 1);
        let function = self.on_message_error.borrow().clone();
        if let Some(function) = function {
            (function.borrow_mut())(error, sender, identity);
        }
    }
}

impl<S> Default for Handlers<'_, S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> fmt::Debug for Handlers<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handlers")
            .field("handlers", &self.table.borrow().name_of.len())
            .field("unhandled", &self.unhandled())
            .field("message_errors", &self.message_errors())
            .finish_non_exhaustive()
    }
}
