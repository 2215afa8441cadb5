//! Closing a port from another thread.

use std::sync::{Arc, Weak};

use super::endpoint::Endpoint;
use super::hold::Hold;

/// Closes a port from any thread, and wakes whoever waits on it.
///
/// It does not keep the port open, and it may outlive it. Made by
/// [`MessagePort::closer`](crate::MessagePort::closer).
///
/// ```
/// use zeroport::{CloseReason, MessageChannel, RecvError};
///
/// let MessageChannel { port1, port2 } = MessageChannel::new()?;
/// let closer = port1.closer();
/// let waiting = std::thread::spawn(move || port1.recv().map(drop));
/// closer.close();
/// assert_eq!(waiting.join().unwrap(), Err(RecvError::Closed(CloseReason::Closed)));
/// assert_eq!(port2.recv().unwrap_err(), RecvError::Closed(CloseReason::Closed));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Closer {
    endpoint: Weak<Endpoint>,
}

impl Closer {
    pub(super) fn new(hold: &Hold) -> Self {
        Self { endpoint: Arc::downgrade(&hold.endpoint) }
    }

    /// Closes the port: whatever was not received is dropped, whoever waits on it gets
    /// [`Closed`](crate::CloseReason::Closed), and so does the other end after what was posted.
    ///
    /// Ports in messages that were not received are let go, and [`Lost`](crate::CloseReason::Lost), when
    /// the port's handle (each half, if it was split) is next used to receive or post, or is dropped.
    ///
    /// A post that another thread makes at the same moment is either delivered whole or reports that
    /// the port is closed. Closing twice does nothing; nor does closing what is closed, gone, or given
    /// away in a message.
    pub fn close(&self) {
        if let Some(endpoint) = self.endpoint.upgrade() {
            endpoint.close(false);
        }
    }
}
