//! What [`crate::AsyncPort`] needs of a port beyond what every loop has ([`super::arm`]).

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::fork::Mark;

use super::MessagePort;
use super::hold::Hold;
use super::post::Sender;
use super::receive::Receiver;
use super::wait::WaitStrategy;

impl MessagePort {
    /// The halves: what they wake each other with they make when they first wait.
    pub(crate) fn into_halves(self) -> (Sender, Receiver) {
        (self.sender, self.receiver)
    }
}

impl Receiver {
    /// The descriptor, for who has a runtime watch it.
    pub(crate) fn shared_pollable(&self) -> io::Result<Arc<OwnedFd>> {
        self.hold().pollable().map(Arc::clone)
    }

    /// Makes this half fit for a thread, while the other one is in a task.
    pub(crate) fn split(&self) {
        self.hold().endpoint.split();
    }

    pub(crate) fn mark(&self) -> Mark {
        self.hold().mark()
    }

    pub(crate) fn wait_strategy(&self) -> WaitStrategy {
        self.hold().waits.strategy()
    }

    /// Looks for a message as long as the strategy has it, before anything is announced.
    pub(crate) fn spin(&self) -> bool {
        self.hold().waits.strategy() != WaitStrategy::Sleep && self.look_for_a_while()
    }
}

impl Sender {
    /// The descriptor, for who has a runtime watch it.
    pub(crate) fn shared_pollable(&self) -> io::Result<Arc<OwnedFd>> {
        self.hold().pollable().map(Arc::clone)
    }

    /// Makes this half fit for a thread, while the other one is in a task.
    pub(crate) fn split(&self) {
        self.hold().endpoint.split();
    }

    pub(crate) fn mark(&self) -> Mark {
        self.hold().mark()
    }

    pub(crate) fn wait_strategy(&self) -> WaitStrategy {
        self.hold().waits.strategy()
    }
}

impl Hold {
    fn mark(&self) -> Mark {
        self.endpoint.mark()
    }
}
