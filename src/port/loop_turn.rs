//! One message, told to all who listen to its port.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::RecvError;

use super::event_loop::EventLoop;
use super::listeners::{Listeners, MessageError};
use super::loop_ports::{PortId, Ports, numbers_so_far};
use super::message::Message;
use super::message_port::MessagePort;
use super::post::Sender;
use super::set_events::Lookup;

/// What a handler has of its [`EventLoop`](crate::EventLoop) while it is told of a message.
///
/// ```
/// use zeroport::{EventLoop, MessageChannel};
///
/// let MessageChannel { port1, port2 } = MessageChannel::new()?;
/// let mut events = EventLoop::new()?;
/// let port = events.insert(port2)?;
/// events.listeners_of(port).on_message(|turn, message| {
///     turn.sender().post_bytes(message.bytes()).unwrap();
///     turn.close(turn.port());
/// });
/// port1.post_bytes(b"echo")?;
/// events.run()?; // no port is left
/// assert_eq!(port1.recv()?.bytes(), b"echo");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Turn<'t, 'h> {
    port: PortId,
    sender: &'t Sender,
    lookup: Lookup<'t, PortId>,
    ports: &'t mut Ports<'h>,
}

impl<'t, 'h> Turn<'t, 'h> {
    pub(super) fn new(
        port: PortId,
        sender: &'t Sender,
        lookup: Lookup<'t, PortId>,
        ports: &'t mut Ports<'h>,
    ) -> Self {
        Self { port, sender, lookup, ports }
    }

    /// The port on which the message came.
    pub fn port(&self) -> PortId {
        self.port
    }

    /// The sending half of the port on which the message came.
    pub fn sender(&self) -> &'t Sender {
        self.sender
    }

    /// The sending half of any port of the loop, if it is there.
    pub fn sender_of(&self, port: PortId) -> Option<&'t Sender> {
        self.lookup.get(&port).map(|member| &member.port.sender)
    }

    /// Who listens to the port on which the message came.
    pub fn listeners(&mut self) -> Listeners<'_, 'h> {
        self.listeners_of(self.port)
    }

    /// Who listens to any port of the loop.
    pub fn listeners_of(&mut self, port: PortId) -> Listeners<'_, 'h> {
        Listeners::new(port, self.ports)
    }

    /// Closes a port, when the handler has returned; no handler of it is called from now on. Its messages are dropped,
    /// and the ports in them closed. Its other end is told; its own [`on_close`](Listeners::on_close) is not.
    pub fn close(&mut self, port: PortId) {
        self.ports.mark_closed(port);
    }

    /// Takes a port out of the loop when the handler has returned, with what waits in it: to give it away, say. None of
    /// that goes to its handlers, which are dropped. Nothing happens if the port is gone by then.
    ///
    /// ```
    /// use zeroport::{EventLoop, MessageChannel};
    ///
    /// let MessageChannel { port1: client, port2: port } = MessageChannel::new()?;
    /// let MessageChannel { port1: here, port2: worker } = MessageChannel::new()?;
    /// let mut events = EventLoop::new()?;
    /// let (port, here) = (events.insert(port)?, events.insert(here)?);
    /// events.listeners_of(port).on_message(move |turn, _| {
    ///     turn.remove(turn.port(), move |events, port| {
    ///         let here = events.sender_of(here).expect("it is there");
    ///         here.post_bytes_with(b"go on", port).expect("it can be given away");
    ///         events.stop();
    ///     });
    /// });
    /// client.post_bytes(b"for the loop")?;
    /// client.post_bytes(b"for the worker")?;
    /// events.run()?;
    /// let [port] = worker.recv()?.take_ports()?;
    /// assert_eq!(port.recv()?.bytes(), b"for the worker");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn remove(
        &mut self,
        port: PortId,
        work: impl FnOnce(&mut EventLoop<'h>, MessagePort) + 'h,
    ) {
        self.later(move |events| {
            if let Some(port) = events.remove(port) {
                work(events, port);
            }
        });
    }

    /// Does something with the loop itself when the handler has returned, before the next message: takes another port
    /// in, say.
    ///
    /// ```
    /// use zeroport::{EventLoop, MessageChannel, transfer};
    ///
    /// let MessageChannel { port1, port2 } = MessageChannel::new()?;
    /// let MessageChannel { port1: replies, port2: reply } = MessageChannel::new()?;
    /// port1.post_bytes_with(b"a port of my own", transfer![reply])?;
    /// replies.post_bytes(b"and its first message")?;
    ///
    /// let mut events = EventLoop::new()?;
    /// let port = events.insert(port2)?;
    /// events.listeners_of(port).on_message(|turn, message| {
    ///     let [reply] = message.take_ports().expect("a port");
    ///     turn.later(|events| {
    ///         let reply = events.insert(reply).expect("the kernel can watch it");
    ///         events.listeners_of(reply).on_message(|turn, message| {
    ///             assert_eq!(message.bytes(), b"and its first message");
    ///             turn.stop();
    ///         });
    ///     });
    /// });
    /// events.run()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn later(&mut self, work: impl FnOnce(&mut EventLoop<'h>) + 'h) {
        self.ports.later.push_back(Box::new(work));
    }

    /// Ends the loop's run when all listeners have heard this message.
    pub fn stop(&mut self) {
        self.ports.is_stopped = true;
    }

    /// Calls all who listen. What panics costs this message only.
    pub(super) fn tell(&mut self, message: &Message<'_>) {
        let port = self.port;
        self.ports.set_failing(port, false);
        let (mut from, end) = (0, numbers_so_far());
        while let Some((id, mut hear)) = self.ports.take_listener(port, from..end) {
            let heard = catch_unwind(AssertUnwindSafe(|| hear(self, message)));
            self.ports.put_back(port, id, hear);
            match heard {
                Ok(Ok(())) => {}
                Ok(Err(undecodable)) => self.tell_error(undecodable.into()),
                Err(panic) => self.ports.tell_panic(panic),
            }
            from = id + 1;
        }
    }

    /// Tells once that the next message cannot be had.
    pub(super) fn tell_failure(&mut self, failed: RecvError) {
        if self.ports.set_failing(self.port, true) {
            self.tell_error(failed.into());
        }
    }

    fn tell_error(&mut self, error: MessageError) {
        let port = self.port;
        let Some(mut hear) = self.ports.take_error_handler(port) else {
            self.ports.undecoded += u64::from(matches!(error, MessageError::Decode(_)));
            return;
        };
        let told = catch_unwind(AssertUnwindSafe(|| hear(self, error)));
        self.ports.put_error_handler_back(port, hear);
        if let Err(panic) = told {
            self.ports.tell_panic(panic);
        }
    }
}

impl fmt::Debug for Turn<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn").field("port", &self.port).finish_non_exhaustive()
    }
}
