//! Closing a port from another thread.

use std::sync::{Arc, Weak};

use crate::line::Line;

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
    line: Weak<Line>,
}

impl Closer {
    pub(super) fn new(hold: &Hold) -> Self {
        Self { endpoint: Arc::downgrade(&hold.endpoint), line: Weak::clone(hold.shared_line()) }
    }

    /// Closes the port: whatever was not received is dropped, whoever waits on it gets
    /// [`Closed`](crate::CloseReason::Closed), and so does the other end after what was posted.
    ///
    /// A post that another thread makes at the same moment is either delivered whole or reports that
    /// the port is closed. Closing twice does nothing; nor does closing what is closed or gone.
    pub fn close(&self) {
        // Held until the epoch says closed: the port's owner may drop it as soon as it learns of this
        // close, and whoever drops the line last hangs it up. Taken before the endpoint, as the owner
        // drops it after.
        let line = self.line.upgrade();
        let Some(endpoint) = self.endpoint.upgrade() else { return };
        if !endpoint.is_original() {
            return;
        }
        endpoint.close(false);
        if let Some(line) = line {
            line.hang_up();
        }
    }
}
